"""Calibration and thresholds: the fit, what is frozen, and what a damaged file says."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from eval.metrics.bootstrap import calibration_error
from eval.metrics.calibration import best_threshold, fit, fit_platt, read_calibration, write_calibration
from eval.types import LabelledRecords, System
from render.errors import InputError
from render.statements import STATEMENTS

CODES = tuple(STATEMENTS)
AFIB, SR, LVH, WPW = (CODES.index(code) for code in ("AFIB", "SR", "LVH", "WPW"))


def _validation(n: int = 400, seed: int = 0) -> tuple[System, LabelledRecords]:
    """Scores whose true probability is logistic(2 logit - 1); three records with WPW, none with LVH."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0.02, 0.98, size=(n, 71))
    truth = 1 / (1 + np.exp(-(2 * np.log(scores / (1 - scores)) - 1)))
    y = random.random((n, 71)) < truth
    y[:, LVH] = False
    y[:, WPW] = False
    y[:3, WPW] = True
    labels = tuple(tuple(code for code, has in zip(CODES, row, strict=True) if has) for row in y)
    ids = tuple(f"v{i}" for i in range(n))
    records = LabelledRecords(ids, labels, "made-up", folds=(9,) * n, patients=tuple(f"p{i // 2}" for i in range(n)))
    return System("m", ids, scores), records


def test_fit_recovers_the_curve_of_the_labels() -> None:
    calibration = fit(*_validation(4000))
    slopes = [c.slope for code, c in calibration.curves.items() if code != "WPW"]
    offsets = [c.offset for code, c in calibration.curves.items() if code != "WPW"]
    assert np.mean(slopes) == pytest.approx(2, abs=0.03)
    assert np.mean(offsets) == pytest.approx(-1, abs=0.03)
    system, records = _validation(4000, seed=1)
    y = np.array([[code in codes for code in CODES] for codes in records.statements])
    scores = system.scores_of(records.record_ids)
    calibrated_scores = calibration.apply(scores)
    before, after = calibration_error(y, scores), calibration_error(y, calibrated_scores)
    assert after[AFIB] < before[AFIB] / 2
    assert calibrated_scores.min() >= 0 and calibrated_scores.max() <= 1


