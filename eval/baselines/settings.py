"""The comparison systems and how they are trained; without torch, so that the import is quick.

Sources: of the first five Strodthoff, Wagner, Schaeffter and Samek 2020, "Deep Learning for ECG Analysis: Benchmarks
and Insights from PTB-XL", and the configuration published with it; of the others the papers that their files name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class PretrainingSettings:
    """Settings of a pre-training, by default the published ones; stored beside the weights.

    Attributes:
        steps: that the weights change in.
        batch: records a step.
        seconds: of a record that a step sees.
        lr: learning rate, the highest one.
        momentum: share of itself that the target encoder keeps in a step; at the first step and, along a line, at the
            last. A run of fewer than some thousand steps needs less of it: the target would stay near its random start.
    """

    steps: int = 100_000
    batch: int = 2048
    seconds: float = 10.0
    lr: float = 1e-3
    momentum: tuple[float, float] = (0.998, 0.9995)
    seed: int = 0


@dataclass(frozen=True)
class ContrastiveSettings:
    """Settings of a pre-training on pairs, as published as far as we know them; stored beside the weights.

    Attributes:
        steps, batch: the paper's are not known to us.
        lr: learning rate, the highest one.
        text: a text tower of the hub or a folder, tuned by LoRA; "" for a small one that is trained here.
    """

    steps: int = 20_000
    batch: int = 128
    lr: float = 3e-5
    weight_decay: float = 0.1
    text: str = ""
    seed: int = 0


PRETRAININGS: Mapping[str, PretrainingSettings | ContrastiveSettings] = MappingProxyType(
    {
        "ecg_jepa": PretrainingSettings(),
        "ecg_jepa_s": PretrainingSettings(),
        "more": ContrastiveSettings(),
        "more_nano": ContrastiveSettings(steps=700, batch=64, lr=1e-3),
    }
)
"""Name of a system that is pre-trained -> the settings."""

_ECG_JEPA = BaselineSettings(epochs=74, lr=1e-3, schedule="cosine", warmup=0.02)  # 10,000 steps with PTB-XL's folds 1-8
# Of its classifier the paper's settings are not known to us: those of its pre-training.
_MORE = BaselineSettings(batch=64, lr=3e-5, weight_decay=0.1, schedule="cosine", warmup=0.05)

SETTINGS: Mapping[str, BaselineSettings] = MappingProxyType(
    {
        "xresnet1d101": BaselineSettings(),
        "inception1d": BaselineSettings(),
        "resnet1d_wang": BaselineSettings(),
        "fcn_wang": BaselineSettings(),
        "wavelet_nn": BaselineSettings(epochs=30, lr=1e-3, weight_decay=0.0, optimizer="adamax", schedule="constant"),
        "multiresconv": BaselineSettings(100, 50, lr=0.0045, weight_decay=0.06, schedule="cosine", warmup=0.05),
        "protoecgnet": BaselineSettings(200, 32, lr=1e-4, weight_decay=1.7e-4, optimizer="adam", schedule="cosine"),
        "ecg_jepa": _ECG_JEPA,
        "ecg_jepa_s": _ECG_JEPA,
        "more": _MORE,
        "more_nano": replace(_MORE, lr=1e-3),
    }
)
"""Name -> the published settings. `eval.baselines.registry` has a system of each name."""
