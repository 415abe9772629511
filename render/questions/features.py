"""Questions about what can be measured: rate, axis, intervals, amplitudes; open, closed, multiple choice and fill-in.

A question whose answer would turn on the measuring error is not asked: every quantity has a margin, about the 95th
percentile of the error that `render.measurements` makes against cardiologists on LUDB.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from render.measurements import AMPLITUDES
from render.questions.wording import pick
from render.statements import HIDDEN_T_END, NO_SINGLE_PR

Asked = tuple[str, str, str]
"""form, question, answer."""


@dataclass(frozen=True)
class Quantity:
    """One measured quantity in words.

    name: reads on after "What is ...?". unit: as spoken. step: to which answers are rounded. margin: measuring error.
    credible: lowest and highest value; what lies outside is a fault of the machine and not asked.
    usual: the range that wrong options are drawn from; None where it holds too few values that can be told apart.
    bounds: (words that read on after "Is {name} ...", bound, whether above the bound means yes).
    """

    name: str
    unit: str
    step: float
    margin: float
    credible: tuple[float, float]
    usual: tuple[float, float] | None
    bounds: tuple[tuple[str, float, bool], ...] = ()

    def said(self, value: float) -> str:
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
_CLOSED = ("Is {name} {bound}?", "Would you say that {name} is {bound}?")
_CHOICE = ("Which of these is {name}?", "{Name}: which value fits?")
_FILL = ("{Name} is ____ {unit}.", "Fill in the blank. {Name}: ____ {unit}.")

AXES = ("Normal axis", "Left axis deviation", "Right axis deviation", "Extreme axis deviation")
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


# What a statement says of quantities, with room for error. Where number and statement contradict each other, one of
# them is wrong and the number is not asked. Criteria as in QUANTITIES; QTc > 450 to 460 ms is long (part IV).
_CONSISTENT: dict[str, tuple[tuple[str, float, float], ...]] = {
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
# Of the rhythms without a single PR interval, the ones that have none at all, and why: these are told so.
_WITHOUT_PR = {
    "AFIB": "The atria fibrillate",
    "AFLT": "The atria flutter",
    "3AVB": "The atria and the ventricles beat independently",
}


def askable(measured: Mapping[str, float], statements: Collection[str]) -> dict[str, float]:
    """The quantities of `QUANTITIES` that can be asked about, with QTc added.

    Bazett: QT / sqrt(RR), 60 to 90 per minute only, as it overcorrects beyond; Fridericia: QT / cbrt(RR), 50 to 110;
    RR in seconds. No PR where the rhythm has none or several, no QT where other waves hide its end.
    """
    known = {key: float(value) for key, value in measured.items() if key in QUANTITIES and np.isfinite(value)}
    if "qrs_axis_deg" in known:
        known["qrs_axis_deg"] = (known["qrs_axis_deg"] + 180) % 360 - 180
    known = {k: v for k, v in known.items() if QUANTITIES[k].credible[0] <= v <= QUANTITIES[k].credible[1]}
    if not NO_SINGLE_PR.isdisjoint(statements):
        known.pop("pr_ms", None)
    if not HIDDEN_T_END.isdisjoint(statements):
        known.pop("qt_ms", None)
    rate, qt = known.get("rate_bpm", 0.0), known.get("qt_ms", 0.0)
    if qt and 60 <= rate <= 90:
        known["qtc_bazett_ms"] = qt / (60 / rate) ** (1 / 2)
    if qt and 50 <= rate <= 110:
        known["qtc_fridericia_ms"] = qt / (60 / rate) ** (1 / 3)
    limits = [limit for code in statements for limit in _CONSISTENT.get(code, ())]
    wrong = {key for limit in limits for key in _off(known, *limit)}
    return {key: value for key, value in known.items() if key not in wrong}


def _off(known: Mapping[str, float], key: str, low: float, high: float) -> set[str]:
    """What cannot be believed when `key` lies outside low..high; a QTc stands or falls with its QT."""
    if key not in known or low <= known[key] <= high:
        return set()
    return {key} if not key.startswith("qtc") else {"qt_ms", "qtc_bazett_ms", "qtc_fridericia_ms"}


def feature_questions(
    measured: Mapping[str, float], statements: Collection[str], count: int, rng: np.random.Generator
) -> list[Asked]:
    """Up to `count` questions, each about another quantity and in a form drawn among those that suit it.

    measured: as from `render.measurements` or `EcgRecord.measured`. Of the nine amplitudes at most one is asked,
    of the two QTc as well.
    """
    known = askable(measured, statements)
    keys = [key for key in known if key not in AMPLITUDES and not key.startswith("qtc")]
    for alike in ([k for k in known if k in AMPLITUDES], [k for k in known if k.startswith("qtc")]):
        keys += [pick(alike, rng)] if alike else []
    return [_asked(keys[i], known[keys[i]], rng) for i in rng.permutation(len(keys))[:count]]


def no_pr_question(statements: Collection[str], rng: np.random.Generator) -> Asked | None:
    """The question for a PR interval where the rhythm has none, answered by why; None for any other rhythm."""
    why = next((_WITHOUT_PR[code] for code in statements if code in _WITHOUT_PR), None)
    return ("open", _filled(pick(_OPEN, rng), "pr_ms"), f"{why}, so there is no PR interval.") if why else None


def _asked(key: str, value: float, rng: np.random.Generator) -> Asked:
    if key == "qrs_axis_deg":
        return _axis(value, rng)
    made = [_open(key, value, rng), _fill(key, value, rng), *_closed(key, value, rng)]
    usual = QUANTITIES[key].usual
    if usual is not None:
        made.append(_choice(key, value, usual, rng))
    return made[int(rng.integers(len(made)))]


def _filled(text: str, key: str, **more: str) -> str:
    name = QUANTITIES[key].name
    return text.format(name=name, Name=name[0].upper() + name[1:], unit=QUANTITIES[key].unit, **more)


def _open(key: str, value: float, rng: np.random.Generator) -> Asked:
    said = QUANTITIES[key].said(value)
    return "open", _filled(pick(_OPEN, rng), key), _filled(pick(_OPEN_ANSWERS, rng), key, value=said)


def _fill(key: str, value: float, rng: np.random.Generator) -> Asked:
    return "fill", _filled(pick(_FILL, rng), key), QUANTITIES[key].said(value)


def _closed(key: str, value: float, rng: np.random.Generator) -> list[Asked]:
    """The yes/no questions whose bound the value keeps clear of."""
    quantity = QUANTITIES[key]
    return [
        ("closed", _filled(pick(_CLOSED, rng), key, bound=words), "Yes." if (value > bound) == above else "No.")
        for words, bound, above in quantity.bounds
        if abs(value - bound) > quantity.margin
    ]


def _choice(key: str, value: float, usual: tuple[float, float], rng: np.random.Generator) -> Asked:
    """The value and three others of the usual range in any order, at least a sixth or 1.5 margins apart."""
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
    options = [f"{quantity.said(values[i])} {quantity.unit}" for i in order]
    return lettered(_filled(pick(_CHOICE, rng), key), options, order.index(0))


def _axis(value: float, rng: np.random.Generator) -> Asked:
    """Degrees always, the category only where no bound is near."""
    key = "qrs_axis_deg"
    category = axis_category(value)
    plain = category[0].lower() + category[1:]
    if min(abs(value - bound) for bound in _AXIS_BOUNDS) <= QUANTITIES[key].margin:
        return _fill(key, value, rng) if rng.random() < 0.5 else _open(key, value, rng)
    said = f"About {QUANTITIES[key].said(value)} degrees: {'a ' if category == AXES[0] else ''}{plain}."
    asked = pick(AXES, rng)
    named = f"a {asked.lower()}" if asked == AXES[0] else asked.lower()
    order = rng.permutation(len(AXES))
    made: list[Asked] = [
        ("open", _filled(pick(_OPEN, rng), key), said),
        ("closed", f"Does this ECG show {named}?", "Yes." if asked == category else "No."),
        ("fill", "The QRS axis in the frontal plane: ____.", plain),
        lettered(
            "Which of these is the QRS axis?", [AXES[i] for i in order], order.tolist().index(AXES.index(category))
        ),
    ]
    return made[int(rng.integers(len(made)))]


def lettered(question: str, options: list[str], right: int) -> Asked:
    """A multiple-choice question with its options A to D, and the answer "B. ..."."""
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True)]
    return "choice", "\n".join([question, *lines]), f"{lines[right]}."
