"""The comparison systems and how they are trained; without torch, so that the import is quick.

Sources: of the first five Strodthoff, Wagner, Schaeffter and Samek 2020, "Deep Learning for ECG Analysis: Benchmarks
and Insights from PTB-XL", and the configuration published with it; of the others the papers that their files name.
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
        lr: learning rate, the highest one of the schedule.
        optimizer: "adamw", "adam" (weight decay as a part of the gradient) or "adamax".
        schedule: "one-cycle", "cosine" (down to 0) or "constant".
        warmup: share of the steps in which "cosine" rises first, on a line.
    """

    epochs: int = 50
    batch: int = 128
    lr: float = 1e-2
    weight_decay: float = 1e-2
    optimizer: str = "adamw"
    schedule: str = "one-cycle"
    seed: int = 0
    warmup: float = 0.0


SETTINGS: Mapping[str, BaselineSettings] = MappingProxyType(
    {
        "xresnet1d101": BaselineSettings(),
        "inception1d": BaselineSettings(),
        "resnet1d_wang": BaselineSettings(),
        "fcn_wang": BaselineSettings(),
        "wavelet_nn": BaselineSettings(epochs=30, lr=1e-3, weight_decay=0.0, optimizer="adamax", schedule="constant"),
        "multiresconv": BaselineSettings(100, 50, lr=0.0045, weight_decay=0.06, schedule="cosine", warmup=0.05),
        "protoecgnet": BaselineSettings(200, 32, lr=1e-4, weight_decay=1.7e-4, optimizer="adam", schedule="cosine"),
    }
)
"""Name -> the published settings. `eval.baselines.registry` has a system of each name."""
