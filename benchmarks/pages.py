"""How long a page takes, from a record in memory to the bytes of a PNG: `python benchmarks/pages.py`.

The yardstick is matplotlib drawing the same traces, names and grid on a figure that is kept from page to
page. All contestants take turns on the same records, so that a busy machine slows all of them alike; the
figures are medians of CPU time (user and system, all threads of the process). Trust the ratios.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from render.layout import Layout, layout_named
from render.page import draw
from render.record import EcgRecord


def noisy_heartbeats(number: int, sampling_rate: float) -> EcgRecord:
    """A made-up record with the roughness of a real one (bells, drift, 10 uV of noise), 10 s."""
    random = np.random.default_rng(number)
    t = np.arange(round(10 * sampling_rate)) / sampling_rate
    since = (t + random.uniform()) % random.uniform(0.5, 1.1)
    bells = ((0.1, 0.16, 0.02), (-0.1, 0.27, 0.01), (1.0, 0.3, 0.01), (-0.3, 0.33, 0.01), (0.25, 0.5, 0.05))
    beat = sum(height * np.exp(-(((since - at) / wide) ** 2) / 2) for height, at, wide in bells)
    drift = [0.1 * np.sin(t + lead) for lead in range(12)]
    leads = random.normal(size=(12, 1)) * beat + drift + random.normal(0, 0.01, (12, t.size))
    return EcgRecord(str(number), leads.astype(np.float32), sampling_rate, "made up", age=60.0)


class MatplotlibPage:
    """The same page by matplotlib: grid and names stay on the figure, only the traces are replaced."""

    def __init__(self, plan: Layout, width: int) -> None:
        dpi = width / (plan.width / 25.4)
        self.plan = plan
        self.figure = Figure(figsize=(plan.width / 25.4, plan.height / 25.4), dpi=dpi)
        self.canvas = FigureCanvasAgg(self.figure)
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, plan.width), ylim=(plan.height, 0))
        axes.axis("off")
        top, bottom, right = plan.grid_top, plan.height, plan.width
        for step, wide, colour in ((1, 0.2, "#f6c8c8"), (5, 0.25, "#ea8282")):
            lines = [[(float(x), top), (float(x), bottom)] for x in range(0, int(right) + 1, step)]
            lines += [[(0.0, float(y)), (right, float(y))] for y in range(int(top), int(bottom) + 1, step)]
            axes.add_collection(LineCollection(lines, linewidths=wide * 72 / 25.4, colors=colour))
        for trace in plan.traces:
            axes.text(trace.x0 + 1.5, trace.top + 5, trace.lead, size=4.6 * 72 / 25.4)
        wide = 0.35 * 72 / 25.4
        self.curves = [axes.plot([], [], color="black", linewidth=wide)[0] for _ in plan.traces]

    def png(self, record: EcgRecord) -> bytes:
        """The page's PNG, at zlib's level 1 as matplotlib's own default (6) takes far longer."""
        for trace, curve in zip(self.plan.traces, self.curves, strict=True):
            first, last = (round(t * record.sampling_rate) for t in (trace.start, trace.end))
            samples = record.lead(trace.lead)[first:last]
            x = trace.x0 + np.arange(samples.size) / record.sampling_rate * self.plan.mm_per_s
            curve.set_data(x, trace.baseline - samples * trace.mm_per_mv)
        out = io.BytesIO()
        self.canvas.print_png(out, pil_kwargs={"compress_level": 1})
        return out.getvalue()


def render_page(width: int, record: EcgRecord) -> bytes:
    """The page's PNG, by this project."""
    return draw(record, width=width).png()


def medians(
    contestants: dict[str, Callable[[EcgRecord], bytes]], records: Sequence[EcgRecord], rounds: int
) -> dict[str, tuple[float, float]]:
    """Name -> (CPU milliseconds, kilobytes) per page, medians over `rounds` interleaved rounds."""
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    sizes: dict[str, list[float]] = {name: [] for name in contestants}
    for make in contestants.values():  # compiles, loads fonts, draws the grids
        make(records[0])
    for i in range(rounds):
        for name, make in contestants.items():
            start = time.process_time()
            png = make(records[i % len(records)])
            spent[name].append((time.process_time() - start) * 1e3)
            sizes[name].append(len(png) / 1e3)
    return {name: (statistics.median(spent[name]), statistics.median(sizes[name])) for name in contestants}


def main() -> None:
    """Print one table per sampling rate."""
    parser = argparse.ArgumentParser(description="Measure how long a page takes, in CPU time.")
    parser.add_argument("--rounds", type=int, default=60, help="pages per contestant")
    parser.add_argument("--widths", type=int, nargs="+", default=[672, 1120, 2240], help="pixels")
    arguments = parser.parse_args()
    plan = layout_named("3x4+1R")
    for rate in (100.0, 500.0):
        records = [noisy_heartbeats(number, rate) for number in range(8)]
        contestants: dict[str, Callable[[EcgRecord], bytes]] = {}
        for width in arguments.widths:
            contestants[f"render {width} px"] = partial(render_page, width)
            contestants[f"matplotlib {width} px"] = MatplotlibPage(plan, width).png
        print(f"{rate:g} Hz                  CPU ms    kB")
        for name, (spent, size) in medians(contestants, records, arguments.rounds).items():
            print(f"  {name:20s} {spent:7.1f} {size:6.0f}")


if __name__ == "__main__":
    main()
