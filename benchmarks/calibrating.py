"""How the calibration that ships with nano was fitted, and what it is worth.

    python benchmarks/calibrating.py score ptbxl:DIR read.jsonl [--folds 1-8] [--records 300]
    python benchmarks/calibrating.py score ptbxl:DIR direct.jsonl --direct --records 2400
    python benchmarks/calibrating.py fit recipes/nano/calibration.json read.jsonl direct.jsonl
    python benchmarks/calibrating.py judge recipes/nano/calibration.json read9.jsonl

`score` draws a page of each record, of any layout and look, reads it as `ecg-vlm ask` does, and appends nano's scores
of what it is shown to the file; interrupted, it goes on behind the last one. --direct leaves out the picture: the page
is drawn from the record itself, in a tenth of the time. `fit` takes a record from the first file that has it. `judge`
prints calibration errors and decisions with and without the calibration, on records that it was not fitted on.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ecg_vlm.images import InputPage
from ecg_vlm.page_reading import read_page
from ecg_vlm.statement_scores import YES_FROM
from eval.metrics.bootstrap import calibration_error
from eval.metrics.calibration import Calibration, fit, read_calibration, write_calibration
from eval.types import Bools, Floats, LabelledRecords, System, label_matrix
from render.dataset.rows import Options, make_picture
from render.errors import InputError
from render.record import EcgRecord
from render.sources.ptbxl import LABELS_DIFFER
from render.sources.registry import open_source, parse_folds
from render.statements import STATEMENTS

WIDTH = 1600
"""Pixels of the pictures: 145 dots per inch."""

FEW = 10
"""Records with a statement, below which no threshold is fitted."""
LEAST_P = 0.05
"""Calibrated probability below which nothing is called present."""


def page_of(record: EcgRecord, seed: int, *, direct: bool) -> tuple[Image.Image, str]:
    """What the model is shown of a record, and where that comes from."""
    look = Options(layout="mixed", lenient=True) if direct else Options("mixed", "mixed", WIDTH, lenient=True)
    picture, _ = make_picture(record, seed, look)
    image = Image.open(io.BytesIO(picture.data)).convert("RGB")
    if direct:
        return image, "drawn"
    reading = read_page(InputPage(image))
    return reading.view, reading.source


def score(source: str, out: Path, folds: str, count: int, *, direct: bool) -> None:
    """Append a line for each of `count` records, spread evenly over the folds."""
    from ecg_vlm.reader import Reader

    torch.set_num_threads(1)
    records = open_source(source, folds=parse_folds(folds))
    count = min(count, len(records))
    places = [k * len(records) // count for k in range(count)]
    line_count = len(out.read_text().splitlines()) if out.is_file() else 0
    reader = Reader.load("nano")
    with out.open("a", encoding="utf-8") as stream:
        for place in places[line_count:]:
            line: dict[str, Any] = {"place": place}
            try:
                record = records.read(place)
                view, kind = page_of(record, place, direct=direct)
                line |= {
                    "record_id": record.record_id, "fold": record.fold, "patient": record.patient_id,
                    "statements": sorted(record.statements), "view": kind,
                    "scores": [round(p, 7) for p in reader.score_many([view])[0].tolist()],
                }  # fmt: skip
            except InputError as error:
                line["error"] = str(error)
            stream.write(json.dumps(line) + "\n")
            stream.flush()


def read_scores(files: Sequence[Path]) -> tuple[System, LabelledRecords]:
    """Nano's scores and the labels of all lines that have them, each record once. Records whose labels differ between
    PTB-XL's versions are left out."""
    lines: dict[str, dict[str, Any]] = {}
    for line in (json.loads(text) for file in files for text in file.read_text(encoding="utf-8").splitlines()):
        if "scores" in line and line["record_id"] not in LABELS_DIFFER:
            lines.setdefault(line["record_id"], line)
    ids, rows = tuple(lines), list(lines.values())
    from_pictures = sum(row["view"] != "drawn" for row in rows)
    records = LabelledRecords(
        ids,
        tuple(tuple(row["statements"]) for row in rows),
        f"PTB-XL 1.0.3, folds {min(row['fold'] for row in rows)} to {max(row['fold'] for row in rows)} "
        f"({from_pictures} read from pictures)",
        folds=tuple(row["fold"] for row in rows),
        patients=tuple(row["patient"] for row in rows),
    )
    return System("nano", ids, np.array([row["scores"] for row in rows])), records


