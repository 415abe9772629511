"""Measuring: the simulator's truth is found again, and what cannot be read is left out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from render.delineation import WAVES
from render.measurements import AMPLITUDES, beats, delineate, measure, measure_page, steady_rate
from render.record import LEADS, EcgRecord
from render.simulator.simulate import SimulatedSource, simulate

KEYS = {"rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qrs_axis_deg", *AMPLITUDES}


@cache
def measured() -> list[tuple[EcgRecord, dict[str, float]]]:
    records = [SimulatedSource(17, 30).read(i) for i in range(30)]
    return [(record, measure(record)) for record in records]


def with_signal(record: EcgRecord, signal: np.ndarray, rate: float | None = None) -> EcgRecord:
    return dataclasses.replace(record, signal=signal.astype(np.float32), sampling_rate=rate or record.sampling_rate)


@pytest.mark.parametrize(
    ("key", "median", "p90", "found"),
    [
        ("rate_bpm", 0.2, 1, 0.9),
        ("pr_ms", 8, 14, 0.75),
        ("qrs_ms", 9, 15, 0.95),
        ("qt_ms", 10, 18, 0.85),
        ("qrs_axis_deg", 3, 12, 0.8),
    ],
)
def test_the_simulators_truth_is_found_again(key, median, p90, found):
    pairs = [(record.measurements[key], m.get(key)) for record, m in measured() if key in record.measurements]
    errors = [abs((m - truth + 180) % 360 - 180) for truth, m in pairs if m is not None]
    assert np.median(errors) <= median and np.percentile(errors, 90) <= p90
    assert len(errors) >= found * len(pairs) and len(pairs) >= 20


def test_only_known_keys_and_finite_numbers():
    for _, m in measured():
        assert m and set(m) <= KEYS and all(np.isfinite(v) for v in m.values())
        assert all(m[key] >= 0 for key in AMPLITUDES if key in m)


def drawn_beats(rate: float = 500.0, late: float = 0.0, without_p: tuple[int, ...] = ()) -> EcgRecord:
    """Waves of known places and heights, every 0.8 s: R 1.0 mV in I and 0.5 mV in aVF, 100 ms wide.

    late: seconds that everything is moved by. without_p: numbers of beats that have none.
    """
    count = int(10 * rate)
    t = (np.arange(count) / rate - late) % 0.8
    p = np.where(np.isin((np.arange(count) / rate - late) // 0.8, without_p), 0.0, 1.0)

    def wave(start: float, end: float) -> np.ndarray:
        middle = (start + end) / 2
        return np.where(np.abs(t - middle) < (end - start) / 2, np.cos(np.pi * (t - middle) / (end - start)) ** 2, 0)

    i = 0.15 * p * wave(0.10, 0.20) + 1.0 * wave(0.28, 0.38) + 0.3 * wave(0.48, 0.66)
    ii = 0.2 * p * wave(0.10, 0.20) + 1.0 * wave(0.28, 0.38) + 0.3 * wave(0.48, 0.66)
    v = 0.1 * p * wave(0.10, 0.20) + 1.2 * wave(0.28, 0.38) + 0.3 * wave(0.48, 0.66)
    signal = np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2, *[v] * 6])
    return EcgRecord("drawn", signal.astype(np.float32), rate, "x")


def test_a_drawn_beat_is_measured():
    m = measure(drawn_beats())
    assert m["rate_bpm"] == pytest.approx(75, abs=0.2)
    assert m["pr_ms"] == pytest.approx(180, abs=10)
    assert m["qrs_ms"] == pytest.approx(100, abs=10)
    assert m["qt_ms"] == pytest.approx(380, abs=12)
    assert m["qrs_axis_deg"] == pytest.approx(np.degrees(np.arctan2(0.5 * 2 / np.sqrt(3), 1.0)), abs=2)
    assert m["r_V5_mv"] == pytest.approx(1.2, abs=0.06) and m["r_I_mv"] == pytest.approx(1.0, abs=0.05)
    assert m["s_V1_mv"] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("rate", [100.0, 250.0, 360.0, 500.0, 1000.0])
def test_the_waves_of_every_beat_are_where_they_were_drawn(rate):
    waves = delineate(drawn_beats(rate, late=0.05))
    starts = np.round((waves.beats / rate - 0.05 - 0.33) / 0.8) * 0.8 + 0.05  # 0.33 s: the middle of the QRS
    whole = np.isfinite(waves.t_end)
    assert whole.sum() >= 10 and waves.prevailing[whole].all()
    truth = {"p_onset": 0.10, "p_end": 0.20, "qrs_onset": 0.28, "qrs_end": 0.38, "t_end": 0.66}
    slow = 0.01 if rate == 100 else 0.0  # what a sample of 10 ms and the filter before it blur
    for name in WAVES:
        apart = getattr(waves, name)[whole] / rate - starts[whole] - truth[name]
        assert np.abs(apart).max() < 0.012 + slow, name
        assert np.ptp(apart) < 0.008 + slow
    assert waves.median is not None and waves.median.p_onset < waves.median.qrs_onset < waves.median.t_end


def test_a_beat_without_p_has_none():
    waves = delineate(drawn_beats(without_p=(4, 9)))
    numbers = ((waves.beats / 500) // 0.8).astype(int)
    whole = np.isfinite(waves.qrs_onset)
    assert np.array_equal(np.isnan(waves.p_onset[whole]), np.isin(numbers[whole], (4, 9)))
    assert np.array_equal(np.isnan(waves.p_onset), np.isnan(waves.p_end))


def test_an_ectopic_beat_is_told_apart_and_has_no_p():
    record = drawn_beats()
    t = np.arange(5000) / 500
    signal = record.signal.copy()
    signal[:, (t >= 4.0) & (t < 4.8)] = 0
    wide = 1.4 * np.exp(-(((t - 4.3) / 0.05) ** 2)) - 0.5 * np.exp(-(((t - 4.58) / 0.07) ** 2))
    signal += np.linspace(1, -1, 12)[:, None] * wide
    waves = delineate(with_signal(record, signal))
    odd = int(np.argmin(np.abs(waves.beats - 4.3 * 500)))
    assert abs(waves.beats[odd] / 500 - 4.3) < 0.08  # within the QRS
    assert not waves.prevailing[odd] and np.isnan(waves.p_onset[odd])
    assert (waves.qrs_end[odd] - waves.qrs_onset[odd]) * 2 > 130
    assert waves.prevailing[np.isfinite(waves.qrs_onset)].sum() >= 10
    assert measure(with_signal(record, signal))["qrs_ms"] == pytest.approx(100, abs=10)


def in_columns(signal: np.ndarray, columns: int) -> np.ndarray:
    """Each lead for its column's time alone, as on a page; NaN elsewhere."""
    page, length = np.full_like(signal, np.nan), signal.shape[1] // columns
    for lead, row in enumerate(signal):
        start = lead * columns // 12 * length
        page[lead, start : start + length] = row[start : start + length]
    return page


