"""A recorder's printed findings, one line each -> the SCP statements that they state outright.

What stands for which statement, and why, is the table `mimic_phrases.csv`: a code, its rivals, a phrase (a regular
expression on the line as `_plain` writes it) and the reason. The wordings are those of the two analysis programs whose
lines MIMIC-IV-ECG holds ("Inferior infarct - age undetermined", "Inferior infarct, old"). They could not be counted on
the data set itself.

A line is read from left to right. A word of doubt, negation or comparison takes with it all that follows in its
sentence; what stood before it stays only where the doubt opens a finding of its own ("Sinus rhythm with possible PACs",
"RBBB - possible left posterior fascicular block"). Where it may be said of what stood before ("Atrial fibrillation,
resolved", "rSr' - probable normal variant"), the line yields nothing. Of rivals (two rhythms, two kinds of wide QRS)
one cannot be sure while another is in doubt. What comes out is meant to be right rather than complete.
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
    """A wording. code: "" where it stands for none of the 71. rivals: the group of which one line holds one, or ""."""

    code: str
    rivals: str
    pattern: re.Pattern[str]


_UNSURE = re.compile(
    r"\b(no|not|non|without|absent|absence|negative|resolved|replace[sd]|except|otherwise|exclude[ds]?|possibl[ey]|poss|"
    r"probabl[ey]|prob|consider|cannot|can't|could|may|might|suggest(s|ing|ive)?|suspect(ed)?|suspicious|borderline|"
    r"likely|rule|r/o|consistent|compatible|indicat(es?|ive)|reflects?|versus|vs|or(?! dual chamber)|if|unless|perhaps|"
    r"questionable|equivocal|minimal|uncertain|compared|comparison|previous|prior|since|change[ds]? from|unconfirmed|"
    r"(?<!wpw )(?<!white )pattern(?! of (bi|tri)geminy)|atypical|assumed|presumed|due to|secondary to|history|now|has|"
    r"have|had)\b|\?"
)
_OPENS = re.compile(
    r"((with|and) )?(possible|probable|consider|cannot rule out|can't rule out|rule out|r/o|suspect|suggests?|"
    r"suggesting|borderline|questionable|otherwise|minimal|no|without)\b"
    r"(?! (longer|((early )?normal )?(variant|artifact|lead|early|repol|pseudo|age)\b)) \S"
)
_SENTENCE = re.compile(r"\.\s+|\s*;\s*")
_PART = re.compile(r"\s+-+\s+|\s*,\s*|\s*:\s+|\s+(?=with(?:out)?\b)|\s+(?=and (?:possible|probable|borderline)\b)")
# How old an infarct is may be unsure while the infarct is not
_AGE = re.compile(
    r"((possibly|probably|possible|probable) )?(acute|subacute|recent|new|old|chronic|evolving)|"
    r"(of )?(age (undetermined|indeterminate|unknown)|(undetermined|indeterminate|unknown) age)"
)
_REMARK = re.compile(r"no further analysis|no (significant )?change\b.*|interpretation is based on intrinsic rhythm")
_LONGEST_AFTERTHOUGHT = 3  # words: "Not confirmed.", "Cannot be excluded."

# One spelling of each word, so that the table's phrases can be plain
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
    """SCP codes that the lines of a machine report state outright, sorted. Each line is judged by itself."""
    return sorted_statements(code for line in lines for code in codes_in_line(line))


@lru_cache(maxsize=4096)  # a data set repeats its few thousand wordings
def codes_in_line(line: str) -> frozenset[str]:
    """SCP codes that one line states outright; none where it doubts, denies, compares, or says something else."""
    sure: list[str] = []
    doubted: list[str] = []
    for sentence in _SENTENCE.split(_plain(line)):
        kept, left = _split(sentence)
        if not kept and sure and left and len(sentence.split()) <= _LONGEST_AFTERTHOUGHT and not _OPENS.match(sentence):
            return frozenset()
        sure += kept
        doubted += left
    disputed = {phrase.rivals for phrase in _phrases() if any(phrase.pattern.search(part) for part in doubted)} - {""}
    found = [phrase for phrase in _phrases() if any(phrase.pattern.search(part) for part in sure)]
    return frozenset(phrase.code for phrase in found if phrase.code and phrase.rivals not in disputed)


def _split(sentence: str) -> tuple[list[str], list[str]]:
    """The parts of a sentence that are stated outright, and the others. Remarks and ages are in neither."""
    parts = [part for part in _PART.split(sentence) if part and not _AGE.fullmatch(part) and not _REMARK.match(part)]
    for i, part in enumerate(parts):
        if _UNSURE.search(part):
            return (parts[:i], parts[i:]) if _opens(part) else ([], parts)
    return parts, []


def _opens(part: str) -> bool:
    """Whether the doubt in a part is about the part itself and not about what stands before it."""
    either = part.startswith("with ") and not _UNSURE.search(re.sub(r"\bor\b", "", part))  # "with PVC(s) or ..."
    return either or _OPENS.match(part) is not None


def _plain(line: str) -> str:
    """The line in small letters and one spelling, without the marks that machines put around it."""
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
