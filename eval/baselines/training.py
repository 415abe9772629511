"""Train and apply a comparison CNN with the recipe of the PTB-XL benchmark (Strodthoff et al. 2020).

100 Hz; one scalar mean and standard deviation over the training records; a fresh random crop of 2.5 s per record and
epoch; binary cross-entropy; one-cycle schedule; the weights of the last epoch. At test time 7 windows of 2.5 s,
1.25 s apart, and the highest probability of the seven.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines.cnn import LEAD_COUNT, NETWORKS
from render.files import InputError, whole_file
from render.record import EcgRecord, resample
from render.statements import task_classes

RATE = 100
"""Hertz at which the benchmark's networks read."""
SAMPLES = 10 * RATE
WINDOW = 5 * RATE // 2
STRIDE = WINDOW // 2

Progress = Callable[[int, int, float], None]
"""Called after each epoch with (epochs done, epochs in all, mean training loss of the epoch)."""


@dataclass(frozen=True)
class Recipe:
    """What a training run was asked for; kept beside the weights."""

    epochs: int = 50
    batch: int = 128
    lr: float = 1e-2
    """Highest learning rate of the one-cycle schedule."""
    weight_decay: float = 1e-2
    seed: int = 0


@dataclass(frozen=True)
class TrainedCnn:
    """A network with the normalisation it was trained under.

    mean, std: millivolts, one scalar each over all leads and records of the training set.
    """

    name: str
    network: nn.Module
    mean: float
    std: float
    classes: tuple[str, ...]
    recipe: Recipe
    records: int
    """Number of training records."""


def to_100_hz(record: EcgRecord) -> NDArray[np.float32]:
    """A record as the networks read it: (12, 1000) float32 millivolts at 100 Hz.

    Polyphase resampling; NaN samples become 0 mV first, since one NaN would spread over the filter's length.
    Shorter records are padded with 0 mV at the end, longer ones cut after 10 s.
    """
    held = np.nan_to_num(record.signal, nan=0.0, posinf=0.0, neginf=0.0)
    signal = resample(held, record.sampling_rate, RATE)
    out = np.zeros((LEAD_COUNT, SAMPLES), dtype=np.float32)
    kept = min(SAMPLES, signal.shape[1])
    out[:, :kept] = signal[:, :kept]
    return out


