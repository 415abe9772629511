"""`ecg-vlm evaluate`: a model and pages become a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ecg_vlm.cli.arguments import (
    Parser,
    add_data,
    add_engine,
    add_loading,
    add_table,
    folds,
    loading,
    positive,
    refuse_workers,
    seed,
    workers_of,
)
from ecg_vlm.cli.progress import progress_bar, waiting
from render.errors import InputError

HELP = "model + pages -> report.html"
DESCRIPTION = "Judge a model on held-out pages, or anybody's predictions and answers, and write the report."
EXTRA = "eval"
EXAMPLES = """\
  ecg-vlm evaluate runs/mine --compare nano --data pages/test --controls --out report
  ecg-vlm evaluate scores.csv chatbot.jsonl --labels ptbxl:ptb-xl --folds 10 --out theirs
  ecg-vlm evaluate --from report --out again --table latex > table.tex"""


def add_arguments(parser: Parser) -> None:
    """Model, pages, what to compare with."""
    parser.add_argument(
        "model",
        nargs="*",
        metavar="MODEL",
        help="nano, the folder of a run, a hub id, or a file: probabilities or logits of statements, subclasses or "
        "superclasses (.csv, .parquet, .npy), answers in words (.jsonl, .json, .csv); more than one are compared",
    )
    add_data(parser, "data set folder made by ecg-vlm render", required=False)
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="SOURCE",
        help="labels for files, without pages: ptbxl:DIR, wfdb:DIR ... (repeatable)",
    )
    parser.add_argument(
        "--task",
        default="",
        metavar="TEST",
        help="the questions of a published test instead: ecgqa:PATH (JSON or folder), ecgbench:FILE.json",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument(
        "--from",
        dest="previous",
        type=Path,
        metavar="PATH",
        help="judge again without a model: a report's folder, a scores.parquet or an answers.jsonl",
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="MODEL",
        help="a model or a file to compare with (repeatable)",
    )
    parser.add_argument("--folds", type=folds, default=(), help="judge on these PTB-XL folds only")
    parser.add_argument("--limit", type=positive, default=0, help="the first N pages only")
    parser.add_argument("--controls", action="store_true", help="score blank, shuffled and copied pages too")
    parser.add_argument(
        "--controls-source",
        action="append",
        default=[],
        metavar="SOURCE",
        help="where the pages' records are: other layout and style too (repeatable)",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE.json", help="calibration.json (default: the one beside the model)"
    )
    parser.add_argument("--figures", action="store_true", help="the report's figures as SVG and PDF in OUT/figures too")
    add_table(parser)
    add_loading(parser)
    add_engine(
        parser,
        workers="with --engine ray: the most batches at once, each in a process that holds the model",
        ray="ray: processes of a Ray cluster hold the model and get the pages; they see MODEL at the same path",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of resamples and of shuffled pages")
    parser.add_argument("--resume", action="store_true", help="go on with an evaluation that was interrupted")
    parser.add_argument(
        "--force", action="store_true", help="judge even on records the model was tuned on; the report says so"
    )


def run(arguments: argparse.Namespace) -> None:
    """Judge a model on pages, or kept scores and answers again, and write the report."""
    a = arguments
    systems = [*a.model, *a.compare]
    if bool(a.model) == bool(a.previous):
        raise InputError("evaluate: name a model, or with --from the folder of an earlier evaluation")
    if a.labels and (a.data or a.previous):
        raise InputError("evaluate: --labels goes with files alone, without --data and --from")
    if a.previous:
        _refuse(a, ("compare", "controls", "controls_source", "calibration"), "--from, which judges kept scores again")
    if a.task:
        _run_test(a, systems)
        return
    with waiting("reading the data set"):
        from ecg_vlm import evaluation
        from ecg_vlm.pages import load_pages, records_for
        from ecg_vlm.provenance import RESULT_FILES
        from eval.report.tables import report_tables, table_text
        from eval.report.write import text_table
        from eval.storage import is_report, require_new_report

        refuse_workers(a)
        require_new_report(a.out, resume=a.resume)
        if a.resume and is_report(a.out):
            a.previous = a.out  # it has finished: nothing is left to do but to print it
        models = [spec for spec in systems if not spec.endswith(RESULT_FILES)]
        if models and not a.data and not a.previous:
            if Path(models[0]).is_file():
                kinds = ", ".join(RESULT_FILES)
                raise InputError(f"{models[0]}: no file of predictions or answers; save it as one of {kinds}")
            raise InputError(f"evaluate {models[0]}: a model needs pages to judge on; name their folder with --data")
        pages = load_pages(a.data, a.folds, a.limit) if a.data else None
    if a.previous:
        report = evaluation.rejudge(a.previous, a.out, pages=pages, seed=a.seed)
    elif pages is None:
        _refuse(a, ("controls", "controls_source", "calibration"), "files without --data PAGES")
        records = records_for(systems, a.labels, a.folds, a.limit)
        report = evaluation.judge_files(systems, records, a.out, force=a.force, seed=a.seed)
    else:
        with workers_of(a, has_model=True) as workers, progress_bar("pages") as show:
            report = evaluation.evaluate(
                a.model[0],
                pages,
                a.out,
                compare=systems[1:],
                force=a.force,
                controls=a.controls or bool(a.controls_source),
                controls_source=a.controls_source,
                calibration=a.calibration,
                seed=a.seed,
                resume=a.resume,
                loading=loading(a),
                workers=None if isinstance(workers, int) else workers,
                show=show,
            )
    if a.figures:
        from eval.report.figures import write_figures  # imports matplotlib

        write_figures(a.out / "figures", report)
    note = f"{report.records:,} records: {report.dataset}."
    print(table_text(report_tables(report), a.table, note) if a.table else text_table(report))
    print(f"\nreport: {a.out / 'report.html'}", file=sys.stderr if a.table else sys.stdout)


def _refuse(a: argparse.Namespace, options: Sequence[str], other: str) -> None:
    """An error for an option that was given and does not go with another."""
    for option in options:
        if getattr(a, option):
            name = {"previous": "from"}.get(option, option.replace("_", "-"))
            raise InputError(f"evaluate: --{name} does not go with {other}")


def _run_test(a: argparse.Namespace, systems: list[str]) -> None:
    """Judge systems on a published test, and print its table."""
    options = ("labels", "previous", "controls", "controls_source", "calibration", "figures", "table")
    _refuse(a, options, "--task")
    with waiting("reading the test"):
        from ecg_vlm.pages import load_pages
        from ecg_vlm.question_tests import judge_on_questions, result_text

        pages = load_pages(a.data, a.folds) if a.data else None
    with progress_bar("questions") as show:
        result = judge_on_questions(
            a.task,
            systems,
            a.out,
            pages=pages,
            limit=a.limit,
            force=a.force,
            loading=loading(a),
            resume=a.resume,
            show=show,
        )
    print(result_text(result))
    print(f"\nscores: {a.out / 'test.json'}")
