"""What one look a page saves in `evaluate`: `python benchmarks/one_look.py PAGES [--model nano] [--runs 5]`.

PAGES is a folder made by `ecg-vlm render`; of its pages the first 16 count (--limit). Each run takes scores and an
answer of every page twice, in turn: with one prefill for both, as `evaluate` does, and with a prefill for each. Prints
medians of CPU seconds a page, and exits 1 when a score or an answer differs between the two. The larger the share of
the vision tower in a model, the more there is to save.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm.pages import load_pages
from ecg_vlm.reader import Reader
from render.dialogues.wording import OPEN_QUESTION

Result = tuple[NDArray[np.float64], list[str]]


def one_prefill(reader: Reader, images: Sequence[Image.Image]) -> Result:
    """Scores and answers of a batch, each page encoded once."""
    prefill = reader.prefill(images)
    return reader.score_many(prefill), reader.ask_many(prefill, OPEN_QUESTION)


def two_prefills(reader: Reader, images: Sequence[Image.Image]) -> Result:
    """The same, each page encoded twice."""
    return reader.score_many(images), reader.ask_many(images, OPEN_QUESTION)


def cpu_seconds(
    work: Callable[[Reader, Sequence[Image.Image]], Result], reader: Reader, images: list[Image.Image]
) -> tuple[float, list[Result]]:
    """CPU seconds of all batches, and their results."""
    start = time.process_time()
    results = [work(reader, images[i : i + reader.batch_size]) for i in range(0, len(images), reader.batch_size)]
    return time.process_time() - start, results


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pages", help="folder of rendered pages")
    parser.add_argument("--model", default="nano", help="nano, the folder of a run, or a hub id")
    parser.add_argument("--limit", type=int, default=16, help="pages")
    parser.add_argument("--runs", type=int, default=5, help="runs, after one that warms up")
    a = parser.parse_args(arguments)
    reader = Reader.load(a.model)
    images = [image.convert("RGB") for image in load_pages(a.pages, limit=a.limit).rows["image"]]
    times: dict[str, list[float]] = {"one prefill": [], "two prefills": []}
    same = True
    for _ in range(a.runs + 1):
        once, first = cpu_seconds(one_prefill, reader, images)
        twice, second = cpu_seconds(two_prefills, reader, images)
        times["one prefill"].append(once)
        times["two prefills"].append(twice)
        same &= all(np.array_equal(x[0], y[0]) and x[1] == y[1] for x, y in zip(first, second, strict=True))
    print("| | CPU s a page, median |\n|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {statistics.median(seconds[1:]) / len(images):.3f} |")
    print("scores and answers are the same" if same else "scores or answers DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
