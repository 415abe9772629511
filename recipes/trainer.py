"""TRL's SFTTrainer with what it lacks: whole checkpoints, a stop at the first NaN, an orderly end, validation."""

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
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTTrainer

from recipes.batching import Plan
from recipes.checkpoint import last_checkpoint_line, put_in_place, staging
from recipes.config import TrainPart
from recipes.optim import MuonAdamW
from recipes.waveform_heads import IN_MODEL, reading_of, split_targets
from render.errors import WorkFailed

Validate = Callable[[Any, Any], dict[str, float]]
"""Called with the model (in eval mode) and its processor; returns figures by name, such as {"macro_auc": 0.9}."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: optimizer steps, speed since the first step, and the last logged loss (None before).

    tokens_per_second: text tokens, padding left out. seconds_left: None until the second step is done.
    """

    step: int
    steps: int
    images_per_second: float
    loss: float | None
    tokens_per_second: float = 0.0
    seconds_left: float | None = None


class _AnswersAlone:
    """Shows the language model's head nothing but the tokens that it is judged on, on a CPU.

    TRL's head picks them out itself on a GPU. On a CPU it multiplies every token of every question with the whole
    vocabulary, in float32, and throws the results away.
    """

    def __init__(self, model: Any) -> None:
        self._places: torch.Tensor | None = None
        whole = model.get_base_model() if isinstance(model, PeftModel) else model
        whole.base_model.register_forward_hook(self._pick)

    def of(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with the labels of those tokens alone, as `shift_labels`; the next forward pass picks them."""
        labels = inputs["labels"][:, 1:]
        places = labels != -100
        if labels.device.type != "cpu" or not places.any():
            return inputs
        self._places = places
        return {**inputs, "shift_labels": labels[places][None]}

    def _pick(self, _: Any, arguments: Any, output: Any) -> Any:
        if self._places is not None:
            output.last_hidden_state = output.last_hidden_state[:, :-1][self._places][None]
            self._places = None
        return output


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on a `Plan`. validate: figures to be had at each evaluation besides the loss.

    muon: whether the optimizer is `recipes.optim`.
    reading: weight of what the model's `Reading` heads, if it has any, are to learn beside the answers.
    """

    def __init__(
        self, *args: Any, validate: Validate | None = None, reading: float = 0.0, muon: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._validate, self._reading, self._muon = validate, reading, muon
        self._answers = _AnswersAlone(self.model)
        self._staged = False

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer does, and Muon, which it does not know."""
        if not self._muon:
            return super().create_optimizer(*args, **kwargs)
        self.optimizer: Any = MuonAdamW(self.model, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return Path(self.args.output_dir)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One forward and backward pass. Raises `WorkFailed` where the loss is no number."""
        loss = super().training_step(*args, **kwargs)
        if not math.isfinite(float(loss)):
            raise self.diverged(f"the loss is {float(loss)}")
        return loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """The loss of the answers and, in training, of the reading heads."""
        inputs, told = split_targets(inputs)
        if not return_outputs:
            inputs = self._answers.of(inputs)
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        if not told or not model.training:
            return found
        loss, *outputs = found if return_outputs else (found,)
        parts = reading_of(model)(told | {"aspect_ratio_mask": inputs["aspect_ratio_mask"]})
        for name, part in {"answers": loss, **parts}.items():
            self._metrics["train"][f"loss_{name}"].append(float(part.detach()))
        loss = loss + self._reading / self.args.gradient_accumulation_steps * sum(parts.values())
        return (loss, *outputs) if return_outputs else loss

    def diverged(self, what: str) -> WorkFailed:
        """The error for a run whose numbers are no longer finite; the weights are still those of the last step."""
        return WorkFailed(
            f"{self.out}: {what} at step {self.state.global_step + 1}; {last_checkpoint_line(self.out)}; start again "
            f"with a lower train.learning_rate (it is {self.args.learning_rate:g})"
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out loss and figures. Random numbers are put back, so that looking changes nothing in the training."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs) if self.eval_dataset is not None else {}
            if self._validate is not None:
                self.model.eval()
                with torch.no_grad():  # in every process: sharded weights are whole only together
                    found = self._validate(self.accelerator.unwrap_model(self.model), self.processing_class)
                named = {f"eval_{name}": value for name, value in found.items()}
                self.log(dict(named))
                metrics |= named
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL does, without its count of tokens: it sums the attention mask, and ours is square."""
        for figures in self._metrics.values():
            figures.pop("num_tokens", None)
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As Trainer does for adapters. A whole model is saved under the names of its published files, which Trainer
        puts back by the names of its modules, passing over all it does not find: nothing would be put back."""
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        _, heads = split_targets(load_file(Path(resume_from_checkpoint) / "model.safetensors"), IN_MODEL)
        self.model.load_state_dict(saved.state_dict() | heads)

    def _get_output_dir(self, trial: Any) -> str:
        return str(staging(self.out)) if self._staged else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write into the staging folder; move into place when every process has written its part."""
        step = self.state.global_step
        if (self.out / f"checkpoint-{step}").is_dir():
            return
        everyone = self.accelerator.wait_for_everyone
        everyone()
        if self.args.should_save:
            shutil.rmtree(staging(self.out), ignore_errors=True)
        everyone()
        self._staged = True
        try:
            super()._save_checkpoint(model, trial)
            everyone()
            if self.args.should_save:
                put_in_place(self.out, step)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(staging(self.out), ignore_errors=True)
            raise WorkFailed(
                f"{self.out}: the checkpoint of step {step} cannot be written ({_first_line(error)}); "
                f"{last_checkpoint_line(self.out)}; make room on the disk, then go on with --resume"
            ) from error
        finally:
            self._staged = False
        everyone()


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Tells of progress, stops on a signal or a time limit, asks for evaluations, refuses gradients that are no number.

    evaluates: whether there is anything to be found out on held-out pages.
    """

    trainer: Trainer

    def __init__(self, plan: Plan, report: Callable[[Progress], None], train: TrainPart, *, evaluates: bool) -> None:
        self._plan, self._report, self._evaluates = plan, report, evaluates
        self._validate_every = train.validate_every
        self._deadline = time.monotonic() + 60 * train.max_minutes if train.max_minutes else math.inf
        self._loss: float | None = None
        self._began: tuple[float, int] | None = None
        self._signal = ""
        self.stopped = ""
        """Why the run was ended early, "" while it was not."""

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a stop after the step in hand; a second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        owner = os.getpid()

        def note(number: int, frame: Any) -> None:
            if os.getpid() != owner:  # a process that reads pages: it ends with this one
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
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not bool(torch.nn.utils.get_total_norm(gradients).isfinite()):
            raise self.trainer.diverged("a gradient is not finite")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        plan, step = self._plan, state.global_step
        state.epoch = plan.rows(step) / len(plan.pieces)
        last = step >= state.max_steps
        every = self._validate_every
        if self._evaluates and (last or (every and step % every == 0)):
            control.should_evaluate = True
        if state.is_world_process_zero:
            self._report(self._progress(step, state.max_steps))
        self._stop(control, last)

    def _progress(self, step: int, steps: int) -> Progress:
        now = time.monotonic()
        if self._began is None:  # the first step pays for compilation and caches: the rate counts from its end
            self._began = (now, step)
        began, first = self._began
        seconds, plan = max(now - began, 1e-9), self._plan
        return Progress(
            step,
            steps,
            images_per_second=(plan.rows(step) - plan.rows(first)) / seconds,
            loss=self._loss,
            tokens_per_second=(plan.tokens(step) - plan.tokens(first)) / seconds,
            seconds_left=seconds / (step - first) * (steps - step) if step > first else None,
        )

    def _stop(self, control: Any, last: bool) -> None:
        """End the run where this or another process has a reason to: all of them must leave at the same step."""
        reasons = [self._signal, "its time is up" if time.monotonic() >= self._deadline else ""]
        reason = next((r for r in reasons if r), "")
        stop = torch.tensor(float(bool(reason)), device=self.trainer.args.device)
        if self.trainer.accelerator.num_processes > 1:
            stop = self.trainer.accelerator.reduce(stop, "sum")
        if float(stop) and not last:
            self.stopped = reason or "another process was stopped"
            control.should_save = control.should_training_stop = True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
