"""The training run: recipe and data in, adapter (or nano's weights) out, through TRL's SFTTrainer."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from recipes.model import add_lora, load_model, load_processor, nano_folder
from recipes.packing import PackingCollator
from recipes.schema import DataPart, Recipe, save_recipe
from render.data.dataset import open_dataset
from render.files import InputError, refuse_filled, whole_file
from render.sources.source import parse_folds

_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "ecg-vlm")


@dataclass(frozen=True)
class Progress:
    """Where a run stands: optimizer steps, pages per second over the whole run, last logged loss (None before)."""

    step: int
    steps: int
    images_per_second: float
    loss: float | None


def finetune(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Tune the recipe's model on the recipe's data and write the result into `out`.

    `out` then holds the adapter in stock peft layout (or the whole model for a run from scratch), `recipe.yaml` as
    resolved, and `run.json`: losses, adapted layers, parameters, versions, data. Returns the content of `run.json`.
    Raises `InputError` for a filled `out` without `resume`, missing data, or a base that cannot be loaded.
    """
    checkpoints = sorted(out.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    if not resume:
        refuse_filled(out)
    pages = training_pages(recipe.data)
    held_out = open_dataset(recipe.data.validation) if recipe.data.validation else None
    processor = load_processor(recipe.model.base)
    base = load_model(recipe.model, seed=recipe.train.seed)
    torch.manual_seed(recipe.train.seed)
    model = base if recipe.lora is None else add_lora(base, recipe.lora)
    out.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, out / "recipe.yaml")
    trainer = SFTTrainer(
        model=model,
        args=_arguments(recipe, out),
        train_dataset=pages,
        eval_dataset=held_out,
        processing_class=processor,
        data_collator=PackingCollator(processor),
        callbacks=[_Reporter(report, recipe.train.images_per_batch * recipe.train.accumulate)],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.time()
    trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if resume and checkpoints else None)
    seconds = round(time.time() - started, 1)
    if held_out is not None:
        trainer.evaluate()  # its loss is the last line of the log
    summary = {
        **_facts(recipe, model, pages),
        "seconds": seconds,
        "steps": trainer.state.global_step,
        "losses": [[e["step"], e["loss"]] for e in trainer.state.log_history if "loss" in e],
        "validation_losses": [[e["step"], e["eval_loss"]] for e in trainer.state.log_history if "eval_loss" in e],
    }
    _save(recipe, model, processor, out, summary)
    return summary


def training_pages(data: DataPart) -> Any:
    """The training rows: the folds asked for, without dialogues that speak of `leave_out`.

    Raises `InputError` when nothing is left.
    """
    if not data.train:
        raise InputError("recipe: data.train is empty; name a folder made by ecg-vlm render, or give data.train=FOLDER")
    pages = open_dataset(data.train)
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


def _arguments(recipe: Recipe, out: Path) -> SFTConfig:
    train, bf16 = recipe.train, recipe.model.dtype == "bfloat16"
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=train.epochs,
        max_steps=train.max_steps or -1,
        per_device_train_batch_size=train.images_per_batch,
        per_device_eval_batch_size=train.images_per_batch,
        gradient_accumulation_steps=train.accumulate,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        gradient_checkpointing=train.gradient_checkpointing,
        seed=train.seed,
        data_seed=train.seed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=train.log_every,
        save_steps=train.save_every,
        save_total_limit=1,
        dataloader_num_workers=train.workers,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        # Our collator tokenizes and packs; TRL must neither tokenize nor truncate (a cut answer is a wrong label).
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )


class _Reporter(TrainerCallback):  # type: ignore[misc]
    """Hands the run's state on to whoever shows it."""

    def __init__(self, report: Callable[[Progress], None], images_per_step: int) -> None:
        self._report, self._images_per_step = report, images_per_step
        self._loss: float | None = None
        self._began: tuple[float, int] | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._began is None:  # the first step pays for compilation and caches: the rate counts from its end
            self._began = (time.monotonic(), state.global_step)
        began, first = self._began
        seconds = max(time.monotonic() - began, 1e-9)
        rate = (state.global_step - first) * self._images_per_step / seconds
        self._report(Progress(state.global_step, state.max_steps, rate, self._loss))


def base_fingerprint(base: str) -> str:
    """SHA-256 of nano's weights, so that an adapter is not put on another nano; "" for other bases."""
    weights = nano_folder() / "model.safetensors"
    if base != "nano" or not weights.is_file():
        return ""
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _facts(recipe: Recipe, model: Any, pages: Any) -> dict[str, Any]:
    adapted = sorted(model.targeted_module_names) if isinstance(model, PeftModel) else []
    parameters = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "name": recipe.name,
        "base": recipe.model.base,
        "base_sha256": "" if recipe.model.from_scratch else base_fingerprint(recipe.model.base),
        "pages": len(pages),
        "records": sorted(set(pages["record_id"])),
        "patients": sorted(set(pages["patient_id"])),
        "parameters": sum(n for n, _ in parameters),
        "trained_parameters": sum(n for n, trained in parameters if trained),
        "adapted_layers": adapted,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def _save(recipe: Recipe, model: Any, processor: Any, out: Path, summary: dict[str, Any]) -> None:
    """Weights first, `run.json` last: a folder without it is an unfinished run."""
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = recipe.model.base
        # Embeddings are never adapted; left to itself peft asks the hub for the base to find that out.
        model.save_pretrained(str(out), save_embedding_layers=False)
    else:
        model.to(torch.bfloat16).save_pretrained(str(out))
        processor.save_pretrained(str(out))
    with whole_file(out / "run.json") as partial:
        partial.write_text(json.dumps(summary, indent=1), encoding="utf-8")
