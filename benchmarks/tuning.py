"""What one prefill for many questions saves in tuning and in scoring, against stock TRL and transformers:
`python benchmarks/tuning.py [--gpu] [--json OUT]` prints tables for the README.

The reference in tuning is TRL's SFTTrainer without changes: its own collator for images, `messages` with
`assistant_only_loss`, a chat template that marks the answers, one dialogue a row and the page in each of its rows.
Ours is the packed row, page once. Both share the base's weights, begin with the same adapter, learn from the same
dialogues in the same order (their labels are compared), read through their own data loader and take the same steps:
forward, backward, clipping, optimizer. Stock gradient checkpointing where the recipe checkpoints, none elsewhere.

The two take turns, so that a busy machine slows both alike; figures are medians over the turns. Memory is the most
that a step uses at once beyond what is allocated before it (weights, adapter, moments): on a CPU the bytes of living
tensors, on a GPU what torch's allocator reports. `--gpu` measures the 11 B's shapes with random weights in 4 bits, and
first a real run of the recipe for 12 GB in a process that may not take more than 11.5 GB. No network is needed.

`--cpu-11b` takes one optimizer step of that recipe on a CPU, all 40 layers of the 11 B with random 4-bit weights:
memory of the whole process, and where the time goes. It takes 10 GB and some minutes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from ecg_vlm.reader import Reader
from recipes.config import Recipe, load_recipe
from recipes.inference import answer_tokens
from recipes.memory import Count, needs
from recipes.model import add_lora, apply_checkpointing, base_config, load_model, load_processor
from recipes.packing import IGNORE_INDEX, BatchLimits, Collator, Encoder, in_order, pack_rows, render_chat
from recipes.train import Progress, finetune
from recipes.trainer import Trainer
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options
from render.dialogues.wording import closed_question
from render.errors import WorkFailed
from render.simulator.simulate import SimulatedSource
from render.statements import STATEMENTS

_CUDA = torch.cuda.is_available()
_CLOSED = 64  # yes/no questions a page, so that there are dialogues enough to choose from
_FULL_PAGE = 62  # dialogues with which a page comes near the 1,024 tokens of the recipe for 12 GB
_CARD = 11.5e9  # bytes that a 12 GB card leaves to a run
_ANSWER_TOKENS = 40
_LOSS_DIALOGUES = 4  # dialogues an image where losses are compared
_UNITS = {"wall": "wall"} if _CUDA else {"CPU time": "cpu", "wall": "wall"}  # heading -> field of `Cost`

Targets = Literal["language", "all-linear"]
_TOWERS: dict[str, Targets] = {"frozen": "language", "trained": "all-linear"}

# Nano's template with the answers marked, end-of-turn token included, as TRL asks for.
_TEMPLATE_WITH_ANSWERS = (
    "{{- bos_token }}{%- for message in messages %}{%- if message['role'] == 'assistant' %}{%- generation %}"
    "{{- message['content'][0]['text'] + '<|eot_id|>' }}{%- endgeneration %}{%- else %}"
    "{%- for part in message['content'] %}{%- if part['type'] == 'image' %}{{- '<|image|>' }}"
    "{%- else %}{{- part['text'] }}{%- endif %}{%- endfor %}{{- '<|eot_id|>' }}{%- endif %}{%- endfor %}"
)


@dataclass(frozen=True)
class Cost:
    """Median seconds of a turn: of all threads' CPU time, and on the clock."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Table:
    """A table of the README: a line above it, its columns, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join([f"\n{self.title}\n", *("| " + " | ".join(line) + " |" for line in lines)])


# Pages, recipes, contestants


def cut_pages(whole: Path, folder: Path, dialogues: int) -> None:
    """The data set `whole` with exactly `dialogues` dialogues a page, evenly selected."""

    table = pq.read_table(whole / "data")
    place, column = table.schema.get_field_index("dialogues"), table.schema.field("dialogues")
    parts = [of_page[:: len(of_page) // dialogues][:dialogues] for of_page in table["dialogues"].to_pylist()]
    (folder / "data").mkdir(parents=True)
    pq.write_table(table.set_column(place, column, pa.array(parts, column.type)), folder / "data" / "pages.parquet")
    shutil.copy(whole / "manifest.json", folder)


def recipe_for(gpu: bool, base: str, *overrides: str) -> Recipe:
    """The recipe that is measured: quickstart's, or the one for 12 GB, on `base`."""
    name, where = ("llama32-11b-qlora-12gb" if gpu else "quickstart"), [f"model.base={base}", "train.log_to=none"]
    if gpu and not _CUDA:  # to try the same code
        where += ["train.optimizer=adamw_torch"]
    return load_recipe(name, [*where, *overrides])


