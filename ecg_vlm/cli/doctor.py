"""`ecg-vlm doctor`: what this machine can run, and what a recipe needs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ecg_vlm.cli.arguments import Parser
from ecg_vlm.cli.progress import status_lines, waiting

if TYPE_CHECKING:
    from recipes.config import Recipe

HELP = "what this machine can run, and what a recipe needs"
DESCRIPTION = "Show what this machine has, and count what a recipe needs before anything is downloaded or loaded."
EXAMPLES = """\
  ecg-vlm doctor
  ecg-vlm doctor llama32-11b-qlora-24gb train.images_per_batch=4"""


def add_arguments(parser: Parser) -> None:
    """Recipe and overrides."""
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a recipe file, or the name of one that ships")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="override any key of the recipe")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Say what fits this machine before anything heavy starts."""
    from recipes import fast_start
    from recipes.config import load_recipe

    a = arguments
    recipe = load_recipe(a.recipe, a.overrides) if a.recipe else None
    with waiting("importing torch"):
        fast = a.own_process and fast_start.prepare_to_count()  # before anything imports torch
    try:
        lines = _lines(recipe, as_json=a.json)
    except Exception:
        if not fast:
            raise
        fast_start.restart_without_fast_start()  # another version of the libraries, or a base of another kind
    print("\n".join(lines))


def _lines(recipe: Recipe | None, *, as_json: bool) -> list[str]:
    from dataclasses import asdict

    with waiting("importing transformers"):
        from recipes.doctor import doctor, machine
        from recipes.memory import needs
    with status_lines() as status:
        if not as_json:
            return doctor(recipe, status=status)
        return [json.dumps({"machine": asdict(machine()), "needs": recipe and asdict(needs(recipe))}, default=str)]