def fit_shipped(files: Sequence[Path]) -> Calibration:
    """The calibration that ships. Its threshold is the largest of three scores:

    - the model's own yes: the best F1 of NORM, which every second page has, would call a page normal at a third;
    - that of the best F1, where `FEW` records or more have the statement: on fewer it is a matter of chance;
    - that of a probability of `LEAST_P`: of rare and hard statements the model's yes is right less often.
    """
    calibration = fit(*read_scores(files))
    curves = {}
    for code, curve in calibration.curves.items():
        best = curve.threshold if curve.positives >= FEW else 0.0
        logit = (math.log(LEAST_P / (1 - LEAST_P)) - curve.offset) / curve.slope
        curves[code] = replace(curve, threshold=max(YES_FROM, best, 1 / (1 + math.exp(-logit))))
    return replace(calibration, curves=curves)


def figures(labels: Bools, scores: Floats, decisions: Bools) -> dict[str, float]:
    """Figures of (n, 71) labels, probabilities and decisions; F1 and sensitivity of the statements that occur."""
    present = labels.any(axis=0)
    hits, misses = (decisions & labels).sum(axis=0), (~decisions & labels).sum(axis=0)
    false = (decisions & ~labels).sum(axis=0)
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    return {
        "ECE (%)": 100 * float(calibration_error(labels, scores).mean()),
        "Brier": float(((scores - labels) ** 2).mean()),
        "log loss": -float(np.where(labels, np.log(p), np.log1p(-p)).mean()),
        "macro-F1": float((2 * hits / np.maximum(2 * hits + false + misses, 1))[present].mean()),
        "micro-F1": float(2 * hits.sum() / (2 * hits.sum() + false.sum() + misses.sum())),
        "sensitivity": float((hits / np.maximum(hits + misses, 1))[present].mean()),
        "false alarms a page": float(false.sum() / len(labels)),
    }


def judge(file: Path, scores: Sequence[Path]) -> None:
    """Print a row with and one without the calibration. Raises `InputError` for records that it was fitted on."""
    calibration = read_calibration(file)
    system, records = read_scores(scores)
    if line := calibration.overlap(records):
        raise InputError(line)
    labels, _ = label_matrix(records.statements, "all")
    values = system.scores_of(records.record_ids)
    thresholds = [calibration.curves[code].threshold if code in calibration.curves else YES_FROM for code in STATEMENTS]
    rows = {
        "as given": figures(labels, values, values >= YES_FROM),
        "calibrated": figures(labels, calibration.apply(values), values >= np.array(thresholds)),
    }
    print(f"{len(records.record_ids)} records, {records.dataset}")
    print(f"| | {' | '.join(rows['as given'])} |")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in row.values())} |")


def main(words: Sequence[str] | None = None) -> None:
    """Score, fit or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("score")
    step.add_argument("source", metavar="ptbxl:DIR")
    step.add_argument("out", type=Path)
    step.add_argument("--folds", default="1-8")
    step.add_argument("--records", type=int, default=300)
    step.add_argument("--direct", action="store_true")
    for name in ("fit", "judge"):
        step = steps.add_parser(name)
        step.add_argument("calibration", type=Path)
        step.add_argument("scores", type=Path, nargs="+")
    a = parser.parse_args(words)
    if a.step == "score":
        score(a.source, a.out, a.folds, a.records, direct=a.direct)
    elif a.step == "fit":
        write_calibration(a.calibration, fit_shipped(a.scores))
    else:
        judge(a.calibration, a.scores)


if __name__ == "__main__":
    main()
