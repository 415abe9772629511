"""The evolving infarct: hyperacute T, raised ST, reciprocal depression, then Q and an inverted T, by territory.

The current of injury is one dipole that points to the injured wall, so that the leads over the wall show an elevation
and those opposite it a depression, and all twelve stay consistent. The course is that of Smith et al., "The ECG in
Acute MI" (2002), and of the fourth universal definition of myocardial infarction (U, 2018), whose limits for an
elevation `udmi_elevated` applies. Heights are those of the records of PTB-XL's folds 1-8 whose `infarction_stadium1`
names a stage (`benchmarks/infarct_stages.py`): two contiguous leads exceed 0.2 mV at J + 60 ms in two thirds of
stage I, in a fifth of stage II and in one of twenty of stage II-III. What PTB-XL hardly has is as in the literature:
"tombstones" (Guo et al., Clin Cardiol 2000;23:347), and a depressed J point below a tall T (de Winter et al., N Engl J
Med 2008;359:2071).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from render.errors import InputError
from render.record import LEADS
from render.simulator.activation import activation, jitter, normal_vector
from render.simulator.checks import record_statements
from render.simulator.criteria import Q_LEADS, SMALL_Q, SimulatedBeat
from render.simulator.dipoles import Person, Vector, clip, plus, scale
from render.simulator.findings import RHYTHMS, SINUS
from render.simulator.repolarisation import qt_interval, recovery
from render.simulator.rng import BufferedRng
from render.suggest import did_you_mean

STAGES = ("hyperacute", "acute", "evolving", "subacute")
"""Minutes: tall broad T. Hours: ST raised (stage I). A day: ST lower, Q, T turning (II). Days: T inverted (II-III)."""

PTBXL_STAGES = dict(zip(STAGES, ("Stadium I", "Stadium I", "Stadium II", "Stadium II-III"), strict=True))
"""Stage -> its name in PTB-XL's column `infarction_stadium1`."""

_STAGE_SHARES = (0.20, 0.65, 0.87, 1.0)  # running sums
_CODE_SHARES = (0.24, 0.40, 0.50, 0.57, 0.77, 0.87, 0.92, 0.96, 1.0)
_MOST_BEATS = 24
_DE_WINTER = 0.12  # share of hyperacute anterior infarcts
_TOMBSTONES = 0.25  # share of acute infarcts
_Q_SHARES = {"hyperacute": 0.0, "acute": 0.5, "evolving": 0.85, "subacute": 0.8}


class _Territory(NamedTuple):
    """towards: the direction to the injured wall. leads: over it. opposite: in which the depression shows.

    height_mv: the usual ST elevation in stage I, in the lead that shows it most.
    """

    towards: Vector
    leads: tuple[str, ...]
    opposite: tuple[str, ...]
    height_mv: float


INFARCT_TERRITORIES: dict[str, _Territory] = {
    "ASMI": _Territory((0.05, -0.22, -0.80), ("V1", "V2", "V3"), ("III", "aVF"), 0.36),
    "AMI": _Territory((0.45, -0.18, -0.70), ("V2", "V3", "V4"), ("III", "aVF"), 0.36),
    "ALMI": _Territory((0.80, -0.50, -0.40), ("V3", "V4", "V5", "I", "aVL"), ("III", "aVF"), 0.34),
    "LMI": _Territory((0.85, -0.55, 0.05), ("I", "aVL", "V5", "V6"), ("III", "aVF"), 0.24),
    "IMI": _Territory((-0.20, 0.90, 0.10), ("II", "III", "aVF"), ("I", "aVL"), 0.28),
    "ILMI": _Territory((0.45, 0.85, 0.22), ("II", "III", "aVF", "V5", "V6"), ("aVL", "V1"), 0.28),
    "IPMI": _Territory((-0.15, 0.80, 0.50), ("II", "III", "aVF"), ("aVL", "V1", "V2", "V3"), 0.28),
    "IPLMI": _Territory((0.40, 0.75, 0.60), ("II", "III", "aVF", "V6"), ("V1", "V2", "V3"), 0.28),
    "PMI": _Territory((0.15, 0.10, 0.90), (), ("V1", "V2", "V3"), 0.22),
}
"""Infarct code -> its territory. None of the twelve leads lies over the posterior wall: there the depression counts."""

