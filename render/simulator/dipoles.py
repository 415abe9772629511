"""The simulator's physics: dipoles, their projection on the leads, and the person whose heart they model.

A beat is a short list of *waves*: dipoles of fixed direction whose strength rises, may stay constant, and falls.
Activation (QRS) and repolarisation (ST, T, U) are lists of waves; causes such as a bundle branch block, a scar or
ischaemia add waves, remove some or reshape them, so that causes can be combined.

Axes follow Frank as Dower uses them: X to the left, Y to the feet, Z to the back. Strengths are millivolts as
they appear after the transform. Times are milliseconds from the onset of the QRS (or of the P wave).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from render.jit import jit
from render.record import HIGH_RATE_HZ
from render.simulator.rng import BufferedRng

FloatArray = NDArray[np.float64]
Vector = tuple[float, float, float]
"""(X, Y, Z) of a dipole. Python numbers: on three numbers a numpy call costs more than the sum itself."""

INDEPENDENT_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6", "I", "II")
"""The leads that the transform yields, in its row order; the other four follow from I and II."""

DOWER = np.array(
    [
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
    ]
)
"""(8, 3) transform from Frank X, Y, Z to `INDEPENDENT_LEADS`.

Source: Dower, Machado, Osborne, "On deriving the electrocardiogram from vectorcardiographic leads", Clin
Cardiol 1980;3:87.
"""

STEP_MS = 1000 / HIGH_RATE_HZ
"""Time between two samples, ms."""

# The atria lie behind and above the ventricles, and repolarisation reaches V2 and the lateral leads more strongly than
# one central dipole would: each generator has its own distance to the electrodes. The factors are medians of the ratio
# of healthy recordings to the transform (order of INDEPENDENT_LEADS).
SITE_GAINS = {
    "atria": (1.0, 0.9, 0.7, 0.5, 0.5, 0.55, 1.5, 1.0),
    "activation": (0.88, 1.08, 0.98, 1.02, 0.97, 0.97, 1.10, 1.0),
    "recovery": (0.75, 1.30, 0.95, 0.87, 0.94, 1.2, 1.5, 1.05),
}


def scale(vector: Vector, by: float | Vector) -> Vector:
    """The vector times a factor, or times one factor per axis."""
    a, b, c = by if isinstance(by, tuple) else (by, by, by)
    return a * vector[0], b * vector[1], c * vector[2]


def plus(one: Vector, other: Vector, share: float = 1.0) -> Vector:
    """one + share * other."""
    return one[0] + share * other[0], one[1] + share * other[1], one[2] + share * other[2]


class Wave(NamedTuple):
    """A dipole of fixed direction: rises from `start` to `full`, is constant until `hold`, and falls until `end`.

    Attributes:
        times: start, full, hold, end in ms.
        vector: mV.
        gain: factor of each of `INDEPENDENT_LEADS` for this dipole's distance from the electrode.
    """

    name: str
    times: tuple[float, float, float, float]
    vector: Vector
    gain: tuple[float, ...]

    def scale(self, factor: float | Vector) -> Wave:
        """The same wave with its strength times a factor, or times one factor per axis."""
        return Wave(self.name, self.times, scale(self.vector, factor), self.gain)

    def dilate(self, factor: float, shift: float = 0.0) -> Wave:
        """The same wave with its times multiplied by `factor`, then moved by `shift` ms."""
        a, b, c, d = self.times
        times = (a * factor + shift, b * factor + shift, c * factor + shift, d * factor + shift)
        return Wave(self.name, times, self.vector, self.gain)

    def apply_gain(self, gain: Sequence[float]) -> Wave:
        """The same wave with its gains multiplied by 8 factors, one for each of `INDEPENDENT_LEADS`."""
        product = tuple([a * b for a, b in zip(self.gain, gain, strict=True)])
        return Wave(self.name, self.times, self.vector, product)

    def rotate(self, c: float, s: float) -> Wave:
        """The same wave rotated in the frontal plane by the angle of this cosine and sine, from left to feet."""
        x, y, z = self.vector
        return Wave(self.name, self.times, (c * x - s * y, s * x + c * y, z), self.gain)

    @property
    def start(self) -> float:
        """Onset, ms."""
        return self.times[0]

    @property
    def end(self) -> float:
        """End, ms."""
        return self.times[3]

    @property
    def area(self) -> Vector:
        """Time integral of the dipole, mV ms."""
        (start, full, hold, end), (x, y, z) = self.times, self.vector
        time = (end - start + hold - full) / 2
        return x * time, y * time, z * time


def total_area(waves: Iterable[Wave]) -> Vector:
    """Time integral of the sum of the waves' dipoles, mV ms."""
    total = (0.0, 0.0, 0.0)
    for wave in waves:
        total = plus(total, wave.area)
    return total


