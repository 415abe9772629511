"""The recorder: electrode noise, baseline wander, muscle, mains, and how electrodes become leads."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from render.jit import jit
from render.simulator.rng import BufferedRng

Samples = NDArray[np.float32]

_FADE = 15.0  # Hz: muscle and electrode noise falls off from here, as in quiet parts of clinical records
_BANDWIDTH = 150.0  # Hz: AHA recommendation for adults' recorders
_MAINS_HZ = 50.0
_ELECTRODES = 9


def electrode_noise(samples: int, rate_hz: float, rng: BufferedRng) -> Samples:
    """(9, samples) mV of RA, LA, LL, V1..V6: muscle, electrode and mains noise and the wandering baseline.

    Levels span clean to bad records; as in PTB-XL's quality columns, about one in seven hums, one in twelve
    drifts and one in thirty has bursts.
    """
    usual = 0.0055 * math.exp(rng.normal(0, 0.55))
    # arms and legs carry more muscle than the chest
    level = [(1.4 if i < 3 else 1.0) * usual * math.exp(0.35 * n) for i, n in enumerate(rng.normals(_ELECTRODES))]
    noise = _coloured(samples, rate_hz, level, rng)
    if rng.random() < 0.03:
        _burst(noise, rate_hz, rng)
    _add_slow(noise, rate_hz, rng)
    return noise


def _coloured(samples: int, rate_hz: float, level: list[float], rng: BufferedRng) -> Samples:
    """(9, samples) noise with the spreads `level` whose amplitude falls as 1/f above 15 Hz, up to 150 Hz.

    The spectrum is drawn from evenly spread bytes: a sample is a sum over a thousand lines of it and so is normal.
    """
    shape = _spectral_shape(samples, rate_hz)
    count = _ELECTRODES * 2 * len(shape)
    dice = rng.bulk.bit_generator.random_raw(-(-count // 8)).view(np.int8)[:count].reshape(_ELECTRODES, -1)
    lines = spectrum(dice, shape, np.array(level, np.float32), samples // 2 + 1)
    return np.asarray(np.fft.irfft(lines.view(np.complex64), samples, axis=1), dtype=np.float32)


@lru_cache(maxsize=4)
def _spectral_shape(samples: int, rate_hz: float) -> Samples:
    """(m,) what the spectrum's lines below 150 Hz, drawn as bytes, have to be multiplied with for noise of unit
    spread."""
    f = np.arange(math.ceil(_BANDWIDTH * samples / rate_hz)) * (rate_hz / samples)
    shape = (f > 4) / (1 + (f / _FADE))
    bytes_spread = math.sqrt((256**2 - 1) / 12)
    return np.asarray(shape * samples / (2 * math.sqrt(float(shape @ shape)) * bytes_spread), dtype=np.float32)


@jit
def spectrum(dice, shape, level, count):  # type: ignore[no-untyped-def]  # numba infers these
    """(rows, 2 * count) float32, real and imaginary parts in turn: int8 dice (rows, 2 * m) times shape (m,) and
    level (rows,), then zeros."""
    lines = np.zeros((dice.shape[0], 2 * count), np.float32)
    half = np.float32(0.5)  # a byte's mean is -0.5
    for r in range(dice.shape[0]):
        for i in range(shape.size):
            size = level[r] * shape[i]
            lines[r, 2 * i] = (np.float32(dice[r, 2 * i]) + half) * size
            lines[r, 2 * i + 1] = (np.float32(dice[r, 2 * i + 1]) + half) * size
    return lines


def _burst(noise: Samples, rate_hz: float, rng: BufferedRng) -> None:
    """Make part of the record several times noisier on some electrodes: a movement."""
    start = int(rng.uniform(0, 8.5) * rate_hz)
    length = int(rng.uniform(0.4, 2.5) * rate_hz)
    touched = rng.bulk.random(_ELECTRODES) < 0.4
    noise[touched, start : start + length] *= rng.uniform(3, 7)


def _add_slow(noise: Samples, rate_hz: float, rng: BufferedRng) -> None:
    """Add breathing and slow drifts of the electrodes, mostly below 0.5 Hz, sometimes with a step, and the mains."""
    strong = 2.8 if rng.random() < 0.08 else 1.0
    spread = strong * 0.021 * math.exp(rng.normal(0, 0.5))
    hz = [rng.uniform(0.17, 0.36), rng.uniform(0.03, 0.12), rng.uniform(0.4, 0.7)]
    sizes = np.repeat(np.array([0.8, 1.2, 0.25]) * spread, 2)
    heights = np.array(rng.normals(6 * _ELECTRODES)).reshape(_ELECTRODES, 6) * sizes
    if rng.random() < 0.15:
        phase, strength = rng.uniform(0, 6.28), float(rng.bulk.exponential(0.006))
        hum = np.outer(rng.normals(_ELECTRODES), [strength * math.sin(phase), strength * math.cos(phase)])
        hz, heights = [*hz, _MAINS_HZ], np.concatenate([heights, hum], axis=1)
    add_oscillations(noise, np.array(hz) / rate_hz, heights)
    if rng.random() < 0.04:
        moved, when = rng.below(_ELECTRODES), rng.uniform(1, 9)
        t = np.arange(noise.shape[1]) / rate_hz
        noise[moved] += rng.normal(0, 0.25) / (1 + np.exp(-(t - when) / 0.05))


_FINE = 64  # samples of a block in which only the fine steps of a turn differ


@jit
def add_oscillations(rows, turns, heights):  # type: ignore[no-untyped-def]
    """Add to each row the cosine and sine of every turn, in whole turns a sample, with the heights (rows, 2 * turns).

    A block's cosines and sines follow from those of its first sample by the addition theorem.
    """
    n = rows.shape[1]
    fine = np.empty((2 * turns.size, _FINE), np.float32)
    for k in range(turns.size):
        for i in range(_FINE):
            angle = 2.0 * math.pi * turns[k] * i
            fine[2 * k, i], fine[2 * k + 1, i] = math.cos(angle), math.sin(angle)
    for start in range(0, n, _FINE):
        for k in range(turns.size):
            angle = 2.0 * math.pi * ((turns[k] * start) % 1.0)
            c, s = math.cos(angle), math.sin(angle)
            even, odd = fine[2 * k], fine[2 * k + 1]
            for r in range(rows.shape[0]):
                a, b = heights[r, 2 * k], heights[r, 2 * k + 1]
                p, q = np.float32(a * c + b * s), np.float32(b * c - a * s)
                row = rows[r, start : start + _FINE]
                for i in range(row.size):
                    row[i] += p * even[i] + q * odd[i]


@jit
def twelve_leads(heart, electrodes):  # type: ignore[no-untyped-def]
    """(12, n) float32 mV in the order of `LEADS`: the heart's field and what the electrodes add.

    heart: (8, n) float32 V1..V6, I, II. electrodes: (9, n) float32 RA, LA, LL, V1..V6, which become leads against
    Wilson's central terminal. The other four leads follow from I and II, so that Einthoven's and Goldberger's laws
    hold to rounding.
    """
    n, half, third = heart.shape[1], np.float32(0.5), np.float32(1 / 3)
    leads = np.empty((12, n), np.float32)
    ra, la, ll = electrodes[0], electrodes[1], electrodes[2]
    for i in range(n):
        one, two = heart[6, i] + (la[i] - ra[i]), heart[7, i] + (ll[i] - ra[i])
        leads[0, i], leads[1, i], leads[2, i] = one, two, two - one
        leads[3, i], leads[4, i], leads[5, i] = -half * (one + two), one - half * two, two - half * one
    for k in range(6):
        for i in range(n):
            leads[6 + k, i] = heart[k, i] + (electrodes[3 + k, i] - third * (ra[i] + la[i] + ll[i]))
    return leads
