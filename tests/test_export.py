"""Export: adapter and merged model load with stock libraries and answer like the run, or nothing is written.

To the hub and back: what is sent is what was listed, and an adapter by its hub id is opened like one on the disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import datasets
import huggingface_hub
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.errors import EntryNotFoundError
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from ecg_vlm.cli import main
from ecg_vlm.reader import Reader
from recipes import export as exporting
from recipes import model as models
from recipes.config import DataPart, LoraPart, ModelPart, Recipe, save_recipe
from recipes.doctor import Gpu, Machine
from recipes.export import QUESTIONS, export, place
from recipes.model import add_lora, base_fingerprint, load_model, nano_path
from recipes.run_folder import card_header, licence_notice
from recipes.train import training_pages
from render.dataset.parquet import open_dataset
from render.errors import InputError, WorkFailed


def finished_run(folder, model: ModelPart | None = None, *, lora: LoraPart | None = None):
    """A run's folder as `finetune` leaves it, with a random adapter."""
    part = model or ModelPart()
    recipe = Recipe("tiny", part, lora)
    torch.manual_seed(0)
    model_of_run = load_model(part)
    if lora is not None:
        model_of_run = add_lora(model_of_run, lora)
        for name, parameter in model_of_run.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        for config in model_of_run.peft_config.values():
            config.base_model_name_or_path = part.base
        model_of_run.save_pretrained(str(folder), save_embedding_layers=False)
    else:
        model_of_run.save_pretrained(str(folder))
        AutoProcessor.from_pretrained(nano_path()).save_pretrained(str(folder))
    save_recipe(recipe, folder / "recipe.yaml")
    facts = {
        "name": "tiny",
        "base": part.base,
        "base_sha256": base_fingerprint(part.base) if lora is not None else "",
        "pages": 12,
        "records": ["secret-1", "secret-2"],
        "patients": ["patient-7"],
        "parameters": 1000,
        "trained_parameters": 10,
        "steps": 5,
        "seconds": 1.5,
        "losses": [[1, 2.0], [5, 1.25]],
        "validation_losses": [],
        "versions": {"torch": "2.0"},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def _change_facts(folder, **changes):
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("run"), lora=LoraPart(rank=4))


def test_the_adapter_alone_is_stock_peft_and_brings_nano_along(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    result = export(run, out, merge=False)
    assert result["agreement"]["largest"] < 1e-4 and result["agreement"]["same_token"] == 1.0
    assert result["agreement"]["tokens"] > 4 * len(QUESTIONS) and not result["merged"]
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (run, out))
    assert ours and ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./base" and not list(out.rglob("*.py"))
    new_place = out.rename(tmp_path / "moved")
    assert PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(new_place / "base"), new_place)
    plain = new_place / "plain"
    plain.touch()
    assert {file.stat().st_mode for file in new_place.rglob("*.safetensors")} == {plain.stat().st_mode}
    monkeypatch.chdir(new_place)
    loaded_model = AutoModelForImageTextToText.from_pretrained(".")  # finds ./base by itself
    assert any("lora_A" in name for name, _ in loaded_model.named_parameters())


def test_a_merged_model_is_whole(run, tmp_path):
    out = tmp_path / "out"
    result = export(run, out, merge=True)
    assert result["merged"] and result["agreement"]["largest"] < 1e-4
    model, processor = AutoModelForImageTextToText.from_pretrained(out), AutoProcessor.from_pretrained(out)
    assert type(model).__name__ == "MllamaForConditionalGeneration" and model.dtype == torch.float32
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert (out / "generation_config.json").is_file() and processor.image_token_id == model.config.image_token_id
    base_weights = load_model(ModelPart()).state_dict()
    assert any(not torch.equal(base_weights[name], tensor) for name, tensor in model.state_dict().items())


