"""A recorder's printed findings, one per line -> the SCP statements that they assert.

Which phrase stands for which statement, and why, is in the table `mimic_phrases.csv`: a code, its rivals, a phrase (a
regular expression on the line as normalised by `_normalise`) and the reason. The wordings are those of the two analysis
programs whose lines MIMIC-IV-ECG contains ("Inferior infarct - age undetermined", "Inferior infarct, old"). Their
frequencies in the data set are not known.

A line is read from left to right. A word of doubt, negation or comparison makes everything after it in its sentence
uncertain. The part before it remains certain only where the doubt starts a new finding ("Sinus rhythm with possible
PACs", "RBBB - possible left posterior fascicular block"). Where the doubt may refer to that part ("Atrial fibrillation,
resolved", "rSr' - probable normal variant"), the line yields no statement. Of rivals (two rhythms, two kinds of wide
QRS) none is certain while another is in doubt. Precision takes priority over completeness.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

from render.record import sorted_statements
from render.statements import STATEMENTS


@dataclass(frozen=True)
class _Phrase:
    """A wording. code: "" for none of the 71. rivals: name of a group of mutually exclusive statements, or ""."""

    code: str
    rivals: str
    pattern: re.Pattern[str]


_DOUBT = re.compile(
    r"\b(no|not|non|without|absent|absence|negative|resolved|replace[sd]|except|otherwise|exclude[ds]?|possibl[ey]|poss|"
    r"probabl[ey]|prob|consider|cannot|can't|could|may|might|suggest(s|ing|ive)?|suspect(ed)?|suspicious|borderline|"
    r"likely|rule|r/o|consistent|compatible|indicat(es?|ive)|reflects?|versus|vs|or(?! dual chamber)|if|unless|perhaps|"
    r"questionable|equivocal|minimal|uncertain|compared|comparison|previous|prior|since|change[ds]? from|unconfirmed|"
    r"(?<!wpw )(?<!white )pattern(?! of (bi|tri)geminy)|atypical|assumed|presumed|due to|secondary to|history|now|has|"
    r"have|had)\b|\?"
)
_FINDING_START = re.compile(
    r"((with|and) )?(possible|probable|consider|cannot rule out|can't rule out|rule out|r/o|suspect|suggests?|"
    r"suggesting|borderline|questionable|otherwise|minimal|no|without)\b"
    r"(?! (longer|((early )?normal )?(variant|artifact|lead|early|repol|pseudo|age)\b)) \S"
)
_SENTENCE = re.compile(r"\.\s+|\s*;\s*")
_PART = re.compile(r"\s+-+\s+|\s*,\s*|\s*:\s+|\s+(?=with(?:out)?\b)|\s+(?=and (?:possible|probable|borderline)\b)")
# The age of an infarct may be uncertain while the infarct is not
_AGE = re.compile(
    r"((possibly|probably|possible|probable) )?(acute|subacute|recent|new|old|chronic|evolving)|"
    r"(of )?(age (undetermined|indeterminate|unknown)|(undetermined|indeterminate|unknown) age)"
)
_REMARK = re.compile(r"no further analysis|no (significant )?change\b.*|interpretation is based on intrinsic rhythm")
_LONGEST_LINE = 500
_LONGEST_RETRACTION = 3  # words: "Not confirmed.", "Cannot be excluded."

# One spelling of each word, which keeps the table's phrases simple
_SPELLINGS = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"[–—]", "-"),
        (r"\(cited on or before [^)]*\)", ""),
        (r"\s*[,(-]+\s*(?=(by )?voltage)", " "),
        (r"\bi\.v\.", "iv"),
        (r"\b(iv|intra-ventricular) (?=conduction)", "intraventricular "),
        (r"\b(av|a\.v\.|atrio-?ventricular|atrial-ventricular)(?= (block|pac|seq|dual|diss))", "a-v"),
        (r"\b(1st|first) (?=degree)", "1st "),
        (r"\b(2nd|second) (?=degree)", "2nd "),
        (r"\b(3rd|third) (?=degree)", "3rd "),
        (r"(?<=degree |mplete )heart block", "a-v block"),
        (r"\bbundle-branch\b", "bundle branch"),
        (r"\bwolff?[ -]parkinson[ -]white\b", "wolff-parkinson-white"),
        (r"\bnon[- ]?specific\b", "nonspecific"),
        (r"\bbi-(?=atrial|ventricular)", "bi"),
        (r"\b(antero|infero|postero)-", r"\1"),
        (r"\b(wall )?(myocardial )?infarct(ion)?\b", "infarct"),
        (r"(?<=rior |eral |ptal )(wall )?mi\b", "infarct"),
        (r"\bt-wave", "t wave"),
        (r"\bst and t\b", "st & t"),
        (r"\bst elev\b", "st elevation"),
        (r"\s+", " "),
    )
)


def statements_in(lines: Iterable[str]) -> tuple[str, ...]:
    """SCP codes that the lines of a machine report assert, sorted. Each line is read on its own."""
    return sorted_statements(code for line in lines for code in codes_in_line(line))


@lru_cache(maxsize=4096)  # a data set has only a few thousand different lines
def codes_in_line(line: str) -> frozenset[str]:
    """SCP codes that one line asserts; none where it doubts, denies, compares or states something else.

    None of a line of more than 500 characters either, which no machine prints.
    """
    if len(line) > _LONGEST_LINE:
        return frozenset()
    certain: list[str] = []
    uncertain: list[str] = []
    for sentence in _SENTENCE.split(_normalise(line)):
        facts, doubts = _split(sentence)
        if (
            not facts
            and certain
            and doubts
            and len(sentence.split()) <= _LONGEST_RETRACTION
            and not _FINDING_START.match(sentence)
        ):
            return frozenset()
        certain += facts
        uncertain += doubts
    open_groups = {phrase.rivals for phrase in _matches(uncertain)} - {""}
    return frozenset(p.code for p in _matches(certain) if p.code and p.rivals not in open_groups)


def _matches(parts: list[str]) -> list[_Phrase]:
    return [phrase for phrase in _phrases() if any(phrase.pattern.search(part) for part in parts)]


def _split(sentence: str) -> tuple[list[str], list[str]]:
    """(certain, uncertain) parts of a sentence. Remarks and ages of infarcts are in neither."""
    parts = [part for part in _PART.split(sentence) if part and not _AGE.fullmatch(part) and not _REMARK.match(part)]
    for i, part in enumerate(parts):
        if _DOUBT.search(part):
            return (parts[:i], parts[i:]) if _starts_finding(part) else ([], parts)
    return parts, []


def _starts_finding(part: str) -> bool:
    """Whether the doubt in a part refers to the part itself, not to the text before it."""
    alternatives = part.startswith("with ") and not _DOUBT.search(re.sub(r"\bor\b", "", part))  # "with PVC(s) or ..."
    return alternatives or _FINDING_START.match(part) is not None


def _normalise(line: str) -> str:
    """The line in lower case and one spelling, without the marks that machines print around it."""
    text = line.lower()
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text.strip("*-. ")


@cache
def _phrases() -> tuple[_Phrase, ...]:
    rows = csv.DictReader((files("render.sources") / "mimic_phrases.csv").read_text(encoding="utf-8").splitlines())
    phrases = tuple(_Phrase(row["code"], row["rivals"], re.compile(row["phrase"])) for row in rows)
    unknown = {phrase.code for phrase in phrases} - {"", *STATEMENTS}
    if unknown:
        raise ValueError(f"mimic_phrases.csv: no such statement: {', '.join(sorted(unknown))}")
    return phrases
