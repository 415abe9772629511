"""Questions and answers: every kind is correct, none is a guess, and yes and no are balanced."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.parser.parse import parse
from render.dialogues.compose import (
    DIALOGUE_TASKS,
    FEATURES_A_PAGE,
    FORMS,
    Dialogue,
    compose_dialogues,
    related_statements,
)
from render.dialogues.language import _WORDS, language_of
from render.dialogues.quantities import AXES, QUANTITIES, axis_category, consistent_quantities, feature_questions
from render.dialogues.wording import (
    CLOSED_FORMS,
    FINDING_ANSWERS,
    OTHER_NAMES,
    REPORT_ANSWERS,
    RHYTHM_ANSWERS,
    answer,
    closed_question,
    label_of,
    names_of,
    pick_closed,
    report_of,
)
from render.measurements import AMPLITUDES
from render.record import EcgRecord, sorted_statements
from render.simulator.simulate import SimulatedSource
from render.statements import PREVALENCE, STATEMENTS

MEASUREMENTS = {"rate_bpm": 72.0, "pr_ms": 160.0, "qrs_ms": 92.0, "qt_ms": 390.0, "qrs_axis_deg": 35.0}
GERMAN = "sinusrhythmus lagetyp normal normales ekg"


def record(*codes: str, **more: object) -> EcgRecord:
    """A record with measurements, so that its waveform is not used."""
    settings: dict[str, object] = {"measurements": MEASUREMENTS, "measured_by": "machine", "provenance": "human"} | more
    signal = np.ones((12, 500), np.float32)
    return EcgRecord("r", signal, 500.0, "ptbxl", sorted_statements(codes), **settings)


def dialogues_of(ecg: EcgRecord, seeds: int = 40, **options: object) -> list[Dialogue]:
    dialogues = [d for seed in range(seeds) for d in compose_dialogues(ecg, np.random.default_rng(seed), **options)]
    assert len(dialogues) >= seeds
    return dialogues


@cache
def label_sets() -> list[EcgRecord]:
    """Statements sampled by PTB-XL's prevalences, with one rhythm each."""
    rng = np.random.default_rng(1)
    share = PREVALENCE["ptbxl"]
    rhythms = [c for c in STATEMENTS if STATEMENTS[c].rhythm]
    others = [c for c in STATEMENTS if not STATEMENTS[c].rhythm]
    weights = np.array([share[c] for c in rhythms])
    records = []
    for _ in range(3000):
        rhythm = str(rng.choice(rhythms, p=weights / weights.sum()))
        records.append(record(rhythm, *(c for c in others if rng.random() < share[c])))
    return records


# What is asked


def test_every_kind_is_there_with_the_right_answer():
    ecg = record("AFIB", "IMI", "LAFB", report=GERMAN)
    every = dialogues_of(ecg)
    kinds = {(d.task, d.form) for d in every}
    assert kinds == {
        *(("features", form) for form in FORMS),
        *(("rhythm", form) for form in FORMS),
        *(("morphology", form) for form in FORMS),
        ("report", "open"),
    }
    for d in every:
        assert d.task in DIALOGUE_TASKS and d.form in FORMS and d.question and d.answer
        if d.task in ("rhythm", "morphology") and d.form == "closed":
            assert (d.answer == "Yes.") == (d.statements[0] in ecg.statements)
            assert d.task == ("rhythm" if STATEMENTS[d.statements[0]].rhythm else "morphology")
        if d.task == "rhythm" and d.form in ("fill", "open"):
            assert parse(d.answer).present == ("AFIB",)
        if d.task == "report" and d.language == "en":
            assert parse(d.answer).present == ecg.statements
    assert every[0].messages() == [
        {"role": "user", "content": every[0].question},
        {"role": "assistant", "content": every[0].answer},
    ]


def test_a_page_holds_a_few_of_each():
    for seed in range(30):
        page = compose_dialogues(record("SR", "LVH", report=GERMAN), np.random.default_rng(seed))
        count = Counter((d.task == "features", d.form, d.language) for d in page)
        assert count[False, "choice", "en"] == 1 and count[False, "fill", "en"] == 1
        assert count[False, "open", "en"] == 2 and count[False, "open", "de"] == 1
        assert sum(n for (feature, _, _), n in count.items() if feature) == FEATURES_A_PAGE


