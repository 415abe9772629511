"""Wear: pictures of a page that a person, and a plain digitiser, can still read, and geometry that says where."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features
from scipy.ndimage import map_coordinates, uniform_filter1d

from render.errors import InputError
from render.pages.augment import marks, optics, sensor
from render.pages.augment.homography import GEOMETRIC, inverse_of
from render.pages.augment.optics import Backdrop, palette_to_rgbx, project
from render.pages.augment.pipeline import (
    EFFECTS,
    PRESET_PROPORTIONS,
    PRESETS,
    ImageFile,
    PageImage,
    augment,
    effect_strengths,
)
from render.pages.geometry import LeadTrace, PageGeometry, transform_points
from render.pages.page import Page, draw
from render.record import LEADS, EcgRecord
from tests.test_page import golden_record

TILT = {"rotation": 0.5, "perspective": 0.6, "padding": 0.3}


def page_of(ecg_mv: NDArray[np.float64], **how: Any) -> Page:
    return draw(EcgRecord("test", ecg_mv.astype(np.float32), 500.0, "test"), **how)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels_of(picture: ImageFile) -> NDArray[np.float64]:
    """(height, width, 3), 0-255."""
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"), dtype=np.float64)


def same_masks(one: PageImage, other: PageImage | Page) -> bool:
    assert one.mask is not None and other.mask is not None
    return np.array_equal(one.mask, other.mask)


def corners(box: Sequence[float]) -> NDArray[np.float64]:
    return np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]])


def errors(picture: PageImage, ecg_mv: NDArray[np.float64]) -> dict[tuple[str, float], float]:
    """lead and start -> how far, in pixels, a digitiser finds the trace from where it is: the median over its length.

    The digitiser knows the picture and its geometry alone.
    Along each upright line of the lead's box it takes the darkest place in red, which a red grid hardly darkens, and
    from there the middle of what is dark.
    """
    red = pixels_of(picture)[..., 0]
    return {
        (lead.lead, lead.start_s): float(np.median(_errors(picture.geometry, red, lead, ecg_mv)))
        for lead in picture.geometry.leads
    }


def _errors(
    geometry: PageGeometry, red: NDArray[np.float64], lead: LeadTrace, ecg_mv: NDArray[np.float64]
) -> NDArray[np.float64]:
    x0, y0, x1, y1 = lead.box
    columns, rows = np.arange(math.ceil(x0) + 2, math.floor(x1) - 1, 5), np.arange(math.ceil(y0), math.floor(y1) + 1)
    if lead.name_box:
        columns = columns[(columns < lead.name_box[0] - 1) | (columns > lead.name_box[2])]
    grid = np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
    x, y = transform_points(geometry.homography, grid).T
    inside = (np.minimum(x, red.shape[1] - 1 - x) > 0).reshape(columns.size, -1).all(axis=1)
    red = map_coordinates(red, [y, x], order=1, mode="nearest").reshape(columns.size, rows.size)
    dark = np.clip(0.8 * np.median(red, axis=1, keepdims=True) - red, 0.0, None)
    peak = uniform_filter1d(dark, 3, axis=1).argmax(axis=1)
    near = np.abs(np.arange(rows.size)[None] - peak[:, None]) <= 2
    middle = (dark * near * rows).sum(axis=1) / np.maximum((dark * near).sum(axis=1), 1e-9)
    seconds, readings = lead.from_page(np.column_stack([columns, middle]))
    mv = np.interp(seconds, np.arange(ecg_mv.shape[1]) / 500, ecg_mv[LEADS.index(lead.lead)])
    return np.asarray(np.abs(readings - mv)[inside]) * lead.mm_per_mv * lead.px_per_mm


# --- pictures can be read ---


@pytest.mark.parametrize("layout", ["3x4+1R", "6x2,cabrera", "12x1", "3x4+3R,A4"])
def test_millivolts_are_read_back_from_clean_pictures(ecg_mv: NDArray[np.float64], layout: str) -> None:
    picture = augment(page_of(ecg_mv, layout=layout), {}, random())
    assert max(errors(picture, ecg_mv).values()) < 0.5


@pytest.mark.parametrize(
    ("layout", "width"), [("3x4+1R", 1120), ("6x2,half-chest", 1120), ("12x1", 1120), ("3x4+1R", 672)]
)
def test_millivolts_are_read_back_from_photographs(ecg_mv: NDArray[np.float64], layout: str, width: int) -> None:
    page = page_of(ecg_mv, layout=layout, width=width)
    for seed in range(3):
        picture = augment(page, effect_strengths("photo", random(seed)), random(seed))
        assert max(errors(picture, ecg_mv).values()) < 1.5, seed


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"clean", "photo"}))
def test_every_preset_is_readable(ecg_mv: NDArray[np.float64], preset: str) -> None:
    page = page_of(ecg_mv)
    for seed in range(3):
        picture = augment(page, effect_strengths(preset, random(seed)), random(seed))
        assert np.median(list(errors(picture, ecg_mv).values())) < 1.5, seed


@pytest.mark.parametrize(("width", "seed"), [(672, 0), (1120, 1)])
@pytest.mark.parametrize("effect", EFFECTS)
def test_at_full_strength_an_effect_is_seen_and_the_trace_as_well(
    ecg_mv: NDArray[np.float64], effect: str, width: int, seed: int
) -> None:
    page = page_of(ecg_mv, width=width)
    picture = augment(page, {effect: 1.0}, random(seed))
    assert np.abs(pixels_of(picture) - np.asarray(page.to_pil(), dtype=float)).mean() > 0.2
    assert np.median(list(errors(picture, ecg_mv).values())) < 1.5


@pytest.mark.parametrize("effect", sorted({*EFFECTS} - {*GEOMETRIC} - {"bilevel", "handwriting", "stamp"}))
def test_the_stronger_the_more_it_shows(ecg_mv: NDArray[np.float64], effect: str) -> None:
    page = page_of(ecg_mv, width=672)
    clean = pixels_of(augment(page, {}, random()))
    change = [np.abs(pixels_of(augment(page, {effect: s}, random(4))) - clean).mean() for s in (0.2, 0.6, 1.0)]
    assert 0.0 < change[0] < change[1] < change[2]


# --- nothing, and the same again ---


def test_without_strengths_the_picture_is_the_page(ecg_mv: NDArray[np.float64]) -> None:
    page = page_of(ecg_mv, mask=True)
    picture = augment(page, {}, random())
    assert (picture.data, picture.suffix) == (page.png(), ".png")
    assert picture.geometry.to_json() == page.geometry.to_json() and same_masks(picture, page)


@pytest.mark.parametrize("effect", EFFECTS)
def test_strength_nought_changes_nothing(ecg_mv: NDArray[np.float64], effect: str) -> None:
    page = page_of(ecg_mv, width=672)
    assert augment(page, {effect: 0.0}, random()).data == page.png()
    with_it = augment(page, {"shading": 0.3, "rotation": 0.3} | {effect: 0.0}, random())
    without = augment(page, {name: 0.3 for name in ("shading", "rotation") if name != effect}, random())
    assert with_it.data == without.data and with_it.geometry.to_json() == without.geometry.to_json()


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"clean"}))
def test_same_seed_same_bytes(ecg_mv: NDArray[np.float64], preset: str) -> None:
    page = page_of(ecg_mv, width=672, mask=True)
    strengths = {effect: most for effect, (_, _, most) in PRESETS[preset].items()}
    one, again, other = (augment(page, strengths, random(seed)) for seed in (1, 1, 2))
    assert one.data == again.data and same_masks(one, again)
    assert one.geometry.to_json() == again.geometry.to_json()
    assert one.data != other.data


# The mean over twelve seeds of the pictures and masks that each effect and each preset makes of the page of
# `golden_record`, each pixel with a weight of 1 or -1 that is drawn once: another stroke or dot anywhere changes it,
# the last bit of a few pixels, which may differ between processors, does not. Then the mean over half of the squares of
# 16 pixels, drawn alike, which another light or colour changes. A data set is rendered again from its seed, so the
# picture of a seed stays what it is. Made with Pillow 13.0.0 (FreeType 2.14.3) and numpy 2.4.6; without JPEG, whose
# pixels are its library's.
GOLDEN = {
    "bilevel": (-0.0487, 62.5180),
    "blur": (-0.0543, 59.1273),
    "crease": (-0.0449, 58.5979),
    "crop": (-0.0523, 58.7291),
    "fax": (-0.0643, 62.1633),
    "glare": (-0.0479, 59.3406),
    "handwriting": (-0.0477, 59.0195),
    "lowres": (-0.0704, 59.3915),
    "moire": (-0.0283, 52.8187),
    "noise": (-0.0393, 58.4906),
    "padding": (-0.0915, 54.7899),
    "perspective": (-0.0744, 55.0256),
    "photo": (-0.0343, 49.9711),
    "rotation": (-0.0574, 53.7098),
    "scan": (-0.0569, 58.4111),
    "screen": (-0.0481, 48.4066),
    "shading": (-0.0379, 51.7768),
    "stain": (-0.0486, 58.5830),
    "stamp": (-0.0474, 58.9896),
    "worn": (-0.0498, 57.7819),
}


def fingerprint(kind: str) -> tuple[float, float]:
    page, values = draw(golden_record(500.0), width=448, mask=True), []
    for seed in range(12):
        strengths = effect_strengths(kind, random(seed)) if kind in PRESETS else {kind: (0.4, 1.0)[seed % 2]}
        strengths.pop("jpeg", None)
        picture = augment(page, strengths, random(seed))
        for pixels in (np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")), np.asarray(picture.mask)):
            signs = np.random.default_rng(0).choice([-1.0, 1.0], pixels.shape)
            squares = np.repeat(np.repeat(signs[::16, ::16] > 0, 16, 0), 16, 1)[: len(pixels), : pixels.shape[1]]
            values.append([(pixels * weights).mean() for weights in (signs, squares)])
    fine, coarse = np.mean(values, axis=0).tolist()
    return fine, coarse


@pytest.mark.skipif(features.version("freetype2") != "2.14.3", reason="another FreeType draws other letters")
@pytest.mark.parametrize("kind", sorted({*EFFECTS, *PRESETS} - {"jpeg", "clean"}))
def test_the_picture_of_a_seed_stays_what_it_is(kind: str) -> None:
    fine, coarse = fingerprint(kind)
    assert fine == pytest.approx(GOLDEN[kind][0], abs=1e-3)
    assert coarse == pytest.approx(GOLDEN[kind][1], abs=3e-3)


def test_the_colours_of_ink_liquids_and_tables_stay_what_they_are() -> None:
    """One more of 255 in one of them hardly moves the means above."""
    colours = (marks._BIROS, marks._PADS, marks._LIQUIDS, optics._DESKS, optics._LIDS, optics._BEZELS)
    assert sha256(repr(colours).encode()).hexdigest()[:12] == "1a89b2af127a"


def test_one_effect_more_does_not_change_the_others(ecg_mv: NDArray[np.float64]) -> None:
    page = page_of(ecg_mv, width=672, mask=True)
    few = {**TILT, "stamp": 0.5, "handwriting": 0.4}
    one, more = augment(page, few, random()), augment(page, {**few, "noise": 0.2, "blur": 0.3, "crease": 0.4}, random())
    assert one.geometry.to_json() == more.geometry.to_json() and same_masks(one, more)
    assert one.data != more.data


def test_a_page_is_not_changed_by_wear(ecg_mv: NDArray[np.float64]) -> None:
    page = page_of(ecg_mv, width=672, mask=True)
    assert page.mask is not None
    before = page.image.copy(), page.mask.copy(), page.geometry.to_json()
    augment(page, dict.fromkeys(EFFECTS, 0.5), random())
    assert np.array_equal(page.image, before[0]) and np.array_equal(page.mask, before[1])
    assert page.geometry.to_json() == before[2]


# --- where things are ---


@pytest.mark.parametrize(("layout", "width"), [("3x4+1R", 672), ("12x1", 500), ("3x4+1R,A4", 700)])
@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"clean"}))
def test_size_stays_and_traces_stay_inside(ecg_mv: NDArray[np.float64], layout: str, width: int, preset: str) -> None:
    page = page_of(ecg_mv, layout=layout, width=width)
    height = page.image.shape[0]
    for seed in range(2):
        strengths = {effect: 1.0 if effect in GEOMETRIC else 0.3 for effect in effect_strengths(preset, random(seed))}
        strengths.pop("crop", None)
        picture = augment(page, strengths, random(seed))
        image = Image.open(io.BytesIO(picture.data))
        assert image.size == (width, height) == (picture.geometry.width, picture.geometry.height)
        assert image.format == {".png": "PNG", ".jpg": "JPEG"}[picture.suffix]
        ends = np.concatenate(
            [transform_points(picture.geometry.homography, corners(lead.box)) for lead in picture.geometry.leads]
        )
        assert (ends >= -0.5 - 1e-6).all() and (ends <= [width - 0.5 + 1e-6, height - 0.5 + 1e-6]).all()


@pytest.mark.parametrize("layout", ["3x4+1R", "12x1", "3x4,A4"])
def test_a_full_crop_cuts_little_of_the_traces(ecg_mv: NDArray[np.float64], layout: str) -> None:
    page = page_of(ecg_mv, layout=layout, width=700)
    for seed in range(6):
        geometry = augment(page, {"crop": 1.0}, random(seed)).geometry
        boxes = np.array([lead.box for lead in geometry.leads])
        outer = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        (left, top), (right, bottom) = transform_points(geometry.homography, corners(outer))[[0, 2]]
        cut = max(-0.5 - left, right - 699.5, -0.5 - top, bottom - page.image.shape[0] + 0.5)
        assert cut < 0.012 * 700
        assert min(left, top) < 10 or max(right - 690, bottom - page.image.shape[0] + 10) > 0
        # No more than the page itself is in sight.
        visible = transform_points(
            inverse_of(geometry.homography), corners([-0.5, -0.5, 699.5, page.image.shape[0] - 0.5])
        )
        assert (visible > -0.6).all() and (visible < [699.6, page.image.shape[0] - 0.4]).all()


@pytest.mark.parametrize("seed", range(4))
def test_marks_are_found_where_the_homography_says(ecg_mv: NDArray[np.float64], seed: int) -> None:
    page = page_of(ecg_mv)
    image = np.zeros_like(page.image)
    y, x = np.mgrid[-6:7, -6:7]
    dots = np.array([[x, y] for y in range(60, 540, 85) for x in range(60, 1090, 103)], dtype=float)
    for cx, cy in dots.astype(int):
        image[cy - 6 : cy + 7, cx - 6 : cx + 7][np.hypot(x, y) < 4.5] = 31
    picture = augment(dataclasses.replace(page, image=image), {**TILT, "perspective": 1.0}, random(seed))
    red = pixels_of(picture)[..., 0]
    for cx, cy in transform_points(picture.geometry.homography, dots):
        left, top = round(cx) - 8, round(cy) - 8
        dark = 255.0 - red[top : top + 17, left : left + 17]
        rows, columns = np.mgrid[top : top + 17, left : left + 17]
        centre = (dark * columns).sum() / dark.sum(), (dark * rows).sum() / dark.sum()
        assert math.hypot(centre[0] - cx, centre[1] - cy) < 0.15


def test_projection_equals_the_obvious_form_of_it(ecg_mv: NDArray[np.float64]) -> None:
    page = page_of(ecg_mv, width=672, mask=True)
    picture = augment(page, {"rotation": 1.0, "perspective": 1.0}, random(3))
    height, width = page.image.shape
    to_page = inverse_of(picture.geometry.homography)
    y, x = np.mgrid[:height, :width]
    u, v = transform_points(to_page, np.column_stack([x.ravel(), y.ravel()])).T
    inside = (u > 1) & (u < width - 2) & (v > 1) & (v < height - 2)
    nearest = np.asarray(page.mask)[np.rint(v[inside]).astype(int), np.rint(u[inside]).astype(int)]
    assert (np.asarray(picture.mask).ravel()[inside] == nearest).mean() > 0.9999
    beside = (u < -1) | (u > width) | (v < -1) | (v > height)
    assert not np.asarray(picture.mask).ravel()[beside].any()
    matrix = np.array([[0.97, 0.08, 3.0], [-0.08, 0.98, 9.0], [2e-4, -1e-4, 1.0]])
    grey = Backdrop((128.0, 128.0, 128.0), 0.0, 0.0, 0.0, 1.0, (0.0, 0.0))
    result = project(palette_to_rgbx(page.image, page.palette), matrix, grey, random(), 2.4)[..., :3].reshape(-1, 3)
    u, v = transform_points(inverse_of(matrix), np.column_stack([x.ravel(), y.ravel()])).T
    inside = (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1)
    source = np.asarray(page.to_pil(), dtype=float)
    for k in range(3):
        reference = map_coordinates(source[..., k], [v[inside], u[inside]], order=1)
        assert np.abs(result[inside, k] - reference).max() < 8  # of 237; positions are kept to 1/256 pixel
        assert np.abs(result[inside, k] - reference).mean() < 0.6
    assert (result[(u < -1) | (v < -1) | (u > width) | (v > height)] == 128).all()


def test_no_pixel_behind_the_last_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled, nothing would stop it; as Python it ends with an IndexError."""
    compiled: Any = optics
    monkeypatch.setattr(optics, "_bilinear", compiled._bilinear.py_func)
    page = np.full((3, 4), 0x40404040, np.uint32)
    word = compiled._at_edge.py_func(page.reshape(-1), np.uint64(4), 3.0, 2.0, 3.0, 2.0, np.uint64(0))
    assert word == optics._wide(0x40404040)


