"""The command line. Heavy imports stand inside the commands, so that --help answers at once.

Exit codes: 0 done, 1 the work failed, 2 the user's input is wrong (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ecg_vlm import commands
from render.errors import InputError, WorkFailed

_EPILOG = "Not a medical device: nothing it prints is a diagnosis."


class _Parser(argparse.ArgumentParser):
    """argparse, with its usage errors in our one-line form."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        arguments = _parsed(argv)
        _quiet(arguments.verbose)
        arguments.own_process = argv is None  # called by a program, a command may not change how libraries start
        arguments.run(arguments)
    except InputError as error:
        print(f"ecg-vlm: {error}", file=sys.stderr)
        return 2
    except WorkFailed as error:
        print(f"ecg-vlm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        said = str(error) or "interrupted; finished shards and checkpoints are kept (--resume goes on)"
        print(f"ecg-vlm: {said}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `ecg-vlm parse | head` closes our stdout; that is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        print(f"ecg-vlm: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments, with recipe overrides allowed after options too (argparse takes positionals in one place only)."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not (hasattr(arguments, "overrides") and all("=" in word and word[0] != "-" for word in rest)):
        parser.error(f"unknown argument {rest[0]}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    about = "Tune and ask vision-language models that read ECG images, and judge their answers."
    parser = _Parser(prog="ecg-vlm", description=about, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--verbose", action="store_true", help="show the log messages of the libraries")
    sub = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_render(sub)
    _add_finetune(sub)
    _add_ask(sub)
    _add_evaluate(sub)
    _add_calibrate(sub)
    _add_compare(sub)
    _add_baseline(sub)
    _add_parse(sub)
    _add_export(sub)
    _add_doctor(sub)
    return parser


def _add_render(sub: Any) -> None:
    p = sub.add_parser("render", help="ECG records -> pages and dialogues", description="Render a data set.")
    p.add_argument(
        "source", help="simulated | simulated:CODE,CODE | ptbxl:DIR | mimic:DIR | wfdb:DIR | path/to/record.hea"
    )
    p.add_argument("out", type=Path, help="folder of the new data set, or a .png for one page of one record")
    p.add_argument("--limit", type=_positive, help="the first N records (simulated: how many, default 1000)")
    p.add_argument("--folds", type=_folds, help="PTB-XL folds, for example 1-8")
    p.add_argument(
        "--layout", default="3x4+1R", help="page layout, such as 6x2+1R,cabrera,50mm/s or mixed (default 3x4+1R)"
    )
    p.add_argument(
        "--style", default="clean", help="look of the page, such as scan, photo,green,dots or mixed (default clean)"
    )
    size = p.add_mutually_exclusive_group()
    size.add_argument(
        "--width", type=_width, default=1120, help="page width in pixels (default 1120; nano's own is 784)"
    )
    size.add_argument("--dpi", type=_dpi, help="resolution instead of a width: the paper's true size at so many dpi")
    p.add_argument("--per-record", type=_positive, default=1, help="pages of each record (default 1)")
    p.add_argument("--mask", action="store_true", help="add a mask to each page: 0 paper, 1 grid, 2 print, 3 signal")
    p.add_argument("--signal", action="store_true", help="add each record's signal, for a recipe with train.reading")
    p.add_argument("--tasks", type=_names, help="of features, rhythm, morphology, report (default all)")
    p.add_argument("--forms", type=_names, help="of closed, choice, fill, open (default all)")
    p.add_argument("--closed", type=_positive, help="yes/no questions per page (default: as many no as yes)")
    p.add_argument(
        "--unreadable",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of pages that cannot be read (no ECG, turned, cut off) and whose answers say so (default 0)",
    )
    p.add_argument("--dialogues", type=Path, help="ECGInstruct or LLaVA JSON whose dialogues the pages get instead")
    p.add_argument(
        "--format", choices=("parquet", "llava"), default="parquet", help="llava: llava.json and images (ECGInstruct)"
    )
    p.add_argument("--preview", action="store_true", help="draw twelve of the pages to OUT-preview.png, and stop")
    p.add_argument("--shard-size", type=_positive, default=500, help="pages per Parquet file (default 500)")
    p.add_argument("--workers", type=_positive, default=1, help="processes (default 1)")
    p.add_argument("--seed", type=_count, default=0, help="seed of simulated records, of drawn looks and questions")
    p.add_argument(
        "--lenient",
        action="store_true",
        help="draw dead leads and short records as they are, skip unreadable ones",
    )
    p.add_argument("--resume", action="store_true", help="go on with a data set that was interrupted")
    p.set_defaults(run=commands.render)


def _add_finetune(sub: Any) -> None:
    p = sub.add_parser("finetune", help="recipe + data set -> adapter", description="Tune a model by a recipe.")
    p.add_argument("recipe", help="a recipe file, or the name of one that ships (quickstart, nano)")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="override any key of the recipe")
    p.add_argument("--out", type=Path, help="folder of the run (default runs/NAME)")
    p.add_argument("--max-steps", type=_positive, help="take exactly N optimizer steps (train.max_steps=N)")
    p.add_argument(
        "--max-time", type=_minutes, help="end after so long, such as 90m or 2.5h; --resume goes on (train.max_minutes)"
    )
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    p.set_defaults(run=commands.finetune)


def _add_ask(sub: Any) -> None:
    p = sub.add_parser("ask", help="image + question -> answer", description="Ask about an ECG image.", epilog=_EPILOG)
    p.add_argument("image", type=Path, help="PNG or JPEG of an ECG page")
    p.add_argument("questions", nargs="*", metavar="question", help="default: What does this ECG show?")
    p.add_argument("--model", default="nano", help="nano (default), the folder of a run, or a hub id")
    p.add_argument("--statements", action="store_true", help="print P(present) of all 71 statements instead")
    p.add_argument("--max-new-tokens", type=_positive, default=128, help="longest answer in tokens (default 128)")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=commands.ask)


def _add_evaluate(sub: Any) -> None:
    p = sub.add_parser("evaluate", help="model + pages -> report.html", description="Judge a model.")
    p.add_argument("model", nargs="?", help="nano, the folder of a run, a hub id, or scores in a .parquet or .csv file")
    p.add_argument("--data", help="data set folder made by ecg-vlm render")
    p.add_argument("--out", type=Path, required=True, help="folder of the report")
    p.add_argument(
        "--from",
        dest="kept",
        type=Path,
        metavar="PATH",
        help="judge again without a model: a report's folder, a scores.parquet or an answers.jsonl",
    )
    p.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="MODEL",
        help="a model, or a file of scores, to compare with (repeatable)",
    )
    p.add_argument("--folds", type=_folds, default=(), help="judge on these PTB-XL folds only")
    p.add_argument("--limit", type=_positive, default=0, help="the first N pages only")
    p.add_argument("--controls", action="store_true", help="score blank, shuffled and copied pages too")
    p.add_argument(
        "--controls-source",
        default="",
        metavar="SOURCE",
        help="where the pages' records are: other layout and style too",
    )
    p.add_argument("--calibration", type=Path, help="calibration.json (default: the one beside the model)")
    p.add_argument("--seed", type=_count, default=0, help="seed of resamples and of shuffled pages")
    p.add_argument(
        "--force",
        action="store_true",
        help="judge even on records the model was tuned on; the report says so",
    )
    p.set_defaults(run=commands.evaluate)


def _add_calibrate(sub: Any) -> None:
    p = sub.add_parser("calibrate", help="validation pages -> calibration.json", description="Fit and freeze it.")
    p.add_argument("model", help="the folder of a run, a hub id, or scores in a .parquet or .csv file")
    p.add_argument("--data", required=True, help="data set folder of validation pages")
    p.add_argument("--folds", type=_folds, default=(), help="these PTB-XL folds only")
    p.add_argument("--limit", type=_positive, default=0, help="the first N pages only")
    p.add_argument("--out", type=Path, help="the file (default: calibration.json beside the model)")
    p.add_argument("--force", action="store_true", help="even on records the model was tuned on")
    p.set_defaults(run=commands.calibrate)


def _add_compare(sub: Any) -> None:
    p = sub.add_parser("compare", help="reports side by side", description="Put evaluations side by side.")
    p.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="folders written by ecg-vlm evaluate")
    p.add_argument("--out", type=Path, help="an .html file of it")
    p.add_argument("--seed", type=_count, default=0, help="seed of the resamples")
    p.set_defaults(run=commands.compare)


