"""From a model or a file of scores to a report, and back: runs, controls, kept folders, CSV files, comparisons."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ecg_vlm import control_pages, evaluation, nodes
from ecg_vlm.evaluation import calibrate, evaluate, rejudge
from ecg_vlm.pages import Pages, load_pages
from ecg_vlm.reader import Reader
from eval.metrics.answers import ecgbench_metrics, rouge_l, substring_labels, text_metrics
from eval.parser.parse import parse
from eval.prediction_files import read_predictions
from eval.report.compare import compare_reports, comparison_text, write_comparison
from eval.storage import (
    BatchResults,
    read_answers,
    read_evaluation,
    read_scores_file,
    require_new_report,
    system_folder,
    write_scores,
)
from recipes import inference
from render.dataset.parquet import write_dataset
from render.dataset.rows import Options, make_picture
from render.dialogues.wording import OPEN_QUESTION
from render.errors import InputError
from render.io import exclusive
from render.sources.registry import open_source
from render.statements import STATEMENTS

CODES = tuple(STATEMENTS)
N = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "d"
    source = open_source("simulated:AFIB,SR", seed=4, limit=N)
    write_dataset(source, out, Options(width=400, closed=2, seed=4))
    return out


@pytest.fixture(scope="module")
def pages(folder: Path) -> Pages:
    return load_pages(str(folder))


class FakeReader:
    """Scores the pages of the data set almost right, and any other page with 0.5."""

    name = "a fake"
    batch_size = 5

    def __init__(self, pages: Pages) -> None:
        random = np.random.default_rng(0)
        self.scores = {
            _digest(row["image"]): 0.6 * random.random(71)
            + 0.4 * np.array([code in row["statements"] for code in CODES])
            for row in pages.rows
        }
        self.sizes: list[tuple[int, int]] = []

    def prefill(self, images: list[Image.Image]) -> list[Image.Image]:
        return images

    def score_many(self, images: list[Image.Image]) -> np.ndarray:
        self.sizes += [image.size for image in images]
        return np.array([self.scores.get(_digest(image), np.full(71, 0.5)) for image in images])

    def ask_many(self, images: list[Image.Image], question: str, *, max_new_tokens: int) -> list[str]:
        return ["Atrial fibrillation. No left ventricular hypertrophy."] * len(images)


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


@pytest.fixture
def model(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    fake = FakeReader(pages)
    monkeypatch.setattr(evaluation, "_load", lambda spec, loading: fake)
    monkeypatch.setattr(evaluation, "_device", lambda reader: "none")
    return fake


def _scores_file(path: Path, pages: Pages, seed: int = 1) -> Path:
    y = np.array([[code in codes for code in CODES] for codes in pages.labelled_records().statements])
    write_scores(path, pages.record_ids, 0.8 * np.random.default_rng(seed).random(y.shape) + 0.2 * y)
    return path


class Threads:
    """A cluster of threads, which stops at the task with the number `last`."""

    capacity, steps = 4, 0

    def __init__(self, last: int | None = None) -> None:
        self.numbers: list[int] = []
        self._last, self._threads = last, ThreadPoolExecutor(self.capacity)

    def pool(self, function: Callable[..., Any]) -> Threads:
        self._function = function
        return self

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        return self._threads.submit(self._function, *task, lambda: None)

    def finish(self, future: Future[Any]) -> Any:
        self.numbers.append(future.result()[0])
        if self.numbers[-1] == self._last:
            raise KeyboardInterrupt
        return future.result()

    def close(self) -> None:
        """They end with the test."""


def test_batches_may_end_in_any_order_and_are_stored_in_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_facts_on_node", lambda *_: (0, 3, "cpu"))
    monkeypatch.setattr(nodes, "_reader_of_process", lambda *_: None)
    file, moment = tmp_path / "batches.jsonl", threading.Event()

    def judge(cluster: Threads, slow_row: int, count: int, add: int = 0) -> list[int]:
        """What is stored of each batch of three rows: its first row, and `add`."""

        def work(_: Any, images: Any) -> dict[str, Any]:
            moment.wait(0.3 * (images[0] == slow_row))
            return {"x": images[0] + add}

        reader = nodes.ReaderOnNodes(cluster, "model", {})
        cluster.numbers.clear()
        results = evaluation._results(reader, work, list, count, BatchResults(file), lambda *_: None)
        return [result["x"] for _, result in results]

    with pytest.raises(KeyboardInterrupt):
        judge(Threads(last=3), slow_row=0, count=30)
    assert not file.exists()  # the others wait for the first
    with pytest.raises(KeyboardInterrupt):
        judge(Threads(last=8), slow_row=15, count=30)
    stored = [json.loads(line)["x"] for line in file.read_text().splitlines()]
    assert stored == [0, 3, 6, 9, 12][: len(stored)] and stored
    cluster = Threads()
    assert judge(cluster, slow_row=15, count=30, add=100) == [*stored, *range(100 + 3 * len(stored), 130, 3)]
    assert sorted(cluster.numbers) == list(range(10 - len(stored)))
    assert judge(Threads(), slow_row=0, count=2, add=200) == [200]  # a batch of another size


# --- evaluate, and again without a model


def test_options_of_loading_are_for_every_model_but_a_nano_for_comparison(
    model: FakeReader, pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, object]] = []

    def note(spec: str, loading: object) -> FakeReader:
        calls.append((spec, loading))
        return model

    monkeypatch.setattr(evaluation, "_load", note)
    options = {"quantization": "nf4", "batch": 2}
    report = evaluate("fake", pages, tmp_path / "a", compare=["other", "nano"], loading=options)
    assert report.meta["loading"] == options  # 4-bit figures are not those of the model as it was tuned
    assert calls == [("fake", options), ("other", options), ("nano", None)]
    evaluate("nano", pages, tmp_path / "b", loading=options)
    assert calls[-1] == ("nano", options)

    def interrupt(spec: str, loading: object) -> FakeReader:
        if spec == "other":
            raise KeyboardInterrupt
        return model

    monkeypatch.setattr(evaluation, "_load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate("fake", pages, tmp_path / "c", compare=["other"], loading=options)
    with pytest.raises(InputError, match="was started with loading"):
        evaluate("fake", pages, tmp_path / "c", compare=["other"], resume=True)


def test_a_report_is_made_again_from_its_folder_alone(model: FakeReader, pages: Pages, tmp_path: Path) -> None:
    other = _scores_file(tmp_path / "cnn" / "scores.parquet", pages)
    first = evaluate("fake", pages, tmp_path / "a", compare=[str(other)], controls=True)
    assert {c.name for c in first.controls} == {"blank", "shuffled", "copied"}
    assert first.controls[0].macro_auc["all"].value == 0.5
    assert len(model.sizes) == 4 * N
    again = rejudge(tmp_path / "a", tmp_path / "b")
    assert again.to_json() == first.to_json()
    assert rejudge(tmp_path / "b", tmp_path / "c").to_json() == first.to_json()  # what was made again can be made again
    for name in ("scores.parquet", "answers.jsonl", "compared/cnn/scores.parquet", "controls/blank/scores.parquet"):
        assert (tmp_path / "b" / name).is_file()
    assert first.systems[0].cost["pages"] == N
    assert "not checked" in first.checked[0]
    hard = first.systems[0].hard
    assert hard is not None and hard.text is not None and hard.text.pairs == N  # simulated pages carry a report


def _stop_after(pages_seen: int) -> Callable[[str, int, int], None]:
    counts = 0

    def show(what: str, count: int, total: int) -> None:
        nonlocal counts
        counts += 1
        if counts == pages_seen:
            raise KeyboardInterrupt

    return show


def test_an_evaluation_that_is_stopped_goes_on_behind_its_last_batch(
    model: FakeReader, pages: Pages, tmp_path: Path
) -> None:
    request: dict[str, Any] = {"compare": ["other"], "controls": True}
    whole = evaluate("fake", pages, tmp_path / "whole", **request).to_json()
    looks = len(model.sizes)
    for batches in range(1, 11):
        model.sizes.clear()
        half = tmp_path / f"stopped after {batches}"
        with pytest.raises(KeyboardInterrupt):
            evaluate("fake", pages, half, **request, show=_stop_after(batches))
        assert not (half / "report.html").exists()
        with (half / ".unfinished" / "system 0.jsonl").open("a") as file:
            file.write('{"rows": 5, "scores": [[0.')  # killed while it wrote
        again = evaluate("fake", pages, half, **request, resume=True).to_json()
        assert len(model.sizes) == looks, f"a page is looked at twice: {half}"
        assert _without_costs(again) == _without_costs(whole), half
        names = [sorted(p.relative_to(f) for p in f.rglob("*")) for f in (tmp_path / "whole", half)]
        assert names[0] == names[1] and len(names[0]) > 10
        for scores in ("scores.parquet", "compared/other/scores.parquet", "controls/shuffled/scores.parquet"):
            first, second = (read_scores_file(folder / scores) for folder in (tmp_path / "whole", half))
            assert np.array_equal(first.scores, second.scores), half


def _without_costs(text: str) -> dict[str, Any]:
    report = json.loads(text)
    return {**report, "systems": [{**system, "cost": None} for system in report["systems"]]}


def test_another_evaluation_is_not_resumed(model: FakeReader, pages: Pages, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        evaluate("fake", pages, out, show=_stop_after(2))
    changes: list[dict[str, Any]] = [{"compare": ["other"]}, {"controls": True}, {"seed": 1}]
    for change in changes:
        with pytest.raises(InputError, match="was started with"):
            evaluate("fake", pages, out, **change, resume=True)
    with pytest.raises(InputError, match=r"was started with pages="):
        evaluate("fake", load_pages(str(folder), limit=N - 1), out, resume=True)
    with exclusive(out), pytest.raises(InputError, match="another ecg-vlm is writing there"):
        evaluate("fake", pages, out, resume=True)
    with pytest.raises(InputError, match="an evaluation was interrupted there; go on with --resume"):
        require_new_report(out, resume=False)
    require_new_report(out, resume=True)
    evaluate("fake", pages, out, resume=True)


def test_batches_of_another_size_are_computed_again(model: FakeReader, pages: Pages, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate("fake", pages, tmp_path, show=_stop_after(2))
    model.batch_size = 7
    evaluate("fake", pages, tmp_path, resume=True)
    assert len(read_scores_file(tmp_path / "scores.parquet").record_ids) == N


@pytest.mark.parametrize("name", ["..", "../..", "a/b", ".", "", "1-nano", "x" * 300, "b:c", "\x1b[31m", "a\0b"])
def test_a_system_of_any_name_has_its_own_folder_below_the_report(name: str, tmp_path: Path) -> None:
    folder = system_folder(tmp_path, name, 1)
    assert folder.parent == tmp_path / "compared" and folder.name not in (".", "..") and folder.name.startswith("1-")
    folder.mkdir(parents=True)
    assert system_folder(tmp_path, name, 2) != folder
    assert system_folder(tmp_path, "nano, untuned", 3).name == "nano, untuned"


def test_answers_alone_can_be_judged(model: FakeReader, pages: Pages, tmp_path: Path) -> None:
    first = evaluate("fake", pages, tmp_path / "a")
    (tmp_path / "a" / "scores.parquet").rename(tmp_path / "elsewhere.parquet")
    alone = rejudge(tmp_path / "a" / "answers.jsonl", tmp_path / "b")
    assert alone.systems[0].macro_auc is None
    assert repr(alone.systems[0].hard) == repr(first.systems[0].hard)  # NaN equals itself there
    line = json.loads((tmp_path / "a" / "answers.jsonl").read_text(encoding="utf-8").splitlines()[0])
    del line["statements"]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "answers.jsonl").write_text(json.dumps(line))
    with pytest.raises(InputError, match="has no field 'statements'"):
        read_evaluation(tmp_path / "x" / "answers.jsonl")


def test_controls_draw_the_same_records_in_another_way(model: FakeReader, pages: Pages, tmp_path: Path) -> None:
    report = evaluate("fake", pages, tmp_path / "a", controls=True, controls_source="simulated:AFIB,SR")
    by_name = {c.name: c for c in report.controls}
    assert by_name["layout"].detail == "6x2 for 3x4+1R"
    assert by_name["style"].detail == "photo for clean"
    assert by_name["layout"].macro_auc["all"].value == 0.5  # the fake knows the pages, not the hearts
    with pytest.raises(InputError, match=f"lacks {N} of the pages' records"):
        evaluate("fake", pages, tmp_path / "b", controls=True, controls_source=f"wfdb:{_wfdb(tmp_path)}")
    with pytest.raises(InputError, match="add --controls"):
        evaluate("fake", pages, tmp_path / "b", controls_source="simulated")


def test_a_page_drawn_again_without_a_change_is_the_page_of_the_data_set(pages: Pages) -> None:
    options, size = control_pages._manifest(Path(pages.folder))
    read = control_pages._record_reader(pages, "simulated:AFIB,SR", options.seed, size)
    later = Pages(pages.rows.select([5, 3]), pages.folder, (5, 3))
    assert (
        control_pages._record_reader(later, "simulated:AFIB,SR", options.seed, size)(0).record_id == pages.record_ids[5]
    )
    for row in (0, 7):
        picture, _ = make_picture(read(row), pages.places[row], options)
        assert _digest(Image.open(io.BytesIO(picture.data))) == _digest(pages.rows[row]["image"])


def _wfdb(folder: Path) -> Path:
    (folder / "w").mkdir()
    (folder / "w" / "r.hea").write_text(
        "r 12 100 1000\n"
        + "".join(
            f"r.dat 16 1000/mV 16 0 0 0 0 {n}\n"
            for n in ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
        )
    )
    (folder / "w" / "r.dat").write_bytes(np.zeros(12000, "<i2").tobytes())
    return folder / "w"


def test_calibration_is_frozen_beside_the_scores_and_refused_on_its_own_records(pages: Pages, tmp_path: Path) -> None:
    file = _scores_file(tmp_path / "cnn" / "scores.parquet", pages)
    half = Pages(pages.rows.select(range(6)), pages.folder, tuple(range(6)))
    rest = Pages(pages.rows.select(range(6, N)), pages.folder, tuple(range(6, N)))
    path, calibration = calibrate(str(file), half)
    assert path == tmp_path / "cnn" / "calibration.json"
    assert len(calibration.record_ids) == 6
    with pytest.raises(InputError, match=r"calibration\.json: already exists"):
        calibrate(str(file), rest)
    report = evaluate(str(file), rest, tmp_path / "a")
    assert report.systems[0].calibration is not None and not report.warnings
    assert rejudge(tmp_path / "a", tmp_path / "b").to_json() == report.to_json()
    with pytest.raises(InputError, match="fitted on 6 of the records"):
        evaluate(str(file), pages, tmp_path / "c")
    report = evaluate(str(file), pages, tmp_path / "c", force=True)
    assert "its calibrated figures are too good" in report.warnings[0]
    with pytest.raises(InputError, match="name a file with --out"):
        calibrate("some/hub-id", half)
    with pytest.raises(InputError, match="cannot be read"):
        evaluate(str(file), rest, tmp_path / "d", calibration=tmp_path / "none.json")
    with pytest.raises(InputError, match="need the model itself"):
        evaluate(str(file), rest, tmp_path / "d", controls=True)
    assert not (tmp_path / "d").exists()


def test_a_run_is_refused_on_what_it_was_tuned_on(model: FakeReader, pages: Pages, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    facts = json.loads((Path(__file__).parent / "v0_1/run/run.json").read_text(encoding="utf-8"))
    facts |= {"records": ["other", pages.record_ids[0]], "patients": ["p", ""]}
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="tuned on 1 of the records and 0 of the patients"):
        evaluate(str(run), pages, tmp_path / "a")
    report = evaluate(str(run), pages, tmp_path / "a", force=True)
    assert report.checked[0].startswith("WARNING")
    (run / "run.json").write_text(json.dumps({**facts, "records": ["other"]}))
    clean = evaluate(str(run), pages, tmp_path / "b")
    assert "none of the 1 records and 1 patients it was tuned on is judged here" in clean.checked[0]


def test_scores_and_answers_of_a_page_come_from_one_look(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader.load("nano")
    reader.batch_size = 2
    few = Pages(pages.rows.select(range(3)), pages.folder, (0, 1, 2))
    batches = [few.rows[i : i + 2]["image"] for i in (0, 2)]
    scores = np.concatenate([reader.score_many(images) for images in batches])
    texts = [text for images in batches for text in reader.ask_many(images, OPEN_QUESTION, max_new_tokens=96)]
    sizes: list[int] = []
    prefill = inference.prefill

    def count(model: Any, processor: Any, images: Any) -> inference.Prefill:
        sizes.append(len(images))
        return prefill(model, processor, images)

    monkeypatch.setattr(inference, "prefill", count)
    system = evaluation.evaluate_model(reader, "nano", few, few.labelled_records())
    assert sizes == [2, 1]  # each page once
    assert system.scores is not None and np.array_equal(system.scores, scores)
    assert [answer.answer for answer in system.answers] == texts


def test_evaluate_is_a_short_walk(model: FakeReader, pages: Pages, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("walk", Path(__file__).parents[1] / "benchmarks" / "walk.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    code, walk = module.walk(["evaluate", "fake", "--data", pages.folder, "--out", str(tmp_path / "r")])
    assert code == 0
    assert len(walk.opened_files) <= 18, walk.lines()
    assert len(walk.climbs) <= 2, walk.climbs


# --- predictions of other people


Edit = Callable[[list[list[str]]], list[list[str]]]


def _csv(path: Path, pages: Pages, edit: Edit = lambda rows: rows) -> Path:
    random = np.random.default_rng(2)
    rows = [["record_id", *reversed(CODES)]]
    rows += [[record, *(f"{v:.6f}" for v in random.random(71))] for record in pages.record_ids]
    path.write_text("\n".join(",".join(row) for row in edit(rows)) + "\n", encoding="utf-8")
    return path


def test_a_csv_is_judged_like_a_parquet_file(pages: Pages, tmp_path: Path) -> None:
    file = _csv(tmp_path / "theirs.csv", pages)
    predictions = read_predictions(file)
    assert predictions.scores is not None
    write_scores(tmp_path / "p" / "scores.parquet", predictions.record_ids, predictions.scores)
    one, other = (
        evaluate(str(file), pages, tmp_path / "a"),
        evaluate(str(tmp_path / "p" / "scores.parquet"), pages, tmp_path / "b"),
    )
    assert one.systems[0].name == "theirs"
    assert one.systems[0].macro_auc == other.systems[0].macro_auc
    assert read_scores_file(tmp_path / "a" / "scores.parquet").records is not None


def _set(row: int, column: int, text: str) -> Edit:
    def edit(rows: list[list[str]]) -> list[list[str]]:
        rows[row][column] = text
        return rows

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set(0, 0, "number"), "column record_id missing (or ecg_id, id); it has number, WPW"),
        (_set(0, 2, "WPW"), "column 'WPW' occurs twice"),
        (_set(3, 1, "high"), "line 4, column WPW: 'high' is not a number"),
        (_set(3, 1, "1.2"), "column WPW: 1.2 is not a probability"),
        (_set(3, 1, "nan"), "column WPW: nan is not a probability"),
        (lambda rows: [[row[0], row[0]] for row in rows], "occurs twice"),
        (lambda rows: [[row[0], f"x{row[1]}"] for row in rows], "no column is a statement code"),
        (lambda rows: [*rows, rows[1]], "occurs twice"),
        (lambda rows: [*rows, ["x"]], f"line {N + 2} has 1 fields, the header 72"),
        (lambda rows: rows[:1], "contains no record"),
        (lambda rows: [], "column record_id missing (or ecg_id, id); it has no column"),
    ],
)
def test_a_wrong_csv_is_one_line(pages: Pages, tmp_path: Path, edit: Edit, message: str) -> None:
    file = _csv(tmp_path / "theirs.csv", pages, edit)
    with pytest.raises(InputError) as error:
        read_predictions(file)
    assert message in str(error.value) and str(file) in str(error.value)


def test_a_csv_that_lacks_a_page_is_refused(pages: Pages, tmp_path: Path) -> None:
    file = _csv(tmp_path / "theirs.csv", pages, lambda rows: rows[:-2])
    with pytest.raises(InputError, match="no scores for 2 of the held-out pages"):
        evaluate(str(file), pages, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(InputError, match="no scores for 2 of the held-out pages"):  # before the model looks at a page
        evaluate("fake", pages, tmp_path / "b", compare=[str(file)])
    assert not (tmp_path / "b").exists()


# --- reports side by side


def test_reports_on_the_same_records_are_compared_in_pairs(pages: Pages, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        evaluate(str(_scores_file(tmp_path / "s" / name / "scores.parquet", pages, seed)), pages, tmp_path / name)
    same = compare_reports([tmp_path / "one", tmp_path / "two" / "report.json"], resamples=50)
    assert "All reports judged the same records" in same.verdict
    (pair,) = same.pairs
    values = [row.macro_auc["all"].value for row in same.rows]
    assert pair.macro_auc["all"].value == pytest.approx(values[0] - values[1], abs=1e-12)
    part = Pages(pages.rows.select(range(8)), pages.folder, tuple(range(8)))
    evaluate(str(tmp_path / "s" / "one" / "scores.parquet"), part, tmp_path / "three")
    differ = compare_reports([tmp_path / "one", tmp_path / "three"])
    assert "judged different records (one; three)" in differ.verdict
    assert differ.pairs == ()
    assert differ.verdict in comparison_text(differ)
    data = json.loads((tmp_path / "two" / "report.json").read_text())
    data["systems"][0]["name"] = "<script>alert(1)</script>"
    (tmp_path / "two" / "report.json").write_text(json.dumps(data))
    write_comparison(tmp_path / "c.html", compare_reports([tmp_path / "one", tmp_path / "two"], resamples=20))
    assert '<table class="tasks">' in (tmp_path / "c.html").read_text()  # on a phone each cell has its column's name
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;" in html and "http:" not in html and "src=" not in html
    with pytest.raises(InputError, match="at least two"):
        compare_reports([tmp_path / "one"])
    with pytest.raises(InputError, match="occurs twice"):
        compare_reports([tmp_path / "one", tmp_path / "one"])
    with pytest.raises(InputError, match="cannot be read"):
        compare_reports([tmp_path / "one", tmp_path / "nowhere"])


# --- ECGBench style, text


def test_ecgbench_style_goes_wrong_where_the_parser_does_not() -> None:
    assert substring_labels("ABNORMAL ECG") == ("NORM",)
    assert substring_labels("LAFB", ["AF", "LAFB"]) == ("AF", "LAFB")
    assert substring_labels("No sign of MI.") == ("MI",)
    assert substring_labels("Normal ECG.") == ()
    assert "NORM" not in parse("ABNORMAL ECG").present
    assert parse("LAFB").present == ("LAFB",)
    assert parse("No inferior myocardial infarction.").absent == ("IMI",)
    # Truth: none is normal. Its scorer finds "NORM" in every one of the first two and never sees the third's finding.
    answers = ["ABNORMAL. Inferior MI.", "ABNORMAL. LVH.", "Normal ECG."]
    truth = [("IMI",), ("LVH",), ("NORM",)]
    wrong = ecgbench_metrics(answers, truth)
    assert wrong.records == 3
    # MI 1.0, NORM 0.0 (twice called wrongly, once missed), HYP 0.5 (never called); CD and STTC are undefined.
    assert wrong.balanced_accuracy == pytest.approx((1.0 + 0.0 + 0.5) / 3)


def test_text_metrics_reward_shared_words_and_skip_what_has_no_reference() -> None:
    reference = "Sinusrhythmus. Überdrehter Linkstyp, sonst normales EKG."
    same = text_metrics([reference, "x"], [reference, ""])
    assert same is not None and same.pairs == 1
    assert (round(same.bleu), round(same.chrf), round(same.rouge_l)) == (100, 100, 100)
    other = text_metrics(["Vorhofflimmern."], [reference])
    assert other is not None and other.bleu < 1 and other.rouge_l == 0
    assert text_metrics([f"<think>LVH?</think>\n{reference}"], [reference]) == text_metrics([reference], [reference])
    umlaut = text_metrics(["überdrehter"], ["überdrehter"])
    assert umlaut is not None and umlaut.rouge_l == 100
    assert text_metrics(["x"], [""]) is None


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("Sinus rhythm, no ST changes.", "sinus rhythm no st changes", 1.0),
        ("atrial fibrillation", "sinus rhythm", 0.0),
        ("", "sinus rhythm", 0.0),
        ("the police killed the gunman", "police kill the gunman", 2 / 3),  # 3 of 5 and 3 of 4 words: 2 * 3 / (5 + 4)
        ("a b c d", "d c b a", 0.25),
        ("left axis, left axis", "left axis", 2 / 3),
        ("QTc 440 ms", "QTc: 440ms", 0.4),
    ],
)
def test_rouge_l_by_hand(answer: str, reference: str, value: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(value, abs=1e-15)


def test_rouge_l_equals_the_package() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    random = np.random.default_rng(0)
    words = [
        "sinus",
        "Rhythm,",
        "no",
        "ST-T",
        "changes.",
        "left",
        "axis",
        "1st",
        "degree",
        "AV",
        "block;",
        "(old)",
        "-",
    ]
    texts = [" ".join(random.choice(words, random.integers(0, 25))) for _ in range(400)]
    for answer, reference in zip(texts[::2], texts[1::2], strict=True):
        assert rouge_l(answer, reference) == scorer.score(reference, answer)["rougeL"].fmeasure


# --- whatever the files contain


junk = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def _one_line(call: Callable[[], object]) -> None:
    try:
        call()
    except InputError as error:
        assert "\n" not in str(error)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_csv_is_read_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.csv"
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(st.binary(max_size=200)))
    else:
        header = ["record_id", *CODES]
        cells = st.sampled_from(["0.5", "1", "", "x", '"', "nan", "inf", "0,5", "\x00", "１", "1e400", "r1"])
        rows = [header, *data.draw(st.lists(st.lists(cells, min_size=71, max_size=73), max_size=3))]
        path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    _one_line(lambda: read_predictions(path))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_answers_file_is_read_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "answers.jsonl"
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(st.binary(max_size=200)))
    else:
        row: dict[str, Any] = {
            "record_id": "a",
            "question": "q",
            "answer": "AFIB",
            "statements": ["SR"],
            "parsed": {"present": ["SR"]},
        }
        row[data.draw(st.sampled_from([*row, "decoding", "reference"]))] = data.draw(junk)
        path.write_text(json.dumps(row), encoding="utf-8")
    _one_line(lambda: read_answers(path))
    _one_line(lambda: read_evaluation(path))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_report_json_is_read_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    figures = dict.fromkeys(("value", "low90", "high90", "low95", "high95"), 0.5)
    good = {
        "format": 2,
        "records": 3,
        "records_sha256": "x",
        "systems": [{"name": "s", "macro_auc": {"all": figures}}],
        "checked": ["fine"],
        "meta": {},
        "title": "t",
    }
    for name in ("a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "report.json").write_text(json.dumps(good))
    kind = data.draw(st.integers(0, 2))
    bad = tmp_path / "b" / "report.json"
    if kind == 0:
        bad.write_bytes(data.draw(st.binary(max_size=80)))
    elif kind == 1:
        bad.write_text(json.dumps({**good, data.draw(st.sampled_from(sorted(good))): data.draw(junk)}))
    else:
        bad.write_text(json.dumps({**good, "systems": [{"name": "s", "macro_auc": {"all": data.draw(junk)}}]}))
    _one_line(lambda: comparison_text(compare_reports([tmp_path / "a", tmp_path / "b"])))
