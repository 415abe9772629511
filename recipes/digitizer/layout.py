"""Which lead is where: the rows of a sheet and the names beside them, matched with the formats of ECG paper."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipes.digitizer.names import Name
from recipes.digitizer.traces import Pulse, Row
from render.pages.options import FORMATS, PageOptions
from render.record import LEADS

_NAME_BESIDE_MM = 3.0  # how far names may differ in where they stand by their traces
_NAME_OFFSETS_MM = np.arange(-15.0, 12.1, 0.5)
_NAME_BEFORE_MM = 8.0  # how far left of its trace a name may begin
_USUAL_COLUMNS_MM, _NEARLY_USUAL = np.array([62.5, 75.0, 125.0, 150.0, 250.0, 300.0, 500.0]), 0.006
_ALIKE_MM = 1.0
_UNREAD = 0.03  # what a lead counts whose name is not read, for each name that is
_STRIP_WEIGHT = 0.4  # of a name that a rhythm strip is named by; else it is the usual one
_COMMON = {"3x4+1R": 0.3, "3x4": 0.25, "3x4+3R": 0.2, "6x2": 0.2, "12x1": 0.2, "6x2+1R": 0.1, "6x1": 0.1}


@dataclass(frozen=True)
class Span:
    """One lead on one row. x0, x1: mm of the sheet. start: s after the sheet's first sample, at the given speed."""

    lead: str
    row: int
    x0: float
    x1: float
    inverted: bool


@dataclass(frozen=True)
class PageLayout:
    """How the leads stand on a sheet.

    format: of `render.pages.options.FORMATS`. order: of the limb leads. strips: leads of the rhythm strips.
    spans: the leads' places. share: of the rows' names that agree, 0-1. names: how many agree, by their weights.
    """

    format: str
    order: str
    strips: tuple[str, ...]
    spans: tuple[Span, ...]
    share: float
    names: float


def read_layout(rows: Sequence[Row], names: Sequence[Name]) -> PageLayout | None:
    """The format that the rows and names fit best; None for rows of a number that no format has."""
    if not rows:
        return None
    places = _beside_rows(rows, names)
    candidates = [
        layout
        for format_name in FORMATS
        for order in ("standard", "cabrera")
        if (layout := _fitted(PageOptions(format_name, order=order), rows, places)) is not None
    ]
    return max(candidates, key=_worth, default=None)


def _worth(layout: PageLayout) -> float:
    """Names that agree, less those that do not, and what is common where names say nothing."""
    disagree = layout.names / max(layout.share, 1e-9) - layout.names if layout.names else 0.0
    unread = len(layout.spans) - layout.names
    return (
        layout.names
        - disagree
        - _UNREAD * min(layout.names, 5.0) * unread
        + _COMMON.get(layout.format, 0.0)
        - 0.3 * (layout.order == "cabrera")
    )


def _beside_rows(rows: Sequence[Row], names: Sequence[Name]) -> list[tuple[int, Name]]:
    """Names with the number of their row: all stand about as far above or below their traces."""
    best: tuple[float, list[tuple[int, Name]]] = (-1.0, [])
    levels = np.array([row.level for row in rows])
    for offset in _NAME_OFFSETS_MM:
        pairs = []
        total = -0.02 * abs(float(offset))
        for name in names:
            away = np.abs(levels + offset - name.y)
            row = int(np.argmin(away))
            inside = rows[row].start - _NAME_BEFORE_MM - 14 < name.x < rows[row].end
            if away[row] < _NAME_BESIDE_MM and inside:
                pairs.append((row, name))
                total += name.weight * (1 - 0.3 * away[row] / _NAME_BESIDE_MM)
        if total > best[0]:
            best = (total, pairs)
    return best[1]


def _fitted(options: PageOptions, rows: Sequence[Row], places: Sequence[tuple[int, Name]]) -> PageLayout | None:
    """The rows and names as this format; None where the number of rows is another."""
    labels = options.rows
    if len(labels) != len(rows):
        return None
    columns = max(len(row) for row in labels)
    strips = [k for k, row in enumerate(labels) if len(row) == 1 and columns > 1]
    edges = _column_edges(rows, places, columns, set(strips))
    weights: list[float] = []
    agree: list[float] = []
    strip_leads: dict[int, dict[str, float]] = {k: defaultdict(float) for k in strips}
    for row, name in places:
        if row in strip_leads:
            if name.x < rows[row].start + 25.0:
                strip_leads[row][name.lead] += name.weight
                agree.append(0.5 + 0.5 * (name.lead == labels[row][0]))
                weights.append(name.weight)
            continue
        column = int(np.searchsorted(edges[1:-1], name.x + _NAME_BEFORE_MM))
        agree.append(float(labels[row][column].removeprefix("-") == name.lead))
        weights.append(name.weight)
    spans = []
    for k, leads in enumerate(labels):
        if k in strip_leads:
            best = max(strip_leads[k].items(), key=lambda pair: pair[1], default=(leads[0], 0.0))
            lead = best[0] if best[1] >= _STRIP_WEIGHT else leads[0]
            spans.append(Span(lead, k, *_strip_ends(rows[k], float(edges[0]), float(edges[-1])), False))
            continue
        for column, label in enumerate(leads):
            lead = label.removeprefix("-")
            spans.append(Span(lead, k, float(edges[column]), float(edges[column + 1]), label != lead))
    share = float(np.average(agree, weights=weights)) if agree else 0.0
    strip_names = tuple(span.lead for span in spans if span.row in strip_leads)
    return PageLayout(options.format, options.order, strip_names, tuple(spans), share, float(np.dot(agree, weights)))


