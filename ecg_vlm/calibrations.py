"""Frozen calibrations: where they lie, and the refusal to judge on what they were fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecg_vlm.provenance import FILES
from eval.metrics.calibration import FILE, Calibration, read_calibration
from eval.types import LabelledRecords
from render.errors import InputError


def calibration_place(spec: str) -> Path | None:
    """Where a system's calibration lies: in its run's folder, or beside its scores; None for any other model."""
    path = Path(spec)
    if spec.endswith(FILES):
        return path.with_name(FILE)
    return path / FILE if (path / "run.json").is_file() else None


def frozen_calibrations(
    names: Mapping[str, str], records: LabelledRecords, *, given: Path | None = None, force: bool = False
) -> dict[str, Calibration]:
    """Name -> calibration of every system that has one. names: model or file -> name; given: the file for the first.

    Raises `InputError` for one that was fitted on records or patients that are judged, unless forced.
    """
    found = {}
    for i, (spec, name) in enumerate(names.items()):
        place = given if given and i == 0 else calibration_place(spec)
        if place is None or not (place.is_file() or place == given):
            continue
        calibration = found[name] = read_calibration(place)
        line = calibration.overlap(records)
        if line and not force:
            raise InputError(f"{line}; judge on other pages (--folds, --data), or say --force to have it in the report")
    return found
