"""How a run is refused and how it ends: one line for a person, never a traceback for what the world did to it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from recipes.batching import Plan
from recipes.checkpoint import last_checkpoint_line, read_run
from recipes.config import Recipe, load_recipe
from render.errors import InputError, WorkFailed
from render.io import require_empty, require_same_request

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What may differ when a run goes on: none of it changes a weight.
_FREE_ON_RESUME = ("name", *(f"train.{key}" for key in ("max_minutes", "save_every", "validate_every", "log_every")))
_FREE_ON_RESUME += ("train.log_to", "train.workers", "data.validation")


class Interrupted(KeyboardInterrupt):
    """The run ended before its last step, by Ctrl-C, SIGTERM or its time limit; the message says how to go on."""


@contextmanager
def readable_errors(out: Path, speaks: bool) -> Iterator[None]:
    """Turn what may happen to a run into `WorkFailed` or `Interrupted`, each with the last good checkpoint.

    speaks: whether this process is to tell what all processes find out alike; the others leave without a word.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WorkFailed(
            f"{out}: the GPU's memory is full; {last_checkpoint_line(out)}; lower train.images_per_batch or "
            f"train.tokens_per_batch, or set train.gradient_checkpointing=true"
        ) from error
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise WorkFailed(f"{out}: {error}; {last_checkpoint_line(out)}; make room, then go on with --resume") from error
    except (InputError, KeyboardInterrupt) as error:
        if not speaks:
            raise SystemExit(2 if isinstance(error, InputError) else 130) from error
        if isinstance(error, (InputError, Interrupted)):
            raise
        raise Interrupted(
            f"{out}: stopped at once; {last_checkpoint_line(out)}; go on with the same command and --resume"
        ) from error


def check_before_start(recipe: Recipe, out: Path, resume: bool) -> dict[str, Any]:
    """Refuse what cannot work, before anything is loaded. Returns the facts of a run that is finished already."""
    if torch.cuda.device_count() > 1 and PartialState().num_processes == 1:
        raise InputError(
            "several GPUs are visible and one process was started; start one for each with accelerate launch, "
            "or choose one GPU with CUDA_VISIBLE_DEVICES=0"
        )
    log_to = recipe.train.log_to
    if log_to != "none" and find_spec(log_to) is None:
        raise InputError(f"recipe: train.log_to={log_to}: not installed; pip install {log_to}, or train.log_to=none")
    if not resume:
        require_empty(out)
    elif (out / "recipe.yaml").is_file():
        first = load_recipe(out / "recipe.yaml")
        require_same_request(out, asdict(first), asdict(recipe), free=_FREE_ON_RESUME, mend=str(out / "recipe.yaml"))
        if (out / "run.json").is_file():
            return read_run(out)
    PartialState().wait_for_everyone()  # nobody writes into `out` while another still looks whether it is empty
    return {}


def require_same_plan(out: Path, checkpoints: Sequence[Path], plan: Plan) -> None:
    """Refuse to go on where data or processes changed: the rest of the run would not be the one that was begun."""
    if not checkpoints:
        return
    state = json.loads((checkpoints[-1] / "trainer_state.json").read_text(encoding="utf-8"))
    if state["max_steps"] != plan.steps:
        raise InputError(
            f"{out}: was begun as a run of {state['max_steps']} steps, and would now have {plan.steps}; resume with "
            f"the same pages and number of processes, or name a new folder"
        )
