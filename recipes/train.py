"""The training run: recipe and data in, adapter (or nano's weights) out. `recipes.trainer` holds the training step.

Under `accelerate launch` the same call runs in every process. Each plans the same batches and takes its share of them;
only the first one writes and reports. Two GPUs, the model on each:

    accelerate launch --multi_gpu --num_processes 2 -m ecg_vlm.cli finetune RECIPE

and the model sharded over them (FSDP2), in 4 bits, too:

    accelerate launch --use_fsdp --num_processes 2 --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP
        --fsdp_state_dict_type FULL_STATE_DICT --fsdp_cpu_ram_efficient_loading false -m ecg_vlm.cli finetune RECIPE
"""

from __future__ import annotations

import errno
import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from safetensors.torch import save_file
from transformers import PrinterCallback
from trl import SFTConfig

from recipes.config import DataPart, Recipe, save_recipe
from recipes.families import Mllama, family_of
from recipes.model import (
    add_lora,
    apply_checkpointing,
    as_folder,
    base_fingerprint,
    fast_bfloat16,
    gpu_without_bfloat16,
    load_model,
    load_processor,
    vision_model,
)
from recipes.packing import BatchLimits, Collator, Encoder, Plan, in_order, pack_rows, plan_batches
from recipes.run_folder import (
    RunFacts,
    batches_per_step,
    checkpoints,
    last_checkpoint_line,
    open_run,
    remove_damaged_checkpoints,
    remove_older_checkpoints,
    require_same_pages,
    require_same_plan,
    write_run_card,
)
from recipes.trainer import Progress, ProgressCallback, Trainer, Validate
from recipes.vision_tower import keep_inkiest_patches
from recipes.waveform_heads import HEADS, IN_MODEL, Reading, split_targets, targets
from render.dataset.parquet import is_dataset, open_dataset
from render.errors import InputError, WorkFailed, is_memory_full
from render.io import apply_umask, exclusive, temporary_folder, user_path, write_json
from render.sources.ptbxl import may_judge
from render.sources.registry import parse_folds

__all__ = ["Progress", "RunInterrupted", "Validate", "finetune", "training_pages"]

_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "ecg-vlm")
_CACHE = ".pages.ecg-vlm-00000000"  # by its name a temporary folder (`render.io`), should the run be killed
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunInterrupted(KeyboardInterrupt):
    """The run ended before its last step, by Ctrl-C, SIGTERM or its time limit; the message says how to resume."""


