"""Yes, no and "I cannot tell": how a sentence answers a yes/no question."""

from __future__ import annotations

from collections.abc import Sequence

from eval.parser.chunk import Chunk
from eval.parser.chunker import chunk_text
from eval.parser.lexicon import Status
from eval.parser.sentences import NO, YES, first_word, is_question, split_sentences
from eval.parser.tokenizer import word_tuple

_MARKS = ("open", "close", "bullet")
_NEUTRAL = ("termination", "word")
# "P waves are visible" says nothing about what was asked.
_OTHER_SUBJECTS = set(word_tuple("wave complex segment interval axis lead beat baseline rate qrs p t st qt pr rr"))
_PRONOUNS = {"it", "this", "they"}
_CONSEQUENCES = {"so", "therefore", "hence", "then"}
_CROSSES = set("✗✘❌☐")
_TICKS = set("✓✔✅☑") | _CROSSES
_SHORT_VERBS = set(word_tuple("do does is are has"))
# "Elevated? Slightly."
_SOMEWHAT = set(word_tuple("slightly minimally mildly somewhat moderately markedly clearly considerably"))
# After these a "no" is an answer: "No it isn't", "No the rhythm is sinus".
_AFTER_NO = set(word_tuple("it this that there the a an i we they he she is but not no because since as in at"))


def parse_yes_no(answer: str) -> bool | None:
    """Read a yes/no answer: True, False, or None for "could not tell" (hedged, contradictory, on another subject).

    The first sentence that is not a question decides: by its first word, by "the answer is ...", or by whether it
    states or denies anything.
    """
    sentence = next((s for s in split_sentences(chunk_text(answer)) if not is_question(s)), [])
    cues = [chunk.cue.kind for chunk in sentence if chunk.kind == "cue"]
    start = [chunk for chunk in sentence if chunk.kind not in _MARKS][:5]
    words = {chunk.text for chunk in start}
    if "uncertain" in cues or (words & YES and words & NO and first_word(sentence) not in YES | NO):
        return None
    if start and start[0].kind == "cue" and start[0].cue.kind == "present":  # "No doubt ..."
        return True
    if first_word(sentence) in YES:
        return None if len(start) > 2 and start[1].kind == "and" and start[2].text in NO else True
    if first_word(sentence) in NO or words & NO:
        return False
    if words & YES:
        return True
    if "absent" in cues or any(chunk.inner == "absent" for chunk in sentence):
        return False
    return True if "present" in cues or any(chunk.kind == "term" for chunk in sentence) else None


def reply_status(sentence: Sequence[Chunk]) -> Status | None:
    """The status that a sentence gives to what was asked: by its yes or no, or by a cue alone ("Not really.")."""
    content = [chunk for chunk in sentence if chunk.kind not in _MARKS]
    if content and content[0].kind == "colon":  # "Is there ischemia? - Cannot be determined"
        content = sentence = content[1:]
    first = first_word(sentence)
    cues = [chunk for chunk in content if chunk.kind == "cue" and chunk.cue.status]
    doubt = any(chunk.cue.kind == "uncertain" for chunk in cues) and not any(c.kind == "term" for c in content)
    if content and _is_determiner(content):
        return None
    if content and content[0].text in _SOMEWHAT and not cues:
        return "present"
    if [chunk.text for chunk in content] in (["y"], ["n"]):
        return "present" if first == "y" else "absent"
    if content and content[0].text in _TICKS:
        return "absent" if content[0].text in _CROSSES else "present"
    if {chunk.kind for chunk in content} in ({"lead"}, {"lead", "break"}):  # "Which leads show ...? II and III."
        return "present"
    if first in YES or first in NO:
        if doubt:
            return "uncertain"
        absolutely_not = len(content) > 1 and content[1].text == "not"
        return "present" if first in YES and not absolutely_not else "absent"
    last = [chunk for chunk in content if chunk.kind != "break"][-2:]
    for link, value, *after in (content[n : n + 3] for n in range(len(content) - 1)):
        concludes = link.text in _CONSEQUENCES or (link.kind == "colon" and value is last[-1])
        if concludes and value.text in YES | NO and (not after or after[0].kind in ("comma", "break")):
            return "present" if value.text in YES else "absent"
    if len(last) == 2 and last[1].kind == "cue" and (last[0].text in _PRONOUNS or last[1].text.endswith("none")):
        return last[1].cue.status  # "At 440 ms, it is not", "I looked for them and found none"
    words = [chunk.text for chunk in content[:7]]
    if words[:1] == ["i"] and "so" in words[2:4] and words[-1] != "not" and not cues:  # "I would say so"
        return "present"
    if "answer" in words and (word := next((t for t in words if t in YES | NO), "")):
        return "present" if word in YES else "absent"
    for n, chunk in enumerate(content):
        if chunk.kind == "cue" and chunk.cue.status:
            kinds = [c.kind for c in content[n + 1 :]]
            end = next((k for k, kind in enumerate(kinds) if kind in ("colon", "comma", "termination")), len(kinds))
            return chunk.cue.status if "term" not in kinds[:end] else None
        if chunk.kind not in _NEUTRAL or chunk.text in _OTHER_SUBJECTS:
            break
    return _short_yes(content)


def _is_determiner(content: Sequence[Chunk]) -> bool:
    """Whether the "no" at the start belongs to the noun after it and answers nothing: "No preceding P wave, ..."."""
    plain = content[0].text == "no" and len(content) > 1 and content[1].kind == "word"
    return plain and content[1].text not in _AFTER_NO


def _short_yes(content: Sequence[Chunk]) -> Status | None:
    """ "It does.", "It is indeed." and "They are." say yes."""
    end = next((n for n, chunk in enumerate(content) if chunk.kind not in _NEUTRAL), len(content))
    words = [chunk.text for chunk in content[:end]]
    words = words[:-1] if words[-1:] and words[-1] in YES else words
    says_more = end < len(content) and content[end].kind in ("term", "lead", "cue")  # "There are QS waves"
    short = len(words) <= 3 and not says_more and words and words[0] in ("it", "they", "there", "that", "i")
    return "present" if short and words[-1] in _SHORT_VERBS else None
