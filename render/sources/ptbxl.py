"""PTB-XL in its published layout: 21,799 12-lead ECGs of 10 s with their SCP statements.

Source: Wagner et al., PTB-XL 1.0.3, https://physionet.org/content/ptb-xl/1.0.3/ (CC BY 4.0).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.errors import InputError
from render.io import file_digest, local_copy, python_literal, text_digest, user_path
from render.record import HIGH_RATE_HZ, LOW_RATE_HZ, EcgRecord, RecordLabels, resample, sorted_statements
from render.sources.csv_table import CsvFile
from render.sources.wfdb_record import MissingRecordError, inside, read_wfdb
from render.statements import STATEMENTS

LABELS_DIFFER = frozenset({"3796", "3797", "3799", "7778", "7783", "9822", "13798", "13803"})
"""Record ids whose labels differ between PTB-XL's versions: excluded from evaluations."""

RESTORED = "ptbxl-restored"
"""The source of records whose signals were restored from a derived form, such as z-scores: a folder in PTB-XL's layout
with a `restored.csv` that tells how. Their band and gain are estimates, so they may teach, and are never judged on."""


def may_judge(source: str, record_id: str) -> bool:
    """Whether a record may be in an evaluation, a calibration or a validation."""
    return source != RESTORED and not (source == "ptbxl" and record_id in LABELS_DIFFER)


OVER_89_YEARS = 90.0
"""The age of people over 89 in our records; PTB-XL anonymises it to 300."""

_MEND = "download it again from https://physionet.org/content/ptb-xl/1.0.3/"
_PLAIN_CODES = re.compile(r"\{('[^'\\]*': \d+(\.\d+)?(, (?!\})|(?=\})))*\}", re.ASCII)
_CODE = re.compile(r"'([^'\\]*)'")
_FILE_COLUMN = {HIGH_RATE_HZ: "filename_hr", LOW_RATE_HZ: "filename_lr"}
_COLUMNS = (
    "ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "validated_by_human", "strat_fold",
    "filename_lr", "filename_hr",
)  # fmt: skip


