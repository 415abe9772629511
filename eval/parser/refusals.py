"""Whether an answer refuses the picture: no ECG, upside down or on its side, cut off.

Each sentence is matched alone, in English and German. Statements about waves, axes and artefacts are not refusals
("the T wave is upside down"), and neither is what an ECG does not show ("no ECG evidence of ischaemia").
"""

from __future__ import annotations

import re

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
    r"\bcut[- ]off\b(?! (?:value|point|of|for|frequency))|\bcropped\b|\btruncated\b|\b(?:ab|an)geschnitten\b|"
    r"\b(?:leads?|av[rlf]|v[1-6])\b[^;]{0,60}\b(?:cannot be (?:read|seen)|can't be (?:read|seen)|not (?:visible|shown)|"
    r"(?:are|is) missing(?=\s*(?:$|[,:;)]|from|on|in|and|because|so)))|"
    r"\bonly (?:a )?part of the (?:ecg|page|tracing)\b"
)
_OF_WAVES = re.compile(
    r"\bwaves?\b|\bcomplex|\bqrs\b|deflection|\baxis\b|clockwise|\bheart\b|\bp'?s\b|amplitude|\bpeaks?\b|\bst\b"
)
_OF_NOISE = re.compile(r"artefact|artifact|noise|noisy|electrode|disconnect|loose|wander|stoer")
_NEGATION = re.compile(r"(?:\bnot|\bnever|n't|\bno longer|\bnicht)\s+(?:(?:appear|seem|look|to|be|been|at all)\s+)*$")
_NEAR = 100  # characters before a match in which a negation is searched
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "’": "'", "‐": "-", "‑": "-", "–": "-", "—": "-"})


def refusal_in(text: str) -> str:
    """ "not an ECG", "upside down" (on its side, too), "cut off", or "": the first kind that any sentence states."""
    for sentence in re.split(r"[.;!?\n]+", text.lower().translate(_UMLAUTS)):
        sentence = " ".join(sentence.split())
        if _no_ecg(sentence):
            return "not an ECG"
        if _states(_UPSIDE_DOWN, sentence, _OF_WAVES):
            return "upside down"
        if _states(_CUT, sentence, _OF_WAVES, _OF_NOISE):
            return "cut off"
    return ""


def _no_ecg(sentence: str) -> bool:
    if any(pattern.search(sentence) for pattern in _NOT_ECG):
        return True
    return not _HEART.search(sentence) and any(pattern.search(sentence) for pattern in _OTHER)


def _states(pattern: re.Pattern[str], sentence: str, *unless: re.Pattern[str]) -> bool:
    """Whether the sentence matches `pattern`, does not negate it, and matches none of `unless`."""
    if any(other.search(sentence) for other in unless):
        return False
    return any(
        not _NEGATION.search(sentence[max(0, match.start() - _NEAR) : match.start()])
        for match in pattern.finditer(sentence)
    )
