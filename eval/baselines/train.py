"""Train and apply a comparison system with the recipe of the PTB-XL benchmark (Strodthoff et al. 2020).

100 Hz; one scalar mean and standard deviation over the training records; a fresh random crop of 2.5 s per record and
epoch; binary cross-entropy; one-cycle schedule; the weights of the last epoch. At test time 7 windows of 2.5 s,
1.25 s apart, and the highest probability of the seven. The wavelet features are of the whole 10 s, each standardised.

Two things differ from the benchmark: all records are used in each epoch (it drops the last incomplete batch), and
the wavelet network too uses the weights of the last epoch (there it was the epoch of the lowest validation loss), so
that the validation records have no influence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines import checkpoint
from eval.baselines.checkpoint import Epoch, Request, TrainedBaseline, load
from eval.baselines.cnn import LEAD_COUNT, NETWORKS, Standardise
from eval.baselines.settings import BENCHMARK, BaselineSettings
from eval.baselines.wavelet import features
from eval.metrics.bootstrap import macro_auc
from eval.types import label_matrix
from render.errors import InputError, WorkFailed
from render.io import exclusive, require_empty
from render.record import LOW_RATE_HZ, EcgRecord, resample
from render.sources.ptbxl import RESTORED
from render.sources.registry import Source
from render.sources.wfdb_record import MissingRecordError
from render.statements import task_classes

SAMPLES = 10 * LOW_RATE_HZ
WINDOW = 5 * LOW_RATE_HZ // 2
STRIDE = WINDOW // 2

EpochCallback = Callable[[Epoch, float], None]
"""Called after each epoch with it and the training records per second that it took in, validation left out."""
LabelledSignals = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Signals (n, 12, 1000) in millivolts at 100 Hz, and labels (n, classes)."""

__all__ = ["Epoch", "TrainedBaseline", "load", "predict", "read_records", "to_100_hz", "train"]


def read_records(
    source: Source,
    progress: Callable[[int, int], None] = lambda count, total: None,
    *,
    lenient: bool = False,
    judged: bool = False,
) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]:
    """Record ids, signals and labels of the 71 statements of all records of a source, as `LabelledSignals` has them.

    Args:
        lenient: leave out records that are not on the disk, as after a partial download; otherwise the first raises
            `MissingRecordError`.
        judged: leave out restored records, which may teach alone.

    Raises:
        InputError: When no record remains.
    """
    ids, signals, statements = [], [], []
    for i in range(len(source)):
        try:
            record = source.read(i)
        except MissingRecordError:
            if lenient:
                continue
            raise
        if judged and record.source == RESTORED:
            continue
        ids.append(record.record_id)
        signals.append(to_100_hz(record))
        statements.append(record.statements)
        progress(i + 1, len(source))
    if not ids:
        raise InputError(f"{source.name}: restored records are for training, never judged on; name other --data")
    return ids, np.stack(signals), label_matrix(statements, "all")[0]


def to_100_hz(record: EcgRecord) -> NDArray[np.float32]:
    """A record as the networks read it: (12, 1000) float32 millivolts at 100 Hz.

    Polyphase resampling; NaN samples become 0 mV first, since one NaN would spread over the filter's length.
    Shorter records are padded with 0 mV at the end, longer ones cut after 10 s.
    """
    finite = np.nan_to_num(record.signal, nan=0.0, posinf=0.0, neginf=0.0)
    signal = resample(finite, record.sampling_rate, LOW_RATE_HZ)
    out = np.zeros((LEAD_COUNT, SAMPLES), dtype=np.float32)
    length = min(SAMPLES, signal.shape[1])
    out[:, :length] = signal[:, :length]
    return out


def train(
    signals: NDArray[np.float32],
    labels: NDArray[np.bool_],
    *,
    name: str = "resnet1d_wang",
    recipe: BaselineSettings | None = None,
    classes: tuple[str, ...] | None = None,
    validation: LabelledSignals | None = None,
    out: Path | None = None,
    resume: bool = False,
    progress: EpochCallback | None = None,
) -> TrainedBaseline:
    """Train network `name` on (n, 12, 1000) millivolts at 100 Hz and (n, c) labels; `classes` default to all 71.

    The same seed, data, machine and number of torch threads give the same weights. The caller's random state does not
    change.

    Args:
        recipe: the benchmark's for this network when None.
        validation: records whose macro AUC is reported after each epoch; they do not change the weights.
        out: folder for a checkpoint after each epoch, and in the end for the files that `load` reads.
        resume: continue from the checkpoint in `out`, with the same weights as without interruption; a finished run
            is returned as it is, and in an empty folder the training starts.

    Raises:
        InputError: For an unknown name, arrays that do not fit together, a folder with the checkpoint of another
            request, and one that another process writes into; WorkFailed when the loss or a weight is not a finite
            number.
    """
    classes = task_classes("all") if classes is None else classes
    _check_training_data(signals, labels, classes, name)
    if validation is not None:
        _check_arrays("validation", *validation, classes)
    request = Request.of(name, classes, recipe or BENCHMARK[name], signals, labels)
    if out is None:
        return _train(signals, labels, request, validation, None, resume, progress)
    with exclusive(out):
        if not (resume and checkpoint.is_started(out)):
            require_empty(out)
        return _train(signals, labels, request, validation, out, resume, progress)


