"""Activation: the P wave and the QRS complex, and the causes that change them.

Each cause takes the waves of a QRS and returns new ones, so that causes can be applied one after another: a bundle
branch block, then a scar, then hypertrophy. Criteria: see `render.simulator.criteria`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from render.simulator.criteria import Q_LEADS, SMALL_Q, SimulatedBeat
from render.simulator.dipoles import STEP_MS, Person, Vector, Wave, clip, plus, project_leads, rotate_to_axis, scale
from render.simulator.rng import BufferedRng

# Normal activation: name, (start, peak, end) as fractions of the QRS, the dipole's mean and standard deviation in mV.
# The figures are fits of these five phases to healthy recordings through the lead transform.
_PHASES: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]], ...] = (
    ("septum", (0.00, 0.20, 0.45), (-0.05, -0.02, -0.22), (0.11, 0.06, 0.09)),
    ("apex", (0.12, 0.42, 0.66), (0.72, 0.28, -0.06), (0.24, 0.13, 0.24)),
    ("wall", (0.26, 0.52, 0.80), (0.54, 0.34, 0.46), (0.28, 0.18, 0.24)),
    ("posterior", (0.42, 0.66, 0.94), (-0.05, 0.03, 0.37), (0.20, 0.12, 0.16)),
    ("base", (0.62, 0.82, 1.00), (-0.06, -0.01, 0.14), (0.09, 0.08, 0.09)),
)


def normal_vector(sd: Vector, rng: BufferedRng) -> Vector:
    """A vector of normal numbers with these standard deviations."""
    x, y, z = rng.normals(3)
    return scale(sd, (x, y, z))


def jitter(vector: Vector, relative_sd: float, rng: BufferedRng) -> Vector:
    """The vector with normal noise; relative_sd: the noise's standard deviation as a share of each component."""
    return plus(vector, normal_vector(scale(vector, relative_sd), rng))


def normal_qrs(person: Person, width: float, rng: BufferedRng) -> list[Wave]:
    """The five phases of normal ventricular activation, `width` ms long, turned to the person's axis."""
    c, s = math.cos(math.radians(person.rotation)), math.sin(math.radians(person.rotation))
    waves = []
    for name, (start, peak, end), mean, sd in _PHASES:
        x, y, z = scale(plus(mean, normal_vector(sd, rng)), person.size)
        vector = (c * x - s * z, y, s * x + c * z)  # rotated to the back
        if name == "posterior" and not person.healthy:  # late forces leave an S up to V5
            late = rng.uniform(0.0, 2.6) * person.size
            vector = plus(vector, (-0.13, -0.10, 0.08), late)
        if name == "septum":  # from left to right and to the front: the r of V1 and the q of V6
            vector = (vector[0], vector[1], min(vector[2], -0.12))
        peak += rng.uniform(-0.025, 0.025)
        waves.append(person.wave(name, (start * width, peak * width, end * width), vector, "activation", rng))
    return rotate_to_axis(waves, person.axis, keep=("septum",))


def p_wave(findings: frozenset[str], person: Person, rng: BufferedRng, focus: str = "p") -> list[Wave]:
    """Right, then left atrium, from the onset of the P wave.

    LAO/LAE: P >= 120 ms with two humps, terminal part in V1 <= -0.1 mV; RAO/RAE: P > 0.25 mV in II, III or aVF (A5).

    Args:
        focus: "p" the sinus node; "p1", "p2" other places in the atria; "retro" from below.
    """
    width = rng.uniform(98, 119)
    strength = math.exp(rng.normal(-0.3, 0.3))
    right = plus(
        scale((0.07, 0.080, -0.04), strength * rng.uniform(0.75, 1.3)), normal_vector((0.010, 0.010, 0.010), rng)
    )
    left = plus(
        scale((0.10, 0.060, 0.035), strength * rng.uniform(0.75, 1.3)), normal_vector((0.012, 0.012, 0.012), rng)
    )
    if "LAO/LAE" in findings:
        width = rng.uniform(122, 148)
        left = scale((0.09, 0.065, 0.09), rng.uniform(0.9, 1.4))
    if "RAO/RAE" in findings:
        right = scale((0.04, 0.26, -0.06), rng.uniform(1.0, 1.25))
    if focus == "p1":
        right, left = scale(right, (1.0, rng.uniform(-1.6, 0.2), 1.0)), scale(left, (0.6, -0.6, -1.0))
    elif focus == "p2":
        right, left = scale(right, 0.5), scale(left, (-0.5, 0.8, 0.6))
    elif focus == "retro":
        right, left, width = (0.0, -0.11, -0.03), (0.02, -0.10, 0.0), 76.0
    late = 0.42 if "LAO/LAE" in findings else 0.30
    return [
        person.wave("p-right", (0, 0.36 * width, 0.75 * width), right, "atria", rng),
        person.wave("p-left", (late * width, 0.67 * width, width), left, "atria", rng),
    ]


