"""DICOM objects: the data set in a file, and the twelve leads of a waveform object.

Standard: DICOM PS3.3 A.34 (waveform objects) and C.10.9 (the waveform module),
https://dicom.nema.org/medical/dicom/current/output/html/part03.html.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.sources.lead_names import standard_lead
from render.sources.recording import (
    EXPORT_AGAIN,
    MOST_VALUES,
    Recording,
    count_of_leads,
    millivolts_per,
    sex_of,
    years_of,
)

_DEFLATE_SYNTAX = b"1.2.840.10008.1.2.1.99\0"  # a transfer syntax: all of the data set is one zlib stream
_WAVEFORM_CLASSES = b"1.2.840.10008.5.1.4.1.1.9."  # how the UIDs of waveform storage classes begin
_SAMPLE_TYPES = {(8, "SB"): "i1", (8, "UB"): "u1", (16, "SS"): "<i2", (16, "US"): "<u2", (32, "SL"): "<i4"}
# CID 3001, MDC 2:1 and SCPECG 5.6.3-9-1 alike: ISO/IEEE 11073-10101 took the numbers from SCP-ECG
_LEADS_BY_CODE = {
    1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF",
    65: "-aVR",
}  # fmt: skip
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


def is_waveform(content: bytes) -> bool:
    """Whether a file is a DICOM object of a waveform class, by its first bytes."""
    return content[128:132] == b"DICM" and _WAVEFORM_CLASSES in content[:_META]


def read_dicom(content: bytes, where: str) -> Recording:
    """The multiplex group with the most leads; of several, the longest: the rhythm, not the median beat.

    Raises `InputError` for an object without a group of samples, and for damage.
    """
    dataset = read_dataset(content, where)
    try:
        groups = list(dataset.get("WaveformSequence", []))
        if not groups:
            raise InputError(f"{where}: the DICOM object holds no waveform; {EXPORT_AGAIN}")
        recording = _group(max(groups, key=_size), where)
        sex, age = sex_of(str(dataset.get("PatientSex", ""))), str(dataset.get("PatientAge", ""))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where}: the DICOM waveform is damaged ({error}); export it again") from error
    years = years_of(age[:-1].lstrip("0")) if age.endswith("Y") else None
    return replace(recording, sex=sex, age=years)


def _size(group: Any) -> tuple[int, int]:
    """How many leads a group has, and samples of each."""
    names = [_channel_name(channel) for channel in group.ChannelDefinitionSequence]
    return count_of_leads(names), int(group.NumberOfWaveformSamples)


def _group(group: Any, where: str) -> Recording:
    """One multiplex group: samples x sensitivity x correction + baseline, in the unit of the sensitivity."""
    count, samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    kind = _SAMPLE_TYPES.get((int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation)))
    if kind is None:
        raise InputError(
            f"{where}: samples of {group.WaveformBitsAllocated} bits, {str(group.WaveformSampleInterpretation)[:20]}; "
            f"8, 16 and 32 bits of whole numbers can be read"
        )
    data = bytes(group.WaveformData)
    size = count * samples * np.dtype(kind).itemsize
    if not 0 < size <= len(data) or count * samples > MOST_VALUES:
        raise InputError(f"{where}: {len(data)} bytes for {samples} samples of {count} channels; {EXPORT_AGAIN}")
    steps = np.frombuffer(data[:size], kind).reshape(samples, count).T.astype(np.float64)
    if padding := bytes(group.get("WaveformPaddingValue", b"") or b""):
        steps[steps == np.frombuffer(padding.ljust(8, b"\0")[: np.dtype(kind).itemsize], kind)[0]] = np.nan
    channels = list(group.ChannelDefinitionSequence)
    if len(channels) != count:
        raise InputError(f"{where}: {len(channels)} definitions of {count} channels; {EXPORT_AGAIN}")
    return Recording(
        [_channel_name(channel) for channel in channels],
        [_millivolts(channel, row, where) for channel, row in zip(channels, steps, strict=True)],
        float(group.SamplingFrequency),
    )


def _channel_name(channel: Any) -> str:
    """The lead of a channel's source, by its code or the code's meaning; else the channel's label."""
    sources = channel.get("ChannelSourceSequence", [])
    if sources:
        code, scheme = str(sources[0].get("CodeValue", "")), str(sources[0].get("CodingSchemeDesignator", ""))
        meaning = str(sources[0].get("CodeMeaning", ""))
        number = code.rpartition("-" if scheme.startswith("SCPECG") else ":")[2]
        by_code = _LEADS_BY_CODE.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 4 else None
        for name in (by_code, meaning, meaning.partition(",")[0]):
            if name and standard_lead(name):
                return name
    return str(channel.get("ChannelLabel", "")) or "unknown"


def _millivolts(channel: Any, steps: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    units = channel.get("ChannelSensitivityUnitsSequence", [])
    unit = str(units[0].get("CodeValue", "")) if units else ""
    per_unit = millivolts_per(unit)
    name = _channel_name(channel)
    if per_unit is None or "ChannelSensitivity" not in channel:
        if standard_lead(name) is None:
            return steps
        raise InputError(f"{where}: lead {name} is in {unit[:20]!r}, without a gain in volts; {EXPORT_AGAIN}")
    scale = float(channel.ChannelSensitivity) * float(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1)
    return (steps * scale + float(channel.get("ChannelBaseline", 0) or 0)) * per_unit
