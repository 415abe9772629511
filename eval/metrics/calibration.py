"""Calibration and thresholds: fitted once on validation records, frozen in `calibration.json`, applied to others.

Each statement has one curve, p' = 1 / (1 + exp(-(slope * logit p + offset))), and one threshold. Rankings, and with
them every AUC, are those of the scores as given; calibration changes the probabilities and the yes/no decisions.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.types import Bools, Floats, LabelledRecords, System, label_matrix
from render.errors import InputError
from render.io import atomic_write, read_json_object
from render.statements import STATEMENTS

CALIBRATION_FILE = "calibration.json"
_FORMAT = 1
_REMEDY = "fit it again with: ecg-vlm calibrate"
_CODES = tuple(STATEMENTS)
_FEW = 10
_EDGE = 1e-7  # scores are softmaxes in float32, which does not resolve values nearer to 0 and 1


@dataclass(frozen=True)
class Curve:
    """The calibration curve of one statement, and the score from which on the statement is called present.

    Attributes:
        positives: number of validation records with the statement, of those that the curve was fitted on.
    """

    slope: float
    offset: float
    threshold: float
    positives: int

    def apply(self, score: float) -> float:
        """The calibrated probability of a score in [0, 1]."""
        return float(_logistic(self.slope * _logit(np.float64(score)) + self.offset))


@dataclass(frozen=True)
class Calibration:
    """Frozen curves of one system.

    Attributes:
        system: its name.
        data: where the validation records come from.
        folds: fold -> number of records ("-" for none).
        record_ids: the records it was fitted on; they must not be judged with it.
        patient_ids: the records it was fitted on; they must not be judged with it.
        curves: code -> Curve; a statement that is present in no (or in every) validation record has none: its score
            stays as it is, and it is never called present.
    """

    system: str
    data: str
    folds: dict[str, int]
    record_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    curves: dict[str, Curve]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Statements without a curve."""
        return tuple(code for code in _CODES if code not in self.curves)

    def apply(self, scores: NDArray[np.floating]) -> Floats:
        """Calibrated probabilities of (n, 71) scores, (n, 71)."""
        out = np.array(scores, dtype=np.float64)
        for code, curve in self.curves.items():
            i = _CODES.index(code)
            out[:, i] = _logistic(curve.slope * _logit(out[:, i]) + curve.offset)
        return out

    def decide(self, scores: NDArray[np.floating]) -> Bools:
        """Decisions on (n, 71) scores as given (not calibrated ones), (n, 71): score >= threshold."""
        thresholds = [self.curves[code].threshold if code in self.curves else math.inf for code in _CODES]
        return np.asarray(np.asarray(scores, dtype=np.float64) >= np.array(thresholds))

    def overlap(self, records: LabelledRecords) -> str:
        """One line when any of `records`, or of their patients, was used to fit this calibration; "" otherwise."""
        same = set(self.record_ids) & set(records.record_ids)
        patients = (set(self.patient_ids) & set(records.patients)) - {""}
        if not same and not patients:
            return ""
        return (
            f"calibration of {self.system}: fitted on {len(same)} of the records and {len(patients)} of the patients "
            "judged here"
        )

    def summary(self) -> dict[str, object]:
        """The lines about it in a report."""
        folds = ", ".join(
            f"fold {fold}: {count:,}" if fold != "-" else f"{count:,}" for fold, count in self.folds.items()
        )
        return {
            "fitted on": f"{self.data}; {len(self.record_ids):,} records ({folds})",
            "statements with a curve": len(self.curves),
            "without": ", ".join(self.left_out) or "none",
        }


def fit(system: System, records: LabelledRecords) -> Calibration:
    """Fit curves and thresholds of a system's scores on validation records.

    Platt scaling (Platt 1999) of the logit, with his smoothed targets, by Newton's method (Lin, Lin and Weng 2007).
    With fewer than ten positives or negatives, or where the slope would be negative, only the offset is fitted: so few
    records do not determine two parameters, and a negative slope would reverse the ranking. The threshold has the
    highest F1 on these records; with fewer than ten positives or negatives, where the best F1 is a matter of chance, it
    is where the calibrated probability reaches one half.

    Raises:
        InputError: When the system lacks a record.
    """
    scores = system.scores_of(records.record_ids)
    labels, codes = label_matrix(records.statements, "all")
    curves = {}
    for i, code in enumerate(codes):
        y = labels[:, i]
        if y.any() and not y.all() and not np.isnan(scores[:, i]).any():
            slope, offset = fit_platt(y, scores[:, i])
            few = min(y.sum(), (~y).sum()) < _FEW
            threshold = float(_logistic(-offset / slope)) if few else best_threshold(y, scores[:, i])
            curves[code] = Curve(slope, offset, threshold, int(y.sum()))
    if not curves:
        raise InputError(f"{records.dataset}: no statement has a record with and one without it; nothing to calibrate")
    folds = Counter("-" if fold is None else str(fold) for fold in records.folds or [None] * len(records.record_ids))
    return Calibration(
        system.name,
        records.dataset,
        dict(sorted(folds.items())),
        records.record_ids,
        tuple(sorted(set(records.patients) - {""})),
        curves,
    )


