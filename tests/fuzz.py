"""Change valid files at random and read them: a record or a message of one line, in bounded time and memory.

    python -m tests.fuzz                         # every reader of fuzz_readers.py
    python -m tests.fuzz images parser --inputs 2000 --seconds 60

An input counts when it gets past its reader's first check, whose messages the reader names. Each reader goes on until
--inputs of them have, or its CPU seconds are over, and prints one line. An input that fails is made as small as
possible and kept in tests/corpus, which the tests read again for ever.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import hashlib
import io
import json
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from render.errors import InputError, WorkFailed

CORPUS = Path(__file__).with_name("corpus")
SECONDS, MEGABYTES = 2.0, 300
"""Of CPU time and of memory that one input may take; every valid file here is far below a megabyte."""
_LONGEST_MESSAGE = 3000
_ADDRESS_SPACE = 2 << 30  # bytes beyond what is there at the start
_BATCH = 250  # inputs of one seed
_SHRINKING = 10  # seconds of CPU time to make a failure smaller
_HANG = 10  # times the seconds of an input: then the process ends, as no Python runs that could raise


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        files: valid files by their path in a folder of their own. One at a time is changed.
        read: reads the changed file; the others lie beside it.
        first_check: a regular expression of the messages of the first check, which asks for the form of the file.
        fixed: paths of files that stay as they are.
        mend: makes checksums right again, so that the rest is tested too.
        seconds: of CPU time that an input may take.
    """

    files: Mapping[str, bytes]
    read: Callable[[Path], object]
    first_check: str = "^$"
    fixed: frozenset[str] = frozenset()
    mend: Callable[[bytes], bytes] = field(default=lambda content: content)
    seconds: float = SECONDS


# Changes


@dataclass(frozen=True)
class Bytes:
    """At a share of the length some bytes go and others come."""

    at: float
    removal: int
    insertion: bytes

    def apply(self, content: bytes, suffix: str) -> bytes:
        """The changed content."""
        start = int(self.at * len(content))
        return content[:start] + self.insertion + content[start + self.removal :]


@dataclass(frozen=True)
class Value:
    """At a share of the values of a file that has values there is another one, or none."""

    at: float
    value: Any

    def apply(self, content: bytes, suffix: str) -> bytes:
        """The changed content; the same where an earlier change has made it unreadable."""
        try:
            return _VALUES[suffix](content, self)
        except (ValueError, TypeError, LookupError, RecursionError, csv.Error, yaml.YAMLError, pa.ArrowException):
            return content


_REMOVE = "(remove)"
_insertions = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        b" ,\n,/,../,0,-1,1e999,nan,',\",<,&,{,\0,\xb5,\xff\xff\xff\xff,\x7f\xff\xff\xff,\xed\xa0\x80".split(b",")
    ),
    st.sampled_from([b",", b"9" * 19, b"x" * 300]),
)
_values = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2**31, 2**64, 10**30, 0.5, 1e308, float("nan"), float("inf")]),
    st.sampled_from(["", " ", "x", "0", "1e999", "nan", "\0", "\n", "\ud800", "ä" * 300, "../x", "/dev/zero"]),
    st.sampled_from(["9" * 400, [], {}, [[]], [None], [1, "x"], {"a": 1}, {"": None}, _REMOVE]),
    st.text(max_size=5),
    st.integers(),
)
_places = st.floats(0, 1, exclude_max=True)
_byte_changes = st.lists(st.builds(Bytes, _places, st.integers(0, 12), _insertions), min_size=1, max_size=4)
_value_changes = st.lists(st.builds(Value, _places, _values), min_size=1, max_size=3)


def _with_value(tree: Any, change: Value) -> Any:
    """A JSON tree with one node changed."""
    nodes = [(None, None), *_nodes(tree)]
    parent, key = nodes[int(change.at * len(nodes))]
    if parent is None:
        return change.value
    if change.value == _REMOVE:
        del parent[key]
    else:
        parent[key] = change.value
    return tree


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree)) if isinstance(tree, (dict, list)) else []
    for key, value in items:
        yield tree, key
        yield from _nodes(value)


def _in_json(content: bytes, change: Value) -> bytes:
    return json.dumps(_with_value(json.loads(content), change)).encode()


