"""What `digitize` draws: the picture as it was read."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ecg_vlm.digitized_files import overlay
from recipes.digitizer.result import DigitizedLead, DigitizedPage
from render.record import LEADS
from render.simulator.simulate import simulate


def test_ticks_stand_at_the_beats_of_all_leads_not_at_tall_t_waves_of_one() -> None:
    signal = simulate(3, ["NORM"]).signal[:, :5000].copy()
    beats = np.gradient(signal[1])
    late = np.roll(beats, 150)  # a wave 0.3 s after each QRS complex, as fast
    signal[9] = 0.3 * signal[1] + np.cumsum(late)
    path = np.stack([np.linspace(50, 950, 500), np.full(500, 0.0)], axis=1).astype(np.float32)
    leads = tuple(
        DigitizedLead(name, 0.0, signal[k].astype(np.float32), 1.0, (), path + np.array([0, 60 + 60 * k], np.float32))
        for k, name in enumerate(LEADS)
    )
    page = DigitizedPage("12x1", "standard", leads, 25, 10, "pulse", "pulse", 0, True, 4, 12, 1.0, (), path[:0])
    drawn = np.asarray(overlay(page, Image.new("RGB", (1000, 800), "white")).convert("L"))

    def ticks(k: int) -> list[int]:
        dark = drawn[60 + 60 * k + 7] < 200
        return np.flatnonzero(np.diff(dark.astype(int)) == 1).tolist()

    assert len(ticks(0)) > 5 and all(ticks(k) == ticks(0) for k in range(12))
