"""MIMIC-IV-ECG in its published layout: 800,035 12-lead ECGs of 10 s at 500 Hz with machine reports.

Source: Gow et al., MIMIC-IV-ECG 1.0, https://physionet.org/content/mimic-iv-ecg/1.0/ (Open Database License).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from render.csv_file import CsvFile
from render.files import InputError
from render.record import EcgRecord, sorted_statements
from render.wfdb_file import inside, read_wfdb

_MEND = "download it again from https://physionet.org/content/mimic-iv-ecg/1.0/"
_REPORT_COLUMNS = tuple(f"report_{i}" for i in range(18))
_TIMES = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
_AXES = ("p_axis", "qrs_axis", "t_axis")
_RECORD_COLUMNS = ("subject_id", "study_id", "path")
_MEASURED_COLUMNS = ("study_id", *_REPORT_COLUMNS, "bandwidth", "filtering", *_TIMES, *_AXES)
_INTERVALS = (("PR", "p_onset", "qrs_onset"), ("QRS", "qrs_onset", "qrs_end"), ("QT", "qrs_onset", "t_end"))
_MISSING = 29999

# A line with one of these words says "not", "perhaps", "compared with" or "one of several": it yields no
# statement.
_UNSURE = re.compile(
    r"\b(no|not|non|without|absent|absence|negative|resolved|replaced|replaces|except|otherwise|exclude[ds]?|"
    r"possibl[ey]|probabl[ey]|consider|cannot|can't|could|may|might|suggests?|suggestive|suspect(ed)?|borderline|"
    r"likely|rule|r/o|consistent|versus|vs|or|if|unless|perhaps|questionable|equivocal|minimal|uncertain|"
    r"compared|comparison|previous|prior|since|change[ds]? from|unconfirmed|pattern|atypical|assumed)\b|\?",
    re.IGNORECASE,
)

# (code, what the machine prints). Only wordings whose SCP statement is beyond doubt stand here; "ST-T
# changes", "left axis deviation", "infarct" without a wall and the like have no single counterpart among the
# 71.
_PHRASES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (code, re.compile(pattern))
    for code, pattern in (
        ("NORM", r"^(summary: )?normal ecg$"),
        ("SR", r"\bsinus rhythm\b"),
        ("SBRAD", r"\bsinus bradycardia\b"),
        ("STACH", r"\bsinus tachycardia\b"),
        ("SARRH", r"\bsinus arrhythmia\b"),
        ("AFIB", r"\batrial fibrillation\b(?! ?/)"),
        ("AFLT", r"(?<!/)\batrial flutter\b(?! ?/)"),
        ("SVTAC", r"\bsupraventricular tachycardia\b"),
        ("PACE", r"\b(ventricular|atrial|a-?v|dual chamber)[- ]pac(ing|ed)\b|\bpace(maker|d) rhythm\b"),
        ("BIGU", r"\bbigeminy\b"),
        ("TRIGU", r"\btrigeminy\b"),
        ("PVC", r"\bpvcs?\b|\bpvc\(s\)|\bventricular premature\b|\bpremature ventricular\b"),
        ("PAC", r"\bpacs?\b|\bpac\(s\)|\batrial premature\b|\bpremature atrial\b"),
        ("1AVB", r"\b(1st|first) degree (a-?v|atrioventricular) block\b"),
        ("2AVB", r"\b(2nd|second) degree (a-?v|atrioventricular) block\b"),
        ("3AVB", r"\b(3rd|third) degree (a-?v|atrioventricular) block\b|\bcomplete heart block\b"),
        ("CLBBB", r"(?<!incomplete )\b(left bundle branch block|lbbb)\b"),
        ("CRBBB", r"(?<!incomplete )\b(right bundle branch block|rbbb)\b"),
        ("ILBBB", r"\bincomplete (left bundle branch block|lbbb)\b"),
        ("IRBBB", r"\bincomplete (right bundle branch block|rbbb)\b"),
        ("LAFB", r"\bleft anterior (fascicular block|hemiblock)\b"),
        ("LPFB", r"\bleft posterior (fascicular block|hemiblock)\b"),
        ("IVCD", r"\b(iv|intraventricular) conduction (delay|defect|disturbance)\b"),
        ("WPW", r"\bwolff-?parkinson-?white\b|\bwpw\b"),
        ("LVH", r"^(?!.*\bvoltage\b).*\bleft ventricular hypertrophy\b"),
        ("VCLVH", r"^(?=.*\bvoltage\b).*\bleft ventricular hypertrophy\b"),
        ("RVH", r"\bright ventricular hypertrophy\b"),
        ("LAO/LAE", r"\bleft atrial (enlargement|abnormality)\b"),
        ("RAO/RAE", r"\bright atrial (enlargement|abnormality)\b"),
        ("AMI", r"(?<!/)\banterior infarct(ion)?\b"),
        ("ASMI", r"(?<!/)\banteroseptal infarct(ion)?\b"),
        ("ALMI", r"(?<!/)\banterolateral infarct(ion)?\b"),
        ("LMI", r"(?<![/-])\blateral infarct(ion)?\b"),
        ("IMI", r"(?<!/)\binferior infarct(ion)?\b"),
        ("ILMI", r"(?<!/)\binferolateral infarct(ion)?\b"),
        ("PMI", r"(?<![/-])\bposterior infarct(ion)?\b"),
        ("LNGQT", r"\bprolonged qt\b"),
        ("LVOLT", r"\blow qrs voltages?\b"),
    )
)


class MimicIvEcg:
    """The records of a MIMIC-IV-ECG folder, in the order of `record_list.csv`.

    folder: holds `record_list.csv`, `machine_measurements.csv` and the folder `files`.

    The report is the machine's lines `report_0` to `report_17`, joined with newlines; statements are what
    `statements_in` finds in them. Age and sex are not part of the published module. A study without a row in
    `machine_measurements.csv` has neither report nor header.
    Raises `InputError` when the folder or a table is missing or damaged.
    """

    name = "mimic"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        records, measured = self.folder / "record_list.csv", self.folder / "machine_measurements.csv"
        self._records = CsvFile(records, _RECORD_COLUMNS, key="study_id", mend=_MEND)
        self._measured = CsvFile(measured, _MEASURED_COLUMNS, key="study_id", mend=_MEND)
        studies = _numbers(self._measured)
        self._order = np.argsort(studies, kind="stable")
        self._studies = studies[self._order]
        self._wanted = _numbers(self._records)
        self._records.forget_keys()
        self._measured.forget_keys()

    def __len__(self) -> int:
        return len(self._records)

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises `MissingRecordError` when it is not on the disk, `InputError` when damaged."""
        row = self._records.row(i)
        where = f"{self._records.path}: study_id {row['study_id'][:20]}"
        path = inside(self.folder, row["path"], f"{where}: path")
        signal, rate = read_wfdb(path.with_name(path.name + ".hea"))
        measured = self._measurements(int(self._wanted[i]))
        lines = [measured[column].strip() for column in _REPORT_COLUMNS if measured.get(column, "").strip()]
        return EcgRecord(
            record_id=row["study_id"].strip(),
            signal=signal,
            sampling_rate=rate,
            source=self.name,
            statements=statements_in(lines),
            report="\n".join(lines),
            provenance="machine",
            patient_id=row["subject_id"].strip(),
            header=_printed(measured),
        )

    def _measurements(self, study: int) -> dict[str, str]:
        """The study's row of `machine_measurements.csv`, or nothing."""
        place = int(np.searchsorted(self._studies, study))
        if place == len(self._studies) or self._studies[place] != study:
            return {}
        return self._measured.row(int(self._order[place]))


