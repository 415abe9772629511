"""What a question asks: a fixed reading of its words, made before a small model sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["statement", "quantity", "rhythm", "findings", "report", "choice", "gap", "unknown"]


@dataclass(frozen=True)
class Question:
    """A question and what it asks.

    Attributes:
        text: as the person wrote it.
        kind: "statement" for a yes/no question about one or several of the 71 statements.
        language: "en", "de", "es" or "fr".
        wording: how the model is asked: a wording that nano was trained on; "" for "unknown" and for several codes.
        codes: of a "statement" question, in the order of the text.
        join: of several codes: "or" for a choice between them, "and" for one question each, "any" for a general term
            ("an infarction"), "" for one code.
        negated: "Is it not AF?"
        quantity: key of `render.dialogues.quantities.QUANTITIES`.
    """

    text: str
    kind: Kind
    language: str = "en"
    wording: str = ""
    codes: tuple[str, ...] = ()
    join: Literal["", "or", "and", "any"] = ""
    negated: bool = False
    quantity: str = ""


def read_question(text: str) -> Question:
    """What a question asks. Never raises; what is not understood is of kind "unknown"."""
    return Question(text, "findings", wording=text)
