"""Tables of samples: CSV and other text with a column for each lead, and numpy arrays.

Neither has a standard. What a file does not say (rate, unit, order of the leads) is taken only where its numbers allow
one reading; else it is refused, with what to add.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.record import LEADS
from render.sources.lead_names import standard_lead
from render.sources.recording import Recording, count_of_leads, millivolts_per

NPY_START = b"\x93NUMPY"
NAME_THE_RATE = "add --sampling-rate 500, or whatever it is"

_MOST_BYTES = 16 << 20  # four minutes at 500 Hz; every number is a text first
_HEADER_LINES = 60  # within which the names of the columns stand
_MOST_NOTES = 10_000  # characters of the lines above the names
_LEAST_LEADS = 3
_DELIMITERS = (",", ";", "\t", "|")
_UNIT = r"(?P<unit>[nuµμm]?v|(?:milli|micro|nano)?volts?)"
_UNIT_IN_NAME = re.compile(rf"^(?P<name>.*?)[\s_\[(]+{_UNIT}\s*[\])]?$", re.IGNORECASE)
_UNIT_LINE = re.compile(rf"\bunits?\b\W{{0,4}}{_UNIT}(?!\w)", re.IGNORECASE)
_RATE_LINE = re.compile(
    r"(?:\bfs|\bsampl\w{0,8}[ _-]?(?:rate|freq\w{0,8})|\bfrequency)\b\W{0,4}(?P<hertz>\d{1,6}(?:\.\d{1,6})?)",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(
    r"^(?:time|t|zeit|tiempo|tempo|temps)?[\s_]*[\[(]?\s*(?P<unit>s|sec|seconds|ms|us|µs)?\s*[\])]?$", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_SLOWEST_HZ, _FASTEST_HZ = 50.0, 10_000.0  # narrow enough that seconds, ms and µs cannot be confused
_LEAST_MV, _MOST_MV = 0.2, 20.0  # height of the tallest lead, if the numbers are millivolts
_EINTHOVEN = 0.1  # largest share of the limb leads' height by which they may miss I + III = II and its like


@dataclass(frozen=True)
class _Table:
    """A text table. names: of the columns, units in them too. before: the lines above the names."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    before: str
    delimiter: str


def looks_like_table(content: bytes) -> bool:
    """Whether a text has a line that names columns for three leads or more."""
    if b"\0" in content[:4096]:
        return False
    return _names_line(content[:65536].decode("utf-8-sig", errors="replace").splitlines()) is not None


def read_csv(content: bytes, where: str, hertz: float | None = None) -> Recording:
    """A table with a column for each lead. hertz: the sampling rate, for a file that has neither it nor a time column.

    Raises `InputError` where columns are not named, a cell is no number, or rate or unit are open.
    """
    table = _read_table(content, where)
    columns = {i: name for i, name in enumerate(table.names) if _lead_and_unit(name)[0]}
    values = _numbers(table, list(columns), where)
    hertz = hertz or _stated_hertz(table) or _hertz_of_time(table, where)
    if hertz is None:
        raise InputError(f"{where}: the table gives no sampling rate; add a column time_s, or {NAME_THE_RATE}")
    unit_line = _UNIT_LINE.search(table.before)
    units = [_lead_and_unit(name)[1] or (unit_line["unit"] if unit_line else "") for name in columns.values()]
    if not all(units):
        _require_millivolts(values, where)
    factors = [millivolts_per(unit or "mV") or math.nan for unit in units]
    names = [_lead_and_unit(name)[0] for name in columns.values()]
    return Recording(names, [row * factor for row, factor in zip(values, factors, strict=True)], hertz)


