"""`ecg-vlm ask`: questions about ECG images."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_vlm.cli.arguments import (
    Parser,
    add_engine,
    add_loading,
    add_sampling_rate,
    loading,
    positive,
    refuse_workers,
    workers_of,
)
from ecg_vlm.cli.progress import print_note, progress_bar, waiting
from render.errors import InputError
from render.io import require_empty

if TYPE_CHECKING:
    from ecg_vlm.answer_file import AnswerFile
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
  ecg-vlm ask photo.jpg "What is the rhythm?" --show as-read.png --report report.pdf
  ecg-vlm ask "scans/**/*.png" report.pdf -q "Is this a normal ECG?" --statements --out answers.jsonl --resume
  ecg-vlm ask photo.jpg --interactive"""


def add_arguments(parser: Parser) -> None:
    """Images, questions, model."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE",
        help="picture, PDF or waveform file of an ECG, a folder of them, or a pattern in quotes; - for standard input. "
        "What stands behind one image and is no file is a question",
    )  # fmt: skip
    parser.add_argument("-q", "--question", action="append", default=[], dest="questions", metavar="QUESTION",
                        help="default: What does this ECG show? (repeatable)")  # fmt: skip
    parser.add_argument("--model", default="nano", help="nano (default), the folder of a run, or a hub id")
    add_loading(parser)
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
    parser.add_argument("--json", action="store_true", help="one JSON object a page (docs/answers.md)")
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the JSON objects there, as they come")
    parser.add_argument("--resume", action="store_true", help="go on with --out: pages that are answered are kept")
    add_engine(
        parser,
        workers="with --engine ray: the most pages at once, each in a process that holds the model",
        ray="ray: processes of a Ray cluster hold the model, which they see at the same path, and get the pages",
    )
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="one printable page, .html or .pdf")
    parser.add_argument(
        "--language", choices=("en", "de"), default="en",
        help="of warnings, reasons and the report; an answer follows its question, and JSON is in English",
    )  # fmt: skip
    parser.add_argument(
        "--interactive", action="store_true", help="question after question; each sees the turns before it"
    )


def run(arguments: argparse.Namespace) -> None:
    """Answer questions about images; with --statements score all statements too, from the same look."""
    from ecg_vlm.images import expand_inputs

    a = arguments
    words, questions = images_and_questions(a.images)
    files = expand_inputs(words)
    _require_possible(a, files)
    a.questions = [*questions, *a.questions]
    results = _open_results(a)
    pages = _pages(files, a, results)
    first = next(pages, None)  # before the model is loaded
    if first is None:
        if results is not None and len(results):
            print_note(f"{a.out}: holds the answers about all {len(results)} pages already")
            return
        raise InputError(f"none of {len(files)} files can be read")
    if a.engine == "ray":
        assert results is not None  # of --out
        _answer_on_nodes(chain([first], pages), a, results, len(files))
        return
    reader = _load(a)
    if a.interactive:
        from ecg_vlm.cli.conversation import converse

        options = {"as_is": a.as_is, "max_new_tokens": a.max_new_tokens, "language": a.language}
        converse(reader, first[1], a.questions, **options)
        return
    shows_bar = len(files) > 1 and (results is not None or not sys.stdout.isatty())
    with progress_bar("files") if shows_bar else nullcontext(lambda *_: None) as show:
        for place, page in chain([first], pages):
            _answer(reader, page, a, results, len(files) > 1 or a.all_pages)
            show("files", place, len(files))
        if place < len(files):  # the last ones could not be read
            show("files", len(files), len(files))


def _require_possible(arguments: argparse.Namespace, files: Sequence[Path]) -> None:
    """Raise `InputError` for options that exclude each other."""
    a = arguments
    several = len(files) > 1 or a.all_pages
    for name, value in (("--show", a.show), ("--report", a.report), ("--interactive", a.interactive)):
        if value and several:
            raise InputError(f"{name} is for one page; give one image")
    refuse_workers(a)
    if a.engine == "ray" and (not a.out or a.show or a.report or a.interactive):
        raise InputError("--engine ray answers into --out FILE.jsonl; leave out --show, --report and --interactive")
    if a.resume and not a.out:
        raise InputError("--resume: name the file that it goes on with: --out FILE.jsonl")
    if a.interactive and (a.json or a.out or a.show or a.report):
        raise InputError("--interactive prints its answers; leave out --json, --out, --show and --report")
    if a.interactive and str(files[0]) == "-":
        raise InputError("--interactive reads the questions from standard input; save the image as a file first")
    if a.show and a.show.suffix.lower() != ".png":
        raise InputError(f"--show {a.show}: the picture is written as PNG; name a .png file")
    if a.out and a.out.suffix.lower() != ".jsonl":
        raise InputError(f"--out {a.out}: answers are written as JSON Lines; name a .jsonl file")
    if a.report and a.report.suffix.lower() not in (".html", ".pdf"):
        raise InputError(f"{a.report}: a report is a .html or .pdf file; name one")
    if a.report and a.report.suffix.lower() == ".pdf" and find_spec("fpdf") is None:
        raise ModuleNotFoundError("a PDF needs fpdf2", name="fpdf")  # now, not behind the answer
    for file in filter(None, (a.show, a.report)):
        require_empty(file)


def _open_results(arguments: argparse.Namespace) -> AnswerFile | None:
    """The file of --out."""
    if not arguments.out:
        return None
    from ecg_vlm.answer_file import AnswerFile

    return AnswerFile(arguments.out, _request(arguments) | loading(arguments), resume=arguments.resume)


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    from ecg_vlm.answer_file import request_of

    a = arguments
    return request_of(
        a.model,
        _or_open_question(a.questions),
        scores=a.statements or bool(a.report),
        as_is=a.as_is,
        max_new_tokens=a.max_new_tokens,
    )


def _or_open_question(questions: list[str]) -> list[str]:
    from render.dialogues.wording import OPEN_QUESTION

    return questions or [OPEN_QUESTION]


def _load(arguments: argparse.Namespace) -> Reader:
    from recipes import fast_start

    a = arguments
    with waiting(f"loading {a.model}"):
        is_plain_nano = a.model == "nano" and not loading(a)
        fast = a.own_process and is_plain_nano and fast_start.prepare()  # before anything below imports torch
        from ecg_vlm.reader import Reader

        return _fast_reader() if fast else Reader.load(a.model, **loading(a))


def _answer_on_nodes(
    pages: Iterable[tuple[int, InputPage]], arguments: argparse.Namespace, results: AnswerFile, files: int
) -> None:
    """Answer about all pages on a cluster, and write the answers in the order of the pages."""
    from ecg_vlm.nodes import ReaderOnNodes

    a = arguments
    places: list[int] = []

    def batches() -> Iterator[list[InputPage]]:
        for place, page in pages:
            places.append(place)
            yield [page]

    with workers_of(a, has_model=True) as workers, progress_bar("files") as show:
        assert not isinstance(workers, int)

        def take(number: int, result: dict[str, Any]) -> None:
            _write(result, a, results)
            show("files", places[number], files)

        work = partial(_answer_page, **_request_options(a))
        ReaderOnNodes(workers, a.model, loading(a)).run(work, batches(), take, lambda steps: None)


def _write(result: dict[str, Any], arguments: argparse.Namespace, results: AnswerFile | None) -> None:
    """Write what was answered about a page to the file of --out and, with --json, to standard output."""
    if results is not None:
        results.append(result)
    if arguments.json:
        print(json.dumps(result), flush=True)


def _answer_page(reader: Reader, pages: Sequence[InputPage], **options: Any) -> dict[str, Any]:
    from ecg_vlm.page_answers import answer_page

    (page,) = pages
    return answer_page(reader, page, **options).to_json()


def _answer(
    reader: Reader, page: InputPage, arguments: argparse.Namespace, results: AnswerFile | None, several: bool
) -> None:
    """Answer about a page, and print or write it."""
    from ecg_vlm.page_answers import answer_page

    a = arguments
    if results is not None or a.json:
        answers = answer_page(reader, page, **_request_options(a))
        _write(answers.to_json(), a, results)
    else:
        answers = _print_page(reader, page, a, several)
    if a.show:
        _show(answers, a.show)
    if a.report:
        from ecg_vlm.page_report import write_page_report

        write_page_report(a.report, answers, a.language)


def _print_page(reader: Reader, page: InputPage, arguments: argparse.Namespace, several: bool) -> PageAnswers:
    """Answer about a page and print it: on a terminal each answer as it comes."""
    from ecg_vlm.cli.answer_text import AnswerPrinter, print_facts
    from ecg_vlm.page_answers import answer_page

    options = _request_options(arguments)
    streams, headings = sys.stdout.isatty(), len(options["questions"]) > 1
    printers = [
        AnswerPrinter(f"{question}  " if headings else "", arguments.language) for question in options["questions"]
    ]
    if several:
        print(f"{page.source}:")
    answers = answer_page(
        reader,
        page,
        on_text=(lambda place, piece: printers[place].stream_text(piece)) if streams else None,
        on_answer=lambda place, answer: printers[place].finish(answer),
        **options,
    )
    print_facts(answers, arguments.language, scores=arguments.statements)  # a report has them without
    if several:
        print()
    return answers


def _request_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in _request(arguments).items() if name != "model"}


def images_and_questions(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images and questions among the words of a command. The first is an image; so is any other that is a file or
    folder, or that is written like the name of one. What follows the first question is a question.

    Raises:
        InputError: For a file behind a question.
    """
    if not _is_image(words[0]) and (behind := [word for word in words[1:] if _is_image(word)]):
        raise InputError(f"{words[0]}: no such file; if it is a question, name the image first: {behind[0]}")
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
    if not word or len(word) > 1000 or "\n" in word or "\0" in word:
        return False
    if Path(word).exists() or (_PATTERN.fullmatch(word) and not word.endswith("?")):
        return True
    return Path(word).suffix.lower() in PICTURE_SUFFIXES | WAVEFORM_SUFFIXES and not word.rstrip().endswith("?")


