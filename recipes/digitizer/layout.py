"""The layout of a sheet: its rows and the leads' names beside them, compared with all formats of ECG pages."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipes.digitizer.names import Name
from recipes.digitizer.picture import Array
from recipes.digitizer.plausibility import limb_misfit
from recipes.digitizer.traces import USUAL_FOOT_MM, Row, runs
from render.pages.options import FORMATS, PageOptions

_NAME_BESIDE_MM = 3.0  # from the usual height of names above their traces
_NAME_OFFSETS_MM = np.arange(-24.0, 12.1, 0.5)  # candidates for that height, downwards
_NAME_BEFORE_MM = 8.0  # how far left of its trace a name may begin
_NAMES_LEFT_MM = 14.0  # how far left of that the names of a whole row may stand
_LEFT_MM, _FEWEST_LEFT = 2.0, 4  # from the start of the rows to a name before them; such names
_STRIP_NAME_MM = 25.0  # from the start of a rhythm strip: the range of its name
_MOST_ASIDE = 0.3  # from the start of a column to its name, of the column's length
_USUAL_COLUMNS_MM = np.array([62.5, 75.0, 125.0, 150.0, 250.0, 300.0, 500.0])  # 2.5, 3, 5, 6 and 10 s
_NEARLY_USUAL = 0.006  # relative difference from a usual column that the pen's width explains
_LEAST_APART_MM, _BARE_SHARE = 1.0, 0.9  # between columns; of the rows that have no trace there
_NEAR_FRAME = 0.03  # relative difference from a usual column that the lines of frames explain
_LEAST_LAST = 0.9  # of the last column that must be on the picture
_LAST_SAMPLE_MM = 0.04  # from the last sample of a row to its end, where a line ends in its last sample, at 500 Hz
_PEN_MM = 0.3  # usual width; half of it lies before the first sample, half behind the last
_USUAL_ROWS_MM = (250.0, 300.0, 500.0)  # 10 and 12 s at 25 mm/s, 10 s at 50
_NEAR_BY_PULSE, _NEAR_BY_WIDTH = 0.15, 0.4  # logarithm of a usual length by what the pulses, or a page's width, say
_LEAST_FOOT_MM, _FOOT_SLACK_MM = 1.0, 0.5  # beyond what the pen's width explains; of a row's usual length
_STRIP_ALIGNMENT_MM = 1.0  # a rhythm strip that differs less has the ends of the columns above
_PULSE_ALIGNMENT_MM = 22.0  # a row's end that differs more is not moved to that of the other rows
_UNREAD_WEIGHT = 0.03  # of a lead without a readable name, for each name that agrees
_MISFIT_WEIGHT, _UNKNOWN_MISFIT = 2.0, 1.0  # of limb leads that do not add up, in names; of a layout without them
_SOME_NAMES = 2.0  # weight of those from which on limb leads count
_WELL_NAMED = 4  # names of a column; then not all of another are hidden
_STRIP_WEIGHT = 0.4  # least weight of a name that decides a rhythm strip's lead; else it is the usual one
_GAINS = np.array([5.0, 10.0, 20.0])  # mm per mV
# Decides between formats of the same rows where no names do; a choice of this project, not a survey.
_PRIOR = {"3x4+1R": 0.3, "3x4": 0.25, "3x4+3R": 0.2, "6x2": 0.2, "12x1": 0.2, "6x2+1R": 0.1, "6x1": 0.1}


SINGLE_LEAD = "1x1"
"""The layout of a strip that is cut from a page, and of a monitor's: one row with one lead."""


@dataclass(frozen=True)
class Span:
    """The place of one lead.

    Attributes:
        lead: I to V6.
        row: its number, from 0.
        x0: left end, mm of the sheet.
        x1: right end, mm of the sheet.
        polarity: 1, or -1 for a trace that is drawn upside down (-aVR in Cabrera's order).
    """

    lead: str
    row: int
    x0: float
    x1: float
    polarity: int


