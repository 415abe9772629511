"""Scenes in place of photographs, and pictures with hardly any content.

A model that refuses these should also refuse real photographs: overlapping leaves have the edges and scales of natural
pictures, clouds have their spectrum (Lee, Mumford and Huang 2001, Occlusion models for natural images; Baradad et al.
2021, Learning to see by looking at noise, arXiv 2106.05963).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from render.negatives.drawing import Colour, brighten, cloud, colour, colour_gradient, colourise, font_of, title


def landscape(rng: Generator, width: int, height: int) -> Image.Image:
    """A sky with clouds, one to four ridges, sometimes a sun and trees."""
    sky = colour_gradient(width, height, colour(rng, vivid=(0.1, 0.8)), colour(rng, light=(0.5, 1), vivid=(0, 0.5)))
    if rng.random() < 0.6:
        white = cloud(rng, width, height).point([min(255, max(0, round((k - 115) * 1.6))) for k in range(256)])
        sky.paste(colour(rng, light=(0.7, 1), vivid=(0, 0.2)), (0, 0), white)
    pen = ImageDraw.Draw(sky)
    if rng.random() < 0.4:
        _disc(pen, rng.uniform(0, width), rng.uniform(0, height / 2), rng.uniform(8, 60), colour(rng, light=(0.9, 1)))
    ground = colour(rng, light=(0.3, 0.7), vivid=(0.1, 0.8))
    xs = np.linspace(0, width, 60)
    for k in range(int(rng.integers(1, 5))):
        waves = rng.normal(size=4) / np.arange(1, 5)
        phases = rng.uniform(0, 7, 4)
        ridge = sum(waves[n] * np.sin((n + 1) * 6 * xs / width + phases[n]) for n in range(4))
        rough = np.cumsum(rng.normal(0, rng.choice([0.0, 0.05]), 60))
        y = height * (0.45 + 0.13 * k) + (ridge + rough) * height * 0.07
        shade = brighten(ground, 1.3 - 0.25 * k)
        pen.polygon([0, height, *np.column_stack([xs, y]).ravel().tolist(), width, height], fill=shade)
    for _ in range(int(rng.integers(0, 14))):
        _tree(pen, rng, width, height)
    return _shade_unevenly(sky, rng)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, fill: Colour) -> None:
    pen.ellipse((x - size, y - size, x + size, y + size), fill=fill)


def _tree(pen: ImageDraw.ImageDraw, rng: Generator, width: int, height: int) -> None:
    x, y, size = rng.uniform(0, width), height * rng.uniform(0.6, 1.0), height * rng.uniform(0.05, 0.3)
    leaf = colour(rng, light=(0.15, 0.6), vivid=(0.3, 0.9))
    pen.rectangle((x - size * 0.06, y - size, x + size * 0.06, y), fill=(70, 50, 35))
    if rng.random() < 0.5:
        pen.polygon((x - size * 0.4, y - size * 0.3, x, y - 1.6 * size, x + size * 0.4, y - size * 0.3), fill=leaf)
        return
    for dx, dy in rng.normal(0, 0.25, (6, 2)) * size:
        _disc(pen, x + dx, y - 1.1 * size + dy, size * 0.28, brighten(leaf, rng.uniform(0.8, 1.3)))


def street(rng: Generator, width: int, height: int) -> Image.Image:
    """Buildings with windows by day or night, with a road in front."""
    night = rng.random() < 0.4
    light = (0.02, 0.3) if night else (0.5, 1.0)
    image = colour_gradient(width, height, colour(rng, light=light), colour(rng, light=light, vivid=(0, 0.4)))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 14))):
        x, wide, top = rng.uniform(-40, width), rng.uniform(0.06, 0.3) * width, height * rng.uniform(0.1, 0.7)
        wall = colour(rng, light=(0.05, 0.3) if night else (0.3, 0.9), vivid=(0, 0.5))
        pen.rectangle((x, top, x + wide, height), fill=wall)
        pane = colour(rng, light=(0.7, 1.0) if night else (0.1, 0.5), vivid=(0, 0.6))
        step = rng.uniform(14, 40)
        is_lit = rng.random((int((height - top) / step) + 1, int(wide / step) + 1)) < (0.5 if night else 0.95)
        for row, column in np.argwhere(is_lit):
            at = x + (column + 0.25) * step, top + (row + 0.3) * step
            right = max(at[0], min(at[0] + step * 0.5, x + wide - 2))
            pen.rectangle((at[0], at[1], right, at[1] + step * 0.45), fill=pane)
    road = height * rng.uniform(0.8, 0.95)
    pen.rectangle((0, road, width, height), fill=colour(rng, light=(0.1, 0.5), vivid=(0, 0.2)))
    for _ in range(int(rng.integers(0, 5))):
        x, long = rng.uniform(0, width), width * rng.uniform(0.08, 0.2)
        pen.rounded_rectangle((x, road - long * 0.25, x + long, road + long * 0.1), 8, fill=colour(rng))
        for wheel in (0.2, 0.8):
            _disc(pen, x + long * wheel, road + long * 0.1, long * 0.1, (20, 20, 20))
    return _shade_unevenly(image, rng)


def portrait(rng: Generator, width: int, height: int) -> Image.Image:
    """Heads and shoulders, or an animal's face, in front of a blurred background."""
    image = colourise(cloud(rng, width, height, rough=0.3), colour(rng), colour(rng), colour(rng))
    pen = ImageDraw.Draw(image)
    animal, people = rng.random() < 0.4, int(rng.choice([1, 1, 1, 2, 3]))
    for k in range(people):
        size = min(width / people, height) * rng.uniform(0.18, 0.3)
        x, y = width * (k + 0.5) / people + rng.normal(0, 0.04) * width, height * rng.uniform(0.35, 0.55)
        skin = colour(rng) if animal else _skin(rng)
        coat, hair = colour(rng), colour(rng, light=(0.05, 0.7), vivid=(0.1, 0.7))
        pen.ellipse((x - 2 * size, y + 1.1 * size, x + 2 * size, y + 5 * size), fill=coat)
        pen.rectangle((x - 0.35 * size, y + 0.6 * size, x + 0.35 * size, y + 1.5 * size), fill=brighten(skin, 0.85))
        if animal:
            for side in (-1, 1):
                ear = (x + side * 0.9 * size, y - 1.5 * size, x + side * 0.2 * size, y - 0.8 * size)
                pen.polygon([*ear, x + side * 0.95 * size, y - 0.2 * size], fill=brighten(skin, 0.75))
        else:
            pen.ellipse((x - 0.95 * size, y - 1.35 * size, x + 0.95 * size, y + 0.6 * size), fill=hair)
        pen.ellipse((x - 0.8 * size, y - 1.05 * size, x + 0.8 * size, y + 1.1 * size), fill=skin)
        _features(pen, x, y, size, skin, colour(rng, light=(0.1, 0.6)))
    return _shade_unevenly(image.filter(ImageFilter.BoxBlur(1)), rng)


