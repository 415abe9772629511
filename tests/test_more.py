"""MoRE: its sizes, what its parts do, that it learns from pairs, repeats itself, and what its towers then say."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import RobertaConfig, RobertaModel

from ecg_vlm.attention_page import write_attention_page
from ecg_vlm.cli import main
from eval.baselines.baseline import parameter_count
from eval.baselines.checkpoint import Epoch, load
from eval.baselines.more import SIZES, Block, DropKey, MoreSize, contrast, ecg_encoder, image_encoder, inputs, relevance
from eval.baselines.more_pretraining import (
    embed_pairs,
    explain_pair,
    learning_rate,
    load_more,
    own_tokenizer,
    part_of,
    retrieval,
    statement_vectors,
)
from eval.baselines.pairs import Pair, Pairs, mimic_pairs, reports_of, write
from eval.baselines.pretraining import load_encoder, pretrain
from eval.baselines.registry import BASELINES
from eval.baselines.settings import SETTINGS, ContrastiveSettings
from eval.baselines.train import predict, train
from eval.metrics.retrieval import recall
from render.errors import InputError
from render.record import EcgRecord
from render.sources.mimic import MimicIvEcg

TINY = MoreSize(24, 2, 2)
_SETTINGS = ContrastiveSettings(steps=4, batch=4, lr=1e-3)
_FILES = [
    "encoder.safetensors",
    "model.json",
    "pretraining.json",
    "towers.safetensors",
    "weights.safetensors",
    "words.json",
]


class _Rhythms:
    """Records of a fast and a slow wave with noise, whose reports say which."""

    name = "rhythms"

    def __init__(self, size: int = 6) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def digest(self) -> str:
        return str(self.size)

    def read(self, i: int) -> EcgRecord:
        rng = np.random.default_rng(i)
        beats = np.sin(np.arange(1000) / 100 * 2 * np.pi * (3.0, 1.0)[i % 2] + rng.uniform(0, 6))
        signal = (beats + 0.2 * rng.normal(size=(12, 1000))).astype(np.float32)
        report = ("Sinus tachycardia", "Sinus bradycardia")[i % 2]
        return EcgRecord(f"r{i}", signal, 100, "rhythms", report=report, patient_id=f"p{i}")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names stand for a tiny network."""
    for name in SIZES:
        monkeypatch.setitem(SIZES, name, TINY)


def _pictures(folder: Path, pairs: Pairs) -> Pairs:
    """The pairs, all but the last with a picture of their report."""
    for i, row in enumerate(pairs.rows[:-1]):
        path = folder / f"{i}.png"
        Image.new("L", (40, 30), 60).save(path)
        with Image.open(path) as image:
            image.paste(250, (0, 0, 20, 30) if "tachy" in row.report else (20, 0, 40, 30))
            image.save(path)
        pairs.rows[i] = row._replace(image=str(path))
    return pairs


def test_the_towers_are_vit_b_without_biases_of_queries_keys_and_values() -> None:
    """timm's ViT-B/16 has 85,054,464 values in its 12 blocks, of which those biases are 12 x 2,304."""
    with torch.device("meta"):
        ecg, image = (build(SIZES["more"]).get_submodule("tower.blocks") for build in (ecg_encoder, image_encoder))
    assert parameter_count(ecg) == parameter_count(image) == 85_054_464 - 12 * 2304


def test_ten_seconds_are_196_tokens_and_a_picture_too() -> None:
    assert ecg_encoder(TINY).get_submodule("tower.embed")(torch.zeros(2, 12, 1000)).shape == (2, 24, 196)
    assert image_encoder(TINY).get_submodule("tower.embed")(torch.zeros(2, 1, 224, 224)).shape == (2, 24, 14, 14)


def test_keys_are_left_out_in_training_alone() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(4, 100, 100)
    layer = DropKey()
    assert layer(logits).eq(0).float().mean() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(layer(logits).sum(dim=-1), torch.ones(4, 100))
    torch.testing.assert_close(layer.eval()(logits), torch.full((4, 100, 100), 0.01))


def test_a_block_attends_as_scaled_dot_products() -> None:
    torch.manual_seed(0)
    block, x = Block(TINY).eval(), torch.randn(2, 5, 24)
    query, key, value = block.qkv(block.before(x)).view(2, 5, 3, 2, 12).permute(2, 0, 3, 1, 4)
    y = x + block.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block(x), y + block.mlp(block.between(y)))


