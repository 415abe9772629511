"""The XML of Philips' electrocardiographs ("Sierra"), versions 1.03 and 1.04, with its XLI compression.

Format: github.com/sixlettervariables/sierra-ecg-tools, wiki ("Philips Sierra ECG XML format", "XLI compression").
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.record import LEADS
from render.sources.recording import EXPORT_AGAIN, Recording, decode_base64, int16_of, sex_of, years_of
from render.sources.xml_tree import text_at

PHILIPS_ROOT = "restingecgdata"

_VERSIONS = ("1.03", "1.04")
_CODE_BITS = 10  # of LZW's codes
_END_CODE = (1 << _CODE_BITS) - 1
_BIAS = 64  # of every second difference
_CHUNK_HEAD = 8
_MOST_SAMPLES = 3_000_000  # of all leads together: they are decoded one by one
_NO_COMPRESSION = ("", "uncompressed", "none")


def read_philips(root: Element, where: str) -> Recording:
    """The parsed waveforms. Raises `InputError` for other versions and encodings, and for damage."""
    version = text_at(root, "documentinfo/documentversion")
    if not version.startswith(_VERSIONS):
        raise InputError(f"{where}: Philips XML version {version[:20]!r}; 1.03 and 1.04 can be read, so export as PDF")
    waveforms = root.find(".//parsedwaveforms")
    signal = root.find(".//dataacquisition/signalcharacteristics")
    if waveforms is None or signal is None:
        raise InputError(f"{where}: this Philips XML holds no parsed waveforms; {EXPORT_AGAIN}")
    names = (waveforms.get("leadlabels") or " ".join(LEADS)).split()
    names = names[: _whole(waveforms.get("numberofleads") or str(len(names)), "numberofleads", where)]
    hertz = _whole(text_at(signal, "samplingrate"), "samplingrate", where)
    count = _whole(waveforms.get("durationperchannel") or "", "durationperchannel", where) * hertz // 1000
    steps = _steps(waveforms, names, count, where)
    microvolts = float(_whole(text_at(signal, "resolution") or "5", "resolution", where))
    patient = root.find(".//generalpatientdata")
    return Recording(
        names,
        [values * (microvolts / 1000) for values in steps],
        hertz,
        age=None if patient is None else years_of(text_at(patient, "age/years")),
        sex="" if patient is None else sex_of(text_at(patient, "sex")),
    )


def _steps(waveforms: Element, names: list[str], count: int, where: str) -> list[NDArray[np.int64]]:
    """The samples of each lead in units of the resolution."""
    if not 0 < count * len(names) <= _MOST_SAMPLES:
        raise InputError(f"{where}: {count} samples in each of {len(names)} leads; export 10 s")
    encoding = (waveforms.get("dataencoding") or "").lower()
    compression = (waveforms.get("compressmethod") or waveforms.get("compression") or "").lower()
    is_compressed = (waveforms.get("compressflag") or "true").lower() == "true" and compression not in _NO_COMPRESSION
    text = "".join(waveforms.itertext())
    if encoding == "plain" and not is_compressed:
        values = _plain_numbers(text, where)
    elif encoding == "base64" and not is_compressed:
        values = int16_of(decode_base64(text, where)).astype(np.int64)
    elif encoding == "base64" and compression == "xli":
        return _restore_limb_leads(names, [xli[:count] for xli in _xli_leads(text, len(names), count, where)])
    else:
        raise InputError(
            f"{where}: samples encoded as {encoding[:20]!r}, compressed as {compression[:20]!r}; Base64 with XLI or "
            f"without compression can be read, so export as PDF"
        )
    if values.size < count * len(names):
        raise InputError(f"{where}: {values.size} of {count * len(names)} samples; {EXPORT_AGAIN}")
    return list(values[: count * len(names)].reshape(len(names), count))


def _xli_leads(text: str, leads: int, count: int, where: str) -> Iterator[NDArray[np.int64]]:
    content = decode_base64(text, where)
    place = 0
    for _ in range(leads):
        size = int.from_bytes(content[place : place + 4], "little")
        start = int.from_bytes(content[place + 6 : place + _CHUNK_HEAD], "little", signed=True)
        chunk = content[place + _CHUNK_HEAD : place + _CHUNK_HEAD + size]
        if len(chunk) < size or not size:
            raise InputError(f"{where}: the compressed samples end early; {EXPORT_AGAIN}")
        values = decode_xli(chunk, start, 2 * count)
        if not count <= values.size <= 2 * count:
            raise InputError(f"{where}: a lead has {values.size} of {count} samples; {EXPORT_AGAIN}")
        yield values
        place += _CHUNK_HEAD + size


def decode_xli(chunk: bytes, start: int, most_samples: int) -> NDArray[np.int64]:
    """The samples of one lead: LZW with codes of 10 bits, the high bytes before the low ones, second differences.

    start: the first difference, from the chunk's head. Stops beyond `most_samples`.
    """
    content = _unpack_lzw(chunk, 2 * most_samples)
    half = (len(content) + 1) // 2
    low = content[half:].ljust(half, b"\0")
    deltas = np.frombuffer(content[:half], np.int8).astype(np.int64) * 256 + np.frombuffer(low, np.uint8)
    values = deltas.tolist()
    difference = start
    for i in range(2, len(values)):
        values[i], difference = 2 * values[i - 1] - values[i - 2] - difference, values[i] - _BIAS
    samples = (np.array([value & 0xFFFF for value in values], np.int64) ^ 0x8000) - 0x8000  # as in 16 bits
    return samples


def _unpack_lzw(chunk: bytes, most_bytes: int) -> bytes:
    words = [bytes([i]) for i in range(256)]
    output = bytearray()
    previous = b""
    bits = count = 0
    for byte in chunk:
        bits, count = (bits << 8 | byte) & 0xFFFFF, count + 8
        if count < _CODE_BITS:
            continue
        count -= _CODE_BITS
        code = bits >> count & _END_CODE
        if code == _END_CODE or len(output) > most_bytes:
            break
        if code < len(words):
            word = words[code]
        elif previous:
            word = previous + previous[:1]
        else:
            break
        output += word
        if previous and len(words) < _END_CODE:
            words.append(previous + word[:1])
        previous = word
    return bytes(output)


def _restore_limb_leads(names: list[str], leads: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """XLI stores III, aVR, aVL and aVF as differences from what follows from the leads before them."""
    if tuple(names[:6]) != LEADS[:6]:
        return leads
    first, second, third, right, left, foot = leads[:6]
    third = second - first - third
    right = -right - (first + second) // 2
    left = (first - third) // 2 - left
    foot = (second + third) // 2 - foot
    return [first, second, third, right, left, foot, *leads[6:]]


def _plain_numbers(text: str, where: str) -> NDArray[np.int64]:
    try:
        return np.array(text.split(), dtype=np.float64).astype(np.int64)
    except ValueError as error:
        raise InputError(f"{where}: a sample is no number ({error}); {EXPORT_AGAIN}") from error


def _whole(text: str, tag: str, where: str) -> int:
    number = text.strip()
    if not (number.isascii() and number.isdigit() and len(number) < 8):
        raise InputError(f"{where}: {tag} {number[:20]!r} is not a whole number; {EXPORT_AGAIN}")
    return int(number)
