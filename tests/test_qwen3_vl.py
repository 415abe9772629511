"""A Qwen3-VL, whose image is in the row, on a tiny one: packing and inference equal stock transformers; a whole run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from trl.trainer.utils import add_fused_lm_head

from ecg_vlm import Reader
from recipes import inference
from recipes.config import LoraPart, ModelPart, Recipe, TrainPart, load_recipe, shipped_recipes
from recipes.export import export
from recipes.families import FAMILIES, PAGE_PIXELS
from recipes.inference import answer_tokens, generate_answers, prefill, yes_probabilities
from recipes.memory import meta_model, needs
from recipes.model import (
    add_lora,
    apply_checkpointing,
    base_config,
    is_quantized,
    linear_modules,
    load_model,
    load_processor,
    saved_dtype,
)
from recipes.packing import IGNORE_INDEX, encode_dialogue, pack, preprocess, render_chat
from recipes.train import finetune
from render.dataset.parquet import write_dataset
from render.dataset.rows import Options
from render.dialogues.wording import closed_question
from render.errors import InputError
from render.simulator.simulate import SimulatedSource
from render.statements import STATEMENTS

TINY = "random:qwen3-vl-tiny"


@pytest.fixture(scope="module")
def processor():
    """For images as small as they come."""
    processor = load_processor(TINY)
    processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": PAGE_PIXELS}
    return processor


@pytest.fixture(scope="module")
def tiny():
    """With weights so large that what it says depends on what it sees."""
    model = load_model(ModelPart(TINY))
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def noise_page(seed: int, width: int = 128, height: int = 96) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


TALKS = [
    talk("Is this a normal ECG?", "No."),
    talk("What is the rhythm?", "Atrial fibrillation."),
    [*talk("Report this ECG.", "Sinus rhythm. Low amplitude T waves."), *talk("Why?", "The PR interval is long.")],
]


# Packing


def stock_inputs(processor, image, messages):
    """One dialogue about one image as stock transformers prepares it, without its labels."""
    text = render_chat(processor, messages, prompt=False)
    return processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")


def loss_and_gradients(model, batch, denominator):
    model.zero_grad()
    loss = model(**batch, num_items_in_batch=denominator).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_packed_dialogues_equal_separate_rows_of_stock_transformers(processor):
    model = add_lora(load_model(ModelPart(TINY)), LoraPart(rank=2, dropout=0.0))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    pages = [noise_page(0), noise_page(1, 96, 160)]
    dialogues = [encode_dialogue(processor, messages) for messages in TALKS]
    pixels, shapes = preprocess(processor, pages)
    assert shapes == [(3, 4), (5, 3)]
    count = 2 * sum(label != IGNORE_INDEX for d in dialogues for label in d.labels)
    batch = {**pack([dialogues, dialogues[:0:-1] + dialogues[:1]], shapes, processor), **pixels}
    one_row = loss_and_gradients(model, batch, count)
    separate, gradients = torch.tensor(0.0), {}
    for page in pages:
        for dialogue, messages in zip(dialogues, TALKS, strict=True):
            inputs = stock_inputs(processor, page, messages)
            labels = torch.full_like(inputs["input_ids"], IGNORE_INDEX)
            tail = torch.tensor(dialogue.labels)
            labels[0, -len(tail) :] = tail
            loss, part = loss_and_gradients(model, {**inputs, "labels": labels}, count)
            separate += loss
            gradients = {n: gradients.get(n, 0) + g for n, g in part.items()}
    torch.testing.assert_close(one_row[0], separate, atol=1e-5, rtol=1e-5)
    assert len(gradients) > 40 and any("visual" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(one_row[1][name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@torch.no_grad()
def test_no_dialogue_attends_to_another_and_all_see_the_image(tiny, processor):
    first = encode_dialogue(processor, TALKS[0])
    logits = []
    for seed, other in ((0, "Sinus rhythm."), (0, "Trigeminy."), (1, "Trigeminy.")):
        pixels, shapes = preprocess(processor, [noise_page(seed)])
        other_dialogue = encode_dialogue(processor, talk("What is the rhythm?", other))
        batch = {**pack([[first, other_dialogue]], shapes, processor), **pixels}
        del batch["labels"]
        end = shapes[0][0] * shapes[0][1] + len(first.input_ids) - 1
        logits.append(tiny(**batch).logits[0, :end])
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[1][-1], logits[2][-1])


@torch.no_grad()
def test_the_mask_is_a_table_that_eager_attention_takes_as_numbers(processor):
    """Eager attention adds the mask, torch's own reads it; both give the same."""
    model = load_model(ModelPart(TINY))
    pixels, shapes = preprocess(processor, [noise_page(0)])
    batch = {**pack([[encode_dialogue(processor, t) for t in TALKS]], shapes, processor), **pixels}
    del batch["labels"]
    own = model(**batch).logits
    model.set_attn_implementation("eager")
    batch["attention_mask"] = torch.where(batch["attention_mask"], 0.0, -torch.inf)
    torch.testing.assert_close(model(**batch).logits, own, atol=1e-5, rtol=1e-4)