def finetune(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    validate: Validate | None = None,
    status: Callable[[str], None] = lambda text: None,
    note: Callable[[str], None] = lambda text: None,
) -> RunFacts:
    """Tune the recipe's model on the recipe's data and write the result into `out`.

    `out` then holds the adapter in stock peft layout (or the whole model for a run from scratch), `recipe.yaml` as
    resolved, `run.json` (the facts that are returned) and a README.md. With `resume`, a finished run's facts are
    returned at once.
    report: called after each step. validate: figures of each evaluation, see `recipes.trainer.Validate`.
    status: called with what is being done ("loading nano") before each long silent wait. note: called with lines that
    the user has to see, such as that the last checkpoint is damaged. All of them in the main process.
    Raises `InputError` for an `out` that is not empty without `resume` or that another process writes into, another
    recipe or other pages than the run was begun with, missing data, or a base that cannot be loaded; `WorkFailed` for
    a full disk, full memory or a loss that is not finite; `RunInterrupted` after Ctrl-C, SIGTERM or
    `train.max_minutes`, with a checkpoint to resume from.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())  # chooses this process's GPU, before anything is loaded
    with (
        _readable_errors(out, reports=processes.is_local_main_process),
        exclusive(out) if processes.is_main_process else nullcontext(),
    ):
        _require_environment(recipe, processes)
        if recipe.train.keep == "macro_auc" and validate is None:
            raise InputError("recipe: train.keep=macro_auc: data.validation needs pages of ecg-vlm render")
        facts = open_run(recipe, out, resume=resume)
        if processes.is_main_process:
            if facts is None:
                remove_damaged_checkpoints(out, note)
            else:
                remove_older_checkpoints(out)  # where the run was killed behind its last file
        processes.wait_for_everyone()  # nobody writes into `out` while another still checks whether it is empty
        try:
            return facts or _run(
                recipe, out, processes, report, validate, status if processes.is_main_process else lambda text: None
            )
        finally:
            shutil.rmtree(out / _CACHE, ignore_errors=True)


def _require_environment(recipe: Recipe, processes: PartialState) -> None:
    """Refuse what cannot work on this machine, before anything is loaded."""
    if torch.cuda.device_count() > 1 and processes.num_processes == 1:
        raise InputError(
            "several GPUs are visible and one process was started; start one for each with accelerate launch, "
            "or choose one GPU with CUDA_VISIBLE_DEVICES=0"
        )
    if recipe.model.dtype == "bfloat16" and (card := gpu_without_bfloat16()):
        raise InputError(f"recipe: model.dtype=bfloat16: {card} has no bfloat16; set model.dtype=float16")
    log_to = recipe.train.log_to
    if log_to != "none" and find_spec(log_to) is None:
        raise InputError(f"recipe: train.log_to={log_to}: not installed; pip install {log_to}, or train.log_to=none")


@contextmanager
def _readable_errors(out: Path, *, reports: bool) -> Iterator[None]:
    """Turn what may happen to a run into `WorkFailed` or `RunInterrupted`, each with the last good checkpoint.

    reports: whether this process reports an error that all processes run into alike; the others exit silently.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_full(error) or isinstance(error, WorkFailed):
            raise
        raise WorkFailed(
            f"{out}: the memory is full; {last_checkpoint_line(out)}; lower train.images_per_batch or "
            f"train.tokens_per_batch, set train.gradient_checkpointing=true or model.quantization=nf4; ecg-vlm doctor "
            f"counts what a recipe needs"
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise WorkFailed(f"{out}: {error}; {last_checkpoint_line(out)}; free disk space, then use --resume") from error
    except (InputError, KeyboardInterrupt) as error:
        if not reports:
            raise SystemExit(2 if isinstance(error, InputError) else 130) from error
        if isinstance(error, (InputError, RunInterrupted)):
            raise
        raise RunInterrupted(
            f"{out}: stopped at once; {last_checkpoint_line(out)}; resume with the same command and --resume"
        ) from error


def _run(
    recipe: Recipe,
    out: Path,
    processes: PartialState,
    report: Callable[[Progress], None],
    validate: Validate | None,
    status: Callable[[str], None],
) -> RunFacts:
    status("reading the training pages")
    with processes.main_process_first():  # the first one filters the data, the others load the result from the cache
        pages = training_pages(recipe.data, reading=recipe.train.reading > 0, cache_folder=out / _CACHE)
        held_out = _held_out_pages(recipe.data, out / _CACHE) if recipe.data.validation else None
    encoder = Encoder(load_processor(recipe.model.base))
    _require_mllama(recipe, encoder.processor)
    status(f"encoding the dialogues of {len(pages):,} pages")
    plan = _plan(recipe, pages, encoder, batches_per_step(out, recipe, processes.num_processes))
    require_same_plan(out, plan)
    splits = {"train": (pages, plan)}
    if held_out is not None:
        limits = _limits(recipe)
        splits["held out"] = (held_out, in_order(pack_rows(held_out, encoder, limits.tokens), limits))
    status(f"loading {recipe.model.base}")
    model = _prepare_model(recipe)
    facts = _facts_before(recipe, model, pages)
    if recipe.train.reading:
        model.reading = Reading(vision_model(model)).to(model.device, model.dtype)
        model.reading.load_from(as_folder(recipe.model.base))
    if processes.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, out / "recipe.yaml")
        require_same_pages(out, recipe.data.train, plan.per_step)
    callback = ProgressCallback(plan, report, recipe.train, evaluates="held out" in splits or validate is not None)
    trainer = _make_trainer(recipe, out, model, encoder, splits, callback, validate)
    resumable = checkpoints(out)  # none without `resume`: `out` was empty
    status(f"resuming from {resumable[-1]}" if resumable else f"taking the first of {plan.steps:,} steps")
    start = time.monotonic()
    with callback.signals():
        trainer.train(resume_from_checkpoint=str(resumable[-1]) if resumable else None)
    if callback.stop_reason:
        raise RunInterrupted(
            f"{out}: stopped after step {trainer.state.global_step} of {plan.steps} ({callback.stop_reason}), which is "
            f"saved; resume with the same command and --resume"
        )
    best_step = trainer.restore_best()
    seconds = round(time.monotonic() - start, 1)
    run_facts = RunFacts(**facts, seconds=seconds, best_step=best_step, **_facts_after(trainer, plan))
    _save(trainer, encoder.processor, recipe, out, run_facts)
    return run_facts


def _require_mllama(recipe: Recipe, processor: Any) -> None:
    """Refuse what is made for an Mllama's vision tower with another one."""
    if not isinstance(family := family_of(processor), Mllama):
        for key, value in (("reading", recipe.train.reading), ("patches", recipe.train.patches)):
            if value:
                raise InputError(f"recipe: train.{key}={value}: {recipe.model.base} is a {family.title}; set it to 0")