_PATTERN = re.compile(r"\S*([*\[]\S*[/.]|[/.]\S*[*\[])\S*")
"""A pattern of names of files without a suffix, in quotes so that the shell leaves it: "scans/*"."""


def _pages(
    files: Sequence[Path], arguments: argparse.Namespace, results: AnswerFile | None
) -> Iterator[tuple[int, InputPage]]:
    """The pages to ask about, each with the number of its file, from 1 on; those with a result are left out.

    Raises `InputError` for a single file that cannot be read; of several it is told.
    """
    for place, file in enumerate(files, 1):
        try:
            for page in _pages_of(file, arguments, results):
                yield place, page
        except InputError as error:
            if len(files) == 1:
                raise
            print_note(f"ecg-vlm: {error}")


def _pages_of(file: Path, arguments: argparse.Namespace, results: AnswerFile | None) -> Iterator[InputPage]:
    from ecg_vlm.images import iter_pages, open_page

    a = arguments
    if a.all_pages:
        for page in iter_pages(file, sampling_rate=a.sampling_rate):
            if results is None or not results.has(page.source, page.sha256, page.number):
                yield page
        return
    if results is not None and results.has_file(file, a.page):
        return
    page = open_page(file, a.page, sampling_rate=a.sampling_rate)
    if page.note:
        print_note(page.note)
    if page.count > 1:
        print_note(_page_in_words(page))
    yield page


def _show(answers: PageAnswers, file: Path) -> None:
    from render.io import atomic_write

    with atomic_write(file) as partial:
        answers.picture_as_read().save(partial, format="PNG")


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