def _in_json_lines(content: bytes, change: Value) -> bytes:
    lines = content.splitlines()
    place = change.at * len(lines)
    lines[int(place)] = _in_json(lines[int(place)], Value(place % 1, change.value))
    return b"\n".join(lines)


def _in_yaml(content: bytes, change: Value) -> bytes:
    return yaml.safe_dump(_with_value(yaml.safe_load(content), change)).encode()


def _in_table(content: bytes, change: Value, delimiter: str = ",") -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode()), delimiter=delimiter))
    place = change.at * len(rows)
    cells = rows[int(place)]
    cells[int(place % 1 * len(cells))] = str(change.value).encode(errors="replace").decode()
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


def _in_safetensors(content: bytes, change: Value) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = _in_json(content[8 : 8 + length], change)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _in_parquet(content: bytes, change: Value) -> bytes:
    """Another value in one row, or a column of that value alone, with or without the metadata."""
    table = pq.read_table(io.BytesIO(content))
    place = change.at * table.num_columns
    index, rest = int(place), place % 1
    name, column = table.schema.field(index).name, table.column(index)
    if change.value == _REMOVE:
        table = table.drop_columns(name)
    elif rest < 0.5:
        values = column.to_pylist()
        row = int(2 * rest * len(values))
        values[row] = _with_value([values[row]], Value(4 * rest % 1, change.value))
        values[row] = values[row][0] if isinstance(values[row], list) and values[row] else values[row]
        table = table.set_column(index, table.schema.field(index), pa.array(values, column.type))
    else:
        table = table.set_column(index, name, pa.array([change.value] * table.num_rows))
    buffer = io.BytesIO()
    pq.write_table(table if rest < 0.9 else table.replace_schema_metadata(None), buffer)
    return buffer.getvalue()


_VALUES: dict[str, Callable[[bytes, Value], bytes]] = {
    ".json": _in_json, ".jsonl": _in_json_lines, ".yaml": _in_yaml, ".csv": _in_table, ".safetensors": _in_safetensors,
    ".tsv": lambda content, change: _in_table(content, change, "\t"), ".parquet": _in_parquet,
}  # fmt: skip
"""How a file's name ends -> how one of its values is changed."""


# One input


class LimitError(BaseException):
    """An input took too long. No `Exception`, so that no reader takes it for damage of the file."""


def observe(reader: Reader, path: Path) -> str | None:
    """Read one input. Returns the message with which it was refused, None where it was read.

    Raises:
        AssertionError: For a message of several lines, for too much memory, and for anything written to standard error.
        LimitError: For too much time.
        Exception: Whatever the reader raised that is neither `InputError` nor `WorkFailed`.
    """
    message = None
    with _bounds(reader.seconds), warnings.catch_warnings(), _standard_error() as file:
        for kind in (RuntimeWarning, UserWarning):  # on a terminal it is a line that no one understands
            warnings.simplefilter("error", kind)
        try:
            reader.read(path)
        except (InputError, WorkFailed) as error:
            message = str(error)
        file.seek(0)
        written = file.read()
    assert not written, f"wrote {written[:200]!r}"
    if message is not None:
        assert "\n" not in message and len(message) < _LONGEST_MESSAGE, f"no short line: {message[:200]!r}"
        assert not re.search(r"allocate|MemoryError", message), message
    return message


@contextmanager
def _bounds(seconds: float) -> Iterator[None]:
    before = _reset_peak()
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HANG * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    growth = _megabytes("VmHWM") - before
    assert growth < MEGABYTES, f"took {growth:.0f} MB"


@contextmanager
def _standard_error() -> Iterator[IO[bytes]]:
    """What is written to file descriptor 2 meanwhile, which libraries in C do without Python's knowledge."""
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _reset_peak() -> float:
    """Let the system count the largest memory anew (Linux). Returns what is in use, in megabytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _megabytes("VmRSS")


def _megabytes(name: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def _too_slow(*_: object) -> None:
    raise LimitError("took too much time")


# A reader


@dataclass
class Tally:
    """What came of a reader's inputs."""

    inputs: int = 0
    passed: int = 0
    slowest: float = 0.0
    failure: str = ""

    def line(self, name: str) -> str:
        """For the table."""
        return (
            f"{name}: {self.inputs:,} inputs, {self.passed:,} past the first check, slowest "
            f"{1000 * self.slowest:.0f} ms; {self.failure or 'no failure'}"
        )


