"""A baseline on disk: the checkpoint of an unfinished run, and the folder of a finished one. Nothing is pickled.

checkpoint.safetensors: weights ("network.NAME"), the optimizer's tensors ("optimizer.NUMBER.NAME") and, as JSON in the
file's metadata, the request and the epochs so far. weights.safetensors and model.json: the finished network.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eval.baselines.registry import BASELINES
from eval.baselines.settings import PRETRAININGS, BaselineSettings, ContrastiveSettings, PretrainingSettings
from render.errors import InputError
from render.io import atomic_write, require_same_request

CHECKPOINT, _WEIGHTS, _ABOUT = "checkpoint.safetensors", "weights.safetensors", "model.json"
_DAMAGE = (ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, SafetensorError)


@dataclass(frozen=True)
class Epoch:
    """number: from 1. total: epochs of the run; of a pre-training, its hundredths. loss: mean over the training
    records. validation_auc: macro ROC AUC of the validation records, None without any."""

    number: int
    total: int
    loss: float
    validation_auc: float | None


@dataclass(frozen=True)
class Request:
    """The request for a run. records: number of training records; data: digest of their signals and labels; encoder:
    digest of the encoder that it starts from, "" without."""

    name: str
    classes: tuple[str, ...]
    recipe: BaselineSettings
    records: int
    data: str
    encoder: str = ""
    probe: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        classes: tuple[str, ...],
        recipe: BaselineSettings,
        signals: NDArray[np.float32],
        labels: NDArray[np.bool_],
        encoder: Mapping[str, Tensor] = MappingProxyType({}),
        probe: bool = False,
    ) -> Request:
        """The request for these training records and this encoder."""
        digest = hashlib.blake2b(np.ascontiguousarray(signals).data, digest_size=16)
        digest.update(np.ascontiguousarray(labels, dtype=np.bool_).data)
        weights = hashlib.blake2b(digest_size=16)
        for values in encoder.values():
            weights.update(values.numpy().data)
        return cls(
            name, classes, recipe, len(signals), digest.hexdigest(), weights.hexdigest() if encoder else "", probe
        )

    @classmethod
    def read(cls, about: dict[str, Any]) -> Request:
        """From the JSON form of `asdict`. Raises ValueError where it names no classes."""
        if not about["classes"]:
            raise ValueError("no classes")
        return cls(**{**about, "classes": tuple(about["classes"]), "recipe": BaselineSettings(**about["recipe"])})


@dataclass(frozen=True)
class PretrainingRequest:
    """The request for a pre-training. records: their number; data: digest of their source."""

    name: str
    settings: PretrainingSettings | ContrastiveSettings
    records: int
    data: str

    @classmethod
    def read(cls, about: dict[str, Any]) -> PretrainingRequest:
        """From the JSON form of `asdict`."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in about["settings"].items()}
        settings: Any = type(PRETRAININGS[about["name"]])
        return cls(**{**about, "settings": settings(**values)})


AnyRequest = Request | PretrainingRequest