def test_inputs_have_no_baseline_and_reach_from_minus_one_to_one() -> None:
    time = np.arange(1000) / 100
    spikes = (np.arange(1000) % 80 < 4).astype(np.float32)
    signal = np.stack([spikes, 3 * spikes + 5, spikes + 2 * np.sin(0.6 * time), np.zeros(1000)] * 3).astype(np.float32)
    x = inputs(signal[None])[0]
    assert (x[0].min(), x[0].max()) == (-1, 1)
    torch.testing.assert_close(x[1], x[0])
    assert np.corrcoef(x[2], x[0])[0, 1] > 0.95  # .35 with the baseline
    assert not x[3].any()


def test_equal_reports_are_no_mistake_of_each_other() -> None:
    torch.manual_seed(0)
    a, b = F.normalize(torch.randn(2, 5, 8), dim=2)
    target = torch.arange(5)
    plain = (F.cross_entropy(a @ b.T / 0.5, target) + F.cross_entropy(b @ a.T / 0.5, target)) / 2
    torch.testing.assert_close(contrast(a, b, torch.eye(5), 0.5), plain)
    twins, same = torch.eye(4)[[0, 0, 1, 1]], torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert float(contrast(twins, twins, same)) == pytest.approx(np.log(2), abs=1e-4)
    assert float(contrast(twins, twins.roll(2, 0), same)) > 40


def test_every_second_report_gives_whole_clauses() -> None:
    rng = np.random.default_rng(0)
    report = "sinus rhythm. left axis deviation; lvh    alter unbest.\nnormal"
    parts = [part_of(report, rng) for _ in range(400)]
    assert 0.45 < parts.count(report) / 400 < 0.6
    clauses = {clause.strip() for part in parts if part != report for clause in part.split(". ")}
    assert clauses == {"sinus rhythm", "left axis deviation", "lvh", "alter unbest", "normal"}
    assert {part_of("sinus rhythm.", rng) for _ in range(9)} == {"sinus rhythm."}


def test_the_rate_restarts_after_a_seventh_and_three_sevenths() -> None:
    settings = ContrastiveSettings(steps=700, lr=1.0)
    rates = [learning_rate(step, settings) for step in range(700)]
    assert [step for step in range(1, 700) if rates[step] > rates[step - 1]] == [100, 300]
    assert [rates[step] for step in (0, 50, 100, 200, 300, 500)] == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5])
    assert max(rates[99], rates[299], rates[699]) < 1e-3


def test_relevance_is_of_what_raises_the_score() -> None:
    attention = torch.full((1, 2, 4, 4), 0.25, requires_grad=True)
    (attention[0, :, 0, 2].sum() - attention[0, :, 0, 3].sum()).backward()
    assert relevance([attention]).tolist() == [0, 1, 0]


def test_recall_beside_chance() -> None:
    matches = np.eye(4, dtype=bool)
    similarities = np.eye(4) + 0.1
    similarities[0] = [0.5, 0.9, 0.4, 0.3]  # the second is found first
    similarities[1] = 0.0  # nothing is told apart
    one, two, all_ = recall(similarities, matches, (1, 2, 9))
    assert (one.found, two.found, all_.found) == (0.5, 0.75, 1.0)
    assert (one.chance, two.chance, all_.chance) == (0.25, 0.5, 1.0)
    matches[3, 2] = True
    assert recall(similarities, matches, (1,))[0].chance == pytest.approx((3 * 0.25 + 0.5) / 4)
    with pytest.raises(ValueError, match="needs a match"):
        recall(similarities, np.zeros((4, 4), dtype=bool))


