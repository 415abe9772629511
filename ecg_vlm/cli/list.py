"""`ecg-vlm list`: the words that the other commands take."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping

from ecg_vlm.cli.arguments import Parser

HELP = "layouts, styles, tasks, forms, statements, recipes, baselines, tasks of lm-evaluation-harness: what there is"
DESCRIPTION = "Print the words that other commands take, one a line."
EXAMPLES = """\
  ecg-vlm list recipes
  ecg-vlm list statements --json"""


def add_arguments(parser: Parser) -> None:
    """What to list."""
    names = tuple(_LISTS)
    parser.add_argument("what", nargs="?", choices=names, help=f"{', '.join(names)} (default: these words)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Print names with what they mean."""
    rows = _LISTS[arguments.what][1]() if arguments.what else {name: what for name, (what, _) in _LISTS.items()}
    if arguments.json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(map(len, rows))
    for name, meaning in rows.items():
        print(f"{name:<{width}}  {meaning}".rstrip())


def _layouts() -> dict[str, str]:
    from render.pages.options import FORMATS, OPTION_WORDS

    return dict.fromkeys(FORMATS, "format") | _option_words(OPTION_WORDS)


def _styles() -> dict[str, str]:
    from render.pages.augment.pipeline import EFFECTS
    from render.pages.style import STYLE_WORDS

    return _option_words(STYLE_WORDS) | {f"{name}=0.5": "effect, with its strength from 0 to 1" for name in EFFECTS}


def _option_words(groups: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    rows: dict[str, str] = {}
    for group, words in groups.items():
        for place, word in enumerate(words):
            rows[word] = group.replace("_", " ") + (", the default" if place == 0 and group != "paper" else "")
    return rows | {"mixed": "draws whatever is not named, for every page anew"}


def _tasks() -> dict[str, str]:
    from render.dialogues.compose import DIALOGUE_TASKS

    meanings = {
        "features": "rate, axis, intervals, amplitudes",
        "rhythm": "rhythm statements",
        "morphology": "all other statements",
        "report": "the whole ECG in words",
    }
    return {task: meanings.get(task, "") for task in DIALOGUE_TASKS}


def _forms() -> dict[str, str]:
    from render.dialogues.compose import FORMS

    meanings = {"closed": "yes or no", "choice": "A to D", "fill": "a blank to fill in", "open": "an answer in words"}
    return {form: meanings.get(form, "") for form in FORMS}


def _statements() -> dict[str, str]:
    from render.statements import STATEMENTS

    return {code: statement.name for code, statement in STATEMENTS.items()}


def _recipes() -> dict[str, str]:
    from importlib.resources import files

    from recipes.config import shipped_recipes

    texts = {name: (files("recipes") / "configs" / f"{name}.yaml").read_text("utf-8") for name in shipped_recipes()}
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in texts.items()}


def _baselines() -> dict[str, str]:
    from eval.baselines.settings import SETTINGS

    return {name: f"{s.epochs} epochs, {s.optimizer}, {s.schedule}" for name, s in SETTINGS.items()}


def _harness() -> dict[str, str]:
    from importlib.resources import files

    return {str(files("ecg_vlm") / "harness"): ""}  # the path alone, for --include_path "$(ecg-vlm list harness)"


_LISTS: Mapping[str, tuple[str, Callable[[], dict[str, str]]]] = {
    "layouts": ("words of --layout", _layouts),
    "styles": ("words of --style", _styles),
    "tasks": ("words of --tasks", _tasks),
    "forms": ("words of --forms", _forms),
    "statements": ("codes of the 71 statements", _statements),
    "recipes": ("of finetune and doctor", _recipes),
    "baselines": ("of baseline train and pretrain", _baselines),
    "harness": ("folder of the task for lm-evaluation-harness", _harness),
}
"""What can be listed -> what these are, and the list."""
