"""A row of a data set: one image with all its dialogues, and the options that decide its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from render.dataset.signal_column import signal_column
from render.dialogues.compose import DIALOGUE_TASKS, FORMS, Dialogue, dialogues, refused
from render.dialogues.wording import refusal_of
from render.errors import InputError
from render.negatives.unreadable import Unreadable, make_unreadable
from render.pages.augment.pipeline import PageImage, augment
from render.pages.layout import Layout, sample_layout
from render.pages.page import draw
from render.pages.style import sample_style
from render.record import EcgRecord
from render.simulator.simulate import SIMULATED_STATEMENTS
from render.statements import STATEMENTS

# What `datasets` needs to know to show the bytes as pictures; stored in the Parquet schema under "huggingface".
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_DIALOGUE = pa.struct(
    [
        ("task", pa.string()),
        ("form", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("statements", pa.list_(pa.string())),
        ("provenance", pa.string()),
        ("language", pa.string()),
    ]
)
_COLUMNS: dict[str, pa.DataType] = {
    "image": _IMAGE,
    "dialogues": pa.list_(_DIALOGUE),
    "record_id": pa.string(),
    "source": pa.string(),
    "patient_id": pa.string(),
    "fold": pa.int32(),
    "statements": pa.list_(pa.string()),
    "report": pa.string(),
    "layout": pa.string(),
    "style": pa.string(),
    "geometry": pa.string(),
    "seed": pa.int64(),
}

_YOUNGER = ("signal", "unreadable")

# Streams of a page: none for the questions, 1 to 3 for its picture (see `make_picture`), and this one.
_UNREADABLE_STREAM = 4


def _features(kind: pa.DataType) -> Any:
    """An Arrow type in the JSON form of `datasets.Features`."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _features(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _features(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def schema(options: Options) -> pa.Schema:
    """The Arrow schema of rows; `mask`, `signal` and `unreadable` are there only where they were asked for."""
    columns = dict(_COLUMNS)
    if options.mask:
        columns["mask"] = _IMAGE
    if options.signal:
        columns["signal"] = pa.list_(pa.int16())
    if options.unreadable:
        columns["unreadable"] = pa.string()
    features = {name: _features(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


@dataclass(frozen=True)
class Options:
    """What decides the bytes of a data set, besides the source.

    layout: where things stand on the page, in words (see `render.pages.options`). style: how it looks, in words
    (see `render.pages.style`). width: of the page in pixels, the height follows; with `dpi` the paper's true width at
    that resolution instead. per_record: pages of each record. mask: whether each row carries the page's mask.
    closed: yes/no questions per page; None for as many no as yes. tasks, forms: of dialogues, from
    `render.dialogues.compose`.
    signal: whether each row carries its record's signal (`render.dataset.signal_column`).
    seed: of drawn layouts, styles and wear, of questions and wording. shard_size: pages per Parquet file.
    lenient: draw dead leads and short records as they are, leave unreadable records out and list them; otherwise
    the first such record stops the work.
    unreadable: share (0-1) of pages that cannot be read, and whose answers say so (`render.negatives.unreadable`); all
    other pages stay as they are without it.
    """

    layout: str = "3x4+1R"
    style: str = "clean"
    width: int = 1120
    dpi: int | None = None
    per_record: int = 1
    mask: bool = False
    signal: bool = False
    closed: int | None = None
    tasks: tuple[str, ...] = DIALOGUE_TASKS
    forms: tuple[str, ...] = FORMS
    seed: int = 0
    shard_size: int = 500
    lenient: bool = False
    unreadable: float = 0.0

    def __post_init__(self) -> None:
        """Raises `InputError` for words and tasks that nobody knows, before any work is done."""
        rng = np.random.default_rng(0)
        sample_layout(self.layout, rng)
        sample_style(self.style, rng)
        for what, said, known in (("task", self.tasks, DIALOGUE_TASKS), ("form", self.forms, FORMS)):
            if unknown := [word for word in said if word not in known] or ([] if said else ["none"]):
                raise InputError(f"{what}s: {', '.join(unknown)}: no such {what}; there are {', '.join(known)}")
        if not 0.0 <= self.unreadable <= 1.0:
            raise InputError(f"unreadable: {self.unreadable} is no share of the pages; give a number from 0 to 1")

    def said(self) -> dict[str, Any]:
        """The options as the manifest names them; younger ones only where set, so that older data sets go on."""
        return {name: value for name, value in asdict(self).items() if name not in _YOUNGER or value}


def check(record: EcgRecord, layout: Layout) -> None:
    """Raise `InputError` for a record that this layout would draw with a gap: a dead lead, or too little time."""
    shown = {trace.lead for trace in layout.traces}
    dead = [lead for lead in record.dead_leads() if lead in shown]
    if dead:
        raise InputError(
            f"record {record.record_id}: lead {', '.join(dead)} is flat or holds NaN; mend or leave out the record, "
            f"or draw it as it is with --lenient"
        )
    if record.seconds < layout.seconds - 0.5 / record.sampling_rate:
        raise InputError(
            f"record {record.record_id}: {record.seconds:.2f} s of signal, the page shows {layout.seconds:g} s; "
            f"draw what is there with --lenient"
        )


def make_picture(record: EcgRecord, i: int, options: Options) -> tuple[PageImage, str]:
    """Page i of a data set as an image file, and its style in words.

    Raises `InputError` for a record that cannot be drawn.
    """
    # One stream each, apart from the questions': another style leaves layout and dialogues as they are.
    plan, look, worn = (np.random.default_rng([options.seed, i, stream]) for stream in (1, 2, 3))
    layout = sample_layout(options.layout, plan)
    style = sample_style(options.style, look)
    if not options.lenient:
        check(record, layout)
    width = options.width if options.dpi is None else round(layout.width * options.dpi / 25.4)
    page = draw(record, layout=layout.name, width=width, paper=style.paper, mask=options.mask)
    return augment(page, style.effect_strengths(look), worn), style.name


def make_row(
    record: EcgRecord,
    i: int,
    options: Options,
    *,
    told: Sequence[Dialogue] | None = None,
    prevalence: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Row i of the data set: the record's page with its dialogues.

    told: dialogues from elsewhere, in place of composed ones. prevalence: of the statements among the source's records,
    if known (see `dialogues`).
    Raises `InputError` for a record that cannot be used.
    """
    picture, style = make_picture(record, i, options)
    if told is None:
        rng = np.random.default_rng([options.seed, i])
        told = dialogues(
            record,
            rng,
            asked=_askable(record),
            closed=options.closed,
            tasks=options.tasks,
            prevalence=prevalence,
        )
        told = [dialogue for dialogue in told if dialogue.form in options.forms]
    row: dict[str, Any] = {
        "image": {"bytes": picture.data, "path": f"{record.record_id}{picture.suffix}"},
        "dialogues": _told(told),
        "record_id": record.record_id,
        "source": record.source,
        "patient_id": record.patient_id,
        "fold": record.fold,
        "statements": list(record.statements),
        "report": record.report,
        "layout": picture.geometry.layout,
        "style": style,
        "geometry": picture.geometry.to_json(),
        "seed": options.seed,
    }
    if options.signal:
        row["signal"] = signal_column(record)
    if picture.mask is not None:
        row["mask"] = {"bytes": _mask_png(picture.mask), "path": f"{record.record_id}-mask.png"}
    if options.unreadable:
        chance = np.random.default_rng([options.seed, i, _UNREADABLE_STREAM])
        row["unreadable"] = ""
        if chance.random() < options.unreadable:
            row |= _spoilt(row, make_unreadable(picture, chance), told, chance)
    return row


def _spoilt(
    row: Mapping[str, Any], page: Unreadable, told: Sequence[Dialogue], rng: np.random.Generator
) -> dict[str, Any]:
    """What differs in the row of a page that cannot be read from that of the page as it was."""
    picture, record_id = page.picture, row["record_id"]
    changed: dict[str, Any] = {
        "image": {"bytes": picture.data, "path": f"{record_id}{picture.suffix}"},
        "dialogues": _told(refused(told, page.kind, page.missing_leads, rng)),
        "statements": [],
        "report": refusal_of(page.kind, page.missing_leads, "en", rng),
        "unreadable": page.kind,
    }
    if isinstance(picture, PageImage):
        changed["geometry"] = picture.geometry.to_json()
    else:  # a picture of something else has no page to describe
        changed |= {"geometry": "{}", "layout": "", "style": ""}
    if picture.mask is not None:
        changed["mask"] = {"bytes": _mask_png(picture.mask), "path": f"{record_id}-mask.png"}
    return changed


def _told(told: Sequence[Dialogue]) -> list[dict[str, Any]]:
    return [
        {
            "task": d.task,
            "form": d.form,
            "messages": d.messages(),
            "statements": list(d.statements),
            "provenance": d.provenance,
            "language": d.language,
        }
        for d in told
    ]


def _askable(record: EcgRecord) -> tuple[str, ...]:
    """Codes that "no" can be said about: all 71 for a labelled record, what the simulator knows for a simulated one."""
    return SIMULATED_STATEMENTS if record.source == "simulated" else tuple(STATEMENTS)


def _mask_png(mask: NDArray[np.uint8]) -> bytes:
    out = BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()
