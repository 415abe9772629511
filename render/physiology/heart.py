"""The electrical heart of the simulator: moving dipoles, the leads that see them, and the person they lie in.

A beat is a handful of *waves*: dipoles of fixed direction whose strength rises, may hold, and falls over the
beat. Activation (QRS) and repolarisation (ST, T, U) are lists of waves; causes such as a bundle branch block,
a scar or ischaemia add waves, take some away or reshape them, and thereby compose.

Axes follow Frank as Dower uses them: X to the left, Y to the feet, Z to the back. Strengths are millivolts as
they appear after the transform. Times are milliseconds from the onset of the QRS (or of the P wave).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from render.record import LEADS

Array = NDArray[np.float64]

INDEPENDENT_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6", "I", "II")
"""The leads that the transform gives, in its row order; the other four follow from I and II."""

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

STEP_MS = 2.0
"""Time between two samples: the simulator works at 500 Hz."""

# (12, 8): Einthoven and Goldberger, rows in the order of LEADS.
_TWELVE = np.zeros((12, 8))
_TWELVE[0, 6] = _TWELVE[1, 7] = 1.0
_TWELVE[2, 6:] = -1.0, 1.0  # III = II - I
_TWELVE[3, 6:] = -0.5, -0.5  # aVR = -(I + II) / 2
_TWELVE[4, 6:] = 1.0, -0.5  # aVL = I - II / 2
_TWELVE[5, 6:] = -0.5, 1.0  # aVF = II - I / 2
_TWELVE[6:, :6] = np.eye(6)

# The atria lie behind and above the ventricles, repolarisation is seen nearer to V2 and the lateral leads
# than one central dipole would be: each generator has its own distance to the electrodes. The factors are
# medians of what healthy recordings show beyond the transform (order of INDEPENDENT_LEADS).
SITES = {
    "atria": np.array([1.0, 0.9, 0.7, 0.5, 0.5, 0.55, 1.5, 1.0]),
    "activation": np.array([0.88, 1.08, 0.98, 1.02, 0.97, 0.97, 1.10, 1.0]),
    "recovery": np.array([0.75, 1.30, 0.95, 0.87, 0.94, 1.2, 1.5, 1.05]),
}
_ONES = np.ones(8)


def twelve_leads(independent: Array) -> Array:
    """(8, n) millivolts in the order of `INDEPENDENT_LEADS` -> (12, n) in the order of `render.record.LEADS`.

    The other four leads follow from I and II, so that Einthoven's and Goldberger's laws hold to rounding.
    """
    return np.asarray(_TWELVE @ independent)


@dataclass(frozen=True, eq=False)
class Wave:
    """A dipole of fixed direction: rises from `start` to `full`, holds to `hold`, falls to `end` (ms).

    vector: (X, Y, Z) in mV. gain: (8,) how near each independent lead lies to this dipole.
    """

    name: str
    start: float
    full: float
    hold: float
    end: float
    vector: Array
    gain: Array = field(default_factory=lambda: _ONES)

    def scaled(self, factor: float | Array | tuple[float, float, float]) -> Wave:
        """The same wave with its strength multiplied, as a whole or per axis."""
        return replace(self, vector=self.vector * np.asarray(factor))

    def stretched(self, factor: float, shift: float = 0.0) -> Wave:
        """The same wave with its times multiplied, then moved by `shift` ms."""
        start, full, hold, end = (t * factor + shift for t in (self.start, self.full, self.hold, self.end))
        return replace(self, start=start, full=full, hold=hold, end=end)

    def near(self, gain: Array) -> Wave:
        """The same wave nearer to some leads: (8,) factors."""
        return replace(self, gain=self.gain * gain)

    @property
    def area(self) -> Array:
        """(3,) time integral of the dipole, mV ms."""
        return np.asarray(self.vector * ((self.end - self.start + self.hold - self.full) / 2))

    @property
    def leads(self) -> Array:
        """(8,) mV in the independent leads while the wave is at its height."""
        return np.asarray((DOWER @ self.vector) * self.gain)


def shapes(waves: Sequence[Wave], width: int) -> Array:
    """(K, width) courses of the waves between 0 and 1, one row each, sampled every 2 ms from time 0."""
    times = np.array([(w.start, w.full, w.hold, w.end) for w in waves], dtype=np.float64)  # (K, 4)
    t = np.arange(width) * STEP_MS
    spans = np.maximum(times[:, 1::2] - times[:, ::2], 1e-3)  # (K, 2) of the rise and of the fall
    phase = (t - times[:, ::2, None]) / spans[:, :, None]  # (K, 2, width)
    bells = np.cos(np.pi * np.minimum(np.maximum(phase, 0.0), 1.0))
    return np.asarray(0.25 * (1.0 - bells[:, 0]) * (1.0 + bells[:, 1]))


def view(waves: Sequence[Wave]) -> Array:
    """(K, 8) millivolts of each wave at its height in the independent leads."""
    gains = np.array([w.gain for w in waves])
    return np.asarray((np.array([w.vector for w in waves]) @ DOWER.T) * gains)


def seen(waves: Sequence[Wave], width: int) -> Array:
    """(12, width) noise-free millivolts of the waves in the order of `LEADS`, every 2 ms from time 0."""
    return twelve_leads(view(waves).T @ shapes(waves, width))


def rows(names: Iterable[str]) -> list[int]:
    """Row numbers of leads in arrays of twelve."""
    return [LEADS.index(name) for name in names]


@dataclass(frozen=True, eq=False)
class Person:
    """Who is recorded: age in years, sex, and what the chest does to the heart's field.

    gains: (8,) factors of the independent leads. size: factor of the QRS voltage. axis: frontal QRS axis in
    degrees when nothing turns it. rotation: how far the forces turn to the back (+) or front, which moves the
    R progression.
    """

    age: float
    sex: str
    gains: Array
    size: float
    axis: float
    rotation: float

    def wave(
        self, name: str, times: Sequence[float], vector: Sequence[float] | Array, site: str, rng: Generator
    ) -> Wave:
        """A wave of (start, peak, end) or (start, full, hold, end) ms in this chest.

        Every part of the heart lies at its own distance from the electrodes, so each wave gets gains of its
        own.
        """
        start, full, hold, end = times if len(times) == 4 else (times[0], times[1], times[1], times[2])
        gain = SITES[site] * self.gains * (1 + 0.09 * rng.standard_normal(8))
        return Wave(name, start, full, hold, end, np.array(vector, dtype=np.float64), gain)


def draw_person(rng: Generator, healthy: bool) -> Person:
    """A person of a hospital's population: infarcts and blocks are diseases of the old; the axis turns left
    with age."""
    age = float(round(np.clip(rng.normal(48 if healthy else 66, 17 if healthy else 13), 18, 95)))
    axis = float(np.clip(rng.normal(78 - 0.75 * age, 27), -24, 86))
    return Person(
        age=age,
        sex="male" if rng.random() < 0.52 else "female",
        gains=np.exp(rng.normal(0, 0.13, 8)),
        size=float(np.exp(rng.normal(0, 0.20))),
        axis=axis,
        rotation=float(rng.normal(4 + 0.45 * (age - 48), 15)),
    )


def turned(wave: Wave, degrees: float) -> Wave:
    """The wave turned in the frontal plane, clockwise as seen from the front (from the left to the feet)."""
    x, y, z = wave.vector
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return replace(wave, vector=np.array([c * x - s * y, s * x + c * y, z]))


def frontal_axis(waves: Iterable[Wave]) -> float:
    """Mean frontal QRS axis in degrees, from the areas of I and aVF (aVF scaled by 2/sqrt 3)."""
    leads = np.sum([(DOWER @ w.area) * w.gain for w in waves], axis=0)
    i, ii = leads[6], leads[7]
    return float(np.degrees(np.arctan2((ii - i / 2) * 2 / np.sqrt(3), i)))


def to_axis(waves: Sequence[Wave], target: float, keep: Iterable[str] = ()) -> list[Wave]:
    """Turn the waves (but those named in `keep`) in the frontal plane until the displayed axis is `target`
    degrees.

    The transform distorts the frontal plane (a dipole at 0 degrees is displayed at -8, one at 60 at 84), so
    the turn is found by looking at the leads.
    """
    kept = set(keep)
    turns = np.arange(-180.0, 180.0, 3.0)
    c, s = np.cos(np.radians(turns)), np.sin(np.radians(turns))
    limbs = np.zeros((2, len(turns)))  # areas of I and II for each turn
    for wave in waves:
        x, y, z = wave.area
        still = wave.name in kept
        turned_area = (
            np.array([np.full_like(c, x), np.full_like(c, y)]) if still else np.array([c * x - s * y, s * x + c * y])
        )
        limbs += (DOWER[6:, :2] @ turned_area + DOWER[6:, 2:] * z) * wave.gain[6:, None]
    axes = np.degrees(np.arctan2((limbs[1] - limbs[0] / 2) * 2 / np.sqrt(3), limbs[0]))
    best = float(turns[np.argmin(np.abs((axes - target + 180) % 360 - 180))])
    return [w if w.name in kept else turned(w, best) for w in waves]