@dataclass(frozen=True)
class PageLayout:
    """The arrangement of the leads on a sheet.

    Attributes:
        format: of `render.pages.options.FORMATS`, or `SINGLE_LEAD`.
        order: of the limb leads, "standard" or "cabrera".
        spans: the leads' places, row by row.
        agreement: share of the names beside the rows that agree with the format, 0-1, by their weights.
        name_weight: sum of the weights of the names that agree.
        limb_misfit: of `recipes.digitizer.plausibility.limb_misfit`; `_UNKNOWN_MISFIT` where too few limb leads show.
    """

    format: str
    order: str
    spans: tuple[Span, ...]
    agreement: float
    name_weight: float
    limb_misfit: float


def read_layout(rows: Sequence[Row], names: Sequence[Name]) -> PageLayout | None:
    """The format that fits the rows and names best; None for a number of rows that no format has.

    A single row is one lead: that whose name stands at it, or else II, the usual lead of a strip.
    """
    if not rows:
        return None
    places = _beside_rows(rows, names)
    if len(rows) == 1:
        best = max((name for _, name in places), key=lambda name: name.weight, default=None)
        weight = best.weight if best else 0.0
        span = Span(best.lead if best else "II", 0, rows[0].start, rows[0].end, 1)
        return PageLayout(SINGLE_LEAD, "standard", (span,), float(weight > 0), weight, _UNKNOWN_MISFIT)
    candidates = [
        layout
        for format_name in FORMATS
        for order in ("standard", "cabrera")
        if (layout := _match_format(PageOptions(format_name, order=order), rows, places)) is not None
    ]
    return max(candidates, key=_score, default=None)


def _score(layout: PageLayout) -> float:
    """Weight of the names that agree, less that of the names that disagree or are missing, plus the format's prior.

    Where some names can be read, and they stand in one part of the page only, limb leads that do not follow from each
    other tell that the other part shows other leads. Without names there is nothing that such a choice could confirm.
    """
    agree = layout.name_weight
    disagree = agree / max(layout.agreement, 1e-9) - agree if agree else 0.0
    unread = len(layout.spans) - agree
    return (
        agree
        - disagree
        - _UNREAD_WEIGHT * min(agree, 5.0) * unread
        + _PRIOR.get(layout.format, 0.0)
        - 0.3 * (layout.order == "cabrera")
        - _MISFIT_WEIGHT * min(layout.limb_misfit, 1.0) * min(agree / _SOME_NAMES, 1.0)
    )


def _beside_rows(rows: Sequence[Row], names: Sequence[Name]) -> list[tuple[int, Name]]:
    """Names with the number of their row; a page prints all names at about the same height above their traces.

    Only those before the rows, where there are several, have a height of their own.
    """
    start = float(np.median([row.start for row in rows])) - _LEFT_MM
    before = _at_one_height(rows, [name for name in names if name.x < start])
    if len(before) < _FEWEST_LEFT:
        return _at_one_height(rows, names)
    return before + _at_one_height(rows, [name for name in names if name.x >= start])


def _at_one_height(rows: Sequence[Row], names: Sequence[Name]) -> list[tuple[int, Name]]:
    """The names at one height above their traces, of all heights the best, with the number of their row."""
    best: tuple[float, list[tuple[int, Name]]] = (-1.0, [])
    levels = np.array([row.level for row in rows])
    for offset in _NAME_OFFSETS_MM:
        pairs = []
        total = -0.02 * abs(float(offset))
        for name in names:
            distance = np.abs(levels + offset - name.y)
            row = int(np.argmin(distance))
            inside = rows[row].start - _NAME_BEFORE_MM - _NAMES_LEFT_MM < name.x < rows[row].end
            if distance[row] < _NAME_BESIDE_MM and inside:
                pairs.append((row, name))
                total += name.weight * (1 - 0.3 * distance[row] / _NAME_BESIDE_MM)
        if total > best[0]:
            best = (total, pairs)
    return best[1]


