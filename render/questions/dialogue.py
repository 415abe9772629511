"""Questions and answers about one ECG, composed from its statements and measurements.

The tasks and forms of ECGInstruct (Liu et al., arXiv 2410.19008). English text is composed from the statement codes
and the measured numbers alone, so an answer never says more than they do; a German report is passed on as it is. Who
stands behind an answer is its provenance.

On a page: the yes/no questions, one multiple choice, one fill-in, the rhythm, findings or report (they say the same;
one of them a page keeps the long answers from drowning the yes and no), a German report where there is one, and three
measurements. They come in this order; the yes/no questions are shuffled.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np

from render.measurements import measure
from render.questions.features import feature_questions, lettered, no_pr_question
from render.questions.language import language_of
from render.questions.wording import (
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
    joined,
    label_of,
    ordered,
    pick,
    pick_closed,
    pick_question,
    refusal_of,
)
from render.record import EcgRecord
from render.statements import PREVALENCE, STATEMENTS

TASKS = ("features", "rhythm", "morphology", "report")
FORMS = ("closed", "choice", "fill", "open")

HARD_SHARE = 0.5
"""Share of the absent statements asked that is easily taken for one that is present, where there are enough such.

Over PTB-XL's label sets it comes to 0.41, over simulated ones to 0.30."""
FEATURES_A_PAGE = 3
REFUSED_A_PAGE = (3, 6)
"""Least and most questions about a page that cannot be read."""
_HARD_CHOICES = 0.5  # share of multiple choices with hard wrong options


