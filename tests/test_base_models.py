"""The bases: published shapes, errors when one cannot be loaded, NF4 on the CPU, random weights."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig, MllamaForConditionalGeneration

from recipes import model as model_module
from recipes.config import LoraPart, ModelPart, load_recipe, shipped_recipes
from recipes.memory import meta_model
from recipes.model import (
    NEVER_ADAPTED,
    add_lora,
    base_config,
    is_quantized,
    linear_modules,
    load_adapter,
    load_from,
    load_model,
    load_processor,
    nano_path,
)
from render.errors import InputError

ELEVEN = "meta-llama/Llama-3.2-11B-Vision-Instruct"
HUB = "someone/some-model"


def on_meta(base: str) -> MllamaForConditionalGeneration:
    with torch.device("meta"):
        return MllamaForConditionalGeneration(base_config(base))


def inputs_for(model, base: str, *, seed: int = 0) -> dict[str, torch.Tensor]:
    processor = load_processor(base)
    side = model.config.vision_config.image_size
    pixels = torch.randint(
        0, 256, (side, 2 * side, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    inputs = processor(
        images=Image.fromarray(pixels.numpy()),
        text="<|image|>Is this a normal ECG?",
        add_special_tokens=False,
        return_tensors="pt",
    )
    return dict(inputs)


# Shapes


@pytest.fixture(scope="module")
def eleven():
    return on_meta(ELEVEN)


def test_the_11b_has_its_published_shape(eleven):
    model = eleven
    assert sum(p.numel() for p in model.parameters()) == 10_670_220_835  # the hub's count of the safetensors
    layers = model.model.language_model.layers
    assert len(layers) == 40 and sum(hasattr(layer, "cross_attn") for layer in layers) == 8
    vision = model.model.vision_model
    assert (len(vision.transformer.layers), len(vision.global_transformer.layers)) == (32, 8)
    assert vision.max_num_tiles * vision.num_patches == 4 * 1601
    assert (model.lm_head.out_features, model.model.language_model.embed_tokens.num_embeddings) == (128_256, 128_264)
    assert model.config.image_token_id == model.lm_head.out_features  # the image token is no row of the head


def test_the_90b_has_its_published_size():
    assert sum(p.numel() for p in on_meta("meta-llama/Llama-3.2-90B-Vision-Instruct").parameters()) / 1e9 == (
        pytest.approx(88.6, abs=0.05)
    )


@pytest.mark.parametrize("base", [ELEVEN, "meta-llama/Llama-3.2-11B-Vision", "x/llama-3.2-11b-vision", "random:11B"])
def test_names_of_the_11b_give_its_shape_without_the_network(base):
    assert base_config(base).text_config.hidden_size == 4096


def test_an_unknown_random_shape_names_the_known_ones():
    with pytest.raises(InputError, match="random:12b: no such shape; there is random:nano, random:11b, random:90b"):
        load_model(ModelPart(base="random:12b"))


def adapter_size(model, targets: str, rank: int = 16) -> int:
    layers = [model.get_submodule(name) for name in linear_modules(model, targets)]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def test_lora_on_the_11b_reaches_what_it_should(eleven):
    model = eleven
    assert adapter_size(model, "all-linear") == 67_362_816
    projector = 16 * (7680 + 4096)  # tuned with the language side
    assert adapter_size(model, "language") == 52_428_800 + projector
    layers = linear_modules(model, "all-linear")
    assert not any(part in NEVER_ADAPTED for name in layers for part in name.split("."))
    for end in ("mlp.fc1", "mlp.fc2", "self_attn.o_proj"):  # a list of q_proj ... down_proj would miss fc1 and fc2
        assert sum("vision_model" in name and name.endswith(end) for name in layers) == 40
    assert "model.multi_modal_projector" in layers


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if n.startswith("llama32-11b")])
def test_every_shipped_11b_recipe_builds_its_model(name, eleven):
    recipe = load_recipe(name)
    assert recipe.model.base == ELEVEN and recipe.lora is not None
    model = meta_model(recipe)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert parameters and all(".lora_" in n for n in parameters)
    assert not any(part in NEVER_ADAPTED for n in parameters for part in n.split("."))
    assert sum(p.numel() for p in parameters.values()) == adapter_size(eleven, recipe.lora.targets, recipe.lora.rank)
    assert any("vision_model" in n for n in parameters) == (recipe.lora.targets == "all-linear")


def test_the_papers_recipe_is_the_published_one():
    recipe = load_recipe("llama32-11b-paper")
    assert recipe.lora == LoraPart(rank=64, alpha=128, dropout=0.05, targets="all-linear")
    train = recipe.train
    assert (train.learning_rate, train.schedule, train.warmup, train.weight_decay) == (2e-4, "cosine", 0.03, 0.0)
    assert (train.epochs, train.images_per_batch, recipe.model.dtype) == (1, 2, "bfloat16")
    assert recipe.model.quantization == "none"


# A base that cannot be loaded


def hub_says(monkeypatch, error: Exception, in_cache: bool = False) -> None:
    """The hub answers with `error`."""
    import huggingface_hub

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "auth_check", refuse)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/config.json" if in_cache else None
    )


def hub_error(name: str) -> Exception:
    import httpx2 as httpx
    from huggingface_hub import errors

    return getattr(errors, name)("no", response=httpx.Response(403, request=httpx.Request("GET", "https://x")))


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("GatedRepoError", rf"is gated; accept its licence at https://huggingface.co/{HUB}, then run: hf auth login"),
        ("RepositoryNotFoundError", "no folder here and no model on huggingface.co; check the name"),
    ],
)
def test_gated_and_missing_bases_say_what_to_do(name, mend, monkeypatch):
    hub_says(monkeypatch, hub_error(name))
    with pytest.raises(InputError, match=mend) as error:
        load_model(ModelPart(base=HUB))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [ConnectionError("no route"), OSError("offline mode is enabled")])
def test_a_missing_network_is_reported_at_once(error, monkeypatch):
    hub_says(monkeypatch, error)
    with pytest.raises(InputError, match=r"huggingface.co cannot be reached \((no route|offline)"):
        load_processor(HUB)


def test_a_base_downloaded_before_opens_without_network(monkeypatch):
    hub_says(monkeypatch, ConnectionError("no route"), in_cache=True)
    call = {}
    load_from(lambda where, **arguments: call.update(arguments, where=where), HUB)
    assert call == {"where": HUB, "local_files_only": True, "trust_remote_code": False}


@given(
    text=st.one_of(
        st.text(max_size=30),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["model_type", "text_config", "vision_config"]), inner, max_size=3)
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_config_file_ends_in_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(InputError) as error:
        load_model(ModelPart(base=str(tmp_path)))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="is a llama; a Llama"):
        base_config(str(tmp_path))


# NF4 on the CPU


@pytest.fixture(scope="module")
def nf4():
    pytest.importorskip("bitsandbytes")
    return load_model(ModelPart(quantization="nf4", quantize="all"))


def four_bit_layers(model) -> set[str]:
    return {n for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}


def test_nf4_without_bitsandbytes_says_what_to_install(monkeypatch):
    monkeypatch.setattr(model_module, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'ecg-vlm\[quantized\]'"):
        load_model(ModelPart(quantization="nf4"))


def test_nf4_takes_every_linear_layer_but_the_head(nf4):
    linear = {n for n, m in nf4.named_modules() if isinstance(m, torch.nn.Linear)}
    assert four_bit_layers(nf4) == linear - {"lm_head"}
    assert any("vision_model" in n for n in four_bit_layers(nf4))
    assert type(nf4.lm_head) is torch.nn.Linear and nf4.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("base", ["nano", "random:nano"])
def test_nf4_leaves_the_tower_in_its_type_unless_told_otherwise(base):
    pytest.importorskip("bitsandbytes")
    part = ModelPart(base=base, quantization="nf4")
    model = load_model(part)
    linear = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert four_bit_layers(model) == {n for n in linear if "vision_model" not in n} - {"lm_head"}
    assert four_bit_layers(model) == {n for n in linear if is_quantized(n, part)}


@pytest.mark.parametrize("base", ["nano", "random:nano"])
def test_4bit_weights_are_stored_as_fsdp_takes_them(base, monkeypatch):
    """It divides numbers with a fraction alone, and joins only those of one type."""
    pytest.importorskip("bitsandbytes")
    part = ModelPart(base=base, quantization="nf4", dtype="bfloat16", quantize="all")
    plain = load_model(part)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    model = load_model(part)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        logits = [m(**inputs_for(m, base)).logits for m in (plain, model)]
    assert torch.equal(*logits)


def test_names_of_layers_to_skip_are_whole_paths(monkeypatch):
    """Pins the trap: the module's bare name leaves nothing out, and the head has to be named as well."""
    pytest.importorskip("bitsandbytes")
    for names, is_skipped in ((["vision_model"], False), (["lm_head", "model.vision_model"], True)):
        monkeypatch.setitem(model_module.NOT_QUANTIZED, "all", names)
        model = load_model(ModelPart(quantization="nf4", quantize="all"))
        assert any("vision_model" in n for n in four_bit_layers(model)) != is_skipped, names
        assert ("lm_head" not in four_bit_layers(model)) == is_skipped, names


