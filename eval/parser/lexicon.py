"""The two tables of the parser: `phrases.csv` (what names a statement) and `cues.csv` (what denies or doubts it).

Patterns in both tables: `[word]` may be missing, `one/other` are alternatives for one word. A phrase without a code
names something more general than any statement ("myocardial infarction", "abnormal ECG"): it is recognised, takes part
in lists, and sets nothing. A code with a leading `!` says the opposite ("normal PR interval" denies LPR).
`IRBBB unless CRBBB`: a sign that only names the first where the second is not named ("rSr' in V1").
`^` at the head of a phrase: only at the start of a sentence; `$` at its end: only at the end of one, or of a clause.
"""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files

from eval.parser.tokens import word_tuple
from render.statements import STATEMENTS


@dataclass(frozen=True)
class Cue:
    """kind: one of those explained at the head of cues.csv; side: before, after, both, or "" where it has none."""

    kind: str
    side: str


@dataclass(frozen=True)
class Meaning:
    """What a word sequence means: statements it names, statements it denies, or a cue. All empty: a general term."""

    codes: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    cue: Cue | None = None
    at_start: bool = False
    at_end: bool = False
    unless: str = ""


GENERAL = Meaning()
"""Names something, but no statement."""


@dataclass
class Lexicon:
    """Word sequences with their meanings, ready for lookup.

    by_first: first word -> sequences, longest first. by_prefix: leading words -> remainders that complete a phrase.
    """

    meanings: dict[tuple[str, ...], Meaning] = field(default_factory=dict)
    by_first: dict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))
    by_prefix: dict[tuple[str, ...], set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))
    vocabulary: frozenset[str] = frozenset()

    def add(self, sequence: tuple[str, ...], meaning: Meaning) -> None:
        """Add a sequence; a second row with the same words adds its codes to the first."""
        old = self.meanings.get(sequence)
        if old and not old.cue:
            codes = tuple(sorted({*old.codes, *meaning.codes}))
            denied = tuple(sorted({*old.denied, *meaning.denied}))
            meaning = Meaning(codes, denied, None, meaning.at_start, meaning.at_end, meaning.unless)
        self.meanings[sequence] = meaning

    def index(self) -> None:
        """Build the lookups; call once after the last `add`."""
        for sequence, meaning in self.meanings.items():
            self.by_first[sequence[0]].append(sequence)
            if not meaning.cue:
                for cut in range(1, len(sequence)):
                    self.by_prefix[sequence[:cut]].add(sequence[cut:])
        for sequences in self.by_first.values():
            sequences.sort(key=len, reverse=True)
        self.vocabulary = frozenset(w for sequence in self.meanings for w in sequence)


@cache
def lexicon() -> Lexicon:
    """Both tables, read once. Raises ValueError naming the row for an unknown code or kind."""
    out = Lexicon()
    for row in _rows("phrases.csv"):
        at_start, at_end = row["phrase"].startswith("^"), row["phrase"].endswith("$")
        name, _, unless = row["code"].removeprefix("!").partition(" unless ")
        if (name and name not in STATEMENTS) or (unless and unless not in STATEMENTS):
            raise ValueError(f"phrases.csv: unknown code {name!r} for {row['phrase']!r}")
        codes = (name,) if name else ()
        denies = row["code"].startswith("!")
        meaning = Meaning(() if denies else codes, codes if denies else (), None, at_start, at_end, unless)
        for sequence in expand(row["phrase"].strip("^$")):
            out.add(sequence, meaning)
    for row in _rows("cues.csv"):
        if row["kind"] not in _KINDS or row["side"] not in _SIDES:
            raise ValueError(f"cues.csv: {row['kind']!r} {row['side']!r} for {row['phrase']!r}")
        for sequence in expand(row["phrase"]):
            out.add(sequence, Meaning(cue=Cue(row["kind"], row["side"])))
    out.index()
    return out


_LONGEST = 40  # letters; longer words are no words
_KINDS = ("absent", "uncertain", "present", "ignore", "drop", "void", "ask", "claim", "past", "echo", "stop")
_SIDES = ("before", "after", "both", "")


def expand(pattern: str) -> list[tuple[str, ...]]:
    """All word sequences of a pattern: `[old] inferior/diaphragmatic mi` -> four of them."""
    choices: list[list[tuple[str, ...]]] = []
    for part in pattern.split():
        optional = len(part) > 2 and part.startswith("[") and part.endswith("]")
        bare = part[1:-1] if optional else part
        options = [word_tuple(option) for option in (bare.split("/") if len(bare) > 1 else [bare])]
        choices.append([*options, ()] if optional else options)
    found = {sum(chosen, ()) for chosen in itertools.product(*choices)}
    return sorted(sequence for sequence in found if sequence)


@lru_cache(maxsize=1 << 14)
def corrected(text: str) -> str:
    """A word that is one slip away from exactly one word of the tables, put right.

    From 8 letters on a slip is a letter too many, missing, wrong, or two swapped; at 5 to 7 letters only the swap.
    Shorter words are left alone: "bundel" is "bundle", but "left" and "lift" are two words.
    """
    if not 5 <= len(text) <= _LONGEST or text in lexicon().vocabulary or not text.isalpha():
        return text
    swapped = {text[:k] + text[k + 1] + text[k] + text[k + 2 :] for k in range(len(text) - 1)}
    near = [w for w in _long_words() if w in swapped or (min(len(w), len(text)) >= 8 and _one_slip(text, w))]
    return near[0] if len(near) == 1 else text


@cache
def _long_words() -> tuple[str, ...]:
    return tuple(sorted(w for w in lexicon().vocabulary if len(w) >= 5 and w.isalpha()))


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter too many, missing or wrong parts a from b."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    i = next((k for k in range(len(a)) if a[k] != b[k]), len(a))
    if len(a) < len(b):
        return a[i:] == b[i + 1 :]
    return a[i + 1 :] == b[i + 1 :]


def _rows(name: str) -> list[dict[str, str]]:
    with (files("eval.parser") / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(row for row in file if not row.startswith("#")))
