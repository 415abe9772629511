"""The tables of the parser: `phrases.csv` (what names a statement) and `cues.csv` (what denies or doubts it).

`phrases_romance.csv` and `cues_romance.csv` have French, Spanish and Italian ones. Patterns in all tables: `[word]` is
optional, `one/other` are alternatives for one word. A phrase without a code names something more general than any
statement ("myocardial infarction", "abnormal ECG"): it is recognised, can be part of a list, and sets no statement. A
code with a leading `!` is the opposite ("normal PR interval" denies LPR). `QWAVE unless CLBBB PACE`: a sign that names
the first only where none of the others is named ("QS in V1"). A leading `^`: only at the start of a sentence; a
trailing `$`: only at the end of a sentence or clause.
"""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Literal

from eval.parser.tokenizer import word_tuple
from render.statements import STATEMENTS

Status = Literal["present", "absent", "uncertain"]


@dataclass(frozen=True)
class Cue:
    """kind: one of those explained at the top of cues.csv; side: before, after, both, or "" where it has none."""

    kind: str
    side: str

    @property
    def status(self) -> Status | None:
        """The status that the cue gives to a finding, or None."""
        return _STATUS_OF_KIND.get(self.kind)


_STATUS_OF_KIND: dict[str, Status] = {
    "present": "present", "absent": "absent", "uncertain": "uncertain", "assertive": "present"
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What a word sequence means: codes of statements it names, of statements it denies, or a cue.

    All empty: a general term. at_start, at_end: valid only there in a sentence. unless: see the module's docstring.
    """

    codes: tuple[str, ...] = ()
    opposites: tuple[str, ...] = ()
    cue: Cue | None = None
    at_start: bool = False
    at_end: bool = False
    unless: tuple[str, ...] = ()


GENERAL = Meaning()
"""A term that names no statement."""


@dataclass(slots=True)
class Node:
    """The words that may follow some words. sequence: those words, if they are an entry; rank: the longest is first."""

    after: dict[str, Node] = field(default_factory=dict)
    sequence: tuple[str, ...] = ()
    rank: tuple[int, int] = (0, 0)


@dataclass
class Lexicon:
    """Word sequences with their meanings, ready for lookup.

    terms, cues: all sequences as trees, word by word. by_start: first two words -> sequences that are no cues.
    starts: the first words.
    """

    meanings: dict[tuple[str, ...], Meaning] = field(default_factory=dict)
    terms: Node = field(default_factory=Node)
    cues: Node = field(default_factory=Node)
    by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))
    vocabulary: frozenset[str] = frozenset()
    starts: frozenset[str] = frozenset()

    def add(self, sequence: tuple[str, ...], meaning: Meaning) -> None:
        """Add a sequence; a second row with the same words adds its codes to the first."""
        old = self.meanings.get(sequence)
        if old and not old.cue:
            codes = tuple(sorted({*old.codes, *meaning.codes}))
            opposites = tuple(sorted({*old.opposites, *meaning.opposites}))
            meaning = Meaning(codes, opposites, None, meaning.at_start, meaning.at_end, meaning.unless)
        self.meanings[sequence] = meaning

    def index(self) -> None:
        """Build the lookups; call once after the last `add`."""
        for rank, (sequence, meaning) in enumerate(self.meanings.items()):
            node = self.cues if meaning.cue else self.terms
            for word in sequence:
                node = node.after.setdefault(word, Node())
            node.sequence, node.rank = sequence, (-len(sequence), rank)
            if not meaning.cue and len(sequence) > 1:
                self.by_start[sequence[:2]].append(sequence)
        self.starts = frozenset(sequence[0] for sequence in self.meanings)
        self.vocabulary = frozenset(w for sequence in self.meanings for w in sequence)

    @cached_property
    def by_prefix(self) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
        """Leading words -> remainders that complete a phrase, longest first; most questions can do without."""
        rests: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        for sequence, meaning in self.meanings.items():
            for cut in range(1, 1 if meaning.cue or meaning.at_start else len(sequence)):
                rests[sequence[:cut]].append(sequence[cut:])
        for sequences in rests.values():
            sequences.sort(key=len, reverse=True)
        return rests


@cache
def lexicon() -> Lexicon:
    """All tables, read once. Raises ValueError naming the row for an unknown code or kind."""
    out = Lexicon()
    for row in (*_rows("phrases.csv"), *_rows("phrases_romance.csv")):
        at_start, at_end = row["phrase"].startswith("^"), row["phrase"].endswith("$")
        name, _, others = row["code"].removeprefix("!").partition(" unless ")
        unless = tuple(others.split())
        if unknown := {name, *unless} - {"", *STATEMENTS}:
            raise ValueError(f"phrases: unknown code {min(unknown)!r} for {row['phrase']!r}")
        codes = (name,) if name else ()
        denies = row["code"].startswith("!")
        meaning = Meaning(() if denies else codes, codes if denies else (), None, at_start, at_end, unless)
        for sequence in expand(row["phrase"].strip("^$")):
            out.add(sequence, meaning)
    for row in (*_rows("cues.csv"), *_rows("cues_romance.csv")):
        if row["kind"] not in _KINDS or row["side"] not in _SIDES:
            raise ValueError(f"cues.csv: {row['kind']!r} {row['side']!r} for {row['phrase']!r}")
        for sequence in expand(row["phrase"].removesuffix("$")):
            out.add(sequence, Meaning(cue=Cue(row["kind"], row["side"]), at_end=row["phrase"].endswith("$")))
    out.index()
    return out


_MAX_LETTERS = 40  # longer strings are not words
_KINDS = {
    *_STATUS_OF_KIND,
    "termination", "pseudo", "unrelated", "previous", "same", "attribution", "question", "hypothetical", "correction"
}  # fmt: skip
_SIDES = ("before", "after", "both", "")


def expand(pattern: str) -> list[tuple[str, ...]]:
    """All word sequences of a pattern: `[old] inferior/diaphragmatic mi` -> four of them."""
    parts: list[list[tuple[str, ...]]] = []
    for part in pattern.split():
        optional = len(part) > 2 and part.startswith("[") and part.endswith("]")
        bare = part[1:-1] if optional else part
        options = [word_tuple(option) for option in (bare.split("/") if len(bare) > 1 else [bare])]
        parts.append([*options, ()] if optional else options)
    sequences = {sum(combination, ()) for combination in itertools.product(*parts)}
    return sorted(sequence for sequence in sequences if sequence)


@lru_cache(maxsize=1 << 14)
def correct_spelling(text: str) -> str:
    """A word that is one typing error away from exactly one word of the tables, corrected.

    From 8 letters on an error is one letter too many, missing or wrong, or two swapped; at 5 to 7 letters only a swap.
    Shorter words stay as they are: "bundel" is "bundle", but "left" and "lift" are two words.
    """
    if not 5 <= len(text) <= _MAX_LETTERS or text in lexicon().vocabulary or not text.isalpha():
        return text
    swaps = {text[:k] + text[k + 1] + text[k] + text[k + 2 :] for k in range(len(text) - 1)}
    near = [w for w in _long_words() if w in swaps or (min(len(w), len(text)) >= 8 and _one_error(text, w))]
    return near[0] if len(near) == 1 else text


@cache
def _long_words() -> tuple[str, ...]:
    foreign = {
        word
        for name in ("phrases_romance.csv", "cues_romance.csv")
        for row in _rows(name)
        for sequence in expand(row["phrase"])
        for word in sequence
    }
    own = {word for row in _rows("phrases.csv") for sequence in expand(row["phrase"].strip("^$")) for word in sequence}
    return tuple(sorted(w for w in lexicon().vocabulary - (foreign - own) if len(w) >= 5 and w.isalpha()))


def _one_error(a: str, b: str) -> bool:
    """Whether a and b differ by one letter that is too many, missing or wrong."""
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
