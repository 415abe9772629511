"""Simulated ECGs whose findings are known: a person, a rhythm, a heart and a noisy recorder, sampled from a seed.

The model is physiological: `rhythm` gives the times at which the chambers fire, `activation` and `repolarisation` the
dipoles of a beat, `dipoles` projects them on the leads, and `electrodes` adds the recorder's noise. A beat is accepted
only when its noise-free leads meet the `criteria` of its findings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.io import text_digest
from render.jit import jit
from render.measurements import steady_rate
from render.record import HIGH_RATE_HZ, SIMULATED_ID, EcgRecord
from render.simulator.activation import activation, ectopic_qrs, p_wave
from render.simulator.acute_infarct import (
    INFARCT_PREVALENCE,
    INFARCT_TERRITORIES,
    PTBXL_STAGES,
    infarct_beat,
    infarct_report,
    infarct_statements,
    sample_companions,
    sample_infarct,
)
from render.simulator.checks import record_statements, violations
from render.simulator.criteria import SimulatedBeat
from render.simulator.dipoles import DOWER, SITE_GAINS, Person, Vector, Wave, sample_person, superpose, wave_table
from render.simulator.electrodes import Voltage, electrode_noise, simulated_leads
from render.simulator.findings import (
    COMPATIBLE_WITH_NORM,
    Q_INFARCTS,
    RHYTHMS,
    SIMULATED_STATEMENTS,
    resolve_findings,
    sample_findings,
)
from render.simulator.repolarisation import apply_st_t_causes, qt_interval, recovery
from render.simulator.rhythm import LENGTH_S, Rhythm, rhythm
from render.simulator.rng import BufferedRng
from render.statements import HIDDEN_T_END, NO_SINGLE_PR, PREVALENCE, STATEMENTS

__all__ = ["ACUTE", "ANY", "SIMULATED_STATEMENTS", "SimulatedSource", "simulate", "simulate_infarct"]

ANY, ACUTE = "any", "acute"
"""Words beside the codes of `SimulatedSource`: a plausible combination of all statements, and an evolving infarct
(`render.simulator.acute_infarct`); "acute-IMI" is one of that territory."""

_SAMPLES = int(LENGTH_S * HIGH_RATE_HZ)
_MOST_BEATS = 24
_TIME = np.arange(_SAMPLES) / HIGH_RATE_HZ


def simulate(seed: int, statements: Sequence[str] | None = None) -> EcgRecord:
    """One ECG of 10 s at 500 Hz, float32 mV, in which the statements hold.

    Args:
        statements: SCP codes out of `SIMULATED_STATEMENTS`, or None for a plausible combination sampled from the
            seed. Statements that they require (a rhythm, the other name of the same finding) are added to the
            record's statements. The same seed and statements give the same bytes.

    Raises:
        InputError: For an unknown code, for two codes that contradict each other, and for a negative seed.
    """
    return _record(_rng(seed), f"{SIMULATED_ID}{seed}", statements)


def simulate_infarct(seed: int, code: str | None = None, stage: str | None = None) -> EcgRecord:
    """One ECG of an evolving infarct, like `simulate`.

    Args:
        code: the territory, of `render.simulator.acute_infarct.INFARCT_TERRITORIES`; None for any.
        stage: of `render.simulator.acute_infarct.STAGES`; None for any.

    Raises:
        InputError: For an unknown territory or stage, and for a negative seed.
    """
    return _infarct_record(_rng(seed), f"{SIMULATED_ID}{seed}", code, stage)


class SimulatedSource:
    """The source "simulated": `size` records of which record i depends only on (seed, i).

    Args:
        statements: codes to simulate in turn, one for each record, or the words `ANY` and `ACUTE`; () for plausible
            combinations of all.
    """

    name = "simulated"

    def __init__(self, seed: int, size: int, statements: tuple[str, ...] = ()) -> None:
        """seed: at least 0. Raises `InputError` for a negative seed or size, or an unknown code."""
        if size < 0:
            raise InputError(f"simulated: {size} records; the number must not be negative")
        _rng(seed)
        for word in statements:
            if word.startswith(f"{ACUTE}-"):
                sample_infarct(_rng(seed), word.removeprefix(f"{ACUTE}-"))
            elif word.lower() in (ANY, ACUTE) and word not in (ANY, ACUTE):
                raise InputError(f"statements: {word!r} is not a code; did you mean {word.lower()}?")
            elif word not in (ANY, ACUTE):
                resolve_findings([word], _rng(seed))
        self.statements = statements
        self.seed = seed
        self.size = size

    def __len__(self) -> int:
        return self.size

    def prevalence(self) -> dict[str, float] | None:
        """Statement -> share of the records that carry it, where evolving infarcts are among them.

        None without them: `render.dialogues.compose` then takes the simulator's own shares. Not with them, as an ST
        elevation, which is rare elsewhere, would then be asked about almost only where it is present.
        """
        if not any(word.partition("-")[0] == ACUTE for word in self.statements):
            return None
        parts = [_prevalence_of_word(word) for word in self.statements]
        return {code: sum(part.get(code, 0.0) for part in parts) / len(parts) for code in STATEMENTS}

    def digest(self) -> str:
        """Of the seed, the number of records and the codes."""
        return text_digest(self.seed, self.size, self.statements)

    def record_ids(self) -> list[str]:
        """They hold the seed and the record's number."""
        return [f"{SIMULATED_ID}{self.seed}-{i}" for i in range(self.size)]

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises IndexError outside 0 <= i < size."""
        if not 0 <= i < self.size:
            raise IndexError(f"record {i} of {self.size} simulated records")
        word = self.statements[i % len(self.statements)] if self.statements else ANY
        rng, record_id = _rng(self.seed, i), f"{SIMULATED_ID}{self.seed}-{i}"
        if word.partition("-")[0] == ACUTE:
            return _infarct_record(rng, record_id, word.removeprefix(ACUTE).removeprefix("-") or None, None)
        return _record(rng, record_id, None if word == ANY else [word])


def _prevalence_of_word(word: str) -> Mapping[str, float]:
    """Statement -> its share among the records that a word of `SimulatedSource` stands for, roughly."""
    if word == ANY:
        return PREVALENCE["simulated"]
    kind, _, code = word.partition("-")
    if kind != ACUTE:
        return {**PREVALENCE["simulated"], word: 1.0}
    if not code:
        return INFARCT_PREVALENCE
    return {**INFARCT_PREVALENCE, **dict.fromkeys(INFARCT_TERRITORIES, 0.0), code: 1.0}


def _rng(*seed: int) -> BufferedRng:
    if min(seed) < 0:
        raise InputError(f"simulated: seed {seed[0]} is negative; use 0 or more")
    return BufferedRng(*seed)


def _record(rng: BufferedRng, record_id: str, statements: Sequence[str] | None) -> EcgRecord:
    findings = sample_findings(rng) if statements is None else resolve_findings(statements, rng)
    person = sample_person(rng, "NORM" in findings, findings <= COMPATIBLE_WITH_NORM)
    timing = rhythm(findings, person.age, rng)
    main = _verified_beat(findings, person, timing.rate, rng)
    labels = record_statements(findings, main), _report(findings, timing, main)
    return _recording(record_id, findings, person, timing, main, labels, rng)


def _infarct_record(rng: BufferedRng, record_id: str, code: str | None, stage: str | None) -> EcgRecord:
    infarct = sample_infarct(rng, code, stage)
    companions = resolve_findings(sample_companions(infarct, rng), rng)
    person = sample_person(rng, normal=False, healthy=False)
    timing = rhythm(companions, person.age, rng)
    main = infarct_beat(infarct, companions, person, timing.rate, rng)
    statements = infarct_statements(infarct, companions, main, person)
    report = infarct_report(infarct, companions, main, timing.rate)
    record = _recording(record_id, companions, person, timing, main, (statements, report), rng)
    return replace(record, infarct_stage=PTBXL_STAGES[infarct.stage])


def _recording(
    record_id: str,
    findings: frozenset[str],
    person: Person,
    timing: Rhythm,
    main: SimulatedBeat,
    labels: tuple[tuple[str, ...], str],
    rng: BufferedRng,
) -> EcgRecord:
    """The record of this heart. labels: its statements and its report."""
    heart = _beats(findings, person, timing, main, rng)
    _add_atrial_activity(heart, findings, person, timing, rng)
    return EcgRecord(
        record_id=record_id,
        signal=simulated_leads(heart, electrode_noise(_SAMPLES, HIGH_RATE_HZ, rng)),
        sampling_rate=float(HIGH_RATE_HZ),
        source="simulated",
        statements=labels[0],
        report=labels[1],
        provenance="simulated",
        patient_id=record_id,
        age=person.age,
        sex=person.sex,
        measurements=_measurements(findings, timing, main),
        measured_by="simulated",
    )


def _measurements(findings: frozenset[str], timing: Rhythm, beat: SimulatedBeat) -> dict[str, float]:
    """Rate, intervals and axis that the record was simulated with; see `EcgRecord.measurements`."""
    numbers: dict[str, float] = {}
    rate = steady_rate([t for t, _ in timing.ventricles if 0 <= t < LENGTH_S])
    if rate is not None:
        numbers["rate_bpm"] = rate
    if timing.pr_ms > 0 and not findings & NO_SINGLE_PR:
        numbers["pr_ms"] = timing.pr_ms
    normal_beats = sum(kind == "normal" for _, kind in timing.ventricles)
    if 2 * normal_beats < len(
        timing.ventricles
    ):  # paced, or a ventricular escape rhythm: most beats differ from this one
        return numbers
    numbers["qrs_ms"] = beat.qrs_ms
    if not findings & HIDDEN_T_END:
        numbers["qt_ms"] = beat.qt_ms
    if not findings & {"CRBBB", "IRBBB"}:  # their axis depends on how much of the late R' is included
        numbers["qrs_axis_deg"] = beat.axis
    return numbers


def _verified_beat(findings: frozenset[str], person: Person, rate: float, rng: BufferedRng) -> SimulatedBeat:
    """Sample beats until one meets all criteria; if none does, the one with the fewest violations."""
    best, fewest = None, 1000
    for _ in range(_MOST_BEATS):
        qrs, normal, width = activation(findings, person, rng)
        qt = qt_interval(findings, person, rate, width, rng)
        beat = apply_st_t_causes(recovery(findings, person, qrs, normal, (width, qt), rng), findings, person, rng)
        count = len(violations(findings, beat, person))
        if count < fewest:
            best, fewest = beat, count
        if not count:
            break
    assert best is not None
    return best


def _beats(findings: frozenset[str], person: Person, timing: Rhythm, main: SimulatedBeat, rng: BufferedRng) -> Voltage:
    """(8, n) mV in the order of `INDEPENDENT_LEADS`: every P wave and every ventricular beat at its time."""
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
        i = round(spike * HIGH_RATE_HZ)
        if 0 <= i < _SAMPLES:
            heart[:, i] += timing.spike_mv * (DOWER @ np.array([0.5, 0.7, 0.25]))
    return heart


def _other_beat(kind: str, person: Person, main: SimulatedBeat, rng: BufferedRng) -> SimulatedBeat:
    """A ventricular, paced or aberrantly conducted beat; its T wave follows from its activation."""
    if kind == "aberrant":
        late = person.wave("right", (50, 95, 130), (-0.45, 0.0, -0.6), "activation", rng)
        return SimulatedBeat([*main.waves, late], 130, main.qt_ms)
    qrs, width = ectopic_qrs(person, rng, kind)
    qt = main.qt_ms + 0.6 * (width - main.qrs_ms) + 10
    return recovery(frozenset(), person, qrs, [], (width, qt), rng)


def _place(heart: Voltage, waves: list[Wave], onsets: list[float], breath: Vector, rng: BufferedRng) -> None:
    """Add one kind of beat at each onset; the strength of every wave varies with breathing and at random."""
    if not onsets:
        return
    hz, phase, depth = breath
    k = len(waves)
    # the beat itself, its variation with breathing, and two random variations
    sway, one, other = (rng.normals(k) for _ in range(3))
    weights = np.array([[1.0] * k, [depth * n for n in sway], [0.02 * n for n in one], [0.02 * n for n in other]])
    parts = superpose(wave_table(waves), weights, int(max(w.end for w in waves) / 1000 * HIGH_RATE_HZ) + 2)
    turns = [2 * math.pi * hz * onset + phase for onset in onsets]
    breathing = [[1 + depth * math.sin(turn) for turn in turns], [math.cos(turn) for turn in turns]]
    amounts = np.array([*breathing, rng.normals(len(onsets)), rng.normals(len(onsets))], np.float32)
    _add_beats(heart, parts, np.array([round(onset * HIGH_RATE_HZ) for onset in onsets]), amounts)


@jit
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


def _add_atrial_activity(
    heart: Voltage, findings: frozenset[str], person: Person, timing: Rhythm, rng: BufferedRng
) -> None:
    """Add to `heart` (8, n) the f waves of fibrillation (350-600/min) or the saw teeth of flutter (240-350/min)."""
    if "AFIB" in findings:
        wave = _fibrillatory_waves(rng)
        vector = np.array([-0.35, 0.55, -0.4]) * min(max(0.032 * math.exp(rng.normal(0, 0.6)), 0.008), 0.10)
    elif "AFLT" in findings:
        turn = ((_TIME - timing.flutter_phase) * timing.atrial_rate / 60) % 1.0
        slope = rng.uniform(0.60, 0.75)  # slow descent, fast rise
        wave = np.where(turn < slope, 1 - 2 * turn / slope, -1 + 2 * (turn - slope) / (1 - slope))
        wave = np.convolve(wave, np.ones(13) / 13, mode="same")
        vector = np.array([0.01, 0.11, 0.05]) * rng.uniform(0.8, 1.8)
    else:
        return
    gain = np.array(SITE_GAINS["atria"]) * person.gains
    heart += np.outer((DOWER @ vector) * gain, wave).astype(np.float32)


def _fibrillatory_waves(rng: BufferedRng) -> NDArray[np.floating]:
    """(n,) f waves of changing rate and strength, of about unit height."""

    def sway(low: float, high: float) -> NDArray[np.floating]:
        return np.sin((2 * math.pi * rng.uniform(low, high)) * _TIME + rng.uniform(0, 6.28))

    drift = 0.5 * sway(0.2, 0.6)
    phase = np.cumsum(rng.uniform(5.9, 8.5) + drift) * (2 * math.pi / HIGH_RATE_HZ)
    phase = phase.astype(np.float32)  # four times as fast, accurate to 1e-4
    return (1 + 0.5 * sway(0.3, 0.9)) * (np.sin(phase) + 0.35 * np.sin(2 * phase + 1.0)) + 0.45 * np.sin(
        0.71 * phase + 2.0
    )


# Code -> findings whose sentence in the report already includes it.
_REDUNDANT_WITH: dict[str, frozenset[str]] = {
    "LPR": frozenset({"1AVB"}),
    "VCLVH": frozenset({"LVH"}),
    "QWAVE": Q_INFARCTS,
    "ABQRS": Q_INFARCTS | {"WPW"},
    "SVTAC": frozenset({"PSVT"}),
    "PRC(S)": frozenset({"PVC", "PAC"}),
    "NT_": frozenset({"NDT"}),
}


_NAMES = {code: each.name.removeprefix("an ").removeprefix("a ") for code, each in STATEMENTS.items()}
_MEASURES: dict[str, Callable[[Rhythm, SimulatedBeat], str]] = {
    **dict.fromkeys(("1AVB", "LPR"), lambda timing, _: f"PR {timing.pr_ms:.0f} ms"),
    **dict.fromkeys(("CLBBB", "CRBBB", "IVCD"), lambda _, beat: f"QRS {beat.qrs_ms:.0f} ms"),
    **dict.fromkeys(("LAFB", "LPFB"), lambda _, beat: f"axis {beat.axis:.0f} degrees"),
    "LNGQT": lambda _, beat: f"QT {beat.qt_ms:.0f} ms",
    "LVH": lambda _, beat: f"Sokolow-Lyon {beat.sokolow:.1f} mV",
}
"""Code -> the measurement that the report states with it."""


def _report(findings: frozenset[str], timing: Rhythm, beat: SimulatedBeat) -> str:
    """A short English report of the findings with the measurements that belong to them."""
    codes = {c for c in findings if c not in _REDUNDANT_WITH or findings.isdisjoint(_REDUNDANT_WITH[c])}
    first = " and ".join(_NAMES[c] for c in sorted(codes & RHYTHMS)) or "ventricular response"
    sentences = [f"{first}, rate {timing.rate:.0f}/min"]
    for code in sorted(codes - RHYTHMS, key=lambda c: (c == "NORM", c)):
        measure = _MEASURES.get(code)
        sentences.append(f"{_NAMES[code]}, {measure(timing, beat)}" if measure else _NAMES[code])
    return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences)
