"""From an answer in words to statements: present, absent, uncertain, or not mentioned.

A pure function of the text. What names a statement stands in `phrases.csv`, what denies or doubts it in `cues.csv`, how
far a cue reaches in `eval.parser.scope`. A general term ("myocardial infarction") sets no specific statement.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from eval.parser.choices import Option, options_in, picks, without_options
from eval.parser.openings import Status, is_question
from eval.parser.refusals import refusal_in
from eval.parser.scope import Mention, read_sentence
from eval.parser.sentences import sentences, tidy
from eval.parser.tagging import Item, scan
from eval.parser.tokens import word_tuple
from eval.parser.yes_no import parse_yes_no, stance

__all__ = ["Finding", "Parsed", "parse", "parse_yes_no", "refusal"]

_SINUS = {"SR", "SARRH", "SBRAD", "STACH"}
_OTHERWISE = set(word_tuple("otherwise sonst ansonsten eljest"))
# Codes that mean something else in prose ("AMI": acute MI; "EL": nothing); they count in lists of codes only.
_ONLY_AMONG_CODES = {"AMI", "EL"}


@dataclass(frozen=True)
class Finding:
    """One mention of a statement; `span` is the (start, end) of the words in the answer."""

    code: str
    status: Status
    span: tuple[int, int]


@dataclass(frozen=True)
class Parsed:
    """What an answer says. Each code stands in at most one of the three sorted tuples.

    Mentions that disagree: an assertion outweighs a doubt, and assertion against denial is a doubt, unless the denial
    was about certain leads only. `findings` keeps every mention in the order of the text.
    """

    present: tuple[str, ...]
    absent: tuple[str, ...]
    uncertain: tuple[str, ...]
    findings: tuple[Finding, ...]


def parse(answer: str, question: str = "") -> Parsed:
    """Read all statements out of `answer`. Never raises; an answer without any gives empty tuples.

    question: what was asked, where the answer leans on it: the statement of a yes/no question ("No."), the options of
    a multiple choice ("B", "A and D", "none of the above"), the sentence of a gap ("The rhythm is ____."). An option
    that is not picked is not mentioned. What the answer itself says of a statement goes before what it says by "yes".
    An answer that refuses the picture says nothing of any statement, whatever was asked.
    """
    if refusal(answer):
        return Parsed((), (), (), ())
    options = options_in(question) or (options_in(answer) if without_options(answer) != answer else ())
    if options:
        return _picked(answer, options)
    if gap := _GAP.search(question):
        filled = _filled(answer, question, gap)
        if filled.findings:
            return filled
    mentions, items = _read(without_options(answer))
    if question and not gap:
        mentions += _replied(answer, question, {c for m in mentions for c in m.item.meaning.codes})
    return _summary(mentions, items)


def refusal(answer: str) -> str:
    """Why an answer refuses the picture: "not an ECG", "upside down" (on its side, too), "cut off", or "".

    An answer that states a finding all the same has read the picture. Never raises.
    """
    kind = refusal_in(answer)
    return "" if kind and any(mention.status == "present" for mention in _read(answer)[0]) else kind


_GAP = re.compile(r"_{2,}|\.{4,}")


def _read(text: str) -> tuple[list[Mention], list[Item]]:
    """All mentions of a text, and its items."""
    items = tidy(_unambiguous(scan(text)))
    mentions: list[Mention] = []
    header: Status | None = None
    asked: list[Mention] = []
    for sentence in sentences(items):
        if asked:
            mentions += _answered(asked, sentence)
            asked = []
        found, header = read_sentence(sentence, header)
        if _asks(sentence, found):
            asked = found
        else:
            mentions += found
    return mentions + _answered(asked, []), items


def _asks(sentence: Sequence[Item], found: Sequence[Mention]) -> bool:
    """Whether a sentence asks about the statements found in it: as a question, or as one name alone ("LVH?")."""
    return is_question(sentence) or (sentence[-1].kind == "question" and _matters(found) == 1)


def _matters(mentions: Sequence[Mention]) -> int:
    """How many different things are spoken of: "Wenckebach or Mobitz block" is one."""
    return len({frozenset(m.item.meaning.codes) for m in mentions})


def _answered(asked: Sequence[Mention], sentence: Sequence[Item]) -> list[Mention]:
    """Statements asked about take the status of the reply that follows; "LVH?" without one is a doubt."""
    status = stance(sentence) if sentence else None
    if status:
        return [replace(m, status=status) for m in asked]
    return [m for m in asked if m.status == "uncertain"]


def _replied(answer: str, question: str, spoken: Collection[str]) -> list[Mention]:
    """What a yes, a no or a doubt says of the statements that the question asks about."""
    asked, items = _asked(question)
    said = next((s for s in sentences(scan(answer)) if not is_question(s)), [])
    status = stance(said) if said else None
    either = any(item.kind == "or" for item in items) and _matters(asked) > 1
    if not status or (either and status == "present"):
        return []
    start, end = said[0].start, said[-1].end if said[-1].kind != "break" else said[-1].start
    flipped: dict[Status, Status] = {"present": "absent", "absent": "present", "uncertain": "uncertain"}
    return [
        Mention(replace(m.item, start=start, end=end), flipped[status] if m.status == "absent" else status)
        for m in asked
        if not set(m.item.meaning.codes) & set(spoken)
    ]


def _asked(question: str) -> tuple[list[Mention], list[Item]]:
    """The statements that the last closed question of a text is about."""
    items = _unambiguous(scan(question))
    closed = ((found, s) for s in reversed(sentences(items)) if _asks(s, found := read_sentence(s, None)[0]))
    return next(closed, ([], []))


def _picked(answer: str, options: Sequence[Option]) -> Parsed:
    """What the picked and refused options of a multiple choice say; without any pick, what the answer's words say."""
    mentions: list[Mention] = []
    text = without_options(answer)
    texts = {option.letter: option.text for option in options}
    for pick in picks(text, options):
        said, _ = _read(texts[pick.letter])
        if not pick.picked:
            said = [replace(m, status="absent") for m in said if m.status == "present"]
        mentions += [replace(m, item=replace(m.item, start=pick.start, end=pick.end)) for m in said]
    named = {c for m in mentions for c in m.item.meaning.codes}
    spoken, items = _read(text)
    return _summary(mentions + [m for m in spoken if not set(m.item.meaning.codes) & named], items)


