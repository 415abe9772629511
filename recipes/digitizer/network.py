"""The digitizer's network: a small convolutional classifier of the words beside the traces."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from render.record import LEADS

NAME_CLASSES = (*LEADS, "")
"""Classes of words; the last is every other word, a name that is not upright, and specks."""
WORD_SHAPE = (24, 48)
"""Rows and columns of a word's picture."""
WEIGHTS = Path(__file__).parent / "weights.safetensors"
"""The weights of the project; see `recipes.digitizer.training`."""

_WIDTHS = (16, 32, 64)


class NameNetwork(nn.Module):
    """Words (B, 2, *WORD_SHAPE), as `recipes.digitizer.names.word_picture` makes them, -> logits (B, 13)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 2
        for outputs in _WIDTHS:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = outputs
        rows, columns = (side // 2 ** len(_WIDTHS) for side in WORD_SHAPE)
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(inputs * rows * columns, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, len(NAME_CLASSES))
        )

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Logits (B, 13) of `NAME_CLASSES`."""
        logits: torch.Tensor = self.head(self.features(words))
        return logits


def load_network(file: Path = WEIGHTS) -> NameNetwork:
    """The network with the weights in `file`, in evaluation mode.

    Raises:
        FileNotFoundError: Where there is no such file.
    """
    from safetensors.torch import load_file

    network = NameNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    return network.eval()
