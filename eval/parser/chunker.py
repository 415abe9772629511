"""From tokens to chunks: phrases that name a statement, cues that negate or doubt one, marks, and single words.

At every position the longest phrase wins. Small words, lead lists, "not" and "possibly" may occur between the words of
a phrase ("the ST segments in V1-V3 are not elevated"), and coordinated phrases may share a head or a tail ("left and
right bundle branch block", "atrial fibrillation or flutter").
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.parser.chunk import Chunk, TokenizedText, match_chunk, token_chunk
from eval.parser.coordination import shared_head, shared_tail
from eval.parser.ellipsis import Ellipsis
from eval.parser.leads import lead_runs
from eval.parser.lexicon import GENERAL, correct_spelling, lexicon
from eval.parser.phrase_matcher import INTERVALS, Match, longest_match
from eval.parser.tables import WAVES, with_headers, with_keys
from eval.parser.territories import territories_after, territory_before
from eval.parser.tokenizer import BREAK, BULLET, tokenize, word_tuple

TOPICS = {*WAVES, "axis", "voltage"}
"""Waves, intervals and the like, to which states behind them in the sentence belong, or in the answer to a question."""
_HEADING_WORDS = set(word_tuple("wave segment interval complex analysis duration morphology step 1 2 3 4 5 6 | :"))
_MEASURES = INTERVALS | {"qr", "axis"}  # QRS as normalised
_ALL = set(word_tuple("all both alle beide todos tous"))
_IN_LISTS = set(word_tuple("and / , : → = ( interval duration time zeit is are ms s sec the"))
_MAX_LIST = 40  # words
_ST_CODES = (("STE_",), ("STD_",))
_STATES = set(
    word_tuple(
        "elevation elevated raised depression depressed inverted inversion flipped flat flattened flattening prolonged "
        "lengthened long low negative verlaengert abgeflacht negativ negativiert invertiert gesenkt gehoben angehoben"
    )
)


def chunk_text(answer: str, subject: Sequence[str] = ()) -> list[Chunk]:
    """All chunks of an answer in their order.

    subject: words of the term that the question is about, to which a short answer may refer ("Yes, a right one.").
    """
    tokens = [t._replace(text=w) if (w := correct_spelling(t.text)) != t.text else t for t in tokenize(answer)]
    words = [token.text for token in tokens]
    if "|" in words or "{" in words:
        tokens = with_headers(tokens) if "|" in words else with_keys(tokens)
        words = [token.text for token in tokens]
    text = TokenizedText(tokens, words, lead_runs(words))
    chunks: list[Chunk] = []
    line: list[Chunk] = []
    topic, ellipsis = "", Ellipsis(tuple(subject), bool(subject))
    if subject and words[:1] != ["negative"]:  # which is a no
        topic = next((word for word in subject if word in TOPICS), "")
    starts = lexicon().starts
    i = 0
    while i < len(words):
        can_match = words[i] in starts or words[i] in _STATES or ellipsis.may_match(words, i)
        new, i = _chunks_at(text, i, topic, ellipsis) if can_match else _plain_chunk(text, i)
        chunks += new
        last = new[-1]
        line = [] if line and line[-1].kind == "break" else line
        line.append(last)
        if last.kind != "word" or last.text in TOPICS:
            following = words[i] if i < len(words) else BREAK
            if topic and last.kind == "break":
                following = _subject_at(text, i)
            semicolon = last.kind == "break" and answer[last.start] == ";"
            if not (semicolon and following in _STATES):  # "ST: elevated in II; depressed in I"
                topic = _topic(topic, line, following)
            before = chunks[-2] if len(chunks) > 1 else last
            if (ellipsis.noun or last.kind == "term") and not (last.kind == "break" and before.kind == "question"):
                ellipsis = ellipsis.after(last, before, semicolon)
    return chunks


def _chunks_at(text: TokenizedText, i: int, topic: str, ellipsis: Ellipsis) -> tuple[list[Chunk], int]:
    """The chunks that start at token i, and the token after them."""
    best = longest_match(text.words, i, text.lead_lists) or _of_topic(text.words, i, topic)
    if not best:
        if text.words[i] in INTERVALS:
            best = _of_normal_list(text.words, i)
        elif text.words[i] in _STATES and not topic and _begins_with_leads(text, i):
            best = _of_topic(text.words, i, "st")
    if ellipsis.may_match(text.words, i):
        best = ellipsis.match(text, i, best) or best
    if coordination := shared_tail(text, i, len(best.sequence) if best else 0):
        return coordination
    if best:
        return _term_chunks(text, best)
    return _plain_chunk(text, i)


def _plain_chunk(text: TokenizedText, i: int) -> tuple[list[Chunk], int]:
    """A list of leads or a single token, and the token after it."""
    if end := text.lead_lists.get(i):
        return [Chunk("lead", "", text.tokens[i].start, text.tokens[end - 1].end)], end
    return [token_chunk(text.tokens[i])], i + 1


def _term_chunks(text: TokenizedText, best: Match) -> tuple[list[Chunk], int]:
    """The chunks of a match with all phrases that share its head or its noun, and the token after them."""
    first = match_chunk(best, text)
    if first.meaning.cue:
        return [first], best.end
    territories, end = territories_after(text.words, best.sequence, best.end, text.lead_lists)
    if not territories:
        chunks, end = shared_head(text, best)
        if sequence := territory_before(text.words, best.start, best.sequence):
            first = first._replace(text=" ".join(sequence), meaning=lexicon().meanings[sequence])
        return [first, *chunks], end
    chunks = [first] if territories[0].join else []
    for term in territories:
        start, last = text.tokens[term.start].start, text.tokens[term.end - 1].end
        if term.join:
            meaning = lexicon().meanings[("not",)] if term.join == "not" else GENERAL
            chunks.append(Chunk("cue" if meaning.cue else term.join, term.join, start, start, meaning))
        start = start if chunks else first.start
        meaning = lexicon().meanings[term.sequence]
        chunks.append(Chunk("term", " ".join(term.sequence), start, last, meaning, first.inner))
    return chunks, end


def _subject_at(text: TokenizedText, i: int) -> str:
    """The first word of the sentence at token i that names no leads: "In II, III and aVF, they are ..."."""
    i = text.lead_lists.get(i, i)
    i += i < len(text.words) and text.words[i] == ","
    return text.words[i] if i < len(text.words) else BREAK


def _topic(topic: str, line: Sequence[Chunk], following: str) -> str:
    """The wave or interval that is the topic after the last chunk of `line`.

    It ends with the line, unless "they" continues it, the line is a heading of the next ("T waves"), or list items
    follow each other.
    """
    chunk = line[-1]
    if chunk.kind in ("break", "bullet") and following not in ("they", "these", "it", "that", "this"):
        is_heading = 1 < len(line) <= 6 and all(c.text in TOPICS | _HEADING_WORDS for c in line[:-1])
        states = {word for c in line[1:2] for word in c.text.split()[-1:]} & _STATES
        is_item = following == BULLET and line[0].kind == "bullet" and bool(states)
        return topic if is_heading or is_item or (chunk.kind == "bullet" and len(line) == 1) else ""
    topics = [w for w in chunk.text.split() if w in TOPICS] if chunk.kind in ("term", "word") else []
    if not topics and chunk.meaning.codes in _ST_CODES:  # "STD in V5, no elevation"
        return "st"
    return topics[-1] if topics else topic


def _begins_with_leads(text: TokenizedText, i: int) -> bool:
    """Whether a bare "elevation" or "depression" begins a sentence before leads: "Elevation in II and III"."""
    opens = i == 0 or text.words[i - 1] in (BREAK, BULLET)
    return opens and text.words[i] in ("elevation", "depression") and i + 1 in text.lead_lists


def _of_normal_list(words: Sequence[str], i: int) -> Match | None:
    """ "PR, QRS and QT intervals normal", "PR 140 ms, QRS 80 ms: all normal": the end of a list is said of each in it.

    Behind numbers it has to say "all".
    """
    measures, has_numbers, about_all = 1, False, False
    for j in range(i + 1, min(len(words), i + _MAX_LIST)):
        if words[j] == "normal" or words[j : j + 3] == ["within", "normal", "limit"]:
            fits = measures > 1 and (about_all or not has_numbers)
            return Match((words[i], "normal"), i, i + 1) if fits else None
        measures += words[j] in _MEASURES
        has_numbers |= words[j].isdigit()
        about_all |= words[j] in _ALL
        if not (words[j] in _MEASURES or words[j] in _IN_LISTS or words[j] in _ALL or words[j].isdigit()):
            return None
    return None


def _of_topic(words: Sequence[str], i: int, topic: str) -> Match | None:
    """ "T waves upright in I but inverted in III": the second state is one of the T waves, too; "flat P" is not."""
    sequence = (topic, words[i])
    if words[i] not in _STATES or sequence not in lexicon().meanings or words[i + 1 : i + 2] == ["p"]:
        return None
    return Match(sequence, i, i + 1)
