"""Signal-to-noise ratio of a digitized ECG, in decibels, against the recording that its page shows.

The definition is that of the contest "PhysioNet - Digitization of ECG Images" (2025/26): each lead is shifted in time,
by at most 0.2 s, and in height to where it fits best; the powers of signal and error are summed over the leads before
their ratio is taken. One rule is stricter here: the mean of a reference lead is not part of the signal, so that the
offset of a recorder does not raise the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

LONGEST_SHIFT_S = 0.2
"""Largest shift of an estimate in time, seconds."""
MOST_DB = 100.0
"""Decibels of an estimate without error."""


def lead_powers(
    reference: NDArray[np.floating], estimate: NDArray[np.floating], sampling_rate: float
) -> tuple[float, float]:
    """Power of the signal and of the error of one lead, after the best shift in time and height; mV squared, summed.

    What is missing in the estimate (NaN, or beyond its end) counts as the mean of the reference: all of the signal
    there is error. Samples whose reference is NaN are left out.

    Args:
        reference: (n,) mV, from the same moment on as the estimate.
        estimate: (m,) mV.
        sampling_rate: of both, Hz.
    """
    reference = np.asarray(reference, dtype=np.float64)
    target = reference - np.nanmean(reference)
    full_estimate = np.full(reference.size, np.nan)
    size = min(reference.size, np.size(estimate))
    full_estimate[:size] = np.asarray(estimate, dtype=np.float64)[:size]
    valid = np.isfinite(target)
    signal = float(np.square(target[valid]).sum())
    most = round(LONGEST_SHIFT_S * sampling_rate)
    errors = (_error_power(target, full_estimate, valid, shift) for shift in range(-most, most + 1))
    return signal, min(errors)


def _error_power(
    target: NDArray[np.float64], estimate: NDArray[np.float64], valid: NDArray[np.bool_], shift: int
) -> float:
    """Power of the error of the estimate `shift` samples later, at its best height; all arrays (n,)."""
    candidate = np.full(estimate.size, np.nan)
    if shift >= 0:
        candidate[shift:] = estimate[: estimate.size - shift]
    else:
        candidate[:shift] = estimate[-shift:]
    both = valid & np.isfinite(candidate)
    total = float(np.square(target[valid & ~both]).sum())
    if both.any():
        difference = target[both] - candidate[both]
        total += float(np.square(difference - difference.mean()).sum())
    return total


def signal_to_noise_db(
    leads: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]], sampling_rate: float
) -> float:
    """Decibels of one record; NaN without any signal, `MOST_DB` at most.

    Args:
        leads: reference (n,) and estimate (m,) of each lead, mV.
        sampling_rate: of both, Hz.
    """
    powers = [lead_powers(reference, estimate, sampling_rate) for reference, estimate in leads]
    signal, error = sum(p[0] for p in powers), sum(p[1] for p in powers)
    if signal == 0.0:
        return math.nan
    return min(MOST_DB, 10.0 * math.log10(signal / error)) if error > 0.0 else MOST_DB
