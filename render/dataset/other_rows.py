"""Training data in other forms than `ecg-vlm render` writes: TRL's rows, LLaVA and ECGInstruct files, hub data sets.

Whatever the form, one row here is one image with all its dialogues: rows that share an image are joined, and a dialogue
of several turns stays one. Nothing is opened that lies outside the data: an image is bytes, or a file beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from render.dataset.json_stream import samples_in
from render.dataset.llava import conversation_turns, guess_form, guess_task, sample_record_id
from render.dataset.parquet import (
    PICTURE_COLUMNS,
    open_files,
    picture_feature,
    require_picture,
    require_picture_columns,
)
from render.dataset.rows import IMAGE_STARTS, Options, schema
from render.errors import InputError, is_text
from render.io import atomic_write, file_digest, text_digest, user_path

if TYPE_CHECKING:
    import datasets

HUB = "hf://"
"""Prefix of a hub data set: hf://OWNER/NAME, or hf://datasets/OWNER/NAME."""

_FORMS_IN_WORDS = (
    "expected a folder made by ecg-vlm render, TRL rows (messages, images) as .parquet, .jsonl or a folder of them, "
    "LLaVA's .json with its images, or hf://OWNER/NAME"
)
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_PAGES_AT_ONCE = 64


@dataclass(frozen=True)
class _Row:
    """A dialogue about an image.

    Attributes:
        image: what tells images apart: the path of a file, or the digest of bytes.
        extras: of what a data set's dialogue has besides the messages.
    """

    image: str
    messages: list[dict[str, str]]
    record_id: str
    source: str
    extras: Mapping[str, Any]


class _LlavaFile:
    """The samples of a LLaVA file; images lie beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> Iterator[_Row]:
        """Every sample. Raises `InputError` with its number."""
        for number, (_, _, sample) in enumerate(samples_in(self._path), 1):
            try:
                turns = conversation_turns(sample)
            except InputError as error:
                raise InputError(f"{self._path}: sample {number}: {error}") from error
            messages = [
                {"role": role, "content": text}
                for pair in turns
                for role, text in zip(("user", "assistant"), pair, strict=True)
            ]
            record_id, source = _record_of(sample)
            yield _Row(sample["image"], messages, record_id, source, sample)

    def image(self, row: int, name: str) -> bytes:
        """The bytes of an image. Raises `InputError` for one that is missing or lies elsewhere."""
        return _file_beside(self._path.parent, name, f"{self._path}: sample {row + 1}")


def _record_of(sample: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(sample.get("record_id"), str) and isinstance(sample.get("source"), str):
        return sample["record_id"], sample["source"]
    for source in ("mimic", "ptbxl"):
        if name := sample_record_id(sample, source):
            return name, source
    return str(PurePosixPath(sample["image"].replace("\\", "/")).with_suffix("")), "llava"


class _TrlRows:
    """TRL's rows of an open data set, or LLaVA's conversations in its columns.

    where: its name for messages. folder: of images that are given by path; None where there is none.
    """

    def __init__(self, rows: Any, where: str, folder: Path | None) -> None:
        import datasets

        self._where, self._folder = where, folder
        self._column = next((name for name in ("images", "image") if name in rows.column_names), "")
        if not self._column or not {"messages", "prompt", "conversations"} & set(rows.column_names):
            raise InputError(f"{where}: has the columns {', '.join(rows.column_names)[:200]}; {_FORMS_IN_WORDS}")
        feature, bare = rows.features[self._column], datasets.Image(decode=False)
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(self._column, bare)
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            rows = rows.cast_column(self._column, type(feature)(bare))
        self._rows = rows

    def rows(self) -> Iterator[_Row]:
        """Every row. Raises `InputError` with its number."""
        for number, row in enumerate(self._rows):
            where = f"{self._where}: row {number + 1}"
            image = self._image_of(row, where)
            content = image.get("bytes") or b""
            name = blake2b(content, digest_size=16).hexdigest() if content else str(image.get("path"))
            turns = row.get("messages") or row.get("conversations") or _prompt_and_completion(row)
            record_id, source = row.get("record_id"), row.get("source")
            yield _Row(name, _messages(turns, where), str(record_id or name), str(source or "trl"), row)

    def image(self, row: int, name: str) -> bytes:
        """The bytes of a row's image. Raises `InputError` for one that is missing or lies elsewhere."""
        where = f"{self._where}: row {row + 1}"
        content: bytes | None = self._image_of(self._rows[row], where).get("bytes")
        if content:
            return content
        if self._folder is None:
            raise InputError(f"{where}: the image is a path, {name[:80]!r}, and not in the data set; put its bytes in")
        return _file_beside(self._folder, name, where)

    def _image_of(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        images = row[self._column]
        images = images if isinstance(images, list) else [images]
        if len(images) != 1 or not isinstance(images[0], (str, dict)):
            raise InputError(f"{where}: has {len(images)} images; a row is about one image")
        return {"path": images[0]} if isinstance(images[0], str) else images[0]


def _prompt_and_completion(row: Mapping[str, Any]) -> list[Any]:
    """Of TRL's other form: each is a list of messages, or a text."""
    parts = (("user", row.get("prompt")), ("assistant", row.get("completion")))
    return [turn for role, v in parts for turn in (v if isinstance(v, list) else [{"role": role, "content": v}])]


def _messages(turns: Any, where: str) -> list[dict[str, str]]:
    """Messages with plain text; parts that stand for the image are left out. Raises `InputError`."""
    messages = []
    for turn in turns if isinstance(turns, list) else [None]:
        turn = turn if isinstance(turn, dict) else {}
        role = _ROLES.get(str(turn.get("role") or turn.get("from")))
        content = turn.get("content", turn.get("value"))
        if isinstance(content, list):
            content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
        if role is None or not isinstance(content, str):
            raise InputError(f"{where}: messages have a role (system, user, assistant) and a text as content")
        messages.append({"role": role, "content": content.replace("<image>", "").strip()})
    for role, missing in (("assistant", "an answer"), ("user", "a question")):
        if not any(message["role"] == role for message in messages):
            raise InputError(f"{where}: has no {role}'s turn; add {missing} or remove the row")
    return messages


def _file_beside(folder: Path, name: str, where: str) -> bytes:
    """The content of a file in `folder`, whatever `name` says."""
    path = folder / PurePosixPath(name.replace("\\", "/"))
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{where}: image {name[:80]!r} does not lie in {folder}; copy it there")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: image {name[:80]!r} cannot be read in {folder}; check its name") from error


