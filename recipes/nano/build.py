"""Write nano's architecture, tokenizer and processor (everything but the weights): `python -m recipes.nano.build DIR`.

Deterministic: the same code writes the same bytes. The weights come from `recipes/configs/nano.yaml`. A tokenizer that
is in the folder already is not replaced, as the weights depend on its token numbers: the one that ships was fitted to
the wordings of the first run, and later wordings are encoded with its tokens.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    MllamaConfig,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)

from render.dialogues.compose import compose_dialogues
from render.dialogues.wording import GERMAN_QUESTIONS, bare, label_of
from render.simulator.simulate import SimulatedSource
from render.statements import STATEMENTS

TILE = 392
"""Side of a tile in pixels; a 2:1 page of 784 x 392 px (2.8 px/mm) fills two of them with nothing resized."""
PATCH = 28
"""Side of a patch in pixels: 10 mm of paper at the native page size, so a row of the page is three patches high."""
VOCABULARY = 2048
"""Entries of the tokenizer without the image token, which stands outside the head as in Llama 3.2 Vision."""

INITIAL_STD = 0.04
"""Standard deviation of fresh weights. The stock 0.02 suits widths of thousands; at some 200 it starves every layer."""

_CORPUS = 3000  # simulated records whose dialogues the tokenizer is fitted to

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
    """The texts that the tokenizer is fitted to: those of our dialogues, and numbers with units."""
    records = SimulatedSource(0, _CORPUS)
    for i in range(_CORPUS):
        for dialogue in compose_dialogues(records.read(i), np.random.default_rng(i), closed=8):
            yield dialogue.question
            yield dialogue.answer
    yield from GERMAN_QUESTIONS
    for number in range(300):
        yield f" {number} ms. {number} beats per minute. {number} degrees. {number / 100:.2f} mV."


def names() -> list[str]:
    """The names of the 71 statements, at the beginning of a sentence and within one: each is one token.

    A question is then a few tokens, and the statement it asks about is one of them: a small language model need not
    learn to combine "atrial" and "fibrillation" before it can learn to look for fibrillation.
    """
    return sorted({name for code in STATEMENTS for name in (bare(code), label_of(code))})


def fit_tokenizer() -> Tokenizer:
    """Byte-level BPE whose tokens may include spaces, so that a frequent phrase is one token; any text is legal."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[.,:;?!()]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(names()),
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=40,
        show_progress=False,
    )
    without = re.compile("|".join(re.escape(name) for name in sorted(names(), key=len, reverse=True)))
    tokenizer.train_from_iterator((part for text in corpus() for part in without.split(text) if part), trainer)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names()])
    # The head has VOCABULARY rows whatever the corpus yields; fill up so that the image token comes right after.
    missing = VOCABULARY - tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([f"<|reserved_special_token_{k}|>" for k in range(missing)])
    tokenizer.add_special_tokens([_IMAGE])
    return tokenizer


def fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers uses it, with its special tokens named."""
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
    text, vision = 192, 256
    ids = tokenizer.convert_tokens_to_ids
    tokens = {
        "bos_token_id": ids(_SPECIAL[0]),
        "eos_token_id": ids("<|eot_id|>"),
        "pad_token_id": ids(_SPECIAL[4]),
    }
    intermediate = [2]
    return MllamaConfig(
        vision_config={
            "hidden_size": vision,
            "intermediate_size": 4 * vision,
            "num_hidden_layers": 5,
            "num_global_layers": 1,
            "attention_heads": 4,
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
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
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


def write_nano(folder: str) -> None:
    """Write all files into `folder`; where a tokenizer is there already, only its settings."""
    file = Path(folder) / "tokenizer.json"
    tokenizer = fast_tokenizer(Tokenizer.from_file(str(file)) if file.is_file() else fit_tokenizer())
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
    write_nano(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent))
