"""Layouts: every lead once and in its place, in words a person can guess; every page is read back in millivolts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from render.dataset.rows import Options, check, make_row
from render.errors import InputError
from render.pages.geometry import LeadTrace, PageGeometry
from render.pages.layout import Layout, layout_named, make_layout
from render.pages.options import FORMATS, OPTION_WORDS, PageOptions, options_named
from render.pages.page import Page, draw
from render.pages.raster import INK_LEVELS, draw_text
from render.record import LEADS, EcgRecord
from render.simulator.simulate import SimulatedSource

# What stands on the page, row by row, written out by hand from pages of real machines: the rule that fills the
# grid is not repeated here.
STANDARD = {
    "3x4": "I aVR V1 V4 | II aVL V2 V5 | III aVF V3 V6",
    "6x2": "I V1 | II V2 | III V3 | aVR V4 | aVL V5 | aVF V6",
    "12x1": "I | II | III | aVR | aVL | aVF | V1 | V2 | V3 | V4 | V5 | V6",
    "6x1": "I | II | III | aVR | aVL | aVF",
    "6x1-chest": "V1 | V2 | V3 | V4 | V5 | V6",
    "3x2": "I aVR | II aVL | III aVF",
    "3x2-chest": "V1 V4 | V2 V5 | V3 V6",
    "3x1": "I | II | III",
    "3x1-rhythm": "II | V1 | V5",
}
CABRERA = {
    **STANDARD,
    "3x4": "aVL II V1 V4 | I aVF V2 V5 | -aVR III V3 V6",
    "6x2": "aVL V1 | I V2 | -aVR V3 | II V4 | aVF V5 | III V6",
    "12x1": "aVL | I | -aVR | II | aVF | III | V1 | V2 | V3 | V4 | V5 | V6",
    "6x1": "aVL | I | -aVR | II | aVF | III",
    "3x2": "aVL II | I aVF | -aVR III",
    "3x1": "aVL | I | -aVR",
}
STRIPS = {"": "", "+1R": " | II", "+2R": " | II | V1", "+3R": " | II | V1 | V5"}
PAGES = {"standard": STANDARD, "cabrera": CABRERA}
FORMATS_AND_ORDERS = [f"{name},{order}" for name in FORMATS for order in PAGES]
OPTIONS = [
    "3x4+1R,50mm/s",
    "3x4+1R,simultaneous",
    "3x4+3R,cabrera,50mm/s,simultaneous,half-chest",
    "3x4+2R,5mm/mV,half-chest,pulse-end",
    "3x4,20mm/mV,no-pulse,no-names",
    "6x2+1R,20mm/mV,half-chest,no-separators",
    "12x1,A4",
    "6x2,cabrera,Letter,50mm/s,pulse-end",
    "6x1-chest,half-chest",
    "3x1-rhythm,280x280mm,5mm/mV",
]


def expected_labels(words: str) -> list[list[str]]:
    name, order = words.split(",")
    grid, strips = re.fullmatch(r"(.*?)(\+\dR)?", name).groups("")  # type: ignore[union-attr]
    return [row.split() for row in (PAGES[order][grid] + STRIPS[strips]).split(" | ")]


def ramp_record(plan: Layout, rate: float = 500.0) -> EcgRecord:
    """Heartbeats on a ramp, from another level in every lead, small enough for the layout's rows.

    Level and ramp differ by lead and time, so that a lead in another's place, at another gain, upside down or
    from another second is read back wrongly.
    """
    t = np.arange(round(10 * rate)) / rate
    beat = np.exp(-((((t + 0.3) % 0.83 - 0.3) / 0.012) ** 2) / 2)
    leads = np.stack([0.1 + 0.05 * k + 0.04 * t + math.cos(k) * 0.4 * beat for k in range(12)])
    room = min((trace.bottom - trace.top) / 2 / trace.mm_per_mv for trace in plan.traces)
    return EcgRecord("made", (leads * min(1.0, 0.95 * room / leads.max())).astype(np.float32), rate, "test")


def digitise(page: Page, lead: LeadTrace) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns, and the millivolts of a lead in them, from the picture and the lead's own geometry."""
    x0, y0, x1, y1 = lead.box
    columns = np.arange(math.ceil(x0) + 2, math.floor(x1) - 1)
    if lead.name_box:
        columns = columns[(columns < lead.name_box[0] - 1) | (columns > lead.name_box[2])]
    rows = np.arange(math.ceil(y0) + 1, math.floor(y1))
    ink = (page.image % INK_LEVELS)[np.ix_(rows, columns)].astype(float)
    middle = (ink * rows[:, None]).sum(axis=0) / ink.sum(axis=0)
    return columns, lead.from_page(np.column_stack([columns, middle]))[1]


