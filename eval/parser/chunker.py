"""From tokens to chunks: phrases that name a statement, cues that negate or doubt one, marks, and single words.

At every position the longest phrase wins. Small words, lead lists, "not" and "possibly" may occur between the words of
a phrase ("the ST segments in V1-V3 are not elevated"), and coordinated phrases may share a head or a tail ("left and
right bundle branch block", "atrial fibrillation or flutter").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.parser.leads import lead_runs
from eval.parser.lexicon import GENERAL, Cue, Meaning, correct_spelling, lexicon
from eval.parser.phrase_matcher import Match, longest_match
from eval.parser.territories import territories_after
from eval.parser.tokenizer import BREAK, BULLET, Token, tokenize, word_tuple
from render.statements import STATEMENTS


@dataclass(frozen=True)
class Chunk:
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


# Words that describe the wave or interval named before them in the sentence.
_TOPICS = set(word_tuple("st t p q r qrs qt qtc pr pq axis voltage"))
_HEADING_WORDS = set(word_tuple("wave segment interval complex analysis duration morphology")) | {"|", ":"}
_STATES = set(
    word_tuple(
        "elevation elevated raised depression depressed inverted inversion flipped flat flattened flattening prolonged "
        "lengthened long low negative verlaengert abgeflacht negativ negativiert invertiert gesenkt gehoben angehoben"
    )
)
# What follows a short form that leaves its noun out: "(Is there an infarct?) Yes, inferior."
_SHORT_FORM_ENDS = {BREAK, BULLET, ",", ")", "and", "or", "but", "with"}
_MAX_HEADS = 5
_CHAIN_REACH = _MAX_HEADS * 8  # tokens; a join has 4 at most ("but rather than a"), a head 3, and a comma after it
_JOIN = {"and": "and", "plus": "and", "/": "and", "or": "or", "nor": "or", "versus": "or", ",": "comma"}
_MARKS = {
    **_JOIN, ":": "colon", "=": "colon", "|": "colon", "→": "colon", "(": "open", "[": "open", "{": "open",
    ")": "close", "]": "close", "}": "close", "?": "question", BREAK: "break", BULLET: "bullet",
}  # fmt: skip


def chunk_text(answer: str, subject: Sequence[str] = ()) -> list[Chunk]:
    """All chunks of an answer in their order.

    subject: words of the term that the question is about, to which a short answer may refer ("Yes, a right one.").
    """
    tokens = [t._replace(text=w) if (w := correct_spelling(t.text)) != t.text else t for t in tokenize(answer)]
    lead_lists = lead_runs(tokens)
    chunks: list[Chunk] = []
    topic = ""
    line: list[Chunk] = []
    ellipsis = _Ellipsis(tuple(subject), bool(subject))
    i = 0
    while i < len(tokens):
        best = longest_match(tokens, i, lead_lists) or _of_topic(tokens, i, topic)
        best = ellipsis.match(tokens, i, best) or best
        shared_tail = _shared_tail(tokens, i, len(best.sequence) if best else 0)
        if shared_tail:
            chunks += shared_tail[0]
            i = shared_tail[1]
        elif best:
            new, i = _term_chunks(tokens, best, lead_lists)
            chunks += new
        elif i in lead_lists:
            chunks.append(Chunk("lead", "", tokens[i].start, tokens[lead_lists[i] - 1].end))
            i = lead_lists[i]
        else:
            chunks.append(_token_chunk(tokens[i]))
            i += 1
        line = [] if line and line[-1].kind == "break" else line
        line.append(chunks[-1])
        topic = _topic(topic, line, tokens[i].text if i < len(tokens) else BREAK)
        ellipsis = ellipsis.after(chunks[-1])
    return chunks


@dataclass(frozen=True)
class _Ellipsis:
    """The noun that a short form refers to: "(bundle branch block? Yes,) a complete right one".

    noun: words of the last term. reply: the current sentence follows a question, and may leave the noun out.
    """

    noun: tuple[str, ...] = ()
    reply: bool = False

    def after(self, chunk: Chunk) -> _Ellipsis:
        """The state after one more chunk."""
        if chunk.kind == "term":
            return _Ellipsis(tuple(chunk.text.split()), False)
        if chunk.kind == "question":
            return _Ellipsis(self.noun, True)
        return _Ellipsis(self.noun, False) if chunk.kind == "break" and self.reply else self

    def match(self, tokens: Sequence[Token], i: int, rival: Match | None) -> Match | None:
        """The short form at token i, if it makes a phrase with the noun and is longer than `rival`."""
        if not self.noun:
            return None
        for width in (3, 2, 1):
            following = tokens[i + width].text if i + width < len(tokens) else BREAK
            pronoun = following == "one"
            if not pronoun and not (self.reply and following in _SHORT_FORM_ENDS):
                continue
            end = i + width + pronoun
            sequence = self._phrase(tuple(t.text for t in tokens[i : i + width]))
            if sequence and (not rival or end > rival.end or _is_general(rival)):
                return Match(sequence, i, end)
        return None

    def _phrase(self, adjectives: tuple[str, ...]) -> tuple[str, ...]:
        meanings = lexicon().meanings
        names = [word_tuple(STATEMENTS[code].name) for code in meanings.get(self.noun, GENERAL).codes]
        for noun in (self.noun, *names):
            for k in range(len(noun)):
                sequence = adjectives + noun[k:]
                if sequence in meanings and meanings[sequence].codes:
                    return sequence
        return ()


def _term_chunks(tokens: Sequence[Token], best: Match, lead_lists: dict[int, int]) -> tuple[list[Chunk], int]:
    """The chunks of a match with all phrases that share its head or its noun, and the token after them."""
    first = _match_chunk(best, tokens)
    if first.meaning.cue:
        return [first], best.end
    territories, end = territories_after(tokens, best.sequence, best.end, lead_lists)
    if not territories:
        chunks, end = _shared_head(tokens, best, lead_lists)
        return [first, *chunks], end
    chunks = [first] if territories[0].join else []
    for term in territories:
        last = tokens[term.end - 1].end
        if term.join:
            chunks.append(Chunk(term.join, term.join, tokens[term.start].start, tokens[term.start].start))
        start = tokens[term.start].start if chunks else first.start
        meaning = lexicon().meanings[term.sequence]
        chunks.append(Chunk("term", " ".join(term.sequence), start, last, meaning, first.inner))
    return chunks, end


def _topic(topic: str, line: Sequence[Chunk], following: str) -> str:
    """The wave or interval that is the topic after the last chunk of `line`.

    It ends with the line, unless "they" continues it, or the line is a heading of the next ("T waves").
    """
    chunk = line[-1]
    if chunk.kind in ("break", "bullet") and following not in ("they", "these", "it"):
        is_heading = 1 < len(line) <= 4 and all(c.text in _TOPICS | _HEADING_WORDS for c in line[:-1])
        return topic if is_heading or (chunk.kind == "bullet" and len(line) == 1) else ""
    topics = [w for w in chunk.text.split() if w in _TOPICS] if chunk.kind in ("term", "word") else []
    return topics[-1] if topics else topic


def _of_topic(tokens: Sequence[Token], i: int, topic: str) -> Match | None:
    """ "T waves upright in I but inverted in III": the second state is one of the T waves, too."""
    text = tokens[i].text
    sequence = (topic, text)
    if text not in _STATES or sequence not in lexicon().meanings:
        return None
    return Match(sequence, i, i + 1)


def _match_chunk(match: Match, tokens: Sequence[Token]) -> Chunk:
    meaning = lexicon().meanings[match.sequence]
    kind = "term"
    if meaning.cue:
        kind = "termination" if meaning.cue.kind == "termination" else "cue"
    start, end = tokens[match.start].start, tokens[match.end - 1].end
    return Chunk(kind, " ".join(match.sequence), start, end, meaning, match.inner, match.verb)


def _token_chunk(token: Token) -> Chunk:
    if token.code:
        return Chunk("term", token.text, token.start, token.end, Meaning(codes=(token.code,)))
    return Chunk(_MARKS.get(token.text, "word"), token.text, token.start, token.end)


def _shared_tail(tokens: Sequence[Token], i: int, longer_than: int) -> tuple[list[Chunk], int] | None:
    """ "left and right bundle branch block", "low or inverted T waves": heads A, B ... with one common tail."""
    entries = lexicon()
    for length in (1, 2, 3):
        head = tuple(t.text for t in tokens[i : i + length])
        tails = entries.by_prefix.get(head)
        at = i + length
        if not tails or at >= len(tokens) or not (tokens[at].text in _JOIN or _contrast(tokens, at)):
            continue
        ahead = {t.text for t in tokens[at : at + _CHAIN_REACH]}
        for tail in tails:
            if len(head + tail) <= longer_than:
                break
            if tail[0] not in ahead:
                continue
            chain = _chain(tokens, i, length, tail)
            if chain:
                return chain
    return None


def _chain(tokens: Sequence[Token], i: int, length: int, tail: tuple[str, ...]) -> tuple[list[Chunk], int] | None:
    """Follow "A, B or C tail" from token i; every head must make a phrase with the tail."""
    entries = lexicon()
    heads = [(i, i + length)]
    joins: list[Token] = []
    at = i + length
    while at < len(tokens) and (tokens[at].text in _JOIN or _contrast(tokens, at)) and len(heads) < _MAX_HEADS:
        against = _contrast(tokens, at)
        joins.append(tokens[at]._replace(text="not") if against else tokens[at])
        at = against or at + 1
        if at < len(tokens) and tokens[at].text in ("and", "or"):  # "A, B, or C"
            joins[-1] = tokens[at]
            at += 1
        for width in (3, 2, 1):
            head = tuple(t.text for t in tokens[at : at + width])
            if head + tail in entries.meanings and not entries.meanings[head + tail].cue:
                heads.append((at, at + width))
                at += width
                break
        else:
            return None
        if joins[-1].text in (",", "but", "not", "rather") and at < len(tokens) and tokens[at].text == ",":
            at += 1  # "left, but not right, ventricular hypertrophy"
        rest = tuple(t.text for t in tokens[at : at + len(tail)])
        if rest == tail:
            return _chain_items(tokens, heads, joins, tail, at + len(tail))
    return None


def _contrast(tokens: Sequence[Token], i: int) -> int:
    """The end of "rather than a" or "not" from token i on, or 0: what follows it is negated."""
    while i + 1 < len(tokens) and tokens[i].text in (",", "but") and tokens[i + 1].text in ("but", "not", "rather"):
        i += 1
    plain = [t.text for t in tokens[i : i + 3]]
    end = i + 2 if plain[:2] == ["rather", "than"] else i + 1 if plain[:1] == ["not"] else 0
    return end + 1 if end and end < len(tokens) and tokens[end].text in ("a", "an", "the") else end


def _chain_items(
    tokens: Sequence[Token], heads: list[tuple[int, int]], joins: list[Token], tail: tuple[str, ...], end: int
) -> tuple[list[Chunk], int]:
    chunks: list[Chunk] = []
    for n, (first, last) in enumerate(heads):
        if n:
            join = joins[n - 1]
            meaning = lexicon().meanings.get((join.text,), GENERAL)
            chunks.append(Chunk("cue", "not", join.start, join.end, meaning) if meaning.cue else _token_chunk(join))
        sequence = tuple(t.text for t in tokens[first:last]) + tail
        stop = tokens[end - 1].end if n == len(heads) - 1 else tokens[last - 1].end
        chunks.append(Chunk("term", " ".join(sequence), tokens[first].start, stop, lexicon().meanings[sequence]))
    return chunks, end


def _shared_head(tokens: Sequence[Token], first: Match, lead_lists: dict[int, int]) -> tuple[list[Chunk], int]:
    """ "atrial fibrillation or flutter", "ST elevation, depression": tails that borrow the first phrase's head."""
    entries = lexicon()
    chunks: list[Chunk] = []
    end = first.end
    while end < len(tokens):
        at = lead_lists.get(end, end)
        if at + 1 >= len(tokens) or tokens[at].text not in _JOIN:
            break
        join = at
        at += 1
        if tokens[at].text in ("and", "or") and at + 1 < len(tokens):
            join, at = at, at + 1
        alone = longest_match(tokens, at, lead_lists)
        tail = None
        for cut in range(len(first.sequence) - 1, 0, -1):
            tails = entries.by_prefix.get(first.sequence[:cut], ())
            tail = next((t for t in tails if t == tuple(x.text for x in tokens[at : at + len(t)])), None)
            # After a comma alone only a short tail can follow: "ST elevation, depression", not a new clause.
            if tail and (tokens[join].text != "," or (len(tail) <= 2 and not first.verb)):
                rival = len(alone.sequence) if alone else 0
                if rival < len(tail) or (rival == len(tail) and _is_general(alone)):
                    break
            tail = None
        if not tail:
            break
        sequence = first.sequence[:cut] + tail
        last = at + len(tail)
        chunks.append(_token_chunk(tokens[join]))
        start, stop = tokens[at].start, tokens[last - 1].end
        chunks.append(Chunk("term", " ".join(sequence), start, stop, entries.meanings[sequence]))
        end = last
    return chunks, end


def _is_general(match: Match | None) -> bool:
    meaning = lexicon().meanings[match.sequence] if match else Meaning()
    return not (meaning.codes or meaning.opposites or meaning.cue)
