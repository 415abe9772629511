"""What the digitizer says of a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.record import HIGH_RATE_HZ, LEADS, EcgRecord, resample


@dataclass(frozen=True, eq=False)
class DigitizedLead:
    """One lead on one row of the page.

    lead: its name. start_s: of its first sample after the beginning of the page's first column, seconds; columns are
    taken to follow each other in time. millivolts: (n,) float32 at `HIGH_RATE_HZ`, NaN where nothing can be read.
    quality: 0-1, how much of it is there, inked and clear of other strokes. remarks: what is wrong with it, in words.
    path: (m, 2) float32, the trace's x and y in pixels of the picture as it is seen (EXIF turned).
    """

    lead: str
    start_s: float
    millivolts: NDArray[np.float32]
    quality: float
    remarks: tuple[str, ...]
    path: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """Length of the lead, seconds."""
        return self.millivolts.size / HIGH_RATE_HZ


@dataclass(frozen=True, eq=False)
class DigitizedPage:
    """An ECG read from a picture.

    layout: a format of `render.pages.options.FORMATS`; order: of the limb leads. leads: row by row, strips last.
    mm_per_s, mm_per_mv: speed and gain; speed_from, gain_from: "pulse" where the calibration pulses say so, "usual"
    where 25 mm/s and 10 mm/mV are taken because nothing says otherwise.
    turned_degrees: how far the picture had to be turned counter-clockwise until the page stood upright: 0, 90, 180, 270.
    grid: whether the paper's grid was found. px_per_mm: of the picture. names: how many leads' names were read.
    name_share: of the names that agree with the layout, 0-1. remarks: what else a reader of the numbers must know.
    """

    layout: str
    order: str
    leads: tuple[DigitizedLead, ...]
    mm_per_s: float
    mm_per_mv: float
    speed_from: str
    gain_from: str
    turned_degrees: int
    grid: bool
    px_per_mm: float
    names: int
    name_share: float
    remarks: tuple[str, ...] = field(default=())

    def signal(self) -> NDArray[np.float32]:
        """(12, n) float32 mV at `HIGH_RATE_HZ` in the order of `LEADS`, NaN where nothing is known.

        A lead stands where the page has it in time; where it has a strip as well, its own column goes over the strip.
        """
        samples = max(round(lead.start_s * HIGH_RATE_HZ) + lead.millivolts.size for lead in self.leads)
        signal = np.full((len(LEADS), samples), np.nan, dtype=np.float32)
        for lead in sorted(self.leads, key=lambda trace: -trace.seconds):
            first = round(lead.start_s * HIGH_RATE_HZ)
            part = signal[LEADS.index(lead.lead), first : first + lead.millivolts.size]
            part[:] = np.where(np.isfinite(lead.millivolts), lead.millivolts, part)
        return signal

    def summary(self) -> dict[str, Any]:
        """All but the samples, JSON-able."""
        return {
            "layout": self.layout,
            "order": self.order,
            "mm_per_s": self.mm_per_s,
            "mm_per_s_from": self.speed_from,
            "mm_per_mv": self.mm_per_mv,
            "mm_per_mv_from": self.gain_from,
            "turned_degrees": self.turned_degrees,
            "grid": self.grid,
            "px_per_mm": round(self.px_per_mm, 4),
            "lead_names_read": self.names,
            "lead_names_agree": round(self.name_share, 3),
            "sampling_rate": HIGH_RATE_HZ,
            "leads": [
                {
                    "lead": trace.lead,
                    "start_s": round(trace.start_s, 4),
                    "seconds": round(trace.seconds, 4),
                    "quality": round(trace.quality, 3),
                    "missing_share": round(float(np.mean(~np.isfinite(trace.millivolts))), 4),
                    "remarks": list(trace.remarks),
                }
                for trace in self.leads
            ],
            "missing_leads": [lead for lead in LEADS if lead not in {trace.lead for trace in self.leads}],
            "remarks": list(self.remarks),
        }


def page_of_record(record: EcgRecord) -> DigitizedPage:
    """A record that a file holds as a waveform, in the form of a digitized page without a picture."""
    signal = resample(record.signal, record.sampling_rate, HIGH_RATE_HZ)
    no_path = np.zeros((0, 2), dtype=np.float32)
    leads = tuple(
        DigitizedLead(name, 0.0, samples, float(np.isfinite(samples).mean()), (), no_path)
        for name, samples in zip(LEADS, signal, strict=True)
        if np.isfinite(samples).any()
    )
    remark = f"a {record.source} waveform at {record.sampling_rate:g} Hz, not a picture"
    return DigitizedPage("", "standard", leads, 25.0, 10.0, "usual", "usual", 0, False, 0.0, len(leads), 1.0, (remark,))
