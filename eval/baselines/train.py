"""Train and apply a comparison system: one loop for all, which takes what differs from its `Baseline` and its settings.

The networks of the PTB-XL benchmark (Strodthoff et al. 2020): 100 Hz; one scalar mean and standard deviation over the
training records; a fresh random crop of 2.5 s per record and epoch; binary cross-entropy; one-cycle schedule; the
weights of the last epoch. At test time 7 windows of 2.5 s, 1.25 s apart, and the highest probability of the seven. The
wavelet features are of the whole 10 s, each standardised.

Two things differ from the benchmark: all records are used in each epoch (it drops the last incomplete batch), and
the wavelet network too uses the weights of the last epoch (there it was the epoch of the lowest validation loss), so
that the validation records have no influence. Both hold for all systems.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eval.baselines import checkpoint
from eval.baselines.baseline import LEAD_COUNT, Baseline, Stage, Standardise
from eval.baselines.checkpoint import Epoch, Request, TrainedBaseline, load
from eval.baselines.registry import BASELINES
from eval.baselines.settings import SETTINGS, BaselineSettings
from eval.metrics.bootstrap import macro_auc
from eval.types import label_matrix
from render.errors import InputError, WorkFailed
from render.io import exclusive, require_empty
from render.record import LOW_RATE_HZ, EcgRecord, resample
from render.sources.ptbxl import RESTORED
from render.sources.registry import Source
from render.sources.wfdb_record import MissingRecordError
from render.statements import task_classes
from render.workers import Step, Workers, run_tasks

SECONDS = 10
_RECORDS_A_TASK = 320  # of a prediction: whole batches, so that scores do not depend on where the others are made

EpochCallback = Callable[[Epoch, float], None]
"""Called after each epoch with it and the training records per second that it took in, validation left out."""
LabelledSignals = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Signals (n, 12, 10 * rate) in millivolts at the rate of the system, 100 Hz for most, and labels (n, classes)."""


class Waveforms(NamedTuple):
    """Records of a source: signals and labels of the 71 statements as `LabelledSignals` has them."""

    record_ids: list[str]
    signals: NDArray[np.float32]
    labels: NDArray[np.bool_]
    patients: list[str]


__all__ = ["Epoch", "TrainedBaseline", "load", "predict", "predict_records", "read_records", "ten_seconds", "train"]


def read_records(
    source: Source,
    progress: Callable[[int, int], None] = lambda count, total: None,
    *,
    lenient: bool = False,
    rate: int = LOW_RATE_HZ,
    judged: bool = False,
) -> Waveforms:
    """All records of a source.

    Args:
        lenient: leave out records that are not on the disk, as after a partial download; otherwise the first raises
            `MissingRecordError`.
        rate: hertz of the signals.
        judged: leave out restored records, which may teach alone.

    Raises:
        InputError: When no record remains.
    """
    ids, signals, statements, patients = [], [], [], []
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
        signals.append(ten_seconds(record, rate))
        statements.append(record.statements)
        patients.append(record.patient_id)
        progress(i + 1, len(source))
    _require_any(ids, source)
    return Waveforms(ids, np.stack(signals), label_matrix(statements, "all")[0], patients)


def _require_any(ids: Sequence[str], source: Source) -> None:
    """Raise `InputError` where no record of a source remains."""
    if not ids:
        raise InputError(f"{source.name}: restored records are for training, never judged on; name other --data")


def ten_seconds(record: EcgRecord, rate: int = LOW_RATE_HZ) -> NDArray[np.float32]:
    """A record as the networks read it: (12, 10 * rate) float32 millivolts.

    Polyphase resampling; NaN samples become 0 mV first, since one NaN would spread over the filter's length.
    Shorter records are padded with 0 mV at the end, longer ones cut after 10 s.
    """
    finite = np.nan_to_num(record.signal, nan=0.0, posinf=0.0, neginf=0.0)
    signal = resample(finite, record.sampling_rate, rate)
    out = np.zeros((LEAD_COUNT, SECONDS * rate), dtype=np.float32)
    length = min(out.shape[1], signal.shape[1])
    out[:, :length] = signal[:, :length]
    return out


