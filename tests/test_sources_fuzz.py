"""Files that keep to a grammar, and any text: a record or `InputError`, no other error. Changed files: `tests.fuzz`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from render.errors import InputError
from render.record import LEADS, EcgRecord
from render.sources.mimic_statements import statements_in
from render.sources.ptbxl import codes_in
from render.sources.registry import open_source, parse_folds
from render.sources.wfdb_folder import WfdbFolder
from render.statements import STATEMENTS

# Every example rewrites the files, so that one folder is enough for all.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_all(make: Callable[[], object]) -> None:
    """Open a source and read it: complete records, or an error message of one line."""
    try:
        source = make()
        for i in range(len(source)):
            record = source.read(i)  # type: ignore[attr-defined]
            assert isinstance(record, EcgRecord)
            assert record.signal.shape[0] == len(LEADS)
            assert not np.isinf(record.signal).any()
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 3000


@pytest.fixture(scope="module")
def record(
    tmp_path_factory: pytest.TempPathFactory, write_wfdb: Callable[..., Path], ecg_mv: NDArray[np.float64]
) -> Path:
    """A good record of 1 s; small, so that edits reach every part."""
    return write_wfdb(tmp_path_factory.mktemp("fuzz"), "x", ecg_mv[:, :500])


@pytest.fixture(scope="module")
def good(record: Path) -> dict[str, bytes]:
    return {suffix: record.with_suffix(suffix).read_bytes() for suffix in (".hea", ".dat")}


@quick
@given(content=st.binary(max_size=300))
def test_any_header(record: Path, good: dict[str, bytes], content: bytes) -> None:
    record.with_suffix(".dat").write_bytes(good[".dat"])
    record.write_bytes(content)
    read_all(lambda: WfdbFolder(record))


def field(*shapes: str) -> st.SearchStrategy[str]:
    """One of the shapes, with numbers of any size in its braces."""
    number = st.one_of(st.integers(0, 3), st.integers(0, 10**18), st.sampled_from(["", "1e99", "-5", "9" * 400]))
    return st.builds(lambda shape, *n: shape.format(*n), st.sampled_from(shapes), number, number, number)


@quick
@given(
    first=field("x 12 {} {}", "x 12 100 {}", "x/{} 12 100", "x 12 100/{}({}) {}", "x 12 100 50", "x {} 100"),
    form=field("16", "16x{}", "16:{}", "16+{}", "212x{}:{}+{}", "8", "516", "516x{}:{}", "{}"),
    gain=field("200/mV", "{}/mV", "{}({})/uV", "200({})", "-200/mV", "{}e{}/V", "0.{}"),
)
def test_header_that_keeps_to_the_grammar(
    record: Path, good: dict[str, bytes], first: str, form: str, gain: str
) -> None:
    """Huge numbers and near misses that random edits would seldom produce."""
    record.with_suffix(".dat").write_bytes(good[".dat"])
    lines = [first, *(f"x.dat {form} {gain} 16 0 0 {lead}" for lead in LEADS)]
    record.write_text("\n".join(lines), encoding="utf-8")
    read_all(lambda: WfdbFolder(record))


FORMATS = ("8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524")


@quick
@given(
    form=st.sampled_from(FORMATS),
    frames=st.integers(0, 700),
    content=st.builds(lambda piece, times: piece * times, st.binary(max_size=400), st.integers(0, 40)),
    skew=st.integers(0, 800),
    per_frame=st.integers(0, 3),
)
def test_every_format_on_any_bytes(
    record: Path, form: str, frames: int, content: bytes, skew: int, per_frame: int
) -> None:
    lines = [f"x 12 100 {frames or ''}"]
    lines += [f"x.dat {form}x{per_frame}:{skew} 200/mV 16 0 0 {lead}" for lead in LEADS]
    record.write_text("\n".join(lines))
    record.with_suffix(".dat").write_bytes(content)
    read_all(lambda: WfdbFolder(record))


def test_unedited_record_is_good(record: Path, good: dict[str, bytes]) -> None:
    """The errors above are due to the content."""
    record.write_bytes(good[".hea"])
    record.with_suffix(".dat").write_bytes(good[".dat"])
    assert WfdbFolder(record).read(0).seconds == 1


@given(text=st.one_of(st.text(max_size=30), st.dictionaries(st.text(max_size=5), st.floats()).map(repr)))
def test_any_scp_codes(text: str) -> None:
    try:
        assert set(codes_in(text, "row")) <= set(STATEMENTS)
    except InputError as error:
        assert "\n" not in str(error)


@given(text=st.text(max_size=40))
def test_any_words(text: str) -> None:
    for parse in (parse_folds, lambda text: statements_in([text]), lambda text: open_source(text, limit=1)):
        try:
            parse(text)
        except InputError as error:
            assert "\n" not in str(error)
