"""The 71 SCP-ECG statements of PTB-XL: code, name, groups, and the benchmark's six label tasks.

Source of codes and groups: PTB-XL 1.0.3, `scp_statements.csv` (CC BY 4.0). Counts of records are of
11,987 records of its folds 1-9. Names are our own wording: each completes "Does this ECG show ...?".
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType


@dataclass(frozen=True)
class Statement:
    """One SCP statement.

    Attributes:
        german: its name in German.
        superclass: NORM, MI, STTC, CD or HYP for diagnostic statements, "" otherwise.
        subclass: one of the 23 diagnostic subclasses, "" for form and rhythm statements.
        records: how many of 11,987 PTB-XL records carry it.
        simulated_records: how many of 10,000 simulated ones do.
    """

    code: str
    name: str
    german: str
    diagnostic: bool
    form: bool
    rhythm: bool
    superclass: str
    subclass: str
    records: int
    simulated_records: int


@cache
def _load() -> MappingProxyType[str, Statement]:
    rows = list(csv.DictReader((files("render") / "statements.csv").read_text(encoding="utf-8").splitlines()))
    return MappingProxyType(
        {
            row["code"]: Statement(
                code=row["code"],
                name=row["name"],
                german=row["german"],
                diagnostic=row["diagnostic"] == "1",
                form=row["form"] == "1",
                rhythm=row["rhythm"] == "1",
                superclass=row["superclass"],
                subclass=row["subclass"],
                records=int(row["records"]),
                simulated_records=int(row["simulated"]),
            )
            for row in rows
        }
    )


STATEMENTS = _load()
"""code -> Statement, in the benchmark's column order (codes sorted)."""

_RECORDS, _SIMULATED_RECORDS = 11_987, 10_000

PREVALENCE: Mapping[str, Mapping[str, float]] = {
    "ptbxl": {s.code: s.records / _RECORDS for s in STATEMENTS.values()},
    "simulated": {s.code: s.simulated_records / _SIMULATED_RECORDS for s in STATEMENTS.values()},
}
"""Source -> code -> share of its records that carry the code."""

NO_SINGLE_PR = frozenset({"AFIB", "AFLT", "SVTAC", "PSVT", "SVARR", "PACE", "2AVB", "3AVB"})
"""Rhythms without a PR interval, or with more than one."""

HIDDEN_T_END = frozenset({"AFIB", "AFLT", "SVTAC", "PSVT", "PACE"})
"""Rhythms in which other waves hide the end of T: no QT interval can be measured."""

LABEL_TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
"""The six label tasks of the PTB-XL benchmark (Strodthoff et al. 2020)."""


@cache
def task_classes(task: str) -> tuple[str, ...]:
    """Sorted class names of a task: 71, 44, 23, 5, 19 and 12 of them. Raises KeyError for an unknown task."""
    names = {
        "all": [s.code for s in STATEMENTS.values()],
        "diagnostic": [s.code for s in STATEMENTS.values() if s.diagnostic],
        "subdiagnostic": [s.subclass for s in STATEMENTS.values() if s.diagnostic],
        "superdiagnostic": [s.superclass for s in STATEMENTS.values() if s.diagnostic],
        "form": [s.code for s in STATEMENTS.values() if s.form],
        "rhythm": [s.code for s in STATEMENTS.values() if s.rhythm],
    }[task]
    return tuple(sorted(set(names)))


def task_labels(codes: Iterable[str], task: str) -> frozenset[str]:
    """The classes of `task` that a record with these statement codes carries.

    Every code counts, whatever its likelihood: rhythm and form statements always carry 0.0 in PTB-XL, and a cut
    would delete both groups (the benchmark's rule). Sub- and superclasses come from diagnostic codes only.
    Codes outside the 71 are ignored. An empty result means that the record is left out of the task.
    """
    statements = [STATEMENTS[code] for code in codes if code in STATEMENTS]
    if task == "subdiagnostic":
        return frozenset(s.subclass for s in statements if s.diagnostic)
    if task == "superdiagnostic":
        return frozenset(s.superclass for s in statements if s.diagnostic)
    classes = task_classes(task)
    return frozenset(s.code for s in statements if s.code in classes)
