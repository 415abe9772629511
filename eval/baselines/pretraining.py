"""Pre-train an encoder: one loop for ECG-JEPA, which needs no labels, and MoRE, which needs reports.

What a step draws depends on the seed and its number alone, so that a stopped run goes on to the same bytes. Until the
run ends, the signals lie beside its checkpoint in half precision (ECG-JEPA's 120 kB a record of 10 s, MoRE's 24 kB), of
which a step reads its own: a million records need disk, not memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eval.baselines import checkpoint
from eval.baselines.checkpoint import Epoch, PretrainingRequest
from eval.baselines.jepa_pretraining import JepaPretraining
from eval.baselines.pairs import Pairs
from eval.baselines.registry import BASELINES
from eval.baselines.settings import PRETRAININGS, ContrastiveSettings, PretrainingSettings
from eval.baselines.train import EpochCallback
from render.errors import InputError, WorkFailed
from render.io import atomic_write, exclusive, read_json_object, require_empty, require_same_request, write_json
from render.record import EcgRecord
from render.sources.registry import Source, digest_of

_SIGNALS, _WEIGHTS, ABOUT = "signals.npy", "encoder.safetensors", "pretraining.json"
_PARTS = 100  # of a run, each with a checkpoint


class Pretraining(Protocol):
    """What the loop needs of a pre-training.

    Attributes:
        network: all that learns.
        encoder: the part of it that a classifier begins with.
        shape: of what `signal` makes of a record.
    """

    @property
    def network(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def encoder(self) -> nn.Module: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def signal(self, record: EcgRecord) -> NDArray[np.floating[Any]]:
        """A record as the steps read it."""
        ...

    def fit(self, signals: NDArray[np.float16]) -> None:
        """What is computed, not learnt, before the first step."""
        ...

    def step(self, signals: NDArray[np.float16], number: int) -> float:
        """Train on the batch of a step, from 0; the loss."""
        ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what else the network needs, and give what else is to be said about it."""
        ...


def pretrain(
    source: Source,
    name: str,
    settings: PretrainingSettings | ContrastiveSettings,
    out: Path,
    *,
    resume: bool = False,
    reading: Callable[[int, int], None] = lambda count, total: None,
    progress: EpochCallback = lambda epoch, speed: None,
) -> None:
    """Train encoder `name` on the records of a source and write it into `out`, where `load_encoder` reads it.

    The same seed, data, machine and number of torch threads give the same bytes.

    Args:
        source: of MoRE, `eval.baselines.pairs.Pairs`.
        resume: go on from the checkpoint in `out`; a finished run is left as it is.
        reading: called after each record that is read, with their number and the total.
        progress: called after each hundredth of the steps.

    Raises:
        InputError: For an unknown name, settings that do not fit together, a folder with the checkpoint of another
            request, and one that another process writes into; WorkFailed when the loss is not a finite number.
    """
    if name not in PRETRAININGS:
        raise InputError(f"baseline {name!r} is not pre-trained; choose one of {', '.join(PRETRAININGS)}")
    request = PretrainingRequest(name, settings, len(source), digest_of(source))
    with exclusive(out):
        if not resume:
            require_empty(out)
        if (out / ABOUT).is_file():
            finished = read_json_object(out / ABOUT, "name a new folder")
            require_same_request(out, {key: finished.get(key) for key in asdict(request)}, asdict(request))
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)
                _pretrain(_begin(source, name, settings), source, request, out, reading, progress)
        for name in (_SIGNALS, checkpoint.CHECKPOINT):
            (out / name).unlink(missing_ok=True)


def load_encoder(folder: Path, name: str) -> dict[str, Tensor]:
    """Weights of the encoder that `pretrain` wrote into a folder, for the system `name`.

    Raises:
        InputError: When a file is missing or damaged, and when the encoder is of another system.
    """
    about = read_json_object(folder / ABOUT, "name a folder that ecg-vlm baseline pretrain wrote")
    if about.get("name") != name:
        raise InputError(f"{folder}: an encoder of {about.get('name')}; train that, or pre-train {name}")
    try:
        encoder = BASELINES[name].network(1).get_submodule("encoder")
        encoder.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / _WEIGHTS}: not an encoder of {name} ({error}); pre-train it again") from error
    return encoder.state_dict()


def _begin(source: Source, name: str, settings: PretrainingSettings | ContrastiveSettings) -> Pretraining:
    if isinstance(settings, PretrainingSettings):
        return JepaPretraining(name, settings)
    from eval.baselines.more_pretraining import MorePretraining  # here: transformers and peft take seconds

    if not isinstance(source, Pairs):
        raise InputError(f"{name} learns from pairs of record and report; give eval.baselines.pairs.Pairs")
    return MorePretraining(source, name, settings)


def _pretrain(
    work: Pretraining,
    source: Source,
    request: PretrainingRequest,
    out: Path,
    reading: Callable[[int, int], None],
    progress: EpochCallback,
) -> None:
    settings = request.settings
    epochs = checkpoint.restore(out, request, work.network, work.optimizer)
    if not epochs:  # before the signals: they are those of this request
        checkpoint.write_checkpoint(out, request, work.network, work.optimizer, epochs)
    signals = _signals(work, source, out / _SIGNALS, reading)
    if not epochs:
        work.fit(signals)
    parts = min(_PARTS, settings.steps)
    for part in range(len(epochs), parts):
        steps = range(settings.steps * part // parts, settings.steps * (part + 1) // parts)
        began = time.monotonic()
        loss = float(np.mean([work.step(signals, step) for step in steps]))
        speed = len(steps) * settings.batch / max(time.monotonic() - began, 1e-9)
        if not math.isfinite(loss):
            raise WorkFailed(
                f"{request.name}: the loss became {loss} before step {steps.stop}; to continue would end the same, so "
                f"pre-train again with another seed and a new folder, or check the records"
            )
        epochs.append(Epoch(part + 1, parts, loss, None))
        checkpoint.write_checkpoint(out, request, work.network, work.optimizer, epochs)
        progress(epochs[-1], speed)
    with atomic_write(out / _WEIGHTS) as path:
        save_file({name: values.contiguous() for name, values in work.encoder.state_dict().items()}, path)
    more_about = work.save(out)
    write_json(out / ABOUT, {**asdict(request), "epochs": [asdict(epoch) for epoch in epochs], **more_about})


def _signals(work: Pretraining, source: Source, path: Path, reading: Callable[[int, int], None]) -> NDArray[np.float16]:
    """(n, ...) what the steps read of all records, mapped from a file that is written where there is none."""
    if not path.is_file():
        with atomic_write(path) as partial:
            signals = np.lib.format.open_memmap(partial, "w+", np.float16, (len(source), *work.shape))
            for i in range(len(source)):
                signals[i] = work.signal(source.read(i))
                reading(i + 1, len(source))
            signals.flush()
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
