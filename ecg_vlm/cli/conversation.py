"""`ecg-vlm ask --interactive`: one page, and question after question from the keyboard."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from ecg_vlm.cli.answer_text import AnswerPrinter, print_facts, print_warning
from ecg_vlm.cli.progress import print_note
from ecg_vlm.images import InputPage
from ecg_vlm.page_answers import PageAnswers, encode_page, model_for, page_warnings
from ecg_vlm.page_reading import read_page
from ecg_vlm.reader import Reader
from ecg_vlm.translation import translate
from render.errors import is_text

_PROMPT = "\n> "
_LAST_WORDS = ("quit", "exit", "q", ":q")


def converse(
    reader: Reader, page: InputPage, questions: Sequence[str], *, as_is: bool, max_new_tokens: int, language: str
) -> None:
    """Answer `questions` about a page, then those from standard input, until it ends. A follow-up sees the turns before
    it; Ctrl-C ends an answer, or the conversation where none is being given."""
    reading = read_page(page, as_is=as_is)
    model = model_for(reader, reading, as_is=as_is)
    prefill, opinion, reason = encode_page(model, reading, max_new_tokens=max_new_tokens)
    warnings = () if reason else page_warnings(reading, ())
    print_facts(PageAnswers(page, {}, reading, reason, (), warnings=warnings), language)
    if opinion:
        print(translate(opinion, language))
        return
    if reader.knows_few_wordings:
        print_note(f"{reader.name} was not trained on follow-ups: each question is answered from the page alone")
    history: list[tuple[str, str]] = []
    for question in _questions(questions):
        printer = AnswerPrinter(language=language)
        on_text = printer.stream_text if sys.stdout.isatty() else None
        try:
            answer = model.answer(prefill, question, max_new_tokens=max_new_tokens, history=history, on_text=on_text)
        except KeyboardInterrupt:
            print(" ...")
            continue
        printer.finish(answer)
        for warning in page_warnings(reading, [answer]):
            if warning not in warnings:
                print_warning(warning, language)
        history.append((question, answer.text))


def _questions(first: Sequence[str]) -> Iterator[str]:
    """The first questions, then a line each from standard input."""
    for question in first:
        print(f"{_PROMPT}{question}")
        yield question
    is_terminal = sys.stdin.isatty()
    with suppress(ImportError):
        if is_terminal:
            import readline  # noqa: F401  # input() then knows the arrow keys
    while True:
        try:
            line = input(_PROMPT if is_terminal else "").strip()
        except (EOFError, KeyboardInterrupt):
            if is_terminal:
                print()
            return
        if line.lower() in _LAST_WORDS:
            return
        if line and is_text(line):
            yield line
        elif line:
            print_note("this line is no text in UTF-8; write it again")
