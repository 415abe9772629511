"""A record's signal as a column of a data set: what the page shows, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.record import LEADS, EcgRecord

SIGNAL_RATE_HZ = 100
"""Samples per second: each is the mean of its 10 ms, more than a page of 4 px per mm shows."""
_MISSING = -32768


def signal_column(record: EcgRecord) -> NDArray[np.int16]:
    """Microvolts of all leads one after the other, in the order of `LEADS`; -32768 where the record has no number."""
    finite = np.isfinite(record.signal)
    volts, known = _means(np.where(finite, record.signal, 0.0), record), _means(finite, record)
    microvolts = np.clip(np.round(volts * 1000), -32767, 32767)
    return np.where(known > 1 - 1e-6, microvolts, _MISSING).astype(np.int16).ravel()


def _means(values: NDArray[Any], record: EcgRecord) -> NDArray[np.float64]:
    """(12, samples): the mean of each 10 ms, a sample that lies across two of them in proportion."""
    n, step = values.shape[1], record.sampling_rate / SIGNAL_RATE_HZ
    ends = np.arange(int(n / step + 1e-6) + 1) * step
    sums = np.concatenate([np.zeros((len(LEADS), 1)), values.cumsum(axis=1, dtype=np.float64)], axis=1)
    at = np.minimum(ends.astype(int), n - 1)
    means: NDArray[np.float64] = np.diff(sums[:, at] + (ends - at) * values[:, at], axis=1) / step
    return means


def signal_of(column: Sequence[int]) -> NDArray[np.float32]:
    """The column as (12, samples) mV, float32, NaN where there is no number."""
    microvolts = np.asarray(column, dtype=np.int16).reshape(len(LEADS), -1)
    return np.where(microvolts == _MISSING, np.float32(np.nan), microvolts / np.float32(1000)).astype(np.float32)
