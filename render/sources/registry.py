"""Sources of records: their interface, and their names on the command line."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Protocol

from render.errors import InputError
from render.io import is_url, text_digest, user_path
from render.record import EcgRecord, RecordLabels
from render.sources.mimic import MimicIvEcg
from render.sources.ptbxl import PtbXl
from render.sources.waveform_file import WAVEFORM_SUFFIXES, WaveformFile, WaveformFolder
from render.sources.wfdb_folder import WfdbFolder
from render.sources.wfdb_record import MissingRecordError
from render.suggest import nearest

_SIMULATED_SIZE = 1000
_FORMS = (
    "simulated, simulated:CODE,CODE, ptbxl:DIR, mimic:DIR, wfdb:DIR, files:DIR, or a waveform file (.hea, .scp ...); "
    "render also takes pictures:DIR and llava:FILE.json"
)
PICTURE_KINDS = ("pictures", "llava")
"""Kinds of sources without waveforms, which `ecg_vlm.pictures` opens."""
SOURCE_KINDS = ("simulated", "ptbxl", "mimic", "wfdb", "files", *PICTURE_KINDS)
"""The words before the colon of a source."""

_NO_URL = "source {spec}: only ptbxl:URL, mimic:URL, wfdb:URL and a .hea are read from a URL; download the files"
_USUAL_PICTURES = frozenset((".png", ".jpg", ".jpeg"))


class Source(Protocol):
    """A numbered collection of records, read one at a time.

    Sources are small when pickled, and `read` depends on `i` alone, so that any worker can read any record.
    """

    name: str

    def __len__(self) -> int: ...

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises `MissingRecordError` when it is not on the disk, `InputError` when damaged."""
        ...


def prevalence_of(source: Source) -> Mapping[str, float] | None:
    """Statement -> share of the source's records that carry it; None where only reading all records would tell."""
    method: Callable[[], Mapping[str, float]] | None = getattr(source, "prevalence", None)
    return method and method()


def record_labels(source: Source) -> Iterator[RecordLabels]:
    """The labels of all records; signals are read only where the labels are in the same file. Records that are not on
    the disk are left out there."""
    if isinstance(source, JoinedSource):
        for part in source.parts:
            yield from record_labels(part)
        return
    method: Callable[[int], RecordLabels] | None = getattr(source, "labels", None)
    for i in range(len(source)):
        if method is not None:
            yield method(i)
            continue
        with suppress(MissingRecordError):
            record = source.read(i)
            yield RecordLabels(*(getattr(record, name) for name in RecordLabels._fields))


def record_ids(source: Source) -> Iterable[str]:
    """The ids of all records in their order; records are read only where their source has no list of them."""
    method: Callable[[], Iterable[str]] | None = getattr(source, "record_ids", None)
    return method() if method else (source.read(i).record_id for i in range(len(source)))


def digest_of(source: object) -> str:
    """A digest of what tells a source's records (or its dialogues) from those of another: tables, names and sizes of
    files, seeds. "" where it has none. Not of the folder's place, nor of the signals themselves."""
    method: Callable[[], str] | None = getattr(source, "digest", None)
    return method() if method else ""


class LimitedSource:
    """The first `limit` records of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self.name = source.name
        self._source = source
        self._size = min(limit, len(source))

    def __len__(self) -> int:
        return self._size

    def prevalence(self) -> Mapping[str, float] | None:
        """That of the whole source."""
        return prevalence_of(self._source)

    def digest(self) -> str:
        """That of the whole source, and the limit."""
        return text_digest(digest_of(self._source), self._size)

    def record_ids(self) -> Iterator[str]:
        """The ids of the first records."""
        return islice(record_ids(self._source), self._size)

    def read(self, i: int) -> EcgRecord:
        """Record i of the source. Raises IndexError beyond the limit."""
        if not 0 <= i < self._size:
            raise IndexError(i)
        return self._source.read(i)


class JoinedSource:
    """Several sources one behind the other, each record with its own sampling rate, source and fold.

    parts: by the word that names each. Raises `InputError` for a record id that two of them have.
    """

    def __init__(self, parts: Mapping[str, Source]) -> None:
        self.parts = tuple(parts.values())
        self.name = "+".join(dict.fromkeys(part.name for part in self.parts))
        self._ends = list(accumulate(map(len, self.parts)))
        first: dict[str, str] = {}
        for spec, part in parts.items():
            for record_id in record_ids(part):
                if first.setdefault(record_id, spec) != spec:
                    raise InputError(
                        f"record {record_id} is in {first[record_id]} and in {spec}; leave one of them out"
                    )

    def __len__(self) -> int:
        return self._ends[-1]

    def prevalence(self) -> Mapping[str, float] | None:
        """That of all parts together; None where one part does not know its own."""
        shares = [prevalence_of(part) for part in self.parts]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            return None
        sizes = [len(part) / len(self) for part in self.parts]
        codes = dict.fromkeys(code for share in known for code in share)
        return {code: sum(n * s.get(code, 0.0) for n, s in zip(sizes, known, strict=True)) for code in codes}

    def digest(self) -> str:
        """Of all parts in their order."""
        return text_digest(*(digest_of(part) for part in self.parts))

    def record_ids(self) -> Iterator[str]:
        """The ids of all records."""
        for part in self.parts:
            yield from record_ids(part)

    def read(self, i: int) -> EcgRecord:
        """Record i of all. Raises IndexError beyond the last."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        place = bisect_right(self._ends, i)
        return self.parts[place].read(i - self._ends[place] + len(self.parts[place]))


