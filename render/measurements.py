"""Rate, intervals, axis and amplitudes measured on the waveform, for records that come without a machine's numbers.

The intervals are read from the median beat of `render.delineation`. What the leads or the beats do not agree about is
left out. On the records of even number of LUDB 1.0.1 (Kalyakulina et al., IEEE Access 2020;8:186181), which nothing was
chosen on, the errors against cardiologists are in docs/log.md and in `benchmarks/delineation.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from render.delineation import Complexes, Delineation, MedianBeat, beats, complexes_of, complexes_of_lead, delineate
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord, resample

__all__ = [
    "AMPLITUDES",
    "CONTIGUOUS_LEADS",
    "Delineation",
    "MedianBeat",
    "beats",
    "corrected_qt",
    "delineate",
    "measure",
    "measure_page",
    "st_elevation",
    "st_levels",
    "steady_rate",
]

_Array = NDArray[np.float64]
_Places = NDArray[np.int64]

AMPLITUDES = ("r_I_mv", "r_II_mv", "r_aVL_mv", "r_V1_mv", "r_V5_mv", "r_V6_mv", "s_V1_mv", "s_V2_mv", "s_V3_mv")
"""Further keys: height of R, or depth of S as a positive number, against the level before the QRS."""

CONTIGUOUS_LEADS = (("aVL", "I", "-aVR", "II", "aVF", "III"), ("V1", "V2", "V3", "V4", "V5", "V6"))
"""Limb and chest leads in the order of the heart's walls: those side by side are contiguous (AHA/ACCF/HRS 2009, VI)."""

# Samples at `HIGH_RATE_HZ`: the level before the QRS (24 to 4 ms), and how long a level of ST is averaged (10 ms).
_BEFORE_QRS, _ST_SAMPLES = (12, 2), 5
_STRIP_SHARE = 0.6  # of a record's time: a lead that is there for so long times the beats of the others
_SAME_PR_MS = 30.0  # between the parts of a page
_CUT, _CYCLES = 0.4, 8  # of an RR interval before the QRS; how often cycles are repeated

_NO_BEATS: _Places = np.zeros(0, np.int64)

# Limits of agreement and quality; see `measure`.
_STEADY = 0.10  # of the rate, between median and mean RR
_PLAUSIBLE = {"pr_ms": (80.0, 400.0), "qrs_ms": (50.0, 220.0), "qt_ms": (220.0, 650.0)}


def measure(record: EcgRecord) -> dict[str, float]:
    """What can be read reliably: any of rate_bpm, pr_ms, qrs_ms, qt_ms, qrs_axis_deg, and `AMPLITUDES`.

    Nothing where a lead is dead or has gaps (see `measure_page`) or fewer than half of the beats are alike. No rate
    where median and mean RR differ by more than 10 % (bigeminy, pauses). No PR where P does not come back with every
    beat, or does so between them, and no PR and no QT where the leads do not agree about the mark (`MedianBeat`). The
    axis comes from the net areas of the QRS in I and aVF. Deterministic; a record that cannot be read gives {}.
    """
    if record.dead_leads():
        return {}
    complexes = complexes_of(record)
    beat = complexes.beat
    if beat is None:
        return {}
    qrs = _qrs(beat)
    axis = _axis(qrs[LEADS.index("I")], qrs[LEADS.index("aVF")])
    return _rate(complexes.middles) | _intervals(beat) | axis | _amplitudes(qrs)


