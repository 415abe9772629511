"""Muon for the matrices of a model and AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024) makes every update of a matrix orthogonal, so that no direction is left behind; lengths are
matched to AdamW's (Liu et al., arXiv 2502.16982), so that one learning rate serves both. Embeddings, the head, norms,
gates and whatever is no matrix take AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recipes.model import fast_bfloat16

_NO_MATRICES = ("lm_head", "embed", "reading")


def _orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The matrix with singular values near one, by Newton-Schulz iterations."""
    a, b, c = coefficients
    x = matrix.T if matrix.size(0) > matrix.size(1) else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.size(0) > matrix.size(1) else x


class Float32Muon(torch.optim.Muon):
    """torch's Muon with products in the matrices' own type: torch's are in bfloat16, whatever the machine is good at.

    Nesterov's momentum and updates as long as AdamW's, as it is asked for below; the state is torch's.
    """

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
                momentum = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(momentum, group["momentum"])
                update = _orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers in one. Its parameter groups are theirs: a schedule that moves `lr` moves both."""

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in trained if p.ndim == 2 and not any(word in name for word in _NO_MATRICES)]
        mine = {id(p) for p in matrices}
        decayed = [p for _, p in trained if p.ndim > 1 and id(p) not in mine]
        others = [p for _, p in trained if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        muon = torch.optim.Muon if fast_bfloat16() else Float32Muon
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
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