def fuzz(reader: Reader, keep: Path, *, inputs: int, seconds: float, start: int = 0) -> Tally:
    """Change and read until `inputs` have got past the first check, `seconds` of CPU time are over, or one fails.

    keep: the folder for a file that fails. start: the first seed.
    """
    tally = Tally()
    end = _cpu_seconds() + seconds
    with tempfile.TemporaryDirectory() as folder, _alarm():
        number = start
        while tally.passed < inputs and _cpu_seconds() < end and not tally.failure:
            _one_batch(reader, keep, Path(folder), number, min(_BATCH, inputs), end, tally)
            number += 1
    return tally


@contextmanager
def _alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGPROF, _too_slow)
    with os.fdopen(os.dup(2), "w") as terminal:
        faulthandler.register(signal.SIGVTALRM, file=terminal, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGVTALRM)
            signal.signal(signal.SIGPROF, before)


def _cpu_seconds() -> float:
    """Of this process and of those that it has started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _one_batch(reader: Reader, keep: Path, folder: Path, number: int, size: int, end: float, tally: Tally) -> None:
    names = sorted(set(reader.files) - reader.fixed)
    failures: list[tuple[str, bytes, BaseException]] = []
    end_of_shrinking = float("inf")

    @seed(number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(names).flatmap(lambda file: st.tuples(st.just(file), _changes_of(file))))
    def check(case: tuple[str, Sequence[Bytes | Value]]) -> None:
        nonlocal end_of_shrinking
        begin = _cpu_seconds()
        if begin > (end_of_shrinking if failures else end):
            return
        file, changes = case
        content = reader.files[file]
        for change in changes:
            content = change.apply(content, Path(file).suffix)
        content = reader.mend(content)
        tally.inputs += 1
        try:
            message = observe_input(reader, folder, file, content)
        except (Exception, LimitError) as error:
            failures.append((file, content, error))
            end_of_shrinking = min(end_of_shrinking, _cpu_seconds() + _SHRINKING)
            raise
        tally.slowest = max(tally.slowest, _cpu_seconds() - begin)
        tally.passed += message is None or not re.search(reader.first_check, message)

    with suppress(Exception, LimitError):  # it is in `failures`
        check()
    if failures:
        file, content, error = failures[-1]  # the smallest
        place = traceback.extract_tb(error.__traceback__)[-1]
        kept = keep / hashlib.sha256(content).hexdigest()[:8] / file
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)
        tally.failure = f"{type(error).__name__}: {error!s:.200} ({place.filename}:{place.lineno}), kept as {kept}"


def _changes_of(file: str) -> st.SearchStrategy[Sequence[Bytes | Value]]:
    return st.one_of(_byte_changes, _value_changes) if Path(file).suffix in _VALUES else _byte_changes


def observe_input(reader: Reader, folder: Path, file: str, content: bytes) -> str | None:
    """`observe` a file with other content, in a folder that has or gets the valid ones."""
    for name, valid in reader.files.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(valid)
    (folder / file).write_bytes(content)
    try:
        return observe(reader, folder / file)
    finally:
        (folder / file).write_bytes(reader.files[file])


def main(words: Sequence[str] | None = None) -> int:
    """Print one line a reader; exit code 1 where an input failed."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # as the command line does
    from tests.fuzz_readers import READERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--inputs", type=int, default=10_000, help="past the first check, of each (default 10000)")
    parser.add_argument("--seconds", type=float, default=100, help="of CPU time for each (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="other inputs (default 0)")
    arguments = parser.parse_args(words)
    failures = 0
    for name in arguments.readers or READERS:
        reader = READERS[name]()
        with tempfile.TemporaryDirectory() as folder:  # valid files are read, and what is imported then stays
            for file in sorted(set(reader.files) - reader.fixed):
                refusal = observe_input(reader, Path(folder), file, reader.files[file])
                assert not re.search(reader.first_check, refusal or "-"), f"{file} should be valid: {refusal}"
        limit = int(_megabytes("VmSize")) * 2**20 + _ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        tally = fuzz(
            reader, CORPUS / name, inputs=arguments.inputs, seconds=arguments.seconds, start=1000 * arguments.seed
        )
        print(tally.line(name), flush=True)
        failures += bool(tally.failure)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
