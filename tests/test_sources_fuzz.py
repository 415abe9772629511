"""For any bytes of a file a reader returns a record or raises `InputError`, and no other error."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from render.errors import InputError
from render.record import LEADS, EcgRecord
from render.sources.mimic import MimicIvEcg
from render.sources.mimic_statements import statements_in
from render.sources.ptbxl import PtbXl, codes_in
from render.sources.registry import open_source, parse_folds
from render.sources.wfdb_folder import WfdbFolder
from render.statements import STATEMENTS

# Every example rewrites the files, so that one folder is enough for all.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

new_bytes = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b" ", b"\n", b"/", b"../", b"0", b"-1", b"9" * 19, b"'", b'"', b",", b"\xb5"]),
)
edits = st.lists(  # (position as a share of the length, number of bytes to delete, bytes to insert)
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 12), new_bytes), min_size=1, max_size=4
)


def apply_edits(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for position, count, new in changes:
        start = int(position * len(content))
        content = content[:start] + new + content[start + count :]
    return content


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
@given(changes=edits)
def test_edited_header(record: Path, good: dict[str, bytes], changes: list[tuple[float, int, bytes]]) -> None:
    record.with_suffix(".dat").write_bytes(good[".dat"])
    record.write_bytes(apply_edits(good[".hea"], changes))
    read_all(lambda: WfdbFolder(record))


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


@quick
@given(changes=edits)
def test_edited_samples(record: Path, good: dict[str, bytes], changes: list[tuple[float, int, bytes]]) -> None:
    first, *lines = good[".hea"].decode().splitlines()
    table = [line.split() for line in lines]
    no_checksums = "\n".join([first, *(" ".join([*fields[:6], fields[8]]) for fields in table)])
    for header in (good[".hea"], no_checksums.encode()):  # with checksums nearly every edit is an error
        record.write_bytes(header)
        record.with_suffix(".dat").write_bytes(apply_edits(good[".dat"], changes))
        read_all(lambda: WfdbFolder(record))


def test_unedited_record_is_good(record: Path, good: dict[str, bytes]) -> None:
    """The errors above are due to the edits."""
    record.write_bytes(good[".hea"])
    record.with_suffix(".dat").write_bytes(good[".dat"])
    assert WfdbFolder(record).read(0).seconds == 1


PTBXL = {
    "ecg_id": "1",
    "patient_id": "2.0",
    "age": "56.0",
    "sex": "1",
    "report": 'sinus, "rhythmus"',
    "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
    "validated_by_human": "True",
    "strat_fold": "3",
    "filename_lr": "x_lr",
    "filename_hr": "x",
}
MIMIC = {
    "subject_id": "1",
    "study_id": "7",
    "path": "x",
    **{f"report_{i}": "Sinus rhythm" for i in range(18)},
    "bandwidth": "0.05-150 Hz",
    "filtering": "60 Hz notch",
    "rr_interval": "800",
    **dict.fromkeys(("p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"), "40"),
    **dict.fromkeys(("p_axis", "qrs_axis", "t_axis"), "29999"),
}


def write_table(path: Path, row: dict[str, str]) -> bytes:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows([row, row])
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, write_wfdb: Callable[..., Path], ecg_mv: NDArray[np.float64]
) -> Path:
    """A good record, which no test edits, with PTB-XL's table of codes."""
    place = write_wfdb(tmp_path_factory.mktemp("tables"), "x", ecg_mv[:, :500]).parent
    codes = "\n".join(f"{code},x" for code in STATEMENTS)
    (place / "scp_statements.csv").write_text(f",diagnostic_class\n{codes}\n")
    return place


@quick
@given(changes=edits)
def test_edited_ptbxl_table(folder: Path, changes: list[tuple[float, int, bytes]]) -> None:
    table = folder / "ptbxl_database.csv"
    table.write_bytes(apply_edits(write_table(table, PTBXL), changes))
    read_all(lambda: PtbXl(folder, folds=[3]))


@quick
@given(changes=edits, which=st.sampled_from(["record_list.csv", "machine_measurements.csv"]))
def test_edited_mimic_tables(folder: Path, changes: list[tuple[float, int, bytes]], which: str) -> None:
    for name in ("record_list.csv", "machine_measurements.csv"):
        content = write_table(folder / name, MIMIC)
        if name == which:
            (folder / name).write_bytes(apply_edits(content, changes))
    read_all(lambda: MimicIvEcg(folder))


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
