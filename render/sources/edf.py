"""EDF, EDF+ without gaps, and BDF: a header in text, then records of 16- or 24-bit samples of each signal.

Format: Kemp et al. 1992, https://www.edfplus.info/specs/edf.html; BDF: https://www.biosemi.com/faq/file_format.htm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.sources.lead_names import standard_lead
from render.sources.recording import EXPORT_AGAIN, MOST_VALUES, Recording, millivolts_per, sex_of

EDF_START, BDF_START = b"0       ", b"\xffBIOSEMI"

_BLOCK = 256  # bytes of the header, and again for each signal
_FIELDS = {  # of each signal: (bytes before it in every signal's share, bytes)
    "label": (0, 16), "unit": (96, 8), "physical_min": (104, 8), "physical_max": (112, 8), "digital_min": (120, 8),
    "digital_max": (128, 8), "samples": (216, 8),
}  # fmt: skip
_MOST_SIGNALS = 512


def read_edf(content: bytes, where: str) -> Recording:
    """The signals that are leads. Raises `InputError` for damage, gaps (EDF+D), and leads in other units."""
    header = _Header(content, where)
    leads = [i for i, label in enumerate(header.labels) if standard_lead(label)]
    rates = {header.samples[i] / header.seconds for i in leads}
    if len(rates) > 1:
        text = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise InputError(f"{where}: leads sampled at {text} Hz; export them at one rate")
    table = header.table()
    ends = np.cumsum(header.samples)
    parts = [table[:, ends[i] - header.samples[i] : ends[i]].reshape(-1) for i in leads]
    return Recording(
        [header.labels[i] for i in leads] or header.labels,
        [header.in_millivolts(i, samples) for i, samples in zip(leads, parts, strict=True)],
        rates.pop() if rates else math.nan,
        sex=header.sex,
    )


class _Header:
    """The header, checked against the file's size."""

    def __init__(self, content: bytes, where: str) -> None:
        self._content, self._where = content, where
        self._is_bdf = content.startswith(BDF_START)
        self.format = "BDF" if self._is_bdf else "EDF"
        if content[192:197] in (b"EDF+D", b"BDF+D"):
            raise InputError(f"{where}: {self.format}+D, a recording with gaps; export a part without a gap as EDF+C")
        self._count = int(self._number(content[252:256], "number of signals"))
        if not 0 < self._count <= _MOST_SIGNALS or len(content) < self._start:
            raise InputError(f"{where}: {self._count} signals in {len(content)} bytes; {EXPORT_AGAIN}")
        self.labels = [self._field(i, "label").decode("latin-1").strip() for i in range(self._count)]
        self.samples = [int(self._number(self._field(i, "samples"), "samples")) for i in range(self._count)]
        self.seconds = self._number(content[244:252], "duration of a data record")
        if min(self.samples) < 0 or not self.seconds > 0:
            raise InputError(f"{where}: data records of {self.seconds:g} s; {EXPORT_AGAIN}")
        words = content[8:88].decode("latin-1").split()
        self.sex = sex_of(words[1]) if len(words) > 1 else ""

    @property
    def _start(self) -> int:
        return _BLOCK * (self._count + 1)

    def table(self) -> NDArray[np.integer]:
        """(data records, samples of all signals in one)."""
        width = sum(self.samples)
        size = 3 if self._is_bdf else 2
        rows = (len(self._content) - self._start) // (size * width) if width else 0
        count = int(self._number(self._content[236:244], "number of data records"))
        count = rows if count < 0 else count  # -1: the recorder did not come to write it
        if not 0 < count <= rows or count * width > MOST_VALUES:
            raise InputError(f"{self._where}: {rows} of {count} data records of {width} samples; {EXPORT_AGAIN}")
        data = self._content[self._start : self._start + size * count * width]
        if not self._is_bdf:
            return np.frombuffer(data, "<i2").reshape(count, width)
        octets = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        values = octets[:, 0] | octets[:, 1] << 8 | octets[:, 2] << 16
        return (values - ((values & 0x800000) << 1)).reshape(count, width)

    def in_millivolts(self, i: int, samples: NDArray[np.integer]) -> NDArray[np.float64]:
        """Signal i in millivolts, by its two physical and two digital limits."""
        unit = self._field(i, "unit").decode("latin-1").strip()
        per_unit = millivolts_per(unit)
        names = ("physical_min", "physical_max", "digital_min", "digital_max")
        low, high, first, last = (self._number(self._field(i, name), name) for name in names)
        if per_unit is None or first == last or low == high:
            raise InputError(
                f"{self._where}: signal {self.labels[i]} goes from {low:g} to {high:g} {unit!r} in {first:g} to "
                f"{last:g} steps; voltages are in uV, mV or V; {EXPORT_AGAIN}"
            )
        scale = (high - low) / (last - first)
        return ((samples.astype(np.float64) - first) * scale + low) * per_unit

    def _field(self, i: int, name: str) -> bytes:
        before, size = _FIELDS[name]
        place = _BLOCK + before * self._count + size * i
        return self._content[place : place + size]

    def _number(self, field: bytes, name: str) -> float:
        text = field.decode("latin-1").strip().replace(",", ".")
        try:
            number = float(text)
            if abs(number) < 1e12:
                return number
        except ValueError:
            pass
        raise InputError(f"{self._where}: {name} {text!r} is no number; {EXPORT_AGAIN}")
