"""How the items of an answer fall into sentences, and which remarks are taken out of them first."""

from __future__ import annotations

from collections.abc import Sequence

from eval.parser.tagging import Item

_LONGEST = 400  # items; beyond that a text without any full stop is cut, to keep reading quick


def tidy(items: Sequence[Item]) -> list[Item]:
    """Take out "age undetermined" and its like with the commas around it: it doubts the age, not the finding."""
    items = _without_asides(items)
    out: list[Item] = []
    aside = False
    for item in items:
        if aside and item.kind == "comma":
            aside = False
            continue
        aside = item.kind == "cue" and item.cue.kind == "ignore" and "age" in item.text.split()
        if aside and out and out[-1].kind == "comma":
            out.pop()
        elif not aside:
            out.append(item)
    return out


def _without_asides(items: Sequence[Item]) -> list[Item]:
    """Take out ", which was suspected before," where it names no finding: the sentence goes on after it."""
    out: list[Item] = []
    i = 0
    while i < len(items):
        if items[i].kind == "comma" and i + 1 < len(items) and items[i + 1].text in ("which", "that", "who"):
            end = next((k for k in range(i + 1, len(items)) if items[k].kind in ("comma", "term", "break")), i)
            if end > i and items[end].kind == "comma":
                i = end + 1
                continue
        out.append(items[i])
        i += 1
    return out


def sentences(items: Sequence[Item]) -> list[list[Item]]:
    """Cut items at sentence ends, line ends, list marks and question marks."""
    out: list[list[Item]] = [[]]
    for n, item in enumerate(items):
        # "?LVH" and "? old MI" doubt what follows; elsewhere a question mark ends its sentence.
        doubting = n + 1 < len(items) and (items[n + 1].start == item.end or not out[-1])
        if item.kind == "break":
            out.append([])
        elif item.kind == "bullet":
            out.append([item])
        else:
            out[-1].append(item)
            if len(out[-1]) >= _LONGEST:
                out.append([])
            if item.kind == "question" and not doubting:
                out.append([])
    return [sentence for sentence in out if sentence]
