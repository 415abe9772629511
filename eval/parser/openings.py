"""What a sentence opens with: a question, a yes, a no; and what status a cue gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from eval.parser.tagging import Item
from eval.parser.tokens import word_tuple

Status = Literal["present", "absent", "uncertain"]

_ASKING = set(
    word_tuple("is are does do did can could was has have what which any should would ist sind gibt liegt zeigt")
)
YES = set(
    word_tuple("yes yeah yep correct true affirmative positive ja indeed sure absolutely exactly certainly definitely")
)
"""First words that say yes."""
NO = set(word_tuple("no not nope incorrect false negative nein"))
"""First words that say no."""


def status_of(item: Item) -> Status | None:
    """The status that a cue gives; None for one that gives none."""
    kind = item.cue.kind
    if kind == "absent":
        return "absent"
    if kind == "uncertain":
        return "uncertain"
    return "present" if kind == "present" else None


def is_question(sentence: Sequence[Item]) -> bool:
    """Whether a sentence asks: it opens with a question word or a verb and ends with a question mark, or reports it."""
    if any(item.kind == "cue" and item.cue.kind == "ask" for item in sentence):
        return True
    return sentence[-1].kind == "question" and opener(sentence) in _ASKING


def opener(sentence: Sequence[Item]) -> str:
    """The first word of a sentence, past list marks and labels such as "Question:"."""
    said = [i for i in sentence if i.kind not in ("bullet", "open", "close")]
    if len(said) > 2 and said[1].kind == "colon" and said[0].kind == "word":
        said = said[2:]
    return said[0].text.split()[0] if said and said[0].text.strip() else ""
