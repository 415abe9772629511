"""Short forms that leave out their noun: "Is there a bundle branch block? Yes, a complete right one."."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eval.parser.chunk import Chunk, TokenizedText, is_general
from eval.parser.lexicon import GENERAL, lexicon
from eval.parser.phrase_matcher import Match
from eval.parser.territories import ADVERBS
from eval.parser.tokenizer import BREAK, BULLET, word_tuple
from render.statements import STATEMENTS

# What follows a short form that leaves its noun out: "(Is there an infarct?) Yes, inferior."
_SHORT_FORM_ENDS = {BREAK, BULLET, ",", ":", "(", ")", "|", "and", "or", "but", "with", "nor", "noch",
                     "keine", "none", "no", "yes", "ja", "nein", "vereinzelt", "absent", "present", "old", "antiguo",
                     "one", "two", "three", "four", "five", "many", "few"}  # fmt: skip


_GENERAL_CODES = ((), ("PRC(S)",))
"""Codes of a noun that a list specifies: none, or premature beats without an origin."""
_NO_ADJECTIVES = {",", "normal", "negative", "positive"}  # as a reply these are values
_PRONOUNS = frozenset({"one", "?"})


class Ellipsis(NamedTuple):
    """The noun that a short form refers to: "(bundle branch block? Yes,) a complete right one".

    noun: words of the last term. reply: a short form here may leave the noun out. in_list: so may those behind the next
    comma or semicolon, as a question or the noun and a colon or bracket opened a list of them.
    """

    noun: tuple[str, ...] = ()
    reply: bool = False
    in_list: bool = False

    def after(self, chunk: Chunk, before: Chunk, semicolon: bool) -> Ellipsis:
        """The state after one more chunk and the one before it. semicolon: it is one."""
        if chunk.kind == "term":
            return Ellipsis(tuple(chunk.text.split()), False, self.in_list)
        general = before.kind == "term" and before.meaning.codes in _GENERAL_CODES
        behind = chunk.text == ":" and self.noun in lexicon().meanings and lexicon().meanings[self.noun].codes == ()
        opens = chunk.kind == "question" or (general and chunk.kind in ("colon", "open")) or behind
        if opens or (self.in_list and (chunk.kind in ("comma", "and", "or") or chunk.text == "noch" or semicolon)):
            return Ellipsis(self.noun, True, True)
        return Ellipsis(self.noun) if chunk.kind == "break" and (self.in_list or self.reply) else self

    def may_match(self, words: Sequence[str], i: int) -> bool:
        """Whether `match` can find anything at token i: cheaper, for words that begin no phrase."""
        return bool(self.noun) and (self.reply or not _PRONOUNS.isdisjoint(words[i + 1 : i + 4]))

    def match(self, text: TokenizedText, i: int, rival: Match | None) -> Match | None:
        """The short form at token i, if it makes a phrase with the noun and is longer than `rival`."""
        if not self.noun or text.words[i] in _NO_ADJECTIVES:
            return None
        for width in (3, 2, 1):
            if i + width > len(text.words) or text.words[i + width - 1] == ",":
                continue
            following = text.words[i + width] if i + width < len(text.words) else BREAK
            pronoun = following == "one"
            if not pronoun and following != "?" and not (self.reply and following in _SHORT_FORM_ENDS):
                continue
            end = i + width + pronoun
            adjectives = tuple(word for word in text.words[i : i + width] if word != ",")  # "(incomplete, right)"
            if text.words[end : end + 1] == [","]:  # "a right one, incomplete", "right, but incomplete"
                last = end + 1 + (text.words[end + 1 : end + 2] == ["but"])
                further = self._phrase((text.words[last], *adjectives)) if last < len(text.words) else ()
                if further and (last + 1 == len(text.words) or text.words[last + 1] in _SHORT_FORM_ENDS):
                    return Match(further, i, last + 1)
            sequence = self._phrase(adjectives)
            if sequence and (not rival or end > rival.end or is_general(rival)):
                return Match(sequence, i, end)
        return None

    def _phrase(self, adjectives: tuple[str, ...]) -> tuple[str, ...]:
        meanings = lexicon().meanings
        names = [word_tuple(STATEMENTS[code].name) for code in meanings.get(self.noun, GENERAL).codes]
        adjectives = tuple(ADVERBS.get(word, word) for word in adjectives)  # "Where? Inferiorly."
        for noun in (self.noun, *names):
            for k in range(len(noun)):
                # "(bloqueo AV?) de primer grado"
                sequence = noun[k:] + adjectives if adjectives[0] in ("de", "du") else adjectives + noun[k:]
                if sequence in meanings and meanings[sequence].codes:
                    return sequence
        return ()
