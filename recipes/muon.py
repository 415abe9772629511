"""Muon for the matrices of a model and AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024) makes every update of a matrix orthogonal, so that no direction is left behind; lengths are
matched to AdamW's (Liu et al., arXiv 2502.16982), so that one learning rate serves both. Embeddings, the head, norms,
gates and whatever is no matrix take AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_NO_MATRICES = ("lm_head", "embed", "reading")


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers in one. Its parameter groups are theirs: a schedule that moves `lr` moves both."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in trained if p.ndim == 2 and not any(word in name for word in _NO_MATRICES)]
        mine = {id(p) for p in matrices}
        decayed = [p for _, p in trained if p.ndim > 1 and id(p) not in mine]
        others = [p for _, p in trained if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=lr),
        )
        super().__init__([p for _, p in trained], {"lr": lr})
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of both."""
        assert closure is None
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Both states."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