def train(
    signals: NDArray[np.float32],
    labels: NDArray[np.bool_],
    *,
    name: str = "resnet1d_wang",
    recipe: BaselineSettings | None = None,
    encoder: Mapping[str, Tensor] = MappingProxyType({}),
    probe: bool = False,
    classes: tuple[str, ...] | None = None,
    validation: LabelledSignals | None = None,
    out: Path | None = None,
    resume: bool = False,
    progress: EpochCallback | None = None,
    record_ids: Sequence[str] = (),
    patients: Sequence[str] = (),
) -> TrainedBaseline:
    """Train system `name` on (n, 12, 10 * rate) millivolts at its rate and (n, c) labels; `classes` default to all 71.

    The same seed, data, machine and number of torch threads give the same weights. The caller's random state does not
    change.

    Args:
        recipe: the published settings when None.
        encoder: weights after a pre-training; then `Baseline.tuning` are the stages.
        probe: only the first of them, which trains the head.
        validation: records whose macro AUC is reported after each epoch; they do not change the weights.
        out: folder for a checkpoint after each epoch, and in the end for the files that `load` reads.
        resume: continue from the checkpoint in `out`, with the same weights as without interruption; a finished run
            is returned as it is, and in an empty folder the training starts.
        record_ids, patients: of the rows, kept beside the weights so that no evaluation judges the same again.

    Raises:
        InputError: For an unknown name, arrays that do not fit together, a folder with the checkpoint of another
            request, and one that another process writes into; WorkFailed when the loss or a weight is not a finite
            number.
    """
    classes = task_classes("all") if classes is None else classes
    if name not in BASELINES:
        raise InputError(f"baseline {name!r} is unknown; choose one of {', '.join(BASELINES)}")
    if (encoder or probe) and not (encoder and BASELINES[name].tuning):
        raise InputError(f"{name}: to tune or to probe takes a network that is pre-trained, and the encoder of one")
    rate = BASELINES[name].rate
    _check_arrays("training", signals, labels, classes, rate)
    if len(signals) < 2:
        raise InputError(f"{len(signals)} training records; batch normalisation needs at least 2")
    if validation is not None:
        _check_arrays("validation", *validation, classes, rate)
    request = Request.of(name, classes, recipe or SETTINGS[name], signals, labels, encoder, probe)
    provenance = tuple(record_ids), tuple(patients)
    if out is None:
        return _train(signals, labels, request, encoder, validation, None, resume, progress, provenance)
    with exclusive(out):
        if not (resume and checkpoint.is_started(out)):
            require_empty(out)
        return _train(signals, labels, request, encoder, validation, out, resume, progress, provenance)


