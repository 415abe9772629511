"""A contact sheet: what a data set will look like, for a person to look at before spending hours on it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from render.errors import InputError

MOST_PAGES = 12

_COLUMNS, _QUESTIONS = 3, 6
# Pixels. A page 280 mm wide is then 2.3 px per mm: the grid's large boxes and every wave are still to be seen.
_PICTURE_WIDTH, _PICTURE_HEIGHT = 640, 640
_EDGE, _GAP, _PAD = 36, 28, 18
_CARD_WIDTH = _PICTURE_WIDTH + 2 * _PAD
_TITLE, _LARGE, _TEXT, _SMALL = 32, 21, 17, 15  # type sizes
_MOST_LETTERS = 1000  # on a line; no more are ever measured

_GROUND, _CARD, _RULE, _CHIP = "#eef1f5", "#ffffff", "#d5dbe3", "#e5edf8"
_DARK, _GREY, _BLUE = "#17202c", "#5d6a7a", "#1d4f91"
_ANSWERS = {"yes": "#116b3a", "no": "#a3261d"}

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass
class _Column:
    """Things set one below the other, `width` pixels wide: laid out first, drawn once it is known where."""

    width: int
    height: int = 0
    marks: list[Callable[[ImageDraw.ImageDraw, int, int], None]] = field(default_factory=list)

    def text(self, words: str, size: int, colour: str, *, indent: int = 0, most: int = 3) -> None:
        """Wrapped text, cut with an ellipsis after `most` lines."""
        for line in _wrapped(words, _font(size), self.width - indent, most):
            self._text_at(line, size, colour, indent, self.height)
            self.height += round(size * 1.35)

    def right(self, words: str, size: int, colour: str, top: int) -> None:
        """One line at the right edge, `top` pixels from the column's head; it takes no room."""
        self._text_at(words, size, colour, self.width - round(_font(size).getlength(words)), top)

    def chips(self, words: Sequence[str]) -> None:
        """Words on small plates, in as many rows as they need."""
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
    """Rows of a data set (see `render.dataset.rows`) as one PNG: up to `MOST_PAGES` pages in three columns.

    Below each page stand its record, source, layout, style and statements, and some of its questions with their
    answers; the head counts pages, dialogues by task and form, and how many closed questions have the answer yes,
    over all rows. The same rows give the same bytes.
    Raises `InputError` for no row at all and for an image that cannot be opened.
    """
    if not rows:
        raise InputError("preview: no page to show; every record was left out")
    cards = [(_picture(row), _caption(row)) for row in rows[:MOST_PAGES]]
    across = min(len(cards), _COLUMNS)
    width = 2 * _EDGE + across * _CARD_WIDTH + (across - 1) * _GAP
    head = _head(rows, width - 2 * _EDGE)
    ends = [_EDGE + head.height + _GAP] * across  # where the next card of each column begins
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
    """The row's image, made smaller where it is larger than its place."""
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
    if len(rows) > MOST_PAGES:
        head.text(f"the first {MOST_PAGES} are shown, all are counted", _TEXT, _GREY)
    answers = Counter(said for dialogue in dialogues if (said := _yes_or_no(dialogue)))
    asked = answers.total()
    if asked:
        head.text(f"yes or no: {answers['yes']} of {asked} are yes ({answers['yes'] / asked:.0%})", _LARGE, _DARK)
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
    for dialogue in _chosen(row["dialogues"]):
        question, answer = (_said(dialogue, role) for role in ("user", "assistant"))
        caption.text(question, _TEXT, _DARK, most=4)
        colour = _ANSWERS.get(_yes_or_no(dialogue) or "", _BLUE)
        caption.text(answer, _TEXT, colour, indent=22, most=3)
        caption.height += 5
    left = len(row["dialogues"]) - _QUESTIONS
    if left > 0:
        caption.text(f"and {left} more", _SMALL, _GREY)
    return caption


def _chosen(dialogues: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Up to `_QUESTIONS` dialogues in their order, of as many tasks and forms as there are."""
    kinds = [(dialogue["task"], dialogue.get("form")) for dialogue in dialogues]
    chosen: list[int] = []
    shown: Counter[str | None] = Counter()
    left = list(range(len(kinds)))
    while left and len(chosen) < _QUESTIONS:
        rarest = min(left, key=lambda i: (sum(shown[word] for word in kinds[i]), i))
        left.remove(rarest)
        chosen.append(rarest)
        shown.update(kinds[rarest])
    return [dialogues[i] for i in sorted(chosen)]


def _said(dialogue: Mapping[str, Any], role: str) -> str:
    return " ".join(str(message["content"]) for message in dialogue["messages"] if message["role"] == role)


def _yes_or_no(dialogue: Mapping[str, Any]) -> str | None:
    """ "yes", "no", or None where the answer is neither."""
    first = _said(dialogue, "assistant").lower().replace(",", ".").partition(".")[0].strip()
    return first if first in _ANSWERS else None


@lru_cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size)


def _wrapped(words: str, font: _Font, width: int, most: int) -> list[str]:
    """At most `most` lines no wider than `width`; line breaks count as spaces, words too long are broken."""
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


def _pieces(words: str, font: _Font, width: int) -> Iterator[str]:
    for word in words.split():
        while word:
            size = max(1, _fitting(word, font, width))
            yield word[:size]
            word = word[size:]


def _cut(words: str, font: _Font, width: int) -> str:
    """One line no wider than `width`, with an ellipsis where something is missing."""
    words = " ".join(words.split())
    if _fitting(words, font, width) == len(words):
        return words
    words = words.removesuffix("…")
    return words[: _fitting(words, font, width - int(font.getlength("…")) - 1)].rstrip() + "…"


def _fitting(words: str, font: _Font, width: int) -> int:
    """How many of the first characters fit into `width` pixels."""
    words = words[:_MOST_LETTERS]
    return bisect_right(range(1, len(words) + 1), float(width), key=lambda n: float(font.getlength(words[:n])))