def test_platt_equals_logistic_regression_on_smoothed_targets() -> None:
    random = np.random.default_rng(3)
    s = random.uniform(0.05, 0.95, 150)
    y = random.random(150) < s**2
    slope, offset = fit_platt(y, s)
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    x = np.log(s / (1 - s))[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(np.concatenate([x, x]), np.repeat([1, 0], 150), sample_weight=np.concatenate([target, 1 - target]))
    assert slope == pytest.approx(model.coef_[0, 0], abs=1e-4)
    assert offset == pytest.approx(model.intercept_[0], abs=1e-4)


def test_a_curve_is_fitted_in_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hessian is exact: a wrong one gives the same curve, later."""
    random, solve = np.random.default_rng(3), Mock(wraps=np.linalg.solve)
    monkeypatch.setattr(np.linalg, "solve", solve)
    s = random.uniform(0.05, 0.95, 150)
    fit_platt(random.random(150) < s**2, s)
    assert solve.call_count <= 8


def test_few_positives_and_inverted_scores_get_an_offset_only() -> None:
    random = np.random.default_rng(4)
    s = random.uniform(0.05, 0.95, 200)
    rare = np.zeros(200, bool)
    rare[:4] = True
    assert fit_platt(rare, s)[0] == 1.0
    assert fit_platt(rare, s)[1] < 0  # four in two hundred: scores around one half are far too high
    assert fit_platt(s < 0.5, s)[0] == 1.0  # a negative slope would turn the ranking round


def test_scores_of_nought_and_one_have_a_curve() -> None:
    s = np.array([0.0, 1.0] * 40)
    slope, offset = fit_platt((s == 1.0) ^ (np.arange(80) % 8 < 2), s)  # three of four are right on either side
    assert 0.0 < slope < 0.2 and abs(offset) < 0.01


@pytest.mark.parametrize("decimals", [None, 1])
def test_the_threshold_has_the_highest_f1(decimals: int | None) -> None:
    random = np.random.default_rng(5)
    for _ in range(6):
        s = random.random(40)
        s = s if decimals is None else np.round(s, decimals)
        y = random.random(40) < 0.2 + 0.6 * s
        f1 = f1_score(y, s >= best_threshold(y, s))
        assert f1 == pytest.approx(max(f1_score(y, s >= t) for t in s), abs=1e-12)


def test_from_ten_positives_on_the_threshold_has_the_highest_f1() -> None:
    for positives in (9, 10):
        labels = tuple(("AFIB",) if k < positives else ("NORM",) for k in range(60))
        ids = tuple(map(str, range(60)))
        scores = np.random.default_rng(1).uniform(0.05, 0.6, (60, 71))
        scores[:positives, AFIB] += 0.3
        curve = fit(System("m", ids, scores), LabelledRecords(ids, labels, "made-up")).curves["AFIB"]
        best = best_threshold(np.arange(60) < positives, scores[:, AFIB])
        assert (curve.threshold == best) == (positives == 10)


def test_statements_without_positives_have_no_curve_and_are_never_called() -> None:
    system, records = _validation()
    calibration = fit(system, records)
    assert calibration.left_out == ("LVH",)
    assert not calibration.decide(np.ones((5, 71)))[:, LVH].any()
    assert calibration.decide(np.ones((5, 71)))[:, AFIB].all()
    scores = system.scores_of(records.record_ids)
    assert np.array_equal(calibration.apply(scores)[:, LVH], scores[:, LVH])
    few = calibration.curves["WPW"]
    assert few.positives == 3
    # Three positives: called where the calibrated probability passes one half.
    assert calibration.apply(np.full((1, 71), few.threshold))[0, WPW] == pytest.approx(0.5)


def test_a_curve_alone_gives_the_probability_that_its_calibration_gives() -> None:
    calibration = fit(*_validation())
    for score in (0.0, 0.2, 0.5, 1.0):
        together = calibration.apply(np.full((1, 71), score))[0, AFIB]
        assert calibration.curves["AFIB"].apply(score) == pytest.approx(together, abs=1e-12)


def test_a_calibration_file_is_read_back_and_knows_its_records(tmp_path: Path) -> None:
    system, records = _validation()
    calibration = fit(system, records)
    write_calibration(tmp_path / "calibration.json", calibration)
    assert read_calibration(tmp_path / "calibration.json") == calibration
    assert calibration.folds == {"9": 400}
    assert "400 records (fold 9: 400)" in str(calibration.summary()["fitted on"])
    other = LabelledRecords(("x",), (("SR",),), "other", patients=("px",))
    assert calibration.overlap(other) == ""
    assert "1 of the records" in calibration.overlap(LabelledRecords(("v3", "x"), (("SR",), ()), "o"))
    same_patient = LabelledRecords(("x",), (("SR",),), "o", patients=("p7",))
    assert "0 of the records and 1 of the patients" in calibration.overlap(same_patient)


def test_nothing_to_calibrate_is_named() -> None:
    with pytest.raises(InputError, match="nothing to calibrate"):
        fit(System("m", ("a",), np.full((1, 71), 0.5)), LabelledRecords(("a",), (("SR",),), "one record"))
    with pytest.raises(InputError, match="no scores for 1 of 1 records"):
        fit(System("m", ("a",), np.full((1, 71), 0.5)), LabelledRecords(("b",), (("SR",),), "another"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 7}, "not a calibration of format 1"),
        ({"system": 3}, "field 'system' is 3"),
        ({"folds": {"9": "many"}}, "field 'folds'"),
        ({"record_ids": "v1"}, "field 'record_ids' is not a list"),
        ({"curves": {}}, "field 'curves' is {}"),
        ({"curves": {"AFIBB": {}}}, "contains 'AFIBB'"),
        ({"curves": {"AFIB": {"slope": 1, "offset": 0, "threshold": 0.5}}}, "AFIB.positives' is None"),
        ({"curves": {"AFIB": {"slope": -1, "offset": 0, "threshold": 0.5, "positives": 3}}}, "slope -1.0"),
        ({"curves": {"AFIB": {"slope": 0, "offset": 0, "threshold": 0.5, "positives": 3}}}, "slope 0.0"),
        ({"curves": {"AFIB": {"slope": float("nan"), "offset": 0, "threshold": 0.5, "positives": 3}}}, "slope' is nan"),
        ({"curves": {"AFIB": {"slope": 1, "offset": 0, "threshold": 2, "positives": 3}}}, "threshold 2.0"),
        ({"curves": {"AFIB": {"slope": 1e9, "offset": 0, "threshold": 0, "positives": 3}}}, "slope' is 1000000000.0"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, fit(*_validation(30)))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError) as error:
        read_calibration(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("threshold", [0, 1])
def test_a_threshold_may_be_nought_or_one(tmp_path: Path, threshold: float) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, fit(*_validation(30)))
    curve = {"slope": 1, "offset": 0, "threshold": threshold, "positives": 3}
    path.write_text(json.dumps({**json.loads(path.read_text()), "curves": {"AFIB": curve}}))
    assert read_calibration(path).curves["AFIB"].threshold == threshold


def test_a_number_of_a_curve_may_be_just_below_a_billion(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, fit(*_validation(30)))
    curve = {"slope": 999_999_999, "offset": -999_999_999, "threshold": 0, "positives": 3}
    path.write_text(json.dumps({**json.loads(path.read_text()), "curves": {"AFIB": curve}}))
    assert read_calibration(path).curves["AFIB"].slope == 999_999_999


SMALL = fit(*_validation(30))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_a_calibration_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, SMALL)
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(st.binary(max_size=80)))
    else:
        tree = json.loads(path.read_text())
        key = data.draw(st.sampled_from(sorted(tree)))
        junk = st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        )
        tree[key] = data.draw(junk)
        path.write_text(json.dumps(tree))
    try:
        read_calibration(path)
    except InputError as error:
        assert "\n" not in str(error)
