"""Where the waves of a record begin and end: its beats, and P, QRS and T of the median beat and of every beat.

Beats are where most leads together move fast. As electrocardiographs do, the boundaries are then read from one
representative beat, the median of the record's beats of the prevailing kind, and each beat is searched for the waves of
that one. The QRS lies where the leads together are steep for their height. The onset of P and the end of T are each the
mean of two readings: the median over the leads of where the tangent at the wave's steepest flank meets the level beside
it (Lepeschkin and Surawicz, Circulation 1952;6:378), and where the slope of all leads together has fallen to a share of
that flank's. Thresholds (`render.delineation_kernels`) were set on the odd records of LUDB 1.0.1 (Kalyakulina et
al., IEEE Access 2020;8:186181), on which cardiologists marked the waves; docs/log.md has the errors on the even ones.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from render.delineation_kernels import (
    align_to_template,
    beat_marks,
    coarse,
    every_beat,
    leave_out,
    p_again,
    p_elsewhere,
    prevailing_beats,
    tops,
    without_wander,
)
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord, resample

_Array = NDArray[np.float64]
_Samples = NDArray[np.float32]

__all__ = ["WAVES", "Complexes", "Delineation", "MedianBeat", "beats", "complexes_of", "delineate"]

WAVES = ("p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
"""The boundaries of a beat: fields of `MedianBeat` and of `Delineation`."""

# The beat detector; see `beats`.
_COARSE_HZ = 100
_BEAT_S, _BEAT_APART_S, _BEAT_SHARE = 0.15, 0.22, 0.45

# What has to be alike.
_FEWEST_BEATS, _SHORTEST_CYCLE = 3, 150  # samples
_LONGEST_BEFORE, _LONGEST_AFTER = 220, 400  # samples of the median beat, around its fixed point
_P_MV = 0.04
_AGAIN, _AGAIN_UNEVEN, _UNEVEN = 0.70, 0.85, 0.04  # correlation of P from beat to beat; more where RR intervals jump
_ELSEWHERE = 0.93  # correlation with P of another wave as high


def beats(signal: NDArray[np.floating], sampling_rate: float) -> NDArray[np.int64]:
    """(12, n) millivolts at any rate from 100 Hz on -> sample numbers of the QRS complexes' middles, ascending.

    Where most leads together move faster than they mostly do, at a resolution of 10 ms. All leads together, because one
    is not enough: of 1,000 simulated records this finds a beat too many (a T wave as fast as the QRS) or too few (a
    small one beside ectopic beats) in 29, NeuroKit2 in lead II at 500 Hz in 153. In the others the error of an interval
    is 3 ms at the median, 7 at the 90th percentile. A lead has no say where it is NaN: of 2,000 records of PTB-XL's
    folds 1-8 cut like a page of 3x4 with a strip, the strip alone gives the rate of 6 wrongly (by 5 per minute and
    more), all leads together that of none.
    """
    step = sampling_rate / _COARSE_HZ
    slow = np.asarray(signal, np.float64) if step == 1 else coarse(np.asarray(signal, np.float32), step)
    if slow.shape[1] < 3:
        return np.zeros(0, np.int64)
    speed = np.abs(np.diff(slow))
    there = np.isfinite(speed)
    ascending = np.sort(np.where(there, speed, np.nan))  # NaN behind all others
    counts = there.sum(axis=1)
    usual, high = _quantiles(ascending, 0.5, counts), _quantiles(ascending, 0.98, counts) + 1e-6
    above = (speed - usual).clip(min=0.0)  # a noisy lead has little above its median
    shares = np.where(there, (above / high).clip(max=2.0), 0.0)
    moves = np.convolve(shares.sum(axis=0) / there.sum(axis=0).clip(min=1), _beat_window(), "same")
    least = _BEAT_SHARE * float(_quantiles(np.sort(moves)[None], 0.98, np.array([moves.size]))[0, 0])
    middles: NDArray[np.int64] = tops(moves, least, round(_BEAT_APART_S * _COARSE_HZ))
    if step == 1:
        return middles
    at_rate = np.round((middles + 0.5) * step).astype(np.int64)
    return np.minimum(at_rate, np.int64(signal.shape[1] - 1))


def _quantiles(ascending: _Array, share: float, counts: NDArray[np.int64]) -> _Array:
    """(rows, n) sorted -> (rows, 1) of the first `counts` of each, by numpy's linear rule, for which `np.quantile`
    takes ten times as long."""
    last = (counts - 1).clip(min=0)
    i = (share * last).astype(np.int64)
    rows = np.arange(len(ascending))
    part = share * last - i
    return np.asarray((1 - part) * ascending[rows, i] + part * ascending[rows, np.minimum(i + 1, last)])[:, None]


@cache
def _beat_window() -> _Array:
    window = np.hanning(round(_BEAT_S * _COARSE_HZ) + 2)
    return np.asarray(window / window.sum())


@dataclass(frozen=True)
class MedianBeat:
    """The median of a record's beats of the prevailing kind, at `HIGH_RATE_HZ`.

    Attributes:
        mv: (12, m) millivolts.
        peak: its fixed point, samples.
        cycle: median RR, samples. p_onset, p_end, qrs_onset,.
        qrs_end: samples, not rounded. NaN for P where no wave of 0.04 mV comes back with every beat (fibrillation)
            or where it comes back between the beats, too (flutter), and for P and T where the leads or the two
            readings do not agree about the mark.
        t_end: samples, not rounded. NaN for P where no wave of 0.04 mV comes back with every beat (fibrillation) or
            where it comes back between the beats, too (flutter), and for P and T where the leads or the two
            readings do not agree about the mark.
    """

    mv: _Samples
    peak: int
    cycle: int
    p_onset: float
    p_end: float
    qrs_onset: float
    qrs_end: float
    t_end: float


@dataclass(frozen=True)
class Complexes:
    """The QRS complexes of a record at `HIGH_RATE_HZ`.

    Attributes:
        mv: (n, 12) the record without wander.
        smooth: (n, 8) its independent leads without noise, too.
        middles: (beats,) samples, the same point of each complex.
        prevailing: (beats,) which of them `beat` is the median of.
    """

    mv: _Samples
    smooth: _Samples
    middles: NDArray[np.int64]
    prevailing: NDArray[np.bool_]
    beat: MedianBeat | None


@dataclass(frozen=True)
class Delineation:
    """The waves of a record, in samples of its own rate, not rounded; NaN where a beat shows none.

    Attributes:
        beats: (n,) the same point of each QRS complex, ascending.
        prevailing: (n,) whether the beat is of the kind that `median` shows.
        p_onset: (n,).
        p_end: (n,).
        qrs_onset: (n,).
        qrs_end: (n,).
        t_end: (n,).
        median: None where fewer than three beats, or fewer than half, are alike; then nothing but `beats` is known.
    """

    beats: _Array
    prevailing: NDArray[np.bool_]
    p_onset: _Array
    p_end: _Array
    qrs_onset: _Array
    qrs_end: _Array
    t_end: _Array
    median: MedianBeat | None


def delineate(record: EcgRecord) -> Delineation:
    """The beats of a record and where their waves begin and end. Deterministic; NaN in the record counts as 0 mV."""
    complexes = complexes_of(record)
    marks = np.full((len(complexes.middles), len(WAVES)), np.nan)
    beat = complexes.beat
    if beat is not None:
        median = np.ascontiguousarray(beat.mv.T)
        own = np.array([getattr(beat, name) for name in WAVES])
        arguments = (complexes.middles, complexes.prevailing, median, beat.peak, beat.cycle, own)
        marks = every_beat(complexes.mv, complexes.smooth, *arguments)
    scale = record.sampling_rate / HIGH_RATE_HZ
    p_onset, p_end, qrs_onset, qrs_end, t_end = marks.T * scale
    middles = np.asarray(complexes.middles * scale)
    return Delineation(middles, complexes.prevailing, p_onset, p_end, qrs_onset, qrs_end, t_end, beat)


def complexes_of(record: EcgRecord) -> Complexes:
    """The QRS complexes of a record and their median beat."""
    signal = resample(record.signal, record.sampling_rate, HIGH_RATE_HZ)
    return _complexes(signal, beats(signal, HIGH_RATE_HZ))


def _complexes(signal: _Samples, middles: NDArray[np.int64]) -> Complexes:
    mv, smooth, slopes = without_wander(signal)
    middles = align_to_template(slopes, middles)
    return Complexes(mv, smooth, middles, *_median_beat(mv, smooth, middles))


def complexes_of_lead(millivolts: NDArray[np.floating], middles: NDArray[np.int64] | None = None) -> Complexes:
    """As `complexes_of`, of one lead (n,) mV at `HIGH_RATE_HZ`, which stands for all twelve.

    Args:
        middles: samples of the beats, where other leads tell them as well.
    """
    signal = np.repeat(np.asarray(millivolts, dtype=np.float32)[None], len(LEADS), axis=0)
    return _complexes(signal, beats(signal, HIGH_RATE_HZ) if middles is None else middles)


def _median_beat(
    mv: _Samples, smooth: _Samples, middles: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], MedianBeat | None]:
    """Which beats are of the prevailing kind, and their median; None where fewer than three or than half are."""
    nothing = np.zeros(len(middles), np.bool_)
    if len(middles) < _FEWEST_BEATS + 1:
        return nothing, None
    cycle = int(statistics.median(np.diff(middles).tolist()))
    before, after = min(cycle // 2, _LONGEST_BEFORE), min(3 * cycle // 4, _LONGEST_AFTER)
    if cycle < _SHORTEST_CYCLE:
        return nothing, None
    prevailing, inside, median = prevailing_beats(mv, smooth, middles, before, after, cycle)
    if prevailing.sum() < max(_FEWEST_BEATS, inside / 2):
        return nothing, None
    marks, agreement = beat_marks(median, before, cycle)
    leave_out(marks, agreement)
    if np.isfinite(marks[0]) and not _is_p(smooth, middles, prevailing, median, before, cycle, marks):
        marks[:2] = np.nan
    return prevailing, MedianBeat(median.T, before, cycle, *marks.tolist())


def _is_p(
    smooth: _Samples,
    middles: NDArray[np.int64],
    prevailing: NDArray[np.bool_],
    median: _Samples,
    peak: int,
    cycle: int,
    marks: _Array,
) -> bool:
    """Whether the wave before the QRS comes back with every beat, as fibrillation's do not, and not between the beats,
    as flutter's do."""
    again, height = p_again(smooth, middles[prevailing], median, peak, marks)
    least = _AGAIN_UNEVEN if _is_uneven(middles) else _AGAIN
    if height < _P_MV or statistics.median(again.tolist()) < least:
        return False
    return bool(p_elsewhere(median, marks, cycle) <= _ELSEWHERE)


def _is_uneven(middles: NDArray[np.int64]) -> bool:
    """Whether RR intervals jump from beat to beat, as in atrial fibrillation; breathing changes them slowly."""
    intervals = np.diff(middles)
    jump = statistics.median(np.abs(np.diff(intervals)).tolist())
    return bool(jump > _UNEVEN * statistics.median(intervals.tolist()))
