"""The wavelet features of the PTB-XL benchmark (Strodthoff et al. 2020): 12 statistics of 6 bands of 12 leads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WAVELET, _LEVEL = "db6", 5
_PERCENTILES = (5, 25, 75, 95, 50)
_STATISTICS = 3 + len(_PERCENTILES) + 4
FEATURES = 12 * (_LEVEL + 1) * _STATISTICS
"""864: values for one 12-lead record."""


def features(signals: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 12, samples) finite millivolts at 100 Hz -> (n, 864).

    Of each band of a Daubechies-6 decomposition of depth 5: entropy of the values' frequencies, crossings of zero and
    of the mean, the 5th, 25th, 75th, 95th and 50th percentile, mean, standard deviation, variance and mean magnitude.
    """
    import pywt  # type: ignore[import-untyped]  # slow to import, and only one network uses it

    out = np.empty((len(signals), FEATURES), dtype=np.float32)
    for start in range(0, len(signals), 64):  # in float64, and several arrays of it
        part = signals[start : start + 64].astype(np.float64)
        bands = [_statistics(band) for band in pywt.wavedec(part, _WAVELET, level=_LEVEL)]
        out[start : start + len(part)] = np.stack(bands, axis=2).reshape(len(part), -1)
    return out


def _statistics(band: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 12, m) coefficients -> (n, 12, 12) statistics."""
    mean = band.mean(axis=-1)
    return np.stack(
        [
            _entropy(band),
            _crossings(band > 0),
            _crossings(band > mean[..., None]),
            *np.percentile(band, _PERCENTILES, axis=-1),
            mean,
            band.std(axis=-1),
            band.var(axis=-1),
            np.abs(band).mean(axis=-1),
        ],
        axis=-1,
    )


def _crossings(above: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray((above[..., 1:] != above[..., :-1]).sum(axis=-1), dtype=np.float64)


def _entropy(band: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy, in nats, of how often each value of the last axis occurs: 0 for a flat lead, ln m at most."""
    size = band.shape[-1]
    in_order = np.sort(band, axis=-1)
    at = np.arange(size)
    starts = np.zeros(band.shape, dtype=np.intp)
    starts[..., 1:] = np.where(in_order[..., 1:] != in_order[..., :-1], at[1:], 0)
    place = at - np.maximum.accumulate(starts, axis=-1)  # 0, 1, 2 ... within a run of equal values
    x_log_x = np.concatenate([[0.0], np.arange(1, size + 1) * np.log(np.arange(1, size + 1))])
    # A run of c equal values adds c ln c, here as a sum of steps, so that no run has to be counted.
    return np.asarray(np.log(size) - (x_log_x[place + 1] - x_log_x[place]).sum(axis=-1) / size, dtype=np.float64)
