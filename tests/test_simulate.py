"""The simulator: physics to rounding, the same bytes from the same seed, and every criterion checked on the waveform.

The measurements here do not use the simulator's parameters: they detect beats in the noisy signal and measure the
median beat.
"""

from __future__ import annotations

import csv
import pickle
from collections import Counter
from functools import cache
from importlib.resources import files
from itertools import combinations, pairwise

import numpy as np
import pytest

from render.errors import InputError
from render.record import HIGH_RATE_HZ, LEADS, EcgRecord
from render.simulator.criteria import SimulatedBeat
from render.simulator.dipoles import (
    DOWER,
    STEP_MS,
    Wave,
    frontal_axis,
    project_leads,
    rotate_to_axis,
    sample_person,
    superpose,
    wave_table,
)
from render.simulator.electrodes import add_oscillations, electrode_noise
from render.simulator.findings import compatible, sample_findings
from render.simulator.rng import BufferedRng
from render.simulator.simulate import SIMULATED_STATEMENTS, SimulatedSource, simulate

BEFORE = 180  # samples of a median beat before its fiducial point
SEEDS = range(32, 40)


@cache
def record(code: str, seed: int) -> EcgRecord:
    return simulate(seed, code.split("+"))


def beats_of(signal: np.ndarray) -> np.ndarray:
    """Sample numbers of the QRS complexes: peaks of the smoothed slope over all leads."""
    slope = np.abs(signal[:, 6:] - signal[:, :-6]).sum(0)
    energy = np.convolve(slope, np.ones(40) / 40, "same")
    limit = 0.35 * np.percentile(energy, 99)
    peaks: list[int] = []
    for i in np.flatnonzero(energy > limit).tolist():
        if peaks and i - peaks[-1] < 125:
            if energy[i] > energy[peaks[-1]]:
                peaks[-1] = i
        else:
            peaks.append(int(i))
    # a weaker peak soon after another is the T wave of a wide QRS
    steep = [0 < i - j < 175 and energy[i] < 0.65 * energy[j] for j, i in pairwise([0, *peaks])]
    return np.array([i for i, t_wave in zip(peaks, steep, strict=True) if not t_wave])


def _best_shift(signal: np.ndarray, beat: int, median: np.ndarray) -> int:
    part = median[:, 120:240]
    return min(range(-12, 13), key=lambda s: np.abs(signal[:, beat - 60 + s : beat + 60 + s] - part).sum())


