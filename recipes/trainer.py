"""The training step: TRL's SFTTrainer on a plan of batches, with whole checkpoints and an orderly end.

What one optimizer step does, in order, and which method does it:

 1. plan        `packing.plan_batches` has listed all batches of the run; `Plan.table` gives them one by one, in order
 2. collator    `packing.Collator` reads the pages of a batch and packs each image with its dialogues
 3. forward     `Trainer.compute_loss` calls SFTTrainer's: log probabilities of the answers' tokens (`_AnswerTokens`)
 4. loss        minus their mean over all batches of the step; `compute_loss` adds the waveform heads' loss, if any
 5. backward    `Trainer.training_step`, once a batch; raises where the loss is not finite
 6. clip        transformers' Trainer; `ProgressCallback.on_pre_optimizer_step` raises where a gradient is not finite
 7. optimizer   `Trainer.create_optimizer` (AdamW, or `optim.MuonAdamW`), then the schedule; gradients are reset
 8. callback    `ProgressCallback.on_step_end` reports progress, requests an evaluation, stops on a signal or time limit
 9. checkpoint  `Trainer._save_checkpoint` writes into a staging folder, `run_folder.put_in_place` moves it into place
10. evaluation  `Trainer.evaluate`: loss on held-out pages, and the figures of `validate`; of a step that is saved
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTTrainer

from recipes.config import TrainPart
from recipes.optim import MuonAdamW
from recipes.packing import IGNORE_INDEX, Plan
from recipes.run_folder import last_checkpoint_line, put_in_place, staging, update_state
from recipes.waveform_heads import IN_MODEL, reading_of, split_targets
from render.errors import InputError, WorkFailed, is_memory_full

PRIVATE_API = {
    "SFTTrainer._metrics": "loss parts are logged with it, and TRL's count of tokens is removed from it",
    "Trainer._get_output_dir": "overridden: the staging folder while a checkpoint is written",
    "Trainer._save_checkpoint": "overridden: a checkpoint is there as a whole or not at all",
    "SFTTrainer._save_checkpoint": "called by ours; it calls create_model_card, then Trainer's",
    "Trainer._load_from_checkpoint": "overridden: a whole model is read by the names of its published files",
}
"""What is used here of the classes above without being public, and for what. Everything else that `Trainer` overrides
is public. `tests/test_train.py` fails when one of them changes; read its message before changing anything."""

PRIVATE_API_VERSIONS = {"trl": "1.16.0", "transformers": "5.23.0"}
"""The versions in which `PRIVATE_API` was last checked."""

Validate = Callable[[Any, Any], dict[str, float]]
"""Called with the model (in eval mode) and its processor; returns figures by name, such as {"macro_auc": 0.9}."""


@dataclass(frozen=True)
class Progress:
    """The state of a run: optimizer steps, speed since the first step, and the last logged loss (None before).

    Attributes:
        tokens_per_second: text tokens, without padding.
        seconds_left: None until the second step has ended.
    """

    step: int
    steps: int
    images_per_second: float
    loss: float | None
    tokens_per_second: float = 0.0
    seconds_left: float | None = None


class _AnswerTokens:
    """Gives the language model's head only the tokens that carry loss, on a CPU.

    TRL's head selects them itself on a GPU. On a CPU it multiplies every token of every question with the whole
    vocabulary, in float32, and discards the results.
    """

    def __init__(self, model: Any) -> None:
        self._mask: torch.Tensor | None = None
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        base.base_model.register_forward_hook(self._select_hidden)

    def select(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with the labels of those tokens, as `shift_labels`; the next forward pass selects their states."""
        labels = inputs["labels"][:, 1:]
        mask = labels != IGNORE_INDEX
        if labels.device.type != "cpu" or not mask.any():
            return inputs
        self._mask = mask
        return {**inputs, "shift_labels": labels[mask][None]}

    def _select_hidden(self, _: Any, arguments: Any, output: Any) -> Any:
        if self._mask is not None:
            output.last_hidden_state = output.last_hidden_state[:, :-1][self._mask][None]
            self._mask = None
        return output


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on a `Plan`.

    Args:
        validate: figures of each evaluation besides the loss.
        muon: whether the optimizer is `recipes.optim`.
        plus, keep, patience: of the recipe, see `LoraPart` and `TrainPart`.
        reading: weight of the loss of the model's waveform heads beside the answers'; 0 where it has none.
    """

    def __init__(
        self,
        *args: Any,
        validate: Validate | None = None,
        reading: float = 0.0,
        muon: bool = False,
        plus: float = 1.0,
        keep: str = "last",
        patience: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # TRL's head does, whatever the model says: one mean over a whole step
        self._validate, self._reading, self._muon = validate, reading, muon
        self._plus, self._keep, self._patience = plus, keep, patience
        if not self.is_fsdp_enabled or self.accelerator.is_fsdp2:  # FSDP1 takes one type a layer
            _train_in_float32(self.model)
        self._answers = _AnswerTokens(self.model)
        self._into_staging = False

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer does, or Muon or LoRA+, which Trainer does not offer."""
        if self._muon:
            self.optimizer: Any = MuonAdamW(self.model, self.args.learning_rate, self.args.weight_decay)
        elif self._plus != 1.0:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            options |= {"loraplus_lr_ratio": self._plus, "loraplus_weight_decay": self.args.weight_decay}
            self.optimizer = create_loraplus_optimizer(self.model, kind, **options)
        else:
            return super().create_optimizer(*args, **kwargs)
        return self.optimizer

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return Path(self.args.output_dir)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One forward and backward pass. Raises `WorkFailed` where the loss is not finite."""
        loss = super().training_step(*args, **kwargs)
        if not math.isfinite(float(loss)):
            raise self.divergence(f"the loss is {float(loss)}")
        return loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """The loss of the answers and, in training, of the waveform heads."""
        inputs, targets = split_targets(inputs) if self._reading else (inputs, {})
        if not return_outputs:
            inputs = self._answers.select(inputs)
        result = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        if not targets or not model.training:
            return result
        loss, *outputs = result if return_outputs else (result,)
        parts = reading_of(model)(targets | {"aspect_ratio_mask": inputs["aspect_ratio_mask"]})
        for name, part in {"answers": loss, **parts}.items():
            self._metrics["train"][f"loss_{name}"].append(float(part.detach()))
        loss = loss + self._reading / self.args.gradient_accumulation_steps * sum(parts.values())
        return (loss, *outputs) if return_outputs else loss

    def divergence(self, what: str) -> WorkFailed:
        """The error of a run whose numbers are no longer finite; the weights are still those of the last step."""
        return WorkFailed(
            f"{self.out}: {what} at step {self.state.global_step + 1}; {last_checkpoint_line(self.out)}; start again "
            f"with a lower train.learning_rate (it is {self.args.learning_rate:g})"
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out loss and figures. The random state is restored: an evaluation does not change the training.

        The step is saved before, so that an evaluation that needs too much memory costs no training.
        """
        self._save_checkpoint(self.model_wrapped, None)
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with torch.random.fork_rng(devices=devices):
                metrics = self._figures(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_memory_full(error):
                raise
            raise WorkFailed(
                f"{self.out}: the memory is full in the evaluation behind step {self.state.global_step}, which is "
                f"saved; go on without evaluations with --resume data.validation= train.keep=last train.patience=0"
            ) from error
        self._note_best(metrics)
        if self.args.should_save:
            update_state(self.out / f"checkpoint-{self.state.global_step}", self.state.save_to_json)
        return metrics

    def _note_best(self, metrics: dict[str, float]) -> None:
        """Note the best evaluation so far in the state; end the run where none of the last ones was better."""
        if self._keep == "last":
            return
        if (value := metrics.get(f"eval_{self._keep}")) is None:
            raise InputError(f"recipe: train.keep={self._keep}: evaluations have no such figure; set train.keep=loss")
        state, sign = self.state, 1 if self._keep == "loss" else -1
        if state.best_metric is None or sign * value < sign * state.best_metric:
            state.best_metric, state.best_global_step = value, state.global_step
        steps = {entry["step"] for entry in state.log_history if f"eval_{self._keep}" in entry}
        if self._patience and sum(step > state.best_global_step for step in steps) >= self._patience:
            self.control.should_training_stop = True

    def restore_best(self) -> int:
        """Load the weights of the best evaluation where they are not those of the last step; returns its step, or 0."""
        best = self.state.best_global_step if self._keep != "last" else None
        if not best or best == self.state.global_step:
            return 0
        self._load_from_checkpoint(str(self.out / f"checkpoint-{best}"))
        return int(best)

    def _figures(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(*args, **kwargs) if self.eval_dataset is not None else {}
        if self._validate is not None:
            self.model.eval()
            with torch.no_grad(), self._without_autocast() as model:  # in every process: sharded weights are whole
                figures = self._validate(model, self.processing_class)  # only together
            figures = {f"eval_{name}": value for name, value in figures.items()}
            self.log(dict(figures))
            metrics |= figures
        return metrics

    @contextmanager
    def _without_autocast(self) -> Iterator[Any]:
        """The model as it answers after the run. With 16-bit weights autocast only costs memory: it gives layer norms,
        and with them all that the vision tower carries along, 32 bits. Float32 weights stay under autocast."""
        model = self.accelerator.unwrap_model(self.model)
        if model.dtype == torch.float32:
            yield model
            return
        forwards = {name: model.__dict__[name] for name in ("forward", "_original_forward") if name in model.__dict__}
        try:
            yield self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        finally:
            model.__dict__.update(forwards)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL does, without its count of tokens: it sums the attention mask, and ours is square."""
        for figures in self._metrics.values():
            figures.pop("num_tokens", None)
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None of TRL's: `run_folder` writes the card of a run and of a checkpoint."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As Trainer does for adapters. A whole model is saved under the names of its published files, which Trainer
        looks up by the names of its modules, ignoring all that it does not find: no weight would be restored."""
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        from_files = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        _, heads = split_targets(load_file(Path(resume_from_checkpoint) / "model.safetensors"), IN_MODEL)
        self.model.load_state_dict(from_files.state_dict() | heads)

    def _get_output_dir(self, trial: Any) -> str:
        return str(staging(self.out)) if self._into_staging else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write into the staging folder; move into place when every process has written its part."""
        step = self.state.global_step
        if (self.out / f"checkpoint-{step}").is_dir():
            return
        wait = self.accelerator.wait_for_everyone
        wait()
        if self.args.should_save:
            shutil.rmtree(staging(self.out), ignore_errors=True)
        wait()
        self._into_staging = True
        try:
            super()._save_checkpoint(model, trial)
            wait()
            if self.args.should_save:
                put_in_place(self.out, step, self.state.best_global_step or 0)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(staging(self.out), ignore_errors=True)
            raise WorkFailed(
                f"{self.out}: the checkpoint of step {step} cannot be written ({_first_line(error)}); "
                f"{last_checkpoint_line(self.out)}; make room on the disk, then go on with --resume"
            ) from error
        finally:
            self._into_staging = False
        wait()


def _train_in_float32(model: Any) -> None:
    """Give what is trained on 4-bit weights its float32 back, which TRL turns to bfloat16.

    In bfloat16 a step of 2e-5 is rounded away in a weight of .005 and more, which ends the learning before the cosine
    schedule does; and peft reads a checkpoint's adapter as float32, so that a resumed run would be another one.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype == torch.bfloat16 and getattr(model, "is_loaded_in_4bit", False):
            parameter.data = parameter.data.float()


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Reports progress, stops on a signal or a time limit, requests evaluations, raises where a gradient is not finite.

    evaluates: whether there are held-out pages or figures to evaluate.
    """

    trainer: Trainer

    def __init__(self, plan: Plan, report: Callable[[Progress], None], train: TrainPart, *, evaluates: bool) -> None:
        self._plan, self._report, self._evaluates = plan, report, evaluates
        self._validate_every = train.validate_every
        self._deadline = time.monotonic() + 60 * train.max_minutes if train.max_minutes else math.inf
        self._loss: float | None = None
        self._start: tuple[float, int] | None = None
        self._signal = ""
        self.stop_reason = ""
        """Why the run ended early; "" where it did not."""

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a stop after the current step; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        owner = os.getpid()

        def note(number: int, frame: Any) -> None:
            if os.getpid() != owner:  # a data loader's process: it ends with this one
                if number == signal.SIGTERM:
                    os._exit(1)
                return
            self._signal = signal.Signals(number).name
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        if self.trainer.accelerator.scaler is not None:  # float16: it leaves out such a step and scales by less
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not bool(torch.nn.utils.get_total_norm(gradients).isfinite()):
            raise self.trainer.divergence("a gradient is not finite")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make up for the evaluation of the step that a run goes on from, where it was saved and not evaluated."""
        of_step = {key for entry in state.log_history if entry["step"] == state.global_step for key in entry}
        if state.global_step and self._is_evaluated(state) and not any(key.startswith("eval_") for key in of_step):
            self.trainer.evaluate()

    def _is_evaluated(self, state: Any) -> bool:
        every, step = self._validate_every, state.global_step
        return self._evaluates and (step >= state.max_steps or bool(every and step % every == 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        plan, step = self._plan, state.global_step
        state.epoch = plan.images(step) / len(plan.rows)
        last = step >= state.max_steps
        if self._is_evaluated(state):
            control.should_evaluate = True
        if state.is_world_process_zero:
            self._report(self._progress(step, state.max_steps))
        self._stop(control, last)

    def _progress(self, step: int, steps: int) -> Progress:
        now = time.monotonic()
        if self._start is None:  # the first step pays for compilation and caches: the rate counts from its end
            self._start = (now, step)
        start, first = self._start
        seconds, plan = max(now - start, 1e-9), self._plan
        return Progress(
            step,
            steps,
            images_per_second=(plan.images(step) - plan.images(first)) / seconds,
            loss=self._loss,
            tokens_per_second=(plan.tokens(step) - plan.tokens(first)) / seconds,
            seconds_left=seconds / (step - first) * (steps - step) if step > first else None,
        )

    def _stop(self, control: Any, last: bool) -> None:
        """End the run where this or another process has a reason to: all of them must end at the same step."""
        reasons = [self._signal, "the time limit is reached" if time.monotonic() >= self._deadline else ""]
        reason = next((r for r in reasons if r), "")
        stop = torch.tensor(float(bool(reason)), device=self.trainer.args.device)
        if self.trainer.accelerator.num_processes > 1:
            stop = self.trainer.accelerator.reduce(stop, "sum")
        if float(stop) and not last:
            self.stop_reason = reason or "another process was stopped"
            control.should_save = control.should_training_stop = True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