def _add_baseline(sub: Any) -> None:
    from eval.baselines.settings import BENCHMARK

    p = sub.add_parser(
        "baseline", help="train a network on the waveforms, predict with it", description="The comparison systems."
    )
    verbs = p.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for verb, text in (("train", "records -> network"), ("predict", "records -> scores.parquet")):
        v = verbs.add_parser(verb, help=text, description=text)
        if verb == "train":
            v.add_argument("name", help=", ".join(BENCHMARK))
            v.add_argument(
                "--epochs",
                type=_positive,
                help="passes over the records (default: the benchmark's, 50, of wavelet_nn 30)",
            )
            v.add_argument(
                "--validate-folds",
                type=_folds,
                help="PTB-XL folds whose macro AUC is shown after each epoch; they choose nothing",
            )
            v.add_argument("--resume", action="store_true", help="go on where a stopped run left off")
        else:
            v.add_argument("name", type=Path, metavar="FOLDER", help="folder of a trained network")
        v.add_argument("--data", required=True, help="simulated | ptbxl:DIR | mimic:DIR | wfdb:DIR")
        v.add_argument("--out", type=Path, required=True, help="folder of the result")
        v.add_argument("--folds", type=_folds, help="PTB-XL folds, for example 1-8")
        v.add_argument("--limit", type=_positive, help="the first N records")
        v.add_argument("--seed", type=_count, default=0, help="seed of weights, crops and simulated records")
        v.set_defaults(run=commands.train_baseline if verb == "train" else commands.predict_baseline)


