"""Label tasks, records and data sets."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from ecg_vlm.cli import main
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options
from render.dialogues.compose import Dialogue
from render.errors import InputError
from render.io import atomic_folder, atomic_write
from render.pages.geometry import PageGeometry
from render.record import LEADS, EcgRecord
from render.simulator.simulate import SimulatedSource, simulate
from render.sources.lead_names import in_lead_order
from render.statements import LABEL_TASKS, task_classes, task_labels

SMALL = Options(width=560, closed=6, shard_size=4)


class ListSource:
    """A source of these records; `read` raises an InputError of the list."""

    name = "wfdb"

    def __init__(self, *records: EcgRecord | InputError) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, i: int) -> EcgRecord:
        record = self.records[i]
        if isinstance(record, InputError):
            raise record
        return record


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def with_signal(record: EcgRecord, change) -> EcgRecord:
    signal = record.signal.copy()
    change(signal)
    return dataclasses.replace(record, signal=signal)


def test_class_counts_of_the_benchmark():
    assert [len(task_classes(task)) for task in LABEL_TASKS] == [71, 44, 23, 5, 19, 12]


def test_likelihood_is_not_asked_and_classes_come_from_diagnostic_codes():
    assert task_labels(["SR", "ABQRS"], "all") == {"SR", "ABQRS"}
    assert task_labels(["SR", "ABQRS"], "superdiagnostic") == frozenset()
    assert task_labels(["ASMI", "SR"], "subdiagnostic") == {"AMI"}
    assert task_labels(["UNHEARD_OF"], "all") == frozenset()


def test_leads_are_matched_by_name_in_any_order_and_case():
    names = ["i", "ii", "iii", "AVR", "AVF", "AVL", "v1", "v2", "v3", "v4", "v5", "v6"]  # MIMIC has aVF first
    samples = np.arange(12, dtype=np.float64)[:, None] * np.ones((1, 5))
    rows = in_lead_order(names, samples, "x")
    assert rows[LEADS.index("aVF"), 0] == 4 and rows[LEADS.index("aVL"), 0] == 5
    with pytest.raises(InputError, match="lead V6 missing"):
        in_lead_order(names[:-1], samples[:-1], "x")
    with pytest.raises(InputError, match="two channels are named II"):
        in_lead_order([*names, "II"], np.vstack([samples, samples[:1]]), "x")


def test_same_seed_same_bytes_whatever_the_workers_and_after_an_interruption(tmp_path):
    source = SimulatedSource(3, 10)
    write_dataset(source, tmp_path / "one", SMALL)
    write_dataset(source, tmp_path / "two", SMALL, workers=2)
    calls = []

    def interrupt(count: int, total: int) -> None:
        calls.append(count)
        if count == SMALL.shard_size + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(source, tmp_path / "three", SMALL, progress=interrupt)
    assert calls == [0, 1, 2, 3, 4, 5] and len(list((tmp_path / "three" / "data").iterdir())) == 1
    with pytest.raises(InputError, match="--resume"):
        open_dataset(tmp_path / "three")
    with pytest.raises(InputError, match="already exists and is not empty"):
        write_dataset(source, tmp_path / "three", SMALL)
    with pytest.raises(InputError, match="was started with options"):
        write_dataset(source, tmp_path / "three", dataclasses.replace(SMALL, seed=9), resume=True)
    (tmp_path / "three" / "data" / ".train-00002-of-00003.parquet.x1.parquet").write_bytes(b"half a shard")  # kill -9
    write_dataset(source, tmp_path / "three", SMALL, resume=True)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") == bytes_of(tmp_path / "three")


def test_pages_of_a_record_differ_in_look_and_have_the_same_dialogues(tmp_path):
    options = dataclasses.replace(
        SMALL, per_record=3, layout="mixed", style="mixed", mask=True, tasks=("rhythm",), forms=("closed", "open")
    )
    manifest = write_dataset(SimulatedSource(3, 3), tmp_path / "d", options)
    rows = open_dataset(tmp_path / "d")
    assert manifest["pages"] == len(rows) == 9
    assert [row["record_id"] for row in rows][::3] == [row["record_id"] for row in rows][1::3]
    assert len({(row["layout"], row["style"]) for row in rows}) > 4
    assert set(manifest["dialogue_counts"]) == {"rhythm"} and set(manifest["form_counts"]) == {"closed", "open"}
    for row in rows:
        assert row["mask"].size == row["image"].size and set(np.unique(row["mask"])) <= {0, 1, 2, 3}
    again = write_dataset(SimulatedSource(3, 3), tmp_path / "other", dataclasses.replace(options, style="clean"))
    other = open_dataset(tmp_path / "other")
    assert [row["dialogues"] for row in rows] == [row["dialogues"] for row in other] and again["pages"] == 9
    assert rows["layout"][:] == other["layout"][:], "the style changes the layout"


@pytest.mark.parametrize(("layout", "dpi", "size"), [("3x4", 127, (1400, 700)), ("3x4,Letter", 200, (2200, 1700))])
def test_a_resolution_gives_the_papers_true_size(tmp_path, layout, dpi, size):
    write_dataset(SimulatedSource(3, 1), tmp_path / "d", Options(layout=layout, dpi=dpi))
    image = open_dataset(tmp_path / "d")[0]["image"]
    assert image.size == size
    assert image.info["dpi"][0] == pytest.approx(dpi, abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"style": "fotocopy"},
        {"style": "photo,blur=2"},
        {"style": "bluur=0.2"},
        {"layout": "4x3"},
        {"tasks": ("rythm",)},
        {"forms": ()},
    ],
)
def test_wrong_options_are_refused_before_any_work(options):
    with pytest.raises(InputError):
        Options(**options)


class SomeDialogues:
    """Dialogues of the records with odd numbers."""

    name = "some.json"

    def dialogues(self, record: EcgRecord) -> list[Dialogue]:
        dialogue = Dialogue("report", "open", "What is it?", "Sinus rhythm.", (), "machine")
        return [dialogue] if int(record.record_id.split("-")[-1]) % 2 else []


def test_a_dialogue_source_replaces_composed_dialogues(tmp_path):
    source = SimulatedSource(3, 4)
    odd = [i for i in range(4) if int(source.read(i).record_id.split("-")[-1]) % 2]
    manifest = write_dataset(source, tmp_path / "d", SMALL, dialogue_source=SomeDialogues())
    assert manifest["pages"] == len(odd) and len(manifest["skipped"]) == 4 - len(odd)
    assert all("no dialogue of it in some.json" in page["reason"] for page in manifest["skipped"])
    assert open_dataset(tmp_path / "d")[0]["dialogues"][0]["messages"][1]["content"] == "Sinus rhythm."


def test_report_lines_without_a_statement_are_counted(tmp_path):
    good = simulate(4, ["SR"])
    lines = ("Abnormal ECG", "Report made without knowing age")
    source = ListSource(
        dataclasses.replace(good, unmapped_lines=lines), dataclasses.replace(good, unmapped_lines=lines[:1])
    )
    manifest = write_dataset(source, tmp_path / "d", SMALL)
    assert manifest["unmapped_report_lines"] == 3
    assert list(manifest["most_unmapped"].items()) == [(lines[0], 2), (lines[1], 1)]
    assert "Abnormal ECG" in (tmp_path / "d" / "README.md").read_text()


def test_a_full_disk_is_one_line_and_leaves_no_half_shard(tmp_path, monkeypatch, capsys):
    real = pq.write_table

    def full(table, where, **kwargs):
        real(table, where, **kwargs)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))

    monkeypatch.setattr(pq, "write_table", full)
    assert main(["render", "simulated", str(tmp_path / "d"), "--limit", "2", "--width", "560"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "No space left on device" in lines[-1] and "Traceback" not in "".join(lines)
    assert not list((tmp_path / "d" / "data").iterdir())


def test_opens_with_plain_load_dataset(tmp_path):
    write_dataset(SimulatedSource(3, 5), tmp_path / "d", SMALL)
    rows = datasets.load_dataset(str(tmp_path / "d"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 5 and rows[0]["image"].size == (560, 280)
    assert rows[0]["dialogues"][0]["messages"][0]["role"] == "user"
    assert PageGeometry.from_json(rows[0]["geometry"]).mm_per_mv == 10
    assert "CC BY" not in (tmp_path / "d" / "README.md").read_text()


def test_damaged_records_stop_the_work_or_are_listed(tmp_path):
    good = simulate(4, ["SR"])
    flat = with_signal(good, lambda s: s.__setitem__(3, 0.0))
    gap = with_signal(good, lambda s: s.__setitem__(7, np.nan))
    short = dataclasses.replace(good, signal=good.signal[:, : int(9.98 * good.sampling_rate)])
    for record, message in (
        (flat, "lead aVR is flat"),
        (gap, "lead V2 is flat or contains NaN"),
        (short, r"9\.98 s"),
    ):
        with pytest.raises(InputError, match=message):
            write_dataset(ListSource(good, record), tmp_path / "strict", SMALL)
        assert not (tmp_path / "strict" / "manifest.json").exists()
        (tmp_path / "strict" / "begun.json").unlink()
        (tmp_path / "strict" / "data").exists() and (tmp_path / "strict" / "data").rmdir()
    lenient = dataclasses.replace(SMALL, lenient=True)
    manifest = write_dataset(ListSource(flat, gap, InputError("x.dat: truncated"), short), tmp_path / "d", lenient)
    assert manifest["pages"] == 3 and manifest["skipped"] == [{"index": 2, "reason": "x.dat: truncated"}]
    with pytest.raises(InputError, match=r"none of 1 records could be used; x\.dat"):
        write_dataset(ListSource(InputError("x.dat: truncated")), tmp_path / "nothing", lenient)


def test_a_damaged_shard_is_one_line(tmp_path):
    write_dataset(SimulatedSource(3, 4), tmp_path / "d", SMALL)
    shard = next((tmp_path / "d" / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match="render the data set again"):
        open_dataset(tmp_path / "d")


def test_writes_are_atomic(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling_rate": 0.0}, "not positive"),
        ({"signal": np.zeros((11, 900), np.float32)}, "expected float32"),
    ],
)
def test_impossible_records_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(simulate(4, ["SR"]), **change)


def test_microvolts_read_as_millivolts_are_detected():
    record = simulate(4, ["SR"])
    with pytest.raises(InputError, match="gain or unit"):
        dataclasses.replace(record, signal=record.signal * 1000)
