"""Questions and answers about one ECG, composed from its statements and measurements.

The tasks and forms of ECGInstruct (Liu et al., arXiv 2410.19008). English text is composed from the statement codes
and the measurements alone, so that an answer states nothing beyond them; a German report is used unchanged. The origin
of an answer is its provenance.

A page gets the yes/no questions, one multiple choice, one fill-in, the rhythm, either the findings or the report (they
state the same, and more long answers would outweigh the yes and no), a German report where there is one, and three
measurements. They come in this order; the yes/no questions are shuffled.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Protocol

import numpy as np

from render.dialogues.language import language_of
from render.dialogues.quantities import choice_question, feature_questions, no_pr_question
from render.dialogues.wording import (
    CHOICE_QUESTIONS,
    FILL_QUESTIONS,
    FINDING_ANSWERS,
    FINDING_QUESTIONS,
    GERMAN_QUESTIONS,
    REPORT_ANSWERS,
    REPORT_QUESTIONS,
    RHYTHM_ANSWERS,
    RHYTHM_CHOICES,
    RHYTHM_QUESTIONS,
    answer,
    bare,
    enumeration,
    in_report_order,
    label_of,
    pick,
    pick_closed,
    pick_question,
    refusal_of,
)
from render.measurements import measure
from render.record import EcgRecord
from render.statements import PREVALENCE, STATEMENTS

DIALOGUE_TASKS = ("features", "rhythm", "morphology", "report")
FORMS = ("closed", "choice", "fill", "open")

HARD_SHARE = 0.5
"""Share of the questions about absent statements whose statement is easily confused with one present, where possible.

Over PTB-XL's label sets it is 0.41, over simulated ones 0.30."""
FEATURES_A_PAGE = 3
REFUSED_A_PAGE = (3, 6)
"""Fewest and most questions about a page that cannot be read."""
_HARD_CHOICES = 0.5  # share of multiple choices with hard wrong options


@dataclass(frozen=True)
class Dialogue:
    """One question about an image with its answer.

    Attributes:
        task: one of `DIALOGUE_TASKS`.
        form: one of `FORMS`.
        language: of the answer, "en" or "de".
        statements: codes that the dialogue is about, present or not: the code of a closed question; of a multiple
            choice first the right option, then the wrong ones; none for a measurement.
        provenance: origin of the answer: "human", "machine", "simulated" or "measured" (`render.measurements`).
    """

    task: str
    form: str
    question: str
    answer: str
    statements: tuple[str, ...]
    provenance: str
    language: str = "en"

    def messages(self) -> list[dict[str, str]]:
        """The dialogue as chat messages."""
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


class Labels(Protocol):
    """What the questions about statements take from a record, or from a picture whose waveform nobody has.

    The attributes are those of `render.record.EcgRecord`.
    """

    @property
    def statements(self) -> tuple[str, ...]: ...

    @property
    def report(self) -> str: ...

    @property
    def provenance(self) -> str: ...

    @property
    def source(self) -> str: ...


@cache
def related_statements(relation: str) -> Mapping[str, frozenset[str]]:
    """Pairs of `confusable.csv`: code -> codes related to it.

    Args:
        relation: "near" (easily confused with it) or "holds" (true whenever it is).
    """
    text = (files("render.dialogues") / "confusable.csv").read_text(encoding="utf-8")
    pairs = [
        (row["code"], row["other"])
        for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
        if row["relation"] == relation
    ]
    pairs += [(b, a) for a, b in pairs] if relation == "near" else []
    return {code: frozenset(b for a, b in pairs if a == code) for code in STATEMENTS}


def compose_dialogues(
    record: EcgRecord,
    rng: np.random.Generator,
    *,
    vocabulary: Sequence[str] = tuple(STATEMENTS),
    closed: int | None = None,
    tasks: Collection[str] = DIALOGUE_TASKS,
    prevalence: Mapping[str, float] | None = None,
) -> list[Dialogue]:
    """The dialogues of one page; a function of its arguments and the state of `rng`.

    A record without statements gets measurements only. Leaving out a task does not change the other dialogues.

    Args:
        vocabulary: codes that the source can carry; no other is asked about, because "no" would be a guess.
        closed: None for every statement present and, over a data set, each statement as often absent as present; a
            number for at most so many: those present, the same absent ones, then further absent ones, each as
            likely.
        prevalence: share of the data set's records that carry each code; None for that of PTB-XL, or of the
            simulator for simulated records. A code that more than half the records carry cannot be absent as often
            as present: it is asked about wherever it is absent.

    Raises:
        ValueError: For an unknown task.
    """
    result = statement_dialogues(record, rng, vocabulary=vocabulary, closed=closed, tasks=tasks, prevalence=prevalence)
    return result + (_features(record, rng) if "features" in tasks else [])