class Ruler:
    """The median beat of a record and its measurements in mV and ms."""

    def __init__(self, ecg: EcgRecord) -> None:
        signal = ecg.signal.astype(float)
        self.beats = beats_of(signal)
        self.rr = np.diff(self.beats) / HIGH_RATE_HZ
        inside = [b for b in self.beats if BEFORE < b < signal.shape[1] - 300]
        stack = np.stack([signal[:, b - BEFORE : b + 300] for b in inside])
        median = np.median(stack, axis=0)
        shifts = [_best_shift(signal, b, median) for b in inside]
        starts = [b + s - BEFORE for b, s in zip(inside, shifts, strict=True)]
        stack = np.stack([signal[:, i : i + BEFORE + 300] for i in starts if 0 <= i <= signal.shape[1] - BEFORE - 300])
        self.mean = np.median(stack, axis=0)
        slope = np.convolve(np.abs(self.mean[:, 3:] - self.mean[:, :-3]).max(0) / 3, np.ones(5) / 5, "same")
        limit = max(0.05 * slope[120:260].max() + 0.003, 2.2 * float(np.percentile(slope, 35)))
        top = 120 + int(np.argmax(slope[120:260]))
        self.on, self.off = top, top
        while slope[self.on - 8 : self.on].max() > limit and self.on > 90:
            self.on -= 1
        while slope[self.off : self.off + 5].max() > limit and self.off < 330:
            self.off += 1
        self.mean = self.mean - np.median(self.mean[:, self.on - 10 : self.on - 2], axis=1, keepdims=True)

    def lead(self, name: str) -> np.ndarray:
        return self.mean[LEADS.index(name)]

    def qrs(self, name: str) -> np.ndarray:
        return self.lead(name)[self.on : self.off]

    @property
    def rate(self) -> float:
        return 60 / float(np.mean(self.rr))

    @property
    def qrs_ms(self) -> float:
        return (self.off - self.on) * 2.0

    def r(self, name: str) -> float:
        return max(0.0, float(self.qrs(name).max()))

    def s(self, name: str) -> float:
        return max(0.0, -float(self.qrs(name).min()))

    def st(self, name: str) -> float:
        return float(np.median(self.lead(name)[self.off + 20 : self.off + 32]))

    def t(self, name: str) -> float:
        end = min(self.mean.shape[1], self.off + int(0.32 * HIGH_RATE_HZ * np.sqrt(np.median(self.rr))))
        part = self.lead(name)[self.off + 40 : end]
        return float(part[np.argmax(np.abs(part))])

    @property
    def axis(self) -> float:
        i, avf = self.qrs("I").sum(), self.qrs("aVF").sum()
        return float(np.degrees(np.arctan2(avf * 2 / np.sqrt(3), i)))

    @property
    def pr_ms(self) -> float:
        """From the foot of the P wave in II to the onset of the QRS."""
        ii = self.lead("II")
        window = ii[max(0, self.on - 170) : self.on - 15]
        peak = max(0, self.on - 170) + int(np.argmax(window))
        foot = peak
        while foot > 0 and ii[foot] > 0.25 * ii[peak]:
            foot -= 1
        return (self.on - foot) * 2.0

    def q_ms(self, name: str, depth: float = 0.08) -> float:
        """Width of a first negative deflection."""
        qrs = np.convolve(self.lead(name), np.ones(5) / 5, "same")[self.on - 2 : self.off + 2]  # against noise
        below = np.flatnonzero(qrs < -0.025)
        if not len(below) or qrs[: below[0] + 1].max() > 0.06:
            return 0.0
        up = np.flatnonzero(qrs[below[0] :] > -0.02)
        width = int(up[0]) if len(up) else len(qrs) - int(below[0])
        return width * 2.0 if -qrs[below[0] : below[0] + width].min() >= depth else 0.0


@cache
def ruler(code: str, seed: int) -> Ruler:
    return Ruler(record(code, seed))


def share(code: str, test, seeds=SEEDS) -> float:
    """The share of records of a code that pass a test of their ruler."""
    return float(np.mean([bool(test(ruler(code, seed))) for seed in seeds]))


def median(code: str, measure, seeds=SEEDS) -> float:
    return float(np.median([measure(ruler(code, seed)) for seed in seeds]))


# ---------------------------------------------------------------- physics, determinism, interface


def test_limb_leads_obey_einthoven_and_goldberger() -> None:
    source = SimulatedSource(3, 30)
    for i in range(30):
        lead = source.read(i).lead
        one, two = lead("I").astype(float), lead("II").astype(float)
        for name, derivation in (
            ("III", two - one), ("aVR", -(one + two) / 2), ("aVL", one - two / 2), ("aVF", two - one / 2)
        ):  # fmt: skip
            assert np.abs(lead(name) - derivation).max() < 2e-6, name


def test_record_has_the_documented_shape_and_fields() -> None:
    ecg = SimulatedSource(4, 9).read(7)
    assert ecg.signal.shape == (12, 5000) and ecg.signal.dtype == np.float32 and ecg.sampling_rate == 500
    assert ecg.source == ecg.provenance == "simulated" and ecg.fold is None
    assert ecg.record_id == ecg.patient_id == "sim-4-7"
    assert ecg.sex in ("male", "female") and ecg.age is not None and 18 <= ecg.age <= 95
    assert ecg.report.endswith(".") and not ecg.dead_leads()


