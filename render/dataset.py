"""Pages and dialogues as a Parquet data set: one row is one image with all its dialogues.

A data set is a function of (source, options): row i depends on record i and the seed alone, a shard on its rows, so
the bytes are the same whatever the number of workers and after any interruption. `manifest.json` is written last;
a folder without it is not a finished data set and is not opened as one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from render.dialogue import dialogues
from render.files import InputError, refuse_filled, whole_file
from render.layout import layout_named
from render.page import draw
from render.record import EcgRecord
from render.simulate import SIMULATED_STATEMENTS
from render.source import Source
from render.statements import STATEMENTS

if TYPE_CHECKING:
    import datasets

# What `datasets` needs to know to show the bytes as pictures; stored in the Parquet schema under "huggingface".
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_DIALOGUE = pa.struct(
    [
        ("task", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("statements", pa.list_(pa.string())),
        ("provenance", pa.string()),
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
    "geometry": pa.string(),
    "seed": pa.int64(),
}


def _features(kind: pa.DataType) -> Any:
    """An Arrow type in the JSON form of `datasets.Features`."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _features(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _features(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


_SCHEMA = pa.schema(
    list(_COLUMNS.items()),
    metadata={"huggingface": json.dumps({"info": {"features": {n: _features(t) for n, t in _COLUMNS.items()}}})},
)


@dataclass(frozen=True)
class Options:
    """What decides the bytes of a data set, besides the source.

    layout: a page layout in words (see `render.page_options`). width: page width in pixels; the height follows.
    closed: yes/no questions per page. seed: of questions and wording. shard_size: pages per Parquet file.
    lenient: draw dead leads and short records as they are, leave unreadable records out and list them; otherwise
    the first such record stops the work.
    """

    layout: str = "3x4+1R"
    width: int = 1120
    closed: int = 16
    seed: int = 0
    shard_size: int = 500
    lenient: bool = False


def check(record: EcgRecord, layout: str) -> None:
    """Raise `InputError` for a record that this layout would draw with a gap: a dead lead, or too little time."""
    dead = record.dead_leads()
    if dead:
        raise InputError(
            f"record {record.record_id}: lead {', '.join(dead)} is flat or holds NaN; mend or leave out the record, "
            f"or draw it as it is with --lenient"
        )
    shown = layout_named(layout).seconds
    if record.seconds < shown - 0.5 / record.sampling_rate:
        raise InputError(
            f"record {record.record_id}: {record.seconds:.2f} s of signal, the page shows {shown:g} s; "
            f"draw what is there with --lenient"
        )


def make_row(source: Source, i: int, options: Options) -> dict[str, Any]:
    """Row i of the data set: reads, draws and asks. Raises `InputError` for a record that cannot be used."""
    record = source.read(i)
    if not options.lenient:
        check(record, options.layout)
    page = draw(record, layout=options.layout, width=options.width)
    rng = np.random.default_rng([options.seed, i])
    return {
        "image": {"bytes": page.png(), "path": f"{record.record_id}.png"},
        "dialogues": [
            {
                "task": d.task,
                "messages": d.messages(),
                "statements": list(d.statements),
                "provenance": d.provenance,
            }
            for d in dialogues(record, rng, asked=_askable(record), closed=options.closed)
        ],
        "record_id": record.record_id,
        "source": record.source,
        "patient_id": record.patient_id,
        "fold": record.fold,
        "statements": list(record.statements),
        "report": record.report,
        "layout": page.geometry["layout"],
        "geometry": json.dumps(page.geometry, separators=(",", ":")),
        "seed": options.seed,
    }


def _askable(record: EcgRecord) -> tuple[str, ...]:
    """Codes that "no" can be said about: all 71 for a labelled record, what the simulator knows for a simulated one."""
    return SIMULATED_STATEMENTS if record.source == "simulated" else tuple(STATEMENTS)


def write_shard(source: Source, start: int, stop: int, options: Options, path: Path) -> Path:
    """Write rows start..stop-1 to one Parquet file, whole or not at all; skipped records go into its metadata."""
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for i in range(start, stop):
        try:
            rows.append(make_row(source, i, options))
        except InputError as error:
            if not options.lenient:
                raise
            skipped.append({"index": i, "reason": str(error)})
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"skipped": json.dumps(skipped)})
    with whole_file(path) as partial:
        # Images are compressed already: fast compression, and row groups small enough to stream.
        pq.write_table(table, partial, compression="zstd", row_group_size=100)
    return path