def off_by(page: Page, lead: LeadTrace, record: EcgRecord) -> NDArray[np.float64]:
    """How far, in pixels, what is read back lies from the record's own signal."""
    columns, mv = digitise(page, lead)
    inside = columns[:, None] + np.linspace(-0.5, 0.5, 21)[None, :]
    seconds, _ = lead.from_page(np.column_stack([inside.ravel(), np.zeros(inside.size)]))
    samples = record.lead(lead.lead)
    true = np.interp(seconds, np.arange(samples.size) / record.sampling_rate, samples)
    true = true.reshape(inside.shape).mean(axis=1)
    return np.asarray(np.abs(mv - true) * lead.mm_per_mv * lead.px_per_mm)


# --- each lead once and in its place ---


@pytest.mark.parametrize("words", FORMATS_AND_ORDERS)
def test_each_lead_stands_once_and_in_its_place(words: str) -> None:
    plan, rows = layout_named(words), expected_labels(words)
    assert [[t.label for t in plan.traces if t.baseline == at] for at in plan.baselines] == rows
    grid = [trace.lead for trace in plan.traces[: len(plan.traces) - int((words.split("+")[1:] or "0")[0][0])]]
    assert len(set(grid)) == len(grid) and set(grid) <= set(LEADS)
    if words.startswith(("3x4", "6x2", "12x1")):
        assert set(grid) == set(LEADS)
    for trace in plan.traces:
        assert (trace.polarity < 0) == (trace.label == "-aVR")
        assert trace.lead == trace.label.removeprefix("-")


def test_every_format_was_written_out() -> None:
    assert {name.split("+")[0] for name in FORMATS} == set(STANDARD)
    assert [name for name in FORMATS if "+" in name] == ["3x4+1R", "3x4+2R", "3x4+3R", "6x2+1R"]


@pytest.mark.parametrize("words", FORMATS_AND_ORDERS + OPTIONS)
def test_rows_and_columns_lie_side_by_side_on_heavy_lines(words: str) -> None:
    plan = layout_named(words)
    assert plan.baselines and all(at % 5 == 0 for at in plan.baselines)
    for row in ([t for t in plan.traces if t.baseline == at] for at in plan.baselines):
        assert plan.trace_end(row[-1]) == row[0].x0 + 250.0
        for one, following in itertools.pairwise(row):
            assert plan.trace_end(one) == following.x0
            assert following.start == (0.0 if "simultaneous" in words else one.end)
    tops = sorted({(t.top, t.bottom) for t in plan.traces})
    assert all(upper[1] == lower[0] for upper, lower in itertools.pairwise(tops))


def all_layouts() -> list[Layout]:
    layouts = []
    for name, *values in itertools.product(FORMATS, *(OPTION_WORDS[f] for f in ("mm_per_s", "pulse", "paper"))):
        try:
            layouts.append(layout_named(",".join((name, *values))))
        except InputError as error:
            assert "12x1" in str(error) and "do not fit" in str(error)
    assert len(layouts) > 100 and all(plan.traces for plan in layouts) and any(plan.pulses for plan in layouts)
    return layouts


