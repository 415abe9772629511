"""Plots and drawings without an ECG: charts, curves on graph paper, empty paper, floor plans."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from render.negatives.drawing import Colour, brighten, colour, font_of, paper_and_ink, pseudo_words, title
from render.pages.layout import sample_layout
from render.pages.page import draw
from render.pages.style import sample_style
from render.record import LEADS, EcgRecord

_EMPTY_HZ = 100.0
_Points = NDArray[np.float64]


def chart(rng: Generator, width: int, height: int) -> Image.Image:
    """Bars, lines, areas, dots or candles between two axes with figures, a title and in half of the charts a legend."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    left, top, right, foot = _axes(pen, rng, width, height, ink)
    kind: Callable[..., None] = (_bars, _lines, _areas, _dots, _candles)[int(rng.integers(5))]
    kind(pen, rng, (left, top, right, foot))
    if rng.random() < 0.5:
        for k, word in enumerate(pseudo_words(rng, int(rng.integers(2, 5)))):
            y = top + 16 * k
            pen.rectangle((right - 70, y + 2, right - 60, y + 12), fill=colour(rng, vivid=(0.4, 1)))
            pen.text((right - 55, y), word, fill=ink, font=font_of(11))
    return image


def _axes(
    pen: ImageDraw.ImageDraw, rng: Generator, width: int, height: int, ink: Colour
) -> tuple[float, float, float, float]:
    """Draw axes, figures and title; returns the box between them."""
    left, right = width * rng.uniform(0.07, 0.15), width * rng.uniform(0.9, 0.98)
    top, foot = height * rng.uniform(0.08, 0.2), height * rng.uniform(0.8, 0.92)
    pen.text((left, 4), title(rng, int(rng.integers(2, 6))), fill=ink, font=font_of(max(12, int(top * 0.5))))
    rule = brighten(ink, 3.0) if max(ink) < 90 else brighten(ink, 0.6)
    marks, step = int(rng.integers(3, 8)), int(rng.choice([1, 2, 5, 10, 25, 100]))
    for k in range(marks + 1):
        y = foot - (foot - top) * k / marks
        pen.line((left, y, right, y), fill=rule)
        pen.text((left - 4, y), str(k * step), fill=ink, font=font_of(11), anchor="rm")
    for k, word in enumerate(pseudo_words(rng, marks)):
        x = left + (right - left) * (k + 0.5) / marks
        pen.text((x, foot + 4), word[:6], fill=ink, font=font_of(11), anchor="ma")
    pen.line((left, top, left, foot, right, foot), fill=ink, width=2)
    return left, top, right, foot


def _bars(pen: ImageDraw.ImageDraw, rng: Generator, box: tuple[float, float, float, float]) -> None:
    left, top, right, foot = box
    groups, each = int(rng.integers(3, 14)), int(rng.integers(1, 4))
    colours = [colour(rng, vivid=(0.3, 1)) for _ in range(each)]
    wide = (right - left) / groups
    for g in range(groups):
        for k, share in enumerate(rng.uniform(0.05, 1, each)):
            x = left + wide * (g + 0.1 + 0.8 * k / each)
            pen.rectangle((x, foot - (foot - top) * share, x + wide * 0.75 / each, foot - 1), fill=colours[k])


def _walk(rng: Generator, box: tuple[float, float, float, float], count: int) -> _Points:
    """(count, 2): a random walk on a slow trend, without anything like a heartbeat."""
    left, top, right, foot = box
    y = np.cumsum(rng.normal(size=count)) + rng.normal() * np.linspace(0, 2 * np.sqrt(count), count)
    y = (y - y.min()) / (np.ptp(y) + 1e-9) * rng.uniform(0.5, 0.95)
    return np.column_stack([np.linspace(left, right, count), foot - (foot - top) * (y + 0.02)])


def _lines(pen: ImageDraw.ImageDraw, rng: Generator, box: tuple[float, float, float, float]) -> None:
    for _ in range(int(rng.integers(1, 5))):
        points = _walk(rng, box, int(rng.integers(5, 150)))
        shade = colour(rng, vivid=(0.4, 1), light=(0.3, 0.9))
        pen.line(points.ravel().tolist(), fill=shade, width=int(rng.integers(1, 5)))
        if len(points) < 25:
            for x, y in points:
                pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=shade)


