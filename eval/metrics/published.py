"""Macro AUCs that others have published on PTB-XL's test fold 10, for orientation beside our own tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """One system's published macro AUCs.

    Attributes:
        macro_auc: task -> value.
        half_width: task -> half-width of the published 90 % bootstrap interval.
    """

    name: str
    kind: str
    parameters: str
    source: str
    macro_auc: dict[str, float]
    half_width: dict[str, float]


def _benchmark(name: str, parameters: str, thousandths: str) -> PublishedResult:
    """A row of the benchmark's Table, written as "value/half-width" in thousandths per task."""
    tasks = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
    pairs = [cell.split("/") for cell in thousandths.split()]
    return PublishedResult(
        name=name,
        kind="signal",
        parameters=parameters,
        source="Strodthoff et al. 2020",
        macro_auc={task: int(value) / 1000 for task, (value, _) in zip(tasks, pairs, strict=True)},
        half_width={task: int(width) / 1000 for task, (_, width) in zip(tasks, pairs, strict=True)},
    )


PUBLISHED_RESULTS: tuple[PublishedResult, ...] = (
    _benchmark("xresnet1d101", "1.88 M", "925/7 937/8 929/14 928/5 896/12 957/19"),
    _benchmark("inception1d", "516 k", "925/8 931/9 930/10 921/6 899/22 953/13"),
    _benchmark("resnet1d_wang", "482 k", "919/8 936/8 928/10 930/5 880/15 946/10"),
    _benchmark("fcn_wang", "318 k", "918/8 926/10 927/11 925/6 869/12 931/8"),
    _benchmark("lstm_bidir", "2.34 M", "914/8 932/7 923/12 921/6 876/15 949/11"),
    _benchmark("Wavelet+NN", "120 k", "849/13 855/15 859/16 874/7 757/29 890/24"),
    PublishedResult("ECG-CPC", "signal, pre-trained", "", "its paper", {"all": 0.949}, {}),
    PublishedResult("ECG-JEPA", "signal, pre-trained", "14.7 M", "Weimann and Conrad", {"all": 0.945}, {}),
    PublishedResult(
        "PULSE-7B, QLoRA",
        "image",
        "7 B",
        "its paper",
        {"diagnostic": 0.893, "superdiagnostic": 0.902, "form": 0.849, "rhythm": 0.887},
        {},
    ),
)
"""The benchmark's systems and the highest figures we know of since; all on fold 10 of the whole of PTB-XL."""

PUBLISHED_CAVEAT = (
    "Published, fold 10, all of PTB-XL (17,418 training and 2,198 test records). Not comparable with a sample of "
    "another fold, or with simulated pages, except for orientation."
)
