"""What is judged: records with their labels, and a system's scores and answers for them.

Vision-language models, CNNs and CSV files of other people all become a `System` and are judged in the same way, on the
six label tasks of the PTB-XL benchmark (Strodthoff et al. 2020).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.statements import LABEL_TASKS, STATEMENTS, task_classes, task_labels

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ID = "record_id"
TASK_LABELS = dict(zip(LABEL_TASKS, ("all", "diagnostic", "subclass", "superclass", "form", "rhythm"), strict=True))
"""Task -> its short name in tables."""
_OPTIONAL_COLUMNS = ("folds", "patients", "references")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class LabelledRecords:
    """The records that are judged, with their labels.

    Attributes:
        statements: for each record, the codes of the statements that are present.
        dataset: where the records come from, one line.
        noun: what the records are called in a sentence, in the plural.
        folds: for each record its fold (or None), patient ("" when unknown) and reference report ("" for none);
            empty tuples where the data set does not have them.
        patients: for each record its fold (or None), patient ("" when unknown) and reference report ("" for none);
            empty tuples where the data set does not have them.
        references: for each record its fold (or None), patient ("" when unknown) and reference report ("" for
            none); empty tuples where the data set does not have them.
    """

    record_ids: tuple[str, ...]
    statements: tuple[tuple[str, ...], ...]
    dataset: str
    noun: str = "held-out pages"
    folds: tuple[int | None, ...] = ()
    patients: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.record_ids or len(self.record_ids) != len(self.statements):
            raise InputError(
                f"{self.dataset}: {len(self.record_ids)} records with {len(self.statements)} label sets; "
                "an evaluation needs at least one record and one label set for each"
            )
        for name in _OPTIONAL_COLUMNS:
            if len(getattr(self, name)) not in (0, len(self.record_ids)):
                raise InputError(
                    f"{self.dataset}: {len(getattr(self, name))} {name} for {len(self.record_ids)} records"
                )

    def select(self, rows: Sequence[int]) -> LabelledRecords:
        """These rows alone."""
        columns: dict[str, Any] = {
            name: tuple(values[i] for i in rows)
            for name in ("record_ids", "statements", *_OPTIONAL_COLUMNS)
            if (values := getattr(self, name))
        }
        return replace(self, **columns)


@dataclass(frozen=True)
class Answer:
    """One question to a system, its raw answer, and the statements that the parser read from it.

    Attributes:
        present: sorted statement codes; a code is in one of them at most.
        absent: sorted statement codes; a code is in one of them at most.
        uncertain: sorted statement codes; a code is in one of them at most.
        decoding: settings of the generation (temperature, token limit, seed ...).
        statements: the record's labels and its reference report, stored beside the answer so that a file of answers
            can be judged on its own; None and "" when they were not stored.
        reference: the record's labels and its reference report, stored beside the answer so that a file of answers
            can be judged on its own; None and "" when they were not stored.
        unreadable: why the page cannot be read (`render.negatives.unreadable`), "" for a readable page. The answers
            about unreadable pages count in the refusal metrics only.
    """

    record_id: str
    question: str
    answer: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    decoding: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    statements: tuple[str, ...] | None = None
    reference: str = ""
    unreadable: str = ""


@dataclass(frozen=True)
class System:
    """One system on one set of records.

    Attributes:
        scores: (n, 71) probabilities, rows as in `record_ids`, columns as in `render.statements.STATEMENTS`, NaN in
            the column of a statement that the system does not score; None for a system that only answers in words.
        class_scores: task -> (n, c) probabilities of its classes, for a system that scores only the sub- or
            superclasses; NaN as in `scores`.
        notes: one line for the report: what the system is and what it was trained on.
        training: what it was trained on, in a sentence; "" where that is not known.
        cost: "seconds", "pages_per_second", "device" ...; empty when it was not measured.
    """

    name: str
    record_ids: tuple[str, ...]
    scores: Floats | None = None
    answers: tuple[Answer, ...] = ()
    notes: str = ""
    cost: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    class_scores: Mapping[str, Floats] = field(default_factory=lambda: _NOTHING)
    training: str = ""

    def __post_init__(self) -> None:
        where = f"system {self.name!r}"
        check_ids(self.record_ids, None, where)
        if self.scores is not None:
            check_scores(self.scores, self.record_ids, where)
        for task, scores in self.class_scores.items():
            check_scores(scores, self.record_ids, where, task_classes(task))
        own_ids = set(self.record_ids)
        for answer in self.answers:
            if answer.record_id not in own_ids and not answer.unreadable:
                raise InputError(
                    f"{where}: answer for unknown record_id {answer.record_id!r}; remove it or add the record"
                )

    def answers_about(self, *, readable: bool) -> tuple[Answer, ...]:
        """The answers about readable pages, or those about unreadable pages."""
        return tuple(answer for answer in self.answers if readable is not bool(answer.unreadable))

    @property
    def has_scores(self) -> bool:
        """Whether it gives probabilities, of the statements or of classes of them."""
        return self.scores is not None or bool(self.class_scores)

    def scores_of(self, record_ids: Sequence[str]) -> Floats:
        """(len(record_ids), 71) probabilities in this order. Raises InputError for a record without any."""
        rows = self._rows(record_ids, self.scores is not None)
        assert self.scores is not None
        return self.scores[rows]

    def task_scores(self, record_ids: Sequence[str]) -> dict[str, Floats]:
        """Task -> (len(record_ids), c) probabilities of its classes, for every task with a class that is scored.

        Raises InputError for a record without any.
        """
        rows = self._rows(record_ids, self.has_scores)
        if self.scores is None:
            return {task: scores[rows] for task, scores in self.class_scores.items()}
        by_task = {task: task_scores(self.scores[rows], task) for task in LABEL_TASKS}
        return {task: scores for task, scores in by_task.items() if not np.isnan(scores).all()}

    def _rows(self, record_ids: Sequence[str], has_scores: bool) -> list[int]:
        row = {record_id: i for i, record_id in enumerate(self.record_ids)} if has_scores else {}
        missing = [record_id for record_id in record_ids if record_id not in row]
        if missing:
            raise InputError(
                f"system {self.name!r}: no scores for {len(missing)} of {len(record_ids)} records, "
                f"{missing[0]!r} among them; score every record that is judged"
            )
        return [row[record_id] for record_id in record_ids]


def check_ids(record_ids: Sequence[str], valid_ids: Iterable[str] | None, where: str) -> None:
    """Raises InputError when there is no record, a record occurs twice, or one is not in `valid_ids` (None: any)."""
    if not record_ids:
        raise InputError(f"{where}: contains no record; it needs one row per record")
    earlier: set[str] = set()
    valid = None if valid_ids is None else set(valid_ids)
    for record_id in record_ids:
        if record_id in earlier:
            raise InputError(f"{where}: {ID} {record_id!r} occurs twice; keep one row per record")
        if valid is not None and record_id not in valid:
            raise InputError(f"{where}: {ID} {record_id!r} is not among the evaluated records")
        earlier.add(record_id)


def check_scores(
    scores: Floats, record_ids: Sequence[str], where: str, classes: Sequence[str] = tuple(STATEMENTS)
) -> None:
    """Raises InputError that names the first value when the scores are not (records, classes) probabilities.

    A column of NaN alone is one without scores, and fits.
    """
    if scores.shape != (len(record_ids), len(classes)):
        raise InputError(f"{where}: scores are {scores.shape}, expected ({len(record_ids)}, {len(classes)})")
    wrong = np.argwhere(~((scores >= 0) & (scores <= 1)) & ~np.isnan(scores).all(axis=0))  # NaN fails both comparisons
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise InputError(
            f"{where}: record {record_ids[row]!r}, column {classes[column]}: {scores[row, column]} is not "
            f"a probability; every score must lie in [0, 1] ({len(wrong)} do not)"
        )


# --- the label tasks


@dataclass(frozen=True)
class TaskView:
    """One task's part of an evaluation of n records.

    Attributes:
        has_label: (n,) bool, the records with a label of the task; m of them.
        labels: (m, c) bool, of these records alone.
    """

    task: str
    classes: tuple[str, ...]
    labels: Bools
    has_label: Bools

    def scores(self, scores: Floats) -> Floats:
        """This task's (m, c) scores from (n, 71) statement scores."""
        return task_scores(scores, self.task)[self.has_label]


