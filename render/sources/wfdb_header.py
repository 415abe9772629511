"""The header of one WFDB record, read strictly and compared with the size of its signal files.

Format: WFDB header(5) and signal(5), https://physionet.org/physiotools/wag/header-5.htm.
"""

from __future__ import annotations

import math
import re
import stat
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path

from render.errors import InputError

RECORD_HINT = "download or export the record again"

# Format -> a number of samples and of the bytes they occupy together, signal(5). FLAC formats are compressed, so that
# their file size does not give the number of samples.
_SAMPLES_IN_BYTES = {
    "8": (1, 1), "16": (1, 2), "24": (1, 3), "32": (1, 4), "61": (1, 2), "80": (1, 1), "160": (1, 2),
    "212": (2, 3), "310": (3, 4), "311": (3, 4),
}  # fmt: skip
_FLAC = {"508", "516", "524"}

MILLIVOLTS_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}

_LARGEST_HEADER = 1 << 16
_LONGEST_LINE = 1000  # the standard has 255; limits the time of wfdb's regular expressions
_MOST_CHANNELS = 256
_MOST_VALUES = 50_000_000  # 12 leads at 500 Hz for 2.3 h; 400 MB once decoded
_LEAST_GAIN = 1e-20  # samples and baselines stay below 1e12, so that none becomes infinite in 32 bits
_LEAD_COUNT = 12
_SLOWEST_HZ, _FASTEST_HZ = 50.0, 50_000.0  # outside, no ECG can be read: the header is damaged
ECG_RATES = f"{_SLOWEST_HZ:g} to {_FASTEST_HZ:g} Hz"

_RECORD_LINE = re.compile(
    r"(?P<name>\S+?)(/(?P<segments>\d{1,9}))?[ \t]+(?P<channels>\d{1,9})"
    r"[ \t]+(?P<hertz>\d+(\.\d*)?|\.\d+)(/\S*)?([ \t]+(?P<frames>\d{1,18})([ \t].*)?)?",
    re.ASCII,
)
_SEGMENT_LINE = re.compile(r"(?P<name>\S+)[ \t]+(?P<frames>\d{1,18})([ \t].*)?", re.ASCII)
_NO_SEGMENT = "~"  # a gap, header(5)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NO_FILE_NAME = re.compile(r"[/\\:]|[^\x00-\x7f]|^\.\.?$")
_FORMAT = re.compile(
    r"(?P<format>\d{1,3})(x(?P<per_frame>\d{1,9}))?(:(?P<skew>\d{1,9}))?(\+(?P<offset>\d{1,18}))?", re.ASCII
)
_GAIN = re.compile(r"(?P<gain>-?\d+(\.\d*)?(e[+-]?\d+)?)(\((?P<baseline>-?\d{1,11})\))?(/(?P<unit>\S+))?", re.ASCII)


class MissingRecordError(InputError):
    """The record's files are not on this disk, as in a partial download. Damage is a plain `InputError`."""


@dataclass(frozen=True, eq=False)
class Coding:
    """How the samples of a channel are stored, signal(5).

    A sample s is worth (s - baseline) / gain physical units of `millivolts` each. fault: why it is worth no
    millivolts; channels other than leads may be in other units or uncalibrated.
    """

    format: str
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    millivolts: float
    fault: str = ""

    @cached_property
    def is_plain(self) -> bool:
        """Whether a sample is one little-endian 16-bit number at its own time."""
        return (self.format, self.per_frame, self.skew) == ("16", 1, 0)


@dataclass(frozen=True)
class Channel:
    """One signal line of a header. checksum: the samples' sum modulo 65536, or None where the line has none."""

    file: str
    coding: Coding
    checksum: int | None
    name: str