def _add_parse(sub: Any) -> None:
    p = sub.add_parser("parse", help="answers -> statement codes", description="Read statements from answers.")
    p.add_argument(
        "file",
        nargs="?",
        default="-",
        help="text lines, or JSONL with an answer and perhaps a question key; - for standard input",
    )
    p.set_defaults(run=commands.parse)


def _add_export(sub: Any) -> None:
    p = sub.add_parser(
        "export", help="run -> a folder that stock transformers and peft open", description="Export a run."
    )
    p.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    p.add_argument("out", type=Path, metavar="OUT", help="folder of the export")
    p.add_argument("--merge", action="store_true", help="the whole model with the adapter in its weights")
    p.add_argument("--report", type=Path, help="report.json of an evaluation, for the model card")
    p.set_defaults(run=commands.export)


def _add_doctor(sub: Any) -> None:
    p = sub.add_parser("doctor", help="what this machine can run, and what a recipe needs", description="Count first.")
    p.add_argument("recipe", nargs="?", help="a recipe file, or the name of one that ships")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="override any key of the recipe")
    p.add_argument("--json", action="store_true", help="one JSON object")
    p.set_defaults(run=commands.doctor)


def _minutes(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text.strip())
    minutes = float(found[1]) * {"s": 1 / 60, "m": 1, "h": 60}[found[2]] if found else 0.0
    if not 0 < minutes <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90m, 2.5h or 600s")
    return minutes


def _folds(text: str) -> tuple[int, ...]:
    from render.sources.registry import parse_folds

    try:
        return parse_folds(text)
    except InputError as error:  # argparse would replace the message of a ValueError by its own
        raise argparse.ArgumentTypeError(str(error)) from error


def _whole(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return value


def _positive(text: str) -> int:
    return _whole(text, 1, 10_000_000)


def _count(text: str) -> int:
    return _whole(text, 0, 2**31 - 1)


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.\d+|0|1|1\.0+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1, such as 0.1")
    return float(text)


def _width(text: str) -> int:
    return _whole(text, 300, 4470)  # 1 to 16 pixels per mm on every paper there is


def _dpi(text: str) -> int:
    return _whole(text, 30, 400)


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _version() -> str:
    from importlib.metadata import version

    return f"ecg-vlm {version('ecg-vlm')}"


def _quiet(verbose: bool) -> None:
    """Only our own words on the screen, unless the libraries' are asked for."""
    if verbose:
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    # Read by libraries that are not imported yet: no progress bars and no hub traffic beside what the user asked for.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    sys.exit(main())
