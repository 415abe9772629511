"""From tokens to items: which words name a statement, which deny or doubt, where a sentence turns.

The longest phrase wins at every place. Between the words of a phrase small words, lead lists, "not" and "possibly" may
stand ("the ST segments in V1-V3 are not elevated"), and joined phrases may share a head or a tail ("left and right
bundle branch block", "atrial fibrillation or flutter").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.leads import lead_runs
from eval.lexicon import GENERAL, Cue, Meaning, corrected, lexicon
from eval.text import BREAK, BULLET, Token, tokens, words


@dataclass(frozen=True)
class Item:
    """One unit of a sentence.

    kind: term, cue, or a mark: and, or, comma, colon, open, close, question, lead, stop, break, bullet, word.
    text: its words. inner: status set by words inside the phrase. verb: the phrase holds its own verb.
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
        """The cue of an item of kind "cue"."""
        assert self.meaning.cue is not None
        return self.meaning.cue


@dataclass(frozen=True)
class _Match:
    sequence: tuple[str, ...]
    start: int
    end: int
    inner: str = ""
    verb: bool = False


_VERBS = set(words("is are was were be been being appear show remain look seem become demonstrate have has"))
_FILL = _VERBS | set(
    words(
        "the a an of to very mild mildly moderate moderately marked markedly slight slightly minor minimal minimally "
        "significant significantly deep deeply diffuse diffusely widespread symmetric symmetrical symmetrically subtle "
        "small clear clearly also both old new acute subacute recent chronic prior previous evolving early global "
        "ist sind die der das ms mv mm some any typical frequent occasional isolated single multiple rare few "
        "approximately about by segment wave upright interval noted alter alte akuter frischer all quite somewhat "
        "abnormally"
    )
)
_DENY = set(words("not no neither never without nor kein keine nicht"))
_DOUBT = set(words("possible possibly probable probably likely maybe perhaps borderline questionable may might could"))
_MAX_FILL = 6
_JOIN = {"and": "and", "plus": "and", "/": "and", "or": "or", "nor": "or", "versus": "or", ",": "comma"}
_MARKS = {
    **_JOIN, ":": "colon", "=": "colon", "|": "colon", "→": "colon", "(": "open", "[": "open", "{": "open",
    ")": "close", "]": "close", "}": "close", "?": "question", BREAK: "break", BULLET: "bullet",
}  # fmt: skip


def scan(answer: str) -> list[Item]:
    """All items of an answer in their order."""
    found = [Token(corrected(t.text), t.start, t.end, t.code) for t in tokens(answer)]
    runs = lead_runs(found)
    items: list[Item] = []
    i = 0
    while i < len(found):
        best = _longest(found, i, runs)
        shared = _shared_tail(found, i, len(best.sequence) if best else 0)
        if shared:
            items += shared[0]
            i = shared[1]
        elif best:
            items.append(_item(best, found))
            i = best.end
            if not items[-1].meaning.cue:
                extra, i = _shared_head(found, best, runs)
                items += extra
        elif i in runs:
            items.append(Item("lead", "", found[i].start, found[runs[i] - 1].end))
            i = runs[i]
        else:
            items.append(_single(found[i]))
            i += 1
    return items


def _item(match: _Match, found: Sequence[Token]) -> Item:
    meaning = lexicon().meanings[match.sequence]
    kind = "term"
    if meaning.cue:
        kind = "stop" if meaning.cue.kind == "stop" else "cue"
    start, end = found[match.start].start, found[match.end - 1].end
    return Item(kind, " ".join(match.sequence), start, end, meaning, match.inner, match.verb)


def _single(token: Token) -> Item:
    if token.code:
        return Item("term", token.text, token.start, token.end, Meaning(codes=(token.code,)))
    return Item(_MARKS.get(token.text, "word"), token.text, token.start, token.end)


def _longest(found: Sequence[Token], i: int, runs: dict[int, int]) -> _Match | None:
    """The phrase or cue with the most words that starts at token i."""
    book = lexicon()
    for sequence in book.by_first.get(found[i].text, ()):
        match = _match(sequence, found, i, runs, loose=book.meanings[sequence].cue is None)
        if match and _allowed(book.meanings[sequence], found, match):
            return match
    return None


def _match(
    sequence: tuple[str, ...], found: Sequence[Token], i: int, runs: dict[int, int], loose: bool = True
) -> _Match | None:
    """Match `sequence` from token i on; when `loose`, small words may stand between its words."""
    j, inner, verb = i, "", False
    for wanted in sequence:
        skipped = 0
        while j < len(found) and found[j].text != wanted:
            text = found[j].text
            if not loose or j == i or skipped >= _MAX_FILL:
                return None
            if j in runs:
                j = runs[j]
            elif text in _DENY:
                inner, j = "absent", j + 1
            elif text in _DOUBT:
                inner, j = inner or "uncertain", j + 1
            elif text in _FILL or text.isdigit() or text == ":":
                verb, j = verb or text in _VERBS, j + 1
            else:
                return None
            skipped += 1
        if j >= len(found):
            return None
        j += 1
    return _Match(sequence, i, j, inner, verb)


