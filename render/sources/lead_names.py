"""The twelve leads among a file's channels, whatever it calls them.

MDC codes: ISO/IEEE 11073-10101. C1 to C6: the chest electrodes of IEC 60601-2-25. DI, D1: as in Brazil and Spain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.record import LEADS

_LIMB_LEADS = ("I", "II", "III")
_NAMES = {
    **{lead.upper(): lead for lead in LEADS},
    **{f"D{lead}": lead for lead in _LIMB_LEADS},
    **{f"D{number}": lead for number, lead in enumerate(_LIMB_LEADS, start=1)},
    **{f"C{number}": f"V{number}" for number in range(1, 7)},
}
# Words that stand beside the name and tell nothing about it.
_FILLERS = frozenset(
    (
        "ECG", "EKG", "ELEC", "POTL", "LEAD", "MDC", "DERIVATION", "DERIVACAO", "DERIVAÇÃO", "DERIVACION",
        "DERIVACIÓN", "DERIVAZIONE", "ABLEITUNG",
    )
)  # fmt: skip
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_SEPARATORS = re.compile(r"[\s_:.,\-]+")
_MINUS = re.compile(r"(?:^|\s)[-−–]\s*(?=\w)")
_FIRST_PARTS = frozenset(("D", "A", "AV", "V", "C"))  # of a name written in two words: "D I", "V 1"
_LONGEST_NAME = 60


@lru_cache(maxsize=4096)  # the files of a data set name their channels alike
def standard_lead(name: str) -> tuple[str, int] | None:
    """The lead of `LEADS` that a channel's name stands for, and its sign: ("aVR", -1) for "-aVR". None for no lead.

    Capitals, brackets with a unit, and words such as "Lead", "ECG" or "MDC_ECG_LEAD_" decide nothing.
    """
    if len(name) > _LONGEST_NAME:
        return None
    text = _BRACKETS.sub(" ", name).strip().upper()
    bare_name = _MINUS.sub(" ", text, count=1)
    sign = 1 if bare_name == text else -1
    words = [word for word in _SEPARATORS.split(bare_name) if word and word not in _FILLERS]
    is_name = len(words) == 1 or (len(words) == 2 and words[0] in _FIRST_PARTS)
    lead = _NAMES.get("".join(words)) if is_name else None
    return None if lead is None else (lead, sign)


def lead_channels(names: Sequence[str], where: str) -> dict[str, tuple[int, int]]:
    """Lead -> (its channel's place in `names`, its sign), for the leads that the channels hold.

    Files differ in order (MIMIC-IV-ECG stores aVF before aVL), so only names count. Channels that are no lead
    (respiration, for example) are left out, and so may be the limb leads that follow from two others.
    Raises `InputError` naming `where` and the leads that are missing or duplicate.
    """
    channels: dict[str, tuple[int, int]] = {}
    for row, name in enumerate(names):
        lead_sign = standard_lead(name)
        if lead_sign is None:
            continue
        lead, sign = lead_sign
        if lead in channels:
            raise InputError(f"{where}: two channels are named {lead}; keep one of them")
        channels[lead] = (row, sign)
    needs = LEADS if sum(lead in channels for lead in _LIMB_LEADS) < 2 else LEADS[6:]
    missing = [lead for lead in needs if lead not in channels]
    if missing:
        listing = ", ".join(str(name)[:_LONGEST_NAME] for name in names[:24]) or "none"
        raise InputError(f"{where}: lead {', '.join(missing)} missing (channels: {listing}); 12 leads are needed")
    return channels


def complete_leads(samples: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float32]:
    """(12, n) float32 in the order of `LEADS` from the samples, (n,), of the leads of `lead_channels`.

    Limb leads that are missing follow from two others: I + III = II (Einthoven 1912), aVR = -(I + II) / 2,
    aVL = I - II / 2, aVF = II - I / 2 (Goldberger 1942).
    """
    leads = dict(samples)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers beyond float32: the callers make gaps of them
        if "I" not in leads:
            leads["I"] = leads["II"] - leads["III"]
        if "II" not in leads:
            leads["II"] = leads["I"] + leads["III"]
        first, second = leads["I"], leads["II"]
        for lead, weights in (("III", (-1, 1)), ("aVR", (-0.5, -0.5)), ("aVL", (1, -0.5)), ("aVF", (-0.5, 1))):
            if lead not in leads:
                leads[lead] = weights[0] * first + weights[1] * second
        return np.ascontiguousarray(np.stack([leads[lead] for lead in LEADS]), dtype=np.float32)


def in_lead_order(names: Sequence[str], samples: NDArray[np.floating], where: str) -> NDArray[np.float32]:
    """(12, n) float32: the twelve leads of `samples` (channels, n), whose channels are called `names`.

    Raises `InputError` naming `where` and the leads that are missing or duplicate.
    """
    channels = lead_channels(names, where)
    return complete_leads({lead: sign * samples[row] for lead, (row, sign) in channels.items()})