def _areas(pen: ImageDraw.ImageDraw, rng: Generator, box: tuple[float, float, float, float]) -> None:
    left, _, right, foot = box
    for _ in range(int(rng.integers(1, 4))):
        points = _walk(rng, box, int(rng.integers(5, 60))).ravel().tolist()
        pen.polygon([left, foot, *points, right, foot], fill=colour(rng, vivid=(0.3, 1)))


def _dots(pen: ImageDraw.ImageDraw, rng: Generator, box: tuple[float, float, float, float]) -> None:
    left, top, right, foot = box
    for _ in range(int(rng.integers(1, 4))):
        shade, size = colour(rng, vivid=(0.3, 1), light=(0.2, 0.9)), rng.uniform(1.5, 7)
        sigma = rng.uniform(0.04, 0.2, 2)
        for x, y in np.clip(rng.normal(rng.uniform(0.2, 0.8, 2), sigma, (int(rng.integers(15, 90)), 2)), 0, 1):
            at = left + (right - left) * x, foot - (foot - top) * y
            pen.ellipse((at[0] - size, at[1] - size, at[0] + size, at[1] + size), fill=shade)


def _candles(pen: ImageDraw.ImageDraw, rng: Generator, box: tuple[float, float, float, float]) -> None:
    """A candlestick chart of a share price: green up, red down."""
    points = _walk(rng, box, int(rng.integers(15, 70)))
    wide = (points[1, 0] - points[0, 0]) * 0.35
    for k in range(1, len(points)):
        x, (was, now) = points[k, 0], (points[k - 1, 1], points[k, 1])
        low, high = min(was, now), max(was, now)
        shade = (30, 150, 70) if now < was else (200, 40, 40)
        tall = rng.uniform(2, 12)
        pen.line((x, low - tall, x, high + tall), fill=shade)
        pen.rectangle((x - wide, low, x + wide, high + 1), fill=shade)


def pie(rng: Generator, width: int, height: int) -> Image.Image:
    """One to three pie or ring charts."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    count = int(rng.integers(1, 4)) if width > height else 1
    for k in range(count):
        size = min(width / count, height) * rng.uniform(0.25, 0.45)
        x, y = width * (k + 0.5) / count, height * rng.uniform(0.45, 0.6)
        ends = np.append(0, np.cumsum(rng.dirichlet(np.full(int(rng.integers(2, 9)), 2.0)))) * 360
        for start, end in pairwise(ends):
            pen.pieslice((x - size, y - size, x + size, y + size), start, end, fill=colour(rng), outline=paper)
            angle = np.radians((start + end) / 2)
            at = (x + 1.15 * size * np.cos(angle), y + 1.15 * size * np.sin(angle))
            pen.text(at, f"{(end - start) / 3.6:.0f} %", fill=ink, font=font_of(13), anchor="mm")
        if rng.random() < 0.4:
            hole = size * rng.uniform(0.3, 0.7)
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=paper)
    pen.text((8, 6), title(rng, 4), fill=ink, font=font_of(int(rng.integers(12, 30))))
    return image


def graph_paper(rng: Generator, width: int, height: int) -> Image.Image:
    """Graph paper, in a third of the cases red like an ECG's: with a large curve and axes, with polygons, or empty."""
    image, ink = _squared_paper(rng, width, height)
    pen = ImageDraw.Draw(image)
    kind = rng.random()
    if kind < 0.2:
        return image
    if kind < 0.4:
        for _ in range(int(rng.integers(2, 9))):
            points = rng.uniform(0, 1, (int(rng.integers(2, 6)), 2)) * (width, height)
            pen.polygon(points.ravel().tolist(), outline=ink, width=int(rng.integers(1, 4)))
        return image
    middle = height * rng.uniform(0.4, 0.6)
    pen.line((0, middle, width, middle), fill=ink, width=2)
    at = width * rng.uniform(0.02, 0.5)
    pen.line((at, 0, at, height), fill=ink, width=2)
    x = np.linspace(-1, 1, 300)
    for _ in range(int(rng.integers(1, 4))):
        y = _function(rng, x) * height * rng.uniform(0.25, 0.45)
        points = np.column_stack([(x + 1) / 2 * width, middle - y])
        pen.line(points.ravel().tolist(), fill=colour(rng, light=(0, 0.8)), width=int(rng.integers(2, 6)))
    pen.text((at + 6, 4), f"y = {pseudo_words(rng, 1)[0]}(x)", fill=ink, font=font_of(int(rng.integers(14, 30))))
    return image