class Contestant:
    """A trainer as its `train` prepares it, one optimizer step at a time."""

    def __init__(self, trainer: Any) -> None:
        if trainer.args.activation_checkpointing:
            trainer.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()
        trainer.model.train()
        self.trainer = trainer
        self.model, self.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        self.batches = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> float:
        """Read a batch, forward, backward, clip, move the weights; returns the loss."""
        loss = self.trainer.training_step(self.model, next(self.batches))
        self.trainer.accelerator.clip_grad_norm_(self.model.parameters(), self.trainer.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss)

    def label_tokens(self) -> list[int]:
        """The tokens that carry loss in the first batch, in order; not a step."""
        labels = next(iter(self.trainer.get_train_dataloader()))["labels"]
        return [int(token) for token in labels[labels != IGNORE_INDEX]]


def contestants(base: Any, processor: Any, recipe: Recipe, folder: Path, dialogues: int) -> dict[str, Contestant]:
    """Ours and stock TRL, on the same weights and dialogues. Raises `AssertionError` where their labels differ."""
    pages, encoder = open_dataset(folder), Encoder(processor)
    batches = in_order(pack_rows(pages, encoder, 0), BatchLimits(1))
    model, train = with_adapter(base, recipe), recipe.train
    apply_checkpointing(model, checkpointing=train.gradient_checkpointing)
    ours = {"remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    ours_trainer = Trainer(
        model=model,
        args=arguments(recipe, folder, checkpoint=False, **ours),
        train_dataset=batches.table("train"),
        processing_class=processor,
        data_collator=Collator({"train": (pages, batches.rows)}, encoder),
    )
    processor_of_trl = load_processor(recipe.model.base)
    processor_of_trl.chat_template = _TEMPLATE_WITH_ANSWERS
    theirs = {"per_device_train_batch_size": dialogues, "assistant_only_loss": True}
    stock = SFTTrainer(
        model=with_adapter(base, recipe),
        args=arguments(recipe, folder, checkpoint=train.gradient_checkpointing, **theirs),
        train_dataset=rows_of(pages),
        processing_class=processor_of_trl,
    )
    pair = {"ours": Contestant(ours_trainer), "TRL": Contestant(stock)}
    assert pair["ours"].label_tokens() == pair["TRL"].label_tokens()
    return pair


def with_adapter(base: Any, recipe: Recipe) -> Any:
    """A model of its own with a fresh adapter; the base's tensors are shared, not copied."""
    memo = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    twin = copy.deepcopy(base, memo)
    torch.manual_seed(recipe.train.seed)
    assert recipe.lora is not None
    return add_lora(twin, recipe.lora)


def arguments(recipe: Recipe, out: Path, *, checkpoint: bool, **others: Any) -> SFTConfig:
    """TRL's settings, the same for both but for `others`."""
    train = recipe.train
    return SFTConfig(
        **{"output_dir": str(out / "run"), "per_device_train_batch_size": 1, "max_length": None, **others},
        train_sampling_strategy="sequential",
        learning_rate=train.learning_rate,
        optim=train.optimizer,
        max_grad_norm=train.max_grad_norm,
        bf16=recipe.model.dtype == "bfloat16",
        use_cpu=not _CUDA,
        report_to="none",
        activation_checkpointing=checkpoint,
        gradient_checkpointing=checkpoint,
    )