def _skin(rng: Generator) -> Colour:
    tone = rng.uniform(0.3, 1.0)
    return brighten((245, 205, 175), tone)


def _features(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, skin: Colour, eye: Colour) -> None:
    for side in (-0.35, 0.35):
        pen.ellipse((x + (side - 0.16) * size, y - 0.3 * size, x + (side + 0.16) * size, y - 0.1 * size), (250,) * 3)
        _disc(pen, x + side * size, y - 0.2 * size, 0.09 * size, eye)
    foot = y + 0.3 * size
    pen.polygon((x, y - 0.1 * size, x - 0.12 * size, foot, x + 0.12 * size, foot), brighten(skin, 0.8))
    pen.chord((x - 0.3 * size, y + 0.35 * size, x + 0.3 * size, y + 0.8 * size), 0, 180, fill=(170, 60, 60))


def leaves(rng: Generator, width: int, height: int) -> Image.Image:
    """Overlapping discs, slabs and shards, many small and few large."""
    image = colourise(cloud(rng, width, height), colour(rng), colour(rng))
    pen = ImageDraw.Draw(image)
    hues = [colour(rng) for _ in range(int(rng.integers(3, 12)))]
    count, kind = int(rng.integers(40, 260)), int(rng.integers(4))
    sizes = np.clip(4.0 / rng.random(count) ** 0.7, 4, 0.35 * max(width, height))
    sizes *= rng.uniform(0.7, 2.5)
    places, angles = rng.uniform(0, 1, (count, 2)) * (width, height), rng.uniform(0, 7, (count, 6))
    for k in range(count):
        (x, y), size = places[k], sizes[k]
        fill = brighten(hues[k % len(hues)], 0.6 + 0.12 * angles[k, 5])
        if kind == 0 or (kind == 3 and k % 3 == 0):
            flat = 0.4 + angles[k, 0] / 10
            pen.ellipse((x - size, y - size * flat, x + size, y + size * flat), fill=fill)
        else:
            turns = angles[k, 0] + (np.arange(4) * np.pi / 2 if kind == 1 else np.sort(angles[k, :5]))
            corners = np.column_stack([x + size * np.cos(turns), y + size * np.sin(turns)])
            pen.polygon(corners.ravel().tolist(), fill=fill)
    return _shade_unevenly(image, rng)


