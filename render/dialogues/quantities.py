"""Questions about measurements: rate, axis, intervals, amplitudes; open, closed, multiple choice and fill-in.

A question is left out when the measuring error could change its answer: every quantity has a margin, about the 95th
percentile of the error of `render.measurements` against cardiologists on LUDB.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from render.dialogues.wording import pick
from render.measurements import AMPLITUDES, corrected_qt
from render.statements import HIDDEN_T_END, NO_SINGLE_PR

FeatureQuestion = tuple[str, str, str]
"""form, question, answer."""


@dataclass(frozen=True)
class Quantity:
    """One measured quantity in words.

    Attributes:
        name: completes "What is ...?".
        unit: as spoken.
        step: answers are rounded to it.
        margin: measuring error.
        credible: lowest and highest value; others are errors of the machine and not asked about.
        usual: the range of wrong options; None where it has too few distinguishable values.
        bounds: (words that complete "Is {name} ...?", limit, whether a value above the limit means yes).
    """

    name: str
    unit: str
    step: float
    margin: float
    credible: tuple[float, float]
    usual: tuple[float, float] | None
    bounds: tuple[tuple[str, float, bool], ...] = ()

    def rounded_text(self, value: float) -> str:
        """The rounded number: "72", "0.8"."""
        return f"{round(value / self.step) * self.step:.{0 if self.step >= 1 else 1}f}"


# Bounds: sinus tachycardia > 100 and bradycardia < 60 per minute (AHA/ACC/HRS 2007); PR > 200 ms (the same);
# QRS >= 120 ms (AHA/ACCF/HRS 2009, part III).
QUANTITIES: dict[str, Quantity] = {
    "rate_bpm": Quantity(
        "the heart rate",
        "beats per minute",
        1,
        3,
        (20, 300),
        (40, 160),
        (("above 100 per minute", 100, True), ("below 60 per minute", 60, False)),
    ),
    "pr_ms": Quantity("the PR interval", "ms", 10, 25, (60, 500), (90, 320), (("longer than 200 ms", 200, True),)),
    "qrs_ms": Quantity("the QRS duration", "ms", 5, 20, (40, 250), None, (("120 ms or longer", 120, True),)),
    "qt_ms": Quantity("the QT interval", "ms", 10, 25, (200, 700), (280, 520)),
    "qtc_bazett_ms": Quantity("the QTc by Bazett's formula", "ms", 10, 30, (200, 700), (320, 560)),
    "qtc_fridericia_ms": Quantity("the QTc by Fridericia's formula", "ms", 10, 30, (200, 700), (320, 560)),
    "qrs_axis_deg": Quantity("the QRS axis", "degrees", 5, 10, (-180, 180), None),
    **{
        key: Quantity(
            f"the {'amplitude of the R wave' if key[0] == 'r' else 'depth of the S wave'} in lead {key.split('_')[1]}",
            "mV",
            0.1,
            0.15,
            (0.1, 8),
            (0.1, 3),
        )
        for key in AMPLITUDES
    },
}

_OPEN = (
    "What is {name}?",
    "Measure {name}.",
    "Please read off {name}.",
    "{Name}?",
    "Tell me {name}.",
    "Estimate {name}.",
)
_OPEN_ANSWERS = ("About {value} {unit}.", "{Name} is about {value} {unit}.", "{value} {unit}.")
_CLOSED = ("Is {name} {range}?", "Would you say that {name} is {range}?")
_CHOICE = ("Which of these is {name}?", "{Name}: which value fits?")
_FILL = ("{Name} is ____ {unit}.", "Fill in the blank. {Name}: ____ {unit}.")

AXES = ("Normal axis", "Left axis deviation", "Right axis deviation", "Extreme axis deviation")
_AXIS_KEY = "qrs_axis_deg"
_AXIS_GAP = "The QRS axis in the frontal plane: ____."
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?![\w])")
_VERDICTS = {"yes": True, "ja": True, "sí": True, "oui": True, "no": False, "nein": False, "non": False}
_AXIS_BOUNDS = (-180.0, -90.0, -30.0, 90.0, 180.0)


def axis_category(degrees: float) -> str:
    """One of `AXES`: -30 to +90 normal, -30 to -90 left, +90 to +180 right, the rest extreme.

    Source: AHA/ACCF/HRS 2009, part III (adults). Takes degrees of -180 to 180.
    """
    if -30 <= degrees <= 90:
        return AXES[0]
    if -90 <= degrees < -30:
        return AXES[1]
    return AXES[2] if degrees > 90 else AXES[3]


def question_forms(key: str, form: str) -> tuple[str, ...]:
    """Every wording of the questions about a quantity.

    Args:
        key: of `QUANTITIES`.
        form: "open"; "closed", first one for each of the quantity's bounds, or for each of `AXES`; "fill"; "choice",
            without the options.
    """
    if form == "closed" and key == _AXIS_KEY:
        return tuple(f"Does this ECG show {_with_article(axis)}?" for axis in AXES)
    if form == "closed":
        return tuple(_format(text, key, range=words) for text in _CLOSED for words, _, _ in QUANTITIES[key].bounds)
    if form == "choice" and QUANTITIES[key].usual is None and key != _AXIS_KEY:
        return ()
    texts = {"open": _OPEN, "fill": _FILL, "choice": _CHOICE}[form]
    return (*(_format(text, key) for text in texts), *((_AXIS_GAP,) if form == "fill" and key == _AXIS_KEY else ()))


IMPLIED_RANGES: dict[str, tuple[tuple[str, float, float], ...]] = {
    "1AVB": (("pr_ms", 190, np.inf),),
    "LPR": (("pr_ms", 190, np.inf),),
    "WPW": (("pr_ms", 0, 130),),
    "CLBBB": (("qrs_ms", 110, np.inf),),
    "CRBBB": (("qrs_ms", 110, np.inf),),
    "LNGQT": (("qtc_bazett_ms", 440, np.inf),),
    "STACH": (("rate_bpm", 95, np.inf),),
    "SBRAD": (("rate_bpm", 0, 65),),
    "NORM": (("pr_ms", 110, 220), ("qrs_ms", 0, 125), ("qtc_bazett_ms", 0, 475), ("qtc_fridericia_ms", 0, 470)),
}
"""Statement code -> what it implies of a measurement: key, least and most, with tolerance.

