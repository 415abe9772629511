"""What an evaluation judges on: the held-out pages of a data set, or the labels of records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.answer_files import matching_ids
from eval.storage import labels_in, records_in
from eval.types import LabelledRecords
from render.dataset.parquet import open_dataset
from render.errors import InputError
from render.sources.ptbxl import RESTORED, may_judge
from render.sources.registry import open_source, record_labels


@dataclass(frozen=True)
class Pages:
    """Held-out pages: rows with `image`, `statements`, `record_id`, `patient_id` ...

    Attributes:
        folder: of the data set, or several folders.
        places: number of each row in its data set.
        unreadable: rows of pages that cannot be read (column `unreadable`); the model answers a question about
            them, but they have no scores and no labels.
    """

    rows: Any
    folder: str | Sequence[str]
    places: tuple[int, ...]
    unreadable: Any = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of all data sets."""
        return (self.folder,) if isinstance(self.folder, str) else tuple(self.folder)

    @property
    def record_ids(self) -> tuple[str, ...]:
        """Record ids in row order."""
        return tuple(self.rows["record_id"])

    def labelled_records(self) -> LabelledRecords:
        """The records of the readable pages, with their labels."""
        return LabelledRecords(
            self.record_ids,
            tuple(tuple(s) for s in self.rows["statements"]),
            ", ".join(self.folders),
            folds=tuple(self.rows["fold"]),
            patients=tuple(patient or "" for patient in self.rows["patient_id"]),
            references=tuple(
                _reference(dialogues, report or "")
                for dialogues, report in zip(self.rows["dialogues"], self.rows["report"], strict=True)
            ),
        )


def load_pages(folder: str | Sequence[str], folds: Sequence[int] = (), limit: int = 0) -> Pages:
    """The pages of a data set, or of several. Without records that may not judge (`render.sources.ptbxl.may_judge`).

    Raises:
        InputError: When no readable page remains or a record occurs in two data sets.
    """
    folders = (folder,) if isinstance(folder, str) else tuple(folder)
    rows, places = _rows_of(folders)
    selection = [
        i
        for i, (source, record, fold) in enumerate(zip(rows["source"], rows["record_id"], rows["fold"], strict=True))
        if (not folds or fold in folds) and may_judge(source, record)
    ]
    if limit:
        selection = selection[:limit]
    why = rows["unreadable"] if "unreadable" in rows.column_names else [""] * len(rows)
    readable = [i for i in selection if not why[i]]
    unreadable = [i for i in selection if why[i]]
    if not readable and unreadable:
        raise InputError(f"{', '.join(folders)}: every page is unreadable; render readable pages beside them")
    if not readable and set(rows["source"]) == {RESTORED}:
        raise InputError(f"{', '.join(folders)}: restored records are for training, never judged on; render others")
    if not readable:
        raise InputError(f"{', '.join(folders)}: no page in fold {', '.join(map(str, folds))}; choose other --folds")
    return Pages(
        rows.select(readable),
        folder,
        tuple(places[i] for i in readable),
        rows.select(unreadable) if unreadable else (),
    )


def _rows_of(folders: Sequence[str]) -> tuple[Any, list[int]]:
    """The rows of all data sets, and the number of each in its own. Raises `InputError` for a record in two of them."""
    from datasets import concatenate_datasets

    parts = [open_dataset(folder) for folder in folders]
    if len(parts) == 1:
        return parts[0], list(range(len(parts[0])))
    home: dict[str, str] = {}
    for folder, part in zip(folders, parts, strict=True):
        for record_id in set(part["record_id"]):
            if record_id in home:
                raise InputError(f"record {record_id} is in {home[record_id]} and in {folder}; leave one of them out")
            home[record_id] = folder
    return concatenate_datasets(parts), [i for part in parts for i in range(len(part))]


def records_for(
    files: Sequence[str], labels: str | Sequence[str] = "", folds: Sequence[int] = (), limit: int = 0
) -> LabelledRecords:
    """The records that files of results are judged on: those of the first file that have labels.

    Args:
        labels: a source of records, such as ptbxl:DIR, or several; without one the labels in the first file count.
        folds: of PTB-XL.
        limit: the number of first records; 0 for all.

    Raises:
        InputError: When there are no labels, or none for a record of the file.
    """
    path = Path(files[0])
    if not labels:
        records = labels_in(path)
        if records is None:
            raise InputError(f"{path}: has no labels; name their source: --labels ptbxl:DIR, or --data PAGES")
        numbers = records.folds or (None,) * len(records.record_ids)
        selection = [i for i, fold in enumerate(numbers) if not folds or fold in folds]
        if not selection:
            raise InputError(f"{path}: no record in fold {', '.join(map(str, folds))}; choose other --folds")
        return records.select(selection[: limit or len(selection)])
    records = source_labels(labels, folds)
    ids = set(matching_ids(records_in(path), records.record_ids)) or set(records.record_ids)
    selection = [i for i, record_id in enumerate(records.record_ids) if record_id in ids]
    if not selection:
        raise InputError(
            f"{path}: none of its {len(ids)} records is in {records.dataset}; there a record is called "
            f"{records.record_ids[0]!r}, in the file {min(ids)!r:.60}"
        )
    selection = selection[: limit or len(selection)]
    dataset = f"{records.dataset}; those in {path.name}, of {len(records.record_ids):,}"
    return replace(records.select(selection), dataset=dataset)


def source_labels(spec: str | Sequence[str], folds: Sequence[int] = ()) -> LabelledRecords:
    """The labels of a source of records, without those that may not judge (`render.sources.ptbxl.may_judge`).

    spec: as of `render.sources.registry.open_source`.
    """
    source = open_source(spec, folds=folds or None)
    labels = [each for each in record_labels(source) if may_judge(each.source, each.record_id)]
    name = spec if isinstance(spec, str) else ", ".join(spec)
    return LabelledRecords(
        tuple(each.record_id for each in labels),
        tuple(each.statements for each in labels),
        f"{name}{', fold ' if folds else ''}{', '.join(map(str, folds))}",
        noun="records",
        folds=tuple(each.fold for each in labels),
        patients=tuple(each.patient_id for each in labels),
        references=tuple(each.report for each in labels),
    )


def _reference(dialogues: Sequence[Mapping[str, Any]], report: str) -> str:
    """The reference for an answer in words: the data set's own English report of the page, else the record's report."""
    for dialogue in dialogues:
        if dialogue["task"] == "report" and dialogue.get("language") in (None, "", "en"):
            return str(dialogue["messages"][-1]["content"])
    return report
