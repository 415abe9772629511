"""Every metric and its intervals against scikit-learn and by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from ecg_vlm.control_pages import derangement
from eval.metrics.answers import answer_metrics, ecgbench_metrics
from eval.metrics.bootstrap import (
    Bootstrap,
    Interval,
    Sampling,
    bootstrap_brier,
    bootstrap_decisions,
    bootstrap_fmax,
    bootstrap_rankings,
    calibration_error,
    macro_auc,
    reliability,
    roc_auc,
)
from eval.metrics.controls import chance_range
from eval.metrics.judge import Difference, headline
from eval.metrics.published import PUBLISHED_RESULTS
from eval.metrics.signal_to_noise import MOST_DB, signal_to_noise_db
from eval.metrics.system_metrics import confusable_pairs, curve_classes, roc_points
from eval.report.gallery import worst_misses
from eval.types import Answer, LabelledRecords, System, label_matrix, task_scores, task_view
from render.statements import LABEL_TASKS, STATEMENTS, task_classes

CODES = tuple(STATEMENTS)


def _random(n: int, c: int, seed: int, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.random((n, c)) < np.linspace(0.05, 0.6, c)
    s = random.random((n, c)) * 0.7 + 0.3 * y
    return y, s if decimals is None else np.round(s, decimals)


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
def test_auc_equals_scikit_learn_with_and_without_ties(decimals: int | None) -> None:
    y, s = _random(400, 12, seed=1, decimals=decimals)
    each = macro_auc(y, s, [str(i) for i in range(12)]).per_class
    for i in range(12):
        reference = roc_auc_score(y[:, i], s[:, i])
        assert roc_auc(y[:, i], s[:, i]) == pytest.approx(reference, abs=1e-12)
        assert each[str(i)] == pytest.approx(reference, abs=1e-12)
    assert macro_auc(y, s).value == pytest.approx(roc_auc_score(y, s, average="macro"), abs=1e-12)


def test_auc_by_hand() -> None:
    assert roc_auc(np.array([0, 0, 1, 1], bool), np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert roc_auc(np.array([0, 1], bool), np.array([0.5, 0.5])) == 0.5
    assert math.isnan(roc_auc(np.array([1, 1], bool), np.array([0.1, 0.2])))
    assert math.isnan(roc_auc(np.array([0, 0], bool), np.array([0.1, 0.2])))


def test_undefined_classes_are_named_and_left_out() -> None:
    y = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], bool)
    s = np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3], [0.8, 0.3, 0.4]])
    result = macro_auc(y, s, ["a", "none", "every"])
    assert result.left_out == ("none", "every")
    assert result.per_class == {"a": 1.0}
    assert result.value == 1.0
    assert math.isnan(macro_auc(y[:, 1:], s[:, 1:]).value)


def test_class_counts_of_the_six_tasks() -> None:
    counts = [label_matrix([["SR"]], task)[0].shape[1] for task in LABEL_TASKS]
    assert counts == [71, 44, 23, 5, 19, 12]


def test_labels_count_whatever_their_likelihood_and_unlabelled_records_drop_out() -> None:
    # SR and ABQRS stand in PTB-XL with likelihood 0.0 only: a reader hands them on as statements, and they count.
    sets = [("ABQRS", "SR"), ("SR",), ("IMI", "NORM"), ()]
    rhythm, form = task_view(sets, "rhythm"), task_view(sets, "form")
    assert rhythm.has_label.tolist() == [True, True, False, False]
    assert form.has_label.tolist() == [True, False, False, False]
    assert rhythm.labels[:, rhythm.classes.index("SR")].all()
    assert task_view(sets, "superdiagnostic").has_label.tolist() == [False, False, True, False]
    assert task_view(sets, "all").has_label.tolist() == [True, True, True, False]


def test_a_class_scores_as_its_highest_diagnostic_statement() -> None:
    scores = np.zeros((1, 71))
    scores[0, CODES.index("IMI")] = 0.4
    scores[0, CODES.index("ALMI")] = 0.7
    scores[0, CODES.index("STE_")] = 0.9  # form only: belongs to no superclass
    scores[0, CODES.index("NDT")] = 0.3  # diagnostic and form
    by_class = dict(zip(task_classes("superdiagnostic"), task_scores(scores, "superdiagnostic")[0], strict=True))
    assert by_class == {"CD": 0.0, "HYP": 0.0, "MI": 0.7, "NORM": 0.0, "STTC": 0.3}
    assert dict(zip(task_classes("subdiagnostic"), task_scores(scores, "subdiagnostic")[0], strict=True))["IMI"] == 0.4
    form = dict(zip(task_classes("form"), task_scores(scores, "form")[0], strict=True))
    assert (form["STE_"], form["NDT"]) == (0.9, 0.3)
    with pytest.raises(ValueError, match="71"):
        task_scores(np.zeros((1, 70)), "all")


def _bootstrap_auc(y: np.ndarray, s: np.ndarray, **sampling: int) -> Bootstrap:
    return bootstrap_rankings(y, s, None, **sampling).auc.summary()


def test_bootstrap_equals_resampling_by_hand() -> None:
    y, s = _random(60, 4, seed=2, decimals=1)
    samples = bootstrap_rankings(y, s, resamples=40, seed=5).auc
    random = np.random.default_rng(5)
    for b in range(40):
        rows = random.integers(0, 60, size=60)
        for i in range(4):
            if 0 < y[rows, i].sum() < 60:
                assert samples.replicates[b, i] == pytest.approx(roc_auc_score(y[rows, i], s[rows, i]), abs=1e-12)
            else:
                assert math.isnan(samples.replicates[b, i])


def test_bootstrap_is_reproducible_ordered_and_moves_with_the_seed() -> None:
    y, s = _random(150, 6, seed=3)
    first, again, other = (_bootstrap_auc(y, s, resamples=300, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.macro.low95 != other.macro.low95
    m = first.macro
    assert m.low95 < m.low90 < m.value < m.high90 < m.high95
    assert m.value == macro_auc(y, s).value


def test_bootstrap_interval_covers_the_truth() -> None:
    # Normal scores one deviation apart: the true AUC is Phi(1 / sqrt 2) = .760.
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(60):
        y = random.random((200, 1)) < 0.4
        interval = _bootstrap_auc(y, random.normal(size=(200, 1)) + y, resamples=200, seed=seed).macro
        hits += interval.low90 <= 0.7602 <= interval.high90
    assert 46 <= hits <= 60  # 54 expected; 46 is more than three deviations below


def test_paired_difference_is_tighter_than_two_intervals_and_zero_against_itself() -> None:
    y, s = _random(200, 5, seed=4)
    worse = s + np.random.default_rng(0).normal(size=s.shape) * 0.05 - 0.03 * y
    samples = bootstrap_rankings(y, s, resamples=300).auc
    difference = samples.minus(bootstrap_rankings(y, worse, resamples=300).auc).summary()
    assert difference.macro.value == pytest.approx(macro_auc(y, s).value - macro_auc(y, worse).value, abs=1e-12)
    alone = samples.summary().macro
    assert difference.macro.high95 - difference.macro.low95 < alone.high95 - alone.low95
    zero = samples.minus(samples).summary().macro
    assert (zero.value, zero.low95, zero.high95) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="paired"):
        samples.minus(bootstrap_rankings(y, s, seed=2, resamples=300).auc)


def test_bootstrap_of_the_whole_test_fold_is_fast() -> None:
    random = np.random.default_rng(0)
    y = random.random((2198, 71)) < np.geomspace(0.002, 0.4, 71)
    start = time.process_time()
    bootstrap_rankings(y, random.random((2198, 71)), resamples=1000)
    assert time.process_time() - start < 12  # 2 s where this was written; the aim is 5 s on one core


def test_scores_must_be_finite_and_fit() -> None:
    y = np.array([[True], [False]])
    with pytest.raises(ValueError, match="NaN"):
        macro_auc(y, np.array([[np.nan], [0.1]]))
    with pytest.raises(ValueError, match="shape"):
        macro_auc(y, np.zeros((2, 2)))


def test_balanced_accuracy_is_what_others_call_auc_on_hard_labels() -> None:
    y, s = _random(300, 6, seed=6)
    hard = s > 0.6
    value = bootstrap_decisions(y, hard, NAMES, resamples=1).balanced_accuracy.summary().macro.value
    each = [balanced_accuracy_score(y[:, i], hard[:, i]) for i in range(6)]
    assert value == pytest.approx(np.mean(each), abs=1e-12)
    assert value == pytest.approx(roc_auc_score(y, hard, average="macro"), abs=1e-12)
    assert value < macro_auc(y, s).value - 0.02


NAMES = tuple("abcdef")


@pytest.mark.parametrize("decimals", [None, 1])
def test_average_precision_equals_scikit_learn_on_the_records_and_on_resamples(decimals: int | None) -> None:
    y, s = _random(80, 6, seed=7, decimals=decimals)
    samples = bootstrap_rankings(y, s, NAMES, resamples=20, seed=3).average_precision
    random = np.random.default_rng(3)
    for i in range(6):
        assert samples.point[i] == pytest.approx(average_precision_score(y[:, i], s[:, i]), abs=1e-12)
    for b in range(20):
        rows = random.integers(0, 80, size=80)
        for i in range(6):
            if y[rows, i].any():
                reference = average_precision_score(y[rows, i], s[rows, i])
                assert samples.replicates[b, i] == pytest.approx(reference, abs=1e-12)
            else:
                assert math.isnan(samples.replicates[b, i])


def test_average_precision_needs_its_bias_removed_because_copies_of_a_positive_lift_it() -> None:
    y, s = _random(150, 6, seed=3)
    samples = bootstrap_rankings(y, np.random.default_rng(0).random(s.shape), NAMES, resamples=300).average_precision
    plain, without_bias = samples.summary().macro, samples.summary(recentre=True).macro
    assert plain.value == without_bias.value
    assert (plain.low95 + plain.high95) / 2 > plain.value + 0.01
    assert without_bias.low95 < without_bias.value < without_bias.high95
    assert without_bias.high95 - without_bias.low95 == pytest.approx(plain.high95 - plain.low95)


def test_decision_metrics_equal_scikit_learn_on_the_records_and_on_resamples() -> None:
    y, s = _random(90, 6, seed=8)
    d = s > 0.55
    samples = bootstrap_decisions(y, d, NAMES, resamples=10, seed=4)
    random = np.random.default_rng(4)
    resamples = [np.arange(90), *(random.integers(0, 90, size=90) for _ in range(10))]
    for b, rows in enumerate(resamples):
        f1, precision, recall, balanced_accuracy, hamming, exact = (
            of.point if b == 0 else of.replicates[b - 1]
            for of in (
                samples.f1,
                samples.precision,
                samples.recall,
                samples.balanced_accuracy,
                samples.hamming_loss,
                samples.exact_match,
            )
        )
        assert [len(of) for of in (f1, precision, recall, balanced_accuracy, hamming, exact)] == [6, 6, 6, 6, 1, 1]
        for i in range(6):
            if 0 < y[rows, i].sum() < 90:
                assert f1[i] == pytest.approx(f1_score(y[rows, i], d[rows, i]), abs=1e-12)
                assert precision[i] == pytest.approx(
                    precision_score(y[rows, i], d[rows, i], zero_division=0), abs=1e-12
                )
                assert recall[i] == pytest.approx(recall_score(y[rows, i], d[rows, i]), abs=1e-12)
                reference = balanced_accuracy_score(y[rows, i], d[rows, i])
                assert balanced_accuracy[i] == pytest.approx(reference, abs=1e-12)
            else:
                assert math.isnan(f1[i])
        assert hamming[0] == pytest.approx(hamming_loss(y[rows], d[rows]), abs=1e-12)
        assert exact[0] == pytest.approx(accuracy_score(y[rows], d[rows]), abs=1e-12)


def test_brier_equals_scikit_learn_and_undefined_classes_are_left_out() -> None:
    y, s = _random(90, 6, seed=9)
    y[:, 0] = False
    samples = bootstrap_brier(y, s, NAMES, resamples=10, seed=1)
    rows = np.random.default_rng(1).integers(0, 90, size=90)
    for i in range(1, 6):
        assert samples.point[i] == pytest.approx(brier_score_loss(y[:, i], s[:, i]), abs=1e-12)
        assert samples.replicates[0, i] == pytest.approx(np.mean((s[rows, i] - y[rows, i]) ** 2), abs=1e-12)
    assert samples.summary().left_out == ("a",)


def test_calibration_error_and_reliability_by_hand() -> None:
    y = np.array([[1], [0], [0], [0]], bool)
    s = np.array([[0.9], [0.9], [0.02], [0.02]])
    # One bin has .9 twice and one positive: gap .4; the other .02 twice and none: gap .02; half of the records each.
    assert calibration_error(y, s)[0] == pytest.approx(0.5 * 0.4 + 0.5 * 0.02)
    low, high = reliability(y, s)
    assert low.predicted == pytest.approx(0.02) and (low.observed, low.count) == (0.0, 2)
    assert high.predicted == pytest.approx(0.9) and (high.observed, high.count) == (0.5, 2)
    assert reliability(y, np.ones((4, 1)))[0].count == 4  # a probability of exactly 1 has a bin


def _fmax_by_hand(y: np.ndarray, s: np.ndarray) -> float:
    best = 0.0
    for k in range(101):
        precisions, recalls = [], []
        for truth, probabilities in zip(y, s, strict=True):
            calls = [p >= k / 100 for p in probabilities]
            hits = sum(c and t for c, t in zip(calls, truth, strict=True))
            if any(calls):
                precisions.append(hits / sum(calls))
            recalls.append(hits / sum(truth))
        p, r = (float(np.mean(v)) if v else 0.0 for v in (precisions, recalls))
        best = max(best, 2 * p * r / (p + r) if p + r else 0.0)
    return best


def test_fmax_is_sample_centric_and_equals_the_definition() -> None:
    y, s = _random(25, 5, seed=10)
    y[:, 4] |= ~y.any(axis=1)
    samples = bootstrap_fmax(y, s, resamples=5, seed=2)
    assert samples.point[0] == pytest.approx(_fmax_by_hand(y, s), abs=1e-12)
    random = np.random.default_rng(2)
    for b in range(5):
        rows = random.integers(0, 25, size=25)
        assert samples.replicates[b, 0] == pytest.approx(_fmax_by_hand(y[rows], s[rows]), abs=1e-12)
    # One record is silent at every useful threshold: precision forgets it, recall does not.
    silent = bootstrap_fmax(np.array([[True], [True]]), np.array([[0.9], [0.0]]), resamples=1).point[0]
    assert silent == 1.0  # threshold 0 calls everything
    mixed = bootstrap_fmax(np.eye(2, dtype=bool), np.array([[0.9, 0.0], [0.0, 0.0]]), resamples=1).point[0]
    assert mixed == pytest.approx(2 / 3)


def test_fmax_where_precision_and_recall_are_low() -> None:
    y, s = np.arange(40)[None] < 5, np.where((np.arange(40) >= 3) & (np.arange(40) < 8), 0.9, 0.0)[None]
    assert bootstrap_fmax(y, s, resamples=1).point[0] == pytest.approx(0.4)  # 2 of 5 calls, 2 of 5 statements


def test_a_class_that_is_called_once_has_its_precision() -> None:
    decisions = bootstrap_decisions(np.array([[True], [False], [True]]), np.eye(3, 1, dtype=bool), "a", resamples=1)
    assert decisions.precision.point.tolist() == [1.0]


def test_all_intervals_of_the_whole_test_fold_are_fast() -> None:
    random = np.random.default_rng(0)
    y = random.random((2198, 71)) < np.geomspace(0.002, 0.4, 71)
    y[:, 70] |= ~y.any(axis=1)
    s = random.random((2198, 71))
    start = time.process_time()
    bootstrap_decisions(y, s > 0.5, CODES, resamples=1000)
    bootstrap_brier(y, s, CODES, resamples=1000)
    bootstrap_fmax(y, s, resamples=1000)
    assert time.process_time() - start < 5  # 0.6 s where this was written


def test_roc_points_lie_on_scikit_learns_curve() -> None:
    y, s = _random(60, 1, seed=11, decimals=1)
    y[:5] = True
    curve = roc_points(y[:, 0], s[:, 0])
    false, true, _ = roc_curve(y[:, 0], s[:, 0], drop_intermediate=False)
    assert np.allclose(curve.false_positive_rate, false, atol=1e-5)
    assert np.allclose(curve.true_positive_rate, true, atol=1e-5)
    y, s = _random(3000, 1, seed=12)
    many = roc_points(y[:, 0], s[:, 0])
    assert len(many.true_positive_rate) <= 80
    assert (many.true_positive_rate[-1], many.false_positive_rate[-1]) == (1.0, 1.0)


def test_curves_of_superclasses_come_first_then_common_rhythms() -> None:
    sets = [("IMI", "SR"), ("NORM", "SR"), ("AFIB",), ("SR", "NORM"), ("SR", "ABQRS")]
    # Sinus rhythm stands on most records: its absence is the finding, so it gets no curve. CD, HYP, STTC are not there.
    assert curve_classes(sets) == [
        ("superdiagnostic", "MI"),
        ("superdiagnostic", "NORM"),
        ("all", "AFIB"),
        ("all", "ABQRS"),
        ("all", "IMI"),
    ]


def test_a_statement_of_half_of_the_records_has_a_curve_and_a_commoner_one_has_none() -> None:
    half = [("AFIB",), ("AFIB",), ("LVH",), ("LVH",)]
    assert ("all", "AFIB") in curve_classes(half)
    assert ("all", "AFIB") not in curve_classes([*half, ("AFIB",)])


def _swapped_neighbours() -> tuple[list[tuple[str, ...]], np.ndarray, np.ndarray]:
    """Eight pages with AFIB, eight with AFLT; every AFIB page is scored as flutter, and called so."""
    sets: list[tuple[str, ...]] = [*[("AFIB",)] * 8, *[("AFLT",)] * 8, *[("SR",)] * 4]
    scores = np.full((20, 71), 0.1)
    scores[:16, CODES.index("AFLT")] = 0.8
    scores[8:16, CODES.index("AFIB")] = 0.3
    return sets, scores, scores > 0.5


def test_neighbours_that_are_swapped_are_found() -> None:
    pair = confusable_pairs(*_swapped_neighbours())[0]
    assert (pair.first, pair.second, pair.first_only, pair.second_only) == ("AFIB", "AFLT", 8, 8)
    assert pair.told_apart == 0.0
    assert (pair.first_swapped, pair.second_swapped) == (1.0, 0.0)
    sets, scores, _ = _swapped_neighbours()
    assert confusable_pairs(sets, scores)[0].first_swapped is None
    assert confusable_pairs(sets[4:], scores[4:]) == ()  # four pages with AFIB are too few
    assert confusable_pairs(sets[3:], scores[3:])[0].first_only == 5


def test_neighbours_are_told_apart_by_the_difference_of_their_log_odds() -> None:
    sets = [("AFIB",)] * 20 + [("AFLT",)] * 20
    scores = np.random.default_rng(2).beta(0.3, 0.3, (40, 71))  # many near 0 and 1
    scores[:2, CODES.index("AFIB")] = 0.0, 1.0
    ratios = [np.clip(scores[:, CODES.index(code)], 1e-7, 1 - 1e-7) for code in ("AFIB", "AFLT")]
    first, second = (p / (1 - p) for p in ratios)
    pair = next(p for p in confusable_pairs(sets, scores) if (p.first, p.second) == ("AFIB", "AFLT"))
    assert pair.told_apart == pytest.approx(roc_auc_score([s == ("AFIB",) for s in sets], first / second))


def test_the_worst_misses_are_found_by_rank() -> None:
    random = np.random.default_rng(0)
    sets = [("AFIB",) if i % 4 == 0 else ("SR",) for i in range(40)]
    y = np.array([[code in codes for code in CODES] for codes in sets])
    scores = 0.4 * random.random((40, 71)) + 0.5 * y
    scores[8, CODES.index("AFIB")] = 0.0  # a missed one
    scores[5, CODES.index("AFIB")] = 0.99  # a false alarm
    scores[12, CODES.index("SR")] = 0.98  # another
    miss, alarm = worst_misses(sets, scores, 6)  # no statement twice: the alarm for AFIB gives way
    assert (miss.row, miss.code, miss.present, miss.beyond) == (8, "AFIB", True, 1.0)
    assert (alarm.row, alarm.code, alarm.present, alarm.beyond) == (12, "SR", False, 1.0)
    assert worst_misses(sets, 0.5 * random.random((40, 71)) + 0.5 * y, 6) == []
    assert "false alarm for SR: scores higher than 100 %" in alarm.sentence()
    assert "missed AFIB: 100 %" in miss.sentence()


def test_shuffling_gives_everybody_another_page() -> None:
    for n in (2, 3, 50):
        pages = derangement(n, seed=n)
        assert sorted(pages) == list(range(n))
        assert not (pages == np.arange(n)).any()
    assert list(derangement(1)) == [0]


def test_chance_range_holds_shuffled_scores_and_not_real_ones() -> None:
    random = np.random.default_rng(1)
    sets = [tuple(c for c in ("AFIB", "LVH", "SR") if random.random() < 0.4) or ("NORM",) for _ in range(120)]
    view = task_view(sets, "all")
    y = np.array([[code in codes for code in CODES] for codes in sets])
    scores = 0.7 * random.random((120, 71)) + 0.3 * y
    low, high = chance_range(view, scores, Sampling(400))
    assert 0.38 < low < 0.48 < 0.52 < high < 0.62
    assert macro_auc(view.labels, view.scores(scores)).value > high
    inside = sum(
        low <= macro_auc(view.labels, view.scores(scores[random.permutation(120)])).value <= high for _ in range(60)
    )
    assert inside >= 50  # 57 expected


def test_chance_of_few_records_lies_around_a_half() -> None:
    view = task_view([("AFIB",)] * 4 + [("SR",)] * 8, "rhythm")
    low, high = chance_range(view, np.random.default_rng(2).random((12, 71)), Sampling(2000))
    assert low + high == pytest.approx(1, abs=0.04) and low < 0.25


def test_published_figures_have_the_three_digits_of_their_source() -> None:
    best = PUBLISHED_RESULTS[0]
    assert best.macro_auc == {
        "all": 0.925, "diagnostic": 0.937, "subdiagnostic": 0.929, "superdiagnostic": 0.928, "form": 0.896,
        "rhythm": 0.957,
    }  # fmt: skip
    assert best.half_width == {
        "all": 0.007, "diagnostic": 0.008, "subdiagnostic": 0.014, "superdiagnostic": 0.005, "form": 0.012,
        "rhythm": 0.019,
    }  # fmt: skip


# Signal-to-noise ratio of a digitized page

RATE_HZ = 500.0
WAVE = np.sin(np.arange(1000) / 25.0) + 0.3 * np.sin(np.arange(1000) / 4.0)


def test_signal_to_noise_of_a_perfect_estimate_is_the_most() -> None:
    assert signal_to_noise_db([(WAVE, WAVE)], RATE_HZ) == MOST_DB == 100.0


def test_signal_to_noise_ignores_an_offset_and_a_shift_of_the_estimate() -> None:
    assert signal_to_noise_db([(WAVE, WAVE + 5.0)], RATE_HZ) > 90.0
    late = np.concatenate([np.full(40, np.nan), WAVE[:-40]])
    whole = signal_to_noise_db([(WAVE, late)], RATE_HZ)
    reference = np.where(np.arange(WAVE.size) < WAVE.size - 40, WAVE, np.nan)
    assert signal_to_noise_db([(reference, late)], RATE_HZ) == MOST_DB
    assert 5.0 < whole < 20.0  # the last 40 samples are missing


@pytest.mark.parametrize("level", [0.1, 0.001])
def test_signal_to_noise_of_known_noise(level: float) -> None:
    noise = np.tile([level, -level], 500)
    power = np.mean((WAVE - WAVE.mean()) ** 2)
    expectation = 10.0 * np.log10(power / level**2)
    assert signal_to_noise_db([(WAVE, WAVE + noise)], RATE_HZ) == pytest.approx(expectation, abs=0.05)


def test_missing_samples_of_the_estimate_are_error() -> None:
    half = np.where(np.arange(WAVE.size) < 500, WAVE, np.nan)
    centred = WAVE - WAVE.mean()
    expectation = 10.0 * np.log10(np.sum(centred**2) / np.sum(centred[500:] ** 2))
    assert signal_to_noise_db([(WAVE, half)], RATE_HZ) == pytest.approx(expectation, abs=0.5)
    assert signal_to_noise_db([(WAVE, WAVE[:500])], RATE_HZ) == pytest.approx(expectation, abs=0.5)
    assert signal_to_noise_db([(WAVE, np.zeros(0))], RATE_HZ) == pytest.approx(0.0)


def test_missing_samples_of_the_reference_do_not_count() -> None:
    reference = np.where(np.arange(WAVE.size) < 500, WAVE, np.nan)
    estimate = np.where(np.arange(WAVE.size) < 500, WAVE, 99.0)
    assert signal_to_noise_db([(reference, estimate)], RATE_HZ) == MOST_DB
    assert np.isnan(signal_to_noise_db([(np.ones(100), np.ones(100))], RATE_HZ))


# Answers in words


def test_an_answer_is_compared_with_its_own_reference_before_that_of_its_record() -> None:
    answers = (
        Answer("1", "Findings?", "Sinus rhythm", ("SR",), reference="Sinus rhythm"),
        Answer("2", "Findings?", "Atrial fibrillation", ("AFIB",)),
    )
    records = LabelledRecords(("1", "2"), (("SR",), ("AFIB",)), "x", references=("none of it", "Atrial fibrillation"))
    metrics = answer_metrics(System("x", ("1", "2"), answers=answers), records, Sampling(20))
    assert metrics is not None and metrics.text is not None
    assert (metrics.text.pairs, metrics.text.rouge_l) == (2, 100.0)


def test_one_negative_record_is_enough_for_an_average_precision() -> None:
    y, s = np.array([[True], [True], [False]]), np.array([[0.9], [0.1], [0.5]])
    point = bootstrap_rankings(y, s, resamples=1).average_precision.point[0]
    assert point == pytest.approx(average_precision_score(y[:, 0], s[:, 0]), abs=1e-12)


def test_signal_to_noise_ignores_an_offset_of_the_reference() -> None:
    noisy = WAVE + np.tile([0.1, -0.1], 500)
    plain = signal_to_noise_db([(WAVE, noisy)], RATE_HZ)
    assert signal_to_noise_db([(WAVE + 5.0, noisy)], RATE_HZ) == pytest.approx(plain, abs=1e-6)


def test_as_many_resamples_are_drawn_as_were_asked_for() -> None:
    y, s = _random(20, 1, seed=0)
    assert bootstrap_rankings(y, s, resamples=300).auc.replicates.shape == (300, 1)


def test_answers_about_records_without_a_superclass_have_no_figure() -> None:
    metrics = ecgbench_metrics(["NORM"], [()])
    assert metrics.records == 0
    assert all(math.isnan(v) for v in (metrics.balanced_accuracy, metrics.f1, metrics.hamming_loss))


@pytest.mark.parametrize(("value", "words"), [(0.05, "0.05 macro-AUC"), (0.0496, "0.050 macro-AUC")])
def test_a_difference_below_a_twentieth_has_three_digits(value: float, words: str) -> None:
    interval = Interval(value, value, value, value, value)
    sentence = headline((), (Difference("a", "b", {"all": interval}),), "80 pages")
    assert sentence.startswith(f"a beats b by {words} (95 % interval")
