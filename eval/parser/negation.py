"""Negation and uncertainty: the status of every finding that a sentence names.

The scope rules follow NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009), adapted to ECG wording. The scope
of a cue ends with its sentence, at a termination word ("but", "with"), or at a comma, unless the list continues with
"or". Between two findings without another cue, "or" means doubt about both. A cue after a finding ("... is not seen",
"LVH: no", "AFIB?") takes precedence over a cue before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from eval.parser.chunk import Chunk
from eval.parser.lexicon import Status
from eval.parser.sentences import NO, YES, is_question, presupposes
from eval.parser.tokenizer import TERRITORIES, word_tuple

_VALUE_WORDS: dict[Status, str] = {
    "present": "yes y present 1 true positive ja confirmed detected seen ✓ ✔ ✅ ☑ ☒ x",
    "absent": "no n none absent 0 false negative nein keine not nil unlikely undetected - ✗ ✘ ❌ ☐",
    "uncertain": "maybe possible possibly uncertain unclear probable likely equivocal borderline ? moeglich",
}
_VALUES: dict[str, Status] = {word: status for status, text in _VALUE_WORDS.items() for word in word_tuple(text)}
_ANSWERS = set(word_tuple("yes no ja nein none nil keine"))
_BEFORE_VALUES = set(word_tuple('" | both all each very most highly quite rather more there is are'))
_NO_VALUES = {"null", "unknown", "undetermined"}
_TICKS = set("✓✔✅✗✘❌☐☑☒")
_NOW = set(word_tuple("now currently today presently jetzt aktuell heute"))
_TURNS = set(word_tuple("but however yet whereas while"))
_EXPECTATIONS = _TURNS | set(word_tuple("although though as since because"))
_CIRCUMSTANCES = {"in", "with", "during"}
_MARKS = {"comma", "open", "colon"}
_CONDITIONAL = set(word_tuple("would should could might if were had falls sollte"))
_RESOLUTIONS = _TURNS | set(word_tuple("so therefore thus hence instead although though"))
_STATES = [[subject, "is"] for subject in ("it", "this", "here", "there", "rhythm")]
_CONSEQUENCES = {"so", "therefore", "thus", "hence", "→", "por lo que", "donc", "daher", "somit", "quindi"}
_OPINIONS = {"think", "believe"}
_DOUBTERS = {"sure", "certain", "convinced", "confident"}
_EXCLUSIONS = set(word_tuple("ruled rule excluded exclude out rejected discarded dismissed eliminated"))
_POINTERS = {"that", "this", "it"}  # "AF would be irregular, so that is excluded"
_DOUBT_STARTS = {"i", "but", "though", *_POINTERS}
_MAX_DOUBT = 7  # words of a sentence that only doubts the one before
_RELATIVES = {"which", "where", "whose"}
_ROUGHLY = set(word_tuple("at about around approximately roughly ca"))
_ECTOPY = {"PVC", "PAC", "PRC(S)"}
_MEASURED = _ECTOPY | {"LPR", "LNGQT"}  # a share of all beats or a length in seconds is no probability
_CONCESSIONS = {"though", "although", "despite"}
_CAUSES = {"because", "since", "basis"}
_SIGNS = {"STE_", "STD_", "INVT", "QWAVE", "NT_", "LOWT", "TAB_", "NST_"}
# What defines a statement is no finding of its own behind it: AHA/ACCF/HRS 2009, part IV (low potassium: flat T waves,
# ST depression), and the AHA's list of 2007 (a first-degree block is a long PR interval).
_DEFINING_SIGNS = {
    "EL": {"STD_", "NT_", "LOWT"},
    "DIG": {"STD_", "NT_", "LOWT"},
    "1AVB": {"LPR"},
}
# Nor are repolarization changes that are said to be secondary to the conduction or to hypertrophy (part IV, too).
_SECONDARY = set(word_tuple("secondary discordant expected usual appropriate"))
_HAVE_SECONDARY_SIGNS = {"CLBBB", "CRBBB", "ILBBB", "IRBBB", "IVCD", "WPW", "PACE", "LVH", "RVH"}
_HAVE_SIGNS = _HAVE_SECONDARY_SIGNS | _DEFINING_SIGNS.keys()
_SECONDARY_SIGNS = {"STE_", "STD_", "INVT"}
_SIGN_LINKS = {":", "(", "with", "namely"}
_REASONS = ("without", "given", "since", "because", "at", "in", "on", "for", "due", "by")
_VALUE_ENDS = ("break", "comma", "close", "colon", "termination", "open", "question")
_HEADING_WORDS = set(word_tuple("of the following sign evidence finding for any"))
_OPEN_LISTS = set(word_tuple("consider ddx dd differential differentialdiagnose differenzialdiagnose"))
_ALTERNATIVES = set(
    word_tuple(
        "differential explanation possibility consideration option ddx differentialdiagnosen cause etiology candidate "
        "way"
    )
)
_LINKS = {"es", "is", "are", "was", "were", "include"}
_KINDS_BETWEEN = ("pseudo", "present", "assertive", "hypothetical", "attribution")
_KINDS_IN_LISTS = ("term", "comma", "and", "or")
_LISTING = ("comma", "and", "or", "colon", "question")
_CAUSE_NOUNS = set(word_tuple("cause explain explanation etiology differential"))
_SEVERAL = set(word_tuple("two three four five several many other usual common possible main 2 3 4 5"))
_CONCLUSIONS = set(word_tuple("conclusion final finally summary impression verdict overall fazit zusammenfassung"))
_RETRACTIONS = (
    *(
        f"{subject} {verb} {judgement}"
        for subject in ("that", "this") for verb in ("is", "was")
        for judgement in ("wrong", "incorrect", "not right", "not correct", "a mistake", "an error")
    ),
    "that can not be right", "scratch that", "strike that", "i was wrong", "i was mistaken", "actually no",
)  # fmt: skip
_CONTRADICTIONS = tuple(
    f"{words} "
    for words in (
        "however", "but", "actually", "on closer", "on a closer", "on second", "looking again", "looking closer",
        "looking more", "wait", "no wait", "hmm", "in fact", "in reality", "upon closer", "a closer", "yet", "instead",
        "i disagree", "i do not agree", "i would disagree", "correction", "edit", "i would not", *_RETRACTIONS,
    )
)  # fmt: skip
# Stop words that do not end a scope right after its cue: "not sure whether this is", "no indication that".
_TRANSPARENT: dict[Status | None, set[str]] = {
    "uncertain": set(word_tuple("this there it that which we i he she they you besteht liegt")),
    "absent": {"that"},
}


@dataclass(frozen=True)
class Mention:
    """A finding with its status.

    local: stated of certain leads only. heading: followed by a colon, and perhaps by a value or an explanation.
    tentative: a question, a first impression, or the statement of somebody else, which later mentions outweigh.
    final: in the conclusion of the answer, behind a "so", or ruled out: it outweighs earlier mentions.
    alternatives: the codes between which its sentence leaves the choice ("LVH, RVH or WPW"), its own included.
    corrects: in a correction of what was said before. in_question: only asked about, which says nothing of its status.
    """

    chunk: Chunk
    status: Status
    local: bool = False
    heading: bool = False
    tentative: bool = False
    final: bool = False
    alternatives: frozenset[str] = frozenset()
    corrects: bool = False
    in_question: bool = False


def read_sentence(
    sentence: Sequence[Chunk], header: Status | None, asked: bool = False
) -> tuple[list[Mention], Status | None]:
    """The mentions of one sentence, and the status that a heading ("Not seen:") gives to the list items after it.

    asked: the sentence before is a question, whose header a list of findings keeps as well.
    """
    if sentence[0].kind != "bullet" and not (asked and all(c.kind in _KINDS_IN_LISTS for c in sentence)):
        header = None  # "What could cause this? RVH, RBBB or WPW."
    sentence = _without_hypothesis(sentence)
    if not sentence:
        return [], header
    has_terms = any(chunk.kind == "term" for chunk in sentence)
    mentions = _mentions(sentence, header) if has_terms else []
    if alternatives := _alternatives_heading(sentence):
        return [m for m in mentions if m.chunk.start < alternatives], "uncertain"
    if not has_terms and (sentence[-1].kind == "colon" or _is_heading(sentence)):
        return [], next((i.cue.status for i in sentence if i.kind == "cue"), None)
    return mentions, _cue_of_list(sentence) or header


def _mentions(sentence: Sequence[Chunk], header: Status | None) -> list[Mention]:
    """The terms of a sentence that its cues leave something to say about."""
    status: dict[int, Status | None] = {}
    _before_cues(sentence, header, status)
    _after_cues(sentence, status)
    _alternatives(sentence, status)
    _values(sentence, status)
    _last_value(sentence, status)
    _defining_signs(sentence, status)
    _concessions(sentence, status)
    _corrections(sentence, status)
    mentions = [
        _mention(sentence, n, value)
        for n, chunk in enumerate(sentence)
        if chunk.kind == "term" and (value := status.get(n)) is not None and not _of_leads(sentence, n)
    ]
    if header == "uncertain" or _leaves_choice(sentence):
        mentions = _with_alternatives(mentions)
    return _without_discarded(sentence, mentions)


def _of_leads(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether a "normal" is about certain leads only: "In the chest leads everything looks normal"."""
    vague = sentence[n].meaning.codes == ("NORM",) and {"ecg", "tracing"}.isdisjoint(sentence[n].text.split())
    return vague and any(chunk.kind == "lead" for chunk in sentence[:n])