def measure_page(record: EcgRecord) -> dict[str, float]:
    """As `measure`, for leads with gaps (NaN), as those digitised from a page, which shows 2.5 to 5 s of most.

    The beats are those of all leads, each as long as it is there. With a strip that runs through, the median beat of
    each lead, put together, is measured; P is looked for in the strip alone. Without one, the leads that are there
    together are measured together, and the median of these values is taken; PR where they agree. No amplitudes then.
    On 800 records of PTB-XL's folds 1-8 cut like a page (3x4 with a strip, 3x4, 6x2), against `measure` of the whole
    record, median difference: rate 0, .2, .2 per minute, PR 2, 4, 3 ms, QRS 0, 4, 3 ms, QT 1.5, 4, 2.5 ms, axis 2.5,
    3, 1.5 degrees.
    """
    if np.isfinite(record.signal).all():
        return measure(record)
    signal = resample(record.signal, record.sampling_rate, HIGH_RATE_HZ)
    middles = beats(signal, HIGH_RATE_HZ)
    if not (strip := _strip(signal, middles)):
        return _rate(middles) | _measure_each_part(signal)
    values = _rate(strip.middles)
    if strip.beat is None:
        return values
    beat = _beat_of_each_lead(signal, strip.middles[strip.prevailing], strip.beat.cycle)
    if not np.isfinite(beat).all():
        return values
    whole = measure(EcgRecord("", np.tile(beat, (1, _CYCLES)), float(HIGH_RATE_HZ), ""))
    own = {"rate_bpm"} if np.isfinite(strip.beat.p_onset) else {"rate_bpm", "pr_ms"}
    return values | {key: value for key, value in whole.items() if key not in own}


def _strip(signal: NDArray[np.float32], middles: _Places) -> Complexes | None:
    """The QRS complexes at `middles` of the lead of (12, n) mV that runs through; None without such a strip."""
    shares = np.isfinite(signal).mean(axis=1)
    return complexes_of_lead(signal[int(shares.argmax())], middles) if shares.max() >= _STRIP_SHARE else None


def _beat_of_each_lead(signal: NDArray[np.float32], middles: _Places, cycle: int) -> NDArray[np.float32]:
    """(12, cycle) the median of each lead's whole beats; NaN for a lead without one."""
    before = int(_CUT * cycle)
    starts = [m - before for m in middles.tolist() if m >= before and m - before + cycle <= signal.shape[1]]
    if not starts:
        return np.full((len(LEADS), cycle), np.nan, np.float32)
    cycles = np.stack([signal[:, start : start + cycle] for start in starts])
    whole: NDArray[np.bool_] = np.asarray(np.isfinite(cycles).all(axis=2))  # (beats, 12)
    rows = [np.median(cycles[own, lead], axis=0) if own.any() else np.full(cycle, np.nan)
            for lead, own in enumerate(whole.T)]  # fmt: skip
    return np.stack(rows).astype(np.float32)


def _measure_each_part(signal: NDArray[np.float32]) -> dict[str, float]:
    """The medians over the parts of a page whose leads follow each other without a strip that runs through."""
    values: dict[str, list[float]] = {}
    waves: dict[str, _Array] = {}
    for start, stop in _parts(signal):
        there = np.isfinite(signal[:, start])
        part = _same_leads(signal[there, start:stop])
        part[there] = signal[there, start:stop]
        middles, cycles, _ = _whole_cycles(part)
        if not middles.size:
            continue
        beat = complexes_of(EcgRecord("", np.tile(cycles, (1, _CYCLES)), float(HIGH_RATE_HZ), "")).beat
        if beat is None:
            continue
        for key, value in _intervals(beat).items():
            values.setdefault(key, []).append(value)
        waves |= {name: row for name, row, own in zip(LEADS, _qrs(beat), there, strict=True) if own}
    pr = values.get("pr_ms", [])
    if len(pr) < 2 or max(pr) - min(pr) > _SAME_PR_MS:  # in one part alone fibrillation can pass for P
        values.pop("pr_ms", None)
    axis = _axis(waves["I"], waves["aVF"]) if {"I", "aVF"} <= waves.keys() else {}
    return {key: statistics.median(own) for key, own in sorted(values.items())} | axis


def _rate(middles: _Places) -> dict[str, float]:
    rate = steady_rate((middles / HIGH_RATE_HZ).tolist())
    return {} if rate is None else {"rate_bpm": rate}


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


def corrected_qt(measurements: Mapping[str, float]) -> dict[str, float]:
    """QTc in ms from qt_ms and rate_bpm, at the rates at which each formula holds: {} without them or outside.

    Bazett: QT / sqrt(RR), 60 to 90 per minute only, as it overcorrects outside; Fridericia: QT / cbrt(RR), 50 to 110;
    RR in seconds (AHA/ACCF/HRS 2009, part IV).
    """
    rate, qt = measurements.get("rate_bpm", 0.0), measurements.get("qt_ms", 0.0)
    values = {}
    if qt and 60 <= rate <= 90:
        values["qtc_bazett_ms"] = qt / (60 / rate) ** (1 / 2)
    if qt and 50 <= rate <= 110:
        values["qtc_fridericia_ms"] = qt / (60 / rate) ** (1 / 3)
    return values


