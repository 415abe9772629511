"""The Reader: a model that is loaded once and answers any number of questions about ECG pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.images import open_image
from eval.parser.parse import parse
from recipes import inference
from recipes.inference import Prefill
from recipes.model import NANO, base_fingerprint, load_adapter, load_model, load_processor
from recipes.run_folder import read_run
from render.dialogues.wording import closed_question
from render.errors import InputError
from render.statements import STATEMENTS

_YES = 0.5  # from this P(yes) on, "Yes." is the likelier answer

__all__ = ["Answer", "Reader", "open_image"]


@dataclass(frozen=True)
class Answer:
    """An answer to one question about one page.

    Attributes:
        question: as asked.
        text: the answer.
        contradicted: P(present) of the statements that the answer affirms or denies and the scores contradict.
        understood: False where the answer only says what can be asked.
        original: the words of the model where `text` differs from them to agree with the scores, else "".
    """

    question: str
    text: str
    contradicted: dict[str, float] = field(default_factory=dict)
    understood: bool = True
    original: str = ""


class Reader:
    """Answers questions about ECG pages. Load once with `Reader.load`.

    Args:
        model: an Mllama, with or without an adapter, in eval mode.
        processor: its tokenizer and image processor.
    """

    batch_size = 8
    """Images in one forward pass, wherever many are scored or asked about."""

    def __init__(self, model: Any, processor: Any, name: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name

    @classmethod
    def load(cls, model: str = NANO) -> Reader:
        """Load "nano", the folder of a run of `ecg-vlm finetune`, a folder saved by transformers, or a hub id.

        Raises:
            InputError: When the model does not exist, is unfinished, or does not fit its base model.
        """
        from recipes.config import ModelPart

        run = Path(model) / "recipe.yaml"
        if model != NANO and run.is_file():
            return cls._load_run(Path(model))
        return cls(load_model(ModelPart(base=model)), load_processor(model), model)

    @classmethod
    def load_quickly(cls) -> Reader:
        """Nano for one answer, in a process that `recipes.fast_start.prepare` has prepared."""
        from recipes.fast_start import load_nano

        return cls(*load_nano(), NANO)

    @classmethod
    def _load_run(cls, folder: Path) -> Reader:
        from recipes.config import ModelPart, load_recipe

        facts = read_run(folder)
        recipe = load_recipe(folder / "recipe.yaml")
        if recipe.lora is None:
            return cls(load_model(ModelPart(base=str(folder))), load_processor(str(folder)), str(folder))
        base = recipe.model.base
        if facts.base_sha256 != base_fingerprint(base):
            raise InputError(
                f"{folder}: the adapter was made for another {base} than the one installed here; "
                f"tune it again, or install the version that it was made with ({facts.versions.get('ecg-vlm')})"
            )
        return cls(load_adapter(load_model(recipe.model), folder, base), load_processor(base), str(folder))

    def prefill(self, images: Sequence[Image.Image]) -> Prefill:
        """Encode images once; scores and answers about them then start from the result, any number of times."""
        return inference.prefill(self.model, self.processor, images)

    def ask(self, image: Image.Image | Prefill, questions: Sequence[str], *, max_new_tokens: int = 128) -> list[str]:
        """Answers to all questions about one image, greedy decoding. The image is encoded once for all of them."""
        prefill = image if isinstance(image, Prefill) else self.prefill([image])
        return [
            inference.generate_answers(self.model, self.processor, prefill, question, max_new_tokens=max_new_tokens)[0]
            for question in questions
        ]

    def ask_many(
        self, images: Sequence[Image.Image] | Prefill, question: str, *, max_new_tokens: int = 128
    ) -> list[str]:
        """One question about many images, in one batch."""
        prefill = images if isinstance(images, Prefill) else self.prefill(images)
        return inference.generate_answers(self.model, self.processor, prefill, question, max_new_tokens=max_new_tokens)

    def answer(self, prefill: Prefill, question: str, *, max_new_tokens: int = 128) -> Answer:
        """The answer to a question in any words about one page.

        Args:
            prefill: of one image.
        """
        text = self.ask(prefill, [question], max_new_tokens=max_new_tokens)[0]
        return Answer(question, text, self.contradictions(prefill, question, text))

    def contradictions(self, prefill: Prefill, question: str, answer: str) -> dict[str, float]:
        """P(present) of the statements that an answer affirms or denies and the model's own scores contradict.

        A free answer names many statements in a row, each under the influence of those before it. In answer to a
        question about each alone, the model revokes some of them, and these are mostly wrong: see the README.

        Args:
            prefill: of one image.
        """
        statements = parse(answer, question)
        scores = self.score(prefill, codes) if (codes := [*statements.present, *statements.absent]) else {}
        return {code: p for code, p in scores.items() if (p >= _YES) != (code in statements.present)}

    def score(self, image: Image.Image | Prefill, statements: Sequence[str] = tuple(STATEMENTS)) -> dict[str, float]:
        """P(present) for each statement code, in one pass: all questions side by side, none attends to another."""
        values = self.score_many(image if isinstance(image, Prefill) else [image], statements)[0]
        return dict(zip(statements, (float(v) for v in values), strict=True))

    def score_many(
        self, images: Sequence[Image.Image] | Prefill, statements: Sequence[str] = tuple(STATEMENTS)
    ) -> NDArray[np.float64]:
        """P(present) for each image and statement code, (images, statements)."""
        questions = [closed_question(code) for code in statements]
        prefills = (
            [images]
            if isinstance(images, Prefill)
            else (self.prefill(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size))
        )
        parts = [inference.yes_probabilities(self.model, self.processor, prefill, questions) for prefill in prefills]
        scores: NDArray[np.float64] = torch.cat(parts).double().numpy()
        return scores
