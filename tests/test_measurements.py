"""Measuring: the simulator's truth is found again, and what cannot be read is left out."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cache

import numpy as np
import pytest

from render.measurements import AMPLITUDES, measure, steady_rate
from render.record import LEADS, EcgRecord
from render.simulate import Simulated, simulate

KEYS = {"rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qrs_axis_deg", *AMPLITUDES}


@cache
def measured() -> list[tuple[EcgRecord, dict[str, float]]]:
    records = [Simulated(17, 30).read(i) for i in range(30)]
    return [(record, measure(record)) for record in records]


def with_signal(record: EcgRecord, signal: np.ndarray, rate: float | None = None) -> EcgRecord:
    return dataclasses.replace(record, signal=signal.astype(np.float32), sampling_rate=rate or record.sampling_rate)


@pytest.mark.parametrize(
    ("key", "median", "p90", "found"),
    [
        ("rate_bpm", 0.5, 2, 0.8),
        ("pr_ms", 10, 30, 0.5),
        ("qrs_ms", 10, 18, 0.85),
        ("qt_ms", 12, 40, 0.7),
        ("qrs_axis_deg", 4, 15, 0.8),
    ],
)
def test_the_simulators_truth_is_found_again(key, median, p90, found):
    pairs = [(record.measured[key], m.get(key)) for record, m in measured() if key in record.measured]
    errors = [abs((m - truth + 180) % 360 - 180) for truth, m in pairs if m is not None]
    assert np.median(errors) <= median and np.percentile(errors, 90) <= p90
    assert len(errors) >= found * len(pairs) and len(pairs) >= 20


def test_only_known_keys_and_finite_numbers():
    for _, m in measured():
        assert set(m) <= KEYS and all(np.isfinite(v) for v in m.values())
        assert all(m[key] >= 0 for key in AMPLITUDES if key in m)


def test_a_drawn_beat_is_measured():
    """Waves of known places and heights, every 0.8 s: R 1.0 mV in I and 0.5 mV in aVF, 100 ms wide."""
    t = (np.arange(5000) / 500) % 0.8

    def wave(start: float, end: float) -> np.ndarray:
        middle = (start + end) / 2
        return np.where(np.abs(t - middle) < (end - start) / 2, np.cos(np.pi * (t - middle) / (end - start)) ** 2, 0)

    i = 0.15 * wave(0.10, 0.20) + 1.0 * wave(0.28, 0.38) + 0.3 * wave(0.48, 0.66)
    ii = 0.2 * wave(0.10, 0.20) + 1.0 * wave(0.28, 0.38) + 0.3 * wave(0.48, 0.66)
    v = 0.1 * wave(0.10, 0.20) + 1.2 * wave(0.28, 0.38) + 0.3 * wave(0.48, 0.66)
    signal = np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2, *[v] * 6])
    m = measure(EcgRecord("drawn", signal.astype(np.float32), 500.0, "x"))
    assert m["rate_bpm"] == pytest.approx(75, abs=0.2)
    assert m["pr_ms"] == pytest.approx(180, abs=16)
    assert m["qrs_ms"] == pytest.approx(100, abs=14)
    assert m["qt_ms"] == pytest.approx(380, abs=25)
    assert m["qrs_axis_deg"] == pytest.approx(np.degrees(np.arctan2(0.5 * 2 / np.sqrt(3), 1.0)), abs=2)
    assert m["r_V5_mv"] == pytest.approx(1.2, abs=0.06) and m["r_I_mv"] == pytest.approx(1.0, abs=0.05)
    assert m["s_V1_mv"] == pytest.approx(0, abs=0.05)


def test_any_sampling_rate_gives_the_same():
    record, m = next((r, m) for r, m in measured() if len(m) == len(KEYS))
    coarse = measure(with_signal(record, record.signal[:, ::2], 250.0))
    for key in ("rate_bpm", "qrs_ms", "qrs_axis_deg", "r_V5_mv"):
        assert coarse[key] == pytest.approx(m[key], rel=0.1, abs=6)
    assert measure(record) == m


def test_no_pr_in_atrial_fibrillation():
    wrong = [m["pr_ms"] for seed in range(10) if "pr_ms" in (m := measure(simulate(seed, ["AFIB"])))]
    assert len(wrong) <= 2


def test_what_cannot_be_read_is_left_out():
    record = simulate(3, ["SR"])
    noise = np.random.default_rng(0).normal(0, 1, record.signal.shape)
    dead = record.signal.copy()
    dead[LEADS.index("V4")] = 0
    gap = record.signal.copy()
    gap[2, 100] = np.nan
    for signal in (dead, gap, record.signal[:, :700], np.tile(np.arange(5000) / 5000, (12, 1))):
        assert measure(with_signal(record, signal)) == {}
    assert "pr_ms" not in measure(with_signal(record, noise))
    for seed in range(6):  # steps, spikes, tiny signals: anything, and no error
        rng = np.random.default_rng(seed)
        odd = np.cumsum(rng.standard_t(1.5, (12, int(rng.integers(340, 6000)))), axis=1)
        measure(with_signal(record, np.clip(odd * 10.0 ** rng.integers(-6, 1), -99, 99)))


def test_rate_is_told_only_where_one_number_describes_it():
    assert steady_rate([0.0, 0.8, 1.6, 2.4]) == pytest.approx(75)
    assert steady_rate([0.0, 0.5, 2.0, 2.5]) is None  # bigeminy
    assert steady_rate([0.0, 0.8]) is None and steady_rate([]) is None
    assert steady_rate([1.0, 1.0, 1.0]) is None


def test_the_simulator_tells_what_it_made():
    for record, _ in measured():
        assert record.measured_by == "simulated" and set(record.measured) <= KEYS
    assert "pr_ms" not in simulate(1, ["AFIB"]).measured and "pr_ms" not in simulate(1, ["2AVB"]).measured
    assert simulate(1, ["1AVB"]).measured["pr_ms"] > 200 and simulate(1, ["CLBBB"]).measured["qrs_ms"] >= 120
    assert "qrs_ms" not in simulate(1, ["PACE"]).measured
    for code, low, high in (("STACH", 100, 170), ("SBRAD", 30, 60)):
        assert low < simulate(2, [code]).measured["rate_bpm"] < high


def test_telling_does_not_change_the_waveform():
    """The checksum of these records, so that a change of the simulator's numbers is meant; rounded, as platforms differ
    in bits."""
    digest = hashlib.sha256()
    for seed, code in enumerate(("SR", "AFIB", "CLBBB", "IMI", "PACE")):
        digest.update(np.round(simulate(seed, [code]).signal.astype(np.float64), 3).tobytes())
    assert digest.hexdigest()[:16] == "e2cd2366aa67b59b"