def fit_platt(labels: Bools, scores: NDArray[np.floating]) -> tuple[float, float]:
    """(slope, offset) of the curve for labels (n,) and scores (n,) in [0, 1]; see `fit`. Both classes must occur."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    x = _logit(np.asarray(scores, dtype=np.float64))
    if min(positives, negatives) >= _FEW:
        slope, offset = _newton(np.stack([x, np.ones_like(x)], axis=1), np.zeros_like(x), target)
        if slope > 0:
            return float(slope), float(offset)
    (offset,) = _newton(np.ones((len(x), 1)), x, target)
    return 1.0, float(offset)


def best_threshold(labels: Bools, scores: NDArray[np.floating]) -> float:
    """The threshold with the highest F1 on labels (n,) and scores (n,), half-way to the next score below it.

    Of several equally good ones it is the highest, which calls the fewest records present.
    """
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(labels[order])
    ends = np.flatnonzero(np.diff(values[order], append=-1.0))  # the last record of each group of ties
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    best = int(np.argmax(f1))
    at = float(values[order][ends[best]])
    return (at + float(values[order][ends[best + 1]])) / 2 if best + 1 < len(ends) else at


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write `calibration.json`, whole or not at all."""
    with atomic_write(path) as partial:
        text = json.dumps({"format": _FORMAT, **asdict(calibration)}, ensure_ascii=False, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Read `calibration.json`. Raises InputError that names the file and the field at fault."""
    data = read_json_object(path, _REMEDY)
    if data.get("format") != _FORMAT:
        raise InputError(f"{path}: not a calibration of format {_FORMAT}; {_REMEDY}")
    for name in ("system", "data"):
        if not isinstance(data.get(name), str):
            raise InputError(f"{path}: field {name!r} is {data.get(name)!r:.60}, expected text; {_REMEDY}")
    return Calibration(
        data["system"],
        data["data"],
        _counts(data.get("folds"), path),
        _texts(data, "record_ids", path),
        _texts(data, "patient_ids", path),
        _curves(data.get("curves"), path),
    )


def _counts(value: object, path: Path) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(count) is int for count in value.values()):
        raise InputError(f"{path}: field 'folds' is {value!r:.60}, expected fold -> number of records; {_REMEDY}")
    return value


def _texts(data: Mapping[str, object], name: str, path: Path) -> tuple[str, ...]:
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{path}: field {name!r} is not a list of texts; {_REMEDY}")
    return tuple(value)


def _curves(value: object, path: Path) -> dict[str, Curve]:
    if not isinstance(value, dict) or not value:
        raise InputError(f"{path}: field 'curves' is {value!r:.60}, expected statement -> curve; {_REMEDY}")
    curves = {}
    for code, row in value.items():
        if code not in STATEMENTS:
            raise InputError(
                f"{path}: field 'curves' contains {code!r:.60}, not one of the 71 statement codes; {_REMEDY}"
            )
        curves[code] = _curve(row, f"{path}: field 'curves.{code}")
    return curves


def _curve(row: object, where: str) -> Curve:
    numbers: dict[str, float] = {}
    for name in ("slope", "offset", "threshold", "positives"):
        value = row.get(name) if isinstance(row, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e9:
            raise InputError(f"{where}.{name}' is {value!r:.60}, expected a number; {_REMEDY}")
        numbers[name] = float(value)
    curve = Curve(numbers["slope"], numbers["offset"], numbers["threshold"], int(numbers["positives"]))
    if curve.slope <= 0 or not 0 <= curve.threshold <= 1:
        raise InputError(
            f"{where}' has slope {curve.slope} and threshold {curve.threshold}, expected slope > 0 and threshold in "
            f"[0, 1]; {_REMEDY}"
        )
    return curve


def codes_above_thresholds(decisions: Bools) -> list[tuple[str, ...]]:
    """The codes that are called present, per record of (n, 71) decisions."""
    return [tuple(code for code, yes in zip(_CODES, row, strict=True) if yes) for row in decisions.tolist()]


def _logit(p: Floats | np.float64) -> Floats:
    inside = np.clip(p, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _logistic(x: Floats | float) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))


def _newton(columns: Floats, constant: Floats, target: Floats) -> Sequence[float]:
    """Coefficients, one a column of (n, k), that minimise the cross-entropy of logistic(columns @ c + constant).

    Newton's method with halved steps: the loss is convex, so a step that does not lower it was too long.
    """

    def loss(c: Floats) -> float:
        z = columns @ c + constant
        return float((np.logaddexp(0, z) - target * z).sum())

    c = np.zeros(columns.shape[1])
    best = loss(c)
    for _ in range(100):
        p = _logistic(columns @ c + constant)
        gradient = columns.T @ (p - target)
        hessian = columns.T @ (columns * (p * (1 - p))[:, None]) + 1e-10 * np.eye(len(c))
        step = np.linalg.solve(hessian, gradient)
        while loss(c - step) > best and np.abs(step).max() > 1e-12:
            step = step / 2
        c = c - step
        if best - loss(c) < 1e-10:
            break
        best = loss(c)
    return [float(v) for v in c]
