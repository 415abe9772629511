"""Training data in other forms: what is written in a form comes back the same, and nothing outside the data is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

from ecg_vlm.cli import main
from recipes.config import DataPart
from recipes.model import load_processor
from recipes.packing import Encoder, pack_rows
from recipes.run_folder import require_same_pages
from recipes.train import training_pages
from render.dataset.other_rows import HUB, open_rows, rows_digest
from render.dataset.parquet import open_dataset
from render.errors import InputError

RENDER = ("render", "simulated", "--limit", "4", "--width", "400", "--closed", "3", "--seed", "3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The same pages in each form."""
    folders = {form: tmp_path_factory.mktemp(form) / "pages" for form in ("parquet", "trl", "llava")}
    for form, folder in folders.items():
        assert main([RENDER[0], RENDER[1], str(folder), *RENDER[2:], "--format", form]) == 0
    return folders


def contents(rows) -> list[tuple[str, str, list[list[tuple[str, str]]]]]:
    """Record, digest of the picture, and the messages of each page."""
    return [
        (row["record_id"], row["image"].tobytes().hex()[:64],
         [[(m["role"], m["content"]) for m in d["messages"]] for d in row["dialogues"]])
        for row in rows
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["trl", "llava"])
def test_pages_in_another_form_are_trained_on_as_the_same_rows(form, folders):
    pages = open_dataset(folders["parquet"])
    others = training_pages(DataPart(train=str(folders[form])))
    assert contents(others) == contents(pages)
    encoder = Encoder(load_processor("nano"))
    assert pack_rows(others, encoder, 0) == pack_rows(pages, encoder, 0)
    mixture = training_pages(DataPart(train=f"{folders['parquet']}, {folders[form]}"))
    assert contents(mixture) == 2 * contents(pages)
    without = training_pages(DataPart(train=str(folders[form]), leave_out=("SR", "NORM")))
    assert not {"SR", "NORM"} & {c for row in without for d in row["dialogues"] for c in d["statements"]}


def test_trl_rows_are_what_trl_takes(folders):
    from trl.data_utils import prepare_multimodal_messages

    rows = datasets.load_dataset(str(folders["trl"]), split="train")
    assert len(rows) == sum(len(row["dialogues"]) for row in open_dataset(folders["parquet"]))
    (image,) = rows[0]["images"]
    (first, *_) = prepare_multimodal_messages(rows[0]["messages"], rows[0]["images"])
    assert isinstance(image, Image.Image) and [part["type"] for part in first["content"]] == ["image", "text"]
    sizes = [sum(f.stat().st_size for f in folders[form].rglob("*.parquet")) for form in ("trl", "parquet")]
    assert sizes[0] < 1.5 * sizes[1]  # a page is there once, not once for each dialogue
    assert sorted(p.name for p in folders["trl"].iterdir()) == ["README.md", "begun.json", "manifest.json", "trl"]
    assert main([RENDER[0], RENDER[1], str(folders["trl"]), *RENDER[2:], "--format", "trl", "--resume"]) == 0


@pytest.fixture
def table(tmp_path) -> Path:
    """A folder with a picture, and rows about it."""
    Image.effect_noise((60, 30), 50).save(tmp_path / "a.png")
    turns = [{"role": "system", "content": "Be brief."}, *talk("Why?", "So."), *talk("And?", "No.")]
    rows = [
        {"images": ["a.png"], "messages": turns},
        {"images": ["a.png"], "prompt": [{"role": "user", "content": [{"type": "image"}, {"text": "What?"}]}],
         "completion": [{"role": "assistant", "content": "This."}]},
    ]  # fmt: skip
    write(tmp_path, rows)
    return tmp_path


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def write(folder: Path, rows: list[dict]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["rows.jsonl", ""])
def test_rows_that_share_an_image_are_one_page_and_several_turns_one_dialogue(name, table, tmp_path_factory):
    rows = open_rows(str(table / name), tmp_path_factory.mktemp("cache"))
    ((record, _, dialogues),) = contents(rows)
    assert record == "a.png" and [len(d) for d in dialogues] == [5, 2]
    assert dialogues[0][0] == ("system", "Be brief.") and dialogues[1] == [("user", "What?"), ("assistant", "This.")]


