"""The held-out pages of a data set, as an evaluation uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.types import LabelledRecords
from render.dataset.parquet import open_dataset
from render.errors import InputError
from render.sources.ptbxl import LABELS_DIFFER


@dataclass(frozen=True)
class Pages:
    """Held-out pages: rows with `image`, `statements`, `record_id`, `patient_id` ...

    Attributes:
        places: number of each row in the data set.
        unreadable: rows of pages that cannot be read (column `unreadable`); the model answers a question about
            them, but they have no scores and no labels.
    """

    rows: Any
    folder: str
    places: tuple[int, ...]
    unreadable: Any = ()

    @property
    def record_ids(self) -> tuple[str, ...]:
        """Record ids in row order."""
        return tuple(self.rows["record_id"])

    def labelled_records(self) -> LabelledRecords:
        """The records of the readable pages, with their labels."""
        return LabelledRecords(
            self.record_ids,
            tuple(tuple(s) for s in self.rows["statements"]),
            self.folder,
            folds=tuple(self.rows["fold"]),
            patients=tuple(patient or "" for patient in self.rows["patient_id"]),
            references=tuple(
                _reference(dialogues, report or "")
                for dialogues, report in zip(self.rows["dialogues"], self.rows["report"], strict=True)
            ),
        )


def load_pages(folder: str, folds: Sequence[int] = (), limit: int = 0) -> Pages:
    """The pages of a data set. PTB-XL records whose labels differ between its versions are left out.

    Raises:
        InputError: When no readable page remains or a record occurs twice.
    """
    rows = open_dataset(folder)
    selection = [
        i
        for i, (source, record, fold) in enumerate(zip(rows["source"], rows["record_id"], rows["fold"], strict=True))
        if (not folds or fold in folds) and not (source == "ptbxl" and record in LABELS_DIFFER)
    ]
    if limit:
        selection = selection[:limit]
    why = rows["unreadable"] if "unreadable" in rows.column_names else [""] * len(rows)
    readable = [i for i in selection if not why[i]]
    unreadable = [i for i in selection if why[i]]
    if not readable and unreadable:
        raise InputError(f"{folder}: every page is unreadable; render readable pages beside them")
    if not readable:
        raise InputError(f"{folder}: no page in fold {', '.join(map(str, folds))}; choose other --folds")
    return Pages(rows.select(readable), folder, tuple(readable), rows.select(unreadable) if unreadable else ())


def _reference(dialogues: Sequence[Mapping[str, Any]], report: str) -> str:
    """The reference for an answer in words: the data set's own English report of the page, else the record's report."""
    for dialogue in dialogues:
        if dialogue["task"] == "report" and dialogue.get("language") in (None, "", "en"):
            return str(dialogue["messages"][-1]["content"])
    return report
