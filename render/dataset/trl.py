"""TRL's rows, one dialogue each: `messages` with their `images`, as SFTTrainer and others take them.

Columns that TRL ignores follow: record_id, source, task, form, provenance, statements, language.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from render.dataset.llava import open_shard, shards_of
from render.dataset.rows import DIALOGUE_TYPE, IMAGE_TYPE, features_of
from render.io import atomic_write, exclusive

_EXTRAS = ("task", "form", "provenance", "statements", "language")
_COLUMNS: dict[str, pa.DataType] = {
    "messages": DIALOGUE_TYPE.field("messages").type,
    "images": pa.list_(IMAGE_TYPE),
    "record_id": pa.string(),
    "source": pa.string(),
    **{name: DIALOGUE_TYPE.field(name).type for name in _EXTRAS},
}
_SCHEMA = pa.schema(
    list(_COLUMNS.items()),
    metadata={"huggingface": json.dumps({"info": {"features": {n: features_of(k) for n, k in _COLUMNS.items()}}})},
)
_PAGES_AT_ONCE = 64
_DICTIONARY_BYTES = 64 << 20
"""A page's bytes are stored once for all its rows, as long as the pages of a row group fit into the dictionary."""


def export_trl(
    dataset: str | Path, out: str | Path, progress: Callable[[int, int], None] = lambda count, total: None
) -> int:
    """Write the shards of a data set as `out/trl/<shard>.parquet`, a row for each dialogue; returns their number.

    progress: called with (pages written, total pages).

    Raises:
        InputError: Where there is no shard, or a damaged one.
    """
    out = Path(out)
    shards = shards_of(dataset)
    total = sum(open_shard(shard).metadata.num_rows for shard in shards)
    pages = dialogues = 0
    with exclusive(out):
        for shard in shards:
            with (
                atomic_write(out / "trl" / shard.name) as partial,
                pq.ParquetWriter(partial, _SCHEMA, dictionary_pagesize_limit=_DICTIONARY_BYTES) as file,
            ):
                for batch in open_shard(shard).iter_batches(_PAGES_AT_ONCE, use_threads=False):
                    rows = [row for page in batch.to_pylist() for row in trl_rows(page)]
                    file.write_table(pa.Table.from_pylist(rows, _SCHEMA))
                    pages += batch.num_rows
                    dialogues += len(rows)
                    progress(pages, total)
    return dialogues


def trl_rows(page: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of a data set as TRL's rows."""
    of_page = {"images": [page["image"]], "record_id": page["record_id"], "source": page["source"]}
    return [
        {"messages": dialogue["messages"], **of_page, **{name: dialogue.get(name) for name in _EXTRAS}}
        for dialogue in page["dialogues"]
    ]
