"""Several sources as one: every record once, at its own rate, and restored ones never judged."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecg_vlm.cli import main
from ecg_vlm.control_pages import altered_pages
from ecg_vlm.pages import load_pages, source_labels
from eval.storage import records_in
from recipes.config import DataPart
from recipes.train import _held_out_pages
from render.dataset.parquet import open_dataset
from render.errors import InputError
from render.record import LEADS
from render.sources.ptbxl import RESTORED, PtbXl
from render.sources.registry import digest_of, open_source, prevalence_of, record_ids, record_labels
from render.statements import STATEMENTS

WriteWfdb = Callable[..., Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, ecg_mv: NDArray[np.float64], write_wfdb: WriteWfdb) -> dict[str, Path]:
    """Three PTB-XL folders: ids 1 and 2 at 500 Hz, 3 and 4 at 100 Hz, 5 and 6 restored; even ones are of fold 9."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("first", "more", "restored")}
    for k, (name, folder) in enumerate(folders.items()):
        rate = "100" if name == "more" else "500"
        rows = []
        for number in (2 * k + 1, 2 * k + 2):
            signal, end = (ecg_mv[:, ::5], "lr") if name == "more" else (ecg_mv, "hr")
            write_wfdb(folder / f"records{rate}", f"{number}_{end}", signal * number, float(rate), leads=LEADS)
            rows.append(
                {"ecg_id": number, "patient_id": number, "age": 50, "sex": 0, "report": "", "validated_by_human": True,
                 "scp_codes": str({"SR" if number % 2 else "AFIB": 100.0}), "strat_fold": 9 if number % 2 == 0 else 1,
                 "filename_lr": f"records100/{number}_lr", "filename_hr": f"records500/{number}_hr"}
            )  # fmt: skip
        _write_table(folder / "ptbxl_database.csv", rows)
        _write_table(folder / "scp_statements.csv", [{"": code, "diagnostic_class": ""} for code in STATEMENTS])
    (folders["restored"] / "restored.csv").write_text("ecg_id\n5\n6\n")
    return folders


def _write_table(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def words(folders) -> list[str]:
    return [f"ptbxl:{folder}" for folder in folders.values()]


def test_records_follow_each_other_with_their_own_source_and_one_rate(words, folders):
    source = open_source(words)
    records = [source.read(i) for i in range(len(source))]
    assert [record.record_id for record in records] == list("123456")
    assert [record.source for record in records] == ["ptbxl"] * 4 + [RESTORED] * 2
    assert {(record.sampling_rate, record.signal.shape) for record in records} == {(500.0, (12, 5000))}
    assert np.array_equal(records[3].signal, PtbXl(folders["more"]).read(1).signal)
    assert source.name == "ptbxl+ptbxl-restored" and prevalence_of(source) == {"SR": 0.5, "AFIB": 0.5}
    assert [label.record_id for label in record_labels(source)] == list("123456")
    for beyond in (-1, 6):
        with pytest.raises(IndexError):
            source.read(beyond)
    assert pickle.loads(pickle.dumps(source)).read(5).record_id == "6"
    assert len({digest_of(open_source(each)) for each in (words, words[:2], words[::-1], words[0])}) == 4


def test_limits_and_folds_are_those_of_each_source(words):
    assert list(record_ids(open_source(words, limit=1))) == ["1", "3", "5"]
    assert list(record_ids(open_source(words, folds=[9]))) == ["2", "4", "6"]
    mixture = open_source([words[0], "simulated"], limit=2, seed=7)
    assert list(record_ids(mixture)) == ["1", "2", "sim-7-0", "sim-7-1"] and prevalence_of(mixture) is None


def test_a_record_in_two_sources_is_refused(words, folders, tmp_path):
    with pytest.raises(InputError, match=f"record 1 is in {words[0]} and in {words[0]}/; leave one of them out"):
        open_source([words[0], words[0] + "/"])
    with pytest.raises(InputError, match="is named twice"):
        open_source([words[0], words[0]])
    with pytest.raises(InputError, match=r"record 1_hr is in wfdb:.* and in files:"):
        open_source([f"wfdb:{folders['first'] / 'records500'}", f"files:{folders['first'] / 'records500'}"])


def test_restored_records_teach_and_are_never_judged(words, tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    size = ("--width", "400", "--closed", "2")
    assert main(["render", *words, str(train), *size]) == 0
    rows = open_dataset(train)
    assert rows["record_id"] == list("123456")
    card = (train / "README.md").read_text()
    assert "Contains PTB-XL 1.0.3" in card and "signals restored from a derived form" in card
    assert load_pages(str(train)).record_ids == tuple("1234")
    assert source_labels(words).record_ids == tuple("1234")
    assert _held_out_pages(DataPart(validation=str(train)), tmp_path / "cache")["record_id"] == list("1234")
    assert main(["render", words[2], str(test), *size]) == 0
    with pytest.raises(InputError, match="restored records are for training, never judged on"):
        load_pages(str(test))
    with pytest.raises(InputError, match="restored ones are for training"):
        _held_out_pages(DataPart(validation=str(test)), tmp_path / "cache")


def test_a_network_learns_from_all_and_predicts_on_those_that_may_be_judged(words, tmp_path, capsys):
    pytest.importorskip("torch")
    data = [part for word in words for part in ("--data", word)]
    cnn, out = str(tmp_path / "cnn"), tmp_path / "out"
    arguments = ["baseline", "train", "wavelet_nn", *data, "--folds", "1", "--validate-folds", "9", "--epochs", "1"]
    assert main([*arguments, "--out", cnn]) == 0
    assert "trained on 3 records" in capsys.readouterr().out
    assert main(["baseline", "predict", cnn, *data, "--folds", "9", "--out", str(out)]) == 0
    assert records_in(out / "scores.parquet") == ("2", "4")
    assert main(["baseline", "predict", cnn, "--data", words[2], "--out", str(tmp_path / "none")]) == 2
    assert "restored records are for training" in capsys.readouterr().err


def test_several_folders_of_pages_are_judged_together(words, tmp_path, capsys):
    for name, word in zip("ab", words, strict=False):
        assert main(["render", word, str(tmp_path / name), "--width", "400", "--closed", "2"]) == 0
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    pages = load_pages([a, b])
    assert pages.record_ids == tuple("1234") and pages.places == (0, 1, 0, 1)
    with pytest.raises(InputError, match=f"record . is in {a} and in {a}/; leave one of them out"):
        load_pages([a, a + "/"])
    with pytest.raises(InputError, match="--controls-source: goes with one --data folder"):
        altered_pages(pages, words, 0)
    assert set(altered_pages(load_pages(a), words, 0)) >= {"layout", "style"}
    scores = tmp_path / "s.csv"
    scores.write_text("record_id,AFIB\n1,0.1\n2,0.9\n3,0.2\n4,0.8\n")
    report, labels = tmp_path / "report", [part for word in words for part in ("--labels", word)]
    assert main(["evaluate", str(scores), "--data", a, "--data", b, "--out", str(report)]) == 0
    assert main(["evaluate", str(scores), *labels, "--out", a + "l"]) == 0
    assert main(["calibrate", str(scores), "--data", a, "--data", b]) == 0
    assert '"records": 4' in (report / "report.json").read_text()
    assert "calibration.json\nfitted on: " in capsys.readouterr().out