def test_4bit_weights_are_never_repacked(monkeypatch):
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    for base in ("nano", "random:nano"):
        layers = [
            m
            for m in load_model(ModelPart(base=base, quantization="nf4")).modules()
            if hasattr(m, model_module._REPACKS)
        ]
        assert layers and not any(getattr(layer, model_module._REPACKS) for layer in layers)


def test_an_adapter_learns_on_4bit_weights_reloads_and_merges(tmp_path):
    pytest.importorskip("bitsandbytes")
    part = ModelPart(quantization="nf4")
    torch.manual_seed(1)  # of five seeds one gives an adapter that merging into 4-bit weights rounds away
    model = add_lora(load_model(part), LoraPart(rank=4, dropout=0.0))
    inputs = inputs_for(model, "nano")
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == model.config.image_token_id, -100)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(12):  # train, look without gradient, train again: repacked weights would raise here
        model.train()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step == 1:
            model.eval()
            with torch.no_grad():
                model(**inputs)
    assert losses[-1] < losses[0]
    for config in model.peft_config.values():
        config.base_model_name_or_path = "nano"
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = load_adapter(load_model(part), tmp_path, "nano")
    with torch.no_grad():
        before = model.eval()(**inputs).logits
        assert torch.equal(again(**inputs).logits, before)
        with again.disable_adapter():
            base_logits = again(**inputs).logits
        after_merge = again.merge_and_unload()(**inputs).logits
    agreement = (after_merge.argmax(-1) == before.argmax(-1)).float().mean()
    assert agreement >= 0.7, agreement  # rounded to 4 bits once more; garbage agrees at one token in a thousand
    assert _alike(after_merge, before) > 0.99 > 0.95 > _alike(base_logits, before)


