"""Colours, fonts, pseudo-words and random fields, of which all pictures without an ECG are made."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import font_amatic_sc
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_CLOUD = 224  # pixels a side on which a cloud is computed; finer detail costs time and is noise
_SYLLABLES = "ba de fi go lu ma ne ri so tu ker lan mor pen sti tra ver win dal chen ost und ing er the and to of in"
_SYLLABLE_LIST = tuple(_SYLLABLES.split())


def colour(rng: Generator, *, light: tuple[float, float] = (0.1, 1.0), vivid: tuple[float, float] = (0, 1)) -> Colour:
    """A colour of any hue. light, vivid: the ranges of its value and saturation (0-1)."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*vivid), rng.uniform(*light))
    return round(255 * red), round(255 * green), round(255 * blue)


def brighten(base: Colour, factor: float) -> Colour:
    """The colour with `factor` times its brightness (below 1: darker), clipped at white."""
    red, green, blue = (min(255, max(0, round(part * factor))) for part in base)
    return red, green, blue


def paper_and_ink(rng: Generator) -> tuple[Colour, Colour]:
    """Colours of background and text: mostly dark on light, in 15 % light on dark."""
    if rng.random() < 0.15:
        return colour(rng, light=(0.0, 0.25), vivid=(0, 0.6)), colour(rng, light=(0.75, 1.0), vivid=(0, 0.5))
    paper = (255, 255, 255) if rng.random() < 0.3 else colour(rng, light=(0.82, 1.0), vivid=(0.0, 0.2))
    return paper, colour(rng, light=(0.0, 0.4), vivid=(0.0, 0.8))


def pseudo_words(rng: Generator, count: int) -> list[str]:
    """Random words of no language, with some numbers among them."""
    lengths = rng.integers(1, 4, count)
    parts = rng.integers(len(_SYLLABLE_LIST), size=(count, 3))
    numbers = rng.integers(1, 10_000, count)
    plain = rng.random(count)
    return [
        str(numbers[k]) if plain[k] < 0.08 else "".join(_SYLLABLE_LIST[i] for i in parts[k, : lengths[k]])
        for k in range(count)
    ]


def title(rng: Generator, count: int = 3) -> str:
    """A few pseudo-words with capitals, as above a picture."""
    return " ".join(pseudo_words(rng, count)).title()


@lru_cache(maxsize=64)
def font_of(pixels: int, handwriting: bool = False) -> Font:
    """The font for print, or for handwriting, so many pixels tall."""
    return ImageFont.truetype(font_amatic_sc.AmaticSCBold, pixels) if handwriting else ImageFont.load_default(pixels)


def cloud(rng: Generator, width: int, height: int, *, rough: float | None = None) -> Image.Image:
    """A grey picture: a random field whose amplitude falls with its frequency, as in photographs.

    Args:
        rough: amplitude of each octave relative to the next lower one; 0.5 is the 1/f spectrum of natural scenes
            (Field 1987, Relations between the statistics of natural images and the response properties of cortical
            cells).
    """
    rough = rng.uniform(0.3, 0.8) if rough is None else rough
    small = (min(width, _CLOUD), max(2, round(height * min(width, _CLOUD) / width)))
    field = np.zeros(small[::-1], dtype=np.float32)
    amount, cells = 1.0, float(rng.uniform(1.5, 5.0))
    while cells < _CLOUD / 2:
        shape = (max(2, round(cells * height / width) + 1), max(2, round(cells) + 1))
        grain = Image.fromarray(rng.random(shape, dtype=np.float32) * np.float32(amount))
        field += np.asarray(grain.resize(small, Image.Resampling.BILINEAR))
        amount, cells = amount * rough, cells * 2.3
    low, high = field.min(), field.max()
    levels = Image.fromarray(((field - low) * (255 / max(float(high - low), 1e-6))).astype(np.uint8))
    return levels.resize((width, height), Image.Resampling.BICUBIC)


def colourise(grey: Image.Image, *stops: Colour) -> Image.Image:
    """A grey picture in colours: from the first of `stops` for black to the last for white."""
    places = np.linspace(0, 255, len(stops))
    tables = [np.interp(np.arange(256), places, [stop[k] for stop in stops]).round().astype(int) for k in range(3)]
    return Image.merge("RGB", [grey.point(table.tolist()) for table in tables])


def colour_gradient(width: int, height: int, *stops: Colour, across: bool = False) -> Image.Image:
    """From the first colour at the top (left with `across`) to the last at the bottom (right)."""
    line = np.array([stops], dtype=np.uint8) if across else np.array([[stop] for stop in stops], dtype=np.uint8)
    return Image.fromarray(line).resize((width, height), Image.Resampling.BILINEAR)