def test_layouts_stay_on_their_page() -> None:
    for plan in all_layouts():
        for trace in plan.traces:
            assert 0 < trace.x0 < plan.trace_end(trace) < plan.width
            assert plan.grid_top <= trace.top < trace.baseline < trace.bottom <= plan.height
        for pulse in plan.pulses:
            fall = pulse.x + 0.2 * plan.mm_per_s
            left, right = plan.traces[0].x0, plan.traces[0].x0 + 250
            assert pulse.x > 1.5 and fall + 1.5 < plan.width  # 1.5 mm: the pulse's feet
            assert fall + 1.5 <= left or pulse.x - 1.5 >= right


# --- read back ---


@pytest.mark.parametrize("words", FORMATS_AND_ORDERS + OPTIONS)
def test_millivolts_are_read_back_from_every_page(words: str) -> None:
    plan = layout_named(words)
    record = ramp_record(plan)
    page = draw(record, layout=words, width=560)
    assert page.geometry.layout == plan.name
    assert PageGeometry.from_json(page.geometry.to_json()).to_json() == page.geometry.to_json()
    assert [(e.lead, e.label) for e in page.geometry.leads] == [(t.lead, t.label) for t in plan.traces]
    for entry in page.geometry.leads:
        off = off_by(page, entry, record)
        assert np.median(off) < 0.3 and np.quantile(off, 0.8) < 0.5, entry.label


def test_what_is_read_back_tells_gain_direction_and_time_apart() -> None:
    """The test above must be able to fail: a wrong entry in the geometry is noticed."""
    plan = layout_named("3x4+1R,cabrera,half-chest")
    record = ramp_record(plan)
    page = draw(record, layout=plan.name, width=560)
    upside_down, chest = page.geometry.leads[8], page.geometry.leads[2]
    assert (upside_down.label, upside_down.lead) == ("-aVR", "aVR")
    assert (chest.lead, chest.mm_per_mv) == ("V1", 5.0)
    for entry, wrong in (
        (upside_down, {"inverted": False}),
        (chest, {"mm_per_mv": 10.0}),
        (chest, {"start_s": 0.0}),
        (chest, {"lead": "V2"}),
    ):
        assert np.median(off_by(page, entry, record)) < 0.3
        assert np.median(off_by(page, dataclasses.replace(entry, **wrong), record)) > 0.4, wrong


def test_samples_of_columns() -> None:
    def spans(words: str) -> list[tuple[float, int, int]]:
        leads = draw(ramp_record(layout_named(words)), layout=words, width=560).geometry.leads
        return [(e.start_s, e.start_sample, e.end_sample) for e in leads]

    assert spans("3x4+1R")[2:5] == [(5.0, 2500, 3750), (7.5, 3750, 5000), (0.0, 0, 1250)]
    assert spans("3x4+1R,50mm/s")[2:5] == [(2.5, 1250, 1875), (3.75, 1875, 2500), (0.0, 0, 625)]
    assert set(spans("3x4,simultaneous")) == {(0.0, 0, 1250)}
    assert spans("3x4+1R,50mm/s")[-1] == (0.0, 0, 2500)
    assert spans("6x2")[:2] == [(0.0, 0, 2500), (5.0, 2500, 5000)]


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("3x4", 10.0), ("3x4,50mm/s", 5.0), ("3x4,simultaneous", 2.5), ("3x4+1R,simultaneous", 10.0), ("12x1", 10.0)],
)
def test_a_record_needs_as_much_time_as_its_page_shows(words: str, seconds: float) -> None:
    whole = ramp_record(layout_named(words))
    assert layout_named(words).seconds == seconds
    enough = dataclasses.replace(whole, signal=whole.signal[:, : round(seconds * 500)])
    check(enough, layout_named(words))
    with pytest.raises(InputError, match=f"the page shows {seconds:g} s"):
        check(dataclasses.replace(enough, signal=enough.signal[:, :-10]), layout_named(words))


def test_a_row_of_a_data_set_holds_the_layout_by_its_own_name() -> None:
    row = make_row(SimulatedSource(3, 1).read(0), 0, Options(layout="half-chest, 12x1", width=560))
    assert row["layout"] == PageGeometry.from_json(row["geometry"]).layout == "12x1,half-chest"


