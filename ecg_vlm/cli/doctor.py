"""`ecg-vlm doctor`: what this machine can run, and what a recipe needs."""

from __future__ import annotations

import argparse
import json

from ecg_vlm.cli.arguments import Parser
from ecg_vlm.cli.progress import status_lines, waiting

HELP = "what this machine can run, and what a recipe needs"
DESCRIPTION = "Show what this machine has, and count what a recipe needs before anything is downloaded or loaded."
EXAMPLES = """\
  ecg-vlm doctor
  ecg-vlm doctor llama32-11b-qlora-24gb train.images_per_batch=4"""


def add_arguments(parser: Parser) -> None:
    """Recipe and overrides."""
    parser.add_argument("recipe", nargs="?", help="a recipe file, or the name of one that ships")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="override any key of the recipe")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Say what fits this machine before anything heavy starts."""
    from dataclasses import asdict

    from recipes.config import load_recipe

    a = arguments
    recipe = load_recipe(a.recipe, a.overrides) if a.recipe else None
    with waiting("importing torch"):
        from recipes.doctor import doctor, machine
        from recipes.memory import needs
    with status_lines() as status:
        if a.json:
            print(json.dumps({"machine": asdict(machine()), "needs": recipe and asdict(needs(recipe))}, default=str))
        else:
            print("\n".join(doctor(recipe, status=status)))
