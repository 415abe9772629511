"""Who is denied, who is doubted: the status of every finding that a sentence names.

The rules of scope follow NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009), adapted to ECG wording. A cue
reaches to the end of its sentence, to a word that turns it ("but", "with"), or to a comma, unless the list goes on with
"or". Between two findings without further cue "or" means doubt about both. What follows a finding ("... is not seen",
"LVH: no", "AFIB?") outweighs what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.scan import Item
from eval.text import words

Status = Literal["present", "absent", "uncertain"]

_VALUES: dict[str, Status] = {
    **dict.fromkeys(words("yes present 1 true positive ja confirmed detected seen ✓ ✔ ✅ ☑ ☒ x"), "present"),
    **dict.fromkeys(words("no none absent 0 false negative nein not nil unlikely undetected - ✗ ✘ ❌ ☐"), "absent"),
    **dict.fromkeys(words("maybe possible possibly uncertain unclear probable likely equivocal borderline ? moeglich"),
                    "uncertain"),
}  # fmt: skip
_TICKS = set("✓✔✅✗✘❌")
_PRONOUNS = set(words("this there it that which we"))
_ASKING = set(words("is are does do did can could was has have what which any should would ist sind gibt liegt zeigt"))
YES = set(words("yes yeah yep correct true affirmative positive ja"))
"""First words that say yes."""
NO = set(words("no not nope incorrect false negative nein"))
"""First words that say no."""


@dataclass(frozen=True)
class Mention:
    """A named finding with its status.

    limited: said of certain leads only. heading: followed by a colon, and perhaps by what is said of it.
    """

    item: Item
    status: Status
    limited: bool = False
    heading: bool = False


def read_sentence(sentence: Sequence[Item], header: Status | None) -> tuple[list[Mention], Status | None]:
    """Mentions of one sentence, and the status that a heading ("Not seen:") gives to the list items after it."""
    if sentence[0].kind != "bullet":
        header = None
    status: dict[int, Status | None] = {}
    _before_cues(sentence, header, status)
    _after_cues(sentence, status)
    _alternatives(sentence, status)
    _values(sentence, status)
    terms = [n for n, item in enumerate(sentence) if item.kind == "term"]
    mentions = [_mention(sentence, n, found) for n in terms if (found := status.get(n)) is not None]
    if not terms and sentence[-1].kind == "colon":
        return [], next((_status(i) for i in sentence if i.kind == "cue"), None)
    return mentions, header


def _mention(sentence: Sequence[Item], n: int, status: Status) -> Mention:
    following = sentence[n + 1].kind if n + 1 < len(sentence) else ""
    return Mention(sentence[n], status, limited=following == "lead", heading=following == "colon")


def _status(item: Item) -> Status | None:
    kind = item.cue.kind
    if kind == "absent":
        return "absent"
    if kind == "uncertain":
        return "uncertain"
    return "present" if kind == "present" else None


def _before_cues(sentence: Sequence[Item], header: Status | None, status: dict[int, Status | None]) -> None:
    """Give every term the status of the cue that reaches it from the left."""
    base: Status | None = header
    cue: Status | None = None
    dropped = False
    outside: list[Status | None] = []
    for n, item in enumerate(sentence):
        if item.kind == "term":
            status[n] = None if dropped else _join(item.inner, cue or base)
            cue = "absent" if item.inner == "absent" else cue
        elif item.kind == "cue":
            if _heads_list(sentence, n):
                base, cue = _status(item), None
            elif item.cue.kind == "drop":
                dropped = True
            elif _looks_right(sentence, n) and not _interjection(sentence, n):
                cue = cue if cue == "absent" and item.cue.kind != "absent" else (_status(item) or cue)
        elif item.kind == "open":
            outside.append(cue)
        elif item.kind == "close" and outside:
            cue = outside.pop()
        elif item.kind == "question" and n + 1 < len(sentence):
            cue = "uncertain"
        elif item.kind == "stop" and cue == "uncertain" and item.text in _PRONOUNS and _untouched(sentence, n):
            continue  # "not sure whether this is ...", "suggests that there is ..."
        elif item.kind == "stop" or (item.kind in ("comma", "and") and not _goes_on(sentence, n)):
            cue, dropped = None, False


def _untouched(sentence: Sequence[Item], n: int) -> bool:
    """Whether no finding stands between the last cue and the word at n."""
    for item in reversed(sentence[:n]):
        if item.kind == "cue":
            return True
        if item.kind not in ("word", "stop"):
            return False
    return False


def _join(inner: str, outer: Status | None) -> Status:
    if inner == "absent" or outer == "absent":
        return "absent"
    return "uncertain" if inner == "uncertain" or outer == "uncertain" else "present"


def _heads_list(sentence: Sequence[Item], n: int) -> bool:
    """A cue before a colon ("Absent: LVH, RVH") holds for the rest of the sentence, over commas too."""
    k = n + 1
    while k < len(sentence) and sentence[k].kind == "word" and k - n <= 3:
        k += 1
    if k >= len(sentence) or sentence[k].kind != "colon":
        return False
    return not any(item.kind == "term" for item in sentence[max(0, n - 2) : n])


def _looks_right(sentence: Sequence[Item], n: int) -> bool:
    """Whether a cue speaks of what follows it; one that can do both does so when a term is near on its right."""
    side = sentence[n].cue.side
    if not any(item.kind == "term" for item in sentence[:n]):
        return side != "after" or sentence[n].cue.kind != "present"
    if side != "both":
        return side == "before"
    for item in sentence[n + 1 : n + 5]:
        if item.kind == "term":
            return True
        if item.kind not in ("word", "cue"):
            return False
    return False


def _interjection(sentence: Sequence[Item], n: int) -> bool:
    """ "No, the rhythm is ...": the no answers a question and denies nothing that follows."""
    return sentence[n].text in NO and n + 1 < len(sentence) and sentence[n + 1].kind == "comma"


def _goes_on(sentence: Sequence[Item], n: int) -> bool:
    """Whether a list runs on past the comma or "and" at n, so that the cue before it still holds."""
    if sentence[n].kind == "and":
        near = [k for k in range(n + 1, min(n + 4, len(sentence))) if sentence[k].kind == "term"]
        if not near or any(i.kind in ("cue", "stop", "comma") for i in sentence[n + 1 : near[0]]):
            return False
        return not sentence[near[0]].verb and not _own_verb(sentence, near[0])
    gap = 0
    for k in range(n + 1, len(sentence)):
        kind = sentence[k].kind
        gap = gap + 1 if kind == "word" else 0
        if kind == "or" or (kind == "cue" and sentence[k].text == "nor"):
            return True
        if kind == "and" and sentence[k - 1].kind == "comma":  # "A, B, and C" to the end of the sentence
            return _bare(sentence, n, k)
        if gap > 3 or kind in ("cue", "stop", "colon", "question") or sentence[k].verb:
            return False
    return False


def _bare(sentence: Sequence[Item], n: int, last: int) -> bool:
    """Whether a list from n with its "and" at `last` only names findings; sinus rhythm is not denied in such lists."""
    if last + 1 >= len(sentence) or sentence[last + 1].kind != "term":
        return False
    if any({"SR", "NORM"} & {*item.meaning.codes} for item in sentence[n:]):
        return False
    return all(item.kind in ("term", "word", "lead", "comma", "and") for item in sentence[last:])


def _own_verb(sentence: Sequence[Item], n: int) -> bool:
    """Whether the term at n is the subject of a verb of its own ("... and LVH is present")."""
    for item in sentence[n + 1 :]:
        if item.kind in ("comma", "stop", "or", "and"):
            return False
        if (item.kind == "cue" and item.cue.side == "after") or item.text in ("is", "are"):
            return True
    return False


def _after_cues(sentence: Sequence[Item], status: dict[int, Status | None]) -> None:
    """Let cues that follow their terms ("LVH and RVH are not seen", "AFIB?") change what stands before them."""
    for n, item in enumerate(sentence):
        new: Status | None = None
        if item.kind == "question" and n == len(sentence) - 1 and not is_question(sentence):
            new = "uncertain"
        elif item.kind == "cue" and item.cue.side != "before" and not _looks_right(sentence, n):
            new = _status(item)
        if new is None or new == "present":
            continue
        for k in _subjects(sentence, n):
            if status.get(k) is not None and status[k] != "absent":
                status[k] = new


def _subjects(sentence: Sequence[Item], n: int) -> list[int]:
    """The terms that a following cue at n is about: the nearest on its left, and those joined to it."""
    out: list[int] = []
    joined, words_between = False, 0
    apart = n > 0 and sentence[n - 1].kind == "comma" and n + 1 == len(sentence)  # "LVH, probable"
    for k in range(n - 2 if apart else n - 1, -1, -1):
        kind = sentence[k].kind
        if kind == "term":
            if out and not joined:
                break
            out.append(k)
            joined, words_between = False, 0
        elif kind in ("and", "or") or (kind == "comma" and len(out) > 1):
            joined = True
        elif kind in ("word", "lead", "open", "close"):
            words_between += kind == "word"
            if words_between > 6:
                break
        elif not (kind == "cue" and sentence[k].cue.kind in ("ignore", "present")):
            break
    return out


def _alternatives(sentence: Sequence[Item], status: dict[int, Status | None]) -> None:
    """ "strain or ischemia": without another cue both are in doubt, unless they are one statement."""
    for n, item in enumerate(sentence):
        if item.kind != "or":
            continue
        left = _subjects(sentence, n)
        right = next((k for k in range(n + 1, min(n + 5, len(sentence))) if sentence[k].kind == "term"), None)
        if not left or right is None or any(i.kind in ("cue", "stop", "comma") for i in sentence[n + 1 : right]):
            continue
        if sentence[left[0]].meaning == sentence[right].meaning:
            continue
        for k in (*left, right):
            if status.get(k) == "present":
                status[k] = "uncertain"


def _values(sentence: Sequence[Item], status: dict[int, Status | None]) -> None:
    """ "LVH: no", "AFIB = 1", "PVC (absent)", "| WPW | yes |": the value after a term is its status."""
    for n, item in enumerate(sentence):
        if item.kind != "term":
            continue
        k = n + 1
        while k < len(sentence) and sentence[k].text == '"':
            k += 1
        if k < len(sentence) and sentence[k].text in _TICKS:
            status[n] = _VALUES[sentence[k].text]
        if k + 1 >= len(sentence) or sentence[k].kind not in ("colon", "open"):
            continue
        while k + 1 < len(sentence) and sentence[k + 1].text in ('"', "|"):
            k += 1
        if k + 1 >= len(sentence):
            continue
        value = _VALUES.get(sentence[k + 1].text) or _value_cue(sentence[k + 1])
        if sentence[k].kind == "open" and sentence[k + 1].text in ("0", "1"):
            continue  # "SR (0)": a likelihood; in PTB-XL 0 means present without one
        after = sentence[k + 2].kind if k + 2 < len(sentence) else "break"
        if value and after in ("break", "comma", "close", "colon", "stop", "open", "question"):
            status[n] = value


def _value_cue(item: Item) -> Status | None:
    """The status of a cue that can stand as a value: "not seen", "possible"; not "no evidence of"."""
    return _status(item) if item.kind == "cue" and item.cue.side in ("both", "after") else None


def is_question(sentence: Sequence[Item]) -> bool:
    """Whether a sentence asks: it opens with a question word or a verb, and ends with a question mark."""
    return sentence[-1].kind == "question" and opener(sentence) in _ASKING


def opener(sentence: Sequence[Item]) -> str:
    """The first word of a sentence, past list marks and labels such as "Question:"."""
    said = [i for i in sentence if i.kind not in ("bullet", "open", "close")]
    if len(said) > 2 and said[1].kind == "colon" and said[0].kind == "word":
        said = said[2:]
    return said[0].text.split()[0] if said and said[0].text.strip() else ""
