"""All that `ecg-vlm ask` says about one page: whether it can be read, answers, scores, measurements, warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from PIL import Image

from ecg_vlm import __version__
from ecg_vlm.answer_file import request_of
from ecg_vlm.images import InputPage
from ecg_vlm.page_reading import PageReading, read_page
from ecg_vlm.questions import read_question
from ecg_vlm.reader import QuestionAnswer
from ecg_vlm.rhythm_strip import StripModel
from ecg_vlm.statement_scores import StatementScores
from ecg_vlm.translation import translate
from eval.parser.parse import parse, refusal
from render.dialogues.quantities import contradictions, misfit
from render.dialogues.wording import OPEN_QUESTION
from render.statements import STATEMENTS

SCHEMA_VERSION = 1
"""Of `PageAnswers.to_json`; it rises when a key changes its meaning or goes, not when one is added."""

UNITS = {"rate_bpm": ("rate", "/min"), "pr_ms": ("PR", " ms"), "qrs_ms": ("QRS", " ms"), "qt_ms": ("QT", " ms"),
          "qtc_fridericia_ms": ("QTc (Fridericia)", " ms"), "qrs_axis_deg": ("axis", " degrees")}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PageAnswers:
    """What is said about one page.

    Attributes:
        request: what was asked, of `request_of`.
        refusal_reason: why the page cannot be read, or "": decided once for all questions.
        answers: in the order of the questions; of an unreadable page, the refusal for each.
        scores: of all statements; empty unless asked for, and for an unreadable page.
        warnings: what a reader of the answers must know.
    """

    page: InputPage
    request: Mapping[str, Any]
    reading: PageReading
    refusal_reason: str
    answers: tuple[QuestionAnswer, ...]
    scores: StatementScores = field(default_factory=StatementScores)
    warnings: tuple[str, ...] = ()

    def picture_as_read(self) -> Image.Image:
        """The picture with what was read of it drawn over it; of a page that is not digitized, the picture."""
        from ecg_vlm.digitized_files import overlay

        page = self.reading.page
        return self.page.image if page is None else overlay(page, self.page.image)

    def measurements_in_words(self, language: str = "en") -> str:
        """ "Measured on the waveform: rate 75/min, PR 160 ms, ..."; "" where nothing could be measured."""
        values = self.reading.measurements
        words = [
            f"{translate(name, language)} {values[key]:.0f}{translate(unit, language)}"
            for key, (name, unit) in UNITS.items()
            if key in values
        ]
        heading = translate(f"Measured on the {self.reading.measured_on}", language)
        return f"{heading}: {', '.join(words)}" if words else ""

    def to_json(self) -> dict[str, Any]:
        """One JSON object, of `SCHEMA_VERSION`: `answers.schema.json` beside this file says what its keys are."""
        reading, scores = self.reading, self.scores
        return {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "image": self.page.source,
            "image_sha256": self.page.sha256,
            "page": self.page.number,
            "pages": self.page.count,
            "model": self.request["model"],
            "request": dict(self.request),
            "readable": not self.refusal_reason,
            "refusal_reason": self.refusal_reason,
            "view": reading.source,
            "page_as_read": reading.page.summary() if reading.page else None,
            "not_digitized_because": reading.reason,
            "measurements": {k: round(v, 1) for k, v in reading.measurements.items() if k in UNITS},
            "measured_on": "" if not reading.measurements else reading.measured_on,
            "st_elevation_mv": {lead: round(mv, 3) for lead, mv in reading.st_elevation.items()},
            "warnings": list(self.warnings),
            "answers": [{"answer" if k == "text" else k: v for k, v in asdict(a).items()} for a in self.answers],
            "scores": dict(scores),
            "calibrated": bool(scores.calibration),
            "calibration": scores.calibration,
            "uncalibrated": list(scores.codes_as_given()) if scores.calibration else [],
            "thresholds": {code: scores.threshold(code) for code in scores},
            "verdicts": scores.verdicts(),
        }


class PageModel(Protocol):
    """What answers about pages: a `Reader`, or something else with these methods of it."""

    name: str

    def prefill(self, images: Sequence[Image.Image], /) -> Any:
        """Images, ready for any number of questions."""

    def ask(self, image: Any, questions: Sequence[str], /, *, max_new_tokens: int) -> list[str]:
        """Answers in the model's own words."""

    def answer(
        self,
        prefill: Any,
        question: str,
        /,
        *,
        max_new_tokens: int,
        history: Sequence[tuple[str, str]],
        on_text: Callable[[str], None] | None,
    ) -> QuestionAnswer:
        """One answer, in pieces too, after the turns of `history`."""

    def score(self, image: Any, /) -> Mapping[str, float]:
        """P(present) of all statements; `StatementScores`, or a plain mapping where they are not calibrated."""


Model = TypeVar("Model", bound=PageModel)

EncodedPage = tuple[Any, str, str]
"""What `encode_page` returns."""


