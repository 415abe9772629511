"""Coordinated phrases that share a head or a tail: "left and right bundle branch block", "fibrillation or flutter"."""

from __future__ import annotations

from eval.parser.chunk import JOIN, Chunk, TokenizedText, is_general, token_chunk
from eval.parser.lexicon import GENERAL, lexicon
from eval.parser.phrase_matcher import Match, longest_match
from eval.parser.tokenizer import Token

_MAX_HEADS = 5
_JOINTS = {*JOIN, ",", "but", "(", "rather", "not"}
"""Joins, and first words of what `_contrast` takes."""
_ARTICLES = {"a", "an", "the"}
_CHAIN_REACH = _MAX_HEADS * 8  # tokens; a join has 4 at most ("but rather than a"), a head 3, and a comma after it


def shared_tail(text: TokenizedText, i: int, longer_than: int) -> tuple[list[Chunk], int] | None:
    """ "left and right bundle branch block", "low or inverted T waves": heads A, B ... with one common tail."""
    if _JOINTS.isdisjoint(text.words[i + 1 : i + 4]):
        return None
    entries = lexicon()
    for length in (1, 2, 3):
        at = i + length
        if at >= len(text.words) or text.words[at] not in _JOINTS:
            continue
        head = tuple(text.words[i:at])
        tails = entries.by_prefix.get(head)
        if not tails or head in entries.meanings or not (text.words[at] in JOIN or _contrast(text, at)):
            continue
        ahead = set(text.words[at : at + _CHAIN_REACH])
        for tail in tails:
            if len(head + tail) <= longer_than:
                break
            if tail[0] not in ahead:
                continue
            chain = _chain(text, i, length, tail)
            if chain:
                return chain
    return None


def _chain(text: TokenizedText, i: int, length: int, tail: tuple[str, ...]) -> tuple[list[Chunk], int] | None:
    """Follow "A, B or C tail" from token i; every head must make a phrase with the tail."""
    entries = lexicon()
    heads = [(i, i + length)]
    joins: list[Token] = []
    at = i + length
    while at < len(text.words) and (text.words[at] in JOIN or _contrast(text, at)) and len(heads) < _MAX_HEADS:
        against = _contrast(text, at)
        joins.append(text.tokens[at]._replace(text="not") if against else text.tokens[at])
        at = against or at + 1
        if at < len(text.words) and text.words[at] in ("and", "or", "nor"):  # "A, B, or C"
            joins[-1] = text.tokens[at]
            at += 1
        at += at < len(text.words) and text.words[at] in _ARTICLES  # "neither a left nor a right bundle branch block"
        for width in (3, 2, 1):
            head = tuple(text.words[at : at + width])
            if head + tail in entries.meanings and not entries.meanings[head + tail].cue:
                heads.append((at, at + width))
                at += width
                break
        else:
            return None
        if joins[-1].text in (",", "but", "not", "rather") and at < len(text.words) and text.words[at] in (",", ")"):
            at += 1  # "left, but not right, ventricular hypertrophy", "left (not right) bundle branch block"
        rest = tuple(text.words[at : at + len(tail)])
        if rest == tail:
            return _chain_items(text, heads, joins, tail, at + len(tail))
    return None


def _contrast(text: TokenizedText, i: int) -> int:
    """The end of "rather than a" or "not" from token i on, or 0: what follows it is negated."""
    while (
        i + 1 < len(text.words) and text.words[i] in (",", "but", "(") and text.words[i + 1] in ("but", "not", "rather")
    ):
        i += 1
    plain = text.words[i : i + 3]
    end = i + 2 if plain[:2] == ["rather", "than"] else i + 1 if plain[:1] == ["not"] else 0
    return end + 1 if end and end < len(text.words) and text.words[end] in _ARTICLES else end


def _chain_items(
    text: TokenizedText, heads: list[tuple[int, int]], joins: list[Token], tail: tuple[str, ...], end: int
) -> tuple[list[Chunk], int]:
    chunks: list[Chunk] = []
    for n, (first, last) in enumerate(heads):
        if n:
            join = joins[n - 1]
            meaning = lexicon().meanings.get((join.text,), GENERAL)
            chunks.append(Chunk("cue", "not", join.start, join.end, meaning) if meaning.cue else token_chunk(join))
        sequence = tuple(text.words[first:last]) + tail
        stop = text.tokens[end - 1].end if n == len(heads) - 1 else text.tokens[last - 1].end
        chunks.append(Chunk("term", " ".join(sequence), text.tokens[first].start, stop, lexicon().meanings[sequence]))
    return chunks, end


def shared_head(text: TokenizedText, first: Match) -> tuple[list[Chunk], int]:
    """ "atrial fibrillation or flutter", "ST elevation, depression": tails that borrow the first phrase's head."""
    entries = lexicon()
    chunks: list[Chunk] = []
    end = first.end
    while end < len(text.words):
        at = text.lead_lists.get(end, end)
        if at + 1 >= len(text.words) or text.words[at] not in JOIN:
            break
        join = at
        at += 1
        if text.words[at] in ("and", "or") and at + 1 < len(text.words):
            join, at = at, at + 1
        alone = longest_match(text.words, at, text.lead_lists)
        tail = None
        for cut in range(len(first.sequence) - 1, 0, -1):
            tails = entries.by_prefix.get(first.sequence[:cut], ())
            tail = next((t for t in tails if t == tuple(text.words[at : at + len(t)])), None)
            # After a comma alone only a short tail can follow: "ST elevation, depression", not a new clause.
            if tail and (text.words[join] != "," or (len(tail) <= 2 and not first.verb)):
                rival = len(alone.sequence) if alone else 0
                if rival < len(tail) or (rival == len(tail) and is_general(alone)):
                    break
            tail = None
        if not tail:
            break
        sequence = first.sequence[:cut] + tail
        last = at + len(tail)
        chunks.append(token_chunk(text.tokens[join]))
        start, stop = text.tokens[at].start, text.tokens[last - 1].end
        chunks.append(Chunk("term", " ".join(sequence), start, stop, entries.meanings[sequence]))
        end = last
    return chunks, end
