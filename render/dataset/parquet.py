"""Pages and dialogues as a Parquet data set: one row is one image with all its dialogues (`render.dataset.rows`).

A data set is a function of (source, options): row i depends on its record and the seed alone, a shard on its rows, so
the bytes are the same whatever the number of workers and after any interruption. `manifest.json` is written last;
a folder without it is not a finished data set and is not opened as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from render.dataset.data_card import COUNTS_KEY, Counts, card, summary
from render.dataset.rows import Options, make_row, schema
from render.dialogues.compose import Dialogue
from render.errors import InputError, WorkFailed
from render.io import atomic_write, read_json_object, require_empty, require_same_request, write_json
from render.record import EcgRecord
from render.sources.registry import Source, prevalence_of

if TYPE_CHECKING:
    import datasets


class DialogueSource(Protocol):
    """Dialogues from elsewhere (`render.dataset.llava`): small to pickle, as workers get a copy."""

    name: str

    def dialogues(self, record: EcgRecord) -> list[Dialogue]:
        """Those of one record; none where there are none."""
        ...


@dataclass(frozen=True)
class _Job:
    """What every shard of a data set is made from."""

    source: Source
    options: Options
    told: DialogueSource | None
    prevalence: Mapping[str, float] | None

    @property
    def pages(self) -> int:
        return len(self.source) * self.options.per_record

    def shards(self, out: Path) -> Iterator[tuple[int, int, Path]]:
        """First page, last page (excluded) and file of every shard."""
        size = self.options.shard_size
        count = -(-self.pages // size)
        for k in range(count):
            yield k * size, min((k + 1) * size, self.pages), out / "data" / f"train-{k:05d}-of-{count:05d}.parquet"

    def row(self, i: int, read: Callable[[int], EcgRecord]) -> tuple[dict[str, Any], EcgRecord]:
        """Row i and its record. Raises `SkippedError` for a record of which nothing is told."""
        record = read(i // self.options.per_record)
        if self.told is None:
            return make_row(record, i, self.options, prevalence=self.prevalence), record
        told = self.told.dialogues(record)
        if not told:
            raise SkippedError(f"record {record.record_id}: no dialogue of it in {self.told.name}")
        return make_row(record, i, self.options, told=told), record

    def write(self, start: int, stop: int, path: Path) -> None:
        """Write rows start..stop-1 to one Parquet file, whole or not at all; its metadata hold what it counts."""
        read = lru_cache(maxsize=1)(self.source.read)  # the pages of one record follow each other
        rows: list[dict[str, Any]] = []
        counted = Counts()
        for i in range(start, stop):
            try:
                row, record = self.row(i, read)
            except InputError as error:
                if not (self.options.lenient or isinstance(error, SkippedError)):
                    raise
                counted.skip(i, str(error))
            else:
                rows.append(row)
                counted.add(row, record)
        table = pa.Table.from_pylist(rows, schema=schema(self.options))
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), COUNTS_KEY: counted.to_json()})
        with atomic_write(path) as partial:
            # Images are compressed already: fast compression, and row groups small enough to stream.
            pq.write_table(table, partial, compression="zstd", row_group_size=100)


class SkippedError(InputError):
    """A record that is left out, lenient or not."""


def write_dataset(
    source: Source,
    out: str | Path,
    options: Options,
    *,
    told: DialogueSource | None = None,
    workers: int = 1,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Render every record of `source` into the folder `out` and return the manifest.

    told: dialogues from elsewhere in place of composed ones; records without any are left out.
    progress: called with (pages done, pages in all) after each shard.
    Raises `InputError` for a filled folder without `resume`, for other options than the ones it was begun with, for
    an unreadable record (unless lenient), and when nothing at all could be read; `WorkFailed` when a worker dies.
    """
    out = Path(out)
    if len(source) == 0:
        raise InputError(f"{source.name}: no records to render; check the folder and --folds")
    begun = {"source": source.name, "records": len(source), "options": options.said(), "told": told and told.name}
    _begin(out, begun, resume)
    job = _Job(source, options, told, prevalence_of(source))
    shards = list(job.shards(out))
    pending = [shard for shard in shards if not shard[2].exists()]
    done = job.pages - sum(stop - start for start, stop, _ in pending)
    progress(done, job.pages)
    for pages in _written(job, pending, workers):
        done += pages
        progress(done, job.pages)
    manifest = {**begun, **summary(path for _, _, path in shards)}
    if manifest["pages"] == 0:
        raise InputError(
            f"{source.name}: none of {len(source)} records could be used; {manifest['skipped'][0]['reason']}"
        )
    with atomic_write(out / "README.md") as partial:
        partial.write_text(card(manifest), encoding="utf-8")
    write_json(out / "manifest.json", manifest)
    return manifest


def _begin(out: Path, begun: dict[str, Any], resume: bool) -> None:
    marker = out / "begun.json"
    if resume and marker.exists():
        first = read_json_object(marker, "name a new folder")
        require_same_request(out, first, begun)
        for left in out.glob("data/.*"):  # half-written by a process that was killed
            left.unlink()
        return
    require_empty(out)
    write_json(marker, begun)


def _written(job: _Job, pending: Sequence[tuple[int, int, Path]], workers: int) -> Iterator[int]:
    """Write the shards, and say how many pages each was made from."""
    if workers <= 1:
        for start, stop, path in pending:
            job.write(start, stop, path)
            yield stop - start
        return
    # spawn, not fork: a forked child inherits locks of threads (OpenMP, Arrow) that do not exist in it.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(job.write, *shard): shard for shard in pending}
        try:
            for future in as_completed(futures):
                future.result()
                start, stop, _ = futures[future]
                yield stop - start
        except BrokenProcessPool as error:
            raise WorkFailed("a worker process was killed, perhaps for memory; go on with --resume") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
