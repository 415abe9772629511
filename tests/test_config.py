"""Recipes, the nano Mllama and LoRA."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from recipes.config import RENAMED_KEYS, LoraPart, ModelPart, load_recipe, save_recipe, shipped_recipes
from recipes.model import (
    NEVER_ADAPTED,
    add_lora,
    linear_modules,
    load_model,
    load_processor,
    nano_path,
)
from recipes.nano.build import fast_tokenizer, fit_tokenizer
from recipes.nano.build import write_nano as build_nano
from render.errors import InputError


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano")


@pytest.fixture(scope="module")
def nano_model():
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
        ("train.learning_rat=1", r"unknown key train\.learning_rat; did you mean train\.learning_rate\?"),
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
def test_an_error_in_a_recipe_is_one_line(override, message):
    with pytest.raises(InputError, match=message) as error:
        load_recipe("quickstart", [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keys", ["train.keep=loss", "train.patience=2", "train.keep=loss train.validate_every=5"])
def test_a_best_step_needs_evaluations(keys):
    with pytest.raises(InputError, match=r"a best step needs train\.keep=loss or macro_auc, data\.validation and"):
        load_recipe("quickstart", keys.split())


def test_quantized_weights_need_an_adapter(tmp_path):
    (tmp_path / "r.yaml").write_text("model: {quantization: nf4}\nlora: null\n")
    with pytest.raises(InputError, match=r"r\.yaml: recipe: model.quantization=nf4 needs a lora section"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "folder"), [("a\nb", "a\nb"), ("a #b/c", "a #b/c"), ("'a #b'", "a #b"), ('"a\\tb"', "a\tb"), ("12", "12")]
)
def test_a_folder_in_an_override_keeps_its_name(text, folder):
    assert load_recipe("quickstart", [f"data.train={text}"]).data.train == folder


def test_overrides_reach_their_key():
    recipe = load_recipe("quickstart", ["train.learning_rate=3e-4", "data.leave_out=[PACE, WPW]", "lora=null"])
    assert recipe.train.learning_rate == 3e-4 and recipe.data.leave_out == ("PACE", "WPW") and recipe.lora is None


def test_keys_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "r.yaml").write_text("train: {accumulate: 4}\n")
    assert load_recipe(tmp_path / "r.yaml").train.gradient_accumulation_steps == 4
    for overrides in (["train.accumulate=2"], ["train.gradient_accumulation_steps=2"], ["train={accumulate: 2}"]):
        assert load_recipe(tmp_path / "r.yaml", overrides).train.gradient_accumulation_steps == 2
    assert load_recipe("llama32-11b-qlora-12gb", ["train.accumulate=3"]).train.gradient_accumulation_steps == 3
    assert load_recipe(Path(__file__).parent / "v0_1/run/recipe.yaml").train.gradient_accumulation_steps == 2
    for former, key in RENAMED_KEYS.items():
        (tmp_path / "both.yaml").write_text(f"train: {{{former[6:]}: 2, {key[6:]}: 2}}\n")
        with pytest.raises(InputError, match=f"both.yaml: {former} is the former name of {key}; give one of the two"):
            load_recipe(tmp_path / "both.yaml")


@pytest.mark.parametrize("text", ["", "- a\n", "{", "\x00", "name: [1]\n", "1: 2\n"])
def test_files_that_are_no_recipe(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=r"r\.yaml"):
        load_recipe(tmp_path / "r.yaml")


# Nano and its tokenizer


def test_nano_files_are_what_the_builder_writes_around_its_tokenizer(tmp_path):
    shutil.copy(nano_path() / "tokenizer.json", tmp_path)
    build_nano(str(tmp_path))
    assert len(list(tmp_path.iterdir())) > 4
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            assert (nano_path() / file.name).read_text() == file.read_text(), file.name
    ours = json.loads((nano_path() / "config.json").read_text())
    fresh = json.loads((tmp_path / "config.json").read_text())
    for part in ("vision_config", "text_config"):
        assert {k: v for k, v in ours[part].items() if k != "dtype"} == {
            k: v for k, v in fresh[part].items() if k != "dtype"
        }


def test_nano_is_small_bfloat16_safetensors():
    weights = nano_path() / "model.safetensors"
    assert sum(file.stat().st_size for file in nano_path().iterdir() if file.is_file()) <= 24 * 2**20
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_any_text_survives_the_tokenizer_shipped_or_fitted_anew(processor):
    fresh = fast_tokenizer(fit_tokenizer())
    assert len(fresh) == len(processor.tokenizer)
    for tokenizer in (fresh, processor.tokenizer):
        for text in ("Is there atrial fibrillation?", "Überdrehter Linkstyp, ST-Hebung 0,2 mV", "心電図 🫀 \x07"):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            assert tokenizer.convert_tokens_to_ids("<|image|>") not in ids


def test_the_image_token_stands_outside_the_head(nano_model, processor):
    assert processor.image_token_id == nano_model.config.image_token_id == nano_model.lm_head.out_features
    assert processor.image_processor.max_image_tiles == nano_model.config.vision_config.max_num_tiles


# LoRA


def test_lora_adapts_every_linear_layer_but_head_and_embedding(nano_model):
    layers = linear_modules(nano_model, "all-linear")
    linear = {n for n, m in nano_model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(layers) == linear - {"lm_head"}
    for end in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert any(n.startswith("model.language_model") and n.endswith(end) for n in layers), end
    for end in ("self_attn.q_proj", "mlp.fc1", "mlp.fc2"):
        assert any("vision_model.transformer" in n and n.endswith(end) for n in layers), end
        assert any("vision_model.global_transformer" in n and n.endswith(end) for n in layers), end
    assert "model.multi_modal_projector" in layers
    assert any(".cross_attn." in n for n in layers)


@pytest.mark.parametrize("targets", ["all-linear", "language", "cross-attention", "vision"])
def test_adapters_never_touch_head_or_embedding(targets):
    model = add_lora(load_model(ModelPart()), LoraPart(rank=2, targets=targets))
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in n for n in names)
    assert not any(part in n.split(".") for n in names for part in NEVER_ADAPTED)
    vision = [n for n in names if "vision_model" in n]
    assert bool(vision) == (targets in ("all-linear", "vision"))
    if targets == "cross-attention":
        assert all(".cross_attn." in n for n in names)


@pytest.mark.parametrize("base", ["/nowhere/at/all", "./missing"])
def test_missing_base_is_one_line(base):
    with pytest.raises(InputError, match=r"no config\.json there"):
        load_model(ModelPart(base=base))
