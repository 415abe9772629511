"""How near measurements come to cardiologists' marks, ours and NeuroKit2's, and what they cost:
`python benchmarks/delineation.py --ludb DIR [--ptbxl DIR]`.

DIR is LUDB 1.0.1 (Kalyakulina et al., IEEE Access 2020;8:186181): 200 records of 10 s, on each lead of which
cardiologists marked where P, QRS and T begin and end. The records of odd number are those our procedure was developed
on, the even ones were held out. A record's reference is its median beat in time: each beat's mark is the median over
the leads, or the third-earliest onset and the third-latest end, and an interval the median over the beats.

The oracle is what this project measured with before: NeuroKit2 (Makowski et al., Behav Res Methods 2021;53:1689) finds
R peaks and, by the prominence method (Emrich et al., EUSIPCO 2024), the onset of P and the end of T of a median beat,
whose QRS a rule of ours bounds. Both take turns on the same records; the cost is the median of CPU time.

LUDB seldom marks the first and the last beat of a record, so the rate of its marks is that of a part of the record: the
first row compares a procedure's rate of the whole record with it, the second its rate of the same beats, those between
the first and the last that are marked.

Two further tables are of single beats: beats missed or too many, and the marks of each beat against the leads' median
of the cardiologists', ours alone. With --ptbxl, the last one counts how many of the records with atrial fibrillation or
flutter are given a PR interval.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.measurements import delineate, measure, steady_rate
from render.record import LEADS, EcgRecord, resample
from render.sources.ptbxl import PtbXl
from render.sources.wfdb_record import read_wfdb

Array = NDArray[np.float64]
Measure = Callable[[EcgRecord], Mapping[str, float]]

_HZ = 500
_SAME_BEAT = 50  # samples between the marks of one beat in different leads: 100 ms
_FEWEST_LEADS = 3
_WAVES = {"p": "P", "N": "QRS", "t": "T"}
HALVES = {"odd numbers, developed on": 1, "even numbers, held out": 0}
_FIGURES = {
    "rate_bpm": "rate of the whole record, per minute",
    "pr_ms": "PR, ms",
    "pr_ms*": "PR against the third lead, ms",
    "qrs_ms": "QRS, ms",
    "qrs_ms*": "QRS against the third lead, ms",
    "qt_ms": "QT, ms",
    "qt_ms*": "QT against the third lead, ms",
}
_MARKS = {"p_onset": ("P", 0), "p_end": ("P", 1), "qrs_onset": ("QRS", 0), "qrs_end": ("QRS", 1), "t_end": ("T", 1)}


@dataclass(frozen=True)
class Marked:
    """A LUDB record with its marks.

    marks: wave -> (beats, 12, 2) onset and end in samples of 2 ms, NaN where a lead has none. rhythm: in words.
    """

    number: int
    record: EcgRecord
    marks: Mapping[str, Array]
    rhythm: str

    @cached_property
    def middle(self) -> dict[str, Array]:
        """Wave -> (beats, 2) onset and end, samples, by the leads' median."""
        return {wave: _over_leads(at, _median, _median) for wave, at in self.marks.items()}

    @cached_property
    def reference(self) -> dict[str, float]:
        """The intervals in ms by the leads' median, with "*" behind the name by the third-earliest and -latest lead."""
        middle = self.middle
        outer = {wave: _over_leads(at, _third, _third_last) for wave, at in self.marks.items()}
        known = {}
        for mark, ends in (("", middle), ("*", outer)):
            known["qrs_ms" + mark] = _interval(ends["QRS"][:, 0], ends["QRS"][:, 1])
            known["qt_ms" + mark] = _interval(ends["QRS"][:, 0], ends["T"][:, 1])
            known["pr_ms" + mark] = _interval(ends["P"][:, 0], ends["QRS"][:, 0])
        rate = steady_rate((middle["QRS"].mean(axis=1) / _HZ).tolist())
        known["rate_bpm"] = np.nan if rate is None else rate
        return {name: value for name, value in known.items() if np.isfinite(value)}