def rows_of(pages: Any) -> datasets.Dataset:
    """One dialogue a row with its page, as TRL takes them."""
    turn = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    features = datasets.Features({"images": datasets.List(datasets.Image()), "messages": datasets.List(turn)})
    rows = [
        {"images": [row["image"]], "messages": dialogue["messages"]} for row in pages for dialogue in row["dialogues"]
    ]
    return datasets.Dataset.from_list(rows, features=features)


# Measuring


def take_turns(turns: dict[str, Callable[[], object]], rounds: int) -> dict[str, Cost | None]:
    """Median cost of each over interleaved rounds, after one that does not count; None where memory ran out."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    out: set[str] = set()
    for i in range(rounds + 1):
        for name, turn in turns.items():
            _settle()
            start = time.process_time(), time.perf_counter()
            if name in out or not fits(turn):
                out.add(name)
                continue
            _settle()
            if i:
                costs[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    medians = {
        name: [statistics.median(column) for column in zip(*turns, strict=True)] for name, turns in costs.items()
    }
    return {name: None if name in out else Cost(*median) for name, median in medians.items()}


def fits(turn: Callable[[], object]) -> bool:
    """Take a turn; whether memory was enough for it."""
    try:
        turn()
        return True
    except torch.OutOfMemoryError:
        pass
    _free()
    return False


def weigh(turn: Callable[[], object]) -> tuple[int, int]:
    """The most bytes that a turn holds at once beyond what stood before, and the floating-point operations it does.

    Operations as torch counts them, which leaves out attention's own products on a CPU.
    """
    with Count() as count:
        turn()
    if not _CUDA:
        return count.most_bytes, count.operations
    _free()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    turn()
    return torch.cuda.max_memory_allocated() - before, count.operations


def _settle() -> None:
    if _CUDA:
        torch.cuda.synchronize()


def _free() -> None:
    gc.collect()
    if _CUDA:
        torch.cuda.empty_cache()


# The tables


def tuning_table(base: Any, processor: Any, recipe: Recipe, place: Path, counts: Sequence[int], rounds: int) -> Table:
    """Speed and memory of a step, tower frozen and trained, for so many dialogues an image."""
    rows = []
    for tower, targets in _TOWERS.items():
        for n in counts:
            pair = contestants(base, processor, with_targets(recipe, targets), place / str(n), n)
            cost = take_turns({name: each.step for name, each in pair.items()}, rounds)
            weights = {name: weigh(each.step) if cost[name] else None for name, each in pair.items()}
            rows.append((tower, str(n), *_speeds(cost, n), *_weights(weights), *_rates(cost, weights)))
            print("measured:", *rows[-1], file=sys.stderr, flush=True)
            del pair
            _free()
    headings = [f"dialogues/s of {unit}" for unit in _UNITS] + ["memory of a step, MB", "GFLOP counted"]
    columns = [
        "tower",
        "dialogues an image",
        *(column for what in headings for column in (f"{what}, ours", "TRL", "×")),
    ]
    rates = ["TFLOP/s, ours", "TRL"] if _CUDA else []
    return Table("One optimizer step; × is how many times better ours is", (*columns, *rates), rows)


def with_targets(recipe: Recipe, targets: Targets) -> Recipe:
    """The recipe with other layers adapted."""
    assert recipe.lora is not None
    return replace(recipe, lora=replace(recipe.lora, targets=targets))


def _speeds(cost: dict[str, Cost | None], dialogues: int) -> Iterator[str]:
    for unit in _UNITS.values():
        yield from _pair([dialogues / getattr(c, unit) if c else None for c in cost.values()], larger_is_better=True)


def _weights(weights: dict[str, tuple[int, int] | None]) -> Iterator[str]:
    for part, unit in ((0, 1e6), (1, 1e9)):
        yield from _pair([weight[part] / unit if weight else None for weight in weights.values()])


def _rates(cost: dict[str, Cost | None], weights: dict[str, tuple[int, int] | None]) -> Iterator[str]:
    """Operations counted by the time taken; on a GPU, where there is a peak to hold them against."""
    for seconds, weight in zip(cost.values(), weights.values(), strict=True):
        if _CUDA:
            yield f"{weight[1] / seconds.wall / 1e12:.0f}" if weight and seconds else "–"


def _pair(values: Sequence[float | None], *, larger_is_better: bool = False) -> Iterator[str]:
    """Ours, the other, and how many times better ours is."""
    yield from (f"{v:,.0f}" if v and v >= 100 else f"{v:.3g}" if v else "out of memory" for v in values)
    ours, other = values
    yield f"{ours / other if larger_is_better else other / ours:.1f}" if ours and other else "–"


def loss_table(base: Any, processor: Any, recipe: Recipe, folder: Path, dialogues: int, steps: int) -> Table:
    """The loss of both on the same batches, step by step, and how far they ever are apart."""
    pair = contestants(base, processor, recipe, folder, dialogues)
    try:
        losses = {name: [each.step() for _ in range(steps)] for name, each in pair.items()}
    except torch.OutOfMemoryError:
        return Table("Loss", ("why not",), [("out of memory",)])
    apart = max(abs(ours - stock) for ours, stock in zip(*losses.values(), strict=True))
    title = f"Loss, {dialogues} dialogues an image, tower trained; in {steps} steps never more than {apart:.1e} apart"
    columns = sorted({0, steps // 4, steps // 2, steps - 1})
    rows = [(name, *(f"{loss[i]:.6f}" for i in columns)) for name, loss in losses.items()]
    return Table(title, ("", *(f"step {i + 1}" for i in columns)), rows)


def score_table(base: Any, processor: Any, page: Any, rounds: int) -> Table:
    """All statements' scores of one page from one preprocess, one by one, and an answer of 40 tokens."""
    reader = Reader(base, processor)
    yes, no = answer_tokens(processor)

    def inputs(question: str) -> Any:
        text = render_chat(processor, [{"role": "user", "content": question}], prompt=True)
        batch = processor(images=[page], text=text, add_special_tokens=False, return_tensors="pt")
        return batch.to(base.device)

    @torch.no_grad()
    def separately() -> Tensor:
        each = [base(**inputs(closed_question(code)), logits_to_keep=1).logits[0, -1] for code in STATEMENTS]
        return torch.stack([(logits[yes].float() - logits[no].float()).sigmoid() for logits in each]).cpu()

    def generate() -> None:
        length = {"min_new_tokens": _ANSWER_TOKENS, "max_new_tokens": _ANSWER_TOKENS}
        base.generate(**inputs("What does this ECG show?"), **length, do_sample=False)

    count = len(STATEMENTS)
    turns: dict[str, Callable[[], object]] = {
        f"{count} scores, one prefill": lambda: reader.score(page),
        f"one answer of {_ANSWER_TOKENS} tokens, stock `generate`": generate,
        f"{count} scores, {count} stock passes": separately,
    }
    cost = take_turns(turns, rounds)
    apart = float((torch.tensor(list(reader.score(page).values())) - separately()).abs().max())
    first = next(iter(cost.values()))
    rows = [(name, *_times(each, first)) for name, each in cost.items()]
    title = f"Scoring one page; one prefill and stock passes differ by at most {apart:.0e} in P(yes)"
    return Table(title, ("", "CPU time, ms", "wall, ms", "× one preprocess, wall"), rows)