@pytest.mark.parametrize("preset", ["photo", "screen", "worn"])
def test_the_mask_lies_where_the_ink_is(ecg_mv: NDArray[np.float64], preset: str) -> None:
    page = page_of(ecg_mv, mask=True)
    strengths = {e: s for e, s in effect_strengths(preset, random(5)).items() if e not in ("glare", "noise", "moire")}
    picture = augment(page, {**strengths, "rotation": 0.4, "perspective": 0.4}, random(5))
    assert picture.mask is not None and picture.mask.shape == page.image.shape and picture.mask.dtype == np.uint8
    red = pixels_of(picture)[..., 0]
    assert np.median(red[picture.mask == 3]) < 0.65 * np.median(red[picture.mask == 0])
    assert (picture.mask == 3).mean() == pytest.approx((np.asarray(page.mask) == 3).mean(), rel=0.5)


@pytest.mark.parametrize("effect", ["handwriting", "stamp"])
def test_what_is_written_is_text_in_the_mask_and_covers_no_signal(ecg_mv: NDArray[np.float64], effect: str) -> None:
    page = page_of(ecg_mv, mask=True)
    picture = augment(page, {effect: 0.8}, random(1))
    before, after = np.asarray(page.mask), np.asarray(picture.mask)
    differs = before != after
    assert differs.sum() > 300 and (after[differs] == 2).all() and not (before[differs] == 3).any()
    marks = np.abs(pixels_of(picture) - np.asarray(page.to_pil(), dtype=float)).max(axis=2) > 60
    assert (after[marks & (before < 2)] == 2).mean() > 0.6


