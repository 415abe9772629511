"""`ecg-vlm calibrate`: validation pages become calibration.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_vlm.cli.arguments import Parser, add_data, add_loading, folds, loading, positive
from ecg_vlm.cli.progress import progress_bar, waiting

HELP = "validation pages -> calibration.json"
DESCRIPTION = "Fit Platt scaling and a threshold for each statement, and freeze them beside the model."
EXTRA = "eval"
EXAMPLES = """\
  ecg-vlm calibrate runs/mine --data pages/val --limit 1000
  ecg-vlm calibrate predictions/scores.parquet --data pages/val --folds 8"""


def add_arguments(parser: Parser) -> None:
    """Model, validation pages, file."""
    parser.add_argument(
        "model", metavar="MODEL", help="the folder of a run, a hub id, or scores in a .parquet or .csv file"
    )
    add_data(parser, "data set folder of validation pages")
    parser.add_argument("--folds", type=folds, default=(), help="these PTB-XL folds only")
    parser.add_argument("--limit", type=positive, default=0, help="the first N pages only")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="the file (default: calibration.json beside the model)"
    )
    add_loading(parser)
    parser.add_argument("--force", action="store_true", help="even on records the model was tuned on")


def run(arguments: argparse.Namespace) -> None:
    """Fit calibration and thresholds on validation pages and freeze them beside the model."""
    a = arguments
    with waiting("reading the data set"):
        from ecg_vlm import evaluation
        from ecg_vlm.pages import load_pages

        pages = load_pages(a.data, a.folds, a.limit)
    with progress_bar("pages") as show:
        file, calibration = evaluation.calibrate(a.model, pages, a.out, force=a.force, loading=loading(a), show=show)
    print(file, *(f"{what}: {value}" for what, value in calibration.summary().items()), sep="\n")