@dataclass(frozen=True)
class Dialogue:
    """One question about an image with its answer.

    task: one of `TASKS`. form: one of `FORMS`. language: of the answer, "en" or "de".
    statements: codes that the dialogue speaks about, present or not: the code that a closed question asks; the right
        option of a multiple choice and after it the wrong ones; none for a measurement.
    provenance: who stands behind the answer: "human", "machine", "simulated" or "measured"
    (`render.measurements`).
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


@cache
def related(relation: str) -> Mapping[str, frozenset[str]]:
    """Rows of `confusable.csv`: "near" (code -> easily confused with it) or "holds" (code -> true along with it)."""
    text = (files("render.questions") / "confusable.csv").read_text(encoding="utf-8")
    pairs = [
        (row["code"], row["other"])
        for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
        if row["relation"] == relation
    ]
    pairs += [(b, a) for a, b in pairs] if relation == "near" else []
    return {code: frozenset(b for a, b in pairs if a == code) for code in STATEMENTS}


def dialogues(
    record: EcgRecord,
    rng: np.random.Generator,
    *,
    asked: Sequence[str] = tuple(STATEMENTS),
    closed: int | None = None,
    tasks: Collection[str] = TASKS,
    prevalence: Mapping[str, float] | None = None,
) -> list[Dialogue]:
    """The dialogues of one page; a function of its arguments and the state of `rng`.

    asked: the codes the source can carry at all; nothing else is asked, because "no" would be a guess.
    closed: None for every statement present and, over a data set, each statement as often absent as present; a number
        for at most so many: those present, the same absent ones, then further absent ones, each as likely.
    prevalence: share of the data set's records that carry each code; None for that of PTB-XL, or of the simulator for
        simulated records. A code that more than half the records carry cannot be absent as often as present: it is
        asked wherever it is absent.
    A record without statements gets measurements only. Leaving tasks out leaves the other dialogues as they are.
    Raises ValueError for an unknown task.
    """
    if unknown := set(tasks) - set(TASKS):
        raise ValueError(f"unknown tasks: {', '.join(sorted(unknown))}; known are {', '.join(TASKS)}")
    if prevalence is None:
        prevalence = PREVALENCE["simulated" if record.source == "simulated" else "ptbxl"]
    made: list[Dialogue] = []
    if any(code in STATEMENTS for code in record.statements):
        made += _spoken(record, rng, asked, closed, prevalence)
    made = [dialogue for dialogue in made if dialogue.task in tasks]
    return made + (_features(record, rng) if "features" in tasks else [])


def _spoken(
    record: EcgRecord,
    rng: np.random.Generator,
    asked: Sequence[str],
    closed: int | None,
    prevalence: Mapping[str, float],
) -> list[Dialogue]:
    """Every dialogue about statements."""
    present = [code for code in record.statements if code in STATEMENTS]
    excluded = {*present, *(other for code in present for other in related("holds")[code])}
    absent = [code for code in asked if code not in excluded]
    codes = present + _negatives(present, absent, rng, frozenset(asked), prevalence)
    if closed is not None:
        further = [code for code in absent if code not in codes]
        codes = (codes + [further[i] for i in rng.permutation(len(further))])[:closed]
    made = [_closed(record, codes[i], codes[i] in present, rng) for i in rng.permutation(len(codes))]
    made += _choice(record, present, absent, rng, prevalence)
    made += _fill(record, present, rng)
    rhythm = tuple(code for code in present if STATEMENTS[code].rhythm)
    if rhythm:
        made.append(_open(record, "rhythm", RHYTHM_QUESTIONS, RHYTHM_ANSWERS, rhythm, rng))
    if rng.random() < 0.5:
        made.append(_open(record, "morphology", FINDING_QUESTIONS, FINDING_ANSWERS, tuple(present), rng))
    else:
        made.append(_open(record, "report", REPORT_QUESTIONS, REPORT_ANSWERS, tuple(present), rng))
    if record.source != "mimic" and language_of(record.report) == "de":
        question = pick(GERMAN_QUESTIONS, rng)
        made.append(Dialogue("report", "open", question, record.report, tuple(present), record.provenance, "de"))
    return made


def refused(told: Sequence[Dialogue], kind: str, lost: Sequence[str], rng: np.random.Generator) -> list[Dialogue]:
    """The questions of some of a page's dialogues, each answered by why the page cannot be read.

    kind, lost: as of `render.pages.unreadable.Unreadable`. `REFUSED_A_PAGE` of them, or all where there are fewer.
    Nothing is said of any statement; the provenance is "simulated", as the fault is our own making.
    """
    count = int(rng.integers(REFUSED_A_PAGE[0], REFUSED_A_PAGE[1] + 1))
    return [
        replace(d, answer=refusal_of(kind, lost, d.language, rng), statements=(), provenance="simulated")
        for d in (told[i] for i in sorted(rng.permutation(len(told))[:count].tolist()))
    ]


def task_of(code: str) -> str:
    """The task that a question about one statement belongs to: "rhythm" or "morphology"."""
    return "rhythm" if STATEMENTS[code].rhythm else "morphology"


def _negatives(
    present: Sequence[str],
    absent: Sequence[str],
    rng: np.random.Generator,
    asked: frozenset[str],
    prevalence: Mapping[str, float],
) -> list[str]:
    """Absent codes to ask about, each drawn by itself.

    A code of prevalence p is to be drawn on a share p of all records. `HARD_SHARE` of these draws falls on records
    with a statement near to it, the rest on the others; how many records of either kind there are is reckoned from
    the prevalences as if statements were independent, which leaves most codes within a quarter of balance. Where one
    kind is too rare, the other makes up for it.
    """
    shares = tuple(prevalence.get(code, 0.0) for code in STATEMENTS)
    chances = _chances(shares, asked)
    hard = {other for code in present for other in related("near")[code]}
    drawn = rng.random(len(absent))
    return [code for code, x in zip(absent, drawn, strict=True) if x < chances[code][code in hard]]


@lru_cache(maxsize=8)
def _chances(shares: tuple[float, ...], asked: frozenset[str]) -> dict[str, tuple[float, float]]:
    """code -> chance to be asked where it is absent and (nothing, something) near to it is present."""
    share = dict(zip(STATEMENTS, shares, strict=True))
    near, holds = related("near"), related("holds")
    chances = {}
    for code in asked:
        wanted = share[code]
        free = 1.0 - wanted
        for other in STATEMENTS:
            free *= 1.0 - share[other] if code in holds[other] else 1.0
        away = free * float(np.prod([1.0 - share[other] for other in near[code]]))
        beside = free - away
        hard = min(1.0, HARD_SHARE * wanted / beside) if beside > 0 else 0.0
        easy = min(1.0, (wanted - hard * beside) / away) if away > 0 else 0.0
        hard = min(1.0, (wanted - easy * away) / beside) if beside > 0 else 0.0
        chances[code] = (easy, hard)
    return chances


def _closed(record: EcgRecord, code: str, present: bool, rng: np.random.Generator) -> Dialogue:
    question = pick_closed(code, rng)
    said = "Yes." if present else "No."
    return Dialogue(task_of(code), "closed", question, said, (code,), record.provenance)


def _choice(
    record: EcgRecord,
    present: Sequence[str],
    absent: Sequence[str],
    rng: np.random.Generator,
    prevalence: Mapping[str, float],
) -> Iterator[Dialogue]:
    """One statement present among three absent ones. Half the time, the wrong ones are near to those present.

    Wrong options are drawn by prevalence, so that a common name is not the right one for being common. A rhythm is
    asked among rhythms, as far as there are such.
    """
    right = present[int(rng.integers(len(present)))]
    hard = {other for code in present for other in related("near")[code]}
    first = [code for code in absent if code in hard] if rng.random() < _HARD_CHOICES else []
    alike = [code for code in absent if STATEMENTS[code].rhythm == STATEMENTS[right].rhythm and code not in first]
    wrong = (_drawn(first, prevalence, rng) + _drawn(alike, prevalence, rng))[:3]
    if len(wrong) < 3:
        return
    options = [right, *wrong]
    order = rng.permutation(4).tolist()
    only_rhythms = all(STATEMENTS[code].rhythm for code in options)
    question = pick(RHYTHM_CHOICES if only_rhythms else CHOICE_QUESTIONS, rng)
    form, question, said = lettered(question, [label_of(options[i]) for i in order], order.index(0))
    yield Dialogue(task_of(right), form, question, said, tuple(options), record.provenance)


def _drawn(codes: Sequence[str], prevalence: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """The codes in a random order in which common ones tend to come first (weights: Efraimidis and Spirakis 2006)."""
    keys = rng.exponential(size=len(codes)) / np.maximum([prevalence.get(code, 0.0) for code in codes], 1e-6)
    return [codes[i] for i in np.argsort(keys)]


def _fill(record: EcgRecord, present: Sequence[str], rng: np.random.Generator) -> Iterator[Dialogue]:
    """One gap: the rhythm, or the diagnoses of one superclass of which some are present."""
    blanks: dict[str, list[str]] = {}
    for statement in ordered(present):
        kind = "rhythm" if statement.rhythm else statement.superclass
        if kind in FILL_QUESTIONS:
            blanks.setdefault(kind, []).append(statement.code)
    if any(code.startswith("INJ") for code in blanks.get("MI", ())):  # injury stands in that class, but is no infarct
        del blanks["MI"]
    if blanks:
        kind = pick(list(blanks), rng)
        said = joined(bare(code) for code in blanks[kind])
        task = "rhythm" if kind == "rhythm" else "morphology"
        yield Dialogue(task, "fill", pick(FILL_QUESTIONS[kind], rng), said, tuple(blanks[kind]), record.provenance)


def _open(
    record: EcgRecord,
    task: str,
    questions: Sequence[str],
    answers: Sequence[str],
    codes: tuple[str, ...],
    rng: np.random.Generator,
) -> Dialogue:
    said = answer(pick(answers, rng), codes)
    return Dialogue(task, "open", pick_question(questions, rng), said, codes, record.provenance)


def _features(record: EcgRecord, rng: np.random.Generator) -> list[Dialogue]:
    measured, by = (record.measured, record.measured_by) if record.measured else (measure(record), "measured")
    none = no_pr_question(record.statements, rng)
    made = [Dialogue("features", *none, (), record.provenance)] if none else []
    found = feature_questions(measured, record.statements, FEATURES_A_PAGE - len(made), rng)
    return made + [Dialogue("features", form, question, said, (), by) for form, question, said in found]
