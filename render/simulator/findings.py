"""Which statements can stand together, what follows from what, and how often the simulator draws each.

Exclusions and implications follow from the criteria (`render.simulator.criteria`) and from what occurs together in
PTB-XL.
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

SIMULATED_STATEMENTS: tuple[str, ...] = tuple(sorted(STATEMENTS))
"""SCP codes that can be simulated, sorted."""

# How many of 11,987 records of folds 1-9 of PTB-XL (Wagner et al. 2020) have two statements; with itself: have the one.
_TOGETHER = Path(__file__).with_name("cooccurrence.csv")
_TOGETHER_RECORDS = 11987

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
NORMAL_COMPANY = SINUS | {"NORM", "PVC", "PAC", "PRC(S)", "IRBBB", "VCLVH", "HVOLT", "LVOLT"}

# At most one of each of these.
_ONE_OF: tuple[Iterable[str], ...] = (
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
# None of the left with any of the right.
_NOT_WITH: tuple[tuple[Collection[str], Collection[str]], ...] = (
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
    ({"ALMI", "LMI", "ILMI", "IPLMI"}, {"LVH", "VCLVH", "HVOLT"}),  # the lateral R is lost
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
    ({"NORM"}, set(STATEMENTS) - NORMAL_COMPANY),
)


def _pairs() -> frozenset[frozenset[str]]:
    found = {frozenset(pair) for group in _ONE_OF for pair in combinations(sorted(group), 2)}
    for left, right in _NOT_WITH:
        found |= {frozenset((a, b)) for a in left for b in right if a != b}
    return frozenset(found)


CONTRADICTIONS = _pairs()
"""Pairs of codes that cannot hold on one record."""
_EXCLUDED = {code: frozenset(b for b in STATEMENTS if frozenset((code, b)) in CONTRADICTIONS) for code in STATEMENTS}

# code -> (one of these has to be there too, and when none is, the first that fits is added)
_NEEDS: dict[str, tuple[str, ...]] = {
    "PSVT": ("SVTAC",),
    "BIGU": ("PVC", "PAC"),
    "TRIGU": ("PVC", "PAC"),
    "PRC(S)": ("PVC", "PAC"),
    "ANEUR": ("ASMI", "AMI", "ALMI"),
}
# code -> codes that hold wherever it holds, by the same criterion
IMPLIED: dict[str, tuple[str, ...]] = {
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


def compatible(code: str, others: Iterable[str]) -> bool:
    """Whether `code` can stand with every one of `others`."""
    return _EXCLUDED[code].isdisjoint(others)


def resolved(statements: Iterable[str], rng: BufferedRng) -> frozenset[str]:
    """Check the asked statements and add what has to stand with them: a rhythm, the ectopic beat of a
    bigeminy.

    Raises `InputError` for a code that cannot be simulated or for two that contradict each other.
    """
    findings = set(statements)
    for code in sorted(findings):
        if code not in STATEMENTS:
            raise InputError(f"statements: {code!r} is not among the {len(SIMULATED_STATEMENTS)} simulated codes")
    for a in sorted(findings):
        if not compatible(a, findings):
            b = min(_EXCLUDED[a] & findings)
            raise InputError(f"statements: {a} and {b} contradict each other; leave one of them out")
    for code, choices in _NEEDS.items():
        if code in findings and not findings & set(choices):
            fitting = [c for c in choices if compatible(c, findings)]
            if not fitting:
                raise InputError(f"statements: {code} needs {' or '.join(choices)}, which the others exclude")
            likely = fitting[0] if len(fitting) == 1 or rng.random() < 0.65 else fitting[1]
            findings.add(likely)
    if not findings & (RHYTHMS | {"2AVB", "3AVB"}):
        findings.add("SR")
    return frozenset(findings)


_CODES = tuple(c for c in SIMULATED_STATEMENTS if c not in ("NORM", "SR"))
_NORMAL = 0.30  # share of normal records
_RARITY = 1 / 8  # power of a statement's rarity by which it begins the others: the common ones come as company too
_PRIOR = 5.0  # records by which shares among few records are drawn towards those among all
_MOST = 3  # companions


def _cumulative(weights: Iterable[float]) -> list[float]:
    sums = list(accumulate(weights))
    return [each / (sums[-1] or 1.0) for each in sums]


class _Company(NamedTuple):
    """What stands beside a statement, as running sums of shares: which rhythm (of `_RHYTHMS`), which other statements
    (of `_OTHERS`), and how many of these: 0 to `_MOST`, by Poisson's law with the table's mean."""

    rhythm: list[float]
    which: list[float]
    how_many: list[float]


_RHYTHMS = tuple(sorted(RHYTHMS))
_OTHERS = tuple(c for c in _CODES if c not in RHYTHMS)


def _counts() -> dict[tuple[str, str], int]:
    """The table, either way round."""
    with _TOGETHER.open(encoding="utf-8", newline="") as file:
        once = {(row["a"], row["b"]): int(row["records"]) for row in csv.DictReader(file)}
    return once | {(b, a): count for (a, b), count in once.items()}


_BOTH = _counts()


def _learnt() -> dict[str, _Company]:
    """The company of each statement, from the table of how often two stand on one record."""

    def share(other: str, code: str) -> float:
        if other in _EXCLUDED[code] or other == code:
            return 0.0
        usual = _BOTH[other, other] / _TOGETHER_RECORDS
        return (_BOTH.get((code, other), 0) + _PRIOR * usual) / (_BOTH[code, code] + _PRIOR)

    learnt = {}
    for code in SIMULATED_STATEMENTS:
        rhythms, others = ([share(other, code) for other in group] for group in (_RHYTHMS, _OTHERS))
        counts = _cumulative(sum(others) ** k / math.factorial(k) for k in range(_MOST + 1))
        learnt[code] = _Company(_cumulative(rhythms), _cumulative(others), counts)
    return learnt


_COMPANY = _learnt()
_FIRST = _cumulative(_BOTH[code, code] ** -_RARITY for code in _CODES)
_TRIED = 9  # companions, of which those that fit are taken until there are enough


def drawn(rng: BufferedRng) -> frozenset[str]:
    """A plausible combination: three in ten normal, the others begun by any statement, with the company in which
    PTB-XL's records show it. A companion is drawn among those of one that is already there."""
    first = "NORM" if rng.random() < _NORMAL else rng.weighted(_CODES, _FIRST)
    chosen = [first]
    tried: set[str] = set()
    wanted = rng.weighted(range(_MOST + 1), _COMPANY[first].how_many)
    while len(chosen) <= wanted and len(tried) < _TRIED:
        code = rng.weighted(_OTHERS, _COMPANY[rng.choice(chosen)].which)
        if code not in chosen and compatible(code, chosen):
            chosen.append(code)
        tried.add(code)
    for _ in range(_TRIED):
        if not RHYTHMS.isdisjoint(chosen):
            break
        rhythm = rng.weighted(_RHYTHMS, _COMPANY[first].rhythm)
        if compatible(rhythm, chosen):
            chosen.append(rhythm)
    try:
        return resolved(chosen, rng)
    except InputError:  # a need that the rest excludes: keep what is sound
        return resolved([c for c in chosen if c not in _NEEDS], rng)
