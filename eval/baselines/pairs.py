"""Pairs of an ECG with its report and, where there is one, a chest X-ray: a CSV table of `record`, `report`, `image`.

record: id of a record of the source that is named with the table. report: free text. image: path of a PNG or JPEG, from
the table's folder; "" without one. A record may stand in several rows.
"""

from __future__ import annotations

import csv
import gzip
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from render.errors import InputError
from render.io import atomic_write, text_digest, user_path
from render.record import EcgRecord
from render.sources.csv_table import CsvFile
from render.sources.mimic import MimicIvEcg
from render.sources.registry import Source, digest_of, record_ids, record_labels

COLUMNS = ("record", "report", "image")
_MEND = f"give a table with the columns {', '.join(COLUMNS)}, as ecg-vlm baseline pairs writes it"
_CXR_TABLES = ("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-metadata.csv.gz")
_FRONTAL = ("AP", "PA")
_NEAR = timedelta(days=60)


class Pair(NamedTuple):
    """A row of the table. image: a whole path, "" without one."""

    record_id: str
    report: str
    image: str


class Pairs:
    """The pairs of a source's records, in the order of their table; rows without a report are left out.

    source: of the records. table: None for each record with its own report.
    Raises `InputError` for a table that is no such table or has no row of a record of the source.
    """

    def __init__(self, source: Source, table: Path | None = None) -> None:
        self.source, self.name = source, source.name
        self._places = {record_id: i for i, record_id in enumerate(record_ids(source))}
        pairs = reports_of(source) if table is None else _read(user_path(table))
        self.rows = [pair for pair in pairs if pair.report.strip() and pair.record_id in self._places]
        if not self.rows:
            what = "a record with a report" if table is None else f"a row of {table} with a report"
            raise InputError(f"{source.name}: pairs take {what}; name the --data that has them")

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """Of the rows and the source."""
        return text_digest(digest_of(self.source), *(field for row in self.rows for field in row))

    def patients(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Of these records, in their order."""
        found = {labels.record_id: labels.patient_id for labels in record_labels(self.source)}
        return tuple(found.get(record_id, "") for record_id in ids)

    def read(self, i: int) -> EcgRecord:
        """The record of row i."""
        return self.source.read(self._places[self.rows[i].record_id])


def reports_of(source: Source) -> Iterator[Pair]:
    """Each record of a source with its own report."""
    for labels in record_labels(source):
        yield Pair(labels.record_id, labels.report.strip(), "")


def mimic_pairs(ecgs: MimicIvEcg, xrays: Path, reports: Path | None) -> Iterator[Pair]:
    """MIMIC-IV-ECG's records, each with its patient's frontal chest X-ray that is nearest in time, within 60 days.

    The report is that of the ECG's machine and, where there is one, that of the X-ray. Records without such an X-ray
    have no image.

    Args:
        xrays: folder of MIMIC-CXR-JPG (Johnson et al. 2019, version 2) with its table of metadata.
        reports: folder of MIMIC-CXR's reports, that with `files/p10`; None to go without.

    Raises:
        InputError: When a table is missing or damaged.
    """
    taken: dict[str, list[tuple[datetime, str, str]]] = defaultdict(list)
    for row in _metadata(user_path(xrays)):
        if row["ViewPosition"] in _FRONTAL and (when := _moment(row["StudyDate"], row["StudyTime"])):
            taken[row["subject_id"]].append((when, row["study_id"], row["dicom_id"]))
    for each in taken.values():
        each.sort()
    for i in range(len(ecgs)):
        labels = ecgs.labels(i)
        patient, texts, image = labels.patient_id, [labels.report], ""
        nearest = _nearest(taken.get(patient, ()), ecgs.taken(i))
        if nearest:
            folder = Path("files") / f"p{patient[:2]}" / f"p{patient}" / f"s{nearest[1]}"
            image = str((user_path(xrays) / folder / f"{nearest[2]}.jpg").resolve())
            if reports is not None and (text := (user_path(reports) / folder).with_suffix(".txt")).is_file():
                texts.append(text.read_text(encoding="utf-8", errors="replace"))
        yield Pair(labels.record_id, "\n".join(texts).strip(), image)


def write(path: Path, pairs: Iterable[Pair], progress: Callable[[int], None] = lambda count: None) -> tuple[int, int]:
    """Write a table; the number of pairs and of those with an image. Pairs without a report are left out."""
    count = images = 0
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for pair in pairs:
            if pair.report:
                writer.writerow(pair)
                count, images = count + 1, images + bool(pair.image)
                progress(count)
    return count, images


def _read(path: Path) -> Iterator[Pair]:
    table = CsvFile(path, COLUMNS, key="record", mend=_MEND)
    for i, record_id in enumerate(table.keys):
        row = table.row(i)
        if "\0" in row["image"]:
            raise InputError(f"{path}: record {record_id}: its image's name holds a zero byte, so it names no file")
        image = str((path.parent / row["image"]).resolve()) if row["image"] else ""
        yield Pair(record_id, row["report"], image)


def _metadata(folder: Path) -> Iterator[dict[str, str]]:
    path = next((folder / name for name in _CXR_TABLES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: has no {_CXR_TABLES[1]}; name the folder of MIMIC-CXR-JPG")
    needed = {"dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"}
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if missing := needed - set(rows.fieldnames or ()):
                raise InputError(f"{path}: column {min(missing)!r} is missing; download it again")
            for row in rows:
                cells = {name: row[name] or "" for name in needed}
                if any("\0" in cell for cell in cells.values()):
                    raise InputError(f"{path}: line {rows.line_num}: holds a zero byte; download it again")
                yield cells
    except (OSError, EOFError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from error


def _moment(date: str, time: str) -> datetime | None:
    """MIMIC-CXR's numbers, 21800506 and 213014.531; None where one is damaged."""
    try:
        return datetime.strptime(f"{date} {float(time):013.6f}", "%Y%m%d %H%M%S.%f")
    except ValueError:
        return None


def _nearest(xrays: Sequence[tuple[datetime, str, str]], when: datetime | None) -> tuple[datetime, str, str] | None:
    if when is None or not xrays:
        return None
    place = bisect_left(xrays, (when, "", ""))
    best = min(xrays[max(place - 1, 0) : place + 1], key=lambda each: abs(each[0] - when))
    return best if abs(best[0] - when) <= _NEAR else None
