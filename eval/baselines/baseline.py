"""A comparison system as the training loop sees it: its network, its input, and the stages of its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from render.record import LOW_RATE_HZ

LEAD_COUNT = 12


def cross_entropy(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of (B, classes) logits, the mean over records and classes."""
    return F.binary_cross_entropy_with_logits(network(x), y)


@dataclass(frozen=True)
class Stage:
    """A part of the training, with a fresh optimizer and its own course of the learning rate.

    Attributes:
        epochs: times the epochs of the settings; rounded, one at least.
        loss: network, inputs (B, ...) and labels (B, classes) -> mean loss.
        lr: times the learning rate of the settings.
        weight_decay: times that of the settings.
        schedule: that of the settings when None.
        largest_gradient: norm that the gradient is shortened to.
        trains: parameters with this in their name are trained, all with "". A module without any of them stays in
            evaluation mode.
        begin: what is computed, not learnt, before the first epoch, from the network and all inputs and labels.
            It may write into parameters and buffers alone: these are what a checkpoint holds.
    """

    epochs: float = 1.0
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = cross_entropy
    lr: float = 1.0
    weight_decay: float = 1.0
    schedule: str | None = None
    largest_gradient: float | None = None
    trains: str = ""
    begin: Callable[[nn.Module, Tensor, Tensor], None] = lambda network, inputs, labels: None


@dataclass(frozen=True)
class Baseline:
    """What the loop needs to know.

    Attributes:
        network: number of classes -> fresh network. Its first `Standardise`, if it has one, is fitted to the training
            inputs.
        stages: in their order.
        tuning: stages of a network whose `encoder` was pre-trained, the first of which trains the head alone.
        rate: hertz of the 10 s of signal.
        window: samples of a random crop in training and of windows half as far apart in tests; None: the whole input.
        over_windows: which logits count in tests.
        inputs: (n, 12, 10 * rate) millivolts -> what the network is given, (n, ...).
    """

    network: Callable[[int], nn.Module]
    stages: tuple[Stage, ...] = (Stage(),)
    tuning: tuple[Stage, ...] = ()
    rate: int = LOW_RATE_HZ
    window: int | None = None
    over_windows: Literal["max", "mean"] = "max"
    inputs: Callable[[NDArray[np.float32]], Tensor] = torch.from_numpy


class Standardise(nn.Module):
    """(x - mean) / std, with one figure over everything (size 1) or one for each of `size` last places.

    The figures are not trainable: `fit` computes them from the training records; they are stored with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, x: Tensor) -> None:
        """Take mean and standard deviation from (n, ...) training inputs; a column without variation is not scaled."""
        over = tuple(range(x.ndim if len(self.mean) == 1 else x.ndim - 1))
        count = x.numel() / len(self.mean)
        parts = torch.split(x, 256)  # in parts, to save memory: float64 doubles the size
        mean = torch.stack([part.double().sum(over) for part in parts]).sum(dim=0) / count
        squares = torch.stack([torch.square(part.double() - mean).sum(over) for part in parts]).sum(dim=0)
        std = torch.sqrt(squares / count)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