Where number and statement contradict each other, one of them is wrong: the number is not asked about, and an answer
that says so comes with a warning. Criteria as in `QUANTITIES`; QTc > 450 to 460 ms is long (there, part IV).
"""
# Rhythms that have no PR interval at all, and why: the answer states it.
_WITHOUT_PR = {
    "AFIB": "The atria fibrillate",
    "AFLT": "The atria flutter",
    "3AVB": "The atria and the ventricles beat independently",
}


def consistent_quantities(measurements: Mapping[str, float], statements: Collection[str]) -> dict[str, float]:
    """The measurements among `QUANTITIES` that are credible and agree with the statements, with `corrected_qt` added.

    No PR where the rhythm has none or several, no QT where other waves hide the end of T.
    """
    numbers = {key: float(value) for key, value in measurements.items() if key in QUANTITIES and np.isfinite(value)}
    if "qrs_axis_deg" in numbers:
        numbers["qrs_axis_deg"] = (numbers["qrs_axis_deg"] + 180) % 360 - 180
    numbers = {k: v for k, v in numbers.items() if QUANTITIES[k].credible[0] <= v <= QUANTITIES[k].credible[1]}
    if not NO_SINGLE_PR.isdisjoint(statements):
        numbers.pop("pr_ms", None)
    if not HIDDEN_T_END.isdisjoint(statements):
        numbers.pop("qt_ms", None)
    numbers |= corrected_qt(numbers)
    inconsistent = {key for _, key in contradictions(numbers, statements)}
    if any(key.startswith("qtc") for key in inconsistent):  # their QT is as wrong
        inconsistent |= {"qt_ms", "qtc_bazett_ms", "qtc_fridericia_ms"}
    return {key: value for key, value in numbers.items() if key not in inconsistent}


def contradictions(measurements: Mapping[str, float], statements: Iterable[str]) -> list[tuple[str, str]]:
    """The statements and the keys of the measurements that contradict each other by `IMPLIED_RANGES`."""
    return [
        (code, key)
        for code in statements
        for key, least, most in IMPLIED_RANGES.get(code, ())
        if key in measurements and not least <= measurements[key] <= most
    ]


def misfit(key: str, question: str, text: str, value: float) -> str:
    """What an answer about a quantity says against the measured value: its one number, or a "Yes." or "No." to a limit.

    Args:
        key: of `QUANTITIES`.
        question: in a wording of `question_forms`.
        text: the answer, in any language.
        value: as measured, in the quantity's unit.

    Returns:
        The number, or the word in quotation marks; "" where the answer is within twice the margin (its own error, and
        that of the measurement), or says neither.
    """
    margin = 2 * QUANTITIES[key].margin
    numbers = _NUMBER.findall(text)
    if len(numbers) == 1:
        difference = float(numbers[0].replace("−", "-")) - value
        if key == _AXIS_KEY:
            difference = (difference + 180) % 360 - 180
        return numbers[0] if abs(difference) > margin else ""
    verdict = _VERDICTS.get(text.strip().rstrip(".").lower())
    for words, limit, above in QUANTITIES[key].bounds:
        if words in question and abs(value - limit) > margin and verdict is ((value > limit) != above):
            return f'"{text.strip()}"'
    return ""


def feature_questions(
    measurements: Mapping[str, float], statements: Collection[str], count: int, rng: np.random.Generator
) -> list[FeatureQuestion]:
    """Up to `count` questions, each about another quantity, in a form sampled from those that fit it.

    Args:
        measurements: those of `render.measurements` or `EcgRecord.measurements`. Of the nine amplitudes at most one
            is asked about, and at most one of the two QTc.
    """
    numbers = consistent_quantities(measurements, statements)
    keys = [key for key in numbers if key not in AMPLITUDES and not key.startswith("qtc")]
    for alike in ([k for k in numbers if k in AMPLITUDES], [k for k in numbers if k.startswith("qtc")]):
        keys += [pick(alike, rng)] if alike else []
    return [_question(keys[i], numbers[keys[i]], rng) for i in rng.permutation(len(keys))[:count]]


def no_pr_question(statements: Collection[str], rng: np.random.Generator) -> FeatureQuestion | None:
    """The question for the PR interval where the rhythm has none, with the reason as answer; None for other rhythms."""
    why = next((_WITHOUT_PR[code] for code in statements if code in _WITHOUT_PR), None)
    return ("open", _format(pick(_OPEN, rng), "pr_ms"), f"{why}, so there is no PR interval.") if why else None


def _question(key: str, value: float, rng: np.random.Generator) -> FeatureQuestion:
    if key == _AXIS_KEY:
        return _axis(value, rng)
    questions = [_open(key, value, rng), _fill(key, value, rng), *_closed(key, value, rng)]
    usual = QUANTITIES[key].usual
    if usual is not None:
        questions.append(_choice(key, value, usual, rng))
    return questions[int(rng.integers(len(questions)))]


def _format(text: str, key: str, **more: str) -> str:
    name = QUANTITIES[key].name
    return text.format(name=name, Name=name[0].upper() + name[1:], unit=QUANTITIES[key].unit, **more)


def _open(key: str, value: float, rng: np.random.Generator) -> FeatureQuestion:
    number = QUANTITIES[key].rounded_text(value)
    return "open", _format(pick(_OPEN, rng), key), _format(pick(_OPEN_ANSWERS, rng), key, value=number)


def _fill(key: str, value: float, rng: np.random.Generator) -> FeatureQuestion:
    return "fill", _format(pick(_FILL, rng), key), QUANTITIES[key].rounded_text(value)


def _closed(key: str, value: float, rng: np.random.Generator) -> list[FeatureQuestion]:
    """The yes/no questions whose limit is further from the value than the margin."""
    quantity = QUANTITIES[key]
    return [
        ("closed", _format(pick(_CLOSED, rng), key, range=words), "Yes." if (value > limit) == above else "No.")
        for words, limit, above in quantity.bounds
        if abs(value - limit) > quantity.margin
    ]


def _choice(key: str, value: float, usual: tuple[float, float], rng: np.random.Generator) -> FeatureQuestion:
    """The value and three others of the usual range in random order, at least a sixth or 1.5 margins apart."""
    quantity = QUANTITIES[key]
    gap = max(1.5 * quantity.margin, value / 6)
    low, high = usual
    values = [value]
    for other in low + (high - low) * rng.random(40):
        if len(values) < 4 and min(abs(other - v) for v in values) >= gap:
            values.append(float(other))
    while len(values) < 4:
        values.append(max(values) + gap)
    order = rng.permutation(4).tolist()
    options = [f"{quantity.rounded_text(values[i])} {quantity.unit}" for i in order]
    return choice_question(_format(pick(_CHOICE, rng), key), options, order.index(0))


def _axis(value: float, rng: np.random.Generator) -> FeatureQuestion:
    """Degrees always, the category only where no limit is within the margin."""
    key = _AXIS_KEY
    category = axis_category(value)
    plain = category[0].lower() + category[1:]
    if min(abs(value - limit) for limit in _AXIS_BOUNDS) <= QUANTITIES[key].margin:
        return _fill(key, value, rng) if rng.random() < 0.5 else _open(key, value, rng)
    text = f"About {QUANTITIES[key].rounded_text(value)} degrees: {_with_article(category)}."
    other = pick(AXES, rng)
    order = rng.permutation(len(AXES))
    questions: list[FeatureQuestion] = [
        ("open", _format(pick(_OPEN, rng), key), text),
        ("closed", f"Does this ECG show {_with_article(other)}?", "Yes." if other == category else "No."),
        ("fill", _AXIS_GAP, plain),
        choice_question(
            "Which of these is the QRS axis?", [AXES[i] for i in order], order.tolist().index(AXES.index(category))
        ),
    ]
    return questions[int(rng.integers(len(questions)))]


def _with_article(axis: str) -> str:
    return f"a {axis.lower()}" if axis == AXES[0] else axis.lower()


def choice_question(question: str, options: list[str], right: int) -> FeatureQuestion:
    """A multiple-choice question with its options A to D, and the answer "B. ..."."""
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True)]
    return "choice", "\n".join([question, *lines]), f"{lines[right]}."
