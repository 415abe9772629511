"""Diagnoses of the CinC challenges 2020 and 2021, SNOMED CT codes in the comments of a WFDB header, as statements.

`snomed.csv` has the 133 codes of the challenges' tables (scored and unscored), the statement that each one names, and
why where the name alone does not say it. A code that names no statement, such as an axis or an infarction without a
territory, has none; it is counted, and so is a code that is not in the table. Sources: Perez Alday et al. 2020,
Reyna et al. 2021.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from render.record import sorted_statements
from render.statements import STATEMENTS

_DIAGNOSES = re.compile(r"^#\s*dx\s*:(.*)$", re.IGNORECASE | re.MULTILINE)


class Diagnoses(NamedTuple):
    """What the diagnoses in a header come to.

    Attributes:
        statements: sorted, each once.
        remainder: the diagnoses without a statement, "39732003 left axis deviation".
    """

    statements: tuple[str, ...] = ()
    remainder: tuple[str, ...] = ()


def diagnoses_in(header: str) -> Diagnoses:
    """The diagnoses in the text of a WFDB header: "#Dx: 164889003,59118001" or "# Dx: ..."."""
    codes = [code for line in _DIAGNOSES.findall(header) for code in re.findall(r"\d+", line, re.ASCII)]
    remainder = (f"{code} {_name(code)}" for code in codes if not statements_of([code]))
    return Diagnoses(statements_of(codes), tuple(remainder))


def _name(code: str) -> str:
    return _table().get(code, ("not in the table", ""))[0]


def statements_of(codes: Iterable[str]) -> tuple[str, ...]:
    """The statements of SNOMED CT codes, sorted, each once."""
    statements = (_table().get(code, ("", ""))[1] for code in codes)
    return sorted_statements(statement for statement in statements if statement)


@cache
def _table() -> dict[str, tuple[str, str]]:
    """Code -> (name, statement or "")."""
    with (files("render.sources") / "snomed.csv").open(encoding="utf-8") as file:
        rows = {row["code"]: (row["name"], row["statement"]) for row in csv.DictReader(file)}
    unknown = {statement for _, statement in rows.values() if statement} - set(STATEMENTS)
    if unknown:
        raise ValueError(f"snomed.csv: unknown statements {sorted(unknown)}")
    return rows