def activation(findings: frozenset[str], person: Person, rng: BufferedRng) -> tuple[list[Wave], list[Wave], float]:
    """The QRS for a set of findings: (its waves, the waves of the same heart activated normally, width in ms)."""
    width = clip(rng.normal(83, 8), 68, 104)
    if findings & {"LVH", "SEHYP", "RVH", "ABQRS", "EL"}:
        width = rng.uniform(88, 106)
    normal = normal_qrs(person, width, rng)
    waves, width = _conduct(normal, findings, person, width, rng)
    for code in ("ASMI", "AMI", "ALMI", "LMI", "IMI", "ILMI", "IPMI", "IPLMI", "PMI"):
        if code in findings:
            if code != "PMI":
                waves = scar(waves, code, width, person, rng)
            if code in ("PMI", "IPMI", "IPLMI"):
                waves = posterior_loss(waves, width, person, rng)
    if "QWAVE" in findings and not findings & set(Q_LEADS):
        waves = _lone_q(waves, findings, width, person, rng)
    if "ABQRS" in findings and not findings & {*Q_LEADS, "WPW"}:
        waves = [*waves, *_notches(width, person, rng)]
    if "RVH" in findings:
        waves = _right_ventricle(waves, width, person, rng)
    if "SEHYP" in findings:
        waves = _thick_septum(waves, width, person, rng)
    return to_voltage(waves, findings, width, rng), normal, width


def _conduct(
    waves: list[Wave], findings: frozenset[str], person: Person, width: float, rng: BufferedRng
) -> tuple[list[Wave], float]:
    """The waves with the findings of conduction (fascicles, bundles, preexcitation), and the QRS width in ms (A3)."""
    if "LAFB" in findings:
        waves = _fascicle(waves, person, (-0.26, 0.36, -0.10), rng.uniform(-74, -50), rng)
    if "LPFB" in findings:
        waves = _fascicle(waves, person, (0.26, -0.34, -0.05), rng.uniform(99, 128), rng)
    if "RVH" in findings:
        start = (0.30 * rng.uniform(0.7, 1.2), -0.16, -0.08)  # an r in I and aVL before their deep S
        first = person.wave("first", (0, 0.18 * width, 0.36 * width), start, "activation", rng)
        late = [w.dilate(0.9, 0.1 * width) for w in waves if w.name != "septum"]
        waves = rotate_to_axis([first, *late], rng.uniform(96, 118), keep=("first",))
    if "CLBBB" in findings or "ILBBB" in findings:
        complete = "CLBBB" in findings
        width = rng.uniform(130, 164) if complete else rng.uniform(112, 118.5)
        return _left_bundle(person, width, complete, rng), width
    if "CRBBB" in findings or "IRBBB" in findings:
        complete = "CRBBB" in findings
        width = rng.uniform(128, 158) if complete else rng.uniform(106, 118)
        return _right_bundle(waves, person, width, complete, rng), width
    if "IVCD" in findings:
        wide = rng.uniform(113, 138)
        slow = [w.dilate(wide / width).scale(math.sqrt(width / wide)) for w in waves]
        return [*slow, *_notches(wide, person, rng)], wide
    if "WPW" in findings:
        return _preexcitation(waves, person, width, rng)
    return waves, width


