"""The way from image pixels to millivolts and back, and the column of a data set that it is stored in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from render.dataset.parquet import open_dataset
from render.errors import InputError
from render.pages.augment.pipeline import augment
from render.pages.geometry import PageGeometry, transform_points
from render.pages.page import SIGNAL_CLASS, Page, draw
from render.record import LEADS, EcgRecord

LAYOUTS = ["3x4+1R", "6x2,cabrera", "12x1,half-chest", "3x4+3R,A4,50mm/s"]
V0_1_PAGES = Path(__file__).parent / "v0_1" / "pages"


def drawn_page(ecg_mv: NDArray[np.float64], layout: str, width: int = 1120) -> Page:
    record = EcgRecord("test", ecg_mv.astype(np.float32), 500.0, "test")
    return draw(record, layout=layout, width=width, mask=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_millivolts_of_every_lead_are_read_back_from_the_mask_of_a_page(
    ecg_mv: NDArray[np.float64], layout: str
) -> None:
    page = drawn_page(ecg_mv, layout)
    geometry = PageGeometry.from_json(page.geometry.to_json())
    assert len(geometry.leads) >= 6
    for trace in geometry.leads:
        left, top, right, bottom = (round(value) for value in trace.box)
        rows, columns = np.nonzero(page.mask[top:bottom, left + 2 : right - 2] == SIGNAL_CLASS)  # type: ignore[index]
        samples, mv = geometry.from_image(trace, np.column_stack([columns + left + 2, rows + top]))
        assert trace.start_sample <= samples.min() < samples.max() < trace.end_sample
        # A column of pixels holds one to five samples: its middle is compared with their middle.
        place = np.unique(samples)
        middle = np.array([(mv[samples == at].min() + mv[samples == at].max()) / 2 for at in place])
        half = 500 / (trace.mm_per_s * trace.px_per_mm) / 2
        whole = ecg_mv[LEADS.index(trace.lead)]
        near = [whole[max(0, round(at - half)) : round(at + half) + 1] for at in place]
        error_px = np.abs(middle - [(s.min() + s.max()) / 2 for s in near]) * trace.mm_per_mv * trace.px_per_mm
        assert np.median(error_px) < 0.6 and np.quantile(error_px, 0.9) < 1.5, (trace.label, np.median(error_px))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_lie_on_the_trace_in_a_picture_in_perspective(ecg_mv: NDArray[np.float64], layout: str) -> None:
    effects = {"rotation": 0.6, "perspective": 0.8, "padding": 0.4}
    picture = augment(drawn_page(ecg_mv, layout), effects, np.random.default_rng(4))
    assert picture.mask is not None
    distance_px = distance_transform_edt(picture.mask != SIGNAL_CLASS)
    for trace in picture.geometry.leads:
        samples = np.arange(trace.start_sample, trace.end_sample)
        points = picture.geometry.to_image(trace, samples, ecg_mv[LEADS.index(trace.lead), samples])
        x, y = np.rint(points).astype(int).T
        inside = (x >= 0) & (x < picture.geometry.width) & (y >= 0) & (y < picture.geometry.height)
        # The picture shows the page at half its size: a line less than a pixel wide has gaps in the mask.
        distances = distance_px[y[inside], x[inside]]
        assert distances.mean() < 0.3 and np.quantile(distances, 0.99) < 4, trace.label


def test_the_way_to_the_image_and_back_ends_where_it_began(ecg_mv: NDArray[np.float64]) -> None:
    page = drawn_page(ecg_mv, "3x4+1R,cabrera,half-chest", width=672)
    geometry = augment(page, {"rotation": 1.0, "perspective": 1.0}, np.random.default_rng(1)).geometry
    assert len(geometry.leads) == 13
    for trace in geometry.leads:
        samples = np.linspace(trace.start_sample, trace.end_sample, 50)
        mv = np.linspace(-1.0, 2.0, 50)
        assert np.allclose(geometry.from_image(trace, geometry.to_image(trace, samples, mv)), (samples, mv))


def test_a_millivolt_up_and_a_second_on_by_hand(ecg_mv: NDArray[np.float64]) -> None:
    """4 px per mm: 40 px per mV, 100 px per s; aVR of Cabrera's order is upside down, a chest lead at half the gain."""
    geometry = drawn_page(ecg_mv, "3x4+1R,cabrera,half-chest").geometry
    first, upside_down, chest = (geometry.leads[k] for k in (0, 8, 2))
    origin = geometry.to_image(first, [0], [0.0])[0]
    assert np.allclose(origin, (first.box[0], first.baseline_y))
    assert np.allclose(geometry.to_image(first, [500], [1.0])[0] - origin, (100.0, -40.0))
    assert upside_down.label == "-aVR" and chest.lead == "V1"
    for trace, dy in ((upside_down, 40.0), (chest, -20.0)):
        start = trace.start_s * geometry.sampling_rate
        assert np.allclose(geometry.to_image(trace, [start], [1.0])[0], (trace.box[0], trace.baseline_y + dy))


def test_points_under_a_homography_by_hand() -> None:
    matrix = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, -1.0], [0.0, 0.5, 1.0]])
    assert np.allclose(transform_points(matrix, np.array([[3.0, 0.0], [3.0, 2.0]])), [[7.0, -1.0], [3.5, 1.5]])


def test_the_geometry_of_a_data_set_of_version_0_1_is_read_and_written_byte_for_byte() -> None:
    rows = open_dataset(V0_1_PAGES)
    assert len(rows) == 6
    for row in rows:
        assert PageGeometry.from_json(row["geometry"]).to_json() == row["geometry"]


def test_a_page_without_lead_names_has_no_name_boxes(ecg_mv: NDArray[np.float64]) -> None:
    text = drawn_page(ecg_mv, "3x4,no-names", width=560).geometry.to_json()
    assert {trace.name_box for trace in PageGeometry.from_json(text).leads} == {None}
    assert PageGeometry.from_json(text).to_json() == text


def test_text_that_is_no_geometry_is_refused(ecg_mv: NDArray[np.float64]) -> None:
    row = json.loads(drawn_page(ecg_mv, "3x4", width=560).geometry.to_json())
    missing, unknown = {key: row[key] for key in row if key != "leads"}, {**row, "colour": "red"}
    trace = {**row, "leads": [{"lead": "I"}]}
    texts = ["{}", "[]", "3", "null", "", "no JSON", *(json.dumps(each) for each in (missing, unknown, trace))]
    for text in texts:
        with pytest.raises(InputError, match=r"column 'geometry': .* does not describe a page"):
            PageGeometry.from_json(text)


def test_a_geometry_cannot_be_changed(ecg_mv: NDArray[np.float64]) -> None:
    geometry = drawn_page(ecg_mv, "3x4", width=560).geometry
    with pytest.raises(dataclasses.FrozenInstanceError):
        geometry.width = 3  # type: ignore[misc]
