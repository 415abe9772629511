"""The digitizer: simulated pages come back in millivolts, other pictures are refused, and training resumes exactly."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

from eval.metrics.signal_to_noise import signal_to_noise_db
from recipes.digitizer import training
from recipes.digitizer.axes import redraw_axes
from recipes.digitizer.crossings import _ends
from recipes.digitizer.digitize import (
    _end_at_one_height,
    _name_strips,
    _page,
    _page_start,
    _reaches_limit,
    _Reading,
    digitize,
)
from recipes.digitizer.frames import Frames, inside_frames
from recipes.digitizer.grid import _FREQUENCIES, _Patch, _period, find_grid
from recipes.digitizer.layout import SINGLE_LEAD, Span, read_layout
from recipes.digitizer.names import Name
from recipes.digitizer.network import load_line_network, load_name_network
from recipes.digitizer.picture import as_picture, block_mean, interpolate
from recipes.digitizer.plausibility import limb_misfit, shows_beats
from recipes.digitizer.printed_scales import PrintedScales, scales_in
from recipes.digitizer.refine import _touched, _Traced, _without_marks, _without_other_traces, fit_pen
from recipes.digitizer.result import DigitizedLead, DigitizedPage
from recipes.digitizer.straighten import _usual_step, ink_of, sheet_at_scale, straighten, tilt_of
from recipes.digitizer.traces import (
    CalibrationPulse,
    Row,
    _are_distinct,
    _behind_names,
    _main_span,
    _read_pulses,
    find_rows,
)
from render.dataset.rows import Options, make_picture
from render.errors import InputError
from render.pages import page as page_module
from render.pages.geometry import PageGeometry, transform_points
from render.pages.layout import Layout, Pulse
from render.pages.options import PageOptions
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord
from render.simulator.simulate import simulate

SEEDS = {"6x2": 2}
"""Of the records, by layout: their waves do not run into the next row. All other layouts show record 3."""
WIDTH = 1600


@dataclass(frozen=True, eq=False)
class Case:
    """A record, the picture of its page, and what the digitizer reads."""

    record: EcgRecord
    image: Image.Image
    geometry: PageGeometry
    page: DigitizedPage

    def decibels(self) -> float:
        return signal_to_noise_db([self.pair(trace) for trace in self.geometry.leads], HIGH_RATE_HZ)

    def pair(self, trace) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Reference and estimate of a trace; an empty estimate where the lead is missing."""
        reference = self.record.lead(trace.lead)[trace.start_sample : trace.end_sample]
        lengths = {
            abs(lead.millivolts.size - reference.size): lead for lead in self.page.leads if lead.lead == trace.lead
        }
        near = [lead.millivolts for difference, lead in lengths.items() if difference < 0.3 * reference.size]
        return reference, near[0] if near else np.zeros(0, np.float32)


def picture_of(style: str, layout: str) -> tuple[EcgRecord, Image.Image, PageGeometry]:
    seed = SEEDS.get(layout, 3)
    record = simulate(seed)
    picture, _ = make_picture(record, seed, Options(style=style, layout=layout, width=WIDTH))
    return record, Image.open(io.BytesIO(picture.data)).convert("RGB"), picture.geometry


@pytest.fixture(scope="module")
def case_of() -> Callable[..., Case]:
    """The case of a style and a layout; each page is digitized once."""
    cases: dict[tuple[str, str], Case] = {}

    def make(style: str, layout: str = "3x4+1R") -> Case:
        if (style, layout) not in cases:
            record, image, geometry = picture_of(style, layout)
            cases[style, layout] = Case(record, image, geometry, digitize(image))
        return cases[style, layout]

    return make


@pytest.mark.parametrize(
    ("style", "layout", "least_db"),
    [("clean", "3x4+1R", 23.0), ("scan", "3x4+1R", 19.0), ("photo", "3x4+1R", 18.0), ("clean", "6x2", 25.0)],
)
def test_leads_of_a_page_come_back_in_millivolts(case_of, style: str, layout: str, least_db: float) -> None:
    case = case_of(style, layout)
    page = case.page
    assert (page.layout, page.order, page.rotation_degrees, page.grid) == (layout, "standard", 0, True)
    assert (page.mm_per_s, page.mm_per_mv, page.gain_from) == (25.0, 10.0, "pulse")
    assert page.speed_from in ("print", "pulse")
    assert sorted(lead.lead for lead in page.leads) == sorted(trace.lead for trace in case.geometry.leads)
    assert page.name_agreement > 0.8 and page.remarks == ()
    assert case.decibels() >= least_db


def test_a_column_begins_where_the_last_one_ends(case_of) -> None:
    starts = {lead.lead: lead.start_s for lead in case_of("clean").page.leads}
    assert [round(starts[lead], 1) for lead in ("I", "aVR", "V1", "V4")] == [0.0, 2.5, 5.0, 7.5]


def test_the_signal_has_twelve_leads_and_nan_outside_their_columns(case_of) -> None:
    signal = case_of("clean").page.signal()
    assert signal.dtype == np.float32 and signal.shape[0] == 12 and abs(signal.shape[1] - 10 * HIGH_RATE_HZ) < 50
    shares = np.isfinite(signal).mean(axis=1)
    assert shares[LEADS.index("II")] > 0.95  # the rhythm strip
    assert all(0.2 < shares[LEADS.index(lead)] < 0.3 for lead in LEADS if lead != "II")


def test_the_path_of_a_lead_lies_on_its_trace_in_the_picture(case_of) -> None:
    case = case_of("photo")
    assert len(case.page.leads) >= 12
    for lead in case.page.leads[:12]:
        trace = next(trace for trace in case.geometry.leads if trace.lead == lead.lead)
        samples, mv = case.geometry.from_image(trace, lead.path.astype(np.float64))
        inside = (samples > trace.start_sample) & (samples < trace.end_sample - 1)
        reference = np.interp(samples[inside], np.arange(case.record.signal.shape[1]), case.record.lead(lead.lead))
        assert np.median(np.abs(mv[inside] - reference)) < 0.05


def test_the_summary_is_json_and_names_every_lead(case_of) -> None:
    summary = case_of("clean").page.summary()
    assert summary["rotation_degrees"] == 0 and summary["missing_leads"] == []
    assert summary["lead_name_count"] >= 5 and summary["lead_name_agreement"] > 0.8
    assert len(summary["leads"]) == 13 and all(lead["missing_share"] < 0.05 for lead in summary["leads"])


@pytest.mark.parametrize(
    ("turn", "degrees"),
    [
        (Image.Transpose.ROTATE_90, 270),
        (Image.Transpose.ROTATE_180, 180),
        (Image.Transpose.ROTATE_270, 90),
    ],
)
def test_a_rotated_page_gives_the_same_millivolts(case_of, turn: Image.Transpose, degrees: int) -> None:
    case = case_of("clean")
    page = digitize(case.image.transpose(turn))
    assert (page.rotation_degrees, page.layout) == (degrees, "3x4+1R")
    assert [lead.lead for lead in page.leads] == [lead.lead for lead in case.page.leads]
    for lead, upright in zip(page.leads, case.page.leads, strict=True):
        size = min(lead.millivolts.size, upright.millivolts.size)
        assert np.nanmedian(np.abs(lead.millivolts[:size] - upright.millivolts[:size])) < 0.02, lead.lead
    assert Case(case.record, case.image, case.geometry, page).decibels() >= 18.0


def test_speed_and_gain_follow_from_the_pulse_and_the_print(case_of) -> None:
    case = case_of("clean", "3x4,50mm/s,5mm/mV")
    page = case.page
    assert (page.layout, page.mm_per_s, page.mm_per_mv) == ("3x4", 50.0, 5.0)
    assert (page.speed_from, page.gain_from) == ("print", "pulse")
    assert case.decibels() >= 12.0


