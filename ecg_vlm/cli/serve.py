"""`ecg-vlm serve`: a page and an API on this machine."""

from __future__ import annotations

import argparse

from ecg_vlm.cli.arguments import Parser, port, positive

HELP = "a page and an API on this machine"
EXTRA = "serve"
DESCRIPTION = (
    "Serve a page for people and an API for programs, OpenAI's chat completions among it. Nothing leaves this machine, "
    "and no upload is written to disk. Not a medical device: nothing it says is a diagnosis."
)
EXAMPLES = """\
  ecg-vlm serve --open
  ecg-vlm serve --model nano --model runs/mine --host 0.0.0.0
  ecg-vlm serve --backend openai:http://127.0.0.1:8001/v1"""


def add_arguments(parser: Parser) -> None:
    """Models, address, who may ask."""
    parser.add_argument("--model", action="append", dest="models", metavar="MODEL", help="nano (default), the folder "
                        "of a run, or a hub id; with --backend its name there (repeatable)")  # fmt: skip
    parser.add_argument("--backend", metavar="openai:URL", help="a server such as vLLM gives the answers; pages "
                        "are read and measured here. OPENAI_API_KEY is its key")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine "
                        "alone; any other needs a token, and one is made where none is given)")  # fmt: skip
    parser.add_argument("--port", type=port, default=8571, help="default 8571; 0 takes any that is free")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--token", help="that clients must send as a bearer; better in ECG_VLM_TOKEN, where no list of "
                        "processes shows it")  # fmt: skip
    parser.add_argument("--allowed-host", action="append", default=[], dest="names", metavar="NAME",
                        help="a name of this server, behind a proxy for example (repeatable)")  # fmt: skip
    parser.add_argument("--workers", type=positive, help="processes that read pages (default: one a core, at most 4)")
    parser.add_argument("--queue", type=positive, default=128, help="requests that may wait (default 128)")


def run(arguments: argparse.Namespace) -> None:
    """Load the models, and serve until Ctrl-C."""
    from ecg_vlm.serve.server import serve

    serve(arguments)
