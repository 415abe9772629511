"""One WFDB record on the disk -> twelve leads in millivolts. Every source of real records reads through here.

The samples are decoded by the `wfdb` package. Its header parser, however, is lenient: it drops non-ASCII
letters (which turns a unit of "µV" into "V"), takes a gain of 0 for 200, and ignores what it does not
understand. So the header is read here first, strictly, and compared with the size of its signal files before
anything is decoded or allocated.

Format: WFDB header(5) and signal(5), https://physionet.org/physiotools/wag/header-5.htm.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from render.files import InputError
from render.record import in_lead_order

_MEND = "download or export the record again"

# Bits per stored sample, signal(5). The FLAC formats are compressed: their file size says nothing about their
# length.
_WHOLE_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}
_BITS = {
    **{name: Fraction(bits) for name, bits in _WHOLE_BITS.items()},
    "310": Fraction(32, 3),
    "311": Fraction(32, 3),
}
_FLAC = {"508", "516", "524"}

_MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}

_LARGEST_HEADER = 1 << 20
_LONGEST_LINE = 1000  # beyond the standard's 255; bounds the time that wfdb's regular expressions can take
_MOST_CHANNELS = 256
_MOST_VALUES = 50_000_000  # 12 leads at 500 Hz for 2.3 h; 400 MB once decoded
_SLOWEST_HZ, _FASTEST_HZ = 50.0, 50_000.0  # outside, no ECG can be read, so the header is damaged

_RECORD_LINE = re.compile(
    r"(?P<name>[-\w]+)(/(?P<segments>\d+))?[ \t]+(?P<channels>\d{1,9})"
    r"[ \t]+(?P<hertz>\d+(\.\d*)?|\.\d+)(/\S*)?([ \t]+(?P<frames>\d{1,18})([ \t].*)?)?",
    re.ASCII,
)
_FORMAT = re.compile(
    r"(?P<format>\d{1,3})(x(?P<per_frame>\d{1,9}))?(:(?P<skew>\d{1,9}))?(\+(?P<offset>\d{1,18}))?", re.ASCII
)
_GAIN = re.compile(r"(?P<gain>-?\d+(\.\d*)?(e[+-]?\d+)?)(\((?P<baseline>-?\d{1,11})\))?(/(?P<unit>\S+))?", re.ASCII)


class MissingRecordError(InputError):
    """The record's files are not on this disk, as in a partial download. Damage is a plain `InputError`."""


@dataclass(frozen=True)
class _Channel:
    """One signal line of a header. `millivolts`: what one physical unit of this channel is worth."""

    file: str
    format: str
    per_frame: int
    skew: int
    offset: int
    millivolts: float
    name: str


@dataclass(frozen=True)
class _Header:
    path: Path
    hertz: float
    frames: int
    channels: tuple[_Channel, ...]


def read_wfdb(header: str | Path) -> tuple[NDArray[np.float32], float]:
    """Read the record whose header file is `header` ("folder/x.hea") and whose signal files lie beside it.

    Returns the signal, (12, n) float32 in millivolts in the order of `LEADS`, and the sampling rate in hertz.
    Samples stored as "invalid" become NaN. Nothing outside the header's own folder is opened, and no network
    is used.

    Raises `MissingRecordError` when the header or a signal file is not there, and `InputError` for everything
    else that is wrong: a damaged header, a signal file shorter than the header says, a path in place of a
    file name, an unknown unit, a gain of 0 (uncalibrated), a missing lead, a multi-segment record.
    """
    head = _read_header(Path(header))
    physical = _decode(head)  # (channels, n)
    millivolts = np.array([channel.millivolts for channel in head.channels])[:, None]
    with np.errstate(over="ignore"):
        signal = in_lead_order([c.name for c in head.channels], physical * millivolts, str(head.path))
    if np.isinf(signal).any():
        raise InputError(f"{head.path}: a gain makes samples infinite; {_MEND}")
    return signal, head.hertz


def inside(folder: Path, relative: str, where: str) -> Path:
    """`folder / relative`, where `relative` comes from a data set's own table.

    Raises `InputError` naming `where` when the path is empty, absolute, or climbs out of the folder.
    """
    parts = PureWindowsPath(relative)  # knows both separators and drive letters: the stricter of the two
    if not relative.strip() or parts.anchor or ".." in parts.parts or "\0" in relative:
        raise InputError(f"{where} {_short(relative)} does not stay inside {folder}; {_MEND}")
    return folder.joinpath(*PurePosixPath(relative).parts)


def _read_header(path: Path) -> _Header:
    lines = _header_lines(path)
    if not lines:
        raise InputError(f"{path}: the header is empty; {_MEND}")
    found = _RECORD_LINE.fullmatch(lines[0])
    if found is None:
        raise InputError(f"{path}: record line {_short(lines[0])} is not 'name channels hertz samples'; {_MEND}")
    if found["segments"] is not None:
        raise InputError(
            f"{path}: a multi-segment record ({found['segments']} segments); name one segment's .hea instead"
        )
    wanted, there = int(found["channels"]), len(lines) - 1
    if wanted != there or there > _MOST_CHANNELS:
        raise InputError(
            f"{path}: {wanted} channels announced, {there} signal lines, at most {_MOST_CHANNELS}; {_MEND}"
        )
    hertz = float(found["hertz"])
    if not _SLOWEST_HZ <= hertz <= _FASTEST_HZ:
        limits = f"{_SLOWEST_HZ:g} to {_FASTEST_HZ:g} Hz"
        raise InputError(f"{path}: sampling rate {_short(found['hertz'])} is not in {limits}; {_MEND}")
    channels = tuple(_channel(path, number, line) for number, line in enumerate(lines[1:], start=1))
    return _Header(path, hertz, _checked_frames(path, channels, int(found["frames"] or 0)), channels)