def statement_dialogues(
    record: Labels,
    rng: np.random.Generator,
    *,
    vocabulary: Sequence[str] = tuple(STATEMENTS),
    closed: int | None = None,
    tasks: Collection[str] = DIALOGUE_TASKS,
    prevalence: Mapping[str, float] | None = None,
) -> list[Dialogue]:
    """The dialogues of `compose_dialogues` that need no waveform: all but the measurements, with its arguments.

    Raises:
        ValueError: For an unknown task.
    """
    if unknown := set(tasks) - set(DIALOGUE_TASKS):
        raise ValueError(f"unknown tasks: {', '.join(sorted(unknown))}; valid are {', '.join(DIALOGUE_TASKS)}")
    if not any(code in STATEMENTS for code in record.statements):
        return []
    if prevalence is None:
        prevalence = PREVALENCE["simulated" if record.source == "simulated" else "ptbxl"]
    page_dialogues = _statement_dialogues(record, rng, vocabulary, closed, prevalence)
    return [dialogue for dialogue in page_dialogues if dialogue.task in tasks]


def _statement_dialogues(
    record: Labels,
    rng: np.random.Generator,
    vocabulary: Sequence[str],
    closed: int | None,
    prevalence: Mapping[str, float],
) -> list[Dialogue]:
    """Every dialogue about statements."""
    present = [code for code in record.statements if code in STATEMENTS]
    not_deniable = {*present, *(other for code in present for other in related_statements("holds")[code])}
    absent = [code for code in vocabulary if code not in not_deniable]
    codes = present + _negatives(present, absent, rng, frozenset(vocabulary), prevalence)
    if closed is not None:
        further = [code for code in absent if code not in codes]
        codes = (codes + [further[i] for i in rng.permutation(len(further))])[:closed]
    result = [_closed(record, codes[i], codes[i] in present, rng) for i in rng.permutation(len(codes))]
    result += _choice(record, present, absent, rng, prevalence)
    result += _fill(record, present, rng)
    rhythm = tuple(code for code in present if STATEMENTS[code].rhythm)
    if rhythm:
        result.append(_open(record, "rhythm", RHYTHM_QUESTIONS, RHYTHM_ANSWERS, rhythm, rng))
    if rng.random() < 0.5:
        result.append(_open(record, "morphology", FINDING_QUESTIONS, FINDING_ANSWERS, tuple(present), rng))
    else:
        result.append(_open(record, "report", REPORT_QUESTIONS, REPORT_ANSWERS, tuple(present), rng))
    if record.source != "mimic" and language_of(record.report) == "de":
        question = pick(GERMAN_QUESTIONS, rng)
        result.append(Dialogue("report", "open", question, record.report, tuple(present), record.provenance, "de"))
    return result


def refusals(
    page_dialogues: Sequence[Dialogue], kind: str, missing_leads: Sequence[str], rng: np.random.Generator
) -> list[Dialogue]:
    """Some of a page's questions, each with the reason why the page cannot be read as its answer.

    Args:
        kind: those of `render.negatives.unreadable.Unreadable`. `REFUSED_A_PAGE` of the questions, or all where
            there are fewer. No statement is mentioned; the provenance is "simulated", like the fault itself.
        missing_leads: those of `render.negatives.unreadable.Unreadable`. `REFUSED_A_PAGE` of the questions, or all
            where there are fewer. No statement is mentioned; the provenance is "simulated", like the fault itself.
    """
    count = int(rng.integers(REFUSED_A_PAGE[0], REFUSED_A_PAGE[1] + 1))
    return [
        replace(
            dialogue,
            answer=refusal_of(kind, missing_leads, dialogue.language, rng),
            statements=(),
            provenance="simulated",
        )
        for dialogue in (page_dialogues[i] for i in sorted(rng.permutation(len(page_dialogues))[:count].tolist()))
    ]


def task_of(code: str) -> str:
    """The task that a question about one statement belongs to: "rhythm" or "morphology"."""
    return "rhythm" if STATEMENTS[code].rhythm else "morphology"


def _negatives(
    present: Sequence[str],
    absent: Sequence[str],
    rng: np.random.Generator,
    vocabulary: frozenset[str],
    prevalence: Mapping[str, float],
) -> list[str]:
    """Absent codes to ask about, each sampled independently.

    A code of prevalence p should be sampled on a share p of all records. `HARD_SHARE` of these samples should fall on
    records with a statement near to it, the rest on the others. The number of records of either kind is estimated from
    the prevalences as if statements were independent, which balances most codes within a quarter. Where one kind is
    too rare, the other replaces it.
    """
    shares = tuple(prevalence.get(code, 0.0) for code in STATEMENTS)
    chances = _chances(shares, vocabulary)
    hard = {other for code in present for other in related_statements("near")[code]}
    numbers = rng.random(len(absent))
    return [code for code, number in zip(absent, numbers, strict=True) if number < chances[code][code in hard]]


