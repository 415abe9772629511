"""A whole small run: what it learns, how it is stopped, killed, gone on with, repeated and shared out."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, MllamaForConditionalGeneration

from recipes import train, trainer
from recipes.config import ModelPart, Recipe, TrainPart, load_recipe, save_recipe
from recipes.inference import prefill, yes_probabilities
from recipes.model import linear_modules, load_adapter, load_model, load_processor, nano_path
from recipes.train import Interrupted, finetune, training_pages
from render.dataset.parquet import write_dataset
from render.dataset.rows import Options
from render.dialogues.wording import closed_question
from render.errors import InputError, WorkFailed
from render.simulator.simulate import SimulatedSource

PAGES = 8


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "d"
    write_dataset(SimulatedSource(5, PAGES), folder, Options(width=672, closed=3, tasks=("rhythm",)))
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
    given = [f"data.train={pages}", f"model.base={base}", "lora.dropout=0.1", *overrides]
    recipe = load_recipe("quickstart", given)
    settings = {"images_per_batch": 2, "log_every": 1, "max_steps": 4, "save_every": 2, "log_to": "none", **train}
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **settings))


@pytest.fixture(scope="module")
def undisturbed(pages, base, tmp_path_factory):
    """A run of four steps that nothing disturbed: its folder and facts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, finetune(_tiny(pages, base), out)


def test_a_run_learns_saves_and_reloads(pages, tmp_path, tiny):
    out, shown = tmp_path / "run", []
    recipe = tiny(f"data.validation={pages}", max_steps=8, learning_rate=5e-3, validate_every=4)
    facts = finetune(recipe, out, report=shown.append, validate=lambda model, processor: {"macro_auc": 0.75})
    assert facts["losses"][-1][1] < facts["losses"][0][1]
    assert facts == json.loads((out / "run.json").read_text())
    untuned = load_model(recipe.model)
    assert set(facts["adapted_layers"]) == set(linear_modules(untuned, "all-linear"))
    assert sum(facts["adapted_layers"].values()) == facts["trained_parameters"]
    told = sum(len(row) > 0 for row in training_pages(recipe.data)["dialogues"])
    assert facts["images"] == 2 * told and facts["tokens"] > 0  # eight steps of two pages are two epochs
    assert [v["step"] for v in facts["validation"]] == [4, 8]
    assert all(v["macro_auc"] == 0.75 and v["loss"] > 0 for v in facts["validation"])
    assert [p.step for p in shown] == list(range(1, 9)) and shown[-1].loss is not None
    assert shown[-1].tokens_per_second > shown[-1].images_per_second > 0 and shown[-1].seconds_left == 0
    before = probability(untuned)
    assert not torch.allclose(before, probability(load_adapter(untuned, out, recipe.model.base)), atol=1e-4)
    with pytest.raises(InputError, match="already exists and is not empty"):
        finetune(recipe, out)


def probability(model) -> torch.Tensor:
    processor = load_processor(model.name_or_path)
    seen = prefill(model, processor, [Image.new("RGB", (672, 500), "gray")])
    return yes_probabilities(model, processor, seen, [closed_question("AFIB")])


# The same again


def test_the_stored_recipe_gives_the_same_losses(undisturbed, tmp_path):
    out, facts = undisturbed
    again = finetune(load_recipe(out / "recipe.yaml"), tmp_path / "again")
    assert again["losses"] == facts["losses"]


def test_looking_at_held_out_pages_changes_no_loss(undisturbed, pages, tmp_path, tiny):
    recipe = tiny(f"data.validation={pages}", validate_every=1)
    looked = finetune(recipe, tmp_path / "run", validate=lambda *_: {"drawn": float(torch.rand(()))})
    assert looked["losses"] == undisturbed[1]["losses"] and len(looked["validation"]) == 4