@dataclass(frozen=True)
class Header:
    """A header whose signal files exist and are long enough.

    frames: samples per channel, or groups of them where a channel has several in each. hertz: frames per second.
    lines: of the channels, as they stand in the file.
    """

    path: Path
    hertz: float
    frames: int
    channels: tuple[Channel, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class SegmentedHeader:
    """A record of several segments, one after the other: (header file, frames), with None for a gap."""

    path: Path
    hertz: float
    segments: tuple[tuple[Path | None, int], ...]


def read_header(path: Path, *, check_files: bool = True) -> Header | SegmentedHeader:
    """Read `path` ("folder/x.hea"). check_files: that its signal files exist and are long enough.

    Raises `MissingRecordError` when the header or a signal file is not there, and `InputError` for any other
    fault.
    """
    lines = _header_lines(path)
    if not lines:
        raise InputError(f"{path}: the header is empty; {RECORD_HINT}")
    record = _RECORD_LINE.fullmatch(lines[0])
    if record is None:
        raise InputError(f"{path}: record line {_short(lines[0])} is not 'name channels hertz samples'; {RECORD_HINT}")
    hertz = float(record["hertz"])
    if record["segments"] is not None:
        return SegmentedHeader(path, hertz, _segments(path, int(record["segments"]), lines[1:]))
    channel_count, line_count = int(record["channels"]), len(lines) - 1
    if channel_count != line_count or line_count > _MOST_CHANNELS:
        raise InputError(
            f"{path}: {channel_count} channels in the record line, {line_count} signal lines, "
            f"at most {_MOST_CHANNELS} allowed; {RECORD_HINT}"
        )
    channels = tuple(_channel(path, number, line) for number, line in enumerate(lines[1:], start=1))
    if not any(is_ecg_rate(hertz * n) for n in {1, *(channel.coding.per_frame for channel in channels)}):
        raise InputError(f"{path}: sampling rate {_short(record['hertz'])} is not in {ECG_RATES}; {RECORD_HINT}")
    frames = int(record["frames"] or 0)
    if check_files:
        frames = _frames(path, channels, frames)
    return Header(path, hertz, frames, channels, tuple(lines[1:]))


def is_ecg_rate(hertz: float) -> bool:
    """Whether an ECG can be sampled at that rate."""
    return _SLOWEST_HZ <= hertz <= _FASTEST_HZ


def _segments(path: Path, count: int, lines: list[str]) -> tuple[tuple[Path | None, int], ...]:
    """The segments of their lines; one of 0 frames describes the others (a layout, header(5)) and is left out."""
    if count != len(lines):
        raise InputError(f"{path}: {count} segments in the record line, {len(lines)} segment lines; {RECORD_HINT}")
    segments: list[tuple[Path | None, int]] = []
    for line in lines:
        segment = _SEGMENT_LINE.fullmatch(line)
        if segment is None or _NO_FILE_NAME.search(segment["name"]):
            raise InputError(f"{path}: segment line {_short(line)} is not 'name samples'; {RECORD_HINT}")
        if frames := int(segment["frames"]):
            name = segment["name"]
            segments.append((None if name == _NO_SEGMENT else path.with_name(f"{name}.hea"), frames))
    total = sum(frames for _, frames in segments)
    if not 0 < total * _LEAD_COUNT <= _MOST_VALUES:
        raise InputError(f"{path}: {total} samples in {count} segments; extract the part to be read")
    return tuple(segments)


def _header_lines(path: Path) -> list[str]:
    """The header's lines without comments and blanks.

    Raises `InputError` for control characters: wfdb also splits lines at \\v and \\f, and would read other lines.
    """
    if path.suffix != ".hea":
        raise InputError(f"{path}: not a WFDB header; name the record's .hea file")
    try:
        with path.open("rb", buffering=0) as file:
            content = file.read(_LARGEST_HEADER + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MissingRecordError(f"{path}: no such header file; check the path, or download the record") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise InputError(f"{path}: cannot be read ({error}); check its permissions") from error
    if len(content) > _LARGEST_HEADER:
        raise InputError(f"{path}: more than {_LARGEST_HEADER} bytes are too many for a header; {RECORD_HINT}")
    if _CONTROL.search(content):
        raise InputError(f"{path}: contains control characters, so it is no WFDB header; {RECORD_HINT}")
    lines = [_text(line).strip(" \t") for line in content.removeprefix(_BYTE_ORDER_MARK).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{path}: line {_short(line)} has {len(line)} characters; {RECORD_HINT}")
    return lines


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")  # older machines write the micro sign as one byte


def _channel(path: Path, number: int, line: str) -> Channel:
    fields = re.split(r"[ \t]+", line, maxsplit=8)
    # Resolution, zero, initial value, checksum, block size; trailing ones may be missing
    numbers = list(takewhile(_INTEGER.fullmatch, fields[3:8]))
    name = " ".join(fields[3 + len(numbers) :]).strip()
    try:
        if not name or _INTEGER.fullmatch(name):
            raise InputError(f"{_short(line)} has {len(fields)} of 9 fields, so no lead name; {RECORD_HINT}")
        if _NO_FILE_NAME.search(fields[0]):
            raise InputError(
                f"signal file {_short(fields[0])} is not a plain file name; put the file beside the header"
            )
        coding = _coding(fields[1], fields[2], int(numbers[1]) if len(numbers) > 1 else 0)
    except InputError as error:
        raise InputError(f"{path}: signal line {number}: {error}") from error
    return Channel(fields[0], coding, int(numbers[3]) % 65536 if len(numbers) > 3 else None, name)


@lru_cache(maxsize=256)  # channels of a record, and records of a data set, share their coding
def _coding(form: str, gain: str, zero: int) -> Coding:
    """zero: the ADC zero, which is the baseline where the header gives none, header(5)."""
    form_match = _FORMAT.fullmatch(form)
    if form_match is None or (form_match["format"] not in _SAMPLES_IN_BYTES and form_match["format"] not in _FLAC):
        raise InputError(
            f"format {_short(form)} is none of {', '.join([*_SAMPLES_IN_BYTES, *sorted(_FLAC)])}; {RECORD_HINT}"
        )
    gain_match = _GAIN.fullmatch(gain)
    if gain_match is None:
        raise InputError(f"gain {_short(gain)} is not 'number(baseline)/unit'; {RECORD_HINT}")
    steps = float(gain_match["gain"])
    unit = gain_match["unit"] or "mV"  # header(5): millivolts when no unit is given
    fault = ""
    if steps == 0 or not math.isfinite(steps):
        fault = f"gain {_short(gain_match['gain'])} means uncalibrated; replace it by the steps per millivolt"
    elif abs(steps) < _LEAST_GAIN:
        fault = f"gain {_short(gain_match['gain'])} makes samples infinite; {RECORD_HINT}"
    elif unit.lower() not in MILLIVOLTS_PER_UNIT:
        fault = f"unit {_short(unit)} is unknown; voltages are in mV, uV, nV or V"
    return Coding(
        format=form_match["format"],
        per_frame=int(form_match["per_frame"] or 1),
        skew=int(form_match["skew"] or 0),
        offset=int(form_match["offset"] or 0),
        gain=steps,
        baseline=int(gain_match["baseline"] or zero),
        millivolts=MILLIVOLTS_PER_UNIT.get(unit.lower(), math.nan),
        fault=fault,
    )


def _frames(path: Path, channels: tuple[Channel, ...], header_frames: int) -> int:
    """Frames (samples per channel) of the record; computed from the file size where the header has none.

    Raises `InputError` unless every signal file exists and contains as many.
    """
    frames = header_frames
    for file in dict.fromkeys(channel.file for channel in channels):
        group = [channel.coding for channel in channels if channel.file == file]
        first = group[0]
        if any(c is not first and (c.format, c.offset) != (first.format, first.offset) for c in group):
            raise InputError(f"{path}: signal file {file} has two formats or offsets; {RECORD_HINT}")
        signal_file = path.parent / file
        try:
            status = signal_file.stat()
        except OSError as error:
            message = f"{signal_file}: no such signal file, but {path.name} names it; {RECORD_HINT}"
            raise MissingRecordError(message) from error
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{signal_file}: is no regular file; {RECORD_HINT}")
        if signal_file.is_symlink() and signal_file.resolve().suffix != signal_file.suffix:
            # Downloads of git-annex are links, too, to files that end as the link does.
            raise InputError(f"{signal_file}: is a link to a file of another kind; copy the signal file there")
        if first.format in _FLAC:
            if not frames:
                raise InputError(f"{path}: number of samples missing, and FLAC files do not contain it; {RECORD_HINT}")
            continue
        samples, size_bytes = _SAMPLES_IN_BYTES[first.format]
        per_frame = sum(c.per_frame for c in group)
        file_frames = max((size - first.offset) * samples // (size_bytes * per_frame), 0) if per_frame else 0
        frames = frames or file_frames
        if file_frames < frames:
            raise InputError(
                f"{signal_file}: {size} bytes contain {file_frames} samples per lead, {path.name} has {frames}; "
                f"{RECORD_HINT}"
            )
    _check_extent(path, channels, frames)
    return frames


def _check_extent(path: Path, channels: tuple[Channel, ...], frames: int) -> None:
    values = frames * sum(channel.coding.per_frame for channel in channels)
    if not 0 < values <= _MOST_VALUES:
        raise InputError(
            f"{path}: {frames} samples in each of {len(channels)} channels; "
            f"1 to {_MOST_VALUES} values in total can be read; extract the part to be read"
        )
    skew = max(channel.coding.skew for channel in channels)
    if skew >= frames:
        raise InputError(f"{path}: a skew of {skew} in a record of {frames} samples; {RECORD_HINT}")


def _short(text: str) -> str:
    """A value for a message: quoted, at most 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
