"""ECG-JEPA (Weimann and Conrad 2024, "Self-Supervised Pre-Training with Joint-Embedding Predictive Architecture Boosts
ECG Classification Performance"): a vision transformer over 50 ms of all leads, and what its pre-training needs.

    signal -> patches -> [encoder of the few patches that stay] -> Predictor -> what the target encoder says of the rest
    signal -> patches -> [target encoder: a slow average of the encoder, of all patches] --------^

The classifier is the target encoder with one query that attends to its tokens. Nothing has a bias.

What the paper leaves open, and the choice here: leads are standardised by all records of a pre-training together, and
again by the training records of the classifier; the gaps between hidden blocks are drawn at random; a classifier from
scratch has the same head and dropout as one that was pre-trained (the paper reads its register token alone, and drops
.05). As everywhere here, the weights of the last epoch count, not the best on validation records, and what the paper
gives in steps is in epochs of PTB-XL's folds 1-8: 10,000 steps from scratch, or half of them for each of the stages.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines.baseline import LEAD_COUNT, Baseline, Stage, Standardise
from render.record import HIGH_RATE_HZ

PATCH_SAMPLES = HIGH_RATE_HZ // 20
"""Samples of a patch: 50 ms of all leads."""
WINDOW = 5 * HIGH_RATE_HZ // 2
"""Samples of the classifier's input."""

_KEEP = (0.15, 0.25)  # share of the patches that the encoder sees
_SHORTEST_BLOCK = 10  # patches, of a hidden block
_LARGEST = 5.0  # standard deviations: beyond it artefacts would rule the loss


class JepaSize(NamedTuple):
    """Width of a token, number of blocks, attention heads of a block."""

    width: int
    depth: int
    heads: int


_PROBE = Stage(epochs=0.5, weight_decay=10.0, schedule="constant", largest_gradient=1.0, trains="head")
_TUNING = Stage(epochs=0.5, weight_decay=0.0, lr=0.1, largest_gradient=1.0)

SIZES = {"ecg_jepa": JepaSize(192, 8, 4), "ecg_jepa_s": JepaSize(384, 8, 6)}
"""Name of the system -> its size: the paper's XS and S."""