def _match_format(options: PageOptions, rows: Sequence[Row], places: Sequence[tuple[int, Name]]) -> PageLayout | None:
    """The rows and names as a page of these options; None for another number of rows, or a column without any name
    beside one with many.

    Args:
        options: a format and an order of the limb leads.
        rows: from top to bottom.
        places: names with the numbers of their rows.
    """
    labels = options.rows
    if len(labels) != len(rows):
        return None
    columns = max(len(row) for row in labels)
    strips = {k for k, row in enumerate(labels) if len(row) == 1 and columns > 1}
    columns_mm = _columns(rows, places, columns, strips)
    weights: list[float] = []
    agree: list[float] = []
    named: list[set[int]] = [set() for _ in range(columns)]  # rows: specks beside a name are taken for it
    strip_leads: dict[int, dict[str, float]] = {k: defaultdict(float) for k in strips}
    for row, name in places:
        if row not in strips:
            column = int(np.searchsorted(columns_mm[1:, 0], name.x + _NAME_BEFORE_MM))
            aside = name.x - columns_mm[column, 0] > max(_STRIP_NAME_MM, _MOST_ASIDE * np.ptp(columns_mm[column]))
            agree.append(float(labels[row][column].removeprefix("-") == name.lead and not aside))
            named[column] |= {row} if agree[-1] else set()
            weights.append(name.weight)
        elif name.x < rows[row].start + _STRIP_NAME_MM:
            strip_leads[row][name.lead] += name.weight
            agree.append(0.5 + 0.5 * (name.lead == labels[row][0]))
            weights.append(name.weight)
    if len(max(named, key=len)) >= _WELL_NAMED and not all(named):  # of twelve rows some that the picture cuts off
        return None
    spans: list[Span] = []
    for k, row_labels in enumerate(labels):
        if k in strips:
            spans.append(_strip_span(k, row_labels[0], strip_leads[k], rows[k], columns_mm))
        else:
            spans += _column_spans(k, row_labels, columns_mm)
    agreement = float(np.average(agree, weights=weights)) if agree else 0.0
    misfit = limb_misfit(
        (span.x0, span.lead, -span.polarity * rows[span.row].y[rows[span.row].between(span.x0, span.x1)])
        for span in spans
    )
    return PageLayout(
        options.format,
        options.order,
        tuple(spans),
        agreement,
        float(np.dot(agree, weights)),
        _UNKNOWN_MISFIT if misfit is None else misfit,
    )


def _column_spans(row: int, labels: Sequence[str], columns_mm: Array) -> list[Span]:
    """The leads of a row of columns. columns_mm: (columns, 2)."""
    leads = [label.removeprefix("-") for label in labels]
    return [
        Span(lead, row, float(x0), float(x1), 1 if label == lead else -1)
        for label, lead, (x0, x1) in zip(labels, leads, columns_mm, strict=True)
    ]


def _strip_span(number: int, label: str, names: Mapping[str, float], row: Row, columns_mm: Array) -> Span:
    """The lead of a rhythm strip: by the names (lead -> weight) at its start, else the label of the format.

    Its ends are those of the columns above where it is about as long.
    """
    lead, weight = max(names.items(), key=lambda pair: pair[1], default=(label, 0.0))
    start, end = float(columns_mm[0, 0]), float(columns_mm[-1, 1])
    if abs(row.start - start) >= _STRIP_ALIGNMENT_MM or abs(row.end - end) >= _STRIP_ALIGNMENT_MM:
        start, end = row.start, row.end
    return Span(lead if weight >= _STRIP_WEIGHT else label, number, start, end, 1)


