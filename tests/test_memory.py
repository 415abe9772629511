"""What a recipe needs, against a real nano, the 11 B as counted by other means, and a GPU where there is one."""

from __future__ import annotations

import dataclasses
import gc
import re

import pytest
import torch
from PIL import Image
from trl.trainer.utils import add_fused_lm_head

from recipes import doctor, memory
from recipes.config import LoraPart, ModelPart, Recipe, TrainPart, load_recipe
from recipes.doctor import GB, Gpu, Machine, advice
from recipes.inference import default_batch
from recipes.memory import needs, needs_to_answer
from recipes.model import add_lora, apply_checkpointing, base_config, load_model, load_processor, nano_path
from recipes.packing import encode_dialogue, pack, preprocess

ROWS = 4


def recipe(base: str = "nano", *, lora: LoraPart | None = None, rows: int = ROWS, checkpointing: bool = False, **model):
    return Recipe(
        "test",
        ModelPart(base=base, **model),
        lora,
        train=TrainPart(images_per_batch=rows, gradient_checkpointing=checkpointing),
    )


def batch(base: str, rows: int, dialogues: int) -> dict[str, torch.Tensor]:
    processor = load_processor(base)
    side = processor.image_processor.size["height"]
    pages = [Image.new("RGB", (2 * side, 2 * side), (200, 10 * k, 0)) for k in range(rows)]
    talk = [{"role": "user", "content": "Is this a normal ECG?"}, {"role": "assistant", "content": "No."}]
    pixels, tiles = preprocess(processor, pages)
    return {**pack([[encode_dialogue(processor, talk)] * dialogues] * rows, tiles, processor), **pixels}


def trainable_model(r: Recipe):
    base = load_model(r.model)
    model = base if r.lora is None else add_lora(base, r.lora)
    apply_checkpointing(model, checkpointing=r.train.gradient_checkpointing)
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    return model.requires_grad_(True).train() if r.lora is None else model.train()


def storages(tensors) -> dict[int, int]:
    all_storages = (t.untyped_storage() for t in tensors)
    return {s.data_ptr(): s.nbytes() for s in all_storages if s.data_ptr()}


def living_tensors():
    gc.collect()
    return [t for t in gc.get_objects() if type(t) is torch.Tensor]


def bytes_for_backward(r: Recipe, inputs: dict[str, torch.Tensor]) -> int:
    """Bytes that a real forward pass leaves, the inputs included: what autograd stores, and what Python references."""
    model = trainable_model(r)
    weights = storages((*model.parameters(), *model.buffers()))
    before = storages(living_tensors())
    for_autograd = []

    def keep(tensor):
        for_autograd.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss = model(**inputs, fused_lm_head=True).loss
    after = {**storages(for_autograd), **{k: v for k, v in storages(living_tensors()).items() if k not in before}}
    assert loss.requires_grad
    return sum((storages(inputs.values()) | {k: v for k, v in after.items() if k not in weights}).values())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "lora",
    [LoraPart(dropout=0.0), LoraPart(dropout=0.05), LoraPart(targets="language"), None],
    ids=["all-linear", "dropout", "language", "all weights"],
)
def test_counted_activations_are_those_of_a_real_forward_pass(lora, checkpointing):
    r = recipe(lora=lora, checkpointing=checkpointing)
    inputs = batch("nano", ROWS, 8)
    activations = needs(r, text_tokens=inputs["input_ids"].shape[1]).activations
    assert activations == pytest.approx(bytes_for_backward(r, inputs), rel=0.1)


@pytest.mark.parametrize("lora", [None, LoraPart(rank=4), LoraPart(rank=4, targets="language")])
def test_parameters_of_nano_are_counted_exactly(lora):
    need, model = needs(recipe(lora=lora)), trainable_model(recipe(lora=lora))
    assert need.parameters == sum(p.numel() for p in model.parameters())
    assert need.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert need.weights + need.adapter == sum(p.nbytes for p in model.parameters())
    assert need.gradients == 4 * need.trained and need.optimizer == 8 * need.trained


def test_4bit_weights_of_nano_are_counted_exactly():
    pytest.importorskip("bitsandbytes")
    r = recipe(lora=LoraPart(), quantization="nf4", dtype="bfloat16")
    size = 0
    for parameter in load_model(r.model).parameters():
        size += parameter.nbytes
        if (state := getattr(parameter, "quant_state", None)) is not None:
            parts = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
            size += sum(part.nbytes for part in parts)
    assert needs(r).weights == size


def test_an_8bit_optimizer_takes_a_quarter():
    full = needs(recipe(lora=LoraPart()))
    in_8bit = dataclasses.replace(recipe(lora=LoraPart()).train, optimizer="paged_adamw_8bit")
    small = needs(dataclasses.replace(recipe(lora=LoraPart()), train=in_8bit))
    assert small.optimizer == pytest.approx(full.optimizer / 4, rel=0.02) and small.activations == full.activations


