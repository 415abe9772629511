"""The recorder: electrode noise, baseline wander, muscle, mains, and how electrodes become leads."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.fft import irfft

from render.physiology.heart import Array

_FADE = 15.0  # Hz: muscle and electrode noise falls off from here, as in quiet parts of clinical records
_BANDWIDTH = 150.0  # Hz: AHA recommendation for adults' recorders


def electrode_noise(samples: int, rate_hz: float, rng: Generator) -> Array:
    """(9, samples) mV of RA, LA, LL, V1..V6: muscle, electrode and mains noise and the wandering baseline.

    Levels span clean to bad records; as in PTB-XL's quality columns, about one in seven hums, one in twelve
    drifts and one in thirty has bursts.
    """
    noise = _coloured(samples, rate_hz, rng)
    level = 0.0055 * np.exp(rng.normal(0, 0.55)) * np.exp(rng.normal(0, 0.35, 9))
    level[:3] *= 1.4  # arms and legs carry more muscle than the chest
    noise *= level[:, None]
    if rng.random() < 0.03:
        _burst(noise, rate_hz, rng)
    t = np.arange(samples) / rate_hz
    if rng.random() < 0.15:
        strength = rng.exponential(0.006) * rng.standard_normal(9)
        noise += strength[:, None] * np.sin(2 * np.pi * 50 * t + rng.uniform(0, 6.28))
    return np.asarray(noise + _wander(t, rng))


def _coloured(samples: int, rate_hz: float, rng: Generator) -> Array:
    """(9, samples) noise of unit spread whose amplitude falls as 1/f above 15 Hz, up to 150 Hz."""
    f = np.fft.rfftfreq(samples, 1 / rate_hz)
    f = f[f < _BANDWIDTH]
    shape = (f > 4) / (1 + (f / _FADE))
    weights = (shape * samples / (2 * np.sqrt((shape**2).sum()))).astype(np.float32)
    spectrum = np.zeros((9, samples // 2 + 1), dtype=np.complex64)
    spectrum[:, : len(f)] = rng.standard_normal((9, 2 * len(f)), dtype=np.float32).view(np.complex64) * weights
    return np.asarray(irfft(spectrum, samples, axis=1), dtype=np.float64)


def _burst(noise: Array, rate_hz: float, rng: Generator) -> None:
    """Make part of the record several times noisier on some electrodes: a movement."""
    start = int(rng.uniform(0, 8.5) * rate_hz)
    length = int(rng.uniform(0.4, 2.5) * rate_hz)
    touched = rng.random(9) < 0.4
    noise[touched, start : start + length] *= rng.uniform(3, 7)


def _sine_cosine(phase: Array) -> Array:
    """(2, n) sine and cosine of an evenly growing phase that starts at 0, as products of coarse and fine steps."""
    fine = 50
    turns = np.exp(1j * phase[::fine])[:, None] * np.exp(1j * phase[:fine])
    course = turns.ravel()[: len(phase)]
    return np.stack([course.imag, course.real])


def _wander(t: Array, rng: Generator) -> Array:
    """(9, n) breathing and slow drifts of the electrodes, mostly below 0.5 Hz, sometimes with a step."""
    strong = 2.8 if rng.random() < 0.08 else 1.0
    spread = strong * 0.021 * np.exp(rng.normal(0, 0.5))
    breath, slow, mid = rng.uniform(0.17, 0.36), rng.uniform(0.03, 0.12), rng.uniform(0.4, 0.7)
    basis = np.concatenate([_sine_cosine(2 * np.pi * hz * t) for hz in (breath, slow, mid)])  # (6, n)
    sizes = np.repeat(np.array([0.8, 1.2, 0.25]), 2) * spread
    wander = (rng.standard_normal((9, 6)) * sizes) @ basis
    if rng.random() < 0.04:
        moved, when = rng.integers(0, 9), rng.uniform(1, 9)
        wander[moved] += rng.normal(0, 0.25) / (1 + np.exp(-(t - when) / 0.05))
    return np.asarray(wander)


def to_leads(electrodes: Array) -> Array:
    """(9, n) potentials of RA, LA, LL, V1..V6 -> (8, n) V1..V6, I, II against Wilson's central terminal."""
    ra, la, ll = electrodes[0], electrodes[1], electrodes[2]
    return np.concatenate([electrodes[3:] - (ra + la + ll) / 3, [la - ra, ll - ra]])
