"""What a page costs, from a record on the disk to the data set, and from a record in memory to the bytes of a PNG, and
what reading a record costs: `python benchmarks/pages.py [--ptbxl DIR]` prints all three as tables for the README.

The first figure is what `ecg-vlm render ptbxl:DIR OUT` takes a page, all tasks on: reading, measuring, dialogues,
picture and Parquet, once the first shard is written; beside it what of that are the reading, the measuring and the
picture. The yardsticks of the others are matplotlib drawing the same traces, names and grid on a figure that is kept
from page to page, and ecg_plot (PyPI), which draws the same leads, grid and rhythm strip anew for every record, here
through its matplotlib backend; for reading, `wfdb.rdrecord`. All contestants take turns on the same records, so that a
busy machine slows all of them alike; the figures are medians of CPU time (user and system, all threads of the process).
Trust the ratios.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from render.dataset.parquet import write_dataset
from render.dataset.rows import Options, check, make_picture
from render.errors import InputError
from render.measurements import measure
from render.pages.augment.pipeline import augment, effect_strengths
from render.pages.layout import Layout, layout_named
from render.pages.page import draw
from render.record import LEADS, EcgRecord
from render.sources.ptbxl import PtbXl
from render.statements import STATEMENTS

_RATES = (500, 100)
_SIZES = (("3x4+1R", 1120), ("3x4+1R,Letter", 2200))  # 1120 x 560 and 2200 x 1700 px
_SHARD = 50  # pages whose cost is one figure
_SLOW_EVERY = 5  # ecg_plot takes a turn in every fifth round only: one of its pages takes as long as a hundred others

Make = Callable[[EcgRecord], bytes]


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


def clean_page(layout: str, width: int, record: EcgRecord) -> bytes:
    """The page's PNG, by this project."""
    return draw(record, layout=layout, width=width).png()


def photo(layout: str, width: int, record: EcgRecord) -> bytes:
    """The picture file of a photographed page, by this project. Every record has its own strengths and places."""
    random = np.random.default_rng(int(record.record_id))
    return augment(draw(record, layout=layout, width=width), effect_strengths("photo", random), random).data


def ecg_plot_page(width: int, record: EcgRecord) -> bytes:
    """The same leads in the same grid with a rhythm strip, by ecg_plot, as wide as our page."""
    import ecg_plot  # type: ignore[import-untyped]

    chart = ecg_plot.plot(
        record.signal,
        sample_rate=record.sampling_rate,
        lead_names=list(LEADS),
        layout="12lead",
        rhythm_lead="II",
        time_mode="sequential",
    )
    figure, _ = chart.to_matplotlib()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=width / figure.get_figwidth(), pil_kwargs={"compress_level": 1})
    return out.getvalue()


def milliseconds(
    contestants: Mapping[str, Callable[[int], object]], rounds: int, slow: Sequence[str] = ()
) -> dict[str, float]:
    """Name -> median CPU milliseconds over interleaved rounds; a contestant is called with the round's number."""
    durations: dict[str, list[float]] = {name: [] for name in contestants}
    for make in contestants.values():  # compiles, loads fonts, draws the grids, fills the cache of the disk
        make(0)
    for i in range(rounds):
        for name, make in contestants.items():
            if name in slow and i % _SLOW_EVERY:
                continue
            start = time.process_time()
            make(i)
            durations[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(times) for name, times in durations.items()}


class DownloadedRecords:
    """The records of a PTB-XL folder that are on the disk, one after the other, and again from the first."""

    name = "ptbxl"

    def __init__(self, folder: Path, size: int) -> None:
        self._source = PtbXl(folder)
        self._numbers: list[int] = []
        for i in range(len(self._source)):
            try:
                check(self._source.read(i), layout_named(Options().layout))
            except InputError:  # not in this download, or not to be drawn
                continue
            self._numbers.append(i)
            if len(self._numbers) == size:
                break
        if not self._numbers:
            raise SystemExit(f"{folder}: none of its records is on the disk")
        self._size = size

    def __len__(self) -> int:
        return self._size

    def read(self, i: int) -> EcgRecord:
        """Record i."""
        return self._source.read(self._numbers[i % len(self._numbers)])

    def prevalence(self) -> dict[str, float]:
        """That of the whole folder."""
        return self._source.prevalence()


