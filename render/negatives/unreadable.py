"""Pages that cannot be read, from which a model learns to refuse: no ECG at all, rotated, or cut off.

A page that is rotated or cut off begins as an ordinary picture; its geometry still holds the place of each lead.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from render.negatives import documents, plots, scenes
from render.pages.augment.pipeline import ImageFile, PageImage
from render.pages.geometry import PageGeometry, transform_points
from render.record import LEADS

KINDS: Mapping[str, float] = MappingProxyType(
    {"not an ECG": 0.4, "upside down": 0.2, "on its side": 0.1, "cut off": 0.3}
)
"""Why a page cannot be read -> its share of such pages. A choice of this project: the first kind varies most."""

SUBJECTS: Mapping[str, tuple[Callable[[Generator, int, int], Image.Image], float]] = MappingProxyType(
    {
        "letter": (documents.letter, 0.08),
        "form": (documents.form, 0.06),
        "note": (documents.note, 0.05),
        "screen": (documents.screen, 0.05),
        "code": (documents.code, 0.02),
        "chart": (plots.chart, 0.07),
        "pie": (plots.pie, 0.03),
        "graph paper": (plots.graph_paper, 0.06),
        "empty form": (plots.empty_form, 0.10),
        "plan": (plots.floor_plan, 0.04),
        "landscape": (scenes.landscape, 0.06),
        "street": (scenes.street, 0.04),
        "portrait": (scenes.portrait, 0.05),
        "leaves": (scenes.leaves, 0.05),
        "table top": (scenes.table_top, 0.03),
        "texture": (scenes.texture, 0.04),
        "radiograph": (scenes.radiograph, 0.03),
        "lights": (scenes.lights, 0.02),
        "nearly empty": (scenes.nearly_empty, 0.12),
    }
)
"""Subject of a picture without an ECG -> the function that draws it (generator, width, height in pixels), its share."""

MISSING_SHARE = 1 / 3
"""A page that is cut off misses at least this share of its leads; at least one lead is left."""

_TALLEST = 1.6  # largest aspect ratio, height over width or width over height
_SMALLEST = 0.45  # shortest longer side, as a share of `longest`
_TRIES = 96
# A trace is taken to lie at so many points along its baseline, at these heights in mm above it.
_ALONG, _ABOVE_MM = 48, (-2.5, 0.0, 5.0)
_UNSURE = (0.35, 0.65)  # visible shares at which people would disagree whether a lead is missing


@dataclass(frozen=True, eq=False)
class Unreadable:
    """A page that cannot be read. kind: of `KINDS`. missing_leads: the leads that are cut off, in the order I to V6."""

    kind: str
    picture: ImageFile
    missing_leads: tuple[str, ...] = ()


def make_unreadable(picture: PageImage, rng: Generator) -> Unreadable:
    """An unreadable page in place of a page's picture: its kind and everything else about it sampled from `rng`."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "cut off":
        part, missing_leads = cut_off(picture, rng)
        return Unreadable(kind, part, missing_leads)
    if kind == "not an ECG":
        return Unreadable(kind, no_ecg(rng, picture.geometry.width, mask=picture.mask is not None))
    return Unreadable(kind, rotate_quarters(picture, 2 if kind == "upside down" else int(rng.choice([1, 3]))))


def no_ecg(rng: Generator, longest: int, *, subject: str | None = None, mask: bool = False) -> ImageFile:
    """A picture without an ECG, its longer side at most `longest` pixels. Its mask, if `mask`, is paper everywhere.

    Args:
        subject: of `SUBJECTS`; None samples one.
    """
    aspect = float(np.exp(rng.uniform(-np.log(_TALLEST), np.log(_TALLEST))))
    side = longest * rng.uniform(_SMALLEST, 1.0)
    width, height = round(side * min(1.0, 1 / aspect)), round(side * min(1.0, aspect))
    if subject is None:
        subject = str(rng.choice(list(SUBJECTS), p=[share for _, share in SUBJECTS.values()]))
    image = _photograph(SUBJECTS[subject][0](rng, width, height), rng)
    out = io.BytesIO()
    if rng.random() < 0.25:
        image.save(out, "PNG", compress_level=1)
        suffix = ".png"
    else:
        image.save(out, "JPEG", quality=int(rng.integers(35, 93)), subsampling="4:2:0")
        suffix = ".jpg"
    blank = np.zeros((image.height, image.width), dtype=np.uint8) if mask else None
    return ImageFile(out.getvalue(), suffix, blank)


def _photograph(image: Image.Image, rng: Generator) -> Image.Image:
    """The image as a camera or scanner may record it: tilted, blurred, grey, faded, tinted."""
    chance = rng.random(5)
    if chance[0] < 0.25:
        angle = float(rng.normal(0, 6))
        fill = tuple(int(part) for part in rng.integers(0, 256, 3))
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    if chance[1] < 0.2:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 2.0))))
    if chance[2] < 0.15:
        image = image.convert("L").convert("RGB")
    if chance[3] < 0.4:
        gamma, low, high = rng.uniform(0.6, 1.6), rng.uniform(0, 60), rng.uniform(190, 255)
        tints = rng.uniform(0.85, 1.0, 3)
        levels = low + (high - low) * np.linspace(0, 1, 256) ** gamma
        image = image.point([round(level * tint) for tint in tints for level in levels])
    return image