INFARCT_PREVALENCE = {
    "1AVB": 0.069, "ABQRS": 0.507, "AFIB": 0.087, "ALMI": 0.1, "AMI": 0.162, "ASMI": 0.245, "ILMI": 0.103, "IMI": 0.199,
    "INVT": 0.491, "IPLMI": 0.039, "IPMI": 0.047, "LMI": 0.068, "LPR": 0.069, "PMI": 0.037, "PRC(S)": 0.069,
    "PVC": 0.069, "QWAVE": 0.507, "SARRH": 0.035, "SBRAD": 0.106, "SR": 0.564, "STACH": 0.208, "STD_": 0.463,
    "STE_": 0.58, "TAB_": 0.628, "VCLVH": 0.003,
}  # fmt: skip
"""Statement -> share of 4,000 evolving infarcts (any territory and stage, seeds 0-3999) that carry it."""

_CODES = tuple(INFARCT_TERRITORIES)
_ANTERIOR = frozenset({"ASMI", "AMI", "ALMI"})


@dataclass(frozen=True)
class AcuteInfarct:
    """code: of `INFARCT_TERRITORIES`. stage: of `STAGES`. with_q: whether Q waves are there already.

    shape: "convex", "oblique", "concave", "tombstone" or "de Winter". Raises `InputError` for an unknown code or stage.
    """

    code: str
    stage: str
    with_q: bool = False
    shape: str = "oblique"

    def __post_init__(self) -> None:
        for word, valid, what in ((self.code, INFARCT_TERRITORIES, "territory"), (self.stage, STAGES, "stage")):
            if word not in valid:
                near = did_you_mean(word, valid)
                raise InputError(f"acute infarct: {what} {word!r} is unknown{near}; valid are {', '.join(valid)}")


def sample_infarct(rng: BufferedRng, code: str | None = None, stage: str | None = None) -> AcuteInfarct:
    """An infarct of this territory and stage; None for any. Raises `InputError` for an unknown one."""
    code = code or rng.weighted_choice(_CODES, _CODE_SHARES)
    stage = stage or rng.weighted_choice(STAGES, _STAGE_SHARES)
    if code == "PMI" and stage == "hyperacute":  # nothing of a tall T over the back is known from the usual leads
        stage = "acute"
    with_q = rng.random() < _Q_SHARES.get(stage, 0.0)
    shape = rng.weighted_choice(("convex", "oblique", "concave"), (0.45, 0.8, 1.0))
    if stage == "acute" and code != "PMI" and rng.random() < _TOMBSTONES:
        shape = "tombstone"
    if stage == "hyperacute":
        shape = "de Winter" if code in _ANTERIOR and rng.random() < _DE_WINTER else "concave"
    return AcuteInfarct(code, stage, with_q, shape)


def sample_companions(infarct: AcuteInfarct, rng: BufferedRng) -> tuple[str, ...]:
    """A rhythm, and at times a block or ectopic beats. The inferior wall's infarct slows the sinus and the AV node."""
    inferior = infarct.code.startswith("I")
    shares = (0.58, 0.68, 0.86, 0.91, 1.0) if inferior else (0.58, 0.84, 0.89, 0.92, 1.0)
    rhythm = rng.weighted_choice(("SR", "STACH", "SBRAD", "SARRH", "AFIB"), shares)
    if rhythm in SINUS - {"STACH"} and rng.random() < (0.14 if inferior else 0.06):
        return rhythm, "1AVB"
    return (rhythm, "PVC") if rng.random() < 0.08 else (rhythm,)


