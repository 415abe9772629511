"""Chunks, the units of a sentence: a phrase of the tables, a mark, a list of leads, or a single word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from eval.parser.lexicon import GENERAL, Cue, Meaning, lexicon
from eval.parser.phrase_matcher import Match
from eval.parser.tokenizer import BREAK, BULLET, Token


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of an answer. words: their texts; lead_lists: start -> end of every list of leads."""

    tokens: Sequence[Token]
    words: Sequence[str]
    lead_lists: dict[int, int]


class Chunk(NamedTuple):
    """One unit of a sentence.

    kind: term, cue, or a mark: and, or, comma, colon, open, close, question, lead, termination, break, bullet, word.
    text: its words. inner: status set by words inside the phrase. verb: the phrase contains its own verb.
    """

    kind: str
    text: str
    start: int
    end: int
    meaning: Meaning = GENERAL
    inner: str = ""
    verb: bool = False

    @property
    def cue(self) -> Cue:
        """The cue of a chunk of kind "cue"."""
        assert self.meaning.cue is not None
        return self.meaning.cue


JOIN = {
    "and": "and", "plus": "and", "y": "and", "/": "and", "or": "or", "nor": "or", "ni": "or", "versus": "or",
    ",": "comma",
}  # fmt: skip
"""Words and marks that join the parts of a list, and their kind of chunk."""
_MARKS = {
    **JOIN, ">": "or", ":": "colon", "=": "colon", "|": "colon", "→": "colon", "(": "open", "[": "open", "{": "open",
    ")": "close", "]": "close", "}": "close", "?": "question", BREAK: "break", BULLET: "bullet",
}  # fmt: skip


def match_chunk(match: Match, text: TokenizedText) -> Chunk:
    meaning = lexicon().meanings[match.sequence]
    kind = "term"
    if meaning.cue:
        kind = "termination" if meaning.cue.kind == "termination" else "cue"
    start, end = text.tokens[match.start].start, text.tokens[match.end - 1].end
    return Chunk(kind, " ".join(match.sequence), start, end, meaning, match.inner, match.verb)


def token_chunk(token: Token) -> Chunk:
    if token.code:
        return Chunk("term", token.text, token.start, token.end, Meaning(codes=(token.code,)))
    return Chunk(_MARKS.get(token.text, "word"), token.text, token.start, token.end)


def is_general(match: Match | None) -> bool:
    meaning = lexicon().meanings[match.sequence] if match else Meaning()
    return not (meaning.codes or meaning.opposites or meaning.cue)
