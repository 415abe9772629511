"""The pen: anti-aliased lines and text as a layer of ink, and the page as a PNG.

A layer is uint8 (height, width): 0 bare paper, 255 full ink. Coordinates are pixels with the *centre* of the
top left pixel at (0, 0), so that a whole number of pixels per millimetre puts grid lines on pixels, not
between them.

A line segment is a capsule: every point within half the line's width of it. A pixel's ink is
clip(width / 2 + 1/2 - distance of its centre to the segment, 0, 1), and where capsules overlap the larger ink
counts. Summed across the line this gives the requested width at every slope, and a joint is never darker than
the line. The tests compare it with a slow and simple implementation.
"""

from __future__ import annotations

import math
import struct
import zlib
from functools import lru_cache

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from render.jit import jit

INK_LEVELS = 32
"""Shades from bare to full ink in a page's palette."""
MAX_TONES = 8
"""Shades of the paper's grid in a page's palette; INK_LEVELS * MOST_TONES fill 8 bits."""


@jit
def _capsule(layer, ax, ay, bx, by, half):  # type: ignore[no-untyped-def]  # numba infers these
    """Put the capsule from (ax, ay) to (bx, by), of half-width `half`, into `layer`; all in pixels."""
    height, width = layer.shape
    reach = half + 0.5
    dx, dy = bx - ax, by - ay
    length_2 = dx * dx + dy * dy
    inverse = 1.0 / length_2 if length_2 > 0.0 else 0.0
    top = max(0, math.ceil(min(ay, by) - reach))
    bottom = min(height - 1, math.floor(max(ay, by) + reach))
    left = max(0, math.ceil(min(ax, bx) - reach))
    right = min(width - 1, math.floor(max(ax, bx) + reach))
    # A row crosses the capsule only this close to the line: for a steep line, searching its whole box would be slow.
    steep = abs(dy) > reach
    slope = dx / dy if steep else 0.0
    half_chord = reach * math.sqrt(length_2) / abs(dy) if steep else 0.0
    for y in range(top, bottom + 1):
        row = layer[y]
        py = y - ay
        first, last = left, right
        if steep:
            middle = ax + py * slope
            first = max(first, math.ceil(middle - half_chord))
            last = min(last, math.floor(middle + half_chord))
        for x in range(first, last + 1):
            px = x - ax
            along = min(1.0, max(0.0, (px * dx + py * dy) * inverse))
            ex, ey = px - along * dx, py - along * dy
            away = ex * ex + ey * ey
            if away < reach * reach:
                at = np.uint64(x)  # a signed index costs numba a test for negative ones at every pixel
                row[at] = max(row[at], np.uint8(min(1.0, reach - math.sqrt(away)) * 255.0 + 0.5))


@jit
def _polyline(layer, x0, x_step, ys, scale, baseline, half):  # type: ignore[no-untyped-def]
    """Join the points (x0 + i * x_step, baseline - scale * ys[i]); what is not finite leaves a gap."""
    n = ys.size
    follows_line = False
    for i in range(n):
        if not math.isfinite(ys[i]):
            follows_line = False
            continue
        ax, ay = x0 + i * x_step, baseline - scale * ys[i]
        if i + 1 < n and math.isfinite(ys[i + 1]):
            _capsule(layer, ax, ay, ax + x_step, baseline - scale * ys[i + 1], half)
            follows_line = True
        elif not follows_line:  # a sample between two gaps is a dot
            _capsule(layer, ax, ay, ax, ay, half)


@jit
def _traces(layer, signal, rows, firsts, lasts, x0s, x_step, scales, baselines, half):  # type: ignore[no-untyped-def]
    for k in range(rows.size):
        samples = signal[rows[k], firsts[k] : lasts[k]]
        _polyline(layer, x0s[k], x_step, samples, scales[k], baselines[k], half)


def draw_traces(
    layer: NDArray[np.uint8],
    signal: NDArray[np.float32],
    *,
    rows: NDArray[np.int64],
    firsts: NDArray[np.int64],
    lasts: NDArray[np.int64],
    x0s: NDArray[np.float64],
    x_step: float,
    scales: NDArray[np.float64],
    baselines: NDArray[np.float64],
    width: float,
) -> None:
    """Draw all traces of a page into `layer`, in one compiled call.

    Args:
        signal: (leads, n) mV. Trace k shows samples firsts[k]:lasts[k] of signal[rows[k]]: the first at x0s[k], the
            next ones x_step pixels apart, scales[k] pixels per mV above baselines[k]. A sample that is not finite
            leaves a gap.
        width: of the line, pixels, at least 1 (a thinner one would only be paler, not thinner).
    """
    _traces(layer, signal, rows, firsts, lasts, x0s, float(x_step), scales, baselines, width / 2)


