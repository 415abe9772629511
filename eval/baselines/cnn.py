"""The networks of the PTB-XL benchmark (Strodthoff et al. 2020), written from their description.

Each takes the input it was trained on, millivolts (B, 12, samples) at 100 Hz or wavelet features (B, 864), and gives
(B, classes) logits. Batch normalisation makes the convolutions' own biases redundant, so they have none; with that
the parameter counts equal the published ones.

Inside, time is the width of a picture one sample high, channels last in memory: on a CPU the same convolutions then
take a quarter (resnet1d_wang) to a half (inception1d) less than as `Conv1d`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from eval.baselines.baseline import LEAD_COUNT, Baseline, Standardise
from eval.baselines.wavelet import FEATURES, features


class AsImage(nn.Module):
    """(B, C, n) -> (B, C, 1, n), channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class ConcatPool(nn.Module):
    """(B, C, 1, n) -> (B, 2 C): the maximum and the mean over time side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax(dim=(2, 3)), x.mean(dim=(2, 3))], dim=1)


class Residual(nn.Module):
    """ReLU of the sum of a body and a shortcut, both of which see the same input."""

    def __init__(self, body: list[nn.Module], shortcut: list[nn.Module]) -> None:
        super().__init__()
        self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Inception(nn.Module):
    """Convolutions of 39, 19 and 9 samples over a bottleneck, and a pooled branch: 4 x 32 channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bottleneck = _conv(inputs, 32, 1)
        self.wide = nn.ModuleList([_conv(32, 32, kernel) for kernel in (39, 19, 9)])
        self.pooled = nn.Sequential(nn.MaxPool2d((1, 3), stride=1, padding=(0, 1)), _conv(inputs, 32, 1))
        self.norm = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        branches = [*(conv(narrow) for conv in self.wide), self.pooled(x)]
        return torch.relu(self.norm(torch.cat(branches, dim=1)))


def xresnet1d101(classes: int) -> nn.Sequential:
    """A residual network of 101 layers, 64 channels wide in all its stages; stem and shortcuts of He et al. 2018."""
    stem = [*conv_layers(LEAD_COUNT, 32, 5, stride=2), *conv_layers(32, 32, 5), *conv_layers(32, 64, 5)]
    stages: list[nn.Module] = []
    for stage, blocks in enumerate((3, 4, 23, 3)):
        for block in range(blocks):
            stages.append(_bottleneck(256 if stages else 64, stride=2 if stage and not block else 1))
    return _network(classes, 256, *stem, nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1)), *stages)


def inception1d(classes: int) -> nn.Sequential:
    """InceptionTime (Fawaz et al. 2020) of depth 6: a shortcut around each three inception blocks."""

    def three(inputs: int) -> Residual:
        return Residual(
            [Inception(inputs), Inception(128), Inception(128)], shortcut=conv_layers(inputs, 128, 1, relu=False)
        )

    return _network(classes, 128, three(LEAD_COUNT), three(128))


def resnet1d_wang(classes: int) -> nn.Sequential:
    """Wang et al. 2017's residual network: three blocks of 128 channels, the second and third with stride 2."""
    blocks = [_basic(128, stride) for stride in (1, 2, 2)]
    return _network(classes, 128, *conv_layers(LEAD_COUNT, 128, 7), *blocks)


def fcn_wang(classes: int) -> nn.Sequential:
    """Wang et al. 2017's fully convolutional network."""
    return _network(
        classes, 128, *conv_layers(LEAD_COUNT, 128, 8), *conv_layers(128, 256, 5), *conv_layers(256, 128, 3)
    )


def wavelet_nn(classes: int) -> nn.Sequential:
    """One hidden layer over standardised wavelet features; initialised after Glorot and Bengio 2010."""
    network = nn.Sequential(
        Standardise(FEATURES), nn.Linear(FEATURES, 128), nn.ReLU(), nn.Dropout(0.25), nn.Linear(128, classes)
    )
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


CNNS: Mapping[str, Baseline] = MappingProxyType(
    {
        network.__name__: Baseline(network, window=250)
        for network in (xresnet1d101, inception1d, resnet1d_wang, fcn_wang)
    }
    | {"wavelet_nn": Baseline(wavelet_nn, inputs=lambda signals: torch.from_numpy(features(signals)))}
)
"""Name -> system: of the convolutional ones random crops of 2.5 s, and in tests the highest of 7 windows."""


def _network(classes: int, width: int, *layers: nn.Module) -> nn.Sequential:
    """Layers that give (B, width, 1, n) between what all convolutional networks share.

    The head: pool -> BN -> dropout .25 -> 128 -> ReLU -> BN -> dropout .5 -> classes. Weights after He et al. 2015.
    """
    network = nn.Sequential(
        Standardise(1),
        AsImage(),
        *layers,
        ConcatPool(),
        nn.BatchNorm1d(2 * width),
        nn.Dropout(0.25),
        nn.Linear(2 * width, 128),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(128),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    )
    network.apply(_initialise)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _initialise(module: Any) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _basic(width: int, stride: int) -> Residual:
    return Residual(
        [*conv_layers(width, width, 5, stride), *conv_layers(width, width, 3, relu=False)],
        shortcut=conv_layers(width, width, 1, stride, relu=False) if stride > 1 else [],
    )


def _bottleneck(inputs: int, stride: int) -> Residual:
    """64 channels between 1 x 1 convolutions; the shortcut averages over time where the stride is 2."""
    pool: list[nn.Module] = [nn.AvgPool2d((1, 2), ceil_mode=True)] if stride == 2 else []
    return Residual(
        [*conv_layers(inputs, 64, 1), *conv_layers(64, 64, 5, stride), *conv_layers(64, 256, 1, relu=False)],
        shortcut=pool + (conv_layers(inputs, 256, 1, relu=False) if inputs != 256 else []),
    )


def conv_layers(inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [_conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs)]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Keeps the length at stride 1 (one sample less for the one even kernel, as in the benchmark)."""
    return nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), padding=(0, (kernel - 1) // 2), bias=False)
