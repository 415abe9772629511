"""The models of a server, each with its public name, and the threads that may use them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ecg_vlm.cli.progress import print_note
from ecg_vlm.page_answers import EncodedPage, PageModel, encode_page, model_for
from ecg_vlm.page_reading import PageReading
from ecg_vlm.reader import Reader
from ecg_vlm.serve.errors import NotFoundError
from recipes.packing import encode_prompt


class Models:
    """Public name -> model.

    Args:
        threads: that may use them at the same time: one for models in this process.
    """

    def __init__(self, models: Sequence[PageModel], threads: int = 1) -> None:
        self.by_name = {model.name: model for model in models}
        self.thread_count = threads
        self.threads = ThreadPoolExecutor(threads, "model")
        self._latest: dict[str, tuple[PageReading, EncodedPage]] = {}

    def get(self, name: str | None) -> PageModel:
        """The model of this name; the first where it is None. Raises `NotFoundError`."""
        if name is None:
            return next(iter(self.by_name.values()))
        if name not in self.by_name:
            raise NotFoundError(f"model {name[:100]!r} is not there; this server has {', '.join(self.by_name)}")
        return self.by_name[name]

    def encode(self, model: PageModel, reading: PageReading, *, as_is: bool) -> EncodedPage:
        """A page as a model sees it, in the model's thread. The last one is kept: a person asks question after question
        about one page, and encoding it is half of the model's work, or nine tenths of a large one's."""
        latest, encoding = self._latest.get(model.name, (None, None))
        if latest is not reading or encoding is None:
            encoding = encode_page(model_for(model, reading, as_is=as_is), reading)
            self._latest[model.name] = (reading, encoding)
        return encoding


def load_readers(words: Sequence[str]) -> list[Reader]:
    """A Reader for each word of --model, named so that no path of this machine is told.

    Raises:
        InputError: For a model that does not exist or does not fit.
    """
    readers: list[Reader] = []
    for word in words:
        reader = Reader.load(word)
        name = public_name(word)
        if reader.calibration is None:  # looked for by the path, which is the name until below
            print_note(f"{name}: no calibration lies beside this model; its probabilities are as the model gives them")
        copies = sum(other.name == name or other.name.startswith(f"{name}-") for other in readers)
        reader.name = f"{name}-{copies + 1}" if copies else name
        readers.append(reader)
    return readers


def public_name(word: str) -> str:
    """A hub id as it is, a folder by its name."""
    return Path(word).resolve().name if Path(word).exists() else word


def token_counts(model: PageModel, question: str, answer: str) -> tuple[int, int]:
    """Tokens of the prompt and of the answer; zeros for a model behind another server."""
    if isinstance(model, Reader):
        processor: Any = model.processor
        tokens = processor.tokenizer(answer, add_special_tokens=False).input_ids
        return len(encode_prompt(processor, question).input_ids), len(tokens)
    return 0, 0
