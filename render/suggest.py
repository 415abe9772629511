"""Did you mean ...? The nearest known word, for every message about a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_CUTOFF = 0.5  # of difflib's similarity: below it a suggestion misleads


def nearest(word: object, known: Iterable[object], *, always: bool = False) -> str:
    """The known word that is most like `word`, "" where none is; always: the most like one, however far.

    A known word that differs in capitals alone is the nearest.
    """
    words = [str(each) for each in known]
    same = [each for each in words if each.lower() == str(word).lower()]
    close = same or get_close_matches(str(word), words, n=1, cutoff=0.0 if always else _CUTOFF)
    return close[0] if close else ""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """`; did you mean ...?` for the end of a message, "" where no known word is like `word`."""
    close = nearest(word, known)
    return f"; did you mean {close}?" if close else ""
