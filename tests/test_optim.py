"""Muon beside AdamW: which weights it updates, how, and that its state survives a checkpoint."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from recipes import optim
from recipes.optim import Muon, MuonAdamW


def small_model():
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {"embed_tokens": torch.nn.Embedding(9, 16), "layer": torch.nn.Linear(16, 8), "lm_head": torch.nn.Linear(8, 9)}
    )


def take_step(net, optimizer, seed: int) -> None:
    tokens = torch.randint(0, 9, (32,), generator=torch.Generator().manual_seed(seed))
    out = net["lm_head"](net["layer"](net["embed_tokens"](tokens)))
    torch.nn.functional.cross_entropy(out, tokens.flip(0)).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_updates_of_matrices_are_orthogonal_and_as_long_as_those_of_adamw():
    net = small_model()
    before = copy.deepcopy(net.state_dict())
    take_step(net, MuonAdamW(net, lr=0.1, weight_decay=0.0), 0)
    update = before["layer.weight"] - net["layer"].weight.detach()
    singular = torch.linalg.svdvals(update)
    assert singular.min() > 0.5 * singular.max()  # Newton-Schulz brings them near to each other, not to one
    assert update.square().mean().sqrt() == pytest.approx(0.2 * 0.1, rel=0.35)  # 0.2: what AdamW's come to
    for name in ("embed_tokens.weight", "lm_head.weight", "layer.bias"):
        change = (before[name] - net.state_dict()[name]).abs()
        assert change[change > 0].median() == pytest.approx(0.1, rel=0.01), name  # AdamW's first step is the sign


@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (12, 12)])
@pytest.mark.parametrize("fast", [True, False])
def test_muon_is_torchs_but_for_rounding(shape, fast, monkeypatch):
    monkeypatch.setattr(optim, "fast_bfloat16", lambda: fast)
    random = torch.Generator().manual_seed(1)
    start, updates, states = torch.randn(shape, generator=random), [], []
    gradients = [torch.randn(shape, generator=random) for _ in range(3)]
    for kind in (partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw"), Muon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.1, weight_decay=0.2)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        updates.append(weight.detach() - start)
        states.append(optimizer.state_dict()["state"][0])
    # torch's products are in bfloat16, which keeps 8 bits
    assert (updates[0] - updates[1]).abs().max() < (0.005 if fast else 0.03) * updates[0].abs().max()
    assert torch.equal(*(state["momentum_buffer"] for state in states))


def test_norms_and_biases_do_not_decay():
    net = small_model()
    groups = MuonAdamW(net, lr=0.1, weight_decay=0.3).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in net.named_parameters()} == {
        name: 0.0 if name.endswith("bias") else 0.3 for name, _ in net.named_parameters()
    }


def test_a_schedule_changes_both_and_a_stored_state_continues_alike():
    whole, halves = small_model(), small_model()
    optimizer = MuonAdamW(whole, lr=0.1, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 / (k + 1))
    first = MuonAdamW(halves, lr=0.1, weight_decay=0.01)
    for seed in range(2):
        take_step(whole, optimizer, seed)
        take_step(halves, first, seed)
    second = MuonAdamW(halves, lr=0.1, weight_decay=0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}
    for group in second.param_groups:
        group["lr"] = 0.05
    take_step(whole, optimizer, 2)
    take_step(halves, second, 2)
    weights = whole.state_dict()
    assert weights
    for name, value in weights.items():
        assert torch.equal(value, halves.state_dict()[name]), name
