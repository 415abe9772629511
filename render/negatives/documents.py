"""Documents without an ECG: letters, forms, notes, screens, codes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from render.negatives.drawing import Colour, brighten, colour, font_of, paper_and_ink, pseudo_words, title


def letter(rng: Generator, width: int, height: int) -> Image.Image:
    """Lines of text in one to three columns under a title, in 30 % with a picture."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    size = int(rng.integers(8, 22))
    left, y = round(width * rng.uniform(0.04, 0.14)), round(height * rng.uniform(0.03, 0.12))
    if rng.random() < 0.8:
        head = int(size * rng.uniform(1.4, 3.0))
        pen.text((left, y), title(rng, int(rng.integers(1, 5))), fill=colour(rng, light=(0, 0.7)), font=font_of(head))
        y += round(head * 1.8)
    columns = int(rng.integers(1, 4))
    wide = (width - 2 * left) // columns
    for column in range(columns):
        _paragraphs(image, (left + column * wide, y, wide - size, height - left), size, ink, rng)
    if rng.random() < 0.3:
        x = left + int(rng.integers(columns)) * wide
        top = int(rng.integers(y, max(y + 1, height - wide // 2)))
        box = (x, top, x + wide - size, top + wide // 2)
        pen.rectangle(box, fill=colour(rng), outline=ink)
    return image


def _paragraphs(image: Image.Image, box: tuple[int, int, int, int], size: int, ink: Colour, rng: Generator) -> None:
    """Text in a column. box: x, y, width, and the y of its end. Three lines, cut at random places, make all of it."""
    x, y, wide, foot = box
    step, lines = round(size * rng.uniform(1.2, 1.7)), []
    for _ in range(3):
        line = Image.new("L", (wide + 200, step))
        text = " ".join(pseudo_words(rng, 40))[: 8 + 2 * line.width // size]
        ImageDraw.Draw(line).text((0, 0), text, fill=255, font=font_of(size))
        lines.append(line)
    while y < foot:
        line, start, ends = lines[int(rng.integers(3))], int(rng.integers(0, 200)), rng.random() < 0.18
        until = start + max(size, round(wide * (rng.uniform(0.2, 0.8) if ends else rng.uniform(0.9, 1.0))))
        image.paste(ink, (x, y), line.crop((start, 0, until, step)))
        y += 2 * step if ends else step


def form(rng: Generator, width: int, height: int) -> Image.Image:
    """A table with a head row, with rules or bands, some cells filled in by hand."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    rows, columns = int(rng.integers(4, 22)), int(rng.integers(2, 9))
    left, top = round(width * rng.uniform(0.0, 0.1)), round(height * rng.uniform(0.02, 0.2))
    ys = np.linspace(top, height - round(height * rng.uniform(0.0, 0.2)), rows + 1)
    xs = left + np.append(0, np.cumsum(rng.dirichlet(np.full(columns, 4.0)))) * (width - 2 * left)
    band, line = colour(rng, light=(0.7, 0.98), vivid=(0, 0.4)), brighten(ink, 1.6)
    size = max(8, round((ys[1] - ys[0]) * rng.uniform(0.4, 0.65)))
    hand, has_rules, has_bands = rng.random() < 0.35, rng.random() < 0.7, rng.random() < 0.5
    if rng.random() < 0.7:
        pen.text((left, max(0, top - 26)), title(rng), fill=ink, font=font_of(20))
    for r in range(rows):
        if r == 0 or (has_bands and r % 2 == 0):
            pen.rectangle((left, ys[r], width - left, ys[r + 1]), fill=brighten(band, 0.8) if r == 0 else band)
        has_text = rng.random(columns) < 0.75
        for c, text in enumerate(pseudo_words(rng, columns)):
            if has_text[c]:
                font = font_of(size, hand and r > 0 and c > 0)
                pen.text((xs[c] + 4, ys[r] + 2), text[: max(2, int((xs[c + 1] - xs[c]) / size * 1.7))], ink, font=font)
    if has_rules:
        for y in ys:
            pen.line((left, y, width - left, y), fill=line, width=1)
        for x in xs:
            pen.line((x, ys[0], x, ys[-1]), fill=line, width=int(rng.integers(1, 3)))
    return image


def note(rng: Generator, width: int, height: int) -> Image.Image:
    """Handwriting and doodles on plain, ruled or squared paper."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    step, rule = int(rng.integers(18, 48)), colour(rng, light=(0.6, 0.9), vivid=(0.1, 0.5))
    kind = rng.random()
    for y in range(step, height, step) if kind < 0.6 else ():
        pen.line((0, y, width, y), fill=rule)
    for x in range(step, width, step) if kind < 0.25 else ():
        pen.line((x, 0, x, height), fill=rule)
    ink = colour(rng, light=(0.0, 0.7), vivid=(0.2, 1.0))
    for y in range(step, height, step) if rng.random() < 0.75 else ():
        if rng.random() < 0.8:
            text = " ".join(pseudo_words(rng, int(rng.integers(1, 10))))
            at, font = (rng.uniform(0, 0.3) * width, y - step * 0.9), font_of(step, handwriting=True)
            pen.text(at, text, fill=ink, font=font)
    for _ in range(int(rng.integers(0, 9))):
        _doodle(pen, rng, width, height)
    return image


def _doodle(pen: ImageDraw.ImageDraw, rng: Generator, width: int, height: int) -> None:
    """A closed random curve: a sum of four sines, so that it runs in loops and not from left to right."""
    t = np.linspace(0, 2 * np.pi, int(rng.integers(20, 120)))
    waves = rng.normal(size=(2, 4)) / np.arange(1, 5)
    phases = rng.uniform(0, 2 * np.pi, (2, 4))
    x, y = (sum(waves[k, n] * np.sin((n + 1) * t + phases[k, n]) for n in range(4)) for k in range(2))
    size = rng.uniform(0.02, 0.25) * min(width, height)
    points = np.column_stack([x * size + rng.uniform(0, width), y * size + rng.uniform(0, height)])
    pen.line(points.ravel().tolist(), fill=colour(rng), width=int(rng.integers(1, 7)))


def screen(rng: Generator, width: int, height: int) -> Image.Image:
    """A screenshot: bars, panels, buttons, speech bubbles or a list of messages."""
    dark = rng.random() < 0.35
    ground = colour(rng, light=(0.05, 0.25) if dark else (0.85, 1.0), vivid=(0, 0.4))
    text, accent = ((235, 235, 240) if dark else (25, 25, 30)), colour(rng, light=(0.4, 1.0), vivid=(0.3, 1.0))
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    bar = int(rng.integers(18, 60))
    pen.rectangle((0, 0, width, bar), fill=accent)
    pen.text((bar // 2, bar // 5), title(rng, 2), fill=(255, 255, 255), font=font_of(max(10, bar // 2)))
    side = round(width * rng.uniform(0.12, 0.35)) if rng.random() < 0.5 else 0
    pen.rectangle((0, bar, side, height), fill=brighten(ground, 1.5 if dark else 0.9))
    y, step, bubbles = bar + 12, int(rng.integers(24, 90)), rng.random() < 0.5
    while y < height:
        wide = rng.uniform(0.3, 0.9) * (width - side)
        x = width - wide - 10 if bubbles and rng.random() < 0.5 else side + 10
        plate = colour(rng, light=(0.3, 1.0), vivid=(0.1, 0.7)) if rng.random() < 0.4 else brighten(ground, 1.4)
        pen.rounded_rectangle((x, y, x + wide, y + step * 0.85), radius=step // 5, fill=plate)
        size = max(8, step // 4)
        for k in range(int(rng.integers(1, 4))):
            line = " ".join(pseudo_words(rng, int(rng.integers(2, 12))))[: int(wide / size * 1.6)]
            pen.text((x + 8, y + 3 + k * size * 1.1), line, fill=text, font=font_of(size))
        y += round(step * rng.uniform(1.0, 1.4))
    return image


def code(rng: Generator, width: int, height: int) -> Image.Image:
    """A bar code or a QR-like code, with figures below."""
    paper, ink = paper_and_ink(rng)
    image = Image.new("RGB", (width, height), paper)
    side = round(min(width, height) * rng.uniform(0.4, 0.9))
    if rng.random() < 0.5:
        cells = int(rng.integers(17, 45))
        dark = rng.random((cells, cells)) < 0.5
        for y, x in ((0, 0), (0, cells - 7), (cells - 7, 0)):
            dark[y : y + 7, x : x + 7] = True
            dark[y + 1 : y + 6, x + 1 : x + 6] = False
            dark[y + 2 : y + 5, x + 2 : x + 5] = True
        size = (side, side)
    else:
        dark = rng.random((1, int(rng.integers(40, 120)))) < 0.5
        size = (min(width - 8, side * 2), side // 2)
    cells_image = Image.fromarray(np.where(dark[..., None], ink, paper).astype(np.uint8))
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    image.paste(cells_image.resize(size, Image.Resampling.NEAREST), (x, y))
    below = " ".join(str(n) for n in rng.integers(100, 10_000, 4))
    ImageDraw.Draw(image).text((x, min(height - 20, y + size[1] + 4)), below, fill=ink, font=font_of(16))
    return image
