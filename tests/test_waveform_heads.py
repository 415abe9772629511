"""What the vision tower is taught to read off a page, and that its heads leave nothing behind."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recipes.config import DataPart, ModelPart, load_recipe
from recipes.model import load_model, load_processor, nano_path, vision_model
from recipes.packing import IGNORE_INDEX
from recipes.train import finetune, training_pages
from recipes.waveform_heads import COLUMNS, Reading, targets
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options, make_row
from render.dataset.signal_column import signal_column, signal_of
from render.errors import InputError
from render.pages.geometry import PageGeometry
from render.record import LEADS, LOW_RATE_HZ, EcgRecord
from render.simulator.simulate import SimulatedSource, simulate
from render.statements import STATEMENTS


@pytest.fixture(scope="module")
def processor():
    return load_processor("nano")


@pytest.fixture(scope="module")
def patch() -> int:
    return int(json.loads((nano_path() / "config.json").read_text())["vision_config"]["patch_size"])


@pytest.fixture(scope="module")
def native(processor) -> int:
    """Width of a page that fills nano's two tiles."""
    return 2 * int(processor.image_processor.size["width"])


def row_and_targets(record, processor, patch, **options):
    row = make_row(record, 0, Options(signal=True, **options))
    return row, targets(row, processor, patch)


def record_of(signal, rate) -> EcgRecord:
    return dataclasses.replace(simulate(1), signal=np.asarray(signal, np.float32), sampling_rate=rate)


def test_the_signal_column_is_the_mean_of_each_hundredth_of_a_second():
    rng = np.random.default_rng(0)
    at_100 = rng.normal(size=(12, 1000)).round(3)
    assert np.allclose(signal_of(signal_column(record_of(at_100, 100))), at_100, atol=6e-4)
    at_500 = np.repeat(at_100, 5, axis=1) + np.tile([-0.2, -0.1, 0, 0.1, 0.2], 1000)
    assert np.allclose(signal_of(signal_column(record_of(at_500, 500))), at_100, atol=6e-4)
    slow = np.tile(np.arange(2500) / 250, (12, 1))  # a ramp of 1 mV/s at 250 Hz, each for 4 ms
    assert np.allclose(np.diff(signal_of(signal_column(record_of(slow, 250)))), 0.01, atol=3e-3)


def test_a_gap_in_the_record_is_a_gap_in_the_column_and_nothing_more():
    signal = np.ones((12, 5000))
    signal[3, 1000:1003] = np.nan
    column = signal_of(signal_column(record_of(signal, 500)))
    assert np.isnan(column[3, 200]) and np.isfinite(np.delete(column[3], 200)).all()
    assert np.isfinite(np.delete(column, 3, axis=0)).all()


