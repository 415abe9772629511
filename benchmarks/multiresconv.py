"""Time and memory of a MultiresConv layer against the length of its signal: `python benchmarks/multiresconv.py`.

One layer of 128 channels, forward and backward, as one filter by FFT and as the dilated tree that it stands for; the
depth grows with the length so that the filter spans it. Prints a table; the column N log N is what the column before it
would be if the time grew so. Memory is what autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from eval.baselines.multiresconv import Multiresolution

LENGTHS = (1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)
CHANNELS = 128


def tree(layer: Multiresolution, x: Tensor) -> Tensor:
    """The layer written out: two taps at dilations 1, 2, 4 ... (tests/test_comparison.py holds both to be equal)."""
    rest, y = x, layer.weight[:, -1:] * x
    for level in range(layer.weight.shape[1] - 2):
        older = F.pad(rest, (2**level, 0))[..., : x.shape[-1]]
        y = y + layer.weight[:, level : level + 1] * (layer.high[:, :1] * older + layer.high[:, 1:] * rest)
        rest = layer.low[:, :1] * older + layer.low[:, 1:] * rest
    return y + layer.weight[:, -2:-1] * rest


def measure(call: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """CPU seconds of forward and backward, the least of `repeats`, and megabytes kept for the backward pass."""
    seconds = math.inf
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(repeats):
        kept.clear()
        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            y = call()
        y.sum().backward()  # type: ignore[no-untyped-call]
        seconds = min(seconds, time.process_time() - start)
    return seconds, sum(kept.values()) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| samples | FFT, ms | times the first | N log N | MB | tree, ms | MB |\n|---|---|---|---|---|---|---|")
    first = 0.0
    for length in LENGTHS:
        layer = Multiresolution(CHANNELS, math.ceil(math.log2(length)))
        x = torch.randn(1, CHANNELS, length, requires_grad=True)
        by_fft, fft_mb = measure(lambda layer=layer, x=x: layer(x), options.repeats)  # type: ignore[misc]
        by_tree, tree_mb = measure(lambda layer=layer, x=x: tree(layer, x), options.repeats)  # type: ignore[misc]
        first = first or by_fft
        growth = length * math.log2(length) / (LENGTHS[0] * math.log2(LENGTHS[0]))
        cells = (
            f"{length:,}", f"{1e3 * by_fft:.1f}", f"{by_fft / first:.1f}", f"{growth:.1f}", f"{fft_mb:.1f}",
            f"{1e3 * by_tree:.1f}", f"{tree_mb:.1f}",
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
