"""How well simulated records represent real ones: `python benchmarks/referee.py PTBXL_DIR` prints tables for the log.

The same network of the PTB-XL benchmark is trained once on simulated records alone and once on real ones alone. Both
are tested on real records of held-out folds and on simulated records of another seed. While the simulator is being
developed, test on folds 1-8 (`--folds 1-8 --one-way`); the default, fold 9, is for the final test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from eval.baselines.settings import SETTINGS
from eval.baselines.train import LabelledSignals, TrainedBaseline, predict, read_records, train
from eval.metrics.bootstrap import MacroAuc, macro_auc
from render.simulator.simulate import SimulatedSource
from render.sources.ptbxl import LABELS_DIFFER, PtbXl
from render.sources.registry import Source, parse_folds
from render.statements import task_classes

CLASSES = task_classes("all")
NETWORK = "resnet1d_wang"
HELD_OUT_SEED = 1_000_003  # of simulated records; unlikely as the seed of a training run


def read_labelled(source: Source) -> LabelledSignals:
    """All records of a source that are on the disk and whose labels are the same in all versions of PTB-XL."""
    ids, signals, labels, _ = read_records(source, lenient=True)
    keep = [source.name != "ptbxl" or record_id not in LABELS_DIFFER for record_id in ids]
    return signals[keep], labels[keep]


def train_network(name: str, records: LabelledSignals, epochs: int, seed: int) -> TrainedBaseline:
    """The network trained with the benchmark's settings but `epochs`; prints how long it took."""
    recipe = replace(SETTINGS[NETWORK], epochs=epochs, seed=seed)
    start = time.monotonic()
    model = train(*records, name=NETWORK, recipe=recipe)
    print(f"trained on {len(records[0])} {name} records, {epochs} epochs: {time.monotonic() - start:.0f} s", flush=True)
    return model


def evaluate(model: TrainedBaseline, records: LabelledSignals, positives: int) -> MacroAuc:
    """ROC AUC of each statement that at least `positives` records carry and as many lack."""
    signals, labels = records
    counts = labels.sum(axis=0)
    enough = np.flatnonzero((counts >= positives) & (len(labels) - counts >= positives))
    names = [CLASSES[k] for k in enough]
    return macro_auc(labels[:, enough], predict(model, signals)[:, enough], names)


def row(title: str, result: MacroAuc, worst: int) -> str:
    """A line of the table: macro-AUC, the number of statements, and the statements with the lowest AUC."""
    last = sorted(result.per_class.items(), key=lambda each: each[1])[:worst]
    statements = ", ".join(f"{code} {auc:.2f}" for code, auc in last)
    return f"| {title} | {result.value:.3f} | {len(result.per_class)} | {statements} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description="Train on simulated ECGs and read real ones, and the other way round.")
    parser.add_argument("ptbxl", help="folder of PTB-XL")
    parser.add_argument("--records", type=int, default=16_000, help="simulated records to train on")
    parser.add_argument("--epochs", type=int, default=4, help="over the simulated records")
    parser.add_argument("--folds", type=parse_folds, default=(9,), help="real records to evaluate on")
    parser.add_argument("--train-folds", type=parse_folds, default=tuple(range(1, 9)), help="real records to train on")
    parser.add_argument("--real-epochs", type=int, default=SETTINGS[NETWORK].epochs, help="over the real records")
    parser.add_argument("--held-out", type=int, default=1000, help="simulated records to evaluate on")
    parser.add_argument("--positives", type=int, default=1, help="fewest records of a statement in the macro-AUC")
    parser.add_argument("--worst", type=int, default=8, help="statements to name")
    parser.add_argument("--one-way", action="store_true", help="train on simulated records only")
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and simulated records")
    a = parser.parse_args(arguments)
    tests = {
        f"real, folds {', '.join(map(str, a.folds))}": read_labelled(PtbXl(a.ptbxl, a.folds)),
        "simulated, held out": read_labelled(SimulatedSource(HELD_OUT_SEED, a.held_out)),
    }
    models = {
        "simulated": train_network("simulated", read_labelled(SimulatedSource(a.seed, a.records)), a.epochs, a.seed)
    }
    if not a.one_way:
        models["real"] = train_network("real", read_labelled(PtbXl(a.ptbxl, a.train_folds)), a.real_epochs, a.seed)
    print("| trained on → tested on | macro-AUC | statements | worst |\n|---|---|---|---|")
    for train_title, model in models.items():
        for test_title, records in tests.items():
            print(row(f"{train_title} → {test_title}", evaluate(model, records, a.positives), a.worst), flush=True)


if __name__ == "__main__":
    main()
