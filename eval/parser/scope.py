"""Who is denied, who is doubted: the status of every finding that a sentence names.

The rules of scope follow NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009), adapted to ECG wording. A cue
reaches to the end of its sentence, to a word that turns it ("but", "with"), or to a comma, unless the list goes on with
"or". Between two findings without further cue "or" means doubt about both. What follows a finding ("... is not seen",
"LVH: no", "AFIB?") outweighs what stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.parser.openings import NO, Status, is_question, status_of
from eval.parser.tagging import Item
from eval.parser.tokens import word_tuple

_VALUE_WORDS: dict[Status, str] = {
    "present": "yes present 1 true positive ja confirmed detected seen ✓ ✔ ✅ ☑ ☒ x",
    "absent": "no none absent 0 false negative nein not nil unlikely undetected - ✗ ✘ ❌ ☐",
    "uncertain": "maybe possible possibly uncertain unclear probable likely equivocal borderline ? moeglich",
}
_VALUES: dict[str, Status] = {word: status for status, text in _VALUE_WORDS.items() for word in word_tuple(text)}
_TICKS = set("✓✔✅✗✘❌☐☑☒")
_NOW = set(word_tuple("now currently today presently jetzt aktuell heute"))
_OPEN_LISTS = set(word_tuple("consider ddx dd"))
_TURNS = set(word_tuple("but however yet whereas while"))
_PRONOUNS = set(word_tuple("this there it that which we"))


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
    if _void(sentence):
        return [], header
    status: dict[int, Status | None] = {}
    _before_cues(sentence, header, status)
    _after_cues(sentence, status)
    _alternatives(sentence, status)
    _values(sentence, status)
    terms = [n for n, item in enumerate(sentence) if item.kind == "term"]
    mentions = [_mention(sentence, n, found) for n in terms if (found := status.get(n)) is not None]
    if not terms and sentence[-1].kind == "colon":
        return [], next((status_of(i) for i in sentence if i.kind == "cue"), None)
    return mentions, header


def _void(sentence: Sequence[Item]) -> bool:
    """Whether a sentence speaks of ECGs at large or of what would be ("In general ...", "If this were ...")."""
    for n, item in enumerate(sentence):
        if item.kind == "cue" and item.cue.kind == "void":
            named = any(i.kind == "term" for i in sentence[:n])
            if named == (item.cue.side == "after"):
                return True
    return False


def _mention(sentence: Sequence[Item], n: int, status: Status) -> Mention:
    following = sentence[n + 1].kind if n + 1 < len(sentence) else ""
    return Mention(sentence[n], status, limited=following == "lead", heading=following == "colon")


def _before_cues(sentence: Sequence[Item], header: Status | None, status: dict[int, Status | None]) -> None:
    """Give every term the status of the cue that reaches it from the left."""
    base: Status | None = header
    cue: Status | None = None
    dropped = past = False
    outside: list[Status | None] = []
    for n, item in enumerate(sentence):
        if item.kind == "term":
            status[n] = None if dropped or past else _join(item.inner, cue or base)
            cue = "absent" if item.inner == "absent" else cue
        elif item.kind == "cue":
            if _heads_list(sentence, n):
                base, cue, past = status_of(item), None, item.cue.kind == "drop"
            elif item.cue.kind == "drop" and item.cue.side == "before":
                dropped = True
            elif item.cue.kind == "past":
                dropped = any(i.text in _NOW for i in sentence[n:])
            elif item.cue.kind == "echo":
                cue = next((s for i in reversed(sentence[:n]) if i.kind == "cue" and (s := status_of(i))), cue)
            elif item.cue.kind == "claim":
                turned = any(i.kind == "stop" and i.text in _TURNS for i in sentence[n:])
                cue = "absent" if turned else "uncertain"
            elif _looks_right(sentence, n) and not _interjection(sentence, n):
                cue = cue if cue == "absent" and item.cue.kind != "absent" else (status_of(item) or cue)
        elif item.kind == "open":
            outside.append(cue)
        elif item.kind == "close" and outside:
            cue = outside.pop()
        elif item.kind == "question" and n + 1 < len(sentence):
            cue = "uncertain"
        elif item.kind == "colon" and cue and not _untouched(sentence, n):
            cue = None  # "without flutter waves: SVT"
        elif item.kind == "stop" and cue == "uncertain" and item.text in _PRONOUNS and _untouched(sentence, n):
            continue  # "not sure whether this is ...", "suggests that there is ..."
        elif item.kind == "stop" and cue == "absent" and item.text == "that" and _untouched(sentence, n):
            continue  # "no indication that the patient has ..."
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
    if sentence[n].text.split()[0] in _OPEN_LISTS:
        return True
    if k >= len(sentence) or sentence[k].kind != "colon" or _interjection(sentence, n):
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
    return sentence[n].text in NO and n + 1 < len(sentence) and sentence[n + 1].kind in ("comma", "colon")


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
        elif item.kind == "cue" and item.cue.kind == "drop" and item.cue.side == "after":
            status.update(dict.fromkeys(_subjects(sentence, n)[:1], None))
        elif item.kind == "cue" and item.cue.side != "before" and not _looks_right(sentence, n):
            new = status_of(item)
        if new == "present" and sentence[n - 1].kind == "stop":  # "absent in V1 but present in V2"
            status.update((k, new) for k in [k for k in status if k < n][-1:] if status[k])
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
            alias = out and sentence[k + 1].kind == "open" and sentence[k].meaning == sentence[out[-1]].meaning
            if out and not (joined or alias):
                break
            out.append(k)
            joined, words_between = False, 0
        elif kind in ("and", "or") or (kind == "comma" and len(out) > 1):
            joined = True
        elif kind in ("word", "lead", "open", "close") or (kind == "stop" and _back(sentence[n])):
            words_between += kind == "word"
            if words_between > 6:
                break
        elif not (kind == "cue" and sentence[k].cue.kind in ("ignore", "present")):
            break
    return out


def _back(item: Item) -> bool:
    """Whether a cue points back past a "but": "I looked for AF but could not find it"."""
    return item.kind == "cue" and item.text.split()[-1] in ("it", "any", "one", "them")


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
    lead = next((i.text for i in sentence if i.kind not in ("bullet", "open", "close")), "")
    tick: Status | None = None
    for n, item in enumerate(sentence):
        if lead in _TICKS and item.text in _TICKS:  # "[x] LVH [ ] RVH": the ticks stand before
            tick = _VALUES[item.text]
        if item.kind != "term":
            continue
        status[n] = tick or status[n]
        k = n + 1
        while k < len(sentence) and sentence[k].text == '"':
            k += 1
        if k < len(sentence) and sentence[k].text in _TICKS and lead not in _TICKS:
            status[n] = _VALUES[sentence[k].text]
        if k + 1 >= len(sentence) or sentence[k].kind not in ("colon", "open"):
            continue
        while k + 1 < len(sentence) and sentence[k + 1].text in ('"', "|", "both", "all", "each"):
            k += 1
        if k + 1 >= len(sentence):
            continue
        value = _VALUES.get(sentence[k + 1].text) or _value_cue(sentence[k + 1])
        if sentence[k].kind == "open" and sentence[k + 1].text in ("0", "1"):
            continue  # "SR (0)": a likelihood; in PTB-XL 0 means present without one
        rest = [i for i in sentence[k + 2 :] if i.text != '"'][:1]
        after = rest[0].kind if rest else "break"
        packed = after == "term" and sentence[k].text == "="  # "SR=0 AFIB=1"
        dated = bool(rest) and rest[0].text in _NOW  # "not seen today"
        if value and (packed or dated or after in ("break", "comma", "close", "colon", "stop", "open", "question")):
            status.update(dict.fromkeys(_subjects(sentence, n + 1), value))


def _value_cue(item: Item) -> Status | None:
    """The status of a cue that can stand as a value: "not seen", "possible"; not "no evidence of"."""
    return status_of(item) if item.kind == "cue" and item.cue.side in ("both", "after") else None
