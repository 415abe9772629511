"""The pages a report shows: a few that nobody chose, and the worst misses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from eval.report.html import Example
from eval.report.misses import worst_misses
from eval.types import Answer, LabelledRecords, System

_FIRST = 2
_WORST = 6
_COLOURS = 64


def gallery(systems: Sequence[System], records: LabelledRecords, rows: Any) -> list[Example]:
    """The first pages and the worst misses of the first system with scores, with what every system answered.

    rows: of the data set, in the order of `records`.
    """
    chosen = [(row, "one of the first pages, not chosen") for row in range(min(_FIRST, len(records.record_ids)))]
    scored = next((system for system in systems if system.scores is not None), None)
    if scored is not None:
        misses = worst_misses(records.statements, scored.scores_of(records.record_ids), _WORST)
        chosen += [(miss.row, f"{scored.name} {miss.sentence()}") for miss in misses]
    said = {system.name: _first_answers(system) for system in systems if system.answers}
    return [_example(row, why, said, records, rows) for row, why in chosen]


def _first_answers(system: System) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for answer in system.answers:
        found.setdefault(answer.record_id, answer)
    return found


def _example(row: int, why: str, said: dict[str, dict[str, Answer]], records: LabelledRecords, rows: Any) -> Example:
    record = records.record_ids[row]
    answers = {name: of_system[record] for name, of_system in said.items() if record in of_system}
    png = io.BytesIO()
    rows[row]["image"].convert("RGB").convert("P", palette=1, colors=_COLOURS).save(png, "PNG")
    return Example(
        png.getvalue(),
        next((answer.question for answer in answers.values()), ""),
        tuple((name, answer.answer) for name, answer in answers.items()),
        records.statements[row],
        record,
        why,
    )