def draw_line(layer: NDArray[np.uint8], points: NDArray[np.float64], width: float) -> None:
    """Draw the polyline through `points`, (n, 2) pixels as x and y, with a line of `width` pixels (>= 1)."""
    for (ax, ay), (bx, by) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
        _capsule(layer, ax, ay, bx, by, width / 2)


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType and cannot draw text; install Pillow's own wheel")
    return font


@lru_cache(maxsize=512)
def _text_bitmap(text: str, size: float) -> tuple[NDArray[np.uint8], int, int]:
    """A line of text as ink (height, width), and its top left corner from the start of its baseline."""
    font = _font(size)
    left, top, right, bottom = (math.floor(v) for v in font.getbbox(text, anchor="ls"))
    sheet = Image.new("L", (max(right - left, 0) + 4, max(bottom - top, 0) + 4))
    ImageDraw.Draw(sheet).text((2 - left, 2 - top), text, fill=255, font=font, anchor="ls")
    box = sheet.getbbox() or (2, 2, 2, 2)
    bitmap = np.array(sheet.crop(box), dtype=np.uint8)
    bitmap.setflags(write=False)
    return bitmap, box[0] - 2 + left, box[1] - 2 + top


def text_width(text: str, size: float) -> int:
    """Pixels from a text's start to the right end of its last letter."""
    bitmap, left, _ = _text_bitmap(text, size)
    return int(bitmap.shape[1]) + left


def draw_text(layer: NDArray[np.uint8], text: str, x: float, y: float, size: float) -> tuple[int, int, int, int]:
    """Draw `text` in Pillow's own font, from `x` along the baseline `y`, all in pixels, clipped at the page.

    Returns the box of its letters: x0, y0, x1, y1, x1 and y1 excluded.
    """
    bitmap, offset_x, offset_y = _text_bitmap(text, size)
    left, top = round(x) + offset_x, round(y) + offset_y
    height, width = layer.shape
    x0, x1 = (min(max(at, 0), width) for at in (left, left + bitmap.shape[1]))
    y0, y1 = (min(max(at, 0), height) for at in (top, top + bitmap.shape[0]))
    part = layer[y0:y1, x0:x1]
    np.maximum(part, bitmap[y0 - top : y1 - top, x0 - left : x1 - left], out=part)
    return x0, y0, x1, y1


_LEVEL_OF_INK = np.rint(np.arange(256) * (INK_LEVELS - 1) / 255).astype(np.uint8)


@jit
def _add_levels(page, ink, words, level_of_ink):  # type: ignore[no-untyped-def]
    for word in range(words.size):
        if words[word]:  # nineteen of twenty have no ink
            for i in range(8 * word, 8 * word + 8):
                page[i] += level_of_ink[ink[i]]
    for i in range(8 * words.size, page.size):
        page[i] += level_of_ink[ink[i]]


def compose(bare: NDArray[np.uint8], ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Palette indices (height, width) of `ink` over the `bare` page's (tone * INK_LEVELS): see `palette`."""
    page, flat = bare.copy(), np.ascontiguousarray(ink).reshape(-1)
    words = flat[: flat.size // 8 * 8].view(np.uint64)  # eight pixels at once
    _add_levels(page.reshape(-1), flat, words, _LEVEL_OF_INK)
    return page


def palette(tones: NDArray[np.float64], ink: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(256, 3) RGB for `compose`: at tone * INK_LEVELS + level, the tone's colour under that much ink.

    Args:
        tones: (at most MOST_TONES, 3).
        ink: (3,); RGB, 0-255.
    """
    share = np.linspace(0.0, 1.0, INK_LEVELS)[None, :, None]
    colours = tones[:, None, :] * (1.0 - share) + ink[None, None, :] * share
    table = np.zeros((INK_LEVELS * MAX_TONES, 3), dtype=np.uint8)
    table[: tones.shape[0] * INK_LEVELS] = np.rint(colours).reshape(-1, 3)
    return table


# ISA-L's igzip, levels 0 to 3: six times as fast as zlib's level 3 on such pages, and a fifteenth larger.
_COMPRESSION_LEVEL = 1


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bytes(image: NDArray[np.uint8], table: NDArray[np.uint8], px_per_mm: float) -> bytes:
    """An 8-bit palette PNG (ISO/IEC 15948) of indices (height, width), with its true size in a pHYs chunk."""
    height, width = image.shape
    # Filter "none" (type 0): graph paper repeats itself every 5 mm, which the compressor uses without a filter.
    # The difference to the row above ("up") was measured: as fast, and a tenth larger.
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = image
    per_metre = round(px_per_mm * 1000)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", table.tobytes()),
            _chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
            _chunk(b"IDAT", isal_zlib.compress(rows.data, _COMPRESSION_LEVEL)),
            _chunk(b"IEND", b""),
        )
    )
