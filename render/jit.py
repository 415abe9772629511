"""Loops that numba compiles: the one place that says how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba import njit


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled by numba at the first call, and kept on disk for the next process if there is room."""
    try:
        return cast(Callable[..., Any], njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return cast(Callable[..., Any], njit(nogil=True)(function))
