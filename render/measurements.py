"""Rate, intervals, axis and amplitudes measured on the waveform, for records that come without a machine's numbers.

As electrocardiographs do, the intervals are read from one representative beat: the median of the record's beats of the
prevailing kind. NeuroKit2 (Makowski et al., Behav Res Methods 2021;53:1689) finds the R peaks and, by the prominence
method (Emrich et al., EUSIPCO 2024), the onset of P and the end of T in each of six leads; the QRS is bounded by the
slope over all leads, which NeuroKit2 does not offer and which agrees better with cardiologists. What the leads do not
agree about is left out.

On LUDB 1.0.1 (Kalyakulina et al., IEEE Access 2020;8:186181; 200 records with boundaries marked by cardiologists), the
median and 90th percentile of the error: rate 0.2 and 0.9 per minute (190 records), PR 6 and 17 ms (134), QRS 5 and
13 ms (193, against the median over leads; 10 and 22 ms, too short, against the third earliest onset and third latest
end), QT 8 and 19 ms (164, against the latter; 18 and 32 ms, too long, against the former).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.record import LEADS, EcgRecord, resample

Array = NDArray[np.float64]

RATE_HZ = 500
"""Records are measured at this rate: one sample is 2 ms."""
_MS = 1000 / RATE_HZ

_PEAK_LEADS = ("II", "V2", "V5")  # R peaks are sought in these; two of them have to agree
_WAVE_LEADS = ("I", "II", "V3", "V4", "V5", "V6")  # P and T are sought in these
_INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")

AMPLITUDES = ("r_I_mv", "r_II_mv", "r_aVL_mv", "r_V1_mv", "r_V5_mv", "r_V6_mv", "s_V1_mv", "s_V2_mv", "s_V3_mv")
"""Further keys: height of R, or depth of S as a positive number, against the level before the QRS."""

# Limits of agreement and quality; see `measure`.
_RATE_SPREAD = 0.03  # of the rate, between leads
_STEADY = 0.10  # of the rate, between median and mean RR
_ALIKE = 0.80  # correlation of a beat with the median beat
_P_MV, _P_ALIKE, _P_SPREAD_MS, _T_SPREAD_MS = 0.04, 0.60, 30.0, 40.0
_SLOPE_SHARE = 0.03  # of the steepest slope: the QRS lies where it is steeper
_CALM = 8  # samples below that slope that end the QRS: 16 ms


def measure(record: EcgRecord) -> dict[str, float]:
    """What can be read reliably: any of rate_bpm, pr_ms, qrs_ms, qt_ms, qrs_axis_deg, and `AMPLITUDES`.

    Nothing where two leads do not agree about the rate to 3 %. No rate where median and mean RR differ by more than
    10 % (bigeminy, pauses). Nothing else where fewer than half of the beats are alike. No PR without a P wave that
    comes back with every beat, no QT where the leads' T ends are more than 40 ms apart (interquartile range). The
    axis comes from the net areas of the QRS in I and aVF. Deterministic; a record that cannot be read gives {}.
    """
    if record.dead_leads():
        return {}
    signal = _filtered(resample(record.signal, record.sampling_rate, RATE_HZ).astype(np.float64), 0.5, "highpass")
    peaks = _agreed([_r_peaks(signal[LEADS.index(lead)]) for lead in _PEAK_LEADS])
    if peaks is None:
        return {}
    rate = steady_rate((peaks / RATE_HZ).tolist())
    found = {} if rate is None else {"rate_bpm": rate}
    beat = _median_beat(signal, peaks)
    return found if beat is None else found | _intervals(beat) | _axis(beat) | _amplitudes(beat)


def steady_rate(beats_s: Sequence[float]) -> float | None:
    """Beats per minute from the median RR of beat times in seconds.

    None for fewer than three beats, and where the mean RR says otherwise by more than 10 %: then no single number
    describes the record.
    """
    if len(beats_s) < 3:
        return None
    intervals = np.diff(np.sort(np.asarray(beats_s, dtype=np.float64)))
    median, mean = float(np.median(intervals)), float(intervals.mean())
    return 60 / median if median > 0 and abs(median - mean) <= _STEADY * median else None


@dataclass(frozen=True)
class _Beat:
    """mv: (12, n) the median beat at 500 Hz. alike: (beats, 12, n). onset, end: of the QRS, samples."""

    mv: Array
    alike: Array
    onset: int
    end: int

    @property
    def smooth(self) -> Array:
        """(12, n) without muscle and mains noise."""
        return _smooth(self.mv)

    def level(self, mv: Array) -> Array:
        """(12, 1) millivolts just before the QRS, the reference of all amplitudes (AHA/ACCF/HRS 2009, part IV)."""
        return np.median(mv[..., max(self.onset - 12, 0) : max(self.onset - 2, 1)], axis=-1, keepdims=True)


def _filtered(mv: Array, hertz: float, kind: str) -> Array:
    from scipy.signal import butter, sosfiltfilt

    return np.asarray(sosfiltfilt(butter(2, hertz, kind, fs=RATE_HZ, output="sos"), mv, axis=-1))


def _smooth(beat: Array) -> Array:
    """A low pass of 40 Hz on a beat that is repeated, so that its ends do not ring."""
    n = beat.shape[-1]
    return _filtered(np.concatenate([beat] * 3, axis=-1), 40.0, "lowpass")[..., n : 2 * n]


def _r_peaks(mv: Array) -> NDArray[np.int64]:
    """(n,) one lead -> sample numbers of its R peaks; empty where NeuroKit2 finds none."""
    import neurokit2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of few peaks; few peaks are left out below
        try:
            clean = neurokit2.ecg_clean(mv, RATE_HZ)
            return np.asarray(neurokit2.ecg_peaks(clean, RATE_HZ)[1]["ECG_R_Peaks"], dtype=np.int64)
        except (ValueError, IndexError, ZeroDivisionError):
            return np.zeros(0, np.int64)


def _agreed(found: Sequence[NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """The peaks of the first lead whose median RR agrees with that of another lead, if one does."""
    found = [peaks for peaks in found if len(peaks) >= 4]
    if len(found) < 2:
        return None
    intervals = [float(np.median(np.diff(peaks))) for peaks in found]
    middle = float(np.median(intervals)) if len(found) > 2 else intervals[0]
    near = [p for p, rr in zip(found, intervals, strict=True) if abs(rr - middle) <= _RATE_SPREAD * middle]
    return near[0] if len(near) > 1 else None


def _median_beat(signal: Array, peaks: NDArray[np.int64]) -> _Beat | None:
    """One cycle of the prevailing kind of beat, 42 % of it before R; None where fewer than half are alike."""
    cycle = int(np.median(np.diff(peaks)))
    before = int(0.42 * cycle)
    starts = [p - before for p in peaks if p >= before and p - before + cycle <= signal.shape[1]]
    if len(starts) < 3 or cycle < 0.3 * RATE_HZ:
        return None
    beats = np.stack([signal[:, i : i + cycle] for i in starts])
    alike = beats[_correlation(beats, np.median(beats, axis=0)) > _ALIKE]
    if len(alike) < max(3, len(beats) / 2):
        return None
    mv = np.median(alike, axis=0)
    onset, end = _qrs(_smooth(mv), before)
    return _Beat(mv, alike, onset, end)


def _correlation(beats: Array, median: Array) -> Array:
    """(beats, ...) with (...) -> (beats,) Pearson correlation over all leads and samples."""
    a = beats.reshape(len(beats), -1) - beats.mean(axis=tuple(range(1, beats.ndim)))[:, None]
    b = median.ravel() - median.mean()
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
    return np.asarray((a @ b) / np.where(scale > 0, scale, 1.0))


def _qrs(mv: Array, peak: int) -> tuple[int, int]:
    """First and last sample of the QRS around `peak` in a smooth beat (12, n): where the leads are steep."""
    rows = [LEADS.index(lead) for lead in _INDEPENDENT]
    slope = np.sqrt(((mv[rows, 2:] - mv[rows, :-2]) ** 2).mean(axis=0))
    slope = np.convolve(slope, np.ones(3) / 3, "same")
    first = max(peak - 75, 0)
    top = first + int(np.argmax(slope[first : peak + 100]))
    floor = float(np.percentile(slope, 20))
    limit = floor + _SLOPE_SHARE * (slope[top] - floor)
    onset = end = top
    while onset > _CALM and slope[onset - _CALM : onset].max() > limit:
        onset -= 1
    while end < len(slope) - _CALM and slope[end + 1 : end + 1 + _CALM].max() > limit:
        end += 1
    return onset + 1, end + 1


def _intervals(beat: _Beat) -> dict[str, float]:
    found = {"qrs_ms": (beat.end - beat.onset) * _MS}
    marks = [_delineated(beat, LEADS.index(lead)) for lead in _WAVE_LEADS]
    p_onset = np.array([mark["ECG_P_Onsets"] for mark in marks])
    t_end = np.array([mark["ECG_T_Offsets"] for mark in marks])
    seen = np.isfinite(p_onset)
    if seen.sum() >= 3 and _spread_ms(p_onset[seen]) <= _P_SPREAD_MS:
        start = float(np.quantile(p_onset[seen], 0.25))  # the wave begins where the first leads show it
        if _has_p(beat, int(start)):
            found["pr_ms"] = (beat.onset - start) * _MS
    seen = np.isfinite(t_end)
    if seen.sum() >= 3 and _spread_ms(t_end[seen]) <= _T_SPREAD_MS:
        found["qt_ms"] = (float(np.median(t_end[seen])) - beat.onset) * _MS
    return {name: value for name, value in found.items() if _PLAUSIBLE[name][0] <= value <= _PLAUSIBLE[name][1]}


_PLAUSIBLE = {"pr_ms": (80.0, 400.0), "qrs_ms": (50.0, 220.0), "qt_ms": (220.0, 650.0)}


def _spread_ms(samples: Array) -> float:
    return float(np.subtract(*np.quantile(samples, (0.75, 0.25)))) * _MS


def _delineated(beat: _Beat, row: int) -> Mapping[str, float]:
    """NeuroKit2's marks of one lead, in samples of the beat; NaN for what it does not find.

    It looks for T up to half a cycle after R, too short for a fast heart, so the cycle is lengthened by a level line.
    It expects an upright R, so a lead that goes down is turned.
    """
    import neurokit2

    lead = beat.smooth[row]
    qrs = lead[beat.onset : beat.end + 1] - beat.level(lead)
    peak = beat.onset + int(np.argmax(np.abs(qrs)))
    rest = np.linspace(lead[-1], lead[0], max(2, int(1.2 * RATE_HZ) - len(lead)))
    cycle = np.concatenate([lead, rest]) * (1.0 if qrs[peak - beat.onset] >= 0 else -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peaks = np.array([peak, peak + len(cycle)])
            marks = neurokit2.ecg_delineate(np.tile(cycle, 2), peaks, RATE_HZ, method="prominence")[1]
        except (ValueError, IndexError, ZeroDivisionError):
            marks = {}
    names = ("ECG_P_Onsets", "ECG_T_Offsets")
    return {name: float(marks[name][1]) - len(cycle) if len(marks.get(name, ())) == 2 else np.nan for name in names}


def _has_p(beat: _Beat, start: int) -> bool:
    """Whether a deflection of 0.04 mV stands between `start` and the QRS in most beats, as fibrillation's does not."""
    first, last = max(start - 10, 0), beat.onset - 4
    if last - first < 20:
        return False
    rows = [LEADS.index(lead) for lead in ("I", "II", "aVF", "V1")]
    part = beat.smooth[rows, first:last]
    alike = _correlation(_smooth(beat.alike[:, rows])[..., first:last], part)
    return bool(np.ptp(part, axis=1).max() >= _P_MV and np.median(alike) >= _P_ALIKE)


def _axis(beat: _Beat) -> dict[str, float]:
    """Degrees from the net areas of I and aVF (aVF scaled by 2/sqrt 3); nothing where the net vector is small."""
    qrs = (beat.mv - beat.level(beat.mv))[:, beat.onset : beat.end + 1]
    i, avf = qrs[LEADS.index("I")], qrs[LEADS.index("aVF")]
    x, y = float(i.sum()), float(avf.sum()) * 2 / np.sqrt(3)
    if np.hypot(x, y) < 0.25 * float(np.abs(i).sum() + np.abs(avf).sum()):
        return {}
    return {"qrs_axis_deg": float(np.degrees(np.arctan2(y, x)))}


def _amplitudes(beat: _Beat) -> dict[str, float]:
    qrs = (beat.mv - beat.level(beat.mv))[:, beat.onset : beat.end + 1]
    found = {}
    for key in AMPLITUDES:
        wave, lead, _ = key.split("_")
        row = qrs[LEADS.index(lead)]
        found[key] = max(0.0, float(row.max() if wave == "r" else -row.min()))
    return found
