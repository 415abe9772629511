"""The comparison systems: their sizes, their recipe, and that they learn, repeat themselves, and survive a kill."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt  # type: ignore[import-untyped]
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from eval.baselines import checkpoint
from eval.baselines.baseline import LEAD_COUNT, Standardise, parameter_count
from eval.baselines.checkpoint import Epoch, Request, TrainedBaseline
from eval.baselines.registry import BASELINES
from eval.baselines.settings import SETTINGS, BaselineSettings
from eval.baselines.train import (
    _RECORDS_A_TASK,
    _crop,
    _optimizer,
    _rate,
    _scores,
    load,
    predict,
    predict_records,
    read_records,
    ten_seconds,
    train,
)
from eval.baselines.wavelet import FEATURES, features
from eval.metrics.bootstrap import macro_auc
from render.errors import InputError, WorkFailed
from render.record import EcgRecord
from render.simulator.simulate import SimulatedSource

CLASSES = ("slow", "fast")
CONVOLUTIONAL = [name for name in BASELINES if BASELINES[name].window]
SAMPLES = 1000


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


def _train(name: str = "fcn_wang", *, n: int = 12, records: int = 0, **more: Any) -> TrainedBaseline:
    """A short run on n records of two kinds; `epochs`, `batch`, `seed` and `lr` change the recipe."""
    signals, labels = _two_kinds(n, seed=records)
    changes: dict[str, Any] = {key: more.pop(key) for key in ("epochs", "batch", "seed", "lr") if key in more}
    recipe = replace(SETTINGS[name], **{"epochs": 1, "batch": 6, **changes})
    return train(signals, labels, name=name, recipe=recipe, classes=CLASSES, **more)


def _standardise(model: TrainedBaseline) -> Standardise:
    return next(module for module in model.network.modules() if isinstance(module, Standardise))


def _same(a: TrainedBaseline, b: TrainedBaseline) -> bool:
    first, second = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "exact", "paper"),
    [
        ("xresnet1d101", 1_880_775, 1_880_000),
        ("inception1d", 516_167, 516_000),
        ("resnet1d_wang", 481_863, 482_000),
        ("fcn_wang", 318_279, 318_000),
        ("wavelet_nn", 119_879, 120_000),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, exact: int, paper: int) -> None:
    """exact: number in the code that the benchmark published; paper: the rounded figure in its paper."""
    assert parameter_count(BASELINES[name].network(71)) == exact
    assert abs(exact - paper) < 0.002 * paper


def test_xresnet1d101_has_33_blocks_of_three_layers() -> None:
    convolutions = [m for m in BASELINES["xresnet1d101"].network(71).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3 + 33 * 3 + 1  # the stem, the blocks, the one shortcut that changes the width


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_networks_take_any_length_and_give_one_logit_a_class(name: str) -> None:
    network = BASELINES[name].network(71).eval()
    with torch.inference_mode():
        assert network(torch.zeros(3, LEAD_COUNT, 250)).shape == (3, 71)
        assert network(torch.zeros(1, LEAD_COUNT, 333)).shape == (1, 71)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "more"])  # more_nano in 700 MB
def test_every_parameter_learns(name: str) -> None:
    torch.manual_seed(0)
    classes, samples = (71, 1000) if name == "protoecgnet" else (3, 60)  # it has branches for the 71 statements alone
    network = BASELINES[name].network(classes).train()
    x = torch.randn(4, FEATURES) if name == "wavelet_nn" else torch.randn(4, LEAD_COUNT, samples)
    network(x).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


@pytest.mark.parametrize(("name", "lr"), [("fcn_wang", 1e-2), ("wavelet_nn", 1e-2)])
def test_it_learns_and_comes_back_from_disk(name: str, lr: float, tmp_path: Path) -> None:
    test, truth = _two_kinds(6, seed=1)
    progress: list[tuple[Epoch, float]] = []
    model = _train(
        name,
        n=24,
        epochs=3,
        batch=8,
        seed=7,
        lr=lr,
        validation=(test, truth),
        out=tmp_path,
        progress=lambda epoch, speed: progress.append((epoch, speed)),
    )
    scores = predict(model, test)
    assert scores.shape == (6, 2)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[truth[:, 1], 1].min() > scores[~truth[:, 1], 1].max()
    assert [(epoch.number, epoch.total) for epoch, _ in progress] == [(1, 3), (2, 3), (3, 3)]
    assert all(speed > 0 for _, speed in progress)
    assert progress[-1][0].loss < progress[0][0].loss
    assert progress[-1][0].validation_auc == macro_auc(truth, scores).value == 1.0

    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    back = load(tmp_path)
    assert np.array_equal(predict(back, test), scores)
    assert back.request == model.request
    assert back.epochs == model.epochs == tuple(epoch for epoch, _ in progress)


def test_torch_computes_with_one_thread() -> None:
    """conftest.py says so, which has no effect where something has imported torch before."""
    assert torch.get_num_threads() == 1


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_chance_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (_train(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert _same(first, again)
    assert not _same(first, other)


def test_validation_records_change_nothing() -> None:
    assert _same(_train(epochs=2), _train(epochs=2, validation=_two_kinds(4, seed=9)))


def test_records_are_predicted_part_by_part_as_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, source = Path(__file__).with_name("v0_1") / "baseline", SimulatedSource(3, 40)
    counts: list[tuple[int, int]] = []
    records = read_records(source)
    monkeypatch.setattr("eval.baselines.train._RECORDS_A_TASK", 32)
    ids, scores = predict_records(folder, source, progress=lambda count, total: counts.append((count, total)))
    assert ids == records.record_ids and np.array_equal(scores, predict(load(folder), records.signals))
    assert counts == [(count, 40) for count in range(1, 41)]


def test_prediction_is_the_maximum_over_seven_windows() -> None:
    signals, _ = _two_kinds(3, seed=2)
    model = _train()
    with torch.inference_mode():
        windows = [
            torch.sigmoid(model.network(torch.from_numpy(signals[:, :, s : s + 250]))) for s in range(0, 751, 125)
        ]
    assert len(windows) == 7
    np.testing.assert_allclose(predict(model, signals), torch.stack(windows).amax(dim=0).numpy(), atol=1e-5)


def test_signals_are_standardised_by_the_training_records_alone() -> None:
    signals, _ = _two_kinds(12, seed=0)
    first = _standardise(_train())
    np.testing.assert_allclose(first.mean.numpy(), [signals.mean(dtype=np.float64)], rtol=1e-5)
    np.testing.assert_allclose(first.std.numpy(), [signals.std(dtype=np.float64)], rtol=1e-6)

    table = features(signals).astype(np.float64)
    first = _standardise(_train("wavelet_nn"))
    varies = table.std(axis=0) > 0
    np.testing.assert_allclose(first.mean.numpy(), table.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(first.std.numpy()[varies], table.std(axis=0)[varies], rtol=1e-4)
    assert (first.std[~varies] == 1).all()


def test_what_never_varies_is_not_scaled() -> None:
    layer = Standardise(2)
    layer.fit(torch.tensor([[5.0, 1.0], [5.0, 3.0]]))
    assert torch.equal(layer(torch.tensor([[5.0, 2.0], [6.0, 3.0]])), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 900])
def test_the_rate_is_that_of_one_cycle(steps: int) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], betas=(0.95, 0.99))
    # Runs of 1 to 3 steps have no rise, and torch's schedule refuses or starts them elsewhere: only their end is held.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=max(steps, 4), pct_start=0.3)
    for step in range(steps):
        lr, momentum = _rate(step, steps, BaselineSettings())
        assert 0 < lr <= 1e-2
        assert 0.85 <= momentum <= 0.95
        if steps >= 4:
            assert lr == pytest.approx(schedule.get_last_lr()[0])
            assert momentum == pytest.approx(optimizer.param_groups[0]["betas"][0])
            optimizer.step()
            schedule.step()
    assert lr == pytest.approx(1e-2 / 25e4)


def test_a_cosine_rises_on_a_line_and_falls_to_nought() -> None:
    recipe = BaselineSettings(lr=1e-3, schedule="cosine", warmup=0.1)
    rates = [_rate(step, 100, recipe)[0] for step in range(100)]
    assert rates[:10] == pytest.approx([1e-3 * k / 11 for k in range(1, 11)])
    assert (rates[10], rates[55]) == pytest.approx((1e-3, 0.5e-3)) and 0 < rates[99] < 1e-6


def test_a_crop_begins_anywhere_from_which_it_is_whole() -> None:
    x = torch.arange(4.0).expand(64, LEAD_COUNT, 4)
    assert set(_crop(x, 3)[:, 0, 0].tolist()) == {0.0, 1.0}
    assert torch.equal(_crop(x, 4), x)


def test_a_part_of_a_prediction_is_whole_batches() -> None:
    assert _RECORDS_A_TASK % signature(_scores).parameters["batch"].default == 0


def _plain_features(lead: np.ndarray) -> list[float]:
    values: list[float] = []
    for band in pywt.wavedec(lead.astype(np.float64), "db6", level=5):
        shares = np.array(list(Counter(band.tolist()).values())) / len(band)
        crossings = [sum(a != b for a, b in itertools.pairwise(band > level)) for level in (0, band.mean())]
        values += [float(-(shares * np.log(shares)).sum()), *crossings, *np.percentile(band, [5, 25, 75, 95, 50])]
        values += [band.mean(), band.std(), band.var(), np.abs(band).mean()]
    return values


def test_wavelet_features_are_those_of_each_lead() -> None:
    signals, _ = _two_kinds(70, seed=0)  # more than one part
    signals[69, 3] = 0
    signals[69, 4] = np.round(signals[69, 4] * 4)
    signals[69, 5, 200:] = 0.25
    out = features(signals)
    assert out.shape == (70, FEATURES)
    for record, lead in [(0, 0), (64, 11), (69, 3), (69, 4), (69, 5)]:
        reference = _plain_features(signals[record, lead])
        np.testing.assert_allclose(out[record].reshape(12, 72)[lead], reference, rtol=1e-5, atol=1e-6)
    assert np.abs(out[69].reshape(12, 72)[3]).max() < 1e-12  # a flat lead says nothing


@pytest.mark.parametrize("name", ["fcn_wang", "wavelet_nn"])
def test_a_resumed_run_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    def stop(epoch: Epoch, _: float) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    whole, stop_folder = tmp_path / "whole", tmp_path / "stopped"
    _train(name, epochs=3, out=whole)
    with pytest.raises(KeyboardInterrupt):
        _train(name, epochs=3, out=stop_folder, progress=stop)
    assert [path.name for path in stop_folder.iterdir()] == ["checkpoint.safetensors"]
    with pytest.raises(InputError, match="continue it with --resume"):
        load(stop_folder)
    numbers: list[int] = []
    _train(name, epochs=3, out=stop_folder, resume=True, progress=lambda epoch, _: numbers.append(epoch.number))
    assert numbers == [3]
    for file in ("weights.safetensors", "model.json"):
        assert (stop_folder / file).read_bytes() == (whole / file).read_bytes()

    before = (stop_folder / "weights.safetensors").stat().st_mtime_ns
    model = _train(name, epochs=3, out=stop_folder, resume=True)
    assert (stop_folder / "weights.safetensors").stat().st_mtime_ns == before
    assert len(model.epochs) == 3


_KILL_SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from eval.baselines import checkpoint
    from test_baselines import _train

    write, calls = checkpoint.save_file, []

    def half(tensors, path, **more):
        write(tensors, path, **more)
        calls.append(path)
        if len(calls) == 2:
            os.truncate(path, 1000)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = half
    _train("fcn_wang", epochs=3, out=Path(sys.argv[1]))
"""


