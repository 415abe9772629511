"""`ecg-vlm parse`: answers in words become statement codes."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ecg_vlm.cli.arguments import Parser, word_list
from render.errors import InputError
from render.io import atomic_write, require_empty

HELP = "answers -> statement codes"
DESCRIPTION = "Read statement codes from answers: present, absent, uncertain."
EXAMPLES = """\
  echo "Atrial fibrillation. No LVH." | ecg-vlm parse
  ecg-vlm parse answers.jsonl > codes.jsonl
  ecg-vlm parse answers.csv --statements AFIB,LVH --out codes.csv"""

_IDENTITY = ("id", "record_id", "question")
_STATUSES = ("present", "absent", "uncertain")


def add_arguments(parser: Parser) -> None:
    """The file of answers, what of it to report, and where."""
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        default="-",
        help="text lines, JSONL, a JSON list or CSV, with an answer and perhaps a question, an id and a record_id; "
        "- for standard input",
    )
    parser.add_argument("--statements", type=word_list, default=(), metavar="CODES", help="these codes only: AFIB,LVH")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .jsonl or .csv file (default: JSONL on the screen)")
    parser.add_argument(
        "--cautious",
        action="store_true",
        help='count "consistent with", "in keeping with", "diagnostic of" and the like as uncertain, not as present',
    )


def run(arguments: argparse.Namespace) -> None:
    """Read statement codes from answers; one JSON object or CSV row an answer."""
    codes, out = _codes(arguments.statements), arguments.out
    if out and out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"--out {out}: must end in .jsonl or .csv")
    if out:
        require_empty(out)
    rows = _rows(arguments.file, codes, arguments.cautious)
    if out is None:
        _write_jsonl(sys.stdout, rows)
        return
    with atomic_write(out) as path, path.open("w", encoding="utf-8", newline="") as stream:
        (_write_csv if out.suffix == ".csv" else _write_jsonl)(stream, rows)


def _codes(words: tuple[str, ...]) -> frozenset[str]:
    from render.statements import STATEMENTS
    from render.suggest import did_you_mean

    for word in words:
        if word not in STATEMENTS:
            raise InputError(f"--statements: {word!r:.40} is no statement code{did_you_mean(word, STATEMENTS)}")
    return frozenset(words or STATEMENTS)


def _rows(file: str, codes: frozenset[str], cautious: bool) -> Iterator[dict[str, Any]]:
    from eval.answer_files import answer_rows
    from eval.parser.parse import parse

    for row in answer_rows(file):
        result = parse(row.answer, row.question, cautious=cautious)
        yield {name: row.fields[name] for name in _IDENTITY if row.fields.get(name) is not None} | {
            status: [code for code in getattr(result, status) if code in codes] for status in _STATUSES
        }


def _write_jsonl(stream: TextIO, rows: Iterator[dict[str, Any]]) -> None:
    for row in rows:
        stream.write(json.dumps(row) + "\n")


def _write_csv(stream: TextIO, rows: Iterator[dict[str, Any]]) -> None:
    """Codes with a space between them; the columns are the same for every file."""
    table = csv.DictWriter(stream, (*_IDENTITY, *_STATUSES), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow(row | {status: " ".join(row[status]) for status in _STATUSES})
