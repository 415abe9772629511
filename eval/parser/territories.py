"""Territories after a noun: "ischaemia inferiorly and in the lateral leads", "infarct, anterior", "injury (lateral)".

The tables name territories before their noun ("inferior ischemia"); here the same phrase is built from the other order.
Several territories of one noun give several statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from eval.parser.lexicon import lexicon
from eval.parser.tokenizer import BREAK, BULLET, TERRITORIES, word_tuple

_MAX_TERRITORIES = 6
_MAX_REMARK = 12  # tokens in brackets after a territory: "(II, III, aVF)"
ADVERBS = {f"{adjective}ly": adjective for adjective in TERRITORIES} | {
    "septum": "septal", "vorderwand": "anterior", "hinterwand": "inferior", "seitenwand": "lateral"
}  # fmt: skip
"""Words for a territory -> its adjective."""
_PLACES = set(
    word_tuple(
        "wall lead region territory segment zone area aspect myocardium surface distribution extension involvement"
    )
)
_PREPOSITIONS = set(word_tuple("in of over at along across on to involving affecting der im bereich de en du dans"))
_MODIFIERS = set(
    word_tuple(
        "the high true mainly predominantly especially particularly mostly more also basal both mid either neither "
        "la le cara pared paroi territoire territorio parete"
    )
)
# Between noun and territory, or behind it: "infarto agudo de miocardio inferior", "infarctus inférieur aigu"
_ROMANCE = set(
    word_tuple(
        "agudo aguda evolucionado antiguo antigua previo aigu ancien ancienne acuto pregresso miocardio myocarde "
        "miocardico"
    )
)
_FIRST_MARKS = {",", ":", "(", "-", "|"}
# "Ischemic changes are seen in the lateral leads", "the infarct is inferior", "involves the lateral wall"
_FIRST_VERBS = set(word_tuple("is are was were involve affect include reach sit lie"))
_SIGHT = set(word_tuple("seen noted present visible evident found observed located confined limited restricted"))
_LESSER = {(",", "to", "a", word, noun, ",") for word in ("lesser", "smaller") for noun in ("degree", "extent")}
_JOINS = {"and": "and", "plus": "and", "with": "and", "/": "and", ",": "and", "or": "or", "nor": "or"}
_CONTRASTS = (("rather", "than"), ("but", "not"), ("and", "not"), (",", "not"), ("not",))
# What may follow an adjective without a noun: "ischemia, inferior, is likely", but not "ischemia, inferior ST changes".
_FOLLOWERS = {BREAK, BULLET, ",", ")", "(", "/", ":", "?", '"', "|"} | set(
    word_tuple("and or nor plus but with which that is are was age of possible possibly likely probable probably noted "
               "seen present as too also without not rather avec con en de y ne no non se est es son sont ist sind "
               "peut puede qui que bei mit ohne nicht yes ja nein si oui")
) | _ROMANCE  # fmt: skip
_MAX_LINKS = 6
_LINKS = set(
    word_tuple(
        "there is are was were a an the no i we see also some any evidence of sign show demonstrate display reveal "
        "have old acute recent prior previous"
    )
)
_FUNCTION_WORDS = _PREPOSITIONS | _MODIFIERS | _PLACES | _ROMANCE | {"and", ",", ":", "("}


@dataclass(frozen=True)
class TerritoryTerm:
    """One territory with its noun. sequence: the phrase of the tables.

    join: "and" or "or", "not" where the territory is denied ("inferior rather than lateral"), "" before the first.
    """

    sequence: tuple[str, ...]
    join: str
    start: int
    end: int


@dataclass(frozen=True)
class _Place:
    """Words of a territory at tokens start to end. join: as in `TerritoryTerm`."""

    words: tuple[str, ...]
    join: str
    start: int
    end: int


def territories_after(
    texts: Sequence[str], noun: tuple[str, ...], end: int, lead_lists: Mapping[int, int]
) -> tuple[list[TerritoryTerm], int]:
    """The territories that follow the phrase `noun` at token `end`, and the token after them.

    The list is empty if there are none, or if their adjectives belong to the next noun ("ischemia, inferior Q waves").
    """
    core = tuple(word for word in noun if word not in TERRITORIES and word not in _FUNCTION_WORDS)
    if not _has_territories(core):
        return [], end
    has_territory = any(word in TERRITORIES for word in noun)
    places: list[_Place] = []
    after = end
    while len(places) < _MAX_TERRITORIES:
        first = not (places or has_territory)
        place = _territory_at(texts, after, first)
        if place is None:
            break
        if not place.words:  # the adjective belongs to the next noun, and so do those in a list with it
            return [], end
        places.append(place)
        after = _skip_remark(texts, place.end, lead_lists)
    if not places:
        return [], end
    return _terms(places, has_territory, core), places[-1].end


def territory_before(texts: Sequence[str], start: int, noun: tuple[str, ...]) -> tuple[str, ...]:
    """The phrase of the tables for a noun at token `start` and the territory of its subject, or ().

    "Inferiorly there is an infarct", "the lateral leads show ischemia".
    """
    if any(word in TERRITORIES for word in noun) or not _has_territories(noun):
        return ()
    j = start - 1
    while j > max(0, start - _MAX_LINKS) and texts[j] in _LINKS:
        j -= 1
    if j < 0 or (texts[j] not in ADVERBS and (texts[j] not in _PLACES or j == 0 or j == start - 1)):
        return ()
    j -= texts[j] in _PLACES
    word = ADVERBS.get(texts[j], texts[j])
    words = (*texts[j - 2 : j], word) if j > 1 and texts[j - 1] == "and" else (word,)
    words = ("high", word) if j and texts[j - 1] == "high" else words
    sequence = (*words, *noun)
    return sequence if word in TERRITORIES and sequence in lexicon().meanings else ()


@lru_cache(maxsize=1 << 12)
def _has_territories(core: tuple[str, ...]) -> bool:
    """Whether a noun makes a phrase of the tables with any territory."""
    return any((adjective, *core) in lexicon().meanings for adjective in TERRITORIES)


def _terms(places: Sequence[_Place], has_territory: bool, core: tuple[str, ...]) -> list[TerritoryTerm]:
    meanings = lexicon().meanings
    if not has_territory and len(places) == 2 and places[1].join == "and":
        one, two = places
        for first, second in ((one, two), (two, one)):
            sequence = (*first.words, "and", *second.words, *core)
            if sequence in meanings:
                return [TerritoryTerm(sequence, "", one.start, two.end)]
    terms = [TerritoryTerm((*place.words, *core), place.join, place.start, place.end) for place in places]
    return [term for term in terms if term.sequence in meanings]


def _territory_at(texts: Sequence[str], i: int, first: bool) -> _Place | None:
    """The next territory from token i on; without words if it belongs to another noun."""
    j, join = i, ""
    texts = [*texts[i : i + 12], *([BREAK] * 12)]
    if first:
        j += texts[0] in _FIRST_MARKS | _FIRST_VERBS
        j += texts[0] in _FIRST_VERBS and texts[1] in _SIGHT
    else:
        contrast = next((c for c in _CONTRASTS if tuple(texts[: len(c)]) == c), ())
        if texts[0] not in _JOINS and not contrast:
            return None
        join, j = ("not", j + len(contrast)) if contrast else (_JOINS[texts[0]], j + 1)
        if texts[1] in ("and", "or"):
            join, j = texts[1], j + 1
        if tuple(texts[1:7]) in _LESSER:
            j += 6
    while j - i < 10 and texts[j - i] in _PREPOSITIONS | _MODIFIERS:
        j += 1
    word = texts[j - i]
    if word in ADVERBS:
        return _Place((ADVERBS[word],), join, j, j + 1)
    if word not in TERRITORIES:
        return None
    words = ("high", word) if j > i and texts[j - i - 1] == "high" else (word,)
    following = texts[j - i + 1]
    if following in _PLACES:
        return _Place(words, join, j, j + 2)
    if j > i and texts[0] == "with":  # "infarction inferiorly with lateral ST depression"
        return None
    in_list = following in _JOINS and _shares_place(texts, j - i + 1)
    return _Place(words if in_list or following in _FOLLOWERS else (), join, j, j + 1)


def _shares_place(texts: Sequence[str], k: int) -> bool:
    """Whether a list of adjectives continues at k up to one word for a place: "the anterior and lateral walls"."""
    while k + 1 < len(texts) and (texts[k] in _JOINS or texts[k] in TERRITORIES):
        k += 1
    return texts[k] in _PLACES


def _skip_remark(texts: Sequence[str], i: int, lead_lists: Mapping[int, int]) -> int:
    """The token after a remark in brackets or a list of leads that follows a territory."""
    if i < len(texts) and texts[i] == "(":
        for k in range(i + 1, min(i + _MAX_REMARK, len(texts))):
            if texts[k] == BREAK:
                break
            if texts[k] == ")":
                return k + 1
    return lead_lists.get(i, i) if i < len(texts) and texts[i] not in _JOINS else i
