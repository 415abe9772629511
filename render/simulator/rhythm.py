"""Rhythm: when the atria and the ventricles fire, and which kind of beat each is.

A rhythm does not depend on the shape of a beat: it consists of onsets in seconds with the kind of each beat.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import accumulate

from render.simulator.dipoles import clip
from render.simulator.rng import BufferedRng

LENGTH_S = 10.0
_LEAD_IN_S = 1.5  # beats start before the record, so that it can begin at any point of a cycle


@dataclass
class Rhythm:
    """The onsets of one record.

    Attributes:
        atria: (seconds, kind). Atrial kinds: "p", "p1", "p2" (foci), "retro". Ventricular kinds: "normal", "pvc",
            "pvc1" (foci), "aberrant", "escape", "paced".
        ventricles: (seconds, kind). Atrial kinds: "p", "p1", "p2" (foci), "retro". Ventricular kinds: "normal",
            "pvc", "pvc1" (foci), "aberrant", "escape", "paced".
        spikes: seconds of pacing stimuli. pr_ms: PR interval of conducted sinus beats, 0 where there is none.
        rate: mean ventricular rate of the basic rhythm per minute.
    """

    atria: list[tuple[float, str]] = field(default_factory=list)
    ventricles: list[tuple[float, str]] = field(default_factory=list)
    spikes: list[float] = field(default_factory=list)
    pr_ms: float = 0.0
    rate: float = 0.0
    atrial_rate: float = 0.0
    flutter_phase: float = 0.0
    spike_mv: float = 0.0


def rhythm(findings: Collection[str], age: float, rng: BufferedRng) -> Rhythm:
    """The onsets for a set of SCP codes without contradictions."""
    if "PACE" in findings:
        return _pacing(findings, rng)
    if "AFIB" in findings:
        return _add_ectopics(_fibrillation(findings, rng), findings, rng)
    if "AFLT" in findings:
        return _flutter(rng)
    if "SVTAC" in findings:
        return _supraventricular_tachycardia(findings, age, rng)
    if "3AVB" in findings:
        return _complete_block(findings, rng)
    timing = _sinus(findings, age, rng)
    if "2AVB" in findings:
        return _second_degree_block(timing, rng)
    return _add_ectopics(timing, findings, rng)


def sinus_rate(findings: Collection[str], rng: BufferedRng) -> float:
    """Beats per minute: sinus bradycardia < 60 <= sinus rhythm <= 100 < sinus tachycardia (AHA/ACC/HRS 2007)."""
    if "STACH" in findings:
        return 101 + rng.gamma(1.0, 9.0) if rng.random() < 0.9 else rng.uniform(115, 150)
    if "SBRAD" in findings:
        return 58.3 - min(rng.gamma(2.2, 4.0), 21)
    if "2AVB" in findings or "3AVB" in findings:
        return rng.uniform(66, 98)
    return clip(rng.normal(72, 12), 60.8, 98)


def _pr(findings: Collection[str], rate: float, age: float, rng: BufferedRng) -> float:
    """PR in ms: 120-200 normally, > 200 in first degree block, < 120 with preexcitation."""
    if "WPW" in findings:
        return rng.uniform(75, 112)
    if "1AVB" in findings or "LPR" in findings:
        longest = max(225.0, min(360.0, 60000 / rate * 0.45))
        return clip(212 + rng.gamma(1.4, 26), 212, longest)
    return clip(rng.normal(150 + 0.25 * age - 0.25 * (rate - 70), 17), 126, 190)


def _intervals(rate: float, count: int, findings: Collection[str], age: float, rng: BufferedRng) -> list[float]:
    """RR intervals in s: a mean with respiratory and slower modulation (bands of the 1996 HRV Task Force)."""
    mean = 60.0 / rate
    irregular = "SARRH" in findings
    breath, slow = rng.uniform(0.17, 0.36), rng.uniform(0.06, 0.12)
    first, second = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    # respiratory arrhythmia decreases with age and with a fast rate
    depth = rng.uniform(0.004, 0.028) * clip(1.4 - age / 80, 0.25, 1.2) * min(1.0, mean / 0.8)
    if irregular:
        depth = rng.uniform(0.10, 0.20)
    other = rng.uniform(0.003, 0.010)
    most = 9.0 if irregular else 0.04  # sinus rhythm varies by less than 10 %
    jitter = 0.012 if irregular else 0.003
    intervals = []
    for i, chance in enumerate(rng.normals(count)):
        turn = 2 * math.pi * i * mean
        wave = depth * math.sin(breath * turn + first) + other * math.sin(slow * turn + second)
        intervals.append(mean * (1 + clip(wave, -most, most) + jitter * chance))
    return intervals


_FOCI = {"p": 0.0, "p1": -25.0, "p2": 22.0}  # ms that a focus adds to the conduction time


def _sinus(findings: Collection[str], age: float, rng: BufferedRng) -> Rhythm:
    foci: tuple[str, ...] = ("p",)
    if "SVARR" in findings:  # a wandering pacemaker, or one atrial focus outside the sinus node
        foci = tuple(_FOCI) if rng.random() < 0.5 else (rng.choice(("p1", "p2")),)
    wandering = len(foci) > 1
    rate = rng.uniform(52, 108) if "SVARR" in findings else sinus_rate(findings, rng)
    pr = _pr(findings, rate, age, rng)
    spare = 1.3 if {"SVARR", "SARRH", "PAC"} & set(findings) else 1.1  # for early beats
    count = int((LENGTH_S + 2 * _LEAD_IN_S) * rate / 60 * spare) + 4
    intervals = _intervals(rate, count, findings, age, rng)
    if wandering:
        intervals = [interval * rng.uniform(0.82, 1.2) for interval in intervals]
    timing = Rhythm(pr_ms=pr, rate=rate, atrial_rate=rate)
    onset = -_LEAD_IN_S + rng.uniform(0, 60 / rate)
    for interval in intervals:
        onset += interval
        focus = rng.choice(foci)
        conduction = pr + _FOCI[focus] + rng.normal(0, 1.5)
        timing.atria.append((onset, focus))
        timing.ventricles.append((onset + conduction / 1000, "normal"))
    return timing


def _fibrillation(findings: Collection[str], rng: BufferedRng) -> Rhythm:
    """Irregularly irregular: independent RR that vary by 16-30 %, at least as long as the refractory time."""
    rate = clip(rng.normal(92, 24), 48, 165)
    mean = 60 / rate
    variation = rng.uniform(0.16, 0.30)
    count = int((LENGTH_S + 2 * _LEAD_IN_S) / mean * 1.5) + 6
    shape = 1 / variation**2
    intervals = rng.bulk.gamma(shape, mean / shape, count).clip(min=0.31).tolist()
    return Rhythm(ventricles=[(t - _LEAD_IN_S, "normal") for t in accumulate(intervals)], rate=rate)


def _flutter(rng: BufferedRng) -> Rhythm:
    """Flutter waves at 240-335/min, conducted 2:1, 3:1, 4:1 or variably."""
    atrial = rng.uniform(240, 335)
    cycle = 60 / atrial
    ratio = rng.weighted_choice((2, 3, 4, 0), (0.35, 0.5, 0.8, 1.0))
    t = -_LEAD_IN_S + rng.uniform(0, cycle)
    timing = Rhythm(atrial_rate=atrial, flutter_phase=t)
    while t < LENGTH_S + 0.5:
        timing.ventricles.append((t + 0.10 + rng.normal(0, 0.003), "normal"))
        t += cycle * (ratio or rng.weighted_choice((2, 3, 4), (0.4, 0.65, 1.0)))
    timing.rate = _mean_rate(timing.ventricles)
    return timing


def _mean_rate(ventricles: list[tuple[float, str]]) -> float:
    return 60 * (len(ventricles) - 1) / (ventricles[-1][0] - ventricles[0][0])


def _supraventricular_tachycardia(findings: Collection[str], age: float, rng: BufferedRng) -> Rhythm:
    rate = rng.uniform(150, 205)
    cycle = 60 / rate
    onset = rng.uniform(2.5, 6.5) if "PSVT" in findings else -_LEAD_IN_S
    timing = Rhythm(rate=rate)
    starts_late = "PSVT" in findings
    ends = starts_late and rng.random() < 0.5
    before = _sinus((), age, rng) if starts_late else Rhythm()
    stop = onset if ends else LENGTH_S + 1
    begin = -_LEAD_IN_S if ends else onset
    t = begin + rng.uniform(0, cycle)
    retro_ms = rng.uniform(70, 130)
    while t < stop:
        timing.ventricles.append((t, "normal"))
        timing.atria.append((t + retro_ms / 1000, "retro"))
        t += cycle * (1 + rng.normal(0, 0.004))
    gap = 60 / before.rate if starts_late else 0.0
    for (p, kind), (q, name) in zip(before.atria, before.ventricles, strict=True):
        if (ends and p > t + 0.35 * gap) or (not ends and q < begin - 0.25):
            timing.atria.append((p, kind))
            timing.ventricles.append((q, name))
    timing.pr_ms = before.pr_ms if starts_late else 0.0
    return timing


def _complete_block(findings: Collection[str], rng: BufferedRng) -> Rhythm:
    """Complete block: the atria at their own faster rate, an escape rhythm below (narrow 38-54/min, wide 28-42/min)."""
    atrial = rng.uniform(66, 105)
    wide = rng.random() < 0.45
    rate = rng.uniform(28, 42) if wide else rng.uniform(38, 54)
    timing = Rhythm(rate=rate, atrial_rate=0.0 if "AFIB" in findings else atrial)
    if "AFIB" not in findings:
        timing.atria = [(t - _LEAD_IN_S, "p") for t in accumulate(_intervals(atrial, 40, (), 70, rng))]
    first = -2.0 + rng.uniform(0, 60 / rate)
    onsets = [first + i * 60 / rate + 0.006 * chance for i, chance in enumerate(rng.normals(14))]
    timing.ventricles = [(t, "escape" if wide else "normal") for t in onsets]
    return timing


def _second_degree_block(timing: Rhythm, rng: BufferedRng) -> Rhythm:
    """Second degree block: Wenckebach (PR grows until a beat is dropped), Mobitz II (PR constant) or 2:1."""
    form = rng.weighted_choice(("wenckebach", "mobitz", "2:1"), (0.5, 0.7, 1.0))
    group = 2 if form == "2:1" else 3 + rng.below(2)
    phase = rng.below(group)
    base = timing.pr_ms + rng.uniform(0, 40)
    ventricles = []
    for i, (p, _) in enumerate(timing.atria):
        place = (i + phase) % group
        if place == group - 1:
            continue
        growth = 0.0 if form != "wenckebach" else (0, 70, 100)[place] * rng.uniform(0.95, 1.05)
        ventricles.append((p + (base + growth) / 1000, "normal"))
    timing.ventricles = ventricles
    timing.pr_ms = base
    timing.rate = _mean_rate(ventricles)
    return timing


def _pacing(findings: Collection[str], rng: BufferedRng) -> Rhythm:
    rate = clip(rng.normal(70, 7), 50, 95)
    timing = Rhythm(rate=rate, spike_mv=rng.choice((-1, 1)) * rng.uniform(0.15, 1.2))
    atrial = rng.random() < 0.35
    av = rng.uniform(0.14, 0.20)
    t = -_LEAD_IN_S + rng.uniform(0, 60 / rate)
    while t < LENGTH_S + 0.5:
        if atrial:
            timing.spikes.append(t)
            timing.atria.append((t + 0.015, "p"))
        timing.spikes.append(t + av)
        timing.ventricles.append((t + av + 0.004, "paced"))
        t += 60 / rate
    return timing


def _add_ectopics(timing: Rhythm, findings: Collection[str], rng: BufferedRng) -> Rhythm:
    """Replace basic beats by early ones: ventricular (compensatory pause) or atrial (the sinus node is reset)."""
    kinds = [code for code in ("PVC", "PAC") if code in findings]
    if not kinds:
        return timing
    inside = [i for i, (t, _) in enumerate(timing.ventricles) if 0.9 < t < LENGTH_S - 0.9]
    if "BIGU" in findings or "TRIGU" in findings:
        every = 2 if "BIGU" in findings else 3
        first = 1 + rng.below(every)
        ectopics = dict.fromkeys(range(first, len(timing.ventricles), every), kinds[0])
        singles = kinds[1:]
    else:
        ectopics, singles = {}, kinds
    for kind in singles:
        free = [i for i in inside if not {i - 1, i, i + 1} & set(ectopics)]
        for _ in range(rng.weighted_choice((1, 2, 3), (0.6, 0.88, 1.0))):
            if not free:
                break
            i = rng.choice(free)
            ectopics[i] = kind
            free = [j for j in free if abs(j - i) > 1]
    return _insert_ectopics(timing, ectopics, rng)


def _insert_ectopics(timing: Rhythm, ectopics: dict[int, str], rng: BufferedRng) -> Rhythm:
    early = rng.uniform(0.26, 0.42)  # share of the cycle by which the beat comes early
    polytopic = rng.random() < 0.2
    atria, ventricles = [], []
    shift = 0.0
    for i, (t, kind) in enumerate(timing.ventricles):
        previous = timing.ventricles[i - 1][0] if i else t - 60 / timing.rate
        cycle = t - previous
        p = timing.atria[i] if timing.atria else None
        ectopic = ectopics.get(i)
        advance = cycle * (early + rng.normal(0, 0.012))
        advance = min(advance, cycle - 0.36) if cycle > 0.42 else 0.06
        if ectopic == "PVC":
            focus = "pvc1" if polytopic and rng.random() < 0.5 else "pvc"
            ventricles.append((t + shift - advance, focus))
        elif ectopic == "PAC" and p is not None:
            atria.append((p[0] + shift - advance, "p1"))
            ventricles.append((t + shift - advance + 0.012, "aberrant" if rng.random() < 0.12 else kind))
            shift -= advance * 0.8  # the early beat resets the sinus node: the pause is less than compensatory
        else:
            ventricles.append((t + shift, kind))
            if p is not None:
                atria.append((p[0] + shift, p[1]))
    timing.atria, timing.ventricles = atria, ventricles
    return timing
