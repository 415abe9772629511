"""Atomic writes of files and folders, JSON, and the check that a resumed run has the same settings."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from render.errors import InputError

# tempfile makes private files; results get the permissions that the user's umask gives to any other file.
_UMASK = os.umask(0)
os.umask(_UMASK)
_FILE_MODE, _FOLDER_MODE = 0o666 & ~_UMASK, 0o777 & ~_UMASK


def read_json_object(path: Path, mend: str) -> dict[str, Any]:
    """The JSON object in a file. Raises `InputError` that names the file and ends with `mend` when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {mend}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is a JSON {type(content).__name__}, not an object; {mend}")
    return content


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only when the block succeeds.

    A reader therefore sees the old file, the new file or none, but never a partial one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(_FILE_MODE)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Like `atomic_write` for a folder that does not exist yet (or is empty).

    Raises:
        InputError: When `path` is a file or a folder that is not empty.
    """
    path = Path(path)
    require_empty(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield partial
        apply_umask(partial)
        if path.exists():
            path.rmdir()
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def apply_umask(path: Path) -> None:
    """Give a file, or a folder with all that it holds, the permissions that the user's umask gives any other file.

    safetensors and tempfile write private files (0600, 0700).
    """
    for item in (path, *path.rglob("*")):
        item.chmod(_FOLDER_MODE if item.is_dir() else _FILE_MODE)


def require_empty(path: str | Path) -> None:
    """Raise `InputError` when `path` is a file or a folder that is not empty: nothing is overwritten."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path}: already exists and is not empty; name a new folder, or remove this one first")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def require_same_request(
    folder: Path, first: Mapping[str, Any], now: Mapping[str, Any], *, free: Collection[str] = (), mend: str = ""
) -> None:
    """Refuse to resume in `folder` a run that started with another request: its results would be a mixture of both.

    Args:
        first: the request at the start and now, compared as JSON; keys of nested objects are joined by dots.
        now: the request at the start and now, compared as JSON; keys of nested objects are joined by dots.
        free: keys that may differ.
        mend: how to resume, instead of "the same KEY".

    Raises:
        InputError: Naming the first key that differs, with both values.
    """
    before, after = (_flat(json.loads(json.dumps(request))) for request in (first, now))
    for key in sorted({*before, *after} - {*free}):
        if before.get(key) != after.get(key):
            raise InputError(
                f"{folder}: was started with {key}={_short(before.get(key))}, not {_short(after.get(key))}; "
                f"resume with {mend or 'the same ' + key}, or name a new folder"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


_LONGEST_VALUE = 80
