"""How accurate a model's numbers are: `python benchmarks/measuring.py PAGES [--model nano] [--limit 150]`.

PAGES is a folder made by `ecg-vlm render`. Every open question about a quantity in the dialogues of its pages is asked,
and the number in the answer is compared with the number in the dialogue's own answer, which is what the simulator or
the recorder knows, rounded as in the text. Prints, for each quantity with ten answers or more, the median
and the 90th percentile of the absolute error, and the mean error.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ecg_vlm.reader import Reader
from render.dataset.parquet import open_dataset
from render.dialogues.quantities import QUANTITIES, Quantity

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_FEWEST = 10
_OPEN = ("features", "open")  # task and form of the dialogues


def quantity_of(question: str) -> Quantity | None:
    """The quantity that a question names; the longest name that fits, as one name may begin like another."""
    quantities = [q for q in QUANTITIES.values() if q.name.removeprefix("the ") in question]
    return max(quantities, key=lambda q: len(q.name), default=None)


def number(answer: str) -> float | None:
    """The only number in an answer; None for an answer with none or several."""
    numbers = _NUMBER.findall(answer)
    return float(numbers[0]) if len(numbers) == 1 else None


def errors(model: str, pages: str, limit: int) -> tuple[dict[str, list[float]], int]:
    """By quantity, answer minus truth; and how many answers have no number."""
    reader, differences, silent = Reader.load(model), defaultdict(list), 0
    rows = open_dataset(pages)
    for row in rows.select(range(min(limit, len(rows)))):
        pairs = [[m["content"] for m in d["messages"]] for d in row["dialogues"] if (d["task"], d["form"]) == _OPEN]
        questions = [
            (question, quantity, truth)
            for question, answer in pairs
            if (quantity := quantity_of(question)) and (truth := number(answer)) is not None
        ]
        answers = reader.ask(row["image"].convert("RGB"), [question for question, _, _ in questions])
        for (_, quantity, truth), answer in zip(questions, answers, strict=True):
            value = number(answer)
            silent += value is None
            if value is not None:
                error = value - truth
                differences[quantity.name].append((error + 180) % 360 - 180 if quantity.unit == "degrees" else error)
    return differences, silent


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description="How accurate a model's numbers are.")
    parser.add_argument("pages", help="folder of rendered pages")
    parser.add_argument("--model", default="nano", help="nano, the folder of a run, or a hub id")
    parser.add_argument("--limit", type=int, default=150, help="pages to ask about")
    a = parser.parse_args(arguments)
    differences, silent = errors(a.model, a.pages, a.limit)
    print("| quantity | answers | median error | 90 % within | mean error |\n|---|---|---|---|---|")
    for quantity in QUANTITIES.values():
        apart = np.array(differences.get(quantity.name, ()))
        if len(apart) >= _FEWEST:
            middle, most = np.percentile(np.abs(apart), [50, 90])
            name = f"{quantity.name}, {quantity.unit}"
            print(f"| {name} | {len(apart)} | {middle:.3g} | {most:.3g} | {apart.mean():+.2g} |")
    print(f"\n{sum(map(len, differences.values()))} answers with a number, {silent} without")


if __name__ == "__main__":
    main()
