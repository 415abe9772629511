"""One page about one record: what MoRE's towers attend to in the waveform, in the words and in the picture.

What the ECG has in common with its report, and with the names of the likeliest statements; the darker the yellow, the
more a place speaks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageOps

from ecg_vlm.page_report import data_uri, render_page
from eval.baselines.checkpoint import TrainedBaseline
from eval.baselines.more import TOKEN_SAMPLES, TOKEN_SPAN
from eval.baselines.more_pretraining import LoadedMore, Relevance, explain_pair, read_xray
from eval.baselines.pairs import Pairs
from eval.baselines.train import predict, ten_seconds
from render.errors import InputError
from render.io import atomic_write
from render.pages.page import draw
from render.record import LOW_RATE_HZ, EcgRecord
from render.statements import STATEMENTS

_STATEMENTS = 3  # on a page: the likeliest
_WIDTH = 1120  # pixels: 4 a millimetre
_MARK = (255, 214, 64)  # of what speaks most
_COLOURS = 128  # of a picture


@dataclass(frozen=True)
class Section:
    """A text, what speaks for it, and that drawn as data URIs ("" without a picture)."""

    title: str
    relevance: Relevance
    waveform: str
    picture: str


def write_attention_page(
    file: Path, more: LoadedMore, zero_shot: TrainedBaseline, pairs: Pairs, record_id: str
) -> None:
    """Write the page about the first pair of a record. Raises `InputError` when no pair is of it."""
    place = next((i for i, row in enumerate(pairs.rows) if row.record_id == record_id), None)
    if place is None:
        raise InputError(f"--record {record_id}: no pair of this record has a report; name another, or other --data")
    record, pair = pairs.read(place), pairs.rows[place]
    own = explain_pair(more, record, pair.report, pair.image)
    sections = [_section("Its own report", record, own, pair.image)]
    scores = predict(zero_shot, ten_seconds(record)[None])[0]
    for k in np.argsort(-scores)[:_STATEMENTS]:
        name = STATEMENTS[zero_shot.classes[k]].name
        sections.append(_section(f"{name[0].upper()}{name[1:]}", record, explain_pair(more, record, name)))
    html = render_page(
        "attention_page.html.j2",
        record=record,
        labels=", ".join(STATEMENTS[code].name for code in record.statements) or "none",
        sections=sections,
        training=zero_shot.training,
    )
    with atomic_write(file) as partial:
        partial.write_text(html, encoding="utf-8")


def _section(title: str, record: EcgRecord, relevance: Relevance, image: str = "") -> Section:
    picture = "" if relevance.image is None else _picture(image, relevance.image)
    return Section(title, relevance, _waveform(record, relevance.ecg), picture)


def _waveform(record: EcgRecord, weights: NDArray[np.float32]) -> str:
    """The record on ECG paper, each place as yellow as the tokens that see it speak, all leads alike."""
    spans = TOKEN_SPAN // TOKEN_SAMPLES  # steps of 50 ms that a token sees
    of_steps = np.convolve(weights, np.ones(spans)) / np.convolve(np.ones(len(weights)), np.ones(spans))
    of_steps /= max(float(of_steps.max()), 1e-12)
    starts = np.arange(len(of_steps) + 1) * TOKEN_SAMPLES / LOW_RATE_HZ
    page = draw(record, width=_WIDTH)
    bands = Image.new("RGB", (page.image.shape[1], page.image.shape[0]), "white")
    for lead in page.geometry.leads:
        edges = lead.to_page(starts, np.zeros(len(starts)))[:, 0].clip(lead.box[0], lead.box[2])
        for left, right, weight in zip(edges[:-1], edges[1:], of_steps, strict=True):
            if right > left:
                ImageDraw.Draw(bands).rectangle((left, lead.box[1], right, lead.box[3]), fill=_mixed(float(weight)))
    return data_uri(ImageChops.multiply(page.to_pil(), bands), _COLOURS)


def _picture(path: str, weights: NDArray[np.float32]) -> str:
    grey = read_xray(path)
    mark = Image.fromarray((255 * weights).astype(np.uint8)).resize(grey.size, Image.Resampling.BICUBIC)
    coloured = ImageOps.colorize(grey, "black", _MARK)
    return data_uri(Image.composite(coloured, grey.convert("RGB"), mark), _COLOURS)


def _mixed(weight: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 + (channel - 255) * weight) for channel in _MARK)
    return red, green, blue
