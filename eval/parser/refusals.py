"""Whether an answer refuses the picture: no ECG, upside down or on its side, cut off, or not read for another reason.

Each sentence is matched alone, in English and German. Statements about waves, axes and artefacts are not refusals
("the T wave is upside down"), and neither is what an ECG does not show ("no ECG evidence of ischaemia"). `refusals.csv`
lists the wordings of answers that decline for another reason: no picture, poor quality, "I can't read medical images".
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

_ECG = r"(?:12[- ]lead )?(?:ecgs?|ekgs?|electrocardiograms?|elektrokardiogramm)"
# After "no ECG": the end, or words that do not change the meaning. "No ECG evidence" is about something else.
_ENDS = (
    r"(?:[- ](?:tracing|trace|recording|page|image|picture|paper|strip))?(?=\s*(?:$|[,:)]|(?:at all|here|but|and|so|"
    r"therefore|(?:is |to be )?(?:visible|shown|seen|present|there)|can|to (?:read|see|interpret)|"
    r"(?:in|on) (?:this|the|your|it))\b))"
)
_FILLER = (
    r"(?:actually|really|clearly|appear|seem|look|to|be|like|show|contain|depict|represent|display|include|see|find|"
    r"recogni[sz]e|detect|an?|any|image|picture|photo|of|valid|actual|real|proper|genuine|recogni[sz]able|readable)"
)
_THINGS = (
    r"(?:photo(?:graph)?|picture|image|drawing|painting|screenshot|scan|x-?ray|radiograph|document|letter|chart|graph|"
    r"diagram|form|table|text|map|landscape|portrait|scene|animal|person|blank page)"
)
_PAGE = r"(?:image|picture|page|photo(?:graph)?|scan|paper|sheet|ecg|ekg|tracing|recording|it|this)"
_IS = r"(?:is|was|are|seems?|appears?|looks?|has been|must be|'s)"
_NOT_ECG = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:\bnot|\bcannot|n't)\s+(?:{_FILLER}\s+)*{_ECG}\b{_ENDS}",
        rf"\b(?:no|without an?) {_ECG}\b{_ENDS}",
        rf"\b(?:rather than|instead of|not) an? {_ECG}\b(?=\s*(?:$|[,:)]))",
        r"\b(?:is|be|like|of|shows?) an? (?:eeg|emg|electroencephalogram|echocardiogram|spirogram)\b",
        rf"\b(?:n'est pas|no es|non e) un (?:{_ECG}|electrocardiogram[ae]|elettrocardiogramma)\b(?=\s*(?:$|[,:)]))",
        rf"\bkein(?:en)? {_ECG}\b(?=\s*(?:$|[,:;)]|zu\b|auf\b|in\b|und\b|sondern\b))",
        r"\b(?:image|picture|page|photo) (?:is|appears|seems|looks)(?: to be)?(?: (?:all|completely|entirely))? "
        r"(?:blank|black|empty|white)\b",
    )
)
# Sentences of these forms must not mention the heart: "this is a picture of an inferior infarction" is no refusal.
_OTHER = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:this|it|here)\b[^,:;]{{0,40}}\b{_THINGS} (?:of|with|showing)\b",
        rf"\b(?:this|it)(?: is|'s| looks like| (?:seems|appears) to be)(?: only| just)? an? "
        rf"(?:[\w-]+ ){{0,2}}{_THINGS}\b",
    )
)
_HEART = re.compile(
    r"ecg|ekg|electro|cardi|heart|rhythm|lead|wave|infarct|isch|block|fibrill|flutter|sinus|hypertroph|atri|ventric|axis|"
    r"normal|qrs|\bst\b|\bqtc?\b|beat|tracing|strain|injury|pac(?:ed|ing|emaker)|voltage|repolari"
)
_UPSIDE_DOWN = re.compile(
    r"\bupside[- ]down\b|\bon its (?:head|side)\b|\bauf dem kopf\b|\bkopfueber\b|\bauf der seite\b|"
    rf"\b{_PAGE} ?{_IS}(?: to be)?(?: been)? (?:\w+ly )?(?:rotated|turned|flipped|sideways|inverted|gedreht)\b|"
    rf"\bplease (?:rotate|turn|flip) (?:the |this |your )?{_PAGE}\b|\bwrong way (?:up|round)\b"
)
_CUT = re.compile(
    r"(?<!the )(?<!\ba )\bcut[- ]off\b(?! (?:value|point|of|for|frequency))|"
    r"\bcropped\b|\btruncated\b|\b(?:ab|an)geschnitten\b|"
    r"\b(?:leads?|av[rlf]|v[1-6])\b[^;]{0,60}\b(?:cannot be (?:read|seen)|can't be (?:read|seen)|not (?:visible|shown)|"
    r"(?:are|is) missing(?=\s*(?:$|[,:;)]|from|on|in|and|because|so)))|"
    r"\bonly (?:a )?part of the (?:ecg|page|tracing)\b"
)
_OF_WAVES = re.compile(
    r"\bwaves?\b|\bcomplex|\bqrs\b|deflection|\baxis\b|clockwise|\bheart\b|\bp'?s\b|amplitude|\bpeaks?\b|\bst\b"
)
_OF_NOISE = re.compile(r"artefact|artifact|noise|noisy|electrode|disconnect|loose|wander|stoer")
_NEGATION = re.compile(r"(?:\bnot|\bnever|n't|\bno longer|\bnicht)\s+(?:(?:appear|seem|look|to|be|been|at all)\s+)*$")
_TURNED_NEEDS = (
    "upside", "on its", "kopf", "seite", "rotat", "turn", "flip", "sideways", "inverted", "gedreht", "wrong way"
)  # fmt: skip
_CUT_NEEDS = ("cut", "crop", "trunc", "schnitten", "be read", "be seen", "visible", "shown", "missing", "only")
_NO_ECG_NEEDS = ("ecg", "ekg", "gram", " eeg", " emg", "blank", "black", "empty", "white")
_OTHER_NEEDS = (
    "photo", "picture", "image", "drawing", "painting", "screenshot", "scan", "ray", "graph", "document", "letter",
    "chart", "diagram", "form", "table", "text", "map", "landscape", "portrait", "scene", "animal", "person", "blank",
)  # fmt: skip
_NEAR = 100  # characters before a match in which a negation is searched
_UMLAUTS = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "ß": "ss",
        **dict(zip("áàâéèêëíìîïóòôúùûñç", "aaaeeeeiiiiooouuunc", strict=True)),
        "’": "'",
        "‐": "-",
        "‑": "-",
        "–": "-",
        "—": "-",
    }
)

# What a sentence gives as advice or general knowledge, and not as a reading of this picture.
_GENERAL = re.compile(
    r"\b(?:if you|you (?:can|could|may|might|should)|could you|would you|please|let me know|(?:happy|glad|able) to|"
    r"i (?:can|could|would|'d)(?! ?not|n't| not| see\b| tell| (?:describe|report|share) what i)|"
    r"in general|generally|typical(?:ly)?|usually|"
    r"common(?:ly)?|for (?:example|instance)|e\.g|such as|look for|how to|what to|"
    r"would (?:need|be needed|require|include|involve)|consult|"
    r"cardiologist|doctors?|physicians?|professionals?|healthcare|emergency|symptoms|"
    r"falls sie|wenn sie|allgemein|arzt|kardiolog\w+)\b"
)
_GENERAL_LIST = re.compile(
    r"\b(?:here(?: is| are|'s)(?! an? (?:\w+ )?(?:analysis|interpretation|reading|breakdown|description|summary)\b)|"
    r"general|steps|how to|what to look|include|things to)\b[^:]*:\s*$"
)
_TURN = re.compile(
    r"\b(?:aber|jedoch|dennoch|pero|mais|but|however|that said|nevertheless|nonetheless|still|although|though|"
    r"the (?:rest|others?|remaining|curves?|waveforms?))\b,?"
)
_PART = re.compile(r"<(\w+)>")
_CANNOT_NEEDS = frozenset((
    "not", "n't", "unable", "incapable", "lack", "declin", "refuse", "rather", "refrain", "avoid", "impossible",
    "prefer", "choose", "no way", "trouble", "difficult", "problem", "inappropriate", "irresponsible", "unsafe",
    "unethical", "only", "prohibit", "forbid", "barred", "preclud", "prevent", "restrict", "banned",
))  # fmt: skip


@dataclass
class _Wording:
    """A pattern of refusals.csv. needs: it can match only in a text with one of these strings."""

    regex: str
    needs: frozenset[str]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern, compiled when first needed: all of them take longer than most answers."""
        return re.compile(self.regex)