def _median(row: Array) -> float:
    return float(np.median(row))


def _third(row: Array) -> float:
    return float(np.sort(row)[_FEWEST_LEADS - 1])


def _third_last(row: Array) -> float:
    return float(np.sort(row)[-_FEWEST_LEADS])


def _over_leads(at: Array, first: Callable[[Array], float], last: Callable[[Array], float]) -> Array:
    """(beats, 2): one onset and one end of each beat; NaN where fewer than three leads have both."""
    ends = np.full((len(at), 2), np.nan)
    for beat, rows in enumerate(at):
        marked = rows[np.isfinite(rows).all(axis=1)]
        if len(marked) >= _FEWEST_LEADS:
            ends[beat] = first(marked[:, 0]), last(marked[:, 1])
    return ends


def _interval(start: Array, end: Array) -> float:
    """Milliseconds, median over the beats that have both; NaN without any."""
    both = end - start
    both = both[np.isfinite(both)]
    return float(np.median(both)) * 1000 / _HZ if both.size else np.nan


def read_ludb(folder: Path) -> Iterator[Marked]:
    """The records in the order of their numbers."""
    with (folder / "ludb.csv").open(encoding="utf-8", newline="") as file:
        rhythms = {int(row["ID"]): row["Rhythms"].strip() for row in csv.DictReader(file)}
    for number in sorted(rhythms):
        header = folder / "data" / f"{number}.hea"
        signal, hertz = read_wfdb(header)
        yield Marked(number, EcgRecord(str(number), signal, hertz, "ludb"), _marks(header), rhythms[number])


def _marks(header: Path) -> dict[str, Array]:
    """The marks of all leads, put together by beat: a wave belongs to the QRS whose complex it stands before (P) or
    behind (T) in its own lead."""
    per_lead = [_lead_waves(header, lead) for lead in LEADS]
    peaks = np.sort(np.concatenate([[np.mean(w) for w in waves["QRS"]] for waves in per_lead]))
    groups = np.split(peaks, np.flatnonzero(np.diff(peaks) > _SAME_BEAT) + 1) if peaks.size else []
    beats = np.array([np.median(group) for group in groups if len(group) >= _FEWEST_LEADS])
    marks = {wave: np.full((len(beats), len(LEADS), 2), np.nan) for wave in _WAVES.values()}
    for row, waves in enumerate(per_lead):
        for wave, ends in waves.items():
            for onset, end in ends:
                beat = _beat_of(beats, wave, (onset + end) / 2)
                if beat is not None:
                    marks[wave][beat, row] = onset, end
    return marks


def _beat_of(beats: Array, wave: str, middle: float) -> int | None:
    """Number of the beat that a wave with this middle belongs to; None at the ends of the record."""
    if wave == "QRS":
        nearest = int(np.argmin(np.abs(beats - middle))) if beats.size else -1
        return nearest if nearest >= 0 and abs(beats[nearest] - middle) <= _SAME_BEAT else None
    place = int(np.searchsorted(beats, middle)) - (wave == "T")
    return place if 0 <= place < len(beats) else None


def _lead_waves(header: Path, lead: str) -> dict[str, list[tuple[int, int]]]:
    import wfdb

    marks = wfdb.rdann(str(header.with_suffix("")), lead.lower())
    waves: dict[str, list[tuple[int, int]]] = {wave: [] for wave in _WAVES.values()}
    symbols, samples = marks.symbol, marks.sample
    for i in range(1, len(symbols) - 1):
        if symbols[i] in _WAVES and symbols[i - 1] == "(" and symbols[i + 1] == ")":
            waves[_WAVES[symbols[i]]].append((int(samples[i - 1]), int(samples[i + 1])))
    return waves


# What this project did before it had a delineation of its own.

