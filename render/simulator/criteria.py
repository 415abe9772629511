"""Clinical criteria as measurements on a noise-free beat.

The simulator samples a beat and accepts it only if these measurements agree with the beat's findings.
Sources: A3, A4, A5 = AHA/ACCF/HRS recommendations 2009, parts III (conduction), IV (ST, T, QT) and V
(hypertrophy); U = fourth universal definition of myocardial infarction, 2018.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import NamedTuple

import numpy as np

from render.jit import jit
from render.record import LEADS
from render.simulator.dipoles import STEP_MS, FloatArray, Wave, frontal_axis, project_leads

_ROW = {name: i for i, name in enumerate(LEADS)}

Q_LEADS: dict[str, tuple[str, ...]] = {
    "ASMI": ("V1", "V2", "V3"),
    "AMI": ("V2", "V3", "V4"),
    "ALMI": ("V3", "V4", "V5", "I", "aVL"),
    "LMI": ("I", "aVL"),
    "IMI": ("II", "III", "aVF"),
    "ILMI": ("II", "III", "aVF", "V5", "V6"),
    "IPMI": ("II", "III", "aVF"),
    "IPLMI": ("II", "III", "aVF", "V5", "V6"),
}
"""Infarct code -> the leads in which a Q wave shows it."""

SMALL_Q: dict[str, tuple[str, ...]] = {"IMI": ("III", "aVF"), "ASMI": ("V2", "V3"), "AMI": ("V3", "V4")}
"""Infarct code -> the two contiguous leads that suffice for a small infarct of the territory."""

TERRITORIES: dict[str, tuple[str, ...]] = {
    "AL": ("I", "aVL", "V4", "V5", "V6"),
    "LA": ("I", "aVL", "V5", "V6"),
    "AS": ("V1", "V2", "V3"),
    "AN": ("V2", "V3", "V4"),
    "IN": ("II", "III", "aVF"),
    "IL": ("II", "III", "aVF", "V5", "V6"),
    "C_": ("I", "II", "V5", "V6"),
}
"""Suffix of ISC.. and INJ.. codes -> the leads of the territory."""

_CONTIGUOUS = (
    ("II", "III"), ("III", "aVF"), ("II", "aVF"), ("I", "aVL"),
    ("V1", "V2"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6"),
)  # fmt: skip
_T_LEADS = ("I", "II", "V4", "V5", "V6")


class _Measures(NamedTuple):
    """Measurements in each of `LEADS`, in mV (`q_ms` in ms); see the methods of `SimulatedBeat`."""

    r: list[float]
    s: list[float]
    q_ms: list[float]
    q_mv: list[float]
    j: list[float]
    st: list[float]
    t: list[float]


@dataclass
class SimulatedBeat:
    """One kind of beat: its waves from the onset of the QRS, QRS duration and QT interval in ms."""

    waves: list[Wave]
    qrs_ms: float
    qt_ms: float

    @cached_property
    def leads(self) -> FloatArray:
        """(12, n) noise-free mV, every 2 ms from the onset of the QRS to the end of T."""
        return project_leads(self.waves, int(self.qt_ms / STEP_MS) + 2)

    def lead(self, name: str) -> FloatArray:
        """(n,) one lead of `leads`."""
        row: FloatArray = self.leads[_ROW[name]]
        return row

    @cached_property
    def _measures(self) -> _Measures:
        t_from = int((self.qrs_ms + 0.35 * (self.qt_ms - self.qrs_ms)) / STEP_MS)
        return _Measures(*measure_leads(self.leads, int(self.qrs_ms / STEP_MS) + 1, t_from).tolist())

    def r(self, name: str) -> float:
        """Largest positive deflection of the QRS, mV, at least 0."""
        return self._measures.r[_ROW[name]]

    def s(self, name: str) -> float:
        """Depth of the largest negative deflection of the QRS, mV, at least 0."""
        return self._measures.s[_ROW[name]]

    def q_ms(self, name: str, depth: float = 0.1) -> float:
        """Width in ms of an initial negative deflection of at least `depth` mV; 0 when there is none."""
        row = _ROW[name]
        return self._measures.q_ms[row] if self._measures.q_mv[row] >= depth else 0.0

    def j(self, name: str) -> float:
        """Level at the J point, mV."""
        return self._measures.j[_ROW[name]]

    def st(self, name: str) -> float:
        """Level at J + 60 ms against the baseline, mV."""
        return self._measures.st[_ROW[name]]

    def t(self, name: str) -> float:
        """Largest deflection of the T wave with its sign, mV."""
        return self._measures.t[_ROW[name]]

    @cached_property
    def axis(self) -> float:
        """Frontal QRS axis in degrees, without the late forces of a right bundle branch block."""
        depolarisation = [
            w for w in self.waves if w.start < self.qrs_ms - 30 and w.name not in RECOVERY_NAMES | {"right"}
        ]
        return frontal_axis(depolarisation)

    @property
    def sokolow(self) -> float:
        """Sokolow-Lyon 1949: S in V1 plus the larger R of V5 and V6, mV."""
        return self.s("V1") + max(self.r("V5"), self.r("V6"))

    @property
    def limb_peak(self) -> float:
        """Largest peak-to-peak QRS of the six limb leads, mV."""
        return float(max(map(add, self._measures.r[:6], self._measures.s[:6])))

    @property
    def pathological_q(self) -> bool:
        """Q >= 30 ms and >= 0.1 mV in two contiguous leads; >= 20 ms or QS in V2 and V3 (U)."""
        wide = {n for n in LEADS[:6] + LEADS[7:] if self.q_ms(n) >= 30}
        return self.any_contiguous(wide) or self.q_ms("V2") >= 20 <= self.q_ms("V3")

    @property
    def high_voltage(self) -> bool:
        """R or S of a limb lead >= 2.0 mV, or S of V1-2 or R of V5-6 >= 3.0 mV (Romhilt and Estes 1968)."""
        limb = max(*self._measures.r[:6], *self._measures.s[:6])
        return limb >= 2.0 or max(self.s("V1"), self.s("V2"), self.r("V5"), self.r("V6")) >= 3.0

    @property
    def st_depressed(self) -> bool:
        """ST at J + 60 ms <= -0.075 mV in two contiguous leads (U: 0.05; stricter here, so that it is unmistakable)."""
        return self.any_contiguous({n for n, st in zip(LEADS, self._measures.st, strict=True) if st <= -0.075})

    @property
    def st_elevated(self) -> bool:
        """J >= 0.1 mV in two contiguous leads, 0.2 in V2-V3 (U; there 0.25 in men below 40, 0.15 in women)."""
        leads = {n for n, j in zip(LEADS, self._measures.j, strict=True) if j >= (0.2 if n in ("V2", "V3") else 0.1)}
        return self.any_contiguous(leads)

    @property
    def t_inverted(self) -> bool:
        """T <= -0.1 mV in two of I, II, aVL, V2-V6 (A4)."""
        return sum(self.t(n) <= -0.1 for n in ("I", "II", "aVL", "V2", "V3", "V4", "V5", "V6")) >= 2

    @property
    def t_low(self) -> bool:
        """|T| < 0.1 mV or less than a tenth of R in three of I, II, V4-V6 (A4)."""
        return sum(abs(self.t(n)) < max(0.1, 0.1 * self.r(n)) for n in _T_LEADS) >= 3

    @property
    def t_normal(self) -> bool:
        """T upright, > 0.1 mV and more than a tenth of R in I, II and V4-V6 (A4)."""
        return all(self.t(n) > max(0.1, 0.1 * self.r(n)) for n in _T_LEADS)

    @staticmethod
    def any_contiguous(names: Collection[str]) -> bool:
        """Whether two contiguous leads are among `names`."""
        return len(names) > 1 and any(a in names and b in names for a, b in _CONTIGUOUS)


RECOVERY_NAMES = frozenset({"st", "t", "st+", "t+", "u"})
"""Names of the waves of repolarisation."""


@jit
def measure_leads(leads, qrs_end, t_from):  # type: ignore[no-untyped-def]  # numba infers these
    """(7, 12) `_Measures` of a beat (12, n) mV. qrs_end, t_from: the samples at which QRS ends and T begins."""
    measures = np.zeros((7, leads.shape[0]))
    for k in range(leads.shape[0]):
        lead = leads[k]
        for level in lead[:qrs_end]:
            measures[0, k], measures[1, k] = max(measures[0, k], level), max(measures[1, k], -level)
        measures[2, k], measures[3, k] = _q(lead[:qrs_end])
        measures[4, k], measures[5, k] = lead[min(qrs_end + 4, lead.size - 1)], lead[min(qrs_end + 30, lead.size - 1)]
        for level in lead[t_from:]:
            if abs(level) > abs(measures[6, k]):
                measures[6, k] = level
    return measures


@jit
def _q(qrs):  # type: ignore[no-untyped-def]
    """Width in ms and depth in mV of an initial negative deflection of a QRS (n,); 0, 0 when there is none.

    A first positive deflection above 0.04 mV makes the following one an S wave.
    """
    first = 0
    while first < qrs.size and qrs[first] >= -0.02:
        if qrs[first] > 0.04:
            return 0.0, 0.0
        first += 1
    last, depth = first, 0.0
    while last < qrs.size and qrs[last] < -0.02:
        depth = max(depth, -qrs[last])
        last += 1
    return (last - first) * STEP_MS, depth
