"""Files of other people: their code is not run, their paths are not opened, their text does not act."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from ecg_vlm.cli import main, progress
from recipes.config import LoraPart, ModelPart
from recipes.model import add_lora, base_config, load_adapter, load_model, load_processor, nano_path
from recipes.packing import render_chat
from render.dataset.data_card import write_card
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options
from render.errors import InputError
from render.simulator.simulate import SimulatedSource
from render.sources.wfdb_record import read_wfdb

# Code


@pytest.fixture
def foreign_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nano's folder whose files name classes of its own; and a user who says yes to every question."""
    folder = tmp_path / "model"
    shutil.copytree(nano_path(), folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    classes = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**content, "auto_map": dict.fromkeys(classes, "own.Thing")}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    return folder


@pytest.mark.parametrize("model_type", ["mllama", "of_its_own"])
def test_code_that_comes_with_a_model_is_not_run(model_type: str, foreign_model: Path) -> None:
    config = json.loads((foreign_model / "config.json").read_text())
    (foreign_model / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    for load in (base_config, load_processor, lambda base: load_model(ModelPart(base=base))):
        try:
            load(str(foreign_model))
        except InputError as error:
            assert model_type != "mllama" or "trust_remote_code" in str(error), error
        assert not (foreign_model.parent / "ran").exists()


# Adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh adapter of nano's cross-attention."""
    folder = tmp_path_factory.mktemp("adapter")
    model = add_lora(load_model(ModelPart()), LoraPart(rank=1, targets="cross-attention"))
    for config in model.peft_config.values():
        config.base_model_name_or_path = "nano"
    model.save_pretrained(folder, save_embedding_layers=False)
    load_adapter(load_model(ModelPart()), folder, "nano")
    return folder


@pytest.mark.parametrize("change", ["half", "other", "empty"])
def test_an_adapter_without_all_its_tensors_is_refused(change: str, adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    names = sorted(weights)
    rest_names = {"half": names[: len(names) // 2], "other": names, "empty": []}[change]
    rest = {name: weights[name] for name in rest_names}
    if change == "other":
        rest["base_model.model.model.other.lora_A.weight"] = weights[names[0]].clone()
    save_file(rest, folder / "adapter_model.safetensors")
    with pytest.raises(
        InputError, match=rf"has {len(rest_names)} of the {len(names)} tensors of its layers and [01] others"
    ):
        load_adapter(load_model(ModelPart()), folder, "nano")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("target_modules", []),
        ("rank_pattern", {"(a+)+$": 2}),
        ("exclude_modules", "(a+)+$"),
        ("layers_pattern", ["(a+)+$"]),
        ("modules_to_save", ["lm_head"]),
        ("peft_type", "LOHA"),
        ("r", 10**9),
        ("r", "8"),
        ("r", True),
        ("lora_bias", True),
    ],
)
def test_an_adapter_that_is_no_plain_lora_is_refused(key: str, value: object, adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, key: value}))
    start = time.process_time()
    with pytest.raises(InputError, match=rf"adapter_config.json: {key}="):
        load_adapter(load_model(ModelPart()), folder, "nano")
    assert time.process_time() - start < 5


def test_a_pattern_of_layers_is_never_run(adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": "(.+)+(.+)+x" * 9}))
    start = time.process_time()
    layers = load_adapter(load_model(ModelPart()), folder, "nano").peft_config["default"].target_modules
    assert layers and all(layer.endswith(tuple(config["target_modules"])) for layer in layers)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("content", ["", "[]", "{", '{"r": 1}', "null", "\x00"])
def test_a_damaged_adapter_config_is_refused(content: str, adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(InputError, match="adapter"):
        load_adapter(load_model(ModelPart()), folder, "nano")


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ 1 // 0 }}",
        "{{ raise_exception('no') }}",
        "{% for %}",
    ],
)
def test_a_chat_template_that_fails_or_does_not_end_is_refused(template: str) -> None:
    processor = load_processor("nano")
    processor.chat_template = template
    start = time.process_time()
    with pytest.raises(InputError, match=r"chat template: .*name another model"):
        render_chat(processor, [{"role": "user", "content": "a"}], prompt=True)
    assert time.process_time() - start < 10


