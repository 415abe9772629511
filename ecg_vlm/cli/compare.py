"""`ecg-vlm compare`: reports side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_vlm.cli.arguments import Parser, seed
from ecg_vlm.cli.progress import waiting

HELP = "reports side by side"
DESCRIPTION = "Put evaluations side by side, with paired differences where they judged the very same records."
EXTRA = "eval"
EXAMPLES = """\
  ecg-vlm compare report theirs
  ecg-vlm compare report theirs --out both.html"""


def add_arguments(parser: Parser) -> None:
    """Report folders, file."""
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="folders written by ecg-vlm evaluate")
    parser.add_argument("--out", type=Path, help="an .html file of it")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the resamples")


def run(arguments: argparse.Namespace) -> None:
    """Put reports side by side."""
    from eval.report.compare import compare_reports, comparison_text, write_comparison

    with waiting("reading the reports and resampling their records"):
        comparison = compare_reports(arguments.reports, seed=arguments.seed)
    print(comparison_text(comparison))
    if arguments.out:
        write_comparison(arguments.out, comparison)
        print(f"\n{arguments.out}")