def scipy_beats(signal: np.ndarray) -> np.ndarray:
    """The detector in scipy's words, at 100 Hz: an oracle of the compiled one."""
    from scipy.signal import find_peaks

    speed = np.abs(np.diff(signal, axis=1))
    above = (speed - np.nanmedian(speed, axis=1, keepdims=True)).clip(min=0)
    high = np.nanquantile(speed, 0.98, axis=1, keepdims=True) + 1e-6
    shares = np.ma.masked_invalid((above / high).clip(max=2)).mean(axis=0).filled(0)
    window = np.hanning(17)
    moves = np.convolve(shares, window / window.sum(), "same")
    return find_peaks(moves, height=0.45 * np.quantile(moves, 0.98), distance=22)[0]


def test_beats_are_what_scipy_finds_at_100_hz_and_the_same_at_500():
    for record, _ in measured():
        slow = record.signal.reshape(12, -1, 5).mean(axis=2)
        middles = beats(slow, 100)
        assert np.array_equal(middles, scipy_beats(slow))
        assert np.array_equal(beats(record.signal, 500), np.round((middles + 0.5) * 5))
    page = in_columns(slow, 4)
    page[:, 300:350] = np.nan
    assert np.array_equal(beats(page, 100), scipy_beats(page))


def test_the_simulators_beats_are_found():
    """Its rate, which it knows from its own beats, is the rate of the beats that are found."""
    rates = [(r.measurements.get("rate_bpm"), steady_rate((delineate(r).beats / 500).tolist())) for r, _ in measured()]
    both = [(own, rate) for own, rate in rates if own is not None and rate is not None]
    assert len(both) > 10
    assert all(rate == pytest.approx(own, rel=0.02) for own, rate in both)


