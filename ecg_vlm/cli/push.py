"""What a command wrote -> a repository of huggingface.co, or a list of what would be sent."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ecg_vlm.cli.arguments import Parser
from ecg_vlm.cli.progress import waiting
from render.errors import InputError, WorkFailed

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_PRIVATE = ("begun.json", "manifest.json")
"""Never sent: the files of `render` that may name folders of this machine. Nor are hidden files."""


def add_push(parser: Parser, option: str, result: str) -> None:
    """`option` and --dry-run. result: what is sent, for the help."""
    parser.add_argument(
        option,
        dest="push",
        type=_repository,
        metavar="OWNER/NAME",
        help=f"send the {result} to huggingface.co; a new repository is private",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help=f"with {option}: list the files and show the card, and send nothing"
    )
    parser.set_defaults(push_option=option)


def check_push(a: argparse.Namespace, *, is_folder: bool = True) -> None:
    """Raises `InputError` for options that do not go together. is_folder: whether the command writes a folder."""
    if a.dry_run and not a.push:
        raise InputError(f"--dry-run: says what {a.push_option} would send; add {a.push_option} OWNER/NAME")
    if a.push and not is_folder:
        raise InputError(f"{a.push_option}: sends a whole folder; name a folder as OUT, without --preview")


def push(a: argparse.Namespace, kind: str) -> None:
    """Send the folder `a.out`, or list what would be sent. kind: "dataset" or "model".

    Raises:
        WorkFailed: When it cannot be sent; the folder stays as it is.
    """
    if not a.push:
        return
    from huggingface_hub import CommitOperationAdd, HfApi

    paths = (
        path.relative_to(a.out) for path in sorted(a.out.rglob("*")) if path.is_file() and path.name not in _PRIVATE
    )
    names = [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
    if a.dry_run:
        print(_listing(a.out, names, a.push, kind))
        return
    try:
        with waiting(f"sending {len(names)} files to {a.push}"):
            api = HfApi()
            api.create_repo(a.push, repo_type=kind, private=True, exist_ok=True)
            files = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=a.out / name) for name in names]
            api.create_commit(a.push, files, commit_message="Written by ecg-vlm", repo_type=kind)
    except Exception as error:  # each library of the client raises its own where there is no network or no access
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        mend = "repeat the command with --resume" if kind == "dataset" else f"run: hf upload {a.push} {a.out}"
        raise WorkFailed(
            f"{a.push}: not sent ({reason}); {a.out} is complete; log in with: hf auth login, then {mend}"
        ) from error
    print(f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{a.push}: {len(names)} files")


def _repository(text: str) -> str:
    if not re.fullmatch(f"{_NAME}/{_NAME}", text) or ".." in text or "--" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no repository; write OWNER/NAME")
    return text


def _listing(folder: Path, names: list[str], repository: str, kind: str) -> str:
    """The files with their sizes, and the card."""
    sizes = [(folder / name).stat().st_size for name in names]
    lines = [f"{size:>14,} bytes  {name}" for name, size in zip(names, sizes, strict=True)]
    lines += [f"{sum(sizes):>14,} bytes  {len(names)} files for the {kind} {repository}; nothing was sent", ""]
    return "\n".join([*lines, (folder / "README.md").read_text(encoding="utf-8")])
