"""Packing: dialogues behind one image equal separate rows; scores and answers after one prefill equal stock ones."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from PIL import Image

from recipes.config import ModelPart
from recipes.inference import answer_tokens, generate_answers, prefill, yes_probabilities
from recipes.model import load_model, load_processor
from recipes.packing import (
    IGNORE_INDEX,
    Encoder,
    _ending,
    encode_dialogue,
    encode_prompt,
    pack,
    preprocess,
    render_chat,
)
from render.dialogues.wording import closed_question
from render.errors import InputError


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano")


@pytest.fixture(scope="module")
def nano():
    return load_model(ModelPart())


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def noise_page(seed: int) -> Image.Image:
    pixels = torch.randint(0, 256, (336, 672, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def test_only_answers_carry_loss(processor):
    dialogue = encode_dialogue(processor, talk("Is this a normal ECG?", "No."))
    tokenizer = processor.tokenizer
    label_ids = [i for i, label in zip(dialogue.input_ids, dialogue.labels, strict=True) if label != IGNORE_INDEX]
    assert tokenizer.decode(label_ids) == "No.<|eot_id|>"
    assert tokenizer.decode(dialogue.input_ids).count("<|begin_of_text|>") == 1
    two = encode_dialogue(processor, [*talk("Is this a normal ECG?", "No."), *talk("Why?", "Sinus bradycardia.")])
    label_ids = [i for i, label in zip(two.input_ids, two.labels, strict=True) if label != IGNORE_INDEX]
    assert tokenizer.decode(label_ids) == "No.<|eot_id|>Sinus bradycardia.<|eot_id|>"


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
    dialogues = [encode_dialogue(processor, t) for t in texts]
    pixels, tiles = preprocess(processor, [noise_page(0)])
    count = sum(label != IGNORE_INDEX for e in dialogues for label in e.labels)
    in_one_row = loss_and_gradients(model, {**pack([dialogues], tiles, processor), **pixels}, count)
    separate, gradients = torch.tensor(0.0), {}
    for one in dialogues:
        loss, part = loss_and_gradients(model, {**pack([[one]], tiles, processor), **pixels}, count)
        separate += loss
        gradients = {n: gradients.get(n, 0) + g for n, g in part.items()}
    torch.testing.assert_close(in_one_row[0], separate, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(in_one_row[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
def test_no_dialogue_attends_to_another(nano, processor):
    pixels, tiles = preprocess(processor, [noise_page(0)])
    first = encode_dialogue(processor, talk("Is this a normal ECG?", "No."))
    others = [encode_dialogue(processor, talk("What is the rhythm?", a)) for a in ("Sinus rhythm.", "Trigeminy.")]
    logits = []
    for other in others:
        batch = {**pack([[first, other]], tiles, processor), **pixels}
        batch.pop("labels")
        logits.append(nano(**batch).logits[0, : len(first.input_ids)])
    assert torch.equal(logits[0], logits[1])


def test_a_question_with_a_second_image_token_sees_the_image_once(processor):
    _, tiles = preprocess(processor, [noise_page(0)])
    prompt = encode_prompt(processor, "And <|image|> this?")
    assert pack([[prompt]], tiles, processor)["cross_attention_mask"].max() == 1


def test_padding_attends_to_itself_alone(processor):
    dialogue = encode_dialogue(processor, talk("Why?", "No."))
    mask = pack([[dialogue], [dialogue, dialogue]], [None, None], processor)["attention_mask"][0, 0]
    count = len(dialogue.input_ids)
    assert torch.equal(mask[count:], torch.eye(2 * count, dtype=torch.bool)[count:])


@torch.no_grad()
def test_padding_and_neighbouring_images_change_nothing(nano, processor):
    short = encode_dialogue(processor, talk("Is this a normal ECG?", "No."))
    long = encode_dialogue(processor, talk("Report this ECG.", "Sinus rhythm. Left ventricular hypertrophy."))
    pixels, tiles = preprocess(processor, [noise_page(0), noise_page(1)])
    batch = {**pack([[short], [long, short]], tiles, processor), **pixels}
    batch.pop("labels")
    together = nano(**batch).logits[0, : len(short.input_ids)]
    pixels, tiles = preprocess(processor, [noise_page(0)])
    batch = {**pack([[short]], tiles, processor), **pixels}
    batch.pop("labels")
    torch.testing.assert_close(together, nano(**batch).logits[0], atol=1e-4, rtol=1e-4)


def test_prompt_ends_where_the_answer_begins(processor):
    prompt, whole = encode_prompt(processor, "Why?"), encode_dialogue(processor, talk("Why?", "No."))
    assert whole.input_ids[: len(prompt.input_ids)] == prompt.input_ids
    assert whole.labels[len(prompt.input_ids)] != IGNORE_INDEX == whole.labels[len(prompt.input_ids) - 1]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (talk("What is this?", "A page <|image|>."), "contains the image token"),
        (talk("And <|image|> this?", "No."), "contains the image token"),
        ([{"role": "user", "content": "Well?"}], "without an assistant's turn"),
        ([{"role": "assistant", "content": "No."}], "does not begin with a user's turn"),
        ([{"role": "system", "content": "Be brief."}, *talk("", "No.")[1:]], "does not begin with a user's turn"),
    ],
)
def test_dialogues_without_labels_or_with_an_image_token_are_refused(messages, message, processor):
    with pytest.raises(InputError, match=message):
        encode_dialogue(processor, messages)


def test_an_answer_that_begins_with_a_newline_is_encoded_without_it(processor):
    assert encode_dialogue(processor, talk("Why?", "\n\n No.")) == encode_dialogue(processor, talk("Why?", "No."))


def test_a_system_turn_stands_before_the_question_behind_the_image(processor):
    turns = [{"role": "system", "content": "Be brief."}, *talk("Why?", "No."), *talk("How?", "So.")]
    merged = [*talk("Be brief.\n\nWhy?", "No."), *talk("How?", "So.")]
    assert encode_dialogue(processor, turns) == encode_dialogue(processor, merged)
    text = render_chat(processor, turns, prompt=False)
    assert text.index(processor.image_token) < text.index("Be brief.") < text.index("Why?")


def test_a_line_break_behind_the_end_of_a_turn_is_no_part_of_the_answer(processor):
    other = copy.copy(processor)
    other.chat_template += "{% if not add_generation_prompt %}{{ '\n' }}{% endif %}"
    turns = talk("Why?", "No.")
    assert render_chat(other, turns, prompt=False) == render_chat(processor, turns, prompt=False) + "\n"
    assert encode_dialogue(other, turns) == encode_dialogue(processor, turns)


def test_a_model_without_a_chat_template_is_refused(processor):
    bare = copy.copy(processor)
    bare.chat_template = None
    with pytest.raises(InputError, match="has no chat template; take one that was tuned to answer"):
        encode_prompt(bare, "Why?")


def test_the_encoder_has_a_cache(processor, monkeypatch):
    encoder = Encoder(processor)
    first = encoder(talk("Why?", "No."))
    assert first == encode_dialogue(processor, talk("Why?", "No."))
    monkeypatch.setattr("recipes.packing.encode_dialogue", None)
    assert encoder(talk("Why?", "No.")) is first


# One prefill


@torch.no_grad()
def test_scores_of_one_prefill_equal_scores_one_by_one_and_stock_transformers(nano, processor):
    images = [noise_page(2), noise_page(3).crop((0, 0, 336, 336))]  # two tiles and one
    questions = [closed_question(code) for code in ("AFIB", "NORM", "LVH")]
    scores = yes_probabilities(nano, processor, prefill(nano, processor, images), questions)
    yes, no = answer_tokens(processor)
    for row, image in zip(scores, images, strict=True):
        cache = prefill(nano, processor, [image])
        for value, question in zip(row, questions, strict=True):
            alone = yes_probabilities(nano, processor, cache, [question])[0, 0]
            text = render_chat(processor, [{"role": "user", "content": question}], prompt=True)
            inputs = processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")
            stock = nano(**inputs).logits[0, -1]
            torch.testing.assert_close(value, alone, atol=1e-4, rtol=0)
            torch.testing.assert_close(value, (stock[yes] - stock[no]).sigmoid(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_answers_of_one_prefill_are_those_of_stock_transformers(nano, processor):
    image, questions = noise_page(4), ["What is the rhythm?", "Report this ECG."]
    cache = prefill(nano, processor, [image])
    for question in questions * 2:  # twice, behind scores and answers: the cache is never used up
        yes_probabilities(nano, processor, cache, questions)
        text = render_chat(processor, [{"role": "user", "content": question}], prompt=True)
        inputs = processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")
        ids = nano.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        stock = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert generate_answers(nano, processor, cache, question, max_new_tokens=12) == [stock]


def test_scoring_neither_prefills_nor_encodes_again(nano, processor, monkeypatch):
    questions = ["Is this a normal ECG?", "Is there sinus rhythm?"]
    cache = prefill(nano, processor, [noise_page(5)])
    first = yes_probabilities(nano, processor, cache, questions)
    monkeypatch.setattr("recipes.inference.encode_prompt", None)
    monkeypatch.setattr(nano.model.vision_model, "forward", None)
    assert torch.equal(yes_probabilities(nano, processor, cache, questions), first)


def test_a_chat_template_makes_texts_of_a_million_characters_at_most(processor):
    bare = copy.copy(processor)
    for length, is_too_long in ((2**20, False), (2**20 + 1, True)):
        bare.chat_template = f"{{% set text = 'a' * {length} %}}{{{{ text }}}}"
        with pytest.raises(InputError, match="too many steps") if is_too_long else nullcontext():
            assert len(render_chat(bare, [{"role": "user", "content": "Rhythm?"}], prompt=True)) == length


def test_a_chat_template_takes_a_hundred_thousand_steps_at_most():
    for lines, ends in ((99_998, True), (99_999, False)):  # its call and its return are steps
        program = compile("a = 1\n" * lines, "<template>", "exec")
        with nullcontext() if ends else pytest.raises(InputError, match="too many steps"), _ending(f"{lines} lines"):
            exec(program, {})
