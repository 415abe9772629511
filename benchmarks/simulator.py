"""What a simulated record costs: `python benchmarks/simulator.py [--against REVISION]` prints tables for the README.

The first table is the whole record, over statements drawn as for training and over every statement by itself; the
second splits it by stage. With --against, a revision of this repository simulates the same number of records in a
process of its own, turn by turn, so that a busy machine slows both alike. All figures are CPU time (user and system)
of a process that may use one thread, in ms. Trust the ratios.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_TURN = 50  # records of a turn

# Runs in a process of its own and knows only what every revision has: its import, then turns of records.
_WORKER = """
import sys, time
start = time.process_time()
from render.simulator.simulate import SIMULATED_STATEMENTS, Simulated
print((time.process_time() - start) * 1e3, flush=True)
sources = {"drawn": Simulated(1, 10**6), "each": Simulated(1, 10**6, SIMULATED_STATEMENTS)}
for source in sources.values():
    for i in range(30):
        source.read(i)
for line in sys.stdin:
    name, first, last = line.split()
    spent = []
    for i in range(int(first), int(last)):
        start = time.process_time()
        sources[name].read(i)
        spent.append((time.process_time() - start) * 1e3)
    print(*spent, flush=True)
"""


class Worker:
    """A process that simulates with the `render` package of a folder. import_ms: what its import took."""

    def __init__(self, folder: Path) -> None:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        environment = {**os.environ, **threads, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-P", "-c", _WORKER]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        self.import_ms = self._line()[0]

    def _line(self) -> list[float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the simulating process ended early; its error stands above")
        return [float(word) for word in line.split()]

    def turn(self, name: str, first: int, last: int) -> list[float]:
        """ms of each record from `first` to `last` - 1 of a source, "drawn" or "each"."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {first} {last}\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def unpacked(revision: str, folder: Path) -> Path:
    """The folder, with the `render` package of a git revision in it."""
    archive = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", revision, "render"], check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def print_records(folders: dict[str, Path], rounds: int) -> None:
    """One row for each version and source: median, 90th percentile, and the ratio of medians to the first version."""
    workers = {name: Worker(folder) for name, folder in folders.items()}
    print("| simulator | import, ms | records | median, ms | p90, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for source, title in (("drawn", "as drawn"), ("each", "each statement in turn")):
        spent: dict[str, list[float]] = {name: [] for name in workers}
        for i in range(rounds):
            for name, worker in workers.items():
                spent[name] += worker.turn(source, i * _TURN, (i + 1) * _TURN)
        first = statistics.median(next(iter(spent.values())))
        for name, times in spent.items():
            middle = statistics.median(times)
            cost = f"{workers[name].import_ms:.0f} | {title} | {middle:.2f} | {p90(times):.2f} | {middle / first:.1f}"
            print(f"| {name} | {cost} |", flush=True)
    for worker in workers.values():
        worker.close()


def p90(times: list[float]) -> float:
    """The 90th percentile."""
    return statistics.quantiles(times, n=10)[-1]


def stages(number: int) -> Iterator[tuple[str, float]]:
    """(stage, ms) of one record, in the simulator's order."""
    from render.simulator import simulate
    from render.simulator.electrodes import electrode_noise, twelve_leads
    from render.simulator.findings import NORMAL_COMPANY
    from render.simulator.rng import BufferedRng

    spent = 0.0

    def timed(make: Callable[[], Any]) -> Any:
        nonlocal spent
        start = time.process_time()
        made = make()
        spent = (time.process_time() - start) * 1e3
        return made

    rng = timed(lambda: BufferedRng(2, number))
    yield "seed", spent
    findings = timed(lambda: simulate.drawn(rng))
    yield "statements", spent
    person = timed(lambda: simulate.sample_person(rng, "NORM" in findings, findings <= NORMAL_COMPANY))
    yield "person", spent
    timing = timed(lambda: simulate.rhythm(findings, person.age, rng))
    yield "rhythm", spent
    beat = timed(lambda: simulate._verified_beat(findings, person, timing.rate, rng))
    yield "a beat that meets its criteria", spent
    heart = timed(lambda: simulate._beats(findings, person, timing, beat, rng))
    yield "beats at their times", spent
    timed(lambda: simulate._add_atrial_activity(heart, findings, person, timing, rng))
    yield "f and flutter waves", spent
    noise = timed(lambda: electrode_noise(heart.shape[1], simulate.RATE_HZ, rng))
    yield "electrode noise", spent
    timed(lambda: twelve_leads(heart, noise))
    yield "twelve leads", spent
    timed(lambda: (simulate.holding(findings, beat), simulate._report(findings, timing, beat)))
    yield "statements and report", spent
    timed(lambda: simulate._measured(findings, timing, beat))
    yield "measurements", spent


def print_stages(records: int) -> None:
    """One row for each stage; its numbers hold some µs of the clock's own time."""
    spent: dict[str, list[float]] = {}
    for number in range(records + 30):
        for name, ms in stages(number):
            spent.setdefault(name, []).append(ms)
    print("\n| stage | median, ms | p90, ms |\n|---|---|---|")
    for name, times in spent.items():
        print(f"| {name} | {statistics.median(times[30:]):.3f} | {p90(times[30:]):.3f} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Measure what a simulated record costs, in CPU time.")
    parser.add_argument("--rounds", type=int, default=16, help=f"turns of {_TURN} records")
    parser.add_argument("--against", help="a git revision to compare with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = {"this": _ROOT}
        if arguments.against:
            folders[arguments.against] = unpacked(arguments.against, Path(place))
        print_records(folders, arguments.rounds)
    print_stages(_TURN * arguments.rounds)


if __name__ == "__main__":
    main()
