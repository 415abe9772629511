"""The convolutional networks of the PTB-XL benchmark (Strodthoff et al. 2020), written from their description.

Input (B, 12, samples) at 100 Hz, output (B, classes) logits. Batch normalisation makes the convolutions' own biases
redundant, so they have none; with that the parameter counts equal the published ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LEAD_COUNT = 12


class ConcatPool(nn.Module):
    """(B, C, n) -> (B, 2 C): the maximum and the mean over time side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax(dim=-1), x.mean(dim=-1)], dim=1)


class BasicBlock(nn.Module):
    """Two convolutions (kernels `first` and `second`) around a shortcut; `stride` halves time when 2."""

    def __init__(self, channels: int, first: int, second: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels, first, stride),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            _conv(channels, channels, second, 1),
            nn.BatchNorm1d(channels),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(_conv(channels, channels, 1, stride), nn.BatchNorm1d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet1d_wang(classes: int = 71) -> nn.Module:
    """Wang et al.'s residual network as the benchmark runs it: 481,863 parameters with 71 classes.

    Stem of kernel 7 without stride or pooling, then three blocks of 128 channels (kernels 5 and 3), the second and
    third with stride 2. Published: 482 k parameters, macro AUC .919 on all 71 statements of fold 10.
    """
    width = 128
    return nn.Sequential(
        _conv(LEAD_COUNT, width, 7, 1),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        BasicBlock(width, 5, 3, stride=1),
        BasicBlock(width, 5, 3, stride=2),
        BasicBlock(width, 5, 3, stride=2),
        *_head(width, classes),
    )


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"resnet1d_wang": resnet1d_wang}
"""Name -> function from a number of classes to a fresh network."""


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _head(width: int, classes: int) -> list[nn.Module]:
    """The benchmark's common head: pool -> BN -> dropout .25 -> 128 -> ReLU -> BN -> dropout .5 -> classes."""
    return [
        ConcatPool(),
        nn.BatchNorm1d(2 * width),
        nn.Dropout(0.25),
        nn.Linear(2 * width, 128),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(128),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    ]


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv1d:
    """A convolution that keeps the length (at stride 1), initialised after He et al. 2015 for ReLU."""
    conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return conv
