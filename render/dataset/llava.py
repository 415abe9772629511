"""LLaVA conversations, the format of ECGInstruct: export of data sets, and import of published conversations.

A sample is one image with one conversation, a file a JSON list of samples (or JSONL, one sample a line):

    {"id": "mimic-44111511", "image": "mimic/p1127/p11273115/s44111511/44111511-0.png", "conversations": [
        {"from": "human", "value": "<image>\nWhat is the rhythm?"}, {"from": "gpt", "value": "Sinus rhythm."}]}

Samples written here have extra keys (record_id, source, task, form, provenance, statements, language), which other
tools ignore and `LlavaDialogues` reads. Published files have none of them: there the image's path identifies the
record, and task and form are guessed from the wording.

Source of the format and of the paths: Liu et al. 2024, "Teach Multimodal LLMs to Comprehend Electrocardiographic
Images" (arXiv 2410.19008) and https://github.com/AIMedLab/PULSE/issues/2: MIMIC-IV-ECG under mimic/ and mimic_v4/
by study, PTB-XL (also the records of ECG-QA) under ptb-xl/ by ecg_id, CODE-15 under code15_v4/ by exam.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from render.dataset.json_stream import SAMPLE_HINT, samples_in
from render.dialogues.compose import DIALOGUE_TASKS, FORMS, Dialogue
from render.errors import InputError
from render.io import atomic_write, exclusive, file_digest
from render.record import EcgRecord

_IMAGE = "<image>"

_TO_LLAVA = {"user": "human", "assistant": "gpt"}
_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
_EXTRA_KEYS = ("task", "form", "provenance", "statements", "language")
_VALID_VALUES = {"task": DIALOGUE_TASKS, "form": FORMS, "provenance": ("human", "machine", "simulated", "measured")}
_COLUMNS = {"image", "dialogues", "record_id", "source"}
_MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg"}


def llava_samples(row: Mapping[str, Any], image: str) -> list[dict[str, Any]]:
    """A data set row as samples of one dialogue each.

    Args:
        image: the path of the row's image relative to the image folder, with "/". The ids consist of it and the
            number of the dialogue, so that they are unique if the images are, and the same for the same data set.
    """
    stem = image.removeprefix("images/").rsplit(".", 1)[0].replace("/", "-")
    samples = []
    for k, dialogue in enumerate(row["dialogues"]):
        turns = [
            {"from": _TO_LLAVA.get(message["role"], message["role"]), "value": message["content"]}
            for message in dialogue["messages"]
        ]
        for turn in [turn for turn in turns if turn["from"] == "human"][:1]:
            turn["value"] = f"{_IMAGE}\n{turn['value']}"
        sample = {"id": f"{row['source']}-{stem}-{k}", "image": image, "conversations": turns}
        extras = {key: dialogue[key] for key in _EXTRA_KEYS if dialogue.get(key) is not None}
        samples.append({**sample, "record_id": row["record_id"], "source": row["source"], **extras})
    return samples


def export_llava(
    dataset: str | Path, out: str | Path, progress: Callable[[int, int], None] = lambda count, total: None
) -> int:
    """Write the shards of a data set as `out/llava.json` and `out/images/<shard>/<record>-<page>.png`.

    The image folder for training is `out` itself. A few rows are in memory at a time, and the same shards give the same
    bytes. After an interruption run it again: correct images are not rewritten, and the JSON is written last.

    Args:
        progress: called with (pages written, total pages). Returns the number of samples.

    Raises:
        InputError: Where there is no shard, or a damaged one, and when `out` cannot be a folder.
    """
    out = Path(out)
    shards = shards_of(dataset)
    total = sum(open_shard(shard).metadata.num_rows for shard in shards)
    pages = samples = 0
    try:
        with (
            exclusive(out),
            atomic_write(out / "llava.json") as partial,
            partial.open("w", encoding="utf-8", newline="\n") as file,
        ):
            for row, image in _pages(shards):
                _write_image(out / image, row["image"]["bytes"])
                for sample in llava_samples(row, image):
                    file.write(("[\n" if samples == 0 else ",\n") + json.dumps(sample, ensure_ascii=False))
                    samples += 1
                pages += 1
                if pages == total or pages % 100 == 0:
                    progress(pages, total)
            file.write("\n]\n" if samples else "[]\n")
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out}: {error.filename} is a file, not a folder; name another folder") from error
    return samples


def shards_of(dataset: str | Path) -> list[Path]:
    """The shards of a data set, in their order; `InputError` without any."""
    shards = sorted((Path(dataset) / "data").glob("*.parquet"))
    if not shards:
        raise InputError(f"{dataset}/data: no .parquet shard; render the data set first")
    return shards


def open_shard(shard: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(shard, pre_buffer=False)  # with use_threads=False below: no thread, see `open_files`
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{shard}: not a readable Parquet file ({error}); render the data set again") from error
    missing = _COLUMNS - set(file.schema_arrow.names)
    if missing:
        raise InputError(f"{shard}: column {', '.join(sorted(missing))} is missing; render the data set again")
    return file


def _pages(shards: list[Path]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row and the path of its image: one folder per shard, as a folder of a million files is slow."""
    for k, shard in enumerate(shards):
        counts: Counter[str] = Counter()
        try:
            for batch in open_shard(shard).iter_batches(16, columns=sorted(_COLUMNS), use_threads=False):
                for row in batch.to_pylist():
                    yield row, f"images/{k:05d}/{_image_name(row, counts, shard)}"
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise InputError(f"{shard}: cannot be read ({error}); render the data set again") from error


