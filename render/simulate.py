"""Simulated ECGs with known truth: a person, a rhythm, a heart and a noisy recorder, all drawn from a seed.

The model is physiological rather than a drawing, and its parts lie in `render/physiology/`: `rhythm` says when the
chambers fire, `activation` and `repolarisation` move dipoles in the chest, `heart` turns them into leads, `recorder`
adds what electrodes do. A beat is kept only when its noise-free leads meet the `criteria` of what it is said to show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from render.compiled import compiled
from render.files import InputError
from render.measurements import steady_rate
from render.physiology.activation import activation, ectopic_qrs, p_wave
from render.physiology.chance import Chance
from render.physiology.criteria import Beat
from render.physiology.findings import NORMAL_COMPANY, Q_INFARCTS, RHYTHMS, SIMULATED_STATEMENTS, drawn, resolved
from render.physiology.heart import DOWER, SITES, Person, Vector, Wave, draw_person, superposed, table
from render.physiology.recorder import Samples, electrode_noise, twelve_leads
from render.physiology.repolarisation import changed, qt_interval, recovery
from render.physiology.rhythm import LENGTH_S, Rhythm, rhythm
from render.physiology.verdict import holding, unmet
from render.record import EcgRecord
from render.statements import HIDDEN_T_END, NO_SINGLE_PR, STATEMENTS

__all__ = ["RATE_HZ", "SIMULATED_STATEMENTS", "Simulated", "simulate"]

RATE_HZ = 500
"""Sampling rate of simulated records, hertz."""
_SAMPLES = int(LENGTH_S * RATE_HZ)
_TRIES = 24
_TIME = np.arange(_SAMPLES) / RATE_HZ


def simulate(seed: int, statements: Sequence[str] | None = None) -> EcgRecord:
    """One ECG of 10 s at 500 Hz, float32 mV, in which the statements hold.

    statements: SCP codes out of `SIMULATED_STATEMENTS`, or None for a plausible combination drawn from the
    seed. What has to stand with them (a rhythm, the other name of the same finding) is added to the record's
    statements. The same seed and statements give the same bytes. Raises `InputError` for an unknown code, for
    two codes that contradict each other, and for a negative seed.
    """
    return _record(_chance(seed), f"sim-{seed}", statements)


class Simulated:
    """The source "simulated": `size` records of which record i depends only on (seed, i).

    statements: the codes to go through in turn, one a record; () for plausible combinations of all.
    """

    name = "simulated"

    def __init__(self, seed: int, size: int, statements: tuple[str, ...] = ()) -> None:
        """seed: at least 0. Raises `InputError` for a negative seed or size, or an unknown code."""
        if size < 0:
            raise InputError(f"simulated: {size} records; the number must not be negative")
        _chance(seed)
        for code in statements:
            resolved([code], _chance(seed))
        self.statements = statements
        self.seed = seed
        self.size = size

    def __len__(self) -> int:
        return self.size

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises IndexError outside 0 <= i < size."""
        if not 0 <= i < self.size:
            raise IndexError(f"record {i} of {self.size} simulated records")
        wanted = [self.statements[i % len(self.statements)]] if self.statements else None
        return _record(_chance(self.seed, i), f"sim-{self.seed}-{i}", wanted)


def _chance(*seed: int) -> Chance:
    if min(seed) < 0:
        raise InputError(f"simulated: seed {seed[0]} is negative; use 0 or more")
    return Chance(*seed)


def _record(rng: Chance, record_id: str, statements: Sequence[str] | None) -> EcgRecord:
    findings = drawn(rng) if statements is None else resolved(statements, rng)
    person = draw_person(rng, "NORM" in findings, findings <= NORMAL_COMPANY)
    timing = rhythm(findings, person.age, rng)
    main = _verified_beat(findings, person, timing.rate, rng)
    heart = _beats(findings, person, timing, main, rng)
    _add_atrial_activity(heart, findings, person, timing, rng)
    return EcgRecord(
        record_id=record_id,
        signal=twelve_leads(heart, electrode_noise(_SAMPLES, RATE_HZ, rng)),
        sampling_rate=float(RATE_HZ),
        source="simulated",
        statements=holding(findings, main),
        report=_report(findings, timing, main),
        provenance="simulated",
        patient_id=record_id,
        age=person.age,
        sex=person.sex,
        measured=_measured(findings, timing, main),
        measured_by="simulated",
    )


