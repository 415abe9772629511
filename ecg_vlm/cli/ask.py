"""`ecg-vlm ask`: questions about one ECG image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_vlm.cli.arguments import Parser, add_sampling_rate, positive
from ecg_vlm.cli.progress import print_note, waiting

if TYPE_CHECKING:
    from ecg_vlm.images import InputPage
    from ecg_vlm.reader import Reader

HELP = "image + question -> answer"
DESCRIPTION = "Ask about an ECG image. Not a medical device: nothing it prints is a diagnosis."
EXAMPLES = """\
  ecg-vlm ask page.png "What is the rhythm?"
  ecg-vlm ask report.pdf "Is this a normal ECG?" --statements --json --model runs/mine"""


def add_arguments(parser: Parser) -> None:
    """Image, questions, model."""
    parser.add_argument(
        "image", type=Path, help="picture, PDF or waveform file of an ECG; - for standard input", metavar="file"
    )
    parser.add_argument("questions", nargs="*", metavar="question", help="default: What does this ECG show?")
    parser.add_argument("--model", default="nano", help="nano (default), the folder of a run, or a hub id")
    parser.add_argument(
        "--statements", action="store_true", help="print P(present) of all 71 statements below the answer"
    )
    parser.add_argument("--page", type=positive, help="of a file with several pages (default: the first not blank)")
    add_sampling_rate(parser)
    parser.add_argument("--max-new-tokens", type=positive, default=128, help="longest answer in tokens (default 128)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Answer questions about an image; with --statements score all statements too, from the same look."""
    from ecg_vlm.images import open_page
    from recipes import fast_start

    a = arguments
    page = open_page(a.image, a.page, sampling_rate=a.sampling_rate)
    if page.note:
        print_note(page.note)
    if page.count > 1:
        print_note(_page_in_words(page))
    with waiting(f"loading {a.model}"):
        fast = a.own_process and a.model == "nano" and fast_start.prepare()  # before anything below imports torch
        from ecg_vlm.reader import Reader
        from render.dialogues.wording import OPEN_QUESTION

        reader = _fast_reader() if fast else Reader.load(a.model)
    prefill = reader.prefill([page.image])
    questions = a.questions or [OPEN_QUESTION]  # with --statements too: 71 numbers cannot say that the page is none
    scores = reader.score(prefill) if a.statements else {}
    texts = reader.ask(prefill, questions, max_new_tokens=a.max_new_tokens)
    answers = [
        {"question": question, "answer": text, "contradicted": reader.contradictions(prefill, question, text)}
        for question, text in zip(questions, texts, strict=True)
    ]
    if a.json:
        print(
            json.dumps(
                {
                    "image": str(a.image),
                    "page": page.number,
                    "pages": page.count,
                    "model": a.model,
                    "answers": answers,
                    "scores": scores,
                }
            )
        )
        return
    from render.statements import STATEMENTS

    for answer in answers:
        print(f"{answer['question']}  {answer['answer']}" if len(questions) > 1 else answer["answer"])
        if answer["contradicted"]:
            doubts = (f"{STATEMENTS[code].name} {p:.2f}" for code, p in answer["contradicted"].items())
            print(f"  (it says otherwise when asked about each alone; P(present): {', '.join(doubts)})")
    for code, value in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{value:.3f}  {code:<8} {STATEMENTS[code].name}")


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
