"""The command line: `ecg-vlm COMMAND ...`. One file a command: its arguments, its help, and what it does.

Heavy imports stand inside the commands, so that --help answers at once.
Exit codes: 0 done, 1 the work failed, 2 the input is wrong (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from types import ModuleType

from ecg_vlm import __version__
from ecg_vlm.cli import progress
from ecg_vlm.cli.arguments import Parser, add_common_options
from render.errors import InputError, WorkFailed, disk_failure, is_memory_full, is_text
from render.suggest import did_you_mean

COMMANDS = (
    "render", "digitize", "finetune", "ask", "evaluate", "calibrate", "compare", "baseline", "parse", "export",
    "serve", "doctor", "list", "completion",
)  # fmt: skip
"""Each is a module of this package with HELP, DESCRIPTION, EXAMPLES, `add_arguments` and `run`, and with EXTRA where it
needs an extra of pyproject.toml."""

# Packages of extras that any command may need, depending on what it is given.
_EXTRA_OF_PACKAGE = {
    "bitsandbytes": "quantized",
    **dict.fromkeys(("ray", "upath"), "cluster"),
    **dict.fromkeys(("fpdf", "pillow_heif", "pydicom", "pypdfium2"), "formats"),
}


_STORAGE_PACKAGES = ("botocore", "aiohttp", "gcsfs", "google", "azure", "adlfs")

_WRONG_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
"""What the system says of a place that a person named and that cannot be written: wrong input, not failed work."""

_LESS_MEMORY = "close other programs, or take smaller pages, fewer --workers or a smaller recipe"
_SMALLER_MODEL = "close other programs, or try --batch 1, --quantization nf4, --dtype bfloat16 or --device cpu"
_REPORT_IT = "run it again with --verbose, and report what it prints at https://github.com/ecg-vlm/ecg-vlm/issues"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    with redirect_stdout(progress.PrintableOutput(sys.stdout)) if sys.stdout.isatty() else nullcontext():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else [*argv])
        progress.configure(quiet=arguments.quiet, verbose=arguments.verbose)
        arguments.own_process = argv is None  # called by a program, a command may not change how libraries start
        if arguments.own_process and not arguments.verbose:
            sys.unraisablehook = lambda failure: None  # of objects and threads half made, for lack of memory or files
        arguments.run(arguments)
    except InputError as error:
        if error.__cause__ and (line := _machine_failure(error.__cause__, arguments)):  # taken for damage by a reader
            return _fail(line, 1)
        return _fail(error, 2)
    except WorkFailed as error:
        return _fail(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = _EXTRA_OF_PACKAGE.get(package) or arguments.extra
        if not extra or package in ("ecg_vlm", "render", "recipes", "eval"):
            return _report_fault(error, argv)
        return _fail(f"{error.name} is not installed; run: pip install 'ecg-vlm[{extra}]'", 2)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted; finished shards, batches and checkpoints stay (--resume goes on)", 130)
    except BrokenPipeError:  # `ecg-vlm parse | head` closes our stdout; that is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            mend = "; name another place" if error.errno in _WRONG_PLACE else ""
            return _fail(f"{error.filename or 'disk'}: {error.strerror}{mend}", 2 if mend else 1)
        if line := _machine_failure(error, arguments):
            return _fail(line, 1)
        if _is_of_storage(error):
            return _fail(f"storage: {error}", 1)
        return _report_fault(error, argv)
    return 0


def _machine_failure(error: BaseException, arguments: argparse.Namespace) -> str:
    """The line about a machine without memory or room on its disk; "" for any other error."""
    if is_memory_full(error):
        reason = (str(error).strip() or "allocation failed").splitlines()[0].partition(" GPU ")[0]
        mend = _SMALLER_MODEL if hasattr(arguments, "quantization") else _LESS_MEMORY
        return f"not enough memory ({reason}); {mend}"
    reason = disk_failure(error)
    return f"disk: {reason}" if reason else ""


def _is_of_storage(error: Exception) -> bool:
    """Whether an object store did not answer, knows no such place, or wants other credentials."""
    kinds = {type(each).__module__.partition(".")[0] for each in (error, error.__cause__)}
    return not kinds.isdisjoint(_STORAGE_PACKAGES)


def _report_fault(error: Exception, argv: Sequence[str] | None) -> int:
    """One line about an error that no one foresaw. Raises it where a program has called us, as the tests do."""
    if argv is not None:
        raise error
    if "--verbose" in sys.argv:
        traceback.print_exception(error)
    reason = str(error).partition("\n")[0][:200]
    return _fail(f"unexpected {type(error).__name__}: {reason}; {_REPORT_IT}", 1)


_LONGEST_LINE = 900


def _fail(message: object, code: int) -> int:
    line = str(message).replace("\n", "\\n")
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    print(f"ecg-vlm: {progress.printable(line)}", file=sys.stderr)
    return code


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of one call. Raises `InputError`; exits after --help, --version and a call without words."""
    parser = build_parser()
    for word in words:
        if "\0" in word or not is_text(word):
            raise InputError(f"argument {word!r}: is no text in UTF-8; rename the file")
    command = next((word for word in words if not word.startswith("-")), "")
    if command and command not in COMMANDS:
        raise InputError(f"{command}: no such command{did_you_mean(command, COMMANDS)}; see ecg-vlm --help")
    arguments, rest = parser.parse_known_args(words)
    # argparse takes positionals in one place only; overrides of a recipe may stand behind options too.
    if rest and not (hasattr(arguments, "overrides") and all("=" in word and word[0] != "-" for word in rest)):
        option = rest[0].partition("=")[0]
        hint = did_you_mean(option, arguments.options)
        raise InputError(f"unknown argument {option}{hint}; see {f'ecg-vlm {command}'.rstrip()} --help")
    if rest:
        arguments.overrides += rest
    return arguments


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="ecg-vlm",
        description="Tune and ask vision-language models that read ECG images, and judge their answers.",
        epilog="Not a medical device: nothing it prints is a diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"ecg-vlm {__version__}")
    add_common_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    parser.set_defaults(run=lambda arguments: parser.print_help(), options=(), extra="")
    for name in COMMANDS:
        module: ModuleType = import_module(f"ecg_vlm.cli.{name}")
        command = commands.add_parser(
            name, help=module.HELP, description=module.DESCRIPTION, epilog=f"examples:\n{module.EXAMPLES}"
        )
        command.set_defaults(run=module.run, extra=getattr(module, "EXTRA", ""))
        module.add_arguments(command)
        add_common_options(command)
        command.set_defaults(options=command.option_strings())
    return parser
