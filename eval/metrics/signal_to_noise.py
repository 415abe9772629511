"""How near a digitized ECG comes to the recorded one: signal-to-noise ratio in decibels.

The definition is that of the contest "PhysioNet - Digitization of ECG Images" (2025/26): each lead is shifted in time,
by at most 0.2 s, and in height to where it fits best, and the powers of signal and error are summed over the leads
before their ratio is taken. One thing is stricter here: the mean of a recorded lead counts as no signal, so that an
offset of the recorder does not pass for a good copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

LONGEST_SHIFT_S = 0.2
"""How far a digitized lead may be moved in time, seconds."""
MOST_DB = 100.0
"""Decibels of a copy without error."""


def lead_powers(
    recorded: NDArray[np.floating], digitized: NDArray[np.floating], sampling_rate: float
) -> tuple[float, float]:
    """Power of the signal and of the error of one lead, after the best shift in time and height; mV squared, summed.

    recorded, digitized: (n,) and (m,) mV at `sampling_rate`, from the same moment on. What is missing (NaN, or beyond
    the digitized lead's end) counts as its mean, thus all of the signal there is error. A recorded NaN is left out.
    """
    recorded = np.asarray(recorded, dtype=np.float64)
    target = recorded - np.nanmean(recorded)
    copy = np.full(recorded.size, np.nan)
    size = min(recorded.size, np.size(digitized))
    copy[:size] = np.asarray(digitized, dtype=np.float64)[:size]
    known = np.isfinite(target)
    signal = float(np.square(target[known]).sum())
    most = round(LONGEST_SHIFT_S * sampling_rate)
    errors = (_error(target, copy, known, shift) for shift in range(-most, most + 1))
    return signal, min(errors)


def _error(target: NDArray[np.float64], copy: NDArray[np.float64], known: NDArray[np.bool_], shift: int) -> float:
    """Power of the error when the copy is moved `shift` samples later and to its best height."""
    moved = np.full(copy.size, np.nan)
    if shift >= 0:
        moved[shift:] = copy[: copy.size - shift]
    else:
        moved[:shift] = copy[-shift:]
    both = known & np.isfinite(moved)
    total = float(np.square(target[known & ~both]).sum())
    if both.any():
        difference = target[both] - moved[both]
        total += float(np.square(difference - difference.mean()).sum())
    return total


def signal_to_noise_db(
    leads: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]], sampling_rate: float
) -> float:
    """Decibels of one record: its leads as pairs of recorded and digitized, (n,) and (m,) mV.

    NaN without any signal, `MOST_DB` at most.
    """
    powers = [lead_powers(recorded, digitized, sampling_rate) for recorded, digitized in leads]
    signal, error = sum(p[0] for p in powers), sum(p[1] for p in powers)
    if signal == 0.0:
        return math.nan
    return min(MOST_DB, 10.0 * math.log10(signal / error)) if error > 0.0 else MOST_DB
