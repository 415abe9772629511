"""Answers that agree with the yes/no scores: composed from them, or an open answer made consistent with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecg_vlm.questions import Question
from ecg_vlm.statement_scores import DAMAGE, StatementScores
from ecg_vlm.translation import translate
from eval.parser.choices import options_in
from eval.parser.parse import ParsedAnswer, parse
from render.dialogues.wording import (
    FINDING_ANSWERS,
    GERMAN_QUESTIONS,
    REPORT_ANSWERS,
    RHYTHM_ANSWERS,
    answer,
    label_of,
    names_of,
)

_NO_DISEASE = frozenset({"NORM", "SR", "SARRH", "SBRAD", "STACH"})

_NOT_UNDERSTOOD = {
    "en": "I cannot answer this question. Please ask, one at a time, about the rhythm, the findings, one of the 71 "
    "statements, the heart rate, the PR, QRS and QT intervals, or the QRS axis of this ECG.",
    "de": "Diese Frage kann ich nicht beantworten. Bitte fragen Sie einzeln nach dem Rhythmus, den Befunden, einer der "
    "71 Aussagen, der Herzfrequenz, den PQ-, QRS- und QT-Zeiten oder der QRS-Achse dieses EKGs.",
}
_YES_NO = {"en": ("Yes.", "No."), "de": ("Ja.", "Nein."), "es": ("Sí.", "No."), "fr": ("Oui.", "Non.")}
_OPEN_KINDS = ("rhythm", "findings", "report")
_OPEN_ANSWERS = {"rhythm": RHYTHM_ANSWERS[1], "report": REPORT_ANSWERS[0]}


@dataclass(frozen=True)
class QuestionAnswer:
    """An answer to one question about one page.

    Attributes:
        question: as asked.
        text: the answer.
        contradicted: P(present) of the statements that the answer affirms or denies and the scores contradict.
        understood: False where the answer only says what can be asked.
        original: the words of the model where `text` differs from them to agree with the scores, else "".
    """

    question: str
    text: str
    contradicted: dict[str, float] = field(default_factory=dict)
    understood: bool = True
    original: str = ""


def not_understood(language: str) -> str:
    """What can be asked, for a question that is not understood; in German to a German question."""
    return _NOT_UNDERSTOOD.get(language, _NOT_UNDERSTOOD["en"])


def is_in_own_words(question: Question) -> bool:
    """Whether the answer stays in the model's words: not for a German question, unless nano answers it in German."""
    return question.language != "de" or question.wording in GERMAN_QUESTIONS


def in_language(text: str, question: Question) -> str:
    """An answer in the language of the question: "Yes." and "No." in all four, in German every answer about statements
    and numbers. An open one is put in German by the statements that it names.
    """
    translation = dict(zip(_YES_NO["en"], _YES_NO[question.language], strict=True))
    if text in translation:
        return translation[text]
    if is_in_own_words(question):
        return text
    return _open_answer_in_german(text, question) if question.kind in _OPEN_KINDS else translate(text, "de")


def _open_answer_in_german(text: str, question: Question) -> str:
    content = parse(text, question.wording)
    parts = (("", content.present), ("Nicht: ", content.absent), ("Fraglich: ", content.uncertain))
    sentences = [f"{head}{names_of(codes, 'de')}." for head, codes in parts if codes]
    sentences = [sentence[0].upper() + sentence[1:] for sentence in sentences]
    return " ".join(sentences) or translate(text, "de")


def statement_answer(question: Question, scores: StatementScores) -> str:
    """The answer to a question of kind "statement", from the scores alone: the same in every wording.

    Args:
        scores: of its codes; with NORM also those that `StatementScores.is_normal` takes.
    """
    present = [code for code in question.codes if _is_present(code, scores)]
    language = question.language
    yes, no = _YES_NO[language]
    likeliest = max(question.codes, key=lambda code: _rank(code, scores))
    if question.join == "and":
        return " ".join(_verdict(code, code in present, language) for code in question.codes)
    if question.join == "or":
        name = names_of([likeliest], language)
        text = f"This ECG shows {name}." if present else f"None of these is likely; the likeliest is {name}."
        return translate(text, language)
    if question.negative:
        return _full_sentence(likeliest, bool(present), language)
    if question.join == "any" and present:
        return f"{yes.rstrip('.')}: {names_of(present, language)}."
    return yes if present else no