def _train(
    signals: NDArray[np.float32],
    labels: NDArray[np.bool_],
    request: Request,
    validation: LabelledSignals | None,
    out: Path | None,
    resume: bool,
    progress: EpochCallback | None,
) -> TrainedBaseline:
    if resume and out is not None and (earlier := checkpoint.load_if_finished(out, request)):
        return earlier
    name, classes = request.name, request.classes
    inputs, y = _inputs(name, signals), torch.from_numpy(np.asarray(labels, dtype=np.float32))
    held_out = None if validation is None else (_inputs(name, validation[0]), validation[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.recipe.seed)
        network = _fresh(name, len(classes), inputs)
        optimizer = _optimizer(network, request.recipe)
        epochs = checkpoint.restore(out, request, network, optimizer) if resume and out is not None else []
        while len(epochs) < request.recipe.epochs:
            began = time.monotonic()
            loss = _one_epoch(network, optimizer, inputs, y, request, len(epochs))
            speed = len(y) / max(time.monotonic() - began, 1e-9)
            epochs.append(Epoch(len(epochs) + 1, request.recipe.epochs, loss, _validate(network, held_out)))
            if out is not None:
                checkpoint.write_checkpoint(out, request, network, optimizer, epochs)
            if progress is not None:
                progress(epochs[-1], speed)
    model = TrainedBaseline(network.eval(), request, tuple(epochs))
    if out is not None:
        checkpoint.save(model, out)
    return model


def predict(model: TrainedBaseline, signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 12, 1000) millivolts at 100 Hz -> (n, c) probabilities, of a CNN the maximum over 7 windows of 2.5 s.

    Raises:
        InputError: For signals of another shape, and for NaN or infinite samples.
    """
    _check_signals("signals", signals)
    return _scores(model.network, _inputs(model.name, signals))


def _fresh(name: str, classes: int, inputs: Tensor) -> nn.Sequential:
    network = NETWORKS[name](classes)
    first = network[0]
    assert isinstance(first, Standardise)
    first.fit(inputs)
    return network


def _inputs(name: str, signals: NDArray[np.float32]) -> Tensor:
    """What network `name` is given: (n, 12, 1000) millivolts as they are, or (n, 864) wavelet features."""
    return torch.from_numpy(features(signals) if name == "wavelet_nn" else signals)


def _one_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, y: Tensor, request: Request, epoch: int
) -> float:
    """Train once over all records; the mean loss. Its random numbers depend on seed and epoch alone."""
    recipe = request.recipe
    torch.manual_seed(int(np.random.SeedSequence([recipe.seed, epoch]).generate_state(1, np.uint64)[0]))
    count = _batch_count(len(y), recipe.batch)
    total = 0.0
    network.train()
    for step, rows in enumerate(_batches(len(y), recipe.batch), epoch * count):
        lr, momentum = _rate(step, count * recipe.epochs, recipe)
        optimizer.param_groups[0].update(lr=lr, betas=(momentum, optimizer.param_groups[0]["betas"][1]))
        loss = F.binary_cross_entropy_with_logits(network(_crop(inputs[rows])), y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _divergence_error(request, f"the loss became {value} in step {step + 1 - epoch * count} of", epoch)
        total += value * len(rows)
    if not all(bool(values.isfinite().all()) for values in network.state_dict().values()):
        raise _divergence_error(request, "a weight became infinite in", epoch)
    return total / len(y)


def _divergence_error(request: Request, what: str, epoch: int) -> WorkFailed:
    return WorkFailed(
        f"{request.name}: {what} epoch {epoch + 1} at learning rate {request.recipe.lr:g}; "
        f"to continue would end the same, so train again with another seed and a new folder, or check the records"
    )


def _validate(network: nn.Module, held_out: tuple[Tensor, NDArray[np.bool_]] | None) -> float | None:
    """Macro AUC on the validation records; None without records, or without a class that has both kinds."""
    if held_out is None:
        return None
    value = macro_auc(held_out[1], _scores(network, held_out[0])).value
    return value if math.isfinite(value) else None


def _scores(network: nn.Module, inputs: Tensor, batch: int = 32) -> NDArray[np.float64]:
    """(n, ...) inputs -> (n, c) probabilities, of inputs with a time axis the maximum over the windows.

    batch: records at a time; on a CPU 16 to 64 take the same, 128 a third more.
    """
    network.eval()
    with torch.inference_mode():
        parts = [torch.sigmoid(_highest_logits(network, part).double()) for part in torch.split(inputs, batch)]
    return np.asarray(torch.cat(parts).numpy())


def _highest_logits(network: nn.Module, x: Tensor) -> Tensor:
    if x.ndim == 2:
        return network(x)  # type: ignore[no-any-return]
    windows = x.unfold(2, WINDOW, STRIDE).transpose(1, 2)  # (B, 7, 12, 250)
    return network(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).amax(dim=1)  # type: ignore[no-any-return]


def _optimizer(network: nn.Module, recipe: BaselineSettings) -> torch.optim.Optimizer:
    """AdamW with fastai's second beta, or Adamax with Keras' epsilon: the libraries that the benchmark was run with."""
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=recipe.lr, betas=(0.95, 0.99), weight_decay=recipe.weight_decay
        )
    if recipe.optimizer == "adamax":
        return torch.optim.Adamax(network.parameters(), lr=recipe.lr, eps=1e-7, weight_decay=recipe.weight_decay)
    raise InputError(f"recipe: optimizer {recipe.optimizer!r} is unknown; choose adamw or adamax")


def _rate(step: int, steps: int, recipe: BaselineSettings) -> tuple[float, float]:
    """Learning rate and first beta of a step (counted from 0) of a run of `steps`.

    One-cycle (Smith 2018) as in fastai: over the first 30 % from lr / 25 up to lr and the beta from .95 to .85, then
    down to lr / 250,000 and back to .95, along half cosines.
    """
    if recipe.schedule == "constant":
        return recipe.lr, 0.9
    top = 0.3 * steps - 1
    if step <= top:
        return _between(recipe.lr / 25, recipe.lr, step / top), _between(0.95, 0.85, step / top)
    along = (step - top) / max(steps - 1 - top, 1e-9)
    return _between(recipe.lr, recipe.lr / 25e4, along), _between(0.85, 0.95, along)


def _between(start: float, end: float, along: float) -> float:
    """From `start` (along 0) to `end` (along 1) on half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * along)) / 2


