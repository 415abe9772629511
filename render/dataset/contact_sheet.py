"""A contact sheet: some pages of a data set with their dialogues, to inspect before rendering all of it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from render.errors import InputError

MOST_SHEET_PAGES = 12

_COLUMNS, _QUESTIONS = 3, 6
# Pixels. A page 280 mm wide then has 2.3 px per mm: the grid's large boxes and every wave stay visible.
_PICTURE_WIDTH, _PICTURE_HEIGHT = 640, 640
_EDGE, _GAP, _PAD = 36, 28, 18
_CARD_WIDTH = _PICTURE_WIDTH + 2 * _PAD
_TITLE, _LARGE, _TEXT, _SMALL = 32, 21, 17, 15  # type sizes
_MOST_LETTERS = 1000  # of a line; further ones are not measured

_GROUND, _CARD, _RULE, _CHIP = "#eef1f5", "#ffffff", "#d5dbe3", "#e5edf8"
_DARK, _GREY, _BLUE = "#17202c", "#5d6a7a", "#1d4f91"
_ANSWERS = {"yes": "#116b3a", "no": "#a3261d"}


@dataclass
class _Column:
    """Text and plates one below the other, `width` pixels wide: first the layout, then `draw` at a position."""

    width: int
    height: int = 0
    marks: list[Callable[[ImageDraw.ImageDraw, int, int], None]] = field(default_factory=list)

    def text(self, words: str, size: int, colour: str, *, indent: int = 0, most: int = 3) -> None:
        """Add wrapped text; an ellipsis ends it after `most` lines."""
        for line in _wrap(words, _font(size), self.width - indent, most):
            self._text_at(line, size, colour, indent, self.height)
            self.height += round(size * 1.35)

    def right(self, words: str, size: int, colour: str, top: int) -> None:
        """Add a line at the right edge, `top` pixels below the column's head; it adds no height."""
        self._text_at(words, size, colour, self.width - round(_font(size).getlength(words)), top)

    def chips(self, words: Sequence[str]) -> None:
        """Add words on small plates, in as many rows as necessary."""
        x, high = 0, round(_SMALL * 1.7)
        for word in words:
            word = _cut(word, _font(_SMALL), self.width - 20)
            wide = round(_font(_SMALL).getlength(word)) + 20
            if x and x + wide > self.width:
                x, self.height = 0, self.height + high + 6
            self._plate_at(word, x, self.height, wide, high)
            x += wide + 6
        self.height += high

    def draw(self, ink: ImageDraw.ImageDraw, x: int, y: int) -> None:
        """Draw the column with its upper left corner at x, y."""
        for mark in self.marks:
            mark(ink, x, y)

    def _text_at(self, line: str, size: int, colour: str, left: int, top: int) -> None:
        self.marks.append(lambda ink, x, y: ink.text((x + left, y + top), line, fill=colour, font=_font(size)))

    def _plate_at(self, word: str, left: int, top: int, wide: int, high: int) -> None:
        def mark(ink: ImageDraw.ImageDraw, x: int, y: int) -> None:
            box = (x + left, y + top, x + left + wide, y + top + high)
            ink.rounded_rectangle(box, radius=high // 2, fill=_CHIP)
            middle = (x + left + wide / 2, y + top + high / 2)
            ink.text(middle, word, fill=_BLUE, font=_font(_SMALL), anchor="mm")

        self.marks.append(mark)


def contact_sheet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of a data set (see `render.dataset.rows`) as one PNG: up to `MOST_SHEET_PAGES` pages in three columns.

    Below each page are its record, source, layout, style and statements, and some of its questions with their answers.
    The head has the number of pages, of dialogues by task and form, and of closed questions answered yes, over all
    rows. The same rows give the same bytes.

    Raises:
        InputError: When there is no row, and for an image that cannot be opened.
    """
    if not rows:
        raise InputError("preview: no page to show; every record was left out")
    cards = [(_picture(row), _caption(row)) for row in rows[:MOST_SHEET_PAGES]]
    across = min(len(cards), _COLUMNS)
    width = 2 * _EDGE + across * _CARD_WIDTH + (across - 1) * _GAP
    head = _head(rows, width - 2 * _EDGE)
    ends = [_EDGE + head.height + _GAP] * across  # top of the next card in each column
    places = []
    for picture, caption in cards:
        column = ends.index(min(ends))
        x, y = _EDGE + column * (_CARD_WIDTH + _GAP), ends[column]
        high = picture.height + caption.height + 3 * _PAD
        places.append((x, y, x + _CARD_WIDTH, y + high))
        ends[column] += high + _GAP
    sheet = Image.new("RGB", (width, max(ends) - _GAP + _EDGE), _GROUND)
    ink = ImageDraw.Draw(sheet)
    head.draw(ink, _EDGE, _EDGE)
    for (x, y, right, foot), (picture, caption) in zip(places, cards, strict=True):
        ink.rounded_rectangle((x, y, right, foot), radius=10, fill=_CARD, outline=_RULE)
        sheet.paste(picture, (x + (_CARD_WIDTH - picture.width) // 2, y + _PAD))
        caption.draw(ink, x + _PAD, y + picture.height + 2 * _PAD)
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _picture(row: Mapping[str, Any]) -> Image.Image:
    """The row's image, reduced to fit its card."""
    try:
        picture = Image.open(BytesIO(row["image"]["bytes"])).convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"record {row['record_id']}: image cannot be opened ({error}); render it again") from error
    picture.thumbnail((_PICTURE_WIDTH, _PICTURE_HEIGHT), Image.Resampling.LANCZOS)
    return picture


