"""DICOM objects: the data set in a file, and the twelve leads of a waveform object.

Standard: DICOM PS3.3 A.34 (waveform objects) and C.10.9 (the waveform module),
https://dicom.nema.org/medical/dicom/current/output/html/part03.html.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

from render.errors import InputError

_DEFLATE_SYNTAX = b"1.2.840.10008.1.2.1.99\0"  # a transfer syntax: all of the data set is one zlib stream
_META = 4096  # bytes at the file's start within which the transfer syntax is named


def read_dataset(content: bytes, where: str) -> Any:
    """The data set of a DICOM file (a pydicom `Dataset`); pixels and samples are not decoded.

    Raises `InputError` for a damaged file and for a deflated one, whose size once inflated nobody knows, and
    `ModuleNotFoundError` where pydicom is not installed.
    """
    import pydicom

    if _DEFLATE_SYNTAX in content[:_META]:
        raise InputError(f"{where}: a deflated DICOM file; export it with explicit VR little endian")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that do not follow the standard
            return pydicom.dcmread(io.BytesIO(content))
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise InputError(f"{where}: not a DICOM file that can be read ({error}); export it again") from error
