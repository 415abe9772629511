"""`ecg-vlm finetune`: a recipe and a data set become an adapter."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_vlm.cli.arguments import Parser, minutes, positive
from ecg_vlm.cli.progress import print_note, progress_bar, status_lines, waiting

if TYPE_CHECKING:
    from recipes.trainer import Progress

HELP = "recipe + data set -> adapter"
DESCRIPTION = "Tune a model by a recipe. `ecg-vlm list recipes` names those that ship."
EXTRA = "train"
EXAMPLES = """\
  ecg-vlm finetune quickstart data.train=pages/train --out runs/mine
  ecg-vlm finetune quickstart data.train=pages/train --out runs/mine --max-time 30m --resume"""


def add_arguments(parser: Parser) -> None:
    """Recipe, overrides, folder, limits."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="a recipe file, or the name of one that ships (quickstart, ptbxl, nano ...)"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="override any key of the recipe")
    parser.add_argument("--out", type=Path, help="folder of the run (default runs/NAME)")
    parser.add_argument("--max-steps", type=positive, help="take exactly N optimizer steps (train.max_steps=N)")
    parser.add_argument(
        "--max-time", type=minutes, help="end after so long, such as 90m or 2.5h; --resume goes on (train.max_minutes)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")


def run(arguments: argparse.Namespace) -> None:
    """Tune a model by a recipe."""
    from recipes.config import load_recipe

    a = arguments
    limits = {"train.max_steps": a.max_steps, "train.max_minutes": a.max_time}
    overrides = [*a.overrides, *(f"{key}={value}" for key, value in limits.items() if value)]
    recipe = load_recipe(a.recipe, overrides)
    out = a.out or Path("runs") / recipe.name
    with waiting("importing torch and trl"):
        from ecg_vlm.validation import validation
        from recipes import train
    with progress_bar("steps") as show, status_lines() as status:

        def report(p: Progress) -> None:
            status("")
            loss = "" if p.loss is None else f"  loss {p.loss:.3f}"
            show(
                f"tuning  {p.images_per_second:.1f} pages/s  {p.tokens_per_second:.0f} tokens/s{loss}", p.step, p.steps
            )

        validate = validation(recipe.data.validation) if recipe.data.validation else None
        facts = train.finetune(
            recipe, out, resume=a.resume, report=report, validate=validate, status=status, note=print_note
        )
    percent = facts.trained_parameters / facts.parameters
    losses = [loss for _, loss in facts.losses]
    print(
        f"{out}: {facts.steps} steps on {facts.pages} pages in {facts.seconds:.0f} s; "
        f"{facts.trained_parameters:,} of {facts.parameters:,} parameters trained ({percent:.0%})"
        + (f"; loss {losses[0]:.3f} -> {losses[-1]:.3f}" if losses else "")
    )
    for figures in facts.validation[-1:]:
        values = {name: f"{value:.3f}".removesuffix(".000") for name, value in figures.items() if name != "step"}
        print("held out: " + ", ".join(f"{name} {value}" for name, value in values.items()))
