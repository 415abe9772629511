"""Which statements exclude or imply each other, and how often the simulator samples each combination.

Exclusions and implications follow from the criteria (`render.simulator.criteria`) and from PTB-XL's records.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable
from itertools import accumulate, combinations
from pathlib import Path
from typing import NamedTuple

from render.errors import InputError
from render.simulator.rng import BufferedRng
from render.statements import STATEMENTS
from render.suggest import did_you_mean

SIMULATED_STATEMENTS: tuple[str, ...] = tuple(sorted(STATEMENTS))
"""SCP codes that can be simulated, sorted."""

# How many of 11,987 records of PTB-XL's folds 1-9 (Wagner et al. 2020) carry both statements; on the diagonal, the one.
_TABLE = Path(__file__).with_name("cooccurrence.csv")
_TABLE_RECORDS = 11987

SINUS = frozenset({"SR", "STACH", "SBRAD", "SARRH"})
RHYTHMS = SINUS | {"AFIB", "AFLT", "SVTAC", "PSVT", "SVARR", "PACE"}
Q_INFARCTS = frozenset({"ASMI", "AMI", "ALMI", "LMI", "IMI", "ILMI", "IPMI", "IPLMI"})
_ANTERIOR, _INFERIOR = {"ASMI", "AMI", "ALMI", "LMI"}, {"IMI", "ILMI", "IPMI", "IPLMI", "PMI"}
_POSTERIOR = {"PMI", "IPMI", "IPLMI"}
_ISCHAEMIA = {"ISC_", "ISCAL", "ISCAN", "ISCAS", "ISCIL", "ISCIN", "ISCLA"}
_INJURY = {"INJAL", "INJAS", "INJIL", "INJIN", "INJLA"}
_MILD_T = {"NDT", "NT_", "LOWT"}
_ST_T = _ISCHAEMIA | _INJURY | _MILD_T | {"STD_", "STE_", "NST_", "INVT", "TAB_", "DIG", "EL", "ANEUR"}
_ECTOPY = {"PVC", "PAC", "PRC(S)", "BIGU", "TRIGU"}
_WIDE = {"CLBBB", "WPW", "PACE"}
COMPATIBLE_WITH_NORM = SINUS | {"NORM", "PVC", "PAC", "PRC(S)", "IRBBB", "VCLVH", "HVOLT", "LVOLT"}

# Of each group a record carries at most one.
_EXCLUSIVE_GROUPS: tuple[Iterable[str], ...] = (
    ("SR", "STACH", "SBRAD", "SARRH", "AFIB", "AFLT", "SVTAC", "SVARR", "PACE"),
    ("SR", "STACH", "SBRAD", "SARRH", "AFIB", "AFLT", "PSVT", "SVARR", "PACE"),
    ("1AVB", "2AVB", "3AVB", "WPW"),
    ("LPR", "2AVB", "3AVB", "WPW"),
    ("CRBBB", "CLBBB", "IRBBB", "ILBBB", "IVCD", "WPW", "PACE"),
    ("LAFB", "LPFB", "CLBBB", "ILBBB", "IVCD", "WPW", "PACE"),
    ("LVH", "HVOLT", "LVOLT", "RVH", "SEHYP"),
    ("VCLVH", "HVOLT", "LVOLT", "RVH", "SEHYP"),
    _ANTERIOR,
    _INFERIOR,
    _ISCHAEMIA | _INJURY | {"ANEUR", "DIG", "EL", "STE_", "NST_"},
    _ISCHAEMIA | _INJURY | {"ANEUR", "DIG", "EL", "STE_", "INVT"},
    ("BIGU", "TRIGU"),
)
# No code of the first set together with one of the second.
_EXCLUSIVE_SETS: tuple[tuple[Collection[str], Collection[str]], ...] = (
    (
        {"1AVB", "LPR", "LAO/LAE", "RAO/RAE", "WPW", "2AVB", "3AVB"},
        {"AFIB", "AFLT", "SVTAC", "PSVT", "SVARR", "PACE"},
    ),
    ({"2AVB", "3AVB"}, {"STACH", "SBRAD", "SARRH", *_ECTOPY}),
    ({"STACH"}, {"1AVB", "LPR", "LNGQT"}),
    (_ECTOPY, {"AFLT", "SVTAC", "PSVT", "PACE"}),
    ({"PAC"}, {"AFIB", "SVARR"}),
    ({"BIGU", "TRIGU"}, {"SARRH", "AFIB", "SVARR"}),
    (
        _WIDE,
        _ANTERIOR | _INFERIOR | {"LVH", "VCLVH", "HVOLT", "LVOLT", "RVH", "SEHYP", "QWAVE", "LNGQT"} | _ST_T,
    ),
    ({"PACE", "CLBBB"}, {"ABQRS"}),
    ({"PACE", "SVTAC", "PSVT", "AFLT"}, {"LNGQT"} | _ST_T),
    ({"CRBBB"}, {"LVH", "VCLVH", "HVOLT", "LVOLT", "SEHYP"} | _POSTERIOR | _ST_T),
    ({"IRBBB"}, {"SEHYP"} | _POSTERIOR | _INJURY),
    ({"ILBBB"}, {"LMI", "ALMI", "ILMI", "IPLMI", "SEHYP", "RVH", "LVOLT"} | _POSTERIOR),
    ({"IVCD"}, {"SEHYP", "LVOLT"} | _POSTERIOR),
    ({"LAFB"}, _INFERIOR | {"RVH", "SEHYP", "LVOLT", "LMI"}),
    ({"LPFB"}, _INFERIOR | {"LVH", "VCLVH", "HVOLT", "RVH", "SEHYP", "LVOLT", "LMI", "ALMI"}),
    ({"RVH"}, _ANTERIOR | _INFERIOR | {"QWAVE"} | _ST_T),
    ({"SEHYP"}, _ANTERIOR | _INFERIOR | {"QWAVE", "ABQRS"}),
    (_ANTERIOR - {"LMI"}, _POSTERIOR),
    ({"LMI", "ALMI", "AMI"}, {"ILMI", "IPLMI", "IPMI"}),
    ({"ALMI", "LMI", "ILMI", "IPLMI"}, {"LVH", "VCLVH", "HVOLT"}),  # no lateral R is left
    ({"LVOLT"}, _ANTERIOR | _INFERIOR | {"QWAVE"}),
    (_ANTERIOR | _INFERIOR, {"STE_"}),
    (_MILD_T, _ISCHAEMIA | _INJURY | {"INVT", "ANEUR", "EL", "STE_"}),
    ({"LOWT"}, {"LVH"}),
    ({"STD_"}, {"STE_", "NST_", "ANEUR", "EL"}),
    ({"TAB_"}, {"STE_"}),
    ({"STE_"}, {"LVH", "VCLVH", "HVOLT", "ILBBB", "LNGQT"}),
    (
        {"ANEUR"},
        _WIDE | _POSTERIOR | {"LMI", "INVT", "LVOLT", "LNGQT", "SEHYP", "RVH", "CRBBB", "TAB_", "NST_"},
    ),
    ({"DIG"}, {"LNGQT", "NST_"}),
    ({"NST_"}, {"LVH"}),
    ({"PMI"}, _ISCHAEMIA | _INJURY | {"VCLVH", "HVOLT"}),
    ({"NORM"}, set(STATEMENTS) - COMPATIBLE_WITH_NORM),
)


def _pairs() -> frozenset[frozenset[str]]:
    pairs = {frozenset(pair) for group in _EXCLUSIVE_GROUPS for pair in combinations(sorted(group), 2)}
    for left, right in _EXCLUSIVE_SETS:
        pairs |= {frozenset((a, b)) for a in left for b in right if a != b}
    return frozenset(pairs)


CONTRADICTIONS = _pairs()
"""Pairs of codes that exclude each other on one record."""
_EXCLUSIONS = {code: frozenset(b for b in STATEMENTS if frozenset((code, b)) in CONTRADICTIONS) for code in STATEMENTS}

# code -> codes of which it requires one
_PREREQUISITES: dict[str, tuple[str, ...]] = {
    "PSVT": ("SVTAC",),
    "BIGU": ("PVC", "PAC"),
    "TRIGU": ("PVC", "PAC"),
    "PRC(S)": ("PVC", "PAC"),
    "ANEUR": ("ASMI", "AMI", "ALMI"),
}
IMPLICATIONS: dict[str, tuple[str, ...]] = {
    "1AVB": ("LPR",),
    "LPR": ("1AVB",),
    "LVH": ("VCLVH",),
    "PVC": ("PRC(S)",),
    "PAC": ("PRC(S)",),
    "NDT": ("NT_", "TAB_"),
    "NT_": ("NDT", "TAB_"),
    "LOWT": ("NT_", "NDT", "TAB_"),
    "INVT": ("TAB_",),
    "WPW": ("ABQRS",),
    **dict.fromkeys(Q_INFARCTS, ("QWAVE", "ABQRS")),
}
"""Code -> codes that hold wherever it holds, by the same criterion."""


def compatible(code: str, others: Iterable[str]) -> bool:
    """Whether none of `others` excludes `code`."""
    return _EXCLUSIONS[code].isdisjoint(others)


def resolve_findings(statements: Iterable[str], rng: BufferedRng) -> frozenset[str]:
    """The statements and what they require: a rhythm, the ectopic beat of a bigeminy.

    Raises:
        InputError: For a code that cannot be simulated or for two that contradict each other.
    """
    findings = set(statements)
    for code in sorted(findings):
        if code not in STATEMENTS:
            raise InputError(
                f"statements: {code!r} is not among the {len(SIMULATED_STATEMENTS)} simulated codes"
                f"{did_you_mean(code, SIMULATED_STATEMENTS)}"
            )
    for a in sorted(findings):
        if not compatible(a, findings):
            b = min(_EXCLUSIONS[a] & findings)
            raise InputError(f"statements: {a} and {b} contradict each other; leave one of them out")
    for code, choices in _PREREQUISITES.items():
        if code in findings and not findings & set(choices):
            candidates = [c for c in choices if compatible(c, findings)]
            if not candidates:
                raise InputError(f"statements: {code} needs {' or '.join(choices)}, which the others exclude")
            findings.add(candidates[0] if len(candidates) == 1 or rng.random() < 0.65 else candidates[1])
    if not findings & (RHYTHMS | {"2AVB", "3AVB"}):
        findings.add("SR")
    return frozenset(findings)


_CODES = tuple(c for c in SIMULATED_STATEMENTS if c not in ("NORM", "SR"))
_NORMAL = 0.30  # share of normal records
_RARITY = 1 / 8  # exponent of a statement's rarity in its chance to come first; common ones also come as companions
_PRIOR = 5.0  # pseudo-records that pull shares among few records towards those among all
_MOST_COMPANIONS = 3


def _cumulative(weights: Iterable[float]) -> list[float]:
    sums = list(accumulate(weights))
    return [total / (sums[-1] or 1.0) for total in sums]


class _Cooccurrence(NamedTuple):
    """Which statements accompany a statement, as running sums of probabilities.

    rhythm: of each of `_RHYTHMS`. others: of each of `_OTHERS`. counts: of 0 to `_MOST_COMPANIONS` others (Poisson
    with the table's mean).
    """

    rhythm: list[float]
    others: list[float]
    counts: list[float]


_RHYTHMS = tuple(sorted(RHYTHMS))
_OTHERS = tuple(c for c in _CODES if c not in RHYTHMS)


def _counts() -> dict[tuple[str, str], int]:
    """(code, code) -> records that carry both, in either order."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        once = {(row["a"], row["b"]): int(row["records"]) for row in csv.DictReader(file)}
    return once | {(b, a): count for (a, b), count in once.items()}


_COUNTS = _counts()


def _cooccurrences() -> dict[str, _Cooccurrence]:
    """Statement -> its companions, from the table of how often two statements occur on one record."""

    def share(other: str, code: str) -> float:
        if other in _EXCLUSIONS[code] or other == code:
            return 0.0
        usual = _COUNTS[other, other] / _TABLE_RECORDS
        return (_COUNTS.get((code, other), 0) + _PRIOR * usual) / (_COUNTS[code, code] + _PRIOR)

    cooccurrences = {}
    for code in SIMULATED_STATEMENTS:
        rhythms, others = ([share(other, code) for other in group] for group in (_RHYTHMS, _OTHERS))
        counts = _cumulative(sum(others) ** k / math.factorial(k) for k in range(_MOST_COMPANIONS + 1))
        cooccurrences[code] = _Cooccurrence(_cumulative(rhythms), _cumulative(others), counts)
    return cooccurrences


_COOCCURRENCES = _cooccurrences()
_FIRST_SHARES = _cumulative(_COUNTS[code, code] ** -_RARITY for code in _CODES)
_MOST_ATTEMPTS = 9  # companions to try


def sample_findings(rng: BufferedRng) -> frozenset[str]:
    """A plausible combination of statements: 30 % normal; others start with any statement and get companions.

    A companion is sampled from those that accompany one of the statements so far in PTB-XL's records.
    """
    first = "NORM" if rng.random() < _NORMAL else rng.weighted_choice(_CODES, _FIRST_SHARES)
    codes = [first]
    attempts: set[str] = set()
    count = rng.weighted_choice(range(_MOST_COMPANIONS + 1), _COOCCURRENCES[first].counts)
    while len(codes) <= count and len(attempts) < _MOST_ATTEMPTS:
        code = rng.weighted_choice(_OTHERS, _COOCCURRENCES[rng.choice(codes)].others)
        if code not in codes and compatible(code, codes):
            codes.append(code)
        attempts.add(code)
    for _ in range(_MOST_ATTEMPTS):
        if not RHYTHMS.isdisjoint(codes):
            break
        rhythm = rng.weighted_choice(_RHYTHMS, _COOCCURRENCES[first].rhythm)
        if compatible(rhythm, codes):
            codes.append(rhythm)
    try:
        return resolve_findings(codes, rng)
    except InputError:  # a prerequisite that the other codes exclude: leave out the codes that have one
        return resolve_findings([c for c in codes if c not in _PREREQUISITES], rng)