# One prefill


def stock_prompt(processor, image, question: str):
    text = render_chat(processor, [{"role": "user", "content": question}], prompt=True)
    return processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")


@torch.no_grad()
@pytest.mark.parametrize("patches", [6500, 1])
def test_scores_of_one_prefill_equal_stock_transformers(patches, tiny, processor, monkeypatch):
    """Images of two sizes, in one pass and one by one, where the shorter is padded in the cache."""
    monkeypatch.setattr(inference, "_PATCHES_AT_ONCE", patches)
    monkeypatch.setattr("recipes.families.PAGE_PIXELS", 256 * 1000)
    images = [noise_page(2), noise_page(3, 96, 160)]
    questions = [closed_question(code) for code in ("AFIB", "NORM", "LVH")]
    scores = yes_probabilities(tiny, processor, prefill(tiny, processor, images), questions)
    yes, no = answer_tokens(processor)
    for row, image in zip(scores, images, strict=True):
        for value, question in zip(row, questions, strict=True):
            logits = tiny(**stock_prompt(processor, image, question)).logits[0, -1]
            torch.testing.assert_close(value, (logits[yes] - logits[no]).sigmoid(), atol=1e-5, rtol=0)
    assert scores.std() > 1e-3


@torch.no_grad()
def test_answers_of_one_prefill_are_those_of_stock_transformers(tiny, processor):
    images, questions = [noise_page(4), noise_page(5, 128, 160)], ["What is the rhythm?", "Report this ECG."]
    cache = prefill(tiny, processor, images)
    answers = []
    for question in questions:  # behind scores and answers: the cache is never used up
        yes_probabilities(tiny, processor, cache, questions)
        answers.append(generate_answers(tiny, processor, cache, question, max_new_tokens=5))
        for image, answer in zip(images, answers[-1], strict=True):
            inputs = stock_prompt(processor, image, question)
            ids = tiny.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            assert answer == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert len({answer for pair in answers for answer in pair}) > 2


# The published sizes


def test_published_shapes_have_the_published_sizes():
    """The counts are those of the safetensors on the hub."""
    sizes = {"2b": 2_127_532_032, "4b": 4_437_815_808, "8b": 8_767_123_696}
    for size, count in sizes.items():
        part = ModelPart(f"Qwen/Qwen3-VL-{size.upper()}-Instruct", dtype="bfloat16")
        model = meta_model(Recipe("test", part, None))
        assert sum(p.numel() for p in model.parameters()) == count and saved_dtype(part.base) == "bfloat16"
        assert base_config(part.base).to_dict() == base_config(f"random:qwen3-vl-{size}").to_dict()
        layers = linear_modules(model, "all-linear")
        assert "lm_head" not in layers and {"self_attn", "mlp", "attn"} <= {name.split(".")[-2] for name in layers}
        language = set(linear_modules(model, "language"))
        assert language and all("language_model" in name for name in language)
        assert set(layers) == language | set(linear_modules(model, "vision"))
        nf4 = dataclasses.replace(part, quantization="nf4")
        assert {name for name in layers if is_quantized(name, nf4)} == language
    with pytest.raises(InputError, match=r"lora\.targets=cross-attention: the model has no such layer"):
        linear_modules(model, "cross-attention")


