"""One printable page about an ECG: the picture as read, the answers, what was measured, and the 71 statements as bars.

Made from the JSON object of `PageAnswers.to_json`, as `ecg-vlm ask --json` prints it and the API answers, with one
more key: "as_read", the picture with what was read drawn over it, PNG or JPEG as a data URI. An object may come from
anywhere: all text is escaped, and nothing in it can load anything.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ecg_vlm.page_answers import UNITS, PageAnswers
from ecg_vlm.statement_scores import GROUPS, group_of
from ecg_vlm.translation import translate
from render.dialogues.wording import label_of, names_of
from render.errors import InputError
from render.io import atomic_write

DISCLAIMER = "Not a medical device. Nothing on this page is a diagnosis; a clinician has to read the ECG."
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/]+={0,2})")
CAPTION = "The picture as read: each lead in a colour with its box, name and quality (0 to 1), a tick below each beat."
_MOST_PICTURE_PIXELS = 16_000_000


@dataclass(frozen=True)
class Bar:
    """The score of a statement.

    threshold: from which p on it is called present. present: NORM not beside damage. as_given: not calibrated, where
    others are.
    """

    code: str
    name: str
    p: float
    threshold: float
    present: bool
    as_given: bool


@dataclass(frozen=True)
class Lead:
    """A stretch of a lead. facts: when it is, its quality, what of it is missing, remarks."""

    name: str
    facts: str


@dataclass(frozen=True)
class AnswerLine:
    """A question with its answer, in the order in which a reader takes them. notes: what the model takes back."""

    question: str
    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ReportContent:
    """What a report shows, checked and in its language.

    Attributes:
        language: "en" or "de".
        source: name of the picture's file.
        facts: where it comes from and how it was read, in words.
        measurements: name, value and unit.
        picture: as read, PNG; b"" without one.
        digest: of the picture's file.
        groups: of `GROUPS`, those that have bars; largest score first.
        scores_note: how the bars are to be read.
    """

    language: str
    source: str
    facts: tuple[str, ...]
    refusal_reason: str
    warnings: tuple[str, ...]
    answers: tuple[AnswerLine, ...]
    measurements: tuple[tuple[str, str, str], ...]
    measured_on: str
    leads: tuple[Lead, ...]
    picture: bytes
    digest: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    scores_note: str

    def say(self, text: str) -> str:
        """A sentence in the language of the report."""
        return translate(text, self.language)


def write_page_report(file: Path, answers: PageAnswers, language: str = "en") -> None:
    """Write the report about a page, HTML or PDF by the suffix of the file, in English or German ("de")."""
    result = answers.to_json() | {"as_read": data_uri(answers.picture_as_read())}
    content = _report(file.suffix.lower(), result, language)
    with atomic_write(file) as partial:
        partial.write_bytes(content)


def data_uri(image: Image.Image, colours: int = 0) -> str:
    """A picture as a PNG in a data URI, with so many colours; 0 for all of them."""
    stream = io.BytesIO()
    (image.quantize(colours) if colours else image.convert("RGB")).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _report(suffix: str, result: Mapping[str, Any], language: str) -> bytes:
    return page_report_pdf(result, language) if suffix == ".pdf" else page_report_html(result, language).encode()


def page_report_html(result: Mapping[str, Any], language: str = "en") -> str:
    """The report as one HTML page without scripts and without anything from elsewhere.

    Raises:
        InputError: When `result` is no object of `PageAnswers.to_json`.
    """
    content = report_content(result, language)
    picture = f"data:image/png;base64,{base64.b64encode(content.picture).decode()}" if content.picture else ""
    return render_page("page_report.html.j2", report=content, picture=picture, caption=CAPTION)


def render_page(template: str, **values: Any) -> str:
    """A page from a template of this package, which escapes everything; it has the disclaimer, too."""
    environment = Environment(
        loader=PackageLoader("ecg_vlm", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(disclaimer=DISCLAIMER, **values)


def page_report_pdf(result: Mapping[str, Any], language: str = "en") -> bytes:
    """The report as a PDF of A4 pages.

    Raises:
        InputError: When `result` is no object of `PageAnswers.to_json`.
        ModuleNotFoundError: Without fpdf2, of the extra [formats].
    """
    from ecg_vlm.page_pdf import write_pdf

    return write_pdf(report_content(result, language), DISCLAIMER)


def report_content(result: Mapping[str, Any], language: str = "en") -> ReportContent:
    """The parts of a result that a report shows. Raises `InputError` as `page_report_html` does."""
    try:
        return ReportContent(
            language=language,
            source=PureWindowsPath(str(result["image"])).name,  # a printed page does not name the folders of a machine
            facts=tuple(translate(fact, language) for fact in _facts(result)),
            refusal_reason=translate(str(result["refusal_reason"]), language),
            warnings=tuple(translate(str(warning), language) for warning in result["warnings"]),
            answers=tuple(_answer(answer, language) for answer in result["answers"]),
            measurements=_measurements(result, language),
            measured_on=str(result["measured_on"]),
            leads=_leads(result["page_as_read"] or {}, language),
            picture=_picture(str(result["as_read"])) if result.get("as_read") else b"",
            digest=str(result["image_sha256"]),
            groups=_groups(result, language),
            scores_note=translate(_scores_note(result), language),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"[:120]
        raise InputError(f"result: is no object of ecg-vlm ask --json ({reason}); send it as it was given") from error


def _facts(result: Mapping[str, Any]) -> tuple[str, ...]:
    page = result["page_as_read"]
    reading = (
        f"{page['layout'] or 'waveform'}, {float(page['mm_per_s']):g} mm/s, {float(page['mm_per_mv']):g} mm/mV"
        if page
        else ""
    )
    of_pages = f"page {int(result['page'])} of {int(result['pages'])}" if int(result["pages"]) > 1 else ""
    not_read = str(result["not_digitized_because"])
    return tuple(
        filter(
            None,
            (
                of_pages,
                reading,
                f"leads not digitized: {not_read}" if not_read else "",
                f"model {result['model']}, ecg-vlm {result['version']}",
            ),
        )
    )


def _answer(answer: Mapping[str, Any], language: str) -> AnswerLine:
    notes = []
    if answer["contradicted"]:
        doubts = (f"{names_of([code], language)} {float(p):.2f}" for code, p in answer["contradicted"].items())
        notes.append(f"It says otherwise when asked about each alone; P(present): {', '.join(doubts)}")
    if answer["original"]:
        notes.append(f"Made consistent with the scores; in the model's words: {answer['original']}")
    text = translate(str(answer["answer"]), language)
    return AnswerLine(str(answer["question"]), text, tuple(translate(note, language) for note in notes))


def _measurements(result: Mapping[str, Any], language: str) -> tuple[tuple[str, str, str], ...]:
    values = [
        (translate(name, language), f"{float(result['measurements'][key]):.0f}", translate(unit, language).strip())
        for key, (name, unit) in UNITS.items()
        if key in result["measurements"]
    ]
    values += [(f"ST in {lead}", f"{float(mv):.2f}", "mV") for lead, mv in result["st_elevation_mv"].items()]
    return tuple(values)


def _leads(page: Mapping[str, Any], language: str) -> tuple[Lead, ...]:
    return tuple(Lead(str(lead["lead"]), _lead_facts(lead, language)) for lead in page.get("leads", ()))


def _lead_facts(lead: Mapping[str, Any], language: str) -> str:
    start, missing = float(lead["start_s"]), 100 * float(lead["missing_share"])
    facts = [f"{start:.1f} to {start + float(lead['seconds']):.1f} s, quality {float(lead['quality']):.2f}"]
    facts += [f"{missing:.0f} % missing"] if missing >= 0.5 else []
    return "; ".join(translate(fact, language) for fact in [*facts, *map(str, lead["remarks"])])


def _picture(uri: str) -> bytes:
    """The bytes of a data URI, written anew: what was sent may be more than a picture."""
    match = _PICTURE.fullmatch(uri)
    if match is None:
        raise ValueError("a picture is no PNG or JPEG as a data URI")
    try:
        with Image.open(io.BytesIO(base64.b64decode(match[1])), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _MOST_PICTURE_PIXELS:
                raise ValueError("a picture has too many pixels")
            stream = io.BytesIO()
            image.convert("RGB").save(stream, format="PNG", optimize=False)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("a picture is damaged") from error
    return stream.getvalue()


def _groups(result: Mapping[str, Any], language: str) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    bars: dict[str, list[Bar]] = {group: [] for group in GROUPS}
    exceptions = {str(code) for code in result["uncalibrated"]}
    for code, p in sorted(result["scores"].items(), key=lambda item: -float(item[1])):
        threshold, present = float(result["thresholds"][code]), bool(result["verdicts"][code])
        share = min(max(float(p), 0.0), 1.0)
        bars[group_of(code)].append(Bar(code, label_of(code, language), share, threshold, present, code in exceptions))
    return tuple((translate(group, language), tuple(rows)) for group, rows in bars.items() if rows)


def _scores_note(result: Mapping[str, Any]) -> str:
    if not result["scores"]:
        return ""
    if not result["calibrated"]:
        return "Scores are as the model gives them, not calibrated; a statement is called present from 0.5 on."
    note = f"Probabilities calibrated on {result['calibration']}; the mark is the threshold"
    return f"{note}; ○: not calibrated." if result["uncalibrated"] else f"{note}."