@pytest.mark.usefixtures("tiny")
def test_a_resumed_pretraining_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def stop(epoch: Epoch, _: float) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    pairs = _pictures(tmp_path, Pairs(_Rhythms()))
    before = torch.get_rng_state()
    pretrain(pairs, "more_nano", _SETTINGS, whole)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(KeyboardInterrupt):
        pretrain(pairs, "more_nano", _SETTINGS, halves, progress=stop)
    with pytest.raises(InputError, match=r"settings\.lr=0\.001, not 0\.1"):
        pretrain(pairs, "more_nano", replace(_SETTINGS, lr=0.1), halves, resume=True)
    with pytest.raises(InputError, match="data="):
        pretrain(Pairs(_Rhythms()), "more_nano", _SETTINGS, halves, resume=True)
    pretrain(pairs, "more_nano", _SETTINGS, halves, resume=True)
    assert sorted(path.name for path in halves.iterdir()) == _FILES
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert len(files) == len(_FILES)
    for path in files:
        assert (whole / path).read_bytes() == (halves / path).read_bytes(), path
    pretrain(pairs, "more_nano", _SETTINGS, halves, resume=True)  # nothing is left to do
    assert load(whole).record_ids == tuple(f"r{i}" for i in range(6))
    assert load(whole).patients == tuple(f"p{i}" for i in range(6))


def test_it_learns_what_reports_say_of_ecgs_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "more_nano", MoreSize(48, 2, 2))
    settings = ContrastiveSettings(steps=40, batch=16, lr=2e-3)
    pretrain(_pictures(tmp_path, Pairs(_Rhythms(48))), "more_nano", settings, tmp_path / "run")
    unseen = [_Rhythms().read(i) for i in range(100, 116)]
    model = load(tmp_path / "run")
    scores = predict(model, np.stack([record.signal for record in unseen]))
    fast = scores[:, model.classes.index("STACH")] - scores[:, model.classes.index("SBRAD")]
    assert fast[::2].min() > fast[1::2].max()
    more = load_more(tmp_path / "run")
    pairs = _pictures(tmp_path, Pairs(_Rhythms(12)))
    found = retrieval(more, pairs)
    assert sorted(found) == sorted(
        f"{a} -> {b}" for a in ("ecg", "report", "image") for b in ("ecg", "report", "image") if a != b
    )
    for what in ("ecg -> report", "report -> ecg", "image -> report", "report -> image"):
        assert found[what][0].found > 0.9 > 0.6 > found[what][0].chance, what
    vectors = embed_pairs(more, pairs)
    assert np.isnan(vectors["image"]).all(axis=1).tolist() == [False] * 11 + [True]
    said = explain_pair(more, pairs.read(0), pairs.rows[0].report, pairs.rows[0].image)
    assert said.ecg.shape == (196,) and said.ecg.max() == 1 and said.ecg.min() >= 0
    assert [word for word, _ in said.words] == ["Sinus", "tachycardia"]
    assert dict(said.words)["tachycardia"] > dict(said.words)["Sinus"]
    assert said.image is not None and said.image.shape == (14, 14)
    assert said.cosine == pytest.approx(float(vectors["ecg"][0] @ vectors["report"][0]), abs=1e-4)
    assert said.image_cosine == pytest.approx(float(vectors["image"][0] @ vectors["report"][0]), abs=1e-4)


@pytest.mark.usefixtures("tiny")
def test_a_text_tower_of_the_hub_is_tuned_by_lora_alone(tmp_path: Path) -> None:
    tower, run = tmp_path / "roberta", tmp_path / "run"
    tokenizer = own_tokenizer(["sinus rhythm"])
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=130,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tower)
    tokenizer.save_pretrained(tower)
    pretrain(Pairs(_Rhythms()), "more", replace(_SETTINGS, text=str(tower)), run)
    more = load_more(run)
    learnt = [name for name, parameter in more.network.text.model.named_parameters() if parameter.requires_grad]
    assert learnt and all("lora_" in name and (".query." in name or ".value." in name) for name in learnt)
    model = more.network.text.model
    assert isinstance(model, PeftModel)
    lora: Any = model.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (16, 8, 0.1)
    assert not [name for name in load_file(run / "towers.safetensors") if "embeddings.weight" in name]
    vectors = statement_vectors(more.network, more.tokenizer, load(run).classes)
    torch.testing.assert_close(vectors, load(run).network.get_parameter("head.weight"))
    with pytest.raises(InputError, match="no tokenizer"):
        pretrain(Pairs(_Rhythms()), "more", replace(_SETTINGS, text=str(tmp_path / "none")), tmp_path / "other")