class PtbXl:
    """The records of a PTB-XL folder, in the order of `ptbxl_database.csv`.

    folder: holds `ptbxl_database.csv`, `scp_statements.csv` and `records500` or `records100` or both.
    folds: keep only these of the ten stratified folds; None keeps all.
    sampling_rate: 500 or 100 hertz. A record that is on the disk only at the other rate is resampled.

    Of a partial download all rows count, and `read` raises `MissingRecordError` where the files are missing.
    Raises `InputError` when the folder or a table is missing or damaged, and when no row is in `folds`.
    """

    name = "ptbxl"
    """`RESTORED` for a folder of restored records."""

    def __init__(
        self, folder: str | Path, folds: Collection[int] | None = None, sampling_rate: int = HIGH_RATE_HZ
    ) -> None:
        self.folder = user_path(folder)
        if sampling_rate not in _FILE_COLUMN:
            raise InputError(f"PTB-XL: sampling rate {sampling_rate} Hz; it is published at 500 and 100 Hz")
        if (self.folder / "restored.csv").is_file():
            self.name = RESTORED
        self._rate = sampling_rate
        table = self.folder / "ptbxl_database.csv"
        mend = _MEND if table.is_file() else f"name the folder of PTB-XL that has it, or {_MEND}"
        self._table = CsvFile(table, _COLUMNS, key="strat_fold", mend=mend)
        _check_statements(self.folder / "scp_statements.csv")
        self._rows = list(range(len(self._table)))
        if folds is not None:
            self._rows = [i for i in self._rows if self._fold(i) in folds]
            if not self._rows:
                table_folds = sorted({self._fold(i) for i in range(len(self._table))})
                raise InputError(
                    f"{self._table.path}: no record in fold {', '.join(map(str, sorted(folds)))}; "
                    f"strat_fold has {', '.join(map(str, table_folds))}"
                )

    def __len__(self) -> int:
        return len(self._rows)

    def digest(self) -> str:
        """Of the table and the folds."""
        return text_digest(file_digest(local_copy(self._table.path)), self._rate, self._rows)

    def prevalence(self) -> dict[str, float]:
        """Statement -> share of the records that carry it."""
        rows = (self._table.row(place) for place in self._rows)
        counts = Counter(code for row in rows for code in codes_in(row["scp_codes"], str(self._table.path)))
        return {code: n / len(self) for code, n in counts.items()}

    def record_ids(self) -> Iterator[str]:
        """The `ecg_id` of every record."""
        return (self.labels(i).record_id for i in range(len(self)))

    def labels(self, i: int) -> RecordLabels:
        """The labels of record i, which need not be on the disk. Statements are all codes of `scp_codes` that are among
        the 71, likelihood 0.0 included. Raises `InputError` when its row is damaged."""
        return self._labels(self._rows[i], *self._row(i))

    def read(self, i: int) -> EcgRecord:
        """Record i, with statements as of `labels`.

        Raises `MissingRecordError` when it is on the disk at neither rate, `InputError` when it is damaged.
        """
        row, where = self._row(i)
        signal, rate = self._signal(row, where)
        return EcgRecord(
            **self._labels(self._rows[i], row, where)._asdict(),
            signal=resample(signal, rate, self._rate),
            sampling_rate=float(self._rate),
            provenance="human" if row["validated_by_human"] == "True" else "machine",
            age=_age(row["age"], where),
            sex={"0": "male", "1": "female"}.get(row["sex"].removesuffix(".0"), ""),
            infarct_stage=row.get("infarction_stadium1", ""),
        )

    def _row(self, i: int) -> tuple[dict[str, str], str]:
        """Row of record i, and how messages about it begin."""
        row = self._table.row(self._rows[i])
        return row, f"{self._table.path}: ecg_id {row['ecg_id'][:20]}"

    def _labels(self, place: int, row: dict[str, str], where: str) -> RecordLabels:
        return RecordLabels(
            record_id=str(_whole(row["ecg_id"], where, "ecg_id")),
            source=self.name,
            statements=codes_in(row["scp_codes"], where),
            report=row["report"],
            patient_id=str(_whole(row["patient_id"], where, "patient_id")) if row["patient_id"] else "",
            fold=self._fold(place),
        )

    def _fold(self, place: int) -> int:
        fold = _whole(self._table.keys[place], f"{self._table.path}: row {place + 1}", "strat_fold")
        if not 1 <= fold <= 10:
            raise InputError(f"{self._table.path}: row {place + 1}: strat_fold {fold} is not 1 to 10; {_MEND}")
        return fold

    def _signal(self, row: dict[str, str], where: str) -> tuple[NDArray[np.float32], int]:
        """The signal and its rate: `self._rate` where its files are on the disk, else the other one."""
        missing = []
        for rate in sorted(_FILE_COLUMN, key=lambda rate: rate != self._rate):
            column = _FILE_COLUMN[rate]
            record = inside(self.folder, row[column], f"{where}: {column}")
            header = record.with_name(record.name + ".hea")
            try:
                signal, file_rate = read_wfdb(header)
            except InputError as error:
                # An interrupted download leaves an empty header and no signal file; no file has a name of 300 letters
                if not isinstance(error, MissingRecordError) and os.path.isfile(header.with_suffix(".dat")):
                    raise
                missing.append(str(record))
                continue
            if file_rate != rate:
                raise InputError(f"{header}: {file_rate:g} Hz, but PTB-XL's {column} has {rate} Hz; {_MEND}")
            return signal, rate
        raise MissingRecordError(f"{where}: .hea or .dat of {' and of '.join(missing)} is missing; {_MEND}")


def _check_statements(path: Path) -> None:
    """Raise `InputError` unless `scp_statements.csv` has the 71 codes of `render.statements`."""
    table = CsvFile(path, ("diagnostic_class",), key="", mend=_MEND)
    missing = set(STATEMENTS) - set(table.keys)
    if missing:
        raise InputError(f"{path}: code {', '.join(sorted(missing)[:3])} is missing from the 71; {_MEND}")


def codes_in(text: str, where: str) -> tuple[str, ...]:
    """Codes of a column `scp_codes`, "{'NORM': 100.0, 'SR': 0.0}", that are among the 71, sorted.

    Raises `InputError` beginning with `where` when the text is not the literal of a dict.
    """
    if _PLAIN_CODES.fullmatch(text):  # the published form; Python's parser takes ten times as long
        return sorted_statements(code for code in _CODE.findall(text) if code in STATEMENTS)
    try:
        codes = python_literal(text)
    except ValueError:
        codes = None
    if not isinstance(codes, dict):
        raise InputError(f"{where}: scp_codes {text[:60]!r} is not a dict of codes; {_MEND}")
    return sorted_statements(code for code in codes if code in STATEMENTS)


def _number(text: str, where: str, column: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{where}: {column} {text[:60]!r} is not a number; {_MEND}")
    return number


def _whole(text: str, where: str, column: str) -> int:
    """The table writes some whole numbers as "15709.0"."""
    return int(_number(text, where, column))


def _age(text: str, where: str) -> float | None:
    if not text:
        return None
    age = _number(text, where, "age")
    return OVER_89_YEARS if age > 89 else age
