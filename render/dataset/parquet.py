"""Pages and dialogues as a Parquet data set: one row is one image with all its dialogues (`render.dataset.rows`).

A data set is a function of (source, options): row i depends only on its record and the seed, and a shard on its rows,
so that the bytes do not depend on the number of workers or on interruptions. `manifest.json` is written last; a folder
without it is not a finished data set and cannot be opened.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from render.dataset.data_card import COUNTS_KEY, Counts, package_versions, summary, write_card
from render.dataset.rows import IMAGE_STARTS, IMAGE_TYPE, Options, make_row, schema
from render.dialogues.compose import Dialogue
from render.errors import InputError, WorkFailed
from render.io import (
    atomic_write,
    exclusive,
    file_digest,
    is_url,
    read_json_object,
    remove_partial,
    require_empty,
    require_same_request,
    temporary_folder,
    text_digest,
    user_path,
    write_json,
)
from render.record import EcgRecord
from render.sources.registry import Source, digest_of, prevalence_of
from render.workers import Step, Workers, run_tasks

if TYPE_CHECKING:
    import datasets


_EXPORTS = ("llava.json", "trl")
_RENDER_AGAIN = "render the data set again"


_MAY_BE_MISSING = frozenset({"fold", "patient_id", "report", "provenance", "language"})

# Rows of a group: to read one picture is to read those of its group. Fewer rows a group make footers and text longer.
_GROUP_ROWS = 20
PICTURE_COLUMNS = ("image", "mask")
"""The columns of pictures."""
_OPEN_SHARDS = 64  # at once in a process; each keeps its footer, and of a URL what it read last
_BLOCK_BYTES = 1 << 18  # read at once from a URL, or what is asked for where that is more
_PAUSES_S = (1.0, 4.0, 16.0)  # before a storage that failed is asked again


class DialogueSource(Protocol):
    """Dialogues that are not composed (`render.dataset.llava`): small when pickled, as workers get a copy."""

    name: str

    def dialogues(self, record: EcgRecord) -> list[Dialogue]:
        """The dialogues of one record; [] where it has none."""
        ...


class RowSource(Protocol):
    """The numbered rows of a data set: small when pickled; row i depends on i alone, so that any worker can make it."""

    name: str

    def __len__(self) -> int: ...

    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows, like `render.dataset.rows.schema`."""
        ...

    def row(self, i: int) -> tuple[dict[str, Any], Sequence[str]]:
        """Row i, and the lines of its report that stand for no statement.

        Raises `SkippedError` for a row that is left out in any case, `InputError` for one that cannot be made.
        """
        ...