def empty_form(rng: Generator, width: int, height: int) -> Image.Image:
    """A page of `render.pages.page`, of any layout and paper, without a heartbeat: no traces, or flat ones.

    Flat traces are those of open electrodes; they could be asystole, but no picture can distinguish the two.
    """
    layout = sample_layout("mixed", rng)
    at = np.arange(round(layout.seconds * _EMPTY_HZ)) / _EMPTY_HZ
    if rng.random() < 0.5:
        signal = np.full((len(LEADS), at.size), np.nan)
        signal[:, 0] = 0.0  # a lead of one sample has no line
    else:
        slow, phases = rng.uniform(0.0, 0.15) * rng.random((len(LEADS), 1)), rng.uniform(0, 2 * np.pi, (len(LEADS), 1))
        signal = slow * np.sin(2 * np.pi * rng.uniform(0.05, 0.4) * at + phases)
        signal += rng.normal(0, rng.uniform(0.0, 0.02), signal.shape)
    page = draw(
        EcgRecord("", signal.astype(np.float32), _EMPTY_HZ, ""),
        layout=layout.name,
        width=round(layout.width * rng.uniform(2.5, 5.0)),
        paper=sample_style("mixed", rng).paper,
    )
    resize = ImageOps.contain if width > height else ImageOps.fit  # the whole page, or a part that fills the picture
    return resize(page.to_pil(), (width, height))


def _function(rng: Generator, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A textbook curve within -1 to 1: a slow sine, a parabola, a bell, a decay, a step, a damped sine."""
    kind, a, b = int(rng.integers(6)), rng.uniform(1, 4), rng.uniform(-0.5, 0.5)
    curves = (
        np.sin(np.pi * a * x + b),
        2 * (x - b) ** 2 - 1,
        np.exp(-8 * a * (x - b) ** 2),
        np.exp(-a * (x + 1)) * 2 - 1,
        np.tanh(3 * a * (x - b)),
        np.sin(np.pi * 3 * a * x) * np.exp(-a * (x + 1)),
    )
    return np.asarray(np.clip(curves[kind] * rng.choice([-1, 1]), -1, 1))


def _squared_paper(rng: Generator, width: int, height: int) -> tuple[Image.Image, Colour]:
    """Squared paper and an ink that contrasts with it."""
    red = rng.random() < 0.35
    ground: Colour = (255, 246, 244) if red else paper_and_ink(rng)[0]
    line = (240, 160, 155) if red else brighten(colour(rng, light=(0.6, 0.95), vivid=(0.2, 0.6)), 0.95)
    rows = np.broadcast_to(np.array(ground, np.uint8), (height, width, 3)).copy()
    step, each = int(rng.integers(4, 24)), int(rng.choice([1, 5, 10]))
    for every, shade in ((step, line), (step * each, brighten(line, 0.8))):
        rows[::every] = shade
        rows[:, ::every] = shade
    return Image.fromarray(rows), (20, 20, 40) if sum(ground) > 380 else (240, 240, 240)


def floor_plan(rng: Generator, width: int, height: int) -> Image.Image:
    """A map or a diagram: regions with streets between them, or boxes joined by lines, with names."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    boxes = rng.random() < 0.5
    spots = rng.uniform(0.05, 0.95, (int(rng.integers(4, 14)), 2)) * (width, height)
    for start, end in zip(spots, np.roll(spots, 1, axis=0), strict=True):
        bend = (start[0], end[1]) if boxes else tuple((start + end) / 2 + rng.normal(0, 0.08 * width, 2))
        pen.line([*start, *bend, *end], fill=colour(rng), width=int(rng.integers(2, 4 if boxes else 14)))
    for x, y in spots:
        wide, tall = rng.uniform(0.04, 0.16, 2) * min(width, height)
        shade = colour(rng, light=(0.5, 1.0))
        if boxes:
            pen.rectangle((x - wide, y - tall, x + wide, y + tall), fill=shade, outline=ink)
        else:
            around = np.sort(rng.uniform(0, 2 * np.pi, 9))
            corners = np.column_stack([x + 1.4 * wide * np.cos(around), y + 1.4 * tall * np.sin(around)])
            pen.polygon(corners.ravel().tolist(), fill=shade)
        pen.text((x, y), pseudo_words(rng, 1)[0][:9], fill=ink, font=font_of(int(rng.integers(10, 18))), anchor="mm")
    return image