def _head(rows: Sequence[Mapping[str, Any]], width: int) -> _Column:
    dialogues = [dialogue for row in rows for dialogue in row["dialogues"]]
    head = _Column(width)
    sources = ", ".join(sorted({row["source"] for row in rows}))
    pages = f"{len(rows)} page{'s' * (len(rows) != 1)}"
    head.text(f"{sources}: {pages}, {len(dialogues)} dialogues", _TITLE, _DARK)
    if len(rows) > MOST_SHEET_PAGES:
        head.text(f"the first {MOST_SHEET_PAGES} pages; the numbers are of all", _TEXT, _GREY)
    answers = Counter(word for dialogue in dialogues if (word := _yes_or_no(dialogue)))
    closed_count = answers.total()
    if closed_count:
        head.text(
            f"yes or no: {answers['yes']} of {closed_count} are yes ({answers['yes'] / closed_count:.0%})",
            _LARGE,
            _DARK,
        )
    kinds = Counter((dialogue["task"], dialogue.get("form") or "") for dialogue in dialogues)
    tasks = {task: sum(n for (of, _), n in kinds.items() if of == task) for task, _ in kinds}
    parts = (
        f"{task} {n} ({', '.join(f'{form} {kinds[of, form]}' for of, form in sorted(kinds) if of == task)})"
        for task, n in sorted(tasks.items())
    )
    head.text("; ".join(parts), _LARGE, _GREY)
    return head


def _caption(row: Mapping[str, Any]) -> _Column:
    caption = _Column(_PICTURE_WIDTH)
    source = _cut(row["source"], _font(_TEXT), _PICTURE_WIDTH // 3)
    room = _PICTURE_WIDTH - round(_font(_TEXT).getlength(source)) - 20
    caption.right(source, _TEXT, _GREY, 3)
    caption.text(_cut(row["record_id"], _font(_LARGE), room), _LARGE, _DARK)
    looks = [text for text in (row["layout"], row.get("style"), row.get("unreadable")) if text]
    caption.text(" · ".join(looks), _SMALL, _GREY)
    if row["statements"]:
        caption.height += 7
        caption.chips(row["statements"])
    caption.height += 12
    for dialogue in _selection(row["dialogues"]):
        question, answer = (_turn_text(dialogue, role) for role in ("user", "assistant"))
        caption.text(question, _TEXT, _DARK, most=4)
        colour = _ANSWERS.get(_yes_or_no(dialogue) or "", _BLUE)
        caption.text(answer, _TEXT, colour, indent=22, most=3)
        caption.height += 5
    left = len(row["dialogues"]) - _QUESTIONS
    if left > 0:
        caption.text(f"and {left} more", _SMALL, _GREY)
    return caption


def _selection(dialogues: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Up to `_QUESTIONS` dialogues in their order, of as many tasks and forms as possible."""
    kinds = [(dialogue["task"], dialogue.get("form")) for dialogue in dialogues]
    indices: list[int] = []
    counts: Counter[str | None] = Counter()
    rest = list(range(len(kinds)))
    while rest and len(indices) < _QUESTIONS:
        rarest = min(rest, key=lambda i: (sum(counts[word] for word in kinds[i]), i))
        rest.remove(rarest)
        indices.append(rarest)
        counts.update(kinds[rarest])
    return [dialogues[i] for i in sorted(indices)]


def _turn_text(dialogue: Mapping[str, Any], role: str) -> str:
    return " ".join(str(message["content"]) for message in dialogue["messages"] if message["role"] == role)


def _yes_or_no(dialogue: Mapping[str, Any]) -> str | None:
    """ "yes", "no", or None where the answer is neither."""
    first = _turn_text(dialogue, "assistant").lower().replace(",", ".").partition(".")[0].strip()
    return first if first in _ANSWERS else None


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which has the letters of all European languages; Pillow's default font has no umlauts."""
    import matplotlib  # here, not above: only previews need it

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def _wrap(words: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """At most `most` lines no wider than `width`; line breaks count as spaces, and long words are split."""
    lines = [""]
    for word in _pieces(words, font, width):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == most:
            lines[-1] = _cut(f"{longer}…", font, width)
            break
        else:
            lines.append(word)
    return lines


def _pieces(words: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    for word in words.split():
        while word:
            size = max(1, _fitting(word, font, width))
            yield word[:size]
            word = word[size:]


def _cut(words: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """One line no wider than `width`, ending with an ellipsis where text is missing."""
    words = " ".join(words.split())
    if _fitting(words, font, width) == len(words):
        return words
    words = words.removesuffix("…")
    return words[: _fitting(words, font, width - int(font.getlength("…")) - 1)].rstrip() + "…"


def _fitting(words: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many of the first characters fit into `width` pixels."""
    words = words[:_MOST_LETTERS]
    return bisect_right(range(1, len(words) + 1), float(width), key=lambda n: float(font.getlength(words[:n])))