QWEN_RECIPES = [name for name in shipped_recipes() if name.startswith("qwen3-vl")]


@pytest.mark.parametrize("name", QWEN_RECIPES)
def test_shipped_recipes_name_an_open_base_and_adapt_no_head(name):
    recipe = load_recipe(name)
    assert FAMILIES["qwen3_vl"].hub_name.fullmatch(recipe.model.base) and recipe.lora is not None
    assert recipe.model.dtype == "bfloat16" and recipe.train.gradient_checkpointing


@pytest.mark.parametrize("targets", ["language", "all-linear"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_counted_activations_are_those_of_a_real_forward_pass(targets, checkpointing, processor, monkeypatch):
    """Against what autograd stores of the largest image that is let in, here of 96 tokens."""
    monkeypatch.setattr("recipes.families.PAGE_PIXELS", 96 * 1024)
    train = TrainPart(images_per_batch=2, gradient_checkpointing=checkpointing)
    recipe = Recipe("test", ModelPart(TINY), LoraPart(targets=targets, dropout=0.0), train=train)
    model = add_lora(load_model(recipe.model), recipe.lora).train()
    apply_checkpointing(model, checkpointing=checkpointing)
    add_fused_lm_head(model.get_base_model())
    pixels, shapes = preprocess(processor, [noise_page(0, 384, 256)] * 2)
    dialogues = [encode_dialogue(processor, messages) for messages in TALKS] * 4
    batch = {**pack([dialogues] * 2, shapes, processor), **pixels}
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in batch.values()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    alive = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batch, fused_lm_head=True)
    text_tokens = batch["input_ids"].shape[1] - 96
    assert needs(recipe, text_tokens=text_tokens).activations == pytest.approx(sum(sizes.values()), rel=0.15)


# From a base of the published layout to an exported model


CHAT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- for part in message.content %}{%- if part.type == 'image' %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' }}{%- else %}{{- part.text }}{%- endif %}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with the files of a published Qwen3-VL: tokens, chat, line break behind the end of a turn."""
    folder = tmp_path_factory.mktemp("hub") / "Qwen3-VL-Tiny-Instruct"
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    texts = [text for code in STATEMENTS for text in (closed_question(code), "Yes.", "No.", "user assistant")]
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(texts, 1000, new_special_tokens=special)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(folder)
    config = base_config(TINY)
    ids = tokenizer.convert_tokens_to_ids
    config.image_token_id, config.video_token_id = ids("<|image_pad|>"), ids("<|video_pad|>")
    config.text_config.eos_token_id = ids("<|im_end|>")
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).float()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.config.dtype = torch.float32
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ids("<|im_end|>"), ids("<|endoftext|>")
    model.save_pretrained(folder)
    images = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "processor_class": "Qwen3VLProcessor"}
    images |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images |= {"size": {"longest_edge": 16_777_216, "shortest_edge": 1024}}
    for file, kind in (
        ("preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessorFast"}),
        ("video_preprocessor_config.json", {"video_processor_type": "Qwen3VLVideoProcessor"}),
    ):
        (folder / file).write_text(json.dumps(images | kind))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT}))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def test_a_processor_of_the_published_layout_opens_without_torchvision(base):
    processor = load_processor(str(base))
    assert processor.image_token == "<|image_pad|>" and processor.image_processor.size["longest_edge"] == PAGE_PIXELS
    dialogue = encode_dialogue(processor, [*talk("Is this a normal ECG?", "No."), *talk("Why?", "Yes.")])
    answer_ids = [i for i, label in zip(dialogue.input_ids, dialogue.labels, strict=True) if label != IGNORE_INDEX]
    assert processor.tokenizer.decode(answer_ids) == "No.<|im_end|>Yes.<|im_end|>"  # no line break of the template's
    assert dialogue.input_ids[-1] == processor.tokenizer.eos_token_id
    assert preprocess(processor, [Image.new("RGB", (4000, 2000))])[1] == [(24, 49)]  # a scan is shrunk