def read_npy(content: bytes, where: str, hertz: float | None = None) -> Recording:
    """An array of 12 leads in millivolts, (12, n) or (n, 12), in the order of `LEADS`; hertz: its sampling rate.

    Raises `InputError` where the rate is not given, and where the limb leads or the unit are not what that means.
    """
    array = _load_array(content, where)
    while array.ndim > 2 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim != 2 or len(LEADS) not in array.shape:
        raise InputError(f"{where}: an array of shape {array.shape}; (12, samples) or (samples, 12) is needed")
    values = np.asarray(array if array.shape[0] == len(LEADS) else array.T, dtype=np.float64)
    if array.dtype.kind != "f":
        raise InputError(f"{where}: whole numbers, so not millivolts; convert them to float millivolts")
    _require_millivolts(values, where)
    _require_lead_order(values, where)
    if hertz is None:
        raise InputError(f"{where}: an array has no sampling rate; {NAME_THE_RATE}")
    return Recording(LEADS, list(values), hertz)


def _load_array(content: bytes, where: str) -> NDArray[np.generic]:
    """The array, never a pickle; its size is compared with the file's before any of it is allocated."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = head(file)
        if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize > len(content):
            raise ValueError(f"{dtype} numbers in the shape {shape}")
        file.seek(0)
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise InputError(f"{where}: not a numpy array of numbers that can be read ({error}); save it again") from error
    return array


def _require_millivolts(values: NDArray[np.float64], where: str) -> None:
    """Raise `InputError` unless unnamed units can only be millivolts: the right height, and not standardised."""
    finite = np.where(np.isfinite(values), values, np.nan)
    if not np.isfinite(finite).any():
        raise InputError(f"{where}: no finite number in any lead; export the table again")
    with np.errstate(all="ignore"):
        low, high = np.nanpercentile(finite, [0.1, 99.9], axis=1)
        height = float(np.nanmax(high - low))
        deviation, mean = np.nanstd(finite, axis=1), np.nanmean(finite, axis=1)
    if not _LEAST_MV <= height <= _MOST_MV:
        raise InputError(
            f"{where}: the tallest lead spans {height:.3g} of an unknown unit, so not millivolts; "
            f"name the columns 'I (uV)' or 'I (mV)', or convert to millivolts"
        )
    if np.all(np.abs(deviation - 1) < 0.01) and np.all(np.abs(mean) < 0.01):
        raise InputError(f"{where}: every lead has mean 0 and deviation 1 (standardised); export millivolts")


def _require_lead_order(values: NDArray[np.float64], where: str) -> None:
    """Raise `InputError` unless the first six rows are I, II, III, aVR, aVL, aVF by Einthoven and Goldberger."""
    one, two, three, right, left, foot = values[:6]
    misses = (one + three - two, right + (one + two) / 2, left - one + two / 2, foot - two + one / 2)
    height = float(np.nanstd(values[:6]))
    if not all(float(np.nanstd(miss)) <= _EINTHOVEN * max(height, 1e-12) for miss in misses):
        raise InputError(
            f"{where}: rows 1 to 6 are not I, II, III, aVR, aVL, aVF (I + III is not II, or another); "
            f"sort them, or save a CSV with named columns"
        )


def _read_table(content: bytes, where: str) -> _Table:
    if len(content) > _MOST_BYTES:
        raise InputError(f"{where}: more than {_MOST_BYTES >> 20} MiB of text; extract the part to be read")
    lines = _text(content).splitlines()
    place_delimiter = _names_line(lines)
    if place_delimiter is None:
        raise InputError(
            f"{where}: no line names a column for each lead; write 'time_s,I,II,III,...' above the numbers"
        )
    place, delimiter = place_delimiter
    try:
        rows = [row for row in _split(lines[place + 1 :], delimiter) if row and not row[0].startswith("#")]
    except csv.Error as error:
        raise InputError(f"{where}: not a table in text ({error}); export it again") from error
    (names,) = _split([lines[place]], delimiter)
    for number, row in enumerate(rows, start=place + 2):
        if len(row) < len(names) and not (len(row) == 1 and not row[0].strip()):
            raise InputError(f"{where}: line {number} has {len(row)} of {len(names)} columns; export it again")
    rows = [row for row in rows if len(row) >= len(names)]
    if not rows:
        raise InputError(f"{where}: no numbers below the names of the columns; export it again")
    return _Table(names, rows, "\n".join(lines[:place])[:_MOST_NOTES], delimiter)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _names_line(lines: Sequence[str]) -> tuple[int, str] | None:
    """Which line names the leads, and what separates its columns; "" for white space."""
    for place, line in enumerate(lines[:_HEADER_LINES]):
        if len(line) > 10_000:
            continue
        counts = {}
        for delimiter in (*_DELIMITERS, ""):
            cells = line.split(delimiter) if delimiter else line.split()
            counts[delimiter] = count_of_leads([_lead_and_unit(cell.strip(" \"'#"))[0] for cell in cells[:256]])
        best = max(counts, key=lambda delimiter: counts[delimiter])
        if counts[best] >= _LEAST_LEADS:
            return place, best
    return None


def _split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if not delimiter:
        return [line.lstrip("# ").split() for line in lines]
    return [[cell.strip(" \"'#") for cell in row] for row in csv.reader(lines, delimiter=delimiter)]


def _lead_and_unit(name: str) -> tuple[str, str]:
    """("aVR", "uV") of "aVR (uV)", "aVR_uV" or "aVR [uV]"; ("", "") of what is no lead. The sign stays in the name."""
    in_name = _UNIT_IN_NAME.match(name) if len(name) < 100 else None
    if in_name and standard_lead(in_name["name"]):
        return in_name["name"], in_name["unit"]
    return (name, "") if standard_lead(name) else ("", "")


def _numbers(table: _Table, columns: Sequence[int], where: str) -> NDArray[np.float64]:
    """(columns, rows); empty cells are NaN."""
    has_comma = table.delimiter != "," and any("," in row[i] for row in table.rows[:50] for i in columns)
    cells = [[row[i] or "nan" for i in columns] for row in table.rows]
    if has_comma:
        cells = [[cell.replace(",", ".") for cell in row] for row in cells]
    try:
        return np.ascontiguousarray(np.array(cells, dtype=np.float64).T)
    except ValueError as error:
        raise InputError(f"{where}: a cell is no number ({error}); export it again") from error


def _stated_hertz(table: _Table) -> float | None:
    """The rate that a line above the table gives, or a column of its own."""
    line = _RATE_LINE.search(table.before)
    if line:
        return float(line["hertz"])
    for i, name in enumerate(table.names):
        if _RATE_LINE.match(f"{name} {table.rows[0][i]}"):
            return float(table.rows[0][i].replace(",", "."))
    return None


def _hertz_of_time(table: _Table, where: str) -> float | None:
    """The rate of the column of times, None where there is none. Its unit is taken from its name, else its steps."""
    column, unit = -1, ""
    for i, name in enumerate(table.names):
        time = _TIME_NAME.match(name.strip()) if 0 < len(name.strip()) < 40 else None
        if time:
            column, unit = i, time["unit"] or ""
            break
    if column < 0 or len(table.rows) < 2:
        return None
    times = _numbers(table, [column], where)[0]
    steps = np.diff(times)
    step = float(np.median(steps))
    if not step > 0 or not np.all(np.abs(steps - step) < step / 2 + 1e-9):
        raise InputError(f"{where}: the times in column {table.names[column]!r} do not rise evenly; resample the table")
    step = float(times[-1] - times[0]) / steps.size  # the mean: written times are rounded
    units = [unit.lower()] if unit else ["s", "ms", "us"]
    rates = [1 / (step * _SECONDS[each]) for each in units]
    rates = [rate for rate in rates if _SLOWEST_HZ <= rate <= _FASTEST_HZ]
    if len(rates) != 1:
        raise InputError(f"{where}: steps of {step:g} in column {table.names[column]!r} are no rate of an ECG")
    return float(round(rates[0], 3))
