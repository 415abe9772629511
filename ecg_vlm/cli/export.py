"""`ecg-vlm export`: a run becomes a folder that stock transformers and peft open."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_vlm.cli.arguments import Parser, add_loading, loading
from ecg_vlm.cli.progress import status_lines, waiting
from ecg_vlm.cli.push import add_push, check_push, push

HELP = "run -> a folder that stock transformers and peft open"
DESCRIPTION = "Export a run, reload it with stock transformers and peft, and compare the logits."
EXTRA = "train"
EXAMPLES = """\
  ecg-vlm export runs/mine exported
  ecg-vlm export runs/mine exported --merge --report report/report.json
  ecg-vlm export runs/mine exported --push me/ecg-adapter --dry-run"""


def add_arguments(parser: Parser) -> None:
    """Run, folder, kind."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the export")
    parser.add_argument("--merge", action="store_true", help="the whole model with the adapter in its weights")
    add_loading(parser, batch=False)
    parser.add_argument(
        "--report", type=Path, metavar="FILE.json", help="report.json of an evaluation, for the model card"
    )
    add_push(parser, "--push", "export")


def run(arguments: argparse.Namespace) -> None:
    """Write a run for stock transformers and peft, reload it with those, and compare."""
    a = arguments
    check_push(a)
    with waiting("importing torch, transformers and peft"):
        from recipes.export import export
    with status_lines() as status:
        facts = export(a.run_folder, a.out, merge=a.merge, report=a.report, status=status, **loading(a))
    content = "the whole model" if facts["merged"] else "the adapter"
    agreement = facts["agreement"]
    print(
        f"{a.out}: {content} in {facts['dtype']}; reloaded by stock transformers and peft: logits differ by at most "
        f"{agreement['largest']:.2g} standard deviations, {agreement['same_token']:.0%} of {agreement['tokens']} "
        "tokens the same"
    )
    if "agreement_with_4bit" in facts:
        agreement = facts["agreement_with_4bit"]
        print(
            f"against the tuned 4-bit model: at most {agreement['largest']:.2g}, {agreement['same_token']:.0%} the same"
        )
    push(a, "model")
