"""How `ecg-vlm ask` prints what it says about a page."""

from __future__ import annotations

from ecg_vlm.cli.progress import print_note
from ecg_vlm.page_answers import PageAnswers
from ecg_vlm.reader import QuestionAnswer
from ecg_vlm.statement_scores import StatementScores
from ecg_vlm.translation import translate
from render.dialogues.wording import names_of


class AnswerPrinter:
    """Prints one answer: at once, or as it comes.

    Args:
        heading: what stands before it.
        language: of a refusal, and of what is said about the answer.
    """

    def __init__(self, heading: str = "", language: str = "en") -> None:
        self._heading = heading
        self._language = language
        self._text = ""

    def stream_text(self, piece: str) -> None:
        """Print a piece of the answer."""
        print(piece if self._text else f"{self._heading}{piece}", end="", flush=True)
        self._text += piece

    def finish(self, answer: QuestionAnswer) -> None:
        """Print what is not on the screen yet: the answer, or where it differs from what was streamed, its correction;
        and what contradicts it."""
        text = translate(answer.text, self._language)
        if not self._text:
            print(f"{self._heading}{text}")
        elif text.split() == self._text.split():
            print()
        else:
            label = "corrected, to agree with the scores" if answer.original else "answer"  # or in another language
            print(f"\n  {translate(label, self._language)}: {text}")
        if answer.contradicted:
            doubts = (f"{names_of([code], self._language)} {p:.2f}" for code, p in answer.contradicted.items())
            note = f"It says otherwise when asked about each alone; P(present): {', '.join(doubts)}"
            print(f"  ({translate(note, self._language)})")


def print_facts(answers: PageAnswers, language: str, *, scores: bool = True) -> None:
    """Print what stands below the answers: warnings, measurements, and the scores where there are any."""
    for remark in answers.reading.page.remarks if answers.reading.page else ():
        print_note(f"{answers.page.source}: {translate(remark, language)}")
    for warning in answers.warnings:
        print_warning(warning, language)
    if measurements := answers.measurements_in_words(language):
        print(measurements)
    if scores and answers.scores:
        _print_scores(answers.scores, language)


def print_warning(warning: str, language: str) -> None:
    """Print what a reader of the answers must know."""
    print(f"{translate('Warning', language)}: {translate(warning, language)}")


def _print_scores(scores: StatementScores, language: str) -> None:
    """The scores, largest first; * where a statement is called present."""
    if scores.calibration:
        missing = ", ".join(scores.codes_as_given())
        heading = f"P(present), * from the threshold on; calibrated on {scores.calibration}"
        heading += f"; as the model gives it: {missing}" if missing else ""
    else:
        heading = "P(present), * from 0.5 on; not calibrated: as the model gives it"
    print(translate(heading, language))
    verdicts = scores.verdicts()
    for code, p in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{p:.3f}{'*' if verdicts[code] else ' '} {code:<8} {names_of([code], language)}")