def label_matrix(statement_sets: Sequence[Collection[str]], task: str) -> tuple[Bools, tuple[str, ...]]:
    """Labels of n records for a task: ((n, c) bool, the c class names in column order).

    The rule is the benchmark's (Strodthoff et al. 2020): every statement counts whatever its likelihood, 0.0 included.
    Rows without any label stay in; `task_view` drops them.

    Raises:
        KeyError: For an unknown task.
    """
    classes = task_classes(task)
    column = {name: i for i, name in enumerate(classes)}
    labels = np.zeros((len(statement_sets), len(classes)), dtype=np.bool_)
    for row, codes in enumerate(statement_sets):
        for name in task_labels(codes, task):
            labels[row, column[name]] = True
    return labels, classes


def task_view(statement_sets: Sequence[Collection[str]], task: str) -> TaskView:
    """Labels of a task without the records that have none of its classes (the benchmark drops them)."""
    labels, classes = label_matrix(statement_sets, task)
    has_label = labels.any(axis=1)
    return TaskView(task, classes, labels[has_label], np.asarray(has_label))


def task_scores(scores: NDArray[np.floating], task: str) -> Floats:
    """(n, 71) statement scores -> (n, c) class scores of `task`; all n rows stay in.

    A sub- or superclass scores as high as its highest diagnostic statement, in accordance with its definition: it is
    present as soon as one of its statements is; without a score for one of these (NaN), it has none. The other tasks
    are a selection of columns.

    Raises:
        ValueError: When `scores` does not have one column per statement.
    """
    codes = task_classes("all")
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(codes):
        raise ValueError(f"scores are {values.shape}, expected (records, {len(codes)})")
    members = [[i for i, code in enumerate(codes) if name in task_labels([code], task)] for name in task_classes(task)]
    return np.stack([values[:, columns].max(axis=1) for columns in members], axis=1)