def train(
    signals: NDArray[np.float32],
    labels: NDArray[np.bool_],
    *,
    name: str = "resnet1d_wang",
    classes: tuple[str, ...] | None = None,
    epochs: int = 50,
    batch: int = 128,
    lr: float = 1e-2,
    weight_decay: float = 1e-2,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainedCnn:
    """Train network `name` on (n, 12, 1000) millivolts at 100 Hz and (n, c) labels; `classes` default to all 71.

    The same seed, data and number of torch threads give the same weights. The caller's random state is untouched.
    Raises InputError for an unknown name or arrays that do not fit together.
    """
    classes = task_classes("all") if classes is None else classes
    _check_training_data(signals, labels, classes, name)
    recipe = Recipe(epochs, batch, lr, weight_decay, seed)
    mean, std = float(signals.mean(dtype=np.float64)), float(signals.std(dtype=np.float64)) or 1.0
    x = torch.from_numpy((signals - np.float32(mean)) / np.float32(std))
    y = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[name](len(classes))
        _fit(network, x, y, recipe, progress)
    return TrainedCnn(name, network.eval(), mean, std, classes, recipe, len(signals))


def predict(model: TrainedCnn, signals: NDArray[np.float32], *, batch: int = 128) -> NDArray[np.float64]:
    """(n, 12, 1000) millivolts at 100 Hz -> (n, c) probabilities, the maximum over 7 windows of 2.5 s."""
    out = np.empty((len(signals), len(model.classes)))
    model.network.eval()
    with torch.inference_mode():
        for start in range(0, len(signals), batch):
            part = signals[start : start + batch]
            x = torch.from_numpy((part - np.float32(model.mean)) / np.float32(model.std))
            windows = x.unfold(2, WINDOW, STRIDE)  # (B, 12, 7, 250)
            count = windows.shape[2]
            flat = windows.permute(0, 2, 1, 3).reshape(-1, LEAD_COUNT, WINDOW)  # (B * 7, 12, 250)
            logits = model.network(flat).reshape(len(part), count, -1)  # (B, 7, c)
            out[start : start + len(part)] = torch.sigmoid(logits.amax(dim=1).double()).numpy()
    return out


def save(model: TrainedCnn, folder: Path) -> None:
    """Write `weights.safetensors` and `model.json` into `folder`; nothing is pickled."""
    about = {
        "name": model.name,
        "mean_mv": model.mean,
        "std_mv": model.std,
        "classes": list(model.classes),
        "recipe": asdict(model.recipe),
        "records": model.records,
    }
    with whole_file(folder / "weights.safetensors") as path:
        save_file({k: v.contiguous() for k, v in model.network.state_dict().items()}, path)
    with whole_file(folder / "model.json") as path:
        path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> TrainedCnn:
    """Read what `save` wrote. Raises InputError naming the file when a part is missing or does not fit."""
    about_path, weights_path = folder / "model.json", folder / "weights.safetensors"
    for path in (about_path, weights_path):
        if not path.is_file():
            raise InputError(f"{path}: not found; name a folder that a baseline training wrote")
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        network = NETWORKS[about["name"]](len(about["classes"]))
        network.load_state_dict(load_file(weights_path))
        return TrainedCnn(
            name=about["name"],
            network=network.eval(),
            mean=float(about["mean_mv"]),
            std=float(about["std_mv"]),
            classes=tuple(about["classes"]),
            recipe=Recipe(**about["recipe"]),
            records=int(about["records"]),
        )
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: not a trained baseline of this version ({error}); train it again") from error


def _check_training_data(
    signals: NDArray[np.float32], labels: NDArray[np.bool_], classes: tuple[str, ...], name: str
) -> None:
    if name not in NETWORKS:
        raise InputError(f"baseline {name!r} is not known; choose one of {', '.join(sorted(NETWORKS))}")
    if signals.ndim != 3 or signals.shape[1:] != (LEAD_COUNT, SAMPLES) or signals.dtype != np.float32:
        raise InputError(f"signals are {signals.dtype} {signals.shape}, expected float32 (records, 12, {SAMPLES})")
    if labels.shape != (len(signals), len(classes)):
        raise InputError(f"labels are {labels.shape}, expected ({len(signals)}, {len(classes)})")
    if len(signals) < 2:
        raise InputError(f"{len(signals)} training records; batch normalisation needs at least 2")
    if not np.isfinite(signals).all():
        raise InputError("a training signal holds NaN or infinite samples; pass records through to_100_hz")


def _fit(network: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, progress: Progress | None) -> None:
    steps = _batch_count(len(x), recipe.batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.lr, betas=(0.95, 0.99), weight_decay=recipe.weight_decay
    )
    # OneCycleLR swings the first beta against the rate (.95 -> .85 -> .95), as the benchmark's fastai does.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=steps * recipe.epochs, pct_start=0.3, div_factor=25
    )
    network.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in _batches(len(x), recipe.batch):
            loss = F.binary_cross_entropy_with_logits(network(_crop(x[rows])), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        if progress is not None:
            progress(epoch + 1, recipe.epochs, total / len(x))


def _batches(n: int, batch: int) -> Iterator[Tensor]:
    """A random order of n rows in parts of nearly equal size, so that no last batch is too small to normalise."""
    yield from torch.tensor_split(torch.randperm(n), _batch_count(n, batch))


def _batch_count(n: int, batch: int) -> int:
    return max(1, round(n / batch))


def _crop(x: Tensor) -> Tensor:
    """(B, 12, 1000) -> (B, 12, 250), each record cut at its own random start."""
    start = torch.randint(0, x.shape[2] - WINDOW + 1, (len(x), 1, 1))
    index = (start + torch.arange(WINDOW)).expand(-1, x.shape[1], -1)  # (B, 12, 250)
    return x.gather(2, index)
