"""The worst misses of a system: the pages to look at first, chosen by rank and not by taste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics.tasks import Floats, label_matrix

_LEAST = 3


@dataclass(frozen=True)
class Miss:
    """A record that stands on the wrong side for one statement.

    row: of the record. present: whether it carries the statement. score: what the system gave.
    beyond: share of the records of the other side that it lies on the wrong side of: 1 is the worst there is.
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


def worst_misses(statement_sets: Sequence[Sequence[str]], scores: Floats, count: int = 6) -> list[Miss]:
    """The worst misses of (n, 71) scores, missed statements and false alarms in turn; no record and no statement twice.

    Ranks within one statement are compared, not scores: those of a rare statement are all low. Statements with fewer
    than three positives or negatives are left out. Of equally bad ones the first record is taken.
    """
    labels, codes = label_matrix(statement_sets, "all")
    kinds: list[list[Miss]] = [[], []]
    for i, code in enumerate(codes):
        held, s = labels[:, i], scores[:, i]
        if min(held.sum(), (~held).sum()) < _LEAST:
            continue
        negatives, positives = np.sort(s[~held]), np.sort(s[held])
        above = 1 - np.searchsorted(negatives, s, side="right") / len(negatives)
        below = np.searchsorted(positives, s, side="left") / len(positives)
        for present, rows, beyond in ((True, np.flatnonzero(held), above), (False, np.flatnonzero(~held), below)):
            row = int(rows[np.argmax(beyond[rows])])
            kinds[not present].append(Miss(row, code, present, float(s[row]), float(beyond[row])))
    for kind in kinds:
        kind.sort(key=lambda miss: (-miss.beyond, miss.row, miss.code))
    return _in_turn(kinds, count)


def _in_turn(kinds: list[list[Miss]], count: int) -> list[Miss]:
    chosen: list[Miss] = []
    while len(chosen) < count and any(kinds):
        kind = kinds[len(chosen) % 2] or kinds[1 - len(chosen) % 2]
        miss = kind.pop(0)
        if miss.beyond > 0 and all(miss.row != other.row and miss.code != other.code for other in chosen):
            chosen.append(miss)
    return chosen