def test_from_the_command_line(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: object) -> str:
        assert main(["baseline", *map(str, words)]) == 0
        return capsys.readouterr().out

    data = ("--data", "simulated:AFIB,NORM", "--limit", 6)
    table, more = tmp_path / "pairs.csv", tmp_path / "more"
    assert "6 pairs, 0 with an X-ray" in run("pairs", *data, "--out", table, "--quiet")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    Image.new("L", (300, 260), 90).save(tmp_path / "x.png")
    for row in rows[:3]:
        row["image"] = "x.png"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    words = ("pretrain", "more_nano", *data, "--pairs", table, "--steps", 2, "--batch", 4, "--out", more, "--quiet")
    assert "more_nano pre-trained on 6 pairs" in run(*words)
    run("predict", more, "--data", "simulated", "--limit", 3, "--out", tmp_path / "scores", "--quiet")
    assert json.loads((tmp_path / "scores" / "training.json").read_text())["record_ids"] == [
        row["record"] for row in rows
    ]
    assert load(more).training == "more_nano pre-trained with ecg-vlm on 6 pairs of ECG and report, zero-shot"
    assert "R@5" in run("retrieve", more, *data, "--pairs", table, "--out", tmp_path / "recall.json", "--quiet")
    assert json.loads((tmp_path / "recall.json").read_text())["image -> ecg"][0]["chance"] == 1.0
    page = tmp_path / "page.html"
    run("explain", more, *data, "--pairs", table, "--record", rows[1]["record"], "--out", page)
    html = page.read_text()
    assert html.count("data:image/png") == 5  # four waveforms and the X-ray
    assert "<h2>Its own report: cosine" in html
    tuned = tmp_path / "tuned"
    run(
        "train",
        "more_nano",
        "--data",
        "simulated:AFIB,NORM",
        "--limit",
        4,
        "--from",
        more,
        "--epochs",
        2,
        "--out",
        tuned,
        "--quiet",
    )
    assert "from a pre-trained encoder on 4 waveforms, 2 epochs" in load(tuned).training
    assert set(load(tuned).record_ids) == {row["record"] for row in rows}  # two by their reports alone


@pytest.mark.usefixtures("tiny")
def test_bad_input_has_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: object) -> str:
        assert (
            main(["baseline", *map(str, words), "--data", "simulated", "--limit", "4", "--out", str(tmp_path / "o")])
            == 2
        )
        return capsys.readouterr().err

    assert "did you mean more" in refused("pretrain", "moro")
    assert "--seconds: is no option of more" in refused("pretrain", "more", "--seconds", 5)
    assert "--pairs: is no option of ecg_jepa" in refused("pretrain", "ecg_jepa", "--pairs", "x.csv")
    assert "mimic:DIR" in refused("pairs", "--xrays", tmp_path)
    assert "needs --xrays" in refused("pairs", "--xray-reports", tmp_path)
    table = tmp_path / "pairs.csv"
    table.write_text("record,report\nx,y\n")
    assert "column 'image' is missing" in refused("pretrain", "more", "--pairs", table)
    table.write_text("record,report,image\nx,y,\n")
    assert "name the --data that has them" in refused("pretrain", "more", "--pairs", table)
    with pytest.raises(InputError, match="a contrast takes two"):
        pretrain(Pairs(_Rhythms(1)), "more", _SETTINGS, tmp_path / "a")
    with pytest.raises(InputError, match="pairs of record and report"):
        pretrain(_Rhythms(), "more", _SETTINGS, tmp_path / "a")
    pairs = Pairs(_Rhythms(4))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pairs.rows[:] = [row._replace(image=str(tmp_path / "bad.png")) for row in pairs.rows]
    with pytest.raises(InputError, match=r"bad\.png: not a PNG or JPEG"):
        pretrain(pairs, "more", _SETTINGS, tmp_path / "b")
    pretrain(Pairs(_Rhythms(4)), "more", replace(_SETTINGS, steps=1), tmp_path / "c")
    with pytest.raises(InputError, match="no pair of this record"):
        write_attention_page(tmp_path / "p", load_more(tmp_path / "c"), load(tmp_path / "c"), Pairs(_Rhythms(4)), "r9")
    assert not (tmp_path / "p").exists()
    with pytest.raises(InputError, match="an encoder of more; train that"):
        load_encoder(tmp_path / "c", "more_nano")
    (tmp_path / "c" / "towers.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a pre-training of more"):
        load_more(tmp_path / "c")
    (tmp_path / "c" / "pretraining.json").write_text('{"name": "ecg_jepa"}')
    with pytest.raises(InputError, match="which has no text tower"):
        load_more(tmp_path / "c")


