"""What touches the disk: errors a person can act on, and writes that are whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """The user's input is wrong. The message is one line: file, field, value and the mend.

    The command line prints it and exits with code 2; it never becomes a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


class WorkFailed(RuntimeError):  # noqa: N818  # not an error of the program's either: the world got in the way
    """The input was right, and the work could not be done. The message is one line: what happened and how to go on.

    The command line prints it and exits with code 1.
    """


def read_json_object(path: Path, mend: str) -> dict[str, Any]:
    """The JSON object in a file. Raises `InputError` that names the file and ends with `mend` when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {mend}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {mend}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no JSON object but a {type(found).__name__}; {mend}")
    return found


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only when the block succeeds.

    A reader therefore sees the old file, the new file, or none, but never half of one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)  # mkstemp makes private files; a result is to be read by others
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Like `whole_file` for a folder that does not exist yet (or is empty).

    Raises `InputError` when `path` is there and holds anything.
    """
    path = Path(path)
    refuse_filled(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield partial
        partial.chmod(0o755)
        if path.exists():
            path.rmdir()
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_filled(path: str | Path) -> None:
    """Raise `InputError` when `path` is a file or a folder that holds anything: nothing is overwritten."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path}: already holds something; name a new folder, or remove this one first")