def test_the_head_sees_the_answers_alone_and_no_loss_changes(undisturbed, tmp_path, monkeypatch, tiny):
    scored = []
    plain = trainer._AnswersAlone.of

    def counted(self, inputs):
        found = plain(self, inputs)
        scored.append(found["shift_labels"].numel() / inputs["labels"].numel())
        return found

    monkeypatch.setattr(trainer._AnswersAlone, "of", counted)
    alone = finetune(tiny(), tmp_path / "alone")
    assert 0 < max(scored) < 0.6
    monkeypatch.setattr(trainer._AnswersAlone, "of", lambda self, inputs: inputs)
    every = finetune(tiny(), tmp_path / "every")
    for facts in (alone, undisturbed[1]):
        assert [loss for _, loss in facts["losses"]] == pytest.approx([loss for _, loss in every["losses"]], abs=1e-6)


def test_checkpointing_changes_no_loss(undisturbed, tmp_path, tiny):
    facts = finetune(tiny(gradient_checkpointing=True), tmp_path / "run")
    assert facts["losses"] == undisturbed[1]["losses"]


# Stopped and gone on with


def script(recipe: Recipe, out: Path, code: str = "pass") -> str:
    """A program that calls `finetune`; `code` is the body of `report(p)`."""
    recipe_file, program = out.parent / "r.yaml", out.parent / "run.py"
    save_recipe(recipe, recipe_file)
    program.write_text(f"""
import os, signal
from pathlib import Path
from recipes.train import finetune
from recipes.config import load_recipe

def report(p):
    print("step", p.step, flush=True)
    {code}

finetune(load_recipe({str(recipe_file)!r}), Path({str(out)!r}), report=report)
""")
    return str(program)


def test_killed_in_the_middle_and_resumed_the_losses_are_those_of_an_undisturbed_run(undisturbed, tmp_path, tiny):
    out = tmp_path / "killed"
    program = script(tiny(), out, "if p.step == 3: os.kill(os.getpid(), signal.SIGKILL)")
    process = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-2"] and not (out / "run.json").exists()
    resumed = finetune(tiny(), out, resume=True)
    assert resumed["losses"] == undisturbed[1]["losses"]
    # With one thread the files are the same to the byte; several add numbers up in another order in another process.
    whole, mended = (load_file(folder / "adapter_model.safetensors") for folder in (undisturbed[0], out))
    apart = max(float((whole[name] - mended[name]).norm() / whole[name].norm()) for name in whole | mended)
    assert apart < 1e-4


def test_a_checkpoint_that_was_being_written_is_never_gone_on_from(undisturbed, tmp_path, monkeypatch, tiny):
    out = tmp_path / "run"

    def killed(*_):
        raise SystemExit("killed while writing")

    with monkeypatch.context() as patch:
        patch.setattr("recipes.trainer.put_in_place", killed)
        with pytest.raises(SystemExit):
            finetune(tiny(), out)
    written = next(out.rglob("optimizer.pt")).relative_to(out)
    assert not written.parts[0].startswith("checkpoint")
    assert finetune(tiny(), out, resume=True)["losses"] == undisturbed[1]["losses"]
    assert sorted(p.name for p in out.glob("*checkpoint*")) == ["checkpoint-4"] and not (out / ".unfinished").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_in_hand_and_says_how_to_go_on(number, undisturbed, tmp_path, tiny):
    out = tmp_path / "run"
    before = signal.getsignal(number)

    def stop(progress) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=rf"stopped after step 3 of 4 \({number.name}\).*--resume"):
        finetune(tiny(), out, report=stop)
    assert signal.getsignal(number) is before and (out / "checkpoint-3").is_dir()
    assert finetune(tiny(), out, resume=True)["losses"] == undisturbed[1]["losses"]


def test_a_second_interrupt_stops_at_once_and_names_the_last_checkpoint(tmp_path, tiny):
    def stop(progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"stopped at once; the last good checkpoint is .*checkpoint-2;"):
        finetune(tiny(), tmp_path / "run", report=stop)


