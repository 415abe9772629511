"""From a clean page to an image file, as scanners, cameras and wear change it.

The order is the physical one: people and time mark the paper; a lens projects it onto a background and blurs it; lamps
light it; a sensor records it; a file stores it. All movement of the page is one homography, which the image's geometry
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from render.errors import InputError
from render.pages.augment import homography, light, marks, optics, sensor
from render.pages.geometry import PageGeometry
from render.pages.option_words import unknown_word
from render.pages.page import Page

EFFECTS: tuple[str, ...] = (
    "rotation",
    "perspective",
    "crop",
    "padding",
    "crease",
    "stain",
    "shading",
    "glare",
    "blur",
    "noise",
    "jpeg",
    "bilevel",
    "moire",
    "lowres",
    "handwriting",
    "stamp",
)
"""The effects. Each has a strength from 0, which changes nothing, to 1, which a person can still read:

- rotation: 10 degrees; perspective: the page tilted by 28 degrees, the camera 1.3 to 1.9 page widths away
- crop: the traces fill the picture but for 1 % of them; padding: margins of 14 % of the page's shorter side
- crease: up to four folds, whose lines, half a mm wide, take a third of the light
- stain: three rings or blots, which take up to eight tenths of what coffee takes of the light
- shading: the darkest place has 38 % of the light; glare: a spot or stripe that takes 94 % of the contrast
- blur: a defocus of 0.38 mm (standard deviation) or a motion of 1.3 mm; lowres: 2.5 times fewer pixels a side
- noise: a standard deviation of 22 of 255; jpeg: quality 20 (from 92), chroma halved
- bilevel: black and white, with 5 specks a square cm and a dozen bad lines; moire: a third of each colour
- handwriting: six notes; stamp: three stamps

Lengths are of the paper: a page of twice the width in pixels looks the same. A new effect goes to the end, as each
effect uses the random generator of its position.
"""

_CAMERA = ("perspective", "shading", "glare")

PRESETS: Mapping[str, Mapping[str, tuple[float, float, float]]] = MappingProxyType(
    {
        "clean": MappingProxyType({}),
        "scan": MappingProxyType(
            {
                "rotation": (0.8, 0.02, 0.2),
                "crop": (0.3, 0.1, 0.6),
                "padding": (0.3, 0.05, 0.3),
                "handwriting": (0.15, 0.05, 0.5),
                "stamp": (0.1, 0.1, 0.6),
                "blur": (0.5, 0.1, 0.3),
                "noise": (1.0, 0.05, 0.2),
                "lowres": (0.2, 0.05, 0.3),
                "jpeg": (1.0, 0.05, 0.5),
            }
        ),
        "fax": MappingProxyType(
            {
                "rotation": (0.8, 0.02, 0.2),
                "padding": (0.3, 0.05, 0.3),
                "handwriting": (0.25, 0.05, 0.5),
                "stamp": (0.2, 0.1, 0.6),
                "noise": (0.5, 0.05, 0.3),
                "lowres": (0.2, 0.05, 0.2),
                "bilevel": (1.0, 0.05, 0.8),
            }
        ),
        "photo": MappingProxyType(
            {
                "rotation": (0.9, 0.05, 0.5),
                "perspective": (0.9, 0.1, 0.6),
                "padding": (0.6, 0.05, 0.5),
                "crop": (0.15, 0.1, 0.7),
                "crease": (0.2, 0.1, 0.5),
                "handwriting": (0.1, 0.05, 0.4),
                "blur": (0.8, 0.1, 0.4),
                "shading": (1.0, 0.15, 0.7),
                "glare": (0.25, 0.15, 0.6),
                "noise": (1.0, 0.05, 0.4),
                "lowres": (0.2, 0.05, 0.4),
                "jpeg": (1.0, 0.1, 0.6),
            }
        ),
        "screen": MappingProxyType(
            {
                "rotation": (0.9, 0.02, 0.35),
                "perspective": (0.9, 0.1, 0.6),
                "padding": (0.4, 0.05, 0.3),
                "crop": (0.3, 0.2, 0.8),
                "moire": (1.0, 0.3, 0.8),
                "blur": (0.5, 0.1, 0.3),
                "shading": (0.6, 0.1, 0.4),
                "glare": (0.35, 0.15, 0.6),
                "noise": (1.0, 0.1, 0.5),
                "jpeg": (1.0, 0.1, 0.6),
            }
        ),
        "worn": MappingProxyType(
            {
                "rotation": (0.8, 0.02, 0.25),
                "padding": (0.3, 0.05, 0.3),
                "crease": (0.8, 0.2, 0.9),
                "stain": (0.6, 0.15, 0.8),
                "handwriting": (0.6, 0.1, 0.8),
                "stamp": (0.4, 0.1, 0.8),
                "blur": (0.6, 0.1, 0.35),
                "noise": (1.0, 0.05, 0.35),
                "lowres": (0.2, 0.05, 0.4),
                "jpeg": (1.0, 0.1, 0.6),
            }
        ),
    }
)
"""preset -> effect -> (probability, minimum strength, maximum strength).

