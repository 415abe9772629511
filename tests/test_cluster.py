"""Rendering on a Ray cluster whose nodes are processes of this machine: the bytes are those of one process."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

# Ray reads these when it is imported: only the loopback, no home folder, and nothing is sent to anyone.
os.environ["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN", secrets.token_hex(16))
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
pytest.importorskip("ray", reason="ray is not installed: pip install 'ecg-vlm[cluster]'")
import ray
from ray.cluster_utils import Cluster

from benchmarks import cluster as benchmark
from ecg_vlm.cli import main
from ecg_vlm.nodes import ReaderOnNodes
from render import cluster as ray_engine
from render.dataset.data_card import package_versions
from render.dataset.parquet import write_dataset, write_rows
from render.dataset.rows import Options
from render.errors import InputError, WorkFailed
from render.io import user_path
from render.record import EcgRecord
from render.simulator.simulate import SimulatedSource
from render.sources.mimic import MimicIvEcg
from render.workers import Step, run_tasks

_ROOT = Path(__file__).parents[1]
_LONGEST_S = 300  # of a wait that ends in seconds; a bound only where something is wrong
SMALL = Options(width=400, shard_size=2, seed=3)
_RECORDS = 6


class Gate:
    """Simulated records. Every read leaves a line in `folder`; all records but the first two wait for the file `open`.

    kill: the record whose first reader ends its own process, as the system does where memory is short.
    """

    name = "simulated"

    def __init__(self, folder: Path, kill: int | None = None) -> None:
        self._folder, self._kill = folder, kill
        self._source = SimulatedSource(SMALL.seed, _RECORDS)

    def __len__(self) -> int:
        return _RECORDS

    def digest(self) -> str:
        return self._source.digest()

    def read(self, i: int) -> EcgRecord:
        with (self._folder / str(i)).open("a") as file:
            file.write(f"{os.getpid()}\n")
        if i == self._kill and self.reads(i) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        wait_for(lambda: i < SMALL.shard_size or (self._folder / "open").exists())
        return self._source.read(i)

    def reads(self, i: int) -> int:
        """How often record i was read."""
        file = self._folder / str(i)
        return file.read_text().count("\n") if file.exists() else 0


class Hungry(Gate):
    """The first reader of record 3 takes 5 GB, a little at a time, as long as it is let."""

    def read(self, i: int) -> EcgRecord:
        record = super().read(i)
        if i == 3 and self.reads(i) == 1:
            taken = []
            for _ in range(40):
                taken.append(np.ones(1 << 24))
                time.sleep(0.1)
            (self._folder / "let").touch()
        return record


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _LONGEST_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """Where clusters write. Afterwards no process of them is alive."""
    place = tempfile.mkdtemp(prefix="ray")  # paths of sockets have 107 bytes, too few for pytest's folders
    Path(place, "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", place)  # for the cluster's address, else in /tmp/ray, which has to be there
        yield place
    shutil.rmtree(place, ignore_errors=True)
    _, alive = psutil.wait_procs(processes_of(place), timeout=_LONGEST_S)
    assert not alive


def processes_of(place: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended meanwhile, or is another user's
            if process.environ().get("RAY_TMPDIR") == place:
                processes.append(process)
    return processes


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A head without cores and two nodes with one each, and a connection to them. They know the bucket's variables."""
    if os.environ.get("ECG_VLM_CLUSTER_TESTS") != "1":  # Ray gives its processes seconds to start: busy cores need more
        pytest.skip("starts a Ray cluster of several nodes on this machine: make cluster")
    place = request.getfixturevalue("place")
    request.getfixturevalue("bucket")
    one = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "temp_dir": place, "include_dashboard": False, **one})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **one)
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The data set as one process of this machine makes it."""
    folder = tmp_path_factory.mktemp("local") / "pages"
    write_dataset(SimulatedSource(SMALL.seed, _RECORDS), folder, SMALL)
    return bytes_of(folder)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_an_address_a_cluster_of_this_machine_alone_makes_the_same_bytes(
    tmp_path: Path, place: str, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["render", "simulated", str(tmp_path / "pages"), "--limit", str(_RECORDS), "--seed", str(SMALL.seed)]
    arguments += ["--width", str(SMALL.width), "--shard-size", str(SMALL.shard_size), "--engine", "ray", "--quiet"]
    found: list[int] = []
    shut_down = ray.shutdown

    def shutdown() -> None:
        found.append(len(processes_of(place)))
        shut_down()

    monkeypatch.setattr(ray, "shutdown", shutdown)
    assert main([*arguments, "--workers", "1"]) == 0
    assert bytes_of(tmp_path / "pages") == local and found[0] > 3 and not ray.is_initialized()


def test_a_task_that_takes_the_memory_is_ended_by_ray_and_made_again(
    tmp_path: Path, place: str, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("ECG_VLM_CLUSTER_TESTS") != "1":  # another process may take the memory that is left
        pytest.skip("takes 2 GB until Ray ends it: make cluster")
    memory = psutil.virtual_memory()
    threshold = 1 - (memory.available - (3 << 29)) / memory.total  # Ray's limit is all memory in use and 1.5 GB more
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    source = Hungry(tmp_path)
    (tmp_path / "open").touch()
    with ray_engine.ray_cluster(most=1) as cluster:
        write_dataset(source, tmp_path / "pages", SMALL, workers=cluster)
    assert bytes_of(tmp_path / "pages") == local and source.reads(3) > 1 and not (tmp_path / "let").exists()


def test_a_lost_process_and_a_lost_node_change_no_byte(tmp_path: Path, nodes: Any, local: dict[str, bytes]) -> None:
    source, steps = Gate(tmp_path, kill=1), []

    def lose_node(count: int, total: int) -> None:
        steps.append(count)
        at_the_gate = [i for i in (2, 4) if source.reads(i)]
        if len(at_the_gate) == 2 and not (tmp_path / "open").exists():
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
            (tmp_path / "pages" / ".half.ecg-vlm-abcdefgh.parquet").touch()
            (tmp_path / "open").touch()

    with ray_engine.ray_cluster() as cluster:
        write_dataset(source, tmp_path / "pages", SMALL, workers=cluster, progress=lose_node)
    assert bytes_of(tmp_path / "pages") == local  # the temporary file that a lost node left is gone, too
    assert source.reads(1) == 2 and sorted(source.reads(i) for i in (2, 4)) == [1, 2]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == _RECORDS
    nodes.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=80 << 20)


def drive(folder: str, address: str) -> None:
    """What the process does that is killed below."""
    with ray_engine.ray_cluster(address) as cluster:
        write_dataset(Gate(Path(folder)), Path(folder) / "pages", SMALL, workers=cluster)


def test_a_killed_driver_loses_no_shard(tmp_path: Path, nodes: Any, local: dict[str, bytes]) -> None:
    program = f"from tests.test_cluster import drive; drive({str(tmp_path)!r}, {nodes.address!r})"
    driver = subprocess.Popen([sys.executable, "-c", program], cwd=_ROOT, stderr=subprocess.DEVNULL)
    shard = tmp_path / "pages" / "data" / "train-00000-of-00003.parquet"
    wait_for(lambda: shard.exists() or driver.poll() is not None)
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    assert not (tmp_path / "pages" / "manifest.json").exists()
    (tmp_path / "open").touch()
    with ray_engine.ray_cluster() as cluster:
        write_dataset(Gate(tmp_path), tmp_path / "pages", SMALL, workers=cluster, resume=True)
    assert bytes_of(tmp_path / "pages") == local and Gate(tmp_path).reads(0) == 1


def test_the_command_line_makes_the_same_bytes(tmp_path: Path, nodes: Any, local: dict[str, bytes]) -> None:
    arguments = ["render", "simulated", str(tmp_path / "pages"), "--limit", str(_RECORDS), "--seed", str(SMALL.seed)]
    arguments += ["--width", str(SMALL.width), "--shard-size", str(SMALL.shard_size), "--engine", "ray"]
    assert main([*arguments, "--address", nodes.address, "--workers", "1", "--quiet"]) == 0
    assert bytes_of(tmp_path / "pages") == local


def test_nodes_write_to_a_url(nodes: Any, request: pytest.FixtureRequest, local: dict[str, bytes]) -> None:
    url: Any = user_path(f"{request.getfixturevalue('bucket')}/of-nodes")
    with ray_engine.ray_cluster() as cluster:
        write_dataset(SimulatedSource(SMALL.seed, _RECORDS), url, SMALL, workers=cluster)
    assert {path.removeprefix(f"{url.path}/"): url.fs.cat(path) for path in url.fs.find(url.path)} == local


def test_a_model_on_the_nodes_is_judged_as_here(tmp_path: Path, nodes: Any) -> None:
    write_dataset(SimulatedSource(SMALL.seed, 3), tmp_path / "pages", dataclasses.replace(SMALL, unreadable=0.4))
    arguments = ["evaluate", "nano", "--data", str(tmp_path / "pages"), "--batch", "1", "--quiet", "--out"]
    reports = []
    for name, options in (("here", []), ("nodes", ["--engine", "ray"])):
        assert main([*arguments, str(tmp_path / name), *options]) == 0
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
        costs = [system.pop("cost") for system in reports[-1]["systems"]]
        assert costs[0]["pages"] == reports[-1]["records"]
    assert reports[0] == reports[1]
    tables = [pq.read_table(tmp_path / name / "scores.parquet") for name in ("here", "nodes")]
    assert tables[0].equals(tables[1]) and len(tables[0]) == reports[0]["records"]  # to the last digit
    answers = [(tmp_path / name / "answers.jsonl").read_bytes() for name in ("here", "nodes")]
    assert answers[0] == answers[1] and answers[0].count(b"\n") == 3


def test_questions_are_answered_on_the_nodes_as_here(tmp_path: Path, nodes: Any) -> None:
    for i in range(3):
        assert main(["render", "simulated", str(tmp_path / "scans" / f"{i}.png"), "--seed", str(i), "--quiet"]) == 0
    files = [tmp_path / f"{name}.jsonl" for name in ("here", "nodes")]
    ask = ["ask", str(tmp_path / "scans"), "-q", "What is the rhythm?", "--statements", "--quiet", "--out"]
    assert main([*ask, str(files[0])]) == 0 and main([*ask, str(files[1]), "--engine", "ray"]) == 0
    whole = files[0].read_bytes()
    assert files[1].read_bytes() == whole and whole.count(b"\n") == 3
    files[1].write_bytes(whole[: whole.index(b"\n") + 20])  # of a command that was killed
    assert main([*ask, str(files[1]), "--engine", "ray", "--resume"]) == 0 and files[1].read_bytes() == whole


def test_a_network_predicts_on_the_nodes_as_here(tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.baselines.train._RECORDS_A_TASK", 32)
    predict = [
        "baseline",
        "predict",
        str(_ROOT / "tests" / "v0_1" / "baseline"),
        "--data",
        "simulated",
        "--limit",
        "70",
    ]
    for name, options in (("here", []), ("nodes", ["--engine", "ray"])):
        assert main([*predict, "--quiet", "--out", str(tmp_path / name), *options]) == 0
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "nodes")


def judge(pages: str, out: str, address: str) -> None:
    """What the process does that is killed below."""
    arguments = ["evaluate", "nano", "--data", pages, "--batch", "1", "--quiet", "--out", out]
    main([*arguments, "--engine", "ray", "--address", address, "--workers", "1"])


def test_a_killed_evaluation_goes_on_to_the_same_report(tmp_path: Path, nodes: Any) -> None:
    write_dataset(SimulatedSource(SMALL.seed, 12), tmp_path / "pages", SMALL)
    pages, out = str(tmp_path / "pages"), tmp_path / "report"
    program = f"from tests.test_cluster import judge; judge({pages!r}, {str(out)!r}, {nodes.address!r})"
    driver = subprocess.Popen([sys.executable, "-c", program], cwd=_ROOT, stderr=subprocess.DEVNULL)
    results = out / ".unfinished" / "system 0.jsonl"
    wait_for(lambda: (results.exists() and results.read_bytes().count(b"\n") > 1) or driver.poll() is not None)
    assert driver.poll() is None
    driver.kill()
    driver.wait()
    first = results.read_bytes()
    assert not (out / "report.json").exists() and 2 <= first.count(b"\n") < 12
    arguments = ["evaluate", "nano", "--data", pages, "--batch", "1", "--quiet", "--out"]
    assert main([*arguments, str(out), "--resume", "--engine", "ray"]) == 0
    assert main([*arguments, str(tmp_path / "here")]) == 0
    reports = [json.loads((folder / "report.json").read_text()) for folder in (out, tmp_path / "here")]
    for report in reports:
        assert [system.pop("cost")["pages"] for system in report["systems"]] == [12]
    assert reports[0] == reports[1]
    assert (out / "answers.jsonl").read_bytes() == (tmp_path / "here" / "answers.jsonl").read_bytes()
    assert pq.read_table(out / "scores.parquet").equals(pq.read_table(tmp_path / "here" / "scores.parquet"))


def name_or_die(folder: Path, reader: Any, batch: Any) -> tuple[str, int]:
    """The first process that gets the number 2 ends, as the system ends it where memory is short."""
    if batch == [2] and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return reader.name, batch[0]


def test_a_batch_whose_process_dies_is_made_again(tmp_path: Path, nodes: Any) -> None:
    results: list[Any] = []
    with ray_engine.ray_cluster(has_model=True) as cluster:
        reader = ReaderOnNodes(cluster, "nano", {})
        work = partial(name_or_die, tmp_path)
        reader.run(work, ([i] for i in range(5)), lambda *result: results.append(result), lambda steps: None)
    assert results == [(i, ("nano", i)) for i in range(5)] and (tmp_path / "died").exists()


class Damaged(Gate):
    """One record cannot be read."""

    def read(self, i: int) -> EcgRecord:
        raise InputError(f"record {i}: is damaged")


def test_an_error_of_a_task_is_raised_here(tmp_path: Path, nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_engine.ray_cluster() as cluster:
        with pytest.raises(InputError, match=r"^record [024]: is damaged$"):
            write_dataset(Damaged(tmp_path), tmp_path / "a", SMALL, workers=cluster)
        monkeypatch.setattr(ray_engine, "_RETRIES", 0)
        (tmp_path / "open").touch()
        with pytest.raises(WorkFailed, match=r"a task was lost on the cluster .*--resume"):
            write_dataset(Gate(tmp_path, kill=5), tmp_path / "b", SMALL, workers=cluster)
        versions = package_versions() | {"numpy": "0.1"}
        monkeypatch.setattr("render.dataset.parquet.package_versions", lambda: versions)
        with pytest.raises(InputError, match=r"'numpy': '0\.1'.* install the same versions on all machines"):
            write_dataset(Gate(tmp_path), tmp_path / "c", SMALL, workers=cluster)


def one_step(number: int, step: Step) -> None:
    step()


def test_tasks_wait_here_until_there_is_room(nodes: Any) -> None:
    submitted = 0

    def tasks() -> Iterator[tuple[int]]:
        nonlocal submitted
        for submitted in range(1, 41):
            yield (submitted,)

    ahead: list[int] = []
    with ray_engine.ray_cluster(most=3) as cluster:
        run_tasks(one_step, tasks(), cluster, lambda steps: ahead.append(submitted - steps))
    assert submitted == 40 and max(ahead) <= 3 and ahead[-1] == 0


def test_the_benchmark_makes_rows_of_generated_tables(tmp_path: Path) -> None:
    benchmark.write_tables(tmp_path / "mimic", 7)
    rows = benchmark.IndexRows(MimicIvEcg(tmp_path / "mimic"))
    assert len(rows) == 7 and set(rows.row(2)[0]) == set(rows.schema().names)
    request = {"source": "mimic", "records": len(rows), "options": {}, "told": None}
    manifest = write_rows(rows, tmp_path / "pages", request, {"source": "", "dialogues": ""}, shard_size=3)
    assert manifest["pages"] == 7 and len(list((tmp_path / "pages" / "data").iterdir())) == 3


def test_without_a_cluster_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    render = ["render", "simulated", str(tmp_path / "pages"), "--limit", "1"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert main([*render, "--engine", "ray", "--address", address]) == 2
    assert f"--address {address}: no Ray cluster can be reached" in capsys.readouterr().err
    assert main([*render, "--address", "auto"]) == 2
    assert "add --engine ray" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*render, "--engine", "ray"]) == 2
    assert "pip install 'ecg-vlm[cluster]'" in capsys.readouterr().err
    assert not (tmp_path / "pages").exists()
