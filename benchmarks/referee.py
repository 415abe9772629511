"""How far simulated records stand for real ones: `python benchmarks/referee.py PTBXL_DIR` prints tables for the log.

The same network of the PTB-XL benchmark learns once from simulated records alone and once from real ones alone, and
each reads what it has never seen: real records of held-out folds, and simulated records of another seed. Development
of the simulator reads folds 1-8 (`--folds 1-8 --one-way`); the default, fold 9, is for the last look.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from eval.baselines.settings import BENCHMARK
from eval.baselines.train import LabelledSignals, TrainedBaseline, predict, read_records, train
from eval.metrics.bootstrap import MacroAuc, macro_auc
from render.simulator.simulate import Simulated
from render.sources.ptbxl import LABELS_DIFFER, PtbXl
from render.sources.registry import Source, parse_folds
from render.statements import task_classes

CLASSES = task_classes("all")
NETWORK = "resnet1d_wang"
HELD_OUT_SEED = 1_000_003  # of simulated records: far from any seed that a training run is likely to be given


def labelled(source: Source) -> LabelledSignals:
    """All records of a source that are on the disk and whose labels are the same in all versions of PTB-XL."""
    ids, signals, labels = read_records(source, lenient=True)
    keep = [source.name != "ptbxl" or record_id not in LABELS_DIFFER for record_id in ids]
    return signals[keep], labels[keep]


def trained(name: str, records: LabelledSignals, epochs: int, seed: int) -> TrainedBaseline:
    """The network after the benchmark's recipe, shortened to `epochs`; says how long it took."""
    recipe = replace(BENCHMARK[NETWORK], epochs=epochs, seed=seed)
    begun = time.monotonic()
    model = train(*records, name=NETWORK, recipe=recipe)
    print(f"trained on {len(records[0])} {name} records, {epochs} epochs: {time.monotonic() - begun:.0f} s", flush=True)
    return model


def judged(model: TrainedBaseline, records: LabelledSignals, positives: int) -> MacroAuc:
    """ROC AUC of each statement with at least so many records that have it, and as many that have not."""
    signals, labels = records
    counts = labels.sum(axis=0)
    enough = np.flatnonzero((counts >= positives) & (len(labels) - counts >= positives))
    names = [CLASSES[k] for k in enough]
    return macro_auc(labels[:, enough], predict(model, signals)[:, enough], names)


def row(title: str, result: MacroAuc, worst: int) -> str:
    """A line of the table: macro-AUC, the number of statements, and those that are read worst."""
    last = sorted(result.per_class.items(), key=lambda each: each[1])[:worst]
    named = ", ".join(f"{code} {auc:.2f}" for code, auc in last)
    return f"| {title} | {result.value:.3f} | {len(result.per_class)} | {named} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description="Train on simulated ECGs and read real ones, and the other way round.")
    parser.add_argument("ptbxl", help="folder of PTB-XL")
    parser.add_argument("--records", type=int, default=16_000, help="simulated records to train on")
    parser.add_argument("--epochs", type=int, default=4, help="over the simulated records")
    parser.add_argument("--folds", type=parse_folds, default=(9,), help="real records to evaluate on")
    parser.add_argument("--train-folds", type=parse_folds, default=tuple(range(1, 9)), help="real records to train on")
    parser.add_argument("--real-epochs", type=int, default=BENCHMARK[NETWORK].epochs, help="over the real records")
    parser.add_argument("--held-out", type=int, default=1000, help="simulated records to evaluate on")
    parser.add_argument("--positives", type=int, default=1, help="fewest records of a statement that is judged")
    parser.add_argument("--worst", type=int, default=8, help="statements to name")
    parser.add_argument("--one-way", action="store_true", help="train on simulated records only")
    parser.add_argument("--seed", type=int, default=0, help="of weights, crops and simulated records")
    a = parser.parse_args(arguments)
    tests = {
        f"real, folds {', '.join(map(str, a.folds))}": labelled(PtbXl(a.ptbxl, a.folds)),
        "simulated, held out": labelled(Simulated(HELD_OUT_SEED, a.held_out)),
    }
    models = {"simulated": trained("simulated", labelled(Simulated(a.seed, a.records)), a.epochs, a.seed)}
    if not a.one_way:
        models["real"] = trained("real", labelled(PtbXl(a.ptbxl, a.train_folds)), a.real_epochs, a.seed)
    print("| trained on → read | macro-AUC | statements | worst |\n|---|---|---|---|")
    for taught, model in models.items():
        for read, records in tests.items():
            print(row(f"{taught} → {read}", judged(model, records, a.positives), a.worst), flush=True)


if __name__ == "__main__":
    main()
