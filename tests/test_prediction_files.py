"""Predictions and answers as other people have them, judged on labels without pages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_vlm.cli import main
from ecg_vlm.evaluation import judge_files
from ecg_vlm.pages import records_for, source_labels
from eval.answer_files import answer_rows, matching_ids
from eval.metrics.judge import Report
from eval.parser.parse import parse
from eval.prediction_files import read_predictions
from eval.storage import read_evaluation
from eval.types import LabelledRecords, task_view
from render.errors import InputError
from render.sources.snomed import diagnoses_in
from render.sources.wfdb_folder import WfdbFolder
from render.statements import STATEMENTS, task_classes

CODES = tuple(STATEMENTS)
SUPERCLASSES = task_classes("superdiagnostic")
N = 60
IDS = tuple(str(i) for i in range(1, N + 1))


def _labels() -> tuple[tuple[str, ...], ...]:
    has = np.random.default_rng(0).random((N, 71)) < 0.15
    has[:, CODES.index("NORM")] |= ~has.any(axis=1)
    return tuple(tuple(np.array(CODES)[row]) for row in has)


RECORDS = LabelledRecords(IDS, _labels(), "made-up records", noun="records")


def _logits(task: str, seed: int = 1) -> np.ndarray:
    """(N, c) logits that know something about the labels."""
    view = task_view(RECORDS.statements, task)
    assert view.has_label.all() or task != "all"
    labels = np.zeros((N, len(view.classes)))
    labels[view.has_label] = view.labels
    return np.random.default_rng(seed).normal(-2, 1, labels.shape) + 2 * labels


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _csv(path: Path, columns: Sequence[str], values: np.ndarray, ids: Sequence[str] = IDS, name: str = "id") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([name, *columns])
        table.writerows([record, *row] for record, row in zip(ids, values.tolist(), strict=True))
    return path


def _judge(out: Path, *files: Path) -> Report:
    return judge_files([str(file) for file in files], RECORDS, out)


def _ptbxl(folder: Path) -> Path:
    """A PTB-XL folder without any signal: its labels alone."""
    folder.mkdir()
    columns = (
        "ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "validated_by_human", "strat_fold",
        "filename_lr", "filename_hr",
    )  # fmt: skip
    with (folder / "ptbxl_database.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for i, (record, codes) in enumerate(zip(IDS, RECORDS.statements, strict=True)):
            scp = str(dict.fromkeys(map(str, codes), 100.0))
            table.writerow([record, f"{i}.0", 50, 0, "sinus rhythm", scp, "True", 10 if i < 50 else 9, "lr", "hr"])
    with (folder / "scp_statements.csv").open("w", encoding="utf-8") as file:
        file.write(",diagnostic_class\n" + "".join(f"{code},\n" for code in CODES))
    return folder


def test_any_subset_of_the_statements_counts_and_the_rest_is_named(tmp_path: Path) -> None:
    order = [code for code in reversed(CODES) if code not in ("AFIB", "LVH")]
    logits = _logits("all")
    part = logits[:, [CODES.index(code) for code in order]]
    names = [f"{int(record):05d}_hr" for record in IDS]
    file = _csv(tmp_path / "part.csv", ["age", *order, "AFIBB"], np.c_[np.full(N, 60), part, np.zeros(N)], names)
    whole = _csv(tmp_path / "whole.csv", CODES, _sigmoid(logits), name="ecg_id")
    report = _judge(tmp_path / "r", file, whole)
    first, second = report.systems
    for words in ("logits, read through", "no score for AFIB, LVH", "ignored: AFIBB (did you mean AFIB?), age"):
        assert words in first.notes
    assert "statements: probabilities" in second.notes and not second.missing_classes
    assert first.missing_classes["all"] == ("AFIB", "LVH") and first.missing_classes["rhythm"] == ("AFIB",)
    assert first.missing_classes["superdiagnostic"] == ("HYP",) and "form" not in first.missing_classes
    assert first.statement_auc is not None and second.statement_auc is not None and first.macro_auc is not None
    assert set(second.statement_auc) - set(first.statement_auc) == {"AFIB", "LVH"}
    assert first.statement_auc["SR"].value == pytest.approx(second.statement_auc["SR"].value)
    assert first.macro_auc["all"].value == pytest.approx(np.mean([i.value for i in first.statement_auc.values()]))
    assert report.differences[0].macro_auc["all"].value == pytest.approx(0, abs=1e-12)  # over the classes of both
    again = read_evaluation(tmp_path / "r").systems[0]
    assert again.scores is not None and np.isnan(again.scores[:, CODES.index("LVH")]).all()
    html = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "no score for AFIB, LVH" in html
    assert f"means are over the classes that it scores: all 69 of 71, diagnostic {44 - 1} of 44" in html


@pytest.mark.parametrize("task", ["superdiagnostic", "subdiagnostic"])
def test_classes_alone_are_judged_on_their_own_tasks(task: str, tmp_path: Path) -> None:
    values = _sigmoid(_logits(task))
    classes = _csv(tmp_path / "classes.csv", task_classes(task), values)
    whole = _csv(tmp_path / "whole.csv", CODES, _logits("all"))
    report = _judge(tmp_path / "r", classes, whole)
    tasks = ["superdiagnostic"] if task == "superdiagnostic" else ["subdiagnostic", "superdiagnostic"]
    (difference,) = report.differences
    assert list(report.systems[0].macro_auc or {}) == tasks == list(difference.macro_auc)
    assert f"macro-AUC ({'superclass' if task == 'superdiagnostic' else 'subclass'})" in report.headline
    again = read_evaluation(tmp_path / "r").systems[0]
    assert again.scores is None and np.array_equal(again.class_scores[task], values)
    assert list(again.class_scores) == tasks


def test_an_array_has_its_columns_and_records_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "preds.npy"
    values = _sigmoid(_logits("superdiagnostic")).astype(np.float32)
    np.save(file, values)
    with pytest.raises(InputError, match=r"must stand in preds\.columns\.txt"):
        read_predictions(file, IDS)
    (tmp_path / "preds.columns.txt").write_text("\n".join(SUPERCLASSES))
    predictions = read_predictions(file, IDS)
    assert predictions.record_ids == IDS
    assert "in the order of the judged records, as there is no preds.records.txt" in predictions.notes[-1]
    with pytest.raises(InputError, match=r"has 60 records, but 59 are named; write preds\.records\.txt"):
        read_predictions(file, IDS[:-1])
    (tmp_path / "preds.records.txt").write_text("\n".join(reversed(IDS)))
    predictions = read_predictions(file, IDS)
    assert predictions.record_ids == IDS[::-1] and not any("in the order" in note for note in predictions.notes)
    assert np.allclose(predictions.class_scores["superdiagnostic"], values)
    for array in (np.array(["a"]), np.zeros(3), np.array([{}], dtype=object)):
        np.save(file, array)
        with pytest.raises(InputError, match="not an array of records and classes"):
            read_predictions(file, IDS)


def test_a_parquet_file_of_pandas_is_read(tmp_path: Path) -> None:
    columns = {"ecg_id": [1.0, 2.0], "SR": [0.5, 1.0 + 1e-8], "note": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    predictions = read_predictions(tmp_path / "p.parquet")
    assert predictions.record_ids == ("1", "2") and predictions.scores is not None
    assert predictions.scores[:, CODES.index("SR")].tolist() == [0.5, 1.0]
    assert "ignored: note" in predictions.notes


def test_a_report_has_rows_for_the_statements_that_a_system_scores_alone(tmp_path: Path) -> None:
    logits = _logits("all")
    columns = ["AFIB", "SR"]
    file = _csv(tmp_path / "two.csv", columns, logits[:, [CODES.index(code) for code in columns]])
    _judge(tmp_path / "r", file)
    html = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert [code for code in CODES if f"<td><b>{code}</b></td>" in html] == columns


def test_tables_as_spreadsheets_write_them_are_read(tmp_path: Path) -> None:
    """Semicolons or tabs in a .csv, a byte order mark, Windows' line ends, commas in numbers."""
    file = tmp_path / "a.csv"
    for separator, number in ((",", "0.25"), (";", "0,25"), ("\t", "0,25"), (",", '"0,25"')):
        rows = [separator.join(row) for row in (("ecg_id", "AFIB", "LVH"), ("7", number, "1"))]
        file.write_bytes(("\ufeff" + "".join(f"{row}\r\n" for row in rows)).encode())
        predictions = read_predictions(file)
        assert predictions.record_ids == ("7",) and predictions.scores is not None
        assert predictions.scores[0, CODES.index("AFIB")] == 0.25 and predictions.scores[0, CODES.index("LVH")] == 1
    file.write_text("id;question;answer\n7;?;AF, no LVH\n")
    assert [row.answer for row in answer_rows(str(file))] == ["AF, no LVH"]