def write_dataset(
    source: Source,
    out: str | Path,
    options: Options,
    *,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Render every record of `source` into the folder `out` and return the manifest.

    progress: called with (pages done, pages in all) after each shard.
    Raises `InputError` for a filled folder without `resume`, for other options than the ones it was begun with, for
    an unreadable record (unless lenient), and when nothing at all could be read.
    """
    out = Path(out)
    if len(source) == 0:
        raise InputError(f"{source.name}: no records to render; check the folder and --folds")
    begun = {"source": source.name, "records": len(source), "options": asdict(options)}
    _begin(out, begun, resume)
    pending, done, total = [], 0, len(source)
    count = -(-total // options.shard_size)
    for k in range(count):
        path = out / "data" / f"train-{k:05d}-of-{count:05d}.parquet"
        start, stop = k * options.shard_size, min((k + 1) * options.shard_size, total)
        if path.exists():
            done += stop - start
        else:
            pending.append((start, stop, path))
    progress(done, total)
    for start, stop in _finished(source, pending, options, workers):
        done += stop - start
        progress(done, total)
    manifest = {**begun, **_summary(sorted((out / "data").glob("*.parquet")))}
    if manifest["pages"] == 0:
        raise InputError(f"{source.name}: none of {total} records could be read; {manifest['skipped'][0]['reason']}")
    with whole_file(out / "README.md") as partial:
        partial.write_text(_card(manifest), encoding="utf-8")
    with whole_file(out / "manifest.json") as partial:
        partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def _begin(out: Path, begun: dict[str, Any], resume: bool) -> None:
    marker = out / "begun.json"
    if resume and marker.exists():
        if json.loads(marker.read_text(encoding="utf-8")) != begun:
            raise InputError(
                f"{out}: was begun with other options ({marker.name}); resume with those, or name a new folder"
            )
        return
    refuse_filled(out)
    with whole_file(marker) as partial:
        partial.write_text(json.dumps(begun, indent=1), encoding="utf-8")


def _finished(
    source: Source, pending: list[tuple[int, int, Path]], options: Options, workers: int
) -> Iterator[tuple[int, int]]:
    if workers <= 1:
        for start, stop, path in pending:
            write_shard(source, start, stop, options, path)
            yield start, stop
        return
    # spawn, not fork: a forked child inherits locks of threads (OpenMP, Arrow) that do not exist in it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(write_shard, source, start, stop, options, path) for start, stop, path in pending]
        try:
            for (start, stop, _), future in zip(pending, futures, strict=True):
                future.result()
                yield start, stop
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _summary(shards: Iterable[Path]) -> dict[str, Any]:
    pages, skipped = 0, []
    labels: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    for shard in shards:
        file = pq.ParquetFile(shard)
        pages += file.metadata.num_rows
        skipped += json.loads(file.schema_arrow.metadata[b"skipped"])
        for batch in file.iter_batches(columns=["statements", "dialogues.list.element.task"]):
            for row in batch.to_pylist():
                labels.update(row["statements"])
                tasks.update(dialogue["task"] for dialogue in row["dialogues"])
    return {
        "pages": pages,
        "skipped": skipped,
        "statement_counts": dict(sorted(labels.items())),
        "dialogue_counts": dict(sorted(tasks.items())),
    }


_LICENCES = {
    "simulated": "Simulated records: no patient data. Apache-2.0 like the generator.",
    "ptbxl": "Contains PTB-XL 1.0.3 (Wagner et al. 2020, CC BY 4.0): name the source when you share it.",
    "mimic": "Contains MIMIC-IV-ECG (Open Database License, PhysioNet terms): do not share beyond those terms.",
    "wfdb": "The licence of the records it was rendered from applies.",
}


def _card(manifest: dict[str, Any]) -> str:
    """The data card; its header makes plain `datasets.load_dataset(folder)` find the shards and nothing else."""
    counts = "\n".join(f"| {code} | {n} |" for code, n in manifest["statement_counts"].items())
    tasks = ", ".join(f"{n} {task}" for task, n in manifest["dialogue_counts"].items())
    options = ", ".join(f"{key} {value}" for key, value in manifest["options"].items())
    return (
        "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
        f"# ECG pages with dialogues: {manifest['source']}\n\n"
        f"{manifest['pages']} pages of {manifest['records']} records; {len(manifest['skipped'])} records left out "
        f"(reasons in `manifest.json`). Dialogues: {tasks}.\n\nOptions: {options}.\n\n"
        f"{_LICENCES.get(manifest['source'], '')} Not for diagnosis.\n\n"
        f"| statement | pages |\n|---|---|\n{counts}\n"
    )


def open_dataset(folder: str | Path) -> datasets.Dataset:
    """Open a finished data set with `datasets` (memory-mapped). Raises `InputError` where it is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such data set folder; make one with: ecg-vlm render simulated {folder}")
    if not (folder / "manifest.json").exists():
        hint = (
            "it was not finished; run the same render command with --resume"
            if (folder / "begun.json").exists()
            else "not a data set of ecg-vlm"
        )
        raise InputError(f"{folder}: no manifest.json: {hint}")
    import datasets

    shards = sorted(str(path) for path in (folder / "data").glob("*.parquet"))
    if not shards:
        raise InputError(f"{folder}/data: no .parquet shard; render the data set again")
    try:
        return datasets.Dataset.from_parquet(shards)
    except (pa.ArrowInvalid, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise InputError(f"{folder}/data: a shard cannot be read ({error}); render the data set again") from error