@cache
def _wordings(part: str) -> tuple[_Wording, ...]:
    """One part of refusals.csv ("after_cannot", "declines", "refers"), with the parts that it names filled in."""
    with (files("eval.parser") / "refusals.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(row for row in file if not row.startswith("#")))
    alternatives: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        alternatives[row["part"]].append(row["pattern"])

    def fill(pattern: str) -> str:
        return _PART.sub(lambda match: f"(?:{'|'.join(alternatives[match[1]])})", pattern)

    if part == "cannot":
        return (_Wording(fill("<cannot>"), _CANNOT_NEEDS),)
    return tuple(
        _Wording(fill(row["pattern"]), frozenset(row["needs"].split("|"))) for row in rows if row["part"] == part
    )


def refusal_in(text: str) -> str:
    """ "not an ECG", "upside down" (on its side, too), "cut off", "declined", "referral", or "".

    The first kind that any sentence states. "declined" (the answer cannot or will not read the picture, or there is no
    picture) only if no sentence states another kind, "referral" (advice to see a doctor or to send a picture) only if
    none declines.
    """
    texts = _sentences(text)
    whole = "\n".join(texts)
    kinds = [
        (kind, holds, in_text)
        for kind, holds, needs in _OF_PAGES
        if (in_text := [string for string in needs if string in whole])
    ]
    for sentence in texts:
        for kind, holds, needs in kinds:
            if _has(sentence, needs) and holds(sentence):
                return kind
    strings = _strings_in(texts)
    if not strings:
        return ""
    if any(span for _, span in _decline_spans(texts, strings)):
        return "declined"
    refers = _possible("refers", strings)
    return "referral" if any(w.pattern.search(sentence) for sentence in texts for w in refers) else ""


def besides_refusal(text: str) -> str:
    """What a declining answer says besides: its text without refusals, advice and general remarks."""
    rest: list[str] = []
    general = False
    texts = _sentences(text)
    for sentence, span in _decline_spans(texts, _strings_in(texts)):
        reading = sentence
        if span:  # "Yes, a normal ECG, but I can't give advice"; "I can't give a diagnosis, but this is a normal ECG"
            turn = _TURN.search(sentence, span[1])
            reading = sentence[: sentence.rfind(",", 0, span[0]) + 1] + (sentence[turn.end() :] if turn else "")
        general = general or bool(_GENERAL_LIST.search(reading))
        if not general and not _GENERAL.search(reading):
            rest.append(reading)
    return "\n".join(rest)


def _sentences(text: str) -> list[str]:
    return [" ".join(s.split()) for s in re.split(r"[.;!?\n]+", text.lower().translate(_UMLAUTS)) if s.strip()]


@cache
def _needs() -> frozenset[str]:
    return frozenset().union(*(w.needs for part in ("cannot", "declines", "refers") for w in _wordings(part)))


def _strings_in(texts: Sequence[str]) -> set[str]:
    """The strings that some wording needs and one of the texts has."""
    text = "\n".join(texts)
    return set(filter(text.__contains__, _needs()))


def _possible(part: str, strings: set[str]) -> list[_Wording]:
    """The wordings of a part that can match in texts with these strings."""
    return [wording for wording in _wordings(part) if not wording.needs.isdisjoint(strings)]


def _decline_spans(texts: Sequence[str], strings: set[str]) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Every sentence with the (start, end) of the words by which it declines, or None."""
    cannot, declines = _possible("cannot", strings), _possible("declines", strings)
    for sentence in texts:
        span = _span_after_cannot(sentence) if cannot else None
        possible = (w for w in declines if not span and _has(sentence, w.needs))
        match = next(filter(None, (w.pattern.search(sentence) for w in possible)), None)
        yield sentence, match.span() if match else span


def _span_after_cannot(sentence: str) -> tuple[int, int] | None:
    """Where a sentence says that it cannot do what a reading needs: "I'm unable to interpret this ECG"."""
    (cannot,) = _wordings("cannot")
    for start in cannot.pattern.finditer(sentence):
        for wording in _wordings("after_cannot"):
            if match := wording.pattern.match(sentence, start.end()):
                return start.start(), match.end()
    return None


def _has(sentence: str, strings: Iterable[str]) -> bool:
    """Whether a sentence has one of the strings without which a pattern can't match: quicker than the pattern."""
    return any(string in sentence for string in strings)


def _no_ecg(sentence: str) -> bool:
    return any(pattern.search(sentence) for pattern in _NOT_ECG)


def _other_thing(sentence: str) -> bool:
    return any(pattern.search(sentence) for pattern in _OTHER) and not _HEART.search(sentence)


def _turned(sentence: str) -> bool:
    return _states(_UPSIDE_DOWN, sentence, _OF_WAVES)


def _cut_off(sentence: str) -> bool:
    return _states(_CUT, sentence, _OF_WAVES, _OF_NOISE)


_OF_PAGES: tuple[tuple[str, Callable[[str], bool], Sequence[str]], ...] = (
    ("not an ECG", _no_ecg, _NO_ECG_NEEDS),
    ("not an ECG", _other_thing, _OTHER_NEEDS),
    ("upside down", _turned, _TURNED_NEEDS),
    ("cut off", _cut_off, _CUT_NEEDS),
)
"""Kinds of refusals for what the picture is, whether a sentence states them, and what they need in the text."""


def _states(pattern: re.Pattern[str], sentence: str, *unless: re.Pattern[str]) -> bool:
    """Whether the sentence matches `pattern`, does not negate it, and matches none of `unless`."""
    if not pattern.search(sentence) or any(other.search(sentence) for other in unless):
        return False
    return any(
        not _NEGATION.search(sentence[max(0, match.start() - _NEAR) : match.start()])
        for match in pattern.finditer(sentence)
    )
