"""The XML of GE's MUSE: eight leads in 16-bit numbers, from which the other four follow.

Format: the elements of MUSE's export, "restecg.dtd".
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.sources.recording import (
    EXPORT_AGAIN,
    Recording,
    count_of_leads,
    decode_base64,
    int16_of,
    millivolts_per,
    sex_of,
    years_of,
)
from render.sources.xml_tree import text_at

MUSE_ROOT = "RestingECG"

_RHYTHM = "rhythm"


def read_muse(root: Element, where: str) -> Recording:
    """The rhythm waveform (not the median beat). Raises `InputError` where there is none or a number is damaged."""
    waveforms = [each for each in root.findall("Waveform") if text_at(each, "WaveformType").lower() in (_RHYTHM, "")]
    if not waveforms:
        raise InputError(f"{where}: this MUSE file holds no waveform of type Rhythm; {EXPORT_AGAIN}")
    waveform = waveforms[0]
    exponent = _number(waveform, "SampleExponent", where, default="0")
    if not -3 <= exponent <= 3:
        raise InputError(f"{where}: SampleExponent {exponent:g} is not within -3 to 3; {EXPORT_AGAIN}")
    leads = waveform.findall("LeadData")
    return Recording(
        [text_at(lead, "LeadID") for lead in leads],
        [_samples(lead, where) for lead in leads],
        _number(waveform, "SampleBase", where) * 10**exponent,
        age=years_of(text_at(root, "PatientDemographics/PatientAge"), text_at(root, "PatientDemographics/AgeUnits")),
        sex=sex_of(text_at(root, "PatientDemographics/Gender")),
    )


def _samples(lead: Element, where: str) -> NDArray[np.float64]:
    name = text_at(lead, "LeadID")
    per_unit = millivolts_per(text_at(lead, "LeadAmplitudeUnits") or "MICROVOLTS")
    size = text_at(lead, "LeadSampleSize") or "2"
    if (per_unit is None or size != "2") and count_of_leads([name]):
        unit = text_at(lead, "LeadAmplitudeUnits")[:20]
        raise InputError(f"{where}: lead {name} is in {unit!r} of {size[:20]} bytes; 2 bytes in uV or mV can be read")
    steps = int16_of(decode_base64(text_at(lead, "WaveFormData"), where))
    count = int(_number(lead, "LeadSampleCountTotal", where, default=str(steps.size)))
    if count > steps.size:
        raise InputError(f"{where}: lead {name} has {steps.size} of {count} samples; {EXPORT_AGAIN}")
    return steps[:count].astype(np.float64) * (_number(lead, "LeadAmplitudeUnitsPerBit", where) * (per_unit or 0.0))


def _number(element: Element, tag: str, where: str, default: str = "") -> float:
    text = text_at(element, tag) or default
    try:
        number = float(text)
        if abs(number) < 1e9:
            return number
    except ValueError:
        pass
    raise InputError(f"{where}: {tag} {text[:20]!r} is not a number of that element; {EXPORT_AGAIN}")