def wave_table(waves: Sequence[Wave]) -> FloatArray:
    """(K, 15) of K waves: four times, three components, eight gains."""
    numbers = chain.from_iterable([w.times + w.vector + w.gain for w in waves])
    return np.fromiter(numbers, np.float64, 15 * len(waves)).reshape(-1, 15)


@jit
def _ramp(envelope, start, end, sign):  # type: ignore[no-untyped-def]  # numba infers these
    """Multiply `envelope` by half a cosine that rises (sign -1) or falls (1) from `start` to `end` ms."""
    step = math.pi * STEP_MS / max(end - start, 1e-3)
    first = max(0, math.ceil(start / STEP_MS))
    last = min(envelope.size, math.ceil(end / STEP_MS))
    angle = step * (first - start / STEP_MS)
    now, before, twice = math.cos(angle), math.cos(angle - step), 2.0 * math.cos(step)
    for i in range(first, last):
        envelope[i] *= 0.5 + 0.5 * sign * now
        now, before = twice * now - before, now  # cos(a + b) + cos(a - b) = 2 cos a cos b


@jit
def _envelope(envelope, wave):  # type: ignore[no-untyped-def]
    """Write the strength of a wave (a row of `wave_table`), 0 to 1; returns the samples between which it is not 0."""
    first = min(envelope.size, max(0, math.ceil(wave[0] / STEP_MS)))
    last = max(first, min(envelope.size, math.ceil(wave[3] / STEP_MS)))
    envelope[first:last] = 1.0
    _ramp(envelope, wave[0], wave[1], -1.0)
    _ramp(envelope, wave[2], wave[3], 1.0)
    return first, last


@jit
def _peak_mv(wave, lead):  # type: ignore[no-untyped-def]
    """Millivolts of a wave (a row of `wave_table`) at full strength in one of `INDEPENDENT_LEADS`."""
    return (DOWER[lead, 0] * wave[4] + DOWER[lead, 1] * wave[5] + DOWER[lead, 2] * wave[6]) * wave[7 + lead]


@jit
def _project_leads(waves, width):  # type: ignore[no-untyped-def]
    """(12, width) of `wave_table`'s rows, summed; see `project_leads`."""
    leads, envelope = np.zeros((12, width)), np.empty(width)
    for wave in waves:
        first, last = _envelope(envelope, wave)
        part = envelope[first:last]
        for lead in range(8):
            row, peak_mv = leads[lead + 6 if lead < 6 else lead - 6, first:last], _peak_mv(wave, lead)
            for i in range(part.size):
                row[i] += peak_mv * part[i]
    for i in range(width):
        one, two = leads[0, i], leads[1, i]
        leads[2, i] = two - one  # Einthoven
        leads[3, i] = -(one + two) / 2  # Goldberger, this and the next two
        leads[4, i] = one - two / 2
        leads[5, i] = two - one / 2
    return leads


def project_leads(waves: Sequence[Wave], width: int) -> FloatArray:
    """(12, width) noise-free millivolts of the waves in the order of `LEADS`, every 2 ms from time 0."""
    return np.asarray(_project_leads(wave_table(waves), width) if waves else np.zeros((12, width)))


@jit
def superpose(waves, weights, width):  # type: ignore[no-untyped-def]
    """(P, 8, width) float32 mV: weighted sums of the waves (rows of `wave_table`) in `INDEPENDENT_LEADS`.

    Args:
        weights: (P, K), P sets of factors of the waves' strengths.
    """
    sums = np.zeros((weights.shape[0], 8, width), np.float32)
    envelope, single = np.empty(width), np.empty(width, np.float32)
    for k in range(len(waves)):
        first, last = _envelope(envelope, waves[k])
        part = single[first:last]
        part[:] = envelope[first:last]
        for p in range(weights.shape[0]):
            for lead in range(8):
                row, peak_mv = sums[p, lead, first:last], np.float32(weights[p, k] * _peak_mv(waves[k], lead))
                for i in range(part.size):
                    row[i] += peak_mv * part[i]
    return sums