def _right_bundle(waves: list[Wave], person: Person, width: float, complete: bool, rng: BufferedRng) -> list[Wave]:
    """The right ventricle comes last: a slow terminal force to the right and front, R' in V1, broad S in I, V6."""
    early = width * (0.68 if complete else 0.90)
    squeeze = early / max(w.end for w in waves)
    rest = [w.dilate(squeeze) for w in waves]
    # forces that the right ventricle no longer cancels: less S in V1 before the R', smaller R on the left
    terminal, wall = (0.25, (1.0, 1.0, 0.35)) if complete else (0.4, (1.0, 1.0, 0.8))
    remainders: dict[str, float | Vector] = {"posterior": terminal, "base": terminal, "wall": wall}
    rest = [w.scale(remainders.get(w.name, 1.0)) for w in rest]
    strength = rng.uniform(0.75, 1.4) if complete else rng.uniform(0.15, 0.55)
    vector = scale((rng.uniform(-0.50, -0.22), rng.uniform(-0.3, 0.1), rng.uniform(-0.85, -0.55)), strength)
    start = early * (0.66 if complete else 0.6)
    late = person.wave("right", (start, start + (width - start) * 0.52, width), vector, "activation", rng)
    return [*rest, late]


# In left bundle branch block two fronts spread at once: one to the back under V1-V4, one along the lateral wall.
_FRONTAL = (0.95, 1.0, 1.25, 1.5, 1.3, 0.8, 1.0, 1.0)
_LATERAL = (1.0, 1.0, 0.8, 0.6, 0.7, 0.85, 1.25, 1.4)


def _left_bundle(person: Person, width: float, complete: bool, rng: BufferedRng) -> list[Wave]:
    """From right to left through the septum: no q in I, V5, V6, their R broad and notched; rS or QS in V1."""
    size = person.size * (rng.uniform(0.85, 1.2) if complete else rng.uniform(0.6, 0.9))
    back = rng.uniform(0.75, 1.2) * (1.0 if complete else 0.55)
    parts: tuple[tuple[str, tuple[float, float, float], Vector, tuple[float, ...]], ...] = (
        ("first", (0.0, 0.16, 0.34), (0.20, 0.13, rng.uniform(-0.10, 0.15)), (1.0,) * 8),
        ("slow", (0.06, 0.42, 0.76), (0.72, 0.34, 0.10), _LATERAL),
        ("slow-back", (0.06, 0.42, 0.76), (0.0, 0.0, 1.45 * back), _FRONTAL),
        ("notch", (0.36, 0.68, 1.0), (0.78, 0.04, 0.10), _LATERAL),
        ("notch-back", (0.36, 0.68, 1.0), (0.0, 0.0, 0.95 * back), _FRONTAL),
    )
    waves = [
        person.wave(name, [t * width for t in times], scale(vector, size), "activation", rng).apply_gain(gain)
        for name, times, vector, gain in parts
    ]
    return rotate_to_axis(waves, rng.uniform(-52, 48) if complete else rng.uniform(-20, 65), keep=("first",))


def _fascicle(waves: list[Wave], person: Person, first: Vector, axis: float, rng: BufferedRng) -> list[Wave]:
    """A blocked fascicle: the first forces spread from the other fascicle, the main forces to the blocked side.

    LAFB: axis -45 to -90, qR in aVL, rS in II, III, aVF. LPFB: axis +90 to 180, rS in I, aVL, qR in III, aVF.
    """
    width = max(w.end for w in waves)
    start = scale(first, rng.uniform(0.25, 0.6))
    early = person.wave("first", (0, 0.18 * width, 0.36 * width), start, "activation", rng)
    late = [w.dilate(0.88, 0.12 * width) if w.name != "septum" else w.scale((0.2, 0.2, 0.6)) for w in waves]
    if axis < 0:  # the lateral wall is reached as usual, what lies above it late
        late = [w.scale((0.9, 0.3, 1.0)) if w.name == "apex" else w for w in late]
        late = [w.scale(1.5).dilate(1.0, 0.06 * width) if w.name in ("posterior", "base") else w for w in late]
    # the last forces stay on the blocked side, which leaves an S up to V6
    tail = person.wave("tail", (0.45 * width, 0.72 * width, width), (-0.24, 0.0, 0.16), "activation", rng)
    anchors = ("first", "septum", "tail", "apex") if axis < 0 else ("first", "septum", "tail")
    return rotate_to_axis([early, *late, tail], axis, keep=anchors)