def _measured(findings: frozenset[str], timing: Rhythm, beat: Beat) -> dict[str, float]:
    """What the simulator itself knows of the record in numbers; see `EcgRecord.measured`."""
    known: dict[str, float] = {}
    rate = steady_rate([t for t, _ in timing.ventricles if 0 <= t < LENGTH_S])
    if rate is not None:
        known["rate_bpm"] = rate
    if timing.pr_ms > 0 and not findings & NO_SINGLE_PR:
        known["pr_ms"] = timing.pr_ms
    conducted = sum(kind == "normal" for _, kind in timing.ventricles)
    if 2 * conducted < len(timing.ventricles):  # paced, or an escape rhythm from the ventricle: not this beat
        return known
    known["qrs_ms"] = beat.qrs_ms
    if not findings & HIDDEN_T_END:
        known["qt_ms"] = beat.qt_ms
    if not findings & {"CRBBB", "IRBBB"}:  # there the axis depends on how much of the late R' is counted
        known["qrs_axis_deg"] = beat.axis
    return known


def _verified_beat(findings: frozenset[str], person: Person, rate: float, rng: Chance) -> Beat:
    """Propose beats until one meets the criteria; of beats that all miss one, the best."""
    best, misses = None, 1000
    for _ in range(_TRIES):
        qrs, normal, width = activation(findings, person, rng)
        qt = qt_interval(findings, person, rate, width, rng)
        beat = changed(recovery(findings, person, qrs, normal, (width, qt), rng), findings, person, rng)
        wrong = len(unmet(findings, beat, person))
        if wrong < misses:
            best, misses = beat, wrong
        if not wrong:
            break
    assert best is not None
    return best


def _beats(findings: frozenset[str], person: Person, timing: Rhythm, main: Beat, rng: Chance) -> Samples:
    """(8, n) mV: every P wave and every ventricular beat at its time."""
    heart = np.zeros((8, _SAMPLES), np.float32)
    breath = (rng.uniform(0.17, 0.33), rng.uniform(0, 6.28), rng.uniform(0.02, 0.09))
    for kind in sorted({k for _, k in timing.ventricles}):
        onsets = [t for t, k in timing.ventricles if k == kind and -1 < t < LENGTH_S]
        waves = main.waves if kind == "normal" else _other_beat(kind, person, main, rng).waves
        _place(heart, waves, onsets, breath, rng)
    for focus in sorted({k for _, k in timing.atria}):
        waves = p_wave(findings, person, rng, focus)
        _place(heart, waves, [t for t, k in timing.atria if k == focus and -1 < t < LENGTH_S], breath, rng)
    for spike in timing.spikes:
        i = round(spike * RATE_HZ)
        if 0 <= i < _SAMPLES:
            heart[:, i] += timing.spike_mv * (DOWER @ np.array([0.5, 0.7, 0.25]))
    return heart


def _other_beat(kind: str, person: Person, main: Beat, rng: Chance) -> Beat:
    """A ventricular, paced or aberrantly conducted beat; its T follows from its activation."""
    if kind == "aberrant":
        late = person.wave("right", (50, 95, 130), (-0.45, 0.0, -0.6), "activation", rng)
        return Beat([*main.waves, late], 130, main.qt_ms)
    qrs, width = ectopic_qrs(person, rng, kind)
    qt = main.qt_ms + 0.6 * (width - main.qrs_ms) + 10
    return recovery(frozenset(), person, qrs, [], (width, qt), rng)


def _place(heart: Samples, waves: list[Wave], onsets: list[float], breath: Vector, rng: Chance) -> None:
    """Add one kind of beat at each onset; breathing and chance change the strength of every wave from beat to
    beat."""
    if not onsets:
        return
    hz, phase, depth = breath
    k = len(waves)
    # the beat itself, how it sways with breathing, and two ways in which it may differ by chance
    sway, one, other = (rng.normals(k) for _ in range(3))
    weights = np.array([[1.0] * k, [depth * n for n in sway], [0.02 * n for n in one], [0.02 * n for n in other]])
    parts = superposed(table(waves), weights, int(max(w.end for w in waves) / 1000 * RATE_HZ) + 2)
    turns = [2 * math.pi * hz * onset + phase for onset in onsets]
    breathing = [[1 + depth * math.sin(turn) for turn in turns], [math.cos(turn) for turn in turns]]
    amounts = np.array([*breathing, rng.normals(len(onsets)), rng.normals(len(onsets))], np.float32)
    _add_beats(heart, parts, np.array([round(onset * RATE_HZ) for onset in onsets]), amounts)