def _verdict(code: str, present: bool, language: str) -> str:
    return translate(f"{label_of(code, language)}: {'yes' if present else 'no'}.", language)


def _full_sentence(code: str, present: bool, language: str = "en") -> str:
    """ "Yes" to "Is it not AF?" would mean either."""
    if code == "NORM":
        return translate(f"This is {'' if present else 'not '}a normal ECG.", language)
    return translate(f"This ECG {'shows' if present else 'does not show'} {names_of([code], language)}.", language)


def consistent_answer(question: Question, text: str, scores: StatementScores) -> str:
    """An open answer whose verdict on normality agrees with the scores; unchanged where it does already.

    A normal ECG is stated only where the scores call the page normal. There it is not denied, and disease is not named
    where the scores revoke all of it. A changed answer has the statements of the old one that the scores confirm.

    Args:
        scores: of `codes_of_question`, and those that `StatementScores.is_normal` takes where NORM is one of them.
    """
    if "NORM" not in scores:
        return text
    content = parse(text, question.wording)
    normal = scores.is_normal()
    if not (_misstates_normality(content, normal) or (normal and _denies_normality(question, content, scores))):
        return text
    if question.kind == "choice":
        return likeliest_option(question.wording, scores)
    codes = {code for code in content.present if code != "NORM" and scores.reaches(code)} | (
        {"NORM"} if normal else set()
    )
    return answer(_OPEN_ANSWERS.get(question.kind, FINDING_ANSWERS[1]), sorted(codes)) or _full_sentence("NORM", normal)


def _misstates_normality(content: ParsedAnswer, normal: bool) -> bool:
    """Whether an answer states a normal ECG against the scores, or together with damage."""
    return "NORM" in content.present and (not normal or bool({*DAMAGE} & {*content.present}))


def _denies_normality(question: Question, content: ParsedAnswer, scores: StatementScores) -> bool:
    """Whether an answer about a page that scores as normal denies it, or names disease that the scores all revoke."""
    disease = {*content.present} - _NO_DISEASE
    only_revoked = bool(disease) and not any(scores.reaches(code) for code in disease)
    silent = "NORM" not in content.present and question.kind in ("findings", "report")
    return "NORM" in content.absent or (silent and only_revoked)


def likeliest_option(text: str, scores: StatementScores) -> str:
    """The option of a multiple choice with the highest score, "B. Sinus rhythm."; none where all are unlikely.

    Args:
        text: the question with its options.
        scores: of the options' statements; with NORM also those that `StatementScores.is_normal` takes.
    """
    options = options_in(text)
    ranks = [
        max((_rank(code, scores) for code in parse(option.text).present), default=(False, 0.0)) for option in options
    ]
    best = max(range(len(options)), key=lambda place: ranks[place])
    is_present, _ = ranks[best]
    option = options[best]
    return f"{option.letter}. {option.text.rstrip('.')}." if is_present else "None of these is likely."


def _rank(code: str, scores: StatementScores) -> tuple[bool, float]:
    """What is called present comes before what is not, the likelier before the less likely."""
    return _is_present(code, scores), scores[code]


def _is_present(code: str, scores: StatementScores) -> bool:
    """Whether the scores call a statement present; NORM where they call the page normal."""
    return scores.is_normal() if code == "NORM" else scores.reaches(code)


def codes_of_question(question: Question, text: str) -> tuple[str, ...]:
    """The statements whose scores an answer is compared with: those that it mentions, those of the options, and NORM
    where the question is about the whole page.
    """
    content = parse(text, question.wording)
    options = [code for option in options_in(question.wording) for code in parse(option.text).present]
    normality = ("NORM",) if question.kind in ("findings", "report", "choice") else ()
    return tuple(dict.fromkeys((*normality, *content.present, *content.absent, *options)))