def _preexcitation(waves: list[Wave], person: Person, width: float, rng: BufferedRng) -> tuple[list[Wave], float]:
    """A delta wave before the rest: an accessory pathway activates part of the ventricles early (A3)."""
    delta_ms = rng.uniform(38, 60)
    side = rng.random()
    if side < 0.5:  # left pathway: positive in V1 (type A)
        direction = (rng.uniform(-0.1, 0.3), rng.uniform(-0.5, 0.5), rng.uniform(-0.6, -0.3))
    else:  # right pathway: negative in V1 (type B)
        direction = (rng.uniform(0.4, 0.7), rng.uniform(-0.5, 0.35), rng.uniform(0.1, 0.4))
    direction = scale(direction, rng.uniform(0.8, 1.3))
    total = delta_ms + width * 0.9
    rest = [w.dilate(0.9, delta_ms) for w in waves if w.name != "septum"]
    times = (0.0, delta_ms * 1.1, delta_ms * 1.3, delta_ms + 0.5 * width)
    return [person.wave("delta", times, direction, "activation", rng), *rest], total


def _notches(width: float, person: Person, rng: BufferedRng) -> list[Wave]:
    """Fragmented conduction: two or three short forces within the QRS."""
    notches = []
    for _ in range(2 + rng.below(2)):
        middle, half = rng.uniform(0.3, 0.8) * width, rng.uniform(9, 14)
        vector = normal_vector((1.0, 1.0, 1.0), rng)
        vector = scale(vector, rng.uniform(0.22, 0.42) * person.size / math.hypot(*vector))
        notches.append(
            person.wave("notch", (middle - half, middle, min(middle + half, width)), vector, "activation", rng)
        )
    return notches


def add_to_qrs(
    waves: list[Wave],
    extra: Sequence[Wave],
    width: float,
    criterion: Callable[[SimulatedBeat], bool],
    first: float = 0.5,
) -> list[Wave]:
    """Add `extra`, from `first` times its strength upwards, until the noise-free QRS meets `criterion`."""
    n = int(width / STEP_MS) + 40
    base, more = project_leads(waves, n), project_leads(extra, n)
    strength = first
    for _ in range(20):
        beat = SimulatedBeat([], width, width + 80)
        beat.leads = base + strength * more
        if criterion(beat):
            break
        strength *= 1.15
    return [*waves, *(w.scale(strength) for w in extra)]


# The direction away from a scar.
_AWAY: dict[str, Vector] = {
    "ASMI": (0.06, 0.0, 0.50),
    "AMI": (-0.40, 0.0, 0.32),
    "ALMI": (-0.45, 0.05, 0.36),
    "LMI": (-0.48, 0.14, -0.06),
    "IMI": (0.20, -0.45, 0.0),
    "ILMI": (-0.42, -0.45, -0.08),
}
_AWAY["IPMI"], _AWAY["IPLMI"] = _AWAY["IMI"], _AWAY["ILMI"]
# Factors of the apex's forces where the inferior or the lateral wall contributes nothing.
_APEX_REMAINDER: dict[str, Vector] = {"IMI": (1.0, 0.25, 1.0), "ILMI": (0.3, 0.25, 1.0), "LMI": (0.6, 1.0, 1.0)}
_APEX_REMAINDER["IPMI"], _APEX_REMAINDER["IPLMI"] = _APEX_REMAINDER["IMI"], _APEX_REMAINDER["ILMI"]


def scar(waves: list[Wave], code: str, width: float, person: Person, rng: BufferedRng) -> list[Wave]:
    """Silence a region: the first 42-66 ms point away from it, until its leads show a deep Q of >= 30 ms (U)."""
    anterior, inferior = code in ("ASMI", "AMI", "ALMI"), code in ("IMI", "ILMI", "IPMI", "IPLMI")
    length = rng.uniform(46, 66) if anterior else rng.uniform(42, 56)
    depth = 0.11 + rng.gamma(1.0, 0.04)
    septal_remainder = (0.6, 0.2, 0.9) if inferior else (0.2, 0.2, 0.2)
    rest = [w.scale(septal_remainder) if w.name in ("septum", "first") else w for w in waves]
    if code in _APEX_REMAINDER:
        rest = [w.scale(_APEX_REMAINDER[code]) if w.name == "apex" else w for w in rest]
    if anterior:  # the anterior wall contributes nothing: no R between the Q and the S
        rest = [_weak_apex(w) if w.name == "apex" else w for w in rest]
    vector = jitter(_AWAY[code], 0.12, rng)
    hole = person.wave("scar", (0, 0.40 * length, 0.60 * length, length), vector, "activation", rng)
    leads = _q_leads(code, rng)

    def shows(beat: SimulatedBeat) -> bool:
        deep = all(beat.q_ms(name, depth) >= 32 for name in leads if name not in ("V5", "V6"))
        return deep and all(beat.q_ms(name) >= 30 for name in leads)

    return add_to_qrs(rest, [hole], width, shows, first=0.2)