def test_targets_of_a_patch_are_its_lead_and_voltages(processor, patch, native):
    record = simulate(3)
    row, targets_of_page = row_and_targets(record, processor, patch, width=native, layout="3x4")
    signal = signal_of(row["signal"])
    across = native // 2 // patch
    count = 0
    geometry = PageGeometry.from_json(row["geometry"])
    for trace in geometry.leads:
        ends = np.array([trace.start_sample, trace.end_sample])
        first, last = np.rint(ends / record.sampling_rate * LOW_RATE_HZ).astype(int)
        lead = signal[LEADS.index(trace.lead), first:last]
        samples = (np.arange(first, last) + 0.5) / LOW_RATE_HZ * record.sampling_rate
        x, y = geometry.to_image(trace, samples, lead).T
        column, line = int(x[125] // patch), int(y[125] // patch)
        tile, number = column // across, line * across + column % across
        assert targets_of_page["reading_lead"][tile, number] == LEADS.index(trace.lead)
        for k in range(COLUMNS):
            inside = (x >= (column + k / COLUMNS) * patch) & (x < (column + (k + 1) / COLUMNS) * patch)
            inside &= (y >= line * patch) & (y < (line + 1) * patch)
            voltage = float(targets_of_page["reading_mv"][tile, number, k])
            if inside.any():
                assert voltage == pytest.approx(lead[inside].mean() - np.median(lead), abs=1e-4)
                count += 1
            else:
                assert np.isnan(voltage)
    assert count > 6 * len(LEADS)
    assert {
        code for code, value in zip(STATEMENTS, targets_of_page["reading_statements"], strict=True) if value
    } == set(record.statements)


def test_targets_of_a_patch_are_its_place_between_two_beats(processor, patch, native):
    beats = np.array([0.4, 1.2, 2.0, 2.5, 3.7, 4.5, 5.3, 6.1, 6.9, 7.7, 8.5, 9.3])  # one early, a pause behind it
    time = np.arange(5000) / 500
    record = record_of(np.tile(sum(0.6 * np.exp(-(((time - beat) / 0.015) ** 2)) for beat in beats), (12, 1)), 500)
    row, targets_of_page = row_and_targets(record, processor, patch, width=native, layout="3x4+1R")
    near_beats = targets_of_page["reading_beats"]
    strip = next(t for t in PageGeometry.from_json(row["geometry"]).leads if t.end_sample - t.start_sample == 5000)
    across, px_per_s = native // 2 // patch, strip.mm_per_s * strip.px_per_mm
    line = int(strip.baseline_y // patch)
    early = 0
    for column in range(2 * across):
        middle = ((column + 0.5) * patch - strip.box[0]) / px_per_s
        since, until, longer = near_beats[column // across, line * across + column % across].tolist()
        if not beats[0] + 0.1 < middle < beats[-1] - 0.1:
            continue
        last, following = beats[beats <= middle][-1], beats[beats > middle][0]
        if min(middle - last, following - middle) < 0.06:
            continue  # the middle is in a QRS complex, whose tip is in the patch above
        assert (since, until) == pytest.approx((middle - last, following - middle), abs=0.03)
        assert longer == pytest.approx(np.log((following - last) / 0.8), abs=0.03)
        early += longer < -0.3
    assert early
    _, flat = row_and_targets(record_of(np.full((12, 5000), 0.1), 500), processor, patch, lenient=True)
    assert not flat["reading_beats"].isfinite().any() and flat["reading_lead"].ne(IGNORE_INDEX).any()


@pytest.mark.parametrize(
    "options", [{"style": "photo"}, {"layout": "12x1,A4"}, {"layout": "6x2,cabrera,50mm/s,Letter"}]
)
def test_every_lead_of_any_page_has_targets(options, processor, patch):
    row, targets_of_page = row_and_targets(simulate(4), processor, patch, width=900, **options)
    leads = {trace.lead for trace in PageGeometry.from_json(row["geometry"]).leads}
    targeted_leads = {LEADS[i] for i in targets_of_page["reading_lead"].unique().tolist() if i != IGNORE_INDEX}
    assert targeted_leads == leads
    assert (targets_of_page["reading_mv"].isfinite().any(-1) == targets_of_page["reading_lead"].ne(IGNORE_INDEX)).all()


def test_perfect_heads_have_no_loss_and_the_hook_records_nothing_in_eval_mode(processor, patch, native):
    model = load_model(ModelPart(from_scratch=True))
    reading = Reading(vision_model(model))
    _, targets_of_page = row_and_targets(simulate(3), processor, patch, width=native)
    batch = {name: value[None] for name, value in targets_of_page.items()} | {"aspect_ratio_mask": torch.ones(1, 1, 2)}
    tiles, patches = targets_of_page["reading_lead"].shape
    hidden = torch.zeros(1, 1, tiles, 1 + patches, vision_model(model).config.vision_output_dim)
    truth = torch.cat(
        [
            torch.nn.functional.one_hot(targets_of_page["reading_lead"].clamp(min=0), len(LEADS)) * 100.0,
            targets_of_page["reading_mv"].nan_to_num() / 0.2,
            targets_of_page["reading_beats"].nan_to_num() / 0.05,
        ],
        dim=-1,
    )
    reading.traces.forward = lambda _: truth[None]
    reading.statements.forward = lambda input: (targets_of_page["reading_statements"] * 2 - 1)[None] * 100.0
    reading._tower_output[:] = [(hidden, None)]
    assert all(float(loss) < 1e-6 for loss in reading(batch).values())
    reading.eval()
    pixels = torch.zeros(1, 1, 2, 3, native // 2, native // 2)
    vision_model(model)(pixels, torch.tensor([[2]]), torch.ones(1, 1, 2, dtype=torch.long))
    assert not reading._tower_output


def test_a_run_with_heads_learns_resumes_and_writes_a_plain_model(tmp_path, native):
    write_dataset(
        SimulatedSource(5, 6), tmp_path / "d", Options(width=native, closed=2, forms=("closed",), signal=True)
    )
    recipe = load_recipe("nano", [f"data.train={tmp_path / 'd'}", "data.leave_out=[]", "train.reading=1"])
    short = {"max_steps": 4, "images_per_batch": 2, "log_every": 1, "save_every": 2, "log_to": "none", "workers": 0}
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **short))
    facts = finetune(recipe, tmp_path / "whole")
    assert facts.losses[-1][1] < facts.losses[0][1]
    stopping = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, max_minutes=1e-9))
    with pytest.raises(KeyboardInterrupt):
        finetune(stopping, tmp_path / "halves")
    assert finetune(recipe, tmp_path / "halves", resume=True).losses == facts.losses
    state = load_file(tmp_path / "whole" / "model.safetensors")
    assert not any("reading" in name for name in state)
    assert facts.parameters == sum(tensor.numel() for tensor in state.values())
    load_model(ModelPart(base=str(tmp_path / "whole")))


def test_reading_needs_signals_and_a_whole_model(tmp_path):
    write_dataset(SimulatedSource(5, 2), tmp_path / "d", Options(width=672, closed=2))
    assert "signal" not in open_dataset(tmp_path / "d").column_names
    recipe = load_recipe("nano", [f"data.train={tmp_path / 'd'}", "train.reading=1", "train.log_to=none"])
    with pytest.raises(InputError, match="render the pages with --signal"):
        finetune(recipe, tmp_path / "run")
    with pytest.raises(InputError, match=r"train\.reading needs lora: null"):
        load_recipe("quickstart", ["train.reading=1"])


def test_several_folders_are_one_set_of_pages_and_an_ordinary_page_is_readable(tmp_path):
    write_dataset(SimulatedSource(5, 3), tmp_path / "a", Options(closed=2, signal=True))
    write_dataset(SimulatedSource(6, 2), tmp_path / "b", Options(closed=2, signal=True, unreadable=1.0))
    pages = training_pages(DataPart(train=f"{tmp_path / 'a'}, {tmp_path / 'b'}"), reading=True)
    assert pages["record_id"][:] == ["sim-5-0", "sim-5-1", "sim-5-2", "sim-6-0", "sim-6-1"]
    assert [bool(why) for why in pages["unreadable"]] == [False] * 3 + [True] * 2