@pytest.mark.parametrize("effect", GEOMETRIC)
def test_pages_of_any_width_are_moved_alike(ecg_mv: NDArray[np.float64], effect: str) -> None:
    ends = []
    for width in (560, 1120):
        picture = augment(page_of(ecg_mv, width=width), {effect: 0.7}, random(6))
        box = [0.1 * width, 0.1 * width, 0.9 * width, 0.4 * width]
        ends.append(transform_points(picture.geometry.homography, corners(box)) / width)
    assert np.abs(ends[0] - ends[1]).max() < 0.003


def test_effects_change_the_homography_alone(ecg_mv: NDArray[np.float64]) -> None:
    picture = augment(page_of(ecg_mv, width=672), TILT, random())
    assert PageGeometry.from_json(picture.geometry.to_json()).to_json() == picture.geometry.to_json()
    assert picture.geometry.homography[2, 2] == 1.0
    flat = dataclasses.replace(picture.geometry, homography=np.eye(3))
    assert flat.to_json() == page_of(ecg_mv, width=672).geometry.to_json()


def test_a_fax_is_black_and_white(ecg_mv: NDArray[np.float64]) -> None:
    page = page_of(ecg_mv, width=672)
    picture = augment(page, {"bilevel": 0.5}, random())
    assert picture.suffix == ".png" and Image.open(io.BytesIO(picture.data)).mode == "1"
    assert augment(page, {"bilevel": 0.5, "jpeg": 0.2}, random()).suffix == ".jpg"


