"""Somebody else's predictions: a CSV file with one row per record and one column per statement."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.types import ID, check_ids, check_scores
from render.errors import InputError
from render.statements import STATEMENTS
from render.suggest import did_you_mean


def read_predictions(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read a CSV file with the columns `record_id` and all 71 statement codes, in any order.

    Returns (record ids, (n, 71) probabilities in the order of `STATEMENTS`).
    Raises InputError that names file, line, column and value, and the mend.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}: not CSV ({error})") from error
    if not rows:
        raise InputError(f"{path}: empty; the first line must hold {ID} and the 71 statement codes")
    columns = _columns([name.strip() for name in rows[0]], path)
    ids, values = [], []
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(rows[0]):
            raise InputError(f"{path}: line {number} has {len(row)} fields, the header {len(rows[0])}")
        ids.append(row[columns[ID]].strip())
        values.append([_number(row[columns[code]], f"{path}: line {number}, column {code}") for code in STATEMENTS])
    check_ids(ids, None, str(path))
    scores = np.array(values, dtype=np.float64)
    check_scores(scores, ids, str(path))
    return tuple(ids), scores


def _columns(header: list[str], path: Path) -> dict[str, int]:
    """Column name -> place; every needed column once and no other."""
    needed = (ID, *STATEMENTS)
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} stands twice; keep one")
    missing = [name for name in needed if name not in header]
    unknown = [name for name in header if name not in needed]
    if unknown:
        hint = did_you_mean(unknown[0], missing) or f"; known are {ID} and the 71 statement codes"
        raise InputError(f"{path}: column {unknown[0]!r:.60} is unknown{hint}")
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(f"{path}: column {shown} missing; needed are {ID} and one column per statement code")
    return {name: header.index(name) for name in needed}


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{where}: {text!r:.60} is not a number; give a probability from 0 to 1") from None