def rotate_quarters(picture: PageImage, quarters: int) -> PageImage:
    """The picture rotated counterclockwise by so many quarter turns, 1 to 3, with its geometry and mask."""
    width, height = picture.geometry.width, picture.geometry.height
    turn, matrix = {
        1: (Image.Transpose.ROTATE_90, [[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]]),
        2: (Image.Transpose.ROTATE_180, [[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]]),
        3: (Image.Transpose.ROTATE_270, [[0, -1, height - 1], [1, 0, 0], [0, 0, 1]]),
    }[quarters]
    mask = None if picture.mask is None else np.ascontiguousarray(np.rot90(picture.mask, quarters))
    return _transform(picture, lambda image: image.transpose(turn), np.array(matrix, dtype=float), mask)


def cut_off(picture: PageImage, rng: Generator) -> tuple[PageImage, tuple[str, ...]]:
    """A part of the picture, and the leads that are missing in it: at least `MISSING_SHARE` of them, and never all.

    A lead is missing where less than half a trace of it is left; of the shortest trace, where it has a rhythm strip
    too: a quarter of a strip shows as many beats as a column of the page. A trace is taken as a band from 2.5 mm below
    its baseline to 5 mm above it, which contains most of a beat.
    """
    geometry = picture.geometry
    boxes = _windows(rng) * np.array([geometry.width, geometry.height] * 2)
    boxes = np.rint(boxes).astype(int)
    names, visible = _visible_shares(geometry, boxes)
    is_missing = visible < 0.5
    count = is_missing.sum(axis=1)
    good = (count >= MISSING_SHARE * len(names) - 1e-9) & (count < len(names))
    clear = ~((visible > _UNSURE[0]) & (visible < _UNSURE[1])).any(axis=1)
    best = int(np.argmax(good * 2 + clear if good.any() else np.where(count < len(names), count, 0)))
    x0, y0, x1, y1 = (int(at) for at in boxes[best])
    matrix = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=float)
    mask = None if picture.mask is None else np.ascontiguousarray(picture.mask[y0:y1, x0:x1])
    part = _transform(picture, lambda image: image.crop((x0, y0, x1, y1)), matrix, mask)
    return part, tuple(compress(names, is_missing[best]))


def _windows(rng: Generator) -> NDArray[np.float64]:
    """(tries, 4): x0, y0, x1, y1 of parts of a picture, 0-1: without one side, only a corner, or a window inside."""
    edges = np.tile([0.0, 0.0, 1.0, 1.0], (_TRIES, 1))
    for edge in edges:
        kind, side = rng.random(), int(rng.integers(4))
        sides, most = [side], 0.75
        if kind > 0.6:
            sides, most = ([side, (side + 1) % 4], 0.6) if kind < 0.9 else ([0, 1, 2, 3], 0.35)
        for at in sides:
            depth = rng.uniform(0.15, most)
            edge[at] = depth if at < 2 else 1 - depth
    return edges


def _visible_shares(geometry: PageGeometry, boxes: NDArray[np.int_]) -> tuple[list[str], NDArray[np.float64]]:
    """The page's leads, and (boxes, leads) the length of each within each box, in lengths of its shortest trace."""
    shortest: dict[str, float] = {}
    for trace in geometry.leads:
        long = trace.box[2] - trace.box[0]
        shortest[trace.lead] = min(long, shortest.get(trace.lead, long))
    names = [lead for lead in LEADS if lead in shortest]
    visible = np.zeros((len(boxes), len(names)))
    for trace in geometry.leads:
        x0, _, x1, _ = trace.box
        xs = np.linspace(x0, x1, _ALONG)
        ys = [trace.baseline_y - mm * trace.px_per_mm for mm in _ABOVE_MM]
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        x, y = transform_points(geometry.homography, grid).T
        left, top, right, foot = (boxes[:, k, None] - 0.5 for k in range(4))
        share = ((x > left) & (x < right) & (y > top) & (y < foot)).mean(axis=1)
        place = names.index(trace.lead)
        visible[:, place] = np.maximum(visible[:, place], share * (x1 - x0) / shortest[trace.lead])
    return names, visible


def _transform(
    picture: PageImage,
    change: Callable[[Image.Image], Image.Image],
    matrix: NDArray[np.float64],
    mask: NDArray[np.uint8] | None,
) -> PageImage:
    """The picture after a change of its image; a file of the same kind and quality. matrix: the change, in pixels."""
    before = Image.open(io.BytesIO(picture.data))
    image, out = change(before), io.BytesIO()
    if picture.suffix == ".jpg":
        image.save(out, "JPEG", qtables=before.quantization, subsampling="4:2:0")  # type: ignore[attr-defined]
    else:
        image.save(out, "PNG", compress_level=3)
    homography = matrix @ picture.geometry.homography
    geometry = replace(picture.geometry, width=image.width, height=image.height, homography=homography)
    return PageImage(out.getvalue(), picture.suffix, mask, geometry)