def test_the_time_limit_ends_the_run_like_an_interrupt(undisturbed, tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"stopped after step 1 of 4 \(its time is up\)"):
        finetune(tiny(max_minutes=1e-6), out)
    assert not (out / "run.json").exists()
    assert finetune(tiny(), out, resume=True)["losses"] == undisturbed[1]["losses"]


def test_a_full_disk_names_the_last_checkpoint_and_the_run_goes_on_from_it(undisturbed, tmp_path, tiny):
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
    assert finetune(tiny(), out, resume=True)["losses"] == undisturbed[1]["losses"]


@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_numbers_that_are_none_stop_the_run_with_good_weights(spoilt, tmp_path, monkeypatch, tiny):
    from recipes.trainer import Trainer

    whole = Trainer.compute_loss

    def broken(self, *args, **kwargs):
        loss = whole(self, *args, **kwargs)
        if self.state.global_step < 2:
            return loss
        if spoilt == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss * 1.0

    monkeypatch.setattr(Trainer, "compute_loss", broken)
    out = tmp_path / "run"
    with pytest.raises(WorkFailed, match=r"at step 3; the last good checkpoint is .*checkpoint-2; .*learning_rate"):
        finetune(tiny(), out)
    assert sorted(p.name for p in out.glob("checkpoint*")) == ["checkpoint-2"]


def test_another_recipe_is_not_resumed(undisturbed, tmp_path, tiny):
    with pytest.raises(InputError, match=r"was started with lora\.rank=16, not 8; resume with .*recipe\.yaml"):
        finetune(tiny("lora.rank=8"), undisturbed[0], resume=True)


def test_resuming_a_finished_run_changes_nothing(undisturbed, tiny):
    out, facts = undisturbed
    assert finetune(tiny(log_every=3), out, resume=True) == facts


def test_other_pages_are_not_resumed(tmp_path, tiny):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        finetune(tiny(max_steps=0, max_minutes=1e-6), out)
    state = out / "checkpoint-1" / "trainer_state.json"
    state.write_text(state.read_text().replace('"max_steps": 8', '"max_steps": 9'))
    with pytest.raises(InputError, match="was begun as a run of 9 steps, and would now have 8"):
        finetune(tiny(max_steps=0), out, resume=True)


# Several processes


def test_two_processes_reach_the_losses_of_one(tmp_path, tiny):
    """DDP by `accelerate launch`, on CPUs: --multi_gpu is what makes it start several processes, there too."""
    recipe = tiny("lora.dropout=0.0")
    alone = finetune(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, accumulate=2)), tmp_path / "1")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    command += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    process = subprocess.run([*command, script(recipe, tmp_path / "2")], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split("\n")[:-1] == [f"step {k}" for k in range(1, 5)]  # one of the two reports
    shared = json.loads((tmp_path / "2" / "run.json").read_text())
    assert [step for step, _ in shared["losses"]] == [1, 2, 3, 4]
    torch.testing.assert_close(torch.tensor(shared["losses"]), torch.tensor(alone["losses"]), atol=1e-4, rtol=0)


# What is refused


def test_adapter_for_another_base_is_refused(undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
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
def test_missing_data_is_said_before_the_model_is_loaded(data, message, pages, tmp_path):
    recipe = load_recipe("quickstart", [f"data.train={pages}", data])
    with pytest.raises(InputError, match=message):
        finetune(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_left_out_statements_are_never_spoken_of(pages):
    rows = training_pages(load_recipe("quickstart", [f"data.train={pages}", "data.leave_out=[SR, NORM]"]).data)
    spoken = {code for row in rows["dialogues"] for d in row for code in d["statements"]}
    assert spoken and not spoken & {"SR", "NORM"}


@pytest.mark.parametrize("fast", [True, False])
def test_mixed_precision_is_for_machines_that_multiply_in_bfloat16(fast, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fast_bfloat16", lambda: fast)
    for asked in (True, False):
        recipe = dataclasses.replace(load_recipe("nano"), train=TrainPart(mixed_precision=asked))
        assert train._arguments(recipe, tmp_path, 1).bf16 is (asked and fast)
