"""ECG-JEPA: its sizes, what is hidden, that pre-training learns, repeats itself and goes on after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecg_vlm.cli import main
from eval.baselines.baseline import parameter_count
from eval.baselines.checkpoint import Epoch
from eval.baselines.ecg_jepa import (
    SIZES,
    JepaEncoder,
    JepaSize,
    Predictor,
    StandardiseLeads,
    batch_masks,
    block_mask,
    pick_tokens,
)
from eval.baselines.jepa_pretraining import Jepa, learning_rate
from eval.baselines.pretraining import load_encoder, pretrain
from eval.baselines.registry import BASELINES
from eval.baselines.settings import SETTINGS, PretrainingSettings
from eval.baselines.train import ten_seconds, train
from render.errors import InputError, WorkFailed
from render.record import EcgRecord

TINY = JepaSize(16, 2, 2)


@pytest.mark.parametrize(
    ("name", "encoder", "paper"), [("ecg_jepa", 3_600_000, 3.7e6), ("ecg_jepa_s", 14_277_888, 14.7e6)]
)
def test_parameter_counts_are_the_published_ones(name: str, encoder: int, paper: float) -> None:
    """encoder: in the configuration published with the paper (XS), and by its rule (S); paper: with the pool for 71."""
    with torch.device("meta"):
        network = BASELINES[name].network(71)
    assert parameter_count(network.get_submodule("encoder")) == encoder
    assert abs(parameter_count(network) - paper) < 0.05e6
    assert not [parameter for parameter, _ in network.named_parameters() if "bias" in parameter]


def test_blocks_hide_ten_patches_or_more_and_leave_the_number_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    times = np.zeros(60)
    for keep in (9, 12, 15) * 100:
        stay, hidden = block_mask(60, keep, rng)
        assert len(stay) == keep
        assert sorted([*stay, *hidden]) == list(range(60))
        runs = np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1)
        assert min(map(len, runs)) >= 10
        times[hidden] += 1
    assert times.min() > 10  # no patch is always seen
    assert times.max() < 300  # nor always hidden


def test_masks_of_a_batch_keep_the_same_share_of_each_record() -> None:
    shares = [batch_masks(3, 200, np.random.default_rng(seed))[0].shape[1] / 200 for seed in range(50)]
    assert 0.15 <= min(shares) < 0.17
    assert 0.23 < max(shares) <= 0.255


def test_hidden_patches_are_not_seen() -> None:
    torch.manual_seed(0)
    encoder, x = JepaEncoder(TINY).eval(), torch.randn(2, 12, 500)
    stay, hidden = batch_masks(2, 20, np.random.default_rng(0))
    other = x.clone()
    for record in range(2):
        for patch in hidden[record].tolist():
            other[record, :, 25 * patch : 25 * (patch + 1)] = 7.0
    assert torch.equal(encoder(x, stay), encoder(other, stay))
    assert not torch.allclose(encoder(x)[:, 1:], encoder(other)[:, 1:])
    assert encoder(x).shape == (2, 21, 16)


def test_the_predictor_knows_where_a_hidden_patch_is() -> None:
    torch.manual_seed(0)
    tokens, stay = torch.randn(1, 4, 16), torch.tensor([[0, 1, 2, 3]])
    out = Predictor(TINY)(tokens, stay, torch.tensor([[4, 9, 15]]))
    assert out.shape == (1, 3, 16)
    assert not torch.allclose(out[0, 0], out[0, 1])
    moved = Predictor(TINY)
    assert not torch.allclose(moved(tokens, stay, torch.tensor([[9]])), moved(tokens, stay + 1, torch.tensor([[9]])))


def test_the_order_of_patches_does_not_matter_beside_their_numbers() -> None:
    torch.manual_seed(0)
    encoder, x = JepaEncoder(TINY).eval(), torch.randn(1, 12, 250)
    at = torch.tensor([[7, 2, 5]])
    in_order = encoder(x, at.sort(dim=1).values)
    torch.testing.assert_close(encoder(x, at)[:, 1:], pick_tokens(in_order[:, 1:], torch.tensor([[2, 0, 1]])))


def test_leads_are_standardised_each_by_itself_and_artefacts_cut() -> None:
    x = torch.randn(20, 12, 100) * torch.arange(1, 13).view(12, 1) + 3.0
    layer = StandardiseLeads()
    layer.fit(x)
    torch.testing.assert_close(layer.std, x.transpose(0, 1).flatten(1).std(dim=1, correction=0))
    assert layer(x).mean(dim=(0, 2)).abs().max() < 1e-2
    assert layer(x + 1e4).max() == 5.0


def test_the_target_is_a_slow_average_and_no_gradient_reaches_it() -> None:
    torch.manual_seed(0)
    jepa = Jepa(TINY)
    stay, hidden = batch_masks(2, 20, np.random.default_rng(0))
    jepa(torch.randn(2, 12, 500), stay, hidden).backward()
    target = list(jepa.target.parameters())
    assert target and all(parameter.grad is None for parameter in target)
    idle = [name for name, p in jepa.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not idle
    with torch.no_grad():
        jepa.encoder.embed.weight += 1.0
    before = jepa.target.embed.weight.clone()
    jepa.move_target(0.75)
    torch.testing.assert_close(jepa.target.embed.weight, 0.75 * before + 0.25 * jepa.encoder.embed.weight)


def test_the_rate_is_the_published_one() -> None:
    published = PretrainingSettings()
    rates = [learning_rate(step, published) for step in (0, 5_000, 10_000, 99_999)]
    assert rates == pytest.approx([1e-6, 5e-4, 1e-3, 1e-6], rel=2e-3)


class _Noise:
    """Records of white noise; a wave in every second one."""

    name = "noise"

    def __init__(self, size: int = 6, bad: int = -1) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def digest(self) -> str:
        return str(self.size)

    def read(self, i: int) -> EcgRecord:
        signal = np.random.default_rng(i).normal(size=(12, 1000)).astype(np.float32)
        return EcgRecord(str(i), signal, 100, "noise")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names stand for a tiny network."""
    for name in SIZES:
        monkeypatch.setitem(SIZES, name, TINY)