class _RecordRows:
    """The rows of the records of a source: `options.per_record` pages of each, one after the other."""

    def __init__(self, source: Source, options: Options, dialogue_source: DialogueSource | None) -> None:
        self.name = source.name
        self._source, self._options, self._dialogue_source = source, options, dialogue_source
        self._prevalence = prevalence_of(source)
        self._last: tuple[int, EcgRecord] | None = None  # the pages of one record are consecutive

    def __len__(self) -> int:
        return len(self._source) * self._options.per_record

    def schema(self) -> pa.Schema:
        return schema(self._options)

    def row(self, i: int) -> tuple[dict[str, Any], Sequence[str]]:
        """Raises `SkippedError` for a record without dialogues in the source of dialogues."""
        record = self._record(i // self._options.per_record)
        if self._dialogue_source is None:
            return make_row(record, i, self._options, prevalence=self._prevalence), record.unmapped_lines
        dialogues = self._dialogue_source.dialogues(record)
        if not dialogues:
            raise SkippedError(f"record {record.record_id}: no dialogue of it in {self._dialogue_source.name}")
        return make_row(record, i, self._options, dialogues=dialogues), record.unmapped_lines

    def _record(self, number: int) -> EcgRecord:
        if self._last is None or self._last[0] != number:
            self._last = number, self._source.read(number)
        return self._last[1]


@dataclass(frozen=True)
class _Job:
    """What the shards of a data set have in common."""

    rows: RowSource
    shard_size: int
    lenient: bool
    versions: Mapping[str, str]

    def shards(self, out: Path) -> Iterator[tuple[int, int, Path]]:
        """First page, last page (excluded) and file of every shard."""
        size, pages = self.shard_size, len(self.rows)
        count = -(-pages // size)
        for k in range(count):
            yield k * size, min((k + 1) * size, pages), out / "data" / f"train-{k:05d}-of-{count:05d}.parquet"

    def write(self, start: int, stop: int, path: Path, step: Step) -> None:
        """Write rows start..stop-1 to one Parquet file, atomically; its metadata contain their counts.

        Raises `InputError` on a machine with other versions of what makes the bytes of a page.
        """
        if (here := package_versions()) != self.versions:
            raise InputError(
                f"{platform.node()}: has {here}, and the work was started with {dict(self.versions)}; "
                "install the same versions on all machines"
            )
        rows: list[dict[str, Any]] = []
        counts = Counts()
        for i in range(start, stop):
            try:
                row, unmapped_lines = self.rows.row(i)
            except InputError as error:
                if not (self.lenient or isinstance(error, SkippedError)):
                    raise
                counts.skip(i, str(error))
            else:
                rows.append(row)
                counts.add(row, unmapped_lines)
            step()
        table = pa.Table.from_pylist(rows, schema=self.rows.schema())
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), COUNTS_KEY: counts.to_json()})
        with atomic_write(path) as partial:
            # Images are already compressed: fast compression.
            pq.write_table(table, partial, compression="zstd", row_group_size=_GROUP_ROWS)


class SkippedError(InputError):
    """A record that is left out whether lenient or not."""