def st_levels(record: EcgRecord, *, delay_ms: float = 20.0) -> dict[str, float]:
    """Lead -> millivolts of ST against the level just before the QRS, the median over the prevailing beats.

    Args:
        delay_ms: after the J point, the end of the QRS of all leads together. Definitions of infarction measure at J
            itself (Fourth Universal Definition of Myocardial Infarction 2018); 20 ms later the S of V1 to V3 is over.

    A lead may have gaps (NaN), as one digitised from a page has, which shows 2.5 s of it: the lead that is there for
    most of the time then times the beats of all; without such a strip, the leads that are there together time their
    own. A lead without a whole beat is left out; so are leads of which no beats are alike. -aVR is that of aVR with the
    other sign.
    """
    signal = resample(record.signal, record.sampling_rate, HIGH_RATE_HZ)
    is_whole = np.isfinite(signal).all()
    onsets, ends = _NO_BEATS, _NO_BEATS
    if is_whole:
        onsets, ends = _qrs_of_beats(complexes_of(EcgRecord("", signal, float(HIGH_RATE_HZ), "")))
    elif strip := _strip(signal, beats(signal, HIGH_RATE_HZ)):
        onsets, ends = _qrs_of_beats(strip)
    if not (is_whole or onsets.size):
        parts = [(_NO_BEATS, _NO_BEATS), *(_qrs_of_part(signal, start, stop) for start, stop in _parts(signal))]
        onsets, ends = (np.concatenate(marks) for marks in zip(*parts, strict=True))
    return _median_levels(signal, onsets, ends + round(delay_ms * HIGH_RATE_HZ / 1000))


def st_elevation(record: EcgRecord, *, least_mv: float = 0.2, delay_ms: float = 20.0) -> dict[str, float]:
    """Lead -> millivolts of every lead whose ST is raised together with that of a contiguous lead; {} where none is.

    Both leads of a pair of `CONTIGUOUS_LEADS` have `least_mv` or more, as the Fourth Universal Definition of Myocardial
    Infarction (2018) asks; "-aVR" is one of them. Its limits are lower in most leads (0.1 mV; in V2 and V3 0.15 in
    women, 0.2 in men, 0.25 in men below 40). They hold without hypertrophy and bundle branch block only, which raise ST
    themselves; so do early repolarisation and an aneurysm.

    Of PTB-XL's folds 1-8 (`benchmarks/infarct_stages.py`), 0.2 mV is exceeded at J, 20, 40 and 60 ms later by .3, 1.3,
    3.4 and 7.6 % of the normal records, and by 25, 54, 58 and 71 % of those in stage I of an infarct.

    Args:
        delay_ms: see `st_levels`.
    """
    levels = st_levels(record, delay_ms=delay_ms)
    if "aVR" in levels:
        levels["-aVR"] = -levels["aVR"]
    high = {name for name, mv in levels.items() if mv >= least_mv}
    pairs = [pair for chain in CONTIGUOUS_LEADS for pair in pairwise(chain) if high.issuperset(pair)]
    names = {name for pair in pairs for name in pair}
    return {name: levels[name] for chain in CONTIGUOUS_LEADS for name in chain if name in names}


def _median_levels(signal: NDArray[np.float32], onsets: _Places, starts: _Places) -> dict[str, float]:
    """Lead -> median over the beats of the level from `starts` on against that before `onsets`, of (12, n) mV."""
    inside = (onsets >= _BEFORE_QRS[0]) & (starts + _ST_SAMPLES <= signal.shape[1])
    levels = [
        signal[:, start : start + _ST_SAMPLES].mean(axis=1)
        - np.median(signal[:, onset - _BEFORE_QRS[0] : onset - _BEFORE_QRS[1]], axis=1)
        for onset, start in zip(onsets[inside].tolist(), starts[inside].tolist(), strict=True)
    ]
    columns = np.array(levels, np.float64).reshape(-1, len(LEADS)).T
    finite = [values[np.isfinite(values)] for values in columns]
    return {name: float(np.median(values)) for name, values in zip(LEADS, finite, strict=True) if values.size}


