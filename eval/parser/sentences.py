"""How the chunks of an answer are divided into sentences, what a sentence starts with, and whether it asks."""

from __future__ import annotations

from collections.abc import Sequence

from eval.parser.chunk import Chunk
from eval.parser.tokenizer import word_tuple

_MAX_CHUNKS = 400  # a text without any full stop is divided after so many, which bounds the time
_ASKING = set(
    word_tuple("is are does do did can could was has have what which any should would ist sind gibt liegt zeigt")
)
_REMARKS = {"age", "as"}
_RELATIVES = {"which", "that", "who"}
YES = set(
    word_tuple(
        "yes yeah yep correct true affirmative positive ja indeed sure absolutely exactly certainly definitely oui si"
    )
)
"""First words that say yes."""
NO = set(word_tuple("no not nope incorrect false negative nein non"))
"""First words that say no."""


def split_sentences(chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Divide chunks at sentence ends, line ends, list marks and question marks."""
    out: list[list[Chunk]] = [[]]
    for n, chunk in enumerate(chunks):
        if chunk.kind == "break":
            out.append([])
        elif chunk.kind == "bullet" or (chunk.kind == "question" and out[-1] and out[-1][-1].kind in ("comma", "and")):
            out.append([chunk])  # "T inversion V1-V4, ? embolism" doubts what follows
        elif chunk.kind == "close" and not out[-1] and n and chunks[n - 1].kind == "question":
            continue  # "(Is there LVH?) No."
        else:
            out[-1].append(chunk)
            if len(out[-1]) >= _MAX_CHUNKS:
                out.append([])
            if chunk.kind == "question" and not _in_bracket(out[-1]):
                # "?LVH" and "? old MI" doubt what follows; elsewhere a question mark ends its sentence.
                is_first = all(c.kind == "bullet" for c in out[-1][:-1])
                following = chunks[n + 1 : n + 2]
                apart = not following or following[0].text == '"' or following[0].kind == "close"
                if apart or not (is_first or following[0].start == chunk.end):
                    out.append([])
            elif chunk.kind == "colon" and _reports_question(out[-1]):
                out.append([])
    return [sentence for sentence in out if sentence]


def _in_bracket(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence ends within a bracket that it opened behind a finding: "ST depression (ischemia?"."""
    last = next((chunk.kind for chunk in reversed(sentence) if chunk.kind in ("open", "close")), "close")
    return last == "open" and sentence[0].kind != "open"


def is_question(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence asks: it starts with a question word or verb and ends with "?", or it reports a question."""
    if _reports_question(sentence):
        return True
    return sentence[-1].kind == "question" and first_word(sentence) in _ASKING


def presupposes(sentence: Sequence[Chunk]) -> bool:
    """Whether a question takes for granted what it names: "Why LBBB? V6 is notched", "Why not RBBB?"."""
    return sentence[-1].kind == "question" and first_word(sentence) == "why"


def _reports_question(sentence: Sequence[Chunk]) -> bool:
    return any(chunk.kind == "cue" and chunk.cue.kind == "question" for chunk in sentence)


def first_word(sentence: Sequence[Chunk]) -> str:
    """The first word of a sentence, after list marks and labels such as "Question:"."""
    content = [c for c in sentence if c.kind not in ("bullet", "open", "close") and c.text != '"']
    while content and content[0].text == "|":
        content = content[1:]
    label = len(content) > 2 and content[1].kind == "colon" and content[0].kind == "word"
    if label and content[0].text not in YES | NO:
        content = content[2:]
    return content[0].text.split()[0] if content and content[0].text.strip() else ""


def without_remarks(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Remove "age undetermined", "as I said" and the like with the commas around it: it doubts no finding."""
    chunks = _without_relative_clauses(chunks)
    out: list[Chunk] = []
    remark = False
    for chunk in chunks:
        if remark and chunk.kind == "comma":
            remark = False
            continue
        remark = chunk.kind == "cue" and chunk.cue.kind == "pseudo" and not _REMARKS.isdisjoint(chunk.text.split())
        if remark and out and out[-1].kind == "comma":
            out.pop()
        elif not remark:
            out.append(chunk)
    return out


def _without_relative_clauses(chunks: Sequence[Chunk]) -> Sequence[Chunk]:
    """Remove ", which was suspected before," where it names no finding: the sentence continues after it."""
    if _RELATIVES.isdisjoint([chunk.text for chunk in chunks]):
        return chunks
    out: list[Chunk] = []
    i = 0
    while i < len(chunks):
        if chunks[i].kind == "comma" and i + 1 < len(chunks) and chunks[i + 1].text in _RELATIVES:
            end = next((k for k in range(i + 1, len(chunks)) if chunks[k].kind in ("comma", "term", "break")), i)
            if end > i and chunks[end].kind == "comma":
                i = end + 1
                continue
        out.append(chunks[i])
        i += 1
    return out
