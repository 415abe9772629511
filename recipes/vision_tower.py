"""A vision tower that skips the blank paper in training.

Half of an ECG page's patches hold no ink, and what is skipped costs nothing. Dropping patches in training is from Li
et al., arXiv 2212.00794, where they are dropped at random. For a tower that is trained from scratch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def keep_inkiest_patches(vision: Any, patches: int) -> None:
    """Let a tower see, in training alone, the `patches` of each tile that hold the most ink, and the class token.

    `vision.patch_indices`, (images x tiles, patches) int64, then holds which they are, counted along the rows of a
    tile. In eval mode, and before and after training, it is the stock tower.
    Raises ValueError for a number that the stock tower would mask completely: where its padding to a multiple of 8 is
    empty, it masks every patch.
    """
    if (patches + 1) % 8 == 0:
        raise ValueError(f"{patches} patches and the class token are a multiple of 8, which Mllama masks")
    embedding, positions, every = vision.patch_embedding, vision.gated_positional_embedding, vision.num_patches
    embed, place = embedding.forward, positions.forward
    side = vision.patch_size

    def embed_some(pixels: Tensor) -> Tensor:
        vision.num_patches = patches + 1 if vision.training else every
        if not vision.training:
            embeddings: Tensor = embed(pixels)
            return embeddings
        cut = pixels.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)  # (tiles, 3, patches, side, side)
        ink = cut[:, 0].flatten(2).std(dim=2)  # red light: the grid of most papers does not show in it
        vision.patch_indices = ink.topk(patches, dim=1).indices.sort(dim=1).values
        tiles = torch.arange(len(cut), device=cut.device)[:, None]
        inkiest = cut.transpose(1, 2)[tiles, vision.patch_indices].flatten(2)
        return torch.einsum("tpx,dx->tdp", inkiest, embedding.weight.flatten(1))[..., None]

    def place_some(hidden: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        if not vision.training:
            with_positions: Tensor = place(hidden, aspect_ratio_ids)
            return with_positions
        images, tiles, _, width = hidden.shape
        offsets = place(hidden.new_zeros(images, tiles, every, width), aspect_ratio_ids)
        own = vision.patch_indices.view(images, tiles, -1, 1).expand(-1, -1, -1, width)
        return hidden + torch.cat([offsets[:, :, :1], offsets[:, :, 1:].gather(2, own)], dim=2)

    embedding.forward, positions.forward = embed_some, place_some
