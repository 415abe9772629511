"""The text that a machine prints around the traces: person, date, measurements, settings of the recording.

Fields that the record has are printed as they are (MIMIC-IV-ECG: measurements, bandwidth, filter). Administrative
fields that no public record has (an identifier, a date, a room, a cart) are invented, with the record's name as the
seed. Numbers about the heart are never invented, and findings are printed only where the style asks for them.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from render.dialogues.wording import label_of
from render.pages.layout import Layout
from render.record import EcgRecord

# Two lines of small text fit above the grid, or one line of large text.
_LARGE_MM, _SMALL_MM, _FOOT_MM, _FINDINGS_MM = 4.0, 2.9, 2.7, 2.6
_ONLY_LINE, _FIRST_LINE, _SECOND_LINE, _FINDINGS_LINE = 6.5, 3.6, 7.4, 9.9  # baselines, mm from the top
_FOOT_LINE = 1.4  # mm from the bottom
_SETTINGS = ("Bandwidth", "Filter")  # fields of `EcgRecord.header` about the recording, not the heart


@dataclass(frozen=True)
class HeaderLine:
    """A line of text.

    Attributes:
        baseline: mm.
        size: mm.
        fields: from the left end of the traces on; the last ones are left out where there is no room.
        right: text that ends at the right end of the traces.
    """

    baseline: float
    size: float
    fields: tuple[str, ...]
    right: str = ""


def lines(record: EcgRecord, layout: Layout, text: str, findings: bool) -> list[HeaderLine]:
    """The lines of text on a page.

    Args:
        text: whose format they have, a word of `render.pages.paper.PAPER_WORDS`; "" for none.
        findings: whether the record's statements are printed too.
    """
    formats = {"": _nothing, "plain": _plain, "muse": _muse, "pagewriter": _pagewriter, "cardiovit": _cardiovit}
    page_lines = formats[text](record, layout)
    if findings and record.statements:
        names = "   ".join(label_of(code) for code in record.statements)
        page_lines.append(HeaderLine(_FINDINGS_LINE, _FINDINGS_MM, (f"*** {names} ***",)))
    return page_lines


def _nothing(record: EcgRecord, layout: Layout) -> list[HeaderLine]:
    return []


def _plain(record: EcgRecord, layout: Layout) -> list[HeaderLine]:
    """Everything in one line: age and sex, the record's fields, speed and gain."""
    fields = (*_person(record), *(f"{name}: {value}" for name, value in record.header))
    return [HeaderLine(_ONLY_LINE, _LARGE_MM, fields, legend(layout))]


def _muse(record: EcgRecord, layout: Layout) -> list[HeaderLine]:
    """Two lines at the head, the recording's settings at the foot, as GE's carts and archive print them."""
    admin = _Admin.of(record)
    settings = _settings(record, "0.05-150 Hz", "")
    return [
        HeaderLine(_FIRST_LINE, _SMALL_MM, (f"ID:{admin.number}", admin.when, *_person(record)), admin.room),
        HeaderLine(_SECOND_LINE, _SMALL_MM, tuple(f"{name} {value}" for name, value in _measurements(record))),
        HeaderLine(
            layout.height - _FOOT_LINE, _FOOT_MM, (*legend(layout).split("    "), *settings), f"CART {admin.cart}"
        ),
    ]


def _pagewriter(record: EcgRecord, layout: Layout) -> list[HeaderLine]:
    """Number and measurements left, date and room right, settings at the foot, as Philips' carts print them."""
    admin = _Admin.of(record)
    speed, *gains = legend(layout).split("    ")
    settings = _settings(record, "0.15-100 Hz", "50~")
    return [
        HeaderLine(_FIRST_LINE, _SMALL_MM, (admin.number, *_person(record)), admin.when),
        HeaderLine(
            _SECOND_LINE, _SMALL_MM, tuple(f"{name} {value}" for name, value in _measurements(record)), admin.room
        ),
        HeaderLine(
            layout.height - _FOOT_LINE,
            _FOOT_MM,
            (f"Device: {admin.cart}", f"Speed: {speed}", f"Gain: {', '.join(gains)}"),
            " ".join(settings),
        ),
    ]


def _cardiovit(record: EcgRecord, layout: Layout) -> list[HeaderLine]:
    """Speed, gain and filters at the head's right end, the date at the foot, as Schiller's machines print them."""
    admin = _Admin.of(record)
    settings = _settings(record, "0.05-150 Hz", "50 Hz")
    return [
        HeaderLine(_FIRST_LINE, _SMALL_MM, (f"No. {admin.number}", *_person(record)), legend(layout)),
        HeaderLine(_SECOND_LINE, _SMALL_MM, tuple(f"{n} {v}" for n, v in _measurements(record)), "    ".join(settings)),
        HeaderLine(layout.height - _FOOT_LINE, _FOOT_MM, (admin.when, admin.room), admin.cart),
    ]


def legend(layout: Layout) -> str:
    """Paper speed and gain, without which a page cannot be read."""
    gains = [f"{gain:g} mm/mV" for gain in layout.gains]
    if len(gains) == 2:
        gains = [f"limb {gains[0]}, chest {gains[1]}"]
    return f"{layout.mm_per_s:g} mm/s    {gains[0]}"


def _person(record: EcgRecord) -> list[str]:
    age = [f"{record.age:.0f} years"] if record.age is not None and math.isfinite(record.age) else []
    return [*age, record.sex] if record.sex else age


def _measurements(record: EcgRecord) -> list[tuple[str, str]]:
    return [(name, value) for name, value in record.header if name not in _SETTINGS]


def _settings(record: EcgRecord, bandwidth: str, mains: str) -> list[str]:
    """Bandwidth and filter of the record, else the default ones of the machine."""
    values = [value for name, value in record.header if name in _SETTINGS]
    return values or [value for value in (bandwidth, mains) if value]


@dataclass(frozen=True)
class _Admin:
    """Invented administrative fields of a record."""

    number: str
    when: str
    room: str
    cart: str

    @staticmethod
    def of(record: EcgRecord) -> _Admin:
        rng = np.random.default_rng(zlib.crc32(record.record_id.encode()))
        day, month, year = rng.integers(1, 29), rng.integers(0, 12), rng.integers(1996, 2026)
        name = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[month]
        when = f"{day:02d}-{name}-{year}  {rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}:{rng.integers(0, 60):02d}"
        room = ("Ward", "Room", "ED Bay", "Clinic", "Bed")[rng.integers(5)]
        return _Admin(
            str(rng.integers(10**6, 10**8)), when, f"{room} {rng.integers(1, 40)}", f"{rng.integers(100, 999)}"
        )
