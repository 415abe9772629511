"""The systems of other papers: their sizes, their parts against plain versions, their stages, and what they explain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.comparison import comparison_table
from ecg_vlm.cli import main
from eval.baselines import protoecgnet
from eval.baselines.baseline import Stage, parameter_count
from eval.baselines.checkpoint import Epoch, TrainedBaseline
from eval.baselines.multiresconv import Multiresolution
from eval.baselines.protoecgnet import Branch, ProtoEcgNet
from eval.baselines.registry import BASELINES
from eval.baselines.settings import SETTINGS
from eval.baselines.train import Waveforms, _set_mode, load, read_records, train
from eval.metrics.bootstrap import macro_auc
from eval.storage import read_scores, write_scores
from eval.types import LabelledRecords
from render.errors import InputError
from render.io import read_json_object
from render.simulator.simulate import SimulatedSource
from render.statements import task_classes


@pytest.mark.parametrize(("name", "exact", "paper"), [("multiresconv", 222_791, 223_000)])
def test_parameter_counts_are_the_published_ones(name: str, exact: int, paper: int) -> None:
    with torch.device("meta"):
        count = parameter_count(BASELINES[name].network(71))
    assert count == exact
    assert abs(exact - paper) < 0.002 * paper


def _tree(layer: Multiresolution, x: Tensor) -> Tensor:
    """The layer written out plainly: a tree of convolutions of two taps at dilations 1, 2, 4 ..."""
    rest, y = x, layer.weight[:, -1:] * x
    channels, depth = x.shape[1], layer.weight.shape[1] - 2
    for level in range(depth):
        past = F.pad(rest, (2**level, 0))

        def convolve(taps: Tensor, past: Tensor = past, dilation: int = 2**level) -> Tensor:
            return F.conv1d(past, taps.unsqueeze(1), dilation=dilation, groups=channels)

        y = y + layer.weight[:, level : level + 1] * convolve(layer.high)
        rest = convolve(layer.low)
    return y + layer.weight[:, -2:-1] * rest


@pytest.mark.parametrize(("length", "depth"), [(1000, 10), (37, 6), (50, 4), (1, 3)])
def test_the_filter_by_fft_equals_the_dilated_tree_with_its_gradients(length: int, depth: int) -> None:
    torch.manual_seed(0)
    layer = Multiresolution(5, depth).double()
    x = torch.randn(2, 5, length, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 5, length, dtype=torch.float64)
    inputs = (x, *layer.parameters())
    plain, quick = _tree(layer, x), layer(x)
    torch.testing.assert_close(quick, plain)
    for a, b in zip(
        torch.autograd.grad((quick * direction).sum(), inputs, materialize_grads=True),
        torch.autograd.grad((plain * direction).sum(), inputs, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_memory_is_causal_and_its_depth_spans_ten_seconds() -> None:
    torch.manual_seed(0)
    layer = Multiresolution(3, 10)
    x = torch.randn(1, 3, 1000)
    later = x.clone()
    later[..., 600:] = 0
    torch.testing.assert_close(layer(x)[..., :600], layer(later)[..., :600], rtol=0, atol=1e-5)
    x.requires_grad_()
    layer(x)[..., -1].sum().backward()
    assert x.grad is not None
    assert (x.grad[..., 0].abs() > 0).all()  # the last sample knows the first


# --- ProtoECGNet

RECORDS = 6


@pytest.fixture(scope="module")
def _narrow() -> Iterator[None]:
    """Places of 32 channels in place of 512."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protoecgnet, "_WIDTH", 32)
        yield


@cache
def _records() -> Waveforms:
    return read_records(SimulatedSource(5, RECORDS))


