"""A small run from beginning to end: what it learns, and how it is stopped, killed, resumed, repeated and shared."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import transformers
import trl
from fsspec.implementations.memory import MemoryFile
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, MllamaForConditionalGeneration

from ecg_vlm.validation import validation
from recipes import train, trainer
from recipes.config import ModelPart, Recipe, TrainPart, load_recipe, save_recipe
from recipes.inference import prefill, yes_probabilities
from recipes.model import linear_modules, load_adapter, load_model, load_processor, nano_path
from recipes.packing import Plan
from recipes.run_folder import batches_per_step, read_run
from recipes.train import RunInterrupted, finetune, training_pages
from render.dataset import parquet
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options
from render.dialogues.wording import closed_question
from render.errors import InputError, WorkFailed
from render.simulator.simulate import SimulatedSource

PAGES = 8
PAGE_OPTIONS = Options(width=672, closed=3, tasks=("rhythm",))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "d"
    write_dataset(SimulatedSource(5, PAGES), folder, PAGE_OPTIONS)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """A folder with a quarter of nano, for tiles of 56 pixels and with open gates: a step takes a moment."""
    config = AutoConfig.from_pretrained(nano_path())
    small = {"hidden_size": 32, "intermediate_size": 64}
    for name, value in {
        **small,
        "attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "vision_output_dim": 64,
    }.items():
        setattr(config.vision_config, name, value)
    for name, value in {**small, "num_attention_heads": 2, "num_key_value_heads": 2}.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(0)
    model = MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "gate" in name.split(".")[-1]:
            torch.nn.init.ones_(parameter)
    processor = load_processor("nano")
    processor.image_processor.size = {"height": 56, "width": 56}
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tiny(pages, base):
    """A function that makes recipes of a run of four steps."""
    return partial(_tiny, pages, base)


def _tiny(pages, base, *overrides: str, **train) -> Recipe:
    overrides = (f"data.train={pages}", f"model.base={base}", "lora.dropout=0.1", *overrides)
    recipe = load_recipe("quickstart", overrides)
    settings = {"images_per_batch": 2, "log_every": 1, "max_steps": 4, "save_every": 2, "log_to": "none", **train}
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **settings))


@pytest.fixture(scope="module")
def whole_run(pages, base, tmp_path_factory):
    """A run of four steps without interruption: its folder and facts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, finetune(_tiny(pages, base), out)


def test_a_run_learns_saves_and_reloads(pages, tmp_path, tiny):
    out, progress = tmp_path / "run", []
    recipe = tiny(f"data.validation={pages}", max_steps=8, learning_rate=5e-3, validate_every=4)
    facts = finetune(recipe, out, report=progress.append, validate=lambda model, processor: {"macro_auc": 0.75})
    assert facts.losses[-1][1] < facts.losses[0][1]
    assert facts == read_run(out) and json.loads(json.dumps(asdict(facts))) == json.loads(
        (out / "run.json").read_text()
    )
    base_model = load_model(recipe.model)
    assert set(facts.adapted_layers) == set(linear_modules(base_model, "all-linear"))
    assert sum(facts.adapted_layers.values()) == facts.trained_parameters
    with_dialogues = sum(len(row) > 0 for row in training_pages(recipe.data)["dialogues"])
    assert facts.images == 2 * with_dialogues and facts.tokens > 0  # eight steps of two pages are two epochs
    assert [v["step"] for v in facts.validation] == [4, 8]
    assert all(v["macro_auc"] == 0.75 and v["loss"] > 0 for v in facts.validation)
    assert [p.step for p in progress] == list(range(1, 9)) and progress[-1].loss is not None
    assert progress[-1].tokens_per_second > progress[-1].images_per_second > 0 and progress[-1].seconds_left == 0
    before = probability(base_model)
    assert not torch.allclose(before, probability(load_adapter(base_model, out, recipe.model.base)), atol=1e-4)
    with pytest.raises(InputError, match="already exists and is not empty"):
        finetune(recipe, out)


def probability(model) -> torch.Tensor:
    processor = load_processor(model.name_or_path)
    cache = prefill(model, processor, [Image.new("RGB", (672, 500), "gray")])
    return yes_probabilities(model, processor, cache, [closed_question("AFIB")])


# The same again


def test_the_stored_recipe_gives_the_same_losses(whole_run, tmp_path):
    out, facts = whole_run
    again = finetune(load_recipe(out / "recipe.yaml"), tmp_path / "again")
    assert again.losses == facts.losses


