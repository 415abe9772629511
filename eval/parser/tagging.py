"""From tokens to items: which words name a statement, which deny or doubt, where a sentence turns.

The longest phrase wins at every place. Between the words of a phrase small words, lead lists, "not" and "possibly" may
stand ("the ST segments in V1-V3 are not elevated"), and joined phrases may share a head or a tail ("left and right
bundle branch block", "atrial fibrillation or flutter").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.parser.leads import lead_runs
from eval.parser.lexicon import GENERAL, Cue, Meaning, corrected, lexicon
from eval.parser.phrase_match import Match, longest
from eval.parser.tokens import BREAK, BULLET, Token, tokens, word_tuple


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


# A word that says something of the wave or interval named before it in the sentence.
_TOPICS = set(word_tuple("st t p q r qrs qt qtc pr pq axis voltage"))
_STATES = set(
    word_tuple(
        "elevation elevated raised depression depressed inverted inversion flipped flat flattened flattening prolonged "
        "lengthened long low negative verlaengert abgeflacht negativ negativiert invertiert gesenkt gehoben angehoben"
    )
)
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
    topic = ""
    i = 0
    while i < len(found):
        best = longest(found, i, runs) or _of_topic(found, i, topic)
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
        topic = _topic(topic, items[-1], found[i].text if i < len(found) else BREAK)
    return items


def _topic(topic: str, item: Item, following: str) -> str:
    """The wave or interval spoken of after `item`; it ends with the sentence, unless "they" or a heading carries it."""
    if item.kind in ("break", "bullet") and following not in ("they", "these", "it"):
        return ""
    named = [w for w in item.text.split() if w in _TOPICS] if item.kind in ("term", "word") else []
    return named[-1] if named else topic


def _of_topic(found: Sequence[Token], i: int, topic: str) -> Match | None:
    """ "T waves upright in I but inverted in III": the second state is said of the T waves, too."""
    text = found[i].text
    sequence = (topic, text)
    if text not in _STATES or sequence not in lexicon().meanings:
        return None
    return Match(sequence, i, i + 1)


def _item(match: Match, found: Sequence[Token]) -> Item:
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


def _shared_tail(found: Sequence[Token], i: int, longer_than: int) -> tuple[list[Item], int] | None:
    """ "left and right bundle branch block", "low or inverted T waves": heads A, B ... with one common tail."""
    book = lexicon()
    for length in (1, 2, 3):
        head = tuple(t.text for t in found[i : i + length])
        tails = book.by_prefix.get(head)
        at = i + length
        if not tails or at >= len(found) or not (found[at].text in _JOIN or _contrast(found, at)):
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
    while at < len(found) and (found[at].text in _JOIN or _contrast(found, at)) and len(heads) < 5:
        against = _contrast(found, at)
        joins.append(replace(found[at], text="not") if against else found[at])
        at = against or at + 1
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
        if joins[-1].text in (",", "but", "not", "rather") and at < len(found) and found[at].text == ",":
            at += 1  # "left, but not right, ventricular hypertrophy"
        rest = tuple(t.text for t in found[at : at + len(tail)])
        if rest == tail:
            return _chain_items(found, heads, joins, tail, at + len(tail))
    return None


def _contrast(found: Sequence[Token], i: int) -> int:
    """The end of "rather than a" or "not" from token i on, or 0: what follows it is denied."""
    while i + 1 < len(found) and found[i].text in (",", "but") and found[i + 1].text in ("but", "not", "rather"):
        i += 1
    plain = [t.text for t in found[i : i + 3]]
    end = i + 2 if plain[:2] == ["rather", "than"] else i + 1 if plain[:1] == ["not"] else 0
    return end + 1 if end and end < len(found) and found[end].text in ("a", "an", "the") else end


def _chain_items(
    found: Sequence[Token], heads: list[tuple[int, int]], joins: list[Token], tail: tuple[str, ...], end: int
) -> tuple[list[Item], int]:
    items: list[Item] = []
    for n, (first, last) in enumerate(heads):
        if n:
            join = joins[n - 1]
            meaning = lexicon().meanings.get((join.text,), GENERAL)
            items.append(Item("cue", "not", join.start, join.end, meaning) if meaning.cue else _single(join))
        sequence = tuple(t.text for t in found[first:last]) + tail
        stop = found[end - 1].end if n == len(heads) - 1 else found[last - 1].end
        items.append(Item("term", " ".join(sequence), found[first].start, stop, lexicon().meanings[sequence]))
    return items, end


def _shared_head(found: Sequence[Token], first: Match, runs: dict[int, int]) -> tuple[list[Item], int]:
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
        alone = longest(found, at, runs)
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


def _general(match: Match | None) -> bool:
    meaning = lexicon().meanings[match.sequence] if match else Meaning()
    return not (meaning.codes or meaning.denied or meaning.cue)
