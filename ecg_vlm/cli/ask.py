"""`ecg-vlm ask`: questions about ECG images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_vlm.cli.arguments import Parser, add_sampling_rate, positive
from ecg_vlm.cli.progress import print_note, waiting
from render.errors import InputError

if TYPE_CHECKING:
    from ecg_vlm.images import InputPage
    from ecg_vlm.page_answers import PageAnswers
    from ecg_vlm.reader import Reader

HELP = "image + question -> answer"
DESCRIPTION = (
    "Ask about ECG images. The page is straightened and its leads are digitized first: the model is shown the page "
    "drawn anew from them, and rate, intervals and axis are measured on them. Not a medical device: nothing it prints "
    "is a diagnosis."
)
EXAMPLES = """\
  ecg-vlm ask photo.jpg "What is the rhythm?" --show as-read.png
  ecg-vlm ask scans/ report.pdf -q "Is this a normal ECG?" --statements --json > answers.jsonl"""


def add_arguments(parser: Parser) -> None:
    """Images, questions, model."""
    parser.add_argument(
        "images", nargs="+", metavar="image",
        help="picture, PDF or waveform file of an ECG, or a folder of them; - for standard input. "
        "What stands behind one image and is no file is a question",
    )  # fmt: skip
    parser.add_argument("-q", "--question", action="append", default=[], dest="questions", metavar="QUESTION",
                        help="may be given several times (default: What does this ECG show?)")  # fmt: skip
    parser.add_argument("--model", default="nano", help="nano (default), the folder of a run, or a hub id")
    parser.add_argument(
        "--statements", action="store_true", help="print P(present) of all 71 statements below the answer"
    )
    parser.add_argument("--page", type=positive, help="of a file with several pages (default: the first not blank)")
    parser.add_argument("--all-pages", action="store_true", help="every page of every file")
    add_sampling_rate(parser)
    parser.add_argument("--as-is", action="store_true", help="show the model the picture as it is, not drawn anew")
    parser.add_argument(
        "--show", type=Path, metavar="OUT.png", help="write the picture with its leads as they were read"
    )
    parser.add_argument("--max-new-tokens", type=positive, default=128, help="longest answer in tokens (default 128)")
    parser.add_argument("--json", action="store_true", help="one JSON object a page")


def run(arguments: argparse.Namespace) -> None:
    """Answer questions about images; with --statements score all statements too, from the same look."""
    from ecg_vlm.images import expand_inputs
    from recipes import fast_start

    a = arguments
    words, questions = images_and_questions(a.images)
    files = expand_inputs(words)
    if a.show and (len(files) > 1 or a.all_pages):
        raise InputError("--show draws one page; give one image")
    pages = _pages(files, a)
    first = next(pages, None)  # before the model is loaded
    if first is None:
        raise InputError(f"none of {len(files)} files can be read")
    with waiting(f"loading {a.model}"):
        fast = a.own_process and a.model == "nano" and fast_start.prepare()  # before anything below imports torch
        from ecg_vlm.page_answers import answer_page
        from ecg_vlm.reader import Reader
        from render.dialogues.wording import OPEN_QUESTION

        reader = _fast_reader() if fast else Reader.load(a.model)
    questions = [*questions, *a.questions] or [OPEN_QUESTION]
    several = len(files) > 1 or a.all_pages
    for page in chain([first], pages):
        answers = answer_page(
            reader, page, questions, scores=a.statements, as_is=a.as_is, max_new_tokens=a.max_new_tokens
        )
        if a.show:
            _show(answers, page, a.show)
        print(json.dumps(answers.to_json())) if a.json else _print(answers, page.source if several else "")


def images_and_questions(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images and questions among the words of a command. The first is an image; so is any other that is a file or
    folder, or that is written like the name of one. What follows the first question is a question.

    Raises:
        InputError: For a file behind a question.
    """
    images, questions = [words[0]], []
    for word in words[1:]:
        if not _is_image(word):
            questions.append(word)
        elif questions:
            raise InputError(f"{word}: an image behind the question {questions[-1]!r}; name the images first")
        else:
            images.append(word)
    return images, questions


def _is_image(word: str) -> bool:
    from ecg_vlm.images import PICTURE_SUFFIXES
    from render.sources.waveform_file import WAVEFORM_SUFFIXES

    if word == "-":
        return True
    if len(word) > 1000 or "\n" in word or "\0" in word:
        return False
    return Path(word).exists() or (
        Path(word).suffix.lower() in PICTURE_SUFFIXES | WAVEFORM_SUFFIXES and not word.rstrip().endswith("?")
    )


def _pages(files: Sequence[Path], arguments: argparse.Namespace) -> Iterator[InputPage]:
    """The pages to ask about. Raises `InputError` for a single file that cannot be read; of several it is told."""
    from ecg_vlm.images import iter_pages, open_page

    a = arguments
    for file in files:
        try:
            if a.all_pages:
                yield from iter_pages(file, sampling_rate=a.sampling_rate)
                continue
            page = open_page(file, a.page, sampling_rate=a.sampling_rate)
        except InputError as error:
            if len(files) == 1:
                raise
            print_note(f"ecg-vlm: {error}")
            continue
        if page.note:
            print_note(page.note)
        if page.count > 1:
            print_note(_page_in_words(page))
        yield page


def _show(answers: PageAnswers, page: InputPage, file: Path) -> None:
    from ecg_vlm.digitized_files import overlay
    from render.io import atomic_write

    digitized = answers.reading.page
    picture = page.image if digitized is None else overlay(digitized, page.image)
    with atomic_write(file) as partial:
        picture.save(partial, format="PNG")


def _print(answers: PageAnswers, source: str) -> None:
    from render.statements import STATEMENTS

    if source:
        print(f"{source}:")
    for answer in answers.answers:
        print(f"{answer.question}  {answer.text}" if len(answers.answers) > 1 else answer.text)
        if answer.contradicted:
            doubts = (f"{STATEMENTS[code].name} {p:.2f}" for code, p in answer.contradicted.items())
            print(f"  (it says otherwise when asked about each alone; P(present): {', '.join(doubts)})")
    for remark in answers.reading.page.remarks if answers.reading.page else ():
        print_note(f"{answers.page.source}: {remark}")
    for warning in answers.warnings:
        print(f"Warning: {warning}")
    if answers.reading.measurements:
        print(f"Measured on the {answers.reading.measured_on}: {answers.measurements_in_words()}")
    for code, value in sorted(answers.scores.items(), key=lambda item: -item[1]):
        print(f"{value:.3f}  {code:<8} {STATEMENTS[code].name}")
    if source:
        print()


def _page_in_words(page: InputPage) -> str:
    """Which page of a file is read, and what of the others."""
    text = f"{page.source}: page {page.number} of {page.count} is read"
    if page.blank:
        numbers = ", ".join(map(str, page.blank))
        text += f"; page {numbers} is blank" if len(page.blank) == 1 else f"; pages {numbers} are blank"
    return text if page.number == page.count else f"{text}; --page N reads another one"


def _fast_reader() -> Reader:
    """Nano by the fast start; where that fails, with other versions of the libraries, all again the plain way."""
    from ecg_vlm.reader import Reader
    from recipes.fast_start import restart_without_fast_start

    try:
        return Reader.load_quickly()
    except Exception:
        restart_without_fast_start()
