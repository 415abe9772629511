"""MultiresConv (Shi, Wang and Fox 2023, "Sequence Modeling with Multiresolution Convolutional Memory"), on whole 10 s.

A layer of depth d splits a signal again and again with the same two filters of two taps, at dilations 1, 2, 4 ...: what
one of them lets through goes on to the next level, what the other does is a level of the memory. Its output is a
weighted sum of all levels ("fading" memory). That is one causal filter of 2^d taps in each channel, so it is computed
here as one: the taps in O(N), the filter by FFT in O(N log N). Depth 10 is the first whose filter spans 1,000 samples.

Left open by what we know of the paper, and our choice: the signals are standardised with one mean and one deviation, as
in the PTB-XL benchmark whose records and folds it uses; dropout takes whole channels of a record, as in the state-space
models that the paper measures itself against; weight decay holds for all parameters; the last epoch's weights are used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.baselines.baseline import LEAD_COUNT, Standardise

_WIDTH, _LAYERS, _DROPOUT = 128, 6, 0.2
_TAPS = 2
_DEPTH = math.ceil(math.log2(1000))


class CausalFilter(torch.autograd.Function):
    """Signals (B, C, n) and taps (C, m) -> (B, C, n), sample t of which is the sum over k of taps[k] * signal[t - k].

    The gradients are written out, as they are filters too: torch's own go through complex transforms of the whole
    length and take twice as long.
    """

    @staticmethod
    def forward(context: Any, signals: Tensor, taps: Tensor) -> Tensor:
        """By FFT, padded so that the end does not wrap around to the start."""
        size = 1 << (signals.shape[-1] + taps.shape[-1] - 2).bit_length()
        spectrum, response = torch.fft.rfft(signals, size), torch.fft.rfft(taps, size)
        context.save_for_backward(spectrum, response)
        context.lengths = signals.shape[-1], taps.shape[-1], size
        return torch.fft.irfft(spectrum * response, size)[..., : signals.shape[-1]]  # type: ignore[no-any-return]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Both gradients are correlations: products with the conjugate."""
        spectrum, response = context.saved_tensors
        length, taps, size = context.lengths
        outer = torch.fft.rfft(gradient, size)
        of_taps = torch.fft.irfft((outer * spectrum.conj()).sum(dim=0), size)[..., :taps]
        return torch.fft.irfft(outer * response.conj(), size)[..., :length], of_taps


class Multiresolution(nn.Module):
    """(B, C, n) -> (B, C, n): the memory of each channel.

    Attributes:
        low, high: (C, 2) what goes on to the next level, and what is a level of the memory; the older sample first.
        weight: (C, depth + 2) of the levels, the finest first, of what is left below them, and of the input.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        # The more values are added up, the smaller each, so that the variance is kept.
        self.low = nn.Parameter(torch.empty(channels, _TAPS).uniform_(-1, 1) * math.sqrt(1 / _TAPS))
        self.high = nn.Parameter(torch.empty(channels, _TAPS).uniform_(-1, 1) * math.sqrt(1 / _TAPS))
        self.weight = nn.Parameter(torch.empty(channels, depth + 2).uniform_(-1, 1) * math.sqrt(1 / (depth + 1)))

    def taps(self) -> Tensor:
        """(C, 2^depth), the present first. A filter of as many taps as its dilation meets itself end to end."""
        levels = self.weight.unbind(dim=1)
        low = torch.ones_like(self.low[:, :1])
        taps = levels[-1].unsqueeze(1)
        for weight in levels[:-2]:
            high = torch.cat([low * self.high[:, 1:], low * self.high[:, :1]], dim=1)
            low = torch.cat([low * self.low[:, 1:], low * self.low[:, :1]], dim=1)
            taps = F.pad(taps, (0, high.shape[1] - taps.shape[1])) + weight.unsqueeze(1) * high
        return taps + levels[-2].unsqueeze(1) * low

    def forward(self, x: Tensor) -> Tensor:
        return CausalFilter.apply(x, self.taps())  # type: ignore[no-any-return,no-untyped-call]


class Block(nn.Module):
    """Memory -> GELU -> dropout -> 1 x 1 -> GLU -> dropout, added to the input and normalised over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Multiresolution(_WIDTH, _DEPTH)
        self.mix = nn.Conv1d(_WIDTH, 2 * _WIDTH, 1)
        self.dropout = nn.Dropout1d(_DROPOUT)
        self.norm = nn.LayerNorm(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.mix(self.dropout(F.gelu(self.memory(x)))), dim=1)
        return self.norm((x + self.dropout(y)).transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


class MeanOverTime(nn.Module):
    """(B, C, n) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=2)


def multiresconv(classes: int) -> nn.Sequential:
    """Six blocks of 128 channels."""
    return nn.Sequential(
        Standardise(1),
        nn.Conv1d(LEAD_COUNT, _WIDTH, 1),
        *(Block() for _ in range(_LAYERS)),
        MeanOverTime(),
        nn.Linear(_WIDTH, classes),
    )