def test_a_choice_has_one_right_option_and_it_is_the_answer():
    places, hard = Counter(), Counter()
    ecg = record("SR", "IMI", "ABQRS", "LVH")
    near = {other for code in ecg.statements for other in related_statements("near")[code]}
    names = {label_of(code): code for code in STATEMENTS}
    for d in dialogues_of(ecg, 300, tasks=("rhythm", "morphology")):
        if d.form != "choice":
            continue
        options = dict(re.findall(r"^([A-D])\. (.+)$", d.question, re.MULTILINE))
        codes = [names[text] for text in options.values()]
        assert len(set(codes)) == 4 and sorted(codes) == sorted(d.statements)
        letter, text = d.answer.removesuffix(".").split(". ")
        assert options[letter] == text and names[text] == d.statements[0]
        assert [code for code in codes if code in ecg.statements] == [d.statements[0]]
        assert parse(d.answer).present == (d.statements[0],)
        places[letter] += 1
        hard[sum(code in near for code in d.statements[1:]) >= 2] += 1
    assert min(places[letter] for letter in "ABCD") > 45  # of 300, so 75 each
    assert 0.4 < hard[True] / 300 < 0.85  # half by design, and some by chance


def test_same_random_state_same_dialogues_and_tasks_only_filter():
    ecg = record("SR", "IMI", report=GERMAN)
    complete = compose_dialogues(ecg, np.random.default_rng(5))
    assert (
        complete == compose_dialogues(ecg, np.random.default_rng(5)) != compose_dialogues(ecg, np.random.default_rng(6))
    )
    for task in DIALOGUE_TASKS:
        only = compose_dialogues(ecg, np.random.default_rng(5), tasks=(task,))
        assert only == [d for d in complete if d.task == task]
    with pytest.raises(ValueError, match="unknown tasks: rhythmus"):
        compose_dialogues(ecg, np.random.default_rng(5), tasks=("rhythmus",))


def test_a_record_without_statements_gets_measurements_only():
    every = dialogues_of(record(report=GERMAN))
    assert every and {d.task for d in every} == {"features"}


def test_provenance():
    by_task = {(d.task == "features", d.provenance) for d in dialogues_of(record("SR", provenance="machine"))}
    assert by_task == {(False, "machine"), (True, "machine")}
    simulation = SimulatedSource(1, 3).read(0)
    assert {d.provenance for d in dialogues_of(simulation, 3)} == {"simulated"}
    no_numbers = dataclasses.replace(simulation, measurements={}, measured_by="", provenance="human")
    assert {(d.task == "features", d.provenance) for d in dialogues_of(no_numbers, 2)} == {
        (False, "human"),
        (True, "measured"),
    }


def test_nothing_beyond_what_the_source_can_carry():
    vocabulary = ("SR", "AFIB", "AFLT", "STACH", "SBRAD", "LVH", "IMI")
    for d in dialogues_of(
        record("SR", "IMI"), closed=30, vocabulary=vocabulary, tasks=("rhythm", "morphology", "report")
    ):
        assert set(d.statements) <= set(vocabulary)


# Yes and no


def test_closed_n_asks_those_present_first_then_the_rest():
    ecg = record("SR", "IMI", "ABQRS")
    for n in (0, 2, 3, 8, 30, 200):
        codes = [
            d.statements[0]
            for d in compose_dialogues(ecg, np.random.default_rng(n), closed=n)
            if d.form == "closed" and d.statements
        ]
        implications = {other for code in ecg.statements for other in related_statements("holds")[code]} - set(
            ecg.statements
        )
        assert len(codes) == len(set(codes)) == min(n, 71 - len(implications))
        assert set(codes) <= set(ecg.statements) if n <= 3 else set(ecg.statements) < set(codes)
        assert not implications & set(codes)


def test_yes_and_no_are_in_balance_for_each_statement():
    yes, no = Counter(), Counter()
    for k, ecg in enumerate(label_sets()):
        page = compose_dialogues(ecg, np.random.default_rng(k), tasks=("rhythm", "morphology"))
        for d in page:
            if d.form == "closed":
                (yes if d.answer == "Yes." else no)[d.statements[0]] += 1
    assert set(yes) <= set(STATEMENTS) and len(set(no)) > 60
    for code in STATEMENTS:
        if code == "SR":  # more than half the records carry it
            continue
        low, high = 0.72 * yes[code], 1.3 * yes[code]
        room = 4 * np.sqrt(yes[code] + 1)
        assert low - room <= no[code] <= high + room, (code, yes[code], no[code])
    common = [code for code in STATEMENTS if yes[code] > 60 and code != "SR"]
    assert len(common) >= 15
    assert abs(sum(no[c] for c in common) / sum(yes[c] for c in common) - 1) < 0.1


