"""HL7 annotated ECG (aECG), the XML that the FDA takes.

Format: HL7 v3 Annotated ECG R1; Brown & Badilini, "HL7 aECG Implementation Guide" (2005).
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.sources.recording import EXPORT_AGAIN, MOST_VALUES, Recording, count_of_leads, millivolts_per, sex_of

HL7_ROOT = "AnnotatedECG"

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_TIMES = ("TIME_ABSOLUTE", "TIME_RELATIVE")


def read_aecg(root: Element, where: str) -> Recording:
    """The sequence set with the most leads; of several, the longest. A series' derived beats are left out.

    Raises `InputError` where there is none, and for numbers that are none.
    """
    sets = root.findall("./component/series/component/sequenceSet")
    if not sets:
        raise InputError(f"{where}: this HL7 aECG holds no series with samples; {EXPORT_AGAIN}")
    recordings = [_recording(each, where) for each in sets]
    best = max(recordings, key=lambda each: (count_of_leads(each.names), max(map(len, each.millivolts), default=0)))
    gender = root.find(".//subjectDemographicPerson/administrativeGenderCode")
    return Recording(best.names, best.millivolts, best.hertz, sex=sex_of("" if gender is None else gender.get("code")))


def _recording(sequences: Element, where: str) -> Recording:
    names: list[str] = []
    millivolts: list[NDArray[np.float64]] = []
    hertz = 0.0
    for sequence in sequences.findall("./component/sequence"):
        code, value = sequence.find("code"), sequence.find("value")
        name = "" if code is None else code.get("code", "")
        if value is None:
            continue
        if name in _TIMES:
            step, unit = _quantity(value, "increment", where)
            seconds = step * _SECONDS.get(unit, 0.0)
            hertz = 1 / seconds if seconds > 0 else 0.0
        elif value.find("digits") is not None:
            names.append(name)
            millivolts.append(_samples(value, name, where))
    return Recording(names, millivolts, hertz)


def _samples(value: Element, name: str, where: str) -> NDArray[np.float64]:
    """origin + digits x scale, in millivolts; nothing for a channel in another unit."""
    origin, origin_unit = _quantity(value, "origin", where)
    scale, scale_unit = _quantity(value, "scale", where)
    per_origin, per_scale = millivolts_per(origin_unit or scale_unit), millivolts_per(scale_unit)
    if per_origin is None or per_scale is None:
        if count_of_leads([name]):
            raise InputError(f"{where}: lead {name} is in {scale_unit[:20]!r}; voltages are in uV, mV or V")
        return np.empty(0)
    words = (value.findtext("digits") or "").replace(",", " ").split()
    if len(words) > MOST_VALUES:
        raise InputError(f"{where}: {name} has {len(words)} samples; export a shorter part")
    try:
        digits = np.array(words, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{where}: a sample of {name} is no number ({error}); {EXPORT_AGAIN}") from error
    return origin * per_origin + digits * (scale * per_scale)


def _quantity(value: Element, tag: str, where: str) -> tuple[float, str]:
    """The number and the unit of <tag value= unit=>; origin is 0 where it is left out."""
    element = value.find(tag)
    text = "0" if element is None and tag == "origin" else "" if element is None else element.get("value", "")
    try:
        return float(text), "" if element is None else element.get("unit", "")
    except ValueError as error:
        raise InputError(f"{where}: {tag} {text[:20]!r} is no number; {EXPORT_AGAIN}") from error
