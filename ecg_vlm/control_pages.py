"""Altered pages of a data set for the controls: see `eval.controls` for what each is for."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from eval.controls import blank, copied, shuffled
from render.dataset.rows import Options, make_picture
from render.errors import InputError
from render.record import EcgRecord
from render.sources.registry import open_source

if TYPE_CHECKING:
    from ecg_vlm.evaluation import Pages


@dataclass(frozen=True)
class AlteredPages:
    """One control's page for every row; detail: what was done, where the control's name does not say it."""

    detail: str
    image: Callable[[int], Image.Image]


def altered_pages(pages: Pages, source: str, seed: int) -> dict[str, AlteredPages]:
    """Control -> its pages. Blank, shuffled and copied pages are made from the pictures in the data set.

    source: of the records that the pages were drawn from ("ptbxl:DIR", "simulated"), for pages in another layout and
    style; without it these two controls are not run. Raises `InputError` when the source lacks a record.
    """

    def image(row: int) -> Any:
        return pages.rows[row]["image"]

    other = shuffled(len(pages.rows), seed)
    found = {
        "blank": AlteredPages("", lambda row: blank(image(row))),
        "shuffled": AlteredPages(f"seed {seed}", lambda row: image(int(other[row]))),
        "copied": AlteredPages("", lambda row: copied(image(row))),
    }
    return {**found, **_redrawn(pages, source)} if source else found


def _redrawn(pages: Pages, source: str) -> dict[str, AlteredPages]:
    """The same records in another layout, and in another style, each drawn with the seed of the data set."""
    options, size = _manifest(Path(pages.folder))
    read = _reader(pages, source, options.seed, size)
    layout = "6x2" if options.layout.startswith("3x4") else "3x4+1R"
    style = "photo" if options.style == "clean" else "clean"

    def page(changed: Options) -> Callable[[int], Image.Image]:
        def draw(row: int) -> Image.Image:
            picture, _ = make_picture(read(row), pages.places[row], changed)
            return Image.open(io.BytesIO(picture.data)).convert("RGB")

        return draw

    return {
        "layout": AlteredPages(f"{layout} for {options.layout}", page(replace(options, layout=layout))),
        "style": AlteredPages(f"{style} for {options.style}", page(replace(options, style=style))),
    }


def _manifest(folder: Path) -> tuple[Options, int]:
    """The options that a data set was drawn with, dead leads drawn as they are, and the number of its records."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    known = {field.name for field in fields(Options)}
    kept = {name: value for name, value in manifest["options"].items() if name in known and name != "tasks"}
    return Options(**{**kept, "lenient": True}), int(manifest["records"])


def _reader(pages: Pages, source: str, seed: int, size: int) -> Callable[[int], EcgRecord]:
    """Row -> its record, found by record id in the source. The source is read through once to find them."""
    folds = {fold for fold in pages.rows["fold"] if fold is not None}
    simulated = source.partition(":")[0] == "simulated"
    opened = open_source(source, seed=seed, limit=size if simulated else None, folds=folds or None)
    wanted = set(pages.record_ids)
    place: dict[str, int] = {}
    for i in range(len(opened)):
        record = opened.read(i).record_id
        if record in wanted:
            place[record] = i
        if len(place) == len(wanted):
            break
    missing = [record for record in pages.record_ids if record not in place]
    if missing:
        raise InputError(
            f"--controls-source {source}: lacks {len(missing)} of the pages' records, {missing[0]!r} among them; "
            "name the source that the data set was rendered from"
        )
    return lambda row: opened.read(place[pages.record_ids[row]])