def table_top(rng: Generator, width: int, height: int) -> Image.Image:
    """Balls and cups on a table: round objects with light from one side and a shadow."""
    wall, table = colour(rng, light=(0.2, 1)), colour(rng, light=(0.2, 0.9), vivid=(0.1, 0.8))
    image = colour_gradient(width, height, wall, brighten(wall, 0.7), table, brighten(table, 0.7))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 9))):
        x, size = rng.uniform(0, width), min(width, height) * rng.uniform(0.05, 0.25)
        y, base, lean = height * rng.uniform(0.45, 0.85), colour(rng, light=(0.4, 1)), rng.uniform(-0.3, 0.3)
        pen.ellipse((x - size * 1.3, y + size * 0.6, x + size * 1.5, y + size * 1.3), fill=brighten(table, 0.45))
        if rng.random() < 0.35:
            pen.rectangle((x - size * 0.8, y - size, x + size * 0.8, y + size), fill=brighten(base, 0.8))
            pen.ellipse((x - size * 0.8, y - size * 1.25, x + size * 0.8, y - size * 0.75), fill=base)
            continue
        for k in range(8):
            part = size * (1 - k / 8)
            shift = lean * size * k / 8
            _disc(pen, x + shift, y - 0.3 * size * k / 8, part, brighten(base, 0.5 + 0.09 * k))
    return _shade_unevenly(image.filter(ImageFilter.BoxBlur(1)), rng)


def texture(rng: Generator, width: int, height: int) -> Image.Image:
    """Clouds, marble, wood; stripes and checks of cloth."""
    field = cloud(rng, width, height)
    kind = rng.random()
    if kind < 0.35:
        turns = rng.uniform(6, 60) / 255
        field = field.point([round(127 + 127 * np.sin(turns * k)) for k in range(256)])
    elif kind < 0.6:
        field = ImageChops.blend(field, _cloth(rng, width, height), rng.uniform(0.4, 0.9))
    return colourise(field, *(colour(rng) for _ in range(int(rng.integers(2, 6)))))


def _cloth(rng: Generator, width: int, height: int) -> Image.Image:
    """Stripes or checks at any angle."""
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    angle, step = rng.uniform(0, np.pi), rng.uniform(6, 120)
    along = (x * np.float32(np.cos(angle) * 256 / step) + y * np.float32(np.sin(angle) * 256 / step)).astype(np.int32)
    wave = np.rint(127 + 127 * np.sin(np.arange(256) * np.pi / 128)).astype(np.uint8)
    stripes = Image.fromarray(wave[along & 255])
    if rng.random() < 0.5:
        return stripes
    across = (y * np.float32(np.cos(angle) * 256 / step) - x * np.float32(np.sin(angle) * 256 / step)).astype(np.int32)
    return ImageChops.blend(stripes, Image.fromarray(wave[across & 255]), 0.5)


