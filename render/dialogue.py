"""Questions and answers about one ECG, composed from its statements.

Three kinds of dialogue, as in ECGInstruct: closed (yes or no), open, report. Text is English and composed from the
statement codes alone, so an answer never says more than the label does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from render.record import EcgRecord
from render.statements import STATEMENTS

CLOSED_FORMS = (
    "Does this ECG show {name}?",
    "Is there {name} on this ECG?",
    "Do you see {name}?",
    "Can you find {name} in this tracing?",
)
"""The first form is the one that scores are asked with; the others keep a model from learning one wording."""

_NORMAL_FORMS = (
    "Is this a normal ECG?",
    "Is this ECG normal?",
    "Would you call this ECG normal?",
    "Is this tracing within normal limits?",
)
_RHYTHM_FORMS = ("What is the rhythm?", "Which rhythm does this ECG show?", "Name the rhythm of this ECG.")
_FINDING_FORMS = (
    "What does this ECG show?",
    "Which findings does this ECG have?",
    "What do you see on this ECG?",
)
_REPORT_FORMS = ("Write a report of this ECG.", "Report this ECG.", "Please interpret this ECG.")

_CANONICAL_SHARE = 0.5  # half of the closed questions use the scoring form, so that it is the best-trained one


@dataclass(frozen=True)
class Dialogue:
    """One question about an image with its answer.

    task: "closed", "open" or "report".
    statements: codes that the dialogue speaks about; a closed question lists the code it asks, present or not.
    provenance: who stands behind the answer: "human", "machine" or "simulated".
    """

    task: str
    question: str
    answer: str
    statements: tuple[str, ...]
    provenance: str

    def messages(self) -> list[dict[str, str]]:
        """The dialogue as chat messages."""
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


def closed_question(code: str, form: int = 0) -> str:
    """The yes/no question about a statement code. Raises KeyError for a code outside the 71."""
    if code == "NORM":
        return _NORMAL_FORMS[form]
    return CLOSED_FORMS[form].format(name=STATEMENTS[code].name)


def label_of(code: str) -> str:
    """The statement's name without its article: "Normal ECG", "Atrial fibrillation"."""
    name = STATEMENTS[code].name
    bare = name.removeprefix("an ").removeprefix("a ")
    return bare[0].upper() + bare[1:]


def report_of(codes: Collection[str]) -> str:
    """Statement codes as report text: rhythm first, then diagnoses, then form, a sentence each; "" for none."""
    known = [STATEMENTS[code] for code in sorted(codes) if code in STATEMENTS]
    ordered = (
        [s for s in known if s.rhythm]
        + [s for s in known if s.diagnostic]
        + [s for s in known if s.form and not s.diagnostic]
    )
    return " ".join(f"{label_of(s.code)}." for s in ordered)


def dialogues(
    record: EcgRecord, rng: np.random.Generator, *, asked: Sequence[str] = tuple(STATEMENTS), closed: int = 16
) -> list[Dialogue]:
    """All dialogues of one page: up to `closed` yes/no questions, the rhythm, and findings or report.

    asked: the codes the source can carry at all; nothing else is asked, because "no" would be a guess.
    Every statement present is asked; the other closed questions are absent statements drawn without repeat.
    """
    present = [code for code in record.statements if code in STATEMENTS]
    absent = [code for code in asked if code not in present]
    negatives = rng.permutation(len(absent))[: max(closed - len(present), len(present))]
    codes = present[:closed] + [absent[i] for i in negatives]
    made = [_closed(record, codes[i], codes[i] in present, rng) for i in rng.permutation(len(codes))]
    rhythm = tuple(code for code in present if STATEMENTS[code].rhythm)
    if rhythm:
        made.append(_spoken(record, "open", _pick(_RHYTHM_FORMS, rng), rhythm))
    if present:
        # Findings and report say the same; one of them a page keeps the long answers from drowning the yes and no.
        task, forms = ("open", _FINDING_FORMS) if rng.random() < 0.5 else ("report", _REPORT_FORMS)
        made.append(_spoken(record, task, _pick(forms, rng), tuple(present)))
    return made


def _closed(record: EcgRecord, code: str, present: bool, rng: np.random.Generator) -> Dialogue:
    form = 0 if rng.random() < _CANONICAL_SHARE else int(rng.integers(1, len(CLOSED_FORMS)))
    return Dialogue("closed", closed_question(code, form), "Yes." if present else "No.", (code,), record.provenance)


def _spoken(record: EcgRecord, task: str, question: str, codes: tuple[str, ...]) -> Dialogue:
    return Dialogue(task, question, report_of(codes), codes, record.provenance)


def _pick(forms: Sequence[str], rng: np.random.Generator) -> str:
    return forms[int(rng.integers(len(forms)))]