@lru_cache(maxsize=8)
def _chances(shares: tuple[float, ...], vocabulary: frozenset[str]) -> dict[str, tuple[float, float]]:
    """code -> chance of a question where it is absent and (no, some) statement near to it is present."""
    share = dict(zip(STATEMENTS, shares, strict=True))
    near, holds = related_statements("near"), related_statements("holds")
    chances = {}
    for code in vocabulary:
        target = share[code]
        free = 1.0 - target
        for other in STATEMENTS:
            free *= 1.0 - share[other] if code in holds[other] else 1.0
        far = free * float(np.prod([1.0 - share[other] for other in near[code]]))
        close = free - far
        hard = min(1.0, HARD_SHARE * target / close) if close > 0 else 0.0
        easy = min(1.0, (target - hard * close) / far) if far > 0 else 0.0
        hard = min(1.0, (target - easy * far) / close) if close > 0 else 0.0
        chances[code] = (easy, hard)
    return chances


def _closed(record: Labels, code: str, present: bool, rng: np.random.Generator) -> Dialogue:
    question = pick_closed(code, rng)
    text = "Yes." if present else "No."
    return Dialogue(task_of(code), "closed", question, text, (code,), record.provenance)


def _choice(
    record: Labels,
    present: Sequence[str],
    absent: Sequence[str],
    rng: np.random.Generator,
    prevalence: Mapping[str, float],
) -> Iterator[Dialogue]:
    """One statement present among three absent ones. Half the time, the wrong ones are near to those present.

    Wrong options are sampled by prevalence, so that a common name is not more often right than wrong. A rhythm is
    asked among rhythms, as far as possible.
    """
    right = present[int(rng.integers(len(present)))]
    hard = {other for code in present for other in related_statements("near")[code]}
    first = [code for code in absent if code in hard] if rng.random() < _HARD_CHOICES else []
    alike = [code for code in absent if STATEMENTS[code].rhythm == STATEMENTS[right].rhythm and code not in first]
    wrong = (_weighted_order(first, prevalence, rng) + _weighted_order(alike, prevalence, rng))[:3]
    if len(wrong) < 3:
        return
    options = [right, *wrong]
    order = rng.permutation(4).tolist()
    only_rhythms = all(STATEMENTS[code].rhythm for code in options)
    question = pick(RHYTHM_CHOICES if only_rhythms else CHOICE_QUESTIONS, rng)
    form, question, text = choice_question(question, [label_of(options[i]) for i in order], order.index(0))
    yield Dialogue(task_of(right), form, question, text, tuple(options), record.provenance)


def _weighted_order(codes: Sequence[str], prevalence: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """The codes in a random order in which common ones tend to come first (weights: Efraimidis and Spirakis 2006)."""
    keys = rng.exponential(size=len(codes)) / np.maximum([prevalence.get(code, 0.0) for code in codes], 1e-6)
    return [codes[i] for i in np.argsort(keys)]


def _fill(record: Labels, present: Sequence[str], rng: np.random.Generator) -> Iterator[Dialogue]:
    """One gap: the rhythm, or the diagnoses of one superclass of which some are present."""
    blanks: dict[str, list[str]] = {}
    for statement in in_report_order(present):
        kind = "rhythm" if statement.rhythm else statement.superclass
        if kind in FILL_QUESTIONS:
            blanks.setdefault(kind, []).append(statement.code)
    if any(code.startswith("INJ") for code in blanks.get("MI", ())):  # injury belongs to that class, but is no infarct
        del blanks["MI"]
    if blanks:
        kind = pick(list(blanks), rng)
        text = enumeration(bare(code) for code in blanks[kind])
        task = "rhythm" if kind == "rhythm" else "morphology"
        yield Dialogue(task, "fill", pick(FILL_QUESTIONS[kind], rng), text, tuple(blanks[kind]), record.provenance)


def _open(
    record: Labels,
    task: str,
    questions: Sequence[str],
    answers: Sequence[str],
    codes: tuple[str, ...],
    rng: np.random.Generator,
) -> Dialogue:
    text = answer(pick(answers, rng), codes)
    return Dialogue(task, "open", pick_question(questions, rng), text, codes, record.provenance)


def _features(record: EcgRecord, rng: np.random.Generator) -> list[Dialogue]:
    numbers, origin = (
        (record.measurements, record.measured_by) if record.measurements else (measure(record), "measured")
    )
    no_pr = no_pr_question(record.statements, rng)
    result = [Dialogue("features", *no_pr, (), record.provenance)] if no_pr else []
    questions = feature_questions(numbers, record.statements, FEATURES_A_PAGE - len(result), rng)
    return result + [Dialogue("features", form, question, text, (), origin) for form, question, text in questions]