def test_an_adapter_trained_on_4_bits_is_merged_in_16(tmp_path):
    pytest.importorskip("bitsandbytes")
    (tmp_path / "run").mkdir()
    part = ModelPart(quantization="nf4", dtype="bfloat16")
    folder = finished_run(tmp_path / "run", part, lora=LoraPart(rank=4))
    result = export(folder, tmp_path / "out", merge=True)
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert result["agreement"]["largest"] <= 0.3 and result["agreement"]["same_token"] >= 0.9
    assert result["agreement_with_4bit"]["largest"] > result["agreement"]["largest"]
    assert result["agreement_with_4bit"]["same_token"] > 0.3
    assert "4-bit" in (tmp_path / "out" / "README.md").read_text()
    # a logit of eight standard deviations has steps of .03 in bfloat16; two of them come together
    assert export(folder, tmp_path / "adapter", merge=False)["agreement"]["largest"] < 7e-2


def test_a_model_is_merged_on_the_cpu_where_it_does_not_fit_into_the_gpu():
    eleven = ModelPart(base="random:11b", dtype="bfloat16", quantization="none")
    cards = {size: Machine(2, 10**11, 10**11, (Gpu("a card", size * 10**9, size * 10**9),)) for size in (12, 24, 80)}
    assert [place(eleven, card) for card in cards.values()] == ["cpu", "cpu", ""]
    four_bit = replace(eleven, quantization="nf4")
    assert [place(four_bit, card) for card in cards.values()] == ["", "", ""]
    assert place(eleven, Machine(2, 10**11, 10**11, ())) == ""


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_export_in_another_type_and_place(dtype, run, tmp_path):
    out = tmp_path / "out"
    assert export(run, out, merge=True, dtype=dtype, device="cpu")["agreement"]["largest"] < 0.25
    assert AutoModelForImageTextToText.from_pretrained(out).dtype == getattr(torch, dtype)
    with pytest.raises(InputError, match="device moon: torch cannot use it here"):
        export(run, tmp_path / "other", merge=True, device="moon")


def test_a_run_from_scratch_is_exported_whole(tmp_path):
    (tmp_path / "run").mkdir()
    result = export(finished_run(tmp_path / "run"), tmp_path / "out", merge=False)
    assert result["merged"] and result["agreement"]["largest"] == 0.0
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("damage", [0.05, float("nan")])
@pytest.mark.parametrize("merge", [False, True])
def test_a_model_that_answers_otherwise_is_not_left_behind(damage, merge, run, tmp_path, monkeypatch):
    load_stock = exporting._load_stock

    def damage_stock(*args: object) -> object:
        model = load_stock(*args)
        layers = ("layers.0.mlp.down_proj.weight", "lora_A.default.weight")
        with torch.no_grad():
            next(p for n, p in model.named_parameters() if n.endswith(layers)).add_(damage)
        return model

    monkeypatch.setattr(exporting, "_load_stock", damage_stock)
    with pytest.raises(WorkFailed, match="does not answer like the run") as error:
        export(run, tmp_path / "out", merge=merge)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_the_model_card_counts_and_names_nobody(run, tmp_path):
    report = {
        "headline": "It beats chance.",
        "dataset": "made-up pages",
        "records": 7,
        "systems": [{"name": "tiny", "macro_auc": {"all": {"value": 0.75, "low95": 0.7, "high95": 0.8}}}],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    export(run, tmp_path / "out", merge=False, report=tmp_path / "report.json")
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (
        "Not a medical device, and not for diagnosis",
        "12 pages, 2 records, 1 patients",
        "2.000 at step 1, 1.250 at step 5",
        "tiny: macro-AUC 0.750 (95 % interval 0.700 to 0.800)",
        "rank: 4",
        "torch 2.0",
        "FOLDER/base",
    ):
        assert text in card, text
    assert "library_name: peft" in card and "secret" not in card and "patient-7" not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "run.json").unlink(), r"no run\.json; name the folder of a finished run"),
        (lambda run: (run / "run.json").write_text("{"), r"run\.json: cannot be read as JSON"),
        (lambda run: (run / "run.json").write_text("[]"), "is a JSON list, not an object"),
        (lambda run: (run / "run.json").write_text('{"base_sha256": "x"}'), r"run\.json: the key 'name' is missing"),
        (lambda run: _change_facts(run, base_sha256="x"), "made for another nano than the one"),
        (lambda run: (run / "adapter_model.safetensors").unlink(), r"adapter_model\.safetensors is missing"),
        (lambda run: (run / "adapter_model.safetensors").write_bytes(b"x" * 40), "does not fit nano"),
        (lambda run: (run / "recipe.yaml").unlink(), "no such recipe"),
        (lambda run: (run / "recipe.yaml").write_text("model: {base: 'random:nano'}"), "random weights"),
    ],
)
def test_what_is_no_finished_run_is_refused_in_one_line(change, message, run, tmp_path):
    import shutil

    copy = shutil.copytree(run, tmp_path / "run")
    change(copy)
    with pytest.raises(InputError, match=message) as error:
        export(copy, tmp_path / "out", merge=False)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_a_wrong_report_is_refused(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="already exists and is not empty"):
        export(run, tmp_path / "full", merge=False)
    with pytest.raises(InputError, match=r"report\.json: cannot be read \(No such file"):
        export(run, tmp_path / "out", merge=False, report=tmp_path / "report.json")