def _alike(a, b):
    """Smallest correlation of a token's logits over the vocabulary."""
    a, b = (logits - logits.mean(dim=-1, keepdim=True) for logits in (a, b))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=-1).min())


# Random weights


@pytest.mark.parametrize(("dtype", "quantization"), [("float32", "none"), ("bfloat16", "none"), ("bfloat16", "nf4")])
def test_random_weights_come_in_their_final_type(dtype, quantization):
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes")
    part = ModelPart(base="random:nano", dtype=dtype, quantization=quantization, quantize="all")
    model = load_model(part)
    dtypes = {p.dtype for p in model.parameters()}
    assert dtypes == {getattr(torch, dtype)} | ({torch.uint8} if quantization == "nf4" else set())
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    with torch.no_grad():
        first, other = (model(**inputs_for(model, part.base, seed=s)).logits.float() for s in (0, 1))
        assert first.isfinite().all() and not torch.allclose(first, other)  # the gates are open
        assert torch.equal(first, load_model(part)(**inputs_for(model, part.base)).logits.float())
    if quantization == "nf4":
        assert four_bit_layers(model) == {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - {
            "lm_head"
        }
        assert model.is_loaded_in_4bit
        add_lora(model, LoraPart(rank=2)).train()(**inputs_for(model, part.base)).logits.sum().backward()


def test_random_weights_stand_where_the_real_ones_do():
    real, random = load_model(ModelPart()), load_model(ModelPart(base="random:nano"))
    assert {n: p.shape for n, p in real.named_parameters()} == {n: p.shape for n, p in random.named_parameters()}
    assert {n for n, _ in real.named_buffers()} == {n for n, _ in random.named_buffers()}
    for name, buffer in real.named_buffers():  # the rotary frequencies are in no file: they have to be made
        assert torch.equal(buffer, random.get_buffer(name)), name


def test_the_random_11b_is_shown_whole_pages():
    processor = load_processor("random:11b")
    features = processor.image_processor([[Image.new("RGB", (1120, 1120))]], return_tensors="pt")
    assert features["pixel_values"].shape == (1, 1, 4, 3, 560, 560)
    assert processor.image_token_id == AutoConfig.from_pretrained(nano_path()).image_token_index
