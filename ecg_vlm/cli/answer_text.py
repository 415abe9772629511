"""How `ecg-vlm ask` prints what it says about a page."""

from __future__ import annotations

from ecg_vlm.cli.progress import print_note
from ecg_vlm.page_answers import PageAnswers
from ecg_vlm.reader import QuestionAnswer
from ecg_vlm.statement_scores import StatementScores
from render.statements import STATEMENTS


class AnswerPrinter:
    """Prints one answer: at once, or as it comes. heading: what stands before it."""

    def __init__(self, heading: str = "") -> None:
        self._heading = heading
        self._text = ""

    def stream_text(self, piece: str) -> None:
        """Print a piece of the answer."""
        print(piece if self._text else f"{self._heading}{piece}", end="", flush=True)
        self._text += piece

    def finish(self, answer: QuestionAnswer) -> None:
        """Print what is not on the screen yet: the answer, or where it differs from what was streamed, its correction;
        and what contradicts it."""
        if not self._text:
            print(f"{self._heading}{answer.text}")
        elif answer.text.split() == self._text.split():
            print()
        else:
            label = "corrected, to agree with the scores" if answer.original else "answer"  # or in another language
            print(f"\n  {label}: {answer.text}")
        if answer.contradicted:
            doubts = (f"{STATEMENTS[code].name} {p:.2f}" for code, p in answer.contradicted.items())
            print(f"  (it says otherwise when asked about each alone; P(present): {', '.join(doubts)})")


def print_facts(answers: PageAnswers, *, scores: bool = True) -> None:
    """Print what stands below the answers: warnings, measurements, and the scores where there are any."""
    for remark in answers.reading.page.remarks if answers.reading.page else ():
        print_note(f"{answers.page.source}: {remark}")
    for warning in answers.warnings:
        print(f"Warning: {warning}")
    if answers.reading.measurements:
        print(f"Measured on the {answers.reading.measured_on}: {answers.measurements_in_words()}")
    if scores and answers.scores:
        _print_scores(answers.scores)


def _print_scores(scores: StatementScores) -> None:
    """The scores, largest first; * where a statement is called present."""
    if scores.calibration:
        missing = ", ".join(scores.codes_as_given())
        exceptions = f"; as the model gives it: {missing}" if missing else ""
        print(f"P(present), * from the threshold on; calibrated on {scores.calibration}{exceptions}")
    else:
        print("P(present), * from 0.5 on; not calibrated: as the model gives it")
    verdicts = scores.verdicts()
    for code, p in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{p:.3f}{'*' if verdicts[code] else ' '} {code:<8} {STATEMENTS[code].name}")
