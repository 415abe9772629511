"""What a waveform file holds, before it is a record, and the checks that all formats share."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.record import EcgRecord
from render.sources.lead_names import complete_leads, lead_channels, standard_lead
from render.sources.wfdb_header import ECG_RATES, is_ecg_rate

MOST_VALUES = 50_000_000  # of all channels together: 12 leads at 500 Hz for 2.3 h
EXPORT_AGAIN = "export the record again"

_MILLIVOLTS = {
    "nv": 1e-6, "nanovolt": 1e-6, "nanovolts": 1e-6,
    "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "microvolt": 1e-3, "microvolts": 1e-3,
    "mv": 1.0, "millivolt": 1.0, "millivolts": 1.0,
    "v": 1e3, "volt": 1e3, "volts": 1e3,
}  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """Channels of one file.

    names: of the channels. millivolts: (n,) for each; those of leads have to be equally long. hertz: of the leads.
    age: years or None; sex: "male", "female" or "".
    """

    names: Sequence[str]
    millivolts: Sequence[NDArray[np.floating]]
    hertz: float
    age: float | None = None
    sex: str = ""


def millivolts_per(unit: str) -> float | None:
    """Millivolts of one unit such as "uV" or "MICROVOLTS"; None for what is no voltage."""
    return _MILLIVOLTS.get(unit.strip().lower())


def as_record(recording: Recording, where: str, source: str) -> EcgRecord:
    """The record of a file; its id is the file's name without the suffix.

    where: the file, for messages. source: of the record, "scp" for example.
    Raises `InputError` for missing leads, leads of different lengths, and a rate at which no ECG is sampled.
    """
    if not is_ecg_rate(recording.hertz):
        raise InputError(f"{where}: sampling rate {recording.hertz:g} Hz is not in {ECG_RATES}; {EXPORT_AGAIN}")
    channels = lead_channels(recording.names, where)
    leads = {lead: sign * recording.millivolts[row] for lead, (row, sign) in channels.items()}
    lengths = {lead: samples.size for lead, samples in leads.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{lead} {length}" for lead, length in lengths.items())
        raise InputError(f"{where}: the leads differ in their number of samples ({text}); {EXPORT_AGAIN}")
    signal = complete_leads(leads)
    signal[~np.isfinite(signal)] = np.nan
    return EcgRecord(
        record_id=PurePath(where).stem,
        signal=signal,
        sampling_rate=float(recording.hertz),
        source=source,
        age=recording.age,
        sex=recording.sex,
    )


def decode_base64(text: str, where: str) -> bytes:
    """The bytes of a Base64 text with any white space in it. Raises `InputError` for damage."""
    try:
        letters = "".join(text.split())
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: the samples are not whole Base64 ({error}); {EXPORT_AGAIN}") from error


def int16_of(content: bytes) -> NDArray[np.int16]:
    """Little-endian 16-bit numbers; a last odd byte is left out."""
    return np.frombuffer(content[: len(content) // 2 * 2], "<i2")


def count_of_leads(names: Sequence[str]) -> int:
    """How many different leads are among some names."""
    return len({lead_sign[0] for lead_sign in map(standard_lead, names) if lead_sign})


def sex_of(text: str | None) -> str:
    """ "male" or "female" from a file's "M", "FEMALE" and the like, else ""."""
    return {"m": "male", "male": "male", "f": "female", "female": "female"}.get((text or "").strip().lower(), "")


def years_of(text: str | None, unit: str | None = "years") -> float | None:
    """Whole years, None where the text is no plausible age in years."""
    number = (text or "").strip()
    is_years = (unit or "years").strip().lower().startswith("y")
    return float(number) if is_years and number.isascii() and number.isdigit() and int(number) <= 120 else None