"clean": the page unchanged. "scan": flatbed scanner. "fax": black and white. "photo": telephone, of paper on a desk.
"screen": telephone, of a monitor. "worn": an old paper, folded, stained, written on, then scanned.
"""

# The kinds are those of a public contest in digitising ECG images (original, colour scan, black and white scan, photo
# of a print, photo of a screen, stained, damaged). Their shares are a choice of this project: most pictures come from
# the machine's own export, a scanner or a telephone; photos of monitors and faxes are rarer.
PRESET_PROPORTIONS: Mapping[str, float] = MappingProxyType(
    {"clean": 0.30, "scan": 0.25, "photo": 0.20, "worn": 0.10, "screen": 0.08, "fax": 0.07}
)
"""preset -> its share of the pages of style "mixed"; the shares sum to 1."""


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image file.

    Attributes:
        data: a PNG or JPEG file, as `suffix` (".png", ".jpg") says.
        mask: uint8 (height, width), the class of each pixel (see `render.pages.page`), or None. Handwriting and
            stamps are print; a trace under them stays signal.
    """

    data: bytes
    suffix: str
    mask: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class PageImage(ImageFile):
    """An image file that shows a page. geometry: where the page and its traces lie in the picture."""

    geometry: PageGeometry


def effect_strengths(preset: str, rng: Generator) -> dict[str, float]:
    """effect -> strength, sampled for one page of a preset. Raises `InputError` for an unknown preset."""
    if preset not in PRESETS:
        raise InputError(unknown_word("style preset", preset, tuple(PRESETS)))
    draws = {effect: (rng.random(), rng.random()) for effect in EFFECTS}
    return {
        effect: minimum + (maximum - minimum) * draws[effect][1]
        for effect, (probability, minimum, maximum) in PRESETS[preset].items()
        if draws[effect][0] < probability
    }


def augment(page: Page, strengths: Mapping[str, float], rng: Generator) -> PageImage:
    """The picture of a page; without a strength above 0, the page's own PNG.

    Args:
        strengths: effect -> 0-1, of `EFFECTS`.
        rng: each effect uses its own child of it, so that an additional effect does not change the others.

    Raises:
        InputError: For an unknown effect and for a strength outside 0-1.
    """
    amounts = _active_strengths(strengths)
    if not amounts:
        return PageImage(page.png(), ".png", page.mask, page.geometry)
    *streams, backdrop_rng = rng.spawn(len(EFFECTS) + 1)
    rngs = dict(zip(EFFECTS, streams, strict=True))
    scale = page.geometry.px_per_mm
    sheet = _mark(page, amounts, rngs, scale)
    picture, mask, matrix = sheet.pixels, sheet.mask, np.eye(3)
    if any(effect in amounts for effect in homography.GEOMETRIC):
        matrix = homography.homography(page.geometry, amounts, rngs)
        behind = optics.backdrop(_surroundings(amounts), backdrop_rng, scale)
        picture = optics.project(picture, matrix, behind, backdrop_rng, scale)
        mask = None if mask is None else optics.project_mask(mask, matrix)
    if "blur" in amounts:
        picture = optics.blur(picture, amounts["blur"], rngs["blur"], scale)
    _illuminate(picture, amounts, rngs, homography.inverse_of(matrix))
    data, suffix = _record(picture, amounts, rngs, scale)
    return PageImage(data, suffix, mask, replace(page.geometry, homography=matrix))


def _active_strengths(strengths: Mapping[str, float]) -> dict[str, float]:
    """The strengths above 0."""
    for effect, strength in strengths.items():
        if effect not in EFFECTS:
            raise InputError(unknown_word("effect", str(effect), EFFECTS))
        if isinstance(strength, bool) or not isinstance(strength, Real) or not 0.0 <= strength <= 1.0:
            raise InputError(f"effect {effect!r}: strength {strength!r} is not a number from 0 to 1")
    return {effect: float(strength) for effect, strength in strengths.items() if strength > 0.0}


def _surroundings(amounts: Mapping[str, float]) -> str:
    if "moire" in amounts:
        return "bezel"
    return "desk" if any(effect in amounts for effect in _CAMERA) else "lid"


def _mark(page: Page, amounts: Mapping[str, float], rngs: Mapping[str, Generator], scale: float) -> marks.Sheet:
    """The page as a sheet of paper with its marks."""
    pixels = optics.palette_to_rgbx(page.image, page.palette)
    sheet = marks.Sheet(pixels, None if page.mask is None else page.mask.copy(), scale)
    for effect, mark in (
        ("stamp", marks.stamp),
        ("handwriting", marks.handwriting),
        ("stain", marks.stain),
        ("crease", marks.crease),
    ):
        if effect in amounts:
            mark(sheet, amounts[effect], rngs[effect])
    return sheet


def _illuminate(
    picture: optics.Pixels, amounts: Mapping[str, float], rngs: Mapping[str, Generator], to_page: homography.Matrix
) -> None:
    if "moire" in amounts:
        light.moire(picture, amounts["moire"], rngs["moire"], to_page)
    if "shading" in amounts:
        light.shade(picture, amounts["shading"], rngs["shading"])
    if "glare" in amounts:
        light.glare(picture, amounts["glare"], rngs["glare"])


def _record(
    picture: optics.Pixels, amounts: Mapping[str, float], rngs: Mapping[str, Generator], scale: float
) -> tuple[bytes, str]:
    """The file and its suffix."""
    if "lowres" in amounts:
        picture = sensor.lowres(picture, amounts["lowres"])
    if "noise" in amounts:
        sensor.add_noise(picture, amounts["noise"], rngs["noise"])
    if "bilevel" in amounts:
        return sensor.encode(
            sensor.bilevel(picture, amounts["bilevel"], rngs["bilevel"], scale), amounts.get("jpeg", 0)
        )
    return sensor.encode(picture, amounts.get("jpeg", 0.0))
