"""One WFDB record on the disk -> twelve leads in millivolts. All sources of real records use it.

Plain records (format 16, all channels in one file: PTB-XL's and MIMIC-IV-ECG's) are read here, in a tenth of the time
of the `wfdb` package, which decodes every other format. Its header parser, however, is lenient: it drops non-ASCII
letters (so that the unit "µV" becomes "V"), replaces a gain of 0 by 200, and ignores what it does not understand. So
the header is first read strictly (`render.sources.wfdb_header`) and compared with the size of its signal files, before
any sample is decoded or memory allocated.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.io import download, is_url, user_path
from render.record import LEADS
from render.sources.lead_names import complete_leads, lead_channels
from render.sources.wfdb_header import (
    ECG_RATES,
    RECORD_HINT,
    Channel,
    Coding,
    Header,
    MissingRecordError,
    SegmentedHeader,
    is_ecg_rate,
    read_header,
)

__all__ = ["MissingRecordError", "inside", "read_wfdb"]

_PLAIN_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_INVALID = -32768  # a sample of format 16 that was not measured, signal(5)


def read_wfdb(header: str | Path) -> tuple[NDArray[np.float32], float]:
    """Read the record whose header file is `header` ("folder/x.hea") and whose signal files lie beside it.

    Returns the signal, (12, n) float32 in millivolts in the order of `LEADS`, and the sampling rate in hertz.
    Samples stored as "invalid" become NaN. No file outside the header's own folder is opened, and no network is
    used, but for a header at a URL.

    Raises `MissingRecordError` when the header or a signal file does not exist, and `InputError` for any other fault:
    a damaged header, a signal file that is too short for the header, samples that do not add up to the header's
    checksums (plain records; header(5)), a path in place of a file name, a lead in an unknown unit or with a gain of 0
    (uncalibrated), a lead that is missing and does not follow from others, segments that differ in rate.
    """
    header = user_path(header)
    if is_url(header):
        return _read_copy(header)
    head = read_header(header)
    if isinstance(head, SegmentedHeader):
        return _read_segments(head), head.hertz
    return _read_leads(head)


def _read_copy(header: Path) -> tuple[NDArray[np.float32], float]:
    """A record at a URL, from a copy of its files."""
    with TemporaryDirectory() as folder:
        try:
            head = read_header(download(header, Path(folder)), check_files=False)
            if isinstance(head, SegmentedHeader):
                raise InputError(f"{header}: a record of several segments is read from a disk only; download it")
            for file in {channel.file for channel in head.channels}:
                download(header.with_name(file), Path(folder))
            return read_wfdb(head.path)
        except FileNotFoundError as error:
            raise MissingRecordError(f"{header}: the header or its signal file is missing; {RECORD_HINT}") from error
        except InputError as error:
            raise type(error)(str(error).replace(folder, str(header.parent))) from error


def _read_leads(head: Header) -> tuple[NDArray[np.float32], float]:
    """The twelve leads of a record of one segment, and their sampling rate."""
    channels = lead_channels([c.name for c in head.channels], str(head.path))
    rows = [row for row, _ in channels.values()]
    for row in rows:
        if fault := head.channels[row].coding.fault:
            raise InputError(f"{head.path}: signal line {row + 1}: {fault}")
    per_frame = {head.channels[row].coding.per_frame for row in rows}
    repeats = per_frame.pop() if len(per_frame) == 1 else 1  # leads of different rates are averaged to one each frame
    rate = head.hertz * repeats
    if not is_ecg_rate(rate):
        raise InputError(f"{head.path}: the leads' sampling rate {rate:g} Hz is not in {ECG_RATES}; {RECORD_HINT}")
    samples = _read_plain(head, rows) if _is_plain(head) else _decode(head, rows, repeats)
    if list(channels) == list(LEADS) and all(sign == 1 for _, sign in channels.values()):
        return samples, rate
    signs = (sign for _, sign in channels.values())
    return complete_leads({lead: sign * row for lead, sign, row in zip(channels, signs, samples, strict=True)}), rate


def _read_segments(head: SegmentedHeader) -> NDArray[np.float32]:
    """(12, n): the segments one after the other, NaN in the gaps."""
    parts = []
    for file, frames in head.segments:
        if file is None:
            parts.append(np.full((len(LEADS), frames), np.nan, np.float32))
            continue
        segment = read_header(file)
        if isinstance(segment, SegmentedHeader):
            raise InputError(f"{head.path}: segment {file.name} has segments itself; {RECORD_HINT}")
        signal, rate = _read_leads(segment)
        if signal.shape[1] != frames or rate != head.hertz:
            raise InputError(
                f"{head.path}: segment {file.name} has {signal.shape[1]} samples at {rate:g} Hz, "
                f"not {frames} at {head.hertz:g} Hz; {RECORD_HINT}"
            )
        parts.append(signal)
    if not any(file for file, _ in head.segments):
        raise InputError(f"{head.path}: all segments are gaps; {RECORD_HINT}")
    return np.concatenate(parts, axis=1)


def inside(folder: Path, relative: str, where: str) -> Path:
    """`folder / relative`, where `relative` comes from a data set's own table.

    Raises `InputError` naming `where` when the path is empty, absolute, or climbs out of the folder.
    """
    if _PLAIN_PATH.fullmatch(relative) and ".." not in relative:
        return folder / relative
    parts = PureWindowsPath(relative)  # knows both separators and drive letters: stricter than PurePosixPath
    if not relative.strip() or parts.anchor or ".." in parts.parts or "\0" in relative:
        short = repr(relative if len(relative) <= 60 else relative[:57] + "...")
        raise InputError(f"{where} {short} does not stay inside {folder}; {RECORD_HINT}")
    return folder.joinpath(*PurePosixPath(relative).parts)


def _is_plain(head: Header) -> bool:
    """Whether the samples are plain little-endian 16-bit numbers, one of each channel in turn."""
    first = head.channels[0].file
    return all(c.file == first and c.coding.is_plain for c in head.channels)


def _read_plain(head: Header, rows: list[int]) -> NDArray[np.float32]:
    """These channels of a plain record in millivolts, (rows, n)."""
    file = head.path.parent / head.channels[0].file
    count = head.frames * len(head.channels)
    try:
        samples = np.fromfile(file, "<i2", count=count, offset=head.channels[0].coding.offset)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    if samples.size != count:
        raise InputError(f"{file}: became shorter during reading; read it again")
    steps = np.ascontiguousarray(samples.reshape(head.frames, -1).T[rows])
    channels = [head.channels[row] for row in rows]
    _check_sums(head, file, channels, steps)
    return _in_millivolts(steps, [channel.coding for channel in channels])


def _in_millivolts(steps: NDArray[np.int16], codings: list[Coding]) -> NDArray[np.float32]:
    """(rows, n) float32: the result of 64-bit arithmetic, rounded to 32 bits at the end.

    Where 32 bits represent the numbers exactly, 32-bit arithmetic gives the same result in half the time: rounding a
    sum or quotient to 53 bits first does not change its rounding to 24 (Figueroa 1995, "When is double rounding
    innocuous?").
    """
    with np.errstate(over="ignore"):  # a gain beyond float32 is not exact
        exact = all(
            c.millivolts == 1 and float(np.float32(c.gain)) == c.gain and abs(c.baseline) < 1 << 23 for c in codings
        )
    result: NDArray[Any] = steps.astype(np.float32 if exact else np.float64)
    result -= np.array([[c.baseline] for c in codings], result.dtype)
    result /= np.array([[c.gain] for c in codings], result.dtype)
    if not exact:
        result *= np.array([[c.millivolts] for c in codings])
    signal: NDArray[np.float32] = result.astype(np.float32, copy=False)
    if steps.min() == _INVALID:  # the lowest 16-bit number
        signal[steps == _INVALID] = np.nan
    return signal


def _check_sums(head: Header, file: Path, channels: list[Channel], steps: NDArray[np.int16]) -> None:
    """Raise `InputError` unless each channel's samples add up to its checksum, modulo 65536, header(5)."""
    checksums = steps.view(np.uint16).sum(axis=1, dtype=np.uint16).tolist()
    for channel, checksum in zip(channels, checksums, strict=True):
        if channel.checksum is not None and channel.checksum != checksum:
            raise InputError(
                f"{file}: the samples of lead {channel.name} have checksum {checksum}, {head.path.name} has "
                f"{channel.checksum}; {RECORD_HINT}, or delete this number and the next one there to skip the check"
            )


def _decode(head: Header, rows: list[int], repeats: int) -> NDArray[np.float32]:
    """These channels of any record in millivolts, (rows, n): `repeats` samples a frame, or 1 for the frame's mean."""
    import wfdb  # here, not above: it loads pandas, which commands that read no record do not need

    try:
        with _copy_for_wfdb(head) as name, np.errstate(all="ignore"):
            record = wfdb.rdrecord(name, physical=True, smooth_frames=repeats == 1)
        signals = record.p_signal.T if repeats == 1 else record.e_p_signal
        samples = np.stack([signals[row] for row in rows])
        hertz, channels = float(record.fs), int(record.n_sig)
    # Any error of the decoder, even an IndexError, means that the files are damaged
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{head.path}: wfdb cannot decode it ({reason}); {RECORD_HINT}") from error
    frames = samples.shape[1] // repeats
    if (channels, frames) != (len(head.channels), head.frames) or not math.isclose(hertz, head.hertz):
        raise InputError(
            f"{head.path}: wfdb decoded {channels, frames} channels and samples at {hertz:g} Hz, "
            f"not the header's {len(head.channels), head.frames} at {head.hertz:g} Hz; {RECORD_HINT}"
        )
    millivolts = np.array([[head.channels[row].coding.millivolts] for row in rows])
    return np.asarray(samples * millivolts, dtype=np.float32)


@contextmanager
def _copy_for_wfdb(head: Header) -> Iterator[str]:
    """The record's name for wfdb, of a copy with a plain header: it knows no byte order mark and no folder in it.

    It opens files through fsspec, which takes "::" in a path for a chain of URLs.
    """
    with TemporaryDirectory() as folder:
        lines = [f"record {len(head.lines)} {head.hertz!r} {head.frames}", *head.lines]
        Path(folder, "record.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for file in {channel.file for channel in head.channels}:
            source, target = (head.path.parent / file).absolute(), Path(folder, file)
            try:
                target.symlink_to(source)
            except OSError:  # Windows lets few accounts make links
                shutil.copyfile(source, target)
        yield str(Path(folder, "record"))
