"""What is read off a page before a model sees it: its leads in millivolts, what they measure, and the view to show.

A model reads best what it was trained on. So the leads are digitized first, and the model is shown the page drawn anew
from them; a page whose leads cannot be read is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ecg_vlm.images import InputPage
from ecg_vlm.rhythm_strip import RhythmStrip, measure_strip
from recipes.digitizer.digitize import digitize
from recipes.digitizer.layout import SINGLE_LEAD
from recipes.digitizer.plausibility import ENOUGH_NAMES, synchrony
from recipes.digitizer.result import DigitizedPage
from render.errors import InputError
from render.measurements import corrected_qt, measure_page, st_elevation
from render.pages.options import PageOptions
from render.pages.page import draw
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord

FEWEST_LEADS = 6
"""A page with fewer leads that can be read is shown to the model as it is."""
_LEAST_QUALITY = 0.5  # of the leads on average
_LEAST_TRACE_MM = 150.0  # of the rows of a whole page; they are 250 on most
_LEAST_SYNCHRONY = 0.6  # ECGs have .8 and more, most other pictures .2 and less
_LEAST_AGREEMENT = 0.35
_WIDTH = 1120  # pixels: two tiles of a vision model, each filled
_STRIP_LEAST_SHARE = 0.95  # of the samples of a lead alone
_SECONDS = 10.0
_STRIP_SECONDS = 9.0

PICTURE, DIGITIZED, WAVEFORM = "picture", "digitized leads", "waveform"
"""Where a view comes from: the picture as it is, its leads drawn anew, or the waveform that a file holds."""


@dataclass(frozen=True, eq=False)
class PageReading:
    """A page as it is read.

    Attributes:
        view: what the model is shown, RGB.
        source: of the view: `PICTURE`, `DIGITIZED` or `WAVEFORM`.
        page: the digitized leads; None where they cannot be read or need not be.
        reason: why the leads cannot be read, or "".
        measurements: of `render.measurements.measure_page` and `corrected_qt`, on the digitized leads or the waveform.
        st_elevation: of `render.measurements.st_elevation`, mV.
        strip: the rhythm of a picture that shows one lead alone; None of any other.
    """

    view: Image.Image
    source: str
    page: DigitizedPage | None = None
    reason: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    st_elevation: Mapping[str, float] = field(default_factory=dict)
    strip: RhythmStrip | None = None

    @property
    def measured_on(self) -> str:
        """What the measurements were made on, in words."""
        return WAVEFORM if self.source == WAVEFORM else DIGITIZED


def read_page(page: InputPage, *, as_is: bool = False) -> PageReading:
    """Read the leads of a page and choose what the model is shown. Never raises: `reason` says what went wrong.

    Args:
        as_is: show the picture as it is, whatever its leads; they are measured all the same.
    """
    if page.record is not None:
        return PageReading(page.image, WAVEFORM, None, "", *_measured(page.record))
    try:
        digitized = digitize(page.image)
        if digitized.layout == SINGLE_LEAD:
            strip = strip_of(digitized)
            return PageReading(page.image, PICTURE, digitized, measurements={"rate_bpm": strip.rate_bpm}, strip=strip)
        record = record_of(digitized)
    except InputError as error:
        return PageReading(page.image, PICTURE, reason=str(error))
    if as_is:
        return PageReading(page.image, PICTURE, digitized, "", *_measured(record))
    return PageReading(drawn_anew(digitized, record), DIGITIZED, digitized, "", *_measured(record))


def strip_of(page: DigitizedPage) -> RhythmStrip:
    """The rhythm of a page with one lead.

    Raises:
        InputError: Where it is too short, has gaps, or beats that are not alike.
    """
    (lead,) = page.leads
    strip = None
    whole = lead.bridged
    if lead.quality >= _LEAST_QUALITY and np.isfinite(lead.millivolts).sum() >= _STRIP_LEAST_SHARE * whole.size:
        strip = measure_strip(lead.lead, whole)
    if strip is None:
        raise InputError("one row of traces in which no heartbeat can be measured; the whole page is needed")
    return strip


def record_of(page: DigitizedPage) -> EcgRecord:
    """The leads of a digitized page as a record of at most 10 s; what the page does not show is NaN.

    Raises:
        InputError: Where fewer than `FEWEST_LEADS` leads can be read, or hardly anything of them, and where they cannot
            be those of one ECG.
    """
    leads = {lead.lead for lead in page.leads if np.isfinite(lead.millivolts).any()}
    quality = float(np.mean([lead.quality for lead in page.leads])) if page.leads else 0.0
    if len(leads) < FEWEST_LEADS or quality < _LEAST_QUALITY:
        raise InputError(f"{len(leads)} leads can be read, at a quality of {quality:.2f}; scan the page, or crop to it")
    if _trace_mm(page) < _LEAST_TRACE_MM:
        raise InputError(f"only {_trace_mm(page):.0f} mm of the rows can be read; the whole page is needed")
    if synchrony(page) < _LEAST_SYNCHRONY:
        raise InputError("what looks like traces shows no common heartbeat; check that the picture shows an ECG")
    if page.name_count >= ENOUGH_NAMES and page.name_agreement < _LEAST_AGREEMENT:
        raise InputError("the lead names fit no known layout; the page may be cut off")
    samples = round(_SECONDS * HIGH_RATE_HZ)
    signal = page.signal()[:, :samples]
    signal = np.pad(signal, ((0, 0), (0, max(0, samples - signal.shape[1]))), constant_values=np.nan)
    return EcgRecord("", signal.astype(np.float32), float(HIGH_RATE_HZ), "picture")


def _trace_mm(page: DigitizedPage) -> float:
    """Length of the rows, all columns together, mm."""
    columns = max(map(len, PageOptions(page.layout).rows))
    return columns * min(lead.seconds for lead in page.leads) * page.mm_per_s


def drawn_anew(page: DigitizedPage, record: EcgRecord) -> Image.Image:
    """A clean page of the record in the page's format, or with one strip where every lead is there for all the time."""
    return draw(record, layout=_format_for(page, record), width=_WIDTH).to_pil()


def _format_for(page: DigitizedPage, record: EcgRecord) -> str:
    seconds = np.isfinite(record.signal).sum(axis=1) / HIGH_RATE_HZ
    if seconds.min() >= _STRIP_SECONDS:
        return "3x4+1R"
    if page.layout.startswith("3x4"):  # machines differ in the strips; a page is drawn with II alone, or without
        return "3x4+1R" if seconds[LEADS.index("II")] >= _STRIP_SECONDS else "3x4"
    return page.layout


def _measured(record: EcgRecord) -> tuple[dict[str, float], dict[str, float]]:
    values = measure_page(record)
    return values | corrected_qt(values), st_elevation(record)