# --- what is printed ---


def ink_of(words: str, width: int = 1120) -> tuple[NDArray[np.float64], Layout]:
    """Ink, 0-1, of a page whose leads hold nothing, and its layout."""
    silent = np.full((12, 5000), np.nan, dtype=np.float32)
    silent[0, -1] = 9.0  # a record needs one finite sample; this one lies outside most pages
    page = draw(EcgRecord("silent", silent, 500.0, "test"), layout=words, width=width)
    return (page.image % INK_LEVELS) / (INK_LEVELS - 1), layout_named(words)


@pytest.mark.parametrize("speed", [25, 50])
@pytest.mark.parametrize("gain", [5, 10, 20])
@pytest.mark.parametrize("side", ["pulse-start", "pulse-end"])
def test_the_pulse_is_as_high_as_the_gain_and_a_fifth_of_a_second_long(speed: int, gain: int, side: str) -> None:
    ink, plan = ink_of(f"3x4+1R,{speed}mm/s,{gain}mm/mV,{side}")
    for pulse in plan.pulses:
        x, base = round(pulse.x * 4), round(pulse.baseline * 4)
        long = round(0.2 * speed * 4)
        high = np.argmax(ink[max(0, base - 25 * 4) : base + 1, x + long // 2] > 0.5) + max(0, base - 25 * 4)
        assert (base - high) / 4 == pytest.approx(gain, abs=0.3)  # the line is 0.35 mm wide
        halfway = np.flatnonzero(ink[base - gain * 2, max(0, x - 8) : x + long + 8] > 0.5) + max(0, x - 8)
        assert (halfway.min() + halfway.max()) / 2 == pytest.approx(x + long / 2, abs=0.6)
        assert halfway.max() - halfway.min() == pytest.approx(long, abs=2)
    assert len(plan.pulses) == 4


def test_half_gain_is_a_stair_where_both_gains_meet() -> None:
    ink, plan = ink_of("3x4+1R,half-chest")
    assert [pulse.gains for pulse in plan.pulses] == [(10.0, 5.0)] * 3 + [(10.0,)]
    for column, gain in ((24, 10), (36, 5)):  # px: 1 and 4 mm after the rise
        lit_rows = np.flatnonzero(ink[18 * 4 : 31 * 4, column] > 0.5) / 4 + 18
        assert 30 - lit_rows.mean() == pytest.approx(gain, abs=0.2)
    assert [pulse.gains for pulse in layout_named("12x1,half-chest").pulses] == [(10.0,)] * 6 + [(5.0,)] * 6
    assert layout_named("3x4+2R,half-chest").traces[-1].mm_per_mv == 5.0  # V1 as a strip
    assert layout_named("6x1-chest,20mm/mV,half-chest").gains == (10.0,)


@pytest.mark.parametrize(
    ("with_it", "without", "places"),
    [
        (
            "3x4",
            "3x4,no-pulse",
            lambda plan: [(p.x - 2, p.baseline - 11, p.x + 7, p.baseline + 1) for p in plan.pulses],
        ),
        ("3x4", "3x4,no-separators", lambda plan: [(x - 1, y - 8, x + 1, y + 8) for x, y in plan.separators]),
        ("3x4", "3x4,no-names", lambda plan: [(t.x0 + 1, t.top, t.x0 + 15, t.top + 6.5) for t in plan.traces]),
    ],
)
def test_what_is_left_out_is_left_out_and_nothing_else(with_it: str, without: str, places: Any) -> None:
    (more, plan), (less, _) = ink_of(with_it, 560), ink_of(without, 560)
    differs = more != less
    boxes = places(plan)
    assert boxes
    for box in boxes:
        x0, y0, x1, y1 = (round(2 * mm) for mm in box)
        assert differs[y0:y1, x0:x1].any() and not less[y0:y1, x0:x1].any()
        differs[y0:y1, x0:x1] = False
    assert not differs.any()


def test_names_say_which_lead_stands_upside_down() -> None:
    record = ramp_record(layout_named("6x2,cabrera"))
    page = draw(record, layout="6x2,cabrera", width=1120)
    assert len(page.geometry.leads) == 12
    for entry in page.geometry.leads:
        assert entry.name_box
        x0, y0, x1, y1 = entry.name_box
        assert entry.box[0] < x0 < x1 < entry.box[2] and entry.box[1] < y0 < y1 < entry.baseline_y
        word = np.zeros((60, 120), dtype=np.uint8)
        a, b, c, d = draw_text(word, entry.label, 20.0, 40.0, 4.6 * entry.px_per_mm)
        letters = page.image[y0:y1, x0:x1] % INK_LEVELS
        assert (letters >= np.rint(word[b:d, a:c] / 255 * (INK_LEVELS - 1))).all()  # a wave may run through it
    assert not any(e.name_box for e in draw(record, layout="6x2,no-names", width=560).geometry.leads)


@pytest.mark.parametrize(
    ("words", "width", "shape"),
    [
        ("3x4+3R", 1120, (560, 1120)),
        ("6x2", 1120, (560, 1120)),
        ("12x1", 1120, (1120, 1120)),
        ("6x2+1R", 560, (560, 560)),
        ("3x4+1R,A4", 2339, (1654, 2339)),  # 200 dpi
        ("3x4+1R,Letter", 2200, (1700, 2200)),  # 200 dpi
    ],
)
def test_pages_have_the_size_of_their_paper(words: str, width: int, shape: tuple[int, int]) -> None:
    assert draw(ramp_record(layout_named(words)), layout=words, width=width).image.shape == shape


# --- words ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("4x3", "layout '4x3' is not known; the nearest is "),
        ("3x4+4R", "the nearest is '3x4+3R'"),
        ("12x1+1R", "the nearest is '12x1'"),
        ("6x2+1R,cabrerra", "layout 'cabrerra' in '6x2+1R,cabrerra' is not known; the nearest is 'cabrera'"),
        ("3x4,50mm", "the nearest is '50mm/s'"),
        ("3x4,10mm/mv", "the nearest is '10mm/mV'"),
        ("3x4,a4", "the nearest is 'A4'"),
        ("3x4,", "layout '' in '3x4,' is not known"),
        ("3x4,6x2", "has both '3x4' and '6x2'"),
        ("25mm/s,50mm/s", "has both '25mm/s' and '50mm/s'"),
        ("12x1,280x140mm", "12 rows do not fit on a page 140 mm high; add 280x280mm"),
    ],
)
def test_wrong_words_are_refused_with_the_mend(words: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        layout_named(words)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"mm_per_s: 30 is not one of 25\.0, 50\.0"):
        PageOptions(mm_per_s=30)
    with pytest.raises(InputError, match="format: '5x5'"):
        PageOptions(format="5x5")


@pytest.mark.parametrize("words", FORMATS_AND_ORDERS + OPTIONS)
def test_a_layout_is_known_by_its_own_name(words: str) -> None:
    options = options_named(words)
    assert make_layout(options_named(options.name)) == make_layout(options)
    assert options.name == words.replace(",standard", "") or len(options.name) <= len(words)


def test_names_leave_out_what_is_usual() -> None:
    assert options_named("12x1,280x280mm,25mm/s,standard").name == "12x1"
    assert options_named("50mm/s, cabrera").name == "3x4+1R,cabrera,50mm/s"
    assert layout_named("3x4+1R") == make_layout(PageOptions())


def test_every_option_has_a_field_and_its_usual_word_is_the_default() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(PageOptions)}
    assert set(OPTION_WORDS) == set(fields) - {"format"}
    for field, choices in OPTION_WORDS.items():
        assert next(iter(choices.values())) == fields[field] or field == "paper"
    words = [*FORMATS, *(word for choices in OPTION_WORDS.values() for word in choices)]
    assert len(set(words)) == len(words)
