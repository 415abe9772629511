"""Write nano's architecture, tokenizer and processor (everything but the weights): `python -m recipes.nano.build DIR`.

Deterministic: the same code writes the same bytes. The weights come from `recipes/nano.yaml`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    MllamaConfig,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)

from render.questions.wording import (
    CLOSED_FORMS,
    FINDING_QUESTIONS,
    REPORT_QUESTIONS,
    RHYTHM_QUESTIONS,
    closed_question,
    report_of,
)
from render.statements import STATEMENTS

TILE = 336
"""Side of a tile in pixels; a 2:1 page of 672 x 336 px (2.4 px/mm) fills two of them with nothing resized."""
PATCH = 24
"""Side of a patch in pixels: 10 mm of paper at the native page size, so a row of the page is three patches high."""
VOCABULARY = 1024
"""Entries of the tokenizer without the image token, which stands outside the head as in Llama 3.2 Vision."""

INITIAL_STD = 0.05
"""Standard deviation of fresh weights. The stock 0.02 suits widths of thousands; at 160 it starves every layer."""

_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|finetune_right_pad_id|>",
]
_IMAGE = "<|image|>"

# Llama's template without its role headers: a small model should not spend its tokens on them. Roles alternate, so
# the end-of-turn token says who speaks next. Images stand at the head of the user's turn.
_CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['content'] is string %}{{- message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}{{- '<|image|>' }}{%- else %}{{- part['text'] }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|eot_id|>' }}"
    "{%- endfor %}"
)


def corpus() -> Iterator[str]:
    """The texts that the tokenizer is fitted to: what our dialogues can say, and numbers with units."""
    for code in STATEMENTS:
        for form in range(len(CLOSED_FORMS)):
            yield closed_question(code, form)
        for _ in range(8):  # names count more than templates, so that a name is few tokens
            yield report_of([code])
            yield STATEMENTS[code].name
    for forms in (RHYTHM_QUESTIONS, FINDING_QUESTIONS, REPORT_QUESTIONS):
        yield from forms
    yield from ("Yes.", "No.", "Yes", "No")
    for number in range(300):
        yield f" {number} ms. {number} beats per minute. {number} degrees. {number / 100:.2f} mV."


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text is legal, frequent words of our dialogues are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    # The head has VOCABULARY rows whatever the corpus yields; fill up so that the image token comes right after.
    missing = VOCABULARY - tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([f"<|reserved_special_token_{k}|>" for k in range(missing)])
    tokenizer.add_special_tokens([_IMAGE])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        extra_special_tokens={"image_token": _IMAGE},
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> MllamaConfig:
    """Nano's architecture."""
    text, vision = 128, 160
    ids = tokenizer.convert_tokens_to_ids
    tokens = {
        "bos_token_id": ids(_SPECIAL[0]),
        "eos_token_id": ids("<|eot_id|>"),
        "pad_token_id": ids(_SPECIAL[4]),
    }
    intermediate = [1]
    return MllamaConfig(
        vision_config={
            "hidden_size": vision,
            "intermediate_size": 4 * vision,
            "num_hidden_layers": 3,
            "num_global_layers": 1,
            "attention_heads": 5,
            "image_size": TILE,
            "patch_size": PATCH,
            "max_num_tiles": 2,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            "intermediate_layers_indices": intermediate,
            "vision_output_dim": vision * (1 + len(intermediate)),
            "initializer_range": INITIAL_STD,
        },
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": text,
            "intermediate_size": 3 * text,
            "num_hidden_layers": 4,
            "cross_attention_layers": [1, 3],
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": False,
            "initializer_range": INITIAL_STD,
            **tokens,
        },
        image_token_index=ids(_IMAGE),
        tie_word_embeddings=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> MllamaProcessor:
    """Tokenizer and image processor; `max_image_tiles` must equal the model's `max_num_tiles`."""
    images = MllamaImageProcessorPil(
        size={"height": TILE, "width": TILE},
        max_image_tiles=2,
        image_mean=[0.9, 0.85, 0.85],
        image_std=[0.25, 0.25, 0.25],
    )
    return MllamaProcessor(images, tokenizer, chat_template=_CHAT_TEMPLATE)


def main(folder: str) -> None:
    """Write all files into `folder`."""
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    config.architectures = ["MllamaForConditionalGeneration"]
    config.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    text_config = config.text_config
    GenerationConfig(
        bos_token_id=text_config.bos_token_id,
        eos_token_id=text_config.eos_token_id,
        pad_token_id=text_config.pad_token_id,
        do_sample=False,
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
