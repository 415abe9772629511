"""Repolarisation: ST, T and U, the causes that change them, and the change that follows from a delayed activation.

Criteria: see `render.simulator.criteria`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from render.simulator.activation import gradient, jitter, normal_vector
from render.simulator.criteria import TERRITORIES, SimulatedBeat
from render.simulator.dipoles import Person, Vector, Wave, clip, plus, scale, total_area
from render.simulator.rng import BufferedRng

# The direction away from an ischaemic region; suffixes as in TERRITORIES.
_AWAY: dict[str, Vector] = {
    "AL": (-1.0, -0.10, 0.0),
    "LA": (-0.9, 0.15, -0.10),
    "AS": (-0.50, 0.0, 0.75),
    "AN": (-0.60, 0.0, 0.60),
    "IN": (-0.20, -1.0, -0.10),
    "IL": (-0.70, -0.80, -0.10),
    "C_": (-0.90, -0.45, -0.30),
}
_INFARCT_SITE = {
    "ASMI": "AS", "AMI": "AN", "ALMI": "AL", "LMI": "LA",
    "IMI": "IN", "IPMI": "IN", "ILMI": "IL", "IPLMI": "IL",
}  # fmt: skip


def qt_interval(findings: frozenset[str], person: Person, rate: float, qrs_ms: float, rng: BufferedRng) -> float:
    """QT in ms: QTc (Bazett) < 450 ms in men and < 460 ms in women unless the findings include a long QT (A4)."""
    rr = 60.0 / clip(rate, 45.0, 170.0)
    late = max(0.0, qrs_ms - 105.0) * 0.75
    if "LNGQT" in findings:
        return rng.uniform(470, 550) * math.sqrt(rr) + late
    qtc = clip(rng.normal(400 if person.sex == "male" else 412, 16), 362, 438)
    if "DIG" in findings:
        qtc = rng.uniform(340, 378)
    qt: float = qtc * rr ** (1 / 3)
    limit = 442.0 if person.sex == "male" else 452.0
    return min(qt, limit * math.sqrt(rr)) + late


def recovery(
    findings: frozenset[str],
    person: Person,
    qrs: list[Wave],
    normal: list[Wave],
    widths: tuple[float, float],
    rng: BufferedRng,
) -> SimulatedBeat:
    """The whole beat: the QRS with its ST and T. widths: (QRS, QT) in ms.

    The T area is the ventricular gradient minus the change of the QRS area (Wilson 1934), so that a delayed
    activation causes a discordant ST-T.
    """
    qrs_ms, qt_ms = widths
    span = qt_ms - qrs_ms
    peak = qrs_ms + rng.uniform(0.63, 0.73) * span
    start = qrs_ms + rng.uniform(0.02, 0.28) * span
    t, change = gradient(person, rng), (0.0, 0.0, 0.0)
    if qrs_ms >= 122 or findings & {"WPW", "CRBBB", "IRBBB", "ILBBB"}:
        change = plus(total_area(qrs), total_area(normal), -1.0)
    # the share of the change that repolarisation follows, per axis, as measured in right and in left block
    share = (0.40, 0.5, 0.70) if findings & {"CRBBB", "IRBBB"} else (0.5, 0.5, 0.42)
    t = plus(t, scale(change, share), -2 / (qt_ms - start))
    level = plus((-0.012, -0.022, -0.048), normal_vector((0.018, 0.016, 0.022), rng))
    if not person.healthy:
        level = plus(level, (-0.014, -0.010, 0.0))
    st = plus(level, change, -0.0017)
    waves = [
        *qrs,
        person.wave("st", (qrs_ms - 20, qrs_ms + 8, qrs_ms + 0.25 * span, peak), st, "activation", rng),
        person.wave("t", (start, peak, qt_ms), t, "recovery", rng),
    ]
    if rng.random() < 0.35:
        waves.append(_u_wave(person, qt_ms, rng.uniform(0.01, 0.04), rng))
    return SimulatedBeat(waves, qrs_ms, qt_ms)


def _u_wave(person: Person, qt_ms: float, size: float, rng: BufferedRng) -> Wave:
    vector = scale((0.5, 0.2, -0.8), size)
    return person.wave("u", (qt_ms - 10, qt_ms + 55, qt_ms + 150), vector, "recovery", rng)


def apply_st_t_causes(beat: SimulatedBeat, findings: frozenset[str], person: Person, rng: BufferedRng) -> SimulatedBeat:
    """The beat after every primary ST-T cause among the findings."""
    for code in sorted(findings):
        if code.startswith(("ISC", "INJ")):
            beat = ischaemia(beat, code, person, rng)
        elif code in _INFARCT_SITE and "ANEUR" not in findings:
            beat = _infarct_recovery(beat, _INFARCT_SITE[code], person, rng)
    if "LVH" in findings and rng.random() < 0.45 and not any(c.startswith(("ISC", "INJ")) for c in findings):
        beat = ischaemia(beat, "ISC_", person, rng)
    if "RVH" in findings and rng.random() < 0.3:
        beat = ischaemia(beat, "ISCAS", person, rng)  # right ventricular strain has the same ST-T
    for code, cause in _CAUSES.items():
        if code in findings:
            beat = cause(beat, person, rng)
    if (
        "TAB_" in findings
        and not findings & {"NDT", "NT_", "LOWT", "INVT"}
        and not any(c.startswith("ISC") for c in findings)
    ):
        beat = _abnormal_t(beat, person, rng)
    return _restore_normal_t(beat, findings, person, rng)


def add_to_beat(
    beat: SimulatedBeat,
    waves: Sequence[Wave],
    criterion: Callable[[SimulatedBeat], bool],
    first: float = 1.0,
    growth: float = 1.2,
) -> SimulatedBeat:
    """Add `waves`, from `first` times their strength upwards in steps of `growth`, until the beat meets `criterion`."""
    alone = SimulatedBeat(list(waves), beat.qrs_ms, beat.qt_ms)
    strength = first
    for _ in range(18):
        trial = SimulatedBeat([], beat.qrs_ms, beat.qt_ms)
        trial.leads = beat.leads + strength * alone.leads
        if criterion(trial):
            break
        strength *= growth
    return SimulatedBeat([*beat.waves, *(w.scale(strength) for w in waves)], beat.qrs_ms, beat.qt_ms)


def _st_wave(beat: SimulatedBeat, person: Person, vector: Vector, hold: float, rng: BufferedRng) -> Wave:
    """An ST shift. hold: the share of the time from J to the end of T for which it lasts."""
    span = beat.qt_ms - beat.qrs_ms
    times = (
        beat.qrs_ms - 18,
        beat.qrs_ms + 8,
        beat.qrs_ms + hold * span,
        beat.qrs_ms + min(hold + 0.4, 0.9) * span,
    )
    return person.wave("st+", times, vector, "activation", rng)


def _t_wave(beat: SimulatedBeat, person: Person, vector: Vector, rng: BufferedRng) -> Wave:
    """A T change that begins at about a quarter of the ST-T."""
    span = beat.qt_ms - beat.qrs_ms
    times = (beat.qrs_ms + 0.22 * span, beat.qrs_ms + rng.uniform(0.58, 0.72) * span, beat.qt_ms)
    return person.wave("t+", times, vector, "recovery", rng)


def ischaemia(beat: SimulatedBeat, code: str, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """ST down and T inverted in a territory: in two of its leads or more, most of them for an injury.

    ISC..: ST <= -0.05 mV at J + 60 ms and/or T <= -0.1 mV (U). INJ..: subendocardial injury, ST <= -0.1 mV. Most
    records exceed these limits by little, as in PTB-XL.
    """
    site = code[3:] if code != "ISC_" else "C_"
    leads, injury = TERRITORIES[site], code.startswith("INJ")
    with_st = injury or rng.random() < 0.6
    with_t = not injury or rng.random() < 0.6
    depth_st = (0.12 if injury else 0.05) + rng.gamma(1.0, 0.025) if with_st else 9.0
    depth_t = 0.10 + rng.gamma(1.0, 0.06) if with_t else 9.0
    away = plus(jitter(_AWAY[site], 0.2, rng), normal_vector((0.15, 0.15, 0.15), rng))
    waves = []
    if with_st:
        waves.append(_st_wave(beat, person, scale(away, 0.10), 0.42, rng))
    if with_t:
        waves.append(_t_wave(beat, person, scale(away, 0.18), rng))
    need = max(2, round(0.6 * len(leads))) if injury else 2

    def shows(b: SimulatedBeat) -> bool:
        st = not with_st or sum(b.st(n) <= -depth_st for n in leads) >= need
        return st and (not with_t or sum(b.t(n) <= -depth_t for n in leads) >= need)

    return add_to_beat(beat, waves, shows, first=0.3)


def _infarct_recovery(beat: SimulatedBeat, site: str, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """After an infarct: T inverted over the scar (old), ST raised towards it (new), or no change."""
    stage = rng.random()
    away, leads = _AWAY[site], TERRITORIES[site]
    if stage < 0.35:
        depth = rng.gamma(1.0, 0.08)
        wave = _t_wave(beat, person, scale(away, 0.15), rng)
        return add_to_beat(beat, [wave], lambda b: sum(b.t(n) <= -depth for n in leads) >= 2, first=0.3)
    if stage < 0.45:
        height = 0.1 + rng.gamma(1.0, 0.06)
        wave = _st_wave(beat, person, scale(away, -0.12), 0.45, rng)
        return add_to_beat(beat, [wave], lambda b: sum(b.j(n) >= height for n in leads) >= 2)
    return beat


def _aneurysm(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """ST raised >= 0.1 mV, convex, in V1-V4 over an old anterior Q; the end of T inverted."""
    height = rng.uniform(0.12, 0.3)
    st = _st_wave(beat, person, (0.03, 0.02, -0.15), 0.45, rng)
    t = _t_wave(beat, person, (-0.10, 0.0, 0.12), rng)
    return add_to_beat(beat, [st, t], lambda b: sum(b.st(n) >= height for n in ("V1", "V2", "V3", "V4")) >= 3)


def _st_depression(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """ST <= -0.1 mV in two or more contiguous leads, mostly lateral and inferior (U)."""
    away = (-0.9, rng.uniform(-0.9, 0.1), rng.uniform(-0.3, 0.3))
    wave = _st_wave(beat, person, scale(away, 0.1), rng.uniform(0.25, 0.45), rng)
    return add_to_beat(_flatten_t(beat, rng.uniform(0.0, 0.6)), [wave], lambda b: b.st_depressed, first=0.2)


def _st_elevation(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """J raised in contiguous leads above the limits for sex and age, concave, with tall T: early repolarisation (U)."""
    limit = 0.15 if person.sex == "female" else 0.2 if person.age >= 40 else 0.25
    place = (rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.8), -rng.uniform(0.2, 0.9))
    st = _st_wave(beat, person, scale(place, 0.1), 0.15, rng)
    t = _t_wave(beat, person, scale(place, 0.05), rng)

    def shows(b: SimulatedBeat) -> bool:
        names = {n for n in ("II", "III", "aVF", "I", "aVL", "V4", "V5", "V6") if b.j(n) >= 0.11}
        return b.any_contiguous(names | {n for n in ("V2", "V3") if b.j(n) >= limit + 0.01})

    return add_to_beat(beat, [st, t], shows, first=0.8)


def _st_unspecific(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """Small ST shifts, 0.03-0.065 mV below the baseline in some leads, without a territory; T mostly lower."""
    away = (-rng.uniform(0.3, 1.0), rng.uniform(-0.9, 0.3), rng.uniform(-0.1, 0.5))
    wave = _st_wave(beat, person, scale(away, 0.04), rng.uniform(0.2, 0.4), rng)
    depth = rng.uniform(0.03, 0.065)
    names = ("I", "II", "III", "aVF", "aVL", "V4", "V5", "V6")
    low = _flatten_t(beat, rng.uniform(0.0, 0.9))
    return add_to_beat(low, [wave], lambda b: sum(b.st(n) <= -depth for n in names) >= 2, first=0.2)


def _digitalis(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """Sagging ST in lateral and inferior leads that ends in a flat or small upright T; the QT is short."""
    span = beat.qt_ms - beat.qrs_ms
    away = (-0.9, rng.uniform(-0.8, -0.2), 0.0)
    times = (beat.qrs_ms - 10, beat.qrs_ms + 0.42 * span, beat.qrs_ms + 0.48 * span, beat.qrs_ms + 0.8 * span)
    sag = person.wave("st+", times, scale(away, 0.16), "activation", rng)
    names = ("I", "II", "V4", "V5", "V6")
    return add_to_beat(
        _flatten_t(beat, 0.7),
        [sag],
        lambda b: b.st_depressed and sum(b.st(n) <= -0.06 for n in names) >= 3,
        first=0.3,
    )


def _flatten_t(beat: SimulatedBeat, share: float) -> SimulatedBeat:
    """The beat with its T reduced by this share, and T's part to the front (V1-V3) by half of it."""
    remainder = (1 - share, 1 - share, 1 - 0.5 * share)
    return SimulatedBeat([w.scale(remainder) if w.name == "t" else w for w in beat.waves], beat.qrs_ms, beat.qt_ms)