def _header_lines(path: Path) -> list[str]:
    """The header's lines without comments and blanks.

    Control characters are refused, so that these lines are the very ones wfdb will see: it also splits at \\v
    and \\f.
    """
    if path.suffix != ".hea":
        raise InputError(f"{path}: not a WFDB header; name the record's .hea file")
    if not path.is_file():
        raise MissingRecordError(f"{path}: no such header file; check the path, or download the record")
    try:
        if path.stat().st_size > _LARGEST_HEADER:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a header; {_MEND}")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", content):
        raise InputError(f"{path}: holds control characters, so it is no WFDB header; {_MEND}")
    lines = [_text(line).strip(" \t") for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{path}: line {_short(line)} has {len(line)} characters; {_MEND}")
    return lines


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")  # older machines write the micro sign as one byte


def _channel(path: Path, number: int, line: str) -> _Channel:
    where = f"{path}: signal line {number}"
    fields = re.split(r"[ \t]+", line, maxsplit=8)
    if len(fields) < 9:  # file, format, gain, resolution, zero, initial value, checksum, block size, name
        raise InputError(f"{where}: {_short(line)} has {len(fields)} of 9 fields, so no lead name; {_MEND}")
    file, form, gain = fields[:3]
    if re.search(r"[/\\:]", file) or file in {".", ".."} or not file.isascii():
        raise InputError(
            f"{where}: signal file {_short(file)} is not a plain file name; put the file beside the header"
        )
    found = _FORMAT.fullmatch(form)
    if found is None or (found["format"] not in _BITS and found["format"] not in _FLAC):
        known = ", ".join([*_BITS, *sorted(_FLAC)])
        raise InputError(f"{where}: format {_short(form)} is none of {known}; {_MEND}")
    return _Channel(
        file=file,
        format=found["format"],
        per_frame=int(found["per_frame"] or 1),
        skew=int(found["skew"] or 0),
        offset=int(found["offset"] or 0),
        millivolts=_unit_in_millivolts(where, gain),
        name=fields[8].strip(),
    )


def _unit_in_millivolts(where: str, text: str) -> float:
    found = _GAIN.fullmatch(text)
    if found is None:
        raise InputError(f"{where}: gain {_short(text)} is not 'number(baseline)/unit'; {_MEND}")
    gain = float(found["gain"])
    if gain == 0 or not math.isfinite(gain):
        raise InputError(
            f"{where}: gain {_short(found['gain'])} means uncalibrated; write the steps per millivolt there"
        )
    unit = found["unit"] or "mV"  # header(5): millivolts when no unit is given
    if unit.lower() not in _MILLIVOLTS:
        raise InputError(f"{where}: unit {_short(unit)} is unknown; voltages are in mV, uV, nV or V")
    return _MILLIVOLTS[unit.lower()]


def _checked_frames(path: Path, channels: tuple[_Channel, ...], announced: int) -> int:
    """Frames (samples per channel) of the record; taken from the file size where the header leaves them out.

    Raises `InputError` unless every signal file is there and holds as many.
    """
    frames = announced
    for file in dict.fromkeys(channel.file for channel in channels):
        group = [channel for channel in channels if channel.file == file]
        first = group[0]
        if any((c.format, c.offset) != (first.format, first.offset) for c in group):
            raise InputError(f"{path}: signal file {file} is given two formats or offsets; {_MEND}")
        signal_file = path.parent / file
        if not signal_file.is_file():
            raise MissingRecordError(f"{signal_file}: no such signal file, but {path.name} names it; {_MEND}")
        size = signal_file.stat().st_size
        if first.format in _FLAC:
            if not frames:
                raise InputError(f"{path}: number of samples missing, and FLAC files do not tell it; {_MEND}")
            continue
        bits_per_frame = sum(c.per_frame for c in group) * _BITS[first.format]
        held = math.floor((size - first.offset) * 8 / bits_per_frame) if bits_per_frame else 0
        frames = frames or max(held, 0)
        if held < frames:
            raise InputError(
                f"{signal_file}: {size} bytes hold {max(held, 0)} samples per lead, "
                f"{path.name} announces {frames}; {_MEND}"
            )
    _check_extent(path, channels, frames)
    return frames


def _check_extent(path: Path, channels: tuple[_Channel, ...], frames: int) -> None:
    values = frames * sum(channel.per_frame for channel in channels)
    if not 0 < values <= _MOST_VALUES:
        raise InputError(
            f"{path}: {frames} samples in each of {len(channels)} channels; "
            f"1 to {_MOST_VALUES} values in all can be read; cut out the part to be read"
        )
    skew = max(channel.skew for channel in channels)
    if skew >= frames:
        raise InputError(f"{path}: a skew of {skew} in a record of {frames} samples; {_MEND}")


def _decode(head: _Header) -> NDArray[np.float64]:
    """The samples in the header's units, (channels, n). Channels sampled faster than others are averaged."""
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
        raise InputError(f"{head.path}: wfdb cannot decode it ({reason}); {_MEND}") from error
    if physical.shape != (len(head.channels), head.frames) or not math.isclose(hertz, head.hertz):
        raise InputError(
            f"{head.path}: wfdb decoded {physical.shape} channels and samples at {hertz:g} Hz, "
            f"announced are {len(head.channels), head.frames} at {head.hertz:g} Hz; {_MEND}"
        )
    return physical


def _short(text: str) -> str:
    """A value as it is shown in a message: quoted, and cut before it floods the line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
