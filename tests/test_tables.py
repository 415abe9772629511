"""Results as tables for a paper, and the published schema of report.json."""

from __future__ import annotations

import csv
import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from eval.metrics.judge import Evaluation, Report, judge
from eval.report.compare import compare_reports
from eval.report.schema import report_schema
from eval.report.tables import comparison_tables, report_tables, table_text
from eval.report.write import write_report
from eval.storage import read_answer, read_evaluation, write_evaluation
from eval.types import LabelledRecords, System
from render.errors import InputError
from render.statements import STATEMENTS

CODES = tuple(STATEMENTS)
N = 40
LABELS = tuple(("AFIB", "LVH") if i % 3 else ("NORM", "SR") for i in range(N))
RECORDS = LabelledRecords(tuple(map(str, range(N))), LABELS, "made-up records")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on four systems: all statements, all but AFIB, and two with answers in words alone."""
    out = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    part = random.random((N, 71))
    part[:, CODES.index("AFIB")] = np.nan
    answers = tuple(read_answer(str(i), "", "AFIB" if i % 2 else "sinus rhythm") for i in range(30))
    better = tuple(replace(answer, present=LABELS[int(answer.record_id)]) for answer in answers)
    systems = (
        System("a_b & 50 %", RECORDS.record_ids, random.random((N, 71))),
        System("part|", RECORDS.record_ids, part),
        System("words", RECORDS.record_ids, None, answers),
        System("better words", RECORDS.record_ids, None, better),
    )
    evaluation = Evaluation("tables", RECORDS, systems)
    write_evaluation(out, evaluation)
    write_report(out, evaluation, resamples=40)
    return out


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return judge(read_evaluation(folder), resamples=40)


def test_latex_tables_have_booktabs_rules_intervals_and_escapes(report: Report) -> None:
    text = table_text(report_tables(report), "latex", "40 records.")
    assert text.count(r"\begin{tabular}{lrrrrr}") == text.count(r"\end{tabular}") == 4
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 4
    assert r"a\_b \& 50 \% minus part|" in text and "a_b" not in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) > 8 and all(len(re.findall(r"(?<!\\)&", row)) == 5 for row in rows)
    assert re.search(r"a\\_b \\& 50 \\% & \d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\) &", text)
    assert re.search(r"minus part\| & (\$-\$|\+)\d\.\d{3} \(", text)
    assert "records (classes) & 40 (4)" in text
    assert "part|: means are over the classes that it scores: all 3 of 4, rhythm 1 of 2." in text
    assert "words (30 records)" in text
    assert all(text.count(left) == text.count(right) for left, right in ("{}", "()"))


def test_markdown_tables_have_as_many_cells_as_columns(report: Report) -> None:
    text = table_text(report_tables(report), "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}
    assert r"| part\| |" in text and "macro F1 of answers in words" in text


def test_csv_has_every_figure_to_the_last_digit(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(table_text(report_tables(report), "csv"))))
    (first,) = [row for row in rows if (row["system"], row["minus"], row["task"]) == ("a_b & 50 %", "", "all")]
    auc = (report.systems[0].macro_auc or {})["all"]
    assert float(first["value"]) == auc.value and float(first["low95"]) == auc.low95 and first["records"] == "40"
    (difference,) = [row for row in rows if row["minus"] == "part|" and row["task"] == "all"]
    assert float(difference["high95"]) == report.differences[0].macro_auc["all"].high95
    (part,) = [row for row in rows if (row["system"], row["task"]) == ("part|", "all")]
    assert (first["classes"], part["classes"], difference["classes"]) == ("4", "3", "3")
    (words,) = [row for row in rows if row["minus"] == "better words" and row["task"] == "all"]
    f1 = report.answer_differences[0].f1["all"]
    figures = [system.hard.decisions.f1["all"].value for system in report.systems if system.hard]
    assert float(words["value"]) == f1.value == pytest.approx(figures[0] - figures[1]) and f1.high95 < 0
    assert {row["metric"] for row in rows} == {
        "macro-AUC",
        *(f"macro {name} of answers in words" for name in ("F1", "precision", "recall")),
    }


SCHEMA = Path(__file__).parent.parent / "docs" / "report.schema.json"


def test_the_published_schema_is_that_of_the_code_and_fits_a_report(folder: Path) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == report_schema(), "publish it again: python -m eval.report.schema > docs/report.schema.json"
    validator = Draft202012Validator(schema)
    validator.check_schema(schema)
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    validator.validate(data)
    for change in ({"records": "40"}, {"new": 1}, {"systems": [{"name": "x"}]}, {"format": 1}):
        assert not validator.is_valid(data | change)
    assert not validator.is_valid({name: value for name, value in data.items() if name != "seed"})


def test_a_command_puts_the_table_into_a_page(folder: Path, report: Report, tmp_path: Path) -> None:
    path = SCHEMA.parent.parent / "benchmarks" / "results.py"
    results = runpy.run_path(str(path))
    page, other = tmp_path / "results.md", "<!-- table other -->\nkept\n<!-- end -->\n"
    page.write_text(f"# Before\n<!-- table real -->\nold\n<!-- end -->\nafter\n{other}")
    results["insert_table"](folder, "real", page)
    auc = (report.systems[0].macro_auc or {})["all"].value
    text = page.read_text(encoding="utf-8")
    assert f"| {auc:.3f} (" in text and "old" not in text and text.startswith("# Before\n") and text.endswith(other)
    results["insert_table"](folder, "real", page)
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(InputError, match="<!-- table new -->"):
        results["insert_table"](folder, "new", page)
    assert "<!-- table real -->" in results["RESULTS"].read_text(encoding="utf-8")


def test_reports_side_by_side_are_a_table(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "second"
    other.mkdir()
    for name in ("report.json", "scores.parquet"):
        (other / name).write_bytes((folder / name).read_bytes())
    rows = list(csv.DictReader(io.StringIO(table_text(comparison_tables(compare_reports([folder, other])), "csv"))))
    assert {row["system"] for row in rows} >= {f"{folder.name}: words", "second: a_b & 50 %"}
    (difference,) = [row for row in rows if row["minus"] == "second" and row["task"] == "all"]
    assert float(difference["value"]) == 0