def test_a_token_budget_bounds_the_batch():
    base = recipe(lora=LoraPart())
    smaller = dataclasses.replace(base, train=dataclasses.replace(base.train, tokens_per_batch=64 * ROWS))
    assert needs(smaller) == needs(smaller, text_tokens=64) and needs(smaller).activations < needs(base).activations


# The 11 B, against figures that were counted on its shapes by other means


def eleven(targets: str, text_tokens: int) -> memory.Footprint:
    lora = LoraPart(targets=targets, dropout=0.0)
    part = {"dtype": "bfloat16", "quantization": "nf4", "quantize": "all"}
    r = recipe("random:11b", lora=lora, rows=1, checkpointing=True, **part)
    return needs.__wrapped__(r, text_tokens=text_tokens)  # past the cache: a test changes how it is counted


def test_stock_checkpointing_of_the_11b(monkeypatch):
    """One image, 96 tokens: 59 TFLOP and 8.7 GB, as a frozen tower is traced and back-propagated."""

    def stock(model, *, checkpointing: bool) -> None:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()

    monkeypatch.setattr(memory, "apply_checkpointing", stock)
    need = eleven("language", 96)
    assert need.flops_per_image == pytest.approx(59e12, rel=0.02)
    assert need.activations + need.working == pytest.approx(8.7e9, rel=0.03)
    assert need.weights == pytest.approx(7.2e9, rel=0.01)


def test_a_frozen_tower_of_the_11b_is_run_once():
    """26.4 TFLOP where the stock way takes 59."""
    need = eleven("language", 96)
    assert need.flops_per_image == pytest.approx(26.4e12, rel=0.05)
    assert need.activations < 0.25e9


@pytest.mark.parametrize("name", ["llama32-11b-paper", *(f"llama32-11b-qlora-{size}gb" for size in (12, 24, 80))])
def test_a_shipped_recipe_needs_what_its_header_says(name):
    header = (nano_path().parent / "configs" / f"{name}.yaml").read_text()
    recipe = load_recipe(name)
    need, of_these_pages = needs(recipe), needs(recipe, text_tokens=370)
    (most, usual, teraflops) = re.findall(
        r"([\d.]+) GB of GPU memory.*370: ([\d.]+) GB, ([\d.]+) TFLOP", header, re.DOTALL
    )[0]
    assert float(most) == pytest.approx(need.total / GB, abs=0.06)
    assert float(usual) == pytest.approx(of_these_pages.total / GB, abs=0.06)
    assert float(teraflops) == pytest.approx(of_these_pages.flops_per_image / 1e12, abs=0.6)
    (to_ask,) = re.findall(r"evaluate the tuned model, ([\d.]+) GB", header)
    assert float(to_ask) == pytest.approx(sum(needs_to_answer(recipe, batch=2)) / GB, abs=0.06)
    room = re.search(r"(\d+)gb", name)
    assert room is None or need.total + 0.8 * GB < int(room[1]) * GB


@pytest.mark.parametrize("name", ["qwen3-vl-4b-24gb", *(f"qwen3-vl-8b-qlora-{size}gb" for size in (12, 24))])
def test_an_open_recipe_needs_what_its_header_says(name):
    header = (nano_path().parent / "configs" / f"{name}.yaml").read_text()
    need = needs(load_recipe(name))
    most, teraflops = re.findall(r"([\d.]+) GB of GPU memory.*; ([\d.]+) TFLOP", header, re.DOTALL)[0]
    assert float(most) == pytest.approx(need.total / GB, abs=0.06)
    assert float(teraflops) == pytest.approx(need.flops_per_image / 1e12, abs=0.6)
    assert need.total + 0.8 * GB < int(name.split("-")[-1].removesuffix("gb")) * GB


# The doctor


def card(gigabytes: float, disk: float = 100 * GB) -> Machine:
    size = int(gigabytes * GB)
    return Machine(8, int(64 * GB), int(disk), (Gpu("a card", size, size),))


def test_doctor_says_what_fits():
    lines = doctor.doctor(load_recipe("quickstart"), card(12))
    assert "GPU 0: a card, 12.0 GB of 12.0 GB free" in lines
    verdict = next(line for line in lines if line.startswith("needs"))
    need, spare = map(float, re.findall(r"([\d.]+) GB", verdict)[:2])
    assert "GPU memory, which leaves" in verdict and need + spare + 0.8 == pytest.approx(12, abs=0.2)
    assert not any(line.startswith("change") for line in lines)