@dataclass(frozen=True)
class TrainedBaseline:
    """A finished network, in evaluation mode, that takes its inputs as they are and standardises them itself.

    record_ids, patients: of the training records, in their order; empty where they were not told.
    """

    network: nn.Module
    request: Request
    epochs: tuple[Epoch, ...]
    record_ids: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """One of `eval.baselines.registry.BASELINES`."""
        return self.request.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of its predictions."""
        return self.request.classes

    @property
    def training(self) -> str:
        """What it was trained on, in a sentence for the report."""
        if not self.epochs:
            return (
                f"{self.name} pre-trained with ecg-vlm on {self.request.records:,} pairs of ECG and report, zero-shot"
            )
        epochs = f"{len(self.epochs)} epoch{'s' * (len(self.epochs) != 1)}"
        start = "a pre-trained encoder" if self.request.encoder else "random weights"
        return f"{self.name} trained with ecg-vlm from {start} on {self.request.records:,} waveforms, {epochs}"


def save(model: TrainedBaseline, folder: Path) -> None:
    """Write `weights.safetensors` and `model.json` into `folder`, and remove the checkpoint."""
    about = {
        **asdict(model.request),
        "epochs": [asdict(epoch) for epoch in model.epochs],
        "record_ids": model.record_ids,
        "patients": model.patients,
    }
    with atomic_write(folder / _WEIGHTS) as path:
        save_file({name: values.contiguous() for name, values in model.network.state_dict().items()}, path)
    with atomic_write(folder / _ABOUT) as path:
        path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    for left in folder.glob(f".{CHECKPOINT}.*"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)


def load(folder: Path) -> TrainedBaseline:
    """Read what `save` wrote. Raises InputError naming the file when a part is missing or does not fit."""
    about_path, weights_path = folder / _ABOUT, folder / _WEIGHTS
    for path in (about_path, weights_path):
        if not path.is_file():
            is_unfinished = (folder / CHECKPOINT).is_file()
            remedy = (
                "its training has not finished, continue it with --resume"
                if is_unfinished
                else "name a folder that ecg-vlm baseline train wrote"
            )
            raise InputError(f"{path}: not found; {remedy}")
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        epochs = tuple(Epoch(**epoch) for epoch in about.pop("epochs"))
        record_ids, patients = (tuple(map(str, about.pop(key, ()))) for key in ("record_ids", "patients"))
        request = Request.read(about)
        network = BASELINES[request.name].network(len(request.classes))
        network.load_state_dict(load_file(weights_path))
    except _DAMAGE as error:
        raise InputError(f"{folder}: not a trained baseline of this version ({error}); train it again") from error
    return TrainedBaseline(network.eval(), request, epochs, record_ids, patients)


def is_started(folder: Path) -> bool:
    """Whether a run has left a checkpoint or a network in `folder`."""
    return any((folder / name).is_file() for name in (CHECKPOINT, _WEIGHTS, _ABOUT))


def load_if_finished(folder: Path, request: Request) -> TrainedBaseline | None:
    """The finished run in `folder`, None where there is none. Raises InputError when its request was another."""
    if (folder / CHECKPOINT).is_file() or not (folder / _ABOUT).is_file():
        return None
    model = load(folder)
    require_same_request(folder, asdict(model.request), asdict(request))
    return model


def write_checkpoint(
    folder: Path, request: AnyRequest, network: nn.Module, optimizer: torch.optim.Optimizer, epochs: list[Epoch]
) -> None:
    """Replace the checkpoint by the state after the last of `epochs`; flushed first, so it is never half of one."""
    tensors = {name: values.contiguous() for name, values in _state(network, optimizer).items()}
    about = {"request": asdict(request), "epochs": [asdict(epoch) for epoch in epochs]}
    with atomic_write(folder / CHECKPOINT) as path:
        save_file(tensors, path, metadata={"about": json.dumps(about)})
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def restore(folder: Path, request: AnyRequest, network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Epoch]:
    """Put network and optimizer into the state of the checkpoint and return its epochs; no epochs without a checkpoint.

    Raises:
        InputError: When the checkpoint is damaged, or belongs to a run with another request.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        epochs = [Epoch(**epoch) for epoch in about["epochs"]]
        checkpoint_request = type(request).read(about["request"])
    except _DAMAGE as error:
        raise _damage_error(path, error) from error
    require_same_request(folder, asdict(checkpoint_request), asdict(request))
    try:
        _set_state(tensors, network, optimizer)
    except _DAMAGE as error:
        raise _damage_error(path, error) from error
    return epochs


def _state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors that change in a training step, by name; the tensors themselves, not copies."""
    tensors: dict[str, Tensor] = {f"network.{name}": values for name, values in network.state_dict().items()}
    for number, parameter in enumerate(network.parameters()):
        state = optimizer.state.get(parameter, {})  # of a parameter that its stage does not train there is none
        tensors |= {f"optimizer.{number}.{name}": values for name, values in state.items()}
    return tensors


def _set_state(tensors: dict[str, Tensor], network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    in_training = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    for number, parameter in enumerate(network.parameters()):
        parameter.grad = torch.zeros_like(parameter) if str(number) in in_training else None
    optimizer.step()  # creates the optimizer's tensors; like the weights, they are overwritten next
    state = _state(network, optimizer)
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in tensors.items()}:
        raise ValueError("its tensors are not those of this network")
    for name, values in state.items():
        values.copy_(tensors[name])


def _damage_error(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: the checkpoint is damaged ({error}); name a new folder and start the training again")