def test_a_documented_share_of_the_absent_is_hard():
    hard = every = 0
    for k, ecg in enumerate(label_sets()[:800]):
        near = {other for code in ecg.statements for other in related_statements("near")[code]}
        for d in compose_dialogues(ecg, np.random.default_rng(k), tasks=("rhythm", "morphology")):
            if d.form == "closed" and d.answer == "No.":
                every, hard = every + 1, hard + (d.statements[0] in near)
    assert 0.3 < hard / every < 0.55


def test_prevalence_decides_how_often_a_statement_is_absent():
    never = dict.fromkeys(STATEMENTS, 0.0)
    closed = [
        d for d in dialogues_of(record("SR"), prevalence=never, tasks=("rhythm", "morphology")) if d.form == "closed"
    ]
    assert {d.answer for d in closed} == {"Yes."}
    often = never | {"LVH": 0.5}
    closed = [d for d in dialogues_of(record("SR"), prevalence=often, tasks=("morphology",)) if d.form == "closed"]
    assert {d.statements for d in closed} == {("LVH",)}


def test_the_table_of_confusable_statements():
    near, holds = related_statements("near"), related_statements("holds")
    assert set(near) == set(holds) == set(STATEMENTS)
    lonely = {code for code in STATEMENTS if not near[code]}
    assert lonely == set(), "each statement has something that it can be taken for"
    for code in STATEMENTS:
        assert near[code] | holds[code] <= set(STATEMENTS) - {code}
        assert all(code in near[other] for other in near[code])
    assert "CRBBB" in near["CLBBB"] and "AFLT" in near["AFIB"] and "ILMI" in near["IMI"] and "2AVB" in near["1AVB"]
    assert "LPR" in holds["1AVB"] and "VCLVH" in holds["LVH"] and "LVH" not in holds["VCLVH"]


def test_what_holds_along_with_a_finding_is_never_denied():
    for d in dialogues_of(record("SR", "1AVB", "PVC"), closed=71, tasks=("rhythm", "morphology")):
        assert not {"LPR", "PRC(S)"} & set(d.statements)


# Wording


@pytest.mark.parametrize("form", sorted({*RHYTHM_ANSWERS, *FINDING_ANSWERS, *REPORT_ANSWERS}))
def test_composed_answers_say_exactly_the_statements(form):
    for code in STATEMENTS:
        reading = parse(answer(form, (code,)))
        assert (reading.present, reading.absent, reading.uncertain) == ((code,), (), ()), answer(form, (code,))
    for ecg in label_sets()[:120]:
        reading = parse(answer(form, ecg.statements))
        assert (reading.present, reading.absent, reading.uncertain) == (ecg.statements, (), ()), answer(
            form, ecg.statements
        )


def test_questions_read_well():
    rng = np.random.default_rng(0)
    for code in STATEMENTS:
        for question in {closed_question(code), *(pick_closed(code, rng) for _ in range(60))}:
            assert question.endswith("?") and "  " not in question
            assert not re.search(r"Is there (an? )?\S*.*(waves|complexes|changes)\b", question), question
    assert len({closed_question(code, 0) for code in STATEMENTS}) == 71
    assert names_of(["SR", "IMI"]) == "sinus rhythm and an inferior myocardial infarction"
    assert report_of(["LVH", "SR"]) == "Sinus rhythm. Left ventricular hypertrophy."
    assert answer("This ECG shows {names}.", ["NORM", "SR"]) == "This ECG shows sinus rhythm. This is a normal ECG."
    assert label_of("NORM") == "Normal ECG"