def test_same_seed_same_bytes_and_other_seed_other_bytes() -> None:
    assert simulate(5).signal.tobytes() == simulate(5).signal.tobytes()
    assert simulate(5, ["IMI", "AFIB"]).signal.tobytes() == simulate(5, ["AFIB", "IMI"]).signal.tobytes()
    assert simulate(5).signal.tobytes() != simulate(6).signal.tobytes()


def test_a_record_depends_on_seed_and_number_alone() -> None:
    source = SimulatedSource(1, 50)
    copy = pickle.loads(pickle.dumps(SimulatedSource(1, 10)))
    for i in (9, 0, 4):
        assert source.read(i).signal.tobytes() == copy.read(i).signal.tobytes()
        assert source.read(i).statements == copy.read(i).statements
    assert len(copy) == 10 and copy.name == "simulated"
    with pytest.raises(IndexError):
        copy.read(10)


@pytest.mark.parametrize(
    "pair",
    [
        "NORM+LVH",
        "AFIB+SR",
        "AFIB+1AVB",
        "CLBBB+CRBBB",
        "CRBBB+IRBBB",
        "3AVB+2AVB",
        "LAFB+LPFB",
        "LVOLT+LVH",
        "CLBBB+IMI",
        "BIGU+PACE",
        "SBRAD+STACH",
    ],
)
def test_contradictions_are_refused_in_one_line(pair: str) -> None:
    codes = pair.split("+")
    with pytest.raises(InputError, match=f"(?s){codes[0]}.*{codes[1]}|{codes[1]}.*{codes[0]}") as error:
        simulate(0, codes)
    assert "\n" not in str(error.value)


def test_unknown_codes_and_bad_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="XYZ"):
        simulate(0, ["XYZ"])
    with pytest.raises(InputError, match="-1"):
        simulate(-1)
    with pytest.raises(InputError, match="-2"):
        SimulatedSource(0, -2)


# ---------------------------------------------------------------- the compiled loops against plain numpy


def some_waves(seed: int, count: int = 6) -> list[Wave]:
    """Waves of random times, of which some have no plateau and some begin before or end after the window."""
    random = np.random.default_rng(seed)
    waves = []
    for k in range(count):
        times = np.sort(random.uniform(0, 420, 4)) if k else np.array([-30.0, 40.0, 60.0, 500.0])
        times[2] = times[1] if k % 3 == 1 else times[2]
        gain = tuple(random.uniform(0.5, 1.5, 8).tolist())
        waves.append(Wave("abcdef"[k], tuple(times.tolist()), tuple(random.normal(size=3).tolist()), gain))
    return waves


def numpy_leads(waves: list[Wave], width: int) -> np.ndarray:
    """(8, width) of the waves: products of half cosines of time, through Dower's transform."""
    t = np.arange(width) * STEP_MS
    leads = np.zeros((8, width))
    for wave in waves:
        start, full, hold, end = wave.times
        rise = np.clip((t - start) / max(full - start, 1e-3), 0, 1)
        fall = np.clip((t - hold) / max(end - hold, 1e-3), 0, 1)
        course = 0.25 * (1 - np.cos(np.pi * rise)) * (1 + np.cos(np.pi * fall))
        leads += np.outer(DOWER @ wave.vector * wave.gain, course)
    return leads


@pytest.mark.parametrize("seed", range(6))
def test_waves_become_leads_as_the_formula_says(seed: int) -> None:
    waves = some_waves(seed)
    reference = numpy_leads(waves, 180)
    leads = project_leads(waves, 180)
    assert np.abs(leads[[6, 7, 8, 9, 10, 11, 0, 1]] - reference).max() < 1e-9
    assert np.abs(leads[3] + leads[4] + leads[5]).max() < 1e-12 and np.allclose(leads[2], leads[1] - leads[0])
    weights = np.random.default_rng(seed).normal(size=(4, len(waves)))
    for row, sums in zip(weights, superpose(wave_table(waves), weights, 180), strict=True):
        scales = [wave.scale(float(w)) for wave, w in zip(waves, row, strict=True)]
        assert np.abs(sums - numpy_leads(scales, 180)).max() < 1e-5