def _allowed(meaning: Meaning, found: Sequence[Token], match: _Match) -> bool:
    """Phrases for a whole sentence ("Normal.") only count at its start, or at its end."""
    before = found[match.start - 1].text if match.start else BREAK
    after = found[match.end].text if match.end < len(found) else BREAK
    if meaning.at_start and before not in (BREAK, BULLET, '"'):
        return False
    return not meaning.at_end or after in (BREAK, BULLET, '"')


def _shared_tail(found: Sequence[Token], i: int, longer_than: int) -> tuple[list[Item], int] | None:
    """ "left and right bundle branch block", "low or inverted T waves": heads A, B ... with one common tail."""
    book = lexicon()
    for length in (1, 2, 3):
        head = tuple(t.text for t in found[i : i + length])
        tails = book.by_prefix.get(head)
        if not tails or i + length >= len(found) or found[i + length].text not in _JOIN:
            continue
        for tail in sorted(tails, key=len, reverse=True):
            if len(head + tail) <= longer_than:
                break
            chain = _chain(found, i, length, tail)
            if chain:
                return chain
    return None


def _chain(found: Sequence[Token], i: int, length: int, tail: tuple[str, ...]) -> tuple[list[Item], int] | None:
    """Follow "A, B or C tail" from token i; every head must make a phrase with the tail."""
    book = lexicon()
    heads = [(i, i + length)]
    joins: list[Token] = []
    at = i + length
    while at < len(found) and found[at].text in _JOIN and len(heads) < 5:
        joins.append(found[at])
        at += 1
        if at < len(found) and found[at].text in ("and", "or"):  # "A, B, or C"
            joins[-1] = found[at]
            at += 1
        for width in (3, 2, 1):
            head = tuple(t.text for t in found[at : at + width])
            if head + tail in book.meanings and not book.meanings[head + tail].cue:
                heads.append((at, at + width))
                at += width
                break
        else:
            return None
        rest = tuple(t.text for t in found[at : at + len(tail)])
        if rest == tail:
            return _chain_items(found, heads, joins, tail, at + len(tail))
    return None


def _chain_items(
    found: Sequence[Token], heads: list[tuple[int, int]], joins: list[Token], tail: tuple[str, ...], end: int
) -> tuple[list[Item], int]:
    items: list[Item] = []
    for n, (first, last) in enumerate(heads):
        if n:
            items.append(_single(joins[n - 1]))
        sequence = tuple(t.text for t in found[first:last]) + tail
        stop = found[end - 1].end if n == len(heads) - 1 else found[last - 1].end
        items.append(Item("term", " ".join(sequence), found[first].start, stop, lexicon().meanings[sequence]))
    return items, end


def _shared_head(found: Sequence[Token], first: _Match, runs: dict[int, int]) -> tuple[list[Item], int]:
    """ "atrial fibrillation or flutter", "ST elevation, depression": tails that borrow the first phrase's head."""
    book = lexicon()
    items: list[Item] = []
    end = first.end
    while end < len(found):
        at = runs.get(end, end)
        if at + 1 >= len(found) or found[at].text not in _JOIN:
            break
        join = at
        at += 1
        if found[at].text in ("and", "or") and at + 1 < len(found):
            join, at = at, at + 1
        alone = _longest(found, at, runs)
        matched = None
        for cut in range(len(first.sequence) - 1, 0, -1):
            tails = sorted(book.by_prefix.get(first.sequence[:cut], ()), key=len, reverse=True)
            matched = next((t for t in tails if t == tuple(x.text for x in found[at : at + len(t)])), None)
            # A comma alone only carries a short tail over: "ST elevation, depression", not a new clause.
            if matched and (found[join].text != "," or (len(matched) <= 2 and not first.verb)):
                rival = len(alone.sequence) if alone else 0
                if rival < len(matched) or (rival == len(matched) and _general(alone)):
                    break
            matched = None
        if not matched:
            break
        sequence = first.sequence[:cut] + matched
        last = at + len(matched)
        items.append(_single(found[join]))
        items.append(Item("term", " ".join(sequence), found[at].start, found[last - 1].end, book.meanings[sequence]))
        end = last
    return items, end


def _general(match: _Match | None) -> bool:
    meaning = lexicon().meanings[match.sequence] if match else Meaning()
    return not (meaning.codes or meaning.denied or meaning.cue)