def test_an_evaluation_changes_no_loss(whole_run, pages, tmp_path, tiny):
    recipe = tiny(f"data.validation={pages}", validate_every=1)
    facts = finetune(recipe, tmp_path / "run", validate=lambda *_: {"random": float(torch.rand(()))})
    assert facts.losses == whole_run[1].losses and len(facts.validation) == 4


def test_the_head_gets_the_answers_alone_and_no_loss_changes(whole_run, tmp_path, monkeypatch, tiny):
    shares = []
    select = trainer._AnswerTokens.select

    def count(self, inputs):
        selection = select(self, inputs)
        shares.append(selection["shift_labels"].numel() / inputs["labels"].numel())
        return selection

    monkeypatch.setattr(trainer._AnswerTokens, "select", count)
    alone = finetune(tiny(), tmp_path / "alone")
    assert 0 < max(shares) < 0.6
    monkeypatch.setattr(trainer._AnswerTokens, "select", lambda self, inputs: inputs)
    every = finetune(tiny(), tmp_path / "every")
    for facts in (alone, whole_run[1]):
        assert [loss for _, loss in facts.losses] == pytest.approx([loss for _, loss in every.losses], abs=1e-6)


def test_checkpointing_changes_no_loss(whole_run, tmp_path, tiny):
    facts = finetune(tiny(gradient_checkpointing=True), tmp_path / "run")
    assert facts.losses == whole_run[1].losses


@pytest.mark.parametrize("key", ["lora.rslora=true", "lora.dora=true", "lora.plus=16", "train.neftune=5"])
def test_what_peft_and_trl_offer_changes_the_run_and_is_reloaded(key, whole_run, tmp_path, tiny):
    recipe = tiny(key, max_steps=3)
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, neftune=5.0 * ("neftune" in key)))
    facts = finetune(recipe, tmp_path / "run")
    losses, plain = ([loss for _, loss in run.losses[:3]] for run in (facts, whole_run[1]))
    assert max(abs(a - b) for a, b in zip(losses, plain, strict=True)) > 1e-5
    assert (losses[0] == plain[0]) == ("neftune" not in key)  # an adapter begins at zero
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == ("rslora" in key, "dora" in key)
    base_model = load_model(recipe.model)
    before = probability(base_model)
    assert not torch.equal(before, probability(load_adapter(base_model, tmp_path / "run", recipe.model.base)))


@pytest.mark.parametrize(("targets", "ends"), [("attention", {"self_attn", "cross_attn"}), ("mlp", {"mlp"})])
def test_attention_and_mlp_are_switched_apart(targets, ends):
    layers = linear_modules(load_model(ModelPart()), targets)
    assert {name.split(".")[-2] for name in layers} == ends and any("vision_model" in name for name in layers)


def best_run(out, recipe, aucs):
    """A run whose evaluations give `aucs`, one after the other, and its adapter at each of them."""
    adapters = []

    def validate(model, _):
        adapters.append({n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n})
        return {"macro_auc": aucs[len(adapters) - 1]}

    return finetune(recipe, out, validate=validate), adapters


@pytest.mark.parametrize(("patience", "steps"), [(0, 4), (1, 3)])
def test_a_run_ends_with_its_best_weights_and_early_where_it_grows_no_better(patience, steps, pages, tmp_path, tiny):
    recipe = tiny(f"data.validation={pages}", validate_every=1, keep="macro_auc", patience=patience, learning_rate=5e-3)
    facts, adapters = best_run(tmp_path / "run", recipe, (0.5, 0.9, 0.6, 0.7))
    assert (facts.steps, facts.best_step, len(facts.validation)) == (steps, 2, steps)
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert weights
    for name, tensor in weights.items():
        best, last = (adapters[k][name.replace(".weight", ".default.weight")] for k in (1, -1))
        assert torch.equal(tensor, best) and not torch.equal(tensor, last), name
    assert [p.name for p in (tmp_path / "run").glob("checkpoint-*")] == [f"checkpoint-{steps}"]


def test_the_last_weights_stay_where_they_are_the_best(pages, tmp_path, tiny):
    recipe = tiny(f"data.validation={pages}", validate_every=2, keep="macro_auc")
    facts, adapters = best_run(tmp_path / "run", recipe, (0.5, 0.9))
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert facts.best_step == 0 and weights
    assert all(torch.equal(t, adapters[-1][n.replace(".weight", ".default.weight")]) for n, t in weights.items())


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    """The same pages, in smaller shards, in a storage of this process."""
    name = f"memory:/{tmp_path_factory.mktemp('url')}"
    write_dataset(SimulatedSource(5, PAGES), name, dataclasses.replace(PAGE_OPTIONS, shard_size=2))
    return name


