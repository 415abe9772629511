"""Matching the phrases of the tables against tokens: the longest wins, and small words may occur inside."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from eval.parser.lexicon import Meaning, Node, lexicon
from eval.parser.tokenizer import BREAK, BULLET, TERRITORIES, word_tuple


class Match(NamedTuple):
    """A phrase at tokens start to end. inner: status set by words inside it. verb: it contains its own verb."""

    sequence: tuple[str, ...]
    start: int
    end: int
    inner: str = ""
    verb: bool = False


_VERBS = set(
    word_tuple(
        "est es sont son esta estan ist sind is are was were be been being appear show remain look seem become "
        "demonstrate have has come measure"
    )
)
_FILL = _VERBS | set(
    word_tuple(
        "the a an of to very mild mildly moderate moderately marked markedly slight slightly minor minimal minimally "
        "significant significantly deep deeply diffuse diffusely widespread symmetric symmetrical symmetrically subtle "
        "small clear clearly also both old new acute subacute recent chronic prior previous evolving early global "
        "ist sind die der das ms mv mm some any typical frequent occasional isolated single multiple rare few "
        "approximately about by segment wave upright interval noted alter alte akuter frischer all quite somewhat "
        "abnormally located seen visible evident "
        "horizontal downsloping upsloping upward convex concave new possible further intermittent localized "
        "fairly broadly below transient profound prominent now still again beginning starting "
        "difusa difuso diffus ahora actuellement hoy nettement claramente de le la los las les un une una"
    )
)
# May occur inside a cue: "could also be", "is not clearly seen", "can not be entirely excluded".
_ADVERBS = set(
    word_tuple(
        "also entirely completely fully totally absolutely clearly definitely definitively reliably safely confidently "
        "currently actually simply really readily easily obviously convincingly quite very just then "
        "therefore still strongly highly formally adequately properly further even here be been best well now each all "
        "both equally "
        "sicher ganz eindeutig vollstaendig voellig sichere sicheren eindeutige eindeutigen"
    )
)
_DENY = set(word_tuple("not no neither never without kein keine nicht pas"))
_DOUBT = set(
    word_tuple("possible possibly probable probably likely maybe perhaps borderline questionable may might could")
)
_AFTER_NUMBERS = {"/", "s", "sec", "second"}
_SUBJECTS = {"rhythm", "ritmo", "rythme", "rhythmu", "rhythmus", "atria"}  # "| Atria | fibrillating |"
INTERVALS = {"pr", "pq", "qt", "qtc"}
"""Intervals that have a verdict of their own: "| PR | 160 ms | normal |", "PR ✔ normal"."""
_BEFORE_VERDICTS = {*"|→✓✔✅☑=(", "small", "square"}
_IN_SUMS = set("=,(") | {"and"}
_MAX_FILL = 8
_MAX_ASIDE = 5


def longest_match(texts: Sequence[str], i: int, lead_lists: dict[int, int]) -> Match | None:
    """The phrase or cue with the most words that starts at token i."""
    entries = lexicon()
    matches: list[tuple[tuple[int, int], Match]] = []
    for root, loose in ((entries.terms, True), (entries.cues, False)):
        if node := root.after.get(texts[i]):
            _follow(node, texts, i, lead_lists, loose, matches)
    for _, match in sorted(matches, key=itemgetter(0)):
        if _position_fits(entries.meanings[match.sequence], texts, match) and not _cuts_phrase(texts, match):
            return match
    return None


def _cuts_phrase(texts: Sequence[str], match: Match) -> bool:
    """Whether a match with gaps takes the first word of a longer phrase ("QRS - normal sinus rhythm")."""
    if match.end - match.start == len(match.sequence) or len(match.sequence) < 2:
        return False
    last = match.end - 1
    if match.sequence[0] in TERRITORIES and texts[match.end : match.end + 1] and texts[match.end] in TERRITORIES:
        return True  # "... en inférieur : infarctus antérieur"
    return any(
        rest == tuple(texts[last : last + len(rest)])
        for rest in lexicon().by_start.get(tuple(texts[last : last + 2]), ())
    )


def _follow(
    node: Node,
    texts: Sequence[str],
    i: int,
    lead_lists: dict[int, int],
    loose: bool,
    matches: list[tuple[tuple[int, int], Match]],
) -> None:
    """Append all matches of entries below `node`, which stands for token i, with their ranks.

    Small words may occur between the words of an entry: adverbs, and more if `loose`.
    """
    states = [(node, i + 1, 0, "", False)]
    while states:
        node, j, gap, inner, verb = states.pop()
        if node.sequence and not gap:
            matches.append((node.rank, Match(node.sequence, i, j, inner, verb)))
        if not node.after or j >= len(texts):
            continue
        text = texts[j]
        following = node.after.get(text)
        if text == "(" and (close := _aside(texts, j)):
            states.append((node, close, gap + 1, inner, verb))
        if gap >= _MAX_FILL:
            pass
        elif not loose:
            if text in _ADVERBS:
                states.append((node, j + 1, gap + 1, inner, verb))
        elif j in lead_lists:
            states.append((node, lead_lists[j], gap + 1, inner, verb))
        elif text in _DENY:
            states.append((node, j + 1, gap + 1, "absent", verb))
        elif text in _DOUBT:
            states.append((node, j + 1, gap + 1, inner or "uncertain", verb))
        elif (
            text in _FILL
            or text.isdigit()
            or text == ":"
            or (text in _AFTER_NUMBERS and texts[j - 1].isdigit())
            or (text in "|?([" and texts[i] in _SUBJECTS)
            or (text in _BEFORE_VERDICTS and texts[i] in INTERVALS)
            or (text in _IN_SUMS and texts[i] == "sokolow")
        ):
            states.append((node, j + 1, gap + 1, inner, verb or text in _VERBS))
        if following:  # last, and so first to go on: of two places of a word the first counts
            states.append((following, j + 1, 0, inner, verb))


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
