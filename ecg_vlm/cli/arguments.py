"""What the commands' arguments share: the parser, and the kinds of values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from render.errors import InputError

if TYPE_CHECKING:
    from render.workers import Workers


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help in which an option's value is called by what it is: --limit N, --folds FOLDS."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        names: dict[object, str] = {
            positive: "N", seed: "N", page_width: "PIXELS", folds: "FOLDS", minutes: "TIME", word_list: "WORDS",
        }  # fmt: skip
        return names.get(action.type) or super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """argparse with its usage errors as one line, and examples below the help as they are written."""

    def __init__(self, **keywords: object) -> None:
        keywords.setdefault("formatter_class", _HelpFormatter)
        super().__init__(**keywords)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise the message as an `InputError`."""
        raise InputError(f"{self.prog.removeprefix('ecg-vlm ')}: {message}; see {self.prog} --help")

    def option_strings(self) -> tuple[str, ...]:
        """Every option that this parser knows, for suggestions."""
        return tuple(name for action in self._actions for name in action.option_strings)


def add_common_options(parser: Parser) -> None:
    """--quiet and --verbose, before the command or behind it."""
    for name, text in (
        ("--quiet", "no progress on the screen, only results and errors"),
        ("--verbose", "show the log messages and warnings of the libraries"),
    ):
        # Without SUPPRESS the command's default would replace what was given before the command.
        default = argparse.SUPPRESS if " " in parser.prog else False
        parser.add_argument(name, action="store_true", default=default, help=text)


def add_data(parser: Parser, text: str, *, required: bool = True) -> None:
    """--data, once or several times. text: what it names."""
    parser.add_argument("--data", action="append", required=required, default=[], help=f"{text} (repeatable)")


def add_table(parser: Parser) -> None:
    """--table, for results that go into a paper."""
    parser.add_argument(
        "--table",
        choices=("latex", "markdown", "csv"),
        help="print the results as a table of this format instead, with intervals and paired differences",
    )


def add_sampling_rate(parser: Parser) -> None:
    """--sampling-rate, for waveform files."""
    parser.add_argument(
        "--sampling-rate",
        type=positive,
        metavar="HZ",
        help="of a waveform file that does not give it (.npy, .csv without a column of times)",
    )


def add_loading(parser: Parser, *, batch: bool = True) -> None:
    """How a model is loaded: --dtype, --quantization, --device and, where images are looked at in batches, --batch."""
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="",
        help="type of the weights (default: that in which the model was tuned or saved)",
    )  # fmt: skip
    parser.add_argument(
        "--quantization", choices=("none", "nf4"), default="",
        help="nf4: weights in 4 bits, a quarter of the memory (default: as the model was tuned)",
    )  # fmt: skip
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ... (default: the GPU where there is one)")
    if batch:
        parser.add_argument(
            "--batch",
            type=positive,
            default=0,
            metavar="N",
            help="images in a forward pass (default 8; of a large model 2)",
        )


def add_engine(parser: Parser, *, workers: str, ray: str) -> None:
    """--workers, and --engine and --address for those of a cluster, with their help; `workers_of` reads them."""
    parser.add_argument("--workers", type=positive, help=workers)
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help=ray)
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the Ray cluster: auto or HOST:PORT (default: $RAY_ADDRESS, else this machine alone)",
    )


def refuse_workers(arguments: argparse.Namespace) -> None:
    """Raise `InputError` where a model of this process alone is asked for with several."""
    if arguments.engine == "local" and arguments.workers:
        raise InputError(
            f"--workers {arguments.workers}: one process holds a model here; leave it out or add --engine ray"
        )


@contextmanager
def workers_of(arguments: argparse.Namespace, *, has_model: bool = False) -> Iterator[int | Workers]:
    """What `add_engine`'s options ask for. Raises `InputError` for a cluster that cannot be reached.

    has_model: as of `render.cluster.ray_cluster`.
    """
    if arguments.engine == "local":
        if arguments.address is not None:
            raise InputError(f"--address {arguments.address}: is that of a Ray cluster; add --engine ray")
        yield arguments.workers or 1
        return
    from render.cluster import ray_cluster

    with ray_cluster(arguments.address, arguments.workers, has_model=has_model) as cluster:
        yield cluster


def loading(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given of `add_loading`'s options, as keyword arguments of `Reader.load`."""
    values = {name: getattr(arguments, name, "") for name in ("dtype", "quantization", "device", "batch")}
    return {name: value for name, value in values.items() if value}


def minutes(text: str) -> float:
    """Minutes from "90m", "2.5h" or "600s"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text.strip())
    value = float(match[1]) * {"s": 1 / 60, "m": 1, "h": 60}[match[2]] if match else 0.0
    if not 0 < value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90m, 2.5h or 600s")
    return value


def folds(text: str) -> tuple[int, ...]:
    """Fold numbers from "1-8", "9" or "1-3,5"."""
    from render.sources.registry import parse_folds

    try:
        return parse_folds(text)
    except InputError as error:  # argparse would replace the message of a ValueError by its own
        raise argparse.ArgumentTypeError(str(error).removeprefix("--folds ")) from error


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1, 10_000_000)


def seed(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0, 2**31 - 1)


def port(text: str) -> int:
    """A port of TCP; 0 is any free one."""
    return _whole(text, 0, 65_535)


def page_width(text: str) -> int:
    """Pixels: 1 to 16 per mm on every paper there is."""
    return _whole(text, 300, 4470)


def dpi(text: str) -> int:
    """Dots per inch."""
    return _whole(text, 30, 400)


def folder_or_url(text: str) -> Path:
    """A path, or what behaves like one of a URL."""
    from render.io import user_path

    try:
        return user_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share(text: str) -> float:
    """A number from 0 to 1."""
    if not re.fullmatch(r"0?\.\d+|0|1|1\.0+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1, such as 0.1")
    return float(text)


def word_list(text: str) -> tuple[str, ...]:
    """Words joined by commas."""
    return tuple(word.strip() for word in text.split(","))


def _whole(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return value
