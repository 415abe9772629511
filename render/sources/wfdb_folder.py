"""Any WFDB records: a folder with all its subfolders, or one .hea file."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from render.errors import InputError, is_text
from render.io import is_url, text_digest, user_path
from render.record import EcgRecord, RecordLabels
from render.sources.snomed import diagnoses_in
from render.sources.wfdb_record import read_wfdb

_LARGEST_HEADER = 1 << 16


class WfdbFolder:
    """The 12-lead records below `path`, sorted by path; or the one record when `path` is a .hea file.

    A record's id is its path below the folder without ".hea", so ids stay the same when the folder moves.
    Statements are those of the diagnoses in the header's comments (`render.sources.snomed`); what names no statement is
    in the record's `unmapped_lines`. Patient and fold are unknown: a WFDB header has no fields for them.
    Raises `InputError` when `path` does not exist or contains no .hea file.
    """

    name = "wfdb"

    def __init__(self, path: str | Path) -> None:
        path = user_path(path)
        if path.is_dir():
            self.folder = path
            self._headers = _headers_below(path)
        elif path.suffix == ".hea" and path.is_file():
            self.folder = path.parent
            self._headers = [path.name]
        else:
            raise InputError(f"{path}: no such folder or .hea file; check the path")
        if not self._headers:
            raise InputError(f"{path}: no .hea file in this folder or below; name the folder of the records")

    def __len__(self) -> int:
        return len(self._headers)

    def digest(self) -> str:
        """Of the names and sizes of the headers."""
        return text_digest(*((name, (self.folder / name).stat().st_size) for name in self._headers))

    def record_ids(self) -> list[str]:
        """The names of the headers."""
        return [name.removesuffix(".hea") for name in self._headers]

    def read(self, i: int) -> EcgRecord:
        """Record i. Raises `InputError` when it is damaged or not a 12-lead record."""
        header = self._headers[i]
        if not is_text(header):
            raise InputError(f"{self.folder / header}: the name is no text in UTF-8; rename the file")
        signal, rate = read_wfdb(self.folder / header)
        diagnoses = diagnoses_in(self._text(i))
        return EcgRecord(
            record_id=header.removesuffix(".hea"),
            signal=signal,
            sampling_rate=rate,
            source=self.name,
            statements=diagnoses.statements,
            unmapped_lines=diagnoses.remainder,
        )

    def labels(self, i: int) -> RecordLabels:
        """The labels of record i, from its header alone. Raises `InputError` when it cannot be read."""
        name = self._headers[i].removesuffix(".hea")
        return RecordLabels(name, self.name, diagnoses_in(self._text(i)).statements, "", "", None)

    def _text(self, i: int) -> str:
        try:
            with (self.folder / self._headers[i]).open(encoding="utf-8", errors="replace") as file:
                return file.read(_LARGEST_HEADER)
        except OSError as error:
            raise InputError(f"{self.folder / self._headers[i]}: cannot be read ({error.strerror})") from error


def _headers_below(folder: Path) -> list[str]:
    """Sorted paths of the .hea files, relative to `folder`, with "/" on every system.

    Linked folders are skipped: a link to a parent folder would never end.
    """
    if is_url(folder):
        remote: Any = folder
        files = [PurePosixPath(file).relative_to(remote.path) for file in remote.fs.find(remote.path)]
        return sorted(file.as_posix() for file in files if file.suffix == ".hea")
    headers: list[Path] = []
    for parent, _, names in os.walk(folder):
        headers += [Path(parent) / name for name in names if Path(name).suffix == ".hea"]
    return sorted(path.relative_to(folder).as_posix() for path in headers)
