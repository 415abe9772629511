"""One page about one record: what ProtoECGNet says, and the segments of training records that it says so by.

For each statement the prototypes that spoke most, each as a pair drawn on the same ECG paper: the segment of the
training record that the prototype is, and the place where this record is most like it. Contributions add up to the
logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from ecg_vlm.page_report import data_uri, render_page
from eval.baselines.checkpoint import TrainedBaseline
from eval.baselines.protoecgnet import STRIDE, Explanation, ProtoEcgNet, explain, inputs
from eval.baselines.train import SECONDS, ten_seconds
from render.errors import InputError
from render.io import atomic_write
from render.pages.page import draw
from render.record import LOW_RATE_HZ, EcgRecord
from render.sources.registry import Source
from render.statements import STATEMENTS

_STATEMENTS = 5  # on a page: the likeliest
_SHOWN_S = 2.5  # of a segment: a column of ECG paper, so that it is seen between its neighbours
_WIDTH = 840  # pixels: 3 a millimetre
_BAND = (255, 244, 185)


@dataclass(frozen=True)
class PrototypeMatch:
    """A prototype beside the place where the record is most like it.

    Attributes:
        name: its statement.
        record_id, labels: of its training record.
        times, times_here: of the prototype in its record, and of the place in this one.
        similarity: standard deviations above the mean of the training records.
        picture, picture_here: data URIs.
    """

    name: str
    record_id: str
    labels: str
    times: str
    times_here: str
    cosine: float
    similarity: float
    contribution: float
    picture: str
    picture_here: str


@dataclass(frozen=True)
class StatementReason:
    """A statement with its score and the sum that it comes from: matches, other prototypes together, bias."""

    name: str
    p: float
    logit: float
    bias: float
    others: float
    other_count: int
    matches: tuple[PrototypeMatch, ...]


def write_prototype_page(file: Path, model: TrainedBaseline, sources: Sequence[Source], record_id: str) -> None:
    """Write the page about a record. sources: hold it and the training records.

    Raises:
        InputError: For another network, and for a record, of a prototype too, that no source has.
    """
    network = model.network
    if not isinstance(network, ProtoEcgNet):
        raise InputError(f"baseline explain: {model.name} has no prototypes; train protoecgnet")
    if not model.record_ids:
        raise InputError("baseline explain: the network does not say which records it was trained on; train it again")
    record = _find(sources, {record_id})[record_id]
    explanation = explain(network, inputs(ten_seconds(record)[None]))
    reasons = _reasons(network, model, explanation, record, sources)
    html = render_page(
        "prototype_page.html.j2",
        record=record,
        labels=_names(record.statements),
        picture=_picture(record, None),
        reasons=reasons,
        prototypes=explanation.contributions.shape[1],
        records=len(model.record_ids),
        epochs=len(model.epochs),
    )
    with atomic_write(file) as partial:
        partial.write_text(html, encoding="utf-8")


def _reasons(
    network: ProtoEcgNet, model: TrainedBaseline, explanation: Explanation, record: EcgRecord, sources: Sequence[Source]
) -> list[StatementReason]:
    columns = np.argsort(-explanation.logits)[:_STATEMENTS]
    # The two that speak most for a statement, and the one that speaks most against it.
    spoke = {k: np.argsort(-explanation.contributions[k])[[0, 1, -1]] for k in columns}
    origins = network.sources.numpy()
    ids = {p: model.record_ids[origins[p, 0]] for prototypes in spoke.values() for p in prototypes}
    records = _find(sources, set(ids.values()))
    reasons = []
    for k, prototypes in spoke.items():
        matches = []
        for p in prototypes:
            whole = network.lengths[p] * STRIDE >= SECONDS * LOW_RATE_HZ
            own, here = (
                None if whole else _seconds(place, network.lengths[p])
                for place in (origins[p, 1], explanation.places[p])
            )
            matches.append(
                PrototypeMatch(
                    name=_names([model.classes[network.statements[p]]]),
                    record_id=ids[p],
                    labels=_names(records[ids[p]].statements),
                    times=_words(own),
                    times_here=_words(here),
                    cosine=explanation.cosines[p],
                    similarity=explanation.similarities[p],
                    contribution=explanation.contributions[k, p],
                    picture=_picture(records[ids[p]], own),
                    picture_here=_picture(record, here),
                )
            )
        contributions = explanation.contributions[k]
        reasons.append(
            StatementReason(
                name=_names([model.classes[k]]),
                p=float(1 / (1 + np.exp(-explanation.logits[k]))),
                logit=explanation.logits[k],
                bias=explanation.bias[k],
                others=float(contributions.sum() - contributions[prototypes].sum()),
                other_count=len(contributions) - len(prototypes),
                matches=tuple(matches),
            )
        )
    return reasons


def _find(sources: Sequence[Source], ids: set[str]) -> dict[str, EcgRecord]:
    """The records by their ids; labels alone are read where a source has them apart from the signals."""
    records: dict[str, EcgRecord] = {}
    for source in sources:
        read = getattr(source, "labels", source.read)
        for i in range(len(source)):
            if len(records) < len(ids) and read(i).record_id in ids - records.keys():
                record = source.read(i)
                records[record.record_id] = record
    if missing := ids - records.keys():
        raise InputError(f"--data: has no record {min(missing)}; name the record's source and that of the training")
    return records


def _seconds(place: int, length: int) -> tuple[float, float]:
    """Start and end of a segment, from the record's first sample."""
    step = STRIDE / LOW_RATE_HZ
    return place * step, min((place + length) * step, float(SECONDS))


def _words(times: tuple[float, float] | None) -> str:
    return f"{times[0]:.1f} to {times[1]:.1f} s" if times else "the whole record"


def _names(codes: Sequence[str]) -> str:
    return ", ".join(f"{STATEMENTS[code].name} ({code})" for code in codes) or "no statement"


def _picture(record: EcgRecord, times: tuple[float, float] | None) -> str:
    """The record on ECG paper as a data URI: all of it, or the seconds around a segment with the segment marked."""
    if times is None:
        image = draw(record, width=_WIDTH).to_pil()
    else:
        last = max(record.signal.shape[1] / record.sampling_rate - _SHOWN_S, 0)
        start = min(max((times[0] + times[1] - _SHOWN_S) / 2, 0), last)
        first = round(start * record.sampling_rate)
        cut = replace(record, signal=record.signal[:, first : first + round(_SHOWN_S * record.sampling_rate)])
        page = draw(cut, layout="3x4,simultaneous", width=_WIDTH)
        bands = Image.new("RGB", (page.image.shape[1], page.image.shape[0]), "white")
        for lead in page.geometry.leads:
            (left, _), (right, _) = lead.to_page(np.array(times) - first / record.sampling_rate, np.zeros(2))
            ImageDraw.Draw(bands).rectangle((left, lead.box[1], right, lead.box[3]), fill=_BAND)
        image = ImageChops.multiply(page.to_pil(), bands)
    return data_uri(image, colours=64)
