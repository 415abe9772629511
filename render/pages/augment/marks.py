"""Marks of use on a sheet of paper before it is scanned: notes, stamps, stains and creases.

No mark names a finding: a finding written on the page would tell a reader the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import font_amatic_sc
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from render.jit import jit
from render.pages.augment.optics import Pixels
from render.pages.page import PRINT_CLASS, SIGNAL_CLASS

Ink = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sheet:
    """Paper to put marks on. pixels: uint8 (height, width, 4); mask: of the page, uint8 (height, width), or None."""

    pixels: Pixels
    mask: NDArray[np.uint8] | None
    px_per_mm: float


def _apply_ink(sheet: Sheet, ink: Ink, left: int, top: int, colour: tuple[int, int, int], text: bool) -> None:
    """Multiply the paper by a translucent colour where `ink` (0-1) lies, clipped at the sheet."""
    height, width = sheet.pixels.shape[:2]
    x0, x1 = (min(max(at, 0), width) for at in (left, left + ink.shape[1]))
    y0, y1 = (min(max(at, 0), height) for at in (top, top + ink.shape[0]))
    if x0 == x1 or y0 == y1:
        return
    threshold = np.float32(0.5) * ink.max()
    ink = ink[y0 - top : y1 - top, x0 - left : x1 - left]
    part = sheet.pixels[y0:y1, x0:x1]
    for channel, level in enumerate(colour):
        part[..., channel] = part[..., channel] * (1.0 - ink * np.float32(1.0 - level / 255.0)) + np.float32(0.5)
    if text and sheet.mask is not None:
        classes = sheet.mask[y0:y1, x0:x1]  # a trace stays visible through the ink
        classes[(ink > threshold) & (classes != SIGNAL_CLASS)] = PRINT_CLASS


# --- handwriting ---

_BIROS = ((24, 46, 138), (28, 62, 170), (30, 30, 34), (20, 20, 26), (176, 28, 36))
_PENCIL_MM = 0.45
_OVERSAMPLING = 2  # letters are drawn with this many times the page's pixels a side, then reduced


@lru_cache(maxsize=64)
def _script(pixels: int, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_amatic_sc.AmaticSCBold if bold else font_amatic_sc.AmaticSC, pixels)


def _initials(rng: Generator) -> str:
    return "".join(rng.choice(list("ABCDEFGHJKLMNPRSTW"), rng.integers(2, 4)))


def _date(rng: Generator) -> str:
    form = rng.choice(["{d}/{m}/{y:02d}", "{d}.{m}.{y:02d}", "{d:02d}-{m:02d}-20{y:02d}", "{d}/{m}"])
    return str(form).format(d=rng.integers(1, 29), m=rng.integers(1, 13), y=rng.integers(5, 26))


def _time(rng: Generator) -> str:
    form = rng.choice(["{h:02d}:{m:02d}", "{h:02d}{m:02d}h", "@ {h}:{m:02d}"])
    return str(form).format(h=rng.integers(0, 24), m=rng.integers(0, 60))


_PHRASES = ("seen", "seen {i}", "copy for GP", "to file", "noted", "checked {i}", "ECG {n}", "page {n}", "scan pls")
_PLACES = ("bed {b}", "ward {n}", "Dr {i}", "bay {n} bed {b}", "cc {i}", "room {b}", "clinic {n}")


def _phrase(rng: Generator) -> str:
    words = str(rng.choice(_PHRASES + _PLACES))
    return words.format(i=_initials(rng), n=rng.integers(1, 7), b=rng.integers(1, 31))


def _note(rng: Generator) -> str:
    makers: tuple[Callable[[Generator], str], ...] = (_initials, _date, _time, _phrase, _phrase)
    return " ".join(makers[i](rng) for i in rng.permutation(len(makers))[: rng.integers(1, 3)])


def handwriting(sheet: Sheet, strength: float, rng: Generator) -> None:
    """Notes, ticks, rings and underlines in biro; up to six of them, with letters up to 8 mm high."""
    colour = _BIROS[rng.integers(len(_BIROS))]
    for _ in range(1 + round(5 * strength)):
        if rng.random() < 0.7:
            note, tall = _note(rng), rng.uniform(4.0, 4.5 + 3.5 * strength) * sheet.px_per_mm
            ink = _write_line(note, tall, sheet.px_per_mm, rng)
        else:
            ink = _scribble(rng, strength, sheet.px_per_mm)
        y, x = (rng.uniform(0.0, max(1.0, sheet.pixels.shape[k] - ink.shape[k])) for k in (0, 1))
        if rng.random() < 0.6:  # in the upper or the lower margin
            y = rng.choice([0.01 * sheet.pixels.shape[0], sheet.pixels.shape[0] - ink.shape[0]])
            x = rng.uniform(0.25, 0.7) * sheet.pixels.shape[1] - ink.shape[1] / 2  # between what is printed there
        _apply_ink(sheet, ink * np.float32(rng.uniform(0.8, 0.95)), round(x), round(y), colour, text=True)


def _as_ink(image: Image.Image, angle: float) -> Ink:
    image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True).reduce(_OVERSAMPLING)
    return np.asarray(image, dtype=np.float32) / np.float32(255.0)


def _write_line(text: str, tall: float, px_per_mm: float, rng: Generator) -> Ink:
    """A line of handwriting, letters about `tall` pixels high, on a slightly wavy baseline."""
    font = _script(max(8, round(tall * _OVERSAMPLING * 1.25)), bool(rng.random() < 0.6))
    thick = max(0, round(0.1 * px_per_mm * _OVERSAMPLING))
    sway, turn = rng.uniform(0.02, 0.07) * tall * _OVERSAMPLING, rng.uniform(0.0, 6.0)
    ends = np.cumsum([font.getlength(letter) * rng.uniform(0.96, 1.12) + thick for letter in text])
    pad = round(0.6 * tall * _OVERSAMPLING)
    image = Image.new("L", (round(ends[-1]) + 2 * pad, round(1.2 * tall * _OVERSAMPLING) + 2 * pad))
    pen = ImageDraw.Draw(image)
    for letter, start in zip(text, [0.0, *ends[:-1]], strict=True):
        drop = sway * (math.sin(turn + start / (1.3 * tall * _OVERSAMPLING)) + rng.uniform(-0.4, 0.4))
        at = (pad + start, pad + 1.1 * tall * _OVERSAMPLING + drop)
        pen.text(at, letter, fill=255, font=font, anchor="ls", stroke_width=thick)
    box = image.getbbox() or (0, 0, 8, 8)
    return _as_ink(image.crop(box), rng.uniform(-7.0, 7.0))


def _scribble(rng: Generator, strength: float, px_per_mm: float) -> Ink:
    """A tick, a ring or an underline."""
    wide = rng.uniform(8.0, 10.0 + 14.0 * strength) * px_per_mm * _OVERSAMPLING
    t = np.linspace(0.0, 1.0, 48)
    kind = rng.integers(3)
    if kind == 0:  # a tick
        x, y = np.array([0.03, 0.15, 0.3]) * wide, np.array([0.2, 0.36, 0.03]) * wide
    elif kind == 1:  # a ring, not quite closed
        round_by = 2.0 * math.pi * (t * rng.uniform(0.97, 1.1) + rng.uniform(0.0, 1.0))
        x = wide * (0.5 + 0.45 * np.cos(round_by) + 0.03 * t)
        y = wide * rng.uniform(0.35, 0.7) * (0.5 + 0.45 * np.sin(round_by) + 0.06 * t)
    else:
        x, y = wide * t, wide * 0.02 * (1.5 + np.sin(5.0 * t + rng.uniform(0.0, 6.0)))
    pad = 0.1 * wide
    image = Image.new("L", (math.ceil(x.max() + 2 * pad), math.ceil(y.max() + 2 * pad)))
    line = max(1, round(_PENCIL_MM * px_per_mm * _OVERSAMPLING))
    points = list(zip((x + pad).tolist(), (y + pad).tolist(), strict=True))
    ImageDraw.Draw(image).line(points, fill=255, width=line, joint="curve")
    return _as_ink(image, rng.uniform(-6.0, 6.0))


# --- stamps ---

_PADS = ((52, 58, 150), (92, 52, 140), (190, 34, 44), (40, 40, 46), (30, 110, 80))
_STAMP_WORDS = ("COPY", "SCANNED", "RECEIVED", "ARCHIVE", "FILED", "ORIGINAL", "DUPLICATE", "CARDIOLOGY", "OUTPATIENTS")


@lru_cache(maxsize=32)
def _type(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(pixels)


def stamp(sheet: Sheet, strength: float, rng: Generator) -> None:
    """One to three impressions of rubber stamps, 25 to 50 mm wide, with more ink the stronger they are."""
    for _ in range(1 + round(2 * strength * rng.random())):
        ink = _impression(rng, rng.uniform(25.0, 32.0 + 18.0 * strength) * sheet.px_per_mm)
        y, x = (rng.uniform(-0.1, 1.0) * max(1.0, sheet.pixels.shape[k] - 0.9 * ink.shape[k]) for k in (0, 1))
        full = np.float32(rng.uniform(0.45, 0.55 + 0.3 * strength))
        _apply_ink(sheet, ink * full, round(x), round(y), _PADS[rng.integers(len(_PADS))], text=True)


def _impression(rng: Generator, wide: float) -> Ink:
    """A stamp's uneven ink: a frame or a ring around one to three lines of text."""
    lines = [str(rng.choice(_STAMP_WORDS))]
    months = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
    if rng.random() < 0.7:
        lines.append(f"{rng.integers(1, 29):02d} {rng.choice(months)} 20{rng.integers(5, 26):02d}")
    if rng.random() < 0.5:
        lines.append(str(rng.choice([f"WARD {rng.integers(1, 20)}", f"No. {rng.integers(1000, 99999)}"])))
    side = round(wide * _OVERSAMPLING)
    circle = rng.random() < 0.35
    tall = side if circle else round(side * (0.14 + 0.16 * len(lines)))
    image = Image.new("L", (side, tall))
    pen = ImageDraw.Draw(image)
    line = max(1, round(side * 0.016))
    frames = (0.02, 0.07) if circle or rng.random() < 0.4 else (0.02,)
    for inset in frames:
        box = (side * inset, side * inset, side * (1 - inset), tall - side * inset)
        (pen.ellipse if circle else pen.rectangle)(box, outline=255, width=line)
    _write_centred(pen, lines, side, tall, 0.62 if circle else 0.84)
    return _as_ink(Image.fromarray(_wear_ink(np.asarray(image), rng)), rng.uniform(-16.0, 16.0))


