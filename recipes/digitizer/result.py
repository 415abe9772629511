"""The result of the digitizer: leads in millivolts, and how the page was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.record import HIGH_RATE_HZ, LEADS, EcgRecord, resample


@dataclass(frozen=True, eq=False)
class DigitizedLead:
    """One lead on one row of the page.

    Attributes:
        lead: I to V6.
        start_s: the time of its first sample, seconds after the beginning of the page's first column. Columns follow
            each other in time, unless they are longer than a recording of 10 s; then all begin at 0.
        millivolts: float32 (n,) at `HIGH_RATE_HZ`, NaN where nothing can be read.
        quality: 0-1: how much of it can be read, how dark it is, and how free of other strokes.
        remarks: what lowers the quality, in words.
        path: float32 (m, 2), x and y of the trace in pixels of the picture, its EXIF orientation applied.
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

    @property
    def bridged(self) -> NDArray[np.float64]:
        """(n,) mV from its first sample that was read to the last one, with straight lines over the gaps between."""
        present = np.flatnonzero(np.isfinite(self.millivolts))
        if not present.size:
            return np.zeros(0)
        return np.interp(np.arange(present[0], present[-1] + 1), present, self.millivolts[present])


@dataclass(frozen=True, eq=False)
class DigitizedPage:
    """An ECG read from a picture.

    Attributes:
        layout: a format of `render.pages.options.FORMATS`.
        order: of the limb leads, "standard" or "cabrera".
        leads: row by row, rhythm strips last.
        mm_per_s: paper speed.
        mm_per_mv: gain.
        speed_from: "print" where it stands on the sheet, "pulse" where the calibration pulses give the speed, "grid"
            where a plot's grid does; "usual" where nothing gives it and 25 mm/s is assumed.
        gain_from: the same of the gain, for which a pulse comes before the print; 10 mm/mV is "usual".
        rotation_degrees: counter-clockwise rotation after which the picture shows the page upright: 0, 90, 180, 270.
        grid: whether the picture shows the paper's grid.
        px_per_mm: pixels of the picture per mm of paper.
        name_count: how many printed names of leads were read and agree with the layout; uncertain ones count in part.
        name_agreement: share of the printed names that agree with the layout, 0-1.
        remarks: what else the user of the numbers must know, in words.
        outline: (n, 2) float32, the paper's edge in pixels of the picture; (0, 2) where there is no picture.
    """

    layout: str
    order: str
    leads: tuple[DigitizedLead, ...]
    mm_per_s: float
    mm_per_mv: float
    speed_from: str
    gain_from: str
    rotation_degrees: int
    grid: bool
    px_per_mm: float
    name_count: int
    name_agreement: float
    remarks: tuple[str, ...] = ()
    outline: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    def signal(self) -> NDArray[np.float32]:
        """(12, n) float32 mV at `HIGH_RATE_HZ` in the order of `LEADS`, NaN where nothing was read.

        A lead begins at its `start_s`. Of a lead with a rhythm strip and a column, the column's samples are taken.
        """
        samples = max(round(lead.start_s * HIGH_RATE_HZ) + lead.millivolts.size for lead in self.leads)
        signal = np.full((len(LEADS), samples), np.nan, dtype=np.float32)
        for lead in sorted(self.leads, key=lambda lead: -lead.seconds):
            first = round(lead.start_s * HIGH_RATE_HZ)
            part = signal[LEADS.index(lead.lead), first : first + lead.millivolts.size]
            part[:] = np.where(np.isfinite(lead.millivolts), lead.millivolts, part)
        return signal

    def summary(self) -> dict[str, Any]:
        """All but the samples and paths, as JSON stores it."""
        return {
            "layout": self.layout,
            "order": self.order,
            "mm_per_s": self.mm_per_s,
            "mm_per_s_from": self.speed_from,
            "mm_per_mv": self.mm_per_mv,
            "mm_per_mv_from": self.gain_from,
            "rotation_degrees": self.rotation_degrees,
            "grid": self.grid,
            "px_per_mm": round(self.px_per_mm, 4),
            "lead_name_count": self.name_count,
            "lead_name_agreement": round(self.name_agreement, 3),
            "sampling_rate": HIGH_RATE_HZ,
            "leads": [
                {
                    "lead": lead.lead,
                    "start_s": round(lead.start_s, 4),
                    "seconds": round(lead.seconds, 4),
                    "quality": round(lead.quality, 3),
                    "missing_share": round(float(np.mean(~np.isfinite(lead.millivolts))), 4),
                    "remarks": list(lead.remarks),
                }
                for lead in self.leads
            ],
            "missing_leads": [name for name in LEADS if name not in {lead.lead for lead in self.leads}],
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
    return DigitizedPage(
        layout="", order="standard", leads=leads, mm_per_s=25.0, mm_per_mv=10.0, speed_from="usual", gain_from="usual",
        rotation_degrees=0, grid=False, px_per_mm=0.0, name_count=len(leads), name_agreement=1.0, remarks=(remark,),
    )  # fmt: skip