def test_pages_at_a_url_give_the_same_run_without_a_copy(url, whole_run, tmp_path, monkeypatch, tiny):
    out, read, failures, copies = tmp_path / "run", MemoryFile.read, [1], []

    def read_or_fail(file, *size):
        if failures[0]:
            failures[0] -= 1
            raise ConnectionError("reset by peer")
        return read(file, *size)

    def note(progress) -> None:
        failures[0] = 2 if progress.step == 1 else failures[0]
        copies.extend(path.read_bytes() for path in (out / train._CACHE).glob("*"))

    monkeypatch.setattr(MemoryFile, "read", read_or_fail)
    monkeypatch.setattr(parquet, "_PAUSES_S", (0.0, 0.0))
    assert finetune(tiny(f"data.train={url}"), out, report=note).losses == whole_run[1].losses
    assert failures == [0] and b"sim-5-0" in b"".join(copies) and b"PNG" not in b"".join(copies)


def test_a_storage_that_fails_again_and_again_ends_the_run_behind_its_last_checkpoint(
    url, whole_run, tmp_path, monkeypatch, tiny
):
    def fail(*_):
        raise ConnectionError("reset by peer")

    def cut(progress) -> None:
        if progress.step == 2:
            parquet._group.cache_clear()
            patch.setattr(MemoryFile, "read", fail)

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "_PAUSES_S", (0.0, 0.0))
        with pytest.raises(
            WorkFailed, match=r"memory://.*: the storage has failed 3 times \(reset by peer\); .*--resume"
        ):
            finetune(tiny(f"data.train={url}"), tmp_path / "run", report=cut)
    assert finetune(tiny(f"data.train={url}"), tmp_path / "run", resume=True).losses == whole_run[1].losses


@pytest.fixture
def rows(pages, tmp_path) -> Path:
    """The pages as TRL rows, which have no labels."""
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = []
    for row in open_dataset(pages):
        row["image"].save(folder / f"{row['record_id']}.png")
        lines += [{"images": [f"{row['record_id']}.png"], "messages": d["messages"]} for d in row["dialogues"]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_held_out_rows_in_other_forms_have_the_loss_of_the_same_pages(rows, pages, tmp_path, tiny):
    folders = {"rows": str(rows), "pages": str(pages), "both": f'"{pages}, {rows}"'}
    losses = {
        name: dict(finetune(tiny(f"data.validation={data}", max_steps=1), tmp_path / f"run-{name}").validation_losses)
        for name, data in folders.items()
    }
    assert losses["rows"] == pytest.approx(losses["pages"], abs=1e-4)
    assert losses["both"] == pytest.approx(losses["pages"], abs=1e-4)


def test_rows_of_nobody_count_as_no_patient(rows, tmp_path, tiny):
    facts = finetune(tiny(f"data.train={rows}", max_steps=1), tmp_path / "run")
    assert facts.records and facts.patients == ()


def test_rows_without_labels_have_no_macro_auc(rows, pages, tmp_path, tiny):
    assert validation(str(rows)) is None and validation(f"{rows}, {pages}") is not None
    recipe = tiny(f"data.validation={rows}", validate_every=2, keep="macro_auc")
    with pytest.raises(InputError, match=r"keep=macro_auc: data\.validation needs pages of ecg-vlm render"):
        finetune(recipe, tmp_path / "run", validate=validation(str(rows)))
    assert not (tmp_path / "run" / "recipe.yaml").exists()


# Interruption and resumption


def script(recipe: Recipe, out: Path, code: str = "pass", *, resume: bool = False, before: str = "") -> str:
    """A program that calls `finetune`, behind `before`; `code` is the body of `report(p)`."""
    recipe_file, program = out.parent / "r.yaml", out.parent / "run.py"
    save_recipe(recipe, recipe_file)
    program.write_text(f"""{before}
import os, signal
from pathlib import Path
from recipes.train import finetune
from recipes.config import load_recipe

def report(p):
    print("step", p.step, flush=True)
    {code}

finetune(load_recipe({str(recipe_file)!r}), Path({str(out)!r}), report=report, resume={resume})
""")
    return str(program)


def test_killed_and_resumed_the_losses_are_those_of_an_uninterrupted_run(whole_run, tmp_path, tiny):
    out = tmp_path / "killed"
    program = script(tiny(), out, "if p.step == 3: os.kill(os.getpid(), signal.SIGKILL)")
    process = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-2"] and not (out / "run.json").exists()
    assert finetune(tiny(), out, resume=True).losses == whole_run[1].losses
    # With one thread the files are the same to the byte; several add numbers up in another order in another process.
    whole, halves = (load_file(folder / "adapter_model.safetensors") for folder in (whole_run[0], out))
    apart = max(float((whole[name] - halves[name]).norm() / whole[name].norm()) for name in whole | halves)
    assert apart < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_on_4bit_weights_has_the_very_losses_and_its_adapter_stays_float32(dtype, tmp_path, tiny):
    pytest.importorskip("bitsandbytes")
    recipe = tiny("model.quantization=nf4", f"model.dtype={dtype}")
    facts = finetune(recipe, tmp_path / "whole")

    def stop(progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        finetune(recipe, tmp_path / "run", report=stop)
    assert finetune(recipe, tmp_path / "run", resume=True).losses == facts.losses
    whole, halves = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "run"))
    assert {t.dtype for t in whole.values()} == {torch.float32}
    assert whole.keys() == halves.keys() and all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_16bit_model_is_evaluated_as_it_answers_later_and_trained_under_autocast(pages, tmp_path, tiny):
    autocast: dict[bool, bool] = {}

    def note(module, *_):
        autocast.setdefault(module.training, torch.is_autocast_enabled("cpu"))

    def evaluate(model, processor):
        if not autocast:
            model.get_base_model().model.register_forward_hook(note)
        probability(model)
        return {"evaluations": 1.0}

    recipe = tiny(f"data.validation={pages}", "model.dtype=bfloat16", validate_every=1, max_steps=2)
    finetune(recipe, tmp_path / "run", validate=evaluate)
    assert autocast == {False: False, True: True}


