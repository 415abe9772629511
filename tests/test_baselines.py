"""The comparison CNN: its size, its recipe, and that it learns, repeats itself, and survives the disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.baselines.cnn import parameter_count, resnet1d_wang
from eval.baselines.training import SAMPLES, load, predict, save, to_100_hz, train
from render.files import InputError
from render.record import EcgRecord

CLASSES = ("slow", "fast")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny batches: threads would wait for each other, above all on a busy machine


def _two_kinds(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n records of noise with a 3 Hz wave in half of them and an 11 Hz wave in the others."""
    random = np.random.default_rng(seed)
    signals = random.normal(0, 0.1, (n, 12, SAMPLES)).astype(np.float32)
    seconds = np.arange(SAMPLES) / 100
    fast = np.arange(n) % 2 == 1
    for i in range(n):
        phase = random.random() * 6
        signals[i, 0] += 0.5 * np.sin(2 * np.pi * (11 if fast[i] else 3) * seconds + phase).astype(np.float32)
    return signals, np.stack([~fast, fast], axis=1)


def test_parameter_count_is_the_published_one() -> None:
    count = parameter_count(resnet1d_wang(71))
    assert count == 481_863
    assert abs(count - 482_000) < 0.01 * 482_000


def test_network_takes_any_length_and_gives_one_logit_a_class() -> None:
    network = resnet1d_wang(71).eval()
    with torch.inference_mode():
        assert network(torch.zeros(3, 12, 250)).shape == (3, 71)
        assert network(torch.zeros(1, 12, 1000)).shape == (1, 71)


def test_it_learns_and_comes_back_from_disk(tmp_path: Path) -> None:
    signals, labels = _two_kinds(32, seed=0)
    test, truth = _two_kinds(10, seed=1)
    seen: list[tuple[int, int, float]] = []
    model = train(signals, labels, classes=CLASSES, epochs=4, batch=8, seed=7, progress=lambda *step: seen.append(step))
    scores = predict(model, test)
    assert scores.shape == (10, 2)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[truth[:, 1], 1].min() > scores[~truth[:, 1], 1].max()
    assert [step[:2] for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[-1][2] < seen[0][2]

    save(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    assert np.array_equal(predict(load(tmp_path), test), scores)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_chance_alone() -> None:
    signals, labels = _two_kinds(12, seed=0)
    before = torch.get_rng_state()
    first, again, other = (
        train(signals, labels, classes=CLASSES, epochs=1, batch=6, seed=seed).network.state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_prediction_is_the_maximum_over_seven_windows() -> None:
    signals, labels = _two_kinds(12, seed=2)
    model = train(signals, labels, classes=CLASSES, epochs=1, batch=6)
    scores = predict(model, signals[:3], batch=2)
    x = torch.from_numpy((signals[:3] - np.float32(model.mean)) / np.float32(model.std))
    with torch.inference_mode():
        windows = [torch.sigmoid(model.network(x[:, :, s : s + 250])) for s in range(0, 751, 125)]
    assert len(windows) == 7
    np.testing.assert_allclose(scores, torch.stack(windows).amax(dim=0).numpy(), atol=1e-5)


def test_bad_training_data_is_named() -> None:
    signals, labels = _two_kinds(4, seed=0)
    with pytest.raises(InputError, match="resnet1d_wang"):
        train(signals, labels, classes=CLASSES, name="resnet1d_wong")
    with pytest.raises(InputError, match=r"\(records, 12, 1000\)"):
        train(signals[:, :, :500], labels, classes=CLASSES)
    with pytest.raises(InputError, match="labels"):
        train(signals, labels)
    with pytest.raises(InputError, match="at least 2"):
        train(signals[:1], labels[:1], classes=CLASSES)
    signals[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        train(signals, labels, classes=CLASSES)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json: not found"):
        load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"name": "resnet1d_wang", "classes": ["a"]}))
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a trained baseline"):
        load(tmp_path)


def _record(rate: float, seconds: float) -> EcgRecord:
    at = np.arange(int(rate * seconds)) / rate
    signal = np.tile(np.sin(2 * np.pi * 5 * at), (12, 1)).astype(np.float32)
    return EcgRecord("r", signal, rate, "test")


@pytest.mark.parametrize("rate", [100, 250, 257, 500, 1000])
def test_records_of_any_rate_arrive_at_100_hz(rate: float) -> None:
    out = to_100_hz(_record(rate, 10))
    expected = np.sin(2 * np.pi * 5 * np.arange(SAMPLES) / 100)
    assert out.shape == (12, SAMPLES)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0, 20:-20], expected[20:-20], atol=0.02)


def test_short_long_and_damaged_records() -> None:
    assert (to_100_hz(_record(500, 6))[:, 600:] == 0).all()
    assert to_100_hz(_record(500, 12)).shape == (12, SAMPLES)
    record = _record(500, 10)
    record.signal[3, 100:200] = np.nan
    out = to_100_hz(record)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[0], to_100_hz(_record(500, 10))[0])
