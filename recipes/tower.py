"""What the vision tower costs in training: 19 of the 22 TFLOP of an 11 B forward pass, and most of the activations.

A frozen tower runs without gradient, a trained one is checkpointed layer by layer. transformers does neither: its
checkpointing leaves the vision layers out, and asks the patch embedding for gradients even when nothing in the tower
is trained, so that all of it is traced and back-propagated. Gradients are the stock ones to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def spare_memory(model: Any, *, checkpointing: bool) -> None:
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
