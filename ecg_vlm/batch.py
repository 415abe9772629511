"""Whole data sets: score and ask every page, keep what was said, write the report."""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ecg_vlm.reader import Reader, read_run
from eval.protocol import System, read_answer, read_answers, read_scores, write_answers, write_scores
from eval.report import Evaluated, Example, Report, write_report
from recipes.model import NANO
from render.data.dataset import open_dataset
from render.files import InputError
from render.sources.ptbxl import LABELS_DIFFER
from render.statements import STATEMENTS

OPEN_QUESTION = "What does this ECG show?"
_BATCH = 8
_GALLERY = 6
_MAX_NEW_TOKENS = 96

Show = Callable[[str, int, int], None]
"""Called with (what, done, in all)."""


@dataclass(frozen=True)
class Pages:
    """The held-out pages of a data set: rows with `image`, `statements`, `record_id`, `patient_id`."""

    rows: Any
    folder: str

    @property
    def record_ids(self) -> tuple[str, ...]:
        """Record ids in row order."""
        return tuple(self.rows["record_id"])

    def evaluated(self) -> Evaluated:
        """The labels, for the judge."""
        return Evaluated(self.record_ids, tuple(tuple(s) for s in self.rows["statements"]), self.folder)


def held_out_pages(folder: str, folds: Sequence[int] = (), limit: int = 0) -> Pages:
    """The pages to be judged. PTB-XL records whose labels differ between its versions are left out.

    Raises `InputError` when none is left or a record stands twice.
    """
    rows = open_dataset(folder)
    keep = [
        i
        for i, (source, record, fold) in enumerate(zip(rows["source"], rows["record_id"], rows["fold"], strict=True))
        if (not folds or fold in folds) and not (source == "ptbxl" and record in LABELS_DIFFER)
    ]
    if limit:
        keep = keep[:limit]
    if not keep:
        raise InputError(f"{folder}: no page in fold {', '.join(map(str, folds))}; choose other --folds")
    return Pages(rows.select(keep), folder)


def refuse_overlap(model: str, pages: Pages, force: bool) -> str:
    """Refuse to judge a model on records or patients it was tuned on; with `force`, return the line for the report."""
    if not (Path(model) / "run.json").is_file():
        return ""
    facts = read_run(Path(model))
    records = set(facts["records"]) & set(pages.record_ids)
    patients = (set(facts["patients"]) & set(pages.rows["patient_id"])) - {""}
    if not records and not patients:
        return ""
    line = f"{model}: tuned on {len(records)} of the records and {len(patients)} of the patients judged here"
    if not force:
        raise InputError(f"{line}; judge on other pages (--folds, --data), or say --force to have it in the report")
    return line


def run_system(model: str, name: str, pages: Pages, out: Path, show: Show) -> System:
    """Score and ask every page with one model; `answers.jsonl` and `scores.parquet` are kept in `out`."""
    reader = Reader.load(model)
    scores, answers = [], []
    decoding = {"do_sample": False, "max_new_tokens": _MAX_NEW_TOKENS}
    began = time.monotonic()
    for start in range(0, len(pages.rows), _BATCH):
        part = pages.rows[start : start + _BATCH]
        scores.append(reader.score_many(part["image"]))
        texts = reader.ask_many(part["image"], OPEN_QUESTION, max_new_tokens=_MAX_NEW_TOKENS)
        answers += [
            read_answer(record, OPEN_QUESTION, text, decoding)
            for record, text in zip(part["record_id"], texts, strict=True)
        ]
        show(name, len(answers), len(pages.rows))
    seconds = time.monotonic() - began
    matrix = np.concatenate(scores)
    write_scores(out / "scores.parquet", pages.record_ids, matrix)
    write_answers(out / "answers.jsonl", answers)
    notes = f"{model}; {len(answers) / seconds:.1f} pages/s (71 scores and one answer each)"
    return System(name, pages.record_ids, matrix, tuple(answers), notes)


def kept_system(file: Path, name: str, pages: Pages) -> System:
    """A system whose `scores.parquet` is there already: a CNN's, an earlier run's, somebody else's."""
    ids, matrix = read_scores(file)
    row = {record: i for i, record in enumerate(ids)}
    missing = [record for record in pages.record_ids if record not in row]
    if missing:
        raise InputError(
            f"{file}: no scores for {len(missing)} of the pages, record {missing[0]} first; predict them all"
        )
    order = [row[record] for record in pages.record_ids]
    kept = file.with_name("answers.jsonl")
    wanted = set(pages.record_ids)
    answers = tuple(a for a in read_answers(kept) if a.record_id in wanted) if kept.is_file() else ()
    return System(name, pages.record_ids, matrix[order], answers, f"kept scores of {file}")


