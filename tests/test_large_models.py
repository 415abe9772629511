"""What only large models show, on small ones of the same layout: memory while loading, 4 bits, 16 bits, resuming."""

from __future__ import annotations

import weakref

import pytest

from recipes import random_weights
from recipes.config import ModelPart
from recipes.model import load_model

# Random weights


def test_random_weights_are_freed_as_they_are_quantized(monkeypatch):
    pytest.importorskip("bitsandbytes")
    quantize, originals, alive = random_weights._four_bit_layer, [], []

    def note(linear, quantizer):
        alive.append(sum(original() is not None for original in originals))
        originals.append(weakref.ref(linear.weight.untyped_storage()))
        return quantize(linear, quantizer)

    monkeypatch.setattr(random_weights, "_four_bit_layer", note)
    load_model(ModelPart(base="random:nano", dtype="bfloat16", quantization="nf4"))
    assert len(originals) > 50 and max(alive) <= 1, max(alive)
