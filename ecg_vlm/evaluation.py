"""Whole data sets: scores and answers of every page, stored beside the report that is made from them.

Nothing heavy is imported before a model is needed: judging stored scores again takes no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecg_vlm.control_pages import AlteredPages, altered_pages
from ecg_vlm.nodes import ReaderOnNodes, device_name
from ecg_vlm.pages import Pages
from ecg_vlm.provenance import (
    RESULT_FILES,
    calibration_path,
    contamination,
    evaluation_request,
    frozen_calibrations,
    short_name,
    system_names,
    training,
    tuning,
    versions,
)
from eval.metrics.calibration import Calibration, fit, write_calibration
from eval.metrics.controls import Control
from eval.metrics.judge import Evaluation, Report
from eval.report.gallery import gallery
from eval.report.write import write_report
from eval.storage import (
    BatchResults,
    UnfinishedEvaluation,
    load_system,
    read_answer,
    read_evaluation,
    system_folder,
    write_control,
    write_evaluation,
    write_system,
)
from eval.types import Answer, LabelledRecords, System
from render.dialogues.wording import OPEN_QUESTION
from render.errors import InputError
from render.io import atomic_folder, exclusive, require_empty
from render.statements import STATEMENTS
from render.workers import Workers

if TYPE_CHECKING:
    from ecg_vlm.reader import Reader

_MAX_NEW_TOKENS = 96
_DECODING = {"do_sample": False, "max_new_tokens": _MAX_NEW_TOKENS}

_Show = Callable[[str, int, int], None]  # called with (what, count, total)


def _show_nothing(what: str, count: int, total: int) -> None:
    """Shows nothing."""


def evaluate(
    model: str,
    pages: Pages,
    out: Path,
    *,
    compare: Sequence[str] = (),
    force: bool = False,
    controls: bool = False,
    controls_source: str | Sequence[str] = "",
    calibration: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    loading: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
    show: _Show = _show_nothing,
) -> Report:
    """Judge `model`, and the systems it is compared with, on `pages`; write the report into `out`.

    Args:
        model: "nano", the folder of a run, a hub id, or a file of predictions or answers (`eval.storage.load_system`).
        compare: more of these; the model's difference to each is reported.
        force: judge even on records the model was tuned on.
        controls: score altered pages too; controls_source: of the records that the pages were rendered from, for
            the controls that render them again.
        calibration: of `model`; the default is `calibration.json` in its run, or beside its scores, if there is
            one.
        seed: of the bootstrap and of the shuffled pages.
        resume: go on with an evaluation in `out` that was interrupted, behind its last batch.
        loading: keyword arguments of `Reader.load` for all models but a nano that another one is compared with.
        workers: a cluster whose processes hold the model, once each, in place of this one; they get the images, and
            have to see the model's folder at the same path.

    Raises:
        InputError: For what is missing or damaged, records that a model was tuned on (unless `force`), another request
            than the one to be resumed, and a folder that another process writes into.
    """
    records = pages.labelled_records()
    names = system_names([model, *compare])
    contamination_lines = tuple(contamination(spec, records, force) for spec in names)
    calibrations = frozen_calibrations(names, records, first=calibration, force=force)
    _check_controls(model, controls, controls_source)
    control_images = altered_pages(pages, controls_source, seed) if controls else {}
    given = {
        spec: load_system(Path(spec), name, records) for spec, name in names.items() if spec.endswith(RESULT_FILES)
    }
    with exclusive(out):
        request = evaluation_request(names, pages, [*control_images, controls_source], seed)
        loaded_as = {"loading": dict(loading)} if loading else {}
        request |= loaded_as
        work = UnfinishedEvaluation(out, request, resume=resume)
        systems: list[System] = []
        control_scores: tuple[Control, ...] = ()
        for place, (spec, name) in enumerate(names.items()):
            options = None if place and spec == "nano" else loading
            reader: Reader | ReaderOnNodes | None = None
            if spec in given:
                systems.append(given[spec])
            else:
                reader = _load(spec, options) if workers is None else ReaderOnNodes(workers, spec, options or {})
                system = evaluate_model(reader, name, pages, records, show, work.results(f"system {place}"))
                systems.append(replace(system, training=training(spec)))
            work.begin()
            write_system(system_folder(out, name, place), systems[-1], records, calibrations.get(name), place)
            if place == 0 and reader is not None:
                control_scores = tuple(
                    _control(reader, control, page, systems[0], show, work.results(f"control {control}"))
                    for control, page in control_images.items()
                )
        for control in control_scores:
            write_control(out, control, records)
        title = f"{names[model]} on {len(pages.rows)} ECG pages"
        meta = _meta(model, pages, seed) | loaded_as
        evaluation = Evaluation(title, records, tuple(systems), calibrations, control_scores, contamination_lines, meta)
        report = _report(out, evaluation, pages, seed)
        work.remove()
    return report


def evaluate_model(
    reader: Reader | ReaderOnNodes,
    name: str,
    pages: Pages,
    records: LabelledRecords,
    show: _Show = _show_nothing,
    results: BatchResults | None = None,
) -> System:
    """Scores and an answer of every page from one model; each page is encoded once for both.

    results: of batches that were computed before, and the place for new ones.
    """
    results = results or BatchResults()
    batches: list[dict[str, Any]] = []
    answers: list[Answer] = []
    for rows, result in _results(
        reader, _scores_and_texts, lambda rows: pages.rows[rows.start : rows.stop]["image"], len(pages.rows), results,
        partial(show, name),
    ):  # fmt: skip
        batches.append(result)
        answers += [_answer(records, row, text) for row, text in zip(rows, result["texts"], strict=True)]
    seconds = sum(batch["seconds"] for batch in batches)
    cost = {
        "pages": len(answers),
        "seconds": round(seconds, 1),
        "pages_per_second": round(len(answers) / seconds, 2),
        "per_page": f"{len(STATEMENTS)} scores and one answer",
        "device": _device(reader),
    }
    scores = np.concatenate([np.array(batch["scores"]) for batch in batches])
    answers += _answers_about_unreadable(reader, pages, results)
    return System(name, pages.record_ids, scores, tuple(answers), reader.name, cost)


def _results(
    reader: Reader | ReaderOnNodes,
    work: Callable[[Reader, Sequence[Any]], dict[str, Any]],
    images: Callable[[range], Sequence[Any]],
    count: int,
    results: BatchResults,
    show: Callable[[int, int], None],
) -> Iterator[tuple[range, dict[str, Any]]]:
    """The rows of each batch, and what `work` makes of their images."""
    batches = list(_batches(count, reader.batch_size))
    if isinstance(reader, ReaderOnNodes):
        sizes = [len(rows) for rows in batches]
        start = results.stored(sizes)
        reader.run(
            work,
            (images(rows) for rows in batches[start:]),
            lambda number, result: results.add(sizes[start + number], result),
            lambda steps: show(sum(sizes[:start]) + steps, count),
        )

    def compute(rows: range) -> dict[str, Any]:
        assert not isinstance(reader, ReaderOnNodes)  # which has filled in all of them
        return work(reader, images(rows))

    for rows in batches:
        yield rows, results.next(len(rows), partial(compute, rows))
        show(rows.stop, count)


def _scores_and_texts(reader: Reader, images: Sequence[Any]) -> dict[str, Any]:
    start_time = time.monotonic()
    prefill = reader.prefill(images)
    scores = reader.score_many(prefill).astype(np.float64).tolist()
    texts = reader.ask_many(prefill, OPEN_QUESTION, max_new_tokens=_MAX_NEW_TOKENS)
    return {"scores": scores, "texts": list(texts), "seconds": time.monotonic() - start_time}


def judge_files(
    files: Sequence[str], records: LabelledRecords, out: Path, *, force: bool = False, seed: int = 0
) -> Report:
    """Judge files of predictions and answers on `records`, without pages and without a model; write the report into
    `out`.

    Args:
        files: the first one's difference to each other is reported; see `eval.storage.load_system`.
        force: judge even on records that a calibration beside a file was fitted on.

    Raises:
        InputError: For what is missing or damaged.
    """
    names = system_names(files)
    evaluation = Evaluation(
        title=f"{', '.join(names.values())} on {len(records.record_ids):,} records",
        records=records,
        systems=tuple(load_system(Path(spec), name, records) for spec, name in names.items()),
        calibrations=frozen_calibrations(names, records, force=force),
        contamination=tuple(contamination(spec, records, force) for spec in names),
        meta={"data": records.dataset, "files": dict(names), "seed": seed, "versions": versions()},
    )
    with atomic_folder(out) as folder:
        write_evaluation(folder, evaluation)
        return _report(folder, evaluation, None, seed)


def rejudge(path: Path, out: Path, *, pages: Pages | None = None, seed: int = 0) -> Report:
    """Make the report again from a report's folder, a `scores.parquet` or an `answers.jsonl`; no model, no torch.

    Args:
        pages: with the labels and the images of the gallery; without them the labels in the files count and there
            is no gallery.
    """
    evaluation = read_evaluation(path, pages.labelled_records() if pages else None)
    if out.resolve() == path.resolve():
        with exclusive(out):
            return _report(out, evaluation, pages, seed)
    with atomic_folder(out) as folder:
        write_evaluation(folder, evaluation)
        return _report(folder, evaluation, pages, seed)


def calibrate(
    model: str,
    pages: Pages,
    out: Path | None = None,
    *,
    force: bool = False,
    loading: Mapping[str, Any] | None = None,
    show: _Show = _show_nothing,
) -> tuple[Path, Calibration]:
    """Fit a model's calibration on validation pages and write it; returns the file and the calibration.

    Args:
        out: the file; the default is `calibration.json` in the run's folder or beside the file of scores.
        loading: keyword arguments of `Reader.load`.

    Raises:
        InputError: For records that the model was tuned on (unless `force`), and when there is no place for the
            file, or there is one already.
    """
    file = out or calibration_path(model)
    if file is None:
        raise InputError(f"{model}: has no folder for a calibration; name a file with --out")
    require_empty(file)
    records = pages.labelled_records()
    contamination(model, records, force)
    name = short_name(model)
    if model.endswith(RESULT_FILES):
        system = load_system(Path(model), name, records)
    else:
        scores = score_images(_load(model, loading), lambda row: pages.rows[row]["image"], len(pages.rows), name, show)
        system = System(name, pages.record_ids, scores)
    calibration = fit(system, records)
    write_calibration(file, calibration)
    return file, calibration


def score_images(
    reader: Reader | ReaderOnNodes,
    image: Callable[[int], Any],
    count: int,
    what: str = "pages",
    show: _Show = _show_nothing,
    results: BatchResults | None = None,
) -> NDArray[np.float64]:
    """(count, 71) scores of the images that `image` gives for each row.

    results: of batches that were computed before, and the place for new ones.
    """
    results = results or BatchResults()
    batches = _results(reader, _scores, lambda rows: [image(i) for i in rows], count, results, partial(show, what))
    return np.concatenate([np.array(result["scores"]) for _, result in batches])


def _scores(reader: Reader, images: Sequence[Any]) -> dict[str, Any]:
    return {"scores": reader.score_many(images).astype(np.float64).tolist()}


def _check_controls(model: str, controls: bool, source: str | Sequence[str]) -> None:
    if controls and model.endswith(RESULT_FILES):
        raise InputError(f"--controls: {model} is a file of results; altered pages need the model itself")
    if source and not controls:
        raise InputError("--controls-source: is of use with --controls only; add --controls")


def _report(out: Path, evaluation: Evaluation, pages: Pages | None, seed: int) -> Report:
    examples = gallery(evaluation.systems, evaluation.records, pages.rows) if pages else ()
    return write_report(out, evaluation, examples=examples, seed=seed)


def _load(model: str, loading: Mapping[str, Any] | None) -> Reader:
    from ecg_vlm.reader import Reader

    return Reader.load(model, **loading or {})


def _control(
    reader: Reader | ReaderOnNodes, control: str, page: AlteredPages, system: System, show: _Show, results: BatchResults
) -> Control:
    scores = score_images(reader, page.image, len(system.record_ids), f"control {control}", show, results)
    return Control(control, page.detail, System(system.name, system.record_ids, scores))


def _batches(count: int, size: int) -> Iterator[range]:
    """The rows of each batch."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _texts(reader: Reader, images: Sequence[Any]) -> dict[str, Any]:
    return {"texts": list(reader.ask_many(images, OPEN_QUESTION, max_new_tokens=_MAX_NEW_TOKENS))}