def _make_trainer(
    recipe: Recipe,
    out: Path,
    model: Any,
    encoder: Encoder,
    splits: dict[str, tuple[Any, Plan]],
    callback: ProgressCallback,
    validate: Validate | None,
) -> Trainer:
    train = recipe.train
    patch = model.config.vision_config.patch_size
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, out, splits["train"][1]),
        train_dataset=splits["train"][1].table("train"),
        eval_dataset=splits["held out"][1].table("held out") if "held out" in splits else None,
        processing_class=encoder.processor,
        data_collator=Collator(
            {name: (pages, plan.rows) for name, (pages, plan) in splits.items()},
            encoder,
            partial(targets, processor=encoder.processor, patch=patch) if train.reading else None,
        ),
        callbacks=[callback],
        validate=validate,
        reading=train.reading,
        muon=train.optimizer == "muon",
        plus=recipe.lora.plus if recipe.lora else 1.0,
        keep=train.keep,
        patience=train.patience,
    )
    callback.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    return trainer


def _limits(recipe: Recipe) -> BatchLimits:
    return BatchLimits(recipe.train.images_per_batch, recipe.train.tokens_per_batch)


def _plan(recipe: Recipe, pages: Any, encoder: Encoder, per_step: int) -> Plan:
    """All batches of the run. Raises `InputError` for a run without a step."""
    train, limits = recipe.train, _limits(recipe)
    plan = plan_batches(
        pack_rows(pages, encoder, limits.tokens),
        limits,
        seed=train.seed,
        per_step=per_step,
        epochs=train.epochs,
        steps=train.max_steps,
    )
    if plan.steps == 0:
        raise InputError(f"recipe: train.epochs={train.epochs} and train.max_steps=0: no step to take; raise one")
    return plan


def _prepare_model(recipe: Recipe) -> Any:
    """The model to be trained: base, fresh adapter, and as little memory as the recipe allows."""
    base = load_model(recipe.model, seed=recipe.train.seed)
    torch.manual_seed(recipe.train.seed)
    model = base if recipe.lora is None else add_lora(base, recipe.lora)
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = recipe.model.base
        # Embeddings are never adapted; left to itself peft asks the hub for the base to find that out.
        model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)
    apply_checkpointing(model, checkpointing=recipe.train.gradient_checkpointing)
    if recipe.train.patches:
        keep_inkiest_patches(vision_model(model), recipe.train.patches)
    return model


def training_pages(data: DataPart, *, reading: bool = False, cache_folder: Path | None = None) -> Any:
    """The training pages: those of the recipe's folds, without dialogues about statements of `leave_out`.

    Args:
        reading: whether the waveform heads are trained.
        cache_folder: see `open_dataset`; the processes of a run share one.

    Raises:
        InputError: When nothing is left, and with `reading` for pages without signals.
    """
    if not data.train:
        raise InputError("recipe: data.train is empty; name a folder made by ecg-vlm render, or give data.train=FOLDER")
    pages = _open_pages(data.train, cache_folder, ("signal",) if reading else ())
    if data.folds:
        folds = set(parse_folds(data.folds))
        pages = pages.filter(lambda fold: fold in folds, input_columns="fold", desc="choosing folds")
    if data.leave_out:
        left_out = set(data.leave_out)

        def keep(dialogues: list[dict[str, Any]]) -> dict[str, Any]:
            return {"dialogues": [d for d in dialogues if left_out.isdisjoint(d["statements"])]}

        pages = pages.map(keep, input_columns="dialogues", desc="leaving out statements")
        pages = pages.filter(lambda dialogues: len(dialogues) > 0, input_columns="dialogues", desc="leaving out pages")
    if len(pages) == 0:
        raise InputError(f"{data.train}: no page is left to train on (data.folds={data.folds!r}, data.leave_out)")
    return pages


def _held_out_pages(data: DataPart, cache_folder: Path) -> Any:
    """The pages of `data.validation`. Raises `InputError` when none of their records may judge."""
    pages = _open_pages(data.validation, cache_folder).filter(
        may_judge, input_columns=["source", "record_id"], desc="leaving out records that may not judge"
    )
    if len(pages) == 0:
        raise InputError(f"{data.validation}: none of its records may judge; restored ones are for training")
    return pages


def _open_pages(names: str, cache_folder: Path | None, columns: tuple[str, ...] = ()) -> Any:
    """Folders made by `ecg-vlm render` and rows in other forms, joined by commas, as one data set.

    columns: that every one of them needs.
    """
    from datasets import concatenate_datasets

    from render.dataset.other_rows import open_rows

    parts = []
    for name in map(str.strip, names.split(",")):
        if is_dataset(name) or not (name.startswith("hf://") or user_path(name).exists()):
            parts.append(open_dataset(name, cache_folder))
        else:
            parts.append(open_rows(name, cache_folder or temporary_folder("pages")))
        if not set(columns) <= set(parts[-1].column_names):
            raise InputError(f"{name}: train.reading needs the records' signals; render the pages with --signal")
    return concatenate_datasets(parts)  # what only some have is None for the others