@compiled
def _add_beats(heart, parts, starts, amounts):  # type: ignore[no-untyped-def]  # numba infers these
    """Add to `heart` (8, n) the four parts (4, 8, w) of a beat at each start (B,), each in its amount (4, B)."""
    n, width = heart.shape[1], parts.shape[2]
    for b in range(len(starts)):
        first, last = max(starts[b], 0), min(starts[b] + width, n)
        if first >= last:
            continue
        skip = first - starts[b]
        a0, a1, a2, a3 = amounts[0, b], amounts[1, b], amounts[2, b], amounts[3, b]
        for lead in range(heart.shape[0]):
            row = heart[lead, first:last]
            p0, p1, p2, p3 = parts[0, lead, skip:], parts[1, lead, skip:], parts[2, lead, skip:], parts[3, lead, skip:]
            for i in range(row.size):
                row[i] += a0 * p0[i] + a1 * p1[i] + a2 * p2[i] + a3 * p3[i]


def _add_atrial_activity(heart: Samples, findings: frozenset[str], person: Person, timing: Rhythm, rng: Chance) -> None:
    """Add to `heart` (8, n) the f waves of fibrillation (350-600/min) or the saw teeth of flutter (240-350/min)."""
    if "AFIB" in findings:
        wave = _fibrillatory_waves(rng)
        vector = np.array([-0.35, 0.55, -0.4]) * min(max(0.032 * math.exp(rng.normal(0, 0.6)), 0.008), 0.10)
    elif "AFLT" in findings:
        turn = ((_TIME - timing.flutter_phase) * timing.atrial_rate / 60) % 1.0
        slope = rng.uniform(0.60, 0.75)  # slow descent, fast return
        wave = np.where(turn < slope, 1 - 2 * turn / slope, -1 + 2 * (turn - slope) / (1 - slope))
        wave = np.convolve(wave, np.ones(13) / 13, mode="same")
        vector = np.array([0.01, 0.11, 0.05]) * rng.uniform(0.8, 1.8)
    else:
        return
    gain = np.array(SITES["atria"]) * person.gains
    heart += np.outer((DOWER @ vector) * gain, wave).astype(np.float32)


def _fibrillatory_waves(rng: Chance) -> NDArray[np.floating]:
    """(n,) f waves of changing rate and strength, of about unit height."""

    def sway(low: float, high: float) -> NDArray[np.floating]:
        return np.sin((2 * math.pi * rng.uniform(low, high)) * _TIME + rng.uniform(0, 6.28))

    drift = 0.5 * sway(0.2, 0.6)
    course = np.cumsum(rng.uniform(5.9, 8.5) + drift) * (2 * math.pi / RATE_HZ)
    course = course.astype(np.float32)  # four times as fast, and true to a ten thousandth
    return (1 + 0.5 * sway(0.3, 0.9)) * (np.sin(course) + 0.35 * np.sin(2 * course + 1.0)) + 0.45 * np.sin(
        0.71 * course + 2.0
    )


# Said already by another finding's sentence.
_SILENT_WITH: dict[str, frozenset[str]] = {
    "LPR": frozenset({"1AVB"}),
    "VCLVH": frozenset({"LVH"}),
    "QWAVE": Q_INFARCTS,
    "ABQRS": Q_INFARCTS | {"WPW"},
    "SVTAC": frozenset({"PSVT"}),
    "PRC(S)": frozenset({"PVC", "PAC"}),
    "NT_": frozenset({"NDT"}),
}


_NAMES = {code: each.name.removeprefix("an ").removeprefix("a ") for code, each in STATEMENTS.items()}
_MEASURES: dict[str, Callable[[Rhythm, Beat], str]] = {
    **dict.fromkeys(("1AVB", "LPR"), lambda timing, _: f"PR {timing.pr_ms:.0f} ms"),
    **dict.fromkeys(("CLBBB", "CRBBB", "IVCD"), lambda _, beat: f"QRS {beat.qrs_ms:.0f} ms"),
    **dict.fromkeys(("LAFB", "LPFB"), lambda _, beat: f"axis {beat.axis:.0f} degrees"),
    "LNGQT": lambda _, beat: f"QT {beat.qt_ms:.0f} ms",
    "LVH": lambda _, beat: f"Sokolow-Lyon {beat.sokolow:.1f} mV",
}
"""Statements that are said together with a measurement."""


def _report(findings: frozenset[str], timing: Rhythm, beat: Beat) -> str:
    """A short English report of the findings with the measurements that belong to them."""
    said = {c for c in findings if c not in _SILENT_WITH or findings.isdisjoint(_SILENT_WITH[c])}
    first = " and ".join(_NAMES[c] for c in sorted(said & RHYTHMS)) or "ventricular response"
    sentences = [f"{first}, rate {timing.rate:.0f}/min"]
    for code in sorted(said - RHYTHMS, key=lambda c: (c == "NORM", c)):
        measure = _MEASURES.get(code)
        sentences.append(f"{_NAMES[code]}, {measure(timing, beat)}" if measure else _NAMES[code])
    return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
