"""Yes, no and "I cannot tell": how a sentence answers a yes/no question."""

from __future__ import annotations

from collections.abc import Sequence

from eval.parser.openings import NO, YES, Status, is_question, opener, status_of
from eval.parser.sentences import sentences
from eval.parser.tagging import Item, scan

_MARKS = ("open", "close", "bullet")
_ABOUT = ("stop", "word")


def parse_yes_no(answer: str) -> bool | None:
    """Read a yes/no answer: True, False, or None for "could not tell" (hedged, contradictory, off the point).

    The first sentence that is not a question decides: by its first word, by "the answer is ...", or by whether it
    states or denies anything.
    """
    first = next((s for s in sentences(scan(answer)) if not is_question(s)), [])
    cues = [item.cue.kind for item in first if item.kind == "cue"]
    said = [item for item in first if item.kind not in ("open", "close", "bullet")][:5]
    plain = {item.text for item in said}
    if "uncertain" in cues or (plain & YES and plain & NO and opener(first) not in YES | NO):
        return None
    if said and said[0].kind == "cue" and said[0].cue.kind == "present":  # "No doubt ..."
        return True
    if opener(first) in YES:
        return None if len(said) > 2 and said[1].kind == "and" and said[2].text in NO else True
    if opener(first) in NO or plain & NO:
        return False
    if plain & YES:
        return True
    if "absent" in cues or any(item.inner == "absent" for item in first):
        return False
    return True if "present" in cues or any(item.kind == "term" for item in first) else None


def stance(sentence: Sequence[Item]) -> Status | None:
    """The status that a sentence gives to what was asked: by its yes or no, or by a cue alone ("Not really.")."""
    said = [item for item in sentence if item.kind not in _MARKS]
    first = opener(sentence)
    cues = [item for item in said if item.kind == "cue" and status_of(item)]
    doubt = any(item.cue.kind == "uncertain" for item in cues) and not any(item.kind == "term" for item in said)
    if first in YES or first in NO:
        if doubt:
            return "uncertain"
        negated = len(said) > 1 and said[1].text == "not"  # "Absolutely not."
        return "present" if first in YES and not negated else "absent"
    ended = [item for item in said if item.kind != "break"][-2:]
    if len(ended) == 2 and ended[0].text in ("so", "therefore", "hence", "then") and ended[1].text in YES | NO:
        return "present" if ended[1].text in YES else "absent"
    plain = [item.text for item in said[:7]]
    if "answer" in plain and (word := next((t for t in plain if t in YES | NO), "")):
        return "present" if word in YES else "absent"
    for n, item in enumerate(said):
        if item.kind == "cue" and (status := status_of(item)):
            after = [i.kind for i in said[n + 1 :]]
            end = next((k for k, kind in enumerate(after) if kind in ("colon", "comma", "stop")), len(after))
            return status if "term" not in after[:end] else None
        if item.kind not in _ABOUT:
            break
    return _echo(said)


def _echo(said: Sequence[Item]) -> Status | None:
    """ "It does." and "They are." say yes."""
    end = next((n for n, item in enumerate(said) if item.kind not in _ABOUT), len(said))
    plain = [item.text for item in said[:end]]
    short = len(plain) <= 3 and plain and plain[0] in ("it", "they", "there", "i")
    return "present" if short and plain[-1] in ("do", "does", "is", "are", "has") else None