@pytest.mark.parametrize("target", [-170.0, -60.0, 0.0, 45.0, 120.0])
def test_the_axis_is_turned_exactly_or_as_near_as_it_goes(target: float) -> None:
    waves = some_waves(3)
    assert abs((frontal_axis(rotate_to_axis(waves, target)) - target + 180) % 360 - 180) < 1e-6
    heavy = [*waves, Wave("heavy", (0.0, 200.0, 200.0, 400.0), (9.0, 0.0, 0.0), (1.0,) * 8)]  # outweighs the rest

    def miss(rotation: list[Wave]) -> float:
        return abs((frontal_axis(rotation) - target + 180) % 360 - 180)

    angles = np.radians(np.arange(0.0, 360.0))
    every = [[*(w.rotate(np.cos(a), np.sin(a)) for w in waves), heavy[-1]] for a in angles]
    assert miss(rotate_to_axis(heavy, target, keep=("heavy",))) <= min(map(miss, every)) + 0.5


def test_q_is_an_initial_negative_deflection() -> None:
    beat = SimulatedBeat([], 60, 400)
    beat.leads = np.zeros((12, 202))
    beat.leads[0, 3:20] = -0.15  # q of 34 ms
    beat.leads[1, 3:20], beat.leads[1, 1] = -0.15, 0.05  # r before: an S
    beat.leads[2, :] = -0.15  # QS
    assert [beat.q_ms(n) for n in ("I", "II", "III")] == [34, 0, 62] and beat.q_ms("I", 0.2) == 0
    assert beat.s("II") == 0.15 and beat.r("II") == 0.05 and beat.pathological_q is False


def test_oscillations_are_sines_and_cosines() -> None:
    rows, turns = np.zeros((2, 1003), np.float32), np.array([0.1, 0.0007])
    heights = np.array([[1.0, 0.5, -2.0, 0.0], [0.0, 1.0, 0.3, 1.5]])
    add_oscillations(rows, turns, heights)
    angle = 2 * np.pi * turns[:, None] * np.arange(1003)
    basis = np.stack([np.cos(angle[0]), np.sin(angle[0]), np.cos(angle[1]), np.sin(angle[1])])
    assert np.abs(rows - heights @ basis).max() < 1e-5


def test_noise_has_the_documented_spectrum_and_is_normal() -> None:
    noise = np.concatenate([electrode_noise(5000, 500, BufferedRng(1, i)) for i in range(40)]).astype(float)
    power = np.abs(np.fft.rfft(noise / noise.std(1, keepdims=True) * np.hanning(5000))) ** 2
    hz = np.fft.rfftfreq(5000, 1 / 500)
    low, high, over = (np.median(power[:, (hz > a) & (hz < b)]) for a, b in ((14, 16), (58, 62), (160, 240)))
    assert low / high == pytest.approx((1 + 60 / 15) ** 2 / (1 + 15 / 15) ** 2, rel=0.15) and over < 0.01 * high
    quick = np.diff(noise, axis=1)
    fourth = np.median((quick**4).mean(1) / (quick**2).mean(1) ** 2)
    assert fourth == pytest.approx(3, abs=0.1)


