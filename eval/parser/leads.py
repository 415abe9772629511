"""Lists of leads in a text: "in leads II, III and aVF", "V1-V4", "in the lateral leads".

Their commas and "and"s join leads, not findings, so the parser takes each list as one unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.parser.tokens import Token, word_tuple

_LEAD = re.compile(r"i{1,3}|av[rlf]|v[1-9]r?")
_SURE_LEAD = re.compile(r"i{2,3}|av[rlf]|v[1-9]r?")
_LEAD_WORDS = set(word_tuple("lead leads ableitung ableitungen"))
_INTO = set(word_tuple("in of across over from involving throughout"))
# Not through `word_tuple`, which would join "inferior lateral".
_REGION = {
    "inferior", "lateral", "anterior", "septal", "anteroseptal", "anterolateral", "inferolateral", "posterior",
    "precordial", "limb", "chest", "left", "right", "high", "extremity", "peripheral", "mid", "lower", "remaining",
    "other", "standard",
}  # fmt: skip


def lead_runs(found: Sequence[Token]) -> dict[int, int]:
    """Start -> end of every list of leads ("in leads II, III and aVF", "V1-V4", "in the lateral leads")."""
    runs: dict[int, int] = {}
    for i in range(len(found)):
        end = _lead_run(found, i)
        if end:
            runs[i] = end
    return runs


def _lead_run(found: Sequence[Token], i: int) -> int:
    j, sure, count = i, False, 0
    if found[j].text in _INTO:
        j += 1
    if j < len(found) and found[j].text in ("the", "den", "der"):
        j += 1
    end = 0
    while j < len(found):
        text = found[j].text
        if text in _LEAD_WORDS:
            sure, end = True, j + 1
        elif _LEAD.fullmatch(text) or (end and text in "123456" and found[j - 1].text in (",", "-", "and")):
            sure, end, count = sure or bool(_SURE_LEAD.fullmatch(text)), j + 1, count + 1
        elif text in _REGION and _region_goes_on(found, j):
            pass
        elif not (text in (",", "-", "and", "or", "to", "through", "bi", "/", ":") and j > i and (end or count)):
            break
        j += 1
    return end if sure else 0


def _region_goes_on(found: Sequence[Token], j: int) -> bool:
    """A region word belongs to a lead list when the word "leads" follows: "inferior and lateral leads"."""
    k = j + 1
    while k < len(found) and (found[k].text in _REGION or found[k].text in ("and", "or", ",")):
        k += 1
    return k < len(found) and found[k].text in _LEAD_WORDS
