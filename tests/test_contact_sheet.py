"""The contact sheet: its content, and that all of it stays inside the sheet."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from render.dataset.contact_sheet import MOST_SHEET_PAGES, contact_sheet
from render.errors import InputError

GREEN = (12, 200, 34)


def picture(width: int = 200, height: int = 100) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), GREEN).save(out, "PNG")
    return out.getvalue()


def dialogue(task: str, form: str, question: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"task": task, "form": form, "messages": messages}


def row(*dialogues: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "image": {"bytes": picture(), "path": "7.png"},
        "dialogues": list(dialogues) or [dialogue("rhythm", "closed", "Does this ECG show a pacemaker?", "No.")],
        "record_id": "rec-7",
        "source": "simulated",
        "layout": "3x4+1R",
        "style": "clean",
        "statements": ["NORM", "SR"],
        **changes,
    }


def image_of(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return image


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, str]]:
    """(left, right, words) of each text when it is drawn."""
    calls: list[tuple[float, float, str]] = []
    draw_text = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], words: str, *args: Any, **kwargs: Any) -> None:
        wide = kwargs["font"].getlength(words)
        left = xy[0] - (wide / 2 if kwargs.get("anchor") == "mm" else 0)
        calls.append((left, left + wide, words))
        draw_text(self, xy, words, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return calls


def words_of(texts: list[tuple[float, float, str]]) -> str:
    return " ".join(words for _, _, words in texts)


def test_caption_and_dialogues_are_written(texts):
    contact_sheet([row(dialogue("features", "fill", "The rate is ____ bpm.", "72"))])
    for words in ("rec-7", "simulated", "3x4+1R · clean", "NORM", "SR", "The rate is ____ bpm.", "72"):
        assert words in [text for _, _, text in texts]


def test_head_counts_all_rows_even_those_not_shown(texts):
    yes = dialogue("rhythm", "closed", "Is this ECG normal?", "Yes, it is.")
    no = dialogue("morphology", "closed", "Do you see AFIB?", "no")
    report = dialogue("report", "open", "Report this ECG.", "No pathological findings.")
    contact_sheet([row(yes, no, no, report)] * (MOST_SHEET_PAGES + 2))
    text = words_of(texts)
    assert "14 pages, 56 dialogues" in text
    assert "14 of 42 are yes (33%)" in text
    assert "morphology 28 (closed 28); report 14 (open 14); rhythm 14 (closed 14)" in text
    assert f"the first {MOST_SHEET_PAGES} pages; the numbers are of all" in text
    assert text.count("rec-7") == MOST_SHEET_PAGES


def test_each_kind_of_question_is_shown_before_more_of_one_kind(texts):
    many = [dialogue("rhythm", "closed", f"Closed {i}?", "No.") for i in range(9)]
    contact_sheet([row(*many, dialogue("report", "open", "Report this ECG.", "Sinus rhythm."))])
    text = words_of(texts)
    assert "Report this ECG." in text
    assert [i for i in range(9) if f"Closed {i}?" in text] == [0, 1, 2, 3, 4]
    assert "and 4 more" in text


def test_without_closed_questions_no_share_is_claimed(texts):
    contact_sheet([row(dialogue("report", "open", "Report this ECG.", "No pathological findings."))])
    assert "yes or no" not in words_of(texts)


@pytest.mark.parametrize(("pages", "columns", "lines"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (7, 3, 3), (12, 3, 4)])
def test_every_page_is_on_the_sheet_whole(pages, columns, lines):
    sheet = np.asarray(image_of(contact_sheet([row()] * pages)))
    green = (sheet == GREEN).all(axis=2)
    assert green.sum() == pages * 200 * 100
    starts = np.flatnonzero(np.diff(green.any(axis=0).astype(int)) == 1)
    assert len(starts) == columns
    assert len(np.flatnonzero(np.diff(green.any(axis=1).astype(int)) == 1)) == lines


def test_a_large_page_is_made_to_fit_and_keeps_its_shape():
    sheet = np.asarray(image_of(contact_sheet([row(image={"bytes": picture(1600, 800), "path": ""})])))
    ys, xs = np.nonzero((sheet == GREEN).all(axis=2))
    assert (np.ptp(xs) + 1, np.ptp(ys) + 1) == (640, 320)


def test_same_rows_same_bytes_and_older_rows_without_form_and_style():
    old = row()
    del old["style"], old["dialogues"][0]["form"]
    assert contact_sheet([old]) == contact_sheet([old])


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.text(max_size=300) | st.sampled_from(["W" * 4000, "left bundle " * 400]),
    codes=st.lists(st.text(min_size=1, max_size=90), max_size=12),
)
@example(words="two\nlines", codes=["A\nB", " "])
def test_no_text_leaves_its_card(texts, words, codes):
    texts.clear()
    long = dialogue(words, words, words, words)
    sheet = image_of(
        contact_sheet([row(long, record_id=words, source=words, layout=words, style=words, statements=codes)])
    )
    assert texts and all(left >= 36 and right <= sheet.width - 36 + 0.5 for left, right, _ in texts)
    assert sheet.height < 3000


@pytest.mark.parametrize("content", [b"", b"no picture", picture()[:60]])
def test_a_damaged_image_is_named(content):
    with pytest.raises(InputError, match="record rec-7: image cannot be opened"):
        contact_sheet([row(image={"bytes": content, "path": "7.png"})])


@pytest.mark.parametrize("letters", ["äöüÄÖÜß", "éèêçñåøæœ", "łśžčđ", "µ°±≥–„“…", "Ωαжщ"])
def test_letters_beyond_ascii_are_drawn(letters: str) -> None:
    """A letter that the font lacks is drawn as a box, the same for all of them."""
    sheets = {contact_sheet([row(record_id=letter)]) for letter in letters}
    assert len(sheets) == len(letters)


def test_no_row_is_refused():
    with pytest.raises(InputError, match="no page to show"):
        contact_sheet([])