def test_random_numbers_have_their_distributions() -> None:
    rng = BufferedRng(5)
    assert BufferedRng(5).normals(400)[-3:] != BufferedRng(6).normals(400)[-3:]
    uniform = [rng.uniform(2, 4) for _ in range(4000)]
    assert 2 <= min(uniform) < 2.01 < 3.99 < max(uniform) < 4
    normal = [rng.normal(1, 2) for _ in range(4000)] + [1 + 2 * n for _ in range(40) for n in rng.normals(100)]
    assert np.mean(normal) == pytest.approx(1, abs=0.1) and np.std(normal) == pytest.approx(2, abs=0.1)
    counts = Counter(rng.weighted_choice("abc", (0.5, 0.9, 1.0)) for _ in range(4000))
    assert counts["a"] / 4000 == pytest.approx(0.5, abs=0.04) and counts["c"] / 4000 == pytest.approx(0.1, abs=0.03)
    assert {rng.below(3) for _ in range(99)} == {0, 1, 2} and {rng.choice("xy") for _ in range(99)} == {"x", "y"}
    assert sample_person(BufferedRng(7), True, True).gains == sample_person(BufferedRng(7), True, True).gains


# ---------------------------------------------------------------- statements


@pytest.mark.parametrize("code", SIMULATED_STATEMENTS)
def test_every_statement_can_be_simulated(code: str) -> None:
    for seed in (0, 1):
        ecg = record(code, seed)
        assert code in ecg.statements
        assert np.abs(ecg.signal).max() < 12


def test_the_prior_shows_every_statement_often_enough() -> None:
    source = SimulatedSource(10, 10**6)
    counts = Counter(code for i in range(400) for code in source.read(i).statements)
    assert 0.25 < counts["NORM"] / 400 < 0.36
    missing = [code for code in SIMULATED_STATEMENTS if counts[code] < 2]
    assert not missing, missing


def test_statements_occur_together_as_in_the_table() -> None:
    with (files("render.simulator") / "cooccurrence.csv").open(encoding="utf-8") as file:
        counts = {(row["a"], row["b"]): int(row["records"]) for row in csv.DictReader(file)}
    records = [sample_findings(BufferedRng(12, i)) for i in range(12_000)]
    alone = Counter(code for codes in records for code in codes)
    both = Counter(pair for codes in records for pair in combinations(sorted(codes), 2))
    lifts = []  # how much more often than by chance a pair occurs: in the table, and in samples
    for (a, b), count in counts.items():
        if a != b and count >= 100 and compatible(a, [b]):
            chance = alone[a] * alone[b] / len(records)
            lifts.append((count / counts[a, a] / counts[b, b], (both[min(a, b), max(a, b)] + 1) / (chance + 1)))
    assert len(lifts) > 80
    assert np.corrcoef(np.log(np.array(lifts)).T)[0, 1] > 0.75
    assert all(compatible(code, codes) for codes in records for code in codes)


def test_implied_statements_are_added() -> None:
    assert "SR" in simulate(1, ["IMI"]).statements
    assert "LPR" in simulate(1, ["1AVB"]).statements
    assert "SVTAC" in simulate(1, ["PSVT"]).statements
    assert {"PVC", "PAC"} & set(simulate(1, ["BIGU"]).statements)
    assert "SR" not in simulate(1, ["AFIB"]).statements


def test_report_states_rate_and_pr() -> None:
    ecg = record("1AVB", 2)
    assert f"rate {ruler('1AVB', 2).rate:.0f}"[:-1] in ecg.report  # to the ten
    pr_ms = float(ecg.report.split("PR ")[1].split(" ms")[0])
    assert abs(pr_ms - ruler("1AVB", 2).pr_ms) < 45


# ---------------------------------------------------------------- rhythm


@pytest.mark.parametrize(
    ("code", "low", "high"),
    [("SR", 59, 101), ("STACH", 99, 170), ("SBRAD", 30, 61), ("SVTAC", 140, 220), ("3AVB", 25, 60)],
)
def test_rate_from_r_peaks(code: str, low: float, high: float) -> None:
    # `Ruler` takes the tall T of an escape beat for a beat in about one record of six
    assert share(code, lambda r: low < r.rate < high) >= (6 / 8 if code == "3AVB" else 1)


