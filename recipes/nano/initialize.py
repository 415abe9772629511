"""Initial weights of nano: positions and curves are built in, as a small model takes long to learn them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_PAPER = 0.2
"""Initial weight of a patch's mean: paper is bright everywhere, which carries no information."""
_CHANNELS = (0.5, 0.25, 0.25)
"""Initial weights of red, green and blue: the grid is red on most papers, and does not show in the red channel."""


def initialize(model: Any) -> None:
    """Prepare a fresh Mllama, in place."""
    for name, parameter in model.named_parameters():
        # A fresh Mllama has closed gates: the image has no effect, and closed gates open slowly. Start them open.
        if name.endswith(("_gate", "gate_attn", "gate_ffn")):
            torch.nn.init.ones_(parameter)
        elif name.endswith(".gate"):
            torch.nn.init.constant_(parameter, 0.5)
    _embed_positions(model.model.vision_model)
    _embed_patches(model.model.vision_model.patch_embedding.weight)


@torch.no_grad()
def _embed_positions(vision: Any) -> None:
    """Initialize position embeddings as large as the patches': the place of a wave tells to which lead it belongs.

    Their stock size is some 2 % of the patch embedding's. Patches get two-dimensional sines (Vaswani et al.
    2017, one half of the channels for each direction), tiles random vectors.
    """
    positions = vision.gated_positional_embedding
    patches, width = positions.embedding.shape
    side = round((patches - 1) ** 0.5)
    quarter = width // 4
    angles = torch.arange(side)[:, None] / 100.0 ** (torch.arange(quarter) / quarter)  # (side, quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, 2 quarter)
    grid = torch.cat([waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)], dim=2)
    positions.embedding[1:] = grid.reshape(side * side, -1)
    torch.nn.init.normal_(positions.tile_embedding.weight, std=0.5)


@torch.no_grad()
def _embed_patches(filters: Tensor) -> None:
    """Initialize the patch embedding, (channels, 3, side, side), as a cosine transform, lowest frequencies first.

    Ink summed with weights that rise up the patch is the height of a curve: the first vertical waves times all
    horizontal ones contain the trace, which random filters contain only all together. Times are resolved more finely
    than heights, as a patch contains one piece of one curve.
    """
    channels, _, side, _ = filters.shape
    at = (torch.arange(side) + 0.5) / side
    waves = torch.cos(math.pi * torch.arange(side)[:, None] * at) * math.sqrt(2 / side)  # (order, pixel)
    waves[0] /= math.sqrt(2)
    orders = sorted((3.5 * up + along, up, along) for up in range(side) for along in range(side))[:channels]
    for channel, (_, up, along) in enumerate(orders):
        plane = torch.outer(waves[up], waves[along])
        filters[channel] = plane * torch.tensor(_CHANNELS)[:, None, None]
    filters[0] *= _PAPER
