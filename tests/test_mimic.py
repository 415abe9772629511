"""MIMIC-IV-ECG in its published layout, and the statements of its machines' report lines."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from render.errors import InputError
from render.io import user_path
from render.record import LEADS
from render.sources.mimic import MimicIvEcg, measurements
from render.sources.mimic_statements import codes_in_line, statements_in
from render.sources.registry import open_source
from render.sources.wfdb_record import MissingRecordError

WriteWfdb = Callable[..., Path]
Signal = NDArray[np.float64]

MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


STUDY = "files/p1000/p10000032/s40689238/40689238"
MIMIC_ROW = {
    "subject_id": "10000032",
    "study_id": "40689238",
    "cart_id": "6848296",
    "ecg_time": "2180-07-23 08:44:00",
    "report_0": "Sinus rhythm",
    "report_1": "Possible left atrial abnormality",
    "report_2": "Abnormal ECG",
    **{f"report_{i}": "" for i in range(3, 18)},
    "bandwidth": "0.005-150 Hz",
    "filtering": "60 Hz notch Baseline filter",
    "rr_interval": "800",
    "p_onset": "40",
    "p_end": "128",
    "qrs_onset": "170",
    "qrs_end": "258",
    "t_end": "518",
    "p_axis": "81",
    "qrs_axis": "-12",
    "t_axis": "79",
}


@pytest.fixture
def mimic(tmp_path: Path, write_wfdb: WriteWfdb, ecg_mv: Signal) -> Callable[..., Path]:
    """A function that writes a MIMIC-IV-ECG folder of one study, its measurements with these changes."""

    def write(change: dict[str, str] | None = None, path: str = STUDY) -> Path:
        rows = {name: ecg_mv[LEADS.index(name)] for name in MIMIC_LEADS}
        place = (tmp_path / STUDY).parent
        write_wfdb(place, "40689238", np.stack(list(rows.values())), leads=list(rows), gain=200.0)
        ids = {"subject_id": "10000032", "study_id": "40689238", "file_name": "40689238"}
        write_table(tmp_path / "record_list.csv", [{**ids, "ecg_time": "2180-07-23 08:44:00", "path": path}])
        others = [{**MIMIC_ROW, "study_id": other, "report_0": "Sinus bradycardia"} for other in ("5", "49036311")]
        write_table(tmp_path / "machine_measurements.csv", [others[1], {**MIMIC_ROW, **(change or {})}, others[0]])
        return tmp_path

    return write


def test_mimic_record(mimic: Callable[..., Path], ecg_mv: Signal) -> None:
    source = MimicIvEcg(mimic())
    record = pickle.loads(pickle.dumps(source)).read(0)
    assert len(source) == 1
    assert np.abs(record.signal - ecg_mv).max() < 0.003  # the file has aVF before aVL; steps of 5 µV
    assert (record.record_id, record.patient_id, record.source) == ("40689238", "10000032", "mimic")
    assert record.report == "Sinus rhythm\nPossible left atrial abnormality\nAbnormal ECG"
    assert (record.statements, record.provenance, record.fold) == (("SR",), "machine", None)
    assert dict(record.header) == {
        "Rate": "75 bpm",
        "PR": "130 ms",
        "QRS": "88 ms",
        "QT": "348 ms",
        "P axis": "81°",
        "QRS axis": "-12°",
        "T axis": "79°",
        "Bandwidth": "0.005-150 Hz",
        "Filter": "60 Hz notch Baseline filter",
    }


def test_mimic_at_a_url(mimic: Callable[..., Path], bucket: str) -> None:
    folder = mimic()
    url: Any = user_path(f"{bucket}/mimic")
    url.fs.put(str(folder), url.path, recursive=True)
    local, remote = MimicIvEcg(folder), pickle.loads(pickle.dumps(open_source(f"mimic:{url}")))
    ours, theirs = vars(local.read(0)), vars(remote.read(0))
    assert remote.digest() == local.digest() and np.array_equal(ours.pop("signal"), theirs.pop("signal"))
    assert theirs == ours
    url.joinpath(f"{STUDY}.dat").unlink()
    with pytest.raises(MissingRecordError, match=f"{url}.*40689238.hea: the header or its signal file is missing"):
        remote.read(0)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"rr_interval": "29999"}, {"Rate"}),
        ({"rr_interval": "0"}, {"Rate"}),
        ({"p_onset": "29999"}, {"PR"}),
        ({"qrs_onset": "29999"}, {"PR", "QRS", "QT"}),
        ({"t_end": "29999.0", "t_axis": "29999"}, {"QT", "T axis"}),
        (
            {"p_axis": "", "qrs_end": "nan", "bandwidth": "", "t_end": "1e999"},
            {"P axis", "QRS", "Bandwidth", "QT"},
        ),
    ],
)
def test_mimic_prints_nothing_where_the_measurement_is_missing(
    mimic: Callable[..., Path], change: dict[str, str], missing: set[str]
) -> None:
    complete = dict(MimicIvEcg(mimic()).read(0).header)
    assert set(complete) - set(dict(MimicIvEcg(mimic(change)).read(0).header)) == missing


def test_mimic_study_without_measurements(mimic: Callable[..., Path]) -> None:
    record = MimicIvEcg(mimic({"study_id": "77"})).read(0)
    assert (record.report, record.statements, record.header) == ("", (), ())


def test_mimic_bad_input(mimic: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"record_list\.csv: study_id 40689238: path '\.\./x' does not stay"):
        MimicIvEcg(mimic(path="../x")).read(0)
    with pytest.raises(MissingRecordError, match=r"files/p1/s1\.hea: no such header"):
        MimicIvEcg(mimic(path="files/p1/s1")).read(0)
    with pytest.raises(InputError, match=r"machine_measurements\.csv: row 2: study_id 'x' is not a number"):
        MimicIvEcg(mimic({"study_id": "x"}))
    folder = mimic()
    write_table(folder / "machine_measurements.csv", [{k: v for k, v in MIMIC_ROW.items() if k != "report_17"}])
    with pytest.raises(InputError, match=r"machine_measurements\.csv: column 'report_17' is missing"):
        MimicIvEcg(folder)
    (folder / "machine_measurements.csv").unlink()
    with pytest.raises(InputError, match=r"machine_measurements\.csv: no such file"):
        MimicIvEcg(folder)


def test_mimic_lines_are_read_one_by_one() -> None:
    assert statements_in(["Possible anterior infarct", "Sinus rhythm", "Sinus rhythm"]) == ("SR",)


def test_open_source_mimic(mimic: Callable[..., Path]) -> None:
    assert open_source(f"mimic:{mimic()}").read(0).source == "mimic"


def test_lines_without_a_statement_are_unmapped_lines(mimic: Callable[..., Path]) -> None:
    record = MimicIvEcg(mimic({"report_3": " *** Consider ACUTE infarct *** ", "report_4": "RBBB"})).read(0)
    assert record.statements == ("CRBBB", "SR")
    assert record.unmapped_lines == (
        "Possible left atrial abnormality",
        "Abnormal ECG",
        "*** Consider ACUTE infarct ***",
    )


def test_measurements(mimic: Callable[..., Path]) -> None:
    record = MimicIvEcg(mimic()).read(0)
    assert record.measured_by == "machine"
    assert record.measurements == {
        "rate_bpm": 75.0,
        "pr_ms": 130.0,
        "qrs_ms": 88.0,
        "qt_ms": 348.0,
        "p_axis_deg": 81.0,
        "qrs_axis_deg": -12.0,
        "t_axis_deg": 79.0,
    }
    nothing = dict.fromkeys(("rr_interval", "qrs_onset", "p_axis", "qrs_axis", "t_axis"), "29999")
    bare = MimicIvEcg(mimic(nothing)).read(0)
    assert (bare.measurements, bare.measured_by) == ({}, "")


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"rr_interval": "65535"}, {"rate_bpm"}),  # the machine's value for "not measurable"
        ({"rr_interval": "-800"}, {"rate_bpm"}),
        ({"rr_interval": "100"}, {"rate_bpm"}),
        ({"p_axis": "32767", "t_axis": "-32768"}, {"p_axis_deg", "t_axis_deg"}),
        ({"qrs_axis": "361"}, {"qrs_axis_deg"}),
        ({"qrs_end": "160"}, {"qrs_ms"}),
        ({"p_onset": "168"}, {"pr_ms"}),
        ({"t_end": "5000"}, {"qt_ms"}),
    ],
)
def test_impossible_measurements_are_left_out(change: dict[str, str], missing: set[str]) -> None:
    assert measurements(MIMIC_ROW).keys() - measurements({**MIMIC_ROW, **change}).keys() == missing


@given(row=st.dictionaries(st.sampled_from(sorted(MIMIC_ROW)), st.text(max_size=6) | st.floats().map(str)))
def test_any_row_gives_finite_numbers(row: dict[str, str]) -> None:
    assert all(np.isfinite(value) for value in measurements(row).values())


# ---- report lines, written by hand in the machines' style: none is from a real record


def mimic_lines() -> list[tuple[str, set[str]]]:
    with (Path(__file__).parent / "mimic_lines.csv").open(encoding="utf-8", newline="") as file:
        return [(row["line"], set(row["codes"].split())) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("line", "codes"), mimic_lines())
def test_mimic_report_lines(line: str, codes: set[str]) -> None:
    assert set(statements_in([line])) == codes
    assert set(statements_in([f"  {line.upper()}  "])) == codes


SURE = [line.rstrip(".") for line, codes in mimic_lines() if codes and ". " not in line]
PARTLY_SURE = ("possible", "probable", "borderline", "consider", " or ", " no ", "without", "otherwise")


@pytest.mark.parametrize("line", SURE)
def test_a_doubt_makes_the_rest_uncertain(line: str) -> None:
    for doubt in ("Possible ", "No ", "Cannot rule out ", "Consider ", "Compared to the last tracing, "):
        assert not codes_in_line(doubt + line), doubt


@pytest.mark.parametrize("line", [line for line in SURE if not any(word in line.lower() for word in PARTLY_SURE)])
def test_a_doubt_about_the_text_before_it_makes_that_uncertain(line: str) -> None:
    for doubt in (", resolved", "?", " is no longer present", " cannot be excluded", " - possible", ". Not confirmed"):
        assert not codes_in_line(line + doubt), doubt


@given(line=st.lists(st.sampled_from([*",.-:;?*()", "with", "or", "no", *SURE]), max_size=6))
def test_any_line(line: list[str]) -> None:
    assert codes_in_line(" ".join(line)) == codes_in_line(f"*** {' '.join(line)} ***".lower())
