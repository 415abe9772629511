"""The wording of questions and answers: several natural forms of each kind.

`{name}` stands for a statement's name with its article ("an inferior myocardial infarction"), `{names}` for several
names as a list with commas and "and". Scores use the first form of each kind; the others are needed because a small
model answers a question in a wording it was not trained on at random.
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
    "Are there signs of {name}?",
    "Any {bare}?",
    "Does this patient have {name}?",
    "{Bare}?",
    "Is it {name}?",
    "Is this {name}?",
)
"""Scores use the first form; the others keep a model from learning a single wording."""

OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "1AVB": ("first-degree AV block", "AV block I", "1st degree heart block"),
    "2AVB": ("second-degree AV block", "Wenckebach or Mobitz block", "AV block II"),
    "3AVB": ("third-degree AV block", "complete heart block", "AV block III"),
    "AFIB": ("AF", "AFib", "a-fib"),
    "AFLT": ("flutter", "atrial flutter waves"),
    "ALMI": ("an anterolateral MI", "an anterolateral infarct"),
    "AMI": ("an anterior MI", "an anterior infarct"),
    "ASMI": ("an anteroseptal MI", "an anteroseptal infarct"),
    "CLBBB": ("LBBB", "complete LBBB", "a left bundle branch block"),
    "CRBBB": ("RBBB", "complete RBBB", "a right bundle branch block"),
    "HVOLT": ("high voltage",),
    "ILBBB": ("incomplete LBBB", "iLBBB"),
    "ILMI": ("an inferolateral MI", "an inferolateral infarct"),
    "IMI": ("an inferior MI", "an inferior infarct"),
    "INVT": ("T wave inversion", "negative T waves", "inverted Ts"),
    "IRBBB": ("incomplete RBBB", "iRBBB"),
    "ISCAL": ("anterolateral ischaemia",),
    "ISCAN": ("anterior ischaemia",),
    "ISCAS": ("anteroseptal ischaemia",),
    "ISCIL": ("inferolateral ischaemia",),
    "ISCIN": ("inferior ischaemia",),
    "ISCLA": ("lateral ischaemia",),
    "ISC_": ("ischaemia", "ischaemic changes"),
    "IVCD": ("an IVCD", "an intraventricular conduction delay"),
    "LAFB": ("LAFB", "a left anterior hemiblock"),
    "LAO/LAE": ("LAE", "P mitrale"),
    "LMI": ("a lateral MI", "a lateral infarct"),
    "LNGQT": ("long QT", "QT prolongation", "a long QTc"),
    "LPFB": ("LPFB", "a left posterior hemiblock"),
    "LPR": ("a long PR", "PR prolongation"),
    "LVH": ("LVH",),
    "LVOLT": ("low voltage", "low voltages"),
    "PAC": ("PACs", "atrial extrasystoles", "premature atrial beats"),
    "PACE": ("a paced rhythm", "pacing", "a pacemaker"),
    "PMI": ("a posterior MI", "a posterior infarct"),
    "PVC": ("PVCs", "ventricular extrasystoles", "premature ventricular beats"),
    "QWAVE": ("Q waves",),
    "RAO/RAE": ("RAE", "P pulmonale"),
    "RVH": ("RVH",),
    "SBRAD": ("sinus brady",),
    "SR": ("normal sinus rhythm", "a sinus rhythm"),
    "STACH": ("sinus tach",),
    "STD_": ("ST depressions", "depressed ST segments"),
    "STE_": ("ST elevations", "raised ST segments"),
    "SVTAC": ("SVT",),
    "WPW": ("WPW", "preexcitation", "a delta wave"),
}
"""Other clinical names of a statement, for questions. Answers use its own name."""

NORMAL_FORMS = (
    "Is this a normal ECG?",
    "Is this ECG normal?",
    "Would you call this ECG normal?",
    "Is this tracing within normal limits?",
)
_PLURAL = frozenset({"INVT", "ISC_", "LOWT", "NST_", "NT_", "PAC", "PRC(S)", "PVC", "QWAVE", "VCLVH"})
# "Is there inverted T waves" is ungrammatical.
_SINGULAR_FORMS = frozenset(f for f, form in enumerate(CLOSED_FORMS) if form.startswith("Is "))
_OTHER_NAME_SHARE = 0.4  # of the yes/no questions in another form than the scores', where the code has other names

CANONICAL_SHARE = 0.5
"""Share of questions in the form that scores use, so that it is trained best."""

OPEN_QUESTION = "What does this ECG show?"
"""The default question, and the open question about every page of an evaluation."""

_ECGS = ("this ECG", "the ECG", "this EKG", "this tracing", "this recording", "this electrocardiogram", "this page")


def _of(*forms: str) -> tuple[str, ...]:
    return tuple(form.format(ecg=ecg) for form in forms for ecg in (_ECGS if "{ecg}" in form else [""]))


RHYTHM_QUESTIONS = (
    "What is the rhythm?",
    "Which rhythm does this ECG show?",
    "Name the rhythm of this ECG.",
    *_of(
        "What rhythm is this?",
        "Rhythm?",
        "Which rhythm is it?",
        "Describe the rhythm.",
        "What is the heart rhythm?",
        "What rhythm do you see?",
        "What is the rhythm of {ecg}?",
        "Describe the rhythm of {ecg}.",
        "The rhythm?",
        "Please tell me the rhythm.",
        "How would you call this rhythm?",
        "Is the rhythm normal? Name it.",
    ),
)
FINDING_QUESTIONS = (
    OPEN_QUESTION,
    "Which findings does this ECG have?",
    "What do you see on this ECG?",
    *_of(
        "What does {ecg} show?",
        "What do you see?",
        "What is on {ecg}?",
        "Describe {ecg}.",
        "Please describe {ecg}.",
        "Describe the findings.",
        "What are the findings?",
        "Findings?",
        "List the findings.",
        "Findings of {ecg}?",
        "What is the diagnosis?",
        "Diagnosis?",
        "What are the diagnoses?",
        "Which diagnoses fit {ecg}?",
        "Describe the morphology.",
        "Describe the QRS complexes and the repolarisation.",
        "What can you say?",
        "What is abnormal on {ecg}?",
        "What is wrong with {ecg}?",
        "Is anything wrong? Tell me what.",
        "What is it?",
        "What do you think of {ecg}?",
        "What can be seen on {ecg}?",
        "Which abnormalities do you find?",
    ),
)
REPORT_QUESTIONS = (
    "Write a report of this ECG.",
    "Report this ECG.",
    "Please interpret this ECG.",
    *_of(
        "Write a report.",
        "Report.",
        "Interpret {ecg}.",
        "Interpretation?",
        "What is your interpretation?",
        "Give a report of {ecg}.",
        "Give me a short report.",
        "Please report {ecg}.",
        "Please write a report.",
        "Analyse {ecg}.",
        "Analyze {ecg}.",
        "Read {ecg}.",
        "Please read {ecg}.",
        "Assess {ecg}.",
        "Summarise {ecg}.",
        "Summarize {ecg}.",
        "Summary?",
        "Write a short report of {ecg}.",
        "Conclusion?",
        "How do you interpret {ecg}?",
        "Give your interpretation of {ecg}.",
        "Evaluate {ecg}.",
    ),
)
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
"""Kind of the blank (the rhythm, or the diagnoses of one superclass) -> forms."""

REFUSALS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "not an ECG": (
            "This picture does not show an ECG.",
            "There is no ECG in this picture; please send one of the tracing.",
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
"""language -> why a page is unreadable (`render.negatives.unreadable`) -> answers; `{leads}`: the leads cut off."""


def closed_question(code: str, form: int = 0, name: str = "") -> str:
    """The yes/no question about a statement code; name: one of `OTHER_NAMES` instead of its own.

    Raises:
        KeyError: For a code outside the 71.
    """
    if code == "NORM":
        return NORMAL_FORMS[form]
    name = name or STATEMENTS[code].name
    short = _without_article(name)
    return CLOSED_FORMS[form].format(name=name, bare=short, Bare=short[0].upper() + short[1:])


def closed_forms(code: str, name: str = "") -> tuple[int, ...]:
    """The forms that are grammatical with a code's name, or with one of its `OTHER_NAMES`."""
    if code == "NORM":
        return tuple(range(len(NORMAL_FORMS)))
    plural = name.endswith("s") if name else code in _PLURAL
    return tuple(f for f in range(len(CLOSED_FORMS)) if not (plural and f in _SINGULAR_FORMS))