def _write_centred(pen: ImageDraw.ImageDraw, lines: list[str], side: int, tall: int, room: float) -> None:
    height = side * 0.15
    for k, text in enumerate(lines):
        font = _type(max(6, round(height * min(1.0, room * side / (height * 0.62 * len(text))))))
        pen.text((side / 2, tall / 2 + (k - (len(lines) - 1) / 2) * height), text, fill=255, font=font, anchor="mm")


def _wear_ink(ink: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """The ink of a stamp with pale parts, and specks without ink."""
    height, width = ink.shape
    out = ink.astype(np.float32)
    for cells, low in ((4, 0.35), (40, 0.3)):
        coarse = rng.uniform(0.0, 255.0, (cells, cells)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        out *= np.clip(low + np.asarray(smooth, dtype=np.float32) / np.float32(190.0), 0.0, 1.0)
    return out.astype(np.uint8)


# --- stains ---

_LIQUIDS = ((168, 118, 66), (186, 140, 84), (150, 104, 62), (214, 190, 140), (222, 208, 178))
_CELLS = 176  # a stain is computed on so many points a side


def stain(sheet: Sheet, strength: float, rng: Generator) -> None:
    """One to three rings of cups (50 to 80 mm), or blots with a darker rim as dried liquid leaves them."""
    height, width = sheet.pixels.shape[:2]
    for _ in range(1 + round(2 * strength)):
        ring = bool(rng.random() < 0.5)
        radius = rng.uniform(25.0, 40.0) if ring else rng.uniform(8.0, 14.0 + 26.0 * strength)
        shape = _ring(rng) if ring else _blot(rng)
        side = max(8, round(2.6 * radius * sheet.px_per_mm))
        image = Image.fromarray((shape * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        ink = np.asarray(image, dtype=np.float32) * np.float32((0.25 + 0.55 * strength) * strength**0.25 / 255.0)
        x, y = round(rng.uniform(0.0, width) - side / 2), round(rng.uniform(0.0, height) - side / 2)
        _apply_ink(sheet, ink, x, y, _LIQUIDS[rng.integers(len(_LIQUIDS))], text=False)


def _polar(rng: Generator, rough: float) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Distance from the middle (1 on an uneven circle), index of the direction in tables of 512, a random table."""
    at = np.linspace(-1.3, 1.3, _CELLS)
    x, y = np.meshgrid(at, at)
    turn = np.arange(512) * (2.0 * math.pi / 512)
    orders = np.arange(1, 12)
    phases, sizes = rng.uniform(0.0, 2.0 * math.pi, (2, 11)), rng.standard_normal((2, 11)) / orders
    edge, wavy = ((np.cos(turn[:, None] * orders + phases[k]) * sizes[k]).sum(axis=1) for k in (0, 1))
    where = ((np.arctan2(y, x) / (2.0 * math.pi) % 1.0) * 512).astype(np.int64) % 512
    return np.hypot(x, y) / (1.0 + rough * edge)[where], where, wavy


def _ring(rng: Generator) -> NDArray[np.float64]:
    distance, where, wavy = _polar(rng, 0.008)
    strong = np.clip(0.6 + 0.5 * wavy, 0.05, 1.0)[where]
    width = rng.uniform(0.02, 0.05)
    band = np.exp(-(((distance - 1.0) / width) ** 2)) + 0.5 * np.exp(-(((distance - 0.93) / (2 * width)) ** 2))
    return np.asarray(np.clip(strong * band + 0.08 * (distance < 1.0), 0.0, 1.0))


def _blot(rng: Generator) -> NDArray[np.float64]:
    distance, where, wavy = _polar(rng, rng.uniform(0.06, 0.14))
    inside = 1.0 / (1.0 + np.exp((distance - 1.0) / 0.015))
    rim = np.exp(-np.abs(distance - 0.98) / 0.035) * np.clip(0.6 + 0.4 * wavy, 0.1, 1.0)[where]
    return np.asarray(np.clip(inside * (0.3 + 0.7 * rim), 0.0, 1.0))


# --- creases ---

_REACH_MM, _PER_MM = 28.0, 8


def crease(sheet: Sheet, strength: float, rng: Generator) -> None:
    """One to four folds: a dark and a bright line side by side, with shading beside them; nothing is moved."""
    height, width = sheet.pixels.shape[:2]
    for k in range(1 + round(3 * strength * rng.random())):
        if k == 0:  # folded in the middle or in three, as for an envelope
            angle = rng.choice([0.0, math.pi / 2]) + rng.normal(0.0, 0.01)
            share = rng.choice([1 / 3, 1 / 2, 2 / 3])
        else:
            angle, share = rng.uniform(0.0, math.pi), rng.uniform(0.15, 0.85)
        normal = np.array([math.cos(angle), math.sin(angle)])
        start = float(normal @ [share * width, share * height])
        wobble = np.convolve(rng.standard_normal(270), np.hanning(15), mode="valid")[:256] * 0.05 * sheet.px_per_mm
        gains = _fold(strength * rng.uniform(0.7, 1.0), rng).astype(np.float32)
        _shade_fold(sheet.pixels, normal, start, _PER_MM / sheet.px_per_mm, gains, wobble)


def _fold(strength: float, rng: Generator) -> NDArray[np.float64]:
    """Brightness factors of the paper at -_REACH_MM to _REACH_MM from a fold."""
    mm = np.linspace(-_REACH_MM, _REACH_MM, round(2 * _REACH_MM * _PER_MM) + 1)
    side = rng.choice([-1.0, 1.0])
    dark = 0.30 * np.exp(-(((mm - 0.35 * side) / 0.45) ** 2))
    bright = 0.5 * np.exp(-(((mm + 0.4 * side) / 0.5) ** 2))
    slopes = 0.18 * np.sign(mm * side) * np.exp(-np.abs(mm) / 7.0)
    return np.asarray(1.0 + strength * (bright - dark - 0.5 * np.abs(slopes) - 0.5 * slopes))


@jit
def _shade_fold(pixels, normal, start, per_pixel, gains, wobble):  # type: ignore[no-untyped-def]
    middle = gains.size // 2
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            away = normal[0] * x + normal[1] * y - start
            if abs(away) * per_pixel < middle - 4:
                along = int(abs(normal[0] * y - normal[1] * x) * per_pixel / 4.0)
                gain = gains[int((away + wobble[along & 255]) * per_pixel + middle + 0.5)]
                for k in range(3):
                    pixels[y, x, k] = np.uint8(min(np.float32(pixels[y, x, k]) * gain, np.float32(255.0)))
