"""What a run leaves in its folder: the facts of a finished one, and checkpoints that are whole or not there.

A checkpoint is written beside, flushed to the disk, then renamed into place.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from render.errors import InputError
from render.io import read_json_object

_PREFIX = "checkpoint-"


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints in a run's folder, oldest first."""
    found = [p for p in out.glob(f"{_PREFIX}*") if p.is_dir() and p.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=step_of)


def last_checkpoint_line(out: Path) -> str:
    """For messages: the last good checkpoint of a run."""
    whole = checkpoints(out)
    return f"the last good checkpoint is {whole[-1]}" if whole else "there is no checkpoint yet"


def staging(out: Path) -> Path:
    """Where a checkpoint lies while it is written. What is left there by a killed process is never read."""
    return out / ".unfinished"


def put_in_place(out: Path, step: int) -> None:
    """Move a written checkpoint from the staging folder into `out`, and remove the older ones."""
    name = f"{_PREFIX}{step}"
    _flush(staging(out) / name)
    older = checkpoints(out)
    (staging(out) / name).replace(out / name)
    _flush_entry(out)
    for checkpoint in older:
        # Renamed first: a kill in the middle of the removal must not leave half a checkpoint under a good name.
        doomed = staging(out) / f"old-{checkpoint.name}"
        checkpoint.replace(doomed)
    shutil.rmtree(staging(out), ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _flush_entry(path)


def _flush_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_run(folder: Path) -> dict[str, Any]:
    """`run.json` of a finished run. Raises `InputError` when it is missing or damaged."""
    path = folder / "run.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no run.json; name the folder of a finished run of ecg-vlm finetune; one that did not finish "
            f"goes on with --out {folder} --resume"
        )
    return read_json_object(path, "run the tuning again")
