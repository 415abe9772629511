"""Readers of real records: the records of good files, and the error messages for bad ones."""

from __future__ import annotations

import csv
import pickle
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from render.errors import InputError
from render.io import user_path
from render.record import LEADS, resample
from render.sources.ptbxl import LABELS_DIFFER, OVER_89_YEARS, PtbXl
from render.sources.registry import LimitedSource, open_source, parse_folds, record_ids
from render.sources.wfdb_folder import WfdbFolder
from render.sources.wfdb_record import MissingRecordError, inside, read_wfdb
from render.statements import STATEMENTS

WriteWfdb = Callable[..., Path]
Signal = NDArray[np.float64]

HALF_STEP = 0.0006  # mV: half a step at a gain of 1000/mV, and float32


# ---- one WFDB record


@pytest.mark.parametrize(("units", "gain"), [("mV", 1000.0), ("mV", 200.0), ("uV", 1000.0), ("V", 1000.0)])
def test_every_unit_and_gain_gives_the_same_millivolts(
    tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, units: str, gain: float
) -> None:
    signal, rate = read_wfdb(write_wfdb(tmp_path, "x", ecg_mv, units=units, gain=gain))
    assert rate == 500
    assert signal.dtype == np.float32
    assert np.abs(signal - ecg_mv).max() < 0.5 / gain + 1e-4


@pytest.mark.parametrize("unit", ["µV", "μV", "uV", "UV"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_micro_sign_is_never_lost(
    tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, unit: str, encoding: str
) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv, units="uV")
    text = header.read_text().replace("/uV", f"/{unit}")
    header.write_bytes(text.encode(encoding if unit != "μV" else "utf-8"))  # latin-1 has no Greek mu
    assert np.abs(read_wfdb(header)[0] - ecg_mv).max() < HALF_STEP


@pytest.mark.parametrize("fmt", ["16", "24", "32", "212"])
def test_what_wfdb_writes(tmp_path: Path, ecg_mv: Signal, fmt: str) -> None:
    numbers: dict[str, Any] = {"fmt": [fmt] * 12, "adc_gain": [1000.0] * 12, "baseline": [7] * 12}
    wfdb.wrsamp("x", 500, ["mV"] * 12, list(LEADS), p_signal=ecg_mv.T, **numbers, write_dir=str(tmp_path))
    assert np.abs(read_wfdb(tmp_path / "x.hea")[0] - ecg_mv).max() < HALF_STEP


def changed_line(header: Path, lead: str, old: str, new: str) -> None:
    """Change one lead's line of a header; `old` must be in it."""
    lines = header.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith(f" {lead}"))
    assert old in lines[at]
    lines[at] = lines[at].replace(old, new)
    header.write_text("\n".join(lines))


def by_wfdb(header: Path) -> NDArray[np.float32]:
    """(12, n) float32: a record in millivolts as the package reads it, in the order of `LEADS`."""
    record = wfdb.rdrecord(str(header.with_suffix("")))
    names = [name.upper() for name in record.sig_name]
    return record.p_signal.astype(np.float32).T[[names.index(lead.upper()) for lead in LEADS]]


ODD = (("1000.0(0)", "1716(6)"), ("1000.0(0)", "204.8(-12345)"), ("1000.0(0)", "-200.37(32767)"), ("1000.0(0)", "3e2"))


@pytest.mark.parametrize("gain", [1000.0, 333.3, 16384.0])
@pytest.mark.parametrize("order", [LEADS, LEADS[::-1], (*LEADS[6:], *LEADS[:6])])
def test_plain_records_are_read_as_wfdb_reads_them(
    tmp_path: Path, write_wfdb: WriteWfdb, gain: float, order: tuple[str, ...]
) -> None:
    random = np.random.default_rng(5)
    noise = random.integers(-32767, 32768, (13, 1000)) / gain
    noise[random.uniform(size=noise.shape) < 0.01] = np.nan
    header = write_wfdb(tmp_path, "x", noise, fs=100, leads=["RESP", *order], gain=gain)
    header.write_text(header.read_text().replace(f"{gain}(0)", "1000.0(0)"))
    for lead, (old, new) in zip(("I", "aVR", "V2", "V6"), ODD, strict=True):
        changed_line(header, lead, old, new)
    signal, rate = read_wfdb(header)
    assert rate == 100
    assert np.isnan(signal).any()
    assert np.array_equal(signal, by_wfdb(header), equal_nan=True)