def _times(cost: Cost | None, first: Cost | None) -> tuple[str, ...]:
    if cost is None or first is None:
        return "out of memory", "", ""
    return f"{cost.cpu * 1e3:.0f}", f"{cost.wall * 1e3:.0f}", f"{cost.wall / first.wall:.1f}"


def recipe_table(base: str, place: Path, steps: int) -> Table:
    """A real run of the recipe for 12 GB, counted beforehand and measured, on a GPU inside 11.5 GB."""
    recipe = recipe_for(True, base, f"data.train={place / str(_FULL_PAGE)}", f"train.max_steps={steps}")
    progress: list[Progress] = []
    if _CUDA:
        torch.cuda.set_per_process_memory_fraction(_CARD / torch.cuda.mem_get_info()[1])
        torch.cuda.reset_peak_memory_stats()
    try:
        run = finetune(recipe, place / "recipe", report=progress.append)
        text, speed = round(run.tokens / run.images), progress[-1].images_per_second
        need = needs(recipe, text_tokens=text)
        flops, memory = need.flops_per_image, _device_memory(need.total)
    except WorkFailed as error:
        return Table(f"{recipe.name}: did not run", ("why not",), [(str(error),)])
    finally:
        _free()
        if _CUDA:
            torch.cuda.set_per_process_memory_fraction(1.0)
    rows = [
        ("TFLOP an image", f"{flops / 1e12:.3g}", ""),
        ("images/s", "", f"{speed:.3g}"),
        ("TFLOP/s: operations counted, time measured", "", f"{flops * speed / 1e12:.3g}"),
    ]
    title = f"{recipe.name} on {base}, {run.images} images with {text} text tokens each"
    return Table(title, ("", "counted", "measured"), rows + memory)