def test_a_kill_in_the_middle_of_a_checkpoint_costs_one_epoch(tmp_path: Path) -> None:
    here = Path(__file__).parent
    words = [sys.executable, "-c", textwrap.dedent(_KILL_SCRIPT), tmp_path / "killed", here, here.parent]
    process = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert len(list((tmp_path / "killed").iterdir())) == 2  # a whole checkpoint and half of the next
    numbers: list[int] = []
    _train(
        "fcn_wang",
        epochs=3,
        out=tmp_path / "killed",
        resume=True,
        progress=lambda epoch, _: numbers.append(epoch.number),
    )
    _train("fcn_wang", epochs=3, out=tmp_path / "whole")
    assert numbers == [2, 3]
    for file in ("weights.safetensors", "model.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len(list((tmp_path / "killed").iterdir())) == 2


def test_only_the_same_run_is_resumed(tmp_path: Path) -> None:
    _train("wavelet_nn", out=tmp_path)
    with pytest.raises(InputError, match="already exists and is not empty"):
        _train("wavelet_nn", out=tmp_path)
    for change, message in [
        ({"seed": 5}, "seed=0, not 5"),
        ({"epochs": 2}, "epochs=1, not 2"),
        ({"records": 3}, "data="),
    ]:
        with pytest.raises(InputError, match=message):
            _train("wavelet_nn", out=tmp_path, resume=True, **change)
    with pytest.raises(InputError, match="name=wavelet_nn, not fcn_wang"):
        _train("fcn_wang", out=tmp_path, resume=True)


def test_a_run_whose_loss_is_no_number_stops_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match=r"fcn_wang: .* epoch 1 at learning rate 1e\+30") as error:
        _train("fcn_wang", epochs=3, lr=1e30, out=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(InputError, match="no records"):
        train(signals, labels, classes=CLASSES, validation=(signals[:0], labels[:0]))
    with pytest.raises(InputError, match="sgd"):
        train(signals, labels, classes=CLASSES, name="wavelet_nn", recipe=BaselineSettings(optimizer="sgd"))
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


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Request]:
    """A folder with a checkpoint, the checkpoint's bytes, and the request."""
    folder = tmp_path_factory.mktemp("checkpoint")
    signals, labels = _two_kinds(4, seed=0)
    request = Request.of("wavelet_nn", CLASSES, SETTINGS["wavelet_nn"], signals, labels)
    network = BASELINES["wavelet_nn"].network(2)
    optimizer = _optimizer(network, request.recipe)
    network(torch.randn(4, FEATURES)).sum().backward()
    optimizer.step()
    checkpoint.write_checkpoint(folder, request, network, optimizer, [Epoch(1, 30, 0.5, None)])
    return folder, (folder / "checkpoint.safetensors").read_bytes(), request


_QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_QUICK
@given(at=st.integers(0, 3000), byte=st.integers(0, 255), cut=st.one_of(st.none(), st.integers(0, 5000)))
def test_a_damaged_checkpoint_is_refused_or_read(
    checkpoint_folder: tuple[Path, bytes, Request], at: int, byte: int, cut: int | None
) -> None:
    folder, content, request = checkpoint_folder
    file = bytearray(content)
    file[at] = byte
    (folder / "checkpoint.safetensors").write_bytes(bytes(file[:cut]))
    network = BASELINES["wavelet_nn"].network(2)
    try:
        assert len(checkpoint.restore(folder, request, network, _optimizer(network, request.recipe))) == 1
    except InputError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a finished network, and its model.json."""
    folder = tmp_path_factory.mktemp("model")
    _train("wavelet_nn", out=folder)
    return folder, (folder / "model.json").read_text()


@_QUICK
@given(at=st.integers(0, 600), put=st.text(max_size=3), cut=st.integers(0, 20))
def test_a_damaged_model_json_is_refused_or_read(model_folder: tuple[Path, str], at: int, put: str, cut: int) -> None:
    folder, text = model_folder
    (folder / "model.json").write_text(text[:at] + put + text[at + cut :], encoding="utf-8", errors="replace")
    try:
        assert load(folder).name == "wavelet_nn"
    except InputError as error:
        assert "\n" not in str(error)


def _record(rate: float, seconds: float) -> EcgRecord:
    at = np.arange(int(rate * seconds)) / rate
    signal = np.tile(np.sin(2 * np.pi * 5 * at), (12, 1)).astype(np.float32)
    return EcgRecord("r", signal, rate, "test")


@pytest.mark.parametrize("rate", [100, 250, 257, 500, 1000])
def test_records_of_any_rate_arrive_at_100_hz(rate: float) -> None:
    out = ten_seconds(_record(rate, 10))
    sine = np.sin(2 * np.pi * 5 * np.arange(SAMPLES) / 100)
    assert out.shape == (12, SAMPLES)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0, 20:-20], sine[20:-20], atol=0.02)


def test_short_long_and_damaged_records() -> None:
    assert (ten_seconds(_record(500, 6))[:, 600:] == 0).all()
    assert ten_seconds(_record(500, 12)).shape == (12, SAMPLES)
    record = _record(500, 10)
    record.signal[3, 100:200] = np.nan
    out = ten_seconds(record)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[0], ten_seconds(_record(500, 10))[0])


def test_the_registry_and_the_settings_name_the_same_systems() -> None:
    assert list(BASELINES) == list(SETTINGS)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_while_a_command_works_and_given_back_then() -> None:
    code = textwrap.dedent(
        """
        import resource
        import numpy as np
        import psutil
        from ecg_vlm.cli.baseline import _freed_memory_kept

        def faults() -> int:
            np.ones(2**23)
            start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10):
                np.ones(2**23)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

        before = faults()
        size = psutil.Process().memory_info().rss
        with _freed_memory_kept():
            kept = faults()
        print(kept / before, faults() / before, psutil.Process().memory_info().rss - size)
        """
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    kept, after, growth = map(float, output.split())
    assert kept < 0.2 and after > 0.8 and growth < 2**25
