"""`ecg-vlm completion`: a script with which a shell completes commands and options."""

from __future__ import annotations

import argparse

from ecg_vlm.cli.arguments import Parser

HELP = "a script that completes commands and options in a shell"
DESCRIPTION = "Print the completion script of a shell."
EXAMPLES = """\
  eval "$(ecg-vlm completion bash)"
  ecg-vlm completion zsh > ~/.zfunc/_ecg-vlm"""


def add_arguments(parser: Parser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="bash, zsh or tcsh")


def run(arguments: argparse.Namespace) -> None:
    """Print the script."""
    import shtab

    from ecg_vlm.cli import build_parser

    print(shtab.complete(build_parser(), shell=arguments.shell))
