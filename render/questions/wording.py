"""How questions are asked and answers are put: several natural wordings of each kind.

`{name}` stands for a statement's name with its article ("an inferior myocardial infarction"), `{names}` for several
joined by commas and "and". The first wording of each kind is the one that scores are asked with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from render.statements import STATEMENTS, Statement

CLOSED_FORMS = (
    "Does this ECG show {name}?",
    "Is there {name} on this ECG?",
    "Do you see {name}?",
    "Can you find {name} in this tracing?",
)
"""The first form is the one that scores are asked with; the others keep a model from learning one wording."""

NORMAL_FORMS = (
    "Is this a normal ECG?",
    "Is this ECG normal?",
    "Would you call this ECG normal?",
    "Is this tracing within normal limits?",
)
_PLURAL = frozenset({"INVT", "ISC_", "LOWT", "NST_", "NT_", "PAC", "PRC(S)", "PVC", "QWAVE", "VCLVH"})
_SINGULAR_FORM = 1  # "Is there inverted T waves" is no English

OPEN_QUESTION = "What does this ECG show?"
"""Asked where nobody said what to ask, and of every page that is judged."""

RHYTHM_QUESTIONS = ("What is the rhythm?", "Which rhythm does this ECG show?", "Name the rhythm of this ECG.")
FINDING_QUESTIONS = (
    OPEN_QUESTION,
    "Which findings does this ECG have?",
    "What do you see on this ECG?",
)
REPORT_QUESTIONS = ("Write a report of this ECG.", "Report this ECG.", "Please interpret this ECG.")
GERMAN_QUESTIONS = (
    "Bitte befunden Sie dieses EKG auf Deutsch.",
    "Schreiben Sie den Befund zu diesem EKG.",
    "Wie lautet der Befund dieses EKGs?",
)

RHYTHM_ANSWERS = ("{report}", "This ECG shows {names}.", "The rhythm is {names}.")
FINDING_ANSWERS = ("{report}", "This ECG shows {names}.", "I see {names}.")
REPORT_ANSWERS = ("{report}", "{grouped}")

CHOICE_QUESTIONS = (
    "Which of these does this ECG show?",
    "Which one of these statements fits this ECG?",
    "Choose the finding that is present on this ECG.",
)
RHYTHM_CHOICES = ("Which of these is the rhythm?", "What is the rhythm of this ECG? Choose one.")

FILL_QUESTIONS = {
    "rhythm": ("The rhythm is ____.", "Complete: the rhythm of this ECG is ____.", "Fill in the blank. Rhythm: ____."),
    "MI": ("Type of myocardial infarction: ____.", "Fill in the blank. Infarction: ____."),
    "CD": ("Conduction disturbance: ____.", "Fill in the blank. Conduction: ____."),
    "HYP": (
        "Hypertrophy or enlargement: ____.",
        "Fill in the blank. Hypertrophy or enlargement of the chambers: ____.",
    ),
    "STTC": ("ST-T change: ____.", "Fill in the blank. Repolarisation: ____."),
}
"""By what is left blank: the rhythm, or the diagnoses of one superclass."""

REFUSALS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "not an ECG": (
            "This picture does not show an ECG.",
            "I see no ECG in this picture; please send one of the tracing.",
            "This is not an ECG, so I cannot answer. Please send a picture of the ECG.",
        ),
        "upside down": (
            "The ECG is upside down; please turn it and ask again.",
            "I cannot read this ECG: the page is upside down. Please turn it the right way up.",
        ),
        "on its side": (
            "The ECG lies on its side; please turn it and ask again.",
            "I cannot read this ECG: the page is turned by 90 degrees. Please turn it upright.",
        ),
        "cut off": (
            "Part of the ECG is cut off: {leads} cannot be read.",
            "The page is cut off and lacks {leads}; please send the whole page.",
            "I cannot answer: the picture is cut off and does not show {leads}. Please send all leads.",
        ),
    },
    "de": {
        "not an ECG": ("Dieses Bild zeigt kein EKG.",),
        "upside down": ("Das EKG steht auf dem Kopf; bitte drehen und noch einmal fragen.",),
        "on its side": ("Das EKG liegt auf der Seite; bitte drehen und noch einmal fragen.",),
        "cut off": ("Ein Teil des EKGs ist abgeschnitten: {leads} nicht lesbar.",),
    },
}
"""language -> why a page cannot be read (`render.pages.unreadable`) -> answers that say so; `{leads}`: those lost."""


def closed_question(code: str, form: int = 0) -> str:
    """The yes/no question about a statement code. Raises KeyError for a code outside the 71."""
    if code == "NORM":
        return NORMAL_FORMS[form]
    return CLOSED_FORMS[form].format(name=STATEMENTS[code].name)


def closed_forms(code: str) -> tuple[int, ...]:
    """The forms beside the first that a code's name reads well in."""
    return tuple(f for f in range(1, len(CLOSED_FORMS)) if not (code in _PLURAL and f == _SINGULAR_FORM))


