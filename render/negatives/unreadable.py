"""Pages that cannot be read, so that a model may learn to say so: no ECG at all, turned, or cut off.

A page that is turned or cut off begins as an ordinary picture; its geometry still says where each lead stands.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
"""Why a page cannot be read -> its share of such pages. Our choice: the first has the most to be varied in."""

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
        "hardly anything": (scenes.hardly_anything, 0.12),
    }
)
"""What a picture that is no ECG shows -> what draws it (generator, width and height in pixels), and its share."""

LOST_SHARE = 1 / 3
"""At least this share of a page's leads is lost where it is cut off; one at least is left."""

_TALLEST = 1.6  # height over width of a telephone held upright, and the other way round
_SMALLEST = 0.45  # of the longest side that is asked for
_TRIES = 96
_ALONG, _ABOVE_MM = 48, (-2.5, 0.0, 5.0)  # a trace is looked for here: along its baseline, below and above it
_UNSURE = (0.35, 0.65)  # shares in sight at which even a person might call a lead lost or not


@dataclass(frozen=True, eq=False)
class Unreadable:
    """A page that cannot be read. kind: of `KINDS`. lost: names of the leads that are cut off, I to V6."""

    kind: str
    picture: ImageFile
    lost: tuple[str, ...] = ()


def make_unreadable(picture: PageImage, rng: Generator) -> Unreadable:
    """An unreadable page in the place of a page's picture: its kind, and all else about it, drawn from `rng`."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "cut off":
        part, lost = cut_off(picture, rng)
        return Unreadable(kind, part, lost)
    if kind == "not an ECG":
        return Unreadable(kind, no_ecg(rng, picture.geometry.width, mask=picture.mask is not None))
    return Unreadable(kind, turned(picture, 2 if kind == "upside down" else int(rng.choice([1, 3]))))


def no_ecg(rng: Generator, longest: int, *, subject: str | None = None, mask: bool = False) -> ImageFile:
    """A picture of something else, its longer side at most `longest` pixels; no geometry, and a mask all of paper.

    subject: of `SUBJECTS`; None draws one.
    """
    aspect = float(np.exp(rng.uniform(-np.log(_TALLEST), np.log(_TALLEST))))
    side = longest * rng.uniform(_SMALLEST, 1.0)
    width, height = round(side * min(1.0, 1 / aspect)), round(side * min(1.0, aspect))
    if subject is None:
        subject = str(rng.choice(list(SUBJECTS), p=[share for _, share in SUBJECTS.values()]))
    image = _taken(SUBJECTS[subject][0](rng, width, height), rng)
    out = io.BytesIO()
    if rng.random() < 0.25:
        image.save(out, "PNG", compress_level=1)
        suffix = ".png"
    else:
        image.save(out, "JPEG", quality=int(rng.integers(35, 93)), subsampling="4:2:0")
        suffix = ".jpg"
    blank = np.zeros((image.height, image.width), dtype=np.uint8) if mask else None
    return ImageFile(out.getvalue(), suffix, blank)


def _taken(image: Image.Image, rng: Generator) -> Image.Image:
    """As a camera or scanner may have it: askew, soft, faded, grey, tinted."""
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


def turned(picture: PageImage, quarters: int) -> PageImage:
    """The picture turned against the clock by so many quarters, 1 to 3, its geometry and mask with it."""
    width, height = picture.geometry.width, picture.geometry.height
    turn, matrix = {
        1: (Image.Transpose.ROTATE_90, [[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]]),
        2: (Image.Transpose.ROTATE_180, [[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]]),
        3: (Image.Transpose.ROTATE_270, [[0, -1, height - 1], [1, 0, 0], [0, 0, 1]]),
    }[quarters]
    mask = None if picture.mask is None else np.ascontiguousarray(np.rot90(picture.mask, quarters))
    return _changed(picture, lambda image: image.transpose(turn), np.array(matrix, dtype=float), mask)


def cut_off(picture: PageImage, rng: Generator) -> tuple[PageImage, tuple[str, ...]]:
    """A part of the picture, and the leads that it loses: at least `LOST_SHARE` of them, and never all.

    A lead is lost when less of it is left than half a trace, of its shortest one where it has a rhythm strip too: a
    quarter of a strip shows as many beats as a column of the page. A trace is taken for a band from 2.5 mm below its
    baseline to 5 mm above it, where most of a beat is.
    """
    geometry = picture.geometry
    boxes = _windows(rng) * np.array([geometry.width, geometry.height] * 2)
    boxes = np.rint(boxes).astype(int)
    names, seen = _in_sight(geometry, boxes)
    lost = seen < 0.5
    count = lost.sum(axis=1)
    good = (count >= LOST_SHARE * len(names) - 1e-9) & (count < len(names))
    clear = ~((seen > _UNSURE[0]) & (seen < _UNSURE[1])).any(axis=1)
    best = int(np.argmax(good * 2 + clear if good.any() else np.where(count < len(names), count, 0)))
    x0, y0, x1, y1 = (int(at) for at in boxes[best])
    matrix = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=float)
    mask = None if picture.mask is None else np.ascontiguousarray(picture.mask[y0:y1, x0:x1])
    part = _changed(picture, lambda image: image.crop((x0, y0, x1, y1)), matrix, mask)
    return part, tuple(name for name, gone in zip(names, lost[best], strict=True) if gone)


def _windows(rng: Generator) -> NDArray[np.float64]:
    """(tries, 4): x0, y0, x1, y1 of parts of a picture, 0-1: one side gone, a corner left, or a window within."""
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


def _in_sight(geometry: PageGeometry, boxes: NDArray[np.int_]) -> tuple[list[str], NDArray[np.float64]]:
    """The page's leads, and (boxes, leads) how much of each lies within each box, in its shortest traces."""
    shortest: dict[str, float] = {}
    for trace in geometry.leads:
        long = trace.box[2] - trace.box[0]
        shortest[trace.lead] = min(long, shortest.get(trace.lead, long))
    names = [lead for lead in LEADS if lead in shortest]
    seen = np.zeros((len(boxes), len(names)))
    for trace in geometry.leads:
        x0, _, x1, _ = trace.box
        xs = np.linspace(x0, x1, _ALONG)
        ys = [trace.baseline_y - mm * trace.px_per_mm for mm in _ABOVE_MM]
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        x, y = transform_points(geometry.homography, grid).T
        left, top, right, foot = (boxes[:, k, None] - 0.5 for k in range(4))
        share = ((x > left) & (x < right) & (y > top) & (y < foot)).mean(axis=1)
        place = names.index(trace.lead)
        seen[:, place] = np.maximum(seen[:, place], share * (x1 - x0) / shortest[trace.lead])
    return names, seen


def _changed(
    picture: PageImage,
    change: Callable[[Image.Image], Image.Image],
    matrix: NDArray[np.float64],
    mask: NDArray[np.uint8] | None,
) -> PageImage:
    """The picture after a change that `matrix` (3, 3) says in pixels; a file of the same kind and quality."""
    before = Image.open(io.BytesIO(picture.data))
    image, out = change(before), io.BytesIO()
    if picture.suffix == ".jpg":
        image.save(out, "JPEG", qtables=before.quantization, subsampling="4:2:0")  # type: ignore[attr-defined]
    else:
        image.save(out, "PNG", compress_level=3)
    homography = matrix @ picture.geometry.homography
    geometry = replace(picture.geometry, width=image.width, height=image.height, homography=homography)
    return PageImage(out.getvalue(), picture.suffix, mask, geometry)
