"""A record as a matplotlib figure: true to size, and the traces are the record."""

from __future__ import annotations

import numpy as np
import pytest

from render.errors import InputError
from render.plot import plot_record
from render.simulator.simulate import simulate


def test_a_figure_is_true_to_size_and_shows_the_record() -> None:
    record = simulate(3)
    figure = plot_record(record, "6x2,cabrera")
    width, height = figure.get_size_inches() * 25.4
    assert (width, height) == pytest.approx((280, 140))
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    assert len(lines) == 12 and "-aVR" in lines
    x, y = (np.asarray(values) for values in lines["-aVR"].get_data())
    millivolts = (y[0] - y) / 10
    signal = -record.lead("aVR")[: len(y)]
    np.testing.assert_allclose(millivolts, signal - signal[0], atol=1e-5)
    assert np.diff(x).mean() == pytest.approx(25 / record.sampling_rate)


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_a_figure_is_saved_and_shown(kind: str, tmp_path) -> None:
    figure = plot_record(simulate(3))
    figure.savefig(tmp_path / f"ecg.{kind}")
    assert (tmp_path / f"ecg.{kind}").stat().st_size > 10_000
    assert "<svg" in figure._repr_svg_()


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(InputError, match="nearest is"):
        plot_record(simulate(3), "4x3")