def _columns(rows: Sequence[Row], places: Sequence[tuple[int, Name]], columns: int, strips: set[int]) -> Array:
    """Left and right ends of the columns, (columns, 2) mm: equal parts of the rows' length.

    Where the distance between the names of neighbouring columns is another, the picture cuts off the right of the
    page, and the distance between the names is taken. Where bare paper lies between columns of a usual length, they end
    there; between shorter ones only the pen is lifted, and time goes on.
    """
    main = [row for k, row in enumerate(rows) if k not in strips]
    start, end = float(np.median([row.start for row in main])), float(np.median([row.end for row in main]))
    apart = _columns_apart(main, start, end, columns) if columns > 1 else None
    if apart is not None:
        return apart
    share = (end - start) / columns
    usual = _usual_column(share)
    if abs(usual / share - 1) < _NEARLY_USUAL:
        # A longer row has half a pen at either end. A shorter one ends early: in its last sample, or at the frame.
        start, share = start + max(end - start + _LAST_SAMPLE_MM - columns * usual, 0.0) / 2, usual
    steps = _name_steps([(row, name) for row, name in places if name.x > start - _LEFT_MM], strips)
    if columns > 1 and steps.size:
        near = [step / round(step / share) for step in steps if round(step / share) >= 1]
        name_pitch = float(np.median(near)) if len(near) >= columns - 1 else share
        # The picture cuts off the page, or rows start at a wrong place: the names agree with each other only.
        if len(near) >= columns and 0.02 < abs(name_pitch / share - 1) < 0.15 and np.std(near) < 0.02 * name_pitch:
            share = name_pitch
            lefts = [name.x - round((name.x - start) / share) * share for row, name in places if row not in strips]
            start = max(start, float(np.median(lefts)) - 2.0) if lefts and np.median(lefts) > start + 6 else start
    edges = start + share * np.arange(columns + 1)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _columns_apart(rows: Sequence[Row], start: float, end: float, columns: int) -> Array | None:
    """Left and right ends (columns, 2), mm, of columns with bare paper between them; None where there are none."""
    x = rows[0].x
    inside = (x > start) & (x < end)
    bare = np.mean([~np.isfinite(row.y[inside]) for row in rows], axis=0) > _BARE_SHARE
    gaps = [(x[inside][a], x[inside][b - 1]) for a, b in runs(bare) if (b - a) * rows[0].step >= _LEAST_APART_MM]
    if len(gaps) != columns - 1:
        return None
    starts = np.array([start, *(np.median([row.begins_near(right) for row in rows]) for _, right in gaps)])
    ends = np.array([np.median([row.ends_near(left) for row in rows]) for left, _ in gaps])
    lengths = ends - starts[:-1]
    usual = _usual_column(float(np.median(lengths)))
    goes_on = np.abs(usual / np.diff(starts) - 1).max() < _NEARLY_USUAL  # the pen is lifted, time goes on
    if goes_on or np.abs(usual / lengths - 1).max() > _NEAR_FRAME or end - starts[-1] < _LEAST_LAST * usual:
        return None
    starts += np.mean(lengths + _LAST_SAMPLE_MM - usual) / 2  # the pen's width
    return np.stack([starts, starts + usual], axis=1)


def _usual_column(length: float) -> float:
    """The usual length of a column that is nearest to a length, mm."""
    return float(_USUAL_COLUMNS_MM[int(np.argmin(np.abs(np.log(_USUAL_COLUMNS_MM / length))))])


def _name_steps(places: Sequence[tuple[int, Name]], strips: set[int]) -> Array:
    """Distances between the left ends of names in the same row, mm."""
    steps = []
    for row in {row for row, _ in places} - strips:
        lefts = sorted(name.x for k, name in places if k == row)
        steps += np.diff(lefts).tolist()
    return np.array([step for step in steps if step > 20.0])