# Data sets


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(SimulatedSource(1, 3), tmp_path / "pages", Options(width=400, mask=True))
    return tmp_path / "pages"


def _change_second_row(dataset: Path, column: str, image: dict[str, object]) -> None:
    (shard,) = (dataset / "data").glob("*.parquet")
    table = pq.read_table(shard)
    values = table.column(column).to_pylist()
    values[1] = {"bytes": None, "path": None, **image}
    place = table.schema.get_field_index(column)
    column_type = table.schema.field(column).type
    pq.write_table(table.set_column(place, table.schema.field(column), pa.array(values, column_type)), shard)


@pytest.mark.parametrize("damage", ["data", "length", "end"])
def test_a_damaged_picture_of_a_data_set_is_an_error_in_the_input(dataset: Path, damage: str) -> None:
    picture = bytearray(pq.read_table(dataset / "data").column("image")[1].as_py()["bytes"])
    if damage == "data":
        picture[len(picture) // 2 : len(picture) // 2 + 40] = bytes(40)
    elif damage == "length":
        picture[33:37] = b"\xff\xff\xff\xff"  # of the first chunk behind the header
    else:
        del picture[len(picture) // 2 :]
    _change_second_row(dataset, "image", {"bytes": bytes(picture)})
    rows = open_dataset(dataset)
    assert rows[0]["image"].width == 400
    for read in (lambda: rows[1]["image"], lambda: rows[0:2]["image"], lambda: rows.select([2, 1])[1]["image"]):
        with pytest.raises(InputError, match="a picture of the data set is damaged"):
            read()


def _eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("column", ["image", "mask"])
@pytest.mark.parametrize(
    ("image", "what"),
    [
        ({"path": "/etc/hostname"}, "names a file or an address instead"),
        ({"path": "http://127.0.0.1:9/page.png"}, "names a file or an address instead"),
        ({}, "names a file or an address instead"),
        ({"bytes": _eps()}, "has others"),
        ({"bytes": b""}, "has others"),
    ],
)
def test_a_row_has_its_image_in_bytes(column: str, image: dict[str, object], what: str, dataset: Path) -> None:
    assert len(open_dataset(dataset)) == 3
    _change_second_row(dataset, column, image)
    rows = open_dataset(dataset)
    assert rows[0][column].width == 400
    with pytest.raises(
        InputError, match=rf"row 2: column '{column}' has to hold a PNG or JPEG image's bytes and {what}"
    ):
        rows[1][column]


@pytest.mark.parametrize(("column", "what"), [("image", "is damaged"), ("statements", "lacks a value")])
def test_every_shard_has_the_columns_of_the_first(column: str, what: str, dataset: Path) -> None:
    (shard,) = (dataset / "data").glob("*.parquet")
    pq.write_table(pq.read_table(shard).drop_columns(column), shard.with_name("train-00001-of-00002.parquet"))
    with pytest.raises(InputError, match=what):
        open_dataset(dataset)[3]["image"]


def test_no_other_column_may_name_files(dataset: Path) -> None:
    (shard,) = (dataset / "data").glob("*.parquet")
    table = pq.read_table(shard)
    info = json.loads(table.schema.metadata[b"huggingface"])
    info["info"]["features"]["report"] = {"_type": "Image"}
    place = table.schema.get_field_index("report")
    table = table.set_column(place, "report", table.column("image"))
    pq.write_table(table.replace_schema_metadata({b"huggingface": json.dumps(info)}), shard)
    with pytest.raises(InputError, match="column 'report' holds files of another kind"):
        open_dataset(dataset)


@pytest.mark.parametrize(
    ("column", "change", "what"),
    [
        ("statements", None, "there is no column 'statements'"),
        ("record_id", lambda values: [1] * len(values), "column 'record_id' holds int64, not string"),
        ("statements", lambda values: [None, *values[1:]], "column 'statements' lacks a value"),
        ("statements", lambda values: [["SR", None], *values[1:]], "column 'statements' lacks a value"),
        ("dialogues", lambda values: [[{**values[0][0], "messages": None}], *values[1:]], "column 'dialogues' lacks"),
    ],
)
def test_a_data_set_has_the_columns_that_are_read(column, change, what: str, dataset: Path) -> None:
    (shard,) = (dataset / "data").glob("*.parquet")
    table = pq.read_table(shard)
    place, values = table.schema.get_field_index(column), table.column(column).to_pylist()
    info = json.loads(table.schema.metadata[b"huggingface"])
    features = info["info"]["features"]
    if change is None:
        table = table.drop_columns(column)
        del features[column]
    else:
        is_other = isinstance(change(values)[0], int)
        features[column] = {"dtype": "int64", "_type": "Value"} if is_other else features[column]
        kind = pa.int64() if is_other else table.schema.field(column).type
        table = table.set_column(place, column, pa.array(change(values), kind))
    pq.write_table(table.replace_schema_metadata({b"huggingface": json.dumps(info)}), shard)
    with pytest.raises(InputError, match=f"data: {what}"):
        open_dataset(dataset)


def test_a_line_of_a_report_does_not_act_in_the_data_card(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    line = "<script>alert(1)</script> | [x](http://y) \x1b[31m\nnew & line"
    manifest |= {"most_unmapped": {line: 2}, "unmapped_report_lines": 2}
    write_card(dataset, manifest)
    (row,) = (row for row in (dataset / "README.md").read_text(encoding="utf-8").splitlines() if "alert" in row)
    assert row == "| &lt;script&gt;alert(1)&lt;/script&gt; / \\[x](http://y)  \\[31m new &amp; line | 2 | 100.0% |"


# Records


def test_a_signal_file_that_leads_to_a_file_of_another_kind_is_refused(tmp_path: Path, write_wfdb) -> None:
    signal = np.zeros((12, 5000)) + np.sin(np.arange(5000) / 40)
    header = write_wfdb(tmp_path, "a", signal)
    data = header.with_suffix(".dat")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data.rename(elsewhere / "b.dat")
    data.symlink_to(elsewhere / "b.dat")
    assert read_wfdb(header)[0].shape == (12, 5000)  # git-annex stores files so
    (elsewhere / "b.dat").rename(elsewhere / "secret.txt")
    data.unlink()
    data.symlink_to(elsewhere / "secret.txt")
    with pytest.raises(InputError, match="is a link to a file of another kind"):
        read_wfdb(header)
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(InputError, match="is no regular file"):
        read_wfdb(header)


# Text on a terminal


def test_names_do_not_act_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a\x1b]0;owned\x07", "b\x9b31m", "c\nd", "e\u202egnp.exe", "f\udc80", "g\r"):
        assert main(["ask", str(tmp_path / f"{name}.png"), "a"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.endswith("\n")
        assert all(character.isprintable() for character in error[:-1]), error


def test_standard_output_on_a_terminal_has_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("ecg_vlm.cli.list.run", lambda arguments: print("Sinus\x1b[2J rhythm,\tregular\u202e"))
    assert main(["list", "recipes"]) == 0
    assert screen.getvalue() == "Sinus\\x1b[2J rhythm,\tregular\\u202e\n"


def test_a_bar_shows_names_as_they_are() -> None:
    assert progress.printable("[red]\x1b[31m") == "[red]\\x1b[31m"


# Files that are there


def test_a_preview_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["render", "simulated", str(tmp_path / "pages"), "--limit", "1", "--width", "400", "--preview"]
    assert main(words) == 0
    before = (tmp_path / "pages-preview.png").read_bytes()
    assert Image.open(io.BytesIO(before)).size > (100, 100)
    assert main(words) == 2 and "already exists" in capsys.readouterr().err
    assert (tmp_path / "pages-preview.png").read_bytes() == before
