"""What a page is printed on and with, and the words that say it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import features

from render.dialogues.wording import label_of
from render.errors import InputError
from render.pages.header import lines
from render.pages.layout import layout_named, sample_layout
from render.pages.options import LAYOUT_PROPORTIONS
from render.pages.page import GRID_CLASS, PAPER_CLASS, PRINT_CLASS, SIGNAL_CLASS, draw
from render.pages.paper import PAPER_WORDS, Paper
from render.pages.style import STYLE_PROPORTIONS, STYLE_WORDS, Style, sample_style
from render.record import EcgRecord
from render.simulator.simulate import simulate
from tests.test_page import golden_record

TEXTS = [word for word in PAPER_WORDS["text"].values() if word]


@pytest.fixture(scope="module")
def record() -> EcgRecord:
    base = simulate(7, ["AFIB", "IMI"])
    fields = (("Rate", "83 bpm"), ("QRS", "92 ms"), ("Bandwidth", "0.005-150 Hz"), ("Filter", "60 Hz notch"))
    return dataclasses.replace(base, record_id="41", age=63.0, sex="male", header=fields)


def printed_text(record: EcgRecord, paper: Paper, layout: str = "3x4+1R") -> str:
    page_lines = lines(record, layout_named(layout), paper.text, paper.findings)
    return " | ".join(" ".join((*line.fields, line.right)) for line in page_lines)


def mask_of(record: EcgRecord, layout: str = "3x4+1R", paper: Paper = Paper()) -> NDArray[np.uint8]:  # noqa: B008
    mask = draw(record, layout=layout, paper=paper, mask=True).mask
    assert mask is not None
    return mask


@pytest.mark.parametrize("colour", PAPER_WORDS["colours"])
def test_paper_has_its_colour_and_lines_their_own(record: EcgRecord, colour: str) -> None:
    colours = PAPER_WORDS["colours"][colour]
    page = draw(record, paper=Paper(colours=colours), mask=True)
    pixels = np.asarray(page.to_pil(), dtype=float)
    assert np.allclose(np.median(pixels[page.mask == PAPER_CLASS], axis=0), colours.paper, atol=1)
    heavy = pixels[page.mask == GRID_CLASS]
    assert np.abs(heavy - colours.line).sum(axis=1).min() < 4, "no pixel has the full colour of a heavy line"
    assert np.allclose(np.percentile(pixels[page.mask == SIGNAL_CLASS], 2, axis=0), colours.ink, atol=6)


def test_grids_rule_what_they_say(record: EcgRecord) -> None:
    grid_share = {
        grid: (mask_of(record, paper=Paper(grid=grid)) == GRID_CLASS).mean() for grid in PAPER_WORDS["grid"].values()
    }
    assert grid_share["no-grid"] == 0.0 < grid_share["5mm-lines"] < grid_share["dots"] < grid_share["lines"]
    mask = mask_of(record, "3x4", Paper(grid="dots"))
    # At 4 px per mm millimetres lie on every fourth pixel: a dot on the crossing, none between two crossings.
    grid = mask == GRID_CLASS
    bare = ~(mask >= PRINT_CLASS)
    crossing, between = np.s_[44:500:20, 4:1100:20], np.s_[44:500:20, 6:1100:20]
    assert grid[crossing][bare[crossing]].all() and not grid[between][bare[between]].any()


def test_mask_tells_trace_print_grid_and_paper(record: EcgRecord) -> None:
    page, mask = draw(record), mask_of(record)
    dark = np.asarray(page.to_pil().convert("L")) < 100
    assert (mask[dark] >= PRINT_CLASS).mean() > 0.97  # a line's pale edge over a dark ruling is neither
    lead = page.geometry.leads[1]
    assert lead.name_box
    x0, y0, x1, y1 = lead.name_box
    assert (mask[y0:y1, x0:x1] == PRINT_CLASS).any()
    inside = mask[:, round(lead.box[0]) + 2 : round(lead.box[2]) - 2]
    assert (inside == SIGNAL_CLASS).any(axis=0).all(), "a column of the trace has no signal"
    assert np.array_equal(draw(record, mask=True).image, page.image) and page.mask is None


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("layout", ["3x4+1R", "6x2+1R,half-chest", "3x4,A4,50mm/s,5mm/mV"])
def test_machines_print_what_is_known_and_how_it_was_recorded(record: EcgRecord, text: str, layout: str) -> None:
    text_of_page = printed_text(record, Paper(text=text), layout)
    for item in ("63 years", "male", "83 bpm", "92 ms", "0.005-150 Hz", "60 Hz notch"):
        assert item in text_of_page
    plan = layout_named(layout)
    assert f"{plan.mm_per_s:g} mm/s" in text_of_page and all(f"{gain:g} mm/mV" in text_of_page for gain in plan.gains)
    mask = mask_of(record, layout, Paper(text=text))
    assert (mask[: round(plan.grid_top * 4)] == PRINT_CLASS).any()


@pytest.mark.parametrize("text", TEXTS)
def test_findings_are_printed_only_where_they_are_asked_for(record: EcgRecord, text: str) -> None:
    names = [label_of(code) for code in record.statements]
    assert len(names) > 1
    for name in names:
        assert name not in printed_text(record, Paper(text=text))
        assert name in printed_text(record, Paper(text=text, findings=True))


def test_numbers_about_the_heart_are_never_made_up(record: EcgRecord) -> None:
    bare = dataclasses.replace(record, header=(), age=None, sex="")
    for text in TEXTS:
        text_of_page = printed_text(bare, Paper(text=text))
        for word in ("bpm", " ms", "Rate", "QRS", "PR", "axis", "years", "male"):
            assert word not in text_of_page, text
        assert text_of_page == printed_text(bare, Paper(text=text))
    assert printed_text(bare, Paper(text="muse")) != printed_text(
        dataclasses.replace(bare, record_id="42"), Paper(text="muse")
    )
    assert lines(record, layout_named("3x4"), "", False) == []


def test_fields_give_way_where_there_is_no_room(record: EcgRecord) -> None:
    long = dataclasses.replace(record, header=(("Rate", "83 bpm"), *(("Note", "x" * 30),) * 20))
    page, usual = draw(long, paper=Paper(text="plain")), draw(record, paper=Paper(text="plain"))
    right = page.image[:40, 870:]
    assert np.array_equal(right, usual.image[:40, 870:]), "fields run into the legend"


def test_styles_are_said_in_words() -> None:
    rng = np.random.default_rng(0)
    assert sample_style("clean", rng) == Style() and Style().name == "clean"
    style = sample_style("dots, photo, green, muse, blur=0.4, noise=0", rng)
    assert style.name == "photo,green,dots,muse,blur=0.4,noise=0"
    assert sample_style(style.name, rng) == style
    assert style.effect_strengths(rng)["blur"] == 0.4 and style.effect_strengths(rng)["noise"] == 0.0
    assert sample_style("blur=0.4", rng).name == "blur=0.4"
    every = {word for choices in STYLE_WORDS.values() for word in choices}
    assert len(every) == sum(len(choices) for choices in STYLE_WORDS.values()), "one word says two things"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fotto", "nearest is 'photo'"),
        ("photo,scan", "has both 'photo' and 'scan'"),
        ("green,", "style '' in 'green,' is not known"),
        ("blurr=0.2", "nearest is 'blur'"),
        ("blur=1.5", "not a number from 0 to 1"),
        ("blur=nan", "not a number from 0 to 1"),
        ("", "style ''"),
    ],
)
def test_wrong_words_are_refused(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_style(words, np.random.default_rng(0))


def test_mixed_draws_by_the_published_proportions_and_keeps_what_is_said() -> None:
    count = 4000
    rngs = [np.random.default_rng([1, i]) for i in range(count)]
    styles = [sample_style("mixed,green", rng) for rng in rngs]
    assert {style.paper.colours for style in styles} == {PAPER_WORDS["colours"]["green"]}
    assert not any(style.paper.findings for style in styles)
    for group in ("preset", "grid", "text"):
        counts = Counter(style.preset if group == "preset" else getattr(style.paper, group) for style in styles)
        whole = sum(STYLE_PROPORTIONS[group].values())
        for word, share in STYLE_PROPORTIONS[group].items():
            target = share / whole
            assert counts[STYLE_WORDS[group][word]] / count == pytest.approx(target, abs=4 * (target / count) ** 0.5)
    # Naming one matter leaves the others as they were drawn.
    free = [sample_style("mixed", np.random.default_rng([1, i])) for i in range(100)]
    assert [style.preset for style in free] == [style.preset for style in styles[:100]]


def test_mixed_layouts_fit_their_paper_and_keep_what_is_said() -> None:
    names = [sample_layout("mixed,50mm/s", np.random.default_rng([2, i])).name for i in range(3000)]
    assert all("50mm/s" in name for name in names)
    formats = Counter(name.split(",")[0] for name in names)
    for word, share in LAYOUT_PROPORTIONS["format"].items():
        assert formats[word] / 3000 == pytest.approx(share, abs=4 * (share / 3000) ** 0.5)
    low = {sample_layout("mixed,280x140mm", np.random.default_rng([3, i])).height for i in range(300)}
    assert low == {140.0}
    with pytest.raises(InputError, match="do not fit"):
        sample_layout("mixed,12x1,280x140mm", np.random.default_rng(0))
    assert sample_layout("cabrera", np.random.default_rng(0)) == layout_named("cabrera")


# Digests of pages of `golden_record`, their geometry included, on every paper and in other layouts: a data set is
# rendered again from its seed, so what a page's words mean stays what it is. Libraries as in `tests/test_page.py`.
PAGES = {
    "3x4+1R": "8d424e24ee07",
    "6x2,cabrera,half-chest,separators": "9b6526871f63",
    "12x1,50mm/s": "a90ac6a533fb",
    "3x4+3R,A4,pulse-end,simultaneous": "d9c016496e78",
    "6x2+1R,5mm/mV,no-names,Letter": "e85def44c2dd",
    "3x1-rhythm,20mm/mV,no-pulse": "442c61f08c3a",
}


@pytest.mark.skipif(features.version("freetype2") != "2.14.3", reason="another FreeType draws other letters")
@pytest.mark.parametrize("layout", PAGES)
def test_the_page_of_some_words_stays_what_it_is(layout: str) -> None:
    header = (("Rate", "83 bpm"), ("QRS", "92 ms"), ("Filter", "60 Hz notch"))
    record = golden_record(500.0, age=63.0, sex="male", header=header)
    words, digest = PAPER_WORDS, sha256()
    papers = [Paper(colours, grid) for colours in words["colours"].values() for grid in words["grid"].values()]
    for paper in (*papers, *(Paper(text=text, findings=True) for text in words["text"].values())):
        page = draw(record, layout=layout, width=1001, paper=paper, mask=True)
        assert page.mask is not None
        digest.update(page.image.tobytes() + page.palette.tobytes() + page.mask.tobytes())
        digest.update(page.geometry.to_json().encode())
    assert digest.hexdigest()[:12] == PAGES[layout]
