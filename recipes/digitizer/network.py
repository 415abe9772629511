"""The digitizer's networks: small convolutional ones, of the words beside the traces and of the lines of print.

Reading a page takes them without torch, whose import takes longer than the reading; `recipes.digitizer.training` holds
the same layers in torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from render.record import LEADS

NAME_CLASSES = (*LEADS, "")
"""Classes of words; the last is every other word, a name that is not upright, and specks."""
WORD_SHAPE = (24, 48)
"""Rows and columns of a word's picture."""
NAME_LAYERS = ((16, (2, 2)), (32, (2, 2)), (64, (2, 2)))
"""Channels of the layers: each a convolution of 3 x 3, its batch normalized, ReLU, the largest of so many rows and
columns."""
LINE_ROWS = 24
"""Rows of a line's picture."""
LINE_LAYERS = ((16, (2, 2)), (32, (2, 2)), (64, (2, 1)), (64, (1, 1)))
"""As `NAME_LAYERS`: a column of the last layer stands for four of the line."""
LINE_CHARACTERS = "0123456789mvsec./ ?"
"""Characters of a line that are told apart, capitals as small letters; "?" is one or more others."""
NAME_WEIGHTS, LINE_WEIGHTS = (Path(__file__).parent / f"{kind}.safetensors" for kind in ("names", "lines"))
"""The weights of the project; see `recipes.digitizer.training`."""
BATCH_EPSILON = 1e-5
"""What is added to the variance of a batch, as torch does."""

_Weights = NDArray[np.float32]
Layers = Sequence[tuple[int, tuple[int, int]]]


@dataclass(frozen=True, eq=False)
class ConvolutionNetwork:
    """Convolutions and, behind them, two linear layers.

    Attributes:
        layers: kernel (outputs, inputs * 9) and bias (outputs,) of each convolution, with its normalization; rows and
            columns of which the largest is taken.
        head: weight (outputs, inputs) and bias (outputs,) of the two last layers.
    """

    layers: tuple[tuple[_Weights, _Weights, tuple[int, int]], ...]
    head: tuple[tuple[_Weights, _Weights], ...]

    @classmethod
    def of(cls, state: Mapping[str, NDArray[np.floating]], layers: Layers) -> Self:
        """From the tensors of a network of `recipes.digitizer.training` by their names."""
        weights = {name: np.asarray(values, np.float32) for name, values in state.items()}
        convolutions = []
        for k, (_, pool) in enumerate(layers):
            convolution, batch = f"features.{4 * k}", f"features.{4 * k + 1}"
            scale = weights[f"{batch}.weight"] / np.sqrt(weights[f"{batch}.running_var"] + np.float32(BATCH_EPSILON))
            kernel = (weights[f"{convolution}.weight"] * scale[:, None, None, None]).reshape(scale.size, -1)
            shift = (weights[f"{convolution}.bias"] - weights[f"{batch}.running_mean"]) * scale
            convolutions.append((kernel, shift + weights[f"{batch}.bias"], pool))
        head = tuple((weights[f"head.{k}.weight"], weights[f"head.{k}.bias"]) for k in (0, 3))
        return cls(tuple(convolutions), head)

    def _features(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, outputs, rows, columns) of the last convolution, of pictures (B, inputs, rows, columns)."""
        x = pictures
        for kernel, bias, (high, wide) in self.layers:
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            around = sliding_window_view(padded, (3, 3), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
            batch, rows, columns = around.shape[:3]
            y = around.reshape(batch * rows * columns, -1) @ kernel.T + bias
            y = np.maximum(y, 0).reshape(batch, rows // high, high, columns // wide, wide, -1).max(axis=(2, 4))
            x = np.ascontiguousarray(y.transpose(0, 3, 1, 2))
        return x

    def _outputs(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, outputs) of the head, of features (n, inputs)."""
        (first, first_bias), (last, last_bias) = self.head
        result: NDArray[np.float32] = np.maximum(features @ first.T + first_bias, 0) @ last.T + last_bias
        return result


class NameNetwork(ConvolutionNetwork):
    """The classifier of words."""

    def logits(self, words: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (B, 13) of `NAME_CLASSES`, of words (B, 2, *WORD_SHAPE) by `recipes.digitizer.names.word_picture`."""
        return self._outputs(self._features(words).reshape(len(words), -1))


class LineNetwork(ConvolutionNetwork):
    """The reader of lines."""

    def logits(self, line: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (columns // 4, 20) of `LINE_CHARACTERS`, and of no character, of a line (LINE_ROWS, columns).

        The columns are a multiple of 4.
        """
        features = self._features(line[None, None])[0]
        return self._outputs(features.transpose(2, 0, 1).reshape(features.shape[2], -1))

    def text(self, line: NDArray[np.float32]) -> str:
        """The characters of a line, by the most probable one in each column."""
        best = self.logits(line).argmax(axis=1)
        changes = np.flatnonzero(np.diff(best, prepend=-1))
        return "".join(LINE_CHARACTERS[k] for k in best[changes].tolist() if k < len(LINE_CHARACTERS))


def load_name_network(file: Path = NAME_WEIGHTS) -> NameNetwork:
    """The network with the weights in `file`.

    Raises:
        FileNotFoundError: Where there is no such file.
    """
    return NameNetwork.of(_load(file), NAME_LAYERS)


def load_line_network(file: Path = LINE_WEIGHTS) -> LineNetwork:
    """As `load_name_network`, for lines."""
    return LineNetwork.of(_load(file), LINE_LAYERS)


def _load(file: Path) -> dict[str, NDArray[np.floating]]:
    from safetensors.numpy import load_file

    state: dict[str, NDArray[np.floating]] = load_file(file)
    return state