def statements_in(lines: Iterable[str]) -> tuple[str, ...]:
    """SCP codes that the lines of a machine report state outright, sorted.

    Each line is judged by itself. One with a word of doubt, negation or comparison yields nothing, and so
    does a wording that the table does not know: what comes out is meant to be right rather than complete.
    """
    plain = [" ".join(line.lower().split()).rstrip(".") for line in lines if not _UNSURE.search(line)]
    return sorted_statements(code for line in plain for code, phrase in _PHRASES if phrase.search(line))


def _printed(row: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """What the machine prints at the page's head: rate, intervals, axes, filters; each if known."""
    number = {name: _measured(row.get(name, "")) for name in (*_TIMES, *_AXES)}
    printed = [("Rate", f"{60_000 / number['rr_interval']:.0f} bpm" if number["rr_interval"] > 0 else "")]
    for name, start, end in _INTERVALS:
        interval = number[end] - number[start]
        printed.append((name, f"{interval:.0f} ms" if interval > 0 else ""))
    for name, column in zip(("P axis", "QRS axis", "T axis"), _AXES, strict=True):
        printed.append((name, f"{number[column]:.0f}°" if abs(number[column]) <= 360 else ""))
    printed += [("Bandwidth", row.get("bandwidth", "").strip()), ("Filter", row.get("filtering", "").strip())]
    return tuple((name, text) for name, text in printed if text)


def _measured(text: str) -> float:
    """Milliseconds or degrees. NaN, for which every comparison is false, when missing or no number."""
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