_PEAK_LEADS, _WAVE_LEADS = ("II", "V2", "V5"), ("I", "II", "V3", "V4", "V5", "V6")
_INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_PLAUSIBLE = {"pr_ms": (80.0, 400.0), "qrs_ms": (50.0, 220.0), "qt_ms": (220.0, 650.0)}
_CALM = 8


def neurokit_measure(record: EcgRecord) -> dict[str, float]:
    """rate_bpm, pr_ms, qrs_ms and qt_ms, as far as the leads agree."""
    if record.dead_leads():
        return {}
    signal = _filtered(resample(record.signal, record.sampling_rate, _HZ).astype(np.float64), 0.5, "highpass")
    peaks = _agreed([_r_peaks(signal[LEADS.index(lead)]) for lead in _PEAK_LEADS])
    if peaks is None:
        return {}
    rate = steady_rate((peaks / _HZ).tolist())
    known = {} if rate is None else {"rate_bpm": rate}
    cycle = int(np.median(np.diff(peaks)))
    before = int(0.42 * cycle)
    starts = [p - before for p in peaks if p >= before and p - before + cycle <= signal.shape[1]]
    if len(starts) < 3 or cycle < 0.3 * _HZ:
        return known
    beats = np.stack([signal[:, i : i + cycle] for i in starts])
    alike = beats[_correlation(beats, np.median(beats, axis=0)) > 0.8]
    if len(alike) < max(3, len(beats) / 2):
        return known
    smooth = _smooth(np.median(alike, axis=0))
    onset, end = _qrs(smooth, before)
    return known | _intervals(smooth, alike, onset, end)


def _filtered(mv: Array, hertz: float, kind: str) -> Array:
    from scipy.signal import butter, sosfiltfilt

    return np.asarray(sosfiltfilt(butter(2, hertz, kind, fs=_HZ, output="sos"), mv, axis=-1))


def _smooth(beat: Array) -> Array:
    n = beat.shape[-1]
    return _filtered(np.concatenate([beat] * 3, axis=-1), 40.0, "lowpass")[..., n : 2 * n]


def _r_peaks(mv: Array) -> NDArray[np.int64]:
    import neurokit2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of few peaks; few peaks are left out below
        try:
            clean = neurokit2.ecg_clean(mv, _HZ)
            return np.asarray(neurokit2.ecg_peaks(clean, _HZ)[1]["ECG_R_Peaks"], dtype=np.int64)
        except (ValueError, IndexError, ZeroDivisionError):
            return np.zeros(0, np.int64)