def pick_closed(code: str, rng: np.random.Generator) -> str:
    """The yes/no question about a code: half the time as for scores, else in another form or with another name."""
    if rng.random() < CANONICAL_SHARE:
        return closed_question(code)
    if code in OTHER_NAMES and rng.random() < _OTHER_NAME_SHARE:
        name = pick(OTHER_NAMES[code], rng)
        return closed_question(code, int(rng.choice(closed_forms(code, name))), name)
    return closed_question(code, int(rng.choice(closed_forms(code)[1:])))


def label_of(code: str, language: str = "en") -> str:
    """The statement's name without its article: "Normal ECG", "Atrial fibrillation"; in German "Vorhofflimmern"."""
    name = STATEMENTS[code].german if language == "de" else bare(code)
    return name[0].upper() + name[1:]


def bare(code: str) -> str:
    """The statement's name without its article, as within a sentence."""
    return _without_article(STATEMENTS[code].name)


def _without_article(name: str) -> str:
    return name.removeprefix("an ").removeprefix("a ")


def in_report_order(codes: Collection[str]) -> list[Statement]:
    """Rhythm first, then diagnoses, then form. Codes outside the 71 are left out."""
    statements = [STATEMENTS[code] for code in sorted(codes) if code in STATEMENTS]
    return sorted(statements, key=lambda s: 0 if s.rhythm else 1 if s.diagnostic else 2)