def test_zero_of_the_converter_is_the_baseline_where_none_is_given(
    tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal
) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv)
    changed_line(header, "V3", "1000.0(0)/mV 16 0", "1000.0/mV 16 250")
    signal, _ = read_wfdb(header)
    assert np.abs(signal[LEADS.index("V3")] + 0.25 - ecg_mv[LEADS.index("V3")]).max() < HALF_STEP
    assert np.array_equal(signal, by_wfdb(header))


@pytest.mark.parametrize("numbers", [5, 3, 2, 0])
def test_checksums_may_be_left_out(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, numbers: int) -> None:
    """Any of the five numbers before the lead's name may be missing from the end."""
    header = write_wfdb(tmp_path, "x", ecg_mv)
    first, *lines = header.read_text().splitlines()
    fields = [line.split() for line in lines]
    header.write_text("\n".join([first, *(" ".join([*f[:3], *f[3 : 3 + numbers], f[8]]) for f in fields)]))
    if numbers < 4:  # no checksum is left to detect it
        (tmp_path / "x.dat").write_bytes((tmp_path / "x.dat").read_bytes()[::-1])
    assert np.array_equal(read_wfdb(header)[0], by_wfdb(header), equal_nan=True)


@pytest.mark.parametrize("place", [0, 59_999, 119_999])
def test_a_flipped_bit_is_detected(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, place: int) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv)
    content = bytearray((tmp_path / "x.dat").read_bytes())
    content[place] ^= 1
    (tmp_path / "x.dat").write_bytes(content)
    lead = LEADS[place // 2 % 12]
    with pytest.raises(InputError, match=rf"x\.dat: the samples of lead {lead} have checksum \d+, x\.hea has \d+"):
        read_wfdb(header)
    for each in LEADS:  # the mend in the message
        line = next(line for line in header.read_text().splitlines() if line.endswith(f" {each}"))
        changed_line(header, each, " ".join(line.split()[6:]), each)
    assert np.isfinite(read_wfdb(header)[0]).all()


def test_checksums_are_numbers_modulo_65536(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    """Some writers store them signed."""
    header = write_wfdb(tmp_path, "x", ecg_mv)
    checksum = next(line for line in header.read_text().splitlines() if line.endswith(" I")).split()[6]
    changed_line(header, "I", f" {checksum} 0 I", f" {int(checksum) - 65536} 0 I")
    assert np.abs(read_wfdb(header)[0] - ecg_mv).max() < HALF_STEP


def test_compressed_files_of_six_leads_each(tmp_path: Path, ecg_mv: Signal) -> None:
    """FLAC holds at most 8 channels, so a 12-lead record has two files; MIMIC's waveforms are stored so."""
    lines = ["x 12 500 5000"]
    for part, rows in (("a", slice(0, 6)), ("b", slice(6, 12))):
        numbers: dict[str, Any] = {"fmt": ["516"] * 6, "adc_gain": [1000.0] * 6, "baseline": [0] * 6}
        wfdb.wrsamp(
            part,
            500,
            ["mV"] * 6,
            list(LEADS[rows]),
            p_signal=ecg_mv[rows].T,
            **numbers,
            write_dir=str(tmp_path),
        )
        lines += (tmp_path / f"{part}.hea").read_text().splitlines()[1:]
    header = tmp_path / "x.hea"
    header.write_text("\n".join(lines))
    assert np.abs(read_wfdb(header)[0] - ecg_mv).max() < HALF_STEP
    header.write_text("\n".join(["x 12 500", *lines[1:]]))
    with pytest.raises(InputError, match="number of samples missing"):
        read_wfdb(header)
    header.write_text("\n".join(["x 12 500 4000000", *lines[1:]]))
    with pytest.raises(InputError, match="wfdb"):
        read_wfdb(header)
    header.write_text("\n".join(["x 12 500 999999999999", *lines[1:]]))
    with pytest.raises(InputError, match="values in total"):
        read_wfdb(header)


def test_leads_go_by_name_and_spare_channels_are_left_out(
    tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal
) -> None:
    names = [*reversed(LEADS), "RESP"]
    rows = np.vstack([ecg_mv[::-1], np.zeros(5000)])
    signal, _ = read_wfdb(write_wfdb(tmp_path, "x", rows, leads=[lead.upper() for lead in names]))
    assert np.abs(signal - ecg_mv).max() < HALF_STEP


def test_invalid_samples_are_nan_and_nothing_else_is(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    gaps = ecg_mv.copy()
    gaps[4, 1000:1010] = np.nan
    gaps[7] = np.nan
    signal, _ = read_wfdb(write_wfdb(tmp_path, "x", gaps))
    assert (np.isnan(signal) == np.isnan(gaps)).all()
    assert WfdbFolder(tmp_path).read(0).dead_leads() == ("aVL", "V2")


def test_length_comes_from_the_file_where_the_header_leaves_it_out(
    tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal
) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv)
    header.write_text(header.read_text().replace("x 12 500 5000", "x 12 500"))
    assert read_wfdb(header)[0].shape == (12, 5000)


def test_odd_folder_names(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    for name in ("a b", "100%", "[x]*", "p{1}#?", "é"):
        assert read_wfdb(write_wfdb(tmp_path / name, "x", ecg_mv))[1] == 500


def test_9_98_seconds_are_welcome(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    write_wfdb(tmp_path, "x", ecg_mv[:, :4990])
    assert WfdbFolder(tmp_path).read(0).seconds == 9.98


def test_no_network(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked for")

    header = write_wfdb(tmp_path, "x", ecg_mv)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    read_wfdb(header)
    (tmp_path / "x.dat").unlink()
    with pytest.raises(MissingRecordError):
        read_wfdb(header)


# (change of a good header, part of the message)
BROKEN_HEADERS = {
    "empty": (lambda text: "", "empty"),
    "comments only": (lambda text: "# nothing\n", "empty"),
    "garbage": (lambda text: "hello world\n", "'hello world'"),
    "binary": (lambda text: "\0\1\2" * 50, "control characters"),
    "no length of anything": (lambda text: text.replace("x 12 500 5000", "x"), "record line 'x'"),
    "no rate": (lambda text: text.replace("x 12 500 5000", "x 12"), "record line 'x 12'"),
    "rate 0": (lambda text: text.replace("x 12 500", "x 12 0"), "sampling rate '0'"),
    "rate with a typo": (lambda text: text.replace("x 12 500", "x 12 5o0"), "'x 12 5o0 5000'"),
    "rate 5": (lambda text: text.replace("x 12 500", "x 12 5"), "sampling rate '5'"),
    "channels": (lambda text: text.replace("x 12 ", "x 13 "), "13 channels in the record line, 12 signal lines"),
    "channel bomb": (lambda text: text.replace("x 12 ", "x 999999999 "), "999999999 channels"),
    "sample bomb": (lambda text: text.replace(" 5000", " 1000000000000000"), "x.hea has 1000000000000000"),
    "frame bomb": (lambda text: text.replace(" 16 ", " 16x999999999 "), "contain 0 samples"),
    "skew bomb": (lambda text: text.replace(" 16 ", " 16:999999999 "), "skew of 999999999"),
    "offset bomb": (lambda text: text.replace(" 16 ", " 16+99999999999999 "), "contain 0 samples"),
    "digits bomb": (lambda text: text.replace(" 5000", " " + "9" * 5000), "5009 characters"),
    "no samples": (lambda text: re.sub(r" 16 ", " 16+120000 ", text).replace(" 5000", ""), "0 samples"),
    "one sample more": (lambda text: text.replace(" 5000", " 5001"), "x.hea has 5001"),
    "segments": (lambda text: text.replace("x 12", "x/2 12"), "2 segments in the record line, 12 segment lines"),
    "other folder": (lambda text: text.replace("x.dat", "../x.dat"), "'../x.dat'"),
    "absolute": (lambda text: text.replace("x.dat", "/etc/passwd"), "'/etc/passwd'"),
    "windows": (lambda text: text.replace("x.dat", r"..\x.dat"), "x.dat"),
    "drive": (lambda text: text.replace("x.dat", "C:x.dat"), "'C:x.dat'"),
    "address": (lambda text: text.replace("x.dat", "http://a/x.dat"), "'http://a/x.dat'"),
    "parent": (lambda text: text.replace("x.dat", ".."), "'..'"),
    "no such signal file": (lambda text: text.replace("x.dat", "y.dat"), "y.dat: no such signal file"),
    "format": (lambda text: text.replace(" 16 ", " 17 "), "format '17'"),
    "two formats": (lambda text: text.replace(" 16 ", " 212 ", 1), "two formats"),
    "gain 0": (lambda text: text.replace("1000.0(0)/mV", "0(0)/mV", 1), "gain '0' means uncalibrated"),
    "gain inf": (lambda text: text.replace("1000.0(0)/mV", "1e999(0)/mV", 1), "'1e999'"),
    "gain tiny": (lambda text: text.replace("1000.0(0)/mV", "1e-300(0)/mV", 1), "infinite"),
    "gain word": (lambda text: text.replace("1000.0(0)/mV", "high", 1), "gain 'high'"),
    "unit": (lambda text: text.replace("/mV", "/mmHg", 1), "unit 'mmHg'"),
    "lead twice": (lambda text: text.replace(" aVL", " aVR"), "two channels are named aVR"),
    "lead missing": (lambda text: text.replace(" V6", " V7"), "lead V6 missing"),
    "lead without name": (lambda text: text.replace(" V6", ""), "8 of 9 fields"),
}


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_broken_header_is_one_line_that_names_file_and_value(
    tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, case: str
) -> None:
    change, value = BROKEN_HEADERS[case]
    header = write_wfdb(tmp_path, "x", ecg_mv)
    good = header.read_text()
    header.write_text(change(good))
    assert header.read_text() != good
    with pytest.raises(InputError) as error:
        read_wfdb(header)
    message = str(error.value)
    assert value in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert ";" in message  # what to do about it


def test_nothing_outside_the_folder_is_opened(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    """The file exists and could be decoded, but lies outside the header's folder."""
    header = write_wfdb(tmp_path / "in", "x", ecg_mv)
    (tmp_path / "in" / "x.dat").rename(tmp_path / "x.dat")
    header.write_text(header.read_text().replace("x.dat", "../x.dat"))
    with pytest.raises(InputError, match="not a plain file name"):
        read_wfdb(header)


@pytest.mark.parametrize("size", [0, 1, 24, 119_998])
def test_truncated_signal_file(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal, size: int) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv)
    (tmp_path / "x.dat").write_bytes((tmp_path / "x.dat").read_bytes()[:size])
    with pytest.raises(InputError, match=rf"x\.dat: {size} bytes contain \d+ samples per lead, x\.hea has 5000"):
        read_wfdb(header)


def test_missing_and_misnamed_headers(tmp_path: Path) -> None:
    with pytest.raises(MissingRecordError, match="no such header file"):
        read_wfdb(tmp_path / "x.hea")
    (tmp_path / "d.hea").mkdir()
    with pytest.raises(MissingRecordError):
        read_wfdb(tmp_path / "d.hea")
    with pytest.raises(InputError, match="not a WFDB header"):
        read_wfdb(tmp_path / "x.dat")


def test_microvolts_called_millivolts_are_detected(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv, units="uV")
    header.write_text(header.read_text().replace("/uV", "/mV"))
    with pytest.raises(InputError, match="unit"):
        WfdbFolder(header).read(0)


@pytest.mark.parametrize("relative", ["", " ", "/etc/x", "../x", "a/../../x", r"..\x", "C:x", r"C:\x", r"\\h\x", "a\0"])
def test_paths_in_tables_stay_inside(tmp_path: Path, relative: str) -> None:
    with pytest.raises(InputError, match="does not stay inside"):
        inside(tmp_path, relative, "table.csv: row 1")


# ---- resampling


@pytest.mark.parametrize(("rate", "new_rate"), [(500, 100), (100, 500), (500, 257), (1000, 500)])
def test_resampling_keeps_a_slow_wave_where_it_is(rate: int, new_rate: int) -> None:
    def wave(hertz: int) -> NDArray[np.float32]:
        seconds = np.arange(10 * hertz) / hertz
        return np.sin(2 * np.pi * 5 * seconds)[None].astype(np.float32)

    result = resample(wave(rate), rate, new_rate)
    inner = slice(new_rate // 2, -new_rate // 2)  # the filter has no samples beyond the ends
    assert result.dtype == np.float32
    assert result.shape == (1, 10 * new_rate)
    assert np.abs(result - wave(new_rate))[:, inner].max() < 0.01


def test_resampling_neither_spreads_nor_hides_a_gap() -> None:
    signal = np.ones((2, 5000), dtype=np.float32)
    signal[0, 1000:2000] = np.nan
    result = resample(signal, 500, 100)
    assert np.isnan(result[0]).nonzero()[0].tolist() == list(range(200, 400))
    assert np.allclose(result[1], 1, atol=0.01)
    signal[:] = np.nan
    assert np.isnan(resample(signal, 500, 100)).all()


# ---- any folder of WFDB records


def test_folder_is_searched_and_sorted(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    for name in ("b/2", "a/10", "a/1"):
        write_wfdb(tmp_path / Path(name).parent, Path(name).name, ecg_mv)
    source = WfdbFolder(tmp_path)
    assert [source.read(i).record_id for i in range(len(source))] == ["a/1", "a/10", "b/2"]
    assert source.read(0).source == source.name == "wfdb"
    assert pickle.loads(pickle.dumps(source)).read(2).record_id == "b/2"


def test_one_header(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    header = write_wfdb(tmp_path, "x", ecg_mv)
    write_wfdb(tmp_path, "y", ecg_mv)
    source = WfdbFolder(header)
    assert len(source) == 1
    assert source.read(0).record_id == "x"


def test_folders_without_records(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.hea file"):
        WfdbFolder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        WfdbFolder(tmp_path / "nowhere")


# ---- PTB-XL

PTBXL_ROW = {
    "ecg_id": "1",
    "patient_id": "15709.0",
    "age": "56.0",
    "sex": "1",
    "report": 'sinusrhythmus,\n"periphere" niederspannung',
    "scp_codes": "{'NORM': 100.0, 'LVOLT': 0.0, 'SR': 0.0, 'XYZ': 100.0}",
    "validated_by_human": "True",
    "strat_fold": "3",
    "filename_lr": "records100/00000/00001_lr",
    "filename_hr": "records500/00000/00001_hr",
}


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def ptbxl(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> Callable[..., Path]:
    """A function that writes a PTB-XL folder: one record at 500 Hz, and a table whose rows have these changes."""

    def write(*rows: dict[str, str]) -> Path:
        write_wfdb(tmp_path / "records500/00000", "00001_hr", ecg_mv, leads=[name.upper() for name in LEADS])
        write_table(tmp_path / "ptbxl_database.csv", [{**PTBXL_ROW, **row} for row in rows or ({},)])
        codes = [{"": code, "diagnostic_class": each.superclass} for code, each in STATEMENTS.items()]
        write_table(tmp_path / "scp_statements.csv", codes)
        return tmp_path

    return write


def test_records_at_a_url(ptbxl: Callable[..., Path], bucket: str) -> None:
    folder = ptbxl()
    url: Any = user_path(f"{bucket}/ptbxl")
    url.fs.put(str(folder), url.path, recursive=True)
    local, remote = PtbXl(folder), open_source(f"ptbxl:{url}", folds=[3])
    assert np.array_equal(remote.read(0).signal, local.read(0).signal) and remote.read(0).record_id == "1"
    found = open_source(f"wfdb:{url}")
    assert list(record_ids(found)) == ["records500/00000/00001_hr"]
    assert np.array_equal(found.read(0).signal, local.read(0).signal)
    header = url / "records500/00000/00001_hr.hea"
    header.write_text(header.read_text().replace(" 12 500 ", " 11 500 "))
    with pytest.raises(InputError, match=f"^{header}: 11 channels in the record line"):
        found.read(0)
    header.write_text("many/2 12 500 5000\na 2500\nb 2500\n")
    with pytest.raises(InputError, match="of several segments is read from a disk only"):
        found.read(0)
    for spec in (f"files:{url}", f"{header.with_suffix('.scp')}"):
        with pytest.raises(InputError, match="are read from a URL; download the files"):
            open_source(spec)


def test_ptbxl_record(ptbxl: Callable[..., Path], ecg_mv: Signal) -> None:
    record = PtbXl(ptbxl()).read(0)
    assert np.abs(record.signal - ecg_mv).max() < HALF_STEP
    assert record.statements == (
        "LVOLT",
        "NORM",
        "SR",
    )  # likelihood 0.0 counts, a code outside the 71 does not
    assert record.report == PTBXL_ROW["report"]
    assert (record.record_id, record.patient_id, record.source, record.fold) == ("1", "15709", "ptbxl", 3)
    assert (record.age, record.sex, record.provenance) == (56.0, "female", "human")


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"age": "300.0"}, "age", OVER_89_YEARS),
        ({"age": "89"}, "age", 89.0),
        ({"age": ""}, "age", None),
        ({"sex": "0"}, "sex", "male"),
        ({"sex": ""}, "sex", ""),
        ({"patient_id": ""}, "patient_id", ""),
        ({"validated_by_human": "False"}, "provenance", "machine"),
        ({"scp_codes": "{}"}, "statements", ()),
        ({}, "infarct_stage", ""),
        ({"infarction_stadium1": "Stadium II-III"}, "infarct_stage", "Stadium II-III"),
    ],
)
def test_ptbxl_fields(ptbxl: Callable[..., Path], change: dict[str, str], field: str, value: object) -> None:
    assert getattr(PtbXl(ptbxl(change)).read(0), field) == value


def test_ptbxl_other_rate_is_resampled(ptbxl: Callable[..., Path], write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    folder = ptbxl({}, {"ecg_id": "2", "filename_hr": "records500/2", "filename_lr": "records100/2"})
    write_wfdb(folder / "records100", "2", ecg_mv[:, ::5], fs=100)
    fast, slow = PtbXl(folder), PtbXl(folder, sampling_rate=100)
    assert [fast.read(i).signal.shape for i in (0, 1)] == [(12, 5000)] * 2
    assert [slow.read(i).signal.shape for i in (0, 1)] == [(12, 1000)] * 2
    assert slow.read(1).sampling_rate == 100
    assert np.abs(slow.read(1).signal - ecg_mv[:, ::5]).max() < HALF_STEP  # on the disk at this rate: unchanged


def test_ptbxl_partial_download(ptbxl: Callable[..., Path], write_wfdb: WriteWfdb, ecg_mv: Signal) -> None:
    folder = ptbxl({"ecg_id": "7", "filename_hr": "records500/7", "filename_lr": "records100/7"}, {})
    source = PtbXl(folder)
    assert len(source) == 2
    with pytest.raises(MissingRecordError, match=r"ecg_id 7: \.hea or \.dat of .*records500/7 and of .*records100/7"):
        source.read(0)
    assert source.read(1).record_id == "1"
    write_wfdb(folder / "records100", "7", ecg_mv[:, ::5], fs=100)
    (folder / "records500/7.hea").touch()  # a download interrupted between header and signal
    assert source.read(0).signal.shape == (12, 5000)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scp_codes": "__import__('os')"}, "scp_codes"),
        ({"scp_codes": "[" * 20_000}, "scp_codes"),
        ({"scp_codes": "{[]: 1}"}, "scp_codes"),
        ({"age": "old"}, "age 'old'"),
        ({"patient_id": "nan"}, "patient_id 'nan'"),
        ({"filename_hr": "../../etc/passwd"}, "filename_hr"),
        ({"filename_hr": "/etc/passwd"}, "filename_hr"),
    ],
)
def test_ptbxl_bad_field(ptbxl: Callable[..., Path], change: dict[str, str], field: str) -> None:
    folder = ptbxl(change)
    with pytest.raises(InputError) as error:
        PtbXl(folder).read(0)
    assert f"{folder}/ptbxl_database.csv: ecg_id 1: " in str(error.value)
    assert field in str(error.value)


@pytest.mark.parametrize("fold", ["0", "11", "three", ""])
def test_ptbxl_bad_fold(ptbxl: Callable[..., Path], fold: str) -> None:
    with pytest.raises(InputError, match="row 2: strat_fold"):
        PtbXl(ptbxl({}, {"strat_fold": fold}), folds=[3])


@pytest.mark.parametrize("column", PTBXL_ROW)
def test_ptbxl_missing_column(ptbxl: Callable[..., Path], column: str) -> None:
    folder = ptbxl()
    write_table(folder / "ptbxl_database.csv", [{k: v for k, v in PTBXL_ROW.items() if k != column}])
    with pytest.raises(InputError, match=rf"ptbxl_database\.csv: column '{column}' is missing; download it again"):
        PtbXl(folder)


def test_ptbxl_bad_tables(ptbxl: Callable[..., Path]) -> None:
    folder = ptbxl()
    (folder / "scp_statements.csv").write_text(",diagnostic_class\nNORM,NORM\n")
    with pytest.raises(InputError, match=r"scp_statements\.csv: code .* missing"):
        PtbXl(folder)
    ptbxl()
    table = folder / "ptbxl_database.csv"
    good = table.read_bytes()
    for content, message in ((b"", "column"), (good.split(b"\r\n")[0], "no row"), (b"\xff\xfe" + good, "UTF-8")):
        table.write_bytes(content)
        with pytest.raises(InputError, match=message):
            PtbXl(folder)
    table.write_bytes(good + b"2,3\r\n")
    with pytest.raises(InputError, match="row 2 has 2 of 10 fields"):
        PtbXl(folder).read(1)
    table.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n")  # Excel's mark at the start, blank lines at the end
    assert len(PtbXl(folder)) == 1
    table.unlink()
    with pytest.raises(InputError, match="no such file"):
        PtbXl(folder)


def test_ptbxl_options(ptbxl: Callable[..., Path]) -> None:
    folder = ptbxl({}, {"strat_fold": "9", "ecg_id": "2"})
    assert PtbXl(folder, folds=[9]).read(0).record_id == "2"
    with pytest.raises(InputError, match="no record in fold 10; strat_fold has 3, 9"):
        PtbXl(folder, folds=[10])
    with pytest.raises(InputError, match="250 Hz"):
        PtbXl(folder, sampling_rate=250)
    with pytest.raises(InputError, match="filename_lr has 100 Hz"):
        PtbXl(ptbxl({"filename_lr": PTBXL_ROW["filename_hr"]}), sampling_rate=100).read(0)


def test_real_records(real_ptbxl: Path) -> None:
    source = PtbXl(real_ptbxl, folds=[9])
    records = [source.read(i) for i in range(8)]
    assert [r.record_id for r in records] == ["8", "10", "17", "18", "20", "23", "26", "28"]
    assert all(r.signal.shape == (12, 5000) and r.fold == 9 and r.dead_leads() == () for r in records)
    assert all(r.statements and set(r.statements) <= set(STATEMENTS) for r in records)
    assert records[0].statements == ("ABQRS", "IMI", "SR")
    assert "inferiorer infarkt" in records[0].report
    # Einthoven and Goldberger, within the rounding of 1 µV steps and of the machine's own derivation
    for r in records:
        assert np.abs(r.lead("I") + r.lead("III") - r.lead("II")).max() < 0.01
        assert np.abs(r.lead("aVF") - (r.lead("II") + r.lead("III")) / 2).max() < 0.01
    with pytest.raises(MissingRecordError):
        source.read(8)


def test_real_rates_agree(real_ptbxl: Path) -> None:
    """Record 10 is here at both rates, 1 at 100 Hz only, 17 at 500 Hz only."""
    slow, fast = PtbXl(real_ptbxl, sampling_rate=100), PtbXl(real_ptbxl)
    place = {slow._table.row(i)["ecg_id"]: i for i in range(30)}
    ten = place["10"]
    ours = resample(fast.read(ten).signal, 500, 100)[:, 50:-50]
    theirs = slow.read(ten).signal[:, 50:-50]
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98
    assert fast.read(place["1"]).signal.shape == (12, 5000)
    assert slow.read(place["17"]).signal.shape == (12, 1000)


def test_real_table_loads_fast_and_travels_light(real_ptbxl: Path, tmp_path: Path) -> None:
    source = PtbXl(real_ptbxl)
    assert len(pickle.dumps(source)) < 100_000
    assert pickle.loads(pickle.dumps(source)).read(7).record_id == "8"
    assert {source._table.row(i)["ecg_id"] for i in range(len(source))} & LABELS_DIFFER
    table = (real_ptbxl / "ptbxl_database.csv").read_bytes()
    head, body = table.split(b"\n", 1)
    (tmp_path / "ptbxl_database.csv").write_bytes(head + b"\n" + body * 8)  # 21,256 rows: the published size
    (tmp_path / "scp_statements.csv").write_bytes((real_ptbxl / "scp_statements.csv").read_bytes())
    start = time.process_time()
    assert len(PtbXl(tmp_path, folds=range(1, 9))) > 16_000
    assert time.process_time() - start < 0.5


# ---- names of sources


def test_open_source_real(ptbxl: Callable[..., Path]) -> None:
    folder = ptbxl({}, {"strat_fold": "9", "ecg_id": "2"})
    assert len(open_source(f"ptbxl:{folder}")) == 2
    assert open_source(f"ptbxl:{folder}", folds=(9,)).read(0).record_id == "2"
    first = open_source(f"ptbxl:{folder}", limit=1)
    assert (len(first), first.name, first.read(0).record_id) == (1, "ptbxl", "1")
    assert len(open_source(f"ptbxl:{folder}", limit=99)) == 2
    header = folder / "records500/00000/00001_hr.hea"
    for spec in (str(header), f"wfdb:{header}", f"wfdb:{folder}"):
        assert open_source(spec).read(0).source == "wfdb"
    assert isinstance(pickle.loads(pickle.dumps(first)), LimitedSource)
    with pytest.raises(IndexError):
        first.read(1)


def test_open_source_simulated() -> None:
    pytest.importorskip("render.simulator.simulate")
    assert len(open_source("simulated")) == 1000
    source = open_source("simulated", seed=3, limit=5)
    assert (len(source), source.name) == (5, "simulated")
    assert source.read(4).source == "simulated"


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("simulate", {}, "did you mean simulated?"),
        ("ptb-xl:x", {}, "did you mean ptbxl:DIR?"),
        ("PTBXL:x", {}, "did you mean ptbxl:DIR?"),
        ("mimik:x", {}, "did you mean mimic:DIR?"),
        ("", {}, "source '' is unknown"),
        ("qqqq", {}, "valid are simulated, simulated:CODE,CODE, ptbxl:DIR, mimic:DIR, wfdb:DIR"),
        ("ptbxl:", {}, "write ptbxl:DIR"),
        ("wfdb:/nowhere", {}, "/nowhere: no such folder"),
        ("/nowhere/x.hea", {}, "/nowhere/x.hea: no such"),
        ("simulated", {"folds": (1,)}, "source simulated has no folds"),
        ("mimic:x", {"folds": (1,)}, "source mimic has no folds"),
        ("wfdb:x", {"folds": (1,)}, "source wfdb has no folds"),
        ("x.hea", {"folds": (1,)}, "source x.hea has no folds"),
        ("simulated", {"limit": 0}, "--limit 0"),
        ("simulated", {"limit": -3}, "--limit -3"),
    ],
)
def test_open_source_refuses(spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        open_source(spec, **options)
    assert message in str(error.value)


def test_a_folder_without_its_word(ptbxl: Callable[..., Path]) -> None:
    folder = ptbxl()
    with pytest.raises(InputError, match=f"ptbxl:{folder}"):
        open_source(str(folder))
    with pytest.raises(InputError, match=f"wfdb:{folder}/records500"):
        open_source(f"{folder}/records500")


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("1-8", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("9", (9,)),
        ("1-3,5", (1, 2, 3, 5)),
        (" 5 , 2-3,2", (2, 3, 5)),
        ("10", (10,)),
    ],
)
def test_parse_folds(text: str, folds: tuple[int, ...]) -> None:
    assert parse_folds(text) == folds


@pytest.mark.parametrize("text", ["", "0", "11", "8-1", "1-", "-3", "a", "1,,2", "1-99999999999", "1.5", "²"])
def test_parse_folds_refuses(text: str) -> None:
    with pytest.raises(InputError, match="--folds"):
        parse_folds(text)
