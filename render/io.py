"""Atomic writes of files and folders, one writer a folder, JSON, and the check that a resumed run has the same request.

A process may be killed at any time. What it leaves then are temporary files and folders, whose names tell what they
are; the next writer in the folder removes them.
"""

from __future__ import annotations

import ast
import atexit
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from render.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# tempfile makes private files; results get the permissions that the user's umask gives to any other file.
_UMASK = os.umask(0)
os.umask(_UMASK)
_FILE_MODE, _FOLDER_MODE = 0o666 & ~_UMASK, 0o777 & ~_UMASK

_PARTIAL = re.compile(r"\..{1,40}\.ecg-vlm-[a-z0-9_]{8}(\.[^.]{0,9})?", re.DOTALL)
"""Names of temporary files and folders, see `_partial_name`."""


_URL = re.compile(r"(?!hf:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # data sets of the hub have readers of their own


def user_path(text: str | Path) -> Path:
    """The path that a person wrote, with the home folder for ~; as it stands where there is no such user.

    Of a URL that fsspec opens (s3://, gs://, memory:// ...) an object that is no `Path` (`is_url`) and has its methods.
    Raises `InputError` for a URL of an unknown kind, and where a package for it is missing.
    """
    if not isinstance(text, str):
        return text
    if not _URL.match(text):
        return Path(os.path.expanduser(text))  # Path.expanduser raises for a user that does not exist
    from upath import UPath

    try:
        # Without its cache of listings, which knows no file that another process has written since.
        path: Any = UPath(text, use_listings_cache=False)
        path.fs.protocol  # noqa: B018  # the package is imported here
    except (ImportError, ValueError) as error:
        raise InputError(f"{text}: {error}") from error
    return path  # type: ignore[no-any-return]


def is_url(path: Path) -> bool:
    """Whether `user_path` made it of a URL."""
    return not isinstance(path, Path)


def download(path: Path, folder: Path) -> Path:
    """A copy of a URL's file in a folder of this machine, whole or not at all. Raises FileNotFoundError."""
    remote: Any = path
    with atomic_write(folder / path.name) as partial:
        remote.fs.get_file(remote.path, str(partial))
    return folder / path.name


def local_copy(path: Path) -> Path:
    """The file itself, or of a URL's file a copy that this process keeps until it ends."""
    return _copy_of_process(path) if is_url(path) else path


@cache
def _copy_of_process(path: Path) -> Path:
    return download(path, Path(tempfile.mkdtemp(dir=_transfers())))


@cache
def _transfers() -> Path:
    return temporary_folder("transfers")


def python_literal(text: str) -> Any:
    """What a literal of Python says, as "{'NORM': 100.0}"; for anything else, `ValueError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of odd escapes and numbers
            return ast.literal_eval(text)
    # Beyond ValueError and SyntaxError, deep nesting raises MemoryError or RecursionError.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text[:60]!r} is no literal") from error


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

    A reader therefore sees the old file, the new file or none, but never a partial one. Object stores cannot rename,
    and need not: an object is there once all of it has arrived.
    """
    path = user_path(path)
    if is_url(path):
        remote: Any = path
        with tempfile.TemporaryDirectory(dir=_transfers()) as folder:
            partial = Path(folder, path.name)
            yield partial
            remote.fs.put_file(str(partial), remote.path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix, suffix = _partial_name(path)
    with _errors_name(path):
        handle, name = tempfile.mkstemp(suffix, prefix, path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(_FILE_MODE)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """Let an error of the system name what was asked for, not the temporary file or folder beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Like `atomic_write` for a folder that does not exist yet (or is empty).

    Raises:
        InputError: When `path` is a file or a folder that is not empty.
    """
    path = Path(path)
    require_empty(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    prefix, suffix = _partial_name(path)
    with _errors_name(path):
        partial = Path(tempfile.mkdtemp(suffix, prefix, path.parent))
    handle = _lock(partial)
    try:
        yield partial
        apply_umask(partial)
        if path.exists():
            path.rmdir()
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary folders for `path` that no process is writing into."""
    for partial in path.parent.glob(f"{glob.escape(_partial_name(path)[0])}*"):
        with suppress(InputError):  # another process holds its lock
            handle = _lock(partial)
            if handle is not None:
                shutil.rmtree(partial, ignore_errors=True)
                os.close(handle)


def _partial_name(path: Path) -> tuple[str, str]:
    """Prefix and suffix of a temporary file: libraries choose a format by the suffix, and a name has 255 bytes."""
    suffix = path.suffix if len(path.suffix) <= 10 else ""
    return f".{path.name[:40]}.ecg-vlm-", suffix


@contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Let one process at a time write into a folder, and remove the temporary files that killed ones have left there.

    The folder is made, and removed again where the block leaves nothing in it. The lock is on the folder itself and
    ends with the process, however that ends. Without one: Windows, network disks that cannot lock, and URLs.

    Raises:
        InputError: When `folder` is a file, and when another process is writing there.
    """
    folder = user_path(folder)
    if is_url(folder):
        yield
        return
    new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    handle = _lock(folder)
    try:
        remove_partial(folder)
        yield
    finally:
        with suppress(OSError):  # one is not empty
            for each in new_folders:
                each.rmdir()
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A file descriptor that holds the lock until it is closed; None where the system has no lock for folders."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{error.filename}: is a file, not a folder; name another folder") from error
        if fcntl is None:
            return None
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise InputError(
                f"{folder}: another ecg-vlm is writing there; wait until it has ended, or name another folder"
            ) from error
        except OSError:
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                return handle
        os.close(handle)  # removed by its last writer after it was opened here: make it again


def remove_partial(folder: Path) -> None:
    """Remove the temporary files in a folder and below. Call it where no other process writes: in `exclusive`.

    A URL has none.
    """
    if is_url(folder):
        return
    for parent, folders, names in os.walk(folder):
        for name in filter(_PARTIAL.fullmatch, names):
            (Path(parent) / name).unlink(missing_ok=True)
        for name in filter(_PARTIAL.fullmatch, folders):
            shutil.rmtree(Path(parent) / name, ignore_errors=True)


def temporary_folder(name: str) -> Path:
    """A private folder in the system's place for temporary files (TMPDIR), removed when this process ends.

    Where the process is killed, the next call with the same name removes it, in whatever process.
    """
    place = Path(tempfile.gettempdir()) / name
    _remove_abandoned(place)
    prefix, suffix = _partial_name(place)
    folder = Path(tempfile.mkdtemp(suffix, prefix, place.parent))
    _lock(folder)  # held until the process ends
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not in a forked worker
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder with all it holds. Renamed first: where a kill leaves part of it, its name tells what it is."""
    name = _partial_name(folder)[0] + secrets.token_hex(4)
    shutil.rmtree(folder.rename(folder.with_name(name)), ignore_errors=True)


def file_digest(path: str | Path) -> str:
    """BLAKE2 of a file's bytes."""
    with user_path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def text_digest(*parts: object) -> str:
    """BLAKE2 of the parts as text, in their order."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def apply_umask(path: Path) -> None:
    """Give a file, or a folder with all that it holds, the permissions that the user's umask gives any other file.

    safetensors and tempfile write private files (0600, 0700).
    """
    for item in (path, *path.rglob("*")):
        item.chmod(_FOLDER_MODE if item.is_dir() else _FILE_MODE)


def require_empty(path: str | Path) -> None:
    """Raise `InputError` when `path` is a file or a folder that is not empty: nothing is overwritten.

    Temporary files of a killed process do not count.
    """
    path = user_path(path)
    if path.is_file():
        raise InputError(f"{path}: already exists; name a new one, or remove this one first")
    if path.is_dir() and not all(_PARTIAL.fullmatch(item.name) for item in path.iterdir()):
        raise InputError(f"{path}: already exists and is not empty; name a new folder, or remove this one first")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def require_same_request(
    folder: Path, first: Mapping[str, Any], now: Mapping[str, Any], *, free: Collection[str] = (), mend: str = ""
) -> None:
    """Refuse to resume in a folder or file what started with another request: its results would be a mixture of both.

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
                f"resume with {mend or 'the same ' + key}, or name a new {'file' if folder.is_file() else 'folder'}"
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
