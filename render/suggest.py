"""Did you mean ...? The nearest of the valid words, for messages about an unknown word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_CUTOFF = 0.5  # of difflib's similarity; suggestions below it mislead


def nearest(word: object, candidates: Iterable[object], *, always: bool = False) -> str:
    """The candidate most similar to `word`, or "" when none is similar. always: the most similar, however different.

    A candidate that differs from `word` only in case counts as the nearest.
    """
    words = [str(each) for each in candidates]
    same = [each for each in words if each.lower() == str(word).lower()]
    close = same or get_close_matches(str(word), words, n=1, cutoff=0.0 if always else _CUTOFF)
    return close[0] if close else ""


def did_you_mean(word: object, candidates: Iterable[object]) -> str:
    """`; did you mean ...?` for the end of a message, "" when no candidate is similar to `word`."""
    close = nearest(word, candidates)
    return f"; did you mean {close}?" if close else ""
