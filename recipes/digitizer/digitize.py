"""From a picture of an ECG to millivolts.

`digitize` finds the grid (`grid`), flattens the sheet (`straighten`), looks inside the leads' frames where there are
any (`frames`), traces the rows (`traces`), reads the names of the leads (`names`), matches a layout (`layout`), fits
the traces to the ink (`refine`) and reads the printed speed and gain (`printed_scales`). Of the four orientations of
the sheet it takes the one with the best rows and names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps
from scipy.ndimage import find_objects, label, uniform_filter

from recipes.digitizer.axes import places_in_picture, redraw_axes
from recipes.digitizer.frames import Frames, beneath_frames, inside_frames
from recipes.digitizer.grid import Grid, find_grid
from recipes.digitizer.layout import SINGLE_LEAD, PageLayout, Span, align_rows, pulse_scales, read_layout, usual_stretch
from recipes.digitizer.names import find_names, without_traces
from recipes.digitizer.network import (
    LINE_WEIGHTS,
    NAME_WEIGHTS,
    LineNetwork,
    NameNetwork,
    load_line_network,
    load_name_network,
)
from recipes.digitizer.picture import as_picture, without_grain
from recipes.digitizer.plausibility import ENOUGH_NAMES, limb_misfit, shows_beats
from recipes.digitizer.printed_scales import PrintedScales, read_scales
from recipes.digitizer.refine import refine_rows
from recipes.digitizer.result import DigitizedLead, DigitizedPage
from recipes.digitizer.straighten import FlatSheet, ink_of, rotate_sheet, sheet_at_scale, straighten, tilt_of
from recipes.digitizer.traces import InkMap, Row, find_rows, runs
from render.errors import InputError
from render.pages.options import CHEST_LEADS
from render.record import HIGH_RATE_HZ

_USUAL_SPEED, _USUAL_GAIN = 25.0, 10.0  # mm/s, mm/mV
_SMALL_PX, _DARK_LEVEL = 900, 100  # of the longer side; of 255, of most pixels
_COARSE_PX = 250  # of the picture in which the sheet is looked for
_LEAST_SHEET, _MOST_SHEET, _SHEET_FILL = 0.03, 0.65, 0.6  # its share of the picture; of its box
_FEWEST_ROWS = 3  # of an ECG, where two stand on a sheet
_SHEET_CONTRAST, _EDGE_PX = 60.0, 4  # of 255; from a sheet's edge to either side, pixels of that picture
_LONGEST_SECONDS = 13.0  # of columns that follow each other in time
_LEAST_SECONDS = 1.0  # of a lead; columns of 2.5 s at 12.5 mm/s, taken for 25, have 1.25
_STRIP_SHIFT_S = 0.1  # between a strip and the columns above
_STRIP_RATIO = 1.8  # of a strip's length to a column's
_ALIKE, _ALIKE_RATIO = 0.95, 0.4  # a strip's correlation with its lead's column; what it lacks against another's
_USUAL_WIDTH_MM = 280.0  # of a page without a grid
_RESCALINGS, _LEAST_STRETCH = 3, 0.001  # of such a page; a smaller correction changes nothing
_LEAST_INK_SCALE, _MOST_INK_SCALE = 4, 8  # pixels per mm; narrow waves vanish below, and time is lost above
_EDGE_MM, _MOST_AT_EDGE = 1.5, 0.08  # of the picture; share of a row's columns there
_FEWEST_HALF, _HALF_TOLERANCE = 2, 0.12  # rows whose pulses say half the gain; of their height
_UPRIGHT_NAMES, _UPRIGHT_AGREEMENT = 5, 0.7  # enough names in their places to leave out the other orientations
_LOW_AGREEMENT = 0.6  # of the names with the layout: worth a remark
_LEAST_LEAD_SHARE = 0.1  # of a lead's place that has a trace; a lead with less is missing
_FAINT = 0.5  # mean ink of a trace
_WAVE_MM, _LIMIT_MM = 3.0, 0.8  # from the row's level; from a frame's line, or the picture's edge, that cuts waves off
_TALL_MM, _ALIKE_MM = 10.0, 0.15  # waves that can be cut off at one height; how far their tips may differ then
_FEWEST_TIPS, _MOST_TIPS = 4, 0.6  # that are alike, and their share of all tips
_TIP = 0.6  # of the tallest: where a tip begins
_NO_NAME_REMARK = "no lead name could be read: the leads are those that usually stand in their places"
_MOST_MISFIT = 0.75  # of limb leads, which have .1 mostly
_MISFIT_REMARK = "the limb leads do not add up (I + III = II); check the leads"
_CUT_OFF_REMARK = "waves end at one height, at a frame or at the edge of the picture and may be cut off there"
_AXES_REMARK = "a plot whose axes have scales of their own: speed and gain follow from the grid of each"
_SMALLEST_PX, _LARGEST_PX = 200, 3400  # of a picture's longer side; a larger one is reduced by a whole factor


@dataclass(frozen=True, eq=False)
class _Reading:
    """A sheet in one of its four orientations.

    Attributes:
        sheet: with its content in this orientation.
        quarters: counter-clockwise quarter turns from the picture.
        ink: of the sheet, at `_ink_scale`.
        print: the ink without the traces.
        rows: of traces.
        layout: None where the rows fit none.
        frames: around the rows.
        sheets: ECGs on it, of which `rows` are those of the first.
        edge: whether something runs along the picture's edge that is left out.
    """

    sheet: FlatSheet
    quarters: int
    ink: InkMap
    print: InkMap
    rows: tuple[Row, ...]
    layout: PageLayout | None
    frames: Frames
    sheets: int = 1
    edge: bool = False

    @property
    def score(self) -> float:
        """For the choice of the orientation: names in their places, then upright pulses, then rows."""
        if self.layout is None or self.layout.format == SINGLE_LEAD:  # a page on its side may have one row
            return 0.05 * min(len(self.rows), 4) + 0.02 * (self.layout is not None)
        pulses = sum(len(row.pulses) > 0 for row in self.rows)
        return 1.0 + self.layout.name_weight * self.layout.agreement + 0.15 * pulses

    @property
    def is_upright(self) -> bool:
        """Whether enough names stand upright in the places of the layout."""
        layout = self.layout
        return layout is not None and layout.name_weight >= _UPRIGHT_NAMES and layout.agreement > _UPRIGHT_AGREEMENT


def digitize(image: Image.Image) -> DigitizedPage:
    """Every lead on a picture of an ECG, in millivolts.

    Args:
        image: of any mode; its EXIF orientation is applied.

    Raises:
        InputError: For a picture that is too small, shows no traces, or shows them in no known layout.
    """
    upright = ImageOps.exif_transpose(image).convert("RGB")
    if max(upright.size) < _SMALLEST_PX:
        raise InputError(f"{upright.width} x {upright.height} pixels are too few; {_SMALLEST_PX} are needed")
    if redrawn := redraw_axes(upright):
        sheet, axes = redrawn
        page = _digitize_light(sheet)
        return replace(
            page,
            leads=tuple(replace(lead, path=places_in_picture(lead.path, axes)) for lead in page.leads),
            speed_from="grid",
            gain_from="grid",
            px_per_mm=page.px_per_mm * axes[0].pixels_across,
            name_count=0,
            name_agreement=0.0,
            remarks=(_AXES_REMARK, _NO_NAME_REMARK),
            outline=places_in_picture(page.outline, axes),
        )
    box = _paper_box(upright)
    part = upright if box is None else upright.crop(box)
    try:
        page = _digitize_light(part)
    except InputError:
        if np.median(np.asarray(part.convert("L").reduce(4))) > _DARK_LEVEL:
            raise
        red, green, blue = part.split()  # light traces on a dark screen, of any colour: all of them are ink
        page = _digitize_light(ImageOps.invert(ImageChops.lighter(ImageChops.lighter(red, green), blue)))
    return page if box is None else _mapped(page, 1.0, np.array(box[:2], dtype=np.float32))


def _paper_box(upright: Image.Image) -> tuple[int, int, int, int] | None:
    """The part of a photo (pixels) that holds the sheet, where this lies on something much darker; else None."""
    step = max(1, max(upright.size) // _COARSE_PX)
    grey = np.asarray(upright.convert("L").reduce(step), dtype=np.float32)
    bright = grey > (np.percentile(grey, 99) + np.percentile(grey, 5)) / 2
    labels, _ = label(uniform_filter(bright.astype(np.float32), 5) > 0.5)
    sizes = np.bincount(labels.ravel())[1:]
    if not sizes.size or not _LEAST_SHEET < sizes.max() / grey.size < _MOST_SHEET:
        return None
    rows, columns = find_objects(labels)[int(np.argmax(sizes))]
    inside = labels == int(np.argmax(sizes)) + 1
    filled = sizes.max() / ((rows.stop - rows.start) * (columns.stop - columns.start))
    contrast = float(np.median(grey[inside]) - np.median(grey[~inside]))
    if filled < _SHEET_FILL or contrast < _SHEET_CONTRAST:
        return None
    margin = round(0.02 * max(grey.shape)) + 2
    sides = [  # left, top, right, bottom
        max(0, columns.start - margin) * step,
        max(0, rows.start - margin) * step,
        min(upright.width, (columns.stop + margin) * step),
        min(upright.height, (rows.stop + margin) * step),
    ]
    for side, picture_side in enumerate((0, 0, *upright.size)):
        if _step_on_the_left(np.rot90(grey, side), np.rot90(inside, side)) < contrast / 2:
            sides[side] = picture_side
    return None if sides == [0, 0, *upright.size] else (sides[0], sides[1], sides[2], sides[3])


def _step_on_the_left(grey: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """By how much a bright part of a grey picture (0-255) is brighter than what is left of it: little in a shadow."""
    rows = np.flatnonzero(inside.any(axis=1))
    left = inside[rows].argmax(axis=1)
    beyond, within = np.maximum(left - _EDGE_PX, 0), np.minimum(left + _EDGE_PX, grey.shape[1] - 1)
    return float(np.median(grey[rows, within] - grey[rows, beyond]))


def _mapped(page: DigitizedPage, factor: float, offset: float | NDArray[np.float32]) -> DigitizedPage:
    """The page in the pixels of a larger picture: of the one that was reduced by `factor`, or that it is a part of."""
    leads = tuple(replace(lead, path=lead.path * factor + offset) for lead in page.leads)
    return replace(page, leads=leads, outline=page.outline * factor + offset, px_per_mm=page.px_per_mm * factor)


def _digitize_light(upright: Image.Image) -> DigitizedPage:
    """As `digitize`, for dark traces on light paper."""
    small, factor = _resize(upright)
    picture = without_grain(as_picture(small))
    grid = find_grid(picture)
    tilt = 0.0
    if grid:
        sheet = straighten(picture, grid)
    else:
        sheet = sheet_at_scale(picture, max(picture.shape[1:]) / _USUAL_WIDTH_MM)
        if tilt := tilt_of(ink_of(sheet, _LEAST_INK_SCALE), _LEAST_INK_SCALE):
            sheet = sheet_at_scale(picture, sheet.picture_scale, tilt)
    reading = _best_reading(sheet)
    for _ in range(_RESCALINGS if grid is None else 0):  # pulses are seen at about the right scale only
        if reading.layout is None or abs((stretch := usual_stretch(reading.rows)) - 1) < _LEAST_STRETCH:
            break
        reading = _best_reading(sheet_at_scale(picture, reading.sheet.picture_scale / stretch, tilt))
    if reading.layout is None:
        raise InputError(_no_layout_message(reading, grid))
    if any(_edge_share(reading.sheet, row) > _MOST_AT_EDGE for row in reading.rows):
        raise InputError(
            "a row of traces runs along the edge of the picture, which is cut off; the whole page is needed"
        )
    rows = refine_rows(reading.ink, _ink_scale(reading.sheet), reading.rows, reading.layout.spans)
    page = _page(replace(reading, rows=tuple(rows)), reading.layout, grid)
    if min((lead.seconds for lead in page.leads), default=0.0) < _LEAST_SECONDS:
        raise InputError("leads of less than a second: the scale of the grid cannot be read; take a sharper picture")
    is_marked = page.gain_from == "pulse" or page.name_count > 0  # letters of a line are alike, as beats are
    if page.layout == SINGLE_LEAD and not (is_marked and all(map(shows_beats, page.leads))):
        raise InputError("one row of traces without a heartbeat; check that the picture shows an ECG, and all of it")
    misfit = limb_misfit((round(lead.start_s * 4), lead.lead, lead.millivolts) for lead in page.leads)
    if misfit is not None and misfit > _MOST_MISFIT:
        if page.name_count < ENOUGH_NAMES:
            raise InputError(
                "the limb leads do not add up (I + III = II), and hardly a lead name can be read: "
                "the page may be cut off"
            )
        page = replace(page, remarks=(*page.remarks, _MISFIT_REMARK))
    return page if factor == 1 else _mapped(page, factor, (factor - 1) / 2)  # between the centres of the pixels


def _edge_share(sheet: FlatSheet, row: Row) -> float:
    """Share of the row's columns in which its usual level is at the picture's edge, or beyond it; tall waves may be."""
    x = row.x[(row.x > row.start) & (row.x < row.end)]
    nearest = _edge_distance(sheet, x, np.full(x.size, row.level))
    return float((nearest < _EDGE_MM * sheet.picture_scale).mean()) if nearest.size else 0.0


def _edge_distance(sheet: FlatSheet, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels of the picture from places on the sheet, (n,) mm, to its nearest edge."""
    px, py = sheet.place(x, y)
    height, width = sheet.picture.shape[1:]
    distance: NDArray[np.float64] = np.minimum(np.minimum(px, width - px), np.minimum(py, height - py))
    return distance


