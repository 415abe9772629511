"""One WFDB record on the disk -> twelve leads in millivolts. Every source of real records reads through here.

Plain records (format 16, all channels in one file: PTB-XL's and MIMIC-IV-ECG's) are read here, in a tenth of the time
that the `wfdb` package takes; every other format is decoded by `wfdb`. Its header parser, however, is lenient: it
drops non-ASCII letters (which turns a unit of "µV" into "V"), takes a gain of 0 for 200, and ignores what it does not
understand. So the header is read strictly first (`render.sources.wfdb_header`), and compared with the size of its
signal files before anything is decoded or allocated.
"""

from __future__ import annotations

import math
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.record import in_lead_order
from render.sources.wfdb_header import RECORD_HINT, Channel, Coding, Header, MissingRecordError, read_header

__all__ = ["MissingRecordError", "inside", "read_wfdb"]

_PLAIN_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_INVALID = -32768  # a sample of format 16 that was not measured, signal(5)


def read_wfdb(header: str | Path) -> tuple[NDArray[np.float32], float]:
    """Read the record whose header file is `header` ("folder/x.hea") and whose signal files lie beside it.

    Returns the signal, (12, n) float32 in millivolts in the order of `LEADS`, and the sampling rate in hertz.
    Samples stored as "invalid" become NaN. Nothing outside the header's own folder is opened, and no network
    is used.

    Raises `MissingRecordError` when the header or a signal file is not there, and `InputError` for everything
    else that is wrong: a damaged header, a signal file shorter than the header says, samples that do not add up to
    the header's checksums (plain records; header(5)), a path in place of a file name, an unknown unit, a gain of 0
    (uncalibrated), a missing lead, a multi-segment record.
    """
    head = read_header(Path(header))
    # The numbers of the channels, sorted as their samples shall be
    numbers = np.arange(len(head.channels), dtype=np.float64)[:, None]
    rows = in_lead_order([c.name for c in head.channels], numbers, str(head.path))[:, 0].astype(np.int64).tolist()
    return _read_plain(head, rows) if _is_plain(head) else _decode(head, rows), head.hertz


def inside(folder: Path, relative: str, where: str) -> Path:
    """`folder / relative`, where `relative` comes from a data set's own table.

    Raises `InputError` naming `where` when the path is empty, absolute, or climbs out of the folder.
    """
    if _PLAIN_PATH.fullmatch(relative) and ".." not in relative:
        return folder / relative
    parts = PureWindowsPath(relative)  # knows both separators and drive letters: the stricter of the two
    if not relative.strip() or parts.anchor or ".." in parts.parts or "\0" in relative:
        short = repr(relative if len(relative) <= 60 else relative[:57] + "...")
        raise InputError(f"{where} {short} does not stay inside {folder}; {RECORD_HINT}")
    return folder.joinpath(*PurePosixPath(relative).parts)


def _is_plain(head: Header) -> bool:
    """Whether the samples are nothing but little-endian 16-bit numbers, one of each channel in turn."""
    first = head.channels[0].file
    return all(c.file == first and c.coding.is_plain for c in head.channels)


def _read_plain(head: Header, rows: list[int]) -> NDArray[np.float32]:
    """These channels of a plain record in millivolts, (rows, n)."""
    file = head.path.parent / head.channels[0].file
    wanted = head.frames * len(head.channels)
    try:
        stored = np.fromfile(file, "<i2", count=wanted)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    if stored.size != wanted:
        raise InputError(f"{file}: became shorter while it was read; read it again")
    steps = np.ascontiguousarray(stored.reshape(head.frames, -1).T[rows])
    channels = [head.channels[row] for row in rows]
    _check_sums(head, file, channels, steps)
    return _in_millivolts(steps, [channel.coding for channel in channels])


def _in_millivolts(steps: NDArray[np.int16], codings: list[Coding]) -> NDArray[np.float32]:
    """(rows, n) float32: what 64-bit arithmetic gives, rounded to 32 bits at the end.

    With numbers that 32 bits hold exactly, 32-bit arithmetic gives the same in half the time: rounding a sum or a
    quotient first to 53 bits does not change how it is rounded to 24 (Figueroa 1995, "When is double rounding
    innocuous?").
    """
    exact = all(
        c.millivolts == 1 and float(np.float32(c.gain)) == c.gain and abs(c.baseline) < 1 << 23 for c in codings
    )
    result: NDArray[Any] = steps.astype(np.float32 if exact else np.float64)
    result -= np.array([[c.baseline] for c in codings], result.dtype)
    result /= np.array([[c.gain] for c in codings], result.dtype)
    if not exact:
        result *= np.array([[c.millivolts] for c in codings])
    signal: NDArray[np.float32] = result.astype(np.float32, copy=False)
    if steps.min() == _INVALID:  # no lower number is there
        signal[steps == _INVALID] = np.nan
    return signal


def _check_sums(head: Header, file: Path, channels: list[Channel], steps: NDArray[np.int16]) -> None:
    """Raise `InputError` unless each channel's samples add up to its checksum, modulo 65536, header(5)."""
    sums = steps.view(np.uint16).sum(axis=1, dtype=np.uint16).tolist()
    for channel, found in zip(channels, sums, strict=True):
        if channel.checksum is not None and channel.checksum != found:
            raise InputError(
                f"{file}: the samples of lead {channel.name} have checksum {found}, {head.path.name} says "
                f"{channel.checksum}; {RECORD_HINT}, or delete that number and the next there to read them as they are"
            )


def _decode(head: Header, rows: list[int]) -> NDArray[np.float32]:
    """These channels of any record in millivolts, (rows, n). Channels sampled faster than others are averaged."""
    import wfdb  # here, not above: it loads pandas, which commands that read no record need not wait for

    name = str(head.path.absolute().with_suffix(""))
    if "::" in name:
        # wfdb opens files through fsspec, which takes "::" for a chain of URLs
        raise InputError(f"{head.path}: '::' in the path; rename that folder")
    try:
        with np.errstate(all="ignore"):
            record = wfdb.rdrecord(name, physical=True)
        physical: NDArray[np.float64] = record.p_signal.T
        hertz = float(record.fs)
    # Whatever a decoder trips over, down to an IndexError, tells the user one thing: the files are damaged
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{head.path}: wfdb cannot decode it ({reason}); {RECORD_HINT}") from error
    if physical.shape != (len(head.channels), head.frames) or not math.isclose(hertz, head.hertz):
        raise InputError(
            f"{head.path}: wfdb decoded {physical.shape} channels and samples at {hertz:g} Hz, "
            f"announced are {len(head.channels), head.frames} at {head.hertz:g} Hz; {RECORD_HINT}"
        )
    millivolts = np.array([[head.channels[row].coding.millivolts] for row in rows])
    signal: NDArray[np.float32] = (physical[rows] * millivolts).astype(np.float32)
    return signal