def _t_inversion(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """T <= -0.1 mV in two or more of I, II, aVL, V2-V6 (A4)."""
    site = rng.choice(("AL", "AN", "C_", "IL", "LA"))
    away = jitter(_AWAY[site], 0.2, rng)
    depth = 0.11 + rng.gamma(1.0, 0.08)
    names = ("I", "II", "aVL", "V2", "V3", "V4", "V5", "V6")
    wave = _t_wave(beat, person, scale(away, 0.2), rng)
    return add_to_beat(beat, [wave], lambda b: sum(b.t(n) <= -depth for n in names) >= 2, first=0.3)


def _low_t(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """|T| < 0.1 mV, or below a tenth of R, in three or more of I, II, V4-V6 (A4)."""
    low = beat
    for share in (0.6, 0.7, 0.8, 0.88, 0.94):
        low = _flatten_t(beat, share)
        if low.t_low:
            break
    return low


def _unspecific_t(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """T flat, notched or slightly negative (above -0.1 mV) in some of I, II, aVL, V4-V6."""
    away = (-rng.uniform(0.5, 1.0), rng.uniform(-0.9, 0.2), rng.uniform(-0.3, 0.4))
    wave = _t_wave(beat, person, scale(away, 0.08), rng)
    limit = rng.uniform(-0.05, 0.07)
    names = ("I", "II", "aVL", "V4", "V5", "V6")
    return add_to_beat(beat, [wave], lambda b: sum(b.t(n) <= limit for n in names) >= 2, first=0.3, growth=1.12)


def _abnormal_t(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """Any abnormal T: inverted, low or unspecific."""
    causes = (_t_inversion, _low_t, _unspecific_t)
    return rng.choice(causes)(beat, person, rng)


def _electrolytes(beat: SimulatedBeat, person: Person, rng: BufferedRng) -> SimulatedBeat:
    """High potassium: tall, narrow, pointed T. Low potassium: ST down, flat T, a larger U wave."""
    span = beat.qt_ms - beat.qrs_ms
    if rng.random() < 0.7:
        low = _flatten_t(beat, 0.8)
        shift = _st_wave(low, person, (-0.07, -0.04, 0.02), 0.3, rng)
        u = person.wave("u", (beat.qt_ms - 45, beat.qt_ms + 50, beat.qt_ms + 150), (0.16, 0.06, -0.14), "recovery", rng)
        return SimulatedBeat([*low.waves, shift, u], beat.qrs_ms, beat.qt_ms)
    peak = beat.qrs_ms + 0.66 * span
    tall = person.wave("t+", (peak - 75, peak, peak + 65), (0.40, 0.25, -0.38), "recovery", rng)
    return add_to_beat(_flatten_t(beat, 0.6), [tall], lambda b: b.t("V3") >= 1.0 or b.t("V4") >= 1.0, first=0.9)


_CAUSES: dict[str, Callable[[SimulatedBeat, Person, BufferedRng], SimulatedBeat]] = {
    "ANEUR": _aneurysm,
    "STE_": _st_elevation,
    "DIG": _digitalis,
    "EL": _electrolytes,
    "NDT": _unspecific_t,
    "NT_": _unspecific_t,
    "LOWT": _low_t,
    "INVT": _t_inversion,
    "NST_": _st_unspecific,
    "STD_": _st_depression,
}


def _restore_normal_t(beat: SimulatedBeat, findings: frozenset[str], person: Person, rng: BufferedRng) -> SimulatedBeat:
    """Raise the T of a normal ECG until it is normal in I, II and V4-V6."""
    if "NORM" not in findings or beat.t_normal:
        return beat
    vector = (0.10, 0.06, -0.02)
    return add_to_beat(beat, [_t_wave(beat, person, vector, rng)], lambda b: b.t_normal, first=0.4)