def report_of(codes: Collection[str]) -> str:
    """Statement codes as report text: rhythm first, then diagnoses, then form, a sentence each; "" for none."""
    return " ".join(f"{label_of(s.code)}." for s in in_report_order(codes))


def names_of(codes: Collection[str], language: str = "en") -> str:
    """The names with articles as a list: "sinus rhythm, bigeminy, and low QRS voltage"; in German with commas alone."""
    if language == "de":
        return ", ".join(statement.german for statement in in_report_order(codes))
    return enumeration(s.name for s in in_report_order(codes))


def enumeration(words: Iterable[str]) -> str:
    """ "a", "a and b", "a, b, and c"."""
    *first, last = words
    return f"{', '.join(first)}{',' if len(first) > 1 else ''} and {last}" if first else last


def grouped_report(codes: Collection[str]) -> str:
    """A report in two parts, as machines print it: "Rhythm: atrial fibrillation. Findings: LVH; low QRS voltage."."""
    rhythm = [bare(s.code) for s in in_report_order(codes) if s.rhythm]
    others = [bare(s.code) for s in in_report_order(codes) if not s.rhythm]
    parts = [f"Rhythm: {enumeration(rhythm)}."] if rhythm else []
    return " ".join([*parts, f"Findings: {'; '.join(others)}."] if others else parts)


def answer(form: str, codes: Collection[str]) -> str:
    """An answer form of this module with the names of `codes`.

    "A normal ECG" does not fit into a list of findings, so it gets its own sentence; hypertrophy and voltage in one
    list would read as hypertrophy by voltage, so each gets a sentence.
    """
    if form == "{grouped}":
        return grouped_report(codes)
    if form == "{report}" or ({"LVH", "RVH"} & set(codes) and {"HVOLT", "LVOLT"} & set(codes)):
        return report_of(codes)
    findings = [code for code in codes if code != "NORM"]
    sentences = [form.format(names=names_of(findings))] if findings else []
    return " ".join([*sentences, "This is a normal ECG."] if "NORM" in codes else sentences)


def refusal_of(kind: str, leads: Sequence[str], language: str, rng: np.random.Generator) -> str:
    """The answer why a page cannot be read; in English where `language` has none."""
    forms = REFUSALS.get(language, REFUSALS["en"])[kind]
    return pick(forms, rng).format(leads=", ".join(leads) if language == "de" else enumeration(leads) if leads else "")


def pick_question(forms: Sequence[str], rng: np.random.Generator) -> str:
    """Half the time the first form, which scores use, else one of the others, all equally likely."""
    return forms[0] if rng.random() < CANONICAL_SHARE else pick(forms[1:], rng)


def pick(forms: Sequence[str], rng: np.random.Generator) -> str:
    """One of the forms, all equally likely."""
    return forms[int(rng.integers(len(forms)))]