def radiograph(rng: Generator, width: int, height: int) -> Image.Image:
    """A chest radiograph: dark lungs under ribs, a bright spine and heart; in a fifth of the cases inverted."""
    field = cloud(rng, width, height, rough=0.4).point([k // 3 for k in range(256)])
    film = Image.new("L", (width, height), int(rng.integers(90, 170)))
    pen = ImageDraw.Draw(film)
    side, top, foot = rng.uniform(0.02, 0.25) * width, height * rng.uniform(0.0, 0.25), height * rng.uniform(0.7, 1.0)
    for left, right in ((side, 0.46 * width), (0.54 * width, width - side)):
        pen.ellipse((left, top, right, foot), fill=int(rng.integers(10, 50)))
        for k in range(int(rng.integers(5, 10))):
            y = top + (foot - top) * k / 9
            pen.arc((left - 20, y, right + 20, y + height * 0.25), 190, 350, fill=110, width=int(rng.integers(4, 12)))
    heart = width * rng.uniform(0.3, 0.45), height * rng.uniform(0.4, 0.6), width * rng.uniform(0.6, 0.85)
    pen.ellipse((*heart, foot), fill=int(rng.integers(150, 210)))
    pen.rectangle((0.47 * width, 0, 0.53 * width, height), fill=int(rng.integers(150, 220)))
    film = ImageChops.add(film.filter(ImageFilter.BoxBlur(rng.uniform(3, 9))), field, 1.2)
    if rng.random() < 0.2:
        film = ImageChops.invert(film)
    ImageDraw.Draw(film).text((10, 8), str(rng.choice(["L", "R", "AP"])), fill=230, font=font_of(24))
    return film.convert("RGB")


def lights(rng: Generator, width: int, height: int) -> Image.Image:
    """Defocused spots on a dark background."""
    dark, darker = colour(rng, light=(0, 0.35)), colour(rng, light=(0, 0.2))
    image = colour_gradient(width, height, dark, darker, across=rng.random() < 0.5)
    for blur in (6, 3, 1):
        pen = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(2, 22))):
            x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 12) * blur
            _disc(pen, x, y, size, colour(rng, light=(0.5, 1)))
        image = image.filter(ImageFilter.BoxBlur(blur))
    return image


def nearly_empty(rng: Generator, width: int, height: int) -> Image.Image:
    """Blank, black, overexposed, defocused, or noise; in 15 % with two words on it."""
    kind = rng.random()
    if kind < 0.3:
        ground = colour(rng, light=(0.9, 1) if rng.random() < 0.6 else (0, 0.1), vivid=(0, 0.1))
        image = colour_gradient(width, height, ground, brighten(ground, rng.uniform(0.85, 1.0)))
    elif kind < 0.5:
        stops = [colour(rng) for _ in range(int(rng.integers(2, 5)))]
        image = colour_gradient(width, height, *stops, across=bool(rng.random() < 0.5))
    elif kind < 0.75:
        cell = int(rng.choice([1, 1, 2, 4, 16, 48]))
        shape = (max(2, height // cell), max(2, width // cell), 3 if rng.random() < 0.6 else 1)
        grain = rng.normal(rng.uniform(30, 250), rng.uniform(5, 120), shape)
        grain = np.broadcast_to(np.clip(grain, 0, 255).astype(np.uint8), (*shape[:2], 3))
        image = Image.fromarray(grain.copy()).resize((width, height), Image.Resampling.NEAREST)
    else:
        scene = (landscape, leaves, street, portrait)[int(rng.integers(4))](rng, width, height)
        if rng.random() < 0.5:
            image = scene.filter(ImageFilter.BoxBlur(rng.uniform(8, 40)))
        else:
            image = scene.point(lambda level: min(255, level * 2 + 90))
    if rng.random() < 0.15:
        ImageDraw.Draw(image).text((width / 2, height / 2), title(rng, 2), colour(rng), font=font_of(30), anchor="mm")
    return image


def _shade_unevenly(image: Image.Image, rng: Generator) -> Image.Image:
    """The picture, in 70 % with uneven light and grain."""
    if rng.random() < 0.3:
        return image
    field = cloud(rng, image.width, image.height).point([155 + 100 * k // 255 for k in range(256)])
    return ImageChops.multiply(image, Image.merge("RGB", [field] * 3))
