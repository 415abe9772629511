"""Lists of leads in a text: "in leads II, III and aVF", "V1-V4", "in the lateral leads".

Their commas and "and"s join leads, not findings, so the parser treats each list as one unit.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.parser.tokenizer import word_tuple

_MAX_TOKENS = 60  # of one list, which bounds the time
_UNAMBIGUOUS_LEADS = {"ii", "iii", "avr", "avl", "avf"} | {f"v{n}{side}" for n in range(1, 10) for side in ("", "r")}
_LEADS = _UNAMBIGUOUS_LEADS | {"i"}
_LEAD_WORDS = set(word_tuple("lead leads ableitung ableitungen"))
_PREPOSITIONS = set(word_tuple("in of across over from involving throughout"))
_ARTICLES = {"the", "den", "der"}
# Not through `word_tuple`, which would join "inferior lateral".
_TERRITORIES = {
    "inferior", "lateral", "anterior", "septal", "anteroseptal", "anterolateral", "inferolateral", "posterior",
    "precordial", "limb", "chest", "left", "right", "high", "extremity", "peripheral", "mid", "lower", "remaining",
    "other", "standard",
}  # fmt: skip
_STARTS = _PREPOSITIONS | _ARTICLES | _LEADS | _LEAD_WORDS | _TERRITORIES


def lead_runs(texts: Sequence[str]) -> dict[int, int]:
    """Start -> end of every list of leads ("in leads II, III and aVF", "V1-V4", "in the lateral leads")."""
    runs: dict[int, int] = {}
    for i, text in enumerate(texts):
        end = _lead_run(texts, i) if text in _STARTS else 0
        if end:
            runs[i] = end
    return runs


def _lead_run(texts: Sequence[str], i: int) -> int:
    j, certain, count = i, False, 0
    if texts[j] in _PREPOSITIONS:
        j += 1
    if j < len(texts) and texts[j] in _ARTICLES:
        j += 1
    end = 0
    while j < min(len(texts), i + _MAX_TOKENS):
        text = texts[j]
        if text in _LEAD_WORDS:
            certain, end = True, j + 1
        elif text in _LEADS or (end and text in "123456" and texts[j - 1] in (",", "-", "and")):
            certain, end, count = certain or text in _UNAMBIGUOUS_LEADS, j + 1, count + 1
        elif text in _TERRITORIES and _leads_follow(texts, j):
            pass
        elif not (text in (",", "-", "and", "or", "to", "through", "bi", "/", ":") and j > i and (end or count)):
            break
        j += 1
    return end if certain else 0


def _leads_follow(texts: Sequence[str], j: int) -> bool:
    """A territory belongs to a lead list when the word "leads" follows: "inferior and lateral leads"."""
    k = j + 1
    while k < min(len(texts), j + _MAX_TOKENS) and (texts[k] in _TERRITORIES or texts[k] in ("and", "or", ",")):
        k += 1
    return k < len(texts) and texts[k] in _LEAD_WORDS