@pytest.mark.usefixtures("tiny")
def test_tuning_begins_with_the_encoder(tmp_path: Path) -> None:
    pretrain(Pairs(_Rhythms()), "more_nano", _SETTINGS, tmp_path)
    encoder = load_encoder(tmp_path, "more_nano")
    signals = np.stack([_Rhythms().read(i).signal for i in range(6)])
    labels = np.array([[True], [False]] * 3)
    arguments: dict[str, Any] = {"name": "more_nano", "classes": ("fast",), "encoder": encoder}
    probe = train(signals, labels, recipe=replace(SETTINGS["more_nano"], epochs=2, batch=3), probe=True, **arguments)
    state = probe.network.get_submodule("encoder").state_dict()
    assert encoder and all(torch.equal(state[name], encoder[name]) for name in encoder)
    assert BASELINES["more_nano"].window is None


def _mimic(folder: Path, times: list[str]) -> MimicIvEcg:
    """Tables of records of patient 10000032, one for each time; no signals."""
    studies = [str(40000000 + i) for i in range(len(times))]
    header = {"subject_id": "10000032", "file_name": "x", "path": "files/x"}
    records = [{**header, "study_id": study, "ecg_time": time} for study, time in zip(studies, times, strict=True)]
    empty = dict.fromkeys([f"report_{i}" for i in range(18)], "")
    numbers = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")
    empty |= dict.fromkeys(("bandwidth", "filtering", *numbers), "")
    machine = [{"study_id": study, **empty, "report_0": "Sinus rhythm"} for study in studies]
    for name, rows in (("record_list.csv", records), ("machine_measurements.csv", machine)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return MimicIvEcg(folder)


def test_mimic_ecgs_meet_the_nearest_frontal_xray_within_sixty_days(tmp_path: Path) -> None:
    ecgs = _mimic(tmp_path, ["2180-05-06 21:00:00", "2180-06-20 08:00:00", "2180-12-01 00:00:00", "no time"])
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").write_text(
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,StudyDate,StudyTime\n"
        "aaa,10000032,50414267,CHEST (PA AND LAT),PA,21800506,213014.53\n"
        "lat,10000032,50414267,CHEST (PA AND LAT),LATERAL,21800506,210000.0\n"
        "bbb,10000032,53189527,CHEST (AP),AP,21800626,165500.312\n"
        "ccc,10000099,53189528,CHEST (AP),AP,21801201,0.0\n"
        "ddd,10000032,53189529,CHEST (AP),AP,,\n"
    )
    reports = tmp_path / "reports"
    text = reports / "files" / "p10" / "p10000032" / "s50414267.txt"
    text.parent.mkdir(parents=True)
    text.write_text("FINDINGS:\n no effusion")
    pairs = list(mimic_pairs(ecgs, tmp_path, reports))
    images = [Path(pair.image).relative_to(tmp_path.resolve()) if pair.image else None for pair in pairs]
    assert images == [
        Path("files/p10/p10000032/s50414267/aaa.jpg"),
        Path("files/p10/p10000032/s53189527/bbb.jpg"),
        None,
        None,
    ]
    assert [pair.report for pair in pairs] == ["Sinus rhythm\nFINDINGS:\n no effusion", *["Sinus rhythm"] * 3]
    assert ecgs.taken(1) == datetime(2180, 6, 20, 8)
    assert ecgs.labels(0).statements == ("SR",)
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").write_text("dicom_id\n")
    with pytest.raises(InputError, match="column 'StudyDate' is missing"):
        list(mimic_pairs(ecgs, tmp_path, None))
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").unlink()
    with pytest.raises(InputError, match="folder of MIMIC-CXR-JPG"):
        list(mimic_pairs(ecgs, tmp_path, None))


def test_a_table_of_pairs_is_read_as_it_was_written(tmp_path: Path) -> None:
    pairs = [Pair("r0", 'two\nlines, "quoted"', ""), Pair("r1", "", ""), Pair("r9", "of no record", "")]
    assert write(tmp_path / "pairs.csv", pairs) == (2, 0)
    assert Pairs(_Rhythms(), tmp_path / "pairs.csv").rows == pairs[:1]
    own = Pairs(_Rhythms(2))
    assert own.rows == list(reports_of(_Rhythms(2))) and len(own) == 2
    assert own.digest() != Pairs(_Rhythms(3)).digest()
