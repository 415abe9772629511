"""The report about a page as a PDF: A4, text that can be searched, pictures inside."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fpdf import FPDF
from PIL import Image

from ecg_vlm.page_report import CAPTION, Bar, ReportContent

_MARGIN_MM = 10.0
_WIDTH_MM = 210.0 - 2 * _MARGIN_MM
_MOST_PICTURE_MM = 86.0  # high
_COLUMNS, _GAP_MM, _ROW_MM = 3, 4.0, 3.15
_TRACK_MM = 15.0
_INK, _SOFT, _RULE, _BAR, _YES, _WARN = (
    (27, 29, 34),
    (93, 100, 112),
    (214, 218, 225),
    (159, 179, 200),
    (179, 38, 30),
    (138, 75, 0),
)


def write_pdf(report: ReportContent, disclaimer: str) -> bytes:
    """The report as the bytes of a PDF."""
    disclaimer = report.say(disclaimer)
    pdf = _Sheet(disclaimer, report.say("ECG report"))
    pdf.heading(f"{report.say('ECG')}: {report.source}", 12)
    pdf.line_of_text(" · ".join(report.facts), 7, _SOFT)
    pdf.line_of_text(disclaimer, 8, _YES, bold=True)
    for warning in report.warnings:
        pdf.line_of_text(warning, 8.5, _WARN, bold=True)
    if report.refusal_reason:
        pdf.line_of_text(f"{report.say('This page cannot be read')}: {report.refusal_reason}", 8.5, _WARN, bold=True)
    if report.picture:
        pdf.picture(report.picture, report.say(CAPTION))
    if report.answers:
        pdf.heading(report.say("Answers"), 9.5)
    for answer in report.answers:
        pdf.line_of_text(answer.question, 7, _SOFT)
        pdf.line_of_text(answer.text, 9.5)
        for note in answer.notes:
            pdf.line_of_text(note, 7, _WARN)
        pdf.ln(1)
    if report.measurements:
        pdf.heading(report.say(f"Measured on the {report.measured_on}"), 9.5)
        pdf.line_of_text("    ".join(f"{name} {value} {unit}" for name, value, unit in report.measurements), 9)
    if report.groups:
        pdf.heading(report.say("The 71 statements"), 9.5)
        pdf.line_of_text(report.scores_note, 7, _SOFT)
        pdf.bars(report)
    if report.leads:
        pdf.heading(report.say("Leads as they were read"), 9.5)
        pdf.columns_of_text([f"{lead.name} {lead.facts}" for lead in report.leads], 4)
    pdf.line_of_text(f"{report.say('SHA-256 of the file')}: {report.digest}" if report.digest else "", 6.5, _SOFT)
    with _quiet():
        return bytes(pdf.output())


def _in_columns(report: ReportContent) -> list[list[str | Bar]]:
    """The groups' names and bars in columns of equal length; no name is the last of its column."""
    rows: list[str | Bar] = []
    for group, bars in report.groups:
        rows += [group, *bars]
    columns: list[list[str | Bar]] = []
    for number in range(_COLUMNS, 0, -1):
        length = -(-len(rows) // number)
        if length > 1 and isinstance(rows[length - 1], str):
            length -= 1
        columns.append(rows[:length])
        rows = rows[length:]
    return columns


class _Sheet(FPDF):  # type: ignore[misc]
    """A4 pages that are filled from the top."""

    def __init__(self, disclaimer: str, title: str) -> None:
        super().__init__(format="A4")
        self._disclaimer = disclaimer
        spec = find_spec("matplotlib")
        assert spec is not None and spec.submodule_search_locations
        fonts = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
        self.add_font("DejaVu", "", fonts / "DejaVuSans.ttf")
        self.add_font("DejaVu", "B", fonts / "DejaVuSans-Bold.ttf")
        self._characters = {*map(chr, self.fonts["dejavu"].cmap), "\n"}
        self.set_margins(_MARGIN_MM, _MARGIN_MM)
        self.c_margin = 0
        self.set_auto_page_break(True, 12)
        self.set_title(title)
        self.add_page()

    def footer(self) -> None:
        """The disclaimer and the page's number, on every page."""
        self.set_y(-9)
        self._pen(6.5, _SOFT)
        self.cell(0, 3, f"{self._disclaimer}  {self.page_no()}", align="R")

    def heading(self, text: str, size: float) -> None:
        """A heading, not alone at the foot of a page."""
        if self.will_page_break(16):
            self.add_page()
        self.ln(1.2)
        self.line_of_text(text, size, bold=True)

    def line_of_text(self, text: str, size: float, colour: tuple[int, int, int] = _INK, *, bold: bool = False) -> None:
        """Text over the whole width, as many lines as it takes. size: points."""
        self._pen(size, colour, bold=bold)
        if text:
            self.multi_cell(0, size * 0.45, self._printable(text), new_x="LMARGIN", new_y="NEXT", align="L")

    def picture(self, png: bytes, caption: str) -> None:
        """A picture as wide as the page, or as high as `_MOST_PICTURE_MM`, with its caption."""
        self.ln(1.5)
        with Image.open(io.BytesIO(png)) as image:
            width = min(_WIDTH_MM, _MOST_PICTURE_MM * image.width / image.height)
        self.image(io.BytesIO(png), x=(self.w - width) / 2, w=width, alt_text=caption)
        self.ln(0.8)
        self.line_of_text(caption, 7, _SOFT)

    def bars(self, report: ReportContent) -> None:
        """All bars in columns, the groups one below the other; on a new page where they do not fit."""
        columns = _in_columns(report)
        length = max(map(len, columns))
        if self.will_page_break(length * _ROW_MM):
            self.add_page()
        top, width = self.get_y() + 0.8, (_WIDTH_MM - (_COLUMNS - 1) * _GAP_MM) / _COLUMNS
        for number, rows in enumerate(columns):
            x = _MARGIN_MM + number * (width + _GAP_MM)
            for place, row in enumerate(rows):
                y = top + place * _ROW_MM
                if isinstance(row, str):
                    self._text(x, y, row.upper(), width, 5.8, _SOFT, bold=True)
                else:
                    self._bar(row, x, y, width)
        self.set_y(top + length * _ROW_MM)

    def columns_of_text(self, texts: Sequence[str], count: int) -> None:
        """Short texts, column by column."""
        length, top, width = -(-len(texts) // count), self.get_y(), _WIDTH_MM / count
        for place, text in enumerate(texts):
            self._text(_MARGIN_MM + place // length * width, top + place % length * _ROW_MM, text, width - 2, 6.2, _INK)
        self.set_y(top + length * _ROW_MM + 0.8)

    def _bar(self, bar: Bar, x: float, y: float, width: float) -> None:
        colour = _YES if bar.present else _INK
        circle = " ○" if bar.as_given else ""
        self._text(x, y, f"{bar.name}{circle}", width - _TRACK_MM - 8, 6.2, colour, bold=bar.present)
        left = x + width - _TRACK_MM - 7
        self.set_draw_color(*_RULE)
        self.set_line_width(0.15)
        self.set_fill_color(*(_YES if bar.present else _BAR))
        self.rect(left, y + 0.6, _TRACK_MM * bar.p, _ROW_MM - 1.2, style="F")
        self.rect(left, y + 0.6, _TRACK_MM, _ROW_MM - 1.2)
        self.set_draw_color(*_INK)
        mark = left + _TRACK_MM * min(bar.threshold, 1.0)
        self.line(mark, y + 0.3, mark, y + _ROW_MM - 0.3)
        self._text(x + width - 6.5, y, f"{bar.p:.2f}", 6.5, 6.2, colour, bold=bar.present)

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        width: float,
        size: float,
        colour: tuple[int, int, int],
        *,
        bold: bool = False,
    ) -> None:
        """One line; where it is too long, smaller."""
        text = self._printable(text)
        self._pen(size, colour, bold=bold)
        if self.get_string_width(text) > width:
            self._pen(size * width / self.get_string_width(text), colour, bold=bold)
        self.set_xy(x, y)
        self.cell(width, _ROW_MM, text)

    def _printable(self, text: str) -> str:
        """Text with a box for each character that the font does not have: Chinese, for one. The HTML page has them."""
        return "".join(character if character in self._characters else "□" for character in text)

    def _pen(self, size: float, colour: tuple[int, int, int], *, bold: bool = False) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(*colour)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's messages about characters that the font does not have."""
    logger = logging.getLogger("fpdf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
