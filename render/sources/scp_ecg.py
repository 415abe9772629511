"""SCP-ECG: the file of many electrocardiographs. Sections 1 (patient) to 6 (rhythm) are read.

Standard: EN 1064:2005+A1:2007 / ISO 11073-91064:2009. Bimodal compression (section 6) is refused.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.sources.recording import EXPORT_AGAIN, Recording

_LEAD_NAMES = {
    1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6",
    61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR",
}  # fmt: skip
_FILE_HEAD, _SECTION_HEAD, _POINTER = 6, 16, 10  # bytes
_DEFAULT_TABLE = 19999
_MOST_SAMPLES = 3_000_000  # of all leads together: they are decoded bit by bit, a million in two seconds
_END_TAG, _AGE_TAG, _SEX_TAG = 255, 4, 8
_YEARS = 1
_SEXES = {1: "male", 2: "female"}


@dataclass(frozen=True)
class _Code:
    """One line of a Huffman table: what the prefix stands for.

    length: of the whole code in bits. value: that of the sample, or of the next table where `is_switch`.
    """

    length: int
    value: int
    is_switch: bool = False


_Table = dict[tuple[int, int], _Code]  # (bits of the prefix, prefix) -> code


def is_scp(content: bytes) -> bool:
    """Whether a file begins like SCP-ECG: section 0 with its mark, or (none in version 1) its first pointer, itself."""
    if len(content) < _FILE_HEAD + _SECTION_HEAD + _POINTER:
        return False
    number, length = struct.unpack_from("<HI", content, _FILE_HEAD + 2)
    pointer = struct.unpack_from("<HII", content, _FILE_HEAD + _SECTION_HEAD)
    return number == 0 and (content[16:22] == b"SCPECG" or pointer == (0, length, _FILE_HEAD + 1))


def read_scp(content: bytes, where: str) -> Recording:
    """The rhythm of section 6. Raises `InputError` for damage (every checksum is compared) and what is not read."""
    try:
        return _read(_Sections(content, where))
    except (struct.error, IndexError) as error:
        raise InputError(f"{where}: the SCP-ECG file ends early or is damaged; {EXPORT_AGAIN}") from error


def _read(sections: _Sections) -> Recording:
    where = sections.where
    leads = sections.body(3)
    count, flags = leads[0], leads[1]
    lines = [struct.unpack_from("<IIB", leads, 2 + 9 * i) for i in range(count)]
    first = min((start for start, _, _ in lines), default=0)
    spans = [(start - first, end - first + 1) for start, end, _ in lines]
    length = max((end for _, end in spans), default=0)
    if any(end <= start for start, end in spans) or not 0 < length * count <= _MOST_SAMPLES:
        raise InputError(f"{where}: section 3 gives {count} leads of {length} samples; {EXPORT_AGAIN}")
    tables = _huffman_tables(sections)
    rhythm = _Samples(sections.body(6), count)
    if rhythm.is_bimodal:
        raise InputError(f"{where}: SCP-ECG with bimodal compression cannot be read; export it without, or as PDF")
    values = [
        decode(data, end - start, rhythm.difference, tables, where)
        for data, (start, end) in zip(rhythm.leads, spans, strict=True)
    ]
    if flags & 1:
        _add_reference_beats(sections, rhythm, tables, [start for start, _, _ in lines], values)
    millivolts = []
    for samples, (start, end) in zip(values, spans, strict=True):
        lead = np.full(length, np.nan)
        lead[start:end] = samples * (rhythm.nanovolts * 1e-6)
        millivolts.append(lead)
    age, sex = _patient(sections)
    names = [_LEAD_NAMES.get(lead, f"lead {lead}") for _, _, lead in lines]
    return Recording(names, millivolts, 1e6 / rhythm.microseconds, age=age, sex=sex)


class _Sections:
    """The sections of a file, each checked when it is taken out."""

    def __init__(self, content: bytes, where: str) -> None:
        self.where = where
        self._content = content
        checksum, size = struct.unpack_from("<HI", content)
        if size > len(content) or size < _FILE_HEAD + _SECTION_HEAD:
            raise InputError(f"{where}: {len(content)} of {size} bytes; {EXPORT_AGAIN}")
        if binascii.crc_hqx(content[2:size], 0xFFFF) != checksum:
            raise InputError(f"{where}: the SCP-ECG file's checksum is wrong, so it is damaged; {EXPORT_AGAIN}")
        _, number, length = struct.unpack_from("<HHI", content, _FILE_HEAD)
        self._places: dict[int, tuple[int, int]] = {}
        for place in range(_FILE_HEAD + _SECTION_HEAD, min(_FILE_HEAD + length, size) - _POINTER + 1, _POINTER):
            number, length, index = struct.unpack_from("<HII", content, place)
            if length:
                self._places[number] = (index - 1, length)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def body(self, number: int) -> bytes:
        """A section without its head. Raises `InputError` where it is missing or its checksum is wrong."""
        if number not in self._places:
            raise InputError(f"{self.where}: the SCP-ECG file has no section {number}; {EXPORT_AGAIN}")
        place, length = self._places[number]
        section = self._content[place : place + length] if place >= 0 else b""
        checksum, name, _ = struct.unpack_from("<HHI", section)
        if len(section) < length or name != number or binascii.crc_hqx(section[2:], 0xFFFF) != checksum:
            raise InputError(f"{self.where}: section {number} of the SCP-ECG file is damaged; {EXPORT_AGAIN}")
        return section[_SECTION_HEAD:]


class _Samples:
    """Section 5 or 6: how the samples are coded, and the bytes of each lead."""

    def __init__(self, body: bytes, count: int) -> None:
        self.nanovolts, self.microseconds, self.difference, flag = struct.unpack_from("<HHBB", body)
        if not self.microseconds:
            raise struct.error
        self.is_bimodal = bool(flag & 1)
        place = 6 + 2 * count
        self.leads: list[bytes] = []
        for size in struct.unpack_from(f"<{count}H", body, 6):
            self.leads.append(body[place : place + size])
            place += size


def _huffman_tables(sections: _Sections) -> list[_Table]:
    """The tables of section 2; none where the samples are plain 16-bit numbers."""
    if 2 not in sections:
        return []
    body = sections.body(2)
    (count,) = struct.unpack_from("<H", body)
    if count == _DEFAULT_TABLE:
        return [DEFAULT_TABLE]
    tables: list[_Table] = []
    place = 2
    for _ in range(count):
        (lines,) = struct.unpack_from("<H", body, place)
        place += 2
        table: _Table = {}
        for _ in range(lines):
            prefix_bits, bits, mode, value, prefix = struct.unpack_from("<BBBhI", body, place)
            place += 9
            if not 0 < prefix_bits <= bits <= prefix_bits + 32 or prefix_bits > 32:
                raise InputError(f"{sections.where}: a Huffman code of {prefix_bits} in {bits} bits; {EXPORT_AGAIN}")
            table[prefix_bits, _bit_reverse(prefix, prefix_bits)] = _Code(bits, value, mode == 0)
        tables.append(table)
    if not tables:
        raise InputError(f"{sections.where}: section 2 holds no Huffman table; {EXPORT_AGAIN}")
    return tables


def _bit_reverse(code: int, bits: int) -> int:
    """The standard writes prefixes with the bit that comes first as the lowest."""
    return int(f"{code & ((1 << bits) - 1):0{bits}b}"[::-1], 2)


def _default_table() -> _Table:
    """Table C.1 of the standard: 0; then 1^n 0 0 for n and 1^n 0 1 for -n up to 8; then 8 or 16 bits as they are."""
    table: _Table = {(1, 0): _Code(1, 0)}
    for n in range(1, 9):
        ones = (1 << n) - 1
        table[n + 2, ones << 2] = _Code(n + 2, n)
        table[n + 2, ones << 2 | 1] = _Code(n + 2, -n)
    table[10, 0b1111111110] = _Code(18, 0)
    table[10, 0b1111111111] = _Code(26, 0)
    return table


DEFAULT_TABLE = _default_table()


def decode(data: bytes, count: int, difference: int, tables: list[_Table], where: str) -> NDArray[np.int64]:
    """(count,) samples of one lead. difference: 0, 1 or 2 times. tables: Huffman's, none for plain numbers.

    Raises `InputError` where the data hold fewer, an unknown code, or another kind of difference.
    """
    if difference > 2:
        raise InputError(f"{where}: differences of order {difference}; 0 to 2 can be read")
    if tables:
        samples = np.array(_huffman_decode(data, count, tables, where), dtype=np.int64)
    else:
        samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int64)[:count]
    if samples.size < count:
        raise InputError(f"{where}: a lead has {samples.size} of {count} samples; {EXPORT_AGAIN}")
    if difference == 1:
        return np.cumsum(samples)
    if difference == 2 and count > 2:  # two samples as they are, then x[n] - 2 x[n-1] + x[n-2]
        steps = np.cumsum(np.concatenate([[samples[1] - samples[0]], samples[2:]]))
        return np.concatenate([samples[:1], samples[0] + np.cumsum(steps)])
    return samples


def _huffman_decode(data: bytes, count: int, tables: list[_Table], where: str) -> list[int]:
    bits = "".join(f"{byte:08b}" for byte in data)
    table, place, samples = tables[0], 0, list[int]()
    while len(samples) < count and place < len(bits):
        size, prefix = 0, 0
        code = None
        while code is None and size < 32 and place + size < len(bits):
            prefix = prefix << 1 | (bits[place + size] == "1")
            size += 1
            code = table.get((size, prefix))
        if code is None or place + code.length > len(bits):
            break
        if code.is_switch:
            if not 0 < code.value <= len(tables):
                raise InputError(f"{where}: Huffman table {code.value} of {len(tables)}; {EXPORT_AGAIN}")
            table = tables[code.value - 1]
        elif code.length == size:
            samples.append(code.value)
        else:
            rest = bits[place + size : place + code.length]
            samples.append(int(rest, 2) - (1 << len(rest) if rest[0] == "1" else 0))
        place += code.length
    return samples


def _add_reference_beats(
    sections: _Sections, rhythm: _Samples, tables: list[_Table], starts: list[int], values: list[NDArray[np.int64]]
) -> None:
    """Add section 5's beat to the samples, where section 4 says that it was subtracted."""
    beats = sections.body(4)
    milliseconds, fiducial, count = struct.unpack_from("<HHH", beats)
    reference = _Samples(sections.body(5), len(starts))
    if (reference.nanovolts, reference.microseconds) != (rhythm.nanovolts, rhythm.microseconds):
        raise InputError(f"{sections.where}: reference beat and rhythm differ in rate or gain; export as PDF")
    length = milliseconds * 1000 // reference.microseconds
    shapes = [decode(data, length, reference.difference, tables, sections.where) for data in reference.leads]
    for i in range(count):
        kind, first, peak, last = struct.unpack_from("<HIII", beats, 6 + 14 * i)
        if kind != 0:  # another beat, from which none was subtracted
            continue
        for start, shape, samples in zip(starts, shapes, values, strict=True):
            offset = fiducial - peak + first - 1  # sample numbers begin with 1
            place = first - start
            size = min(last - first + 1, shape.size - offset, samples.size - place)
            if offset < 0 or place < 0 or size <= 0:
                continue
            samples[place : place + size] += shape[offset : offset + size]


def _patient(sections: _Sections) -> tuple[float | None, str]:
    """Age in years and sex from the tags of section 1."""
    age, sex = None, ""
    if 1 not in sections:
        return age, sex
    body, place = sections.body(1), 0
    while place + 3 <= len(body) and body[place] != _END_TAG:
        tag, size = struct.unpack_from("<BH", body, place)
        value = body[place + 3 : place + 3 + size]
        if tag == _SEX_TAG and value:
            sex = _SEXES.get(value[0], "")
        if tag == _AGE_TAG and len(value) >= 3 and value[2] == _YEARS:
            years = int.from_bytes(value[:2], "little")
            age = float(years) if 0 < years <= 120 else None
        place += 3 + size
    return age, sex
