"""`ecg-vlm parse`: answers in words become statement codes."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator

from ecg_vlm.cli.arguments import Parser
from render.errors import InputError

HELP = "answers -> statement codes"
DESCRIPTION = "Read statement codes from answers, a JSON object a line: present, absent, uncertain."
EXAMPLES = """\
  echo "Atrial fibrillation. No LVH." | ecg-vlm parse
  ecg-vlm parse answers.jsonl > codes.jsonl"""


def add_arguments(parser: Parser) -> None:
    """The file of answers, and how "consistent with" counts."""
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        help="text lines, or JSONL with an answer and perhaps a question key; - for standard input",
    )
    parser.add_argument(
        "--cautious",
        action="store_true",
        help='count "consistent with", "in keeping with", "diagnostic of" and the like as uncertain, not as present',
    )


def run(arguments: argparse.Namespace) -> None:
    """Read statement codes from answers, a JSON object a line."""
    from eval.parser.parse import parse

    file = arguments.file
    for number, line in enumerate(_lines(file), 1):
        text, question = line.rstrip("\n"), ""
        if text.lstrip().startswith("{"):
            try:
                row = json.loads(text)
                text, question = row["answer"], row.get("question", "")
                if not (isinstance(text, str) and isinstance(question, str)):
                    raise TypeError("answer or question is not a text")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f'{file}, line {number}: needs JSON with a text under "answer" ({error})') from error
        result = parse(text, question, cautious=arguments.cautious)
        print(json.dumps({status: list(getattr(result, status)) for status in ("present", "absent", "uncertain")}))


def _lines(file: str) -> Iterator[str]:
    try:
        if file == "-":
            yield from io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")  # whatever the locale says
        else:
            with open(file, encoding="utf-8") as stream:
                yield from stream
    except (OSError, UnicodeDecodeError) as error:
        name = "standard input" if file == "-" else file
        raise InputError(f"{name}: cannot be read as UTF-8 text ({error})") from error
