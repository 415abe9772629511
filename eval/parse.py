"""From an answer in words to statements: present, absent, uncertain, or not mentioned.

A pure function of the text. What names a statement stands in `phrases.csv`, what denies or doubts it in `cues.csv`, how
far a cue reaches in `eval.scope`. A general term ("myocardial infarction") sets no specific statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.scan import Item, scan
from eval.scope import NO, YES, Mention, Status, is_question, opener, read_sentence
from eval.text import words

__all__ = ["Finding", "Parsed", "parse", "parse_yes_no"]

_SINUS = {"SR", "SARRH", "SBRAD", "STACH"}
_OTHERWISE = set(words("otherwise sonst ansonsten eljest"))
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


def parse(answer: str) -> Parsed:
    """Read all statements out of `answer`. Never raises; an answer without any gives empty tuples."""
    items = _tidy(_unambiguous(scan(answer)))
    mentions: list[Mention] = []
    header: Status | None = None
    asked: list[Mention] = []
    for sentence in _sentences(items):
        if asked:
            mentions += _answered(asked, sentence)
            asked = []
        found, header = read_sentence(sentence, header)
        if is_question(sentence) or (sentence[-1].kind == "question" and len(found) == 1):
            asked = found
        else:
            mentions += found
    return _summary(mentions + _answered(asked, []), items)


def parse_yes_no(answer: str) -> bool | None:
    """Read a yes/no answer: True, False, or None for "could not tell" (hedged, contradictory, off the point).

    The first sentence that is not a question decides: by its first word, by "the answer is ...", or by whether it
    states or denies anything.
    """
    first = next((s for s in _sentences(scan(answer)) if not is_question(s)), [])
    cues = [item.cue.kind for item in first if item.kind == "cue"]
    said = [item for item in first if item.kind not in ("open", "close", "bullet")][:5]
    plain = {item.text for item in said}
    if "uncertain" in cues or (plain & YES and plain & NO and opener(first) not in YES | NO):
        return None
    if said and said[0].kind == "cue" and said[0].cue.kind == "present":  # "No doubt ..."
        return True
    if opener(first) in YES:
        return None if len(said) > 2 and said[1].kind == "and" and said[2].text in NO else True
    if opener(first) in NO or plain & NO:
        return False
    if plain & YES:
        return True
    if "absent" in cues or any(item.inner == "absent" for item in first):
        return False
    return True if "present" in cues or any(item.kind == "term" for item in first) else None


def _unambiguous(items: list[Item]) -> list[Item]:
    """Take codes with a second meaning as general terms, unless the answer holds other codes or nothing else."""
    codes = [i for i in items if i.kind == "term" and i.meaning.codes and i.text.upper() in i.meaning.codes]
    sure = [i for i in codes if i.meaning.codes[0] not in _ONLY_AMONG_CODES]
    if sure or len(items) <= 2:
        return items
    return [Item("term", i.text, i.start, i.end) if i in codes else i for i in items]


def _tidy(items: Sequence[Item]) -> list[Item]:
    """Take out "age undetermined" and its like with the commas around it: it doubts the age, not the finding."""
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


def _sentences(items: Sequence[Item]) -> list[list[Item]]:
    """Cut items at sentence ends, line ends, list marks and question marks."""
    out: list[list[Item]] = [[]]
    for n, item in enumerate(items):
        doubting = n + 1 < len(items) and items[n + 1].start == item.end  # "?LVH" doubts what follows it
        if item.kind == "break":
            out.append([])
        elif item.kind == "bullet":
            out.append([item])
        else:
            out[-1].append(item)
            if item.kind == "question" and not doubting:
                out.append([])
    return [sentence for sentence in out if sentence]


def _answered(asked: list[Mention], sentence: Sequence[Item]) -> list[Mention]:
    """Statements asked about take the status of the yes or no that follows; "LVH?" without either is a doubt."""
    first = opener(sentence)
    if first in YES:
        return [Mention(m.item, "present") for m in asked]
    if first in NO:
        return [Mention(m.item, "absent") for m in asked]
    return [m for m in asked if m.status == "uncertain"]


def _summary(mentions: Sequence[Mention], items: Sequence[Item]) -> Parsed:
    findings: list[Finding] = []
    said: dict[str, list[tuple[Status, bool]]] = {}
    for n, mention in enumerate(mentions):
        codes, denied = mention.item.meaning.codes, mention.item.meaning.denied
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
