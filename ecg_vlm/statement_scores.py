"""P(present) of statements from one look, with the threshold from which on each is called present."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from eval.metrics.calibration import Calibration
from render.statements import STATEMENTS

YES_FROM = 0.5
"""The threshold of a statement without a calibration: from this P(present) on, "Yes." is the likelier answer."""

DAMAGE = tuple(code for code, s in STATEMENTS.items() if s.superclass == "MI" or code.startswith("ISC"))
"""Infarction, injury and ischemia: no page is called normal that also shows one of them."""

GROUPS = ("rhythm", "conduction", "infarction", "hypertrophy", "ST-T", "form", "other")
"""How a reader looks through the 71 statements."""

_GROUP_OF_SUPERCLASS = {"CD": "conduction", "MI": "infarction", "HYP": "hypertrophy", "STTC": "ST-T", "NORM": "other"}
# Form statements that a reader looks for elsewhere: PTB-XL gives them no superclass.
_GROUP_OF_FORM = {
    **dict.fromkeys(("PAC", "PVC", "PRC(S)"), "rhythm"),
    **dict.fromkeys(("STD_", "STE_", "INVT", "LOWT", "NT_", "TAB_"), "ST-T"),
    "LPR": "conduction",
    "VCLVH": "hypertrophy",
}


@dataclass(frozen=True)
class StatementScores(Mapping[str, float]):
    """P(present) by statement code: a mapping.

    Attributes:
        probabilities: the values of the mapping.
        thresholds: by code; `YES_FROM` for one that is not in it.
        calibration: what the calibration was fitted on, one line; "" for scores as the model gives them.
    """

    probabilities: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: str = ""

    def __getitem__(self, code: str) -> float:
        return self.probabilities[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probabilities)

    def __len__(self) -> int:
        return len(self.probabilities)

    def threshold(self, code: str) -> float:
        """The probability from which on a statement is called present."""
        return self.thresholds.get(code, YES_FROM)

    def reaches(self, code: str) -> bool:
        """Whether P(present) of a statement is its threshold or more."""
        return self.probabilities[code] >= self.threshold(code)

    def is_normal(self) -> bool:
        """Whether the page is called normal: P(NORM) reaches its threshold, and none of `DAMAGE` does.

        Raises:
            KeyError: Without NORM, and without `DAMAGE` where NORM reaches its threshold.
        """
        return self.reaches("NORM") and not any(self.reaches(code) for code in DAMAGE)

    def verdicts(self) -> dict[str, bool]:
        """Whether each statement is called present; NORM as `is_normal` says. Takes the scores of all statements."""
        return {code: self.is_normal() if code == "NORM" else self.reaches(code) for code in self}

    def codes_as_given(self) -> tuple[str, ...]:
        """The statements whose score is as the model gives it."""
        return tuple(code for code in self if code not in self.thresholds)

    def merge(self, others: StatementScores) -> StatementScores:
        """These and other scores of the same page."""
        return StatementScores({**self.probabilities, **others.probabilities}, self.thresholds, self.calibration)


def calibrated_scores(probabilities: Mapping[str, float], calibration: Calibration | None) -> StatementScores:
    """The scores of a model by the curves of its calibration; as they are without one."""
    if calibration is None:
        return StatementScores(probabilities)
    curves = calibration.curves
    return StatementScores(
        {code: curves[code].apply(p) if code in curves else p for code, p in probabilities.items()},
        {code: curve.apply(curve.threshold) for code, curve in curves.items()},
        f"{len(calibration.record_ids):,} records of {calibration.data}",
    )


def group_of(code: str) -> str:
    """The group of a statement, one of `GROUPS`."""
    statement = STATEMENTS[code]
    if statement.rhythm:
        return "rhythm"
    return _GROUP_OF_SUPERCLASS.get(statement.superclass) or _GROUP_OF_FORM.get(code, "form")