# To the hub

RENDER = ("render", "simulated", "--limit", "3", "--width", "400", "--closed", "2", "--seed", "3")


class FakeHub:
    """Keeps what is uploaded in a folder, as `HfApi` would send it."""

    folder: Path
    calls: ClassVar[list[tuple]] = []

    def create_repo(self, repo, **options):
        self.calls.append(("create", repo, options))

    def create_commit(self, repo, operations, *, commit_message, repo_type):
        self.calls.append(("commit", repo, repo_type))
        for operation in operations:
            file = self.folder / operation.path_in_repo
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(operation.path_or_fileobj, file)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    FakeHub.folder, FakeHub.calls = tmp_path / "hub", []
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    return FakeHub()


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_data_set_is_listed_then_sent_and_comes_back_as_it_was(hub, tmp_path, monkeypatch, capsys):
    out, push = tmp_path / "pages", ("--push-to-hub", "me/ecg-pages")
    assert main([*RENDER, str(out), *push, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "nothing was sent" in text and "license:\n- apache-2.0" in text and hub.calls == []
    assert main([*RENDER, str(out), *push, "--resume"]) == 0
    assert "https://huggingface.co/datasets/me/ecg-pages: 2 files" in capsys.readouterr().out
    assert hub.calls == [
        ("create", "me/ecg-pages", {"repo_type": "dataset", "private": True, "exist_ok": True}),
        ("commit", "me/ecg-pages", "dataset"),
    ]
    assert names(hub.folder) == {"README.md", "data/train-00000-of-00001.parquet"}
    assert all(f"bytes  {name}\n" in text for name in names(hub.folder)) and "manifest.json\n" not in text
    card = DatasetCard.load(hub.folder / "README.md").data
    assert (card.license, card.language) == (["apache-2.0"], ["en"])
    assert card.configs == [{"config_name": "default", "data_files": "data/*.parquet"}]
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: load(str(hub.folder), **options))
    pages = training_pages(DataPart(train="hf://me/ecg-pages"), cache_folder=tmp_path / "cache")
    again = open_dataset(out)
    for column in ("record_id", "statements", "dialogues"):
        assert pages[column] == again[column], column


def test_an_export_has_a_card_that_the_hub_reads(hub, tmp_path, capsys):
    run, out = finished_run(tmp_path / "run", lora=LoraPart(rank=2)), tmp_path / "out"
    report = tmp_path / "report.json"
    report.write_text(
        '{"headline": "x", "dataset": "/home/me/pages/test", "records": 7, "systems": [{"name": "tiny", "macro_auc": '
        '{"all": {"value": 0.75}, "form": {"value": null}, "rhythm": {"value": 0.8}}}, {"name": "other"}]}'
    )
    assert main(["export", str(run), str(out), "--report", str(report), "--push", "me/ecg", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert hub.calls == [] and "bytes  adapter_model.safetensors\n" in text and "run.json" not in text
    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.language, card.data.library_name) == ("apache-2.0", ["en"], "peft")
    assert [(r.metric_name, r.metric_value, r.dataset_name) for r in card.data.eval_results] == [
        ("macro-AUC, all", 0.75, "test"), ("macro-AUC, rhythm", 0.8, "test")]  # fmt: skip
    assert "Built with Llama" not in card.text and "/home/me" not in card.content


def test_built_with_llama_stands_where_it_applies():
    for base, licence in (("meta-llama/Llama-3.2-11B-Vision-Instruct", "llama3.2"), ("nano", "apache-2.0")):
        recipe = Recipe("x", ModelPart(base))
        header = ModelCard(card_header(recipe, is_merged=True) + "\n").data.to_dict()
        assert (header["license"], header.get("base_model")) == (licence, None if base == "nano" else base)
        assert any("Built with Llama" in line for line in licence_notice(recipe)) is (base != "nano")


def test_what_cannot_be_sent_is_one_line(hub, tmp_path, monkeypatch, capsys):
    for words, message in (
        (["--dry-run"], "--dry-run: says what --push-to-hub would send; add --push-to-hub OWNER/NAME"),
        (["--push-to-hub", "me"], "'me' is no repository; write OWNER/NAME"),
        (["--push-to-hub", "me/a", "--preview"], "--push-to-hub: sends a whole folder"),
    ):
        assert main([*RENDER, str(tmp_path / "d"), *words]) == 2
        assert message in capsys.readouterr().err

    def fail(*_, **__):
        raise ConnectionError("401 Unauthorized\nmore")

    monkeypatch.setattr(FakeHub, "create_repo", fail)
    assert main([*RENDER, str(tmp_path / "d"), "--push-to-hub", "me/a"]) == 1
    error = capsys.readouterr().err
    assert "me/a: not sent (401 Unauthorized)" in error and "repeat the command with --resume" in error
    assert len(open_dataset(tmp_path / "d")) == 3


def test_an_adapter_is_opened_by_its_hub_id_and_refused_where_it_is_not_whole(hub, tmp_path, monkeypatch, capsys):
    run, out = finished_run(tmp_path / "run", lora=LoraPart(rank=2)), tmp_path / "out"
    assert main(["export", str(run), str(out), "--push", "me/ecg"]) == 0
    assert {"adapter_config.json", "adapter_model.safetensors", "base/model.safetensors"} <= names(hub.folder)
    capsys.readouterr()

    def download(name, file, **_):
        if name == "me/ecg" and (hub.folder / file).is_file():
            return str(hub.folder / file)
        raise EntryNotFoundError(file)

    monkeypatch.setattr(models, "_reach_hub", lambda base: {})
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(hub.folder))
    page = Image.new("RGB", (672, 336), "white")
    ours, theirs = (Reader.load(name).score(page) for name in (str(run), "me/ecg"))
    assert torch.allclose(torch.tensor(list(ours.values())), torch.tensor(list(theirs.values())), atol=1e-5)
    assert models.local_adapter("me/whole-model") == Path("me/whole-model")
    (hub.folder / "adapter_model.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(InputError, match="the adapter does not fit"):
        Reader.load("me/ecg")


def test_a_near_tie_counts_as_the_same_token_and_a_clear_order_does_not() -> None:
    first = torch.tensor([[0.0, 10.0, 9.8], [0.0, 10.0, 8.0]])  # their deviation is 4.9
    agreement = exporting._compare([first], [torch.tensor([[0.0, 9.8, 10.0], [0.0, 8.0, 10.0]])])
    assert agreement.same_token == 0.5 and agreement.largest == pytest.approx(2 / float(first.std()))
