"""The training run: recipe and data in, adapter (or nano's weights) out, through TRL's SFTTrainer.

Under `accelerate launch` the same call runs in every process. Each plans the same batches and takes its share of them;
only the first one writes and reports. Two GPUs, the model on each:

    accelerate launch --multi_gpu --num_processes 2 -m ecg_vlm.cli finetune RECIPE

and the model shared out over them, in 4 bits too (one dtype for all weights of a layer, hence `model.dtype=bfloat16`):

    accelerate launch --use_fsdp --num_processes 2 --mixed_precision bf16 --fsdp_version 1
        --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --fsdp_state_dict_type FULL_STATE_DICT
        --fsdp_use_orig_params false --fsdp_cpu_ram_efficient_loading true --fsdp_sync_module_states true
        -m ecg_vlm.cli finetune RECIPE
"""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from safetensors.torch import save_file
from transformers import PrinterCallback
from trl import SFTConfig

from recipes.base_models import as_folder, base_fingerprint
from recipes.batching import BatchLimits, Collator, Plan, in_order, plan_batches, split_pages
from recipes.checkpoint import checkpoints
from recipes.config import DataPart, Recipe, save_recipe
from recipes.model import add_lora, fast_bfloat16, load_model, load_processor
from recipes.packing import Encoder
from recipes.resume import Interrupted, check_before_start, readable_errors, require_same_plan
from recipes.trainer import Progress, ProgressCallback, Trainer, Validate
from recipes.vision_tower import apply_checkpointing, keep_inkiest_patches, vision_model
from recipes.waveform_heads import HEADS, IN_MODEL, Reading, split_targets
from render.dataset.parquet import open_dataset
from render.errors import InputError
from render.io import atomic_write
from render.sources.registry import parse_folds

__all__ = ["Interrupted", "Progress", "Validate", "finetune", "training_pages"]

_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "ecg-vlm")


def finetune(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    validate: Validate | None = None,
) -> dict[str, Any]:
    """Tune the recipe's model on the recipe's data and write the result into `out`.

    `out` then holds the adapter in stock peft layout (or the whole model for a run from scratch), `recipe.yaml` as
    resolved, and `run.json`: losses, adapted layers, parameters, versions, data. Returns the content of `run.json`;
    with `resume`, that of a finished run at once.
    validate: figures to be had at each evaluation, see `recipes.trainer.Validate`.
    Raises `InputError` for a filled `out` without `resume`, another recipe than the run was begun with, missing data,
    or a base that cannot be loaded; `WorkFailed` for a full disk, full memory or a loss that is no number;
    `Interrupted` after Ctrl-C, SIGTERM or `train.max_minutes`, with a checkpoint to go on from.
    """
    processes = PartialState(cpu=not torch.cuda.is_available())  # chooses this process's GPU, before anything is loaded
    with readable_errors(out, processes.is_local_main_process):
        finished = check_before_start(recipe, out, resume)
        return finished or _run(recipe, out, processes, report, validate)


def _run(
    recipe: Recipe, out: Path, processes: PartialState, report: Callable[[Progress], None], validate: Validate | None
) -> dict[str, Any]:
    with processes.main_process_first():  # the first one filters the data, the others find the result cached
        pages = training_pages(recipe.data, reading=recipe.train.reading > 0)
    processor = load_processor(recipe.model.base)
    encoder = Encoder(processor)
    budget = BatchLimits(recipe.train.images_per_batch, recipe.train.tokens_per_batch)
    batches = _plan(recipe, split_pages(pages, encoder, budget.tokens), budget, processes.num_processes)
    begun = checkpoints(out)  # none without `resume`: `out` is empty then
    require_same_plan(out, begun, batches)
    sets = {"train": (pages, batches)}
    if recipe.data.validation:
        held_out = open_dataset(recipe.data.validation)
        sets["held out"] = (held_out, in_order(split_pages(held_out, encoder, budget.tokens), budget))
    model = _prepared_model(recipe)
    facts = _facts(recipe, model, pages)
    if recipe.train.reading:
        model.reading = Reading(vision_model(model)).to(model.device, model.dtype)
        model.reading.go_on_from(as_folder(recipe.model.base))
    if processes.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, out / "recipe.yaml")
    watch = ProgressCallback(batches, report, recipe.train, evaluates="held out" in sets or validate is not None)
    tables = {name: batches.table(name) for name, (_, batches) in sets.items()}
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, out, batches.steps),
        train_dataset=tables["train"],
        eval_dataset=tables.get("held out"),
        processing_class=processor,
        data_collator=Collator(
            {name: (rows, batches.pieces) for name, (rows, batches) in sets.items()},
            encoder,
            model.config.vision_config.patch_size if recipe.train.reading else 0,
        ),
        callbacks=[watch],
        validate=validate,
        reading=recipe.train.reading,
        muon=recipe.train.optimizer == "muon",
    )
    watch.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    started = time.monotonic()
    with watch.signals():
        trainer.train(resume_from_checkpoint=str(begun[-1]) if begun else None)
    if watch.stopped:
        raise Interrupted(
            f"{out}: stopped after step {trainer.state.global_step} of {batches.steps} ({watch.stopped}), which is "
            f"saved; go on with the same command and --resume"
        )
    seconds = round(time.monotonic() - started, 1)
    summary = {**facts, "seconds": seconds, **_course(trainer, batches)}
    _save(trainer, processor, out, summary)
    return summary


