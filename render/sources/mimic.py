"""MIMIC-IV-ECG in its published layout: 800,035 12-lead ECGs of 10 s at 500 Hz with machine reports.

Source: Gow et al., MIMIC-IV-ECG 1.0, https://physionet.org/content/mimic-iv-ecg/1.0/ (Open Database License).
"""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import numpy as np

from render.errors import InputError
from render.io import file_digest, local_copy, text_digest, user_path
from render.record import EcgRecord, RecordLabels
from render.sources.csv_table import CsvFile
from render.sources.mimic_statements import codes_in_line, statements_in
from render.sources.wfdb_record import inside, read_wfdb

_MEND = "download it again from https://physionet.org/content/mimic-iv-ecg/1.0/"
_REPORT_COLUMNS = tuple(f"report_{i}" for i in range(18))
_TIMES = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
_AXES = ("p_axis", "qrs_axis", "t_axis")
_RECORD_COLUMNS = ("subject_id", "study_id", "path")
_MEASURED_COLUMNS = ("study_id", *_REPORT_COLUMNS, "bandwidth", "filtering", *_TIMES, *_AXES)
_MISSING = 29999

# Values outside these limits are impossible: the machine misplaced a mark or measured noise.
_LIMITS = {"rate_bpm": (10, 400), "pr_ms": (40, 600), "qrs_ms": (30, 400), "qt_ms": (100, 900)}
_INTERVALS = {"pr_ms": ("p_onset", "qrs_onset"), "qrs_ms": ("qrs_onset", "qrs_end"), "qt_ms": ("qrs_onset", "t_end")}
_WIDEST_AXIS = 360
_HEADER_FIELDS = {
    "rate_bpm": ("Rate", "bpm"),
    "pr_ms": ("PR", "ms"),
    "qrs_ms": ("QRS", "ms"),
    "qt_ms": ("QT", "ms"),
    "p_axis_deg": ("P axis", "°"),
    "qrs_axis_deg": ("QRS axis", "°"),
    "t_axis_deg": ("T axis", "°"),
}


class MimicIvEcg:
    """The records of a MIMIC-IV-ECG folder, in the order of `record_list.csv`.

    folder: holds `record_list.csv`, `machine_measurements.csv` and the folder `files`.

    The report is the machine's lines `report_0` to `report_17`, joined with newlines. Statements are those that
    `render.sources.mimic_statements` reads from them; lines without one are the record's `unmapped_lines`. Age and sex
    are not part of the published module. A study without a row in `machine_measurements.csv` has no report,
    measurements or header.
    Raises `InputError` when the folder or a table is missing or damaged.
    """

    name = "mimic"

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)
        records, measurements_path = self.folder / "record_list.csv", self.folder / "machine_measurements.csv"
        self._records = CsvFile(records, _RECORD_COLUMNS, key="study_id", mend=_MEND)
        self._record_studies = _numbers(self._records)
        self._records.drop_keys()  # before the other table's are read: as text they take more than all the rest
        self._machine = CsvFile(measurements_path, _MEASURED_COLUMNS, key="study_id", mend=_MEND)
        studies = _numbers(self._machine)
        self._machine.drop_keys()
        self._order = np.argsort(studies, kind="stable")
        self._studies = studies[self._order]

    def __len__(self) -> int:
        return len(self._records)

    def digest(self) -> str:
        """Of both tables."""
        return text_digest(*(file_digest(local_copy(table.path)) for table in (self._records, self._machine)))

    def record_ids(self) -> list[str]:
        """The study's number of every record."""
        return [str(study) for study in self._record_studies.tolist()]

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises `MissingRecordError` when it is not on the disk, `InputError` when damaged."""
        row, machine = self._records.row(i), self._measurement_row(int(self._record_studies[i]))
        where = f"{self._records.path}: study_id {row['study_id'][:20]}"
        path = inside(self.folder, row["path"], f"{where}: path")
        signal, rate = read_wfdb(path.with_name(path.name + ".hea"))
        numbers = measurements(machine)
        return EcgRecord(
            **_labels(row, machine)._asdict(),
            signal=signal,
            sampling_rate=rate,
            provenance="machine",
            header=_page_header(numbers, machine),
            measurements=numbers,
            measured_by="machine" if numbers else "",
            unmapped_lines=tuple(line for line in _lines(machine) if not codes_in_line(line)),
        )

    def labels(self, i: int) -> RecordLabels:
        """The labels of record i, which need not be on the disk."""
        return _labels(self._records.row(i), self._measurement_row(int(self._record_studies[i])))

    def taken(self, i: int) -> datetime | None:
        """When record i was taken, by the patient's shifted calendar, which is that of all MIMIC's modules; None where
        the table does not say."""
        try:
            return datetime.fromisoformat(self._records.row(i).get("ecg_time", "").strip())
        except ValueError:
            return None

    def _measurement_row(self, study: int) -> dict[str, str]:
        """The study's row of `machine_measurements.csv`, or {} where it has none."""
        index = int(np.searchsorted(self._studies, study))
        if index == len(self._studies) or self._studies[index] != study:
            return {}
        return self._machine.row(int(self._order[index]))


def _labels(row: dict[str, str], machine: dict[str, str]) -> RecordLabels:
    lines = _lines(machine)
    return RecordLabels(
        record_id=row["study_id"].strip(),
        source=MimicIvEcg.name,
        statements=statements_in(lines),
        report="\n".join(lines),
        patient_id=row["subject_id"].strip(),
        fold=None,
    )


def _lines(machine: dict[str, str]) -> list[str]:
    return [machine[column].strip() for column in _REPORT_COLUMNS if machine.get(column, "").strip()]


def measurements(row: dict[str, str]) -> dict[str, float]:
    """The machine's measurements (`EcgRecord.measurements`) from a row of `machine_measurements.csv`.

    Times in the row are milliseconds from the start of the mean beat. A number that is missing (29999 and above),
    damaged or outside `_LIMITS` is left out.
    """
    number = {name: _number(row.get(name, "")) for name in (*_TIMES, *_AXES)}
    values = {"rate_bpm": 60_000 / number["rr_interval"] if number["rr_interval"] else math.nan}
    values |= {name: number[end] - number[start] for name, (start, end) in _INTERVALS.items()}
    plausible = {name: value for name, value in values.items() if _LIMITS[name][0] <= value <= _LIMITS[name][1]}
    return plausible | {f"{axis}_deg": number[axis] for axis in _AXES if abs(number[axis]) <= _WIDEST_AXIS}


def _page_header(numbers: dict[str, float], row: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The page's header as the machine prints it: rate, intervals, axes and filters, without the missing ones."""
    fields = [
        (label, f"{numbers[name]:.0f}{unit if unit == '°' else ' ' + unit}")
        for name, (label, unit) in _HEADER_FIELDS.items()
        if name in numbers
    ]
    fields += [("Bandwidth", row.get("bandwidth", "").strip()), ("Filter", row.get("filtering", "").strip())]
    return tuple((label, text) for label, text in fields if text)


def _number(text: str) -> float:
    """Milliseconds or degrees; NaN, for which every comparison is false, when missing or not a number."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if abs(value) < _MISSING else math.nan


def _numbers(table: CsvFile) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The table's study_id column, (rows,) int64."""
    numbers = np.empty(len(table), dtype=np.int64)
    for i, text in enumerate(table.keys):
        if not (text.isascii() and text.strip().isdigit() and len(text) < 19):
            raise InputError(f"{table.path}: row {i + 1}: study_id {text[:60]!r} is not a number; {_MEND}")
        numbers[i] = int(text)
    return numbers
