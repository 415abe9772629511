"""The recorder: electrode noise, baseline wander, muscle noise, mains hum, and leads from electrode potentials."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from render.jit import jit
from render.simulator.rng import BufferedRng

Voltage = NDArray[np.float32]

_FADE = 15.0  # Hz: above it muscle and electrode noise falls off, as in quiet parts of clinical records
_BANDWIDTH = 150.0  # Hz: AHA recommendation for adults' recorders
_MAINS_HZ = 50.0
_ELECTRODES = 9


def electrode_noise(samples: int, rate_hz: float, rng: BufferedRng) -> Voltage:
    """(9, samples) mV of RA, LA, LL, V1..V6: muscle, electrode and mains noise and the wandering baseline.

    Levels range from clean to bad records; as in PTB-XL's quality columns, about one in seven has mains hum, one in
    twelve a strong drift and one in thirty a burst.
    """
    usual = 0.0055 * math.exp(rng.normal(0, 0.55))
    # limb electrodes pick up more muscle noise than the chest
    level = [(1.4 if i < 3 else 1.0) * usual * math.exp(0.35 * n) for i, n in enumerate(rng.normals(_ELECTRODES))]
    noise = _coloured_noise(samples, rate_hz, level, rng)
    if rng.random() < 0.03:
        _burst(noise, rate_hz, rng)
    _add_slow(noise, rate_hz, rng)
    return noise


def _coloured_noise(samples: int, rate_hz: float, level: list[float], rng: BufferedRng) -> Voltage:
    """(9, samples) noise of standard deviations `level` whose amplitude falls as 1/f above 15 Hz, up to 150 Hz.

    The spectrum is sampled as uniform bytes: each sample of the noise sums a thousand spectral lines and so is normal.
    """
    shape = _spectral_shape(samples, rate_hz)
    count = _ELECTRODES * 2 * len(shape)
    dice = rng.bulk.bit_generator.random_raw(-(-count // 8)).view(np.int8)[:count].reshape(_ELECTRODES, -1)
    lines = spectrum(dice, shape, np.array(level, np.float32), samples // 2 + 1)
    return np.asarray(np.fft.irfft(lines.view(np.complex64), samples, axis=1), dtype=np.float32)


@lru_cache(maxsize=4)
def _spectral_shape(samples: int, rate_hz: float) -> Voltage:
    """(m,) factors of the spectral lines below 150 Hz, sampled as bytes, for noise of standard deviation 1."""
    f = np.arange(math.ceil(_BANDWIDTH * samples / rate_hz)) * (rate_hz / samples)
    shape = (f > 4) / (1 + (f / _FADE))
    byte_sd = math.sqrt((256**2 - 1) / 12)
    return np.asarray(shape * samples / (2 * math.sqrt(float(shape @ shape)) * byte_sd), dtype=np.float32)


@jit
def spectrum(dice, shape, level, count):  # type: ignore[no-untyped-def]  # numba infers these
    """(rows, 2 * count) float32, real and imaginary parts in turn: dice * shape * level, then zeros.

    Args:
        dice: (rows, 2 * m) int8.
        shape: (m,).
        level: (rows,).
    """
    lines = np.zeros((dice.shape[0], 2 * count), np.float32)
    half = np.float32(0.5)  # a byte's mean is -0.5
    for r in range(dice.shape[0]):
        for i in range(shape.size):
            size = level[r] * shape[i]
            lines[r, 2 * i] = (np.float32(dice[r, 2 * i]) + half) * size
            lines[r, 2 * i + 1] = (np.float32(dice[r, 2 * i + 1]) + half) * size
    return lines


def _burst(noise: Voltage, rate_hz: float, rng: BufferedRng) -> None:
    """Make part of the record several times noisier on some electrodes, as a movement does."""
    start = int(rng.uniform(0, 8.5) * rate_hz)
    length = int(rng.uniform(0.4, 2.5) * rate_hz)
    electrodes = rng.bulk.random(_ELECTRODES) < 0.4
    noise[electrodes, start : start + length] *= rng.uniform(3, 7)


def _add_slow(noise: Voltage, rate_hz: float, rng: BufferedRng) -> None:
    """Add breathing and slow drifts of the electrodes, mostly below 0.5 Hz, sometimes a step, and mains hum."""
    strong = 2.8 if rng.random() < 0.08 else 1.0
    sd = strong * 0.021 * math.exp(rng.normal(0, 0.5))
    hz = [rng.uniform(0.17, 0.36), rng.uniform(0.03, 0.12), rng.uniform(0.4, 0.7)]
    sizes = np.repeat(np.array([0.8, 1.2, 0.25]) * sd, 2)
    heights = np.array(rng.normals(6 * _ELECTRODES)).reshape(_ELECTRODES, 6) * sizes
    if rng.random() < 0.15:
        phase, strength = rng.uniform(0, 6.28), float(rng.bulk.exponential(0.006))
        hum = np.outer(rng.normals(_ELECTRODES), [strength * math.sin(phase), strength * math.cos(phase)])
        hz, heights = [*hz, _MAINS_HZ], np.concatenate([heights, hum], axis=1)
    add_oscillations(noise, np.array(hz) / rate_hz, heights)
    if rng.random() < 0.04:
        electrode, at_s = rng.below(_ELECTRODES), rng.uniform(1, 9)
        t = np.arange(noise.shape[1]) / rate_hz
        noise[electrode] += rng.normal(0, 0.25) / (1 + np.exp(-(t - at_s) / 0.05))


_BLOCK = 64  # samples whose cosines and sines are computed from those of the first


@jit
def add_oscillations(rows, turns, heights):  # type: ignore[no-untyped-def]
    """Add to each row (rows, n) a cosine and a sine of every frequency.

    A block's cosines and sines follow from those of its first sample by the addition theorem.

    Args:
        turns: (k,) frequencies in cycles per sample.
        heights: (rows, 2 * k) amplitudes of each cosine and sine in turn.
    """
    n = rows.shape[1]
    basis = np.empty((2 * turns.size, _BLOCK), np.float32)
    for k in range(turns.size):
        for i in range(_BLOCK):
            angle = 2.0 * math.pi * turns[k] * i
            basis[2 * k, i], basis[2 * k + 1, i] = math.cos(angle), math.sin(angle)
    for start in range(0, n, _BLOCK):
        for k in range(turns.size):
            angle = 2.0 * math.pi * ((turns[k] * start) % 1.0)
            c, s = math.cos(angle), math.sin(angle)
            even, odd = basis[2 * k], basis[2 * k + 1]
            for r in range(rows.shape[0]):
                a, b = heights[r, 2 * k], heights[r, 2 * k + 1]
                p, q = np.float32(a * c + b * s), np.float32(b * c - a * s)
                row = rows[r, start : start + _BLOCK]
                for i in range(row.size):
                    row[i] += p * even[i] + q * odd[i]


@jit
def simulated_leads(heart, electrodes):  # type: ignore[no-untyped-def]
    """(12, n) float32 mV in the order of `LEADS`: the heart's field plus the electrodes' noise.

    Args:
        heart: (8, n) float32 V1..V6, I, II.
        electrodes: (9, n) float32 RA, LA, LL, V1..V6, of which the chest electrodes are taken against Wilson's
            central terminal. The other four leads follow from I and II, so that Einthoven's and Goldberger's laws
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
