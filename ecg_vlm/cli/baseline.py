"""`ecg-vlm baseline train|predict`: the comparison systems, which read the waveform."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_vlm.cli.arguments import Parser, add_common_options, folds, positive, seed
from ecg_vlm.cli.progress import progress_bar, waiting
from render.errors import InputError
from render.suggest import did_you_mean

if TYPE_CHECKING:
    from eval.baselines.checkpoint import Epoch

HELP = "train a network on the waveforms, predict with it"
DESCRIPTION = "The comparison systems. `ecg-vlm list baselines` names them."
EXTRA = "eval"
EXAMPLES = """\
  ecg-vlm baseline train resnet1d_wang --data ptbxl:DIR --folds 1-8 --out runs/cnn
  ecg-vlm baseline predict runs/cnn --data ptbxl:DIR --folds 9 --out predictions"""


def add_arguments(parser: Parser) -> None:
    """The two verbs and what they share."""
    parser.set_defaults(verb=lambda arguments: parser.print_help())
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    train = verbs.add_parser("train", help="records -> network", description="Train a network on records.")
    train.add_argument("name", help="of `ecg-vlm list baselines`")
    train.add_argument("--epochs", type=positive, help="passes over the records (default: as published, 50 or 30)")
    train.add_argument(
        "--validate-folds",
        type=folds,
        help="PTB-XL folds whose macro AUC is shown after each epoch; they choose nothing",
    )
    train.add_argument("--resume", action="store_true", help="go on where a stopped run left off")
    predict = verbs.add_parser("predict", help="records -> scores.parquet", description="Score records.")
    predict.add_argument("name", type=Path, metavar="FOLDER", help="folder of a trained network")
    for verb, function in ((train, _train), (predict, _predict)):
        verb.add_argument(
            "--data", action="append", required=True, help="simulated | ptbxl:DIR | mimic:DIR | wfdb:DIR; several join"
        )
        verb.add_argument("--out", type=Path, required=True, help="folder of the result")
        verb.add_argument("--folds", type=folds, help="PTB-XL folds, for example 1-8")
        verb.add_argument("--limit", type=positive, help="the first N records of each")
        verb.add_argument("--seed", type=seed, default=0, help="seed of weights, crops and simulated records")
        add_common_options(verb)
        verb.set_defaults(verb=function, options=verb.option_strings())


def run(arguments: argparse.Namespace) -> None:
    """Train or predict; without a verb print the help."""
    arguments.verb(arguments)


def _train(a: argparse.Namespace) -> None:
    """Train a comparison system on waveforms."""
    from dataclasses import replace

    from eval.baselines.settings import SETTINGS
    from render.io import require_empty

    if a.name not in SETTINGS:
        raise InputError(
            f"baseline {a.name}: no such network{did_you_mean(a.name, SETTINGS)}; there is {', '.join(SETTINGS)}"
        )
    if a.validate_folds and (not a.folds or set(a.folds) & set(a.validate_folds)):
        raise InputError("--validate-folds: needs --folds without any of the same, for example --folds 1-8")
    if not a.resume:
        require_empty(a.out)
    settings = replace(SETTINGS[a.name], seed=a.seed, **({"epochs": a.epochs} if a.epochs else {}))
    with waiting("importing torch"):
        from eval.baselines import train
        from eval.baselines.registry import BASELINES
    rate = BASELINES[a.name].rate
    _, signals, labels = _waveforms(a, a.folds, rate)
    validation = _waveforms(a, a.validate_folds, rate)[1:] if a.validate_folds else None
    with progress_bar("epochs") as show:

        def report(epoch: Epoch, speed: float) -> None:
            auc = "" if epoch.validation_auc is None else f"  AUC {epoch.validation_auc:.3f}"
            show(f"{a.name}  {speed:.0f} records/s  loss {epoch.loss:.3f}{auc}", epoch.number, epoch.total)

        model = train.train(
            signals,
            labels,
            name=a.name,
            recipe=settings,
            validation=validation,
            out=a.out,
            resume=a.resume,
            progress=report,
        )
    last = model.epochs[-1]
    auc = "" if last.validation_auc is None else f"; macro AUC {last.validation_auc:.3f} on the validation records"
    print(f"{a.out}: {a.name} trained on {len(signals)} records; loss {last.loss:.3f}{auc}")


def _predict(a: argparse.Namespace) -> None:
    """Score records with a trained comparison system."""
    from render.io import require_empty

    with waiting("importing torch"):
        from eval.baselines import train
        from eval.baselines.registry import BASELINES
        from eval.storage import write_scores

    model = train.load(a.name)
    require_empty(a.out)
    ids, signals, _ = _waveforms(a, a.folds, BASELINES[model.name].rate)
    write_scores(a.out / "scores.parquet", ids, train.predict(model, signals))
    print(f"{a.out / 'scores.parquet'}: {len(ids)} records")


def _waveforms(a: argparse.Namespace, fold_numbers: tuple[int, ...] | None, rate: int) -> tuple[list[str], Any, Any]:
    """Record ids, (n, 12, 10 * rate) millivolts and (n, 71) labels of the records that are asked for.

    Of several sources, the folds are those of the ones that have folds."""
    import numpy as np

    from eval.baselines.train import read_records
    from render.sources.registry import open_source

    ids: list[str] = []
    signals, labels = [], []
    for spec in a.data:
        of_folds = fold_numbers if spec.startswith("ptbxl:") or len(a.data) == 1 else None
        source = open_source(spec, seed=a.seed, limit=a.limit, folds=of_folds)
        with progress_bar("records") as show:
            part = read_records(source, lambda count, total: show("reading records", count, total), rate=rate)
        ids += part[0]
        signals.append(part[1])
        labels.append(part[2])
    return ids, np.concatenate(signals), np.concatenate(labels)
