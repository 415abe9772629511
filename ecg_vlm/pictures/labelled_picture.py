"""A picture of an ECG with its labels, and the paths that a table of pictures may name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

from render.errors import InputError
from render.suggest import did_you_mean

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_MEND = "write its path below the folder of the pictures"
_SHORT = 60  # characters of a value in a message


@dataclass(frozen=True)
class LabelledPicture:
    """One picture of an ECG, with what is known about it.

    Attributes:
        where: file and line of its labels, for messages.
        path: the picture.
        page: of a file of several pages, from 1 on; None where the file has one.
        statements: codes of PTB-XL, sorted, each once; every other code that is not in `uncertain` counts as absent.
        uncertain: codes about which nothing is asked.
        report: its free text, unchanged; "" when there is none.
        provenance: origin of the statements: "human", or "machine" when the parser read them from the report.
        dialogues: rows of the column `dialogues` (`render.dataset.rows`) that came with the picture.
        fold: 1 to 10, or None.
    """

    where: str
    path: Path
    record_id: str
    source: str
    page: int | None = None
    statements: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    report: str = ""
    provenance: str = "human"
    dialogues: tuple[dict[str, Any], ...] = ()
    patient_id: str = ""
    fold: int | None = None


class PictureSource(Protocol):
    """A numbered collection of labelled pictures.

    `picture` depends on `i` alone, so that any worker can make any row. index: the file of the labels. dialogue_file:
    its name where it gives the dialogues, None where they are composed from labels.
    """

    name: str
    index: Path
    dialogue_file: str | None

    def __len__(self) -> int: ...

    def picture(self, i: int) -> LabelledPicture:
        """Picture i. Raises `InputError` when its labels have changed since they were checked."""
        ...

    def prevalence(self) -> Mapping[str, float] | None:
        """Statement -> how common it is, for `render.dialogues.compose`; None where no question is composed."""
        ...


def picture_path(folder: Path, relative: str, where: str, *, lenient: bool = False) -> Path:
    """`folder / relative`, where `relative` comes from a table of pictures ("/" or "\\" between its parts).

    lenient: the file may be missing. Raises `InputError` beginning with `where` when it is missing, and for a URL and a
    path that is empty, absolute, or leaves the folder, by ".." or by a symbolic link.
    """
    short = repr(relative[:_SHORT])
    if _URL.match(relative) and not os.path.isfile(folder / relative):  # False for names that no file can have
        raise InputError(f"{where}: picture {short} is a URL or a drive; copy the picture into {folder}, and {_MEND}")
    parts = PureWindowsPath(relative)  # has both separators and drive letters: stricter than PurePosixPath
    if not relative.strip() or parts.anchor or ".." in parts.parts or "\0" in relative:
        raise InputError(f"{where}: picture {short} does not stay inside {folder}; {_MEND}")
    path = folder.joinpath(*PurePosixPath(relative.replace("\\", "/")).parts)
    if not os.path.isfile(path):
        if lenient:
            return path
        raise InputError(f"{where}: picture {short} is not in {folder}{_similar(path) or '; check its name'}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{where}: picture {short} is a link that leaves {folder}; copy the picture into the folder")
    return path


def _similar(path: Path) -> str:
    """`; did you mean ...?` with a file of the same folder."""
    if not os.path.isdir(path.parent):
        return "; its folder is missing"
    return did_you_mean(path.name, (file.name for file in path.parent.iterdir()))
