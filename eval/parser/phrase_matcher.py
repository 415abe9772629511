"""Matching the phrases of the tables against tokens: the longest wins, and small words may occur inside."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from eval.parser.lexicon import Meaning, lexicon
from eval.parser.tokenizer import BREAK, BULLET, word_tuple


@dataclass(frozen=True)
class Match:
    """A phrase at tokens start to end. inner: status set by words inside it. verb: it contains its own verb."""

    sequence: tuple[str, ...]
    start: int
    end: int
    inner: str = ""
    verb: bool = False


_VERBS = set(word_tuple("is are was were be been being appear show remain look seem become demonstrate have has"))
_FILL = _VERBS | set(
    word_tuple(
        "the a an of to very mild mildly moderate moderately marked markedly slight slightly minor minimal minimally "
        "significant significantly deep deeply diffuse diffusely widespread symmetric symmetrical symmetrically subtle "
        "small clear clearly also both old new acute subacute recent chronic prior previous evolving early global "
        "ist sind die der das ms mv mm some any typical frequent occasional isolated single multiple rare few "
        "approximately about by segment wave upright interval noted alter alte akuter frischer all quite somewhat "
        "abnormally located seen visible evident "
        "horizontal downsloping upsloping upward convex concave new possible further intermittent localized "
        "fairly broadly transient profound prominent now still again "
        "est es sont son esta estan nettement claramente le la los las les un une una"
    )
)
# May occur inside a cue: "could also be", "is not clearly seen", "can not be entirely excluded".
_ADVERBS = set(
    word_tuple(
        "also entirely completely fully totally absolutely clearly definitely definitively reliably safely confidently "
        "currently actually simply really readily easily obviously convincingly quite very just then "
        "therefore still strongly highly formally adequately properly further even here be been best well now "
        "sicher ganz eindeutig vollstaendig voellig sichere sicheren eindeutige eindeutigen"
    )
)
_DENY = set(word_tuple("not no neither never without nor kein keine nicht"))
_DOUBT = set(
    word_tuple("possible possibly probable probably likely maybe perhaps borderline questionable may might could")
)
_MAX_FILL = 6
_AHEAD = 60  # tokens; no phrase with all its gaps is longer
_MAX_ASIDE = 5


def longest_match(texts: Sequence[str], i: int, lead_lists: dict[int, int]) -> Match | None:
    """The phrase or cue with the most words that starts at token i."""
    entries = lexicon()
    sequences = entries.by_first.get(texts[i])
    if not sequences:
        return None
    by_last = entries.by_ends[texts[i]]
    ahead = texts[i : i + _AHEAD]
    if BREAK in ahead and "(" not in ahead:  # only a remark in brackets may span lines inside a phrase
        ahead = ahead[: ahead.index(BREAK)]
    words = set(ahead)
    ends = by_last.keys() & words
    for rank in sorted(itertools.chain.from_iterable(by_last[last] for last in ends)):
        sequence = sequences[rank]
        if len(sequence) > 2 and sequence[1] not in words:
            continue
        meaning = entries.meanings[sequence]
        match = _match(sequence, texts, i, lead_lists, loose=meaning.cue is None)
        if match and _position_fits(meaning, texts, match) and not _cuts_phrase(texts, match):
            return match
    return None


def _cuts_phrase(texts: Sequence[str], match: Match) -> bool:
    """Whether a match with gaps takes the first word of a longer phrase ("QRS - normal sinus rhythm")."""
    if match.end - match.start == len(match.sequence) or len(match.sequence) < 2:
        return False
    last = match.end - 1
    return any(
        rest == tuple(texts[last : last + len(rest)])
        for rest in lexicon().by_start.get(tuple(texts[last : last + 2]), ())
    )


def _match(
    sequence: tuple[str, ...], texts: Sequence[str], i: int, lead_lists: dict[int, int], loose: bool = True
) -> Match | None:
    """Match `sequence` from token i on; small words may occur between its words: adverbs, and more if `loose`."""
    j, inner, verb = i, "", False
    for word in sequence:
        gap = 0
        while j < len(texts) and texts[j] != word:
            text = texts[j]
            if j == i or gap >= _MAX_FILL or not (loose or text in _ADVERBS):
                return None
            if not loose:
                j += 1
            elif text == "(" and (close := _aside(texts, j)):
                j = close
            elif j in lead_lists:
                j = lead_lists[j]
            elif text in _DENY:
                inner, j = "absent", j + 1
            elif text in _DOUBT:
                inner, j = inner or "uncertain", j + 1
            elif (
                text in _FILL
                or text.isdigit()
                or text == ":"
                or (text == "/" and texts[j - 1].isdigit())
                or (text in "|?" and sequence[0] == "rhythm")
            ):
                verb, j = verb or text in _VERBS, j + 1
            else:
                return None
            gap += 1
        if j >= len(texts):
            return None
        j += 1
    return Match(sequence, i, j, inner, verb)


def _aside(texts: Sequence[str], i: int) -> int:
    """The end of a short remark in brackets from token i on ("third-degree (complete) heart block"), or 0."""
    for k in range(i + 1, min(i + _MAX_ASIDE, len(texts))):
        if texts[k] == ")":
            return k + 1
    return 0


def _position_fits(meaning: Meaning, texts: Sequence[str], match: Match) -> bool:
    """Phrases for a whole sentence ("Normal.") only count at its start, or at its end."""
    before = texts[match.start - 1] if match.start else BREAK
    after = texts[match.end] if match.end < len(texts) else BREAK
    if meaning.at_start and before not in (BREAK, BULLET, '"') and before not in _DOUBT:
        return False
    return not meaning.at_end or after in (BREAK, BULLET, '"', ",", "?", ")", "|", "at", "(") or after.isdigit()