def cpu_step_table(base: str, place: Path) -> Table:
    """One optimizer step of the recipe for 12 GB on one page, on a CPU: a real run, forward to adapter saved."""
    overrides = ("train.optimizer=adamw_torch", "train.max_steps=1", "train.gradient_accumulation_steps=1")
    recipe = recipe_for(True, base, f"data.train={place / 'all'}", "train.workers=0", "train.log_every=1", *overrides)
    marks: list[tuple[str, float, float]] = []

    def mark(name: str) -> None:
        marks.append((name, time.monotonic(), time.process_time()))

    need = needs(recipe, text_tokens=_text_tokens(recipe, place / "all"))
    run = finetune(recipe, place / "run", status=mark)
    mark("")
    rows = [
        (name, f"{end - start:.1f}", f"{cpu_end - cpu_start:.1f}", "")
        for (name, start, cpu_start), (_, end, cpu_end) in pairwise(marks)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rows.append(
        ("peak memory of the process, GB; a GPU's, counted", "", "", f"{peak / 1e9:.2f}; {need.total / 1e9:.2f}")
    )
    vocabulary = base_config(base).text_config.vocab_size
    rows.append(("loss; ln(vocabulary)", "", "", f"{run.losses[-1][1]:.3f}; {math.log(vocabulary):.3f}"))
    title = f"{recipe.name} on {base}, one step of {run.images} image with {run.tokens} text tokens"
    return Table(title, ("", "wall, s", "CPU, s", ""), rows)


def _text_tokens(recipe: Recipe, pages: Path) -> int:
    return max(row.tokens for row in pack_rows(open_dataset(pages), Encoder(load_processor(recipe.model.base)), 0))


def _device_memory(estimate: int) -> list[tuple[str, str, str]]:
    if not _CUDA:
        return []
    free, total = torch.cuda.mem_get_info()
    return [
        ("peak memory, GB: tensors", f"{estimate / 1e9:.2f}", f"{torch.cuda.max_memory_allocated() / 1e9:.2f}"),
        ("peak memory, GB: held by torch", "", f"{torch.cuda.max_memory_reserved() / 1e9:.2f}"),
        ("the device's memory in use at the end, GB", "", f"{(total - free) / 1e9:.2f}"),
    ]


def facts(base: str, recipe: Recipe, pages: int, size: str = "672 × 336") -> str:
    """Model, data, machine and versions, in one paragraph."""
    packages = ("torch", "transformers", "peft", "trl", "bitsandbytes")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    where = (
        torch.cuda.get_device_name() if _CUDA else f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    )
    lora, model, train = recipe.lora, recipe.model, recipe.train
    assert lora is not None
    checkpointing = "on" if train.gradient_checkpointing else "off"
    return (
        f"Model {base} ({model.dtype}, quantization {model.quantization}), LoRA rank {lora.rank}, dropout "
        f"{lora.dropout:g}, {train.optimizer}, gradient checkpointing {checkpointing}; {pages} simulated pages, "
        f"{size}; {where}; Python {platform.python_version()}, {versions}."
    )


def measure(options: argparse.Namespace, place: Path) -> Iterator[Table | str]:
    """The tables one by one, and what they were measured on."""
    if options.cpu_11b:
        write_dataset(SimulatedSource(5, 1), place / "all", Options(width=1120, closed=6))
        recipe = recipe_for(True, options.base)
        yield facts(options.base, recipe, 1, "1120 × 560")
        yield cpu_step_table(options.base, place)
        return
    gpu, base_name, steps = options.gpu, options.base, options.steps
    pages = max(steps, 8)
    write_dataset(SimulatedSource(5, pages), place / "all", Options(width=672, closed=_CLOSED, seed=5))
    for n in {*options.dialogues, *([_FULL_PAGE] if gpu else [])}:
        cut_pages(place / "all", place / str(n), n)
    if gpu:
        yield recipe_table(base_name, place, 2 if options.quick else 5)
    recipe = recipe_for(
        gpu, base_name, "lora.dropout=0", "lora.targets=all-linear", "train.gradient_accumulation_steps=1"
    )
    yield facts(base_name, recipe, pages)
    base, processor = load_model(recipe.model), load_processor(base_name)
    page = open_dataset(place / "all")[0]["image"]
    yield score_table(base, processor, page, options.rounds)
    yield tuning_table(base, processor, recipe, place, options.dialogues, options.rounds)
    n = min(options.dialogues, key=lambda n: abs(n - _LOSS_DIALOGUES))
    yield loss_table(base, processor, recipe, place / str(n), n, steps)


def main() -> None:
    """Print the tables; with --json, write each as soon as it is there."""
    parser = argparse.ArgumentParser(description="Measure tuning and scoring against stock TRL and transformers.")
    parser.add_argument("--gpu", action="store_true", help="the recipe for 12 GB on the 11 B's shapes")
    parser.add_argument("--cpu-11b", action="store_true", help="one step of that recipe on a CPU: 10 GB, minutes")
    parser.add_argument("--base", help="model.base (default: nano, with --gpu and --cpu-11b random:11b)")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default: 7, with --gpu 2)")
    parser.add_argument("--dialogues", type=int, nargs="+", default=[1, 4, 8, 16], help="dialogues an image")
    parser.add_argument("--steps", type=int, help="steps over which losses are compared (default: 50, with --gpu 20)")
    parser.add_argument("--quick", action="store_true", help="one round, 1 and 4 dialogues, 5 steps: to see it work")
    parser.add_argument("--json", type=Path, help="also write the tables here")
    options = parser.parse_args()
    if options.gpu and not _CUDA and not options.base:
        parser.error("--gpu: torch finds no GPU; to try the same code on a CPU add --base random:nano")
    options.base = options.base or ("random:11b" if options.gpu or options.cpu_11b else "nano")
    options.rounds = options.rounds or (2 if options.gpu else 7)
    options.steps = options.steps or (20 if options.gpu else 50)
    if options.quick:
        options.dialogues, options.steps, options.rounds = [1, 4], 5, 1
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    results: list[Any] = []
    with tempfile.TemporaryDirectory() as name:
        for part in measure(options, Path(name)):
            print(part if isinstance(part, Table) else f"\n{part}", flush=True)
            results.append(vars(part) if isinstance(part, Table) else part)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
