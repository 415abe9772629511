"""`ecg-vlm baseline pairs|pretrain|train|predict|retrieve|explain`: the comparison systems, which read the waveform."""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_vlm.cli.arguments import Parser, add_common_options, add_data, add_engine, folds, positive, seed, workers_of
from ecg_vlm.cli.progress import progress_bar, waiting
from render.errors import InputError
from render.suggest import did_you_mean

if TYPE_CHECKING:
    from eval.baselines.checkpoint import Epoch
    from eval.baselines.train import Waveforms

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of mallopt(3)

HELP = "train a network on the waveforms, predict with it, show what it says so by"
DESCRIPTION = "The comparison systems. `ecg-vlm list baselines` names them."
EXTRA = "eval"
EXAMPLES = """\
  ecg-vlm baseline train resnet1d_wang --data ptbxl:DIR --folds 1-8 --out runs/cnn
  ecg-vlm baseline predict runs/cnn --data ptbxl:DIR --folds 9 --out predictions
  ecg-vlm baseline explain runs/protoecgnet --data ptbxl:DIR --record 9 --out why.html"""


def add_arguments(parser: Parser) -> None:
    """The verbs and what they share."""
    parser.set_defaults(verb=lambda arguments: parser.print_help())
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    train = verbs.add_parser("train", help="records -> network", description="Train a network on records.")
    train.add_argument("name", metavar="NAME", help="of `ecg-vlm list baselines`")
    train.add_argument("--epochs", type=positive, help="passes over the records (default: as published)")
    train.add_argument(
        "--validate-folds",
        type=folds,
        help="PTB-XL folds whose macro AUC is shown after each epoch; they choose nothing",
    )
    train.add_argument(
        "--from", dest="encoder", type=Path, metavar="FOLDER", help="of `baseline pretrain`, to start from"
    )
    train.add_argument("--probe", action="store_true", help="train only the head, on the encoder of --from as it is")
    pretrain = verbs.add_parser(
        "pretrain",
        help="records without labels -> encoder",
        description="Train an encoder on records alone (ecg_jepa), or with reports and X-rays (more), without labels.",
    )
    pretrain.add_argument("name", metavar="NAME", help="ecg_jepa (XS), ecg_jepa_s, more or more_nano")
    pretrain.add_argument("--steps", type=positive, help="default: of ecg_jepa as published, 100000")
    pretrain.add_argument("--batch", type=positive, help="records a step (default: of ecg_jepa as published, 2048)")
    pretrain.add_argument("--seconds", type=float, help="of a record that a step of ecg_jepa sees (default: 10)")
    pretrain.add_argument(
        "--text",
        metavar="MODEL",
        help="text tower of more: a RoBERTa by hub id or folder, tuned by LoRA (default: a small one)",
    )
    for verb in (train, pretrain):
        verb.add_argument("--resume", action="store_true", help="go on where a stopped run left off")
    predict = verbs.add_parser("predict", help="records -> scores.parquet", description="Score records.")
    predict.add_argument("name", type=Path, metavar="FOLDER", help="folder of a trained network")
    add_engine(
        predict,
        workers="processes that read records and predict",
        ray="ray: processes of a Ray cluster, which see FOLDER and the records at the same paths",
    )
    explain = verbs.add_parser(
        "explain",
        help="a record -> a page",
        description="Show the segments of training records protoecgnet judges a record by, or what more attends to.",
    )
    explain.add_argument("name", type=Path, metavar="FOLDER", help="of a trained protoecgnet or a pre-trained more")
    explain.add_argument("--record", required=True, metavar="ID", help="of the record")
    pairs = verbs.add_parser(
        "pairs",
        help="records with reports -> a table for more",
        description="Write the table of pairs that more learns from: record, report, image.",
    )
    pairs.add_argument(
        "--xrays", type=Path, metavar="DIR", help="MIMIC-CXR-JPG: of mimic:DIR's patients, within 60 days"
    )
    pairs.add_argument(
        "--xray-reports", type=Path, metavar="DIR", help="reports of MIMIC-CXR, the folder with files/p10"
    )
    retrieve = verbs.add_parser(
        "retrieve",
        help="pairs -> how often the right one is found",
        description="Search reports by ECG and the other way round, X-rays too: recall at 1, 5 and 10, beside chance.",
    )
    retrieve.add_argument("name", type=Path, metavar="FOLDER", help="of a pre-trained more")
    for verb in (pretrain, retrieve, explain):
        verb.add_argument(
            "--pairs",
            type=Path,
            metavar="FILE",
            help="CSV of record, report, image for more (default: the records' own)",
        )
    functions = {
        train: _train, pretrain: _pretrain, predict: _predict, explain: _explain, pairs: _pairs, retrieve: _retrieve,
    }  # fmt: skip
    for verb, function in functions.items():
        add_data(verb, "simulated | ptbxl:DIR | mimic:DIR | wfdb:DIR")
        verb.add_argument("--out", type=Path, required=True, help="folder of the result; a file for a page or table")
        verb.add_argument("--folds", type=folds, help="PTB-XL folds, for example 1-8")
        verb.add_argument("--limit", type=positive, help="the first N records of each source")
        verb.add_argument("--seed", type=seed, default=0, help="seed of weights, crops and simulated records")
        add_common_options(verb)
        verb.set_defaults(verb=function, options=verb.option_strings())


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Let glibc keep what is freed: else it gives large arrays back to the system, which has to clear their pages anew.

    A training step frees and takes the same gigabytes again: of MultiresConv that was up to half of its CPU time.
    Without glibc nothing changes.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 2**16)  # as glibc begins
        libc.mallopt(_TRIM_THRESHOLD, 2**17)
        libc.malloc_trim(0)