def test_the_scoring_form_is_the_most_trained():
    closed = [d for d in dialogues_of(record("AFIB", "LVH"), 150, tasks=("rhythm", "morphology")) if d.form == "closed"]
    canonical = sum(d.question == closed_question(d.statements[0]) for d in closed)
    assert 0.42 < canonical / len(closed) < 0.58
    questions = {d.question for d in closed if d.statements == ("LVH",)}
    assert questions >= {closed_question("LVH", form) for form in range(len(CLOSED_FORMS))}
    assert "Any LVH?" in questions and "Is there LVH?" not in questions
    rhythm_questions = [d for d in dialogues_of(record("AFIB", "LVH"), 300) if d.form == "open" and d.task == "rhythm"]
    assert 0.4 < sum(d.question == "What is the rhythm?" for d in rhythm_questions) / len(rhythm_questions) < 0.6
    assert len({d.question for d in rhythm_questions}) > 20


def test_another_name_of_a_statement_means_that_statement():
    for code, names in OTHER_NAMES.items():
        for name in names:
            assert parse(f"This ECG shows {name}.").present == (code,), name


# Measurements


def test_feature_answers_agree_with_the_numbers():
    rng = np.random.default_rng(0)
    numbers = consistent_quantities(MEASUREMENTS | {"r_V5_mv": 1.24}, ("SR",))
    names = {quantity.name: key for key, quantity in QUANTITIES.items()}
    counts = Counter()
    for _ in range(800):
        for form, question, text in feature_questions(MEASUREMENTS | {"r_V5_mv": 1.24}, ("SR",), 9, rng):
            key = next((k for name, k in names.items() if name.lower() in question.lower()), "qrs_axis_deg")
            counts[key, form] += 1
            if text in ("Yes.", "No."):
                continue
            if form == "choice":
                options = dict(re.findall(r"^([A-D])\. (.+)$", question, re.MULTILINE))
                assert len(set(options.values())) == 4 and text == f"{text[0]}. {options[text[0]]}."
                values = {k: float(v.split()[0]) for k, v in options.items() if v not in AXES}
                if values:
                    assert min(values, key=lambda k: abs(values[k] - numbers[key])) == text[0]
                    continue
            figures = re.findall(r"-?\d+\.\d+|-?\d+", text.removeprefix(f"{text[0]}. "))
            if figures:
                assert abs(float(figures[-1]) - numbers[key]) <= QUANTITIES[key].step / 2 + 1e-6, (question, text)
            else:
                assert text.lower().removesuffix(".").split(". ")[-1] == "normal axis"
    assert {key for key, _ in counts} == set(numbers) and len({form for _, form in counts}) == 4
    assert numbers["qtc_bazett_ms"] == pytest.approx(390 * np.sqrt(72 / 60))
    assert numbers["qtc_fridericia_ms"] == pytest.approx(390 * np.cbrt(72 / 60))


@pytest.mark.parametrize(
    ("key", "words", "limit"),
    [
        ("rate_bpm", "above 100", 100),
        ("rate_bpm", "below 60", 60),
        ("pr_ms", "than 200", 200),
        ("qrs_ms", "120 ms", 120),
    ],
)
def test_questions_at_a_bound_are_left_out(key, words, limit):
    for value in np.arange(limit - 40, limit + 41, 2.0):
        answers = {
            answer
            for seed in range(40)
            for form, question, answer in feature_questions({key: value}, (), 1, np.random.default_rng(seed))
            if form == "closed" and words in question
        }
        if abs(value - limit) <= QUANTITIES[key].margin:
            assert not answers
        else:
            assert answers == {"Yes." if (value < limit) == (words == "below 60") else "No."}


def test_axis_categories():
    assert [axis_category(a) for a in (-30, 0, 90)] == ["Normal axis"] * 3
    assert axis_category(-31) == axis_category(-90) == "Left axis deviation"
    assert axis_category(91) == axis_category(180) == "Right axis deviation"
    assert axis_category(-91) == axis_category(-179) == "Extreme axis deviation"
    for seed in range(60):  # near a limit the degrees are given, the category is not
        ((_, question, text),) = feature_questions({"qrs_axis_deg": -27.0}, (), 1, np.random.default_rng(seed))
        assert "axis deviation" not in question + text and "normal axis" not in text
    assert consistent_quantities({"qrs_axis_deg": 215.0}, ()) == {"qrs_axis_deg": -145.0}


