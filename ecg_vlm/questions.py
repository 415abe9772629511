"""What a question asks: a fixed reading of its words, made before a small model sees them.

Nano was trained on a few hundred wordings and answers "No." to every other. A question is therefore read here and put
to nano in a wording that it knows; what is not understood is not put to it at all. Read are the wordings of
`render.dialogues`, their slips, and the common questions in English, German, Spanish and French. A question is
understood only where every one of its words is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

from ecg_vlm import question_words as vocabulary
from eval.parser.choices import options_in
from eval.parser.chunk import Chunk
from eval.parser.chunker import chunk_text
from eval.parser.lexicon import lexicon
from eval.parser.parse import parse
from eval.parser.tokenizer import tokenize
from render.dialogues.quantities import QUANTITIES, question_forms
from render.dialogues.wording import (
    CHOICE_QUESTIONS,
    CLOSED_FORMS,
    FILL_QUESTIONS,
    FINDING_QUESTIONS,
    GERMAN_QUESTIONS,
    NORMAL_FORMS,
    OTHER_NAMES,
    REPORT_QUESTIONS,
    RHYTHM_CHOICES,
    RHYTHM_QUESTIONS,
    closed_question,
)
from render.measurements import AMPLITUDES
from render.statements import STATEMENTS

Kind = Literal["statement", "quantity", "rhythm", "findings", "report", "choice", "gap", "unknown"]

_INFARCTION_CODES = tuple(code for code, s in STATEMENTS.items() if s.superclass == "MI" and not code.startswith("INJ"))
_AV_BLOCKS = ("1AVB", "2AVB", "3AVB")
_BUNDLE_BLOCKS = ("CLBBB", "CRBBB", "ILBBB", "IRBBB")
_LONGEST = 1000  # characters of a question, repeated sentences counted once
_GAP = re.compile(r"_{2,}|\.{4,}|…")
_CONTROL = re.compile(r"<\|.*?\|>", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[?!])(?![?!\s])|(?<=[?!])\s+|(?<=[^\W\d]\.)\s+|\n\s*\n")
_OR_NOT = re.compile(r"[\s,]+(?:or not|oder nicht|yes or no|ja oder nein)\b", re.IGNORECASE)
_ALTERNATIVES = re.compile(
    r"((?:which|what|welche[rs]?|que|qué|cu[aá]l|quel(?:le)?)\b[^,:?]*)[,:](?P<names>[^?]*\b(?:or|oder|ou|o)\b[^?]*)\??",
    re.I,
)
_EITHER = frozenset(("form", "one", "two"))
_TRAINED_OPTIONS = 4
_SIMILAR = 0.82  # difflib's ratio of a word with a slip: one wrong letter of six


@dataclass(frozen=True)
class Question:
    """A question and what it asks.

    Attributes:
        text: as the person wrote it.
        kind: "statement" for a yes/no question about one or several of the 71 statements.
        language: "en", "de", "es" or "fr".
        wording: how the model is asked: a wording that nano was trained on; "" for "unknown" and for several codes.
        codes: of a "statement" question, in the order of the text, or of the options of a "choice" without a wording.
        join: of several codes: "or" for a choice between them, "and" for one question each, "any" for a general term
            ("an infarction"), "" for one code.
        negative: "Is it not AF?", "Is this ECG abnormal?"
        quantity: key of `render.dialogues.quantities.QUANTITIES`.
    """

    text: str
    kind: Kind
    language: str = "en"
    wording: str = ""
    codes: tuple[str, ...] = ()
    join: Literal["", "or", "and", "any"] = ""
    negative: bool = False
    quantity: str = ""


def read_question(text: str) -> Question:
    """What a question asks. Never raises; what is not understood is of kind "unknown".

    Of several sentences all must ask the same; a statement before a question ("A man of 65.") is left out. A text with
    one of the model's control tokens is not understood.
    """
    if _CONTROL.search(text):
        return _unknown(text)
    plain_text = _OR_NOT.sub("", text.strip())
    sentences = list(dict.fromkeys(s.strip() for s in _SENTENCE_END.split(plain_text) if s.strip()))
    if sum(map(len, sentences)) > _LONGEST:
        return _unknown(text)
    if len(sentences) < 2:
        return replace(_read_sentence("".join(sentences)), text=text)
    whole = _trained_question(plain_text) or _read_choice(plain_text)
    if whole:
        return replace(whole, text=text)
    questions = [_read_sentence(sentence) for sentence in sentences]
    while len(questions) > 1 and questions[0].kind == "unknown" and not questions[0].text.endswith("?"):
        questions = questions[1:]
    alike = len({replace(question, text="") for question in questions}) == 1
    return replace(questions[-1], text=text) if alike else _unknown(text)


def _unknown(text: str) -> Question:
    words = tuple(word.text for word in tokenize(text[:_LONGEST]))
    return Question(text, "unknown", vocabulary.language_of_question(words, text))


def _read_sentence(text: str) -> Question:
    text = _without_slips(text)
    readers = (_trained_question, _read_choice, _trained_statement, _read_words)
    return next((question for reader in readers if (question := reader(text))), None) or _unknown(text)


def _without_slips(text: str) -> str:
    """The text with every word that is one slip away from a word of a question corrected."""
    for token in reversed(tokenize(text)):
        if (word := _correction(token.text)) != token.text:
            text = text[: token.start] + word + text[token.end :]
    return text


@lru_cache(maxsize=1 << 12)
def _correction(word: str) -> str:
    if word in vocabulary.SHORT_SLIPS:
        return vocabulary.SHORT_SLIPS[word]
    long_enough = 5 <= len(word) <= 20 and word.isalpha()
    if not long_enough or word in _question_words() or word in lexicon().vocabulary:  # the lexicon takes time to load
        return word
    return next(iter(difflib.get_close_matches(word, _long_words(), 1, _SIMILAR)), word)


@cache
def _question_words() -> frozenset[str]:
    """All words of the trained wordings, the names of the statements, and `ecg_vlm.question_words`."""
    sets = [words for words in vars(vocabulary).values() if isinstance(words, frozenset)]
    return frozenset().union(*sets, *(key for key in _training_wordings() if not isinstance(key, str)), *_names())


@cache
def _long_words() -> tuple[str, ...]:
    return tuple(sorted(word for word in _question_words() if len(word) >= 5 and word.isalpha()))


def _key(text: str) -> tuple[str, ...]:
    """The words of a wording without marks and capitals: two texts with the same words ask the same."""
    words = tuple(token.text for token in tokenize(_GAP.sub(" gapgap ", text)))
    return tuple(word for word in words if any(c.isalnum() for c in word))


@cache
def _training_wordings() -> dict[tuple[str, ...] | str, Question]:
    """The wordings that nano was trained on but the yes/no questions about statements and the multiple choices.

    By their words and by their text: "this EKG" and "this ECG" have the same words.
    """
    questions = [Question(text, "rhythm") for text in RHYTHM_QUESTIONS]
    questions += [Question(text, "findings") for text in FINDING_QUESTIONS]
    questions += [Question(text, "report") for text in REPORT_QUESTIONS]
    questions += [Question(text, "report", "de") for text in GERMAN_QUESTIONS]
    questions += [Question(text, "gap") for forms in FILL_QUESTIONS.values() for text in forms]
    for key in QUANTITIES:
        questions += [
            Question(text, "quantity", quantity=key)
            for text in (*question_forms(key, "open"), *question_forms(key, "closed"))
        ]
        questions += [Question(text, "gap", quantity=key) for text in question_forms(key, "fill")]
    questions = [replace(question, wording=question.text) for question in reversed(questions)]
    return {_key(question.text): question for question in questions} | {q.text: q for q in questions}


def _trained_question(text: str) -> Question | None:
    return _training_wordings().get(text) or _training_wordings().get(_key(text))


@cache
def _names() -> dict[tuple[str, ...], str]:
    """The words of every name of a statement, with and without its article -> code."""
    names = {code: (statement.name, *OTHER_NAMES.get(code, ())) for code, statement in STATEMENTS.items()}
    return {
        _key(form): code
        for code, of_code in names.items()
        for name in of_code
        for form in (name, name.removeprefix("an ").removeprefix("a "))
    }


@cache
def _frames() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """The words before and after the name in the forms of yes/no questions."""
    ends = [re.split(r"\{\w+\}", form) for form in CLOSED_FORMS]
    return tuple((_key(before), _key(after)) for before, after in ends)


def _trained_statement(text: str) -> Question | None:
    """A yes/no question about one statement in a wording that nano was trained on."""
    words = _key(text)
    if words in {_key(form) for form in NORMAL_FORMS}:
        return _statement(text, ("NORM",))
    for before, after in _frames():
        end = len(words) - len(after)
        if words[: len(before)] == before and words[end:] == after and (name := words[len(before) : end]) in _names():
            return _statement(text, (_names()[name],))
    return None


def _statement(
    text: str, codes: tuple[str, ...], join: Literal["", "or", "and", "any"] = "", negative: bool = False
) -> Question:
    language = vocabulary.language_of_question(_key(text), text)
    wording = closed_question(codes[0]) if len(codes) == 1 else ""
    return Question(text, "statement", language, wording, codes, join, negative)


def _read_choice(text: str) -> Question | None:
    """A multiple choice: in a trained wording, or to be answered from the scores of its options, all statements."""
    options = options_in(text)
    if not options:
        return None
    lines = "\n".join(f"{option.letter}. {option.text.rstrip('.')}" for option in options)
    stems = [
        *CHOICE_QUESTIONS,
        *RHYTHM_CHOICES,
        *(stem for key in QUANTITIES for stem in question_forms(key, "choice")),
    ]
    stem = next((stem for stem in stems if _key(stem) == _key(text[: options[0].start])), "")
    if stem and len(options) == _TRAINED_OPTIONS:
        return Question(text, "choice", wording=f"{stem}\n{lines}")
    codes = [parse(option.text).present for option in options]
    return Question(text, "choice", codes=tuple(dict.fromkeys(sum(codes, ())))) if all(codes) else None


def _read_words(text: str) -> Question | None:
    """A sentence read by its words: first numbers, then statements, then general questions."""
    chunks = [chunk for chunk in chunk_text(text) if chunk.kind not in ("question", "break", "comma", "bullet")]
    terms = [chunk for chunk in chunks if chunk.meaning.codes or chunk.meaning.opposites]
    words = tuple(_chunk_words(chunks, text))
    all_words = _key(text)
    language = vocabulary.language_of_question(all_words, text)
    return (
        _read_gap(text, all_words)
        or _read_alternatives(text)
        or _read_quantity(text, frozenset(all_words), language)
        or _read_rhythm(text, frozenset(all_words), language)
        or _read_statements(text, terms, words)
        or _read_group(text, frozenset(words))
        or _read_open(text, all_words, language)
    )


def _chunk_words(chunks: Sequence[Chunk], text: str) -> Iterator[str]:
    """The words that name no statement."""
    for chunk in chunks:
        if chunk.kind == "lead":
            yield "in " + text[chunk.start : chunk.end]
        elif not (chunk.meaning.codes or chunk.meaning.opposites):
            yield from chunk.text.split()


def _read_gap(text: str, words: Sequence[str]) -> Question | None:
    if "gapgap" not in words:
        return None
    if set(words) & vocabulary.RHYTHM and set(words) <= vocabulary.OPEN | vocabulary.RHYTHM | {"gapgap"}:
        return Question(text, "gap", wording=FILL_QUESTIONS["rhythm"][0])
    return None


def _read_alternatives(text: str) -> Question | None:
    """ "Which of the two is it, AF or flutter?": asked like "Is it AF or flutter?"."""
    match = _ALTERNATIVES.fullmatch(text)
    if not match or not {*_key(match[1])} <= vocabulary.OPEN | vocabulary.RHYTHM | vocabulary.FINDINGS | _EITHER:
        return None
    question = _read_words(f"Is it {match['names']}?")
    return replace(question, text=text) if question and len(question.codes) > 1 and question.join != "any" else None


def _read_statements(text: str, terms: Sequence[Chunk], words: Sequence[str]) -> Question | None:
    """A yes/no question about the statements that it names."""
    codes = list(dict.fromkeys(code for chunk in terms for code in (chunk.meaning.codes or chunk.meaning.opposites)))
    extra = {"fa": "AFIB", "sinus": "SR", "sinusal": "SR", "fibrillation": "AFIB"}
    codes += [code for word, code in extra.items() if word in words and code not in codes]
    asks_what = _asks_what(_key(text)[:1])  # "What is atrial fibrillation?"
    narrower = any(chunk.text in vocabulary.NARROWER for chunk in terms) or {*_key(text)} & vocabulary.ACUTE
    if not codes or asks_what or narrower:
        return None
    if not set(words) <= vocabulary.CLOSED | vocabulary.RHYTHM | set(extra):
        return None
    negations = sum(word in vocabulary.NEGATIONS for word in words)
    negations += sum(chunk.inner == "absent" or bool(chunk.meaning.opposites) for chunk in terms)
    join: Literal["", "or", "and", "any"] = ""
    if len(codes) > 1:
        rhythms = all(STATEMENTS[code].rhythm for code in codes)
        join = "any" if len(terms) == 1 else "or" if "or" in words and rhythms else "and"
    return _statement(text, tuple(codes), join, negations % 2 == 1)


def _read_group(text: str, words: frozenset[str]) -> Question | None:
    """A yes/no question about a general term: an infarction, a block."""
    v = vocabulary
    groups = (
        (v.INFARCTION_NOUNS, v.INFARCTIONS, _INFARCTION_CODES),
        (v.BLOCK_NOUNS if words & v.BUNDLES else frozenset(), v.BLOCKS, _BUNDLE_BLOCKS),
        (v.BLOCK_NOUNS if "av" in words else frozenset(), v.BLOCKS, _AV_BLOCKS),
        (v.BLOCK_NOUNS, v.BLOCKS, (*_AV_BLOCKS, *_BUNDLE_BLOCKS)),
        (v.HYPERTROPHIES, v.HYPERTROPHIES, ("LVH", "RVH", "SEHYP")),
        (v.EXTRASYSTOLE_NOUNS, v.EXTRASYSTOLES, ("PAC", "PVC", "PRC(S)")),
    )
    for nouns, others, codes in groups:
        if words & nouns and words <= v.CLOSED | others and not words & v.NEGATIONS:
            return _statement(text, codes, "any")
    return None


def _read_rhythm(text: str, words: frozenset[str], language: str) -> Question | None:
    v = vocabulary
    if words & v.RHYTHM and words <= v.OPEN | v.RHYTHM | v.RHYTHM_STATES:
        return Question(text, "rhythm", language, RHYTHM_QUESTIONS[0])
    return None


def _asks_what(words: Sequence[str]) -> bool:
    """Whether a question asks for a thing, and not for yes or no."""
    return bool({*words[:1]} & vocabulary.ASKING or {*words} & (vocabulary.ASKING - vocabulary.WHAT_ABROAD))


def _read_open(text: str, ordered_words: Sequence[str], language: str) -> Question | None:
    """Normality, the report, the findings."""
    v = vocabulary
    words = frozenset(ordered_words)
    asks_what = _asks_what(ordered_words)
    about_normality = words & (v.NORMAL | v.ABNORMAL) and words <= v.CLOSED | v.SUBJECT_WORDS | v.NORMAL | v.ABNORMAL
    if about_normality and not asks_what and not words & (v.PICTURES | {"abnormality"}) and words != {"ok"}:
        return _statement(text, ("NORM",), negative=bool(words & v.ABNORMAL) != bool(words & v.NEGATIONS))
    if words & v.GERMAN_REPORT and words <= v.OPEN | v.GERMAN_REPORT and not ("befunde" in words and asks_what):
        return Question(text, "report", "de", GERMAN_QUESTIONS[0])
    if words & v.REPORT and words <= v.OPEN | v.REPORT | v.FINDINGS:
        return Question(text, "report", "en", REPORT_QUESTIONS[0])
    asks_for_all = words & v.FINDINGS or (asks_what and words & (v.SHOWING | v.ABNORMAL))
    if asks_for_all and words <= v.OPEN | v.FINDINGS | v.SUBJECT_WORDS | v.ABNORMAL:
        return Question(text, "findings", language, FINDING_QUESTIONS[0])
    return None


def _read_quantity(text: str, words: frozenset[str], language: str) -> Question | None:
    """A question about a number: as a yes/no question where nano was trained on its limit, else for the number."""
    v = vocabulary
    numbers = {word for word in words if word.isdigit()}
    key = _quantity(words, text)
    quantity_words = v.RATE | v.FAST | v.SLOW | v.PR | v.QRS | v.QT | v.QTC | v.AXIS | v.AMPLITUDE
    leads = {word for word in words if re.fullmatch(r"v[1-6]|av[lrf]|i{1,3}", word)}
    if words & v.ASKING and "normal" in words:  # "What is a normal heart rate?"
        return None
    if not key or not words - numbers - leads <= v.OPEN | v.QUANTITY | quantity_words:
        return None
    return Question(text, "quantity", language, _quantity_wording(key, words, numbers), quantity=key)


def _quantity(words: frozenset[str], text: str) -> str:
    """The key of `QUANTITIES` that some words name, or ""."""
    v = vocabulary
    if words & (v.RATE | v.FAST | v.SLOW):
        return "rate_bpm"
    if words & v.AXIS:
        return "qrs_axis_deg"
    if words & v.QTC:
        return "qtc_fridericia_ms" if "fridericia" in words else "qtc_bazett_ms"
    for key, names in (("qt_ms", v.QT), ("pr_ms", v.PR), ("qrs_ms", v.QRS)):
        if words & names:
            return key
    amplitude = re.search(r"\b([rs])\b.*\b(I|II|aVL|V[1-6])\b", text, re.IGNORECASE)
    wave = f"{amplitude[1]}_{amplitude[2]}_mv".lower() if amplitude else ""
    return next((key for key in AMPLITUDES if key.lower() == wave), "")


def _quantity_wording(key: str, words: frozenset[str], numbers: set[str]) -> str:
    v = vocabulary
    number = question_forms(key, "open")[0]
    if words & ((v.ASKING - v.WHAT_ABROAD) | v.NEGATIONS) or (words & v.FAST and words & v.SLOW):
        return number  # "How wide is the QRS complex?", "Is there no tachycardia?": "No." would mislead
    closed = question_forms(key, "closed")
    for (_, limit, above), question in zip(QUANTITIES[key].bounds, closed, strict=False):
        if f"{limit:.0f}" in numbers and words & (v.ABOVE if above else v.BELOW):
            return question
        if words & (v.FAST if above else v.SLOW) or (key == "qrs_ms" and words & v.WIDE):
            return question
    sides = [side for side, of_side in v.AXIS_SIDES.items() if words & of_side]
    if key == "qrs_axis_deg" and len(sides) == 1:
        return next(question for question in closed if f" {sides[0]} " in question)
    return number
