"""The ECG record: twelve leads in millivolts, with their statements, report and measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

HIGH_RATE_HZ, LOW_RATE_HZ = 500, 100
"""The two sampling rates at which PTB-XL is published (Wagner et al. 2020), in hertz."""

SIMULATED_ID = "sim-"
"""What the id of every simulated record begins with."""

# An ECG page shows 10 s; two thirds of a second is the shortest trace that can hold one beat at 90/min.
_SHORTEST_SECONDS = 0.66
# Surface QRS complexes stay below 10 mV; beyond 100 mV the file's unit or gain is wrong (microvolts read as mV).
_LARGEST_MILLIVOLT = 100.0


class RecordLabels(NamedTuple):
    """A record without its signal; the fields are those of `EcgRecord`."""

    record_id: str
    source: str
    statements: tuple[str, ...]
    report: str
    patient_id: str
    fold: int | None


@dataclass(frozen=True)
class EcgRecord:
    """One 12-lead ECG.

    Attributes:
        signal: (12, n) float32, millivolts, rows in the order of `LEADS`.
        sampling_rate: hertz.
        statements: the SCP codes that hold for this record, sorted, each once (see `render.statements`).
        report: the free text that came with the record, unchanged; "" when there is none.
        provenance: origin of the statements: "human", "machine" or "simulated".
        fold: PTB-XL's stratified fold 1-10, or None.
        age: years.
        sex: "male", "female" or "". None and "" mean unknown.
        header: what a machine would print at the page's head (name -> text), without findings.
        measurements: of the waveform, any of "rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "p_axis_deg", "qrs_axis_deg"
            and "t_axis_deg"; unknown ones are left out.
        measured_by: origin of the measurements: "machine" (the recorder's own analysis), "simulated" (the
            simulator's settings), or "" without measurements.
        infarct_stage: in PTB-XL's words, "Stadium I", "Stadium II-III", "unknown" ...; "" without an infarct or a word.
        unmapped_lines: lines of the machine's report that stand for no statement, unchanged.
    """

    record_id: str
    signal: NDArray[np.float32]
    sampling_rate: float
    source: str
    statements: tuple[str, ...] = ()
    report: str = ""
    provenance: str = "machine"
    patient_id: str = ""
    fold: int | None = None
    age: float | None = None
    sex: str = ""
    header: tuple[tuple[str, str], ...] = ()
    measurements: Mapping[str, float] = field(default_factory=dict)
    measured_by: str = ""
    unmapped_lines: tuple[str, ...] = ()
    infarct_stage: str = ""

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[0] != len(LEADS) or self.signal.dtype != np.float32:
            raise InputError(
                f"record {self.record_id}: signal is {self.signal.dtype} {self.signal.shape}, "
                f"expected float32 (12, samples)"
            )
        if not self.sampling_rate > 0:
            raise InputError(f"record {self.record_id}: sampling rate {self.sampling_rate} Hz is not positive")
        if self.seconds < _SHORTEST_SECONDS:
            raise InputError(
                f"record {self.record_id}: {self.seconds:.2f} s of signal; {_SHORTEST_SECONDS} s are needed"
            )
        if tuple(sorted(set(self.statements))) != self.statements:
            raise ValueError(f"record {self.record_id}: statements must be sorted and unique: {self.statements}")
        # Minimum and maximum first: a mask of finite samples costs six times as much, and few records need it.
        least, most = float(self.signal.min()), float(self.signal.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            finite = self.signal[np.isfinite(self.signal)]
            if not finite.size:
                raise InputError(f"record {self.record_id}: no finite sample in any lead; the signal file is damaged")
            least, most = float(finite.min()), float(finite.max())
        peak = max(-least, most)
        if peak > _LARGEST_MILLIVOLT:
            raise InputError(
                f"record {self.record_id}: peak of {peak:.0f} mV; the header's gain or unit (mV, uV) is wrong"
            )

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return float(self.signal.shape[1] / self.sampling_rate)

    def lead(self, name: str) -> NDArray[np.float32]:
        """The samples of one lead in millivolts, (n,). Raises KeyError for a name not in `LEADS`."""
        samples: NDArray[np.float32] = self.signal[_INDEX[name]]
        return samples

    def dead_leads(self) -> tuple[str, ...]:
        """Leads that are flat or contain a NaN: an electrode fault, which a page shows as a line or a gap."""
        with np.errstate(invalid="ignore"):  # the difference of two infinities
            heights = self.signal.max(axis=1) - self.signal.min(axis=1)  # NaN and infinity go on into it
        return tuple(name for name, height in zip(LEADS, heights.tolist(), strict=True) if not 0 < height < math.inf)


_INDEX = {name: i for i, name in enumerate(LEADS)}


def resample(signal: NDArray[np.float32], rate: float, new_rate: float) -> NDArray[np.float32]:
    """(leads, n) samples resampled from `rate` to `new_rate` hertz by a polyphase filter (no aliasing, no delay).

    Gaps (NaN) are bridged by straight lines for the filter and are NaN again in the result, so that they keep their
    length.
    """
    if rate == new_rate:
        return signal
    from scipy.signal import resample_poly  # slow to import, and seldom needed

    ratio = Fraction(new_rate / rate).limit_denominator(1000)
    gaps = ~np.isfinite(signal)
    bridges = signal.astype(np.float64)
    time = np.arange(signal.shape[1])
    for lead in np.flatnonzero(gaps.any(axis=1)):
        finite = ~gaps[lead]
        bridges[lead] = np.interp(time, time[finite], bridges[lead, finite]) if finite.any() else 0.0
    # padtype "line": a trace that ends off zero would otherwise ring at its edge
    result: NDArray[np.float64] = resample_poly(bridges, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    nearest = np.minimum(np.arange(result.shape[1]) * signal.shape[1] // result.shape[1], signal.shape[1] - 1)
    result[gaps[:, nearest]] = np.nan
    return result.astype(np.float32)


def sorted_statements(codes: Iterable[str]) -> tuple[str, ...]:
    """Codes sorted, each once: the order of the benchmark's label columns."""
    return tuple(sorted(set(codes)))