@pytest.mark.parametrize("layout", ["3x4+1R", "12x1"])  # pulses of two steps; rows of chest leads with lower pulses
def test_chest_leads_at_half_the_gain_are_read_from_the_pulses(case_of, layout: str) -> None:
    case = case_of("clean", f"{layout},half-chest")
    for trace in case.geometry.leads:
        reference, estimate = case.pair(trace)
        assert np.nanstd(estimate) / reference.std() == pytest.approx(1.0, abs=0.1)
    assert any("half the gain" in remark for remark in case.page.remarks)


def _wave(tip: int, *, from_top: bool, x: int, rows: int = 200) -> NDArray[np.float32]:
    """Ink (rows, 40) of a wave: two flanks, each three pixels wide, that meet at their tip."""
    ink = np.zeros((rows, 40), np.float32)
    for row in range(tip + 1) if from_top else range(tip, rows):
        apart = min(abs(row - tip) // 8, 5)
        for flank in (x - apart, x + apart):
            ink[row, flank - 1 : flank + 2] = 1.0
    return ink


@pytest.mark.parametrize(("upper_tip", "lower_tip"), [(99, 100), (130, 80)])  # one above the other; side by side
def test_a_stroke_of_two_rows_is_told_apart_by_the_ink_across_it(upper_tip: int, lower_tip: int) -> None:
    upper, lower = (
        _wave(upper_tip, from_top=True, x=12),
        _wave(lower_tip, from_top=False, x=14 if upper_tip < 100 else 26),
    )
    lower_end, upper_end = _ends(np.maximum(upper, lower).sum(axis=1), px_per_mm=8.0)
    assert upper_end == pytest.approx(upper_tip, abs=9) and lower_end == pytest.approx(lower_tip, abs=9)


def test_letters_at_a_stroke_do_not_say_where_it_ends() -> None:
    across = np.full(200, 6.0)
    across[95:100] = 4.0  # the tips
    across[40:60] = 30.0  # a name
    lower_end, upper_end = _ends(across, px_per_mm=8.0)
    assert 93 <= lower_end <= upper_end <= 102


def test_a_lead_whose_baseline_wanders_to_the_next_row_is_not_missing() -> None:
    x = np.arange(4000) / 16
    level = np.linspace(20.0, 55.0, x.size)  # passes the level of the next row, whose trace is elsewhere there
    nothing = np.zeros(x.size, bool)
    wandering = Row(x, level, 20.0, 0.0, 250.0, np.ones(x.size), nothing)
    other = Row(x, np.full(x.size, 60.0) - np.linspace(0, 2, x.size), 50.0, 0.0, 250.0, np.ones(x.size), nothing)
    kept = _without_other_traces(wandering, [wandering, other], 8.0)
    assert np.isfinite(kept.y).all()
    follower = Row(x, other.y, 20.0, 0.0, 250.0, np.ones(x.size), nothing)
    assert np.isnan(_without_other_traces(follower, [follower, other], 8.0).y).mean() > 0.9


def test_waves_that_cross_the_row_above_are_told_from_its_own() -> None:
    """R waves of V6 reach beyond the level of V5, whose own stand at the same places."""
    record = simulate(5)
    gains = np.where(np.isin(LEADS, ["V4", "V5", "V6"]), np.float32(4), np.float32(1))
    record = replace(record, signal=record.signal * gains[:, None])
    picture, _ = make_picture(record, 5, Options(style="clean", layout="3x4+1R", width=WIDTH))
    page = digitize(Image.open(io.BytesIO(picture.data)).convert("RGB"))
    case = Case(record, Image.new("RGB", (1, 1)), picture.geometry, page)
    tall = [trace for trace in picture.geometry.leads if trace.lead in ("V4", "V5", "V6")]
    assert [signal_to_noise_db([case.pair(trace)], HIGH_RATE_HZ) > 20 for trace in tall] == [True] * 3


def test_strokes_of_no_row_that_touch_a_trace_are_marked_where_they_are() -> None:
    """A stroke of 5 mm from the first row's trace up, another that ends before the second row's, and a speck on it."""
    places = np.arange(2000) / 16 + 1 / 32
    rows = [Row(places, np.full(2000, y), y, 0.0, 125.0, np.ones(2000), np.zeros(2000, bool)) for y in (30.0, 60.0)]
    ink = np.zeros((700, 1000), np.float32)
    for level in (240, 480):
        ink[level - 1 : level + 2] = 1.0
    ink[200:240, 300:303] = 1.0
    ink[430:470, 600:603] = 1.0
    ink[481:489, 800:808] = 1.0
    first, second = _touched(ink, 8.0, [_Traced(row, 3.0, 0.3) for row in rows])
    assert np.flatnonzero(first).tolist() == [300, 301, 302]
    assert not second.any()


@pytest.mark.parametrize(("heights_mm", "is_mark"), [((5, 5, 5, 5, 5, 5), True), ((4, 4, 9, 12, 10, 6), False)])
def test_strokes_of_one_length_between_columns_are_marks_and_others_are_waves(heights_mm, is_mark) -> None:
    ink = np.zeros((1600, 1000), np.float32)
    x, nothing = np.arange(2000) / 16, np.zeros(2000, np.bool_)
    rows, spans = [], []
    for number, height in enumerate(heights_mm):
        level = 20.0 + 32.0 * number
        ink[round(8 * level) - 1 : round(8 * level) + 2] = 1.0
        ink[round(8 * (level - height)) : round(8 * level), 500:503] = 1.0
        rows.append(Row(x, np.full(x.size, level), level, 0.0, 125.0, np.ones(x.size), nothing))
        spans += [Span(lead, number, 62.5 * half, 62.5 * (half + 1), 1) for half, lead in enumerate(("I", "V1"))]
    kept = _without_marks(ink, 8.0, rows, spans)
    assert kept[round(8 * 17.0), 501] == (0.0 if is_mark else 1.0)


def test_of_a_page_that_is_cut_along_a_row_the_whole_rows_are_read_where_their_names_tell_them() -> None:
    """Without its strip a page is still one of twelve leads; without its first row it is none."""
    _, image, geometry = picture_of("clean", "3x4+1R")
    levels = sorted({round(trace.baseline_y) for trace in geometry.leads})
    page = digitize(image.crop((0, 0, image.width, levels[-1] + 4)))
    assert page.layout == "3x4" and any("edge of the picture is left out" in remark for remark in page.remarks)
    with pytest.raises(InputError, match=r"edge of the picture|do not add up"):
        digitize(image.crop((0, levels[0] - 4, image.width, image.height)))


def test_waves_that_the_edge_of_the_picture_cuts_off_are_named() -> None:
    _, image, geometry = picture_of("clean", "3x4+1R")
    first = min(round(trace.baseline_y) for trace in geometry.leads)
    for above, cut_off in ((60, ""), (30, "I: waves end"), (20, "I, aVR: waves end")):
        page = digitize(image.crop((0, first - above, image.width, image.height)))
        remarks = [remark for remark in page.remarks if "may be cut off" in remark]
        assert len(remarks) == bool(cut_off) and all(remark.startswith(cut_off) for remark in remarks)
        named = [lead.lead for lead in page.leads if any("may be cut off" in remark for remark in lead.remarks)]
        assert cut_off.startswith(", ".join(named))


@pytest.mark.parametrize(("frame_mm", "reaches"), [(26.5, True), (25.0, False)])
def test_waves_that_end_at_a_frame_are_noticed(frame_mm: float, reaches: bool) -> None:
    """A row at 40 mm with a wave of 13 mm, on 80 mm of paper."""
    x = np.arange(0.0, 100.0, 0.1)
    y = np.where(np.abs(x - 50.0) < 1.0, 27.0, 40.0)
    every = np.ones(x.size, np.bool_)
    row = Row(x, y, 40.0, 0.0, 100.0, every.astype(float), ~every)
    ink = np.zeros((400, 500), np.float32)
    sheet = sheet_at_scale(np.ones((3, 400, 500), np.float32), 5.0)
    reading = _Reading(sheet, 0, ink, ink, (row,), None, Frames(ends=(frame_mm, 70.0)))
    assert _reaches_limit(reading, row, every) is reaches
    assert not _reaches_limit(reading, row, every & (x < 40.0))


def test_waves_that_a_panel_cuts_off_end_at_one_height() -> None:
    x = np.arange(0.0, 250.0, 0.1)
    heights = 16.0 + np.random.default_rng(0).normal(0, 0.4, 10)  # millimetres of ten R waves
    y = 40.0 - sum(height * np.exp(-(((x - 12.5 - 25 * k) / 0.8) ** 2)) for k, height in enumerate(heights))
    assert not _end_at_one_height(y)
    assert _end_at_one_height(np.maximum(y, 25.0)) and _end_at_one_height(80 - np.maximum(y, 25.0))
    assert not _end_at_one_height(np.maximum(y, 31.0))  # below 1 mV many waves are alike
    assert not _end_at_one_height(np.maximum(y[x < 75], 25.0))  # three waves


def test_the_upper_rows_of_twelve_are_not_two_columns() -> None:
    """Seven rows are two columns of six and a strip, whose right column has names of its own."""
    _, image, geometry = picture_of("clean", "12x1")
    levels = sorted({round(trace.baseline_y) for trace in geometry.leads})
    with pytest.raises(InputError, match=r"7 rows of traces|do not add up"):
        digitize(image.crop((0, 0, image.width, (levels[6] + levels[7]) // 2)))


def test_one_row_is_a_strip_of_one_lead(case_of) -> None:
    case = case_of("clean")
    strip = next(trace for trace in case.geometry.leads if trace.end_sample - trace.start_sample > 4000)
    top, bottom = round(strip.box[1]), round(strip.box[3])
    page = digitize(case.image.crop((0, top, case.image.width, bottom)))
    (lead,) = page.leads
    assert page.layout == SINGLE_LEAD and lead.lead == strip.lead
    assert signal_to_noise_db([(case.pair(strip)[0], lead.millivolts)], HIGH_RATE_HZ) >= 15.0


def test_a_page_without_a_grid_is_read_at_the_usual_scale_and_says_so(case_of) -> None:
    page = case_of("clean,no-grid").page
    assert not page.grid and page.layout == "3x4+1R" and page.rotation_degrees == 0
    assert any("no grid" in remark for remark in page.remarks)
    assert case_of("clean,no-grid").decibels() >= 18.0  # the page has the usual width


@pytest.mark.parametrize("margin", [60, 260])
def test_the_scale_without_a_grid_follows_from_rows_and_pulses(margin: int) -> None:
    record, image, geometry = picture_of("no-grid", "3x4+1R")
    sheet = Image.new("RGB", (image.width + 2 * margin, image.height), "white")
    sheet.paste(image, (margin, 0))
    page = digitize(sheet)
    assert page.px_per_mm == pytest.approx(geometry.px_per_mm, rel=0.002)
    assert Case(record, sheet, geometry, page).decibels() >= 14  # a shift of 0.2 % of 10 s is half a QRS


@pytest.mark.parametrize("degrees", [-1.0, 0.6])
def test_a_tilted_page_without_a_grid_is_levelled_by_its_print(degrees: float) -> None:
    record, image, geometry = picture_of("no-grid", "3x4+1R")
    tilted = image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
    sheet = sheet_at_scale(as_picture(tilted), geometry.px_per_mm)
    assert np.degrees(tilt_of(ink_of(sheet, 4.0), 4.0)) == pytest.approx(-degrees, abs=0.1)
    assert tilt_of(ink_of(sheet_at_scale(as_picture(image), geometry.px_per_mm), 4.0), 4.0) == 0
    assert Case(record, tilted, geometry, digitize(tilted)).decibels() >= 14


def test_a_fax_whose_dots_stand_for_grey_is_read() -> None:
    record, image, geometry = picture_of("clean", "3x4+1R")
    fax = image.convert("1").convert("RGB")
    page = digitize(fax)
    assert page.grid and page.px_per_mm == pytest.approx(geometry.px_per_mm, rel=0.005)
    assert Case(record, fax, geometry, page).decibels() >= 15


def test_a_line_of_print_that_is_taken_for_a_row_is_left_out_where_the_names_tell() -> None:
    """Blurred letters of a head touch each other."""
    record, image, geometry = picture_of("clean,no-text", "3x4+1R")
    boxes = round(20 * geometry.px_per_mm)  # more paper above
    head = Image.new("RGB", (image.width, image.height + boxes), "white")
    head.paste(image, (0, 0))
    head.paste(image, (0, boxes))
    x = np.arange(0.1 * image.width, 0.8 * image.width, 3)
    y = boxes / 2 + 3 * np.sin(x / 3) + 3 * np.sin(x / 40)
    ImageDraw.Draw(head).line([*zip(x, y, strict=True)], fill="black", width=3)
    page = digitize(head)
    assert page.layout == "3x4+1R" and page.name_agreement > 0.9
    assert Case(record, head, geometry, page).decibels() >= 20


def test_leads_of_less_than_a_second_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blurred photos a pattern of the pixels may be taken for the grid, three times too wide."""
    _, image, _ = picture_of("clean", "3x4+1R")

    def short_page(*reading) -> DigitizedPage:
        page = _page(*reading)
        return replace(page, leads=tuple(replace(lead, millivolts=lead.millivolts[:400]) for lead in page.leads))

    monkeypatch.setattr("recipes.digitizer.digitize._page", short_page)
    with pytest.raises(InputError, match="leads of less than a second"):
        digitize(image)


def test_a_speck_beside_a_name_does_not_say_that_a_column_has_four() -> None:
    """Three names and a speck: the column whose names are hidden was taken for one that the picture cuts off."""
    rows = [_row_with_name(30.0 * (k + 1), 0.0) for k in range(4)]
    columns = (("I", "II", "III"), ("aVR", "aVL", "aVF"), (), ("V4", "V5", "V6"))
    start, length = rows[0].start, (rows[0].end - rows[0].start) / 4
    names = [Name(lead, (start + c * length + 1, 22.0 + 30 * k, start + c * length + 5, 26.0 + 30 * k), 0.95)
             for c, leads in enumerate(columns) for k, lead in enumerate(leads)]  # fmt: skip
    speck = Name("I", (start + 6, 22.0, start + 7, 26.0), 0.7)
    for printed in (names, [*names, speck]):
        layout = read_layout(rows, printed)
        assert layout is not None and (layout.format, layout.order, layout.spans[0].lead) == ("3x4+1R", "standard", "I")


def test_a_blank_lead_is_missing_and_not_invented() -> None:
    record, image, geometry = picture_of("clean", "3x4,A4")  # its rows are further apart than a trace reaches
    trace = next(trace for trace in geometry.leads if trace.lead == "V5")
    x0, y0, x1, y1 = trace.box
    ImageDraw.Draw(image).rectangle((x0 + 2, y0, x1 + 20, y1), fill="white")
    page = digitize(image)
    assert page.layout == "3x4"
    assert page.summary()["missing_leads"] == ["V5"]
    assert np.isnan(page.signal()[LEADS.index("V5")]).all()
    case = Case(record, image, geometry, page)
    others = [case.pair(trace) for trace in geometry.leads if trace.lead != "V5"]
    assert signal_to_noise_db(others, HIGH_RATE_HZ) >= 14.0


@pytest.mark.parametrize("style", ["clean", "photo"])
def test_places_on_the_sheet_lie_where_the_page_has_them(style: str) -> None:
    _, image, geometry = picture_of(style, "3x4+1R")
    picture = as_picture(image)
    grid = find_grid(picture)
    assert grid is not None and grid.thin_lines
    sheet = straighten(picture, grid)
    y, x = np.mgrid[5 : sheet.height - 5 : 2.0, 5 : sheet.width - 5 : 2.0]
    pixels = np.stack([place.ravel() for place in sheet.place(x, y)], axis=1)
    page_px = transform_points(np.linalg.inv(geometry.homography), pixels)
    boxes = np.array([trace.box for trace in geometry.leads])
    inside = ((page_px > boxes[:, :2].min(axis=0)) & (page_px < boxes[:, 2:].max(axis=0))).all(axis=1)
    shift = page_px[inside] / geometry.px_per_mm - np.stack([x.ravel(), y.ravel()], axis=1)[inside]
    assert inside.sum() > 1000
    error = shift - np.median(shift, axis=0)
    assert np.sqrt((error**2).mean(axis=0)).max() < 0.1


def blank_image() -> Image.Image:
    return Image.new("RGB", (600, 400), "white")


def noise_image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (180, 240, 3), dtype=np.uint8))


def gradient_image() -> Image.Image:
    y, x = np.mgrid[0:1:400j, 0:1:600j]
    channels = np.stack([60 + 150 * x, 80 + 120 * y, 200 - 100 * x * y], axis=-1)
    return Image.fromarray(channels.astype(np.uint8))


def text_image() -> Image.Image:
    image = blank_image()
    for line in range(13):
        text = f"{line}. The patient was seen on Monday and was well."
        ImageDraw.Draw(image).text((30, 15 + 28 * line), text, fill="black", font=ImageFont.load_default(18))
    return image


@pytest.mark.parametrize("make_image", [blank_image, noise_image, gradient_image, text_image])
def test_a_picture_without_an_ecg_is_refused(make_image: Callable[[], Image.Image]) -> None:
    with pytest.raises(InputError, match=r"no ECG traces|no known ECG layout|without a heartbeat"):
        digitize(make_image())


def test_pictures_that_are_too_small_or_too_narrow_are_refused() -> None:
    with pytest.raises(InputError, match=r"120 x 80 pixels are too few; 200 are needed"):
        digitize(Image.new("RGB", (120, 80)))
    with pytest.raises(InputError, match="no ECG traces"):
        digitize(Image.new("RGB", (1600, 12), "white"))


def pen_drawing(heights: NDArray[np.float64], rows: int, pen: float) -> NDArray[np.float64]:
    """Ink (rows, columns), 0-1, of a polyline with a vertex in each half column: drawn large, then reduced."""
    zoom = 8
    columns = heights.size // 2
    image = Image.new("L", (columns * zoom, rows * zoom))
    x = ((np.arange(heights.size) - 0.5) / 2 + 0.5) * zoom
    points = list(zip(x.tolist(), ((heights + 0.5) * zoom).tolist(), strict=True))
    drawing = ImageDraw.Draw(image)
    drawing.line(points, fill=255, width=round(pen * zoom))
    for px, py in points:
        radius = pen * zoom / 2
        drawing.ellipse((px - radius, py - radius, px + radius, py + radius), fill=255)
    return np.asarray(image.reduce(zoom), dtype=np.float64) / 255.0


def test_fit_pen_finds_the_tip_of_a_narrow_spike() -> None:
    rows, columns, pen = 60, 80, 2.4
    x = (np.arange(2 * columns) - 0.5) / 2
    heights = 45.0 - 30.0 * np.exp(-(((x - 40.0) / 1.6) ** 2)) + 1.5 * np.sin(x / 9.0)
    ink = pen_drawing(heights, rows, pen)
    # As the columns show it: the middle of the stroke in each.
    dark = ink > 0.35
    first, last = dark.argmax(axis=0), rows - 1 - dark[::-1].argmax(axis=0)
    start = np.repeat((first + last) / 2, 2)
    fit, *_ = fit_pen(ink, start, pen)
    error, start_error = (np.sqrt(np.mean((estimate - heights) ** 2)) for estimate in (fit, start))
    assert error < 0.5 * start_error
    assert abs(fit.min() - heights.min()) < 1.0


def test_fit_pen_keeps_what_is_missing() -> None:
    heights = np.full(80, 20.0)
    ink = pen_drawing(heights, 40, 2.0)
    heights[30:50] = np.nan
    fit, *_ = fit_pen(ink, heights, 2.0)
    assert np.isnan(fit[30:50]).all() and np.abs(fit[np.isfinite(fit)] - 20.0).max() < 0.3


class InterruptionError(Exception):
    """Stops a run in the middle."""


@pytest.mark.parametrize("kind", training.NETWORKS)
def test_a_network_reads_without_torch_what_it_learnt_in_torch(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    learnt = training.NETWORKS[kind]().train()
    with torch.no_grad():
        learnt.learn(0, 0)  # the running means and variances are no longer 0 and 1
    training._write_weights(learnt, tmp_path / "w")
    learnt = learnt.half().float().eval()
    with torch.no_grad():
        if kind == "names":
            words, _ = training._word_batch(0, 0)
            np.testing.assert_allclose(
                load_name_network(tmp_path / "w").logits(words.numpy()), learnt(words).numpy(), atol=1e-5
            )
            return
        lines, columns, _ = training._line_batch(0, 0)
        line = lines[:1, :, :, : columns[0]]
        logits = load_line_network(tmp_path / "w").logits(line[0, 0].numpy())
        np.testing.assert_allclose(logits, learnt(line)[0].numpy(), atol=1e-5)


def test_printed_scales_are_taken_where_the_print_is_of_one_mind() -> None:
    expected = {
        ("25mm/s 10mm/mv 40?",): (25, 10),
        ("?ee? 12.5 mm / sec", "?i?? 1 cm/mv?c?es? 1 cm/mv"): (12.5, 10),
        ("?50 mm/s 5 mm/mv", "50mm/s"): (50, 5),
        ("25 mm/s 10 mm/mv", "50 mm/s 5 mm/mv"): (None, None),  # two pages
        ("50 mm.s 10 mm/mv0.05?150 ?",): (50, 10),
        ("25 mm/sec?m? 10 mm/mvc?es? 5.0 mm/mv",): (25, 10, True),  # limb and chest leads
        ("25 mm/s 20/10 mm/mv",): (25, 20, True),
        ("25 mm/sec?m? 10 mm/mvc?es? 10.0 mm/mv",): (25, 10, False),
        ("?m? 5 mm/mvc?es? 20 mm/mv",): (None, None),
        ("125 mm/s 3 mm/mv", "2.5 mm 10 mv", "2.25 mm/s"): (None, None),
        (): (None, None),
    }
    for lines, scales in expected.items():
        assert scales_in(lines) == PrintedScales(*scales), lines
    assert training.line_characters("Speed: 12,5 mm/Sec") == "s?ee? 12.5 mm/sec"


@pytest.mark.parametrize(("heights", "thin"), [
    ((9.8, 10.1, 9.9, 10.0, 11.1, 9.7), True),  # sharp
    ((8.5, 7.5, 6.7, 6.2, 6.1, 3.8), True),  # a small photo: what is finer is paler
    ((8.9, 8.3, 7.5, 6.9, 5.9, 4.5), False),  # the same of heavy lines alone
])  # fmt: skip
def test_fine_lines_are_seen_in_a_blurred_picture(heights: tuple[float, ...], thin: bool) -> None:
    base = 0.05
    profile = np.interp(_FREQUENCIES, base * np.arange(1, 7), heights)
    patch = _Patch(0.0, 0.0, np.zeros((1, 1)), 0.0, np.stack([profile, profile]))
    assert _period([patch], [base], 1000) == (5.0, thin)


def test_printed_words_without_a_grid_are_none() -> None:
    page = Image.new("RGB", (2200, 1700), "white")
    for left in (80, 640, 1180):
        for number, line in enumerate(
            ("MILLER, JANE", "04-NOV-1952 (68 yr)", "Female", "Room: ER Loc: 7", "QT 388 ms")
        ):
            ImageDraw.Draw(page).text((left, 40 + 40 * number), line, "black", ImageFont.load_default(28))
    assert find_grid(as_picture(page)) is None


def _row_with_name(level: float, name_mm: float, *, pulse: bool = True) -> Row:
    """A trace from 39 to 289 mm, behind a pulse and a name at its own height that is so long."""
    x = np.arange(0.25, 290.0, 0.125)
    pieces = [(16.0, 23.0)] * pulse + [(36.0 - name_mm, 36.0)] * (name_mm > 0) + [(39.0, 289.0)]
    y = np.where(np.any([(x >= a) & (x < b) for a, b in pieces], axis=0), level, np.nan)
    start = pieces[1][0] if pulse else pieces[0][0]
    pulses = (CalibrationPulse(17.5, 22.0, 10.0),) * pulse
    every = np.ones(x.size, np.bool_)
    return Row(x, y, level, start, 289.0, every.astype(float), ~every, pulses, pieces=tuple(pieces))


def test_specks_beside_a_row_are_no_part_of_it() -> None:
    stroke = np.zeros(2000, np.bool_)
    stroke[100:1900] = True
    stroke[[80, 81, 90, 1910, 1918]] = True
    assert _main_span(stroke, 8.0) == (100, 1900)
    dotted = np.zeros(2000, np.bool_)
    dotted[100:1899:3] = dotted[101:1900:3] = True
    assert _main_span(dotted, 8.0) == (100, int(np.flatnonzero(dotted)[-1]) + 1)


def test_names_at_the_height_of_their_traces_are_no_part_of_them() -> None:
    rows = [_row_with_name(45.0 + 30 * k, mm) for k, mm in enumerate((1.0, 3.5, 5.0, 9.0, 9.0, 9.0))]
    behind = _behind_names(rows)
    assert [row.start for row in behind] == [39.0] * 6
    assert all(np.nanmin(row.x[np.isfinite(row.y) & (row.x > 24.0)]) > 38.8 for row in behind)
    assert all(np.isfinite(row.y[row.x < 22.0]).any() for row in behind)  # the pulses stay
    plain = [_row_with_name(45.0 + 30 * k, 0.0, pulse=False) for k in range(6)]
    assert all(row is same for row, same in zip(plain, _behind_names(plain), strict=True))
    # Names that run into the traces leave no common begin behind them.
    joined = [
        replace(row, pieces=((20.0, 22.0), (begin, 289.0)))
        for row, begin in zip(plain, (37.2, 39.0, 39.0, 38.2), strict=False)
    ]
    assert all(row is same for row, same in zip(joined, _behind_names(joined), strict=True))
    # The names of limb leads stand before their traces, those of chest leads above.
    names = [Name(lead, (36.0 - 2 * len(lead), 43.0 + 30 * k, 36.0, 47.0 + 30 * k), 0.95)
             for k, lead in enumerate(LEADS[:6])]  # fmt: skip
    names += [Name(lead, (165.0, 36.0 + 30 * k, 170.0, 40.0 + 30 * k), 0.95) for k, lead in enumerate(LEADS[6:])]
    layout = read_layout(behind, names)
    assert layout is not None and (layout.format, layout.agreement) == ("6x2", 1.0)
    # In the middle of a row a name does not say what the row is.
    six = read_layout(behind, names[6:])
    assert six is None or six.format != "6x1-chest"


@pytest.mark.parametrize(("speed", "gain"), [(50.0, 5.0), (25.0, 20.0)])
def test_speed_and_gain_are_read_from_the_print_of_a_page_without_pulses(speed: float, gain: float) -> None:
    words = f"{speed:g}mm/s,{gain:g}mm/mV"
    _, image, _ = picture_of("clean", f"3x4+1R,no-pulse,{words}")
    page = digitize(image)
    assert (page.mm_per_s, page.speed_from, page.mm_per_mv, page.gain_from) == (speed, "print", gain, "print")


def test_a_picture_between_its_pixels_and_beyond_its_edge() -> None:
    picture = np.stack([np.arange(12, dtype=np.float32).reshape(3, 4)] * 3)
    x, y = np.array([[0.0, 1.5, 3.0, 3.5, -2.0]]), np.array([[0.0, 0.5, 2.0, 2.0, 1.0]])
    np.testing.assert_allclose(interpolate(picture, x, y)[0], [[0.0, 3.5, 11.0, 6.0, 1.0]])  # half of 11 and 1; paper
    np.testing.assert_allclose(block_mean(picture, 2)[2], [[2.5, 4.5]])


def test_a_page_is_read_without_torch() -> None:
    code = "import sys, ecg_vlm.page_reading; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", training.NETWORKS)
def test_an_interrupted_training_gives_the_same_weights(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY", 1)
    monkeypatch.setattr(training, "_LINE_BATCH", 4)

    def stop_after_two(line: str) -> None:
        if line.startswith("step 2"):
            raise InterruptionError

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.train_network(kind, whole, 3, report=lambda line: None)
    with pytest.raises(InterruptionError):
        training.train_network(kind, parts, 3, report=stop_after_two)
    lines: list[str] = []
    training.train_network(kind, parts, 3, report=lines.append)
    assert [line.split(":")[0] for line in lines] == ["step 3"]
    assert (whole / f"{kind}.safetensors").read_bytes() == (parts / f"{kind}.safetensors").read_bytes()


def test_a_strip_is_named_by_the_trace_that_it_shares_with_a_column():
    signal = simulate(3, ["SR"]).signal
    no_path = np.zeros((0, 2), np.float32)

    def lead(name, shown, start, seconds):
        samples = signal[LEADS.index(shown), round(start * 500) : round((start + seconds) * 500)]
        return DigitizedLead(name, start, samples, 1.0, (), no_path)

    columns = [lead(name, name, 2.5 * (k // 3), 2.5) for k, name in enumerate(LEADS)]
    assert [leads[-1].lead for shown in ("V1", "II", "V5")
            if (leads := _name_strips([*columns, lead("II", shown, 0.0, 10.0)]))] == ["V1", "II", "V5"]  # fmt: skip
    noise = DigitizedLead("II", 0.0, np.random.default_rng(0).normal(size=5000).astype(np.float32), 1.0, (), no_path)
    assert _name_strips([*columns, noise])[-1].lead == "II"
    poor = lead("II", "V1", 0.0, 10.0)  # a strip that was read as badly may be another lead's
    poor = replace(poor, millivolts=poor.millivolts + np.float32(0.45 * poor.millivolts.std()) * noise.millivolts)
    assert _name_strips([*columns, poor])[-1].lead == "II"


def test_narrow_pulses_count_where_two_rows_have_them():
    """Of one machine they are 2 mm wide, as narrow as a wave."""
    x = np.arange(0.0, 250.0, 0.1)

    def row(level, pulse_at):
        y = np.full(x.size, level)
        y[(x >= pulse_at) & (x < pulse_at + 2.0)] -= 10.0
        return Row(x, y, level, 0.0, 250.0, np.ones(x.size), np.zeros(x.size, np.bool_))

    assert [len(r.pulses) for r in _read_pulses([row(30.0, 5.0), row(60.0, 5.1)])] == [1, 1]
    assert [len(r.pulses) for r in _read_pulses([row(30.0, 5.0), row(60.0, 15.0)])] == [0, 0]


@pytest.fixture(scope="module")
def plain_page() -> Image.Image:
    """A clean page as small as screenshots are, and its photos' raw material."""
    picture, _ = make_picture(simulate(3, ["SR"]), 0, Options())
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.convert("RGB")


def _inverted(page: Image.Image) -> Image.Image:
    return ImageOps.invert(page)


def _half_size(page: Image.Image) -> Image.Image:
    return page.resize((page.width // 2, page.height // 2), Image.Resampling.LANCZOS)


def _on_a_table(page: Image.Image) -> Image.Image:
    table = Image.new("RGB", (2400, 1500), (96, 62, 40))
    table.paste(page.rotate(4, Image.Resampling.BICUBIC, expand=True, fillcolor=(96, 62, 40)), (700, 450))
    return table


def _two_on_a_sheet(page: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (page.width, 2 * page.height), "white")
    sheet.paste(page, (0, 0))
    sheet.paste(page, (0, page.height))
    return sheet


def _on_a_screen(page: Image.Image) -> Image.Image:
    """Traces of several colours on black; where ink has to darken all channels, most of them are pale."""
    black, dark = (Image.new("RGB", page.size, colour) for colour in ("black", "#303030"))
    ink = ImageOps.invert(page.convert("L")).point([min(255, 2 * max(0, v - 90)) for v in range(256)])
    colours = Image.new("RGB", page.size)
    for number, colour in enumerate(("#00ff40", "#ffe000", "#40c0ff", "#ff60ff")):
        height = page.height // 4
        colours.paste(colour, (0, number * height, page.width, (number + 1) * height))
    grid = ImageChops.darker(ImageOps.invert(page), dark)
    return Image.composite(colours, Image.composite(grid, black, ImageOps.invert(ink)), ink)


def _in_half_shadow(page: Image.Image) -> Image.Image:
    """Lit at its lower right alone, which is then far brighter than the rest of the paper."""
    y, x = np.mgrid[0 : 1 : page.height * 1j, 0 : 1 : page.width * 1j]
    light = 0.45 + 0.55 / (1 + np.exp(-12 * (np.minimum(x - 0.2, y - 0.4))))
    return Image.fromarray((np.asarray(page) * light[..., None]).astype(np.uint8))


@pytest.mark.parametrize("change", [_inverted, _half_size, _on_a_table, _two_on_a_sheet, _on_a_screen, _in_half_shadow])
def test_dark_small_distant_and_double_pages_are_read(change: Callable[[Image.Image], Image.Image], plain_page):
    picture = change(plain_page)
    page = digitize(picture)
    assert page.layout == "3x4+1R" and page.rotation_degrees == 0 and page.name_agreement > 0.8
    reference = simulate(3, ["SR"]).lead("II")
    (strip,) = (lead for lead in page.leads if lead.seconds > 5)
    assert signal_to_noise_db([(reference, strip.millivolts)], 500) > 8
    x0, y0 = strip.path.min(axis=0)
    x1, y1 = strip.path.max(axis=0)
    assert 0 <= x0 < x1 <= picture.width and 0 <= y0 < y1 <= picture.height
    assert ("two ECGs" in " ".join(page.remarks)) == (change is _two_on_a_sheet)


def test_a_pulse_that_stands_below_the_trace_has_its_own_foot():
    """Of one generator the pulse is centred on the level of the trace: 1 mV reaches only half as far above that."""
    x = np.arange(0.0, 250.0, 0.1)
    y = np.full(x.size, 30.0)
    y[x < 2.0], y[(x >= 2.0) & (x < 7.0)], y[(x >= 7.0) & (x < 8.0)], y[(x >= 8.0) & (x < 10.0)] = 35, 25, 35, np.nan
    row = Row(x, y, 30.0, 0.0, 250.0, np.ones(x.size), np.zeros(x.size, np.bool_))
    (pulse,) = _read_pulses([row])[0].pulses
    assert abs(pulse.height - 10.0) < 0.1


def test_a_few_specks_are_no_pulse() -> None:
    x = np.arange(0.0, 250.0, 0.125)
    y = np.full(x.size, 30.0)
    y[x < 10.0] = np.nan
    y[[8, 48, 79]] = 20.0  # of 1 mV above the level, 5 mm apart
    row = Row(x, y, 30.0, 0.0, 250.0, np.ones(x.size), np.zeros(x.size, np.bool_))
    assert _read_pulses([row])[0].pulses == ()


@pytest.mark.parametrize("side", ["pulse-start", "pulse-end"])
def test_the_foot_of_a_pulse_that_runs_into_the_trace_is_no_part_of_it(side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one generator the line goes on from the pulse to the trace, as far as the margin is wide."""
    outline = page_module._outline

    def with_long_foot(pulse: Pulse, layout: Layout) -> np.ndarray:
        points = outline(pulse, layout)
        traces = [trace for trace in layout.traces if trace.baseline == pulse.baseline]
        if side == "pulse-start":
            points[-1, 0] = min(trace.x0 for trace in traces)
        else:
            points[0, 0] = max(layout.trace_end(trace) for trace in traces)
        return points

    monkeypatch.setattr(page_module, "_outline", with_long_foot)
    record, image, geometry = picture_of("clean", f"3x4+1R,{side}")
    assert Case(record, image, geometry, digitize(image)).decibels() >= 21


@pytest.mark.parametrize(("column", "gap", "starts", "times"), [
    (250.0, 6.0, [10.0, 266.0], [0.0, 0.0]),  # paper between columns of 10 s
    (62.5, 4.0, [10.0, 76.5, 143.0, 209.5], [0.0, 2.5, 5.0, 7.5]),  # and of 2.5 s
    (60.0, 2.5, [10.0, 72.5, 135.0, 197.5], [0.0, 2.5, 5.0, 7.5]),  # a pen that is lifted while time goes on
])  # fmt: skip
def test_bare_paper_between_columns_is_no_time(column, gap, starts, times):
    x = np.arange(0.0, 540.0, 0.23)  # coarser than the pieces, which tell the ends
    count = len(starts)
    lefts = 10.0 + (column + gap) * np.arange(count)
    end = float(lefts[-1] + column)
    shown = np.any([(x > left) & (x < left + column) for left in lefts], axis=0)
    rows = [
        Row(
            x,
            np.where(shown, level, np.nan),
            level,
            10.0,
            end,
            shown.astype(float),
            np.zeros(x.size, np.bool_),
            pieces=tuple((left, left + column) for left in lefts.tolist()),
        )
        for level in 30.0 + 25.0 * np.arange(12 // count)
    ]
    labels = PageOptions("6x2" if count == 2 else "3x4").rows
    names = [
        Name(lead, (left, row.level - 8.0, left + 5.0, row.level - 5.0), 1.0)
        for row, leads in zip(rows, labels, strict=True)
        for left, lead in zip(lefts, leads, strict=True)
    ]
    layout = read_layout(rows, names)
    assert layout is not None and layout.format == ("6x2" if count == 2 else "3x4")
    first_row = [span for span in layout.spans if span.row == 0]
    # The last of columns that touch ends with the ink, which the lifted pen makes shorter.
    np.testing.assert_allclose([span.x0 for span in first_row], starts, atol=0.03 if column > 60 else 2.0)
    if count == 4:
        began = [(span.x0 - _page_start(span, layout.spans)) / 25.0 for span in first_row]
        np.testing.assert_allclose(began, times, atol=0.01 if column > 60 else 0.08)


def test_a_row_that_wanders_over_its_paper_is_looked_for_where_rows_are_regular():
    columns, apart = 4 * 200, 4 * 20
    beats = 24 * np.exp(-(((np.arange(columns) % 100 - 50) / 6) ** 2))
    heights = [apart * (k + 1) - beats for k in range(5)]
    heights.append(apart * 6 + 30 * np.sin(np.linspace(0, 6 * np.pi, columns)))
    ink = np.zeros((4 * 140, columns), np.float32)
    for height in heights:
        for x, y in enumerate(height):
            ink[int(y) - 1 : int(y) + 2, x] = 1.0
    assert len(find_rows(ink, 4.0)) == 5
    assert [round(row.level / 20) for row in find_rows(ink, 4.0, regular=True)] == [1, 2, 3, 4, 5, 6]


def test_print_above_a_row_takes_nothing_of_its_trace() -> None:
    """A line of print at the end of the first row, above it: from there the trace was followed, up to the print."""
    columns, apart = 4 * 200, 4 * 28
    beats = 24 * np.exp(-(((np.arange(columns) % 100 - 50) / 4) ** 2))
    ink = np.zeros((4 * 120, columns), np.float32)
    for k in range(3):
        for x, y in enumerate(apart * (k + 1.25) - beats + 8 * np.sin(np.arange(columns) / 60)):
            if 40 < x < 760:
                ink[int(y) - 1 : int(y) + 2, x] = 1.0
    for x in (*range(60, 150, 12), *range(660, 756, 12)):
        ink[22:34, x : x + 10] = 1.0
    rows = find_rows(ink, 4.0)
    assert [round(row.level / 28 - 0.25) for row in rows] == [1, 2, 3]
    assert np.nanmin(rows[0].y) > 25.0


def test_a_trace_that_is_left_for_print_is_not_another_row() -> None:
    x = np.arange(0.0, 250.0, 0.125)
    rest = np.ones(x.size), np.zeros(x.size, np.bool_)
    trace = Row(x, 30.0 + np.sin(x), 30.0, 0.0, 250.0, *rest)
    left_for_print = Row(x, np.where(x < 100, trace.y, 8.0), 8.0, 0.0, 250.0, *rest)
    below = Row(x, np.where(x < 20, trace.y, 60.0), 60.0, 0.0, 250.0, *rest)  # waves cross
    assert not _are_distinct(left_for_print, trace) and _are_distinct(below, trace)


def test_a_trace_that_begins_in_a_steep_wave_begins_where_its_line_does() -> None:
    """The wave begins 8 mm above the level, and the line at a third of a pixel."""
    columns = 4 * 200
    ink = np.zeros((4 * 60, columns), np.float32)
    beats = 30 * np.exp(-(((np.arange(columns) % 100 - 8) / 5) ** 2))
    for x, y in enumerate(140 - beats):
        if 100 <= x < 760:
            before = 140 - beats[max(100, x - 1)]
            ink[int(min(y, before)) - 1 : int(max(y, before)) + 2, x] = 1.0
    ink[:, 100] *= 0.6
    (row,) = find_rows(ink, 4.0)
    assert (row.start, row.end) == (pytest.approx(25.1, abs=0.01), pytest.approx(190.0, abs=0.01))


def test_frames_and_what_lies_outside_of_them_are_no_trace():
    ink = np.zeros((4 * 90, 4 * 120), np.float32)
    ink[40 + 60, 41:439] = 1.0  # a flat trace
    ink[40 + 60 - 40 : 40 + 60 + 16, 150] = 1.0  # with a wave
    trace = ink.copy()
    for x in (40, 440):
        ink[40:164, x] = 1.0
    for y in (40, 160):
        ink[y, 36:440] = 1.0  # the strokes of an axis go on beyond the corners
    ink[90:96, 10:30] = 1.0  # the axis' number
    inside, frames = inside_frames(ink, 4.0)
    assert frames.sides == pytest.approx((10.125, 110.125), abs=0.01)
    assert frames.ends == pytest.approx((10.125, 40.125), abs=0.01)
    assert inside[90:96, 10:30].sum() == 0 and inside[:, 38:42].sum() == 0 and inside[158:170].sum() == 0
    np.testing.assert_array_equal(inside[50:150, 44:436], trace[50:150, 44:436])

    ink[200:340:20, 20:460] = 1.0  # most of the ink lies elsewhere: the frame is that of a table
    outside, no_frames = inside_frames(ink, 4.0)
    assert no_frames == Frames() and outside[320, 25:455].sum() == 0  # the outermost line is the page's border
    np.testing.assert_array_equal(outside[60:300], ink[60:300])
    assert inside_frames(trace, 4.0)[0] is trace


@pytest.fixture(scope="module")
def page_of_axes() -> Image.Image:
    """12 axes of 62.5 x 30 mm, 4 mm apart, 5 px per mm: each with a grid, a frame, strokes and a flat trace."""
    picture = Image.new("RGB", (5 * 292, 5 * 142), "white")
    draw = ImageDraw.Draw(picture)
    for row in range(3):
        for column in range(4):
            x0, y0 = 5 * 10 + column * 332, 5 * (10 + row * 40)
            x1, y1 = x0 + 312, y0 + 150
            for heavy, color in ((False, (251, 218, 218)), (True, (244, 176, 176))):
                for k in range(0, 313, 25 if heavy else 5):
                    draw.line([(x0 + k, y0), (x0 + k, y1)], fill=color)
                for k in range(0, 151, 25 if heavy else 5):
                    draw.line([(x0, y1 - k), (x1, y1 - k)], fill=color)
            for k in range(0, 151, 5):
                draw.line([(x0 - (10 if k % 25 else 15), y1 - k), (x0, y1 - k)], fill="black", width=2)
            draw.line([(x0, y0 + 75), (x1, y0 + 75)], fill="black", width=2)
            draw.rectangle([x0, y0, x1, y1], outline="black")
    return picture


def test_a_grid_that_begins_anew_in_every_column_is_not_bent(page_of_axes: Image.Image) -> None:
    picture = as_picture(page_of_axes)
    grid = find_grid(picture)
    assert grid is not None
    sheet = straighten(picture, grid)
    x, y = sheet.place(np.linspace(20.0, 270.0, 26), np.full(26, 60.0))
    np.testing.assert_allclose(x - x[0], np.linspace(0.0, 1250.0, 26), atol=0.6)
    np.testing.assert_allclose(y, y[0], atol=0.3)


def test_a_grid_on_whole_pixels_keeps_its_pitch() -> None:
    """100 dots per inch, as plots have: the lines of a row of axes are 4 pixels apart, now and then 3."""
    px_per_mm = 100 / 25.4
    picture = Image.new("RGB", (round(274 * px_per_mm), round(330 * px_per_mm)), "white")
    draw = ImageDraw.Draw(picture)
    for row in range(12):  # axes of their own, none a whole number of boxes below the one before
        top = 8 + 26.3 * row
        for step, color in ((1, (252, 240, 240)), (5, (255, 200, 200))):
            for k in range(0, 251, step):
                x = round((12 + k) * px_per_mm)
                draw.line([(x, round(top * px_per_mm)), (x, round((top + 20) * px_per_mm))], fill=color)
            for k in range(0, 21, step):
                y = round((top + k) * px_per_mm)
                draw.line([(round(12 * px_per_mm), y), (round(262 * px_per_mm), y)], fill=color)
    grid = find_grid(as_picture(picture))
    assert grid is not None
    sheet = straighten(as_picture(picture), grid)
    places, _ = sheet.place(np.array([15.0, 255.0]), np.array([150.0, 150.0]))
    assert (places[1] - places[0]) / 240 == pytest.approx(px_per_mm, rel=4e-4)  # 1 mm in ten seconds' 250 is 40 ms


def _plot(record: EcgRecord, layout: str, colors: tuple[str, str | None], *, framed: bool, turn: float) -> Image.Image:
    """A page as scripts plot it: 200 dots per inch, lines on whole pixels.

    Args:
        record: of 10 s at 500 Hz.
        layout: rows and columns, and strips.
        colors: of the lines every 5 mm, and of those every 1 mm, which are as wide.
        framed: a frame round the grid, and a bar beside each name but the first; else pulses without a foot.
        turn: of the sheet, degrees.
    """
    rows = PageOptions(layout).rows
    figure = plt.figure(figsize=(280 / 25.4, 215 / 25.4))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0) if not framed else (15 / 280, 20 / 215, 250 / 280, 170 / 215))
    width, height = (280, 215) if not framed else (250, 170)
    axes.set(xlim=(0, width), ylim=(0, height), xticks=np.arange(0, width, 5), yticks=np.arange(0, height, 5))
    axes.set(xticklabels=[], yticklabels=[])
    axes.tick_params(which="both", length=0)
    if colors[1]:
        axes.set_xticks(np.arange(0, width, 1), minor=True)
        axes.set_yticks(np.arange(0, height, 1), minor=True)
        axes.grid(which="minor", lw=0.5, color=colors[1])
    axes.grid(which="major", lw=0.5 if colors[1] else 0.2, color=colors[0])
    apart = height / (len(rows) + (0 if framed else 2))
    for number, labels in enumerate(rows):
        level, left = height - (number + (0.5 if framed else 2.0)) * apart - 0.4, 0 if framed else 15
        if not framed:
            axes.plot(left - 5 + np.array([0, 0, 5, 5]), level + np.array([0, 10, 10, 0]), lw=1.1, color="0.1")
        for column, lead in enumerate(labels):
            length = 250 / len(labels)
            samples = record.lead(lead)[round(column * 20 * length) : round((column + 1) * 20 * length)]
            x = left + column * length + np.arange(samples.size) / 20
            axes.plot(x, level + 10 * samples, lw=0.75, color="0.1", clip_on=False)
            axes.text(x[0] + 2, level + (apart / 3 if framed else -7), lead, fontsize=9)
            if framed and column:
                axes.plot([x[0], x[0]], level + apart / 3 + np.array([-0.5, 2.5]), lw=0.6, color="black")
    stream = io.BytesIO()
    figure.savefig(stream, dpi=200)
    plt.close(figure)
    return Image.open(stream).convert("RGB").rotate(turn, Image.Resampling.BICUBIC, fillcolor="white")


@pytest.mark.parametrize(("layout", "colors", "framed", "turn"), [
    ("3x4+1R", ("#6d322f", "#966b65"), False, 0.0),  # thin lines as wide as heavy ones, and nearly as dark as ink
    ("3x4+1R", ("#000066", "#0000b3"), False, 0.0),
    ("3x4+1R", ("#ff0000", "#fedfdb"), False, 2.0),  # its border is cut off
    ("6x2", ("#d43d1a", None), True, 0.0),
])  # fmt: skip
def test_plots_with_dark_sparse_and_framed_grids_are_read(layout, colors, framed, turn) -> None:
    record = simulate(13)
    page = digitize(_plot(record, layout, colors, framed=framed, turn=turn))
    assert page.layout == layout and page.name_count >= 9 and (page.mm_per_s, page.mm_per_mv) == (25.0, 10.0)
    pairs = [
        (record.lead(lead.lead)[start : start + lead.millivolts.size], lead.millivolts)
        for lead in page.leads
        for start in (round(lead.start_s * HIGH_RATE_HZ),)
    ]
    assert signal_to_noise_db(pairs, HIGH_RATE_HZ) >= 14.0


@pytest.mark.parametrize("order", ["standard", "cabrera"])
@pytest.mark.parametrize("layout", ["3x4+1R", "6x2", "12x1"])
def test_limb_leads_follow_from_two_of_them(layout: str, order: str) -> None:
    record, rows = simulate(3), PageOptions(layout, order=order).rows
    seconds = 10.0 / max(map(len, rows))

    def misfit(names: Mapping[str, str], wander_mv: float = 0.0) -> float:
        leads = []
        for row in rows:
            for column, label in enumerate(row):
                name = names.get(lead := label.removeprefix("-"), lead)
                start, end = (round(500 * (column + k) * seconds) for k in (0, 1))
                whole = len(row) == 1 and layout != "12x1"
                samples = record.lead(name) if whole else record.lead(name)[start:end]
                wander = wander_mv * np.sin(np.linspace(0, 6, samples.size) + 2 * len(leads))  # creases of the paper
                leads.append((column, lead, samples + wander))
        found = limb_misfit(leads)
        assert found is not None
        return found

    assert misfit({}) < 1e-6
    assert misfit({}, wander_mv=0.2) < 0.3
    assert misfit({"I": "V1", "II": "V2", "aVF": "V3"}) > 0.3  # as where the picture cuts off a column


def test_a_lead_alone_shows_beats_in_three_seconds_or_more() -> None:
    rhythm, no_path = simulate(3, ["STACH"]).lead("II"), np.zeros((0, 2), np.float32)
    for samples, has_beats in ((rhythm[:1500], True), (rhythm[:1499], False), (0 * rhythm, False)):
        assert shows_beats(DigitizedLead("II", 0.0, samples, 1.0, (), no_path)) == has_beats


@pytest.mark.parametrize("box", [(0.0, 0.38, 1.0, 1.0), (0.3, 0.0, 1.0, 1.0)])
def test_a_page_without_its_first_row_or_column_is_not_read_as_a_whole_one(box: tuple[float, ...]) -> None:
    """Three rows with a strip, of which three rows are left; four columns, of which three are."""
    _, image, _ = picture_of("clean", "3x4+1R,no-pulse,no-names")
    with pytest.raises(InputError, match="do not add up"):
        digitize(image.crop(tuple(round(share * side) for share, side in zip(box, 2 * image.size, strict=True))))


def test_a_grid_without_a_usual_step_has_no_pitch() -> None:
    to_and_fro = np.exp(1j * (np.arange(17) % 2))[None].repeat(6, axis=0)
    assert np.isnan(_usual_step(to_and_fro, 1)) and np.isnan(_usual_step(to_and_fro[:, :1], 1))
    assert _usual_step(np.exp(0.1j * np.arange(16))[None].repeat(6, axis=0), 8) == pytest.approx(0.1)


def test_the_strokes_of_an_axis_are_not_the_end_of_the_paper(page_of_axes: Image.Image) -> None:
    picture = as_picture(page_of_axes)
    grid = find_grid(picture)
    assert grid is not None
    sheet = straighten(picture, grid)
    ink = ink_of(sheet, 4.0)
    x, _ = sheet.place((np.arange(ink.shape[1]) + 0.5) / 4, np.full(ink.shape[1], 60.0))
    assert ink[:, np.abs(x - 50.0) < 3].max() > 0.5  # the frame at the left


def test_axes_with_scales_of_their_own_are_read_by_the_grid_of_each() -> None:
    record = simulate(3)
    seconds = record.signal.shape[1] / record.sampling_rate
    px_per_s, width, height = 200.0, 2200, 110
    picture = Image.new("RGB", (width, 60 + 12 * (height + 40)), "white")
    draw = ImageDraw.Draw(picture)
    boxes = []
    for row, name in enumerate(LEADS):
        signal = record.lead(name)
        low, high = float(signal.min()) - 0.05, float(signal.max()) + 0.05
        left, top = 90, 30 + row * (height + 40)
        right, bottom, px_per_mv = left + int(seconds * px_per_s), top + height, height / (high - low)
        boxes.append((left, top, right, bottom))
        for step, color in ((0.1, (238, 238, 238)), (0.5, (190, 190, 190))):
            for k in range(int(seconds / (0.4 * step)) + 1):
                draw.line(
                    [(left + k * 0.4 * step * px_per_s, top), (left + k * 0.4 * step * px_per_s, bottom)], fill=color
                )
            for k in range(int(np.ceil(low / step)), int(high / step) + 1):
                draw.line(
                    [(left, bottom - (k * step - low) * px_per_mv), (right, bottom - (k * step - low) * px_per_mv)],
                    fill=color,
                )
        x = left + np.arange(signal.size) / record.sampling_rate * px_per_s
        draw.line(list(zip(x, bottom - (signal - low) * px_per_mv, strict=True)), fill=(31, 119, 180), width=2)
        draw.rectangle([left, top, right, bottom], outline="black")
    draw.line([(left - 6, bottom), (left, bottom)], fill="black")  # a stroke of the last axis, in line with its frame
    redrawn = redraw_axes(picture)
    assert redrawn is not None
    sheet, axes = np.asarray(redrawn[0].convert("L")), redrawn[1]
    for left, top, right, bottom in (each.place for each in axes):  # as dark where axes become low or lines are crossed
        assert sheet[top:bottom, left + 5 : right - 5].min(axis=0).max() < 30
    page = digitize(picture)
    assert (page.layout, page.name_count, page.gain_from, len(page.leads)) == ("12x1", 0, "grid", 12)
    pairs = [(record.lead(lead.lead), lead.millivolts) for lead in page.leads]
    assert signal_to_noise_db(pairs, HIGH_RATE_HZ) > 12
    for lead, (left, top, right, bottom) in zip(page.leads, boxes, strict=True):
        x, y = lead.path.T
        assert left < x.min() < x.max() < right and top < y.min() < y.max() < bottom


def test_axes_with_square_boxes_are_a_page_already(page_of_axes: Image.Image) -> None:
    assert redraw_axes(page_of_axes) is None