# --- what may be asked for ---


def test_an_unknown_effect_names_the_nearest(ecg_mv: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="'moiree' is not known; the nearest is 'moire'"):
        augment(page_of(ecg_mv, width=672), {"moiree": 0.1}, random())


@pytest.mark.parametrize("strength", [-0.1, 1.01, math.nan, math.inf, True, "0.5", None])
def test_a_strength_outside_nought_to_one_is_refused(ecg_mv: NDArray[np.float64], strength: Any) -> None:
    with pytest.raises(InputError, match=r"'blur': strength .* from 0 to 1"):
        augment(page_of(ecg_mv, width=672), {"blur": strength}, random())


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match="'foto' is not known; the nearest is 'photo'"):
        effect_strengths("foto", random())


def test_presets_are_well_formed() -> None:
    assert set(PRESET_PROPORTIONS) == set(PRESETS) == {"clean", "scan", "fax", "photo", "screen", "worn"}
    assert sum(PRESET_PROPORTIONS.values()) == pytest.approx(1.0) and min(PRESET_PROPORTIONS.values()) > 0
    assert not PRESETS["clean"]
    for effects in PRESETS.values():
        assert set(effects) <= set(EFFECTS)
        for probability, least, most in effects.values():
            assert 0 < probability <= 1 and 0 < least < most <= 1


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_drawn_as_they_say(preset: str) -> None:
    rng, n = random(8), 1500
    samples = [effect_strengths(preset, rng) for _ in range(n)]
    assert {effect for each in samples for effect in each} == set(PRESETS[preset])
    for effect, (probability, least, most) in PRESETS[preset].items():
        values = [each[effect] for each in samples if effect in each]
        sigma = math.sqrt(n * probability * (1 - probability))
        assert abs(len(values) - n * probability) <= 4.5 * sigma
        assert least <= min(values) and max(values) <= most
        assert np.mean(values) == pytest.approx((least + most) / 2, abs=0.12 * (most - least))