def _filled(answer: str, question: str, gap: re.Match[str]) -> Parsed:
    """The answer read in its place in the sentence with the gap; spans are moved back to the answer."""
    put = answer.strip().rstrip(".")
    shift = gap.start() - (len(answer) - len(answer.lstrip()))
    mentions, items = _read(question[: gap.start()] + put + question[gap.end() :])
    moved = [
        replace(m, item=replace(m.item, start=max(0, m.item.start - shift), end=min(len(answer), m.item.end - shift)))
        for m in mentions
        if m.item.end > gap.start() and m.item.start < gap.start() + len(put)
    ]
    return _summary(moved, items)


def _unambiguous(items: list[Item]) -> list[Item]:
    """Take codes with a second meaning as general terms, unless the answer holds other codes or nothing else."""
    codes = [i for i in items if i.kind == "term" and i.meaning.codes and i.text.upper() in i.meaning.codes]
    sure = [i for i in codes if i.meaning.codes[0] not in _ONLY_AMONG_CODES]
    if sure or len(items) <= 2:
        return items
    return [Item("term", i.text, i.start, i.end) if i in codes else i for i in items]


def _summary(mentions: Sequence[Mention], items: Sequence[Item]) -> Parsed:
    findings: list[Finding] = []
    named = {code for m in mentions for code in m.item.meaning.codes}
    said: dict[str, list[tuple[Status, bool]]] = {}
    for n, mention in enumerate(mentions):
        codes, denied = mention.item.meaning.codes, mention.item.meaning.denied
        if mention.item.meaning.unless in named:
            continue
        if mention.heading and any(set(codes) & set(m.item.meaning.codes) for m in mentions[n + 1 : n + 4]):
            continue  # "Atrial fibrillation: there is no atrial fibrillation": the heading says nothing itself
        pairs = [(code, mention.status) for code in codes]
        if mention.status == "present":
            pairs += [(code, "absent") for code in denied]
        for code, status in pairs:
            findings.append(Finding(code, status, (mention.item.start, mention.item.end)))
            said.setdefault(code, []).append((status, mention.limited))
    verdict = {code: _verdict(votes) for code, votes in said.items()}
    if _otherwise_normal(items) and not {c for c, v in verdict.items() if v != "absent"} - _SINUS:
        verdict["NORM"] = "present"
    present, absent, uncertain = (
        tuple(sorted(code for code, status in verdict.items() if status == wanted))
        for wanted in ("present", "absent", "uncertain")
    )
    return Parsed(present, absent, uncertain, tuple(findings))


def _verdict(votes: Sequence[tuple[Status, bool]]) -> Status:
    kinds = {status for status, _ in votes}
    if "present" in kinds:
        flatly_denied = any(status == "absent" and not limited for status, limited in votes)
        return "uncertain" if flatly_denied else "present"
    return "uncertain" if "uncertain" in kinds else "absent"


def _otherwise_normal(items: Sequence[Item]) -> bool:
    """ "Sinus bradycardia, otherwise normal ECG" is a normal ECG; after any other finding it is not."""
    return any(i.kind == "term" and not i.meaning.codes and i.text.split()[0] in _OTHERWISE for i in items)
