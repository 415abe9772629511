"""From an answer in words to statements: present, absent, uncertain, or not mentioned.

A pure function of the text. `phrases.csv` lists the phrases that name a statement, `cues.csv` the words that negate or
doubt one; `eval.parser.negation` decides the scope of those words. A general term ("myocardial infarction") sets no
specific statement.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from eval.parser.choices import Option, letter_picks, options_in, without_options
from eval.parser.chunk import Chunk
from eval.parser.chunker import TOPICS, chunk_text
from eval.parser.lexicon import Status
from eval.parser.negation import (
    Mention,
    concludes,
    contradicts,
    denies_before,
    denies_supposition,
    doubts_before,
    read_sentence,
    status_line,
    suppositions,
    takes_back,
)
from eval.parser.refusals import besides_refusal, refusal_in
from eval.parser.sentences import NO, YES, is_question, presupposes, split_sentences, without_remarks
from eval.parser.thoughts import without_thoughts
from eval.parser.tokenizer import word_tuple
from eval.parser.yes_no import parse_yes_no, reply_status

__all__ = ["Finding", "ParsedAnswer", "parse", "parse_yes_no", "refusal"]

_SINUS = {"SR", "SARRH", "SBRAD", "STACH"}
_OTHERWISE = set(word_tuple("otherwise sonst ansonsten eljest"))
# Codes with another meaning in prose ("AMI": acute MI; "EL": none); they count in lists of codes only.
_ONLY_AMONG_CODES = {"AMI", "EL"}
_CHOICES = {"the former": 0, "former": 0, "the first": 0, "the latter": -1, "latter": -1, "the second": -1}
_LONGEST_TEXT = 20_000
# What a "normal" on its own is about when it stands below one of these.
_WHOLE = set(
    word_tuple(
        "ecg tracing impression conclusion interpretation summary result verdict assessment report diagnosis overall "
        "everything final answer befund beurteilung fazit"
    )
)
_EXCEPTIONS = {
    "with the exception of", "but for", "save for", "apart from", "aside from", "other than", "except", "mit ausnahme",
    "bis auf", "abgesehen von", "ausser", "salvo", "hormis",
}  # fmt: skip
_ADVICE = set(
    word_tuple("recommendation recommendations management plan advice treatment therapy suggestion suggestions")
    + word_tuple("workup empfehlung empfehlungen prozedere procedere")
)
_QUALITY = {"artifact", "noise", "placement", "misplacement", "reversal"}  # of a recording
_KINDS = {"mobitz", "wenckebach"}
_PARTS = set(word_tuple("qrs complex interval axis segment wave conduction"))  # "The QRS is otherwise unremarkable"
_CATEGORIES = {"ischemia", "myocardial ischemia", "premature beat", "ectopic beat"}
_KINDS_IN_NAMES = ("term", "and", "or", "bullet", "question")
_KINDS_IN_HEADINGS = ("word", "lead", "bullet", "colon", "comma", "and")
# Of each of these groups an ECG has one as a rule, so that a later one replaces what was tentative or is corrected.
_RIVALS = {
    code: frozenset(group.split())
    for group in (
        "SR SBRAD STACH AFIB AFLT SVTAC PSVT", "CRBBB CLBBB IRBBB ILBBB IVCD", "LAFB LPFB", "1AVB 2AVB 3AVB",
        "PVC PAC",
    )
    for code in group.split()
}  # fmt: skip
_GAP = re.compile(r"_{2,}|\.{4,}")


@dataclass(frozen=True)
class Finding:
    """One mention of a statement; `span` is the (start, end) of its words in the answer."""

    code: str
    status: Status
    span: tuple[int, int]


@dataclass(frozen=True)
class ParsedAnswer:
    """The content of an answer. Each code is in at most one of the three sorted tuples.

    Mentions that disagree: an assertion outweighs a doubt, and an assertion against a negation is a doubt, unless the
    negation was about certain leads only. Any mention outweighs a tentative one (a question, a first impression), and a
    negation in the conclusion outweighs what was considered before. `findings` has every mention in the order of the
    text.
    """

    present: tuple[str, ...]
    absent: tuple[str, ...]
    uncertain: tuple[str, ...]
    findings: tuple[Finding, ...]


def parse(answer: str, question: str = "", *, cautious: bool = False) -> ParsedAnswer:
    """Read all statements from `answer`. Never raises; an answer without any gives empty tuples.

    Of an answer and of a question the first 20,000 characters are read, which takes half a second at most. The thoughts
    that a reasoning model writes before its answer are left out: see `eval.parser.thoughts`.

    question: the question, for answers that depend on it: the statement of a yes/no question ("No."), the options of
    a multiple choice ("B", "A and D", "none of the above"), the sentence of a gap ("The rhythm is ____."), the wave or
    interval of an open question ("Describe the T waves."). An option that is not picked is not mentioned. Where the
    answer itself names a statement, that outweighs its "yes" or "no". An answer that refuses the picture has no
    statements, whatever the question was.

    "Consistent with", "compatible with", "in keeping with", "diagnostic of" and the like assert, as in the lexicon of
    Panicek and Hricak (AJR 2016;207:2-3), where "consistent with" is a certainty above 90 %, "suspicious for" and
    "probable" are about 75 %, "possible" 50 %; the latter three doubt, and so do "suggests", "may represent" and
    "cannot exclude". cautious: count the assertive wording as doubt, too.
    """
    answer, question = without_thoughts(answer, _LONGEST_TEXT), question[:_LONGEST_TEXT]
    if refusal(answer):
        return ParsedAnswer((), (), (), ())
    text = without_options(answer)
    options = options_in(question) or (options_in(answer) if text != answer else ())
    if options:
        return _parse_choice(answer, options, cautious)
    gap = _GAP.search(question)
    subjects, asks_either = ((), False) if gap or not question else _question_subjects(question)
    if question and not subjects and (wave := _wave_in(question)):
        question = f"{wave}: ____"
        gap = _GAP.search(question)
    if gap:
        completion = _parse_completion(answer, question, gap, cautious)
        if completion.findings:
            return completion
    mentions, chunks = _read(text, cautious, subjects[-1].chunk.text.split() if subjects else ())
    if subjects:
        mentions += _reply_mentions(answer, subjects, asks_either, mentions, cautious)
    return _summary(mentions, chunks)


def refusal(answer: str) -> str:
    """Why an answer refuses the picture: "not an ECG", "upside down" (on its side, too), "cut off", "declined", or "".

    "declined": it says that it cannot or will not read the picture, or that there is none, in whatever words; advice to
    see a doctor alone counts where the answer has no finding and no number. An answer that also states a finding is not
    a refusal: for "declined" a finding of any status, outside of advice and general remarks. Never raises.
    """
    answer = without_thoughts(answer, _LONGEST_TEXT)
    kind = refusal_in(answer)
    if kind == "declined":
        findings = [m for m in _read(besides_refusal(answer))[0] if _QUALITY.isdisjoint(m.chunk.text.split())]
        return kind if all(mention.in_question for mention in findings) else ""
    if kind == "referral":
        return "declined" if _says_nothing(answer) else ""
    return "" if kind and any(mention.status == "present" for mention in _read(answer)[0]) else kind


def _says_nothing(answer: str) -> bool:
    """Whether an answer has no term of the tables, no number and no yes or no."""
    chunks = chunk_text(answer)
    terms = [c for c in chunks if c.kind == "term" and _QUALITY.isdisjoint(c.text.split())]
    return not terms and not any(c.text.isdigit() or c.text in YES | NO for c in chunks)


def _read(text: str, cautious: bool = False, subject: Sequence[str] = ()) -> tuple[list[Mention], list[Chunk]]:
    """All mentions of a text, and its chunks. subject: words of the term that the question is about."""
    chunks = without_remarks(_resolve_ambiguous_codes(chunk_text(text, subject)))
    chunks = [_doubt(chunk) for chunk in chunks] if cautious else chunks
    mentions: list[Mention] = []
    header: Status | None = None
    question: list[Mention] = []
    supposition: list[Mention] = []
    start = 0  # of the mentions of the sentence before
    final = title = advice = False
    sentences = split_sentences(chunks)
    for n, sentence in enumerate(sentences):
        final = final or concludes(sentence)
        if start == len(mentions):
            pass  # nothing to take back
        elif contradicts(sentence):
            reverses = takes_back(sentence)
            mentions[start:] = [
                replace(m, status="absent") if reverses else _without_impression(m) for m in mentions[start:]
            ]
        elif denies_before(sentence):
            mentions[start:] = [replace(m, status="absent") if m.status == "uncertain" else m for m in mentions[start:]]
        elif status := status_line(sentence):
            mentions[start:] = [replace(m, status=status) for m in mentions[start:]]
        elif doubts_before(sentence):
            mentions[start:] = [
                replace(m, status="uncertain") if m.status == "present" else m for m in mentions[start:]
            ]
        start = len(mentions)
        if supposition and denies_supposition(sentence):
            mentions += supposition
        supposition = suppositions(sentence)
        if question:
            mentions += _answer_mentions(question, sentence)
            question = []
        if title and not _heads_items(sentences, n) and (status := _line_of_status(sentence)):
            mentions[-1] = replace(mentions[-1], status=status)
        elif title and _is_category(mentions[-1]) and _line_start(text, mentions[-1].chunk.start).startswith("#"):
            mentions.pop()
        current, header = read_sentence(sentence, header, asked=n > 0 and sentences[n - 1][-1].kind == "question")
        if current and _is_category(current[0]) and _labels(current[0], sentence):
            del current[0]
        advice = _heads_advice(sentence) or (advice and _goes_on(text, sentences[n - 1], sentence))
        if advice or (n and _judges_part(sentences[n - 1], sentence)) or _heads_normal_items(sentences, n):
            current = []
        title = len(current) == 1 and [chunk for chunk in sentence if chunk.kind != "bullet"] == [current[0].chunk]
        open_question = sentence[-1].kind == "question" and not presupposes(sentence)
        if final or open_question:
            current = [replace(m, final=final, tentative=m.tentative or open_question) for m in current]
        if _asks_about(sentence, current):
            question = current
        else:
            mentions += current
    return mentions + _answer_mentions(question, []), chunks


def _is_category(mention: Mention) -> bool:
    """Whether a mention has the name of a whole chapter of an ECG, too: "## Ischemia", "Ischemia: T waves are ..."."""
    return mention.status == "present" and mention.chunk.text in _CATEGORIES


def _line_start(text: str, place: int) -> str:
    """What stands before a place in its line."""
    return text[text.rfind("\n", 0, place) + 1 : place]


def _labels(mention: Mention, sentence: Sequence[Chunk]) -> bool:
    """Whether a mention at the start of a sentence is a label of other findings after its colon."""
    content = [chunk for chunk in sentence if chunk.kind != "bullet"]
    content = content[content[0].text == "|" :]
    colon = next((n for n, chunk in enumerate(content) if chunk.kind == "colon"), 0)
    is_name = content[0] == mention.chunk and not any(c.meaning.codes or c.kind == "cue" for c in content[1:colon])
    return bool(colon) and is_name and any(c.kind in ("term", "cue") for c in content[colon + 1 :])


def _heads_items(sentences: Sequence[Sequence[Chunk]], n: int) -> bool:
    """Whether line n is a heading rather than an answer to line n - 1: list items follow it, or only precede it."""
    before, here, *after = (s[0].kind == "bullet" for s in sentences[n - 1 : n + 2])
    return not here and (before or after == [True])


def _judges_part(heading: Sequence[Chunk], sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence says "normal" of what the line before names: "## Ventricles", "Normal"."""
    names = [chunk.text for chunk in heading if chunk.kind in ("word", "lead")]
    is_heading = 0 < len(names) <= 4 and all(c.kind in _KINDS_IN_HEADINGS for c in heading)
    content = [chunk for chunk in sentence if chunk.kind not in ("bullet", "break")]
    normal = len(content) == 1 and content[0].meaning.codes == ("NORM",) and _WHOLE.isdisjoint(content[0].text.split())
    return normal and is_heading and _WHOLE.isdisjoint(names)


