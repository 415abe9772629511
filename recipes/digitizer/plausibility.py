"""Whether what was read off a picture can be an ECG: leads of one column show the same beats at the same moments, limb
leads follow from two of them, and one lead alone shows beats that are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from recipes.digitizer.result import DigitizedLead, DigitizedPage
from render.delineation import complexes_of_lead
from render.record import HIGH_RATE_HZ

ENOUGH_NAMES = 4
"""Printed names of leads that tell the layout, or that there is none."""
_SMOOTH_S = 0.03  # of the steepness; a QRS complex is 0.08 to 0.12 s long
_STEADY_S = 0.25  # standard deviation of the mean around a wave, which a QRS complex hardly moves
_LEAST_SAMPLES = HIGH_RATE_HZ // 2
_LEAST_ALONE_S = 3.0
# Limb leads by I and II: III = II - I, and the augmented leads against the mean of the other two electrodes (Kligfield
# et al. 2007, AHA/ACC/HRS recommendations, part I).
_LIMB_LEADS = {"I": (1, 0), "II": (0, 1), "III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}


def synchrony(page: DigitizedPage) -> float:
    """How well the steepness of leads that were recorded at the same time agrees, -1 to 1.

    The median correlation over all pairs of leads of a column. The leads of an ECG share their QRS complexes; lines of
    text, curves of a chart and textures share nothing. 0 where no two leads stand in one column.
    """
    columns: dict[tuple[int, int, int], list[NDArray[np.float64]]] = defaultdict(list)
    axis = page.rotation_degrees // 90 % 2  # of the picture, along which the columns follow each other
    places = [float(lead.path[:, axis].mean()) if len(lead.path) else 0.0 for lead in page.leads]
    ends = [float(end) for lead in page.leads if len(lead.path) for end in (lead.path[0, axis], lead.path[-1, axis])]
    third = max((max(ends) - min(ends)) / 3, 1.0) if ends else 1.0
    for lead, place in zip(page.leads, places, strict=True):
        # Columns that were recorded at the same time differ by their place alone; their times may be a little apart.
        column = int((place - min(ends, default=0.0)) / third)
        columns[round(lead.start_s * 4), round(lead.seconds * 4), column].append(_steepness(lead.millivolts))
    correlations = []
    for leads in columns.values():
        size = min(lead.size for lead in leads)
        if len(leads) < 2 or size < _LEAST_SAMPLES:
            continue
        rows = np.stack([lead[:size] for lead in leads])
        rows = rows[rows.std(axis=1) > 0]
        if len(rows) > 1:
            correlations += np.corrcoef(rows)[np.triu_indices(len(rows), 1)].tolist()
    return float(np.median(correlations)) if correlations else 0.0


def limb_misfit(leads: Iterable[tuple[Hashable, str, NDArray[np.floating]]]) -> float | None:
    """How far limb leads that were recorded at the same time are from following from two of them.

    What I and II cannot explain of their variance, divided by what is expected of curves that share nothing: 0 of limb
    leads, about 1 of others. Of the columns with three limb leads or more that of the worst; None where there is none.
    Their waves count, not where their baselines run: a crease of the paper moves those of each row differently.

    Args:
        leads: of each its column, its name and its samples; NaN where it cannot be read. A strip follows the columns.
    """
    columns: dict[Hashable, dict[str, NDArray[np.floating]]] = defaultdict(dict)
    for column, name, samples in leads:
        if name in _LIMB_LEADS:
            columns[column].setdefault(name, samples)
    misfits = []
    for limb in columns.values():
        size = min(samples.size for samples in limb.values())
        rows = np.stack([samples[:size] for samples in limb.values()]).astype(np.float64)
        rows = rows[:, np.isfinite(rows).all(axis=0)]
        if len(rows) < 3 or rows.shape[1] < _LEAST_SAMPLES:
            continue
        rows -= gaussian_filter1d(rows, _STEADY_S * HIGH_RATE_HZ, axis=1)
        by_two = np.array([_LIMB_LEADS[name] for name in limb])
        rest = rows - by_two @ (np.linalg.pinv(by_two) @ rows)
        expected = (1 - 2 / len(rows)) * float(rows.var(axis=1).sum())
        misfits.append(float(rest.var(axis=1).sum()) / max(expected, 1e-9))
    return max(misfits, default=None)


def _steepness(millivolts: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) smoothed steepness without its loudest moments, which one crossing stroke would otherwise decide."""
    steps = np.abs(np.diff(np.nan_to_num(millivolts.astype(np.float64), nan=0.0)))
    steps = np.minimum(steps, np.percentile(steps, 99)) if steps.size else steps
    result: NDArray[np.float64] = gaussian_filter1d(steps, _SMOOTH_S * HIGH_RATE_HZ)
    return result


def shows_beats(lead: DigitizedLead) -> bool:
    """Whether a lead alone shows complexes of which half at least are alike, as no text and no noise does."""
    is_long = np.isfinite(lead.millivolts).sum() >= _LEAST_ALONE_S * HIGH_RATE_HZ
    return bool(is_long) and complexes_of_lead(lead.bridged).beat is not None