def open_rows(name: str, cache_folder: Path) -> datasets.Dataset:
    """Data in another form as rows of a data set: the columns of rendered pages, without layout, style and geometry.

    Args:
        name: a file, a folder, or a hub data set (`HUB`).
        cache_folder: where the pages are written; what lies there under the same name is taken again.

    Raises:
        InputError: For what is none of these, with file, row and the mend.
    """
    pages = cache_folder / f"rows-{text_digest(name)[:16]}.parquet"
    if not pages.is_file():
        source = _open(name, cache_folder)
        if not isinstance(source, (_LlavaFile, _TrlRows)):
            return source
        _write_pages(source, name, pages)
    return open_files([pages], cache_folder, PICTURE_COLUMNS)


def rows_digest(name: str) -> str:
    """Of the files of such data, or of a hub data set's name."""
    if name.startswith(HUB):
        return text_digest(name)
    path = user_path(name)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return text_digest(*((p.name, file_digest(p)) for p in files))


def _open(name: str, cache_folder: Path) -> _LlavaFile | _TrlRows | datasets.Dataset:
    """Rows to be joined by their images, or the pages of a rendered data set that was sent to the hub."""
    import datasets

    path = user_path(name)
    if (path / "llava.json").is_file():
        path = path / "llava.json"
    if path.is_file() and path.suffix == ".json":
        return _LlavaFile(path)
    if not name.startswith(HUB) and not path.exists():
        raise InputError(f"{name}: no such file or folder; {_FORMS_IN_WORDS}")
    folder = path if path.is_dir() else path.parent
    try:
        if name.startswith(HUB):
            rows = _from_hub(name, cache_folder)
            if {"image", "dialogues", "record_id", "fold"} <= set(rows.column_names):
                return _with_pictures(rows, name)
            return _TrlRows(rows, name, None)
        if (path / "dataset_info.json").is_file():
            return _TrlRows(datasets.load_from_disk(str(path)), name, folder)
        files = sorted((path.rglob("*.parquet") if path.is_dir() else [path]), key=str)
        files = files or sorted(path.glob("*.jsonl"), key=str)
        if not files:
            raise InputError(f"{name}: no .parquet or .jsonl file; {_FORMS_IN_WORDS}")
        if files[0].suffix in (".jsonl", ".json"):
            digests = {str(file): file_digest(file) for file in files}
            rows = datasets.Dataset.from_generator(
                _json_objects, gen_kwargs={"digests": digests}, cache_dir=str(cache_folder)
            )
        else:
            rows = open_files(files, cache_folder)
        return _TrlRows(rows, name, folder)
    except InputError:
        raise
    except Exception as error:  # whatever the damage leads to
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{name}: cannot be read as a data set ({reason}); {_FORMS_IN_WORDS}") from error