def tiny_recipe(base: Path, pages: Path, *overrides: str, **train) -> Recipe:
    recipe = load_recipe(
        "quickstart", [f"model.base={base}", f"data.train={pages}", "lora.targets=language", *overrides]
    )
    settings = {"images_per_batch": 2, "log_every": 1, "max_steps": 1, "log_to": "none", **train}
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **settings))


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "d"
    write_dataset(SimulatedSource(5, 2), folder, Options(width=280, closed=2, tasks=("rhythm",), signal=True))
    return folder


@pytest.fixture(scope="module")
def run(base, pages, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {"max_steps": 4, "learning_rate": 1e-2, "gradient_checkpointing": True}
    return out, finetune(tiny_recipe(base, pages, "lora.dropout=0", f"data.validation={pages}", **settings), out)


def test_a_step_of_two_batches_learns_what_one_of_both_pages_does(run, base, pages, tmp_path):
    """The mean over all answers of a step: transformers' own would be a mean of means for this model."""
    settings = {"images_per_batch": 1, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
    facts = finetune(tiny_recipe(base, pages, "lora.dropout=0", **settings), tmp_path / "run")
    assert facts.losses[0][1] == pytest.approx(run[1].losses[0][1], abs=1e-5)
    assert all(".language_model." in f".{name}" for name in facts.adapted_layers)
    learning = [loss for _, loss in (run[1].losses[0], run[1].losses[-1], run[1].validation_losses[-1])]
    assert learning[0] > max(learning[1:]) and learning[2] > 0


def test_a_run_is_asked_and_merged(run, base, tmp_path):
    out, _ = run
    reader = Reader.load(str(out))
    page = noise_page(0, 200, 120)
    (answer,) = reader.ask(page, ["Is this a normal ECG?"], max_new_tokens=4)
    scores = reader.score(page, ["AFIB", "NORM"])
    assert isinstance(answer, str) and not reader.knows_few_wordings
    whole = tmp_path / "merged"
    result = export(out, whole, merge=True)
    assert result["agreement"]["largest"] < 1e-3 and result["agreement"]["same_token"] > 0.99
    stock = AutoModelForImageTextToText.from_pretrained(whole)
    assert type(stock).__name__ == "Qwen3VLForConditionalGeneration"
    names = {name for name, _ in stock.named_parameters()}
    assert names == {name for name, _ in load_model(ModelPart(str(base))).named_parameters()}
    files = json.loads((whole / "processor_config.json").read_text())
    assert files["processor_class"] == "Qwen3VLProcessor"
    assert files["video_processor"]["video_processor_type"] == "Qwen3VLVideoProcessor"  # stock transformers asks for it
    card = (whole / "README.md").read_text()
    assert "license: apache-2.0" in card and "qwen3_vl" in card and "Built with Llama" not in card
    again = Reader.load(str(whole))
    values = again.score_many([page, noise_page(1, 120, 200), page], ["AFIB", "NORM"])  # two at once, then one
    assert values[0] == pytest.approx([scores[code] for code in ("AFIB", "NORM")], abs=1e-4)
    assert values[2] == pytest.approx(values[0], abs=1e-5) and values[1] != pytest.approx(values[0], abs=1e-5)
    assert again.ask_many([noise_page(1, 120, 200), page], "Is this a normal ECG?", max_new_tokens=4)[1] == answer


@pytest.mark.parametrize("key", ["reading", "patches"])
def test_what_is_made_for_an_mllamas_tower_is_refused(key, base, pages, tmp_path):
    recipe = tiny_recipe(base, pages, "lora=null")
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **{key: 4}))
    with pytest.raises(InputError, match=rf"train\.{key}=4: .* is a Qwen3-VL \(qwen3_vl\); set it to 0"):
        finetune(recipe, tmp_path / "run")