def _train_prototypes(out: Path, *, resume: bool = False, stop_after: int = 0) -> TrainedBaseline:
    def stop(epoch: Epoch, _: float) -> None:
        if epoch.number == stop_after:
            raise KeyboardInterrupt

    settings = replace(SETTINGS["protoecgnet"], epochs=2, batch=3)
    records = _records()
    return train(
        records.signals,
        records.labels,
        name="protoecgnet",
        recipe=settings,
        out=out,
        resume=resume,
        progress=stop,
        record_ids=records.record_ids,
    )


@pytest.fixture(scope="module")
def prototype_folder(_narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prototypes")
    model = _train_prototypes(folder)
    assert [epoch.total for epoch in model.epochs] == [4] * 4  # two of the branches, one of classifier and fusion
    return folder


@pytest.fixture(scope="module")
def prototype_network(prototype_folder: Path) -> ProtoEcgNet:
    network = load(prototype_folder).network
    assert isinstance(network, ProtoEcgNet)
    return network


def test_the_prototypes_are_those_of_the_published_branches() -> None:
    with torch.device("meta"):
        network = protoecgnet.protoecgnet(71)
    assert [tuple(branch.prototypes.shape) for branch in network.branches] == [(80, 512), (936, 1536), (21, 16384)]
    assert tuple(network.classifier.weight.shape) == (71, 1037)
    resnet18 = 64 * 12 * 7 + 4 * 64 * 64 * 3 + 2 * 64  # stem, first stage, normalisation of the stem
    resnet18 += 4 * 2 * 64
    for width in (128, 256, 512):
        resnet18 += (width // 2 * width + 3 * width * width) * 3 + width // 2 * width + 5 * 2 * width
    places = 2 * (512 * 512 + 512)
    prototypes = 80 * 512 + 936 * 1536 + 21 * 16384
    assert parameter_count(network) == 3 * (resnet18 + places) + prototypes + 71 * 1037 + 71
    with pytest.raises(InputError, match="71 statements, not for 2"):
        protoecgnet.protoecgnet(2)


def test_after_the_projection_every_prototype_is_a_segment_of_a_training_record(prototype_network: ProtoEcgNet) -> None:
    _, signals, labels, _ = _records()
    x = prototype_network.signal(protoecgnet.inputs(signals))
    with torch.inference_mode():
        for branch in prototype_network.branches:
            assert isinstance(branch, Branch)
            segments = branch.segments(x)
            for prototype, (row, place) in zip(branch.prototypes, branch.sources.tolist(), strict=True):
                torch.testing.assert_close(prototype, segments[row, place], rtol=1e-4, atol=1e-5)
    carries = torch.from_numpy(labels)[prototype_network.sources[:, 0], prototype_network.statements]
    has_records = torch.from_numpy(labels).any(dim=0)[prototype_network.statements]
    assert torch.equal(carries, has_records)  # of a record with its statement wherever there is one
    for statement in prototype_network.statements.unique():
        rows = prototype_network.sources[prototype_network.statements == statement, 0]
        available = int(labels[:, statement].sum())
        if available:
            assert len(rows.unique()) == min(available, len(rows))


def test_contributions_of_prototypes_add_up_to_the_logit(prototype_network: ProtoEcgNet) -> None:
    x = protoecgnet.inputs(read_records(SimulatedSource(8, 2)).signals)
    for row in range(2):
        explanation = protoecgnet.explain(prototype_network, x[row : row + 1])
        with torch.inference_mode():
            logits = prototype_network(x[row : row + 1])[0]
        sums = explanation.contributions.sum(axis=1) + explanation.bias
        np.testing.assert_allclose(sums, logits.numpy(), rtol=1e-4, atol=1e-4)
        assert np.abs(explanation.contributions).max() > 0.001
        assert (np.abs(explanation.cosines) <= 1 + 1e-5).all()


def test_the_page_shows_pairs_whose_contributions_add_up(
    prototype_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_id = _records().record_ids[2]
    page, other = tmp_path / "why.html", tmp_path / "other"
    records = ["--data", "simulated", "--seed", "5", "--limit", str(RECORDS), "--quiet"]

    def explain(folder: Path, record: str) -> int:
        return main(["baseline", "explain", str(folder), *records, "--record", record, "--out", str(page)])

    assert explain(prototype_folder, record_id) == 0
    text = page.read_text()
    sums = re.findall(r'class="sum">(.*?)</p>', text, re.DOTALL)
    assert len(sums) == 5
    for line in sums:
        numbers = [float(number) for number in re.findall(r"[+-]\d+\.\d\d", line)]
        assert len(numbers) == 6  # three prototypes, the others, the bias, the logit
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.031)
    assert text.count('<img src="data:image/png') == 1 + 5 * 3 * 2
    assert set(re.findall(r"Training record ([^,]*),", text)) <= set(_records().record_ids)

    assert explain(prototype_folder, "nobody") == 2
    assert "has no record nobody" in capsys.readouterr().err
    assert main(["baseline", "train", "wavelet_nn", *records, "--epochs", "1", "--out", str(other)]) == 0
    assert explain(other, record_id) == 2
    assert "wavelet_nn has no prototypes" in capsys.readouterr().err


def test_the_table_of_the_comparison_has_seeds_sizes_and_what_each_system_had(tmp_path: Path) -> None:
    held_out, words = read_records(SimulatedSource(6, RECORDS)), ["--data", "simulated", "--limit", "6", "--quiet"]
    for seed in ("0", "1"):
        run, scores = (tmp_path / kind / seed / "wavelet_nn" for kind in ("runs", "scores"))
        train_words = ["baseline", "train", "wavelet_nn", *words, "--epochs", "1", "--seed", seed, "--out", str(run)]
        assert main(train_words) == 0
        assert main(["baseline", "predict", str(run), *words, "--seed", "6", "--out", str(scores)]) == 0
        assert len(read_json_object(scores / "training.json", "")["record_ids"]) == RECORDS
    for kind, seconds in (("runs", "3\n4\n"), ("scores", "2\n")):
        (tmp_path / kind / "0" / "wavelet_nn.seconds").write_text(seconds)
    codes = [tuple(np.array(task_classes("all"))[row]) for row in held_out.labels]
    records = LabelledRecords(tuple(held_out.record_ids), tuple(codes), "simulated")
    write_scores(tmp_path / "report" / "scores.parquet", records.record_ids, np.full((RECORDS, 71), 0.5), records)
    *_, line = comparison_table(tmp_path).splitlines()
    expected = [
        macro_auc(held_out.labels, read_scores(tmp_path / "scores" / s / "wavelet_nn" / "scores.parquet")[1])
        for s in "01"
    ]
    assert ", ".join(f"{each.value:.3f}"[1:] for each in expected) in line
    assert "119,879 | 7 s | 2 s | 17,418 records of folds 1-8, 30 epochs | 6 records, 1 epochs |" in line


@pytest.mark.parametrize("stop_after", [2, 3])
def test_a_run_stopped_between_its_stages_ends_with_the_same_bytes(
    prototype_folder: Path, tmp_path: Path, stop_after: int
) -> None:
    """After 2 epochs the projection is still to come, after 3 the fusion."""
    with pytest.raises(KeyboardInterrupt):
        _train_prototypes(tmp_path, stop_after=stop_after)
    _train_prototypes(tmp_path, resume=True)
    for file in ("weights.safetensors", "model.json"):
        assert (tmp_path / file).read_bytes() == (prototype_folder / file).read_bytes()


def test_each_stage_trains_its_own_part_alone() -> None:
    network = nn.ModuleDict({"body": nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "head": nn.Linear(2, 1)})
    _set_mode(network, Stage(trains="head"))
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert not network["body"][1].training  # type: ignore[index]
    assert network["head"].training
    _set_mode(network, Stage())
    assert all(p.requires_grad for p in network.parameters())
    assert network["body"][1].training  # type: ignore[index]