def _leaves_choice(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence names alternatives: "A or B", "Options: A, B"."""
    terms = [n for n, chunk in enumerate(sentence) if chunk.kind == "term"]
    return len(terms) > 1 and any(
        (c.kind == "or" and n > terms[0]) or (c.kind in ("colon", "word") and _heads_alternatives(sentence, n))
        for n, c in enumerate(sentence[: terms[-1]])
    )


def _without_discarded(sentence: Sequence[Chunk], mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions, those denied that a sentence gives up: "It could be A, but there are no P waves, so it is B"."""
    turn = next((c.start for c in sentence if c.kind == "termination" and c.text in _TURNS), -1)
    concludes_otherwise = any(m.final and m.status == "present" for m in mentions)
    return [
        replace(m, status="absent") if concludes_otherwise and m.status == "uncertain" and m.chunk.start < turn else m
        for m in mentions
    ]


def _with_alternatives(mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions of one sentence, those in doubt with the codes of all that are in doubt."""
    codes = frozenset(code for m in mentions if m.status == "uncertain" for code in m.chunk.meaning.codes)
    return [replace(m, alternatives=codes) if m.status == "uncertain" else m for m in mentions]


def _cue_of_list(sentence: Sequence[Chunk]) -> Status | None:
    """The status of a cue right before the colon that ends a sentence: "The ST elevation might be due to:"."""
    if len(sentence) < 2 or sentence[-1].kind != "colon" or sentence[-2].kind != "cue":
        return None
    return sentence[-2].cue.status if sentence[-2].cue.side == "before" else None


def contradicts(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence starts with a turn ("However, ...", "Looking again, ..."): the one before was tentative."""
    words = _first_words(sentence)
    return words.startswith(_CONTRADICTIONS) or " however" in words or " jedoch" in words


def _first_words(sentence: Sequence[Chunk]) -> str:
    return " ".join([chunk.text for chunk in sentence[:5] if chunk.kind in ("word", "termination", "cue")] + [""])


def denies_before(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence denies what the one before considered: "The axis is normal, so that doesn't fit"."""
    return any(
        chunk.kind == "cue" and chunk.cue.status == "absent" and chunk.cue.side != "before"
        and pointer.text in _POINTERS and not any(c.kind == "term" for c in sentence[:n])
        for n, (pointer, chunk) in enumerate(pairwise(sentence))
    )  # fmt: skip


def doubts_before(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence only doubts what the one before says: "I must say I am not convinced", "That is doubtful"."""
    if sentence[0].text not in _DOUBT_STARTS or len(sentence) > _MAX_DOUBT:
        return False
    content = [c for c in sentence if c.kind != "question" and c.text not in _POINTERS]
    if not content or content[-1].kind != "cue" or content[-1].cue.status != "uncertain":
        return False
    return all(c.kind in ("word", "termination") for c in content[:-1])


def status_line(sentence: Sequence[Chunk]) -> Status | None:
    """The status in a line about the finding in the line before it: "name: LVH", "present: no"."""
    if len(sentence) != 3 or sentence[0].text not in ("present", "status") or sentence[1].text != ":":
        return None
    return _VALUES.get(sentence[2].text)


def takes_back(sentence: Sequence[Chunk]) -> bool:
    """Whether a contradiction denies what it follows: "After correction it is not", "Wait, no."; not "... not new"."""
    if _first_words(sentence).startswith(_RETRACTIONS):
        return True
    cue = next((n for n, chunk in enumerate(sentence) if chunk.kind == "cue" and chunk.cue.status == "absent"), 0)
    is_no = sentence[cue].text in ("no", "nein") and not any(c.kind == "term" for c in sentence[:cue])  # "Wait, no."
    return (is_no or denies_before(sentence[: cue + 1])) and _ends_clause(sentence, cue)


def _ends_clause(sentence: Sequence[Chunk], n: int) -> bool:
    return n + 1 == len(sentence) or sentence[n + 1].kind in ("comma", "colon") or sentence[n + 1].text == "/"


def suppositions(sentence: Sequence[Chunk]) -> list[Mention]:
    """What the clause of a condition supposes, as denied: "Were this a third-degree block, P waves would ..."."""
    first = sentence[len(sentence) > 1 and sentence[0].kind == "bullet"]
    if first.kind != "cue" or first.cue.kind != "hypothetical":
        return []
    end = next((n for n, c in enumerate(sentence) if c.kind in ("comma", "colon")), len(sentence))
    return [Mention(chunk, "absent") for chunk in sentence[:end] if chunk.kind == "term"]


def denies_supposition(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence says that the expected is not so: "They do not.", "It isn't; 170 ms", "There is none."."""
    for n, chunk in enumerate(sentence):
        if chunk.kind == "cue":
            return n > 0 and _ends_clause(sentence, n) and chunk.cue.status == "absent"
        if chunk.kind not in ("termination", "word"):
            return False
    return False


def concludes(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence starts the conclusion of an answer: "Final answer: ...", "In summary, ..."."""
    words = [chunk.text for chunk in sentence if chunk.kind not in ("bullet", "open", "close")][:2]
    return any(word in _CONCLUSIONS for word in words)


def _is_heading(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence without findings is a heading: "Differential diagnosis", "Absent findings" on its own line."""
    cues = [c for c in sentence if c.kind == "cue" and c.cue.status]
    return len(sentence) <= 4 and bool(cues) and not any(c.text in NO or c.kind == "question" for c in sentence)


def _alternatives_heading(sentence: Sequence[Chunk]) -> int:
    """The position of the noun in a heading of alternatives, or 0: "A tall R wave has several explanations:"."""
    last = sentence[-1].kind
    first_words = " ".join([c.text for c in sentence if c.kind in ("word", "cue")][:2]).split()
    if last == "question" and first_words[:1] in (["what"], ["why"]):  # "What could cause this?"
        return sentence[0].start + 1 if any(not _CAUSE_NOUNS.isdisjoint(c.text.split()) for c in sentence) else 0
    is_title = (
        first_words != ["explanation"]
        and not _CAUSE_NOUNS.isdisjoint(first_words)
        and not any(not _LINKS.isdisjoint(c.text.split()) or c.kind in _LISTING for c in sentence)
    )
    if last != "colon" and not is_title:
        return 0
    nouns = (c.start + 1 for c in sentence if _ALTERNATIVES & set(c.text.split()) and c.kind in ("word", "cue"))
    return next(nouns, 0)


def _without_hypothesis(sentence: Sequence[Chunk]) -> Sequence[Chunk]:
    """The part of a sentence that is about this ECG: after "If this were flutter, saw-teeth would be seen, but ...".

    Empty for a sentence about ECGs in general or about a condition ("In general ...", "If this were ...").
    """
    for n, chunk in enumerate(sentence):
        if chunk.kind not in ("cue", "word"):
            continue
        bare = chunk.kind == "word" and chunk.text in ("would", "if") and _is_conditional(sentence, n)
        if bare or (chunk.kind == "cue" and chunk.cue.kind == "hypothetical"):
            has_term = any(c.kind == "term" for c in sentence[:n])
            about_this = chunk.text.split()[0] in _CONDITIONAL
            # "I would call it flutter if there were ..." has its term before the cue.
            would = about_this and any(c.text == "would" for c in sentence[:n])
            if bare or has_term == (chunk.cue.side == "after") or would:
                before = sentence[: _clause_start(sentence, n)] if about_this else []
                if n and sentence[n - 1].text in _EXPECTATIONS:  # "AVNRT is possible, but one would expect ..."
                    before = sentence[: n - 1]
                rest = _resolution(sentence[n + 1 :], about_this)
                has_pointer = bool(rest) and rest[0].text in _POINTERS
                verb = rest[has_pointer : has_pointer + 1]
                if verb and verb[0].kind == "cue" and verb[0].cue.side != "before":
                    before, rest = [*before, *[c for c in sentence[:n] if c.kind == "term"][-1:]], rest[has_pointer:]
                return [*before, *rest]
    return sentence


def _is_conditional(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether a "would" or "if" at n makes a condition: "AF would look chaotic", "If V1 showed an R', I'd ..."."""
    if sentence[n].text == "would":
        return n > 0 and sentence[n - 1].kind == "term"
    follows = n + 1 < len(sentence) and sentence[n + 1].kind in ("lead", "term")
    return follows and (n == 0 or any("would" in chunk.text.split() for chunk in sentence[n:]))


def _clause_start(sentence: Sequence[Chunk], n: int) -> int:
    """Where the clause around n starts: at ", in which", or after the last comma, "and" or turn before its subject.

    What a colon and the cue before it say stays: "MAT - not supported: would need three P waves".
    """
    for k in range(n - 1, 0, -1):
        if sentence[k].text in _RELATIVES or (sentence[k].kind == "colon" and sentence[k - 1].kind == "cue"):
            return k
    subject = next((k for k in range(n - 1, -1, -1) if sentence[k].kind == "term"), 0)
    marks = (k for k in range(subject, -1, -1) if sentence[k].kind in ("comma", "and", "termination", "colon"))
    return next(marks, 0)


def _resolution(sentence: Sequence[Chunk], about_this: bool) -> Sequence[Chunk]:
    """What follows a hypothesis: after a comma and "it is", and if it is `about_this` ECG after "but" or "so"."""
    for n, chunk in enumerate(sentence):
        rest = sentence[n + 1 :]
        if any(c.text in _CONDITIONAL for c in rest):
            continue
        turns = about_this and chunk.kind == "termination" and chunk.text in _RESOLUTIONS
        states = chunk.kind in ("comma", "colon") and [c.text for c in rest[:2]] in _STATES
        if turns or states:
            return rest
    return []


def _mention(sentence: Sequence[Chunk], n: int, status: Status) -> Mention:
    following = sentence[n + 1].kind if n + 1 < len(sentence) else ""
    is_reason = tentative = concluded = corrects = False
    for chunk in reversed(sentence[:n]):
        if chunk.kind == "cue":
            corrects |= chunk.cue.kind == "correction"
            tentative |= not is_reason and chunk.cue.kind == "attribution" and chunk.cue.side == "before"
        is_reason |= chunk.text in _CAUSES
        concluded |= chunk.text in _CONSEQUENCES
    final = concluded or (
        status == "absent" and any(c.kind == "cue" and not _EXCLUSIONS.isdisjoint(c.text.split()) for c in sentence)
    )
    is_heading = following == "colon" and not (n + 2 < len(sentence) and sentence[n + 2].text in YES)  # "| Q | yes |"
    place = sentence[1] if sentence[0].text == "|" and len(sentence) > 1 else sentence[n]  # first cell of a table's row
    local = following == "lead" or place.kind == "lead" or place.text in TERRITORIES
    return Mention(sentence[n], status, local, is_heading, tentative, final, corrects=corrects)


def _before_cues(sentence: Sequence[Chunk], header: Status | None, status: dict[int, Status | None]) -> None:
    """Give every term the status of the cue on its left whose scope includes it."""
    base: Status | None = header
    cue: Status | None = None
    skip = past = doubt = either = cause = False
    outside: list[tuple[Status | None, Status | None]] = []
    behind_colon: Status | None = None
    for n, chunk in enumerate(sentence):
        if chunk.kind == "word" and n and chunk.text not in _LINKS:
            continue
        if chunk.kind == "term":
            status[n] = None if skip or past else _join(chunk.inner, cue or (None if chunk.meaning.opposites else base))
            cue = "absent" if chunk.inner == "absent" else cue
        elif chunk.kind == "cue":
            either = chunk.text == "either"
            if _explains(sentence, n):
                behind_colon = chunk.cue.status
            elif chunk.cue.kind != "attribution" and _heads_list(sentence, n):
                base, cue, past = chunk.cue.status, None, chunk.cue.kind == "unrelated"
            elif chunk.cue.kind in ("unrelated", "hypothetical") and chunk.cue.side == "before":
                skip = True
            elif chunk.cue.kind == "previous":
                skip = any(i.text in _NOW for i in sentence[n:]) or (
                    n == 0 and chunk.text.endswith("ly") and [c.kind for c in sentence[1:2]] == ["term"]
                )  # "Formerly AF."
            elif chunk.cue.kind == "same":
                otherwise = "uncertain" if chunk.text.split()[0] in ("that", "which") else cue
                cue = next((s for i in reversed(sentence[:n]) if i.kind == "cue" and (s := i.cue.status)), otherwise)
            elif chunk.cue.kind == "attribution" and chunk.cue.side == "before":
                has_turn = any(i.kind == "termination" and i.text in _TURNS for i in sentence[n:])
                cue, doubt = "absent" if has_turn else "uncertain", True
            elif chunk.text.endswith("whether") and _asks_cause(sentence, n):
                cause = True
            elif chunk.cue.kind == "assertive":
                continue  # "not ... consistent with", "possibly consistent with": the cue before it applies
            elif _looks_right(sentence, n) and not _interjection(sentence, n):
                cue = cue if cue == "absent" and chunk.cue.kind != "absent" else (chunk.cue.status or cue)
        elif cause and chunk.text == "due":
            base, cause = "uncertain", False
        elif _heads_alternatives(sentence, n):
            base, cue = "uncertain", None
        elif n == 0 and chunk.text == "think":
            cue = "uncertain"  # "Think hypokalemia", unlike "I think"
        elif chunk.kind == "open":
            outside.append((cue, base))
            if _encloses_signs(sentence, n):
                cue, skip = None if cue == "uncertain" else cue, False
                base = None if base == "uncertain" else base
        elif chunk.kind == "close" and outside:
            cue, base = outside.pop()
        elif chunk.kind == "comma" and outside and sentence[n + 1 : n + 2] and sentence[n + 1].kind == "term":
            continue  # "no atrial enlargement (LAE, RAE)"
        elif chunk.kind == "comma" and skip and sentence[n + 1 : n + 2] and sentence[n + 1].text in _RELATIVES:
            continue  # "unlike the old ECG, which showed AF"
        elif chunk.text in _RELATIVES and skip and sentence[n - 1].kind == "comma":
            continue
        elif chunk.kind == "question" and n + 1 < len(sentence):
            cue = "uncertain"
        elif behind_colon and _heads_causes(chunk):
            base, behind_colon = behind_colon, None
        elif chunk.text == "→":
            cue, skip = None, False
        elif chunk.kind == "colon" and _specifies(sentence, n):
            continue
        elif chunk.kind == "colon" and cue and (not _cue_before(sentence, n) or _has_object(sentence, n)):
            cue = None  # "without flutter waves: SVT", "no major abnormality: sinus rhythm"
        elif _is_transparent(sentence, n, "uncertain" if doubt else cue) or (either and chunk.text == "with"):
            continue
        elif (chunk.kind == "termination" and chunk.text != "due") or (
            chunk.kind in ("comma", "and", "termination") and not _list_continues(sentence, n)
        ):
            cue, skip = None, False


def _asks_cause(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether the cue at n doubts a cause and not the finding: "unclear whether the ST depression is due to LVH"."""
    due = next((k for k in range(n, len(sentence)) if sentence[k].text == "due"), n)
    return any(chunk.kind == "term" for chunk in sentence[n:due])


def _explains(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether a list of alternatives explains what stands before its colon: "Differential of the T inversion: ..."."""
    is_object = n + 1 < len(sentence) and sentence[n + 1].text in ("for", "of")
    if not is_object or sentence[n].text.split()[0] not in _OPEN_LISTS:
        return False
    return any(_heads_causes(chunk) for chunk in sentence[n + 1 :])


def _heads_causes(chunk: Chunk) -> bool:
    return chunk.kind == "colon" or chunk.text in _LINKS


def _encloses_signs(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether the bracket at n has the signs of a finding before it: "Possible ischemia (T inversion in V5)"."""
    before = next((c for c in reversed(sentence[:n]) if c.kind == "term"), None)
    inside = next((c for c in sentence[n:] if c.kind == "term"), None)
    return bool(
        before and inside and _SIGNS.issuperset(inside.meaning.codes) and _SIGNS.isdisjoint(before.meaning.codes)
    )


def _heads_alternatives(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether a list of alternatives starts at n: "four usual explanations: ...", "options were ..."."""
    if sentence[n].kind != "colon" and sentence[n].text not in ("are", "were", "include"):
        return False
    words = [word for chunk in sentence[max(0, n - 4) : n] for word in chunk.text.split()]
    first = [chunk.text for chunk in sentence[:3] if chunk.kind != "bullet"][:2]
    if not _ALTERNATIVES.isdisjoint(first):  # "Causes of a tall R wave: RVH, RBBB", "Possibilities for it are ..."
        return _lists(sentence[n:])
    if not words or words[-1] not in _ALTERNATIVES:
        return False
    is_list = n < 8 and _lists(sentence[n:])
    return sentence[n].kind != "colon" or is_list or not _SEVERAL.isdisjoint(words)


def _lists(sentence: Sequence[Chunk]) -> bool:
    return any(chunk.kind in ("comma", "and", "or") for chunk in sentence)


def _is_transparent(sentence: Sequence[Chunk], n: int, cue: Status | None) -> bool:
    """Whether the scope of a cue continues after the word at n: "no sign that", "at first I thought that this"."""
    chunk = sentence[n]
    if chunk.kind != "termination" or cue is None:
        return False
    subordinate = n > 0 and sentence[n - 1].text == "that" and chunk.text in _TRANSPARENT["uncertain"]
    before = _cue_before(sentence, n)
    if before is None:
        return False
    opinion = not _OPINIONS.isdisjoint(before.text.split())
    words = _TRANSPARENT["uncertain" if opinion else cue] if cue in _TRANSPARENT else ()
    return subordinate or chunk.text in words


def _cue_before(sentence: Sequence[Chunk], n: int) -> Chunk | None:
    """The last cue before the word at n, None where a finding or a mark stands between."""
    last = next((chunk for chunk in reversed(sentence[:n]) if chunk.kind not in ("word", "termination")), None)
    return last if last and last.kind == "cue" else None


def _specifies(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether the colon at n is followed by kinds of what is before it: "No bundle branch block - left or right"."""
    before, after = sentence[n - 1], sentence[n + 1 : n + 2]
    return before.kind == "term" and bool(after) and after[0].text.endswith(f" {before.text}")


def _has_object(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether the "no" before the colon at n is about something else than what follows: "No abnormality: ..."."""
    cue = next(k for k in range(n - 1, -1, -1) if sentence[k].kind == "cue")
    return sentence[cue].text.split()[-1] in NO and bool({c.text for c in sentence[cue + 1 : n]} - _HEADING_WORDS)


def _join(inner: str, outer: Status | None) -> Status:
    if inner == "absent" or outer == "absent":
        return "absent"
    return "uncertain" if inner == "uncertain" or outer == "uncertain" else "present"


def _heads_list(sentence: Sequence[Chunk], n: int) -> bool:
    """A cue before a colon ("Absent: LVH, RVH") applies to the rest of the sentence, also after commas."""
    k = n + 1
    while k < len(sentence) and sentence[k].kind in ("word", "open", "close") and k - n <= 4:
        k += 1  # "Most likely (70 %): ..."
    words = sentence[n].text.split()
    lists = words[-1] in _LINKS and not _ALTERNATIVES.isdisjoint(words)  # "Possible causes include A, B and C"
    if lists or words[0] in _OPEN_LISTS or (sentence[n].text == "rule out" and n == 0):
        return True
    if k >= len(sentence) or sentence[k].kind != "colon" or _interjection(sentence, n):
        return False
    if sentence[k].text == "→" and k > n + 1:
        return False  # "wide beats without P -> PVCs"
    object_words = {c.text for c in sentence[n + 1 : k]}
    if sentence[n].text.split()[-1] in NO and object_words - _HEADING_WORDS:  # "No major abnormality: sinus rhythm"
        return False
    if k == n + 1 and any(c.kind == "termination" for c in sentence[max(0, n - 2) : n]):
        return False  # "It does not: the rhythm is ...", "There are none: ..."
    return not any(chunk.kind == "term" for chunk in sentence[max(0, n - 2) : n])


def _looks_left(sentence: Sequence[Chunk], n: int) -> bool:
    return not _looks_right(sentence, n) or sentence[n].text.endswith(" than")  # "AF is more likely than MAT"


def _looks_right(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether a cue applies to what follows; a cue of both sides does when a term is close on its right."""
    side = sentence[n].cue.side
    if side == "after" and sentence[n].text.split()[-1] in _CIRCUMSTANCES:
        return False  # "The ST segment cannot be assessed in paced beats"
    if not any(chunk.kind == "term" for chunk in sentence[:n]):
        return side != "after" or sentence[n].cue.kind != "present"
    if side != "both" or sentence[n - 1].kind == "and":  # "sinus rhythm and borderline intervals"
        return side != "after"
    for chunk in sentence[n + 1 : n + 5]:
        if chunk.kind == "term":
            return True
        if chunk.kind not in ("word", "cue"):
            return False
    return False


def _interjection(sentence: Sequence[Chunk], n: int) -> bool:
    """ "No, the rhythm is ...", "None: complete block": the no answers a question and denies nothing that follows."""
    return (
        sentence[n].text in {*NO, "none", "neither"}
        and n + 1 < len(sentence)
        and sentence[n + 1].kind in ("comma", "colon")
    )


def _list_continues(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether a list continues after the comma or "and" at n, so that the cue before it still applies."""
    if sentence[n].kind == "and":
        near = [k for k in range(n + 1, min(n + 4, len(sentence))) if sentence[k].kind == "term"]
        if not near or any(i.kind in ("cue", "termination", "comma") for i in sentence[n + 1 : near[0]]):
            return False
        has_verb = sentence[near[0]].verb or not _LINKS.isdisjoint(sentence[near[0]].text.split())
        return not has_verb and not _own_verb(sentence, near[0])
    gap = 0
    for k in range(n + 1, len(sentence)):
        kind = sentence[k].kind
        gap = gap + 1 if kind == "word" else 0
        if kind == "or" or (kind == "cue" and sentence[k].text in ("nor", "ni")):
            return True
        if kind == "and" and sentence[k - 1].kind == "comma":  # "A, B, and C" to the end of the sentence
            return _lists_findings(sentence, n, k)
        stops = kind in ("cue", "termination", "colon", "question") and sentence[k].text != "due"
        if gap > 3 or stops or sentence[k].verb:
            return False
    return False


def _lists_findings(sentence: Sequence[Chunk], n: int, last: int) -> bool:
    """Whether a list from n with its "and" at `last` contains findings only; such lists do not deny sinus rhythm."""
    if last + 1 >= len(sentence) or sentence[last + 1].kind != "term":
        return False
    if any({"SR", "NORM"} & {*chunk.meaning.codes} for chunk in sentence[n:]):
        return False
    return all(chunk.kind in ("term", "word", "lead", "comma", "and") for chunk in sentence[last:])


def _own_verb(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether the term at n is the subject of a verb of its own ("... and LVH is present")."""
    for chunk in sentence[n + 1 :]:
        if chunk.kind in ("comma", "termination", "or", "and"):
            return False
        if (chunk.kind == "cue" and chunk.cue.side == "after") or chunk.text in ("is", "are"):
            return True
    return False


def _after_cues(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """Apply cues that follow their terms ("LVH and RVH are not seen", "AFIB?") to the terms before them."""
    for n, chunk in enumerate(sentence):
        new: Status | None = None
        if chunk.kind == "question" and (bracketed := _in_bracket(sentence, n)):
            status.update((k, "uncertain") for k in bracketed if status.get(k) == "present")
        elif (
            chunk.kind == "question" and n == len(sentence) - 1 and not (is_question(sentence) or presupposes(sentence))
        ):
            new = "uncertain"
        elif chunk.kind == "cue" and chunk.cue.kind == "unrelated" and chunk.cue.side == "after":
            status.update(dict.fromkeys(_subjects(sentence, n)[:1], None))
        elif chunk.kind == "cue" and chunk.cue.kind == "attribution" and chunk.cue.side == "after":
            new = "absent" if any(c.text in _TURNS for c in sentence[n:]) else "uncertain"
        elif chunk.kind == "cue" and chunk.cue.side != "before" and _looks_left(sentence, n):
            new = None if n + 1 < len(sentence) and _heads_alternatives(sentence, n + 1) else chunk.cue.status
        if new == "present" and sentence[n - 1].kind == "termination":  # "absent in V1 but present in V2"
            status.update((k, new) for k in [k for k in status if k < n][-1:] if status[k])
        if new is None or new == "present":
            continue
        for k in _subjects(sentence, n):
            if status.get(k) is not None and status[k] != "absent" and not sentence[k].meaning.opposites:
                status[k] = new


def _in_bracket(sentence: Sequence[Chunk], n: int) -> list[int]:
    """The terms that a question mark at n asks about in a bracket: "ST depression (rate related? ischemia?)"."""
    start = next((k for k in range(n - 1, -1, -1) if sentence[k].kind in ("open", "close", "question")), 0)
    if not any(chunk.kind == "open" for chunk in sentence[1:n]) or sentence[start].kind == "close":
        return []
    return [k for k in range(start, n) if sentence[k].kind == "term"]


def _subjects(sentence: Sequence[Chunk], n: int) -> list[int]:
    """The terms that a cue at n refers to: the nearest on its left, and those in one list with it."""
    out: list[int] = []
    in_list, words_between = False, 0
    cue = sentence[n].kind == "cue"
    denies = cue and sentence[n].cue.status == "absent"
    # "I looked for AF because of ..., and can't find it"
    refers_to_it = sentence[n].text.endswith((" it", " that", " them"))
    for k in range(_before_insertion(sentence, n), -1, -1):
        kind = sentence[k].kind
        if kind == "term":
            alias = out and sentence[k + 1].kind == "open" and sentence[k].meaning == sentence[out[-1]].meaning
            if out and not (in_list or alias):
                break
            out.append(k)
            in_list, words_between = False, 0
        elif cue and sentence[k].text == "with" and out and not sentence[out[-1]].meaning.codes:
            in_list = True  # "LVH with strain is likely"
        elif denies and not out and (sentence[k].text == "which" or sentence[k + 1].text in ("which", "or rather")):
            continue
        elif refers_to_it and not out and kind == "colon":
            continue  # "RVH is less plausible; I would discard it"
        elif kind in ("and", "or") or (
            kind == "comma"
            and (len(out) > 1 or (in_list and sentence[k + 1].kind != "and") or (refers_to_it and not out))
        ):
            in_list = True
        elif kind in ("comma", "colon") and k == n - 2 and _refers_back(sentence[n]):
            continue  # "It looks like LVH, but I am not sure"
        elif kind in ("word", "lead", "open", "close") or (
            kind == "termination" and (_refers_back(sentence[n]) or (k == n - 1 and _continues(sentence, k)))
        ):
            words_between += kind == "word"
            if words_between > 6 and not refers_to_it:
                break
        elif not (kind == "cue" and sentence[k].cue.kind in _KINDS_BETWEEN):
            break
    return out


def _before_insertion(sentence: Sequence[Chunk], n: int) -> int:
    """Where the subject of a cue at n ends: "LVH, probable", "electrolytes, mainly potassium, might be the cause"."""
    for k in range(n - 1, 0, -1):
        if sentence[k].text == "bei" and sentence[k - 1].text in ("ist", "sind"):
            return k - 2  # "ein Infarkt ist bei isoliertem Q unwahrscheinlich"
    if n == 0 or sentence[n - 1].kind != "comma":
        return n - 1
    k = n - 2
    while k > 0 and (sentence[k].kind in ("word", "lead", "and", "or") or _is_past(sentence[k])):
        k -= 1
    if k > 0 and sentence[k].kind == "comma" and sentence[k - 1].kind == "term":
        return k - 1
    return n - 2 if n + 1 == len(sentence) or sentence[n + 1].text == "|" else n - 1


def _is_past(chunk: Chunk) -> bool:
    """Whether a chunk names an earlier tracing: "PVCs, frequent on the old ECG, are absent"."""
    return chunk.kind == "cue" and chunk.cue.kind in ("unrelated", "pseudo")


def _continues(sentence: Sequence[Chunk], k: int) -> bool:
    """Whether the subject stays the same after the word at k: "... and so is unlikely", "considered but dismissed"."""
    turns = sentence[k].text in _TURNS and not _EXCLUSIONS.isdisjoint(sentence[k + 1].text.split())
    return turns or sentence[k].text in _CONSEQUENCES


def _refers_back(chunk: Chunk) -> bool:
    """Whether a cue refers to a term before a "but": "I looked for AF but could not find it"."""
    return chunk.kind == "cue" and chunk.text.split()[-1] in ("it", "that", "any", "one", "them", *_DOUBTERS)


def _alternatives(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """ "strain or ischemia": without another cue both are uncertain, unless they are one statement."""
    for n, chunk in enumerate(sentence):
        if chunk.kind != "or":
            continue
        left = _list_before(sentence, n)
        if sentence[n - 1].kind == "close":  # "SVT (AVNRT/AVRT) or flutter"
            opening = max((k for k in range(n) if sentence[k].kind == "open"), default=0)
            left += [opening - 1] if opening and sentence[opening - 1].kind == "term" else []
        right = next((k for k in range(n + 1, min(n + 5, len(sentence))) if sentence[k].kind == "term"), None)
        if not left or right is None or any(i.kind in ("cue", "termination", "comma") for i in sentence[n + 1 : right]):
            continue
        if sentence[left[0]].meaning == sentence[right].meaning:
            continue
        for k in (*left, right):
            if status.get(k) == "present":
                status[k] = "uncertain"


def _last_value(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """ "LVH, no" on a line of its own, "RBBB: 90 ms, so unlikely": the value after the last comma is the heading's."""
    content = [n for n, chunk in enumerate(sentence) if chunk.kind not in ("break", "bullet")]
    terms = [n for n in content if sentence[n].kind == "term"]
    if not terms or len(content) < 3:
        return
    before = sentence[content[-2]]
    if before.kind != "comma" and before.text not in _CONSEQUENCES:
        return
    last = sentence[content[-1]]
    value = last.cue.status if last.kind == "cue" and last.cue.side != "before" else _VALUES.get(last.text)
    heads = sentence[content[1]].kind == "colon" or (len(terms) == 1 and sentence[content[1]].kind == "comma")
    follows = heads and terms[0] == content[0]
    if value and (last.kind == "cue" or last.text in YES | NO) and follows:
        status[terms[0]] = value


def _list_before(sentence: Sequence[Chunk], n: int) -> list[int]:
    """The terms that an "or" at n joins to the next: all of "A, B, or C"."""
    if sentence[n - 1].kind != "comma":
        return _subjects(sentence, n)
    out: list[int] = []
    for k in range(n - 1, -1, -1):
        if sentence[k].kind == "term":
            out.append(k)
        elif sentence[k].kind not in ("comma", "word", "lead"):
            break
    return out


def _values(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """ "LVH: no", "AFIB = 1", "PVC (absent)", "| WPW | yes |": the value after a term is its status."""
    first = next((i.text for i in sentence if i.kind not in ("bullet", "open", "close")), "")
    tick: Status | None = None
    for n, chunk in enumerate(sentence):
        if first in _TICKS and chunk.text in _TICKS:  # "[x] LVH [ ] RVH": the ticks are on the left
            tick = _VALUES[chunk.text]
        if chunk.kind != "term":
            continue
        if tick == "absent" or (tick and status[n] is None):  # "✅ SVT, most likely AVNRT": its own words say more
            status[n] = tick
        if n and sentence[n - 1].text == "0" and _ECTOPY & {*chunk.meaning.codes}:
            status[n] = "absent"  # "3 PVCs, 0 PACs"
        k = n + 1
        while k < len(sentence) and sentence[k].text == '"':
            k += 1
        if k == len(sentence):
            continue
        text = sentence[k].text
        if (text in _TICKS and first not in _TICKS) or (text in _ANSWERS and _ends_clause(sentence, k)):
            status[n] = _VALUES[text]  # "LVH ✓", "LVH yes, RVH no"
        elif text == "0" and _ECTOPY & {*chunk.meaning.codes} and _ends_clause(sentence, k):
            status[n] = "absent"  # "PACs x 0"; of PTB-XL's codes 0 is a likelihood
        probability = _probability(sentence, k)
        if probability is not None and not _MEASURED & {*chunk.meaning.codes}:
            status[n] = _join(_likelihood(probability), status[n])
            continue
        if k + 1 >= len(sentence) or sentence[k].kind not in ("colon", "open"):
            continue
        while k + 1 < len(sentence) and sentence[k + 1].text in _BEFORE_VALUES:
            k += 1
        if k + 1 >= len(sentence):
            continue
        if sentence[k + 1].text in _NO_VALUES:
            status[n] = None
            continue
        value = _VALUES.get(sentence[k + 1].text) or _value_cue(sentence, k + 1)
        if sentence[k].kind == "open" and sentence[k + 1].text in ("0", "1") and not _ECTOPY & {*chunk.meaning.codes}:
            continue  # "SR (0)": a likelihood; in PTB-XL 0 means present without one. "PVCs (0)" is a count
        if sentence[k].kind == "open" and (conclusion := _last_in_bracket(sentence, k)):
            status[n] = conclusion
            continue
        rest = [i for i in sentence[k + 2 :] if i.text != '"'][:1]
        after = rest[0].kind if rest and rest[0].text not in _TICKS else "break"
        run_together = after == "term" and sentence[k].text == "="  # "SR=0 AFIB=1"
        has_now = bool(rest) and rest[0].text in _NOW  # "not seen today"
        reason = bool(rest) and rest[0].text.partition(" ")[0] in _REASONS  # "unlikely without P waves"
        if rest and rest[0].text == "=":
            continue  # "PVCs (n = 3)"
        if value and (run_together or has_now or reason or after in _VALUE_ENDS):
            status.update(dict.fromkeys(_subjects(sentence, n + 1), value))


def _defining_signs(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """Take away the signs behind the statement that they define: "Hypokalaemia: U waves, flat T waves"."""
    if all(_HAVE_SIGNS.isdisjoint(sentence[n].meaning.codes) for n in status):
        return
    owner: set[str] = set()
    signs: set[str] = set()
    has_link = False
    for n, chunk in enumerate(sentence):
        codes = {*chunk.meaning.codes}
        if codes and codes <= signs:
            status[n] = None if status[n] == "present" else status[n]
        elif chunk.kind == "term" and not codes & owner and status.get(n) != "absent" and chunk.text != "electrolyte":
            owner, has_link = codes, "(" in chunk.text
            signs = _signs_of(owner) if has_link else set()
        elif owner and chunk.text in _SIGN_LINKS and sentence[n - 1].kind in ("term", "comma"):
            has_link, signs = True, _signs_of(owner)
        elif chunk.text in _SECONDARY and n and _stems_from(sentence, n):
            status[n - 1] = None  # "T inversion secondary to LVH"
        elif has_link and chunk.text in _SECONDARY and owner & _HAVE_SECONDARY_SIGNS:
            signs = signs | _SECONDARY_SIGNS
        elif chunk.kind == "close" or (chunk.kind == "termination" and chunk.text not in _SIGN_LINKS):
            owner, signs, has_link = set(), set(), False


def _stems_from(sentence: Sequence[Chunk], n: int) -> bool:
    """Whether the sign before n is said to be secondary to a finding that is named behind it."""
    owner = next((chunk for chunk in sentence[n + 1 : n + 6] if chunk.kind == "term"), None)
    before = sentence[n - 1].meaning.codes
    return (
        bool(before and owner)
        and _SECONDARY_SIGNS.issuperset(before)
        and not _HAVE_SECONDARY_SIGNS.isdisjoint(owner.meaning.codes if owner else ())
    )


def _concessions(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """Take away what a concession says of a denied finding: "Not flutter, although the baseline is saw-toothed"."""
    if "absent" not in status.values():
        return
    start = next((n for n, c in enumerate(sentence) if c.text in _CONCESSIONS), len(sentence))
    denials = (n for n, value in status.items() if n < start and value == "absent")
    denied = {code for n in denials for code in sentence[n].meaning.codes}
    for n, value in status.items():
        if n > start and value == "present" and not denied.isdisjoint(sentence[n].meaning.codes):
            status[n] = None


def _corrections(sentence: Sequence[Chunk], status: dict[int, Status | None]) -> None:
    """Deny the term right before a correction, whose own term takes its place: "LVH, sorry, RVH"."""
    for n, chunk in enumerate(sentence):
        if chunk.kind == "cue" and chunk.cue.kind == "correction":
            before = next((k for k in range(n - 1, -1, -1) if sentence[k].kind not in _MARKS), 0)
            after = next((c for c in sentence[n + 1 :] if c.kind not in _MARKS), chunk)
            if status.get(before) == "present" and after.kind == "term":
                status[before] = "absent"


def _signs_of(codes: set[str]) -> set[str]:
    return {sign for code in codes for sign in _DEFINING_SIGNS.get(code, ())}


def _last_in_bracket(sentence: Sequence[Chunk], n: int) -> Status | None:
    """The yes or no at the end of the bracket at n: "paced rhythm (no spikes, so no)"."""
    end = next((k for k in range(n + 1, len(sentence)) if sentence[k].kind == "close"), 0)
    if end < n + 4 or not (sentence[end - 2].kind == "comma" or sentence[end - 2].text in _CONSEQUENCES):
        return None
    return _VALUES[sentence[end - 1].text] if sentence[end - 1].text in _ANSWERS else None


def _probability(sentence: Sequence[Chunk], n: int) -> float | None:
    """The probability that follows, above 0 and below 1: "Atrial flutter: 60 %", "AFLT": 0.6."""
    k = n + 1 if sentence[n].kind in ("colon", "open") else n
    while k < len(sentence) and sentence[k].text in _ROUGHLY:
        k += 1
    number, following = ([chunk.text for chunk in sentence[k : k + 2]] + ["", ""])[:2]
    if following == "%" and number.isdigit():
        value = int(number) / 100
    elif number == "0" and sentence[n].kind == "colon" and following.isdigit() and _is_decimal(sentence, k):
        value = float(f"0.{following}")
    else:
        return None
    return value if 0 < value < 1 else None


def _is_decimal(sentence: Sequence[Chunk], k: int) -> bool:
    """Whether the words at k and k + 1 are the sides of a decimal point, without a unit behind them."""
    has_unit = any(c.kind == "word" and c.text != '"' for c in sentence[k + 2 : k + 3])
    return sentence[k].end + 1 == sentence[k + 1].start and not has_unit


def _likelihood(probability: float) -> Status:
    """What a probability says, in the lexicon of Panicek and Hricak (see `eval.parser.parse.parse`)."""
    if probability < 0.1:  # "unlikely"
        return "absent"
    return "present" if probability > 0.9 else "uncertain"  # "consistent with" asserts


def _value_cue(sentence: Sequence[Chunk], n: int) -> Status | None:
    """The status of a cue that can be a value: "not seen", "possible"; "no evidence" only as the last words."""
    chunk = sentence[n]
    is_last = n + 1 == len(sentence) or sentence[n + 1].kind in ("break", "colon")
    return chunk.cue.status if chunk.kind == "cue" and (chunk.cue.side in ("both", "after") or is_last) else None