def _heads_advice(sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence begins as advice, as do the list items after it: "Next steps: consider pacing"."""
    content = [chunk for chunk in sentence if chunk.kind not in ("bullet", "break")]
    colon = next((n for n, chunk in enumerate(content) if chunk.kind == "colon"), len(content))
    heading = content[:colon]
    is_short = 0 < len(heading) <= 4 and all(c.kind in ("word", "and", "cue", "termination") for c in heading)
    words = {chunk.text for chunk in heading}
    advises = bool(words & _ADVICE) or (bool(words & {"step", "steps"}) and bool(words & {"next", "further"}))
    return is_short and advises and not words & _WHOLE


def _goes_on(text: str, before: Sequence[Chunk], sentence: Sequence[Chunk]) -> bool:
    """Whether a sentence is a list item or stands in the line of the sentence before it."""
    return sentence[0].kind == "bullet" or "\n" not in text[before[0].start : sentence[0].start]


def _heads_normal_items(sentences: Sequence[Sequence[Chunk]], n: int) -> bool:
    """Whether line n is the heading "Normal" of a list of what is normal."""
    here, following = sentences[n], sentences[n + 1 : n + 2]
    alone = [chunk.text for chunk in here if chunk.kind != "colon"] in (["normal"], ["unremarkable"])
    return alone and bool(following) and following[0][0].kind == "bullet"


def _line_of_status(sentence: Sequence[Chunk]) -> Status | None:
    """The denial or doubt of a line that says nothing else, about the heading before it: "Ischaemia", "None seen"."""
    content = [chunk for chunk in sentence if chunk.kind != "bullet"]
    if not content or content[0].kind != "cue" or content[0].cue.side == "before":
        return None
    says_more = len(content) > 2 or any(chunk.kind not in ("cue", "word") for chunk in content)
    return None if says_more or content[0].cue.status == "present" else content[0].cue.status


def _without_impression(mention: Mention) -> Mention:
    """A tentative mention as negated by the sentence after it: "At first it looks like AF. However, ..."."""
    return replace(mention, status="absent") if mention.tentative and mention.status != "absent" else mention


def _asks_about(sentence: Sequence[Chunk], mentions: Sequence[Mention]) -> bool:
    """Whether a sentence asks about the statements it mentions: as a question, or as one name alone ("LVH?")."""
    if is_question(sentence):
        return True
    if sentence[-1].kind != "question" or not mentions or presupposes(sentence):
        return False
    is_name = all(c.kind in _KINDS_IN_NAMES for c in sentence) or all(m.alternatives for m in mentions)  # "LVH or RVH?"
    return is_name or _subject_count(mentions) == 1


def _subject_count(mentions: Sequence[Mention]) -> int:
    """How many different things are mentioned: "Wenckebach or Mobitz block" is one."""
    return len({frozenset(m.chunk.meaning.codes) for m in mentions})


def _answer_mentions(question: Sequence[Mention], sentence: Sequence[Chunk]) -> list[Mention]:
    """The statements of a question with the status of the reply that follows; "LVH?" without a reply is a doubt."""
    status = reply_status(sentence) if sentence else None
    details = [chunk.text for chunk in sentence if chunk.kind == "term"] if status in ("present", None) else []
    # "Ischaemia? Yes, inferior.", "LBBB? Incomplete."
    question = [m for m in question if not any(text.endswith(f" {m.chunk.text}") for text in details)]
    if not status:
        return [replace(m, status="uncertain", tentative=True, in_question=m.status != "uncertain") for m in question]
    # "Is it possible to exclude ischemia? No."
    reverse: dict[Status, Status] = {"present": "absent", "absent": "uncertain", "uncertain": "uncertain"}
    statuses = [reverse[status] if m.status == "absent" and m.final else status for m in question]
    tentative = status == "uncertain"
    return [replace(m, status=s, tentative=tentative) for m, s in zip(question, statuses, strict=True)]


def _reply_mentions(
    answer: str, subjects: Sequence[Mention], asks_either: bool, own: Sequence[Mention], cautious: bool
) -> list[Mention]:
    """The status that a yes, a no or a doubt gives to the subjects, except those that the answer itself mentions."""
    chunks = [_doubt(chunk) if cautious else chunk for chunk in chunk_text(answer)]
    reply = next((s for s in split_sentences(chunks) if not is_question(s)), [])
    status = reply_status(reply) if reply else None
    if asks_either and (choice := _CHOICES.get(" ".join(c.text for c in reply[:2] if c.kind != "break"))) is not None:
        subjects, status = [subjects[choice]], "present"
    elif not status or (asks_either and status == "present"):
        return []
    mentioned_codes = {code for m in own for code in m.chunk.meaning.codes}
    start, end = reply[0].start, reply[-1].end if reply[-1].kind != "break" else reply[-1].start
    reverse: dict[Status, Status] = {"present": "absent", "absent": "present", "uncertain": "uncertain"}
    return [
        Mention(m.chunk._replace(start=start, end=end), reverse[status] if m.status == "absent" else status)
        for m in subjects
        if not set(m.chunk.meaning.codes) & mentioned_codes
    ]


@lru_cache(maxsize=1 << 10)  # a test asks the same questions about every record
def _question_subjects(question: str) -> tuple[Sequence[Mention], bool]:
    """The terms that the last closed question of a text is about, and whether it asks which of several it is."""
    for sentence in reversed(split_sentences(_resolve_ambiguous_codes(chunk_text(question)))):
        mentions, _ = read_sentence(sentence, None)
        if _asks_about(sentence, mentions):
            return tuple(mentions), any(c.kind == "or" for c in sentence) and _subject_count(mentions) > 1
    return (), False


@lru_cache(maxsize=1 << 10)
def _wave_in(question: str) -> str:
    """The only wave or interval that an open question is about, or ""."""
    chunks = chunk_text(question)
    waves = {chunk.text for chunk in chunks if chunk.text in TOPICS}
    return waves.pop() if len(waves) == 1 and not any(chunk.kind == "term" for chunk in chunks) else ""


def _doubt(chunk: Chunk) -> Chunk:
    """A cue of assertive wording as a cue of doubt; any other chunk unchanged."""
    cue = chunk.meaning.cue
    if cue is None or cue.kind != "assertive":
        return chunk
    return chunk._replace(meaning=replace(chunk.meaning, cue=replace(cue, kind="uncertain")))


def _parse_choice(answer: str, options: Sequence[Option], cautious: bool) -> ParsedAnswer:
    """The statements of the options that an answer picks or rejects; without any pick, of the answer's own words."""
    mentions: list[Mention] = []
    text = without_options(answer)
    texts = {option.letter: option.text for option in options}
    for pick in letter_picks(text, options):
        statements, _ = _read(texts[pick.letter])
        if not pick.correct:
            statements = [replace(m, status="absent") for m in statements if m.status == "present"]
        mentions += [replace(m, chunk=m.chunk._replace(start=pick.start, end=pick.end)) for m in statements]
    option_codes = {c for m in mentions for c in m.chunk.meaning.codes}
    own, chunks = _read(text, cautious)
    return _summary(mentions + [m for m in own if not set(m.chunk.meaning.codes) & option_codes], chunks)


def _parse_completion(answer: str, question: str, gap: re.Match[str], cautious: bool) -> ParsedAnswer:
    """The answer read in its place in the sentence with the gap; spans are positions in the answer."""
    completion = answer.strip().rstrip(".")
    shift = gap.start() - (len(answer) - len(answer.lstrip()))
    mentions, chunks = _read(question[: gap.start()] + completion + question[gap.end() :], cautious)
    own: list[Mention] = []
    for m in mentions:
        if m.chunk.end > gap.start() and m.chunk.start < gap.start() + len(completion):
            start, end = max(0, m.chunk.start - shift), min(len(answer), m.chunk.end - shift)
            own.append(replace(m, chunk=m.chunk._replace(start=start, end=end)))
    return _summary(own, chunks)


def _resolve_ambiguous_codes(chunks: list[Chunk]) -> list[Chunk]:
    """Take codes with a second meaning as general terms, unless the answer has other codes or nothing else."""
    codes = [bool(c.meaning.codes) and c.text.upper() in c.meaning.codes for c in chunks]
    unambiguous = any(c.meaning.codes[0] not in _ONLY_AMONG_CODES for c in itertools.compress(chunks, codes))
    if unambiguous or len(chunks) <= 2:
        return chunks
    return [Chunk("term", c.text, c.start, c.end) if code else c for c, code in zip(chunks, codes, strict=True)]


def _without_replaced(mentions: Sequence[Mention]) -> list[Mention]:
    """The mentions, those denied that a later one replaces: "At first I took it for AF. There are P waves: sinus".

    A tentative mention gives way to any statement of its group, one of several alternatives to another of them ("LVH or
    RVH? ... RVH"), and a statement to a correction ("I meant RBBB"). What was only asked is left out unless it gives
    way: "Is it AF? There are P waves: sinus rhythm".
    """
    if not any(m.tentative or m.corrects or m.alternatives for m in mentions):
        return list(mentions)
    out: list[Mention] = []
    later_codes: set[str] = set()
    corrections: set[str] = set()
    for m in reversed(mentions):
        codes = frozenset(m.chunk.meaning.codes)
        rivals = frozenset().union(*(_RIVALS.get(code, ()) for code in codes)) - codes
        replacements = rivals & corrections
        if m.status == "uncertain":
            replacements |= later_codes & (m.alternatives | rivals if m.tentative else m.alternatives)
        if m.status != "absent" and replacements and codes.isdisjoint(later_codes):
            m = replace(m, status="absent")
        elif m.status == "present":
            later_codes |= codes
            corrections |= codes if m.corrects else frozenset()
        if m.status == "absent" or not m.in_question:
            out.append(m)
    return out[::-1]


def _summary(mentions: Sequence[Mention], chunks: Sequence[Chunk]) -> ParsedAnswer:
    mentions = _without_replaced(mentions)
    excepted = [m for m in mentions if m.chunk.meaning.codes == ("NORM",) and _has_exception(m.chunk, chunks)]
    mentions = [m for m in mentions if m not in excepted] if excepted else mentions
    findings: list[Finding] = []
    named_codes = {code for m in mentions if m.status != "absent" for code in m.chunk.meaning.codes}
    votes: dict[str, list[tuple[Status, Mention]]] = {}
    for n, mention in enumerate(mentions):
        codes, opposites = mention.chunk.meaning.codes, mention.chunk.meaning.opposites
        if not named_codes.isdisjoint(mention.chunk.meaning.unless):
            continue
        if mention.status == "absent" and _is_other_kind(mention.chunk, mentions):
            continue
        if mention.heading and any(set(codes) & set(m.chunk.meaning.codes) for m in mentions[n + 1 : n + 4]):
            continue  # "Atrial fibrillation: there is no atrial fibrillation": the heading states nothing itself
        pairs = [(code, mention.status) for code in codes]
        if mention.status == "present":
            pairs += [(code, "absent") for code in opposites]
        for code, status in pairs:
            findings.append(Finding(code, status, (mention.chunk.start, mention.chunk.end)))
            votes.setdefault(code, []).append((status, mention))
    verdicts = {code: _verdict(of_code) for code, of_code in votes.items()}
    if not {c for c, v in verdicts.items() if v != "absent"} - _SINUS and (excepted or _otherwise_normal(chunks)):
        verdicts["NORM"] = "present"
    present, absent, uncertain = (
        tuple(sorted(code for code, verdict in verdicts.items() if verdict == status))
        for status in ("present", "absent", "uncertain")
    )
    return ParsedAnswer(present, absent, uncertain, tuple(findings))


def _is_other_kind(chunk: Chunk, mentions: Sequence[Mention]) -> bool:
    """Whether another kind of the same statement is stated: "Mobitz II ... Mobitz I is ruled out"."""
    kinds = _KINDS.intersection(chunk.text.split())
    others = (m.chunk for m in mentions if m.status == "present" and m.chunk.meaning.codes == chunk.meaning.codes)
    return bool(kinds) and any(_KINDS.intersection(c.text.split()) and c.text != chunk.text for c in others)


def _verdict(votes: Sequence[tuple[Status, Mention]]) -> Status:
    votes = [vote for vote in votes if not (vote[1].tentative and vote[0] == "uncertain")] or votes
    last, mention = votes[-1]
    if last != "uncertain" and mention.final and not mention.local:
        return last
    if last == "absent" and not mention.local and all(m.alternatives for _, m in votes[:-1]):
        return last  # "RBBB or LBBB. V1 is negative: not RBBB"
    kinds = {status for status, _ in votes}
    if "present" in kinds:
        absent_in_all_leads = any(status == "absent" and not mention.local for status, mention in votes)
        return "uncertain" if absent_in_all_leads else "present"
    return "uncertain" if "uncertain" in kinds else "absent"


def _has_exception(chunk: Chunk, chunks: Sequence[Chunk]) -> bool:
    """Whether "apart from" or the like follows a chunk: "a normal ECG apart from PVCs"."""
    after = next((c.text for c in chunks if c.start >= chunk.end), "")
    return after in _EXCEPTIONS


def _otherwise_normal(chunks: Sequence[Chunk]) -> bool:
    """ "Sinus bradycardia, otherwise normal ECG" is a normal ECG; after any other finding it is not."""
    return any(
        c.kind == "term" and not c.meaning.codes and c.text.split()[0] in _OTHERWISE
        and not (n > 1 and chunks[n - 1].text == "is" and chunks[n - 2].text in _PARTS)
        for n, c in enumerate(chunks)
    )  # fmt: skip
