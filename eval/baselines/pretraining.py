"""Pre-train ECG-JEPA's encoder on records without labels (the networks: `eval.baselines.ecg_jepa`).

A step draws records and windows and hides blocks of their patches; the target encoder sees all patches; encoder and
predictor see the others and tell the target's tokens of the hidden ones; the loss is the mean absolute difference.
Then the target moves towards the encoder.

What a step draws depends on the seed and its number alone, so that a stopped run goes on to the same bytes. Until the
run ends, the signals lie beside its checkpoint as millivolts in half precision (120 kB a record of 10 s), of which a
step reads its own: a million records need disk, not memory.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines import checkpoint
from eval.baselines.baseline import LEAD_COUNT
from eval.baselines.checkpoint import Epoch, PretrainingRequest
from eval.baselines.ecg_jepa import (
    PATCH_SAMPLES,
    SIZES,
    JepaEncoder,
    JepaSize,
    Predictor,
    StandardiseLeads,
    batch_masks,
    pick_tokens,
)
from eval.baselines.settings import PretrainingSettings
from eval.baselines.train import SECONDS, EpochCallback, half_cosine, ten_seconds
from render.errors import InputError, WorkFailed
from render.io import (
    atomic_write,
    exclusive,
    read_json_object,
    require_empty,
    require_same_request,
    write_json,
)
from render.record import HIGH_RATE_HZ
from render.sources.registry import Source, digest_of

_SIGNALS, _WEIGHTS, _ABOUT = "signals.npy", "encoder.safetensors", "pretraining.json"

_WARM_UP = 0.1  # of the steps
_LOWEST_RATE = 1e-6
_WEIGHT_DECAY = (0.01, 0.1)
_PARTS = 100  # of a run, each with a checkpoint
_STATISTICS = 10_000  # records that mean and standard deviation of the leads are taken from


class Jepa(nn.Module):
    """The networks of a pre-training. The target encoder is no subject of the optimizer."""

    def __init__(self, size: JepaSize) -> None:
        super().__init__()
        self.standardise = StandardiseLeads()
        self.encoder, self.predictor = JepaEncoder(size), Predictor(size)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)

    def forward(self, x: Tensor, stay: Tensor, hidden: Tensor) -> Tensor:
        """Loss of (B, 12, samples) millivolts, with (B, K) numbers of the patches that stay, (B, H) of the hidden."""
        x = self.standardise(x)
        with torch.no_grad():
            truth = pick_tokens(self.target(x)[:, 1:], hidden)
        return F.l1_loss(self.predictor(self.encoder(x, stay)[:, 1:], stay, hidden), truth)

    @torch.no_grad()
    def move_target(self, momentum: float) -> None:
        """target = momentum * target + (1 - momentum) * encoder."""
        for slow, fast in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)


def pretrain(
    source: Source,
    name: str,
    settings: PretrainingSettings,
    out: Path,
    *,
    resume: bool = False,
    reading: Callable[[int, int], None] = lambda count, total: None,
    progress: EpochCallback = lambda epoch, speed: None,
) -> None:
    """Train encoder `name` on the records of a source and write it into `out`, where `load_encoder` reads it.

    The same seed, data, machine and number of torch threads give the same bytes.

    Args:
        resume: go on from the checkpoint in `out`; a finished run is left as it is.
        reading: called after each record that is read, with their number and the total.
        progress: called after each hundredth of the steps.

    Raises:
        InputError: For an unknown name, settings that do not fit together, a folder with the checkpoint of another
            request, and one that another process writes into; WorkFailed when the loss is not a finite number.
    """
    if name not in SIZES:
        raise InputError(f"baseline {name!r} is not pre-trained; choose one of {', '.join(SIZES)}")
    if not 1 <= settings.seconds <= SECONDS:
        raise InputError(f"{settings.seconds:g} s windows; records have {SECONDS} s, and 1 s are needed to hide blocks")
    request = PretrainingRequest(name, settings, len(source), digest_of(source))
    with exclusive(out):
        if not resume:
            require_empty(out)
        if (out / _ABOUT).is_file():
            finished = read_json_object(out / _ABOUT, "name a new folder")
            require_same_request(out, {key: finished.get(key) for key in asdict(request)}, asdict(request))
        else:
            with torch.random.fork_rng(devices=[]):
                _pretrain(source, request, out, reading, progress)
        for name in (_SIGNALS, checkpoint.CHECKPOINT):
            (out / name).unlink(missing_ok=True)


def load_encoder(folder: Path, name: str) -> dict[str, Tensor]:
    """Weights of the encoder that `pretrain` wrote into a folder, for the system `name`.

    Raises:
        InputError: When a file is missing or damaged, and when the encoder is of another system.
    """
    about = read_json_object(folder / _ABOUT, "name a folder that ecg-vlm baseline pretrain wrote")
    if about.get("name") != name:
        raise InputError(f"{folder}: an encoder of {about.get('name')}; train that, or pre-train {name}")
    try:
        encoder = JepaEncoder(SIZES[name])
        encoder.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / _WEIGHTS}: not an encoder of {name} ({error}); pre-train it again") from error
    return encoder.state_dict()


def _pretrain(
    source: Source,
    request: PretrainingRequest,
    out: Path,
    reading: Callable[[int, int], None],
    progress: EpochCallback,
) -> None:
    settings = request.settings
    torch.manual_seed(settings.seed)
    jepa = Jepa(SIZES[request.name])
    optimizer = _optimizer(jepa)
    epochs = checkpoint.restore(out, request, jepa, optimizer)
    if not epochs:  # before the signals: they are those of this request
        checkpoint.write_checkpoint(out, request, jepa, optimizer, epochs)
    signals = _signals(source, out / _SIGNALS, reading)
    if not epochs:
        jepa.standardise.fit(torch.from_numpy(signals[:: -(-len(signals) // _STATISTICS)].astype(np.float32)))
    parts = min(_PARTS, settings.steps)
    for part in range(len(epochs), parts):
        steps = range(settings.steps * part // parts, settings.steps * (part + 1) // parts)
        began = time.monotonic()
        loss = float(np.mean([_step(jepa, optimizer, signals, settings, step) for step in steps]))
        speed = len(steps) * settings.batch / max(time.monotonic() - began, 1e-9)
        if not math.isfinite(loss):
            raise WorkFailed(
                f"{request.name}: the loss became {loss} before step {steps.stop}; to continue would end the same, so "
                f"pre-train again with another seed and a new folder, or check the records"
            )
        epochs.append(Epoch(part + 1, parts, loss, None))
        checkpoint.write_checkpoint(out, request, jepa, optimizer, epochs)
        progress(epochs[-1], speed)
    with atomic_write(out / _WEIGHTS) as path:
        save_file({name: values.contiguous() for name, values in jepa.target.state_dict().items()}, path)
    write_json(out / _ABOUT, {**asdict(request), "epochs": [asdict(epoch) for epoch in epochs]})


def _signals(source: Source, path: Path, reading: Callable[[int, int], None]) -> NDArray[np.float16]:
    """(n, 12, 5000) millivolts of all records at 500 Hz, mapped from a file that is written where there is none."""
    if not path.is_file():
        with atomic_write(path) as partial:
            shape = (len(source), LEAD_COUNT, SECONDS * HIGH_RATE_HZ)
            signals = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            for i in range(len(source)):
                signals[i] = ten_seconds(source.read(i), HIGH_RATE_HZ)
                reading(i + 1, len(source))
            signals.flush()
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _step(
    jepa: Jepa,
    optimizer: torch.optim.Optimizer,
    signals: NDArray[np.float16],
    settings: PretrainingSettings,
    step: int,
) -> float:
    """Train on one batch; the loss."""
    rng = np.random.default_rng([settings.seed, step])
    patches = round(settings.seconds * HIGH_RATE_HZ) // PATCH_SAMPLES
    samples = patches * PATCH_SAMPLES
    rows = rng.integers(len(signals), size=settings.batch)
    starts = rng.integers(signals.shape[2] - samples + 1, size=settings.batch)
    windows = [signals[row, :, start : start + samples] for row, start in zip(rows, starts, strict=True)]
    loss: Tensor = jepa(
        torch.from_numpy(np.stack(windows).astype(np.float32)), *batch_masks(settings.batch, patches, rng)
    )
    along = step / max(settings.steps - 1, 1)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.param_groups[0]["weight_decay"] = half_cosine(*_WEIGHT_DECAY, along)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    first, last = settings.momentum
    jepa.move_target(first + (last - first) * along)
    return float(loss.detach())


def learning_rate(step: int, settings: PretrainingSettings) -> float:
    """Of a step, from 0: up on a line over a tenth of the steps, then down on half a cosine."""
    rise = _WARM_UP * settings.steps
    if step < rise:
        return _LOWEST_RATE + (settings.lr - _LOWEST_RATE) * step / rise
    return half_cosine(settings.lr, _LOWEST_RATE, (step - rise) / max(settings.steps - 1 - rise, 1))


def _optimizer(jepa: Jepa) -> torch.optim.Optimizer:
    """AdamW; only matrices decay, not norms and the two tokens that are learnt."""
    parameters = [parameter for parameter in jepa.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-6)
