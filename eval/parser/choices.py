"""Multiple choice in words: which options a text lists, and which letters an answer picks.

Letters are read where an answer is expected ("B", "(B)", "the correct answer is B", "A and D", "Option C"), never from
running text, so that "a normal ECG" does not pick A.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One lettered option; start, end: place of its mark and text together."""

    letter: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Pick:
    """One letter and the answer's verdict on it. correct: picked, else rejected; start, end: place of the words."""

    letter: str
    correct: bool
    start: int
    end: int


_MARK = re.compile(r"(?:(?<=[\s*_,;:?(])|^)(?:\(([A-Ha-h])\)|\[([A-H])\]|([A-H])[.):]|([a-h])\))\**[ \t]+(?=\S)", re.M)
_OPTION_END = re.compile(r"\n|[.)](?=[\s,]+[A-Za-z])")
# The bounds of repeated marks keep the time linear: adjacent patterns share the star.
_LETTER = r"[(\[*\"']{0,8}([A-H])\b(?!')[)\]*\"'.]{0,8}"
_AND = r"\s*(?:,\s*and|,|and|or|und|&|/|\+)\s*(?:option\s+)?"
_NOUN = r"(?:answers?|options?|choices?|antwort(?:en)?|choose|chose|select(?:ed)?|pick(?:ed)?|go with|loesung|lösung)"
_LINK = r"(?:\s+(?:(?:would|should|must) be|is|are|ist|sind|options?|choices?|answer|one|the|letter|correct))*"
_LETTER_AFTER_NOUN = re.compile(
    rf"\b(?:{_NOUN}|correct|best|right|richtig(?:e)?)\b{_LINK}[\s:=\-–*]{{0,40}}{_LETTER}", re.I
)
_ALONE = re.compile(
    rf"^\W{{0,40}}(?:both\s+)?{_LETTER}(?={_AND}[(\[*]*[A-H]\b|\s*(?:$|[\n:;,–-]|is\b|are\b|because\b|since\b|as\b))",
    re.I,
)
_SINGLE = re.compile(r"^\W*([a-h])\W*$", re.IGNORECASE)
_LETTER_WITH_MARK = re.compile(r"^\s*[*_]*[(\[]?([A-Ha-h])[*_]*[)\].:][)*_]*(?=\s|$)")
_MORE = re.compile(rf"{_AND}{_LETTER}")
_WRONG = re.compile(
    rf"{_LETTER}\s+(?:is|are|ist|was)\s+(?:wrong|incorrect|false|not|falsch|excluded|ruled out|unlikely)", re.IGNORECASE
)
_NOT = re.compile(rf"\b(?:not|nicht)\s+(?:option\s+)?{_LETTER}")
_NONE = re.compile(r"\b(?:none|neither|keine[rs]?)(?:\s+(?:of|der|von))?\b(?!\s+\w+\s+\w+\s+\w+)", re.IGNORECASE)
_ALL = re.compile(r"\ball\s+of\s+(?:the\s+above|these|them|the\s+options)\b", re.IGNORECASE)
_VERDICT = re.compile(r"\b(?:answers?|correct|choose|select|pick|antwort|richtig)\b", re.IGNORECASE)


def options_in(text: str) -> tuple[Option, ...]:
    """The options "A. ... B. ..." of a text in their order; empty when there are fewer than two from A on."""
    marks: list[tuple[str, re.Match[str]]] = []
    for match in _MARK.finditer(text):
        letter = next(g for g in match.groups() if g).upper()
        if letter == chr(ord("A") + len(marks)):
            marks.append((letter, match))
    if len(marks) < 2:
        return ()
    out = []
    for n, (letter, match) in enumerate(marks):
        end = marks[n + 1][1].start() if n + 1 < len(marks) else len(text)
        stop = _OPTION_END.search(text, match.end(), end)
        end = stop.start() if stop else end
        out.append(Option(letter, text[match.end() : end].strip(" \t*_;,"), match.start(), end))
    return tuple(out)


def letter_picks(answer: str, options: Sequence[Option]) -> tuple[Pick, ...]:
    """The letters that `answer` picks or rejects among `options`; of two picks of one letter the first."""
    letters = [o.letter for o in options]
    picks = [Pick(m[1].upper(), False, *m.span()) for regex in (_WRONG, _NOT) for m in regex.finditer(answer)]
    for m in _NOT.finditer(answer):
        picks += _list_letters(answer, m.end(), False)
    wrong_letters = {p.letter for p in picks}
    head = _LETTER_AFTER_NOUN.search(answer) or _ALONE.match(answer) or _LETTER_WITH_MARK.match(answer)
    head = _SINGLE.match(answer) or head
    if head and (head.re is _SINGLE or _is_letter(answer, head)):
        picks.append(Pick(head[1].upper(), True, *head.span()))
        picks += _list_letters(answer, head.end(), True)
    elif match := _ALL.search(answer):
        picks += [Pick(letter, True, *match.span()) for letter in letters]
    elif match := _NONE.search(answer):
        picks += [Pick(letter, False, *match.span()) for letter in letters]
    consistent = [p for p in picks if p.letter in letters and not (p.correct and p.letter in wrong_letters)]
    out = {p.letter: p for p in reversed(consistent)}
    return tuple(out[letter] for letter in letters if letter in out)


def _list_letters(answer: str, end: int, correct: bool) -> list[Pick]:
    """The letters that continue a list at `end`: ", C and D"."""
    picks = []
    while more := _MORE.match(answer, end):
        picks.append(Pick(more[1].upper(), correct, more.start(1), more.end(1)))
        end = more.end()
    return picks


def without_options(answer: str) -> str:
    """The answer with a repeated list of options replaced by spaces where it also picks one; else unchanged.

    The length is the same, so that positions in the text are. A pick by name counts, too ("Answer: LBBB").
    """
    options = options_in(answer)
    if len(options) < 3:
        return answer
    before, after = answer[: options[0].start], answer[options[-1].end :]
    if not _VERDICT.search(after) and not (_LETTER_AFTER_NOUN.search(before)):
        return answer
    start, end = options[0].start, options[-1].end
    return before + re.sub(r"[^\n]", " ", answer[start:end]) + after


def _is_letter(answer: str, match: re.Match[str]) -> bool:
    """Whether a match is an option letter: a capital or in brackets, and no article ("Answer: a normal ECG")."""
    start, end = match.span(1)
    has_mark = end < len(answer) and answer[end] in ")]." and answer[end : end + 2] != ".."
    return (
        has_mark
        or (answer[start].isupper() and not re.match(r"\s+(?!because|since)[a-z]{3,}\s+[a-z]", answer[end:]))
        or (answer[start].isupper() and answer[start] != "A")
    )
