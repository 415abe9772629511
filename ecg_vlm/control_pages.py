"""Altered pages of a data set for the controls; `eval.metrics.controls` says what each control is for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.pages import Pages
from render.dataset.rows import Options, make_picture
from render.errors import InputError
from render.record import EcgRecord
from render.sources.registry import open_source, record_ids


@dataclass(frozen=True)
class AlteredPages:
    """One control's page for every row; detail: what was altered, where the control's name does not tell."""

    detail: str
    image: Callable[[int], Image.Image]


def altered_pages(pages: Pages, source: str | Sequence[str], seed: int) -> dict[str, AlteredPages]:
    """Control -> its pages. Blank, shuffled and copied pages are made from the images in the data set.

    Args:
        source: of the records that the pages were rendered from ("ptbxl:DIR", "simulated"), or several sources, for
            pages in another layout and style; without it there are no such pages.

    Raises:
        InputError: When the source lacks a record, and for a source with the pages of several data sets.
    """

    def image(row: int) -> Any:
        return pages.rows[row]["image"]

    other = derangement(len(pages.rows), seed)
    controls = {
        "blank": AlteredPages("", lambda row: blank_page(image(row))),
        "shuffled": AlteredPages(f"seed {seed}", lambda row: image(int(other[row]))),
        "copied": AlteredPages("", lambda row: pale_copy(image(row))),
    }
    return {**controls, **_rendered_again(pages, source)} if source else controls


def blank_page(image: Image.Image) -> Image.Image:
    """White paper of the same size."""
    return Image.new("RGB", image.size, "white")


def pale_copy(image: Image.Image) -> Image.Image:
    """The same page as a poor copy: grey, pale, tilted by one degree, JPEG quality 35."""
    grey = image.convert("L").rotate(1.0, Image.Resampling.BICUBIC, fillcolor=255)
    pale = grey.point([round(40 + v * 200 / 255) for v in range(256)])
    out = io.BytesIO()
    pale.save(out, "JPEG", quality=35)
    return Image.open(out).convert("RGB")


def derangement(n: int, seed: int = 0) -> NDArray[np.intp]:
    """Another row for each of n rows, (n,): a random permutation without a fixed point, if n > 1.

    One cycle through a random order (as Sattolo 1986): uniform over cycles, without repeated trials.
    """
    order = np.random.default_rng(seed).permutation(n)
    rows = np.empty(n, dtype=np.intp)
    rows[order] = np.roll(order, 1)
    return rows


def _rendered_again(pages: Pages, source: str | Sequence[str]) -> dict[str, AlteredPages]:
    """The same records in another layout, and in another style, each with the seed of the data set."""
    if len(pages.folders) > 1:
        raise InputError("--controls-source: goes with one --data folder; ecg-vlm render A B OUT makes one of all")
    options, size = _manifest(Path(pages.folders[0]))
    read = _record_reader(pages, source, options.seed, size)
    layout = "6x2" if options.layout.startswith("3x4") else "3x4+1R"
    style = "photo" if options.style == "clean" else "clean"

    def page(other_options: Options) -> Callable[[int], Image.Image]:
        def render(row: int) -> Image.Image:
            picture, _ = make_picture(read(row), pages.places[row], other_options)
            return Image.open(io.BytesIO(picture.data)).convert("RGB")

        return render

    return {
        "layout": AlteredPages(f"{layout} for {options.layout}", page(replace(options, layout=layout))),
        "style": AlteredPages(f"{style} for {options.style}", page(replace(options, style=style))),
    }


def _manifest(folder: Path) -> tuple[Options, int]:
    """The options of a data set, with dead leads accepted, and the number of its records."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    names = {field.name for field in fields(Options)} - {"tasks"}
    options = {name: value for name, value in manifest["options"].items() if name in names}
    return Options(**{**options, "lenient": True}), int(manifest["records"])


def _record_reader(pages: Pages, source: str | Sequence[str], seed: int, size: int) -> Callable[[int], EcgRecord]:
    """Row -> its record in the source, by record id."""
    folds = {fold for fold in pages.rows["fold"] if fold is not None}
    words = [source] if isinstance(source, str) else source
    is_simulation = any(word.partition(":")[0] == "simulated" for word in words)
    records = open_source(words, seed=seed, limit=size if is_simulation else None, folds=folds or None)
    place = {record_id: i for i, record_id in enumerate(record_ids(records))}
    missing = [record_id for record_id in pages.record_ids if record_id not in place]
    if missing:
        raise InputError(
            f"--controls-source {', '.join(words)}: lacks {len(missing)} of the pages' records, {missing[0]!r} among "
            f"them; name the source that the data set was rendered from"
        )
    return lambda row: records.read(place[pages.record_ids[row]])