def run(arguments: argparse.Namespace) -> None:
    """What the verb says; without one print the help."""
    with _freed_memory_kept():
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
    if a.probe and not a.encoder:
        raise InputError("--probe: needs the folder of an encoder; add --from FOLDER of ecg-vlm baseline pretrain")
    if not a.resume:
        require_empty(a.out)
    settings = replace(SETTINGS[a.name], seed=a.seed, **({"epochs": a.epochs} if a.epochs else {}))
    with waiting("importing torch"):
        from eval.baselines import more, train
        from eval.baselines.pretraining import load_encoder
        from eval.baselines.registry import BASELINES
    encoder = load_encoder(a.encoder, a.name) if a.encoder else {}
    # The reports that an encoder learnt from tell of their records, unlike signals alone.
    seen = train.load(a.encoder) if a.encoder and a.name in more.SIZES else None
    rate = BASELINES[a.name].rate
    records = _waveforms(a, a.folds, rate)
    held_out = _waveforms(a, a.validate_folds, rate, judged=True) if a.validate_folds else None
    with progress_bar("epochs") as show:

        def report(epoch: Epoch, speed: float) -> None:
            auc = "" if epoch.validation_auc is None else f"  AUC {epoch.validation_auc:.3f}"
            show(f"{a.name}  {speed:.0f} records/s  loss {epoch.loss:.3f}{auc}", epoch.number, epoch.total)

        model = train.train(
            records.signals,
            records.labels,
            name=a.name,
            recipe=settings,
            encoder=encoder,
            probe=a.probe,
            validation=held_out and (held_out.signals, held_out.labels),
            out=a.out,
            resume=a.resume,
            progress=report,
            record_ids=[*records.record_ids, *(seen.record_ids if seen else ())],
            patients=[*records.patients, *(seen.patients if seen else ())],
        )
    last = model.epochs[-1]
    auc = "" if last.validation_auc is None else f"; macro AUC {last.validation_auc:.3f} on the validation records"
    print(f"{a.out}: {a.name} trained on {len(records.record_ids)} records; loss {last.loss:.3f}{auc}")


def _pretrain(a: argparse.Namespace) -> None:
    """Train an encoder on waveforms, or on pairs."""
    from dataclasses import fields, replace

    from eval.baselines.settings import PRETRAININGS, ContrastiveSettings
    from render.io import require_empty
    from render.sources.registry import open_source

    if a.name not in PRETRAININGS:
        known = ", ".join(PRETRAININGS)
        raise InputError(f"baseline {a.name}: is not pre-trained{did_you_mean(a.name, PRETRAININGS)}; there is {known}")
    settings = PRETRAININGS[a.name]
    given = {key: value for key in ("steps", "batch", "seconds", "text") if (value := getattr(a, key)) is not None}
    takes_pairs = isinstance(settings, ContrastiveSettings)
    foreign = [key for key in given if key not in {field.name for field in fields(settings)}]
    if foreign or (a.pairs and not takes_pairs):
        raise InputError(f"--{foreign[0] if foreign else 'pairs'}: is no option of {a.name}; leave it out")
    if not a.resume:
        require_empty(a.out)
    source = open_source(a.data, seed=a.seed, limit=a.limit, folds=a.folds)
    with waiting("importing torch"):
        from eval.baselines.pairs import Pairs
        from eval.baselines.pretraining import pretrain
    if takes_pairs:
        source = Pairs(source, a.pairs)
    with progress_bar("records") as show_record, progress_bar("hundredths") as show:
        pretrain(
            source,
            a.name,
            replace(settings, seed=a.seed, **given),
            a.out,
            resume=a.resume,
            reading=partial(show_record, "reading records"),
            progress=lambda epoch, speed: show(
                f"{a.name}  {speed:.0f} records/s  loss {epoch.loss:.3f}", epoch.number, epoch.total
            ),
        )
    what, then = ("pairs", "predict takes it as it is (zero-shot), and ") if takes_pairs else ("records", "")
    print(f"{a.out}: {a.name} pre-trained on {len(source)} {what}; {then}ecg-vlm baseline train takes it as --from")