def evaluate(
    model: str,
    pages: Pages,
    out: Path,
    *,
    compare: Sequence[str] = (),
    force: bool = False,
    show: Show = lambda what, done, total: None,
) -> Report:
    """Judge `model` and the systems it is compared with on `pages`, and write the report into `out`.

    compare: "nano", run folders, hub ids or `scores.parquet` files; the model's difference to each is reported.
    """
    names = _names([model, *compare])
    warnings = [refuse_overlap(m, pages, force) for m in (model, *compare)]
    systems = []
    for spec, name in names.items():
        if spec.endswith(".parquet"):
            systems.append(kept_system(Path(spec), name, pages))
        else:
            folder = out if spec == model else out / "compared" / name.replace("/", "-")
            systems.append(run_system(spec, name, pages, folder, show))
    return write_report(
        out,
        title=f"{names[model]} on {len(pages.rows)} ECG pages",
        records=pages.evaluated(),
        systems=systems,
        compare=[(systems[0].name, other.name) for other in systems[1:]],
        examples=_gallery(systems, pages),
        meta=_meta(model, pages, [w for w in warnings if w]),
    )


def _names(specs: Sequence[str]) -> dict[str, str]:
    """Model or file -> its name in tables: short where that tells the systems apart, the whole path otherwise."""
    if len(set(specs)) != len(specs):
        raise InputError(f"--compare: {', '.join(specs)}: one system stands twice; name each once")
    short = [_short_name(spec) for spec in specs]
    return {spec: name if short.count(name) == 1 else spec for spec, name in zip(specs, short, strict=True)}


def _short_name(spec: str) -> str:
    path = Path(spec)
    if spec == NANO:
        return f"{NANO}, untuned"
    if (path / "run.json").is_file():
        return f"{Path(read_run(path)['base']).name}, tuned"
    return path.parent.name if path.suffix == ".parquet" else path.name


def _gallery(systems: Sequence[System], pages: Pages) -> list[Example]:
    """Example pages with the answers of the first two speaking systems: the first pages, not chosen ones."""
    speaking = [system for system in systems if system.answers]
    if not speaking:
        return []
    after, before = speaking[0], (speaking[1] if len(speaking) > 1 else speaking[0])
    examples = []
    for i in range(min(_GALLERY, len(pages.rows))):
        row = pages.rows[i]
        png = io.BytesIO()
        row["image"].convert("P", palette=1, colors=64).save(png, "PNG")
        examples.append(
            Example(
                png.getvalue(),
                OPEN_QUESTION,
                before.answers[i].answer,
                after.answers[i].answer,
                tuple(row["statements"]),
                row["record_id"],
            )
        )
    return examples


def _meta(model: str, pages: Pages, warnings: Sequence[str]) -> dict[str, object]:
    """Everything needed to make the report again."""
    packages = ("ecg-vlm", "torch", "transformers", "peft", "trl", "numpy")
    meta: dict[str, object] = {
        "data": {
            "folder": pages.folder,
            "pages": len(pages.rows),
            "sources": ", ".join(sorted(set(pages.rows["source"]))),
        },
        "decoding": {"greedy": "yes", "max_new_tokens": _MAX_NEW_TOKENS, "question": OPEN_QUESTION},
        "scores": {
            "P(present)": "softmax over the first tokens of Yes and No",
            "statements": len(STATEMENTS),
        },
        "versions": {name: version(name) for name in packages} | {"commit": commit()},
    }
    if (Path(model) / "run.json").is_file():
        facts = read_run(Path(model))
        shown = ("base", "pages", "steps", "seconds", "parameters", "trained_parameters")
        meta["tuning"] = {key: facts[key] for key in shown}
    if warnings:
        meta["warning"] = "; ".join(warnings)
    return meta


def commit() -> str:
    """The commit of the checkout this code runs from, "-dirty" when changed; "installed" outside a checkout."""
    here = Path(__file__).parent.parent
    if not (here / ".git").exists():
        return "installed"
    call = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return call.stdout.strip() or "unknown"