def test_doctor_says_that_a_large_model_is_slow_where_its_memory_suffices_without_a_gpu():
    lines = doctor.doctor(load_recipe("llama32-11b-qlora-12gb"), Machine(2, int(64 * GB), int(100 * GB), ()))
    assert "no GPU that torch can use: nano works here; larger models take minutes a page, if memory suffices" in lines
    assert any(re.search(r"needs [\d.]+ GB of main memory, which leaves [\d.]+ GB to spare$", line) for line in lines)


def test_doctor_knows_cards_without_bfloat16():
    old = dataclasses.replace(card(16), gpus=(Gpu("Tesla T4", int(16 * GB), int(16 * GB), bfloat16=False),))
    for here, is_old in ((old, True), (card(16), False)):
        lines = doctor.doctor(load_recipe("llama32-11b-qlora-12gb"), here)
        assert ("change: model.dtype=float16, as the GPU has no bfloat16" in lines) is is_old
        assert any(line.endswith("free, no bfloat16") for line in lines) is is_old
    lines = doctor.doctor(load_recipe("llama32-11b-qlora-12gb", ["model.dtype=float16"]), old)
    assert any("GB to spare" in line for line in lines) and not any(line.startswith("change") for line in lines)


def test_the_11b_is_asked_and_evaluated_on_the_card_that_it_is_tuned_on():
    """Eight images at once through the tower took 15 GB, and 22 under training's autocast."""
    recipe = load_recipe("llama32-11b-qlora-12gb")
    batch = default_batch(base_config(recipe.model.base))
    need, (weights, rest) = needs(recipe), needs_to_answer(recipe, batch=batch)
    assert weights == need.weights + need.adapter
    assert weights + rest + need.optimizer + 0.8 * GB < 11.5 * GB
    (line,) = [text for text in doctor.doctor(recipe, card(12)) if text.startswith("ask and evaluate")]
    assert line == f"ask and evaluate need {(weights + rest) / GB:.1f} GB with --batch 2, the default"


def test_doctor_without_a_gpu_judges_main_memory():
    here = dataclasses.replace(card(1), gpus=())
    lines = doctor.doctor(load_recipe("quickstart"), here)
    assert any("no GPU" in line for line in lines) and any("of main memory, which leaves" in line for line in lines)


def test_the_cache_of_meta_operations_changes_no_count(monkeypatch):
    r = recipe(lora=LoraPart(), checkpointing=True)
    with_cache = needs(r)
    monkeypatch.setattr(memory, "_MetaCount", memory.Count)
    assert needs.__wrapped__(r) == with_cache


def test_the_doctor_announces_long_waits():
    lines: list[str] = []
    needs.cache_clear()
    doctor.doctor(load_recipe("quickstart"), card(0.9), status=lines.append)
    assert lines == ["counting a training step of quickstart", "it does not fit: counting smaller recipes"]
    assert needs.cache_info().hits == 1  # what it needs as it is, is not counted again for the advice


def test_doctor_of_this_machine_runs_without_a_recipe():
    lines = doctor.doctor()
    assert re.match(r"machine: \d+ CPU cores, [\d.]+ GB of main memory and [\d.]+ GB of disk free", lines[0])


def test_the_proposed_overrides_save_what_they_promise():
    roomy = recipe(lora=LoraPart(), rows=8)
    room = needs(roomy).total / 4
    line = advice(roomy, room)
    overrides = re.findall(r"^change: (.*); then it needs", line)[0].split()
    smaller = load_recipe("quickstart", ["train.images_per_batch=8", "lora.dropout=0.05", *overrides])
    assert needs(smaller).total <= room
    assert f"then it needs {doctor._gb(needs(smaller).total)}" in line and "larger GPU" not in line
    assert advice(roomy, needs(roomy).total) == "it fits as it is"
    assert advice(roomy, 1e3).endswith("take a larger GPU")


def test_a_download_that_does_not_fit_the_disk_is_reported(monkeypatch):
    small = needs(recipe(lora=LoraPart()))
    monkeypatch.setattr(doctor, "needs", lambda _: small)
    lines = doctor.doctor(load_recipe("llama32-11b-qlora-12gb"), card(12, disk=1e6))
    assert any("to download: the disk has 1.0 MB only" in line for line in lines)


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("targets", ["language", "all-linear"])
def test_the_11b_needs_on_a_gpu_what_is_counted(targets):
    pytest.importorskip("bitsandbytes")
    lora = LoraPart(targets=targets, dropout=0.0)
    part = {"dtype": "bfloat16", "quantization": "nf4", "quantize": "all"}
    r = recipe("random:11b", lora=lora, rows=1, checkpointing=True, **part)
    inputs = {k: v.cuda() for k, v in batch("random:11b", 1, 30).items()}
    model = trainable_model(r)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**inputs, fused_lm_head=True).loss
        loss.backward()
        optimizer.step()
    total = needs(r, text_tokens=inputs["input_ids"].shape[1]).total
    assert total == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)