def infarct_beat(
    infarct: AcuteInfarct, companions: frozenset[str], person: Person, rate: float, rng: BufferedRng
) -> SimulatedBeat:
    """A beat of the infarct: of several sampled ones, the first that shows what its stage requires, else the last."""
    findings = companions | ({infarct.code} if infarct.with_q else frozenset())
    for _ in range(_MOST_BEATS):
        qrs, normal, width = activation(findings, person, rng)
        if infarct.shape == "tombstone":  # nothing is left of S, and R runs into the plateau
            qrs = [wave.scale(0.35) if wave.name in ("posterior", "base") else wave for wave in qrs]
        qt = qt_interval(companions, person, rate, width, rng)
        if infarct.stage in ("evolving", "subacute"):
            qt += rng.uniform(10, 45)
        beat = recovery(companions, person, qrs, normal, (width, qt), rng)
        beat = _STAGE_CHANGES[infarct.stage](infarct, beat, person, rng)
        if _shows(infarct, beat, person):
            break
    return beat


def udmi_elevated(beat: SimulatedBeat, person: Person, leads: tuple[str, ...] = LEADS) -> bool:
    """Whether two contiguous ones of the leads reach the limit at the J point and 60 ms later.

    0.1 mV; in V2 and V3 0.2 mV, in men below 40 years 0.25, in women 0.15 (U).
    """
    front = 0.15 if person.sex == "female" else 0.25 if person.age < 40 else 0.2
    limits = {name: front if name in ("V2", "V3") else 0.1 for name in leads}
    return beat.any_contiguous({name for name, mv in limits.items() if min(beat.j(name), beat.st(name)) >= mv})


def infarct_statements(
    infarct: AcuteInfarct, companions: frozenset[str], beat: SimulatedBeat, person: Person
) -> tuple[str, ...]:
    """Sorted codes: the infarct, its companions, and the descriptive statements that the noise-free beat meets."""
    codes = set(record_statements(companions, beat)) | {infarct.code}
    if not beat.t_inverted:
        codes -= {"LOWT", "NT_", "TAB_"}  # of a T that the ST hides, height says nothing
    if infarct.with_q and infarct.code != "PMI":
        codes |= {"QWAVE", "ABQRS"}
    if infarct.stage == "hyperacute":
        codes.add("TAB_")
    elif infarct.stage != "acute" and infarct.code != "PMI":  # inverted over the wall; `t_inverted` leaves out III, aVF
        codes |= {"INVT", "TAB_"}
    if udmi_elevated(beat, person):
        codes.add("STE_")
    return tuple(sorted(codes))


def infarct_report(infarct: AcuteInfarct, companions: frozenset[str], beat: SimulatedBeat, rate: float) -> str:
    """A short English report with the leads and the heights in millivolts."""
    rhythm = _RHYTHM_NAMES[min(companions & RHYTHMS)]
    heights = {name: min(beat.j(name), beat.st(name)) for name in INFARCT_TERRITORIES[infarct.code].leads}
    high = {name: mv for name, mv in heights.items() if mv >= 0.1}
    low = [name for name in INFARCT_TERRITORIES[infarct.code].opposite if beat.st(name) <= -0.05]
    sentences = [f"{rhythm}, rate {rate:.0f}/min", f"{infarct.stage} {_NAMES[infarct.code]} myocardial infarction"]
    if high:
        sentences.append(f"ST elevation up to {max(high.values()):.1f} mV in {', '.join(high)}")
    if low:
        sentences.append(f"ST depression in {', '.join(low)}")
    if infarct.with_q and infarct.code != "PMI":
        sentences.append("pathological Q waves")
    if infarct.stage == "hyperacute":
        sentences.append("tall broad T waves")
    elif infarct.stage != "acute":
        sentences.append("tall R and upright T waves in V1 to V3" if infarct.code == "PMI" else "inverted T waves")
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


_NAMES = {
    "ASMI": "anteroseptal", "AMI": "anterior", "ALMI": "anterolateral", "LMI": "lateral", "IMI": "inferior",
    "ILMI": "inferolateral", "IPMI": "inferoposterior", "IPLMI": "inferoposterolateral", "PMI": "posterior",
}  # fmt: skip
_RHYTHM_NAMES = {
    "SR": "sinus rhythm", "STACH": "sinus tachycardia", "SBRAD": "sinus bradycardia", "SARRH": "sinus arrhythmia",
    "AFIB": "atrial fibrillation",
}  # fmt: skip


