"""The results of a report, or of reports side by side, as tables for a paper: LaTeX (booktabs), Markdown, CSV.

A cell is a value with its 95 % interval; differences are paired. The CSV has one value a line, for programs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.metrics.bootstrap import Interval
from eval.metrics.judge import Report
from eval.report.compare import Comparison
from eval.report.html import missing_classes_text
from eval.types import TASK_LABELS
from render.statements import LABEL_TASKS

TABLE_FORMATS = ("latex", "markdown", "csv")

_CSV_COLUMNS = ("metric", "system", "minus", "task", "value", "low95", "high95", "records", "classes")
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "\n": " ", "−": "$-$",
}  # fmt: skip
_MARKDOWN_ESCAPES = {"\\": r"\\", "|": r"\|", "\n": " ", "<": "&lt;", "*": r"\*", "_": r"\_", "`": r"\`"}


@dataclass(frozen=True)
class TableRow:
    """Figures of one system per task.

    Attributes:
        minus: of a difference, the system that is subtracted; "" for a system itself.
        records: that the figures rest on, where these differ between rows; 0 where they do not.
        classes: task -> the classes that its figure rests on; empty where they are not known.
    """

    system: str
    figures: Mapping[str, Interval]
    minus: str = ""
    records: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultTable:
    """One metric of all systems.

    Attributes:
        sizes: task -> (records, classes) that are judged; empty where they differ between the rows.
        note: exceptions, for the caption.
    """

    metric: str
    rows: Sequence[TableRow]
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    note: str = ""


def report_tables(report: Report) -> list[ResultTable]:
    """Macro-AUC of the systems with scores and their differences; F1, precision and recall of answers in words."""
    sizes = {task: (facts.records, report.scored_classes(task)) for task, facts in report.tasks.items()}
    systems = {system.name: system for system in report.systems}

    def classes(*names: str) -> dict[str, int]:
        return {task: report.scored_classes(task, *(systems[name] for name in names)) for task in sizes}

    aucs = [TableRow(s.name, s.macro_auc, classes=classes(s.name)) for s in report.systems if s.macro_auc]
    aucs += [TableRow(d.first, d.macro_auc, d.second, classes=classes(d.first, d.second)) for d in report.differences]
    notes = {name: missing_classes_text(report, system) for name, system in systems.items()}
    note = "".join(f" {name}: {text}." for name, text in notes.items() if text)
    tables = [ResultTable("macro-AUC", aucs, sizes, note)] if aucs else []
    answers = {system.name: system.hard for system in report.systems if system.hard}
    for name in ("F1", "precision", "recall"):
        rows = [
            TableRow(system, getattr(hard.decisions, name.lower()), records=hard.records)
            for system, hard in answers.items()
        ]
        if name == "F1":
            rows += [TableRow(d.first, d.f1, d.second) for d in report.answer_differences]
        tables += [ResultTable(f"macro {name} of answers in words", rows)] if rows else []
    return tables


def comparison_tables(comparison: Comparison) -> list[ResultTable]:
    """Macro-AUC of the systems of several reports, and the differences between reports on the same records."""
    rows = [TableRow(f"{row.report}: {row.system}", row.macro_auc) for row in comparison.rows if row.macro_auc]
    rows += [TableRow(pair.first, pair.macro_auc, pair.second) for pair in comparison.pairs]
    words = [TableRow(f"{row.report}: {row.system}", row.f1, records=row.records) for row in comparison.rows if row.f1]
    tables = (ResultTable("macro-AUC", rows), ResultTable("macro F1 of answers in words", words))
    return [table for table in tables if table.rows]


def table_text(tables: Sequence[ResultTable], table_format: str, note: str = "") -> str:
    """The tables in one of `TABLE_FORMATS`. note: a sentence about the records, for the caption."""
    if table_format == "csv":
        return _csv(tables)
    one = _latex if table_format == "latex" else _markdown
    return "\n\n".join(one(table, note) for table in tables)


def _csv(tables: Sequence[ResultTable]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for task, figure in row.figures.items():
                numbers = ["" if math.isnan(v) else repr(v) for v in (figure.value, figure.low95, figure.high95)]
                records = table.sizes[task][0] if table.sizes else row.records or ""
                lines.writerow(
                    [table.metric, row.system, row.minus, task, *numbers, records, row.classes.get(task, "")]
                )
    return text.getvalue().rstrip("\n")


def _latex(table: ResultTable, note: str) -> str:
    tasks = _tasks(table)
    heads = [rf"\multicolumn{{1}}{{c}}{{{TASK_LABELS[task]}}}" for task in tasks]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_latex_escape(_caption(table, note))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(tasks)}}}",
        r"\toprule",
        rf"{' & '.join(['System', *heads])} \\",
    ]
    lines += [rf"{' & '.join(map(_latex_escape, _size_cells(table, tasks)))} \\"] if table.sizes else []
    lines.append(r"\midrule")
    earlier = False
    for row in table.rows:
        if row.minus and not earlier:
            lines.append(r"\midrule")
        earlier = bool(row.minus)
        lines.append(rf"{' & '.join(map(_latex_escape, [_title(row), *_cells(row, tasks)]))} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _markdown(table: ResultTable, note: str) -> str:
    tasks = _tasks(table)
    lines = [[table.metric, *(TASK_LABELS[task] for task in tasks)], ["---"] * (len(tasks) + 1)]
    lines += [list(map(_markdown_escape, [_title(row), *_cells(row, tasks)])) for row in table.rows]
    lines += [list(_size_cells(table, tasks))] if table.sizes else []
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{_markdown_escape(_caption(table, note))}"


def _tasks(table: ResultTable) -> list[str]:
    """The tasks for which a row has a figure, in the order of all tables."""
    return [task for task in LABEL_TASKS if any(task in row.figures for row in table.rows)]


def _caption(table: ResultTable, note: str) -> str:
    differences = "; differences are paired" if any(row.minus for row in table.rows) else ""
    title = f"{table.metric[:1].upper()}{table.metric[1:]}"
    return f"{title} with 95 % bootstrap intervals{differences}. {note}{table.note}".strip()


def _title(row: TableRow) -> str:
    records = f" ({row.records} records)" if row.records else ""
    return f"{row.system} minus {row.minus}" if row.minus else f"{row.system}{records}"


def _size_cells(table: ResultTable, tasks: Sequence[str]) -> list[str]:
    sizes = (table.sizes[task] for task in tasks)
    return ["records (classes)", *(f"{records} ({classes})" for records, classes in sizes)]


def _cells(row: TableRow, tasks: Sequence[str]) -> list[str]:
    return [_cell(row.figures.get(task), "+" if row.minus else "") for task in tasks]


def _cell(interval: Interval | None, sign: str) -> str:
    if interval is None or math.isnan(interval.value):
        return "–"
    value, low, high = (f"{v:{sign}.3f}".replace("-", "−") for v in (interval.value, interval.low95, interval.high95))
    return value if math.isnan(interval.low95) else f"{value} ({low} to {high})"


def _latex_escape(text: str) -> str:
    return "".join(_LATEX_ESCAPES.get(char, char) for char in text)


def _markdown_escape(text: str) -> str:
    return "".join(_MARKDOWN_ESCAPES.get(char, char) for char in text)