_SETTINGS = PretrainingSettings(steps=5, batch=4, seconds=1.0)
_FILES = ("encoder.safetensors", "pretraining.json")


@pytest.mark.usefixtures("tiny")
def test_a_resumed_pretraining_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def stop(epoch: Epoch, _: float) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    before = torch.get_rng_state()
    pretrain(_Noise(), "ecg_jepa", _SETTINGS, whole)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(KeyboardInterrupt):
        pretrain(_Noise(), "ecg_jepa", _SETTINGS, halves, progress=stop)
    with pytest.raises(InputError, match="already exists"):
        pretrain(_Noise(), "ecg_jepa", _SETTINGS, halves)
    for change, message in [({"seed": 5}, "settings.seed=0, not 5"), ({"steps": 6}, "settings.steps=5, not 6")]:
        with pytest.raises(InputError, match=message):
            pretrain(_Noise(), "ecg_jepa", replace(_SETTINGS, **change), halves, resume=True)
    with pytest.raises(InputError, match="data="):
        pretrain(_Noise(7), "ecg_jepa", _SETTINGS, halves, resume=True)
    numbers: list[int] = []
    reads: list[int] = []
    pretrain(
        _Noise(),
        "ecg_jepa",
        _SETTINGS,
        halves,
        resume=True,
        reading=lambda count, total: reads.append(count),
        progress=lambda epoch, _: numbers.append(epoch.number),
    )
    assert (numbers, reads) == ([3, 4, 5], [])
    assert sorted(path.name for path in halves.iterdir()) == sorted(_FILES)
    for name in _FILES:
        assert (whole / name).read_bytes() == (halves / name).read_bytes()
    pretrain(_Noise(), "ecg_jepa", _SETTINGS, halves, resume=True)  # nothing is left to do
    with pytest.raises(InputError, match=r"settings\.batch=4, not 3"):
        pretrain(_Noise(), "ecg_jepa", replace(_SETTINGS, batch=3), halves, resume=True)


@pytest.mark.usefixtures("tiny")
def test_a_stop_while_records_are_read_leaves_nothing_of_another_request(tmp_path: Path) -> None:
    def stop(count: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(_Noise(), "ecg_jepa", _SETTINGS, tmp_path, reading=stop)
    with pytest.raises(InputError, match="data="):
        pretrain(_Noise(7), "ecg_jepa", _SETTINGS, tmp_path, resume=True)
    pretrain(_Noise(), "ecg_jepa", _SETTINGS, tmp_path, resume=True)
    assert json.loads((tmp_path / "pretraining.json").read_text())["records"] == 6


@pytest.mark.usefixtures("tiny")
def test_bad_input_has_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"resnet1d_wang.*ecg_jepa, ecg_jepa_s"):
        pretrain(_Noise(), "resnet1d_wang", _SETTINGS, tmp_path / "a")
    with pytest.raises(InputError, match=r"0\.5 s windows"):
        pretrain(_Noise(), "ecg_jepa", replace(_SETTINGS, seconds=0.5), tmp_path / "a")
    with pytest.raises(WorkFailed, match="ecg_jepa: the loss became nan"):
        pretrain(_Noise(), "ecg_jepa", replace(_SETTINGS, lr=1e30), tmp_path / "a")
    with pytest.raises(InputError, match="ecg-vlm baseline pretrain wrote"):
        load_encoder(tmp_path / "b", "ecg_jepa")
    pretrain(_Noise(), "ecg_jepa", replace(_SETTINGS, steps=1), tmp_path / "c")
    with pytest.raises(InputError, match="an encoder of ecg_jepa; train that, or pre-train ecg_jepa_s"):
        load_encoder(tmp_path / "c", "ecg_jepa_s")
    (tmp_path / "c" / "encoder.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not an encoder of ecg_jepa"):
        load_encoder(tmp_path / "c", "ecg_jepa")
    signals, labels = np.zeros((2, 12, 1000), np.float32), np.eye(2, dtype=bool)
    with pytest.raises(InputError, match="resnet1d_wang: to tune or to probe"):
        train(signals, labels, classes=("a", "b"), encoder=JepaEncoder(TINY).state_dict())
    with pytest.raises(InputError, match="ecg_jepa: to tune or to probe"):
        train(np.zeros((2, 12, 5000), np.float32), labels, classes=("a", "b"), name="ecg_jepa", probe=True)