def _weak_apex(wave: Wave) -> Wave:
    x, y, z = scale(wave.vector, 0.6)
    return Wave(wave.name, wave.times, (x, y, max(z, 0.20)), wave.gain)


def _q_leads(code: str, rng: BufferedRng) -> tuple[str, ...]:
    """The leads that have to show the Q: all of the territory in extensive infarcts, two of three in small ones (U)."""
    leads = Q_LEADS[code]
    if code in SMALL_Q and rng.random() < 0.55:
        return SMALL_Q[code]
    return leads


def posterior_loss(waves: list[Wave], width: float, person: Person, rng: BufferedRng) -> list[Wave]:
    """A posterior scar: forces to the front predominate, R >= 40 ms and R >= S in V1 and V2 (U)."""
    rest = [w.scale((1.0, 1.0, 0.3)) if w.vector[2] > 0 else w for w in waves]
    vector = (-0.05, 0.0, -0.5)
    front = person.wave("scar-front", (0.05 * width, 0.45 * width, 0.62 * width, width), vector, "activation", rng)

    def shows(beat: SimulatedBeat) -> bool:
        return all(
            beat.r(n) >= 1.1 * beat.s(n)
            and (beat.lead(n)[: int(width / 2)] > 0.05).sum() * STEP_MS >= 44
            and beat.r(n) > 0.3
            for n in ("V1", "V2")
        )

    return add_to_qrs(rest, [front], width, shows, first=0.3)


def _lone_q(waves: list[Wave], findings: frozenset[str], width: float, person: Person, rng: BufferedRng) -> list[Wave]:
    """Q waves of >= 30 ms and >= 0.1 mV in two contiguous leads (V5-V6 or V2-V3), too few for a named infarct."""
    away, leads = (((-0.5, 0.0, -0.25), ("V5", "V6")), ((0.0, 0.0, 0.5), ("V2", "V3")))[rng.below(2)]
    if "ILBBB" in findings:
        away, leads = (0.0, 0.0, 0.5), ("V2", "V3")
    rest = [w.scale(0.3) if w.name in ("septum", "first") else w for w in waves]
    length = rng.uniform(40, 48)
    hole = person.wave("scar", (0, 0.4 * length, 0.5 * length, length), away, "activation", rng)
    return add_to_qrs(rest, [hole], width, lambda b: all(b.q_ms(n, 0.11) >= 31 for n in leads), first=0.3)


def _right_ventricle(waves: list[Wave], width: float, person: Person, rng: BufferedRng) -> list[Wave]:
    """RVH: R in V1 >= 0.7 mV and larger than S, R V1 + S V5/6 > 1.05 mV, axis >= 90 degrees (A5)."""
    rest = [w.scale((1.0, 1.0, 0.45)) if w.vector[2] > 0 else w for w in waves]
    vector = (-0.34, 0.15, -0.5)
    force = person.wave("right-wall", (0.15 * width, 0.52 * width, 0.94 * width), vector, "activation", rng)
    aim = 0.72 + rng.gamma(1.0, 0.15)

    def shows(beat: SimulatedBeat) -> bool:
        return (
            beat.r("V1") >= aim and beat.r("V1") > beat.s("V1") and beat.r("V1") + max(beat.s("V5"), beat.s("V6")) > 1.1
        )

    return add_to_qrs(rest, [force], width, shows, first=0.5)


def _thick_septum(waves: list[Wave], width: float, person: Person, rng: BufferedRng) -> list[Wave]:
    """Septal hypertrophy: deep narrow q (>= 0.2 mV, < 40 ms) in I or aVL and V5-V6, tall r in V1-V2."""
    vector = (-0.62, -0.12, -0.5)
    force = person.wave("septum", (0, 0.17 * width, 0.36 * width), vector, "activation", rng)
    depth = rng.uniform(0.2, 0.45)
    rest = [w for w in waves if w.name != "septum"]
    return add_to_qrs(
        rest,
        [force],
        width,
        lambda b: all(b.q_ms(n, depth) > 0 for n in ("V5", "V6")) and b.r("V1") > 0.4,
        first=0.4,
    )


