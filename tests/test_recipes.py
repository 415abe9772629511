"""Recipes, the nano Mllama, LoRA, packing, and a whole small run."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from recipes.model import (
    NEVER_ADAPTED,
    add_lora,
    linear_modules,
    load_adapter,
    load_model,
    load_processor,
    nano_folder,
)
from recipes.nano.build import build_tokenizer
from recipes.nano.build import main as build_nano
from recipes.packing import (
    IGNORED,
    PackingCollator,
    answer_tokens,
    encode,
    encode_prompt,
    look,
    pack,
    render_chat,
    yes_probabilities,
)
from recipes.run import finetune
from recipes.schema import LoraPart, ModelPart, Recipe, load_recipe, save_recipe, shipped_recipes
from render.data.dataset import write_dataset
from render.data.rows import Options
from render.questions.wording import closed_question
from render.files import InputError
from render.simulate import Simulated


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano")


@pytest.fixture(scope="module")
def nano():
    return load_model(ModelPart())


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "d"
    write_dataset(Simulated(5, 8), folder, Options(width=672, closed=4))
    return folder


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def noise_page(seed: int) -> Image.Image:
    pixels = torch.randint(0, 256, (336, 672, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


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
        ("train.learning_rate=.nan", "must lie between"),
        ("data.leave_out=[AFIBB]", r"did you mean AFIB\?"),
        ("model.from_scratch=true", "needs model.base=nano and lora: null"),
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


def test_nano_files_are_what_the_builder_writes(tmp_path):
    build_nano(str(tmp_path))
    for file in tmp_path.iterdir():
        if file.name != "config.json":
            assert (nano_folder() / file.name).read_text() == file.read_text(), file.name
    ours = json.loads((nano_folder() / "config.json").read_text())
    built = json.loads((tmp_path / "config.json").read_text())
    for part in ("vision_config", "text_config"):
        assert {k: v for k, v in ours[part].items() if k != "dtype"} == {
            k: v for k, v in built[part].items() if k != "dtype"
        }


def test_nano_is_small_bfloat16_safetensors():
    weights = nano_folder() / "model.safetensors"
    assert weights.stat().st_size <= 16 * 2**20
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_any_text_survives_the_tokenizer():
    tokenizer = build_tokenizer()
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


# Packing


def test_loss_falls_on_the_answers_alone(processor):
    encoded = encode(processor, talk("Is this a normal ECG?", "No."))
    tokenizer = processor.tokenizer
    learnt = [i for i, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt) == "No.<|eot_id|>"
    assert tokenizer.decode(encoded.input_ids).count("<|begin_of_text|>") == 1
    two = encode(processor, [*talk("Is this a normal ECG?", "No."), *talk("Why?", "Sinus bradycardia.")])
    learnt = [i for i, label in zip(two.input_ids, two.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learnt) == "No.<|eot_id|>Sinus bradycardia.<|eot_id|>"


def loss_and_gradients(model, batch, denominator):
    model.zero_grad()
    loss = model(**batch, num_items_in_batch=denominator).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_packed_dialogues_equal_separate_rows(processor):
    model = load_model(ModelPart())
    texts = [
        talk("Is this a normal ECG?", "No."),
        talk("What is the rhythm?", "Atrial fibrillation."),
        talk("Report this ECG.", "Sinus rhythm. Left ventricular hypertrophy. Low amplitude T waves."),
    ]
    encoded = [encode(processor, t) for t in texts]
    pixels, tiles = look(processor, [noise_page(0)])
    count = sum(label != IGNORED for e in encoded for label in e.labels)
    packed = loss_and_gradients(model, {**pack([encoded], tiles, processor), **pixels}, count)
    separate, gradients = torch.tensor(0.0), {}
    for one in encoded:
        loss, part = loss_and_gradients(model, {**pack([[one]], tiles, processor), **pixels}, count)
        separate += loss
        gradients = {n: gradients.get(n, 0) + g for n, g in part.items()}
    torch.testing.assert_close(packed[0], separate, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
def test_no_dialogue_sees_another(nano, processor):
    pixels, tiles = look(processor, [noise_page(0)])
    first = encode(processor, talk("Is this a normal ECG?", "No."))
    others = [encode(processor, talk("What is the rhythm?", a)) for a in ("Sinus rhythm.", "Trigeminy.")]
    logits = []
    for other in others:
        batch = {**pack([[first, other]], tiles, processor), **pixels}
        batch.pop("labels")
        logits.append(nano(**batch).logits[0, : len(first.input_ids)])
    assert torch.equal(logits[0], logits[1])


@torch.no_grad()
def test_padding_and_neighbouring_images_change_nothing(nano, processor):
    short = encode(processor, talk("Is this a normal ECG?", "No."))
    long = encode(processor, talk("Report this ECG.", "Sinus rhythm. Left ventricular hypertrophy."))
    pixels, tiles = look(processor, [noise_page(0), noise_page(1)])
    batch = {**pack([[short], [long, short]], tiles, processor), **pixels}
    batch.pop("labels")
    together = nano(**batch).logits[0, : len(short.input_ids)]
    pixels, tiles = look(processor, [noise_page(0)])
    batch = {**pack([[short]], tiles, processor), **pixels}
    batch.pop("labels")
    torch.testing.assert_close(together, nano(**batch).logits[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_scores_packed_equal_scores_one_by_one_and_stock_transformers(nano, processor):
    image = noise_page(2)
    questions = [closed_question(code) for code in ("AFIB", "NORM", "LVH")]
    packed = yes_probabilities(nano, processor, [image], questions)[0]
    yes, no = answer_tokens(processor)
    for value, question in zip(packed, questions, strict=True):
        alone = yes_probabilities(nano, processor, [image], [question])[0, 0]
        text = render_chat(processor, [{"role": "user", "content": question}], prompt=True)
        stock = nano(**processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")).logits[0, -1]
        torch.testing.assert_close(value, alone, atol=1e-4, rtol=0)
        torch.testing.assert_close(value, (stock[yes] - stock[no]).sigmoid(), atol=1e-4, rtol=0)


def test_collator_keeps_every_dialogue_and_one_image_a_row(processor):
    rows = [
        {"image": noise_page(k), "dialogues": [{"messages": talk("Is this a normal ECG?", "No.")}] * (k + 1)}
        for k in range(2)
    ]
    batch = PackingCollator(processor)(rows)
    ends = (batch["labels"] == processor.tokenizer.eos_token_id).sum(1)
    assert ends.tolist() == [1, 2] and batch["pixel_values"].shape[:2] == (2, 1)
    assert batch["attention_mask"].dtype == torch.bool and batch["attention_mask"].any(-1).all()


def test_prompt_ends_where_the_answer_begins(processor):
    prompt, whole = encode_prompt(processor, "Why?"), encode(processor, talk("Why?", "No."))
    assert whole.input_ids[: len(prompt.input_ids)] == prompt.input_ids
    assert whole.labels[len(prompt.input_ids)] != IGNORED == whole.labels[len(prompt.input_ids) - 1]


# The run


def tiny(pages, **train) -> Recipe:
    recipe = load_recipe("quickstart", [f"data.train={pages}", f"data.validation={pages}"])
    settings = {"images_per_batch": 4, "log_every": 1, "max_steps": 4, **train}
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **settings))


def test_a_run_learns_saves_and_reloads(pages, tmp_path, processor):
    out = tmp_path / "run"
    facts = finetune(tiny(pages, max_steps=12, learning_rate=5e-3, epochs=6), out)
    assert facts["losses"][-1][1] < facts["losses"][0][1]
    assert facts["validation_losses"] and len(facts["adapted_layers"]) == len(
        linear_modules(load_model(ModelPart()), "all-linear")
    )
    assert facts == json.loads((out / "run.json").read_text())
    image, questions = noise_page(0), [closed_question("AFIB")]
    tuned = load_adapter(load_model(ModelPart()), out, "nano")
    before = yes_probabilities(load_model(ModelPart()), processor, [image], questions)
    after = yes_probabilities(tuned, processor, [image], questions)
    assert not torch.allclose(before, after, atol=1e-4)
    with pytest.raises(InputError, match="already holds something"):
        finetune(tiny(pages), out)


def test_resumed_run_ends_with_the_losses_of_an_undisturbed_one(pages, tmp_path):
    whole = finetune(tiny(pages, max_steps=4, save_every=2), tmp_path / "whole")

    def stop(progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(tiny(pages, max_steps=4, save_every=2), tmp_path / "halved", report=stop)
    resumed = finetune(tiny(pages, max_steps=4, save_every=2), tmp_path / "halved", resume=True)
    assert dict(map(tuple, resumed["losses"]))[4] == dict(map(tuple, whole["losses"]))[4]


def test_adapter_for_another_base_is_refused(pages, tmp_path):
    out = tmp_path / "run"
    finetune(tiny(pages, max_steps=1), out)
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
    from recipes.run import training_pages

    rows = training_pages(load_recipe("quickstart", [f"data.train={pages}", "data.leave_out=[SR, NORM]"]).data)
    spoken = {code for row in rows["dialogues"] for d in row for code in d["statements"]}
    assert spoken and not spoken & {"SR", "NORM"}


@pytest.mark.parametrize("base", ["/nowhere/at/all", "./missing"])
def test_missing_base_is_one_line(base):
    with pytest.raises(InputError, match=r"no config\.json there"):
        load_model(ModelPart(base=base))