def test_a_file_of_another_kind_is_named_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scores.xlsx"
    file.write_bytes(b"PK")
    out = tmp_path / "out"
    assert main(["evaluate", str(file), "--labels", "simulated", "--out", str(out)]) == 2
    assert "no file of predictions or answers; save it as one of .parquet, .csv" in capsys.readouterr().err
    assert not out.exists()
    file = tmp_path / "small.csv"
    file.write_text("ecg_id,norm\n1,0.5\n")
    assert main(["evaluate", str(file), "--labels", "simulated", "--out", str(out)]) == 2
    assert "and none of scores, named as `ecg-vlm list statements` prints" in capsys.readouterr().err


@pytest.mark.parametrize("value", [1.5, -0.5, 37.0, float("nan")])
def test_what_is_neither_probability_nor_logit_is_refused(value: float, tmp_path: Path) -> None:
    values = np.full((2, 2), 0.5)
    values[1, 0] = value
    file = _csv(tmp_path / "p.csv", ["SR", "LVH"], values, ("1", "2"))
    with pytest.raises(InputError, match=f"record '2', column SR: {value:g} is not a probability"):
        read_predictions(file)


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_answers_under_any_name_are_judged(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": record, "response": "Shows " + ", ".join(STATEMENTS[code].name for code in codes) + "."}
        for record, codes in zip(IDS, RECORDS.statements, strict=True)
    ]
    rows[0]["response"] = "I'm sorry, I cannot interpret medical images."
    rows[1]["response"] = "A nice drawing."
    file = tmp_path / f"gpt.{form}"
    with file.open("w", encoding="utf-8", newline="") as stream:
        if form == "csv":
            table = csv.DictWriter(stream, ("id", "response"))
            table.writeheader()
            table.writerows(rows)
        else:
            stream.write(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    out = tmp_path / "r"
    words = ["evaluate", file, "--labels", f"ptbxl:{_ptbxl(tmp_path / 'p')}", "--folds", "10", "--out", out]
    assert main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    for part in ("F1, macro", "precision, macro", "recall, macro", "50 answers about 50 records; in 4.0 % nothing"):
        assert part in text
    assert "1 of 50 records: nothing but refusals" in text and "10 about other records left out" in text
    assert "fold 10; those in gpt" in text and "50 records" in text and "Macro-AUC" not in text
    hard = json.loads((out / "report.json").read_text())["systems"][0]["hard"]
    assert [s.name for s in read_evaluation(out).systems] == ["gpt"]
    assert hard["records"] == 50 and hard["decisions"]["f1"]["all"]["value"] > 0.8


@pytest.mark.parametrize("option", [["--controls"], ["--controls-source", "simulated"], ["--calibration", "c.json"]])
def test_an_option_that_needs_pages_is_refused_without(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "a.csv", "--labels", "ptbxl:x", "--out", str(tmp_path / "r"), *option]
    assert main(words) == 2
    assert f"{option[0]} does not go with files without --data PAGES" in capsys.readouterr().err


def test_ids_are_matched_as_they_are_written_elsewhere() -> None:
    records = ("15", "a/Q1", "b/Q1", "a/Q2", "007")
    ids = ["15", "00015_hr", "records100/00000/00015_lr.dat", "Q2", "x/Q2", "Q1", "a/Q1", "007", "16"]
    expected = ["15", "15", "15", "a/Q2", "a/Q2", "Q1", "a/Q1", "007", "16"]
    assert matching_ids(ids, records) == expected


def test_a_record_has_the_diagnoses_of_its_header(
    write_wfdb: Callable[..., Path], ecg_mv: np.ndarray, tmp_path: Path
) -> None:
    header = write_wfdb(tmp_path / "w", "rec", ecg_mv)
    with header.open("a") as file:
        file.write("#Dx: 164889003,39732003\n")
    record = WfdbFolder(tmp_path / "w").read(0)
    assert (record.statements, record.unmapped_lines) == (("AFIB",), ("39732003 left axis deviation",))
    assert WfdbFolder(header).labels(0).statements == ("AFIB",)


def test_diagnoses_of_a_challenge_are_labels(tmp_path: Path) -> None:
    for name, codes in (("Q1", "164889003,39732003"), ("Q2", "426783006, 59118001"), ("Q3", "999")):
        (tmp_path / f"{name}.hea").write_text(f"{name} 12 500 5000\n#Age: 60\n# Dx: {codes}\n#Rx: 12\n")
    records = source_labels(f"wfdb:{tmp_path}")
    assert records.record_ids == ("Q1", "Q2", "Q3")
    assert records.statements == (("AFIB",), ("CRBBB", "SR"), ())
    diagnoses = diagnoses_in("#Dx: 39732003,999,164889003")
    assert diagnoses.remainder == ("39732003 left axis deviation", "999 not in the table")
    assert diagnoses_in("#Hx: 164889003") == ((), ())
    with (files("render.sources") / "snomed.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["code"] for row in rows}) == len(rows) == 133
    assert all(row["statement"] in {"", *CODES} for row in rows)
    # A name that the parser reads as one statement is mapped to it, unless the table says why not.
    for row in rows:
        present = parse(row["name"]).present
        assert not row["statement"] or row["why"] or not present or row["statement"] in present, row


def test_labels_come_from_ptbxl_without_its_signals(tmp_path: Path) -> None:
    source = f"ptbxl:{_ptbxl(tmp_path / 'p')}"
    records = source_labels(source)
    assert records.record_ids == IDS and records.statements == tuple(tuple(sorted(s)) for s in RECORDS.statements)
    assert records.patients[3] == "3" and records.references[0] == "sinus rhythm" and records.folds[59] == 9
    file = str(_csv(tmp_path / "p.csv", ["SR"], np.full((5, 1), 0.5), ("1", "2", "3", "58", "x")))
    assert records_for([file], source).record_ids == ("1", "2", "3", "58")
    assert records_for([file], source, [10], 2).record_ids == ("1", "2")
    with pytest.raises(InputError, match=r"none of its 1 records is in .*called '51', in the file 'y'"):
        records_for([str(_csv(tmp_path / "q.csv", ["SR"], np.full((1, 1), 0.5), ("y",)))], source, [9])
    with pytest.raises(InputError, match="has no labels; name their source"):
        records_for([file])
    rows = [{"id": i, "answer": "AFIB", "statements": "AFIB, LVH"} for i in (1, 2)]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    assert records_for([str(tmp_path / "own.json")]).statements == (("AFIB", "LVH"),) * 2
