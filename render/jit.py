"""The project's numba decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba import njit


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled by numba at its first call; the machine code is cached on disk where that is possible."""
    try:
        return cast(Callable[..., Any], njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        return cast(Callable[..., Any], njit(nogil=True)(function))
