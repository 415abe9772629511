"""`ecg-vlm compare`: reports side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ecg_vlm.cli.arguments import Parser, add_table, seed
from ecg_vlm.cli.progress import waiting
from render.errors import InputError
from render.io import require_empty

HELP = "reports side by side"
DESCRIPTION = "Put evaluations side by side, with paired differences where they judged the very same records."
EXTRA = "eval"
EXAMPLES = """\
  ecg-vlm compare report theirs
  ecg-vlm compare report theirs --out both.html
  ecg-vlm compare report theirs --table markdown"""


def add_arguments(parser: Parser) -> None:
    """Report folders, file."""
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="folders written by ecg-vlm evaluate")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="write them as a page, too")
    add_table(parser)
    parser.add_argument("--seed", type=seed, default=0, help="seed of the resamples")


def run(arguments: argparse.Namespace) -> None:
    """Put reports side by side."""
    out = arguments.out
    if out and out.suffix.lower() != ".html":
        raise InputError(f"--out {out}: the page is written as HTML; name an .html file")
    if out:
        require_empty(out)
    from eval.report.compare import compare_reports, comparison_text, write_comparison
    from eval.report.tables import comparison_tables, table_text

    with waiting("reading the reports and resampling their records"):
        comparison = compare_reports(arguments.reports, seed=arguments.seed)
    if arguments.table:
        print(table_text(comparison_tables(comparison), arguments.table, comparison.verdict))
    else:
        print(comparison_text(comparison))
    if out:
        write_comparison(out, comparison)
        print(f"\n{out}", file=sys.stderr if arguments.table else sys.stdout)