@pytest.mark.parametrize("stain", [marks._ring, marks._blot])
def test_a_stain_lies_within_its_square_and_a_ring_is_light_within(stain: Callable[..., NDArray[np.float64]]) -> None:
    for seed in range(5):
        ink = stain(np.random.default_rng(seed))
        assert ink.min() >= 0.0 and 0.3 < ink.max() <= 1.0
        middle = ink.shape[0] // 2
        assert max(ink[0, 0], ink[0, -1], ink[-1, 0], ink[-1, -1]) < 0.01
        if stain is marks._ring:
            assert ink[middle, middle] == pytest.approx(0.08)


def test_a_bad_line_of_a_fax_repeats_the_line_above() -> None:
    picture = np.full((400, 400, 4), 255, np.uint8)
    picture[::2, ::2] = picture[1::2, 1::2] = 0  # no row is black, two on each other are
    for strength, has_bad_lines in ((0.0, False), (1.0, True)):
        white = sensor.bilevel(picture, strength, np.random.default_rng(0), 4.0)
        assert (~white).all(axis=1).any() == has_bad_lines


def test_the_first_fold_is_that_of_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    folds: list[tuple[NDArray[np.float64], float]] = []
    sheet = np.zeros((300, 400, 4), np.uint8)
    monkeypatch.setattr(marks, "_shade_fold", lambda pixels, normal, start, *_: folds.append((normal, start)))
    for seed in range(8):
        folds.clear()
        marks.crease(marks.Sheet(sheet, None, 4.0), 1.0, np.random.default_rng(seed))
        normal, start = folds[0]
        assert np.abs(normal).max() > 0.99
        assert min(abs(start / (normal @ [400, 300]) - share) for share in (1 / 3, 1 / 2, 2 / 3)) < 1e-9