def _with_pictures(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """Rows that come with their pictures' bytes. Raises `InputError` for one that has none."""
    require_picture_columns(rows.features, name)
    for column in set(PICTURE_COLUMNS) & set(rows.column_names):
        for number, content in enumerate(pc.struct_field(rows.data.column(column), "bytes"), 1):
            require_picture(content.as_py(), f"{name}: row {number}: column {column!r}")
        rows = rows.cast_column(column, picture_feature())
    return rows


def _json_objects(digests: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of JSON files, each with the keys of all. digests: of the files' content, so that none is stale.

    Python reads them: a line `null` ends the process in pyarrow 26's reader (a fault in memory).
    """
    names = dict.fromkeys(name for row in _rows_of(digests) for name in row)
    for row in _rows_of(digests):
        yield {name: row.get(name) for name in names}


def _rows_of(files: Iterable[str]) -> Iterator[dict[str, Any]]:
    for file in files:
        for number, (_, _, row) in enumerate(samples_in(Path(file)), 1):
            if not isinstance(row, dict):
                raise InputError(f"{file}: row {number} is no JSON object; {_FORMS_IN_WORDS}")
            yield row


def _from_hub(name: str, cache_folder: Path) -> Any:
    """The training split of a hub data set. Code that comes with one is not run."""
    import datasets

    owner_and_name = name.removeprefix(HUB).removeprefix("datasets/")
    return datasets.load_dataset(owner_and_name, split="train", cache_dir=str(cache_folder))


def _write_pages(source: _LlavaFile | _TrlRows, name: str, file: Path) -> None:
    """Write one row for each image, in the order of their first dialogues."""
    pages: dict[str, list[tuple[int, _Row]]] = {}
    for number, row in enumerate(source.rows()):
        texts = [row.image, row.record_id, row.source, *(m["content"] for m in row.messages), *_statements(row)]
        if not is_text("".join(texts)):
            raise InputError(f"{name}: row {number + 1}: holds half a character, which is no text; remove it")
        pages.setdefault(row.image, []).append((number, row))
    if not pages:
        raise InputError(f"{name}: holds no row; {_FORMS_IN_WORDS}")
    columns = schema(Options())
    items = list(pages.items())
    with atomic_write(file) as partial, pq.ParquetWriter(partial, columns) as writer:
        for start in range(0, len(items), _PAGES_AT_ONCE):
            rows = [_page(source, image, rows) for image, rows in items[start : start + _PAGES_AT_ONCE]]
            writer.write_table(pa.Table.from_pylist(rows, columns))


def _page(source: _LlavaFile | _TrlRows, image: str, rows: Sequence[tuple[int, _Row]]) -> dict[str, Any]:
    number, first = rows[0]
    content = source.image(number, image)
    if not content.startswith(IMAGE_STARTS):
        raise InputError(f"image {image[:80]!r} (row {number + 1}) is neither PNG nor JPEG; convert it")
    dialogues = []
    for _, row in rows:
        dialogue = _dialogue(row)
        if dialogue not in dialogues:
            dialogues.append(dialogue)
    return {
        "image": {"bytes": content, "path": None},
        "dialogues": dialogues,
        "record_id": first.record_id,
        "source": first.source,
        "patient_id": "",
        "fold": 0,
        "statements": [],
        "report": "",
        "layout": "",
        "style": "",
        "geometry": "{}",
        "seed": 0,
    }


def _dialogue(row: _Row) -> dict[str, Any]:
    question, answer = (next(m["content"] for m in row.messages if m["role"] == r) for r in ("user", "assistant"))
    return {
        "task": guess_task(question, answer),
        "form": guess_form(question, answer),
        "messages": row.messages,
        "statements": _statements(row),
        "provenance": "machine",
        "language": "en",
    }


def _statements(row: _Row) -> list[str]:
    statements = row.extras.get("statements")
    return [str(code) for code in statements] if isinstance(statements, list) else []
