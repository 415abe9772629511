"""Where every lead lies on a page and in its picture, and the way from image pixels to millivolts and back.

Page pixels are those of the flat page as `render.pages.page.draw` makes it; image pixels are those of the picture file,
which may show the page rotated, in perspective or in part. Both have their origin in the centre of the top left pixel,
x to the right, y downwards. A homography leads from the first to the second.

The Parquet column `geometry` of a data set holds one `PageGeometry` as JSON: its fields by their names, in their order.
To read millivolts off a picture:

    geometry = PageGeometry.from_json(row["geometry"])
    samples, mv = geometry.from_image(geometry.leads[0], points)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from render.errors import InputError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


def transform_points(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) under a homography (3, 3): H @ (x, y, 1), divided by its last number."""
    ends = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(ends[:, :2] / ends[:, 2:])


@dataclass(frozen=True)
class LeadTrace:
    """One stretch of one lead on its page.

    Attributes:
        lead: I to V6.
        label: the name printed beside it ("-aVR" for an inverted aVR).
        box: the trace's row from its first to its last moment, page pixels. A large wave may leave it.
        name_box: the letters of the label, page pixels, x1 and y1 excluded; None on a page without lead names.
        start_s: the time at the box's left end, seconds from the record's first sample.
        start_sample: the record's samples that are drawn, the last one excluded.
        end_sample: the record's samples that are drawn, the last one excluded.
        baseline_y: the height of 0 mV, page pixels.
        px_per_mm: page pixels per mm of paper, paper speed, gain of this trace.
        mm_per_s: page pixels per mm of paper, paper speed, gain of this trace.
        mm_per_mv: page pixels per mm of paper, paper speed, gain of this trace.
        inverted: whether the trace is drawn upside down.
    """

    lead: str
    label: str
    box: Box
    name_box: tuple[int, int, int, int] | None
    start_s: float
    start_sample: int
    end_sample: int
    baseline_y: float
    px_per_mm: float
    mm_per_s: float
    mm_per_mv: float
    inverted: bool

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> LeadTrace:
        """An element of `leads` in the JSON. Raises `KeyError` or `TypeError` for missing or unknown fields."""
        name_box = row["name_box"] and tuple(row["name_box"])
        return LeadTrace(**{**row, "box": tuple(row["box"]), "name_box": name_box})

    def to_page(self, seconds: ArrayLike, mv: ArrayLike) -> NDArray[np.float64]:
        """Page pixels (n, 2) of voltages (n,) in mV at times (n,) in seconds from the record's first sample."""
        x = self.box[0] + (np.asarray(seconds) - self.start_s) * self.mm_per_s * self.px_per_mm
        up = np.asarray(mv) * self.mm_per_mv * self.px_per_mm
        return np.stack([x, self.baseline_y + (up if self.inverted else -up)], axis=-1)

    def from_page(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds (n,) from the record's first sample and mV (n,) at page pixels (n, 2): `to_page` inverted."""
        seconds = (points[:, 0] - self.box[0]) / (self.mm_per_s * self.px_per_mm) + self.start_s
        up = (self.baseline_y - points[:, 1]) / (self.mm_per_mv * self.px_per_mm)
        return seconds, -up if self.inverted else up


@dataclass(frozen=True, eq=False)
class PageGeometry:
    """A page, the picture that shows it, and the traces on it.

    Attributes:
        layout: in words of `render.pages.options`.
        width: of the picture, pixels.
        height: of the picture, pixels.
        px_per_mm: page pixels per mm of paper.
        mm_per_s: paper speed.
        mm_per_mv: gain of the first trace; others may have their own.
        sampling_rate: of the record, Hz.
        homography: float64 (3, 3), from page pixels to image pixels; the identity for a clean page.
    """

    layout: str
    width: int
    height: int
    px_per_mm: float
    mm_per_s: float
    mm_per_mv: float
    sampling_rate: float
    homography: NDArray[np.float64]
    leads: tuple[LeadTrace, ...]

    @staticmethod
    def from_json(text: str) -> PageGeometry:
        """What the Parquet column `geometry` holds. Raises `InputError` for text that is no page's geometry."""
        try:
            row = json.loads(text)
            matrix, leads = np.array(row["homography"], np.float64), tuple(map(LeadTrace.from_row, row["leads"]))
            return PageGeometry(**{**row, "homography": matrix, "leads": leads})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"column 'geometry': {text[:60]!r} does not describe a page ({type(error).__name__}: {error}); "
                f"render the data set again, or leave out rows whose picture shows no ECG"
            ) from None

    def to_json(self) -> str:
        """The Parquet column `geometry`."""
        row = {**vars(self), "homography": self.homography.tolist(), "leads": [vars(lead) for lead in self.leads]}
        return json.dumps(row, separators=(",", ":"))

    def to_image(self, trace: LeadTrace, samples: ArrayLike, mv: ArrayLike) -> NDArray[np.float64]:
        """Image pixels (n, 2) of voltages (n,) in mV of one of `leads`.

        Args:
            samples: (n,) their places in the record, counted from 0 at `sampling_rate`; fractions lie between two
                samples.
        """
        return transform_points(self.homography, trace.to_page(np.asarray(samples) / self.sampling_rate, mv))

    def from_image(
        self, trace: LeadTrace, points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places (n,) in the record, in samples, and mV (n,) at image pixels (n, 2): `to_image` inverted."""
        seconds, mv = trace.from_page(transform_points(np.asarray(np.linalg.inv(self.homography), np.float64), points))
        return seconds * self.sampling_rate, mv
