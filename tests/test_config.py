"""Recipes, the nano Mllama and LoRA."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors import safe_open

from recipes.config import LoraPart, ModelPart, load_recipe, save_recipe, shipped_recipes
from recipes.model import (
    NEVER_ADAPTED,
    add_lora,
    linear_modules,
    load_model,
    load_processor,
    nano_path,
)
from recipes.nano.build import fast_tokenizer, fit_tokenizer
from recipes.nano.build import main as build_nano
from render.errors import InputError


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano")


@pytest.fixture(scope="module")
def nano():
    return load_model(ModelPart())


# Recipes


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_survives_saving(name, tmp_path):
    recipe = load_recipe(name)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rat=1", r"unknown key train\.learning_rat; did you mean learning_rate\?"),
        ("trian.epochs=1", "unknown key trian; did you mean train"),
        ("train.epochs=many", r"train\.epochs='many': expected a number"),
        ("lora.rank=0", "must lie between 1 and 1024"),
        ("lora.rank=2.5", "expected a whole number"),
        ("lora.targets=everything", "expected one of all-linear"),
        ("lora.targets=lm_head", "expected one of all-linear, language, cross-attention, vision"),
        ("lora.targets=[q_proj, embed_tokens]", "expected one of all-linear"),
        ("train.log_to=tensorbord", r"did you mean tensorboard\?"),
        ("train.tokens_per_batch=-1", "must lie between 0"),
        ("train.learning_rate=.nan", "must lie between"),
        ("data.leave_out=[AFIBB]", r"did you mean AFIB\?"),
        ("model.from_scratch=true", "needs model.base=nano and lora: null"),
        ("train.optimizer=muon", "needs lora: null"),
        ("train.patches=78", "needs lora: null"),
        ("lora.dropout", "section.key=value"),
        ("name.x=1", "is a value, not a section"),
        ("train=5", "expected a section"),
        ("data.train=[", "not a YAML value"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said_in_one_line(override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("quickstart", [override])
    assert "\n" not in str(caught.value)


def test_quantized_weights_need_an_adapter(tmp_path):
    (tmp_path / "r.yaml").write_text("model: {quantization: nf4}\nlora: null\n")
    with pytest.raises(InputError, match=r"r\.yaml: recipe: model.quantization=nf4 needs a lora section"):
        load_recipe(tmp_path / "r.yaml")


def test_overrides_reach_their_key():
    recipe = load_recipe("quickstart", ["train.learning_rate=3e-4", "data.leave_out=[PACE, WPW]", "lora=null"])
    assert recipe.train.learning_rate == 3e-4 and recipe.data.leave_out == ("PACE", "WPW") and recipe.lora is None


@pytest.mark.parametrize("text", ["", "- a\n", "{", "\x00", "name: [1]\n", "1: 2\n"])
def test_files_that_are_no_recipe(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")


# Nano and its tokenizer


def test_nano_files_are_what_the_builder_writes_around_its_tokenizer(tmp_path):
    shutil.copy(nano_path() / "tokenizer.json", tmp_path)
    build_nano(str(tmp_path))
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            assert (nano_path() / file.name).read_text() == file.read_text(), file.name
    ours = json.loads((nano_path() / "config.json").read_text())
    built = json.loads((tmp_path / "config.json").read_text())
    for part in ("vision_config", "text_config"):
        assert {k: v for k, v in ours[part].items() if k != "dtype"} == {
            k: v for k, v in built[part].items() if k != "dtype"
        }


def test_nano_is_small_bfloat16_safetensors():
    weights = nano_path() / "model.safetensors"
    assert sum(file.stat().st_size for file in nano_path().iterdir() if file.is_file()) <= 24 * 2**20
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_any_text_survives_the_tokenizer_shipped_or_fitted_anew(processor):
    fitted = fast_tokenizer(fit_tokenizer())
    assert len(fitted) == len(processor.tokenizer)
    for tokenizer in (fitted, processor.tokenizer):
        for text in ("Is there atrial fibrillation?", "Überdrehter Linkstyp, ST-Hebung 0,2 mV", "心電図 🫀 \x07"):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            assert tokenizer.convert_tokens_to_ids("<|image|>") not in ids


def test_the_image_token_stands_outside_the_head(nano, processor):
    assert processor.image_token_id == nano.config.image_token_id == nano.lm_head.out_features
    assert processor.image_processor.max_image_tiles == nano.config.vision_config.max_num_tiles


# LoRA


def test_lora_adapts_every_linear_layer_but_head_and_embedding(nano):
    adapted = linear_modules(nano, "all-linear")
    linear = {n for n, m in nano.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(adapted) == linear - {"lm_head"}
    for layer in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert any(n.startswith("model.language_model") and n.endswith(layer) for n in adapted), layer
    for layer in ("self_attn.q_proj", "mlp.fc1", "mlp.fc2"):
        assert any("vision_model.transformer" in n and n.endswith(layer) for n in adapted), layer
        assert any("vision_model.global_transformer" in n and n.endswith(layer) for n in adapted), layer
    assert "model.multi_modal_projector" in adapted
    assert any(".cross_attn." in n for n in adapted)


@pytest.mark.parametrize("targets", ["all-linear", "language", "cross-attention", "vision"])
def test_adapters_never_touch_head_or_embedding(targets):
    wrapped = add_lora(load_model(ModelPart()), LoraPart(rank=2, targets=targets))
    trained = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in n for n in trained)
    assert not any(part in n.split(".") for n in trained for part in NEVER_ADAPTED)
    vision = [n for n in trained if "vision_model" in n]
    assert bool(vision) == (targets in ("all-linear", "vision"))
    if targets == "cross-attention":
        assert all(".cross_attn." in n for n in trained)


@pytest.mark.parametrize("base", ["/nowhere/at/all", "./missing"])
def test_missing_base_is_one_line(base):
    with pytest.raises(InputError, match=r"no config\.json there"):
        load_model(ModelPart(base=base))