def test_without_a_pr_interval_the_answer_gives_the_reason():
    for code, why in (("AFIB", "fibrillate"), ("AFLT", "flutter"), ("3AVB", "independently")):
        every = [d for d in dialogues_of(record(code, "LVH"), 20) if d.task == "features"]
        pr = [d for d in every if "pr interval" in d.question.lower()]
        assert len(pr) == 20 and all(why in d.answer and "no PR interval" in d.answer for d in pr)
        assert len(every) == 20 * FEATURES_A_PAGE
        assert {d.provenance for d in pr} == {"human"} and {d.provenance for d in every} == {"human", "machine"}
        assert not any(parse(d.answer).absent for d in pr)
    assert not any("no PR interval" in d.answer for d in dialogues_of(record("SR", "2AVB"), 20))


def test_numbers_that_the_statements_contradict_are_not_asked():
    assert "pr_ms" not in consistent_quantities(MEASUREMENTS, ("AFIB",)) and "qt_ms" not in consistent_quantities(
        MEASUREMENTS, ("AFIB",)
    )
    assert "pr_ms" not in consistent_quantities(MEASUREMENTS, ("1AVB",)) and "pr_ms" in consistent_quantities(
        MEASUREMENTS, ("LAFB",)
    )
    assert "qrs_ms" not in consistent_quantities(MEASUREMENTS, ("CLBBB",)) and "rate_bpm" not in consistent_quantities(
        MEASUREMENTS, ("STACH",)
    )
    assert not {"qt_ms", "qtc_bazett_ms"} & set(consistent_quantities(MEASUREMENTS | {"qt_ms": 500.0}, ("NORM",)))
    assert (
        consistent_quantities({"rate_bpm": float("nan"), "pr_ms": -4.0, "qt_ms": 9000.0, "unheard_of": 1.0}, ()) == {}
    )


@given(
    st.dictionaries(st.sampled_from([*MEASUREMENTS, *AMPLITUDES]), st.floats(-1e4, 1e4)),
    st.lists(st.sampled_from(sorted(STATEMENTS)), max_size=4),
    st.integers(0, 99),
)
def test_any_numbers_give_complete_questions(measurements, codes, seed):
    for form, question, text in feature_questions(measurements, codes, 9, np.random.default_rng(seed)):
        assert form in FORMS and "{" not in question + text and text


# German


def test_a_german_report_is_used_unchanged():
    text = "  sinusrhythmus. linkstyp, sonst normales ekg 4.46   unbestÄtigter bericht"
    german = [d for d in dialogues_of(record("SR", report=text)) if d.language == "de"]
    assert len(german) == 40 and {(d.task, d.form, d.answer, d.provenance) for d in german} == {
        ("report", "open", text, "human")
    }
    for other in ("", "sinus rhythm. normal ecg.", "sinusrytm normalt ekg vänster el-axel"):
        assert {d.language for d in dialogues_of(record("SR", report=other), 5)} == {"en"}
    assert {d.language for d in dialogues_of(dataclasses.replace(record("SR", report=GERMAN), source="mimic"), 5)} == {
        "en"
    }


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("sinusrhythmus lagetyp normal normales ekg", "de"),
        ("VENTRIKULÄRE EXTRASYSTOLE(N) SINUSRHYTHMUS", "de"),
        ("vorhofflimmern qrs(t) abnorm  inferiorer infarkt  alter unbest.", "de"),
        ("sinus rhythm. left axis deviation. otherwise normal ecg.", "en"),
        ("trace only requested.", "en"),
        ("sinusrytm avvikande qrs(t) förlopp inferior infarkt ålder ej bestämmbar", ""),
        ("förmaksflimmer med hög kammarfrekvens", ""),
        ("", ""),
        ("4.46 123", ""),
    ],
)
def test_language(text, language):
    assert language_of(text) == language


def test_no_word_is_typical_of_two_languages():
    words = [word for typical in _WORDS.values() for word in typical]
    assert len(words) == len(set(words))


@given(st.text())
def test_any_text_has_a_language_or_none(text):
    assert language_of(text) in ("de", "en", "")


def test_the_right_value_stands_at_any_place_among_the_options():
    for key, value in MEASUREMENTS.items():
        if QUANTITIES[key].usual is None:
            continue
        questions = [feature_questions({key: value}, (), 1, np.random.default_rng(seed))[0] for seed in range(400)]
        places = Counter(text[0] for form, _, text in questions if form == "choice")
        assert len(places) == 4 and max(places.values()) < 0.4 * sum(places.values()), (key, places)