def _pairs(a: argparse.Namespace) -> None:
    """Write a table of pairs."""
    from eval.baselines.pairs import mimic_pairs, reports_of, write
    from render.io import require_empty
    from render.sources.mimic import MimicIvEcg
    from render.sources.registry import open_source

    require_empty(a.out)
    source = open_source(a.data, seed=a.seed, limit=a.limit, folds=a.folds)
    if a.xray_reports and not a.xrays:
        raise InputError("--xray-reports: needs --xrays DIR, the folder of MIMIC-CXR-JPG")
    pairs = reports_of(source)
    if a.xrays:
        if not isinstance(source, MimicIvEcg):
            raise InputError("--xrays: go with one --data mimic:DIR, all of it; MIMIC-CXR is of the same patients")
        pairs = mimic_pairs(source, a.xrays, a.xray_reports)
    with progress_bar("pairs") as show:
        count, images = write(a.out, pairs, lambda count: show("writing pairs", count, len(source)))
    print(f"{a.out}: {count} pairs, {images} with an X-ray; {len(source) - count} records have no report")


def _retrieve(a: argparse.Namespace) -> None:
    """Measure how often the right report, ECG or X-ray is found."""
    with waiting("importing torch"):
        from eval.baselines.more_pretraining import load_more, retrieval
        from eval.baselines.pairs import Pairs
    from render.io import require_empty, write_json
    from render.sources.registry import open_source

    require_empty(a.out)
    more = load_more(a.name)
    pairs = Pairs(open_source(a.data, seed=a.seed, limit=a.limit, folds=a.folds), a.pairs)
    found = retrieval(more, pairs)
    write_json(a.out, {"pairs": len(pairs), **{what: [each._asdict() for each in row] for what, row in found.items()}})
    for what, row in found.items():
        print(f"{what:16}", "  ".join(f"R@{each.k} {each.found:.3f} (chance {each.chance:.3f})" for each in row))
    print(f"{a.out}: {len(pairs)} pairs")


def _predict(a: argparse.Namespace) -> None:
    """Score records with a trained comparison system."""
    from render.io import atomic_folder, require_empty, write_json

    with waiting("importing torch"):
        from ecg_vlm.provenance import TRAINING_FILE
        from eval.baselines import train
        from eval.storage import write_scores
    from render.sources.registry import open_source

    model = train.load(a.name)
    require_empty(a.out)
    source = open_source(a.data, seed=a.seed, limit=a.limit, folds=a.folds)
    with workers_of(a) as workers, progress_bar("records") as show:
        ids, scores = train.predict_records(a.name, source, workers, partial(show, "predicting records"))
    with atomic_folder(a.out) as folder:
        write_scores(folder / "scores.parquet", ids, scores, about={"training": model.training})
        if model.record_ids:
            patients = sorted(set(model.patients))
            write_json(folder / TRAINING_FILE, {"record_ids": model.record_ids, "patients": patients})
    print(f"{a.out / 'scores.parquet'}: {len(ids)} records")


def _explain(a: argparse.Namespace) -> None:
    """Write the page about one record."""
    with waiting("importing torch"):
        from ecg_vlm.prototype_page import write_prototype_page
        from eval.baselines import more
        from eval.baselines.train import load
    from render.sources.registry import open_source

    model = load(a.name)
    if model.name in more.SIZES:
        from ecg_vlm.attention_page import write_attention_page
        from eval.baselines.more_pretraining import load_more
        from eval.baselines.pairs import Pairs

        pairs = Pairs(open_source(a.data, seed=a.seed, limit=a.limit, folds=a.folds), a.pairs)
        write_attention_page(a.out, load_more(a.name), model, pairs, a.record)
    else:
        sources = [open_source(spec, seed=a.seed, limit=a.limit, folds=a.folds) for spec in a.data]
        write_prototype_page(a.out, model, sources, a.record)
    print(f"{a.out}: record {a.record}")


def _waveforms(
    a: argparse.Namespace, fold_numbers: tuple[int, ...] | None, rate: int, *, judged: bool = False
) -> Waveforms:
    """The records that are asked for, at `rate` hertz.

    judged: without restored records (`render.sources.ptbxl.RESTORED`).
    """
    from eval.baselines.train import read_records
    from render.sources.registry import open_source

    source = open_source(a.data, seed=a.seed, limit=a.limit, folds=fold_numbers)
    with progress_bar("records") as show:
        return read_records(source, partial(show, "reading records"), rate=rate, judged=judged)