def open_source(
    spec: str | Sequence[str],
    *,
    seed: int = 0,
    limit: int | None = None,
    folds: Collection[int] | None = None,
    sampling_rate: float | None = None,
) -> Source:
    """The source that `spec` names: one of the forms in `_FORMS`, or several of them as one (`JoinedSource`).

    seed: of the simulated records; real ones ignore it.
    limit: the number of first records of each source; for "simulated" the number of records (default 1000).
    folds: PTB-XL's stratified folds to keep.
    sampling_rate: hertz, of a waveform file that does not give it (.npy, and .csv without a column of times).
    Raises `InputError` for an unknown source, a limit below 1, and folds of a source that has none, and
    a record that is in two sources.
    """
    if not isinstance(spec, str):
        arguments: dict[str, Any] = {"seed": seed, "limit": limit, "folds": folds, "sampling_rate": sampling_rate}
        if len(spec) == 1:
            return open_source(spec[0], **arguments)
        for one in spec:
            if spec.count(one) > 1:
                raise InputError(f"source {one} is named twice; leave one of them out")
        return JoinedSource({one: open_source(one, **arguments) for one in spec})
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: give at least 1 record")
    word, _, codes = spec.partition(":")
    if word == "simulated":
        _refuse_folds(spec, folds)
        from render.simulator.simulate import SimulatedSource  # here: real records do not need the simulator's tables

        statements = tuple(code.strip() for code in codes.split(",") if code.strip())
        return SimulatedSource(seed, _SIMULATED_SIZE if limit is None else limit, statements)
    source = _real_source(spec, folds, sampling_rate)
    return source if limit is None else LimitedSource(source, limit)


def _real_source(spec: str, folds: Collection[int] | None, sampling_rate: float | None) -> Source:
    word, colon, rest = spec.partition(":")
    if colon and word == "ptbxl":
        return PtbXl(_folder(word, rest), folds)
    others: dict[str, Callable[[Path], Source]] = {"mimic": MimicIvEcg, "wfdb": WfdbFolder}
    if colon and word in others:
        _refuse_folds(word, folds)
        return others[word](_folder(word, rest))
    if colon and word == "files":
        _refuse_folds(word, folds)
        folder = _folder(word, rest)
        if is_url(folder):
            raise InputError(_NO_URL.format(spec=spec))
        return WaveformFolder(folder, sampling_rate)
    if colon and word in PICTURE_KINDS:
        raise InputError(f"source {spec!r}: holds pictures, not waveforms; only ecg-vlm render OUT takes it")
    if spec.endswith(".hea"):
        _refuse_folds(spec, folds)
        return WfdbFolder(spec)
    path = user_path(spec)
    if is_url(path):
        raise InputError(_NO_URL.format(spec=spec))
    if path.is_file() or path.suffix.lower() in WAVEFORM_SUFFIXES:
        _refuse_folds(spec, folds)
        if path.with_suffix(".hea").is_file() and path.suffix.lower() == ".dat":
            raise InputError(f"source {spec}: signals without their header; did you mean {path.with_suffix('.hea')}?")
        return WaveformFile(path, sampling_rate)
    raise InputError(_unknown(spec, word))


def _folder(word: str, rest: str) -> Path:
    if not rest:
        raise InputError(f"source {word}: the folder is missing; write {word}:DIR")
    return user_path(rest)


def _refuse_folds(spec: str, folds: Collection[int] | None) -> None:
    if folds is not None:
        raise InputError(f"--folds: source {spec} has no folds; only ptbxl:DIR has, so leave --folds out")


def _unknown(spec: str, word: str) -> str:
    """The message for an unknown source, with the most similar valid one."""
    if spec and Path(spec).is_dir():
        kind = "ptbxl" if (Path(spec) / "ptbxl_database.csv").is_file() else "wfdb"
        kind = "mimic" if (Path(spec) / "record_list.csv").is_file() else kind
        suffixes = {path.suffix.lower() for path in Path(spec).iterdir()}
        if kind == "wfdb" and ".hea" not in suffixes and suffixes & _USUAL_PICTURES:
            kind = "pictures"
        elif kind == "wfdb" and ".hea" not in suffixes and suffixes & (WAVEFORM_SUFFIXES - {".mat"}):
            kind = "files"
        return f"source {spec!r} is a folder without its kind; write {kind}:{spec}"
    if Path(f"{spec}.hea").is_file():
        return f"source {spec!r} is the name of a record; did you mean {spec}.hea?"
    if spec.endswith((".json", ".jsonl")) and Path(spec).is_file():
        return f"source {spec!r} is a file without its kind; write llava:{spec}, or pictures:{spec} for a table"
    near = nearest(word.lower(), SOURCE_KINDS)
    suggestion = near if near in ("", "simulated") else f"{near}:{'FILE.json' if near == 'llava' else 'DIR'}"
    hint = f"did you mean {suggestion}? valid are" if near else "valid are"
    return f"source {spec!r} is unknown; {hint} {_FORMS}"


def parse_folds(text: str) -> tuple[int, ...]:
    """Fold numbers of a text such as "1-8", "9" or "1-3,5", sorted, each once.

    Raises `InputError` for anything but whole numbers from 1 to 10 and ascending ranges of them.
    """
    folds: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,2})(?:-([0-9]{1,2}))?", part.strip())
        if match is None:
            raise InputError(f"--folds {text!r}: {part!r} is neither a fold nor a range; write 1-8, 9 or 1-3,5")
        first = int(match[1])
        last = int(match[2] or first)
        if not 1 <= first <= last <= 10:
            raise InputError(f"--folds {text!r}: {part!r} is not an ascending range within 1 to 10; write 1-8")
        folds.update(range(first, last + 1))
    return tuple(sorted(folds))