def _strip_ends(row: Row, start: float, end: float) -> tuple[float, float]:
    """Ends of a rhythm strip, mm: those of the rows above where it is about as long."""
    alike = abs(row.start - start) < _ALIKE_MM and abs(row.end - end) < _ALIKE_MM
    return (start, end) if alike else (row.start, row.end)


def _column_edges(
    rows: Sequence[Row], places: Sequence[tuple[int, Name]], columns: int, strips: set[int]
) -> np.ndarray:
    """Left ends of the columns and the right end of the last, mm: equal shares of the rows' length.

    Where the names of neighbouring columns stand at another distance, the page is cut off at its right, and the names'
    distance holds.
    """
    main = [row for k, row in enumerate(rows) if k not in strips]
    start, end = float(np.median([row.start for row in main])), float(np.median([row.end for row in main]))
    if columns == 1:
        return np.array([start, end])
    share = (end - start) / columns
    usual = _USUAL_COLUMNS_MM[int(np.argmin(np.abs(np.log(_USUAL_COLUMNS_MM / share))))]
    if abs(usual / share - 1) < _NEARLY_USUAL:  # the pen's width and specks of ink lengthen and shorten it
        start, share = (start + end - columns * usual) / 2, float(usual)
    steps = _name_steps(places, strips)
    if steps.size:
        near = [step / round(step / share) for step in steps if round(step / share) >= 1]
        named = float(np.median(near)) if len(near) >= columns - 1 else share
        # A wrong start of a row or a cut page: the names agree among each other and not with the rows.
        if len(near) >= columns and 0.02 < abs(named / share - 1) < 0.15 and np.std(near) < 0.02 * named:
            share = named
            lefts = [name.x - round((name.x - start) / share) * share for row, name in places if row not in strips]
            start = max(start, float(np.median(lefts)) - 2.0) if lefts and np.median(lefts) > start + 6 else start
    return start + share * np.arange(columns + 1)


def _name_steps(places: Sequence[tuple[int, Name]], strips: set[int]) -> np.ndarray:
    """Distances between the left ends of names in the same row, mm."""
    steps = []
    for row in {row for row, _ in places} - strips:
        lefts = sorted(name.x for k, name in places if k == row)
        steps += np.diff(lefts).tolist()
    return np.array([step for step in steps if step > 20.0])


def pulse_scales(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """mm per mV and mm per s that the calibration pulses say: 1 mV high and, of most machines, 0.2 s long."""
    pulses: list[Pulse] = [pulse for row in rows for pulse in row.pulses]
    if not pulses:
        return None, None
    heights = np.array([pulse.height for pulse in pulses])
    gains = np.array([5.0, 10.0, 20.0])
    gain = float(gains[int(np.argmin(np.abs(np.log(gains / np.median(heights)))))])
    width = float(np.median([pulse.x1 - pulse.x0 for pulse in pulses]))
    return gain, 50.0 if width > 7.5 else 25.0 if width > 3.5 else None


def aligned(rows: Sequence[Row]) -> list[Row]:
    """Rows with one start and end where all but one agree: a pulse that one row hides stands in all of them."""
    if len(rows) < 3:
        return list(rows)
    starts, ends = np.array([row.start for row in rows]), np.array([row.end for row in rows])
    start, end = _agreed(starts, later=True), _agreed(ends, later=False)
    return [
        replace(
            row,
            start=start if start is not None and abs(row.start - start) < 22.0 else row.start,
            end=end if end is not None and abs(row.end - end) < 22.0 else row.end,
        )
        for row in rows
    ]


def _agreed(values: np.ndarray, *, later: bool) -> float | None:
    """The value that most rows have within 2.5 mm; of several groups the larger, then the one further inside."""
    groups = [values[np.abs(values - value) < 2.5] for value in values]
    best = max(groups, key=lambda group: (len(group), group.mean() if later else -group.mean()))
    return float(np.median(best)) if len(best) >= 0.4 * len(values) else None


def is_twelve_lead(layout: PageLayout) -> bool:
    """Whether every one of the twelve leads stands on the sheet."""
    return {span.lead for span in layout.spans} == set(LEADS)
