"""How near a model's numbers come: `python benchmarks/measuring.py PAGES [--model nano] [--limit 150]`.

PAGES is a folder made by `ecg-vlm render`. Every open question about a quantity that stands among its pages' dialogues
is asked, and the number in the answer is compared with the number in the dialogue's own answer, which is what the
simulator or the recorder knows, rounded as it is spoken. Prints, for each quantity with ten answers or more, the median
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


def asked_about(question: str) -> Quantity | None:
    """The quantity that a question names; the longest name that fits, as one may begin like another."""
    named = [q for q in QUANTITIES.values() if q.name.removeprefix("the ") in question]
    return max(named, key=lambda q: len(q.name), default=None)


def number(answer: str) -> float | None:
    """The only number in an answer; None for an answer with none or several."""
    found = _NUMBER.findall(answer)
    return float(found[0]) if len(found) == 1 else None


def errors(model: str, pages: str, limit: int) -> tuple[dict[str, list[float]], int]:
    """By quantity, said minus known; and how many questions were answered without a number."""
    reader, found, silent = Reader.load(model), defaultdict(list), 0
    rows = open_dataset(pages)
    for row in rows.select(range(min(limit, len(rows)))):
        told = [[m["content"] for m in d["messages"]] for d in row["dialogues"] if (d["task"], d["form"]) == _OPEN]
        known = [(q, asked_about(q), number(a)) for q, a in told]
        known = [each for each in known if each[1] is not None and each[2] is not None]
        said = reader.ask(row["image"].convert("RGB"), [question for question, _, _ in known])
        for (_, quantity, value), answer in zip(known, said, strict=True):
            heard = number(answer)
            silent += heard is None
            if heard is not None:
                apart = heard - value
                found[quantity.name].append((apart + 180) % 360 - 180 if quantity.unit == "degrees" else apart)
    return found, silent


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description="How near a model's numbers come to what is known of the records.")
    parser.add_argument("pages", help="folder of rendered pages")
    parser.add_argument("--model", default="nano", help="nano, the folder of a run, or a hub id")
    parser.add_argument("--limit", type=int, default=150, help="pages to ask about")
    a = parser.parse_args(arguments)
    found, silent = errors(a.model, a.pages, a.limit)
    print("| quantity | answers | median error | 90 % within | mean error |\n|---|---|---|---|---|")
    for quantity in QUANTITIES.values():
        apart = np.array(found.get(quantity.name, ()))
        if len(apart) >= _FEWEST:
            middle, most = np.percentile(np.abs(apart), [50, 90])
            name = f"{quantity.name}, {quantity.unit}"
            print(f"| {name} | {len(apart)} | {middle:.3g} | {most:.3g} | {apart.mean():+.2g} |")
    print(f"\n{sum(map(len, found.values()))} answers with a number, {silent} without")


if __name__ == "__main__":
    main()