def test_a_model_in_float16_learns(tmp_path, tiny):
    facts = finetune(tiny("model.dtype=float16", learning_rate=5e-3, max_steps=8), tmp_path / "run")
    assert facts.losses[-1][1] < facts.losses[0][1] - 0.1
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_bfloat16_on_a_card_without_it_is_refused(tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(train, "gpu_without_bfloat16", lambda: "Tesla T4")
    with pytest.raises(InputError, match=r"model\.dtype=bfloat16: Tesla T4 has no bfloat16; set model\.dtype=float16"):
        finetune(tiny("model.dtype=bfloat16"), tmp_path / "run")


def test_an_incomplete_checkpoint_is_never_resumed_from(whole_run, tmp_path, monkeypatch, tiny):
    out = tmp_path / "run"

    def kill(*_):
        raise SystemExit("killed while writing")

    with monkeypatch.context() as patch:
        patch.setattr("recipes.trainer.put_in_place", kill)
        with pytest.raises(SystemExit):
            finetune(tiny(), out)
    file = next(out.rglob("optimizer.pt")).relative_to(out)
    assert not file.parts[0].startswith("checkpoint")
    assert finetune(tiny(), out, resume=True).losses == whole_run[1].losses
    assert sorted(p.name for p in out.glob("*checkpoint*")) == ["checkpoint-4"] and not (out / ".unfinished").exists()


@pytest.fixture(scope="module")
def stopped_run(pages, base, tmp_path_factory) -> Path:
    """The folder of a run that saves every step and is stopped in the last."""
    out = tmp_path_factory.mktemp("stopped") / "run"

    def stop(progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        finetune(_tiny(pages, base, save_every=1), out, report=stop)
    return out


@pytest.mark.parametrize("damage", ["cut short", "a byte changed", "no state", "state of another type", "by 0.1"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(damage, whole_run, stopped_run, tmp_path, tiny):
    out = shutil.copytree(stopped_run, tmp_path / "run")
    folders = sorted(p.name for p in out.glob("checkpoint-*"))
    assert folders == ["checkpoint-2", "checkpoint-3"]
    last = out / "checkpoint-3"
    optimizer = last / "optimizer.pt"
    content = bytearray(optimizer.read_bytes())
    if damage == "no state":
        (last / "trainer_state.json").unlink()
    elif damage == "state of another type":
        (last / "trainer_state.json").write_text("[1, 2]")
    elif damage == "a byte changed":
        content[len(content) // 2] ^= 1
        optimizer.write_bytes(content)
    else:
        optimizer.write_bytes(content[: len(content) // 2])
    if damage == "by 0.1":
        (last / "checksums.json").unlink()
    lines: list[str] = []
    assert finetune(tiny(save_every=1), out, resume=True, note=lines.append).losses == whole_run[1].losses
    (line,) = lines
    assert line.startswith(f"{last}: ") and "damaged" in line and f"going on from {out / 'checkpoint-2'}" in line
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-4"]


def test_without_a_good_checkpoint_a_run_is_not_resumed(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        finetune(tiny(max_minutes=1e-6), out)
    (checkpoint,) = out.glob("checkpoint-*")
    (checkpoint / "optimizer.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"optimizer.pt is damaged, and there is no other checkpoint; name a "):
        finetune(tiny(), out, resume=True)


def test_two_runs_do_not_write_into_one_folder(tmp_path, tiny):
    from render.io import exclusive

    with exclusive(tmp_path), pytest.raises(InputError, match="another ecg-vlm is writing there"):
        finetune(tiny(), tmp_path, resume=True)


def test_resume_into_a_folder_of_something_else_is_refused(tmp_path, tiny):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match="already exists and is not empty"):
        finetune(tiny(), tmp_path, resume=True)


def test_changed_labels_are_not_resumed(tmp_path, tiny):
    out, pages = tmp_path / "run", tmp_path / "pages"
    write_dataset(SimulatedSource(1, 6), pages, Options(width=400, closed=1, forms=("closed",)))
    with pytest.raises(RunInterrupted):
        finetune(tiny(f"data.train={pages}", max_minutes=1e-6), out)
    write_dataset(SimulatedSource(2, 6), tmp_path / "other", Options(width=400, closed=1, forms=("closed",)))
    shutil.rmtree(pages)
    (tmp_path / "other").rename(pages)
    with pytest.raises(InputError, match="was started with other pages in "):
        finetune(tiny(f"data.train={pages}"), out, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_current_step_and_says_how_to_resume(number, whole_run, tmp_path, tiny):
    out = tmp_path / "run"
    before = signal.getsignal(number)

    def stop(progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(RunInterrupted, match=rf"stopped after step 3 of 4 \({number.name}\).*--resume"):
        finetune(tiny(), out, report=stop)
    assert signal.getsignal(number) is before and (out / "checkpoint-3").is_dir()
    assert finetune(tiny(), out, resume=True).losses == whole_run[1].losses


def test_a_second_interrupt_stops_at_once_and_names_the_last_checkpoint(tmp_path, tiny):
    def stop(progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match=r"stopped at once; the last good checkpoint is .*checkpoint-2;"):
        finetune(tiny(), tmp_path / "run", report=stop)


def test_the_time_limit_ends_the_run_like_an_interrupt(whole_run, tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted, match=r"stopped after step 1 of 4 \(the time limit is reached\)"):
        finetune(tiny(max_minutes=1e-6), out)
    assert not (out / "run.json").exists()
    assert finetune(tiny(), out, resume=True).losses == whole_run[1].losses


def test_a_step_is_saved_before_it_is_evaluated(whole_run, pages, tmp_path, tiny):
    out, recipe = tmp_path / "run", tiny(f"data.validation={pages}", validate_every=3, keep="macro_auc")

    def fail(model, processor):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for resume in (False, True):
        with pytest.raises(WorkFailed, match=r"evaluation behind step 3, which is saved; .*--resume data.valid"):
            finetune(recipe, out, validate=fail, resume=resume)
    not_evaluated = shutil.copytree(out, tmp_path / "without evaluation")
    assert finetune(tiny(keep="last"), not_evaluated, resume=True).losses == whole_run[1].losses
    facts = finetune(recipe, out, validate=lambda model, processor: {"macro_auc": 0.5}, resume=True)
    assert facts.losses == whole_run[1].losses
    assert [(v["step"], v["macro_auc"], v["loss"] > 0) for v in facts.validation] == [(3, 0.5, True), (4, 0.5, True)]


def test_a_full_disk_names_the_last_checkpoint_and_the_run_goes_on_from_it(whole_run, tmp_path, tiny):
    out = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress) -> None:
        if progress.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(WorkFailed, match=r"cannot be written .*the last good checkpoint is .*checkpoint-2;"):
            finetune(tiny(), out, report=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert finetune(tiny(), out, resume=True).losses == whole_run[1].losses


@pytest.mark.parametrize("broken_part", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(broken_part, tmp_path, monkeypatch, tiny):
    from recipes.trainer import Trainer

    compute_loss = Trainer.compute_loss

    def break_loss(self, *args, **kwargs):
        loss = compute_loss(self, *args, **kwargs)
        if self.state.global_step < 2:
            return loss
        if broken_part == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss * 1.0

    monkeypatch.setattr(Trainer, "compute_loss", break_loss)
    out = tmp_path / "run"
    with pytest.raises(WorkFailed, match=r"at step 3; the last good checkpoint is .*checkpoint-2; .*learning_rate"):
        finetune(tiny(), out)
    assert sorted(p.name for p in out.glob("checkpoint*")) == ["checkpoint-2"]


def test_another_recipe_is_not_resumed(whole_run, tmp_path, tiny):
    with pytest.raises(InputError, match=r"was started with lora\.rank=16, not 8; resume with .*recipe\.yaml"):
        finetune(tiny("lora.rank=8"), whole_run[0], resume=True)


def test_resuming_a_finished_run_changes_nothing(whole_run, tiny):
    out, facts = whole_run
    assert finetune(tiny(log_every=3), out, resume=True) == facts


def test_what_a_kill_behind_the_last_file_leaves_is_removed_by_going_on(tmp_path):
    out = Path(shutil.copytree(Path(__file__).with_name("v0_1") / "run", tmp_path / "run"))
    names = {path.name for path in out.iterdir()}
    for name in ("checkpoint-1", "checkpoint-2", ".unfinished"):
        (out / name).mkdir()
    finetune(load_recipe(out / "recipe.yaml"), out, resume=True)
    assert {path.name for path in out.iterdir()} == names | {"checkpoint-2"}


def test_other_pages_are_not_resumed(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        finetune(tiny(max_steps=0, max_minutes=1e-6), out)
    state = out / "checkpoint-1" / "trainer_state.json"
    state.write_text(state.read_text().replace('"max_steps": 8', '"max_steps": 9'))
    (out / "checkpoint-1" / "checksums.json").unlink()
    with pytest.raises(InputError, match="was begun as a run of 9 steps, and would now have 8"):
        finetune(tiny(max_steps=0), out, resume=True)


# Several processes


def launch(program: str, *options: str) -> subprocess.CompletedProcess:
    """A program in two processes on CPUs. options: --multi_gpu makes accelerate start several, there too."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", *options]
    command += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    return subprocess.run([*command, program], capture_output=True, text=True, timeout=300)


def test_a_run_goes_on_in_two_processes_and_again_in_one_with_the_losses_of_one(tmp_path, tiny):
    recipe, out, copy = (
        tiny("lora.dropout=0.0", gradient_accumulation_steps=2, save_every=1),
        *map(tmp_path.joinpath, "ab"),
    )
    alone = torch.tensor(finetune(recipe, tmp_path / "alone").losses)
    with pytest.raises(RunInterrupted):
        finetune(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, max_minutes=1e-6)), out)
    as_if_killed = f"if p.step == 3: import shutil; shutil.copytree({str(out)!r}, {str(copy)!r})"
    process = launch(script(recipe, out, as_if_killed, resume=True), "--multi_gpu")
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n")[:-1] == [f"step {k}" for k in range(2, 5)]  # one of the two reports
    torch.testing.assert_close(torch.tensor(read_run(out).losses), alone, atol=1e-4, rtol=0)
    assert sorted(path.name for path in copy.glob("c*-*")) == ["checkpoint-1", "checkpoint-2"]
    facts = finetune(recipe, copy, resume=True)  # behind the second step, which two processes have made
    torch.testing.assert_close(torch.tensor(facts.losses), alone, atol=1e-4, rtol=0)


# Without a GPU accelerate takes DDP, whatever it is asked for.
SHARDED = """
from accelerate import PartialState
from accelerate.utils import DistributedType
from recipes.trainer import Trainer

prepare = PartialState.__init__

def prepare_as_with_gpus(self, *args, **kwargs):
    prepare(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU

def training_step(self, model, *args, step=Trainer.training_step):
    sizes = [(parameter.to_local().numel(), parameter.numel()) for parameter in model.parameters()]
    assert sum(here for here, _ in sizes) < 0.51 * sum(whole for _, whole in sizes)
    return step(self, model, *args)

PartialState.__init__, Trainer.training_step = prepare_as_with_gpus, training_step
"""


@pytest.mark.skipif(os.environ.get("ECG_VLM_CLUSTER_TESTS") != "1", reason="takes a minute: make cluster")
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_sharded_model_reaches_the_losses_of_one_process(tmp_path, tiny, quantization):
    recipe = tiny("lora.dropout=0.0", f"model.quantization={quantization}", save_every=1)
    two = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, gradient_accumulation_steps=2))
    alone = finetune(two, tmp_path / "alone")
    limit = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, max_minutes=1e-6))
    options = ["--use_fsdp", "--fsdp_version=2", "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP"]
    options += ["--fsdp_state_dict_type=FULL_STATE_DICT", "--fsdp_cpu_ram_efficient_loading=false"]
    stopped = launch(script(limit, tmp_path / "run", before=SHARDED), *options)
    assert "stopped after step 1 of 4 (the time limit is reached)" in stopped.stderr, stopped.stderr
    whole = launch(script(recipe, tmp_path / "run", resume=True, before=SHARDED), *options)
    assert whole.returncode == 0, whole.stderr
    losses = [torch.tensor(facts.losses) for facts in (read_run(tmp_path / "run"), alone)]
    torch.testing.assert_close(*losses, atol=1e-4, rtol=0)
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("alone", "run")]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=0)


def test_as_many_batches_a_step_as_at_the_start_or_one_line(whole_run):
    out = whole_run[0]
    recipe = load_recipe(out / "recipe.yaml")
    assert batches_per_step(out, recipe, 1) == 1 and batches_per_step(out / "new", recipe, 3) == 3
    with pytest.raises(
        InputError, match=r"1 batches a step, of which 2 processes cannot have equal .* one of 1, or name"
    ):
        batches_per_step(out, recipe, 2)


# Refusals


def test_adapter_for_another_base_is_refused(whole_run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole_run[0], out)
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "meta-llama/X"}))
    with pytest.raises(InputError, match="made for base meta-llama/X, not nano"):
        load_adapter(load_model(ModelPart()), out, "nano")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("data.train=", "data.train is empty"),
        ("data.train=/nowhere", "no such data set folder"),
        ("data.folds=9", "no page is left"),
    ],
)
def test_missing_data_is_refused_before_the_model_is_loaded(data, message, pages, tmp_path):
    recipe = load_recipe("quickstart", [f"data.train={pages}", data])
    with pytest.raises(InputError, match=message):
        finetune(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_training_dialogue_is_about_a_left_out_statement(pages):
    rows = training_pages(load_recipe("quickstart", [f"data.train={pages}", "data.leave_out=[SR, NORM]"]).data)
    codes = {code for row in rows["dialogues"] for d in row for code in d["statements"]}
    assert codes and not codes & {"SR", "NORM"}


@pytest.mark.parametrize("fast", [True, False])
def test_mixed_precision_is_for_machines_that_multiply_in_bfloat16(fast, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fast_bfloat16", lambda: fast)
    for mixed in (True, False):
        recipe = dataclasses.replace(load_recipe("nano"), train=TrainPart(mixed_precision=mixed))
        assert train._arguments(recipe, tmp_path, Plan((), ((),), 1)).bf16 is (mixed and fast)


# What a run leaves behind


V01 = Path(__file__).parent / "v0_1" / "run"


def test_the_facts_of_a_run_of_version_0_1_are_read():
    facts = read_run(V01)
    assert (facts.base, facts.pages, facts.steps) == ("nano", 6, 2) and facts.records[0] == "sim-3-0"
    later = {"best_step": 0}
    assert json.loads(json.dumps(asdict(facts))) == json.loads((V01 / "run.json").read_text()) | later


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": None}, r"run\.json: records='None': expected a tuple"),
        ({"steps": "many"}, r"run\.json: steps='many': expected a int"),
        ({"patients": ...}, r"run\.json: the key 'patients' is missing; run the tuning again"),
    ],
)
def test_damaged_facts_are_one_line(change, message, tmp_path):
    tree = json.loads((V01 / "run.json").read_text()) | change
    (tmp_path / "run.json").write_text(json.dumps({key: value for key, value in tree.items() if value is not ...}))
    with pytest.raises(InputError, match=message) as error:
        read_run(tmp_path)
    assert "\n" not in str(error.value)


def test_unknown_facts_are_ignored(tmp_path):
    tree = json.loads((V01 / "run.json").read_text()) | {"of a later version": 1}
    (tmp_path / "run.json").write_text(json.dumps(tree))
    assert read_run(tmp_path) == read_run(V01)


def test_a_run_has_its_own_card_without_paths_and_files_that_others_may_read(whole_run, base):
    out, facts = whole_run
    card = (out / "README.md").read_text()
    for text in (f"{facts.pages} pages", "4 steps", "Training loss", "Not a medical device", "ecg-vlm evaluate RUN"):
        assert text in card, text
    for path in (out, Path(base).parent, Path(base).parent.parent):
        assert str(path) not in card
    checkpoint = (out / "checkpoint-4" / "README.md").read_text()
    assert "--resume" in checkpoint and "More Information Needed" not in checkpoint and str(out) not in checkpoint
    plain = out / "plain"
    plain.touch()
    for file in out.rglob("*.safetensors"):
        assert file.stat().st_mode == plain.stat().st_mode, file
    plain.unlink()


def test_an_adapter_for_nano_names_its_base_nano():
    config = json.loads((V01 / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "nano"


def test_a_run_begun_with_the_former_name_of_a_key_is_resumed(whole_run, tmp_path, tiny):
    out = tmp_path / "run"
    shutil.copytree(whole_run[0], out)
    recipe = (out / "recipe.yaml").read_text()
    (out / "recipe.yaml").write_text(recipe.replace("gradient_accumulation_steps: 1", "accumulate: 1"))
    assert finetune(tiny(), out, resume=True) == whole_run[1]
    with pytest.raises(InputError, match=r"was started with train\.gradient_accumulation_steps=1, not 3"):
        finetune(tiny("train.accumulate=3"), out, resume=True)


def test_long_waits_are_announced(tmp_path, tiny):
    lines: list[str] = []
    finetune(tiny(max_steps=1), tmp_path / "run", status=lines.append)
    assert [line.split()[0] for line in lines] == ["reading", "encoding", "loading", "taking"]


# What a reader of the run has to open, and what it rests on


def files_called(call) -> set[str]:
    """Files of ours of which a function runs in `call`; the bodies of modules and classes, at an import, are none."""
    root, files = str(Path(train.__file__).parents[1]) + os.sep, set()
    ours = tuple(f"{root}{package}{os.sep}" for package in ("ecg_vlm", "eval", "recipes", "render"))

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(ours):
            files.add(code.co_filename.removeprefix(root))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return files


def test_a_run_takes_place_in_nine_files(tmp_path, tiny):
    """Eleven with those of the command line: the command and its progress."""
    for module in ("other_rows", "rows"):  # what they call while they are imported is no part of a run
        import_module(f"render.dataset.{module}")
    recipe = tiny(max_steps=1)
    files = files_called(lambda: finetune(recipe, tmp_path / "run"))
    assert {"recipes/train.py", "recipes/trainer.py", "recipes/packing.py"} <= files
    assert len(files) <= 9, sorted(files)


# SHA-256 of the source of each member of `trainer.PRIVATE_API` that is a method, in `trainer.PRIVATE_API_VERSIONS`.
SOURCES = {
    "Trainer._get_output_dir": "97172085342ac46c33cb3d63ab5160c33eb66d24e3a0e5c339c5bbb8b3862980",
    "Trainer._save_checkpoint": "a9111e30faa9933986e022e56b5af81fd990356db64d727b4c320c852283bf3b",
    "SFTTrainer._save_checkpoint": "b6ee0a370c266b6f6ada183d32719e4f689ac7a54086c1ec40a69a79e79921c6",
    "Trainer._load_from_checkpoint": "a2804e8d93a297e30d11e1589e707793302c872fc3ab89cddefc6cb2762e3a24",
}
SIGNATURES = {
    "Trainer._get_output_dir": ["self", "trial"],
    "Trainer._save_checkpoint": ["self", "model", "trial"],
    "SFTTrainer._save_checkpoint": ["self", "model", "trial"],
    "Trainer._load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
}


@pytest.mark.parametrize("name", trainer.PRIVATE_API)
def test_what_is_not_public_upstream_is_as_it_was_checked(name):
    kind, _, member = name.partition(".")
    owner = {"Trainer": transformers.Trainer, "SFTTrainer": trl.SFTTrainer}[kind]
    if name == "SFTTrainer._metrics":
        assert "self._metrics[mode]" in inspect.getsource(owner.log), f"{name}: see recipes/trainer.py, Trainer.log"
        return
    method = vars(owner).get(member)
    advice = (
        f"{name} has changed upstream. It is used thus: {trainer.PRIVATE_API[name]}. Compare its source with the "
        f"version in recipes.trainer.PRIVATE_API_VERSIONS, mend recipes/trainer.py where that is needed, run this "
        f"file, then record the new signature, the new hash and the new versions"
    )
    assert method is not None, advice
    assert list(inspect.signature(method).parameters) == SIGNATURES[name], advice
    if {package: version(package) for package in trainer.PRIVATE_API_VERSIONS} != trainer.PRIVATE_API_VERSIONS:
        pytest.skip("another version is installed; the signature is the same")
    assert hashlib.sha256(inspect.getsource(method).encode()).hexdigest() == SOURCES[name], advice


def test_every_private_override_is_listed():
    members = {name.partition(".")[2] for name in trainer.PRIVATE_API}
    upstream = dir(trl.SFTTrainer)
    overrides = {name for name in vars(trainer.Trainer) if name.startswith("_") and name in upstream}
    assert {name for name in overrides if not name.startswith("__")} <= members
