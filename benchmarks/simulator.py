"""CPU time of a simulated record: `python benchmarks/simulator.py [--against REVISION]` prints tables for the README.

The first table is the whole record, with statements sampled as for training and with each statement in turn; the
second splits it by stage. With --against, another revision of this repository simulates the same number of records in
its own process; the two take turns, so that a busy machine slows both alike. All figures are CPU time (user and
system) of a process with one thread, in ms. The ratios are more reliable than the times.
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

# Runs in its own process and uses only names that every revision has: the import, then turns of records.
_WORKER = """
import sys, time
start = time.process_time()
from render.simulator.simulate import SIMULATED_STATEMENTS
print((time.process_time() - start) * 1e3, flush=True)
from render.sources.registry import open_source
specs = {"mixture": "simulated", "each": "simulated:" + ",".join(SIMULATED_STATEMENTS)}
sources = {name: open_source(spec, seed=1, limit=10**6) for name, spec in specs.items()}
for source in sources.values():
    for i in range(30):
        source.read(i)
for line in sys.stdin:
    name, first, last = line.split()
    times = []
    for i in range(int(first), int(last)):
        start = time.process_time()
        sources[name].read(i)
        times.append((time.process_time() - start) * 1e3)
    print(*times, flush=True)
"""


class Worker:
    """A process that simulates with the `render` package of a folder. import_ms: CPU time of its import."""

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
            raise SystemExit("the simulating process ended early; see its error above")
        return [float(word) for word in line.split()]

    def turn(self, name: str, first: int, last: int) -> list[float]:
        """ms of each record from `first` to `last` - 1 of a source, "mixture" or "each"."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {first} {last}\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def unpack_revision(revision: str, folder: Path) -> Path:
    """Unpack the `render` package of a git revision into the folder, and return the folder."""
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
    for source, title in (("mixture", "as for training"), ("each", "each statement in turn")):
        times: dict[str, list[float]] = {name: [] for name in workers}
        for i in range(rounds):
            for name, worker in workers.items():
                times[name] += worker.turn(source, i * _TURN, (i + 1) * _TURN)
        first = statistics.median(next(iter(times.values())))
        for name, ms in times.items():
            median = statistics.median(ms)
            cost = f"{workers[name].import_ms:.0f} | {title} | {median:.2f} | {p90(ms):.2f} | {median / first:.1f}"
            print(f"| {name} | {cost} |", flush=True)
    for worker in workers.values():
        worker.close()


def p90(times: list[float]) -> float:
    """The 90th percentile."""
    return statistics.quantiles(times, n=10)[-1]


def stages(number: int) -> Iterator[tuple[str, float]]:
    """(stage, ms) of one record, in the simulator's order."""
    from render.record import HIGH_RATE_HZ
    from render.simulator import simulate
    from render.simulator.checks import record_statements
    from render.simulator.dipoles import sample_person
    from render.simulator.electrodes import electrode_noise, simulated_leads
    from render.simulator.findings import COMPATIBLE_WITH_NORM, sample_findings
    from render.simulator.rhythm import rhythm
    from render.simulator.rng import BufferedRng

    ms = 0.0

    def clock(stage: Callable[[], Any]) -> Any:
        nonlocal ms
        start = time.process_time()
        result = stage()
        ms = (time.process_time() - start) * 1e3
        return result

    rng = clock(lambda: BufferedRng(2, number))
    yield "seed", ms
    findings = clock(lambda: sample_findings(rng))
    yield "statements", ms
    person = clock(lambda: sample_person(rng, "NORM" in findings, findings <= COMPATIBLE_WITH_NORM))
    yield "person", ms
    timing = clock(lambda: rhythm(findings, person.age, rng))
    yield "rhythm", ms
    beat = clock(lambda: simulate._verified_beat(findings, person, timing.rate, rng))
    yield "a beat that meets its criteria", ms
    heart = clock(lambda: simulate._beats(findings, person, timing, beat, rng))
    yield "beats at their times", ms
    clock(lambda: simulate._add_atrial_activity(heart, findings, person, timing, rng))
    yield "f and flutter waves", ms
    noise = clock(lambda: electrode_noise(heart.shape[1], HIGH_RATE_HZ, rng))
    yield "electrode noise", ms
    clock(lambda: simulated_leads(heart, noise))
    yield "twelve leads", ms
    clock(lambda: (record_statements(findings, beat), simulate._report(findings, timing, beat)))
    yield "statements and report", ms
    clock(lambda: simulate._measurements(findings, timing, beat))
    yield "measurements", ms


def print_stages(records: int) -> None:
    """One row for each stage; its numbers include a few µs of the clock itself."""
    stage_ms: dict[str, list[float]] = {}
    for number in range(records + 30):
        for name, ms in stages(number):
            stage_ms.setdefault(name, []).append(ms)
    print("\n| stage | median, ms | p90, ms |\n|---|---|---|")
    for name, times in stage_ms.items():
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
            folders[arguments.against] = unpack_revision(arguments.against, Path(place))
        print_records(folders, arguments.rounds)
    print_stages(_TURN * arguments.rounds)


if __name__ == "__main__":
    main()
