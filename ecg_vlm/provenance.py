"""Where figures come from: names of systems, what a model was tuned and calibrated on, versions, commit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ecg_vlm.pages import Pages
from eval.metrics.calibration import CALIBRATION_FILE, Calibration, read_calibration
from eval.storage import ANSWERS, SCORES
from eval.types import LabelledRecords
from recipes.run_folder import is_run, read_run
from render.dataset.parquet import dataset_digest
from render.errors import InputError
from render.io import read_json_object, text_digest
from render.record import SIMULATED_ID

RESULT_FILES = (".parquet", ".csv", ".tsv", ".npy", ".json", ".jsonl")
"""Suffixes of files of predictions and of answers, which may be named in place of a model."""

TRAINING_FILE = "training.json"
"""Beside predictions: record_ids and patients of the training, written by `ecg-vlm baseline predict`."""

_NANO = "nano was trained on simulated ECGs of this project alone, on no real record"
_PACKAGES = ("ecg-vlm", "torch", "transformers", "peft", "trl", "numpy")
_REMEDY = "judge other pages (--folds, --data), or add --force, and the report will have a warning"


def contamination(model: str, records: LabelledRecords, force: bool) -> str:
    """Whether a model was tuned on records or patients that are judged, in one line for the report.

    Raises:
        InputError: When it was, unless `force` is true.
    """
    beside = Path(model).with_name(TRAINING_FILE)
    if model.endswith(RESULT_FILES) and beside.is_file():
        about = read_json_object(beside, "predict again with ecg-vlm baseline predict")
        known_records, known_patients = (tuple(map(str, about.get(key) or ())) for key in ("record_ids", "patients"))
    elif model.endswith(RESULT_FILES):
        return f"{model}: not checked; a file does not say what its model was trained on"
    elif model == "nano":
        if simulated := sum(record_id.startswith(SIMULATED_ID) for record_id in records.record_ids):
            return f"{_NANO}; not checked for the {simulated:,} simulated records judged here"
        return f"{_NANO}; none is judged here"
    elif not is_run(model):
        return f"{model}: not checked; only runs of ecg-vlm finetune say what they were tuned on"
    else:
        facts = read_run(Path(model))
        known_records, known_patients = facts.records, facts.patients
    tuning_records, tuning_patients = set(known_records), set(known_patients) - {""}
    records_in_both, patients = tuning_records & set(records.record_ids), tuning_patients & set(records.patients)
    if not records_in_both and not patients:
        return (
            f"{model}: none of the {len(tuning_records):,} records and {len(tuning_patients):,} patients it was tuned "
            "on is judged here"
        )
    line = f"{model}: tuned on {len(records_in_both)} of the records and {len(patients)} of the patients judged here"
    if not force:
        raise InputError(f"{line}; {_REMEDY}")
    return f"WARNING: {line}; judged all the same (--force), so its figures are too good"


def system_names(specs: Sequence[str]) -> dict[str, str]:
    """Model or file -> its name in tables: short where that is unique, the whole path otherwise."""
    if len(set(specs)) != len(specs):
        raise InputError(f"--compare: {', '.join(specs)}: one system occurs twice; name each once")
    short = [short_name(spec) for spec in specs]
    return {spec: name if short.count(name) == 1 else spec for spec, name in zip(specs, short, strict=True)}


def short_name(spec: str) -> str:
    """A model's name in a table."""
    path = Path(spec)
    if spec == "nano":
        return "nano, untuned"
    if is_run(path):
        return f"{Path(read_run(path).base).name}, tuned"
    if path.name in (SCORES, ANSWERS):
        return path.resolve().parent.name
    return path.stem if spec.endswith(RESULT_FILES) else path.name


def calibration_path(spec: str) -> Path | None:
    """Where a system's calibration is: in its run's folder, or beside its scores; None for any other model."""
    path = Path(spec)
    if spec.endswith(RESULT_FILES):
        return path.with_name(CALIBRATION_FILE)
    return path / CALIBRATION_FILE if is_run(path) else None


def frozen_calibrations(
    names: Mapping[str, str], records: LabelledRecords, *, first: Path | None = None, force: bool = False
) -> dict[str, Calibration]:
    """Name -> calibration of every system that has one. names: model or file -> name; first: the file for the first.

    Raises:
        InputError: For one that was fitted on records or patients that are judged, unless `force` is true.
    """
    calibrations = {}
    for i, (spec, name) in enumerate(names.items()):
        path = first if first and i == 0 else calibration_path(spec)
        if path is None or not (path.is_file() or path == first):
            continue
        calibration = calibrations[name] = read_calibration(path)
        line = calibration.overlap(records)
        if line and not force:
            raise InputError(f"{line}; {_REMEDY}")
    return calibrations


def evaluation_request(
    names: Mapping[str, str], pages: Pages, controls: Sequence[object], seed: int
) -> dict[str, object]:
    """All that results of single batches depend on: an evaluation is resumed with the same alone.

    names: model or file -> name.
    """
    labels = (pages.record_ids, tuple(map(tuple, pages.rows["statements"])), tuple(pages.places), len(pages.unreadable))
    return {
        **systems_request(names),
        "pages": text_digest(*map(dataset_digest, pages.folders), labels),
        "controls": list(controls),
        "seed": seed,
    }


def systems_request(systems: Iterable[str]) -> dict[str, object]:
    """What results depend on besides the pages: the models and files, and the versions of what runs them."""
    return {
        "systems": list(systems),
        "files": {spec: _files_digest(Path(spec)) for spec in systems},
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _files_digest(path: Path) -> str:
    """Of the names, sizes and times of a model's files; "" where it is no folder or file here."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return text_digest(*((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()))


def tuning(model: str) -> dict[str, object]:
    """The facts about tuning in the `run.json` of a run of `ecg-vlm finetune`; empty for any other model."""
    if not is_run(model):
        return {}
    facts = read_run(Path(model))
    keys = ("base", "pages", "steps", "seconds", "parameters", "trained_parameters")
    return {key: getattr(facts, key) for key in keys}


def training(model: str) -> str:
    """What a model was trained on, in a sentence; "" where that is not known here."""
    if model == "nano":
        return _NANO
    if not is_run(model):
        return ""
    facts = read_run(Path(model))
    base = f"; {_NANO}" if facts.base == "nano" else f"; what {facts.base} had learnt before is not known here"
    records = f"{len(facts.records):,} records and {len(facts.patients):,} patients"
    return f"tuned from {Path(facts.base).name} with ecg-vlm on {facts.pages:,} pages of {records}{base}"


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