@pytest.mark.usefixtures("tiny")
def test_a_probe_leaves_the_encoder_as_it_is_and_tuning_begins_with_it() -> None:
    torch.manual_seed(0)
    encoder = JepaEncoder(TINY).state_dict()
    signals = np.random.default_rng(0).normal(size=(4, 12, 5000)).astype(np.float32)
    labels = np.array([[True], [False]] * 2)
    settings = replace(SETTINGS["ecg_jepa"], epochs=2, batch=2)
    arguments: dict[str, Any] = {"name": "ecg_jepa", "recipe": settings, "classes": ("wave",), "encoder": encoder}
    probe = train(signals, labels, probe=True, **arguments)
    tuned = train(signals, labels, **arguments)
    assert [len(model.epochs) for model in (probe, tuned)] == [1, 2]
    state = probe.network.get_submodule("encoder").state_dict()
    assert encoder and all(torch.equal(state[name], encoder[name]) for name in encoder)
    state = tuned.network.get_submodule("encoder").state_dict()
    moved = max(float((state[name] - encoder[name]).abs().max()) for name in encoder)
    assert 0 < moved < 1e-3  # two steps of 1e-4 at most
    assert probe.request.encoder == tuned.request.encoder != ""


def test_an_encoder_is_tuned_and_predicts_from_the_command_line(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, run = tmp_path / "encoder", tmp_path / "run"
    words = ["baseline", "pretrain", "ecg_jepa", "--data", "simulated", "--limit", "3"]
    words += ["--steps", "2", "--batch", "2", "--seconds", "2.5", "--out", str(encoder)]
    assert main([*words, "--quiet"]) == 0
    assert "3 records" in capsys.readouterr().out
    words = ["baseline", "train", "ecg_jepa", "--data", "simulated", "--limit", "4", "--epochs", "2"]
    assert main([*words, "--probe", "--out", str(run)]) == 2
    assert "--from" in capsys.readouterr().err
    assert main([*words, "--from", str(encoder), "--out", str(run), "--quiet"]) == 0
    words = ["baseline", "predict", str(run), "--data", "simulated", "--limit", "2", "--out", str(tmp_path / "scores")]
    assert main([*words, "--quiet"]) == 0
    assert (tmp_path / "scores" / "scores.parquet").is_file()


class _Levels(_Noise):
    """Every second record is about +1 mV throughout, the others about -1 mV."""

    def read(self, i: int) -> EcgRecord:
        signal = (-1.0) ** i + 0.3 * np.random.default_rng(i).normal(size=(12, 5000))
        return EcgRecord(str(i), signal.astype(np.float32), 500, "levels")


def test_what_is_told_of_hidden_patches_depends_on_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the training the rest of another record is as good as that of the own one; after it, it is far worse."""
    networks: list[Jepa] = []
    move = Jepa.move_target

    def keep_network(jepa: Jepa, momentum: float) -> None:
        networks[:] = [jepa]
        move(jepa, momentum)

    def losses(jepa: Jepa) -> tuple[float, float]:
        """With the rest of the own record, and of the next, which has the other level."""
        with torch.no_grad():
            truth = pick_tokens(jepa.target(x)[:, 1:], hidden)
            predictions = [jepa.predictor(jepa.encoder(each, stay)[:, 1:], stay, hidden) for each in (x, x.roll(1, 0))]
            own, other = (float((each - truth).abs().mean()) for each in predictions)
        return own, other

    monkeypatch.setattr(Jepa, "move_target", keep_network)
    monkeypatch.setitem(SIZES, "ecg_jepa", JepaSize(32, 2, 2))
    settings = PretrainingSettings(steps=60, batch=16, seconds=1.0, lr=1e-2, momentum=(0.99, 0.999))
    pretrain(_Levels(40), "ecg_jepa", settings, tmp_path)
    unseen = np.stack([ten_seconds(_Levels().read(i), 500)[:, :500] for i in range(40, 64)])
    x = networks[0].standardise(torch.from_numpy(unseen))
    stay, hidden = batch_masks(len(x), 20, np.random.default_rng(0))
    own, other = losses(networks[0])
    assert own < 0.5 * other
    torch.manual_seed(0)
    own, other = losses(Jepa(SIZES["ecg_jepa"]))
    assert own > 0.99 * other
