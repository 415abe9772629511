"""The Reader: a model loaded once, asked and scored many times."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import DynamicCache

from recipes.model import NANO, load_adapter, load_model, load_processor
from recipes.packing import Encoded, encode_prompt, look, pack, yes_probabilities
from recipes.run import base_fingerprint
from recipes.schema import ModelPart, load_recipe
from render.files import InputError
from render.questions.wording import closed_question
from render.statements import STATEMENTS

# 64 megapixels: an A3 page at 600 dpi is 70 Mpx, a phone photo 12-50. A larger "image" is a decompression bomb.
_MOST_PIXELS = 64_000_000
_SCORE_BATCH = 8


def open_image(path: str | Path) -> Image.Image:
    """Read an image as RGB. Raises `InputError` for a file that is none, is damaged, or is a decompression bomb."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such image file")
    too_large = f"{path}: more than {_MOST_PIXELS // 1_000_000} megapixels; scale the image down first"
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise InputError(too_large)
            return image.convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(too_large) from error
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to: OSError, struct.error, ...
        raise InputError(f"{path}: not an image that can be read ({error}); PNG and JPEG work") from error


class Reader:
    """Answers questions about ECG pages. Load once with `Reader.load`.

    model: an Mllama, with or without an adapter, in eval mode. processor: its tokenizer and image processor.
    """

    def __init__(self, model: Any, processor: Any, name: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name

    @classmethod
    def load(cls, model: str = NANO) -> Reader:
        """Load "nano", the folder of a run of `ecg-vlm finetune`, a folder saved by transformers, or a hub id.

        Raises `InputError` for what is not there, is unfinished, or does not fit together.
        """
        run = Path(model) / "recipe.yaml"
        if model != NANO and run.is_file():
            return cls._load_run(Path(model))
        return cls(load_model(ModelPart(base=model)), load_processor(model), model)

    @classmethod
    def _load_run(cls, folder: Path) -> Reader:
        facts = read_run(folder)
        recipe = load_recipe(folder / "recipe.yaml")
        if recipe.lora is None:
            return cls(load_model(ModelPart(base=str(folder))), load_processor(str(folder)), str(folder))
        base = recipe.model.base
        if facts["base_sha256"] != base_fingerprint(base):
            raise InputError(
                f"{folder}: the adapter was made for another {base} than the one installed here; "
                f"tune it again, or install the version that it was made with ({facts['versions']['ecg-vlm']})"
            )
        return cls(load_adapter(load_model(recipe.model), folder, base), load_processor(base), str(folder))

    def ask(self, image: Image.Image, questions: Sequence[str], *, max_new_tokens: int = 128) -> list[str]:
        """Answers to all questions about one image, greedy decoding. The image is encoded once for all of them."""
        prompts = [encode_prompt(self.processor, question) for question in questions]
        shared = _shared_prefix([p.input_ids for p in prompts], self.processor.image_token_id)
        cache, tiles = self._read_prefix([image], shared)
        return [
            self._continue(copy.deepcopy(cache) if len(prompts) > 1 else cache, [prompt], tiles, max_new_tokens)[0]
            for prompt in prompts
        ]

    def ask_many(self, images: Sequence[Image.Image], question: str, *, max_new_tokens: int = 128) -> list[str]:
        """One question about many images, in one batch."""
        prompt = encode_prompt(self.processor, question)
        shared = _shared_prefix([prompt.input_ids], self.processor.image_token_id)
        cache, tiles = self._read_prefix(images, shared)
        return self._continue(cache, [prompt] * len(images), tiles, max_new_tokens)

    def score(self, image: Image.Image, statements: Sequence[str] = tuple(STATEMENTS)) -> dict[str, float]:
        """P(present) for each statement code, from one look: all questions side by side, none seeing another."""
        values = self.score_many([image], statements)[0]
        return dict(zip(statements, (float(v) for v in values), strict=True))

    def score_many(
        self, images: Sequence[Image.Image], statements: Sequence[str] = tuple(STATEMENTS)
    ) -> NDArray[np.float64]:
        """P(present) for each image and statement code, (images, statements)."""
        questions = [closed_question(code) for code in statements]
        parts = [
            yes_probabilities(self.model, self.processor, images[i : i + _SCORE_BATCH], questions)
            for i in range(0, len(images), _SCORE_BATCH)
        ]
        scores: NDArray[np.float64] = torch.cat(parts).double().numpy()
        return scores

    @torch.no_grad()
    def _read_prefix(self, images: Sequence[Image.Image], shared: tuple[int, ...]) -> tuple[Any, list[int]]:
        """Encode the images and the tokens that all prompts begin with into a cache: the one look."""
        pixels, tiles = look(self.processor, images)
        prefix = Encoded(shared, (-100,) * len(shared))
        batch = {**pack([[prefix]] * len(images), tiles, self.processor), **pixels}
        batch.pop("labels")
        cache = DynamicCache(config=self.model.config.get_text_config())
        self.model(**self._here(batch), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache, tiles

    @torch.no_grad()
    def _continue(self, cache: Any, prompts: Sequence[Encoded], tiles: Sequence[int], limit: int) -> list[str]:
        """Greedy answers to prompts of one length whose beginning and image are in `cache`."""
        batch = pack([[prompt] for prompt in prompts], tiles, self.processor)
        inputs = {name: batch[name] for name in ("input_ids", "cross_attention_mask")}
        inputs["attention_mask"] = torch.ones_like(batch["input_ids"])
        out = self.model.generate(
            **self._here(inputs), past_key_values=cache, max_new_tokens=limit, do_sample=False, use_cache=True
        )
        new = out[:, batch["input_ids"].shape[1] :]
        texts: list[str] = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _here(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = next(self.model.parameters()).device
        return {name: value.to(device) for name, value in batch.items()}


def _shared_prefix(prompts: Sequence[tuple[int, ...]], image_token: int) -> tuple[int, ...]:
    """The tokens up to the image token, which every prompt of a chat template begins with."""
    end = prompts[0].index(image_token) + 1
    shared = prompts[0][:end]
    if any(p[:end] != shared for p in prompts):
        raise ValueError("prompts differ before their image token")
    return shared


def read_run(folder: Path) -> dict[str, Any]:
    """`run.json` of a finished run. Raises `InputError` when it is missing or damaged."""
    try:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: no run.json: the run did not finish; go on with: ecg-vlm finetune ... --out {folder} --resume"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'run.json'}: cannot be read ({error}); run the tuning again") from error
    return facts
