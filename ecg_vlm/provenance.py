"""Where figures come from: names of systems, what a model was tuned on, versions, commit."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from eval.types import LabelledRecords
from recipes.checkpoint import read_run
from render.errors import InputError

FILES = (".parquet", ".csv")
"""Endings of files of scores, in place of a model."""

_PACKAGES = ("ecg-vlm", "torch", "transformers", "peft", "trl", "numpy")


def contamination(model: str, records: LabelledRecords, force: bool) -> str:
    """Whether a model was tuned on records or patients that are judged, in one line for the report.

    Raises `InputError` when it was, unless forced.
    """
    if model.endswith(FILES):
        return f"{model}: not checked; a file of scores does not say what its model was trained on"
    if not (Path(model) / "run.json").is_file():
        return f"{model}: not checked; only runs of ecg-vlm finetune say what they were tuned on"
    facts = read_run(Path(model))
    tuned, known = set(facts["records"]), set(facts["patients"]) - {""}
    seen, patients = tuned & set(records.record_ids), known & set(records.patients)
    if not seen and not patients:
        return f"{model}: none of the {len(tuned):,} records and {len(known):,} patients it was tuned on is judged here"
    line = f"{model}: tuned on {len(seen)} of the records and {len(patients)} of the patients judged here"
    if not force:
        raise InputError(f"{line}; judge on other pages (--folds, --data), or say --force to have it in the report")
    return f"WARNING: {line}; judged all the same (--force), so its figures flatter"


def system_names(specs: Sequence[str]) -> dict[str, str]:
    """Model or file -> its name in tables: short where that tells the systems apart, the whole path otherwise."""
    if len(set(specs)) != len(specs):
        raise InputError(f"--compare: {', '.join(specs)}: one system stands twice; name each once")
    short = [short_name(spec) for spec in specs]
    return {spec: name if short.count(name) == 1 else spec for spec, name in zip(specs, short, strict=True)}


def short_name(spec: str) -> str:
    """A model's name in a table."""
    path = Path(spec)
    if spec == "nano":
        return "nano, untuned"
    if (path / "run.json").is_file():
        return f"{Path(read_run(path)['base']).name}, tuned"
    if path.suffix == ".csv":
        return path.stem
    return path.parent.name if path.suffix == ".parquet" else path.name


def tuning(model: str) -> dict[str, object]:
    """What a run of `ecg-vlm finetune` says of itself; empty for any other model."""
    if not (Path(model) / "run.json").is_file():
        return {}
    facts = read_run(Path(model))
    shown = ("base", "pages", "steps", "seconds", "parameters", "trained_parameters")
    return {key: facts[key] for key in shown if key in facts}


def versions() -> dict[str, str]:
    """Versions of the packages that figures depend on, and the commit."""
    return {name: _version(name) for name in _PACKAGES} | {"commit": commit()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of the checkout this code runs from, "-dirty" when changed; "installed" outside a checkout."""
    here = Path(__file__).parent.parent
    if not (here / ".git").exists():
        return "installed"
    call = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return call.stdout.strip() or "unknown"
