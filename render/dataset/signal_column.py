"""A record's signal as a column of a data set, at 100 Hz: more than a page of 4 px per mm shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.record import LEADS, LOW_RATE_HZ, EcgRecord

_MISSING = -32768


def signal_column(record: EcgRecord) -> NDArray[np.int16]:
    """(12 * samples,) microvolts of the leads, one after the other in the order of `LEADS`; -32768 where missing.

    Each sample is the mean of its 10 ms.
    """
    finite = np.isfinite(record.signal)
    millivolts, shares = _means(np.where(finite, record.signal, 0.0), record), _means(finite, record)
    microvolts = np.clip(np.round(millivolts * 1000), -32767, 32767)
    return np.where(shares > 1 - 1e-6, microvolts, _MISSING).astype(np.int16).ravel()


def _means(values: NDArray[Any], record: EcgRecord) -> NDArray[np.float64]:
    """(12, samples): the mean of each 10 ms; a sample that belongs to two intervals counts in proportion."""
    n, step = values.shape[1], record.sampling_rate / LOW_RATE_HZ
    ends = np.arange(int(n / step + 1e-6) + 1) * step
    sums = np.concatenate([np.zeros((len(LEADS), 1)), values.cumsum(axis=1, dtype=np.float64)], axis=1)
    at = np.minimum(ends.astype(int), n - 1)
    means: NDArray[np.float64] = np.diff(sums[:, at] + (ends - at) * values[:, at], axis=1) / step
    return means


def signal_of(column: Sequence[int]) -> NDArray[np.float32]:
    """The column as (12, samples) mV, float32, NaN where a sample is missing."""
    microvolts = np.asarray(column, dtype=np.int16).reshape(len(LEADS), -1)
    return np.where(microvolts == _MISSING, np.float32(np.nan), microvolts / np.float32(1000)).astype(np.float32)
