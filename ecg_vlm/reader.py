"""The Reader: a model that is loaded once and answers any number of questions about ECG pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.answers import (
    QuestionAnswer,
    codes_of_question,
    consistent_answer,
    in_language,
    is_in_own_words,
    likeliest_option,
    not_understood,
    statement_answer,
)
from ecg_vlm.images import open_image
from ecg_vlm.questions import Question, read_question
from ecg_vlm.statement_scores import DAMAGE, StatementScores, calibrated_scores
from eval.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration
from eval.parser.parse import parse, refusal
from recipes import inference
from recipes.inference import Prefill
from recipes.model import (
    NANO,
    adapter_base,
    base_fingerprint,
    dtype_here,
    has_4bit_weights,
    is_adapter,
    load_adapter,
    load_model,
    load_processor,
    local_adapter,
    nano_path,
    saved_dtype,
)
from recipes.quiet import quiet_libraries
from recipes.run_folder import read_run
from render.dialogues.wording import closed_question
from render.errors import InputError
from render.io import user_path
from render.statements import STATEMENTS

if TYPE_CHECKING:
    from recipes.config import ModelPart

__all__ = ["QuestionAnswer", "Reader", "open_image"]


class Reader:
    """Answers questions about ECG pages. Load once with `Reader.load`.

    Args:
        model: an Mllama or a Qwen3-VL, with or without an adapter, in eval mode.
        processor: its tokenizer and image processor.
        name: what it was loaded as.
        base: the base model that it is or was tuned from: "nano", a folder or a hub id.
    """

    def __init__(self, model: Any, processor: Any, name: str = "", base: str = "") -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.base = base
        self.batch_size = inference.default_batch(model.config)
        """Images in one forward pass, wherever many are scored or asked about."""

    @cached_property
    def calibration(self) -> Calibration | None:
        """The frozen calibration of the scores, of the file that lies beside the model; None without one.

        Raises:
            InputError: When the file is damaged.
        """
        file = (nano_path() if self.name == NANO else Path(self.name)) / CALIBRATION_FILE
        return read_calibration(file) if self.name and file.is_file() else None

    @property
    def knows_few_wordings(self) -> bool:
        """Whether questions are read and put in a trained wording: for nano and what was tuned from it."""
        return self.base == NANO

    @classmethod
    @quiet_libraries()
    def load(
        cls, model: str = NANO, *, dtype: str = "", quantization: str = "", device: str = "", batch: int = 0
    ) -> Reader:
        """Load "nano", the folder of a run of `ecg-vlm finetune`, a folder saved by transformers or peft, or the
        hub id of a model or an adapter.

        Args:
            dtype: float32, bfloat16 or float16; "" for the type in which the model was tuned or saved.
            quantization: none or nf4; "" for what the model was tuned with.
            device: such as "cpu" or "cuda:1"; "" for the GPU where there is one.
            batch: images in one forward pass; 0 for `inference.default_batch`.

        Raises:
            InputError: When the model does not exist, is unfinished, or does not fit its base model.
        """
        choice = {"dtype": dtype, "quantization": quantization}
        folder = Path(model)
        if model != NANO and (folder / "recipe.yaml").is_file():
            reader = cls._load_run(folder, choice, device)
        elif is_adapter(folder := local_adapter(model)):
            name, base = adapter_base(folder)
            model_of_base = load_model(_part(base, choice), device=device)
            reader = cls(load_adapter(model_of_base, folder, name), load_processor(base), model, base)
        else:
            reader = cls(load_model(_part(model, choice), device=device), load_processor(model), model, model)
        reader.batch_size = batch or reader.batch_size
        return reader

    @classmethod
    def load_quickly(cls) -> Reader:
        """Nano for one answer, in a process that `recipes.fast_start.prepare` has prepared."""
        from recipes.fast_start import load_nano

        return cls(*load_nano(), NANO, NANO)

    @classmethod
    def _load_run(cls, folder: Path, choice: Mapping[str, str], device: str) -> Reader:
        from recipes.config import ModelPart, load_recipe

        facts = read_run(folder)
        recipe = load_recipe(folder / "recipe.yaml")
        base = recipe.model.base
        part = recipe.model if recipe.lora else ModelPart(base=str(folder))
        part = _with(part, choice)
        if recipe.lora is None:
            model = load_model(part, device=device)
            return cls(model, load_processor(str(folder)), str(folder), _first_base(base))
        if facts.base_sha256 != base_fingerprint(base):
            raise InputError(
                f"{folder}: the adapter was made for another {base} than the one installed here; "
                f"tune it again, or install the version that it was made with ({facts.versions.get('ecg-vlm')})"
            )
        model = load_adapter(load_model(part, device=device), folder, base)
        return cls(model, load_processor(base), str(folder), _first_base(base))

    def prefill(self, images: Sequence[Image.Image]) -> Prefill:
        """Encode images once; scores and answers about them then start from the result, any number of times."""
        return inference.prefill(self.model, self.processor, images)

    def ask(
        self,
        image: Image.Image | Prefill,
        questions: Sequence[str],
        *,
        max_new_tokens: int = 128,
        history: Sequence[tuple[str, str]] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Answers to all questions about one image, greedy decoding. The image is encoded once for all of them.

        Args:
            history: turns before each question: questions with their answers.
            on_text: called with each new piece of text while it is generated, one answer after the other.
        """
        prefill = image if isinstance(image, Prefill) else self.prefill([image])
        return [
            inference.generate_answers(
                self.model,
                self.processor,
                prefill,
                question,
                max_new_tokens=max_new_tokens,
                history=history,
                on_text=on_text,
            )[0]
            for question in questions
        ]

    def ask_many(
        self, images: Sequence[Image.Image] | Prefill, question: str, *, max_new_tokens: int = 128
    ) -> list[str]:
        """One question about many images, in one batch."""
        prefill = images if isinstance(images, Prefill) else self.prefill(images)
        return inference.generate_answers(self.model, self.processor, prefill, question, max_new_tokens=max_new_tokens)

    def answer(
        self,
        prefill: Prefill,
        question: str,
        *,
        max_new_tokens: int = 128,
        history: Sequence[tuple[str, str]] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> QuestionAnswer:
        """The answer to a question in any words about one page.

        Nano answers wordings that it was not trained on at random. Where `knows_few_wordings`, the question is read
        first (`ecg_vlm.questions`): what is not understood is not put to the model; a yes/no question about statements
        is answered from their scores, so that two wordings never disagree; an open answer is made consistent with the
        score of a normal ECG. A refusal stays as it is. Another model's words are never changed.

        Args:
            prefill: of one image.
            history: turns before the question: questions with their answers. Where `knows_few_wordings`, the model was
                not trained on several turns, and they are left out.
            on_text: called with each new piece of text: of an open answer in the model's words while it is generated,
                of any other at once. The text of the result replaces what was streamed: it differs where it was made
                consistent.
        """
        if not self.knows_few_wordings:
            (text,) = self.ask(prefill, [question], max_new_tokens=max_new_tokens, history=history, on_text=on_text)
            return QuestionAnswer(question, text, self.contradictions(prefill, question, text))
        content = read_question(question)
        if content.kind == "unknown" or content.codes:
            answer = self._answer_at_once(prefill, content, max_new_tokens)
            if on_text:
                on_text(answer.text)
            return answer
        streams = on_text if is_in_own_words(content) else None
        (text,) = self.ask(prefill, [content.wording], max_new_tokens=max_new_tokens, on_text=streams)
        answer = QuestionAnswer(question, text) if refusal(text) else self._consistent_answer(prefill, content, text)
        if on_text and not streams:
            on_text(answer.text)
        return answer

    def _consistent_answer(self, prefill: Prefill, question: Question, text: str) -> QuestionAnswer:
        """An open answer made consistent with the scores, in the language of the question."""
        scores = self._scores_with_normality(prefill, codes_of_question(question, text))
        revision = consistent_answer(question, text, scores)
        return QuestionAnswer(
            question.text,
            in_language(revision, question),
            _contradictions(revision, question.wording, scores),
            original=text if revision != text else "",
        )

    def _answer_at_once(self, prefill: Prefill, question: Question, max_new_tokens: int) -> QuestionAnswer:
        """The answer to a question that is not understood, or is about statements: from their scores, unless the
        model refuses the page."""
        if question.kind == "unknown":
            return QuestionAnswer(question.text, not_understood(question.language), understood=False)
        wording = question.wording or closed_question(question.codes[0])
        (text,) = self.ask(prefill, [wording], max_new_tokens=max_new_tokens)
        return QuestionAnswer(question.text, text) if refusal(text) else self._answer_from_scores(prefill, question)

    def _answer_from_scores(self, prefill: Prefill, question: Question) -> QuestionAnswer:
        """An answer from the scores alone. Contradicted is only P(NORM) of a page that also shows damage."""
        scores = self._scores_with_normality(prefill, question.codes)
        doubtful = "NORM" in question.codes and scores.reaches("NORM") and not scores.is_normal()
        is_choice = question.kind == "choice"
        text = likeliest_option(question.text, scores) if is_choice else statement_answer(question, scores)
        return QuestionAnswer(question.text, text, {"NORM": scores["NORM"]} if doubtful else {})

    def _scores_with_normality(self, prefill: Prefill, codes: Sequence[str]) -> StatementScores:
        """P(present) of the codes; where NORM is one of them and likely, of `DAMAGE`, too."""
        scores = self.score(prefill, codes) if codes else StatementScores()
        if "NORM" in scores and scores.reaches("NORM"):
            scores = scores.merge(self.score(prefill, [code for code in DAMAGE if code not in scores]))
        return scores

    def contradictions(self, prefill: Prefill, question: str, answer: str) -> dict[str, float]:
        """P(present) of the statements that an answer affirms or denies and the model's own scores contradict.

        A free answer names many statements in a row, each under the influence of those before it. In answer to a
        question about each alone, the model revokes some of them, and these are mostly wrong: see the README.

        Args:
            prefill: of one image.
        """
        statements = parse(answer, question)
        codes = [*statements.present, *statements.absent]
        return _contradictions(answer, question, self.score(prefill, codes)) if codes else {}

    def score(self, image: Image.Image | Prefill, statements: Sequence[str] = tuple(STATEMENTS)) -> StatementScores:
        """P(present) for each statement code, in one pass: all questions side by side, none attends to another.

        Calibrated where the model has a calibration.
        """
        values = self.score_many(image if isinstance(image, Prefill) else [image], statements)[0]
        return calibrated_scores(dict(zip(statements, map(float, values), strict=True)), self.calibration)

    def score_many(
        self, images: Sequence[Image.Image] | Prefill, statements: Sequence[str] = tuple(STATEMENTS)
    ) -> NDArray[np.float64]:
        """P(present) for each image and statement code, (images, statements), as the model gives it: for evaluations,
        which calibrate it with a file of their own."""
        questions = [closed_question(code) for code in statements]
        prefills = (
            [images]
            if isinstance(images, Prefill)
            else (self.prefill(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size))
        )
        parts = [inference.yes_probabilities(self.model, self.processor, prefill, questions) for prefill in prefills]
        scores: NDArray[np.float64] = torch.cat(parts).double().numpy()
        return scores


def _contradictions(answer: str, question: str, scores: StatementScores) -> dict[str, float]:
    """The scores that contradict an answer, of the statements that it affirms or denies."""
    statements = parse(answer, question)
    return {
        code: scores[code]
        for code in (*statements.present, *statements.absent)
        if code in scores and scores.reaches(code) != (code in statements.present)
    }


def _part(base: str, choice: Mapping[str, str]) -> ModelPart:
    """A base as it was saved, unless `choice` says otherwise."""
    from recipes.config import ModelPart

    part = ModelPart(base=base, dtype=saved_dtype(base))
    return _with(replace(part, quantization="nf4") if has_4bit_weights(base) else part, choice)


def _with(part: ModelPart, choice: Mapping[str, str]) -> ModelPart:
    """`part` with the values of `choice` that are not empty."""
    values: dict[str, Any] = {key: value for key, value in choice.items() if value}
    return replace(part, **{"dtype": dtype_here(part.dtype), **values})


def _first_base(base: str) -> str:
    """The base of a run whose own base is the folder of another run, however often; else `base` itself."""
    from recipes.config import load_recipe

    recipe = user_path(base) / "recipe.yaml"
    return _first_base(load_recipe(recipe).model.base) if base != NANO and recipe.is_file() else base
