"""How fast answers are parsed, and whether the time grows with their length: `python benchmarks/parser.py`.

Prints answers a second of CPU time on one core for the written answers of the tests (the best of several rounds, as
other work on the machine only ever slows a round down), and seconds for texts up to 1 MB: ordinary answers in a row and
texts that a careless pattern would take quadratic time for. The exponent is the slope of log time over log length
between the last two lengths: 1 is linear.

Exits 1 below 2,000 answers a second or above an exponent of 1.3.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eval.parser.parse import parse, refusal

TESTS = Path(__file__).parent.parent / "tests"
ANSWERS_A_SECOND, EXPONENT = 2000, 1.3
LONG_ANSWERS = ("answers_chat.csv", "answers_unseen.csv", "answers_unseen2.csv")
LENGTHS = (10_000, 100_000, 1_000_000)


def read_answers(name: str) -> list[tuple[str, str]]:
    """(answer, question) of a file of the tests."""
    with (TESTS / name).open(encoding="utf-8", newline="") as file:
        return [(row["answer"], row["question"]) for row in csv.DictReader(file)]


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def speed(answers: list[tuple[str, str]], rounds: int) -> float:
    """Answers a second of CPU time, the best of `rounds`."""
    return len(answers) / min(cpu_seconds(lambda: [parse(*pair) for pair in answers]) for _ in range(rounds))


def long_texts() -> dict[str, str]:
    """Name -> a piece that is repeated to the length wanted."""
    pairs = read_answers("answers.csv") + read_answers("answers_chat.csv")
    answers = [answer for answer, _ in pairs if "</" not in answer]  # thoughts and what is before them are not read
    random.Random(0).shuffle(answers)
    return {
        "answers in a row": "\n".join(answers),
        "one sentence": "sinus rhythm with ST elevation or Q waves and no LVH, ",
        "leads": "V1 V2 ",
        "territories": "lateral ",
        "negations": "no or not ",
        "brackets": "((",
        "stars": "*",
        "spaces": "a                    ",
        "dashes": "- ",
        "questions": "AF? ",
        "boxes": "AF: ☑ yes ☐ no ",
        "objects": '{"AF": [], "present": false}, ',
        "options": "A. x\nB. y\n",
        "refusals": "I cannot read the image of the ",
        "cropped": "cropped not ",
        "letters": "a",
    }


def main() -> int:
    """Print both measurements; 1 when either is outside its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="of all answers; the best counts")
    parser.add_argument("--length", type=int, default=LENGTHS[-1], help="characters of the longest text")
    options = parser.parse_args()
    parse("LVH"), refusal("I cannot read this image")  # reads the tables
    rate = speed(read_answers("answers.csv"), options.rounds)
    print(f"{rate:,.0f} answers a second (tests/answers.csv, 55 characters at the mean)")
    chat = [pair for name in LONG_ANSWERS for pair in read_answers(name) if 200 <= len(pair[0]) <= 500]
    mean = sum(len(answer) for answer, _ in chat) / len(chat)
    print(f"{speed(chat, options.rounds):,.0f} a second ({len(chat)} answers of chat models, {mean:.0f} characters)")
    lengths = [length for length in LENGTHS if length <= options.length]
    worst = 0.0
    for name, piece in long_texts().items():
        texts = [(piece * math.ceil(length / len(piece)))[:length] for length in lengths]
        seconds = [max(cpu_seconds(lambda text=text: parse(text)), 1e-3) for text in texts]  # type: ignore[misc]
        exponent = math.log(seconds[-1] / seconds[-2]) / math.log(lengths[-1] / lengths[-2])
        worst = max(worst, exponent)
        times = "  ".join(f"{length:,}: {s:.3f} s" for length, s in zip(lengths, seconds, strict=True))
        print(f"{name:18} {times}  exponent {exponent:.2f}", flush=True)
    return int(rate < ANSWERS_A_SECOND or worst > EXPONENT)


if __name__ == "__main__":
    sys.exit(main())
