"""The digitizer's network: a small convolutional classifier of the words beside the traces.

Reading a page takes it without torch, whose import takes longer than the reading; `recipes.digitizer.training` holds
the same layers in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from render.record import LEADS

NAME_CLASSES = (*LEADS, "")
"""Classes of words; the last is every other word, a name that is not upright, and specks."""
WORD_SHAPE = (24, 48)
"""Rows and columns of a word's picture."""
WIDTHS = (16, 32, 64)
"""Channels of the three layers: each a convolution of 3 x 3, its batch normalized, ReLU, the largest of 2 x 2."""
WEIGHTS = Path(__file__).parent / "weights.safetensors"
"""The weights of the project; see `recipes.digitizer.training`."""
BATCH_EPSILON = 1e-5
"""What is added to the variance of a batch, as torch does."""

_Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NameNetwork:
    """The trained network.

    Attributes:
        layers: kernel (outputs, inputs * 9) and bias (outputs,) of each convolution, with its normalization.
        head: weight (outputs, inputs) and bias (outputs,) of the two last layers.
    """

    layers: tuple[tuple[_Weights, _Weights], ...]
    head: tuple[tuple[_Weights, _Weights], ...]

    @staticmethod
    def of(state: Mapping[str, NDArray[np.floating]]) -> NameNetwork:
        """From the tensors of `recipes.digitizer.training.NameClassifier` by their names."""
        weights = {name: np.asarray(values, np.float32) for name, values in state.items()}
        layers = []
        for k in range(len(WIDTHS)):
            convolution, batch = f"features.{4 * k}", f"features.{4 * k + 1}"
            scale = weights[f"{batch}.weight"] / np.sqrt(weights[f"{batch}.running_var"] + np.float32(BATCH_EPSILON))
            kernel = (weights[f"{convolution}.weight"] * scale[:, None, None, None]).reshape(scale.size, -1)
            shift = (weights[f"{convolution}.bias"] - weights[f"{batch}.running_mean"]) * scale
            layers.append((kernel, shift + weights[f"{batch}.bias"]))
        head = tuple((weights[f"head.{k}.weight"], weights[f"head.{k}.bias"]) for k in (0, 3))
        return NameNetwork(tuple(layers), head)

    def logits(self, words: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, 13) of `NAME_CLASSES`, of words (B, 2, *WORD_SHAPE) by `recipes.digitizer.names.word_picture`."""
        x = words
        for kernel, bias in self.layers:
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            around = sliding_window_view(padded, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
            batch, rows, columns = around.shape[:3]
            y = around.reshape(batch * rows * columns, -1) @ kernel.T + bias
            y = np.maximum(y, 0).reshape(batch, rows // 2, 2, columns // 2, 2, -1).max(axis=(2, 4))
            x = np.ascontiguousarray(y.transpose(0, 3, 1, 2))
        (first, first_bias), (last, last_bias) = self.head
        result: NDArray[np.float32] = np.maximum(x.reshape(len(x), -1) @ first.T + first_bias, 0) @ last.T + last_bias
        return result


def load_network(file: Path = WEIGHTS) -> NameNetwork:
    """The network with the weights in `file`.

    Raises:
        FileNotFoundError: Where there is no such file.
    """
    from safetensors.numpy import load_file

    return NameNetwork.of(load_file(file))