def _answers_about_unreadable(reader: Reader | ReaderOnNodes, pages: Pages, results: BatchResults) -> Iterator[Answer]:
    def images(rows: range) -> Sequence[Any]:
        return pages.unreadable[rows.start : rows.stop]["image"]  # type: ignore[no-any-return]

    for rows, result in _results(reader, _texts, images, len(pages.unreadable), results, partial(_show_nothing, "")):
        texts = result["texts"]
        part = pages.unreadable.select(rows).remove_columns("image")
        for record, why, text in zip(part["record_id"], part["unreadable"], texts, strict=True):
            yield read_answer(record, OPEN_QUESTION, text, _DECODING, (), unreadable=why)


def _answer(records: LabelledRecords, row: int, text: str) -> Answer:
    return read_answer(
        records.record_ids[row], OPEN_QUESTION, text, _DECODING, records.statements[row], records.references[row]
    )


def _device(reader: Reader | ReaderOnNodes) -> str:
    return reader.device if isinstance(reader, ReaderOnNodes) else device_name(reader)


def _meta(model: str, pages: Pages, seed: int) -> dict[str, object]:
    """Everything needed to make the report again."""
    meta: dict[str, object] = {
        "data": {
            "folder": ", ".join(pages.folders),
            "pages": len(pages.rows),
            "sources": ", ".join(sorted(set(pages.rows["source"]))),
        },
        "seed": seed,
        "versions": versions(),
    }
    if model.endswith(RESULT_FILES):
        return meta
    meta |= {
        "decoding": {"greedy": "yes", "max_new_tokens": _MAX_NEW_TOKENS, "question": OPEN_QUESTION},
        "scores": {
            "P(present)": "softmax over the first tokens of Yes and No",
            "statements": len(STATEMENTS),
        },
    }
    return meta | ({"tuning": facts} if (facts := tuning(model)) else {})
