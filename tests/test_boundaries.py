"""Rules at their edges: each test here fails when a limit, a comparison or a rounding is another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_vlm import provenance
from ecg_vlm.pages import load_pages
from ecg_vlm.provenance import TRAINING_FILE, contamination
from eval.metrics.bootstrap import BootstrapSamples, calibration_error, reliability
from eval.metrics.calibration import Calibration, Curve
from eval.parser.parse import parse
from eval.types import LabelledRecords
from recipes.run_folder import read_run
from render.dataset.parquet import write_dataset
from render.dataset.rows import Options
from render.dialogues.quantities import consistent_quantities
from render.errors import InputError
from render.io import write_json
from render.measurements import AMPLITUDES, corrected_qt
from render.pages.layout import sample_layout
from render.pages.page import _span, draw
from render.record import LEADS, EcgRecord
from render.simulator.criteria import SimulatedBeat
from render.simulator.simulate import simulate
from render.sources.mimic import measurements
from render.sources.ptbxl import LABELS_DIFFER
from render.statements import STATEMENTS

_V01 = Path(__file__).with_name("v0_1")

# What may be judged


def test_other_records_of_a_patient_that_a_model_was_tuned_on_are_refused(tmp_path: Path) -> None:
    run = Path(shutil.copytree(_V01 / "run", tmp_path / "run"))
    tree = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**tree, "records": ["1", "2"], "patients": ["p1", "p2", ""]}))
    assert read_run(run).patients == ("p1", "p2", "")

    def records(*patients: str) -> LabelledRecords:
        return LabelledRecords(("8", "9"), (("SR",), ("SR",)), "d", folds=(9, 9), patients=patients)

    with pytest.raises(InputError, match="tuned on 0 of the records and 1 of the patients judged here"):
        contamination(str(run), records("p3", "p2"), force=False)
    assert contamination(str(run), records("p3", "p2"), force=True).startswith("WARNING: ")
    assert "none of the 2 records and 2 patients" in contamination(str(run), records("p3", ""), force=False)
    same = LabelledRecords(("2", "9"), (("SR",), ("SR",)), "d", folds=(9, 9), patients=("p8", "p9"))
    with pytest.raises(InputError, match="tuned on 1 of the records and 0 of the patients judged here"):
        contamination(str(run), same, force=False)


def test_nano_has_seen_no_real_record() -> None:
    records = LabelledRecords(("1", "sim-3-0"), (("SR",), ("SR",)), "d")
    assert contamination("nano", records.select([0]), force=False).endswith("on no real record; none is judged here")
    assert "not checked for the 1 simulated records" in contamination("nano", records, force=False)


def test_predictions_that_say_what_their_network_was_trained_on_are_checked(tmp_path: Path) -> None:
    scores = str(tmp_path / "scores.parquet")
    records = LabelledRecords(("1", "2"), (("SR",), ("SR",)), "d", folds=(9, 9), patients=("p1", "p2"))
    assert "not checked" in contamination(scores, records, force=False)
    write_json(tmp_path / TRAINING_FILE, {"record_ids": ["3", "4"], "patients": ["p3"]})
    assert "none of the 2 records and 1 patients" in contamination(scores, records, force=False)
    write_json(tmp_path / TRAINING_FILE, {"record_ids": ["3", "4"], "patients": ["p2"]})
    with pytest.raises(InputError, match="tuned on 0 of the records and 1 of the patients judged here"):
        contamination(scores, records, force=False)


def test_the_commit_of_a_report_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "ecg_vlm" / "provenance.py"))
    (tmp_path / "ecg_vlm").mkdir()
    assert provenance.commit() == "installed"
    (tmp_path / "a").write_text("1")
    identity = ("-c", "user.name=a", "-c", "user.email=a")
    for words in (("init",), ("add", "a"), (*identity, "commit", "-m", "a")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    commit = provenance.commit()
    assert re.fullmatch("[0-9a-f]{7,40}", commit)
    (tmp_path / "a").write_text("2")
    assert provenance.commit() == f"{commit}-dirty"


class _Records:
    """Records of one source under names that are given."""

    def __init__(self, name: str, ids: tuple[str, ...]) -> None:
        self.name, self.ids = name, ids

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int) -> EcgRecord:
        signal = simulate(i, ["SR"]).signal
        return EcgRecord(self.ids[i], signal, 500.0, self.name, statements=("SR",), fold=9)


@pytest.mark.parametrize(("source", "left_out"), [("ptbxl", True), ("mimic", False)])
def test_records_whose_labels_differ_between_versions_are_not_judged(
    source: str, left_out: bool, tmp_path: Path
) -> None:
    ids = ("1", *sorted(LABELS_DIFFER), "2")
    assert len(LABELS_DIFFER) == 8
    write_dataset(_Records(source, ids), tmp_path / "d", Options(width=400, tasks=("rhythm",)))
    assert load_pages(str(tmp_path / "d")).record_ids == (("1", "2") if left_out else ids)


# Metrics


def test_recentring_moves_the_mean_of_the_replicates_to_the_value() -> None:
    replicates = np.array([[0.5], [0.7], [0.9], [np.nan]])
    samples = BootstrapSamples(("a",), np.array([0.6]), replicates, 0)
    plain, without_bias = samples.summary().macro, samples.summary(recentre=True).macro
    assert (plain.low95, plain.high95) == pytest.approx((0.51, 0.89))
    assert (without_bias.low95, without_bias.high95) == pytest.approx((0.41, 0.79))
    assert without_bias.value == plain.value == 0.6


def _one_class(*pairs: tuple[bool, float]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = zip(*pairs, strict=True)
    return np.array(labels)[:, None], np.array(scores)[:, None]


@pytest.mark.parametrize(
    ("low", "high", "share_a_bin"),
    [(0.06, 0.0666, True), (0.06, 0.0667, False), (0.05, 0.0626, True), (0.934, 1.0, True), (0.933, 1.0, False)],
)
def test_the_calibration_error_has_fifteen_bins(low: float, high: float, share_a_bin: bool) -> None:
    labels, scores = _one_class((True, low), (False, high))
    together, apart = abs((1 - low) - high) / 2, ((1 - low) + high) / 2
    assert calibration_error(labels, scores)[0] == pytest.approx(together if share_a_bin else apart)


def test_the_reliability_curve_has_ten_bins() -> None:
    scores = np.arange(0.005, 1, 0.01)
    curve = reliability(scores[:, None] > 0.5, scores[:, None])
    assert [each.count for each in curve] == [10] * 10
    assert curve[0].predicted == pytest.approx(0.05)


def test_a_score_at_its_threshold_is_called() -> None:
    curve = Curve(1.0, 0.0, 0.25, 5)
    calibration = Calibration("s", "d", {}, (), (), {"AFIB": curve})
    column = list(STATEMENTS).index("AFIB")
    for score, is_called in ((0.25, True), (np.nextafter(0.25, 0), False), (np.nextafter(0.25, 1), True)):
        decisions = calibration.decide(np.full((1, 71), score))
        assert bool(decisions[0, column]) == is_called and decisions.sum() == is_called


# Pages


@pytest.mark.parametrize("hertz", [499.9999, 500.0])
def test_a_strip_of_two_and_a_half_seconds_has_all_its_samples(hertz: float) -> None:
    signal = np.tile(np.sin(np.arange(5000) / 40), (12, 1)).astype(np.float32)
    traces = draw(EcgRecord("a", signal, hertz, "wfdb"), layout="3x4").geometry.leads
    assert len(traces) == 12
    spans = sorted({(t.start_sample, t.end_sample) for t in traces})
    assert spans == [(0, 1250), (1250, 2500), (2500, 3750), (3750, 5000)]


@pytest.mark.parametrize(
    ("hertz", "seconds", "samples"),
    [(500.0, 2.5, 1250), (499.9999, 2.5, 1250), (500.0, 2.5004, 1251), (500.0, 0.0, 0), (100.0, 2.499, 250)],
)
def test_a_sample_belongs_to_the_strip_in_which_it_begins(hertz: float, seconds: float, samples: int) -> None:
    trace = sample_layout("3x4", np.random.default_rng(0)).traces[0]
    record = EcgRecord("a", np.zeros((12, 5000), np.float32), hertz, "wfdb")
    assert _span(replace(trace, start=0.0, end=seconds), record) == (0, samples)
    assert _span(replace(trace, start=0.0, end=99.0), record) == (0, 5000)


# Measurements


@pytest.mark.parametrize(("ms", "plausible"), [(29, False), (30, True), (400, True), (401, False)])
def test_the_machines_qrs_is_believed_from_30_to_400_ms(ms: int, plausible: bool) -> None:
    row = {"qrs_onset": "100", "qrs_end": str(100 + ms)}
    assert measurements(row) == ({"qrs_ms": ms} if plausible else {})


@pytest.mark.parametrize(
    ("key", "onset", "end", "low", "high"),
    [("pr_ms", "p_onset", "qrs_onset", 40, 600), ("qt_ms", "qrs_onset", "t_end", 100, 900)],
)
def test_the_machines_intervals_have_limits(key: str, onset: str, end: str, low: int, high: int) -> None:
    for ms, plausible in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
        assert measurements({onset: "1000", end: str(1000 + ms)}) == ({key: ms} if plausible else {})


@pytest.mark.parametrize(("mv", "credible"), [(0.099, False), (0.1, True), (8.0, True), (8.01, False)])
def test_amplitudes_are_asked_about_from_a_tenth_to_eight_millivolts(mv: float, credible: bool) -> None:
    assert len(AMPLITUDES) == 9
    for key in AMPLITUDES:
        assert consistent_quantities({key: mv}, ()) == ({key: mv} if credible else {})


@pytest.mark.parametrize(
    ("rate", "formulas"),
    [(49.9, ""), (50, "F"), (59.9, "F"), (60, "BF"), (90, "BF"), (90.1, "F"), (110, "F"), (110.1, "")],
)
def test_each_formula_of_qtc_has_the_rates_at_which_it_holds(rate: float, formulas: str) -> None:
    rr_s = 60 / rate
    values = {"B": ("qtc_bazett_ms", 400 / rr_s ** (1 / 2)), "F": ("qtc_fridericia_ms", 400 / rr_s ** (1 / 3))}
    assert corrected_qt({"rate_bpm": rate, "qt_ms": 400}) == pytest.approx(dict(values[name] for name in formulas))


# Clinical criteria, on samples of 2 ms from the onset of the QRS on


def _beat(levels: dict[str, dict[int, float]]) -> SimulatedBeat:
    """A beat with a QRS of 100 ms and a QT of 400, flat but for these samples of these leads."""
    leads = np.zeros((12, 202))
    for lead, samples in levels.items():
        for sample, level in samples.items():
            leads[LEADS.index(lead), sample] = level
    beat = SimulatedBeat([], 100, 400)
    beat.__dict__["leads"] = leads
    return beat


def _q(samples: int, depth: float = 0.1) -> dict[int, float]:
    return dict.fromkeys(range(samples), -depth) | {samples: 1.0}


@pytest.mark.parametrize(
    ("waves", "pathological"),
    [
        ({"II": _q(15), "III": _q(15)}, True),  # 30 ms
        ({"II": _q(14), "III": _q(15)}, False),  # 28 ms
        ({"II": _q(15), "III": _q(15, 0.099)}, False),
        ({"II": _q(15), "V4": _q(15)}, False),  # not contiguous
        ({"II": _q(15)}, False),
        ({"V2": _q(10), "V3": _q(10)}, True),  # 20 ms suffice there
        ({"V2": _q(9), "V3": _q(10)}, False),
        ({"V2": _q(10), "V3": _q(9)}, False),
        ({"aVR": _q(15), "aVL": _q(15)}, False),
    ],
)
def test_a_pathological_q_has_30_ms_in_two_contiguous_leads(waves: dict[str, dict[int, float]], pathological: bool):
    assert _beat(waves).pathological_q == pathological


def test_st_is_measured_60_ms_behind_the_j_point() -> None:
    j_point = 100 // 2 + 1
    beat = _beat({"V4": {j_point + 30: -0.2}, "V5": {j_point + 29: -0.2, j_point + 31: -0.2}})
    assert beat.st("V4") == -0.2 and beat.st("V5") == 0.0
    assert _beat({lead: {j_point + 30: -0.075} for lead in ("V4", "V5")}).st_depressed
    assert not _beat({lead: {j_point + 30: -0.0749} for lead in ("V4", "V5")}).st_depressed
    assert not _beat({lead: {j_point + 30: -0.2} for lead in ("V4", "V6")}).st_depressed


# The parser


def test_between_the_words_of_a_term_up_to_eight_words_may_stand() -> None:
    def present(count: int) -> tuple[str, ...]:
        return parse(f"Left {'very ' * count}ventricular hypertrophy").present

    assert present(0) == present(8) == ("LVH",) and present(9) == ()


def test_a_list_goes_on_over_three_words_that_are_no_term() -> None:
    def absent(count: int) -> tuple[str, ...]:
        return parse(f"No atrial fibrillation, {'xyz ' * count}LVH or LBBB").absent

    assert absent(3) == ("AFIB", "CLBBB", "LVH") and absent(4) == ("AFIB",)


@pytest.mark.parametrize(("gap", "is_gap"), [("__", True), ("_", False), ("....", True)])
def test_a_gap_in_a_question_has_two_lines_or_four_dots(gap: str, is_gap: bool) -> None:
    # In the gap's place "hypertrophy" completes the sentence; alone it names no statement.
    assert parse("hypertrophy", f"There is left ventricular {gap}.").present == (("LVH",) if is_gap else ())


def test_the_span_of_a_completion_is_its_place_in_the_answer() -> None:
    (finding,) = parse("  hypertrophy. ", "There is left ventricular ____, and no more.").findings
    assert finding.code == "LVH" and finding.span == (0, 13)
    (finding,) = parse("  LVH. ", "There is ____, and no more.").findings
    assert finding.span == (2, 5)


@pytest.mark.parametrize("question", ["The rhythm is ____LBBB.", "LBBB____ is there."])
def test_a_word_of_the_question_right_beside_its_gap_is_no_answer(question: str) -> None:
    assert parse(".", question).findings == ()


def test_the_first_word_behind_a_relative_clause_is_read() -> None:
    assert parse("A finding, which was missed before, LBBB.").present == ("CLBBB",)


def test_a_relative_clause_and_a_comma_at_the_end_are_read() -> None:
    assert parse("A finding, which was missed before, LBBB,").present == ("CLBBB",)


def test_a_no_without_a_comma_denies_nothing_behind_this_is() -> None:
    assert parse("No this is AF.").present == ("AFIB",)


def test_up_to_six_words_stand_between_a_finding_and_its_denial_and_leads_are_none() -> None:
    def absent(between: str) -> tuple[str, ...]:
        return parse(f"LVH {between} is not seen.").absent

    assert (
        absent("xyz " * 5) == absent("xyz " * 6) == absent("(V1) (V2) (V3) (V4)") == ("LVH",)
        and absent("xyz " * 7) == ()
    )


def test_what_is_ruled_out_behind_its_suspicion_is_absent() -> None:
    assert parse("Could be sinus tachycardia. Could be flutter. Sinus tachycardia is out.").absent == ("STACH",)


def test_a_wave_that_is_otherwise_normal_is_no_normal_ecg() -> None:
    assert parse("QRS is otherwise unremarkable.").present == ()
    assert parse("Otherwise unremarkable.").present == ("NORM",)


def test_a_word_that_negates_a_sign_is_no_gap_in_a_term() -> None:
    assert parse("Rhythm: Nonpathological Q in III.").present == ()


def test_what_was_supposed_is_denied_however_long_the_denial() -> None:
    for denial in ("It is not.", "The complex here in fact is not."):
        assert parse(f"If this were LBBB the QRS would be wide. {denial}").absent == ("CLBBB",)
    assert parse("If this were LBBB the QRS would be wide. It is.").absent == ()


def test_a_no_before_a_noun_answers_no_question() -> None:
    for answer, absent in (("No pauses.", ()), ("No.", ("AFIB",)), ("No it is not.", ("AFIB",))):
        assert parse(answer, "Is there atrial fibrillation?").absent == absent


def test_any_number_of_words_stands_between_i_do_not_think_and_what_is_not_thought() -> None:
    for words in ("", "on balance", "on balance in this tracing"):
        assert parse(f"I don't think {words} it is AF.").absent == ("AFIB",)


def test_yes_to_an_either_or_states_neither_and_to_an_and_both() -> None:
    assert parse("Yes.", "Atrial fibrillation and LVH?").present == ("AFIB", "LVH")
    assert parse("Yes.", "Atrial fibrillation or LVH?").present == ()


def test_boxes_count_whether_ticked_or_empty_ones_stand_alone() -> None:
    assert parse("Rhythm: ☐ sinus ☐ AF").absent == ("AFIB", "SR")
    assert parse("Rhythm: ☑ sinus ☑ AF").present == ("AFIB", "SR")