def test_afib_is_irregular_and_has_no_p_wave() -> None:
    def variation(r: Ruler) -> float:
        return float(np.std(r.rr) / np.mean(r.rr))

    assert share("AFIB", lambda r: variation(r) > 0.09) == 1
    assert share("SR", lambda r: variation(r) < 0.06) == 1
    assert share("SARRH", lambda r: np.ptp(r.rr) > 0.12 or np.ptp(r.rr) > 0.1 * r.rr.mean()) == 1

    def p_height(r: Ruler) -> float:
        return float(np.ptp(r.lead("II")[r.on - 90 : r.on - 20]))

    assert median("AFIB", p_height) < 0.6 * median("SR", p_height)


def test_pr_is_long_in_first_degree_block_and_short_in_preexcitation() -> None:
    assert share("1AVB", lambda r: r.pr_ms > 195) >= 7 / 8
    assert share("NORM", lambda r: 110 < r.pr_ms < 212) >= 7 / 8
    assert median("WPW", lambda r: r.pr_ms) < 125 < median("NORM", lambda r: r.pr_ms)


def test_pvc_is_early_wide_and_followed_by_a_pause() -> None:
    hits = 0
    for seed in SEEDS:
        signal = record("PVC", seed).signal.astype(float)
        r = ruler("PVC", seed)
        usual = np.median(r.rr)
        for i in range(1, len(r.beats) - 1):
            early, late = r.rr[i - 1] / usual, r.rr[i] / usual
            b = r.beats[i]
            if early < 0.88 and late > 1.1 and 120 < b < 4800:
                normal = np.median(
                    [np.abs(np.diff(signal[:, k - 60 : k + 60])).max() for k in r.beats if 60 < k < 4940]
                )
                differs = np.abs(signal[:, b - 60 : b + 60] - r.mean[:, BEFORE - 60 : BEFORE + 60]).max()
                hits += differs > 0.35 and normal > 0
                break
    assert hits >= 6


def test_bigeminy_alternates() -> None:
    def alternates(r: Ruler) -> bool:
        odd, even = np.median(r.rr[::2]), np.median(r.rr[1::2])
        return bool(max(odd, even) / min(odd, even) > 1.15)

    assert share("BIGU", alternates) >= 6 / 8
    assert share("SR", alternates) == 0


def test_dropped_beats_leave_pauses_or_halve_the_rate() -> None:
    assert share("2AVB", lambda r: r.rr.max() > 1.25 * np.median(r.rr) or r.rate < 55) >= 7 / 8


def test_flutter_has_a_line_in_its_spectrum_at_four_to_six_hertz() -> None:
    def tone(code: str, seed: int) -> float:
        aVF = record(code, seed).lead("aVF").astype(float)
        power = np.abs(np.fft.rfft(aVF * np.hanning(5000))) ** 2
        hz = np.fft.rfftfreq(5000, 1 / HIGH_RATE_HZ)
        band = power[(hz > 3.9) & (hz < 5.8)]
        return float(band.max() / np.median(power[(hz > 2) & (hz < 10)]))

    assert np.median([tone("AFLT", s) for s in SEEDS]) > 2 * np.median([tone("AFIB", s) for s in SEEDS])


def test_pacing_spikes_are_there_and_narrow() -> None:
    def spikes(code: str, seed: int) -> int:
        signal = record(code, seed).signal.astype(float)
        second = np.abs(signal[:, :-2] - 2 * signal[:, 1:-1] + signal[:, 2:]).max(0)
        return int((second > 0.3).sum())

    assert np.median([spikes("PACE", s) for s in SEEDS]) >= 8
    assert max(spikes("SR", s) for s in SEEDS) == 0


# ---------------------------------------------------------------- conduction, voltage, infarcts


def test_qrs_width_of_the_bundle_branch_blocks() -> None:
    assert share("CRBBB", lambda r: r.qrs_ms >= 116) == 1
    assert share("CLBBB", lambda r: r.qrs_ms >= 120) == 1
    assert share("IVCD", lambda r: r.qrs_ms > 104) >= 7 / 8
    assert share("NORM", lambda r: r.qrs_ms <= 112) == 1
    assert median("NORM", lambda r: r.qrs_ms) < 100