def test_hub_data_sets_are_opened_by_name(monkeypatch, folders, tmp_path):
    rows = datasets.load_dataset(str(folders["trl"]), split="train")
    names = []

    def load(name, **options):
        names.append((name, options["split"]))
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load_dataset", load)
        pages = open_rows(f"{HUB}datasets/someone/ecg", tmp_path)
    assert names == [("someone/ecg", "train")] and contents(pages) == contents(open_dataset(folders["parquet"]))

    def fail(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match=r"hf://a/b: cannot be read as a data set \(no route\); expected a folder"):
        open_rows("hf://a/b", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"images": ["../secret.png"], "messages": talk("a", "b")}, r"row 1: image '../secret.png' does not lie in"),
        ({"images": ["/etc/passwd"], "messages": talk("a", "b")}, "row 1: image '/etc/passwd' does not lie in"),
        ({"images": ["b.png"], "messages": talk("a", "b")}, "row 1: image 'b.png' cannot be read in"),
        ({"images": ["rows.jsonl"], "messages": talk("a", "b")}, "is neither PNG nor JPEG; convert it"),
        ({"images": ["a.png", "a.png"], "messages": talk("a", "b")}, "row 1: has 2 images; a row is about one image"),
        ({"images": ["a.png"], "messages": talk("a", "b")[:1]}, "row 1: has no assistant's turn"),
        ({"images": ["a.png"], "messages": [{"role": "judge", "content": "a"}]}, "row 1: messages have a role"),
        ({"images": ["a.png"], "text": "a"}, "has the columns images, text; expected a folder made by"),
        ({"messages": talk("a", "b")}, "has the columns messages; expected a folder made by"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(row, message, table, tmp_path_factory):
    write(table, [row])
    (table.parent / "secret.png").write_bytes((table / "a.png").read_bytes())
    with pytest.raises(InputError, match=message) as error:
        open_rows(str(table / "rows.jsonl"), tmp_path_factory.mktemp("cache"))
    assert "\n" not in str(error.value)


def test_other_rows_than_at_the_start_are_not_resumed(table, tmp_path):
    require_same_pages(tmp_path, str(table / "rows.jsonl"))
    require_same_pages(tmp_path, str(table / "rows.jsonl"))
    before = rows_digest(str(table))
    write(table, [{"images": ["a.png"], "messages": talk("a", "b")}])
    assert rows_digest(str(table)) != before
    with pytest.raises(InputError, match="was started with other pages in "):
        require_same_pages(tmp_path, str(table / "rows.jsonl"))


def test_a_llava_file_with_a_dialogue_of_several_turns(table, tmp_path_factory):
    turns = [
        {"from": k, "value": v} for k, v in (("human", "<image>\nA?"), ("gpt", "B."), ("human", "C?"), ("gpt", "D."))
    ]
    samples = [{"id": "1", "image": "ptb-xl/records500/00000/00007_hr-0.png", "conversations": turns}]
    (table / "s.json").write_text(json.dumps(samples))
    folder = table / "ptb-xl" / "records500" / "00000"
    folder.mkdir(parents=True)
    shutil.copy(table / "a.png", folder / "00007_hr-0.png")
    ((record, _, dialogues),) = contents(open_rows(str(table / "s.json"), tmp_path_factory.mktemp("cache")))
    assert record == "7" and dialogues == [[("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")]]


def test_lines_that_are_no_objects_are_refused_and_keys_may_differ(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    messages = [{"role": "user", "content": "AF?"}, {"role": "assistant", "content": "No."}]
    row = {"messages": messages, "images": ["x.png"]}
    file = tmp_path / "rows.jsonl"
    for line in ("null", "1", '"a"'):  # `null` ended the process
        file.write_text(f"{line}\n{json.dumps(row)}", encoding="utf-8")
        with pytest.raises(InputError, match=r"rows\.jsonl: row 1 is no JSON object"):
            open_rows(str(file), tmp_path / f"cache-{len(line)}")
    file.write_text(
        "\n".join(map(json.dumps, (row, {**row, "record_id": "a", "images": ["./x.png"]}))), encoding="utf-8"
    )
    rows = open_rows(str(file), tmp_path / "cache")
    assert [each["record_id"] for each in rows] == ["x.png", "a"]
