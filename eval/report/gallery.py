"""The example pages of a report: the first ones, and the worst misses by rank, so that nobody selects them by taste."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.types import Answer, Floats, LabelledRecords, System, label_matrix

_FIRST = 2
_WORST = 6
_COLOURS = 64
_MIN_RECORDS = 3


@dataclass(frozen=True)
class Example:
    """One example page: a PNG, a question, (system, answer) pairs, the true statements, and why it is shown."""

    image_png: bytes
    question: str
    answers: tuple[tuple[str, str], ...]
    statements: tuple[str, ...]
    record_id: str = ""
    why: str = ""


@dataclass(frozen=True)
class Miss:
    """A record on the wrong side for one statement.

    Attributes:
        row: of the record.
        present: whether the record has the statement.
        score: what the system gave.
        beyond: share of the records of the other side that are ranked on the right side of it: 1 is the worst
            possible.
    """

    row: int
    code: str
    present: bool
    score: float
    beyond: float

    def sentence(self) -> str:
        """The miss in words."""
        if self.present:
            return (
                f"missed {self.code}: {100 * self.beyond:.0f} % of the records without it score higher "
                f"(score {self.score:.3f})"
            )
        return (
            f"false alarm for {self.code}: scores higher than {100 * self.beyond:.0f} % of the records that have it "
            f"(score {self.score:.3f})"
        )


def gallery(systems: Sequence[System], records: LabelledRecords, rows: Any) -> list[Example]:
    """The first pages and the worst misses of the first system with scores, with the answers of every system.

    Args:
        rows: of the data set, in the order of `records`.
    """
    selection = [(row, "one of the first pages, not chosen") for row in range(min(_FIRST, len(records.record_ids)))]
    system = next((system for system in systems if system.scores is not None), None)
    if system is not None:
        misses = worst_misses(records.statements, system.scores_of(records.record_ids), _WORST)
        selection += [(miss.row, f"{system.name} {miss.sentence()}") for miss in misses]
    answers = {system.name: _first_answers(system) for system in systems if system.answers}
    return [_example(row, why, answers, records, rows) for row, why in selection]


def worst_misses(statement_sets: Sequence[Sequence[str]], scores: Floats, count: int = 6) -> list[Miss]:
    """The worst misses of (n, 71) scores: missed statements and false alarms in turn, each record and statement once.

    Ranks within one statement are compared, not scores: those of a rare statement are all low. Statements with fewer
    than three positives or negatives are left out. Of equally bad misses the first record counts.
    """
    labels, codes = label_matrix(statement_sets, "all")
    kinds: list[list[Miss]] = [[], []]
    for i, code in enumerate(codes):
        y, s = labels[:, i], scores[:, i]
        if min(y.sum(), (~y).sum()) < _MIN_RECORDS or np.isnan(s).any():
            continue
        negatives, positives = np.sort(s[~y]), np.sort(s[y])
        above = 1 - np.searchsorted(negatives, s, side="right") / len(negatives)
        below = np.searchsorted(positives, s, side="left") / len(positives)
        for present, rows, beyond in ((True, np.flatnonzero(y), above), (False, np.flatnonzero(~y), below)):
            row = int(rows[np.argmax(beyond[rows])])
            kinds[not present].append(Miss(row, code, present, float(s[row]), float(beyond[row])))
    for kind in kinds:
        kind.sort(key=lambda miss: (-miss.beyond, miss.row, miss.code))
    return _in_turn(kinds, count)


def _in_turn(kinds: list[list[Miss]], count: int) -> list[Miss]:
    misses: list[Miss] = []
    while len(misses) < count and any(kinds):
        kind = kinds[len(misses) % 2] or kinds[1 - len(misses) % 2]
        miss = kind.pop(0)
        if miss.beyond > 0 and all(miss.row != other.row and miss.code != other.code for other in misses):
            misses.append(miss)
    return misses


def _first_answers(system: System) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for answer in system.answers:
        answers.setdefault(answer.record_id, answer)
    return answers


def _example(
    row: int, why: str, answers_of: dict[str, dict[str, Answer]], records: LabelledRecords, rows: Any
) -> Example:
    record = records.record_ids[row]
    answers = {name: by_record[record] for name, by_record in answers_of.items() if record in by_record}
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