def _arguments(recipe: Recipe, out: Path, plan: Plan) -> SFTConfig:
    train = recipe.train
    has_new_name = "activation_checkpointing" in SFTConfig.__dataclass_fields__  # since transformers 5.2x
    return SFTConfig(
        output_dir=str(out),
        run_name=recipe.name,
        project="ecg-vlm",
        max_steps=plan.steps,
        # One item is one batch of the plan, and the plan has its own order.
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=plan.per_step // PartialState().num_processes,
        learning_rate=train.learning_rate,
        neftune_noise_alpha=train.neftune or None,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        optim="adamw_torch" if train.optimizer == "muon" else train.optimizer,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
        data_seed=train.seed,
        bf16=(train.mixed_precision and fast_bfloat16()) or recipe.model.dtype == "bfloat16",
        fp16=recipe.model.dtype == "float16" and torch.cuda.is_available(),  # Trainer scales losses on a GPU alone
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,  # every row has an image, so every adapter has a gradient
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,  # it would show the mean of earlier losses instead
        save_steps=train.save_every,
        dataloader_num_workers=train.workers,
        disable_tqdm=True,
        report_to=train.log_to,
        remove_unused_columns=False,
        # Our collator tokenizes and packs; TRL must neither tokenize nor truncate (a cut answer is a wrong label).
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        # `apply_checkpointing` has done it already; TRL's default would trace a frozen tower.
        **{"activation_checkpointing" if has_new_name else "gradient_checkpointing": False},
    )


def _facts_before(recipe: Recipe, model: Any, pages: Any) -> dict[str, Any]:
    """What `RunFacts` holds of model and data."""
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    layers: Counter[str] = Counter()
    for name, size in sizes.items():
        layer, adapter, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if adapter:
            layers[layer] += size
    return {
        "name": recipe.name,
        "base": recipe.model.base,
        "base_sha256": "" if recipe.model.from_scratch else base_fingerprint(recipe.model.base),
        "pages": len(pages),
        "records": tuple(sorted(set(pages["record_id"]))),
        "patients": tuple(sorted({patient for patient in pages["patient_id"] if patient})),
        "parameters": _parameters(model),
        "trained_parameters": sum(sizes.values()),
        "adapted_layers": dict(sorted(layers.items())),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def _parameters(model: Any) -> int:
    """All parameters; peft knows that a byte of 4-bit weights holds two."""
    if isinstance(model, PeftModel):
        return int(model.get_nb_trainable_parameters()[1])
    return sum(p.numel() for p in model.parameters())


def _facts_after(trainer: Trainer, plan: Plan) -> dict[str, Any]:
    """What `RunFacts` holds of the training: steps, images, tokens, losses as logged, figures of each evaluation."""
    history, steps = trainer.state.log_history, trainer.state.global_step
    validation: dict[int, dict[str, Any]] = {}
    for entry in history:
        figures = {k.removeprefix("eval_"): v for k, v in entry.items() if k.startswith("eval_") and k not in _SPEEDS}
        if figures:
            validation.setdefault(entry["step"], {"step": entry["step"]}).update(figures)
    return {
        "steps": steps,
        "images": plan.images(steps),
        "tokens": plan.tokens(steps),
        "losses": tuple((e["step"], e["loss"]) for e in history if "loss" in e),
        "validation_losses": tuple((e["step"], e["eval_loss"]) for e in history if "eval_loss" in e),
        "validation": tuple(validation.values()),
    }


# What Trainer adds to an evaluation.
_SPEEDS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def _save(trainer: Trainer, processor: Any, recipe: Recipe, out: Path, facts: RunFacts) -> None:
    """Weights first, `run.json` last: a folder without it is an unfinished run."""
    accelerator = trainer.accelerator
    state = accelerator.get_state_dict(trainer.model_wrapped)  # gathers sharded weights: every process takes part
    if not accelerator.is_main_process:
        return
    model = accelerator.unwrap_model(trainer.model_wrapped)
    if recipe.train.reading:
        state, heads = split_targets(state, IN_MODEL)
        save_file(heads, out / HEADS)
    if not isinstance(model, PeftModel):
        state = {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in state.items()}
        model.config.dtype = torch.bfloat16
        processor.save_pretrained(str(out))
    model.save_pretrained(str(out), state_dict=state)
    for weights in out.glob("*.safetensors"):
        apply_umask(weights)
    write_run_card(recipe, facts, out)  # in place of peft's
    write_json(out / "run.json", asdict(facts))
    remove_older_checkpoints(out)