def to_voltage(waves: list[Wave], findings: frozenset[str], width: float, rng: BufferedRng) -> list[Wave]:
    """Scale the QRS so that the voltage criteria agree with the findings.

    LVH and VCLVH: Sokolow-Lyon >= 3.5 mV. HVOLT: see `SimulatedBeat.high_voltage`. LVOLT: peak-to-peak < 0.5 mV in all
    limb leads (Minnesota code 9-1). Otherwise Sokolow-Lyon stays below 3.4 mV and the limb leads above 0.55 mV.
    """
    beat = SimulatedBeat(waves, width, width + 80)
    if "LVOLT" in findings:
        limb = rng.uniform(0.30, 0.46) / max(beat.limb_peak, 0.1)
        chest = limb if rng.random() < 0.3 else max(limb, rng.uniform(0.5, 0.9))
        return [w.scale((limb, limb, chest)) for w in waves]
    if findings & {"CLBBB", "WPW", "CRBBB", "RVH"}:
        return waves
    if "LVH" in findings or "VCLVH" in findings:
        aim = 3.55 + rng.gamma(1.0, 0.45) if "LVH" in findings else 3.55 + rng.gamma(1.0, 0.2)
        return [w.scale(aim / max(beat.sokolow, 0.5)) for w in waves]
    if "HVOLT" in findings:
        top = max(*(max(beat.r(n), beat.s(n)) / 2.0 for n in ("I", "II", "III", "aVF", "aVL")),
                  *(x / 3.0 for x in (beat.s("V1"), beat.s("V2"), beat.r("V5"), beat.r("V6"))))  # fmt: skip
        return [w.scale(rng.uniform(1.02, 1.15) / max(top, 0.1)) for w in waves]
    factor = 1.0
    if beat.sokolow > 3.3:
        factor = rng.uniform(2.3, 3.25) / beat.sokolow
    if beat.limb_peak * factor < 0.6:
        factor = rng.uniform(0.62, 0.8) / max(beat.limb_peak, 0.1)
    return [w.scale(factor) for w in waves] if factor != 1.0 else waves


def ectopic_qrs(person: Person, rng: BufferedRng, site: str) -> tuple[list[Wave], float]:
    """(waves, width in ms) of the QRS of a ventricular focus ("pvc", "escape") or right apical pacing ("paced").

    Wide (>= 120 ms) and slow from its onset, with the pattern of either bundle branch block.
    """
    width = rng.uniform(134, 176)
    side = 1.0 if site == "paced" or rng.random() < 0.5 else -1.0  # +1 from the right ventricle to the left and back
    up = rng.uniform(-1.0, -0.3) if site == "paced" else rng.uniform(-1.0, 1.0)
    towards = (side * rng.uniform(0.35, 0.9), up, side * rng.uniform(0.5, 1.1))
    main = scale(towards, (rng.uniform(0.4, 1.0) if site == "paced" else rng.uniform(1.0, 1.5)) * person.size)
    share = (rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7))
    second = plus(scale(main, share), normal_vector((0.22, 0.22, 0.22), rng), person.size)
    waves = [
        person.wave("focus", (0, 0.40 * width, 0.84 * width), main, "activation", rng),
        person.wave("spread", (0.30 * width, 0.66 * width, width), second, "activation", rng),
    ]
    return waves, width


def gradient(person: Person, rng: BufferedRng) -> Vector:
    """The T wave's dipole in mV after a normal activation, as in recordings of healthy or of other people."""
    size = math.exp(rng.normal(0, 0.26) - 0.008 * (person.age - 45))  # T grows smaller with age
    mean, sd, lowest = (0.27, 0.15, -0.18), (0.05, 0.04, 0.09), (0.10, 0.05)
    if not person.healthy:  # smaller in I and II, not in V2-V3
        mean, sd, lowest = (0.22, 0.10, -0.18), (0.07, 0.05, 0.11), (-math.inf, -math.inf)
    x, y, z = plus(scale(mean, size), normal_vector(sd, rng))
    z *= 0.7 if person.sex == "female" else 1.15  # men's T in V2-V3 is taller
    return max(x, lowest[0]), max(y, lowest[1]), max(z, -1.0)