def pulse_scales(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Gain in mm/mV and speed in mm/s by the calibration pulses, None where they do not decide it.

    A pulse is 1 mV high and lasts 0.2 s on most machines (Kligfield et al. 2007, AHA/ACC/HRS recommendations).
    """
    pulses = [pulse for row in rows for pulse in row.pulses]
    if not pulses:
        return None, None
    heights = np.array([pulse.height for pulse in pulses])
    usual = np.percentile(heights, 60)  # where chest leads have rows of their own at half the gain, the other half
    gain = float(_GAINS[int(np.argmin(np.abs(np.log(_GAINS / usual))))])
    width = float(np.median([(pulse.x1 - pulse.x0) / (1 + pulse.half) for pulse in pulses]))
    return gain, 50.0 if width > 7.5 else 25.0 if width > 3.5 else None


def align_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows with a common start and end where most agree: a pulse that is hidden in one row is there nevertheless.

    Where the feet of the pulses run into the traces, these begin or end where they have a usual length.
    """
    if len(rows) < 3:
        return list(rows)
    starts, ends = np.array([row.start for row in rows]), np.array([row.end for row in rows])
    start, end = _consensus(starts, later=True), _consensus(ends, later=False)
    if start is not None and end is not None:
        start, end = _behind_feet(rows, start, end)
    return [
        replace(
            row,
            start=start if start is not None and abs(row.start - start) < _PULSE_ALIGNMENT_MM else row.start,
            end=end if end is not None and abs(row.end - end) < _PULSE_ALIGNMENT_MM else row.end,
        )
        for row in rows
    ]


def usual_stretch(rows: Sequence[Row]) -> float:
    """How much longer the rows of a page without a grid would have to be to have a usual length.

    Of the usual lengths it is the one that is nearest by the height of the calibration pulses, or by the usual width of
    a page where there are none. Where no length is near, the pulses alone tell.
    """
    gain, _ = pulse_scales(rows)
    heights = [pulse.height for row in rows for pulse in row.pulses]
    by_pulse = gain / float(np.median(heights)) if gain else 1.0
    start, end = np.median([(row.start, row.end) for row in rows], axis=0)
    feet = [row.latest_start for row in rows if math.isfinite(row.latest_start)]
    if len(feet) > 1 and np.median(feet) - min(feet) < _FOOT_SLACK_MM:  # most traces leave their feet at one place
        start = min(feet)
    stretches = (np.array(_USUAL_ROWS_MM) + _PEN_MM - _LAST_SAMPLE_MM) / (end - start)
    nearest = float(stretches[int(np.argmin(np.abs(np.log(stretches / by_pulse))))])
    is_near = abs(math.log(nearest / by_pulse)) < (_NEAR_BY_PULSE if gain else _NEAR_BY_WIDTH)
    return nearest if is_near else by_pulse


def _behind_feet(rows: Sequence[Row], start: float, end: float) -> tuple[float, float]:
    """Start and end of the traces, mm, without the feet of pulses that run into them.

    Feet end at one place in all rows, at the latest where the first row is no longer level.
    """
    latest = min((row.latest_start for row in rows if math.isfinite(row.latest_start)), default=-math.inf)
    earliest = max((row.earliest_end for row in rows if math.isfinite(row.earliest_end)), default=math.inf)
    # Some programs draw no foot at all.
    pulses = [(row, pulse) for row in rows for pulse in row.pulses]
    behind = [pulse.x1 for row, pulse in pulses if abs(row.start - pulse.x1) < USUAL_FOOT_MM + 0.1]
    before = [pulse.x0 for row, pulse in pulses if abs(row.end - pulse.x0) < USUAL_FOOT_MM + 0.1]
    least = float(np.median(behind)) - _FOOT_SLACK_MM if behind else start + _LEAST_FOOT_MM
    most = float(np.median(before)) + _FOOT_SLACK_MM if before else end - _LEAST_FOOT_MM
    for length in _USUAL_ROWS_MM:
        drawn = length + _PEN_MM - _LAST_SAMPLE_MM
        if least < end - drawn < latest + _FOOT_SLACK_MM:
            return end - drawn, end
        if earliest - _FOOT_SLACK_MM < start + drawn < most:
            return start, start + drawn
    return start, end


def _consensus(values: Array, *, later: bool) -> float | None:
    """The value (mm) of the largest group of rows within 2.5 mm, None where that is small.

    Args:
        later: of two groups of the same size, whether the one with larger values is taken.
    """
    groups = [values[np.abs(values - value) < 2.5] for value in values]
    best = max(groups, key=lambda group: (len(group), group.mean() if later else -group.mean()))
    return float(np.median(best)) if len(best) >= 0.4 * len(values) else None
