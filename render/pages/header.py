"""What a machine prints round the traces: who and when, what it measured, how it recorded.

Fields that the record has are printed as they are (MIMIC-IV-ECG: measurements, bandwidth, filter). Administrative ones
that no public record has (an identifier, a date, a room, a cart) are made up from the record's own name, the same every
time. Numbers about the heart are never made up, and findings stand on the page only where the style asks for them.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from render.dialogues.wording import label_of
from render.pages.layout import Layout
from render.record import EcgRecord

# Two lines of small text fit above the grid, one of large.
_LARGE_MM, _SMALL_MM, _FOOT_MM, _FINDINGS_MM = 4.0, 2.9, 2.7, 2.6
_ONLY_LINE, _FIRST_LINE, _SECOND_LINE, _FINDINGS_LINE = 6.5, 3.6, 7.4, 9.9  # baselines, mm from the top
_FOOT_LINE = 1.4  # mm from the bottom
_RECORDING = ("Bandwidth", "Filter")  # fields of `EcgRecord.header` about the recording, not the heart


@dataclass(frozen=True)
class HeaderLine:
    """A line of text: baseline and size in mm; fields from the left end of the traces on, and text that ends at their
    right end. The last fields give way where there is no room."""

    baseline: float
    size: float
    fields: tuple[str, ...]
    right: str = ""


def lines(record: EcgRecord, plan: Layout, text: str, findings: bool) -> list[HeaderLine]:
    """What stands on the page in the manner `text` (a word of `render.pages.paper.PAPER_WORDS`), "" for nothing."""
    made = {"": _nothing, "plain": _plain, "muse": _muse, "pagewriter": _pagewriter, "cardiovit": _cardiovit}[text](
        record, plan
    )
    if findings and record.statements:
        said = "   ".join(label_of(code) for code in record.statements)
        made.append(HeaderLine(_FINDINGS_LINE, _FINDINGS_MM, (f"*** {said} ***",)))
    return made


def _nothing(record: EcgRecord, plan: Layout) -> list[HeaderLine]:
    return []


def _plain(record: EcgRecord, plan: Layout) -> list[HeaderLine]:
    """Everything in one line: what is known of the person, the fields, speed and gain."""
    fields = (*_person(record), *(f"{name}: {value}" for name, value in record.header))
    return [HeaderLine(_ONLY_LINE, _LARGE_MM, fields, legend(plan))]


def _muse(record: EcgRecord, plan: Layout) -> list[HeaderLine]:
    """Two lines at the head, the recording at the foot: the manner of GE's carts and archive."""
    admin = _Admin.of(record)
    recorded = _recorded(record, "0.05-150 Hz", "")
    return [
        HeaderLine(_FIRST_LINE, _SMALL_MM, (f"ID:{admin.number}", admin.when, *_person(record)), admin.room),
        HeaderLine(_SECOND_LINE, _SMALL_MM, tuple(f"{name} {value}" for name, value in _measured(record))),
        HeaderLine(plan.height - _FOOT_LINE, _FOOT_MM, (*legend(plan).split("    "), *recorded), f"CART {admin.cart}"),
    ]


def _pagewriter(record: EcgRecord, plan: Layout) -> list[HeaderLine]:
    """Number and date left, room right, measurements with dashes where there are none: the manner of Philips' carts."""
    admin = _Admin.of(record)
    speed, *gains = legend(plan).split("    ")
    recorded = _recorded(record, "0.15-100 Hz", "50~")
    return [
        HeaderLine(_FIRST_LINE, _SMALL_MM, (admin.number, *_person(record)), admin.when),
        HeaderLine(_SECOND_LINE, _SMALL_MM, tuple(f"{name} {value}" for name, value in _measured(record)), admin.room),
        HeaderLine(
            plan.height - _FOOT_LINE,
            _FOOT_MM,
            (f"Device: {admin.cart}", f"Speed: {speed}", f"Gain: {', '.join(gains)}"),
            " ".join(recorded),
        ),
    ]


def _cardiovit(record: EcgRecord, plan: Layout) -> list[HeaderLine]:
    """Speed, gain and filters at the head's right end, the date at the foot: the manner of Schiller's machines."""
    admin = _Admin.of(record)
    recorded = _recorded(record, "0.05-150 Hz", "50 Hz")
    return [
        HeaderLine(_FIRST_LINE, _SMALL_MM, (f"No. {admin.number}", *_person(record)), legend(plan)),
        HeaderLine(_SECOND_LINE, _SMALL_MM, tuple(f"{n} {v}" for n, v in _measured(record)), "    ".join(recorded)),
        HeaderLine(plan.height - _FOOT_LINE, _FOOT_MM, (admin.when, admin.room), admin.cart),
    ]


def legend(plan: Layout) -> str:
    """Paper speed and gain, without which a page cannot be read."""
    gains = [f"{gain:g} mm/mV" for gain in plan.gains]
    if len(gains) == 2:
        gains = [f"limb {gains[0]}, chest {gains[1]}"]
    return f"{plan.mm_per_s:g} mm/s    {gains[0]}"


def _person(record: EcgRecord) -> list[str]:
    known = [f"{record.age:.0f} years"] if record.age is not None and math.isfinite(record.age) else []
    return [*known, record.sex] if record.sex else known


def _measured(record: EcgRecord) -> list[tuple[str, str]]:
    return [(name, value) for name, value in record.header if name not in _RECORDING]


def _recorded(record: EcgRecord, bandwidth: str, mains: str) -> list[str]:
    """Bandwidth and filter as the record has them, else the machine's usual ones."""
    known = [value for name, value in record.header if name in _RECORDING]
    return known or [value for value in (bandwidth, mains) if value]


@dataclass(frozen=True)
class _Admin:
    """Made-up administration of a record."""

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
