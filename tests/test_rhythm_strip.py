"""One lead alone: rhythm and rate by rules, and what is not said of it."""

from __future__ import annotations

import numpy as np
import pytest

from ecg_vlm.images import InputPage
from ecg_vlm.page_answers import answer_page
from ecg_vlm.page_reading import read_page
from ecg_vlm.rhythm_strip import StripModel, measure_strip
from render.pages.page import draw
from render.record import HIGH_RATE_HZ, LEADS, resample
from render.simulator.simulate import simulate


def lead_ii(seed: int, code: str) -> np.ndarray:
    record = simulate(seed, [code])
    return resample(record.signal, record.sampling_rate, HIGH_RATE_HZ)[LEADS.index("II")]


@pytest.mark.parametrize(("code", "words"), [("AFIB", "without clear P waves"), ("SR", "Regular rhythm")])
def test_fibrillation_is_irregular_without_p_waves(code: str, words: str) -> None:
    strips = [measure_strip("II", lead_ii(seed, code)) for seed in range(8)]
    sentences = [strip.in_words() for strip in strips if strip]
    assert len(sentences) >= 6 and sum(words in text for text in sentences) >= 0.75 * len(sentences)


def test_noise_and_a_flat_line_have_no_rhythm() -> None:
    rng = np.random.default_rng(0)
    assert measure_strip("II", np.zeros(5000)) is None
    assert measure_strip("II", rng.normal(0, 0.05, 5000)) is None


def test_a_strip_is_answered_by_rules_and_says_what_one_lead_cannot_show() -> None:
    page = draw(simulate(3), layout="3x4+1R", width=1600)
    strip = max(page.geometry.leads, key=lambda trace: trace.end_sample - trace.start_sample)
    picture = page.to_pil().crop((0, round(strip.box[1]), 1600, round(strip.box[3])))
    reading = read_page(InputPage(picture))
    assert reading.strip is not None and not reading.reason

    class NoModel:
        name = "none"

    answers = answer_page(
        NoModel(), InputPage(picture), ["What is the rhythm?", "Is there an infarction?"], scores=True
    )
    rhythm, infarction = answers.answers
    assert "beats per minute" in rhythm.text and "need all 12" not in rhythm.text
    assert "need all 12" in infarction.text
    assert not answers.scores and not answers.refusal_reason
    assert answers.reading.measurements["rate_bpm"] == pytest.approx(reading.strip.rate_bpm)


def test_the_rate_question_is_answered_without_a_lecture() -> None:
    strip = measure_strip("V1", lead_ii(3, "SR"))
    assert strip is not None
    assert "need all" not in StripModel(strip, "none").answer(None, "Is it atrial fibrillation?").text
    text = StripModel(strip, "none").answer(None, "What is the heart rate?").text
    assert f"{strip.rate_bpm:.0f} beats per minute in lead V1" in text and "need all" not in text