def test_right_bundle_branch_block_ends_to_the_right_and_front() -> None:
    def shape(r: Ruler) -> bool:
        half = (r.off - r.on) // 2
        return r.qrs("V1")[half:].max() > 0.2 and r.qrs("V6")[half:].min() < -0.08 and r.qrs("I")[half:].min() < -0.05

    assert share("CRBBB", shape) >= 7 / 8
    assert share("NORM", shape) == 0
    assert share("CRBBB", lambda r: r.t("V1") < 0) >= 7 / 8


def test_left_bundle_branch_block_has_no_septal_q_and_discordant_t() -> None:
    assert share("CLBBB", lambda r: r.q_ms("V6") == 0 and r.q_ms("I") == 0) == 1
    assert share("CLBBB", lambda r: r.s("V1") > 1.5 * r.r("V1") and r.r("I") > r.s("I")) == 1
    assert share("CLBBB", lambda r: r.t("V2") > 0.2 and r.st("V2") > 0.05) >= 7 / 8
    assert share("CLBBB", lambda r: r.t("V6") < 0) >= 5 / 8


def test_axis_of_the_fascicular_blocks() -> None:
    assert share("LAFB", lambda r: -92 < r.axis < -42 and r.s("II") > r.r("II") and r.r("aVL") > 0.2) == 1
    assert share("LPFB", lambda r: 87 < r.axis < 180 and r.s("I") > r.r("I")) == 1
    assert share("NORM", lambda r: -33 < r.axis < 93) == 1
    assert share("LAFB", lambda r: r.qrs_ms < 120) == 1


def sokolow(r: Ruler) -> float:
    return r.s("V1") + max(r.r("V5"), r.r("V6"))


def test_voltage_criteria() -> None:
    assert share("LVH", lambda r: sokolow(r) >= 3.4) == 1
    assert share("VCLVH", lambda r: sokolow(r) >= 3.4) == 1
    assert share("NORM", lambda r: sokolow(r) < 3.6) == 1
    assert share("LVOLT", lambda r: max(r.r(n) + r.s(n) for n in LEADS[:6]) < 0.55) == 1
    assert share("NORM", lambda r: max(r.r(n) + r.s(n) for n in LEADS[:6]) > 0.5) == 1
    assert share("RVH", lambda r: r.r("V1") >= 0.65 and r.r("V1") > r.s("V1") and r.axis > 85) >= 7 / 8
    assert share("NORM", lambda r: r.r("V1") < 0.7 or r.r("V1") < r.s("V1")) == 1
    assert share("PMI", lambda r: r.r("V1") > 0.9 * r.s("V1") and r.r("V2") > r.s("V2") * 0.9) == 1


@pytest.mark.parametrize(
    ("code", "leads"),
    [("IMI", ("III", "aVF")), ("ASMI", ("V2", "V3")), ("AMI", ("V3", "V4")), ("LMI", ("I", "aVL")),
     ("ALMI", ("V4", "V5")), ("ILMI", ("III", "aVF", "V6"))],
)  # fmt: skip
def test_q_waves_of_infarcts(code: str, leads: tuple[str, ...]) -> None:
    assert share(code, lambda r: all(r.q_ms(n) >= 26 for n in leads)) >= 7 / 8
    assert share("NORM", lambda r: all(r.q_ms(n, 0.12) >= 32 for n in leads)) == 0


# ---------------------------------------------------------------- atria, ST and T


def test_atrial_enlargement() -> None:
    def p(r: Ruler, name: str) -> np.ndarray:
        return r.lead(name)[r.on - 100 : r.on - 12] - np.median(r.lead(name)[r.on - 12 : r.on - 4])

    assert share("RAO/RAE", lambda r: max(p(r, n).max() for n in ("II", "III", "aVF")) > 0.22) >= 7 / 8
    assert share("NORM", lambda r: p(r, "II").max() < 0.27) == 1
    assert share("LAO/LAE", lambda r: p(r, "V1").min() < -0.08) >= 7 / 8
    assert median("NORM", lambda r: p(r, "V1").min()) > -0.1


