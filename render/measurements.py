"""Rate, intervals, axis and amplitudes measured on the waveform, for records that come without a machine's numbers.

The intervals are read from the median beat of `render.delineation`. What the leads or the beats do not agree about is
left out. On the records of even number of LUDB 1.0.1 (Kalyakulina et al., IEEE Access 2020;8:186181), which nothing was
chosen on, the errors against cardiologists are in docs/log.md and in `benchmarks/delineation.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from render.delineation import Delineation, MedianBeat, beats, complexes_of, delineate
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord

__all__ = ["AMPLITUDES", "Delineation", "MedianBeat", "beats", "delineate", "measure", "steady_rate"]

_Array = NDArray[np.float64]

AMPLITUDES = ("r_I_mv", "r_II_mv", "r_aVL_mv", "r_V1_mv", "r_V5_mv", "r_V6_mv", "s_V1_mv", "s_V2_mv", "s_V3_mv")
"""Further keys: height of R, or depth of S as a positive number, against the level before the QRS."""

# Limits of agreement and quality; see `measure`.
_STEADY = 0.10  # of the rate, between median and mean RR
_PLAUSIBLE = {"pr_ms": (80.0, 400.0), "qrs_ms": (50.0, 220.0), "qt_ms": (220.0, 650.0)}


def measure(record: EcgRecord) -> dict[str, float]:
    """What can be read reliably: any of rate_bpm, pr_ms, qrs_ms, qt_ms, qrs_axis_deg, and `AMPLITUDES`.

    Nothing where a lead is dead or fewer than half of the beats are alike. No rate where median and mean RR differ by
    more than 10 % (bigeminy, pauses). No PR where P does not come back with every beat, or does so between them, and no
    PR and no QT where the leads do not agree about the mark (`MedianBeat`). The axis comes from the net
    areas of the QRS in I and aVF. Deterministic; a record that cannot be read gives {}.
    """
    if record.dead_leads():
        return {}
    complexes = complexes_of(record)
    beat = complexes.beat
    if beat is None:
        return {}
    rate = steady_rate((complexes.middles / HIGH_RATE_HZ).tolist())
    values = {} if rate is None else {"rate_bpm": rate}
    qrs = _qrs(beat)
    return values | _intervals(beat) | _axis(qrs) | _amplitudes(qrs)


def steady_rate(beats_s: Sequence[float]) -> float | None:
    """Beats per minute from the median RR of beat times in seconds.

    None for fewer than three beats, and where the mean RR says otherwise by more than 10 %: then no single number
    describes the record.
    """
    if len(beats_s) < 3:
        return None
    ascending = sorted(map(float, beats_s))
    median = statistics.median(b - a for a, b in pairwise(ascending))
    mean = (ascending[-1] - ascending[0]) / (len(ascending) - 1)
    return 60 / median if median > 0 and abs(median - mean) <= _STEADY * median else None


def _intervals(beat: MedianBeat) -> dict[str, float]:
    ends = {"pr_ms": beat.p_onset, "qrs_ms": beat.qrs_end, "qt_ms": beat.t_end}
    lengths = {name: abs(end - beat.qrs_onset) * 1000 / HIGH_RATE_HZ for name, end in ends.items()}
    return {name: ms for name, ms in lengths.items() if _PLAUSIBLE[name][0] <= ms <= _PLAUSIBLE[name][1]}


def _qrs(beat: MedianBeat) -> _Array:
    """(12, n) millivolts of the QRS against the level just before it, the reference of all amplitudes (AHA/ACCF/HRS
    2009, part IV)."""
    onset, end = round(beat.qrs_onset), round(beat.qrs_end)
    level = np.median(beat.mv[:, max(onset - 12, 0) : max(onset - 2, 1)], axis=1, keepdims=True)
    return np.asarray(beat.mv[:, max(onset, 0) : end + 1] - level)


def _axis(qrs: _Array) -> dict[str, float]:
    """Degrees from the net areas of I and aVF (aVF scaled by 2/sqrt 3); nothing where the net vector is small."""
    i, avf = qrs[LEADS.index("I")], qrs[LEADS.index("aVF")]
    x, y = float(i.sum()), float(avf.sum()) * 2 / np.sqrt(3)
    if np.hypot(x, y) < 0.25 * float(np.abs(i).sum() + np.abs(avf).sum()):
        return {}
    return {"qrs_axis_deg": float(np.degrees(np.arctan2(y, x)))}


def _amplitudes(qrs: _Array) -> dict[str, float]:
    values = {}
    for key in AMPLITUDES:
        wave, lead, _ = key.split("_")
        row = qrs[LEADS.index(lead)]
        values[key] = max(0.0, float(row.max() if wave == "r" else -row.min()))
    return values