@dataclass(frozen=True, eq=False)
class Person:
    """The person recorded: age in years, sex, and the chest's effect on the heart's field.

    Attributes:
        gains: (8,) factors of the independent leads.
        size: factor of the QRS voltage.
        axis: frontal QRS axis in degrees when no finding changes it.
        rotation: degrees by which the forces turn to the back (+) or front, which moves the R progression.
        healthy: no finding is more than a normal variant. The late QRS forces, ST and T of others differ from those
            of the healthy whatever the finding, as in PTB-XL's folds 1-8.
    """

    age: float
    sex: str
    gains: tuple[float, ...]
    size: float
    axis: float
    rotation: float
    healthy: bool

    @cached_property
    def _sites(self) -> dict[str, tuple[float, ...]]:
        return {site: tuple(a * b for a, b in zip(near, self.gains, strict=True)) for site, near in SITE_GAINS.items()}

    def wave(self, name: str, times: Sequence[float], vector: Vector, site: str, rng: BufferedRng) -> Wave:
        """A wave of (start, peak, end) or (start, full, hold, end) ms in this chest.

        Every part of the heart lies at its own distance from the electrodes, so each wave gets its own gains.
        """
        start, full, hold, end = times if len(times) == 4 else (times[0], times[1], times[1], times[2])
        gain = tuple([near * (1 + 0.09 * n) for near, n in zip(self._sites[site], rng.normals(8), strict=True)])
        return Wave(name, (start, full, hold, end), vector, gain)


def sample_person(rng: BufferedRng, normal: bool, healthy: bool) -> Person:
    """A person of a hospital's population: older when the ECG is abnormal; the axis turns left with age.

    Args:
        normal: the ECG is a normal one (NORM).
        healthy: see `Person`.
    """
    age = float(round(clip(rng.normal(48 if normal else 66, 17 if normal else 13), 18, 95)))
    axis = clip(rng.normal((72 if healthy else 66) - 0.75 * age, 27), -27, 86)
    return Person(
        age=age,
        sex="male" if rng.random() < 0.52 else "female",
        gains=tuple([math.exp(0.13 * n) for n in rng.normals(8)]),
        size=math.exp(rng.normal(0, 0.20)),
        axis=axis,
        rotation=rng.normal(4 + 0.45 * (age - 48), 15),
        healthy=healthy,
    )


def clip(number: float, low: float, high: float) -> float:
    """The number, limited to low..high."""
    return min(max(number, low), high)


_FRONTAL = DOWER[6:].tolist()
_STEEP = 2 / math.sqrt(3)  # aVF is a smaller lead than I by this factor


def frontal_axis(waves: Iterable[Wave]) -> float:
    """Mean frontal QRS axis in degrees, from the areas of I and aVF (aVF scaled by 2/sqrt 3)."""
    limbs = [0.0, 0.0]
    for wave in waves:
        x, y, z = wave.area
        for k, (a, b, c) in enumerate(_FRONTAL):
            limbs[k] += (a * x + b * y + c * z) * wave.gain[6 + k]
    return math.degrees(math.atan2((limbs[1] - limbs[0] / 2) * _STEEP, limbs[0]))


def rotate_to_axis(waves: Sequence[Wave], target: float, keep: Iterable[str] = ()) -> list[Wave]:
    """Rotate the waves (except those named in `keep`) in the frontal plane until the leads' axis is `target` degrees.

    The transform distorts the frontal plane (a dipole at 0 degrees appears at -8, one at 60 at 84), so the angle is
    computed from the leads: I and II are constant + c * cos(angle) + s * sin(angle).
    """
    anchors = set(keep)
    limbs = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    for wave in waves:
        x, y, z = wave.area
        turns = wave.name not in anchors
        for sums, (a, b, c), near in zip(limbs, _FRONTAL, wave.gain[6:], strict=True):
            flat = (a * x + b * y) * near
            sums[0] += c * z * near + (0.0 if turns else flat)
            if turns:
                sums[1] += flat
                sums[2] += (b * x - a * y) * near
    one = limbs[0]
    best = _rotation(one, [(second - first / 2) * _STEEP for first, second in zip(one, limbs[1], strict=True)], target)
    c, s = math.cos(math.radians(best)), math.sin(math.radians(best))
    return [w if w.name in anchors else w.rotate(c, s) for w in waves]


def _rotation(one: Sequence[float], avf: Sequence[float], target: float) -> float:
    """The rotation in degrees that brings the axis nearest to `target`.

    one, avf: for leads I and aVF the part that does not rotate, and the factors of the rotation's cosine and sine.
    """

    def miss(turn: float) -> float:
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        axis = math.degrees(math.atan2(avf[0] + avf[1] * c + avf[2] * s, one[0] + one[1] * c + one[2] * s))
        return abs((axis - target + 180) % 360 - 180)

    # the component at right angles to the target must vanish: constant + size * cos(turn - phase) = 0
    ct, st = math.cos(math.radians(target)), math.sin(math.radians(target))
    constant, cosine, sine = (b * ct - a * st for a, b in zip(one, avf, strict=True))
    size, phase = math.hypot(cosine, sine), math.degrees(math.atan2(sine, cosine))
    if abs(constant) < size:
        distance = math.degrees(math.acos(-constant / size))
        best = min(phase - distance, phase + distance, key=miss)
        if miss(best) < 1:
            return best
    return float(min(range(-180, 180, 3), key=miss))  # out of reach because of the waves in `keep`: the nearest