def _train(
    signals: NDArray[np.float32],
    labels: NDArray[np.bool_],
    request: Request,
    encoder: Mapping[str, Tensor],
    validation: LabelledSignals | None,
    out: Path | None,
    resume: bool,
    progress: EpochCallback | None,
    provenance: tuple[tuple[str, ...], tuple[str, ...]],
) -> TrainedBaseline:
    if resume and out is not None and (earlier := checkpoint.load_if_finished(out, request)):
        return earlier
    baseline, recipe = BASELINES[request.name], request.recipe
    inputs, y = baseline.inputs(signals), torch.from_numpy(np.asarray(labels, dtype=np.float32))
    held_out = None if validation is None else (baseline.inputs(validation[0]), validation[1])
    stages = baseline.tuning if encoder else baseline.stages
    places = _places(stages[:1] if request.probe else stages, recipe.epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = baseline.network(len(request.classes))
        if encoder:
            network.get_submodule("encoder").load_state_dict(encoder)
        for module in network.modules():
            if isinstance(module, Standardise):
                module.fit(inputs)
                break
        optimizer = _optimizer(network, recipe)
        epochs = checkpoint.restore(out, request, network, optimizer) if resume and out is not None else []
        for place in places[len(epochs) :]:
            torch.manual_seed(int(np.random.SeedSequence([recipe.seed, place.number]).generate_state(1, np.uint64)[0]))
            if place.epoch == 0:
                optimizer.state.clear()
                place.stage.begin(network.eval(), inputs, y)
            began = time.monotonic()
            loss = _one_epoch(network, optimizer, inputs, y, request, place)
            speed = len(y) / max(time.monotonic() - began, 1e-9)
            epochs.append(Epoch(place.number + 1, len(places), loss, _validate(baseline, network, held_out)))
            if out is not None:
                checkpoint.write_checkpoint(out, request, network, optimizer, epochs)
            if progress is not None:
                progress(epochs[-1], speed)
    model = TrainedBaseline(network.eval(), request, tuple(epochs), *provenance)
    if out is not None:
        checkpoint.save(model, out)
    return model


def predict(model: TrainedBaseline, signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 12, 10 * rate) millivolts -> (n, c) probabilities, of a CNN the maximum over 7 windows of 2.5 s.

    Raises:
        InputError: For signals of another shape, and for NaN or infinite samples.
    """
    baseline = BASELINES[model.name]
    _check_signals("signals", signals, baseline.rate)
    return _scores(baseline, model.network, baseline.inputs(signals))


def predict_records(
    folder: Path,
    source: Source,
    workers: int | Workers = 1,
    progress: Callable[[int, int], None] = lambda count, total: None,
) -> tuple[list[str], NDArray[np.float64]]:
    """Ids and (n, c) probabilities of all records of a source, by the network in `folder`; restored ones are left out.

    Args:
        workers: processes that read records and predict, or a cluster whose nodes see both at the same paths.

    Raises:
        InputError: For a record that cannot be read, and when none remains.
    """
    parts: dict[int, tuple[list[str], NDArray[np.float64]]] = {}
    _network.cache_clear()
    tasks = [(start, min(start + _RECORDS_A_TASK, len(source))) for start in range(0, len(source), _RECORDS_A_TASK)]
    run_tasks(
        partial(_predict_part, folder, source),
        tasks,
        workers,
        lambda steps: progress(steps, len(source)),
        lambda part: parts.update([part]),
    )
    ids = [record_id for start, _ in tasks for record_id in parts[start][0]]
    _require_any(ids, source)
    return ids, np.concatenate([parts[start][1] for start, _ in tasks if parts[start][0]])


_network = lru_cache(maxsize=1)(load)


def _predict_part(
    folder: Path, source: Source, start: int, stop: int, step: Step
) -> tuple[int, tuple[list[str], NDArray[np.float64]]]:
    model = _network(folder)
    ids, signals = [], []
    for i in range(start, stop):
        record = source.read(i)
        if record.source != RESTORED:
            ids.append(record.record_id)
            signals.append(ten_seconds(record, BASELINES[model.name].rate))
        step()
    return start, (ids, predict(model, np.stack(signals)) if ids else np.empty((0, 0)))


@dataclass(frozen=True)
class _Place:
    """An epoch of a training. number: in all, from 0; epoch: in its stage, from 0; epochs: of the stage."""

    number: int
    stage: Stage
    epoch: int
    epochs: int


def _places(stages: tuple[Stage, ...], epochs: int) -> list[_Place]:
    places: list[_Place] = []
    for stage in stages:
        count = max(1, round(stage.epochs * epochs))
        places += [_Place(len(places) + epoch, stage, epoch, count) for epoch in range(count)]
    return places


def _one_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, y: Tensor, request: Request, place: _Place
) -> float:
    """Train once over all records; the mean loss. Its random numbers depend on seed and epoch alone."""
    recipe, stage, window = request.recipe, place.stage, BASELINES[request.name].window
    schedule = replace(recipe, schedule=stage.schedule or recipe.schedule)
    count = _batch_count(len(y), recipe.batch)
    total = 0.0
    _set_mode(network, stage)
    for step, rows in enumerate(_batches(len(y), recipe.batch)):
        lr, momentum = _rate(place.epoch * count + step, count * place.epochs, schedule)
        optimizer.param_groups[0].update(
            lr=stage.lr * lr,
            betas=(momentum, optimizer.param_groups[0]["betas"][1]),
            weight_decay=stage.weight_decay * recipe.weight_decay,
        )
        loss = stage.loss(network, inputs[rows] if window is None else _crop(inputs[rows], window), y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if stage.largest_gradient is not None:
            nn.utils.clip_grad_norm_(network.parameters(), stage.largest_gradient)
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _divergence_error(request, f"the loss became {value} in step {step + 1} of", place.number)
        total += value * len(rows)
    if not all(bool(values.isfinite().all()) for values in network.state_dict().values()):
        raise _divergence_error(request, "a weight became infinite in", place.number)
    return total / len(y)


def _set_mode(network: nn.Module, stage: Stage) -> None:
    """Training mode for what the stage trains; a frozen module's normalisation and dropout are as in tests."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(stage.trains in name)
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _divergence_error(request: Request, what: str, epoch: int) -> WorkFailed:
    return WorkFailed(
        f"{request.name}: {what} epoch {epoch + 1} at learning rate {request.recipe.lr:g}; "
        f"to continue would end the same, so train again with another seed and a new folder, or check the records"
    )


def _validate(
    baseline: Baseline, network: nn.Module, held_out: tuple[Tensor, NDArray[np.bool_]] | None
) -> float | None:
    """Macro AUC on the validation records; None without records, or without a class that has both kinds."""
    if held_out is None:
        return None
    value = macro_auc(held_out[1], _scores(baseline, network, held_out[0])).value
    return value if math.isfinite(value) else None


def _scores(baseline: Baseline, network: nn.Module, inputs: Tensor, batch: int = 32) -> NDArray[np.float64]:
    """(n, ...) inputs -> (n, c) probabilities.

    batch: records at a time; on a CPU 16 to 64 take the same, 128 a third more.
    """
    network.eval()
    with torch.inference_mode():
        parts = [torch.sigmoid(_logits(baseline, network, part).double()) for part in torch.split(inputs, batch)]
    return np.asarray(torch.cat(parts).numpy())


def _logits(baseline: Baseline, network: nn.Module, x: Tensor) -> Tensor:
    if baseline.window is None:
        return network(x)  # type: ignore[no-any-return]
    windows = x.unfold(2, baseline.window, baseline.window // 2).transpose(1, 2)  # (B, 7, 12, 250)
    logits: Tensor = network(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
    return logits.amax(dim=1) if baseline.over_windows == "max" else logits.mean(dim=1)


def _optimizer(network: nn.Module, recipe: BaselineSettings) -> torch.optim.Optimizer:
    """AdamW or Adam, under "one-cycle" with fastai's betas; or Adamax with Keras' epsilon: as in the benchmark."""
    betas = (0.95, 0.99) if recipe.schedule == "one-cycle" else (0.9, 0.999)
    if recipe.optimizer in ("adamw", "adam"):
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        return kind(network.parameters(), lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "adamax":
        return torch.optim.Adamax(network.parameters(), lr=recipe.lr, eps=1e-7, weight_decay=recipe.weight_decay)
    raise InputError(f"recipe: optimizer {recipe.optimizer!r} is unknown; choose adamw, adam or adamax")


def _rate(step: int, steps: int, recipe: BaselineSettings) -> tuple[float, float]:
    """Learning rate and first beta of a step (counted from 0) of a stage of `steps`.

    One-cycle (Smith 2018) as in fastai: over the first 30 % from lr / 25 up to lr and the beta from .95 to .85, then
    down to lr / 250,000 and back to .95, along half cosines. "cosine" rises on a line, then falls along a half cosine.
    """
    if recipe.schedule == "constant":
        return recipe.lr, 0.9
    if recipe.schedule == "cosine":
        rise = recipe.warmup * steps
        along = (step - rise) / (steps - rise)
        return recipe.lr * (step + 1) / (rise + 1) if step < rise else half_cosine(recipe.lr, 0.0, along), 0.9
    top = 0.3 * steps - 1
    if step <= top:
        return half_cosine(recipe.lr / 25, recipe.lr, step / top), half_cosine(0.95, 0.85, step / top)
    along = (step - top) / max(steps - 1 - top, 1e-9)
    return half_cosine(recipe.lr, recipe.lr / 25e4, along), half_cosine(0.85, 0.95, along)


def half_cosine(start: float, end: float, along: float) -> float:
    """From `start` (`along` 0) to `end` (1) on half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * along)) / 2


def _batches(n: int, batch: int) -> Iterator[Tensor]:
    """A random order of n rows in parts of nearly equal size, so that no last batch is too small to normalise."""
    yield from torch.tensor_split(torch.randperm(n), _batch_count(n, batch))


def _batch_count(n: int, batch: int) -> int:
    return max(1, min(round(n / batch), n // 2))


def _crop(x: Tensor, window: int) -> Tensor:
    """(B, 12, samples) -> (B, 12, window), each record cut at its own random start."""
    start = torch.randint(0, x.shape[2] - window + 1, (len(x), 1, 1))
    index = (start + torch.arange(window)).expand(-1, x.shape[1], -1)  # (B, 12, window)
    return x.gather(2, index)


def _check_arrays(
    which: str, signals: NDArray[np.float32], labels: NDArray[np.bool_], classes: tuple[str, ...], rate: int
) -> None:
    _check_signals(f"{which} signals", signals, rate)
    if labels.shape != (len(signals), len(classes)):
        raise InputError(f"{which} labels are {labels.shape}, expected ({len(signals)}, {len(classes)})")


def _check_signals(which: str, signals: NDArray[np.float32], rate: int) -> None:
    if signals.ndim != 3 or signals.shape[1:] != (LEAD_COUNT, SECONDS * rate) or signals.dtype != np.float32:
        raise InputError(
            f"{which} are {signals.dtype} {signals.shape}, expected float32 (records, 12, {SECONDS * rate})"
        )
    if not len(signals):
        raise InputError(f"{which}: no records; name folds or a folder with records")
    if not np.isfinite(signals).all():
        raise InputError(f"{which} contain NaN or infinite samples; pass records through ten_seconds")