class JepaEncoder(nn.Module):
    """Patches -> a register token and a token for each patch.

    Args:
        dropout: after attention and within the two layers behind it.
    """

    def __init__(self, size: JepaSize, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Linear(LEAD_COUNT * PATCH_SAMPLES, size.width, bias=False)
        self.register = nn.Parameter(torch.empty(size.width))
        self.blocks = _blocks(size, dropout)
        _initialise(self, size.depth)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(B, 12, samples) standardised leads -> (B, 1 + patches, width).

        at: (B, K) numbers of the patches that are encoded, all when None.
        """
        patches = (
            x.unfold(2, PATCH_SAMPLES, PATCH_SAMPLES).transpose(1, 2).flatten(2)
        )  # (B, N, 12 * 25), without the rest of a patch
        if at is None:
            at = torch.arange(patches.shape[1], device=x.device).expand(len(x), -1)
        tokens = self.embed(pick_tokens(patches, at)) + _positions(at, len(self.register))
        return self.blocks(torch.cat([self.register.expand(len(x), 1, -1), tokens], dim=1))  # type: ignore[no-any-return]


class Predictor(nn.Module):
    """A transformer half as wide as the encoder, which tells the target's tokens of the hidden patches."""

    def __init__(self, size: JepaSize) -> None:
        super().__init__()
        inner = size._replace(width=size.width // 2)
        self.embed = nn.Linear(size.width, inner.width, bias=False)
        self.hidden = nn.Parameter(torch.empty(inner.width))
        self.blocks = _blocks(inner, 0.0)
        self.out = nn.Linear(inner.width, size.width, bias=False)
        _initialise(self, size.depth)

    def forward(self, tokens: Tensor, at: Tensor, hidden: Tensor) -> Tensor:
        """(B, K, width) tokens of the patches `at` (B, K) -> (B, H, width), those of the `hidden` ones (B, H)."""
        width = len(self.hidden)
        seen = self.embed(tokens) + _positions(at, width)
        x = self.blocks(torch.cat([seen, self.hidden + _positions(hidden, width)], dim=1))
        return self.out(x[:, -hidden.shape[1] :])  # type: ignore[no-any-return]


class AttentivePool(nn.Module):
    """(B, N, width) tokens -> (B, classes) logits: one query attends to the tokens, what it gathers is projected."""

    def __init__(self, size: JepaSize, classes: int) -> None:
        super().__init__()
        self.heads = size.heads
        self.query = nn.Parameter(torch.empty(size.width))
        self.query_layer = nn.Linear(size.width, size.width, bias=False)
        self.key_value_layer = nn.Linear(size.width, 2 * size.width, bias=False)
        self.out = nn.Linear(size.width, classes, bias=False)
        _initialise(self, depth=0)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.query_layer(self.query).view(self.heads, 1, -1).expand(len(tokens), -1, -1, -1)  # (B, h, 1, d)
        key, value = self.key_value_layer(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(query, key, value).flatten(1))  # type: ignore[no-any-return]


class StandardiseLeads(Standardise):
    """(B, 12, n) millivolts -> (x - mean) / std of each lead, within 5 standard deviations."""

    def __init__(self) -> None:
        super().__init__(LEAD_COUNT)

    def fit(self, x: Tensor) -> None:
        """Take mean and standard deviation of each lead from (n, 12, samples)."""
        super().fit(x.transpose(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2).clamp(-_LARGEST, _LARGEST)


def classifier(name: str, classes: int) -> nn.Sequential:
    """A network that has learnt nothing: (B, 12, samples) millivolts at 500 Hz -> (B, classes) logits."""
    size = SIZES[name]
    parts = {
        "standardise": StandardiseLeads(),
        "encoder": JepaEncoder(size, dropout=0.1),
        "head": AttentivePool(size, classes),
    }
    return nn.Sequential(OrderedDict(parts))


def pick_tokens(tokens: Tensor, at: Tensor) -> Tensor:
    """(B, N, d) -> (B, K, d): the tokens with the numbers `at` (B, K)."""
    return tokens.gather(1, at.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def block_mask(patches: int, keep: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of `keep` patches that stay, and of those that are hidden in blocks of 10 or more, both ascending.

    The length of each block is drawn from 10 to what is left to hide; a rest of less goes to the last block. Then
    each block is put at a random place among the patches that stay; blocks may touch. As with the paper's rule, the
    first and last patches are hidden less often than the others.
    """
    left, lengths = patches - keep, []
    while left:
        length = int(rng.integers(min(_SHORTEST_BLOCK, left), left + 1))
        lengths.append(left if left - length < _SHORTEST_BLOCK else length)
        left -= lengths[-1]
    before = rng.integers(0, keep + 1, (len(lengths), 1))  # patches that stay before each block
    order = np.arange(keep)
    stay = order + (np.array(lengths).reshape(-1, 1) * (before <= order)).sum(axis=0)
    is_hidden = np.ones(patches, dtype=bool)
    is_hidden[stay] = False
    return stay, np.flatnonzero(is_hidden)


def batch_masks(batch: int, patches: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(batch, K) numbers of the patches that stay and (batch, patches - K) of the hidden ones; one K for the batch,
    15 to 25 % of the patches."""
    keep = math.ceil(rng.uniform(*_KEEP) * patches)
    stay, hidden = zip(*(block_mask(patches, keep, rng) for _ in range(batch)), strict=True)
    return torch.from_numpy(np.stack(stay)), torch.from_numpy(np.stack(hidden))


def _blocks(size: JepaSize, dropout: float) -> nn.TransformerEncoder:
    """Blocks with the norm first, and a norm behind the last."""
    block = nn.TransformerEncoderLayer(
        size.width, size.heads, 4 * size.width, dropout, "gelu", 1e-6, batch_first=True, norm_first=True, bias=False
    )
    block.self_attn.dropout = 0.0  # of attention weights the paper drops none
    norm = nn.LayerNorm(size.width, 1e-6, bias=False)
    return nn.TransformerEncoder(block, size.depth, norm, enable_nested_tensor=False)


def _initialise(module: nn.Module, depth: int) -> None:
    """Normal values of standard deviation .02; of the layers that end a residual branch, less with more of them."""
    for name, parameter in module.named_parameters():
        if "norm" not in name:
            ends_branch = name.endswith(("out_proj.weight", "linear2.weight"))
            nn.init.trunc_normal_(parameter, std=0.02 / math.sqrt(2 * depth) if ends_branch else 0.02)


def _positions(at: Tensor, width: int) -> Tensor:
    """Sines and cosines of (B, K) positions (Vaswani et al. 2017) -> (B, K, width)."""
    rates = torch.exp(torch.arange(0, width, 2, device=at.device) * (-math.log(10_000) / width))
    angles = at.unsqueeze(2) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=3).flatten(2)


CLASSIFIERS: Mapping[str, Baseline] = MappingProxyType(
    {
        name: Baseline(
            partial(classifier, name), tuning=(_PROBE, _TUNING), rate=HIGH_RATE_HZ, window=WINDOW, over_windows="mean"
        )
        for name in SIZES
    }
)
"""Name -> system: random crops of 2.5 s, and in tests the mean logit of 7 windows."""
