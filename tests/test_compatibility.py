"""What version 0.1 wrote goes on opening: a data set, a run, a report, a baseline, a calibration (tests/v0_1)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ecg_vlm.cli import main
from ecg_vlm.images import open_image
from ecg_vlm.reader import Reader
from eval.storage import read_scores_file
from recipes.config import load_recipe
from render.dataset.parquet import open_dataset
from render.errors import InputError

V0_1 = Path(__file__).with_name("v0_1")
"""Made by 0.1 with: render simulated pages --limit 6 --width 448 --seed 3 --closed 2 --tasks rhythm,morphology;
finetune quickstart data.train=pages lora.rank=1 lora.targets=cross-attention train.accumulate=2 --max-steps 2;
evaluate nano --data pages --limit 4; baseline train wavelet_nn --data simulated --limit 40 --epochs 1; baseline predict
--data simulated --limit 6 --seed 3; calibrate pred/scores.parquet --data pages."""

RENDER = ["--limit", "6", "--width", "448", "--seed", "3", "--closed", "2", "--tasks", "rhythm,morphology"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.png"
    assert main(["render", "simulated:AFIB", str(path)]) == 0
    return path


def paths_of(tree: object, prefix: str = "") -> set[str]:
    """Every key path of a JSON tree; the items of a list share one."""
    if isinstance(tree, dict):
        return {prefix}.union(*(paths_of(value, f"{prefix}.{key}") for key, value in tree.items()))
    if isinstance(tree, list):
        return {prefix}.union(*(paths_of(value, f"{prefix}[]") for value in tree))
    return {prefix}


def test_the_same_command_writes_the_same_data_set(tmp_path: Path) -> None:
    assert main(["render", "simulated", str(tmp_path / "pages"), *RENDER]) == 0
    old, new = open_dataset(V0_1 / "pages"), open_dataset(tmp_path / "pages")
    assert old.column_names == new.column_names and old.features == new.features
    assert pq.read_table(V0_1 / "pages" / "data").equals(pq.read_table(tmp_path / "pages" / "data"))
    assert list(old) == list(new)
    before, after = (json.loads((f / "manifest.json").read_text()) for f in (V0_1 / "pages", tmp_path / "pages"))
    assert {**before, "versions": 0} == {**after, "versions": 0}


def test_an_interrupted_data_set_is_resumed(tmp_path: Path) -> None:
    shutil.copytree(V0_1 / "pages", tmp_path / "pages")
    shard = next((tmp_path / "pages" / "data").iterdir())
    shard.unlink()
    assert main(["render", "simulated", str(tmp_path / "pages"), *RENDER, "--resume"]) == 0
    assert pq.read_table(tmp_path / "pages" / "data").equals(pq.read_table(V0_1 / "pages" / "data"))
    assert main(["render", "simulated", str(tmp_path / "pages"), *RENDER, "--resume", "--mask"]) == 2


def test_a_run_answers_is_judged_and_exported(page: Path, adapter_run: Path, tmp_path: Path) -> None:
    recipe = load_recipe(adapter_run / "recipe.yaml")
    assert recipe.lora is not None and recipe.lora.rank == 1
    assert load_recipe("quickstart", ["train.accumulate=2"]) != load_recipe("quickstart")
    reader = Reader.load(str(adapter_run))
    assert reader.ask(open_image(page), ["What is the rhythm?"])[0]
    words = ["evaluate", str(adapter_run), "--data", str(V0_1 / "pages"), "--limit", "2", "--out", str(tmp_path / "r")]
    assert main(words) == 2  # these are the pages that it was tuned on
    assert main([*words, "--force"]) == 0
    assert main(["export", str(adapter_run), str(tmp_path / "export")]) == 0


def test_a_run_on_the_weights_of_another_nano_is_refused() -> None:
    with pytest.raises(InputError, match=r"made for another nano .* the version that it was made with \(0\.1\.0\)"):
        Reader.load(str(V0_1 / "run"))


def test_a_report_is_judged_again_and_keeps_its_fields(tmp_path: Path) -> None:
    report = V0_1 / "report"
    assert main(["evaluate", "--from", str(report), "--out", str(tmp_path / "r")]) == 0
    old, new = (json.loads((folder / "report.json").read_text()) for folder in (report, tmp_path / "r"))
    assert paths_of(old["systems"]) <= paths_of(new["systems"]) and paths_of(old["tasks"]) <= paths_of(new["tasks"])
    assert set(old) <= set(new)
    assert old["systems"][0]["macro_auc"] == new["systems"][0]["macro_auc"]
    assert main(["compare", str(report), str(tmp_path / "r")]) == 0


def test_a_baseline_predicts_and_its_calibration_is_applied(tmp_path: Path) -> None:
    words = ["--data", "simulated", "--limit", "6", "--seed", "3"]
    assert main(["baseline", "predict", str(V0_1 / "baseline"), *words, "--out", str(tmp_path / "p")]) == 0
    new = read_scores_file(tmp_path / "p" / "scores.parquet")
    assert new.about["training"] == "wavelet_nn trained with ecg-vlm from random weights on 40 waveforms, 1 epoch"
    shutil.copytree(V0_1 / "pred", tmp_path / "pred")
    scores = tmp_path / "pred" / "scores.parquet"
    old = read_scores_file(scores)
    assert old.record_ids == new.record_ids and old.scores == pytest.approx(new.scores, abs=1e-6)
    words = ["evaluate", str(scores), "--data", str(V0_1 / "pages"), "--out", str(tmp_path / "r")]
    assert main(words) == 2  # it was calibrated on these pages
    assert main([*words, "--force"]) == 0