def encode_page(model: PageModel, reading: PageReading, *, max_new_tokens: int = 128) -> EncodedPage:
    """Show a model the view of a page.

    A page of which the leads were read is an ECG; of any other the model says whether it can be read, once for all.

    Returns:
        The prefill; and of a page that cannot be read what the model says of it, and why. "" and "" of any other.
    """
    prefill = model.prefill([reading.view])
    if reading.reason:
        opinion = model.ask(prefill, [OPEN_QUESTION], max_new_tokens=max_new_tokens)[0]
        if reason := refusal(opinion):
            return prefill, opinion, f"{reason}; {reading.reason}"
    return prefill, "", ""


def model_for(model: Model, reading: PageReading, *, as_is: bool = False) -> Model | StripModel:
    """What answers about a page: the model, or for one lead alone, which no model was trained on, rules."""
    return StripModel(reading.strip, model.name) if reading.strip and not as_is else model


def answer_page(
    reader: PageModel,
    page: InputPage,
    questions: Sequence[str],
    *,
    scores: bool = False,
    as_is: bool = False,
    max_new_tokens: int = 128,
    history: Sequence[tuple[str, str]] = (),
    reading: PageReading | None = None,
    encoding: EncodedPage | None = None,
    on_reading: Callable[[PageReading], None] | None = None,
    on_text: Callable[[int, str], None] | None = None,
    on_answer: Callable[[int, QuestionAnswer], None] | None = None,
) -> PageAnswers:
    """Read a page, and answer all questions about it from one look.

    Args:
        scores: whether to score all statements, too.
        as_is: show the model the picture as it is.
        history: turns before each question, as `Reader.answer` takes them.
        reading: of the page, where it has been read before.
        encoding: of `encode_page` for this page and model, with the same `as_is`.
        on_reading: called with the page as it was read, before the model sees it.
        on_text: called with the place of a question and each new piece of text of its answer, as `Reader.answer` does.
        on_answer: called with the place of a question and its whole answer.
    """
    request = request_of(reader.name, questions, scores=scores, as_is=as_is, max_new_tokens=max_new_tokens)
    reading = reading or read_page(page, as_is=as_is)
    if on_reading:
        on_reading(reading)
    model = model_for(reader, reading, as_is=as_is)
    prefill, opinion, reason = encoding or encode_page(model, reading, max_new_tokens=max_new_tokens)
    answers: tuple[QuestionAnswer, ...] = ()
    for place, question in enumerate(questions):
        stream = partial(on_text, place) if on_text else None
        if not opinion:
            answer = model.answer(prefill, question, max_new_tokens=max_new_tokens, history=history, on_text=stream)
        else:
            answer = QuestionAnswer(question, opinion)
            if stream:
                stream(opinion)
        if on_answer:
            on_answer(place, answer)
        answers += (answer,)
    if reason:
        return PageAnswers(page, request, reading, reason, answers)
    values = model.score(prefill) if scores else StatementScores()
    values = values if isinstance(values, StatementScores) else StatementScores(values)
    return PageAnswers(page, request, reading, "", answers, values, page_warnings(reading, answers))


def _number_warning(answer: QuestionAnswer, values: Mapping[str, float]) -> str:
    """What an answer about a number says against what was measured, or ""."""
    question = read_question(answer.question)
    key = question.quantity
    claim = misfit(key, question.wording, answer.text, values[key]) if key in UNITS and key in values else ""
    if not claim:
        return ""
    name, unit = UNITS[key]
    claim += "" if '"' in claim else unit
    return f"{claim} does not fit the measured {name} of {values[key]:.0f}{unit}; check it on the page"


def page_warnings(reading: PageReading, answers: Sequence[QuestionAnswer]) -> tuple[str, ...]:
    """What was measured and what was answered, where they contradict each other (not what the model takes back itself);
    and ST elevation, wherever an answer calls the page normal, or does not speak of it."""
    values = reading.measurements
    warnings = dict.fromkeys(filter(None, (_number_warning(answer, values) for answer in answers)))
    statements = [(answer, parse(answer.text, answer.question).present) for answer in answers]
    warnings |= dict.fromkeys(
        f"{STATEMENTS[code].name} does not fit the measured {UNITS[key][0]} of {values[key]:.0f}{UNITS[key][1]}; "
        "check it on the page"
        for answer, codes in statements
        for code, key in contradictions(values, codes)
        if code not in answer.contradicted and key in UNITS
    )
    if not reading.st_elevation:
        return tuple(warnings)
    leads = ", ".join(f"{lead} {round(mv, 3):.2f} mV" for lead, mv in reading.st_elevation.items())
    normal = any("NORM" in codes for _, codes in statements)
    advice = "do not take this ECG for normal" if normal else "have it read at once"
    elevation = f"ST elevation of 0.2 mV or more was measured in neighbouring leads ({leads}); {advice}"
    return (elevation, *warnings)
