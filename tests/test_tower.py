"""The vision tower in training: gradients as stock, memory not."""

from __future__ import annotations

import warnings

import pytest
import torch
from PIL import Image

from recipes.model import add_lora, load_model, load_processor
from recipes.packing import encode, look, pack
from recipes.schema import LoraPart, ModelPart
from recipes.tower import spare_memory


@pytest.fixture(scope="module")
def batch():
    processor = load_processor("nano")
    pixels = torch.randint(0, 256, (336, 672, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images, tiles = look(processor, [Image.fromarray(pixels.numpy())])
    talk = [{"role": "user", "content": "Is there atrial fibrillation?"}, {"role": "assistant", "content": "No."}]
    return {**pack([[encode(processor, talk)] * 3], tiles, processor), **images}


def adapted(targets: str, dropout: float = 0.0):
    """Nano with an adapter whose second half is not zero, so that the first half has a gradient too."""
    torch.manual_seed(0)
    model = add_lora(load_model(ModelPart()), LoraPart(rank=4, targets=targets, dropout=dropout))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.train()


def stock_checkpointing(model):
    """What Trainer, TRL and peft do when they are asked for gradient checkpointing."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()


def step(model, batch):
    """Gradients of one backward pass, and the bytes that it kept for that."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(**batch).loss
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize(
    ("targets", "checkpointing"),
    [("language", False), ("language", True), ("cross-attention", True), ("vision", True), ("all-linear", True)],
)
def test_gradients_are_the_stock_ones_and_memory_is_less(targets, checkpointing, batch):
    stock, ours = adapted(targets, dropout=0.1), adapted(targets, dropout=0.1)
    if checkpointing:
        stock_checkpointing(stock)
    spare_memory(ours, checkpointing=checkpointing)
    expected, stock_bytes = step(stock, batch)
    found, our_bytes = step(ours, batch)
    assert expected.keys() == found.keys() and any(g.abs().max() > 0 for g in expected.values())
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    if checkpointing:
        assert our_bytes < 0.5 * stock_bytes


def test_a_frozen_tower_leaves_no_graph(batch):
    model = adapted("language")
    spare_memory(model, checkpointing=True)
    seen = []
    vision = model.get_base_model().model.vision_model
    vision.patch_embedding.register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    vision.register_forward_hook(lambda module, args, out: seen.append(out.last_hidden_state.requires_grad))
    model(**batch)
    assert seen == [False, False]


def test_a_trained_tower_is_recomputed_layer_by_layer(batch):
    model = adapted("vision")
    spare_memory(model, checkpointing=True)
    vision = model.get_base_model().model.vision_model
    layers = [*vision.transformer.layers, *vision.global_transformer.layers]
    calls = [0] * len(layers)

    def count(i):
        def hook(*_):
            calls[i] += 1

        return hook

    for i, layer in enumerate(layers):
        layer.mlp.register_forward_pre_hook(count(i))
    model(**batch).loss.backward()
    assert calls == [2] * len(layers)
    model.eval()
    with torch.no_grad():
        model(**batch)
    assert calls == [3] * len(layers)


def test_asking_for_checkpoints_warns_of_nothing():
    model = adapted("all-linear")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spare_memory(model, checkpointing=True)
