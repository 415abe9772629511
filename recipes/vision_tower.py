"""What the vision tower costs in training: 19 of the 22 TFLOP of an 11 B forward pass, and most of the activations.

A frozen tower runs without gradient, a trained one is checkpointed layer by layer. transformers does neither: its
checkpointing leaves the vision layers out, and asks the patch embedding for gradients even when nothing in the tower
is trained, so that all of it is traced and back-propagated. Gradients are the stock ones to the bit.

A tower that is trained from scratch may also leave out the paper: half of an ECG page's patches hold no ink, and what
is skipped costs nothing (`keep_inkiest_patches`; dropping patches in training is from Li et al., arXiv
2212.00794, where they are dropped at random).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def apply_checkpointing(model: Any, *, checkpointing: bool) -> None:
    """Prepare an Mllama, with or without an adapter, for training: freeze what is frozen, checkpoint what is trained.

    checkpointing: recompute the activations of text layers, and of vision layers where those are trained.
    """
    vision = vision_model(model)
    trained = any(parameter.requires_grad for parameter in vision.parameters())
    if not trained:
        vision.forward = torch.no_grad()(vision.forward)
    if not checkpointing:
        return
    _checkpoint_text(model)
    if trained:
        for layer in (*vision.transformer.layers, *vision.global_transformer.layers):
            _checkpoint_layer(layer)


def keep_inkiest_patches(vision: Any, patches: int) -> None:
    """Let a tower see, in training alone, the `patches` of each tile that hold the most ink, and the class token.

    `vision.kept`, (images x tiles, patches) int64, then says which they were, counted along the rows of a tile. In
    eval mode, and before and after training, it is the stock tower.
    Raises ValueError for a number that the stock tower would mask altogether: it takes no padding for all padding.
    """
    if (patches + 1) % 8 == 0:
        raise ValueError(f"{patches} patches and the class token are a multiple of 8, which Mllama masks")
    embedding, positions, every = vision.patch_embedding, vision.gated_positional_embedding, vision.num_patches
    embed, place = embedding.forward, positions.forward
    side = vision.patch_size

    def embed_some(pixels: Tensor) -> Tensor:
        vision.num_patches = patches + 1 if vision.training else every
        if not vision.training:
            whole: Tensor = embed(pixels)
            return whole
        cut = pixels.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)  # (tiles, 3, patches, side, side)
        ink = cut[:, 0].flatten(2).std(dim=2)  # red light: the grid of most papers does not show in it
        vision.kept = ink.topk(patches, dim=1).indices.sort(dim=1).values
        tiles = torch.arange(len(cut), device=cut.device)[:, None]
        chosen = cut.transpose(1, 2)[tiles, vision.kept].flatten(2)
        return torch.einsum("tpx,dx->tdp", chosen, embedding.weight.flatten(1))[..., None]

    def place_some(hidden: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        if not vision.training:
            whole: Tensor = place(hidden, aspect_ratio_ids)
            return whole
        images, tiles, _, width = hidden.shape
        added = place(hidden.new_zeros(images, tiles, every, width), aspect_ratio_ids)
        own = vision.kept.view(images, tiles, -1, 1).expand(-1, -1, -1, width)
        return hidden + torch.cat([added[:, :, :1], added[:, :, 1:].gather(2, own)], dim=2)

    embedding.forward, positions.forward = embed_some, place_some


def vision_model(model: Any) -> Any:
    """The vision tower of an Mllama, with or without an adapter."""
    return next(module for name, module in model.named_modules() if name.split(".")[-1] == "vision_model")


def _checkpoint_text(model: Any) -> None:
    """The stock call, non-reentrant; its name changed in transformers 5.

    It also makes inputs ask for gradients, which only reentrant checkpointing needs: undone.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()


def _checkpoint_layer(layer: Any) -> None:
    forward = layer.forward

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if layer.training and torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    layer.forward = recomputed
