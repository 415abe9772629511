"""Evolving infarcts: elevation over the wall, depression opposite it, then Q and an inverted T; and ST as measured.

The measurements use the noisy record alone (`render.measurements.st_levels`), not what the simulator knows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from eval.parser.parse import parse
from render.dialogues.compose import compose_dialogues
from render.errors import InputError
from render.measurements import CONTIGUOUS_LEADS, st_elevation, st_levels
from render.record import LEADS, EcgRecord
from render.simulator.acute_infarct import INFARCT_TERRITORIES, STAGES, AcuteInfarct
from render.simulator.simulate import SimulatedSource, simulate, simulate_infarct
from render.statements import STATEMENTS

SEEDS = range(10)
ELEVATION_CODES = tuple(code for code in INFARCT_TERRITORIES if code != "PMI")


@cache
def infarct(code: str | None, stage: str | None, seed: int) -> EcgRecord:
    return simulate_infarct(seed, code, stage)


@cache
def levels(code: str, stage: str, seed: int) -> dict[str, float]:
    """ST at J + 60 ms."""
    return st_levels(infarct(code, stage, seed), delay_ms=60)


def median_level(code: str, stage: str, name: str) -> float:
    return float(np.median([levels(code, stage, seed)[name] for seed in SEEDS if name in levels(code, stage, seed)]))


@pytest.mark.parametrize("code", ELEVATION_CODES)
def test_acute_st_is_up_over_the_wall_and_down_opposite(code: str) -> None:
    territory = INFARCT_TERRITORIES[code]
    up = [sum(levels(code, "acute", seed).get(name, 0.0) >= 0.1 for name in territory.leads) >= 2 for seed in SEEDS]
    assert sum(up) >= 9
    assert all(median_level(code, "acute", name) > 0.05 for name in territory.leads)
    assert all(median_level(code, "acute", name) < 0.0 for name in territory.opposite)


def test_a_posterior_infarct_shows_a_depression_in_v1_to_v3() -> None:
    assert all(median_level("PMI", "acute", name) < -0.08 for name in ("V1", "V2", "V3"))


def test_the_leads_obey_einthoven_and_goldberger() -> None:
    for seed in SEEDS:
        lead = infarct(None, "acute", seed).lead
        one, two = lead("I").astype(float), lead("II").astype(float)
        assert np.abs(lead("III") - (two - one)).max() < 2e-6
        assert np.abs(lead("aVR") + (one + two) / 2).max() < 2e-6
        assert np.abs(lead("aVL") - (one - two / 2)).max() < 2e-6
        assert np.abs(lead("aVF") - (two - one / 2)).max() < 2e-6


def test_st_comes_down_from_stage_to_stage_while_q_and_inversion_come() -> None:
    heights = [np.median([max(levels("AMI", stage, seed).values()) for seed in SEEDS]) for stage in STAGES[1:]]
    assert heights[0] > 0.25 > heights[1] > heights[2]
    codes = {stage: [set(infarct("AMI", stage, seed).statements) for seed in SEEDS] for stage in STAGES}
    assert all("QWAVE" not in each and "TAB_" in each for each in codes["hyperacute"])
    assert all("STE_" in each for each in codes["acute"])
    assert all({"INVT", "TAB_"} <= each for stage in ("evolving", "subacute") for each in codes[stage])
    assert sum("QWAVE" in each for each in codes["evolving"]) >= 6


def test_statements_agree_with_each_other() -> None:
    for seed in range(80):
        record = simulate_infarct(seed)
        codes = set(record.statements)
        assert codes <= set(STATEMENTS) and len(codes & set(INFARCT_TERRITORIES)) == 1 and "NORM" not in codes
        assert ("QWAVE" in codes) <= ("ABQRS" in codes) and ("INVT" in codes) <= ("TAB_" in codes)
        (code,) = codes & set(INFARCT_TERRITORIES)
        assert code in parse(record.report).present and "NORM" not in parse(record.report).present
        assert record.infarct_stage in ("Stadium I", "Stadium II", "Stadium II-III")


def test_a_page_of_it_is_asked_about() -> None:
    record = infarct("IMI", "acute", 1)
    answers = {
        d.statements[0]: d.answer for d in compose_dialogues(record, np.random.default_rng(0)) if d.form == "closed"
    }
    assert answers["IMI"] == answers["STE_"] == "Yes." and answers.get("NORM", "No.") == "No."


def test_questions_about_st_are_answered_with_no_as_often_as_with_yes() -> None:
    source = SimulatedSource(5, 240, ("any", "acute"))
    prevalence = source.prevalence()
    assert prevalence is not None and SimulatedSource(5, 9, ("LVH",)).prevalence() is None
    records = [source.read(i) for i in range(240)]
    share = sum("STE_" in record.statements for record in records) / 240
    assert prevalence["STE_"] == pytest.approx(share, abs=0.08)
    answers = [
        d.answer
        for i, record in enumerate(records)
        for d in compose_dialogues(record, np.random.default_rng(i), prevalence=prevalence)
        if d.form == "closed" and d.statements == ("STE_",)
    ]
    assert 0.35 < answers.count("Yes.") / len(answers) < 0.65


def test_a_source_takes_the_words_and_leaves_other_records_alone() -> None:
    words, plain = SimulatedSource(3, 40, ("any", "acute", "acute-IMI", "LVH")), SimulatedSource(3, 40)
    for i in (0, 4):
        assert words.read(i).signal.tobytes() == plain.read(i).signal.tobytes()
    assert words.read(3).signal.tobytes() == SimulatedSource(3, 9, ("LVH",)).read(3).signal.tobytes()
    assert all("IMI" in words.read(i).statements for i in range(2, 40, 4))
    assert len({tuple(set(words.read(i).statements) & set(INFARCT_TERRITORIES)) for i in range(1, 40, 4)}) > 2
    assert words.read(1).signal.tobytes() == SimulatedSource(3, 2, ("acute",)).read(1).signal.tobytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [(("acute-IMMI",), "did you mean IMI?"), (("acute-LVH",), "valid are ASMI"), (("acut",), "not among")],
)
def test_unknown_words_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as error:
        SimulatedSource(0, 3, words)
    assert message in str(error.value)


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(InputError, match="valid are hyperacute"):
        AcuteInfarct("IMI", "old")


# ---------------------------------------------------------------- ST as measured


def test_elevation_is_found_in_infarcts_and_hardly_elsewhere() -> None:
    assert sum(bool(st_elevation(infarct(None, "acute", seed))) for seed in range(40)) >= 26
    assert not any(st_elevation(simulate(seed, ["NORM"])) for seed in range(12))
    early = [st_elevation(simulate(seed, ["STE_"])) for seed in range(12)]  # early repolarisation
    assert sum(map(bool, early)) <= 4


def test_elevation_names_contiguous_leads_with_their_millivolts() -> None:
    record = infarct("ALMI", "acute", 3)
    elevations, level = st_elevation(record), st_levels(record)
    assert elevations and set(elevations) <= {"-aVR", *LEADS} and min(elevations.values()) >= 0.2
    assert all(elevations[name] == level[name] for name in elevations if name != "-aVR")
    for name in elevations:
        chain = next(chain for chain in CONTIGUOUS_LEADS if name in chain)
        place = chain.index(name)
        assert {*chain[max(place - 1, 0) : place], *chain[place + 1 : place + 2]} & set(elevations)
    assert not st_elevation(record, least_mv=3.0)


def drawn_beats(st_mv: dict[str, float]) -> EcgRecord:
    """Ten seconds at 75/min of a QRS 80 ms wide, a plateau of 120 ms in some leads, and a T."""
    time = np.arange(400) * 2.0  # ms
    qrs = np.interp(time, (200, 220, 240, 260, 280), (0, 0.6, 1.1, -0.3, 0))
    t_wave = 0.25 * np.exp(-(((time - 500) / 40) ** 2))
    plateau = np.interp(time, (272, 280, 400, 430), (0, 1, 1, 0))
    beat = np.stack([qrs + t_wave + st_mv.get(name, 0.0) * plateau for name in LEADS])
    return EcgRecord("drawn", np.tile(beat, (1, 12)).astype(np.float32), 500.0, "")


def test_a_plateau_is_measured_to_the_hundredth() -> None:
    record = drawn_beats({"V2": 0.31, "V3": 0.22, "V5": 0.4, "aVR": -0.25, "I": 0.21, "III": 0.3})
    level = st_levels(record, delay_ms=40)
    assert level["V2"] == pytest.approx(0.31, abs=0.01) and level["II"] == pytest.approx(0.0, abs=0.01)
    assert st_elevation(record, delay_ms=40) == {
        "I": level["I"], "-aVR": -level["aVR"], "V2": level["V2"], "V3": level["V3"],
    }  # fmt: skip


def page_of(record: EcgRecord, columns: int, strip: bool) -> EcgRecord:
    """The record as it is on paper: each lead in its part of the time, II throughout where there is a strip."""
    signal, n, k = np.full_like(record.signal, np.nan), record.signal.shape[1], len(LEADS) // columns
    for c in range(columns):
        part = slice(n * c // columns, n * (c + 1) // columns)
        signal[k * c : k * (c + 1), part] = record.signal[k * c : k * (c + 1), part]
    if strip:
        signal[1] = record.signal[1]
    return replace(record, signal=signal)


@pytest.mark.parametrize(("columns", "strip"), [(4, True), (2, False)])
def test_leads_that_are_there_for_a_while_are_measured(columns: int, strip: bool) -> None:
    differences = []
    for seed in SEEDS:
        record = infarct(None, "acute", seed)
        whole, part = st_levels(record), st_levels(page_of(record, columns, strip))
        differences += [abs(whole[name] - part[name]) if name in part else np.nan for name in whole]
    assert np.isfinite(differences).mean() > 0.9 and np.nanmedian(differences) < 0.02


def test_what_cannot_be_measured_is_left_out() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (12, 5000)).astype(np.float32)
    assert st_elevation(EcgRecord("x", noise, 500.0, "")) == {}
    assert st_levels(EcgRecord("x", np.zeros((12, 500), np.float32), 500.0, "")) == {}
    gaps = np.full((12, 5000), np.nan, np.float32)
    gaps[3, 100:900] = 0.1
    assert st_levels(EcgRecord("x", gaps, 500.0, "")) == {}
