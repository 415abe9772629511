"""What rendering on a Ray cluster costs and survives: `python -m benchmarks.cluster [--kills 10] [--records N ...]`.

Every cluster here is a head without cores and nodes of one core each, all of them processes of this machine
(`ray.cluster_utils.Cluster`), so the figures are those of the engine and not of a network. Four tables:

1. A data set is made `--kills` times by three nodes, one of which is killed at a random moment; its bytes are compared
   with those that one process made.
2. What the engine costs a shard: tasks that do nothing.
3. A page with 1, 2 and 4 shards at once, by the processes of this machine and by as many nodes: pages a second by the
   clock, CPU time of all processes, and the efficiency: the CPU time of one process divided by it, which is what a
   machine with a free core for each reaches at most. By the clock no one is faster than the cores that are free.
4. The driver's memory with as many `--records` in MIMIC-IV-ECG's published layout, generated: only the tables, as pages
   are a row each that is not drawn. The driver is a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import pickle
import random
import resource
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow as pa

os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN", secrets.token_hex(16)),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # nodes listen on the loopback alone
    "RAY_USAGE_STATS_ENABLED": "0",
}

from render.cluster import ray_cluster
from render.dataset.parquet import write_dataset, write_rows
from render.dataset.rows import Options, schema
from render.simulator.simulate import SimulatedSource
from render.sources.mimic import MimicIvEcg
from render.workers import Step, Workers, run_tasks

_OPTIONS = Options(width=1120, shard_size=50)
_SHARDS = 24
_NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 300 << 20}
_IDLE_TASKS = 500


@contextmanager
def nodes(count: int) -> Iterator[Any]:
    """A cluster of so many nodes, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(prefix="ray")
    os.environ["RAY_TMPDIR"] = place  # for the cluster's address, else in /tmp/ray, which has to be there
    Path(place, "ray").mkdir()
    head = {**_NODE, "num_cpus": 0, "temp_dir": place, "include_dashboard": False}
    cluster = Cluster(True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(**_NODE)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(place, ignore_errors=True)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a data set, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cpu_seconds() -> float:
    """Of this process, of those that it has started, here or as nodes, and of those that have ended."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(sum(process.cpu_times()[:2]) for process in processes)


def render(out: Path, workers: int | Workers, shards: int = _SHARDS) -> tuple[float, float]:
    """Make the data set of this benchmark anew; its seconds by the clock, and of CPU time."""
    shutil.rmtree(out, ignore_errors=True)
    start, before = time.perf_counter(), cpu_seconds()
    write_dataset(SimulatedSource(1, shards * _OPTIONS.shard_size), out, _OPTIONS, workers=workers)
    return time.perf_counter() - start, cpu_seconds() - before


def print_kills(place: Path, kills: int) -> None:
    """Table 1."""
    render(place / "local", 1)
    expected = bytes_of(place / "local")
    with nodes(3) as cluster, ray_cluster() as workers:
        usual = min(render(place / "whole", workers)[0] for _ in range(2))  # the first time processes have to start
        print(f"\n| kill | after, of {usual:.1f} s | took, s | shards by then, of {_SHARDS} | same bytes |")
        print("|---|---|---|---|---|")
        for number in range(1, kills + 1):
            moment = random.uniform(0, usual)
            seconds, done = render_with_kill(place / "killed", cluster, workers, moment)
            same = "yes" if bytes_of(place / "killed") == expected else "NO"
            print(f"| {number} | {moment:.1f} s | {seconds:.1f} | {done} | {same} |", flush=True)
            while len(cluster.worker_nodes) < 3:
                cluster.add_node(**_NODE)


def render_with_kill(out: Path, cluster: Any, workers: Workers, moment: float) -> tuple[float, str]:
    """Make the data set and kill a node after `moment` seconds; the seconds, and how many shards were finished then."""
    shutil.rmtree(out, ignore_errors=True)
    start, done = time.perf_counter(), ""

    def kill_one(pages: int, total: int) -> None:
        nonlocal done
        if not done and time.perf_counter() - start > moment:
            cluster.remove_node(random.choice(list(cluster.worker_nodes)), allow_graceful=False)
            done = str(pages // _OPTIONS.shard_size)

    source = SimulatedSource(1, _SHARDS * _OPTIONS.shard_size)
    write_dataset(source, out, _OPTIONS, workers=workers, progress=kill_one)
    return time.perf_counter() - start, done or "all"


def nothing(number: int, step: Step) -> None:
    """A task of one step without work."""
    step()


def print_speeds(place: Path) -> None:
    """Tables 2 and 3."""
    rows = []
    for count in (1, 2, 4):
        with nodes(count), ray_cluster() as workers:
            render(place / "warm", workers, count)
            if count == 1:
                start = time.perf_counter()
                run_tasks(nothing, [(i,) for i in range(_IDLE_TASKS)], workers, lambda steps: None)
                idle = (time.perf_counter() - start) / _IDLE_TASKS
            by_nodes = render(place / "nodes", workers)
        render(place / "warm", count, count)
        rows.append((count, render(place / "local", count), by_nodes))
    print(f"\nA shard's task that does nothing: {1000 * idle:.1f} ms ({_IDLE_TASKS} tasks, one node).")
    pages, least = _SHARDS * _OPTIONS.shard_size, rows[0][1][1]
    head = "pages/s, CPU ms a page, efficiency"
    print(f"\n| at once | processes: {head} | nodes: {head} |\n|---|---|---|")
    for count, *both in rows:
        cells = [f"{pages / wall:.0f}, {1000 * cpu / pages:.1f}, {least / cpu:.2f}" for wall, cpu in both]
        print(f"| {count} |", " | ".join(cells), "|", flush=True)


class IndexRows:
    """Rows of the records in the tables of a folder, with an image of a few bytes in place of a page."""

    name = "mimic"

    def __init__(self, source: MimicIvEcg) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def schema(self) -> pa.Schema:
        return schema(Options())

    def row(self, i: int) -> tuple[dict[str, Any], Sequence[str]]:
        image = {"bytes": b"\x89PNG\r\n\x1a\n", "path": "page.png"}
        texts = dict.fromkeys(("source", "patient_id", "report", "layout", "style", "geometry"), "")
        numbers = {"fold": None, "seed": 0}
        return {"image": image, "dialogues": [], "record_id": str(i), "statements": [], **numbers, **texts}, ()


def write_tables(folder: Path, records: int) -> None:
    """The two tables of so many studies, in the columns of MIMIC-IV-ECG."""
    folder.mkdir()
    reports = [f"report_{i}" for i in range(18)]
    numbers = ["rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis"]
    with (
        (folder / "record_list.csv").open("w", newline="") as file,
        (folder / "machine_measurements.csv").open("w", newline="") as measured,
    ):
        studies, machine = csv.writer(file), csv.writer(measured)
        studies.writerow(["subject_id", "study_id", "file_name", "ecg_time", "path"])
        machine.writerow(
            ["subject_id", "study_id", "cart_id", "ecg_time", *reports, "bandwidth", "filtering", *numbers]
        )
        lines = ["Sinus rhythm", "Possible left atrial abnormality", "Abnormal ECG", *[""] * 15]
        for i in range(records):
            patient, study, moment = 10_000_000 + i // 5, 40_000_000 + i, "2180-07-23 08:44:00"
            path = f"files/p{patient // 10_000}/p{patient}/s{study}/{study}"
            studies.writerow([patient, study, study, moment, path])
            machine.writerow([patient, study, 6848296, *lines, "0.005-150 Hz", "60 Hz notch", *[800] * 9])


def megabytes() -> int:
    """The most main memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def drive(folder: str, address: str) -> tuple[int, ...]:
    """Make the rows of a folder's records on the cluster; megabytes before, with the index, its size, and at most."""
    with ray_cluster(address) as workers:
        before = megabytes()
        rows = IndexRows(MimicIvEcg(folder))
        index = megabytes()
        request = {"source": "mimic", "records": len(rows), "options": {}, "told": None}
        write_rows(rows, f"{folder}/pages", request, {"source": "", "dialogues": ""}, shard_size=500, workers=workers)
        return before, index, len(pickle.dumps(rows)) >> 20, megabytes()


def print_memory(place: Path, sizes: Sequence[int]) -> None:
    """Table 4."""
    print("\n| records | shards | took, s | driver without, MB | index read, MB | index in a task, MB | at most, MB |")
    print("|---|---|---|---|---|---|---|")
    with nodes(2) as cluster:
        for records in sizes:
            folder = place / str(records)
            write_tables(folder, records)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                start = time.perf_counter()
                figures = pool.submit(drive, str(folder), cluster.address).result()
            cells = (records, -(-records // 500), round(time.perf_counter() - start), *figures)
            print("|", " | ".join(map(str, cells)), "|", flush=True)
            shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--records", type=int, nargs="*", default=[10_000, 100_000, 800_000])
    parser.add_argument("--no-speeds", action="store_true", help="leave out tables 2 and 3")
    a = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if a.kills:
            print_kills(Path(folder), a.kills)
        if not a.no_speeds:
            print_speeds(Path(folder))
        if a.records:
            print_memory(Path(folder), a.records)


if __name__ == "__main__":
    from benchmarks.cluster import main  # nodes find what is in a module, and nothing of a script

    main()