@st.composite
def odd_signals(draw: st.DrawFn) -> EcgRecord:
    """Steps, spikes, noise, flat and missing stretches, of any length, rate and size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rate = draw(st.sampled_from([50.0, 100.0, 128.0, 250.0, 360.0, 500.0, 1000.0]))
    n = draw(st.integers(int(0.67 * rate) + 1, int(6 * rate)))
    kind = draw(st.sampled_from(["walk", "noise", "spikes", "flat", "beats"]))
    signal = {
        "walk": lambda: np.cumsum(rng.standard_t(1.5, (12, n)), axis=1),
        "noise": lambda: rng.normal(size=(12, n)),
        "spikes": lambda: rng.normal(size=(12, n)) * (rng.random((12, n)) < 0.01),
        "flat": lambda: np.zeros((12, n)),
        "beats": lambda: rng.normal(size=(12, 1)) * (np.arange(n) % draw(st.integers(int(0.3 * rate), n)) < 5),
    }[kind]() * 10.0 ** draw(st.integers(-6, 1))
    if draw(st.booleans()):
        signal[draw(st.integers(0, 11)), draw(st.integers(0, n - 1)) :] = draw(st.sampled_from([0.0, np.nan]))
    return EcgRecord("odd", np.clip(signal, -99, 99).astype(np.float32), rate, "x")


@settings(max_examples=60, deadline=None)
@given(odd_signals())
def test_whatever_comes_is_delineated_or_left_out(record):
    waves, m = delineate(record), measure(record)
    n = record.signal.shape[1]
    assert (np.diff(waves.beats) > 0).all() and ((waves.beats >= 0) & (waves.beats < n)).all()
    assert set(m) <= KEYS and all(np.isfinite(v) for v in m.values())
    for name in WAVES:
        at = getattr(waves, name)
        assert at.shape == waves.beats.shape and (np.isnan(at) | (at > -n) & (at < 2 * n)).all()
    order = np.stack([getattr(waves, name) for name in WAVES])
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 4)):
        assert not (order[a] > order[b]).any()
    assert waves.median is not None or np.isnan(order).all()
    again = delineate(record)
    assert all(np.array_equal(getattr(again, name), getattr(waves, name), equal_nan=True) for name in WAVES)


def test_any_sampling_rate_gives_the_same():
    record, m = next((r, m) for r, m in measured() if len(m) == len(KEYS))
    coarse = measure(with_signal(record, record.signal[:, ::2], 250.0))
    for key in ("rate_bpm", "qrs_ms", "qrs_axis_deg", "r_V5_mv"):
        assert coarse[key] == pytest.approx(m[key], rel=0.1, abs=6)
    assert measure(record) == m


def test_no_pr_in_atrial_fibrillation():
    assert not any("pr_ms" in measure(simulate(seed, ["AFIB"])) for seed in range(20))
    flutter = [seed for seed in range(20) if "pr_ms" in measure(simulate(seed, ["AFLT"]))]
    assert len(flutter) <= 8  # two waves to a beat, one of them within T, cannot be told from a P


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


def test_rate_is_told_only_where_one_number_describes_it():
    assert steady_rate([0.0, 0.8, 1.6, 2.4]) == pytest.approx(75)
    assert steady_rate([0.0, 0.5, 2.0, 2.5]) is None  # bigeminy
    assert steady_rate([0.0, 0.8]) is None and steady_rate([]) is None
    assert steady_rate([1.0, 1.0, 1.0]) is None


def test_the_simulator_tells_what_it_made():
    for record, _ in measured():
        assert record.measured_by == "simulated" and set(record.measurements) <= KEYS
    assert "pr_ms" not in simulate(1, ["AFIB"]).measurements and "pr_ms" not in simulate(1, ["2AVB"]).measurements
    assert simulate(1, ["1AVB"]).measurements["pr_ms"] > 200 and simulate(1, ["CLBBB"]).measurements["qrs_ms"] >= 120
    assert "qrs_ms" not in simulate(1, ["PACE"]).measurements
    for code, low, high in (("STACH", 100, 170), ("SBRAD", 30, 60)):
        assert low < simulate(2, [code]).measurements["rate_bpm"] < high


def test_telling_does_not_change_the_waveform():
    """The checksum of these records, so that a change of the simulator's numbers is meant; rounded, as platforms differ
    in bits."""
    digest = hashlib.sha256()
    for seed, code in enumerate(("SR", "AFIB", "CLBBB", "IMI", "PACE")):
        digest.update(np.round(simulate(seed, [code]).signal.astype(np.float64), 3).tobytes())
    assert digest.hexdigest()[:16] == "e2cd2366aa67b59b"


@pytest.mark.parametrize(("layout", "columns"), [("3x4+1R", 4), ("3x4", 4), ("6x2", 2)])
def test_a_page_is_measured_like_the_whole_record(layout, columns):
    """Each lead is there for its column's time alone, as on a page."""
    within = {"rate_bpm": 3, "pr_ms": 15, "qrs_ms": 12, "qt_ms": 15, "qrs_axis_deg": 10}
    measured = Counter()
    for seed in range(12):
        record = simulate(seed, ["SR"])
        page = in_columns(record.signal, columns)
        if layout.endswith("1R"):
            page[LEADS.index("II")] = record.lead("II")
        whole, values = measure(record), measure_page(with_signal(record, page))
        for key in whole.keys() & values.keys() & within.keys():
            measured[key] += abs(whole[key] - values[key]) <= within[key]
    assert measured["rate_bpm"] >= 11 and measured["qrs_ms"] >= 10 and measured["qt_ms"] >= 7, measured
    assert measured["pr_ms"] >= 5 and measured["qrs_axis_deg"] >= 9, measured


def test_the_beats_of_a_page_are_those_of_all_its_leads():
    """No QRS of its strip stands out of the flutter there."""
    record = simulate(5, ["SR"])
    page = in_columns(record.signal, 4)
    page[1] = 0.2 * np.sin(np.arange(5000) / 500 * 2 * np.pi * 6) + 0.04 * record.signal[1]
    assert measure_page(with_signal(record, page))["rate_bpm"] == pytest.approx(measure(record)["rate_bpm"], abs=3)


def test_no_rate_of_a_page_without_a_strip_whose_beats_are_not_even():
    """No median of parts stands for a pause."""
    record = drawn_beats()
    page = record.signal.copy()
    page[:, 1100:2200] = page[:, :1]
    assert "rate_bpm" not in measure_page(with_signal(record, in_columns(page, 2)))


def test_no_pr_in_atrial_fibrillation_on_a_page_either():
    for seed in range(10):
        record = simulate(seed, ["AFIB"])
        assert "pr_ms" not in measure_page(with_signal(record, in_columns(record.signal, 2)))