def test_the_shade_of_a_fold_ends_at_28_mm() -> None:
    sheet = np.full((300, 400, 4), 250, np.uint8)
    gains = marks._fold(1.0, random()).astype(np.float32)
    marks._shade_fold(sheet, np.array([1.0, 0.0]), 200.0, marks._PER_MM / 4.0, gains, np.zeros(256))
    shaded = np.flatnonzero((sheet[..., :3] != 250).any(axis=(0, 2)))
    assert np.abs(shaded / 4.0 - 50.0).max() == pytest.approx(27.5, abs=0.3)


def test_a_fold_is_uneven_along_its_length_whether_upright_or_level() -> None:
    gains = marks._fold(1.0, random()).astype(np.float32)
    wobble = random().uniform(-8.0, 8.0, 256)  # of the table's eighths of a millimetre
    for normal, across in ((np.array([1.0, 0.0]), 1), (np.array([0.0, 1.0]), 0)):
        sheet = np.full((300, 300, 4), 250, np.uint8)
        marks._shade_fold(sheet, normal, 150.0, marks._PER_MM / 4.0, gains, wobble)
        assert np.unique(sheet[..., 0].argmin(axis=across)).size > 3


def test_a_shaken_camera_blurs_along_a_line_around_each_place() -> None:
    x, y, weights = optics._motion(6.0, 0.7)
    means = [float((weights * way).sum() / weights.sum()) for way in (x, y)]
    assert means == pytest.approx([0.0, 0.0], abs=1e-9)
    along = x * math.cos(0.7) + y * math.sin(0.7)
    assert float((weights * along**2).sum() / weights.sum()) == pytest.approx(6**2 / 12, abs=0.25)


def test_scribbles_are_ticks_rings_and_underlines() -> None:
    shapes = [marks._scribble(np.random.default_rng(seed), 0.5, 8.0).shape for seed in range(40)]
    ratios = sorted(height / width for height, width in shapes)
    assert ratios[0] < 0.4 < 0.6 < ratios[20] and 1.0 < ratios[-1] < 1.4  # the tallest are ticks