def print_rendering(folder: Path, rounds: int) -> None:
    """One row: CPU ms of a page of the default `ecg-vlm render`, median over the shards behind the first."""
    records = DownloadedRecords(folder, _SHARD * (rounds // 4 + 2))
    clock: dict[int, float] = {}
    options = Options(shard_size=_SHARD)

    def read_clock(count: int, total: int) -> None:
        clock.setdefault(count, time.process_time())

    with tempfile.TemporaryDirectory() as out:
        write_dataset(records, Path(out) / "pages", options, progress=read_clock)
    # A shard is written between its last page and the first of the next: from first page to first page counts it once.
    firsts = [clock[count] for count in range(1, len(records) + 1, _SHARD)]
    pages = [(b - a) * 1e3 / _SHARD for a, b in pairwise(firsts)][1:]
    record = [records.read(i) for i in range(8)]
    turns: dict[str, Callable[[int], object]] = {
        "read": lambda i: records.read(i % len(records)),
        "measure": lambda i: measure(record[i % 8]),
        "picture": lambda i: make_picture(record[i % 8], i, options),
    }
    part = milliseconds(turns, 5 * rounds)
    print("| `ecg-vlm render ptbxl:DIR OUT`, 1120 px | ms |\n|---|---|")
    print(f"| a page, dialogues and Parquet included | {statistics.median(pages):.1f} |")
    for name, label in (("read", "of it reading"), ("measure", "measuring"), ("picture", "the picture")):
        print(f"| {label} | {part[name]:.1f} |", flush=True)


def print_pages(rounds: int) -> None:
    """One row for every size, rate and kind of page."""
    print("| page | Hz | ours, ms | kB | matplotlib, ms | ratio | ecg_plot, ms | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for layout, width in _SIZES:
        plan = layout_named(layout)
        size = f"{width} × {round(width * plan.height / plan.width)}"
        for rate in _RATES:
            records = [noisy_heartbeats(number, rate) for number in range(8)]
            pages: dict[str, Make] = {
                "ours": partial(clean_page, layout, width),
                "photo": partial(photo, layout, width),
                "matplotlib": MatplotlibPage(plan, width).png,
                "ecg_plot": partial(ecg_plot_page, width),
            }
            turns = {name: lambda i, make=make: make(records[i % 8]) for name, make in pages.items()}  # noqa: B023
            cost = milliseconds(turns, rounds, slow=["ecg_plot"])
            others = " | ".join(
                f"{cost[name]:.0f} | {cost[name] / cost['ours']:.0f}" for name in ("matplotlib", "ecg_plot")
            )
            for kind, name, rest in (("clean", "ours", others), ("photo", "photo", "– | – | – | –")):
                kilobytes = statistics.median(len(pages[name](record)) for record in records) / 1e3
                print(f"| {kind} {size} | {rate} | {cost[name]:.1f} | {kilobytes:.0f} | {rest} |", flush=True)


def print_reading(folder: Path, rounds: int) -> None:
    """One row for each of PTB-XL's two rates; records that are not in the folder at that rate are passed over."""
    import wfdb

    print("\n| reading a PTB-XL record | ours, ms | wfdb, ms | ratio |\n|---|---|---|---|")
    for rate, column in ((500, "filename_hr"), (100, "filename_lr")):
        source = PtbXl(folder, sampling_rate=rate)
        readable = list(_on_disk(source, folder, column, rounds))
        turns: dict[str, Callable[[int], object]] = {
            "ours": lambda i: source.read(readable[i % len(readable)][0]),  # noqa: B023
            "wfdb": lambda i: wfdb.rdrecord(str(readable[i % len(readable)][1])),  # noqa: B023
        }
        if readable:
            cost = milliseconds(turns, rounds)
            ratio = cost["wfdb"] / cost["ours"]
            print(f"| {rate} Hz | {cost['ours']:.2f} | {cost['wfdb']:.2f} | {ratio:.1f} |", flush=True)


def _on_disk(source: PtbXl, folder: Path, column: str, most: int) -> Iterator[tuple[int, Path]]:
    """(number in the source, path) of at most `most` records that are on the disk; reads them into the cache."""
    count = 0
    with (folder / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        for i, row in enumerate(csv.DictReader(file)):
            path = folder / row[column]
            if count < most and path.with_name(path.name + ".dat").is_file():
                source.read(i)
                count += 1
                yield i, path


def write_ptbxl(folder: Path) -> Path:
    """Made-up records in PTB-XL's layout, at both rates; returns the folder."""
    import wfdb

    rows = []
    for number in range(8):
        row = {"ecg_id": str(number), "patient_id": "1.0", "age": "60.0", "sex": "0", "report": "sinusrhythmus"}
        row |= {"scp_codes": "{'NORM': 100.0, 'SR': 0.0}", "validated_by_human": "True", "strat_fold": "1"}
        for rate, column, suffix in ((500, "filename_hr", "hr"), (100, "filename_lr", "lr")):
            place = folder / f"records{rate}" / "00000"
            place.mkdir(parents=True, exist_ok=True)
            name = f"{number:05d}_{suffix}"
            row[column] = f"records{rate}/00000/{name}"
            signal = noisy_heartbeats(number, rate).signal.T.astype(np.float64)
            form = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
            names = [lead.upper() for lead in LEADS]
            wfdb.wrsamp(name, rate, ["mV"] * 12, names, p_signal=signal, **form, write_dir=str(place))
        rows.append(row)
    with (folder / "ptbxl_database.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    codes = "".join(f"{code},{each.superclass}\n" for code, each in STATEMENTS.items())
    (folder / "scp_statements.csv").write_text(f",diagnostic_class\n{codes}", encoding="utf-8")
    return folder


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Measure what pages and reading cost, in CPU time.")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each contestant")
    parser.add_argument("--ptbxl", type=Path, help="a PTB-XL folder to read from (default: made-up records)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.ptbxl if arguments.ptbxl is not None else write_ptbxl(Path(place))
        print_rendering(folder, arguments.rounds)
        print()
        print_pages(arguments.rounds)
        print_reading(folder, 5 * arguments.rounds)


if __name__ == "__main__":
    main()