def _image_name(row: Mapping[str, Any], counts: Counter[str], shard: Path) -> str:
    """<record>-<page>.<ending>, valid on every system and unique. counts: of the names so far, which it updates.

    Pages of one record, and records that differ only in case or in replaced characters, are numbered.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", row["record_id"])[:100]
    page = counts[name.casefold()]
    counts[name.casefold()] += 1
    content = (row["image"] or {}).get("bytes") or b""
    for magic, ending in _MAGIC.items():
        if content.startswith(magic):
            return f"{name}-{page}.{ending}"
    raise InputError(f"{shard}: record {row['record_id']}: image is neither PNG nor JPEG; render the data set again")


def _write_image(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_write(path) as partial:
        partial.write_bytes(content)


class LlavaDialogues:
    """The conversations of a LLaVA or ECGInstruct file, by record.

    len: the samples of records of the source. unmatched_samples: those of none. empty_turns: the turns without a
    question or an answer, which are left out. The file is read and checked once, then only the positions of samples
    stay in memory, 20 bytes each, so that an instance can be sent to a worker process; `dialogues` reads the file again
    there.

    Args:
        path: a JSON list of samples, or JSONL.
        source: the name of the records' source. A sample of "mimic" or "ptbxl" is assigned to its record by image
            path or id, one of "wfdb" by file name ("code15_v4/2508875-0.png" is exams_part2/2508875; folders that
            both have must agree), and one written by `export_llava` by its own keys.

    Raises:
        InputError: (file, sample number from 1, field, mend) for a damaged file or sample, and when no sample is of
            a record of the source.
    """

    def __init__(self, path: str | Path, source: str) -> None:
        self.path, self.source = Path(path), source
        self.name = self.path.name
        self.unmatched_samples = self.empty_turns = 0
        keys, starts, sizes = array("Q"), array("q"), array("q")
        for number, (start, size, sample) in enumerate(samples_in(self.path), 1):
            try:
                turns = conversation_turns(sample)
            except InputError as error:
                raise InputError(f"{self.path}: sample {number}: {error}") from error
            self.empty_turns += sum(not (question and answer) for question, answer in turns)
            name = sample_record_id(sample, source)
            if name is None:
                self.unmatched_samples += 1
                continue
            keys.append(_key(name))
            starts.append(start)
            sizes.append(size)
        if not keys and not self.unmatched_samples:
            raise InputError(f"{self.path}: contains no sample; download the file again")
        if not keys:
            raise InputError(
                f"{self.path}: none of {self.unmatched_samples} samples names a record of the source {source}; "
                f"render the source that the file describes"
            )
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        self._keys = np.frombuffer(keys, np.uint64)[order]
        self._starts = np.frombuffer(starts, np.int64)[order]
        self._sizes = np.frombuffer(sizes, np.int64)[order].astype(np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def digest(self) -> str:
        """Of the file."""
        return file_digest(self.path)

    def dialogues(self, record: EcgRecord) -> list[Dialogue]:
        """The record's dialogues in the file's order, one per turn, without duplicates; [] where there are none.

        Unless the sample has them, provenance is "machine" (a language model wrote ECGInstruct's answers from reports),
        statements are (), and task and form are those of `guess_task` and `guess_form`.

        Raises:
            InputError: When the file has changed since it was opened.
        """
        if record.source != self.source:
            raise ValueError(f"record {record.record_id} is of {record.source}, these dialogues are for {self.source}")
        key = np.uint64(_key(record.record_id))
        first, last = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        if first == last:
            return []
        dialogues: list[Dialogue] = []
        try:
            with self.path.open("rb") as file:
                for i in range(first, last):
                    file.seek(self._starts[i])
                    sample = json.loads(file.read(self._sizes[i]))
                    turns = conversation_turns(sample)
                    if _is_about(sample, record):
                        dialogues += sample_dialogues(sample, turns)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: has changed while it was in use ({error}); start again") from error
        return list(dict.fromkeys(dialogues))  # several pages of a record may have the same


def sample_dialogues(sample: Mapping[str, Any], turns: list[tuple[str, str]]) -> list[Dialogue]:
    """A dialogue for each of a valid sample's turns (`conversation_turns`) that has a question and an answer."""
    extras = {key: sample[key] for key, valid in _VALID_VALUES.items() if sample.get(key) in valid}
    statements, language = sample.get("statements"), sample.get("language")
    if not (isinstance(statements, list) and all(isinstance(code, str) and code.isascii() for code in statements)):
        statements = []
    return [
        Dialogue(
            task=extras.get("task") or guess_task(question, answer),
            form=extras.get("form") or guess_form(question, answer),
            question=question,
            answer=answer,
            statements=tuple(statements),
            provenance=extras.get("provenance", "machine"),
            language=language if isinstance(language, str) and re.fullmatch(r"[a-z]{2,3}", language) else "en",
        )
        for question, answer in turns
        if question and answer
    ]


# "A. ...", "(B) ...", "C: ..." at the head of a line or after a space
_OPTION = re.compile(r"(?:^|\s)\(?([A-H])[.):]\s", re.MULTILINE)
_BLANK = re.compile(r"__|\[blank\]|\.{4,}|\bfill[- ]in\b|\bcomplete the (?:following )?sentence\b", re.IGNORECASE)
_YES_NO = re.compile(r"(?:yes|no|not sure)(?:$|\s*[.,:;!\n-])", re.IGNORECASE)
_REPORT = re.compile(r"\breports?\b|\binterpret|\bimpression\b|\bsummar|\bdescribe this ecg\b", re.IGNORECASE)
_RHYTHM = re.compile(
    r"rhythm|fibrillation|flutter|tachycardia|bradycardia|\bsinus\b|\bpace(?:d|maker)|ectop|extrasystol|premature|"
    r"bigemin|trigemin|regular",
    re.IGNORECASE,
)
_FEATURES = re.compile(
    r"\brate\b|\bqtc?\b|\bintervals?\b|\baxis\b|\bdurations?\b|\bamplitudes?\b|\bhow (?:long|wide|fast|many)\b|"
    r"\bmilliseconds\b|\bms\b|\bbpm\b|\bbeats per minute\b",
    re.IGNORECASE,
)
_LONG_ANSWER = 300  # characters; longer than a sentence or two about one finding


def guess_form(question: str, answer: str) -> str:
    """The question's form, guessed from the wording: "fill" with a blank; "closed" when the answer begins with yes, no
    or not sure (those of ECG-QA); "choice" with options A and B; otherwise "open".
    """
    if _BLANK.search(question):
        return "fill"
    if _YES_NO.match(answer):
        return "closed"
    return "choice" if {"A", "B"} <= set(_OPTION.findall(question)) else "open"


def guess_task(question: str, answer: str) -> str:
    """The question's task, guessed from the wording without the options: "report" with a word for a report or
    interpretation, else "rhythm" with one for a rhythm, else "features" with one for a measurement. Without any such
    word, a long answer to an open question is "report" and anything else "morphology".
    """
    text = _OPTION.split(question, 1)[0]
    for task, words in (("report", _REPORT), ("rhythm", _RHYTHM), ("features", _FEATURES)):
        if words.search(text):
            return task
    return "report" if len(answer) > _LONG_ANSWER and guess_form(question, answer) == "open" else "morphology"


# source -> patterns of: its folders, a file name in them, a file name in any folder, an id
_NAMES = {
    source: tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
    for source, patterns in {
        "mimic": (r"mimic.*|s[0-9]{8}", r"([0-9]{1,18})", r"(4[0-9]{7})", r"mimic[-_]([0-9]{1,18})"),
        "ptbxl": (
            r"ptb[-_]?xl.*|records[15]00",
            r"([0-9]{1,5})(?:_[hl]r)?",
            r"([0-9]{5})_[hl]r",
            r"ptb[-_]?xl[-_]([0-9]{1,5})(?:_[hl]r)?",
        ),
    }.items()
}
_PAGE_NUMBER = re.compile(r"-[0-9]{1,4}$")


def sample_record_id(sample: Mapping[str, Any], source: str) -> str | None:
    """The record of `source` ("mimic", "ptbxl", "wfdb") that a valid sample is about, or None."""
    if _is_ours(sample):
        return str(sample["record_id"]) if sample["source"] == source else None
    *folders, file = sample["image"].replace("\\", "/").split("/")
    name = _PAGE_NUMBER.sub("", file.rsplit(".", 1)[0])
    if source == "wfdb":
        return "/".join((*folders[1:], name)) if name else None  # the first folder names the data set
    if source not in _NAMES:
        return None
    folder, folder_name, file_name, identifier = _NAMES[source]
    in_folder = any(map(folder.fullmatch, folders))
    match = (folder_name if in_folder else file_name).fullmatch(name) or identifier.fullmatch(
        str(sample.get("id", ""))[:200]
    )
    return str(int(match[1])) if match else None


def _is_ours(sample: Mapping[str, Any]) -> bool:
    return isinstance(sample.get("record_id"), str) and isinstance(sample.get("source"), str)


def _is_about(sample: Mapping[str, Any], record: EcgRecord) -> bool:
    name = sample_record_id(sample, record.source)
    if name is None or _is_ours(sample):
        return name == record.record_id
    parts, record_parts = name.split("/"), record.record_id.split("/")
    depth = min(len(parts), len(record_parts))
    return parts[-depth:] == record_parts[-depth:]


def _key(name: str) -> int:
    """64-bit hash of the last part of a record's name; `_is_about` checks the rest."""
    return int.from_bytes(blake2b(name.rsplit("/", 1)[-1].encode("utf-8", "replace"), digest_size=8).digest(), "little")


def conversation_turns(sample: Any) -> list[tuple[str, str]]:
    """(question, answer) of each turn, without image tokens. Raises `InputError` that begins with the field."""
    if not isinstance(sample, dict):
        raise InputError(f"{_short(sample)} is not a sample; expected {{id, image, conversations}}; {SAMPLE_HINT}")
    if not isinstance(sample.get("image"), str):
        raise InputError(f"image {_short(sample.get('image'))} is not a path; {SAMPLE_HINT}")
    conversation = sample.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise InputError(f"conversations {_short(conversation)} is not a list of turns; {SAMPLE_HINT}")
    texts: list[str] = []
    for k, turn in enumerate(conversation):
        role = turn.get("from") if isinstance(turn, dict) else turn
        speaker = _SPEAKERS.get(role) if isinstance(role, str) else None
        if speaker == "system":
            continue  # instructions to the model: neither question nor answer
        if speaker != ("gpt" if len(texts) % 2 else "human"):
            raise InputError(f"conversations[{k}].from {_short(role)}: human and gpt must alternate; {SAMPLE_HINT}")
        texts.append(_text(turn.get("value"), k))
    if len(texts) % 2 or not texts:
        raise InputError(f"conversations: the last question has no answer; {SAMPLE_HINT}")
    questions = (text.replace(_IMAGE, "").strip() for text in texts[::2])
    return list(zip(questions, (text.strip() for text in texts[1::2]), strict=True))


def _text(value: Any, k: int) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "".join(value)  # as in ECGBench's ECG-QA part
    if not isinstance(value, str):
        raise InputError(f"conversations[{k}].value {_short(value)} is not text; {SAMPLE_HINT}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"conversations[{k}].value contains half a character (\\ud8xx); {SAMPLE_HINT}") from error
    return value


def _short(value: Any) -> str:
    return "is missing: null" if value is None else repr(value)[:60].encode("ascii", "replace").decode()