def _batches(n: int, batch: int) -> Iterator[Tensor]:
    """A random order of n rows in parts of nearly equal size, so that no last batch is too small to normalise."""
    yield from torch.tensor_split(torch.randperm(n), _batch_count(n, batch))


def _batch_count(n: int, batch: int) -> int:
    return max(1, min(round(n / batch), n // 2))


def _crop(x: Tensor) -> Tensor:
    """(B, 12, 1000) -> (B, 12, 250), each record cut at its own random start; features are left as they are."""
    if x.ndim == 2:
        return x
    start = torch.randint(0, x.shape[2] - WINDOW + 1, (len(x), 1, 1))
    index = (start + torch.arange(WINDOW)).expand(-1, x.shape[1], -1)  # (B, 12, 250)
    return x.gather(2, index)


def _check_training_data(
    signals: NDArray[np.float32], labels: NDArray[np.bool_], classes: tuple[str, ...], name: str
) -> None:
    if name not in NETWORKS:
        raise InputError(f"baseline {name!r} is unknown; choose one of {', '.join(NETWORKS)}")
    _check_arrays("training", signals, labels, classes)
    if len(signals) < 2:
        raise InputError(f"{len(signals)} training records; batch normalisation needs at least 2")


def _check_arrays(
    which: str, signals: NDArray[np.float32], labels: NDArray[np.bool_], classes: tuple[str, ...]
) -> None:
    _check_signals(f"{which} signals", signals)
    if labels.shape != (len(signals), len(classes)):
        raise InputError(f"{which} labels are {labels.shape}, expected ({len(signals)}, {len(classes)})")


def _check_signals(which: str, signals: NDArray[np.float32]) -> None:
    if signals.ndim != 3 or signals.shape[1:] != (LEAD_COUNT, SAMPLES) or signals.dtype != np.float32:
        raise InputError(f"{which} are {signals.dtype} {signals.shape}, expected float32 (records, 12, {SAMPLES})")
    if not len(signals):
        raise InputError(f"{which}: no records; name folds or a folder with records")
    if not np.isfinite(signals).all():
        raise InputError(f"{which} contain NaN or infinite samples; pass records through to_100_hz")
