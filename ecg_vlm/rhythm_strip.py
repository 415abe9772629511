"""One lead alone: its rhythm and rate by rules, and what one lead cannot show.

No model of this project was trained on single leads, and most of what a 12-lead ECG tells is not in one of them. So
their answers are measured, not generated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.answers import QuestionAnswer
from ecg_vlm.questions import read_question
from ecg_vlm.statement_scores import group_of
from ecg_vlm.translation import translate
from render.delineation import complexes_of_lead
from render.measurements import steady_rate
from render.record import HIGH_RATE_HZ

_IRREGULAR = 0.08
"""Median difference of two successive RR intervals, of the median RR, from which they are called irregular. On lead II
of 700 records of PTB-XL (folds 7 and 8) 37 of 42 with atrial fibrillation are above it and show no P, 33 of 658 others.
"""
_SLOW, _FAST = 60.0, 100.0  # beats per minute: sinus rhythm lies between (AHA/ACCF/HRS 2009 part II)


@dataclass(frozen=True)
class RhythmStrip:
    """What one lead shows.

    Attributes:
        lead: its name.
        rate_bpm: mean rate over the strip.
        irregular: whether successive RR intervals differ much.
        p_waves: whether a P wave comes back with every beat. Where it is small, one lead often does not show it.
    """

    lead: str
    rate_bpm: float
    irregular: bool
    p_waves: bool

    def in_words(self) -> str:
        """The rhythm as a sentence."""
        rate = f"{self.rate_bpm:.0f} beats per minute in lead {self.lead}"
        if self.p_waves and not self.irregular:
            name = "sinus rhythm"
            if not _SLOW <= self.rate_bpm <= _FAST:
                name = "sinus bradycardia" if self.rate_bpm < _SLOW else "sinus tachycardia"
            return f"Regular rhythm with a P wave before every beat, as in {name}; {rate}."
        if self.p_waves:
            return f"Irregular rhythm with a P wave before the beats, as in sinus arrhythmia or early beats; {rate}."
        if self.irregular:
            return f"Irregular rhythm without clear P waves, as in atrial fibrillation; {rate}."
        return f"Regular rhythm, but no P wave can be measured in this lead; {rate}."


def measure_strip(lead: str, millivolts: NDArray[np.floating]) -> RhythmStrip | None:
    """The rhythm of one lead, None where fewer than four beats are alike.

    Args:
        millivolts: (n,) at `HIGH_RATE_HZ`, without gaps.
    """
    complexes = complexes_of_lead(millivolts)
    if complexes.beat is None:
        return None
    rr = np.diff(complexes.middles) / HIGH_RATE_HZ
    rate = steady_rate((complexes.middles / HIGH_RATE_HZ).tolist()) or 60.0 / float(np.mean(rr))
    irregular = bool(np.median(np.abs(np.diff(rr))) > _IRREGULAR * np.median(rr))
    return RhythmStrip(lead, rate, irregular, bool(np.isfinite(complexes.beat.p_onset)))


class StripModel:
    """Answers about one lead, with the methods of a `Reader` that `ecg_vlm.page_answers` calls.

    Args:
        strip: what the lead shows.
        name: of the model that would answer about a whole page.
    """

    def __init__(self, strip: RhythmStrip, name: str) -> None:
        self.name = name
        self.strip = strip

    def prefill(self, images: Sequence[Image.Image]) -> Any:
        """Nothing: no picture is looked at."""
        return None

    def ask(self, image: Any, questions: Sequence[str], *, max_new_tokens: int = 128) -> list[str]:
        """The answer to each question."""
        return [self.answer(image, question).text for question in questions]

    def answer(
        self,
        prefill: Any,
        question: str,
        *,
        max_new_tokens: int = 128,
        history: Sequence[tuple[str, str]] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> QuestionAnswer:
        """Rhythm and rate; to every question but those about them, that one lead cannot show more."""
        content = read_question(question)
        text = self.strip.in_words()
        asks_rhythm = bool(content.codes) and all(group_of(code) == "rhythm" for code in content.codes)
        if not asks_rhythm and content.kind != "rhythm" and content.quantity != "rate_bpm":
            text = (
                f"One lead shows rhythm and rate only; infarction, hypertrophy, axis and conduction need all 12. {text}"
            )
        text = translate(text, content.language)
        if on_text:
            on_text(text)
        return QuestionAnswer(question, text)

    def score(self, image: Any) -> dict[str, float]:
        """Nothing: no statement is scored from one lead."""
        return {}