def _resize(upright: Image.Image) -> tuple[Image.Image, float]:
    """The picture in the size to be read in, and how much larger the original is: pixels per pixel."""
    longest = max(upright.size)
    if longest < _SMALL_PX:  # lines a pixel wide, two pixels apart, are no waves for a Fourier transform
        width, height = (2 * side for side in upright.size)
        return upright.resize((width, height), Image.Resampling.BICUBIC), 0.5
    factor = -(-longest // _LARGEST_PX)
    return upright.reduce(factor), float(factor)


def _ink_scale(sheet: FlatSheet) -> float:
    """Pixels per mm of the ink from which rows and names are read: about those of the picture."""
    return float(np.clip(round(sheet.picture_scale), _LEAST_INK_SCALE, _MOST_INK_SCALE))


@lru_cache(maxsize=1)
def _name_network() -> NameNetwork | None:
    """The network with the project's weights; None without them, and no names are read."""
    return load_name_network() if NAME_WEIGHTS.exists() else None


@lru_cache(maxsize=1)
def _line_network() -> LineNetwork | None:
    """As `_name_network`, for the lines of print."""
    return load_line_network() if LINE_WEIGHTS.exists() else None


def _no_layout_message(reading: _Reading, grid: Grid | None) -> str:
    if reading.rows:
        return f"{len(reading.rows)} rows of traces, which is no known ECG layout; crop the picture to one ECG"
    return f"no ECG traces are seen ({'on a grid' if grid else 'and no grid'}); check that the picture shows an ECG"


def _best_reading(sheet: FlatSheet) -> _Reading:
    """The sheet in the orientation with the best rows and names.

    A picture that is upright by its names, as most are, is read as it is. Of others, the two orientations in which more
    traces run from left to right come first; the rest are tried only where these fit no layout.
    """
    upright = _read(sheet, 0)
    if upright.is_upright:
        return upright
    landscape, portrait = (_trace_length(rotate_sheet(sheet, quarters)) for quarters in (0, 1))
    order = (0, 2, 1, 3) if landscape >= portrait else (1, 3, 0, 2)
    best: _Reading | None = None
    for quarters in order:
        reading = _read(rotate_sheet(sheet, quarters), quarters) if quarters else upright
        if best is None or reading.score > best.score:
            best = reading
        is_page = best.layout is not None and best.layout.format != SINGLE_LEAD
        if is_page and (best.is_upright or quarters == order[1]):
            break
    assert best is not None
    return best


def _trace_length(sheet: FlatSheet) -> float:
    """Length of all traces that run from left to right, mm."""
    rows = find_rows(ink_of(sheet, _LEAST_INK_SCALE), _LEAST_INK_SCALE)
    return sum(float(np.isfinite(row.y).mean() * (row.x[-1] - row.x[0])) for row in rows)


def _read(sheet: FlatSheet, quarters: int) -> _Reading:
    """The rows, names and layout of a sheet in this orientation; a layout without names if there is no network."""
    network = _name_network()
    scale = _ink_scale(sheet)
    whole = ink_of(sheet, scale)
    ink, frames = inside_frames(whole, scale)
    rows = beneath_frames(find_rows(ink, scale), frames)
    rest = without_traces(whole, scale, rows) if rows else whole
    names = find_names(rest, scale, network) if rows and network is not None else []
    inner = [row for row in rows if _edge_share(sheet, row) <= _MOST_AT_EDGE]
    if len(inner) < len(rows):
        inner = align_rows(inner)
        inside = _Reading(sheet, quarters, ink, rest, tuple(inner), read_layout(inner, names), frames, edge=True)
        if inside.is_upright:
            return inside
    aligned = align_rows(rows)
    layout = read_layout(aligned, names)
    reading = _Reading(sheet, quarters, ink, rest, tuple(aligned), layout, frames)
    if not reading.is_upright and len(names) >= _UPRIGHT_NAMES:
        others = [rows[1:], rows[:-1]]  # a line of print above or below may have been taken for a row
        if layout is None:  # a row may have been overlooked
            others.append(beneath_frames(find_rows(ink, scale, regular=True), frames))
        for other in map(align_rows, others):
            complete = replace(reading, rows=tuple(other), layout=read_layout(other, names))
            if complete.is_upright:
                return replace(complete, print=without_traces(whole, scale, other))
    half = len(rows) // 2
    if layout is None and half >= _FEWEST_ROWS and len(rows) == 2 * half:  # as many rows as two sheets have
        middle = (rows[half - 1].level + rows[half].level) / 2
        if layout := read_layout(aligned[:half], [name for name in names if name.y < middle]):
            return replace(reading, rows=tuple(aligned[:half]), layout=layout, sheets=2)
    return reading


def _page(reading: _Reading, layout: PageLayout, grid: Grid | None) -> DigitizedPage:
    """The page with all leads in millivolts, in pixels of the picture that was read."""
    pulse_gain, pulse_speed = pulse_scales(reading.rows)
    network = _line_network()
    printed = read_scales(reading.print, _ink_scale(reading.sheet), network) if network else PrintedScales(None, None)
    if pulse_speed and f"{pulse_speed:g}"[1:] == f"{printed.mm_per_s or 0:g}":  # "25" of which only the 5 is read
        printed = replace(printed, mm_per_s=None)
    # The length of a pulse differs between machines, its height does not.
    speed = printed.mm_per_s or pulse_speed or _USUAL_SPEED
    gain = pulse_gain or printed.mm_per_mv or _USUAL_GAIN
    lengths = [sum(s.x1 - s.x0 for s in layout.spans if s.row == row) for row in range(len(reading.rows))]
    # A 12-lead ECG is 10 s long: columns that are longer in all show the same time.
    sequential = max(lengths) / speed < _LONGEST_SECONDS
    half_rows = _rows_at_half_gain(reading.rows, layout, gain, is_printed=printed.half_chest)
    leads = [
        _lead(
            reading,
            span,
            _page_start(span, layout.spans) if sequential else span.x0,
            speed,
            gain / 2 if span.row in half_rows and span.lead in CHEST_LEADS else gain,
        )
        for span in layout.spans
    ]
    present = [lead for lead in leads if lead is not None]
    return DigitizedPage(
        layout=layout.format,
        order=layout.order,
        leads=tuple(_name_strips(present)) if sequential else tuple(present),
        mm_per_s=speed,
        mm_per_mv=gain,
        speed_from="print" if printed.mm_per_s else "pulse" if pulse_speed else "usual",
        gain_from="pulse" if pulse_gain else "print" if printed.mm_per_mv else "usual",
        rotation_degrees=90 * reading.quarters,
        grid=grid is not None,
        px_per_mm=reading.sheet.picture_scale,
        name_count=round(layout.name_weight),
        name_agreement=layout.agreement,
        remarks=(
            *_page_remarks(layout, grid, reading),
            *_scale_remarks(printed, pulse_speed, pulse_gain, half_chest=bool(half_rows)),
            *_cut_off_remarks(present),
        ),
        outline=reading.sheet.outline(),
    )


def _page_start(span: Span, spans: Sequence[Span]) -> float:
    """Where the page's time would begin, mm, had this lead's row no bare paper between its columns."""
    own = [other for other in spans if other.row == span.row]
    between = span.x0 - min(other.x0 for other in own) - sum(o.x1 - o.x0 for o in own if o.x0 < span.x0)
    return min(other.x0 for other in spans) + between


def _rows_at_half_gain(rows: Sequence[Row], layout: PageLayout, gain: float, *, is_printed: bool) -> set[int]:
    """The rows whose chest leads are drawn at half the gain, where the print says so: all that have such leads.

    Else the pulses tell: they have two steps, or, where a row has chest leads only, are half as high as the others. A
    single such row is an error; so are half of those with chest leads, or fewer.
    """
    with_chest = {span.row for span in layout.spans if span.lead in CHEST_LEADS}
    if is_printed:
        return with_chest
    chest_only = {span.row for span in layout.spans} - {s.row for s in layout.spans if s.lead not in CHEST_LEADS}
    half_rows = {
        number
        for number in with_chest
        if any(pulse.half for pulse in rows[number].pulses)
        or (number in chest_only and any(abs(2 * p.height / gain - 1) < _HALF_TOLERANCE for p in rows[number].pulses))
    }
    return with_chest if len(half_rows) >= _FEWEST_HALF and 2 * len(half_rows) > len(with_chest) else set()


def _name_strips(leads: Sequence[DigitizedLead]) -> list[DigitizedLead]:
    """The leads with rhythm strips named by what they show: in a lead's column, its strip has the very same trace."""
    longest_column = _STRIP_RATIO * min(lead.seconds for lead in leads)
    columns = [lead for lead in leads if lead.seconds < longest_column]
    return [lead if lead.seconds < longest_column else _name_strip(lead, columns) for lead in leads]


def _name_strip(strip: DigitizedLead, columns: Sequence[DigitizedLead]) -> DigitizedLead:
    """The strip with the name of the column that it is most like, where that is clearly more than its own name's."""
    alike = {column.lead: _likeness(strip, column) for column in columns}
    best = max(alike, key=lambda name: alike[name])
    is_clear = alike[best] > _ALIKE and 1 - alike[best] < _ALIKE_RATIO * (1 - alike.get(strip.lead, 0.0))
    return replace(strip, lead=best) if is_clear else strip


def _likeness(strip: DigitizedLead, column: DigitizedLead) -> float:
    """Correlation of a strip with a column's lead over the column's time, at the best shift of `_STRIP_SHIFT_S`."""
    samples = np.nan_to_num(column.millivolts.astype(np.float64))
    start = round((column.start_s - strip.start_s) * HIGH_RATE_HZ)
    shift = round(_STRIP_SHIFT_S * HIGH_RATE_HZ)
    best = 0.0
    for first in range(max(0, start - shift), start + shift + 1, 5):
        part = np.nan_to_num(strip.millivolts[first : first + samples.size].astype(np.float64))
        if part.size >= HIGH_RATE_HZ and part.std() > 0 and samples[: part.size].std() > 0:
            best = max(best, float(np.corrcoef(part, samples[: part.size])[0, 1]))
    return best


def _page_remarks(layout: PageLayout, grid: Grid | None, reading: _Reading) -> list[str]:
    remarks = []
    if reading.edge:
        remarks.append("what runs along the edge of the picture is left out: a border, or a row that is cut off")
    if reading.sheets > 1:
        remarks.append("two ECGs on one sheet: the upper one is read; crop the picture to the other to read that")
    if grid is None:
        remarks.append("no grid: the scale is taken from the usual length of the rows, and millivolts may be far off")
    if layout.name_weight < 1:
        remarks.append(_NO_NAME_REMARK)
    elif layout.agreement < _LOW_AGREEMENT:
        remarks.append("the lead names that were read disagree with every known layout; check the leads")
    return remarks


def _scale_remarks(
    printed: PrintedScales, pulse_speed: float | None, pulse_gain: float | None, *, half_chest: bool
) -> list[str]:
    remarks = []
    if printed.half_chest:
        remarks.append("by the print the chest leads are drawn at half the gain")
    elif half_chest:
        remarks.append("by the calibration pulses the chest leads are drawn at half the gain")
    if pulse_speed and printed.mm_per_s and pulse_speed != printed.mm_per_s:
        remarks.append(f"the print says {printed.mm_per_s:g} mm/s, the calibration pulses {pulse_speed:g}: as printed")
    if pulse_gain is None and printed.mm_per_mv is None:
        remarks.append("no calibration pulse: the gain of 10 mm/mV is taken as usual")
    elif pulse_gain and printed.mm_per_mv and pulse_gain != printed.mm_per_mv:
        remarks.append(
            f"the print says {printed.mm_per_mv:g} mm/mV, the calibration pulses {pulse_gain:g}: as the pulses"
        )
    return remarks


def _cut_off_remarks(leads: Sequence[DigitizedLead]) -> list[str]:
    cut_off = list(dict.fromkeys(lead.lead for lead in leads if _CUT_OFF_REMARK in lead.remarks))
    return [f"{', '.join(cut_off)}: {_CUT_OFF_REMARK}"] if cut_off else []


def _lead(reading: _Reading, span: Span, page_start: float, speed: float, gain: float) -> DigitizedLead | None:
    """One lead in millivolts; None where (almost) nothing of it is there.

    Args:
        reading: with its traces fitted.
        span: the lead's place.
        page_start: where the lead's time begins, mm.
        speed: mm/s.
        gain: mm/mV.
    """
    row = reading.rows[span.row]
    inside = row.between(span.x0, span.x1)
    y = np.where(inside, row.y, np.nan)
    if np.isfinite(y).sum() < _LEAST_LEAD_SHARE * inside.sum():
        return None
    level = _zero_level(y)
    millivolts = (level - y) / gain * span.polarity
    samples = round((span.x1 - span.x0) / speed * HIGH_RATE_HZ)
    time = span.x0 + np.arange(samples) / HIGH_RATE_HZ * speed
    present = np.isfinite(millivolts)
    values = np.interp(time, row.x[present], millivolts[present])
    nearest = np.clip(np.searchsorted(row.x, time), 0, row.x.size - 1)
    values[~present[nearest]] = np.nan
    remarks, quality = _assess(row, inside, present)
    if _reaches_limit(reading, row, inside & present) or _end_at_one_height(row.y[inside & present]):
        remarks = (*remarks, _CUT_OFF_REMARK)
    path = np.stack(reading.sheet.place(row.x[inside & present], row.y[inside & present]), axis=1).astype(np.float32)
    start = max(0.0, (span.x0 - page_start) / speed)
    return DigitizedLead(span.lead, start, values.astype(np.float32), quality, remarks, path)


def _reaches_limit(reading: _Reading, row: Row, own: NDArray[np.bool_]) -> bool:
    """Whether waves of a lead end at a frame or at the picture's edge; own: (n,) where on the row its trace is."""
    waves = own & (np.abs(row.y - row.level) > _WAVE_MM)
    x, y = row.x[waves], row.y[waves]
    beyond = y + np.copysign(_LIMIT_MM, y - row.level)
    at_frame = np.abs(np.array(reading.frames.ends)[:, None] - y) < _LIMIT_MM
    return bool(at_frame.any() or (_edge_distance(reading.sheet, x, beyond) < 0).any())


def _end_at_one_height(y: NDArray[np.float64]) -> bool:
    """Whether most tall waves of a trace (n,), mm, end at the very same height, as where a panel cuts them off.

    Of 3,691 leads of PTB-XL above 1 mV (folds 1-3 and 8) three do so; clipped at 1.5 mV, 88 % of those that it cuts.
    """
    for height in (np.median(y) - y, y - np.median(y)):
        tallest = height.max()
        if tallest < _TALL_MM:
            continue
        tips = np.array([height[start:end].max() for start, end in runs(height > _TIP * tallest)])
        if (tips > tallest - _ALIKE_MM).sum() >= max(_FEWEST_TIPS, _MOST_TIPS * tips.size):
            return True
    return False


def _zero_level(y: NDArray[np.float64]) -> float:
    """Height of 0 mV, mm: the most frequent height of the trace, which is that between its waves."""
    values = y[np.isfinite(y)]
    counts, edges = np.histogram(values, bins=np.arange(values.min() - 0.5, values.max() + 1.0, 0.25))
    smooth = np.convolve(counts, np.ones(3), mode="same")
    peak = int(np.argmax(smooth))
    near = np.abs(values - (edges[peak] + edges[peak + 1]) / 2) < 0.5
    return float(values[near].mean()) if near.any() else float(np.median(values))


def _assess(row: Row, inside: NDArray[np.bool_], present: NDArray[np.bool_]) -> tuple[tuple[str, ...], float]:
    """Remarks on a lead, and its quality 0-1.

    Args:
        row: of the lead.
        inside: (n,) the lead's place on the row.
        present: (n,) where the lead has a trace.
    """
    share = float(present[inside].mean()) if inside.any() else 0.0
    overlap = float(row.overlap[inside].mean()) if inside.any() else 0.0
    strength = float(np.minimum(row.ink[inside & present], 1.0).mean()) if (inside & present).any() else 0.0
    remarks = []
    if share < 0.95:
        remarks.append(f"{1 - share:.0%} of it cannot be read")
    if overlap > 0.015:
        remarks.append("other strokes or print touch it")
    if strength < _FAINT:
        remarks.append("faint")
    ends = np.flatnonzero(inside)
    if ends.size and not present[ends[-max(1, ends.size // 20) :]].any():
        remarks.append("cut short at its end")
    quality = share * (1 - 0.5 * min(1.0, 4 * overlap)) * min(1.0, 0.4 + strength)
    return tuple(remarks), float(np.clip(quality, 0.0, 1.0))