def _shows(infarct: AcuteInfarct, beat: SimulatedBeat, person: Person) -> bool:
    """Whether the beat has what its stage requires, and no Q that the infarct does not have."""
    code, territory = infarct.code, INFARCT_TERRITORIES[infarct.code]
    if code != "PMI":
        q = all(beat.q_ms(name) >= 30 for name in SMALL_Q.get(code, Q_LEADS[code]))
        if q != infarct.with_q and (infarct.with_q or beat.pathological_q):
            return False
    if infarct.stage == "acute":
        is_reciprocal = any(beat.st(name) <= -0.05 for name in territory.opposite) or code in _ANTERIOR
        return is_reciprocal and (code == "PMI" or udmi_elevated(beat, person, territory.leads))
    if infarct.stage == "hyperacute":
        return max(beat.t(name) for name in territory.leads) >= 0.35
    if code == "PMI":
        return beat.t("V2") > 0
    return sum(beat.t(name) <= -0.1 for name in territory.leads) >= 2


def _hyperacute(infarct: AcuteInfarct, beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """A tall, broad T that begins at J, over a slightly raised ST, or over a depressed J point (de Winter)."""
    towards = _towards(infarct, rng)
    height = (0.75 if infarct.code in _ANTERIOR else 0.5) * math.exp(rng.normal(0, 0.25))
    low = _part_of_t(beat, 0.5)
    if infarct.shape == "de Winter":
        away = plus(scale((-0.55, 0.05, 0.5), 1.0), normal_vector((0.08, 0.08, 0.08), rng))
        low = _with_st(low, person, away, -rng.uniform(0.1, 0.25), ("V3", "V4"), (0.03, 0.40), rng)
    else:
        low = _with_st(low, person, towards, rng.uniform(0.04, 0.15), _measured_leads(infarct), (0.15, 0.6), rng)
    return _with_t(low, person, towards, height, _measured_leads(infarct), 0.02, rng)


def _acute(infarct: AcuteInfarct, beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """ST raised over the wall and depressed opposite it; T goes the same way, or is part of one dome with it."""
    towards, territory, leads = _towards(infarct, rng), INFARCT_TERRITORIES[infarct.code], _measured_leads(infarct)
    height = clip(territory.height_mv * math.exp(rng.normal(0, 0.4)), 0.14, 0.9)
    course = {
        "convex": (rng.uniform(0.40, 0.55), rng.uniform(0.85, 0.95)),
        "oblique": (rng.uniform(0.25, 0.40), rng.uniform(0.80, 0.95)),
        "concave": (rng.uniform(0.10, 0.25), rng.uniform(0.70, 0.85)),
        "tombstone": (rng.uniform(0.38, 0.52), rng.uniform(0.88, 0.97)),
    }[infarct.shape]
    t_mv = {
        "convex": rng.uniform(-0.1, 0.25),
        "oblique": rng.uniform(0.3, 0.8),
        "concave": rng.uniform(0.7, 1.4),
        "tombstone": rng.uniform(-0.05, 0.3),
    }[infarct.shape]
    early = 18.0
    if infarct.shape == "tombstone":
        height = clip(height * rng.uniform(1.6, 2.8), 0.4, 1.5)
        early = 0.5 * beat.qrs_ms
    sign = _sign(infarct)
    high = _with_st(_part_of_t(beat, 0.5), person, towards, sign * height, leads, course, rng, early=early)
    if infarct.code == "PMI":  # the depression is flat, and T upright
        return _with_t(high, person, towards, rng.uniform(0.2, 0.5), leads, 0.35, rng)
    return _with_t(high, person, towards, height * t_mv, leads, 0.08, rng)


def _evolving(infarct: AcuteInfarct, beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """ST comes down, convex, and the end of T turns away from the wall."""
    towards, leads = _towards(infarct, rng), _measured_leads(infarct)
    height = clip(0.5 * INFARCT_TERRITORIES[infarct.code].height_mv * math.exp(rng.normal(0, 0.35)), 0.06, 0.35)
    course = (rng.uniform(0.25, 0.40), rng.uniform(0.60, 0.75))
    sign = _sign(infarct)
    high = _with_st(_part_of_t(beat, 0.7), person, towards, sign * height, leads, course, rng)
    depth = 0.30 * math.exp(rng.normal(0, 0.35))
    return _with_t(high, person, towards, -sign * depth, leads, rng.uniform(0.30, 0.42), rng)


def _subacute(infarct: AcuteInfarct, beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """ST near the baseline, T inverted, deep and symmetrical."""
    towards, leads = _towards(infarct, rng), _measured_leads(infarct)
    sign = _sign(infarct)
    level = sign * rng.uniform(0.0, 0.07)
    low = _with_st(_part_of_t(beat, 0.8), person, towards, level, leads, (0.15, 0.45), rng)
    depth = 0.40 * math.exp(rng.normal(0, 0.4))
    return _with_t(low, person, towards, -sign * depth, leads, rng.uniform(0.22, 0.36), rng)


_STAGE_CHANGES = {"hyperacute": _hyperacute, "acute": _acute, "evolving": _evolving, "subacute": _subacute}


def _towards(infarct: AcuteInfarct, rng: BufferedRng) -> Vector:
    return plus(jitter(INFARCT_TERRITORIES[infarct.code].towards, 0.12, rng), normal_vector((0.06, 0.06, 0.06), rng))


def _sign(infarct: AcuteInfarct) -> int:
    """-1 where the depression opposite the wall is measured, in the posterior infarct."""
    return -1 if infarct.code == "PMI" else 1


def _measured_leads(infarct: AcuteInfarct) -> tuple[str, ...]:
    territory = INFARCT_TERRITORIES[infarct.code]
    return territory.leads or territory.opposite


def _part_of_t(beat: SimulatedBeat, share: float) -> SimulatedBeat:
    """The beat with its own T reduced by this share."""
    waves = [wave.scale(1 - share) if wave.name == "t" else wave for wave in beat.waves]
    return SimulatedBeat(waves, beat.qrs_ms, beat.qt_ms)


def _with_st(
    beat: SimulatedBeat,
    person: Person,
    towards: Vector,
    mv: float,
    leads: tuple[str, ...],
    course: tuple[float, float],
    rng: BufferedRng,
    *,
    early: float = 18.0,
) -> SimulatedBeat:
    """Shift ST so that the lead of `leads` that the shift moves most is at `mv` at J + 60 ms.

    course: shares of the time from J to the end of T until which the shift lasts and at which it ends. early: it begins
    so many ms before J.
    """
    span = beat.qt_ms - beat.qrs_ms
    times = (beat.qrs_ms - early, beat.qrs_ms + 6, beat.qrs_ms + course[0] * span, beat.qrs_ms + course[1] * span)
    wave = person.wave("st+", times, towards, "activation", rng)
    alone = SimulatedBeat([wave], beat.qrs_ms, beat.qt_ms)
    lead = max(leads, key=lambda name: abs(alone.st(name)))
    strength = (mv - beat.st(lead)) / alone.st(lead)
    return SimulatedBeat([*beat.waves, wave.scale(strength)], beat.qrs_ms, beat.qt_ms)


def _with_t(
    beat: SimulatedBeat,
    person: Person,
    towards: Vector,
    mv: float,
    leads: tuple[str, ...],
    start: float,
    rng: BufferedRng,
) -> SimulatedBeat:
    """Add a T wave of `mv` in the lead of `leads` that shows it most. start: share of the time from J to its end."""
    span = beat.qt_ms - beat.qrs_ms
    times = (beat.qrs_ms + start * span, beat.qrs_ms + rng.uniform(0.60, 0.70) * span, beat.qt_ms)
    wave = person.wave("t+", times, towards, "recovery", rng)
    alone = SimulatedBeat([wave], beat.qrs_ms, beat.qt_ms)
    lead = max(leads, key=lambda name: abs(alone.t(name)))
    return SimulatedBeat([*beat.waves, wave.scale(mv / alone.t(lead))], beat.qrs_ms, beat.qt_ms)
