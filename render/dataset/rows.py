"""A row of a data set: one image with all its dialogues, and the options that determine its bytes."""

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
from render.dialogues.compose import DIALOGUE_TASKS, FORMS, Dialogue, compose_dialogues, refusals
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

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Which `datasets` decodes as images, as the Parquet schema says so under "huggingface"."""
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
DIALOGUE_TYPE = pa.struct(
    [
        ("task", pa.string()),
        ("form", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("statements", pa.list_(pa.string())),
        ("provenance", pa.string()),
        ("language", pa.string()),
    ]
)
"""A dialogue about an image."""
_COLUMNS: dict[str, pa.DataType] = {
    "image": IMAGE_TYPE,
    "dialogues": pa.list_(DIALOGUE_TYPE),
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

_LATER_OPTIONS = ("signal", "unreadable")

# Random streams of a page: the questions have none, its picture 1 to 3 (see `make_picture`), and unreadable pages this.
_UNREADABLE_STREAM = 4


IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""First bytes of the two kinds of image files that a data set holds."""


def features_of(kind: pa.DataType) -> Any:
    """An Arrow type in the JSON form of `datasets.Features`."""
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": features_of(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: features_of(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def schema(options: Options) -> pa.Schema:
    """The Arrow schema of rows; `mask`, `signal` and `unreadable` only where the options ask for them."""
    columns = dict(_COLUMNS)
    if options.mask:
        columns["mask"] = IMAGE_TYPE
    if options.signal:
        columns["signal"] = pa.list_(pa.int16())
    if options.unreadable:
        columns["unreadable"] = pa.string()
    features = {name: features_of(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


@dataclass(frozen=True)
class Options:
    """What determines the bytes of a data set, besides the source.

    Attributes:
        layout: words for the arrangement of the page (see `render.pages.options`).
        style: words for its look (see `render.pages.style`).
        width: of the page in pixels, which determines its height; with `dpi` the paper's true width at that
            resolution instead.
        per_record: pages of each record.
        mask: whether each row has the page's mask.
        signal: whether each row has its record's signal (`render.dataset.signal_column`).
        closed: yes/no questions per page; None for as many no as yes.
        tasks: of dialogues, from `render.dialogues.compose`.
        forms: of dialogues, from `render.dialogues.compose`.
        seed: of layouts, styles, wear, questions and wording.
        shard_size: pages per Parquet file.
        lenient: draw dead leads and short records as they are, and list unreadable records; otherwise stop at the
            first.
        unreadable: share (0-1) of pages that cannot be read, and whose answers say so
            (`render.negatives.unreadable`); the other pages are the same as without it.
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
        """Raises `InputError` for unknown words, tasks and forms, before any work."""
        rng = np.random.default_rng(0)
        sample_layout(self.layout, rng)
        sample_style(self.style, rng)
        require_known_words(self.tasks, self.forms)
        if not 0.0 <= self.unreadable <= 1.0:
            raise InputError(f"unreadable: {self.unreadable} is not a share of the pages; give a number from 0 to 1")

    def to_manifest(self) -> dict[str, Any]:
        """The options by name; later additions only where set, so that older data sets can be resumed."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER_OPTIONS or value}


def require_known_words(tasks: Sequence[str], forms: Sequence[str]) -> None:
    """Raise `InputError` for a task or a form that does not exist, and for none at all."""
    for kind, words, valid in (("task", tasks, DIALOGUE_TASKS), ("form", forms, FORMS)):
        if unknown := [word for word in words if word not in valid] or ([] if words else ["none"]):
            raise InputError(f"{kind}s: {', '.join(unknown)}: no such {kind}; valid are {', '.join(valid)}")


def check(record: EcgRecord, layout: Layout) -> None:
    """Raise `InputError` for a record that this layout would draw with a gap: a dead lead, or too short a signal."""
    leads = {trace.lead for trace in layout.traces}
    dead = [lead for lead in record.dead_leads() if lead in leads]
    if dead:
        raise InputError(
            f"record {record.record_id}: lead {', '.join(dead)} is flat or contains NaN; repair or leave out the "
            f"record, or draw it as it is with --lenient"
        )
    if record.seconds < layout.seconds - 0.5 / record.sampling_rate:
        raise InputError(
            f"record {record.record_id}: {record.seconds:.2f} s of signal, the page shows {layout.seconds:g} s; "
            f"draw it as it is with --lenient"
        )


def make_picture(record: EcgRecord, i: int, options: Options) -> tuple[PageImage, str]:
    """Page i of a data set as an image file, and the words of its style.

    Raises:
        InputError: For a record that cannot be drawn.
    """
    # One random stream each, and another for the questions: a new style does not change layout and dialogues.
    layout_rng, style_rng, wear_rng = (np.random.default_rng([options.seed, i, stream]) for stream in (1, 2, 3))
    layout = sample_layout(options.layout, layout_rng)
    style = sample_style(options.style, style_rng)
    if not options.lenient:
        check(record, layout)
    width = options.width if options.dpi is None else round(layout.width * options.dpi / 25.4)
    page = draw(record, layout=layout.name, width=width, paper=style.paper, mask=options.mask)
    return augment(page, style.effect_strengths(style_rng), wear_rng), style.name


def make_row(
    record: EcgRecord,
    i: int,
    options: Options,
    *,
    dialogues: Sequence[Dialogue] | None = None,
    prevalence: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Row i of the data set: the record's page with its dialogues.

    Args:
        dialogues: from another source; None to compose them.
        prevalence: of the statements among the source's records, if known (see `compose_dialogues`).

    Raises:
        InputError: For a record that cannot be used.
    """
    picture, style = make_picture(record, i, options)
    if dialogues is None:
        rng = np.random.default_rng([options.seed, i])
        dialogues = compose_dialogues(
            record,
            rng,
            vocabulary=_vocabulary(record),
            closed=options.closed,
            tasks=options.tasks,
            prevalence=prevalence,
        )
        dialogues = [dialogue for dialogue in dialogues if dialogue.form in options.forms]
    row: dict[str, Any] = {
        "image": {"bytes": picture.data, "path": f"{record.record_id}{picture.suffix}"},
        "dialogues": dialogue_column(dialogues),
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
        unreadable_rng = np.random.default_rng([options.seed, i, _UNREADABLE_STREAM])
        row["unreadable"] = ""
        if unreadable_rng.random() < options.unreadable:
            row |= _unreadable_columns(row, make_unreadable(picture, unreadable_rng), dialogues, unreadable_rng)
    return row


def _unreadable_columns(
    row: Mapping[str, Any], page: Unreadable, dialogues: Sequence[Dialogue], rng: np.random.Generator
) -> dict[str, Any]:
    """The columns in which the row of an unreadable page differs from that of the original page."""
    picture, record_id = page.picture, row["record_id"]
    columns: dict[str, Any] = {
        "image": {"bytes": picture.data, "path": f"{record_id}{picture.suffix}"},
        "dialogues": dialogue_column(refusals(dialogues, page.kind, page.missing_leads, rng)),
        "statements": [],
        "report": refusal_of(page.kind, page.missing_leads, "en", rng),
        "unreadable": page.kind,
    }
    if isinstance(picture, PageImage):
        columns["geometry"] = picture.geometry.to_json()
    else:  # a picture of something else has no page to describe
        columns |= {"geometry": "{}", "layout": "", "style": ""}
    if picture.mask is not None:
        columns["mask"] = {"bytes": _mask_png(picture.mask), "path": f"{record_id}-mask.png"}
    return columns


def dialogue_column(dialogues: Sequence[Dialogue]) -> list[dict[str, Any]]:
    """Dialogues as the column `dialogues` holds them."""
    return [
        {
            "task": dialogue.task,
            "form": dialogue.form,
            "messages": dialogue.messages(),
            "statements": list(dialogue.statements),
            "provenance": dialogue.provenance,
            "language": dialogue.language,
        }
        for dialogue in dialogues
    ]


def _vocabulary(record: EcgRecord) -> tuple[str, ...]:
    """Codes that can be denied: the simulator's for a simulated record, all 71 for others."""
    return SIMULATED_STATEMENTS if record.source == "simulated" else tuple(STATEMENTS)


def _mask_png(mask: NDArray[np.uint8]) -> bytes:
    out = BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()
