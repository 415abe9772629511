"""Data sets at URLs: on an S3 server on the loopback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ecg_vlm.cli import main
from recipes.config import DataPart
from recipes.train import training_pages
from render.dataset.parquet import dataset_digest, is_dataset, open_dataset, write_dataset
from render.dataset.rows import Options
from render.errors import InputError
from render.io import atomic_write, user_path
from render.simulator.simulate import SimulatedSource

SMALL = Options(width=400, shard_size=2, tasks=("rhythm",))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "pages"
    write_dataset(SimulatedSource(3, 5), folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def remote(bucket: str) -> Any:
    """The same data set at a URL."""
    write_dataset(SimulatedSource(3, 5), f"{bucket}/pages", SMALL)
    return user_path(f"{bucket}/pages")


def contents(folder: Any) -> dict[str, bytes]:
    names = ["begun.json", "manifest.json", "README.md", *(f"data/{path.name}" for path in (folder / "data").iterdir())]
    return {name: (folder / name).read_bytes() for name in names}


def test_the_bytes_at_a_url_are_those_in_a_folder(local: Path, remote: Any) -> None:
    assert contents(remote) == contents(local)
    assert len(remote.fs.find(remote.path)) == 6


def test_what_reads_data_sets_reads_them_at_a_url(local: Path, remote: Any, tmp_path: Path) -> None:
    assert is_dataset(str(remote)) and not is_dataset(f"{remote}/data")
    assert dataset_digest(str(remote)) == dataset_digest(local)
    rows = open_dataset(str(remote), tmp_path)
    assert list(rows) == list(open_dataset(local)) and len(rows) == 5
    assert all(file["filename"].startswith(str(tmp_path)) for file in rows.cache_files)  # not in the home folder
    assert len(training_pages(DataPart(train=f"{remote},{local}"))) == 10
    with pytest.raises(InputError, match="no such data set folder"):
        open_dataset(f"{remote}/nothing")


def test_an_interrupted_data_set_at_a_url_goes_on(bucket: str, local: Path) -> None:
    url = user_path(f"{bucket}/resumed")

    def interrupt(count: int, total: int) -> None:
        if count == SMALL.shard_size + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(SimulatedSource(3, 5), url, SMALL, progress=interrupt)
    assert sorted(path.name for path in (url / "data").iterdir()) == ["train-00000-of-00003.parquet"]
    with pytest.raises(InputError, match="was not finished; run the same render command with --resume"):
        open_dataset(url)
    with pytest.raises(InputError, match="already exists and is not empty"):
        write_dataset(SimulatedSource(3, 5), url, SMALL)
    with pytest.raises(InputError, match="was started with other records"):
        write_dataset(SimulatedSource(4, 5), url, SMALL, resume=True)
    counts: list[int] = []
    write_dataset(SimulatedSource(3, 5), url, SMALL, resume=True, progress=lambda count, total: counts.append(count))
    assert contents(url) == contents(local) and counts[0] == SMALL.shard_size


def test_an_object_is_whole_or_not_there(bucket: str) -> None:
    url: Any = user_path(f"{bucket}/whole/file.txt")
    with pytest.raises(ZeroDivisionError), atomic_write(url) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert not url.exists()
    with atomic_write(url) as partial:
        partial.write_text("whole")
    assert url.read_text() == "whole" and not partial.exists()


@pytest.mark.parametrize(
    ("out", "options", "code", "message"),
    [
        ("{bucket}/x", ["--format", "llava"], 2, "a URL takes a data set as Parquet only"),
        ("{bucket}/x", ["--push-to-hub", "owner/name"], 2, "a URL takes a data set as Parquet only"),
        ("s4://bucket/x", [], 2, "s4://bucket/x: Unsupported filesystem"),
        ("s3://no-such-bucket/x", [], 1, "storage: The specified bucket does not exist"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(
    bucket: str, capsys: pytest.CaptureFixture[str], out: str, options: list[str], code: int, message: str
) -> None:
    arguments = ["render", "simulated", out.format(bucket=bucket), "--limit", "1", "--width", "400", "--quiet"]
    assert main([*arguments, *options]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_the_package_for_urls_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    assert main(["render", "simulated", "s3://bucket/x"]) == 2
    assert "pip install 'ecg-vlm[cluster]'" in capsys.readouterr().err
