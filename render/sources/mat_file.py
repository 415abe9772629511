"""MATLAB files of the PhysioNet/CinC challenges: an array "val" beside the WFDB header that gives its meaning.

Version 4 files are WFDB signal files with 24 bytes before the samples, so their header reads them; version 5 is
unpacked by scipy.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.sources.recording import MOST_VALUES, Recording
from render.sources.wfdb_header import Header, read_header
from render.sources.wfdb_record import read_wfdb

MAT5_START = b"MATLAB 5.0"

_ARRAY = "val"
_NUMBERS = ("double", "single", "int8", "int16", "int32", "uint8", "uint16", "uint32")


def read_mat(content: bytes, path: Path | None, where: str) -> Recording | tuple[NDArray[np.float32], float]:
    """The leads of "val", or (signal, hertz) of `read_wfdb`. Raises `InputError` without a header beside the file."""
    header = None if path is None else path.with_suffix(".hea")
    if header is None or not header.is_file():
        name = "its .hea file" if header is None else header.name
        raise InputError(f"{where}: a MATLAB file gives no rate, unit or lead; put {name} beside it, or save a CSV")
    if not content.startswith(MAT5_START):
        return read_wfdb(header)
    head = read_header(header, check_files=False)
    if not isinstance(head, Header):
        raise InputError(f"{header}: a record of several segments; convert it with wfdb")
    values = _array(content, where)
    if values.shape != (len(head.channels), head.frames):
        raise InputError(f"{where}: 'val' is {values.shape}, {header.name} gives {len(head.channels), head.frames}")
    codings = [channel.coding for channel in head.channels]
    millivolts = [
        (row - coding.baseline) / coding.gain * coding.millivolts for row, coding in zip(values, codings, strict=True)
    ]
    return Recording([channel.name for channel in head.channels], millivolts, head.hertz)


def _array(content: bytes, where: str) -> NDArray[np.float64]:
    from scipy.io import loadmat, whosmat  # slow to load, and seldom needed

    try:
        shapes = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(content))}
        shape, kind = shapes.get(_ARRAY, ((), "missing"))
        if kind not in _NUMBERS or not 0 < np.prod(shape, dtype=float) <= MOST_VALUES:
            raise ValueError(f"'{_ARRAY}' is {kind} {shape}")
        values = loadmat(io.BytesIO(content), variable_names=[_ARRAY])[_ARRAY]
        return np.asarray(values, dtype=np.float64)
    except Exception as error:  # scipy raises whatever the damage leads to
        raise InputError(f"{where}: no array of samples can be read ({error}); save it again") from error
