"""What each command does with its parsed words: wires `render`, `recipes` and `eval`, holds no science.

Heavy imports stand inside the functions, so that a command pays only for what it uses.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from render.files import InputError


def render(a: argparse.Namespace) -> None:
    """Render a data set, or one page of the first record when `out` is a .png."""
    from render.dataset import Options, check, write_dataset
    from render.layout import layout_named
    from render.source import open_source

    layout_named(a.layout)
    source = open_source(a.source, seed=a.seed, limit=a.limit, folds=a.folds)
    if a.out.suffix.lower() == ".png":
        from render.files import refuse_filled, whole_file
        from render.page import draw

        refuse_filled(a.out)
        record = source.read(0)
        if not a.lenient:
            check(record, a.layout)
        with whole_file(a.out) as partial:
            partial.write_bytes(draw(record, layout=a.layout, width=a.width).png())
        print(f"{a.out}: record {record.record_id}; {', '.join(record.statements) or 'no statements known'}")
        return
    options = Options(a.layout, a.width, a.closed, a.seed, a.shard_size, a.lenient)
    with _bar("pages") as bar:
        manifest = write_dataset(
            source,
            a.out,
            options,
            workers=a.workers,
            resume=a.resume,
            progress=lambda done, total: bar("pages", done, total),
        )
    print(f"{a.out}: {manifest['pages']} pages, {sum(manifest['dialogue_counts'].values())} dialogues")
    if manifest["skipped"]:
        print(f"{len(manifest['skipped'])} records left out; reasons in {a.out / 'manifest.json'}")


def finetune(a: argparse.Namespace) -> None:
    """Tune a model by a recipe."""
    from recipes.schema import load_recipe

    overrides = [*a.overrides, *([f"train.max_steps={a.max_steps}"] if a.max_steps else [])]
    recipe = load_recipe(a.recipe, overrides)
    out = a.out or Path("runs") / recipe.name
    from recipes import run

    with _bar("steps") as bar:

        def report(p: Any) -> None:
            loss = "" if p.loss is None else f"  loss {p.loss:.3f}"
            bar(f"tuning  {p.images_per_second:.1f} pages/s{loss}", p.step, p.steps)

        facts = run.finetune(recipe, out, resume=a.resume, report=report)
    share = facts["trained_parameters"] / facts["parameters"]
    losses = [loss for _, loss in facts["losses"]]
    print(
        f"{out}: {facts['steps']} steps on {facts['pages']} pages in {facts['seconds']:.0f} s; "
        f"{facts['trained_parameters']:,} of {facts['parameters']:,} parameters trained ({share:.0%})"
        + (f"; loss {losses[0]:.3f} -> {losses[-1]:.3f}" if losses else "")
    )


def ask(a: argparse.Namespace) -> None:
    """Answer questions about an image, or score all statements."""
    from ecg_vlm.batch import OPEN_QUESTION
    from ecg_vlm.reader import Reader, open_image

    image = open_image(a.image)
    reader = Reader.load(a.model)
    questions = a.questions or ([] if a.statements else [OPEN_QUESTION])
    scores = reader.score(image) if a.statements else {}
    answers = reader.ask(image, questions, max_new_tokens=a.max_new_tokens) if questions else []
    if a.json:
        pairs = [{"question": q, "answer": t} for q, t in zip(questions, answers, strict=True)]
        print(json.dumps({"image": str(a.image), "model": a.model, "answers": pairs, "scores": scores}))
        return
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question}  {answer}" if len(questions) > 1 else answer)
    from render.statements import STATEMENTS

    for code, value in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{value:.3f}  {code:<8} {STATEMENTS[code].name}")


def evaluate(a: argparse.Namespace) -> None:
    """Judge a model on pages and write the report."""
    from ecg_vlm import batch
    from eval.report import text_table
    from render.files import refuse_filled

    refuse_filled(a.out)
    pages = batch.held_out_pages(a.data, a.folds, a.limit)
    with _bar("pages") as bar:
        report = batch.evaluate(a.model, pages, a.out, compare=a.compare, force=a.force, show=bar)
    print(text_table(report))
    print(f"\nreport: {a.out / 'report.html'}")


def train_baseline(a: argparse.Namespace) -> None:
    """Train a CNN on waveforms."""
    from eval.baselines import training
    from eval.baselines.cnn import NETWORKS
    from render.files import refuse_filled

    if a.name not in NETWORKS:
        raise InputError(f"baseline {a.name}: no such network; there is {', '.join(NETWORKS)}")
    refuse_filled(a.out)
    _, signals, labels = _waveforms(a)
    with _bar("epochs") as bar:
        model = training.train(
            signals,
            labels,
            name=a.name,
            epochs=a.epochs,
            seed=a.seed,
            progress=lambda done, total, loss: bar(f"{a.name}  loss {loss:.3f}", done, total),
        )
    training.save(model, a.out)
    print(f"{a.out}: {a.name} trained on {len(signals)} records")


def predict_baseline(a: argparse.Namespace) -> None:
    """Score records with a trained CNN."""
    from eval.baselines import training
    from eval.protocol import write_scores
    from render.files import refuse_filled

    model = training.load(a.name)
    refuse_filled(a.out)
    ids, signals, _ = _waveforms(a)
    write_scores(a.out / "scores.parquet", ids, training.predict(model, signals))
    print(f"{a.out / 'scores.parquet'}: {len(ids)} records")


def _waveforms(a: argparse.Namespace) -> tuple[list[str], Any, Any]:
    """Record ids, (n, 12, 1000) millivolts at 100 Hz and (n, 71) labels of the records that are asked for."""
    import numpy as np

    from eval.baselines.training import to_100_hz
    from eval.metrics import label_matrix
    from render.source import open_source

    source = open_source(a.data, seed=a.seed, limit=a.limit, folds=a.folds)
    ids, signals, statements = [], [], []
    with _bar("records") as bar:
        for i in range(len(source)):
            record = source.read(i)
            ids.append(record.record_id)
            signals.append(to_100_hz(record))
            statements.append(record.statements)
            bar("reading records", i + 1, len(source))
    labels, _ = label_matrix(statements, "all")
    return ids, np.stack(signals), labels


def parse(a: argparse.Namespace) -> None:
    """Read statement codes from answers, a JSON object a line."""
    from eval import parse as parser

    for number, line in enumerate(_lines(a.file), 1):
        text = line.rstrip("\n")
        if text.lstrip().startswith("{"):
            try:
                text = json.loads(text)["answer"]
                if not isinstance(text, str):
                    raise TypeError("answer is not a text")
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f'{a.file}, line {number}: needs JSON with a text under "answer" ({error})') from error
        parsed = parser.parse(text)
        found = {status: list(getattr(parsed, status)) for status in ("present", "absent", "uncertain")}
        print(json.dumps(found))


def _lines(file: str) -> Iterator[str]:
    try:
        if file == "-":
            yield from io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")  # whatever the locale says
        else:
            with open(file, encoding="utf-8") as stream:
                yield from stream
    except (OSError, UnicodeDecodeError) as error:
        where = "standard input" if file == "-" else file
        raise InputError(f"{where}: cannot be read as UTF-8 text ({error})") from error


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr: call it with (what, done, in all)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        rows: list[Any] = []
        last = 0

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            if not rows or done < last:  # counting starts again: the next system, the next piece of work
                rows.append(progress.add_task(what, total=total))
            last = done
            progress.update(rows[-1], description=what, completed=done, total=total)

        yield show
