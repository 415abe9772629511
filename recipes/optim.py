"""Muon for the matrices of a model and AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024) makes every update of a matrix orthogonal, so that no direction is neglected; its length is
matched to AdamW's (Liu et al., arXiv 2502.16982), so that one learning rate serves both. Embeddings, the head, norms,
gates and whatever is no matrix use AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recipes.model import fast_bfloat16

_NO_MATRICES = ("lm_head", "embed", "reading")

_MOMENTUM = 0.95
_STEPS = 5  # of Newton and Schulz, with the published coefficients
_A, _B, _C = 3.4445, -4.7750, 2.0315


def _orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix with singular values near one, by products in `dtype`."""
    x = matrix.to(dtype)
    x = x.T if matrix.size(0) > matrix.size(1) else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if matrix.size(0) > matrix.size(1) else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum. torch's own multiplies in bfloat16 on every machine."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        self._dtype = torch.bfloat16 if fast_bfloat16() else torch.float32
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step."""
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                momentum = state["momentum_buffer"].lerp_(p.grad, 1 - _MOMENTUM)
                update = _orthogonal(p.grad.lerp(momentum, _MOMENTUM), self._dtype)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers in one. Its parameter groups are theirs: a schedule that changes `lr` changes both."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in parameters if p.ndim == 2 and not any(word in name for word in _NO_MATRICES)]
        of_muon = {id(p) for p in matrices}
        others = [p for _, p in parameters if p.ndim > 1 and id(p) not in of_muon]
        vectors = [p for _, p in parameters if p.ndim <= 1]
        groups = [{"params": others, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            Muon(matrices, lr=lr, weight_decay=weight_decay),
            torch.optim.AdamW(groups, lr=lr),
        )
        super().__init__([p for _, p in parameters], {"lr": lr})
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