def _plan(recipe: Recipe, pieces: Any, budget: BatchLimits, processes: int) -> Plan:
    train = recipe.train
    made = plan_batches(
        pieces,
        budget,
        seed=train.seed,
        per_step=train.accumulate * processes,
        epochs=train.epochs,
        steps=train.max_steps,
    )
    if made.steps == 0:
        raise InputError(f"recipe: train.epochs={train.epochs} and train.max_steps=0: no step to take; raise one")
    return made


def _prepared_model(recipe: Recipe) -> Any:
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


def training_pages(data: DataPart, *, reading: bool = False) -> Any:
    """The training rows: the folds asked for, without dialogues that speak of `leave_out`.

    Raises `InputError` when nothing is left, and for rows without signals where there is `reading` to be taught.
    """
    if not data.train:
        raise InputError("recipe: data.train is empty; name a folder made by ecg-vlm render, or give data.train=FOLDER")
    from datasets import concatenate_datasets

    sets = {folder.strip(): open_dataset(folder.strip()) for folder in data.train.split(",")}
    for folder, rows in sets.items():
        if reading and "signal" not in rows.column_names:
            raise InputError(f"{folder}: train.reading needs the records' signals; render the pages with --signal")
    pages = concatenate_datasets(list(sets.values())) if len(sets) > 1 else next(iter(sets.values()))
    if data.folds:
        folds = set(parse_folds(data.folds))
        pages = pages.filter(lambda fold: fold in folds, input_columns="fold", desc="choosing folds")
    if data.leave_out:
        hidden = set(data.leave_out)

        def keep(dialogues: list[dict[str, Any]]) -> dict[str, Any]:
            return {"dialogues": [d for d in dialogues if hidden.isdisjoint(d["statements"])]}

        pages = pages.map(keep, input_columns="dialogues", desc="leaving out statements")
        pages = pages.filter(lambda dialogues: len(dialogues) > 0, input_columns="dialogues", desc="leaving out pages")
    if len(pages) == 0:
        raise InputError(f"{data.train}: no page is left to train on (data.folds={data.folds!r}, data.leave_out)")
    return pages


def _arguments(recipe: Recipe, out: Path, steps: int) -> SFTConfig:
    train = recipe.train
    renamed = "activation_checkpointing" in SFTConfig.__dataclass_fields__  # since transformers 5.2x
    return SFTConfig(
        output_dir=str(out),
        run_name=recipe.name,
        project="ecg-vlm",
        max_steps=steps,
        # One item is one batch of the plan, and the plan has its own order.
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        gradient_accumulation_steps=train.accumulate,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        optim="adamw_torch" if train.optimizer == "muon" else train.optimizer,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
        data_seed=train.seed,
        bf16=(train.mixed_precision and fast_bfloat16()) or recipe.model.dtype == "bfloat16",
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
        # `recipes.vision_tower` has seen to it; TRL's default would trace a frozen tower.
        **{"activation_checkpointing" if renamed else "gradient_checkpointing": False},
    )


def _facts(recipe: Recipe, model: Any, pages: Any) -> dict[str, Any]:
    trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    adapted: Counter[str] = Counter()
    for name, count in trained.items():
        layer, adapter, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if adapter:
            adapted[layer] += count
    return {
        "name": recipe.name,
        "base": recipe.model.base,
        "base_sha256": "" if recipe.model.from_scratch else base_fingerprint(recipe.model.base),
        "pages": len(pages),
        "records": sorted(set(pages["record_id"])),
        "patients": sorted(set(pages["patient_id"])),
        "parameters": _parameters(model),
        "trained_parameters": sum(trained.values()),
        "adapted_layers": dict(sorted(adapted.items())),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def _parameters(model: Any) -> int:
    """All parameters; peft knows that a byte of 4-bit weights holds two."""
    if isinstance(model, PeftModel):
        return int(model.get_nb_trainable_parameters()[1])
    return sum(p.numel() for p in model.parameters())


def _course(trainer: Trainer, batches: Plan) -> dict[str, Any]:
    """How the run went: steps, images and tokens seen, losses as logged, what each evaluation found."""
    history, steps = trainer.state.log_history, trainer.state.global_step
    validation: dict[int, dict[str, Any]] = {}
    for entry in history:
        found = {k.removeprefix("eval_"): v for k, v in entry.items() if k.startswith("eval_") and k not in _SPEEDS}
        if found:
            validation.setdefault(entry["step"], {"step": entry["step"]}).update(found)
    return {
        "steps": steps,
        "images": batches.rows(steps),
        "tokens": batches.tokens(steps),
        "losses": [[e["step"], e["loss"]] for e in history if "loss" in e],
        "validation_losses": [[e["step"], e["eval_loss"]] for e in history if "eval_loss" in e],
        "validation": list(validation.values()),
    }


# What Trainer adds to an evaluation.
_SPEEDS = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def _save(trainer: Trainer, processor: Any, out: Path, summary: dict[str, Any]) -> None:
    """Weights first, `run.json` last: a folder without it is an unfinished run."""
    accelerator = trainer.accelerator
    state = accelerator.get_state_dict(trainer.model_wrapped)  # gathers sharded weights: every process takes part
    if not accelerator.is_main_process:
        return
    model = accelerator.unwrap_model(trainer.model_wrapped)
    state, heads = split_targets(state, IN_MODEL)
    if heads:
        save_file(heads, out / HEADS)
    if not isinstance(model, PeftModel):
        state = {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in state.items()}
        model.config.dtype = torch.bfloat16
        processor.save_pretrained(str(out))
    model.save_pretrained(str(out), state_dict=state)
    with atomic_write(out / "run.json") as partial_file:
        partial_file.write_text(json.dumps(summary, indent=1), encoding="utf-8")
