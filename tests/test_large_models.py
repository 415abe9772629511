"""What only large models show, on small ones of the same layout: memory while loading, 4 bits, 16 bits, resuming."""

from __future__ import annotations

import json
import re
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, MllamaForConditionalGeneration

from ecg_vlm import Reader
from recipes import inference, random_weights
from recipes.config import LoraPart, ModelPart
from recipes.model import add_lora, load_model, load_processor, nano_path, saved_dtype
from render.errors import InputError

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
    assert len(originals) > 20 and max(alive) <= 1, max(alive)


# How a model opens


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A folder with a model of the published layout, tiny, in bfloat16: four tiles, fewer key heads than heads, closed
    gates, more rows in the embedding than in the head."""
    config = AutoConfig.from_pretrained(nano_path())
    vision, text = config.vision_config, config.text_config
    vision.hidden_size, vision.intermediate_size, vision.attention_heads, vision.image_size = 32, 64, 2, 112
    vision.patch_size, vision.max_num_tiles, vision.supported_aspect_ratios = 28, 4, _RATIOS
    vision.num_hidden_layers, vision.intermediate_layers_indices, vision.num_global_layers = 4, [1, 2], 2
    vision.vision_output_dim = 3 * 32
    text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads = 64, 96, 4, 2
    torch.manual_seed(0)
    model = MllamaForConditionalGeneration(config).to(torch.bfloat16)
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    processor = load_processor("nano")
    images = processor.image_processor
    images.size, images.max_image_tiles = {"height": 112, "width": 112}, 4
    processor.save_pretrained(folder)
    return folder


_RATIOS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]


def test_a_model_opens_in_the_type_that_it_was_saved_in(small):
    assert Reader.load(str(small)).model.dtype == torch.bfloat16
    assert Reader.load(str(small), dtype="float32").model.dtype == torch.float32
    assert Reader.load("nano").model.dtype == torch.float32
    assert saved_dtype("meta-llama/Llama-3.2-11B-Vision-Instruct") == "bfloat16"


@pytest.fixture(scope="module")
def adapter(small, tmp_path_factory) -> Path:
    """A folder with a random adapter for `small` as peft saves it: without a recipe, without the base."""
    folder = tmp_path_factory.mktemp("stock")
    torch.manual_seed(0)
    model = add_lora(load_model(ModelPart(base=str(small))), LoraPart(rank=2, dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


_ENDS = [*("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"), *("up_proj", "down_proj", "gate_proj")]


@pytest.mark.parametrize("layers", [None, r".*_proj|.*fc\d", [*_ENDS, "multi_modal_projector"]])
@pytest.mark.parametrize("names", ["of today", "of transformers 4.51"])
def test_an_adapter_alone_opens_whole_on_the_base_that_it_names(layers, names, small, adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    if names != "of today":
        weights = {_old_name(name): tensor for name, tensor in weights.items()}
        config["target_modules"] = [_old_name(name) for name in config["target_modules"]]
        save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config | ({"target_modules": layers} if layers else {})))
    reader = Reader.load(str(folder))
    assert reader.base == str(small) and reader.model.dtype == torch.bfloat16
    sums = {tensor.float().sum().item() for name, tensor in reader.model.named_parameters() if "lora_" in name}
    assert sums == {tensor.float().sum().item() for tensor in weights.values()}


def _old_name(name: str) -> str:
    name = name.replace("model.language_model.", "language_model.model.")
    return re.sub(r"model\.(vision_model|multi_modal_projector)", r"\1", name)


def test_an_adapter_that_lacks_a_tensor_is_refused(adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    del weights[sorted(weights)[3]]
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=rf"has {len(weights)} of the {len(weights) + 1} tensors of its layers"):
        Reader.load(str(folder))


def test_an_export_of_an_adapter_on_nano_is_asked_as_nano_is(tmp_path):
    model = add_lora(load_model(ModelPart()), LoraPart(rank=1))
    for config in model.peft_config.values():
        config.base_model_name_or_path = "./base"
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    shutil.copytree(nano_path(), tmp_path / "base", ignore=shutil.ignore_patterns("*.py"))
    reader = Reader.load(str(tmp_path))
    assert reader.base == "nano" and reader.knows_few_wordings and reader.model.dtype == torch.float32


def test_a_base_that_was_saved_in_4_bits_opens_and_is_tuned_as_such(small, tmp_path):
    pytest.importorskip("bitsandbytes")
    part = ModelPart(base=str(small), dtype="bfloat16", quantization="nf4", quantize="all")
    model = load_model(part)
    model.save_pretrained(tmp_path)
    load_processor(str(small)).save_pretrained(tmp_path)
    reader = Reader.load(str(tmp_path))
    assert reader.score(PAGE) == Reader(model, reader.processor).score(PAGE)
    add_lora(load_model(ModelPart(base=str(tmp_path), quantization="nf4")), LoraPart(rank=2))
    with pytest.raises(InputError, match=r"weights are in 4 bits; set model\.quantization=nf4"):
        load_model(ModelPart(base=str(tmp_path)))
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"weights are quantized \(gptq, not in 4 bits\); take those in 16 bits"):
        Reader.load(str(tmp_path))


PAGE = Image.effect_noise((448, 224), 80).convert("RGB")


def test_images_encoded_one_by_one_give_the_scores_and_answers_of_one_pass(small, monkeypatch):
    pages = [PAGE, PAGE.rotate(90, expand=True), PAGE.crop((0, 0, 100, 100))]
    reader = Reader.load(str(small), dtype="float32")
    with torch.no_grad():
        for name, parameter in reader.model.named_parameters():
            if "gate" in name.rpartition(".")[2]:
                parameter.fill_(1.0)
    questions = ["AFIB", "NORM", "LVH"]
    together = reader.score_many(pages, questions), reader.ask_many(pages, "Why?", max_new_tokens=5)
    monkeypatch.setattr(inference, "_PATCHES_AT_ONCE", 1)
    passes = []
    reader.model.model.vision_model.register_forward_hook(lambda *_: passes.append(1))
    one_by_one = reader.score_many(pages, questions), reader.ask_many(pages, "Why?", max_new_tokens=5)
    assert len(passes) == 6 and one_by_one[1] == together[1]
    assert abs(one_by_one[0] - together[0]).max() < 1e-5 < abs(together[0][0] - together[0][1]).max()
