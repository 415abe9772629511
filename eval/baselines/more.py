"""MoRE (Thapa et al. 2024, arXiv 2410.16239): ECG, chest X-ray and report in one space.

    ECG     -> two convolutions -> 196 tokens ----\\
    picture -> patches of 16 x 16 -> 196 tokens ---> transformer -> class token -> projection -> unit vector
    report  -> RoBERTa with LoRA -----------------> its first token ----/

The classifier is the ECG's tower and projection with a vector for each statement; a logit is their scaled product.
After a pre-training these are what the text tower makes of the statements' names, less the mean of all of them: the
zero-shot classifier. `baseline train --from` takes the encoder alone and learns them.

Left open by what we know of the paper, and our choice: positions are learnt; each query of each head leaves out keys of
its own (DropKey, Li et al. 2022), the class token too; pictures are grey and so have one channel; the baseline is what
two median filters leave (.2 and .6 s, de Chazal et al. 2004); equal reports are each other's match in the loss, as a
third of PTB-XL's say no more than that the ECG is normal; every second report gives some of its clauses alone, as the
statements' names are short; restarts after 1/7 and 3/7 of the steps. The size `more_nano`
is ours, for a CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines.baseline import LEAD_COUNT, Baseline, Stage
from render.record import LOW_RATE_HZ

IMAGE_SIZE, _PATCH = 224, 16
EMBEDDING = 768
TEMPERATURE = 0.02
TOKEN_SAMPLES, TOKEN_SPAN = 5, 25
"""Samples at 100 Hz from one token of the ECG to the next, and of a token."""

_TOKENS = 196  # of an ECG of 10 s, and of a picture
_BOTTLENECK = 128
_DROPPED_KEYS = 0.3
_BASELINE_S = (0.2, 0.6)


class MoreSize(NamedTuple):
    """Width of a token, number of blocks, attention heads of a block."""

    width: int
    depth: int
    heads: int


SIZES = {"more": MoreSize(768, 12, 12), "more_nano": MoreSize(128, 3, 4)}
"""Name of the system -> its size: the paper's ViT-B, and one that a CPU trains."""


class DropKey(nn.Module):
    """(..., queries, keys) logits -> attention weights; in training without some of the keys."""

    def forward(self, logits: Tensor) -> Tensor:
        if self.training:
            logits = logits.masked_fill(torch.rand_like(logits) < _DROPPED_KEYS, -torch.inf)
        return logits.softmax(dim=-1)


class Block(nn.Module):
    """A transformer block with the norm first; queries, keys and values without bias."""

    def __init__(self, size: MoreSize) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.weigh = DropKey()
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        query, key, value = self.qkv(self.before(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = self.weigh(query @ key.transpose(2, 3) / query.shape[3] ** 0.5)
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + self.mlp(self.between(x))  # type: ignore[no-any-return]


class Tower(nn.Module):
    """What `embed` makes of an input, (B, width, N <= 196), and a class token -> that token after the blocks."""

    def __init__(self, size: MoreSize, embed: nn.Module) -> None:
        super().__init__()
        self.embed = embed
        self.token = nn.Parameter(torch.empty(1, 1, size.width))
        self.positions = nn.Parameter(torch.empty(1, 1 + _TOKENS, size.width))
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width)
        for parameter in (self.token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """A batch of inputs -> (B, width)."""
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = tokens + self.positions[:, : tokens.shape[1]]
        return self.norm(self.blocks(tokens)[:, 0])  # type: ignore[no-any-return]


class Projection(nn.Sequential):
    """(B, width) -> (B, 768) unit vectors."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, _BOTTLENECK), nn.BatchNorm1d(_BOTTLENECK), nn.ReLU(), nn.Linear(_BOTTLENECK, EMBEDDING)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(x), dim=1)  # type: ignore[no-untyped-call]


def ecg_encoder(size: MoreSize) -> nn.Sequential:
    """(B, 12, 1000), as `inputs` makes them -> (B, 768) unit vectors."""
    first = size.width // 3
    embed = nn.Sequential(
        nn.Conv1d(LEAD_COUNT, first, 5, 5), nn.ReLU(), nn.BatchNorm1d(first),
        nn.Conv1d(first, size.width, 5), nn.ReLU(), nn.BatchNorm1d(size.width),
    )  # fmt: skip
    return nn.Sequential(OrderedDict(tower=Tower(size, embed), projection=Projection(size.width)))


def image_encoder(size: MoreSize) -> nn.Sequential:
    """(B, 1, 224, 224) of mean 0 and deviation 1 -> (B, 768) unit vectors."""
    tower = Tower(size, nn.Conv2d(1, size.width, _PATCH, _PATCH))
    return nn.Sequential(OrderedDict(tower=tower, projection=Projection(size.width)))


class Cosines(nn.Linear):
    """(B, 768) unit vectors -> (B, classes) logits: products with a vector for each class, scaled as in the loss."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x / TEMPERATURE, self.weight, self.bias)


def classifier(name: str, classes: int) -> nn.Sequential:
    """A network that has learnt nothing: (B, 12, 1000) -> (B, classes) logits."""
    return nn.Sequential(OrderedDict(encoder=ecg_encoder(SIZES[name]), head=Cosines(EMBEDDING, classes)))


def inputs(signals: NDArray[np.float32]) -> Tensor:
    """(n, 12, 1000) millivolts at 100 Hz -> the same without their baseline, each lead from -1 to 1; 0 where flat."""
    return torch.from_numpy(np.stack([_scaled(signal) for signal in signals]))


def _scaled(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    baseline = signal
    for seconds in _BASELINE_S:
        baseline = median_filter(baseline, (1, round(seconds * LOW_RATE_HZ) | 1), mode="nearest")
    waves = signal - baseline
    least, most = waves.min(axis=1, keepdims=True), waves.max(axis=1, keepdims=True)
    height = np.where(most > least, most - least, np.inf)
    scaled = 2 * (waves - least) / height - (most > least)
    return np.asarray(scaled, dtype=np.float32)


def contrast(a: Tensor, b: Tensor, same: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018) of (B, D) unit vectors of two kinds.

    same: (B, B) which rows match; where several do, each is as good as the other.
    """
    logits = a @ b.T / temperature
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def relevance(attention: Sequence[Tensor]) -> Tensor:
    """How much each token speaks for a score through the first one, (N - 1,); 1 for the one that speaks most.

    Rule of Chefer, Gur and Wolf 2021 ("Generic Attention-Model Explainability"): the positive part of attention weight
    times its gradient, the mean over heads, added up through the blocks.

    attention: of each block, (1, heads, N, N) weights whose `grad` is that of the score.
    """
    through = torch.eye(attention[0].shape[-1])
    for weights in attention:
        if weights.grad is None:
            raise ValueError("attention weights without a gradient")
        through = through + (weights.grad * weights)[0].clamp(min=0).mean(dim=0).detach() @ through
    of_tokens = through[0, 1:]
    return of_tokens / of_tokens.max().clamp(min=1e-12)


_PROBE = Stage(epochs=0.5, trains="head", lr=10.0)
_TUNING = Stage(epochs=0.5)

CLASSIFIERS: Mapping[str, Baseline] = MappingProxyType(
    {name: Baseline(partial(classifier, name), tuning=(_PROBE, _TUNING), inputs=inputs) for name in SIZES}
)
"""Name -> system: the whole 10 s at 100 Hz."""
