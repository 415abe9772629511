"""The networks of the PTB-XL benchmark and how they are trained; without torch, so that the import is quick.

Source: Strodthoff, Wagner, Schaeffter and Samek 2020, "Deep Learning for ECG Analysis: Benchmarks and Insights from
PTB-XL", and the configuration published with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class BaselineSettings:
    """Settings of a training run; stored beside the weights.

    Attributes:
        batch: records a step, on average.
        lr: learning rate, the highest one under "one-cycle".
        optimizer: "adamw" or "adamax".
        schedule: "one-cycle" or "constant".
    """

    epochs: int = 50
    batch: int = 128
    lr: float = 1e-2
    weight_decay: float = 1e-2
    optimizer: str = "adamw"
    schedule: str = "one-cycle"
    seed: int = 0


BENCHMARK: Mapping[str, BaselineSettings] = MappingProxyType(
    {
        "xresnet1d101": BaselineSettings(),
        "inception1d": BaselineSettings(),
        "resnet1d_wang": BaselineSettings(),
        "fcn_wang": BaselineSettings(),
        "wavelet_nn": BaselineSettings(epochs=30, lr=1e-3, weight_decay=0.0, optimizer="adamax", schedule="constant"),
    }
)
"""Name -> the benchmark's recipe. `eval.baselines.cnn` has a function of each name."""
