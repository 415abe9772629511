"""Statements, dialogues and data sets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from render.dataset import Options, open_dataset, write_dataset
from render.dialogue import CLOSED_FORMS, closed_question, dialogues, report_of
from render.files import InputError, whole_file, whole_folder
from render.record import LEADS, EcgRecord, in_lead_order
from render.simulate import Simulated, simulate
from render.statements import STATEMENTS, TASKS, task_classes, task_labels

SMALL = Options(width=560, closed=6, shard_size=4)


class Listed:
    """A source over given records; an InputError in the list is raised when read."""

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
    assert [len(task_classes(task)) for task in TASKS] == [71, 44, 23, 5, 19, 12]


def test_likelihood_is_not_asked_and_classes_come_from_diagnostic_codes():
    assert task_labels(["SR", "ABQRS"], "all") == {"SR", "ABQRS"}
    assert task_labels(["SR", "ABQRS"], "superdiagnostic") == frozenset()
    assert task_labels(["ASMI", "SR"], "subdiagnostic") == {"AMI"}
    assert task_labels(["UNHEARD_OF"], "all") == frozenset()


def test_leads_are_found_by_name_whatever_their_order_and_case():
    names = ["i", "ii", "iii", "AVR", "AVF", "AVL", "v1", "v2", "v3", "v4", "v5", "v6"]  # MIMIC has aVF first
    samples = np.arange(12, dtype=np.float64)[:, None] * np.ones((1, 5))
    ordered = in_lead_order(names, samples, "x")
    assert ordered[LEADS.index("aVF"), 0] == 4 and ordered[LEADS.index("aVL"), 0] == 5
    with pytest.raises(InputError, match="lead V6 missing"):
        in_lead_order(names[:-1], samples[:-1], "x")
    with pytest.raises(InputError, match="lead II stands twice"):
        in_lead_order([*names, "II"], np.vstack([samples, samples[:1]]), "x")


def test_every_statement_present_is_asked_and_answered_yes():
    record = simulate(1, ["AFIB"])
    made = dialogues(record, np.random.default_rng(0), closed=12)
    closed = [d for d in made if d.task == "closed"]
    assert len(closed) == 12 and len({d.statements for d in closed}) == 12
    assert {d.statements[0] for d in closed if d.answer == "Yes."} == set(record.statements)
    every = [d for seed in range(20) for d in dialogues(record, np.random.default_rng(seed), closed=4)]
    assert {d.task for d in every} == {"closed", "open", "report"}


def test_questions_differ_by_statement_in_every_form():
    for form in range(len(CLOSED_FORMS)):
        assert len({closed_question(code, form) for code in STATEMENTS}) == 71


def test_report_names_each_statement_once():
    assert report_of(["LVH", "SR"]) == "Sinus rhythm. Left ventricular hypertrophy."


def test_same_seed_same_bytes_whatever_the_workers_and_after_an_interruption(tmp_path):
    source = Simulated(3, 10)
    write_dataset(source, tmp_path / "one", SMALL)
    write_dataset(source, tmp_path / "two", SMALL, workers=2)
    calls = []

    def interrupt(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(source, tmp_path / "three", SMALL, progress=interrupt)
    with pytest.raises(InputError, match="--resume"):
        open_dataset(tmp_path / "three")
    with pytest.raises(InputError, match="already holds something"):
        write_dataset(source, tmp_path / "three", SMALL)
    with pytest.raises(InputError, match="other options"):
        write_dataset(source, tmp_path / "three", dataclasses.replace(SMALL, seed=9), resume=True)
    write_dataset(source, tmp_path / "three", SMALL, resume=True)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") == bytes_of(tmp_path / "three")


def test_opens_with_plain_load_dataset(tmp_path):
    write_dataset(Simulated(3, 5), tmp_path / "d", SMALL)
    rows = datasets.load_dataset(str(tmp_path / "d"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 5 and rows[0]["image"].size == (560, 280)
    assert rows[0]["dialogues"][0]["messages"][0]["role"] == "user"
    assert json.loads(rows[0]["geometry"])["mm_per_mv"] == 10
    assert "CC BY" not in (tmp_path / "d" / "README.md").read_text()


def test_damaged_records_stop_the_work_or_are_listed(tmp_path):
    good = simulate(4, ["SR"])
    flat = with_signal(good, lambda s: s.__setitem__(3, 0.0))
    gap = with_signal(good, lambda s: s.__setitem__(7, np.nan))
    short = dataclasses.replace(good, signal=good.signal[:, : int(9.98 * good.sampling_rate)])
    for record, message in (
        (flat, "lead aVR is flat"),
        (gap, "lead V2 is flat or holds NaN"),
        (short, r"9\.98 s"),
    ):
        with pytest.raises(InputError, match=message):
            write_dataset(Listed(good, record), tmp_path / "strict", SMALL)
        assert not (tmp_path / "strict" / "manifest.json").exists()
        (tmp_path / "strict" / "begun.json").unlink()
        (tmp_path / "strict" / "data").exists() and (tmp_path / "strict" / "data").rmdir()
    lenient = dataclasses.replace(SMALL, lenient=True)
    manifest = write_dataset(Listed(flat, gap, InputError("x.dat: truncated"), short), tmp_path / "d", lenient)
    assert manifest["pages"] == 3 and manifest["skipped"] == [{"index": 2, "reason": "x.dat: truncated"}]
    with pytest.raises(InputError, match=r"none of 1 records could be read; x\.dat"):
        write_dataset(Listed(InputError("x.dat: truncated")), tmp_path / "nothing", lenient)


def test_a_damaged_shard_is_one_line(tmp_path):
    write_dataset(Simulated(3, 4), tmp_path / "d", SMALL)
    shard = next((tmp_path / "d" / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match="render the data set again"):
        open_dataset(tmp_path / "d")


def test_writes_are_whole_or_not_there(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "old"
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "b") as folder:
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


def test_microvolts_read_as_millivolts_are_noticed():
    record = simulate(4, ["SR"])
    with pytest.raises(InputError, match="gain or unit"):
        dataclasses.replace(record, signal=record.signal * 1000)
