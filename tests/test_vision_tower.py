"""The vision tower in training: gradients as in stock transformers, with less memory."""

from __future__ import annotations

import warnings

import pytest
import torch
from PIL import Image

from recipes.config import LoraPart, ModelPart
from recipes.memory import Count
from recipes.model import add_lora, apply_checkpointing, load_model, load_processor, vision_model
from recipes.packing import encode_dialogue, pack, preprocess
from recipes.vision_tower import keep_inkiest_patches
from recipes.waveform_heads import COLUMNS, Reading


@pytest.fixture(scope="module")
def batch():
    processor = load_processor("nano")
    pixels = torch.randint(0, 256, (392, 784, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images, tiles = preprocess(processor, [Image.fromarray(pixels.numpy())])
    talk = [{"role": "user", "content": "Is there atrial fibrillation?"}, {"role": "assistant", "content": "No."}]
    return {**pack([[encode_dialogue(processor, talk)] * 3], tiles, processor), **images}


def nano_with_adapter(targets: str, dropout: float = 0.0):
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


def gradients(model, batch):
    """Gradients of one backward pass, and the bytes that were stored for it."""
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(**batch).loss
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sum(sizes.values())


@pytest.mark.parametrize(
    ("targets", "checkpointing"),
    [("language", False), ("language", True), ("cross-attention", True), ("vision", True), ("all-linear", True)],
)
def test_gradients_are_the_stock_ones_and_memory_is_less(targets, checkpointing, batch):
    stock, ours = nano_with_adapter(targets, dropout=0.1), nano_with_adapter(targets, dropout=0.1)
    if checkpointing:
        stock_checkpointing(stock)
    apply_checkpointing(ours, checkpointing=checkpointing)
    stock_gradients, stock_bytes = gradients(stock, batch)
    our_gradients, our_bytes = gradients(ours, batch)
    assert stock_gradients.keys() == our_gradients.keys()
    assert any(g.abs().max() > 0 for g in stock_gradients.values())
    for name, gradient in stock_gradients.items():
        assert torch.equal(our_gradients[name], gradient), name
    if checkpointing:
        assert our_bytes < 0.5 * stock_bytes


def test_a_frozen_tower_leaves_no_graph(batch):
    model = nano_with_adapter("language")
    apply_checkpointing(model, checkpointing=True)
    requires_grad = []
    vision = model.get_base_model().model.vision_model
    vision.patch_embedding.register_forward_hook(lambda module, args, out: requires_grad.append(out.requires_grad))
    vision.register_forward_hook(lambda module, args, out: requires_grad.append(out.last_hidden_state.requires_grad))
    model(**batch)
    assert requires_grad == [False, False]


def test_a_trained_tower_is_recomputed_layer_by_layer(batch):
    model = nano_with_adapter("vision")
    apply_checkpointing(model, checkpointing=True)
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
    model = nano_with_adapter("all-linear")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_checkpointing(model, checkpointing=True)


# Patches with ink alone


def page_with_ink(side: int, patch: int, places) -> torch.Tensor:
    """(1, 1, 2, 3, side, side): two white tiles with a dark stroke in the named (tile, patch) places."""
    pixels = torch.ones(1, 1, 2, 3, side, side)
    across = side // patch
    for tile, place in places:
        row, column = divmod(place, across)
        pixels[0, 0, tile, :, row * patch + 3, column * patch : (column + 1) * patch] = -3.0
    return pixels


def tower_output(vision, pixels):
    return vision(pixels, torch.tensor([[2]]), torch.ones(1, 1, 2, dtype=torch.long)).last_hidden_state


@pytest.fixture
def vision():
    return vision_model(load_model(ModelPart(from_scratch=True)))


def test_a_tower_in_training_sees_the_patches_with_ink_where_they_are(vision):
    side, patch = vision.image_size, vision.patch_size
    ink_places = [[5, 17, 40], [0, 100, 101]]
    pixels = page_with_ink(side, patch, [(tile, place) for tile in (0, 1) for place in ink_places[tile]])
    keep_inkiest_patches(vision, 3)
    assert tower_output(vision.train(), pixels).shape[2:4] == (2, 4)
    assert vision.patch_indices.tolist() == ink_places and vision.num_patches == 4
    inputs = []
    vision.layernorm_pre.register_forward_hook(lambda module, args, out: inputs.append(out))
    tower_output(vision, pixels)
    whole = tower_output(vision.eval(), pixels)
    assert whole.shape[3] == (side // patch) ** 2 + 1 == vision.num_patches
    some, every = inputs
    assert torch.allclose(some[0, :, 0], every[0, :, 0], atol=1e-5)  # the class token of each tile
    for tile in (0, 1):
        for k, place in enumerate(ink_places[tile]):
            assert torch.allclose(some[0, tile, 1 + k], every[0, tile, 1 + place], atol=1e-4), (tile, place)


def test_a_tower_that_keeps_every_patch_is_the_stock_one(vision):
    pixels = torch.randn(1, 1, 2, 3, vision.image_size, vision.image_size, generator=torch.Generator().manual_seed(0))
    stock = tower_output(vision.train(), pixels)
    keep_inkiest_patches(vision, vision.num_patches - 1)
    assert torch.allclose(tower_output(vision, pixels), stock, atol=1e-4)


def test_a_number_of_patches_that_mllama_would_mask_is_refused(vision):
    with pytest.raises(ValueError, match="multiple of 8"):
        keep_inkiest_patches(vision, 95)


def test_the_heads_of_a_tower_that_sees_ink_get_targets_for_what_it_sees(vision):
    places = (vision.image_size // vision.patch_size) ** 2
    pixels = page_with_ink(vision.image_size, vision.patch_size, [(0, 3), (0, 7), (1, 4), (1, 9)])
    keep_inkiest_patches(vision, 2)
    reading = Reading(vision)
    batch = {
        "aspect_ratio_mask": torch.ones(1, 1, 2, dtype=torch.long),
        "reading_lead": torch.full((1, 2, places), -100),
        "reading_mv": torch.full((1, 2, places, COLUMNS), torch.nan),
        "reading_beats": torch.full((1, 2, places, 3), torch.nan),
        "reading_statements": torch.zeros(1, 71),
    }
    batch["reading_lead"][0, 1, 9] = 6
    for name in ("reading_mv", "reading_beats"):
        batch[name][0, 1, 8] = 1.0  # a patch that is not seen has no loss
    tower_output(vision.train(), pixels)
    losses = reading(batch)
    assert losses["voltages"].item() == 0 and losses["beats"].item() == 0 and losses["leads"].item() > 0
    batch["reading_beats"][0, 1, 9] = 1.0
    tower_output(vision.train(), pixels)
    assert reading(batch)["beats"].item() > 0


def test_a_tower_that_keeps_what_it_reads_returns_the_same_in_less_memory(batch):
    """Against the stock encoder, whose forward the class still has."""
    vision = load_model(ModelPart()).model.vision_model
    names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
    results, sizes = [], []
    for _ in range(2):
        with torch.no_grad(), Count() as count:
            results.append(vision(*(batch[name] for name in names)).last_hidden_state)
        sizes.append(count.most_bytes)
        for encoder in (vision.transformer, vision.global_transformer):
            encoder.__dict__.pop("forward", None)
    assert torch.equal(*results) and sizes[0] < sizes[1]
