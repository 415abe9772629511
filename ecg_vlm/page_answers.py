"""All that `ecg-vlm ask` says about one page: whether it can be read, answers, scores, measurements, warnings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

from PIL import Image

from ecg_vlm import __version__
from ecg_vlm.images import InputPage
from ecg_vlm.page_reading import PageReading, read_page
from ecg_vlm.reader import QuestionAnswer
from eval.parser.parse import parse, refusal
from render.dialogues.wording import OPEN_QUESTION

SCHEMA_VERSION = 1
"""Of `PageAnswers.to_json`; it rises when a key changes its meaning or goes, not when one is added."""

_UNITS = {"rate_bpm": ("rate", "/min"), "pr_ms": ("PR", " ms"), "qrs_ms": ("QRS", " ms"), "qt_ms": ("QT", " ms"),
          "qrs_axis_deg": ("axis", " degrees")}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PageAnswers:
    """What is said about one page.

    Attributes:
        refusal_reason: why the page cannot be read, or "": decided once for all questions.
        answers: in the order of the questions; of an unreadable page, the refusal for each.
        scores: P(present) by statement code; {} unless asked for, and for an unreadable page.
        warnings: what a reader of the answers must know.
    """

    page: InputPage
    model: str
    reading: PageReading
    refusal_reason: str
    answers: tuple[QuestionAnswer, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def measurements_in_words(self) -> str:
        """ "rate 75/min, PR 160 ms, ...", in the order of a report."""
        values = self.reading.measurements
        return ", ".join(f"{name} {values[key]:.0f}{unit}" for key, (name, unit) in _UNITS.items() if key in values)

    def to_json(self) -> dict[str, Any]:
        """One JSON object, of `SCHEMA_VERSION`."""
        reading = self.reading
        return {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "image": self.page.source,
            "image_sha256": hashlib.sha256(self.page.image.tobytes()).hexdigest(),
            "page": self.page.number,
            "pages": self.page.count,
            "model": self.model,
            "readable": not self.refusal_reason,
            "refusal_reason": self.refusal_reason,
            "view": reading.source,
            "page_as_read": reading.page.summary() if reading.page else None,
            "not_digitized_because": reading.reason,
            "measurements": {k: round(v, 1) for k, v in reading.measurements.items() if k in _UNITS},
            "measured_on": "" if not reading.measurements else reading.measured_on,
            "st_elevation_mv": {lead: round(mv, 3) for lead, mv in reading.st_elevation.items()},
            "warnings": list(self.warnings),
            "answers": [{"answer" if k == "text" else k: v for k, v in asdict(a).items()} for a in self.answers],
            "scores": dict(self.scores),
        }


class PageModel(Protocol):
    """What answers about pages: a `Reader`, or something else with these methods of it."""

    name: str

    def prefill(self, images: Sequence[Image.Image], /) -> Any:
        """Images, ready for any number of questions."""

    def ask(self, image: Any, questions: Sequence[str], /, *, max_new_tokens: int) -> list[str]:
        """Answers in the model's own words."""

    def answer(
        self, prefill: Any, question: str, /, *, max_new_tokens: int, on_text: Callable[[str], None] | None
    ) -> QuestionAnswer:
        """One answer, in pieces too."""

    def score(self, image: Any, /) -> dict[str, float]:
        """P(present) of all statements."""


def answer_page(
    reader: PageModel,
    page: InputPage,
    questions: Sequence[str],
    *,
    scores: bool = False,
    as_is: bool = False,
    max_new_tokens: int = 128,
    reading: PageReading | None = None,
    on_reading: Callable[[PageReading], None] | None = None,
    on_text: Callable[[int, str], None] | None = None,
    on_answer: Callable[[int, QuestionAnswer], None] | None = None,
) -> PageAnswers:
    """Read a page, and answer all questions about it from one look.

    Args:
        scores: whether to score all statements, too.
        as_is: show the model the picture as it is.
        reading: of the page, where it has been read before.
        on_reading: called with the page as it was read, before the model sees it.
        on_text: called with the place of a question and each new piece of text of its answer, as `Reader.answer` does.
        on_answer: called with the place of a question and its whole answer.
    """
    reading = reading or read_page(page, as_is=as_is)
    if on_reading:
        on_reading(reading)
    prefill = reader.prefill([reading.view])
    # A page of which the leads were read is an ECG; of any other the model says whether it can be read, once for all.
    if reading.reason:
        opinion = reader.ask(prefill, [OPEN_QUESTION], max_new_tokens=max_new_tokens)[0]
        if reason := refusal(opinion):
            answers = tuple(QuestionAnswer(question, opinion) for question in questions)
            for place, answer in enumerate(answers):
                if on_text:
                    on_text(place, opinion)
                if on_answer:
                    on_answer(place, answer)
            return PageAnswers(page, reader.name, reading, f"{reason}; {reading.reason}", answers)
    answers = ()
    for place, question in enumerate(questions):
        piece = partial(on_text, place) if on_text else None
        answer = reader.answer(prefill, question, max_new_tokens=max_new_tokens, on_text=piece)
        if on_answer:
            on_answer(place, answer)
        answers += (answer,)
    values = reader.score(prefill) if scores else {}
    return PageAnswers(page, reader.name, reading, "", answers, values, _warnings(reading, answers))


def _warnings(reading: PageReading, answers: Sequence[QuestionAnswer]) -> tuple[str, ...]:
    """ST elevation is told wherever an answer calls the page normal, or does not speak of it."""
    if not reading.st_elevation:
        return ()
    leads = ", ".join(f"{lead} {mv:.2f} mV" for lead, mv in reading.st_elevation.items())
    normal = any("NORM" in parse(answer.text, answer.question).present for answer in answers)
    advice = "do not take this ECG for normal" if normal else "have it read at once"
    return (f"ST elevation of 0.2 mV or more was measured in neighbouring leads ({leads}); {advice}",)