@pytest.mark.parametrize(
    ("code", "leads"),
    [("INJAL", ("I", "V4", "V5", "V6")), ("INJAS", ("V1", "V2", "V3")), ("INJIN", ("II", "III", "aVF")),
     ("INJIL", ("II", "aVF", "V6")), ("INJLA", ("I", "aVL", "V6")), ("STD_", LEADS)],
)  # fmt: skip
def test_st_depression(code: str, leads: tuple[str, ...]) -> None:
    assert share(code, lambda r: sum(r.st(n) < -0.07 for n in leads) >= 2) >= 7 / 8
    assert share("NORM", lambda r: sum(r.st(n) < -0.07 for n in leads if n != "aVR") >= 2) == 0


@pytest.mark.parametrize(
    ("code", "leads"),
    [("ISCAL", ("I", "aVL", "V4", "V5", "V6")), ("ISCAN", ("V2", "V3", "V4")), ("ISCAS", ("V1", "V2", "V3")),
     ("ISCIN", ("II", "III", "aVF")), ("ISCIL", ("II", "III", "aVF", "V5", "V6")),
     ("ISCLA", ("I", "aVL", "V5", "V6"))],
)  # fmt: skip
def test_ischaemia_in_its_territory(code: str, leads: tuple[str, ...]) -> None:
    assert share(code, lambda r: sum(r.st(n) < -0.035 or r.t(n) < -0.08 for n in leads) >= 2) >= 7 / 8


def test_t_waves() -> None:
    upright = ("I", "II", "V4", "V5", "V6")
    assert share("NORM", lambda r: all(r.t(n) > 0.07 for n in upright)) >= 7 / 8
    assert (
        share(
            "INVT",
            lambda r: sum(r.t(n) < -0.08 for n in ("I", "II", "aVL", "V2", "V3", "V4", "V5", "V6")) >= 2,
        )
        == 1
    )
    assert share("LOWT", lambda r: sum(abs(r.t(n)) < max(0.13, 0.13 * r.r(n)) for n in upright) >= 3) >= 7 / 8
    assert share("NDT", lambda r: all(r.t(n) > 0.12 for n in (*upright, "aVL"))) == 0
    assert share("STE_", lambda r: max(r.st(n) for n in LEADS) > 0.08) == 1


def test_qt_is_long_with_lngqt() -> None:
    def t_peak(r: Ruler) -> float:  # ms from the QRS to the top of T, Bazett-corrected
        part = np.abs(r.mean[:, r.off + 40 : r.off + 210]).sum(0)
        return (r.off + 40 + int(np.argmax(part)) - r.on) * 2 / float(np.sqrt(np.median(r.rr)))

    assert median("LNGQT", t_peak) > median("NORM", t_peak) + 45
    assert median("DIG", t_peak) < median("NORM", t_peak) + 20


# ---------------------------------------------------------------- variety


def test_records_vary_in_axis_progression_and_noise() -> None:
    axes = [ruler("NORM", s).axis for s in SEEDS]
    assert np.ptp(axes) > 35
    ratio = [ruler("NORM", s).r("V3") / (ruler("NORM", s).s("V3") + 0.05) for s in SEEDS]
    assert max(ratio) > 2.5 * min(ratio)
    hiss = [float(np.abs(np.diff(record("NORM", s).signal, axis=1)).mean()) for s in SEEDS]
    assert max(hiss) > 1.5 * min(hiss)


def test_beats_of_one_record_differ() -> None:
    signal = record("NORM", 1).signal.astype(float)
    peaks = [
        signal[1, b - 40 : b + 40].max() - np.median(signal[1, b - 60 : b + 60]) for b in ruler("NORM", 1).beats[1:-1]
    ]
    assert np.std(peaks) > 0.003