def _agreed(per_lead: Sequence[NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """The peaks of the first lead whose median RR agrees with that of another lead, if one does."""
    per_lead = [peaks for peaks in per_lead if len(peaks) >= 4]
    if len(per_lead) < 2:
        return None
    intervals = [float(np.median(np.diff(peaks))) for peaks in per_lead]
    middle = float(np.median(intervals)) if len(per_lead) > 2 else intervals[0]
    near = [p for p, rr in zip(per_lead, intervals, strict=True) if abs(rr - middle) <= 0.03 * middle]
    return near[0] if len(near) > 1 else None


def _correlation(beats: Array, median: Array) -> Array:
    a = beats.reshape(len(beats), -1) - beats.mean(axis=tuple(range(1, beats.ndim)))[:, None]
    b = median.ravel() - median.mean()
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
    return np.asarray((a @ b) / np.where(scale > 0, scale, 1.0))


def _qrs(mv: Array, peak: int) -> tuple[int, int]:
    rows = [LEADS.index(lead) for lead in _INDEPENDENT]
    slope = np.sqrt(((mv[rows, 2:] - mv[rows, :-2]) ** 2).mean(axis=0))
    slope = np.convolve(slope, np.ones(3) / 3, "same")
    first = max(peak - 75, 0)
    top = first + int(np.argmax(slope[first : peak + 100]))
    floor = float(np.percentile(slope, 20))
    limit = floor + 0.03 * (slope[top] - floor)
    onset = end = top
    while onset > _CALM and slope[onset - _CALM : onset].max() > limit:
        onset -= 1
    while end < len(slope) - _CALM and slope[end + 1 : end + 1 + _CALM].max() > limit:
        end += 1
    return onset + 1, end + 1


def _intervals(smooth: Array, alike: Array, onset: int, end: int) -> dict[str, float]:
    known = {"qrs_ms": (end - onset) * 2.0}
    marks = np.array([_prominent(smooth[LEADS.index(lead)], onset, end) for lead in _WAVE_LEADS])
    p_onset, t_end = (column[np.isfinite(column)] for column in marks.T)
    if len(p_onset) >= 3 and np.subtract(*np.quantile(p_onset, (0.75, 0.25))) <= 15:
        start = float(np.quantile(p_onset, 0.25))
        if _has_p(smooth, alike, int(start), onset):
            known["pr_ms"] = (onset - start) * 2
    if len(t_end) >= 3 and np.subtract(*np.quantile(t_end, (0.75, 0.25))) <= 20:
        known["qt_ms"] = (float(np.median(t_end)) - onset) * 2
    return {name: value for name, value in known.items() if _PLAUSIBLE[name][0] <= value <= _PLAUSIBLE[name][1]}


def _prominent(lead: Array, onset: int, end: int) -> tuple[float, float]:
    """Onset of P and end of T in one lead of the median beat; NaN for what is not there."""
    import neurokit2

    qrs = lead[onset : end + 1] - np.median(lead[max(onset - 12, 0) : max(onset - 2, 1)])
    peak = onset + int(np.argmax(np.abs(qrs)))
    rest = np.linspace(lead[-1], lead[0], max(2, int(1.2 * _HZ) - len(lead)))
    cycle = np.concatenate([lead, rest]) * (1.0 if qrs[peak - onset] >= 0 else -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peaks = np.array([peak, peak + len(cycle)])
            marks = neurokit2.ecg_delineate(np.tile(cycle, 2), peaks, _HZ, method="prominence")[1]
        except (ValueError, IndexError, ZeroDivisionError):
            marks = {}
    p, t = (marks.get(name, ()) for name in ("ECG_P_Onsets", "ECG_T_Offsets"))
    return tuple(float(at[1]) - len(cycle) if len(at) == 2 else np.nan for at in (p, t))  # type: ignore[return-value]


def _has_p(smooth: Array, alike: Array, start: int, onset: int) -> bool:
    first, last = max(start - 10, 0), onset - 4
    if last - first < 20:
        return False
    rows = [LEADS.index(lead) for lead in ("I", "II", "aVF", "V1")]
    part = smooth[rows, first:last]
    alike_enough = np.median(_correlation(_smooth(alike[:, rows])[..., first:last], part)) >= 0.6
    return bool(np.ptp(part, axis=1).max() >= 0.04 and alike_enough)


def measured(records: Sequence[Marked], how: Sequence[Measure]) -> tuple[list[list[Mapping[str, float]]], list[float]]:
    """What each procedure says of each record, and what it takes, median of CPU ms; they take turns."""
    for procedure in how:  # compiles, loads
        procedure(records[0].record)
    told: list[list[Mapping[str, float]]] = [[] for _ in how]
    spent: list[list[float]] = [[] for _ in how]
    for record in records:
        for procedure, said, cost in zip(how, told, spent, strict=True):
            start = time.process_time()
            said.append(procedure(record.record))
            cost.append((time.process_time() - start) * 1e3)
    return told, [statistics.median(cost) for cost in spent]


def errors(records: Sequence[Marked], told: Sequence[Mapping[str, float]], figure: str) -> tuple[Array, int]:
    """Signed errors of one figure, and how many records have a reference for it."""
    pairs = [(m.reference[figure], said.get(figure.rstrip("*"))) for m, said in zip(records, told, strict=True)
             if figure in m.reference]  # fmt: skip
    return np.array([said - truth for truth, said in pairs if said is not None]), len(pairs)


def rate_errors(
    records: Sequence[Marked], measurements: Sequence[Mapping[str, float]], detector: Callable[[EcgRecord], Array]
) -> Array:
    """Signed errors, per minute, of the rate of the beats from the first to the last that is marked; of the records for
    whose whole the procedure gives a rate, too."""
    differences = []
    for m, values in zip(records, measurements, strict=True):
        if "rate_bpm" not in m.reference or "rate_bpm" not in values:
            continue
        rate = steady_rate((within_marks(m, detector(m.record)) / _HZ).tolist())
        if rate is not None:
            differences.append(rate - m.reference["rate_bpm"])
    return np.array(differences)


def within_marks(m: Marked, beats: Array) -> Array:
    """Those of the beats, samples, that lie between the first and the last that is marked."""
    middles = m.middle["QRS"].mean(axis=1)
    middles = middles[np.isfinite(middles)]
    if not middles.size:
        return beats[:0]
    return np.asarray(beats[(beats > middles[0] - _SAME_BEAT) & (beats < middles[-1] + _SAME_BEAT)])


def cell(apart: Array) -> str:
    """Median and 90th percentile of the absolute error, and the median of the signed one."""
    size = np.abs(apart)
    return f"{np.median(size):.1f} / {np.percentile(size, 90):.1f} ({np.median(apart):+.1f})" if size.size else "–"


def print_halves(records: Sequence[Marked]) -> None:
    """One table for each half: ours and the oracle's errors, and the number of records that got a figure."""
    for half, rest in HALVES.items():
        chosen = [m for m in records if m.number % 2 == rest]
        told, cost = measured(chosen, (measure, neurokit_measure))
        same_beats = [
            rate_errors(chosen, said, beats) for said, beats in zip(told, (our_beats, neurokit_beats), strict=True)
        ]
        print(f"\n{len(chosen)} records of {half}: median / 90th percentile of the error (median of the signed one)\n")
        print("| | ours | records | NeuroKit2 | records | of |\n|---|---|---|---|---|---|")
        for figure, name in _FIGURES.items():
            (ours, of), (theirs, _) = (errors(chosen, said, figure) for said in told)
            print(f"| {name} | {cell(ours)} | {ours.size} | {cell(theirs)} | {theirs.size} | {of} |")
            if figure == "rate_bpm":
                ours, theirs = same_beats
                print(
                    f"| rate of the marked beats | {cell(ours)} | {ours.size} | {cell(theirs)} | {theirs.size} | {of} |"
                )
        wrong = [sum("pr_ms" in s and "pr_ms" not in m.reference for m, s in zip(chosen, t, strict=True)) for t in told]
        without = sum("pr_ms" not in m.reference for m in chosen)
        print(f"| PR without a marked P | | {wrong[0]} | | {wrong[1]} | {without} |")
        print(f"| CPU time a record, ms | {cost[0]:.2f} | | {cost[1]:.1f} | | |", flush=True)


def print_beats(records: Sequence[Marked]) -> None:
    """Beats missed, beats too many between the first and the last that is marked, and the errors of RR, for each half:
    without them, the rate's error is mostly due to the first and last beats of a record, which are seldom marked."""
    print("\nBeats\n\n| | marked | missed | too many | RR, ms |\n|---|---|---|---|---|")
    for half, rest in HALVES.items():
        for name, detector in (("ours", our_beats), ("NeuroKit2", neurokit_beats)):
            marked = missed = further = 0
            apart: list[float] = []
            for m in (m for m in records if m.number % 2 == rest):
                truth, at = m.middle["QRS"].mean(axis=1), detector(m.record)
                truth = truth[np.isfinite(truth)]
                if not at.size or not truth.size:  # it says nothing of this record
                    continue
                between = within_marks(m, at)
                distance = np.abs(at[:, None] - truth)
                marked += truth.size
                missed += int((distance.min(axis=0) > _SAME_BEAT).sum())
                further += int((np.abs(between[:, None] - truth).min(axis=1) > _SAME_BEAT).sum())
                apart += ((np.diff(at[distance.argmin(axis=0)]) - np.diff(truth)) * 1000 / _HZ).tolist()
            print(f"| {name}, {half} | {marked} | {missed} | {further} | {cell(np.array(apart))} |", flush=True)


def our_beats(record: EcgRecord) -> Array:
    """(beats,) samples of 2 ms."""
    return delineate(record).beats


def neurokit_beats(record: EcgRecord) -> Array:
    """(beats,) samples of 2 ms; empty where the leads do not agree."""
    signal = _filtered(record.signal.astype(np.float64), 0.5, "highpass")
    at = _agreed([_r_peaks(signal[LEADS.index(lead)]) for lead in _PEAK_LEADS])
    return np.zeros(0) if at is None else at.astype(np.float64)


def print_marks(records: Sequence[Marked]) -> None:
    """Errors of single beats' marks, for each half."""
    print("\nSingle beats, ours\n\n| | " + " | ".join(f"{half}: ms | beats | of" for half in HALVES) + " |")
    print("|---|" + "---|---|---|" * len(HALVES))
    rows = {name: [name.replace("_", " ")] for name in _MARKS}
    for rest in HALVES.values():
        apart: dict[str, list[float]] = {name: [] for name in _MARKS}
        of = dict.fromkeys(_MARKS, 0)
        for m in (m for m in records if m.number % 2 == rest):
            waves = delineate(m.record)
            for beat, middle in enumerate(m.middle["QRS"].mean(axis=1)):
                near = int(np.argmin(np.abs(waves.beats - middle))) if waves.beats.size else 0
                same = waves.beats.size > 0 and abs(waves.beats[near] - middle) <= _SAME_BEAT
                for name, (wave, side) in _MARKS.items():
                    truth = m.middle[wave][beat, side]
                    said = getattr(waves, name)[near] if same else np.nan
                    of[name] += bool(np.isfinite(truth))
                    if np.isfinite(truth) and np.isfinite(said):
                        apart[name].append((said - truth) * 1000 / _HZ)
        for name, row in rows.items():
            row += [cell(np.array(apart[name])), str(len(apart[name])), str(of[name])]
    for row in rows.values():
        print("| " + " | ".join(row) + " |", flush=True)


def print_without_p(folder: Path) -> None:
    """How many PTB-XL records with fibrillation or flutter are given a PR interval all the same."""
    print("\n| PTB-XL | folds | records | PR, ours | PR, NeuroKit2 |\n|---|---|---|---|---|")
    source = PtbXl(folder)
    counts: dict[tuple[str, str], list[int]] = {}
    for i in range(len(source)):
        try:
            record = source.read(i)
        except InputError:  # not in this download
            continue
        for code in {"AFIB", "AFLT"} & set(record.statements):
            folds = "9 and 10" if (record.fold or 0) > 8 else "1-8"
            row = counts.setdefault((code, folds), [0, 0, 0])
            row[0] += 1
            row[1] += "pr_ms" in measure(record)
            row[2] += "pr_ms" in neurokit_measure(record)
    for (code, folds), row in sorted(counts.items()):
        print(f"| {code} | {folds} | " + " | ".join(map(str, row)) + " |", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure errors against LUDB's cardiologists, and CPU time.")
    parser.add_argument("--ludb", type=Path, required=True, help="the folder of LUDB 1.0.1")
    parser.add_argument("--ptbxl", type=Path, help="a PTB-XL folder, to count PR intervals in fibrillation")
    parser.add_argument("--limit", type=int, help="the first so many records of LUDB")
    arguments = parser.parse_args(words)
    records = list(read_ludb(arguments.ludb))[: arguments.limit]
    print_halves(records)
    print_beats(records)
    print_marks(records)
    if arguments.ptbxl is not None:
        print_without_p(arguments.ptbxl)


if __name__ == "__main__":
    main()