def write_dataset(
    source: Source,
    out: str | Path,
    options: Options,
    *,
    dialogue_source: DialogueSource | None = None,
    workers: int | Workers = 1,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> dict[str, Any]:
    """Render every record of `source` into the folder `out` and return the manifest.

    Args:
        workers: processes, or a cluster (`render.cluster`) whose nodes see the records and `out` at the same paths.
        dialogue_source: replaces composed dialogues; records without any in it are left out.
        progress: called with (pages drawn, total pages) as they are drawn.

    Raises:
        InputError: For a folder that is not empty without `resume`, for other options or records than at the start,
            for a folder that another process writes into, for an unreadable record (unless lenient), and when no
            record could be read.
        WorkFailed: When a worker dies.
    """
    rows = _RecordRows(source, options, dialogue_source)
    request = {
        "source": source.name,
        "records": len(source),
        "options": options.to_manifest(),
        "told": dialogue_source and dialogue_source.name,
    }
    digests = {"source": digest_of(source), "dialogues": digest_of(dialogue_source)}
    return write_rows(
        rows,
        out,
        request,
        digests,
        shard_size=options.shard_size,
        lenient=options.lenient,
        workers=workers,
        resume=resume,
        progress=progress,
    )


def write_rows(
    rows: RowSource,
    out: str | Path,
    request: dict[str, Any],
    digests: Mapping[str, str],
    *,
    shard_size: int,
    lenient: bool = False,
    workers: int | Workers = 1,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> dict[str, Any]:
    """Write all rows into the folder `out` and return the manifest.

    Args:
        request: what determines the bytes: "source", "records", "options" and "told" (the file of the dialogues, or
            None), and anything else that must be the same when the work is resumed.
        digests: "source" and "dialogues": of the records and of the dialogues that replace composed ones.
        lenient: list the rows that cannot be made, in place of stopping at the first.
        workers: like `write_dataset`.
        progress: called with (pages drawn, total pages) as they are drawn.

    Raises:
        InputError: Like `write_dataset`.
        WorkFailed: When a worker dies.
    """
    out = user_path(out)
    if len(rows) == 0:
        raise InputError(f"{rows.name}: no records to render; check the folder and --folds")
    with exclusive(out):
        _start(out, request, digests, resume)
        if _is_exported(out):
            return read_json_object(out / "manifest.json", "name a new folder") | request
        job = _Job(rows, shard_size, lenient, package_versions())
        shards = list(job.shards(out))
        names = {path.name for path in (out / "data").glob("*.parquet")}
        pending = [shard for shard in shards if shard[2].name not in names]
        count = len(rows) - sum(stop - start for start, stop, _ in pending)
        progress(count, len(rows))
        run_tasks(job.write, pending, workers, lambda steps: progress(count + steps, len(rows)))
        remove_partial(out)  # of a node that was lost
        manifest = {**request, **summary(path for _, _, path in shards)}
        if manifest["pages"] == 0:
            raise InputError(
                f"{rows.name}: none of {request['records']} records could be used; {manifest['skipped'][0]['reason']}"
            )
        write_card(out, manifest)
        write_json(out / "manifest.json", manifest)
    return manifest


def _start(out: Path, request: dict[str, Any], digests: Mapping[str, str], resume: bool) -> None:
    """Write the request into a new folder, or compare it with that of the folder to be resumed.

    digests: of the records and of the dialogues that replace composed ones; version 0.1 stored none.
    """
    marker = out / "begun.json"
    if not (resume and marker.exists()):
        require_empty(out)
        write_json(marker, request | {"digests": digests})
        return
    first = read_json_object(marker, "name a new folder")
    first_digests = first.pop("digests", digests)
    if not isinstance(first_digests, dict):
        raise InputError(f"{marker}: digests is no object; name a new folder")
    require_same_request(out, first, request)
    for name, what in (("source", "other records, labels or folds of the source"), ("dialogues", "other dialogues")):
        if first_digests.get(name) != digests[name]:
            raise InputError(f"{out}: was started with {what}; resume with the same ones, or name a new folder")
    for partial in out.glob("data/.*"):  # of a process of version 0.1 that was killed
        partial.unlink()


def _is_exported(out: Path) -> bool:
    """Whether the data set was finished and became `llava.json` or `trl/`, after which its shards are removed."""
    is_one = any((out / name).exists() for name in _EXPORTS)
    return is_one and (out / "manifest.json").is_file() and not (out / "data").is_dir()


@cache
def _cache_of_process() -> Path:
    return temporary_folder("pages")


def is_dataset(folder: str | Path) -> bool:
    """Whether a folder was made by `ecg-vlm render`, finished or not."""
    folder = user_path(folder)
    return any((folder / name).is_file() for name in ("manifest.json", "begun.json")) and not any(
        (folder / name).exists() for name in _EXPORTS
    )


def open_dataset(folder: str | Path, cache_folder: Path | None = None) -> datasets.Dataset:
    """Open a finished data set with `datasets`. Raises `InputError` when the folder is none.

    Its pictures stay where they are, in a folder or at a URL, and are read one by one (`open_files`).

    cache_folder: where copies of all else are written; by default a private temporary folder that is removed when the
    process ends. Pages of patients never stay in the cache in the home folder.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        from render.sources.registry import SOURCE_KINDS

        has_records = str(folder).partition(":")[0] in SOURCE_KINDS  # "ptbxl:DIR" in place of its pages
        words = f"{folder} pages" if has_records else f"SOURCE {folder}"
        raise InputError(f"{folder}: no such data set folder; create one with: ecg-vlm render {words}")
    if not (folder / "manifest.json").exists():
        hint = (
            "it was not finished; run the same render command with --resume"
            if (folder / "begun.json").exists()
            else "not a data set of ecg-vlm"
        )
        raise InputError(f"{folder}: no manifest.json: {hint}")
    shards = sorted((folder / "data").glob("*.parquet"), key=str)
    if not shards:
        raise InputError(f"{folder}/data: no .parquet shard; render the data set again")
    try:
        rows = open_files(shards, cache_folder or _cache_of_process(), PICTURE_COLUMNS)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}/data: a shard cannot be read ({error}); render the data set again") from error
    _require_columns(rows, folder)
    return rows


def open_files(files: Sequence[Path], cache_folder: Path, pictures: Sequence[str] = ()) -> datasets.Dataset:
    """Parquet files with the columns of the first one, memory-mapped in a copy in `cache_folder`.

    `datasets.Dataset.from_parquet` does the same with threads, of Arrow and of a progress bar, and waits for ever
    where one of them finds no memory to begin with.

    Args:
        pictures: columns, where there are such, of which the copy has only the places. A picture is read from its file
            when it is asked for, together with its row group, of which the last one stays in memory.

    Raises:
        ArrowException, OSError, ValueError: For a damaged file, and for one with other columns.
        InputError: Where `pictures` hold something else, and where another column holds files.
        WorkFailed: When a storage fails again and again; also where a picture is asked for.
    """
    import datasets
    from datasets.table import table_cast
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.monitor_interval = 0  # no thread for the bars that are not shown
    picture = picture_feature()  # which `datasets` has to know also where the copy is there
    _shard.cache_clear()  # what was read before may have been written again
    _group.cache_clear()
    files = [file if is_url(file) else file.absolute() for file in files]
    digest = text_digest(pictures, *((file, (status := file.stat()).st_size, status.st_mtime) for file in files))
    copy = cache_folder / f"{digest}.arrow"
    if not copy.exists():
        features = datasets.Features.from_arrow_schema(_of_shard(files[0], lambda shard: shard.schema_arrow))
        if pictures:
            require_picture_columns(features, str(files[0].parent))
            features |= {name: picture for name in pictures if name in features}
        columns = features.arrow_schema
        values = [name for name in features if name not in pictures]
        with atomic_write(copy) as partial, pa.ipc.new_stream(str(partial), columns) as stream:
            for file in files:
                for group in range(_of_shard(file, lambda shard: shard.num_row_groups)):
                    table = _read_group(str(file), group, values)
                    for name in features.keys() - values:
                        places = [{"path": f"{name}/{group}/{row}/{file}"} for row in range(len(table))]
                        table = table.append_column(name, pa.array(places, IMAGE_TYPE))
                    stream.write_table(table_cast(table, columns))
    return datasets.Dataset.from_file(str(copy))


@lru_cache(_OPEN_SHARDS)
def _shard(file: str) -> pq.ParquetFile:
    path: Any = user_path(file)
    source = path.fs.open(path.path, block_size=_BLOCK_BYTES) if is_url(path) else path
    return pq.ParquetFile(source, pre_buffer=False)  # without threads, see `open_files`


if hasattr(os, "register_at_fork"):  # a connection belongs to one process
    os.register_at_fork(after_in_child=_shard.cache_clear)


def _of_shard(file: str | Path, read: Callable[[pq.ParquetFile], Any]) -> Any:
    """What `read` takes out of a Parquet file; a storage that fails is asked again, after a pause.

    Raises:
        WorkFailed: Where it fails again.
    """
    pauses = iter(_PAUSES_S)
    while True:
        try:
            return read(_shard(str(file)))
        except (FileNotFoundError, MemoryError, pa.ArrowInvalid):
            raise
        except Exception as error:  # each storage has its own
            if not is_url(user_path(file)):
                raise
            if (pause := next(pauses, None)) is None:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise WorkFailed(
                    f"{file}: the storage has failed {len(_PAUSES_S) + 1} times ({reason}); continue with --resume"
                ) from error
        _shard.cache_clear()  # a connection that was lost is made again
        time.sleep(pause)


def _read_group(file: str, group: int, columns: Sequence[str]) -> pa.Table:
    return _of_shard(file, lambda shard: shard.read_row_group(group, list(columns), use_threads=False))


_group = lru_cache(len(PICTURE_COLUMNS))(_read_group)


def _picture(place: str) -> bytes:
    """The picture at a place that `open_files` has written down. Raises `InputError` where something else is."""
    column, group, row, file = place.split("/", 3)
    value = _group(file, int(group), (column,)).column(column)[int(row)].as_py() or {}
    require_picture(value.get("bytes"), f"{file}: group {int(group) + 1}, row {int(row) + 1}: column {column!r}")
    return value["bytes"]  # type: ignore[no-any-return]


@cache
def picture_feature() -> datasets.Image:
    """The feature of a picture that is read from its file when it is asked for (`open_files`), and whose damage is an
    error in the input."""
    import datasets

    @dataclass(eq=False)
    class PictureOfDataset(datasets.Image):  # type: ignore[misc]  # datasets has no types
        # Under another name, so that what `datasets` writes in its cache is read with this class again.
        _type: str = field(default="PictureOfDataset", init=False, repr=False)

        def decode_example(self, value: Any, *args: Any, **options: Any) -> Any:
            try:
                if isinstance(value, dict) and value["bytes"] is None:
                    value = {"bytes": _picture(value["path"]), "path": None}
                return super().decode_example(value, *args, **options)
            except InputError:
                raise
            except (KeyError, OSError, SyntaxError, ValueError) as error:  # of Arrow, or of Pillow for a damaged PNG
                raise InputError(f"a picture of the data set is damaged ({error}); {_RENDER_AGAIN}") from error

        # `datasets` joins rows whose features are equal: this one and its own are.
        def __eq__(self, other: object) -> bool:
            return isinstance(other, datasets.Image) and (self.mode, self.decode) == (other.mode, other.decode)

        __hash__ = None  # type: ignore[assignment]  # as that of its parent

    with warnings.catch_warnings(action="ignore"):  # it calls itself experimental
        datasets.features.features.register_feature(PictureOfDataset, "PictureOfDataset")
    return PictureOfDataset()


def require_picture(content: bytes | None, where: str) -> None:
    """Refuse what is not the bytes of a PNG or JPEG file.

    `datasets` would open the file or fetch the URL that a row has in place of bytes, wherever it lies, and Pillow would
    start Ghostscript for PostScript.
    """
    if content is None or not content.startswith(IMAGE_STARTS):
        what = "names a file or an address instead" if content is None else "has others"
        raise InputError(f"{where} has to hold a PNG or JPEG image's bytes and {what}; {_RENDER_AGAIN}")


def require_picture_columns(features: Mapping[str, Any], where: str) -> None:
    """Refuse a data set with other files than its pictures, or without pictures."""
    import datasets
    from datasets.features.features import require_decoding

    for name, feature in features.items():
        if require_decoding(feature) and not (name in PICTURE_COLUMNS and isinstance(feature, datasets.Image)):
            raise InputError(f"{where}: column {name!r} holds files of another kind; {_RENDER_AGAIN}")
    if not isinstance(features.get("image"), datasets.Image):
        raise InputError(f"{where}: column 'image' holds no images; {_RENDER_AGAIN}")


_EXPECTED = schema(Options())


def _require_columns(rows: datasets.Dataset, folder: Path) -> None:
    """Refuse a data set that lacks what every reader of it takes for granted."""
    for name in ("record_id", "source", "fold", "patient_id", "report", "statements", "dialogues"):
        if name not in rows.column_names:
            raise InputError(f"{folder}/data: there is no column {name!r}; {_RENDER_AGAIN}")
        column, kind = rows.data.column(name), _EXPECTED.field(name).type
        if column.type != kind:
            raise InputError(
                f"{folder}/data: column {name!r} holds {str(column.type)[:60]}, not {kind}; {_RENDER_AGAIN}"
            )
        if name not in _MAY_BE_MISSING and any(map(_lacks_value, column.chunks)):
            raise InputError(f"{folder}/data: column {name!r} lacks a value in some row; {_RENDER_AGAIN}")


def _lacks_value(array: pa.Array) -> bool:
    """Whether a value is missing, at any depth of lists and objects."""
    if array.null_count:
        return True
    if pa.types.is_list(array.type):
        return _lacks_value(array.flatten())
    if pa.types.is_struct(array.type):
        return any(_lacks_value(array.field(field.name)) for field in array.type if field.name not in _MAY_BE_MISSING)
    return False


def dataset_digest(folder: str | Path) -> str:
    """Of the manifest of a data set and the sizes of its shards: of what `open_dataset` opens, wherever it lies."""
    folder = user_path(folder)
    sizes = ((path.name, path.stat().st_size) for path in sorted(folder.glob("data/*.parquet"), key=str))
    return text_digest(file_digest(folder / "manifest.json"), *sizes)