def label_of(code: str) -> str:
    """The statement's name without its article: "Normal ECG", "Atrial fibrillation"."""
    name = bare(code)
    return name[0].upper() + name[1:]


def bare(code: str) -> str:
    """The statement's name as it reads within a sentence, without its article."""
    return STATEMENTS[code].name.removeprefix("an ").removeprefix("a ")


def ordered(codes: Collection[str]) -> list[Statement]:
    """Rhythm first, then diagnoses, then form. Codes outside the 71 are left out."""
    known = [STATEMENTS[code] for code in sorted(codes) if code in STATEMENTS]
    return sorted(known, key=lambda s: 0 if s.rhythm else 1 if s.diagnostic else 2)


def report_of(codes: Collection[str]) -> str:
    """Statement codes as report text: rhythm first, then diagnoses, then form, a sentence each; "" for none."""
    return " ".join(f"{label_of(s.code)}." for s in ordered(codes))


def names_of(codes: Collection[str]) -> str:
    """The names with articles as a list: "sinus rhythm, bigeminy, and low QRS voltage"."""
    return joined(s.name for s in ordered(codes))


def joined(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b, and c"."""
    *first, last = words
    return f"{', '.join(first)}{',' if len(first) > 1 else ''} and {last}" if first else last


def grouped_report(codes: Collection[str]) -> str:
    """A report in two parts, as machines print it: "Rhythm: atrial fibrillation. Findings: LVH; low QRS voltage."."""
    rhythm = [bare(s.code) for s in ordered(codes) if s.rhythm]
    others = [bare(s.code) for s in ordered(codes) if not s.rhythm]
    parts = [f"Rhythm: {joined(rhythm)}."] if rhythm else []
    return " ".join([*parts, f"Findings: {'; '.join(others)}."] if others else parts)


def answer(form: str, codes: Collection[str]) -> str:
    """An answer form of this module with the names of `codes` put in.

    "A normal ECG" does not go into a list with findings, so it becomes a sentence of its own; hypertrophy and voltage
    in one list would read as hypertrophy by voltage, so each gets one.
    """
    if form == "{grouped}":
        return grouped_report(codes)
    if form == "{report}" or ({"LVH", "RVH"} & set(codes) and {"HVOLT", "LVOLT"} & set(codes)):
        return report_of(codes)
    listed = [code for code in codes if code != "NORM"]
    said = [form.format(names=names_of(listed))] if listed else []
    return " ".join([*said, "This is a normal ECG."] if "NORM" in codes else said)


def refusal_of(kind: str, lost: Sequence[str], language: str, rng: np.random.Generator) -> str:
    """Why a page cannot be read, in words; in English where there are none in `language`."""
    forms = REFUSALS.get(language, REFUSALS["en"])[kind]
    return pick(forms, rng).format(leads=", ".join(lost) if language == "de" else joined(lost) if lost else "")


def pick(forms: Sequence[str], rng: np.random.Generator) -> str:
    """One of the forms, each as often."""
    return forms[int(rng.integers(len(forms)))]
