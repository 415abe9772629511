"""The pre-training of ECG-JEPA's encoder on records without labels (the networks: `eval.baselines.ecg_jepa`).

A step draws records and windows and hides blocks of their patches; the target encoder sees all patches; encoder and
predictor see the others and tell the target's tokens of the hidden ones; the loss is the mean absolute difference.
Then the target moves towards the encoder.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines.baseline import LEAD_COUNT
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
from eval.baselines.train import SECONDS, half_cosine, ten_seconds
from render.errors import InputError
from render.record import HIGH_RATE_HZ, EcgRecord

_WARM_UP = 0.1  # of the steps
_LOWEST_RATE = 1e-6
_WEIGHT_DECAY = (0.01, 0.1)
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


class JepaPretraining:
    """See `eval.baselines.pretraining.Pretraining`. Raises `InputError` for windows that a record does not have."""

    shape = (LEAD_COUNT, SECONDS * HIGH_RATE_HZ)

    def __init__(self, name: str, settings: PretrainingSettings) -> None:
        if not 1 <= settings.seconds <= SECONDS:
            raise InputError(
                f"{settings.seconds:g} s windows; records have {SECONDS} s, and 1 s are needed to hide blocks"
            )
        self._settings = settings
        self.network = Jepa(SIZES[name])
        self.encoder = self.network.target
        self.optimizer = _optimizer(self.network)

    def signal(self, record: EcgRecord) -> NDArray[np.float32]:
        """(12, 5000) millivolts at 500 Hz."""
        return ten_seconds(record, HIGH_RATE_HZ)

    def fit(self, signals: NDArray[np.float16]) -> None:
        """Mean and standard deviation of the leads."""
        some = signals[:: -(-len(signals) // _STATISTICS)]
        self.network.standardise.fit(torch.from_numpy(some.astype(np.float32)))

    def step(self, signals: NDArray[np.float16], number: int) -> float:
        """Train on one batch; the loss."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, number])
        patches = round(settings.seconds * HIGH_RATE_HZ) // PATCH_SAMPLES
        samples = patches * PATCH_SAMPLES
        rows = rng.integers(len(signals), size=settings.batch)
        starts = rng.integers(signals.shape[2] - samples + 1, size=settings.batch)
        windows = [signals[row, :, start : start + samples] for row, start in zip(rows, starts, strict=True)]
        loss: Tensor = self.network(
            torch.from_numpy(np.stack(windows).astype(np.float32)), *batch_masks(settings.batch, patches, rng)
        )
        along = number / max(settings.steps - 1, 1)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, settings)
        self.optimizer.param_groups[0]["weight_decay"] = half_cosine(*_WEIGHT_DECAY, along)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        first, last = settings.momentum
        self.network.move_target(first + (last - first) * along)
        return float(loss.detach())

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing but the encoder is needed."""
        return {}


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
