"""What each command does with its parsed words: wires `render`, `recipes` and `eval`, holds no science.

Heavy imports stand inside the functions, so that a command pays only for what it uses.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from render.errors import InputError

if TYPE_CHECKING:
    from ecg_vlm.reader import Reader
    from render.dataset.rows import Options
    from render.sources.registry import Source


def render(a: argparse.Namespace) -> None:
    """Render a data set, a preview of it, or one page of the first record when `out` is a .png or .jpg."""
    from render.dataset.rows import Options
    from render.sources.registry import open_source

    options = Options(
        layout=a.layout,
        style=a.style,
        width=a.width,
        dpi=a.dpi,
        per_record=a.per_record,
        mask=a.mask,
        signal=a.signal,
        closed=a.closed,
        seed=a.seed,
        shard_size=a.shard_size,
        lenient=a.lenient,
        unreadable=a.unreadable,
        **{name: words for name, words in (("tasks", a.tasks), ("forms", a.forms)) if words},
    )
    source = open_source(a.source, seed=a.seed, limit=a.limit, folds=a.folds)
    if a.preview:
        _preview(a, source, options)
    elif a.out.suffix.lower() in _PICTURES:
        _render_one(a.out, source, options)
    else:
        _render_all(a, source, options)


_PICTURES = (".png", ".jpg", ".jpeg")


def _render_one(out: Path, source: Source, options: Options) -> None:
    """The first record as a picture of the kind that `out` is named for."""
    from PIL import Image

    from render.dataset.rows import make_picture
    from render.io import atomic_write, require_empty

    require_empty(out)
    record = source.read(0)
    picture, style = make_picture(record, 0, options)
    with atomic_write(out) as partial:
        if picture.suffix == out.suffix.lower().replace("jpeg", "jpg"):
            partial.write_bytes(picture.data)
        else:
            Image.open(io.BytesIO(picture.data)).convert("RGB").save(partial)
    print(f"{out}: record {record.record_id}; {', '.join(record.statements) or 'no statements known'}; {style}")


def _preview(a: argparse.Namespace, source: Source, options: Options) -> None:
    """Twelve pages from all over the data set that would be made, as one picture."""
    from render.dataset.contact_sheet import contact_sheet
    from render.dataset.rows import make_row
    from render.io import atomic_write

    out = a.out if a.out.suffix.lower() == ".png" else a.out.with_name(f"{a.out.name}-preview.png")
    pages = len(source) * options.per_record
    shown = sorted({k * pages // _PREVIEWED for k in range(_PREVIEWED)})
    with _bar("pages") as bar:
        rows = []
        for done, i in enumerate(shown, 1):
            rows.append(make_row(source.read(i // options.per_record), i, options))
            bar("pages", done, len(shown))
    with atomic_write(out) as partial:
        partial.write_bytes(contact_sheet(rows))
    print(f"{out}: {len(rows)} of {pages} pages; the same command without --preview makes them all")


_PREVIEWED = 12


def _render_all(a: argparse.Namespace, source: Source, options: Options) -> None:
    from render.dataset.llava import LlavaDialogues, export_llava
    from render.dataset.parquet import write_dataset

    told = LlavaDialogues(a.dialogues, source.name) if a.dialogues else None
    llava = a.out / "llava.json"
    with _bar("pages") as bar:
        manifest = write_dataset(
            source,
            a.out,
            options,
            told=told,
            workers=a.workers,
            resume=a.resume,
            progress=lambda done, total: bar("pages", done, total),
        )
        if a.format == "llava" and not llava.exists():
            export_llava(a.out, a.out, lambda done, total: bar("images", done, total))
    if a.format == "llava":
        shutil.rmtree(a.out / "data", ignore_errors=True)
    where = llava if a.format == "llava" else a.out
    print(f"{where}: {manifest['pages']} pages, {sum(manifest['dialogue_counts'].values())} dialogues")
    if manifest["skipped"]:
        print(f"{len(manifest['skipped'])} pages left out; reasons in {a.out / 'manifest.json'}")


def finetune(a: argparse.Namespace) -> None:
    """Tune a model by a recipe."""
    from recipes.config import load_recipe

    limits = {"train.max_steps": a.max_steps, "train.max_minutes": a.max_time}
    overrides = [*a.overrides, *(f"{key}={value}" for key, value in limits.items() if value)]
    recipe = load_recipe(a.recipe, overrides)
    out = a.out or Path("runs") / recipe.name
    from ecg_vlm.validation import validation
    from recipes import train

    with _bar("steps") as bar:

        def report(p: Any) -> None:
            loss = "" if p.loss is None else f"  loss {p.loss:.3f}"
            bar(f"tuning  {p.images_per_second:.1f} pages/s  {p.tokens_per_second:.0f} tokens/s{loss}", p.step, p.steps)

        judge = validation(recipe.data.validation) if recipe.data.validation else None
        facts = train.finetune(recipe, out, resume=a.resume, report=report, validate=judge)
    share = facts["trained_parameters"] / facts["parameters"]
    losses = [loss for _, loss in facts["losses"]]
    print(
        f"{out}: {facts['steps']} steps on {facts['pages']} pages in {facts['seconds']:.0f} s; "
        f"{facts['trained_parameters']:,} of {facts['parameters']:,} parameters trained ({share:.0%})"
        + (f"; loss {losses[0]:.3f} -> {losses[-1]:.3f}" if losses else "")
    )
    for found in facts["validation"][-1:]:
        print("held out: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items() if name != "step"))


def ask(a: argparse.Namespace) -> None:
    """Answer questions about an image, or score all statements."""
    from recipes import fast_start

    prepared = a.own_process and a.model == "nano" and fast_start.prepare()  # before anything below imports torch
    from ecg_vlm.reader import Reader, open_image
    from render.dialogues.wording import OPEN_QUESTION

    image = open_image(a.image)
    reader = _quick_reader() if prepared else Reader.load(a.model)
    seen = reader.prefill([image])
    questions = a.questions or [OPEN_QUESTION]  # with --statements too: 71 numbers cannot say that the page is none
    scores = reader.score(seen) if a.statements else {}
    answers = [
        {"question": q, "answer": t, "contradicted": reader.contradicted(seen, q, t)}
        for q, t in zip(questions, reader.ask(seen, questions, max_new_tokens=a.max_new_tokens), strict=True)
    ]
    if a.json:
        print(json.dumps({"image": str(a.image), "model": a.model, "answers": answers, "scores": scores}))
        return
    from render.statements import STATEMENTS

    for told in answers:
        print(f"{told['question']}  {told['answer']}" if len(questions) > 1 else told["answer"])
        if told["contradicted"]:
            doubts = (f"{STATEMENTS[code].name} {p:.2f}" for code, p in told["contradicted"].items())
            print(f"  (it says otherwise when asked about each alone; P(present): {', '.join(doubts)})")
    for code, value in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{value:.3f}  {code:<8} {STATEMENTS[code].name}")


def _quick_reader() -> Reader:
    """Nano by the quick start; where that fails, with other versions of the libraries, all again the plain way."""
    from ecg_vlm.reader import Reader
    from recipes.fast_start import restart_without_fast_start

    try:
        return Reader.load_quickly()
    except Exception:
        restart_without_fast_start()


def evaluate(a: argparse.Namespace) -> None:
    """Judge a model on pages, or kept scores and answers again, and write the report."""
    from ecg_vlm import evaluation
    from eval.report.write import text_table
    from render.io import require_empty

    if bool(a.model) == bool(a.kept):
        raise InputError("evaluate: name a model, or with --from what was kept of an evaluation")
    require_empty(a.out)
    pages = evaluation.load_pages(a.data, a.folds, a.limit) if a.data else None
    if a.kept:
        report = evaluation.rejudge(a.kept, a.out, pages=pages, seed=a.seed)
    elif pages is None:
        raise InputError("evaluate: --data is missing: the folder of the pages to judge on")
    else:
        with _bar("pages") as bar:
            report = evaluation.evaluate(
                a.model,
                pages,
                a.out,
                compare=a.compare,
                force=a.force,
                controls=a.controls or bool(a.controls_source),
                controls_source=a.controls_source,
                calibration=a.calibration,
                seed=a.seed,
                show=bar,
            )
    print(text_table(report))
    print(f"\nreport: {a.out / 'report.html'}")


def calibrate(a: argparse.Namespace) -> None:
    """Fit calibration and thresholds on validation pages and freeze them beside the model."""
    from ecg_vlm import evaluation

    pages = evaluation.load_pages(a.data, a.folds, a.limit)
    with _bar("pages") as bar:
        file, calibration = evaluation.calibrate(a.model, pages, a.out, force=a.force, show=bar)
    print(f"{file}: {calibration.summary()}")


def compare(a: argparse.Namespace) -> None:
    """Put reports side by side."""
    from eval.report.compare import compare_reports, comparison_text, write_comparison

    comparison = compare_reports(a.reports, seed=a.seed)
    print(comparison_text(comparison))
    if a.out:
        write_comparison(a.out, comparison)
        print(f"\n{a.out}")


def train_baseline(a: argparse.Namespace) -> None:
    """Train a comparison system on waveforms."""
    from dataclasses import replace

    from eval.baselines.settings import BENCHMARK
    from render.io import require_empty

    if a.name not in BENCHMARK:
        raise InputError(f"baseline {a.name}: no such network; there is {', '.join(BENCHMARK)}")
    if a.validate_folds and (not a.folds or set(a.folds) & set(a.validate_folds)):
        raise InputError("--validate-folds: needs --folds without any of the same, for example --folds 1-8")
    if not a.resume:
        require_empty(a.out)
    recipe = replace(BENCHMARK[a.name], seed=a.seed, **({"epochs": a.epochs} if a.epochs else {}))
    _, signals, labels = _waveforms(a, a.folds)
    held_out = _waveforms(a, a.validate_folds)[1:] if a.validate_folds else None
    from eval.baselines import train

    with _bar("epochs") as bar:

        def report(epoch: Any, speed: float) -> None:
            auc = "" if epoch.validation_auc is None else f"  AUC {epoch.validation_auc:.3f}"
            bar(f"{a.name}  {speed:.0f} records/s  loss {epoch.loss:.3f}{auc}", epoch.number, epoch.total)

        model = train.train(
            signals,
            labels,
            name=a.name,
            recipe=recipe,
            validation=held_out,
            out=a.out,
            resume=a.resume,
            progress=report,
        )
    last = model.epochs[-1]
    auc = "" if last.validation_auc is None else f"; macro AUC {last.validation_auc:.3f} on the validation records"
    print(f"{a.out}: {a.name} trained on {len(signals)} records; loss {last.loss:.3f}{auc}")


def predict_baseline(a: argparse.Namespace) -> None:
    """Score records with a trained CNN."""
    from eval.baselines import train
    from eval.storage import write_scores
    from render.io import require_empty

    model = train.load(a.name)
    require_empty(a.out)
    ids, signals, _ = _waveforms(a, a.folds)
    write_scores(a.out / "scores.parquet", ids, train.predict(model, signals))
    print(f"{a.out / 'scores.parquet'}: {len(ids)} records")


def _waveforms(a: argparse.Namespace, folds: tuple[int, ...] | None) -> tuple[list[str], Any, Any]:
    """Record ids, (n, 12, 1000) millivolts at 100 Hz and (n, 71) labels of the records that are asked for."""
    from eval.baselines.train import read_records
    from render.sources.registry import open_source

    source = open_source(a.data, seed=a.seed, limit=a.limit, folds=folds)
    with _bar("records") as bar:
        return read_records(source, lambda done, total: bar("reading records", done, total))


def parse(a: argparse.Namespace) -> None:
    """Read statement codes from answers, a JSON object a line."""
    from eval.parser import parse as parser

    for number, line in enumerate(_lines(a.file), 1):
        text, question = line.rstrip("\n"), ""
        if text.lstrip().startswith("{"):
            try:
                row = json.loads(text)
                text, question = row["answer"], row.get("question", "")
                if not (isinstance(text, str) and isinstance(question, str)):
                    raise TypeError("answer or question is not a text")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f'{a.file}, line {number}: needs JSON with a text under "answer" ({error})') from error
        parsed = parser.parse(text, question)
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


def export(a: argparse.Namespace) -> None:
    """Write a run for stock transformers and peft, reload it with those, and compare."""
    from recipes.export import export as export_run

    facts = export_run(a.run_folder, a.out, merge=a.merge, report=a.report)
    what = "the whole model" if facts["merged"] else "the adapter"
    agreed = facts["agreement"]
    print(
        f"{a.out}: {what} in {facts['dtype']}; reloaded by stock transformers and peft: logits differ by at most "
        f"{agreed['largest']:.2g} standard deviations, {agreed['same_token']:.0%} of {agreed['tokens']} tokens the same"
    )
    if "agreement_with_4bit" in facts:
        agreed = facts["agreement_with_4bit"]
        print(f"against the tuned 4-bit model: at most {agreed['largest']:.2g}, {agreed['same_token']:.0%} the same")


def doctor(a: argparse.Namespace) -> None:
    """Say what fits this machine before anything heavy starts."""
    from dataclasses import asdict

    from recipes.config import load_recipe
    from recipes.doctor import doctor as examine
    from recipes.doctor import machine
    from recipes.memory import needs

    recipe = load_recipe(a.recipe, a.overrides) if a.recipe else None
    if a.json:
        print(json.dumps({"machine": asdict(machine()), "needs": recipe and asdict(needs(recipe))}, default=str))
        return
    print("\n".join(examine(recipe)))


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """Progress on stderr, called with (what, done, in all): a bar on a screen, now and then a line elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines(unit)
        return
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
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        rows: list[Any] = []
        last = 0

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            if not rows or done < last:  # counting starts again: the next system, the next piece of work
                rows.append(progress.add_task(what, total=total, rate=""))
            last = done
            speed = progress.tasks[rows[-1]].speed
            rate = f"{speed:.1f} {unit}/s" if speed else ""
            progress.update(rows[-1], description=what, completed=done, total=total, rate=rate)

        yield show


_LINE_EVERY_S = 15.0


def _progress_lines(unit: str) -> Callable[[str, int, int], None]:
    """For a log file: a line when enough time has gone by, and one at the end."""
    began = said = time.monotonic()
    first = last = -1

    def show(what: str, done: int, total: int) -> None:
        nonlocal began, said, first, last
        now = time.monotonic()
        if done < last or first < 0:
            began = said = now
            first = done
        last = done
        if done < total and now - said < _LINE_EVERY_S:
            return
        said = now
        rate = (done - first) / max(now - began, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        print(f"{what}: {done}/{total} {unit}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    return show
