"""The pictures of a published LLaVA or ECGInstruct file, with its conversations."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ecg_vlm.pictures.labelled_picture import LabelledPicture, picture_path
from eval.parser.parse import parse
from render.dataset.json_stream import samples_in
from render.dataset.llava import conversation_turns, sample_dialogues, sample_record_id
from render.dataset.rows import dialogue_column
from render.dialogues.compose import Dialogue
from render.errors import InputError
from render.record import sorted_statements

_RECORD_SOURCES = ("mimic", "ptbxl")  # whose published pictures have the record in their path


class LlavaPictures:
    """The pictures of a LLaVA file, in the order of their first sample; several samples of one picture are one row.

    path: a JSON list of samples, or JSONL (`render.dataset.llava`). images: the folder that the paths of pictures
    start from; the file's own folder by default. lenient: pictures may be missing.

    A picture of MIMIC-IV-ECG or PTB-XL has that record's id and source where path or id tell it, so that an evaluation
    sees whether a model was tuned on the record; any other has its path without the suffix. Only the places of samples
    stay in memory. Raises `InputError` with file and sample (from 1 on) for a damaged file or sample, a missing picture
    or one outside the folder, and one id for two pictures.
    """

    name = "llava"

    def __init__(
        self, path: str | Path, images: str | Path | None = None, *, limit: int | None = None, lenient: bool = False
    ) -> None:
        self.index = Path(path)
        self.dialogue_file: str | None = self.index.name
        self._folder = self.index.parent if images is None else Path(images)
        self._lenient = lenient
        if not self._folder.is_dir():
            raise InputError(f"--images {self._folder}: no such folder; name the folder of the pictures")
        places: dict[str, array[int]] = {}  # picture -> number, first byte and bytes of each of its samples
        pictures: dict[str, str] = {}  # id -> picture
        for number, (start, size, sample) in enumerate(samples_in(self.index), 1):
            image = self._check(sample, number)
            identifier = str(sample.get("id", f"sample {number}"))[:200]
            if pictures.setdefault(identifier, image) != image:
                raise InputError(
                    f"{self.index}: sample {number}: id {identifier[:60]!r} is that of another picture too "
                    f"({pictures[identifier]}); give each picture its own id"
                )
            if image not in places:
                if limit is not None and len(places) == limit:
                    break
                self._path(image, number)
                places[image] = array("q")
            places[image].extend((number, start, size))
        if not places:
            raise InputError(f"{self.index}: contains no sample; download the file again")
        self._places = tuple(places.values())

    def __len__(self) -> int:
        return len(self._places)

    def picture(self, i: int) -> LabelledPicture:
        """Picture i with its dialogues, one per turn, without duplicates."""
        number = self._places[i][0]
        try:
            samples = self._samples(self._places[i])
            turns = [conversation_turns(sample) for sample in samples]
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.index}: has changed while it was in use ({error}); start again") from error
        dialogues = [d for sample, pairs in zip(samples, turns, strict=True) for d in sample_dialogues(sample, pairs)]
        record_id, source = _record(samples[0])
        return LabelledPicture(
            f"{self.index}: sample {number}",
            self._path(samples[0]["image"], number),
            record_id,
            source,
            statements=_statements(dialogues),
            dialogues=tuple(dialogue_column(list(dict.fromkeys(dialogues)))),
        )

    def prevalence(self) -> Mapping[str, float] | None:
        """None: the dialogues are those of the file."""
        return None

    def _check(self, sample: Any, number: int) -> str:
        """The path of a sample's picture, as the sample writes it."""
        try:
            conversation_turns(sample)
        except InputError as error:
            raise InputError(f"{self.index}: sample {number}: {error}") from error
        return str(sample["image"])

    def _path(self, image: str, number: int) -> Path:
        return picture_path(self._folder, image, f"{self.index}: sample {number}", lenient=self._lenient)

    def _samples(self, places: Sequence[int]) -> list[dict[str, Any]]:
        samples = []
        with self.index.open("rb") as file:
            for start, size in zip(places[1::3], places[2::3], strict=True):
                file.seek(start)
                samples.append(json.loads(file.read(size)))
        return samples


def _record(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Id and source of the record that a sample is about."""
    if isinstance(sample.get("record_id"), str) and isinstance(sample.get("source"), str):
        return sample["record_id"], sample["source"]
    for source in _RECORD_SOURCES:
        if record_id := sample_record_id(sample, source):
            return record_id, source
    return str(PurePosixPath(sample["image"].replace("\\", "/")).with_suffix("")), LlavaPictures.name


def _statements(dialogues: Sequence[Dialogue]) -> tuple[str, ...]:
    """The statements that the parser reads from the answers: present in one and absent in none."""
    answers = [parse(dialogue.answer, dialogue.question) for dialogue in dialogues]
    absent = {code for answer in answers for code in answer.absent}
    return sorted_statements(code for answer in answers for code in answer.present if code not in absent)