def _qrs_of_beats(complexes: Complexes) -> tuple[_Places, _Places]:
    """Samples at which the QRS of each prevailing beat begins and ends."""
    if complexes.beat is None:
        return _NO_BEATS, _NO_BEATS
    middles = complexes.middles[complexes.prevailing] - complexes.beat.peak
    return middles + round(complexes.beat.qrs_onset), middles + round(complexes.beat.qrs_end)


def _parts(signal: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First and last sample (excluded) of each time in which the same leads are there, of those of a second or more."""
    there = np.isfinite(signal)
    changes = np.flatnonzero((there[:, 1:] != there[:, :-1]).any(axis=0)) + 1
    bounds = [0, *changes.tolist(), signal.shape[1]]
    return [(a, b) for a, b in pairwise(bounds) if b - a >= HIGH_RATE_HZ and there[:, a].any()]


def _qrs_of_part(signal: NDArray[np.float32], start: int, stop: int) -> tuple[_Places, _Places]:
    """As `_qrs_of_beats`, of the leads that are there from `start` to `stop`.

    So short a part has too few beats for a median, so its whole cycles are repeated, cut between T and P.
    """
    middles, cycles, first = _whole_cycles(_same_leads(signal[np.isfinite(signal[:, start]), start:stop]))
    if not middles.size:
        return _NO_BEATS, _NO_BEATS
    onsets, ends = _qrs_of_beats(complexes_of(EcgRecord("", np.tile(cycles, (1, _CYCLES)), float(HIGH_RATE_HZ), "")))
    inside = (onsets >= 0) & (ends < cycles.shape[1])
    return onsets[inside] + first + start, ends[inside] + first + start


def _whole_cycles(part: NDArray[np.float32]) -> tuple[_Places, NDArray[np.float32], int]:
    """The beats of (12, n) mV, its whole cycles (12, m) cut between T and P, and the sample at which they begin.

    No beats where not one cycle is whole.
    """
    middles = beats(part, HIGH_RATE_HZ)
    if len(middles) < 2:
        return _NO_BEATS, part, 0
    before = int(_CUT * statistics.median(np.diff(middles).tolist()))
    cuts = [int(middle) - before for middle in middles if middle >= before]
    if len(cuts) < 2:
        return _NO_BEATS, part, 0
    return middles, part[:, cuts[0] : cuts[-1]], cuts[0]


def _same_leads(leads: NDArray[np.float32]) -> NDArray[np.float32]:
    """(12, n) of fewer leads (k, n), each several times."""
    return np.tile(leads, (-(-len(LEADS) // len(leads)), 1))[: len(LEADS)]


def _intervals(beat: MedianBeat) -> dict[str, float]:
    ends = {"pr_ms": beat.p_onset, "qrs_ms": beat.qrs_end, "qt_ms": beat.t_end}
    lengths = {name: abs(end - beat.qrs_onset) * 1000 / HIGH_RATE_HZ for name, end in ends.items()}
    return {name: ms for name, ms in lengths.items() if _PLAUSIBLE[name][0] <= ms <= _PLAUSIBLE[name][1]}


def _qrs(beat: MedianBeat) -> _Array:
    """(12, n) millivolts of the QRS against the level just before it, the reference of all amplitudes (AHA/ACCF/HRS
    2009, part IV)."""
    onset, end = round(beat.qrs_onset), round(beat.qrs_end)
    first, last = max(onset - _BEFORE_QRS[0], 0), max(onset - _BEFORE_QRS[1], 1)
    level = np.median(beat.mv[:, first:last], axis=1, keepdims=True)
    return np.asarray(beat.mv[:, max(onset, 0) : end + 1] - level)


def _axis(i: _Array, avf: _Array) -> dict[str, float]:
    """Degrees from the net areas of I and aVF (aVF scaled by 2/sqrt 3); nothing where the net vector is small."""
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
