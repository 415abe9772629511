"""From a picture to millivolts: the one function that joins grid, sheet, rows, names and layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from recipes.digitizer.grid import Grid, find_grid
from recipes.digitizer.layout import PageLayout, Span, aligned, pulse_scales, read_layout
from recipes.digitizer.names import Name, find_names
from recipes.digitizer.network import WEIGHTS, NameNetwork, load_network
from recipes.digitizer.picture import Picture, as_picture
from recipes.digitizer.refine import fitted_rows
from recipes.digitizer.result import DigitizedPage, DigitizedLead
from recipes.digitizer.straighten import Sheet, flat_sheet, ink_of, straighten, turned
from recipes.digitizer.traces import Row, find_rows
from render.errors import InputError
from render.record import HIGH_RATE_HZ

_USUAL_SPEED, _USUAL_GAIN = 25.0, 10.0
_USUAL_WIDTH_MM = 280.0  # of a page without grid
_LEAST_INK_SCALE, _MOST_INK_SCALE = 4, 8
_SURE_NAMES = 5  # names in the layout's places: the page stands upright
_FAINT_QUALITY = 0.5
_SMALLEST_PX, _LARGEST_PX = 200, 3400  # of a picture's longer side; a larger one is made smaller by a whole factor


@dataclass(frozen=True, eq=False)
class _Reading:
    """A sheet as it reads in one orientation."""

    sheet: Sheet
    quarters: int
    rows: tuple[Row, ...]
    names: tuple[Name, ...]
    layout: PageLayout | None

    @property
    def worth(self) -> float:
        """Names in their places count, then rows, then upright pulses."""
        if self.layout is None:
            return 0.05 * min(len(self.rows), 4)
        pulses = sum(len(row.pulses) > 0 for row in self.rows)
        return 1.0 + self.layout.names * self.layout.share + 0.15 * pulses


def digitize(image: Image.Image, network: NameNetwork | None = None) -> DigitizedPage:
    """Every lead on a picture of an ECG, in millivolts.

    image: any mode; its EXIF orientation is applied. network: as `load_network` gives it; None loads the project's.
    Raises `InputError` where no ECG is seen.
    """
    upright = ImageOps.exif_transpose(image)
    if max(upright.size) < _SMALLEST_PX:
        raise InputError(f"{upright.width} x {upright.height} pixels are too few; {_SMALLEST_PX} are needed")
    factor = -(-max(upright.size) // _LARGEST_PX)
    picture = as_picture(upright.convert("RGB").reduce(factor))
    grid = find_grid(picture)
    sheet = straighten(picture, grid) if grid else _without_grid(picture)
    reading = _best_reading(sheet, network or _own_network())
    if reading.layout is None:
        raise InputError(_complaint(reading, grid))
    return _in_full_pixels(_page(_fitted(reading), grid), factor)


def _fitted(reading: _Reading) -> _Reading:
    """The reading with its traces fitted to the ink."""
    assert reading.layout is not None
    scale = _ink_scale(reading.sheet)
    rows = fitted_rows(ink_of(reading.sheet, scale), scale, reading.rows, reading.layout.spans)
    return replace(reading, rows=tuple(rows))


def _ink_scale(sheet: Sheet) -> float:
    """Pixels per mm of the ink that the rows are read from."""
    return float(np.clip(round(sheet.picture_scale), _LEAST_INK_SCALE, _MOST_INK_SCALE))


def _in_full_pixels(page: DigitizedPage, factor: int) -> DigitizedPage:
    """The page of a picture that was made `factor` times smaller, in pixels of the whole picture."""
    if factor == 1:
        return page
    leads = tuple(replace(lead, path=lead.path * factor + (factor - 1) / 2) for lead in page.leads)
    return replace(page, leads=leads, px_per_mm=page.px_per_mm * factor)


@lru_cache(maxsize=1)
def _own_network() -> NameNetwork | None:
    return load_network() if WEIGHTS.exists() else None


def _complaint(reading: _Reading, grid: Grid | None) -> str:
    if reading.rows:
        return f"{len(reading.rows)} rows of traces, which is no known ECG layout; crop the picture to one ECG"
    return f"no ECG traces are seen ({'on a grid' if grid else 'and no grid'}); check that the picture shows an ECG"


def _without_grid(picture: Picture) -> Sheet:
    return flat_sheet(picture, max(picture.shape[1:]) / _USUAL_WIDTH_MM)


def _best_reading(sheet: Sheet, network: NameNetwork | None) -> _Reading:
    """The sheet in the orientation in which its rows and names read best."""
    level, upright = (_rows_length(turned(sheet, quarters)) for quarters in (0, 1))
    order = (0, 2, 1, 3) if level >= upright else (1, 3, 0, 2)
    best: _Reading | None = None
    for quarters in order:
        reading = _read(turned(sheet, quarters), quarters, network)
        if best is None or reading.worth > best.worth:
            best = reading
        if quarters == order[1] and best.layout is not None:
            break
        if best.layout is not None and best.layout.names >= _SURE_NAMES and best.layout.share > 0.7:
            break
    assert best is not None
    return best


def _rows_length(sheet: Sheet) -> float:
    """How much trace lies in rows from left to right, mm."""
    rows = find_rows(ink_of(sheet, _LEAST_INK_SCALE), _LEAST_INK_SCALE)
    return sum(float(np.isfinite(row.y).mean()) * (row.x[-1] - row.x[0]) for row in rows)


def _read(sheet: Sheet, quarters: int, network: NameNetwork | None) -> _Reading:
    scale = _ink_scale(sheet)
    ink = ink_of(sheet, scale)
    rows = find_rows(ink, scale)
    names = find_names(ink, scale, rows, network) if rows and network is not None else []
    return _Reading(sheet, quarters, tuple(aligned(rows)), tuple(names), read_layout(aligned(rows), names))


def _page(reading: _Reading, grid: Grid | None) -> DigitizedPage:
    layout = reading.layout
    assert layout is not None
    pulse_gain, pulse_speed = pulse_scales(reading.rows)
    speed, gain = pulse_speed or _USUAL_SPEED, pulse_gain or _USUAL_GAIN
    leads = [_lead(reading, span, speed, gain) for span in layout.spans]
    return DigitizedPage(
        layout=layout.format,
        order=layout.order,
        leads=tuple(lead for lead in leads if lead is not None),
        mm_per_s=speed,
        mm_per_mv=gain,
        speed_from="pulse" if pulse_speed else "usual",
        gain_from="pulse" if pulse_gain else "usual",
        turned_degrees=90 * reading.quarters,
        grid=grid is not None,
        px_per_mm=reading.sheet.picture_scale,
        names=round(layout.names),
        name_share=layout.share,
        remarks=tuple(_remarks(reading, layout, grid, pulse_gain)),
    )


def _remarks(reading: _Reading, layout: PageLayout, grid: Grid | None, pulse_gain: float | None) -> list[str]:
    remarks = []
    if grid is None:
        remarks.append("no grid: the scale is taken from the usual width of a page, and millivolts may be far off")
    if pulse_gain is None:
        remarks.append("no calibration pulse: the gain of 10 mm/mV is taken as usual")
    if layout.names < 1:
        remarks.append("no lead name could be read: the leads are those that usually stand in their places")
    elif layout.share < 0.6:
        remarks.append("the lead names that were read disagree with every known layout; check the leads")
    return remarks


def _lead(reading: _Reading, span: Span, speed: float, gain: float) -> DigitizedLead | None:
    """The trace of one lead; None where nothing of it is there."""
    row = reading.rows[span.row]
    inside = (row.x >= span.x0) & (row.x < span.x1)
    y = np.where(inside, row.y, np.nan)
    if np.isfinite(y).sum() < 0.1 * inside.sum():
        return None
    level = _zero_level(row, y)
    millivolts = (level - y) / gain * (-1 if span.inverted else 1)
    samples = round((span.x1 - span.x0) / speed * HIGH_RATE_HZ)
    time = span.x0 + (np.arange(samples) + 0.5) / HIGH_RATE_HZ * speed
    present = np.isfinite(millivolts)
    values = np.interp(time, row.x[present], millivolts[present])
    nearest = np.clip(np.searchsorted(row.x, time), 0, row.x.size - 1)
    values[~present[nearest]] = np.nan
    remarks, quality = _judged(row, inside, present)
    path = np.stack(reading.sheet.place(row.x[inside & present], row.y[inside & present]), axis=1).astype(np.float32)
    start = (span.x0 - min(s.x0 for s in reading.layout.spans)) / speed if reading.layout else 0.0
    return DigitizedLead(span.lead, max(0.0, start), values.astype(np.float32), quality, remarks, path)


def _zero_level(row: Row, y: NDArray[np.float64]) -> float:
    """Height of 0 mV, mm: where the trace dwells most."""
    values = y[np.isfinite(y)]
    counts, edges = np.histogram(values, bins=np.arange(values.min() - 0.5, values.max() + 1.0, 0.25))
    smooth = np.convolve(counts, np.ones(3), mode="same")
    peak = int(np.argmax(smooth))
    near = np.abs(values - (edges[peak] + edges[peak + 1]) / 2) < 0.5
    return float(values[near].mean()) if near.any() else float(np.median(values))


def _judged(row: Row, inside: NDArray[np.bool_], present: NDArray[np.bool_]) -> tuple[tuple[str, ...], float]:
    """Remarks on a lead, and its quality 0-1."""
    share = float(present[inside].mean()) if inside.any() else 0.0
    crowded = float(row.crowded[inside].mean()) if inside.any() else 0.0
    strength = float(np.minimum(row.ink[inside & present], 1.0).mean()) if (inside & present).any() else 0.0
    remarks = []
    if share < 0.95:
        remarks.append(f"{1 - share:.0%} of it cannot be read")
    if crowded > 0.05:
        remarks.append("other strokes or print touch it")
    if strength < _FAINT_QUALITY:
        remarks.append("faint")
    ends = np.flatnonzero(inside)
    if ends.size and not present[ends[-max(1, ends.size // 20) :]].any():
        remarks.append("cut short at its end")
    quality = share * (1 - 0.5 * min(1.0, 4 * crowded)) * min(1.0, 0.4 + strength)
    return tuple(remarks), float(np.clip(quality, 0.0, 1.0))
