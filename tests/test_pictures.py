"""Pictures with labels of one's own, and published LLaVA files with their images, as data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ecg_vlm.cli import main
from ecg_vlm.pictures.llava_file import LlavaPictures
from ecg_vlm.pictures.picture_table import PictureTable
from ecg_vlm.pictures.rows import PictureOptions, write_pictures
from render.dataset.parquet import open_dataset
from render.errors import InputError

REPORT = "Sinus rhythm. Left bundle branch block. Possible LVH."
MESSAGES = [
    {"role": "user", "content": "<image>\nIs this atrial fibrillation?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And the axis?"},
    {"role": "assistant", "content": "Left."},
]


def draw_pictures(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (20 * k, 90, 200)).save(path)


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    draw_pictures(folder, "a.png", "ward/b.jpg", "c.png", "d.tif")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Jane Doe"  # orientation, description
    Image.new("RGB", (60, 40), "red").save(folder / "ward" / "b.jpg", exif=exif)
    return table(
        folder,
        "file,statements,report,messages,patient_id,fold\n"
        "a.png,SR LVH,,,p1,1\n"
        f'ward/b.jpg,,"{REPORT}",,p1,9\n'
        f'c.png,,,"{json.dumps(MESSAGES).replace(chr(34), chr(34) * 2)}",,\n'
        "d.tif,NORM;SR,Normal tracing.,,p2,9\n",
    )


def rows_of(folder: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    write_pictures(PictureTable(folder), out, PictureOptions(**options))
    return list(open_dataset(out))


def test_labels_become_the_rows_that_every_data_set_has(own: Path, tmp_path: Path) -> None:
    a, b, c, d = rows_of(own, tmp_path / "out")
    assert [row["record_id"] for row in (a, b, c, d)] == ["a", "ward/b", "c", "d"]
    assert (a["source"], a["patient_id"], a["fold"], a["geometry"]) == ("pictures", "p1", 1, "{}")
    assert (c["patient_id"], c["fold"]) == ("", None)
    closed = {x["statements"][0]: x["messages"][1]["content"] for x in a["dialogues"] if x["form"] == "closed"}
    assert closed["LVH"] == closed["SR"] == "Yes." and set(closed.values()) == {"Yes.", "No."}
    assert b["statements"] == ["CLBBB", "SR"] and b["image"].size == (40, 60)  # upright
    reports = [x for x in b["dialogues"] if x["task"] == "report"]
    assert [x["messages"][1]["content"] for x in reports] == [REPORT] and reports[0]["provenance"] == "human"
    assert not any("LVH" in x["statements"] for x in b["dialogues"])  # "possible" is neither yes nor no
    assert [m["content"] for m in c["dialogues"][0]["messages"]] == [
        m["content"].removeprefix("<image>\n") for m in MESSAGES
    ]
    assert d["statements"] == ["NORM", "SR"] and d["report"] == "Normal tracing."
    assert not any(x["task"] == "features" for row in (a, b, d) for x in row["dialogues"])  # nobody has measured


def test_a_table_of_few_statements_has_questions_answered_with_no(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(30)]
    draw_pictures(tmp_path, *names)
    table(
        tmp_path,
        "file,statements\n" + "".join(f"{name},SR {'NORM' if k % 2 else 'IMI'}\n" for k, name in enumerate(names)),
    )
    dialogues = [d for row in rows_of(tmp_path, tmp_path / "out") for d in row["dialogues"] if d["form"] == "closed"]
    answers = [d["messages"][1]["content"] for d in dialogues]
    assert 0.4 < answers.count("No.") / len(answers) < 0.7


def test_metadata_of_the_file_does_not_go_along(own: Path, tmp_path: Path) -> None:
    rows_of(own, tmp_path / "out")
    assert b"Jane Doe" in (own / "ward" / "b.jpg").read_bytes()
    shards = list((tmp_path / "out" / "data").iterdir())
    assert shards and not any(b"Jane Doe" in shard.read_bytes() for shard in shards)


def test_same_bytes_whatever_the_workers_and_after_an_interruption(own: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for out, workers in ((one, "1"), (two, "2")):
        assert main(["render", f"pictures:{own}", str(out), "--shard-size", "2", "--workers", workers]) == 0
    shards = sorted((one / "data").iterdir())
    assert [s.read_bytes() for s in shards] == [s.read_bytes() for s in sorted((two / "data").iterdir())]
    shards[0].unlink()
    assert main(["render", f"pictures:{own}", str(one), "--shard-size", "2", "--resume"]) == 0
    assert shards[0].read_bytes() == (two / "data" / shards[0].name).read_bytes()
    (own / "labels.csv").write_text((own / "labels.csv").read_text().replace("p2", "p3"))
    assert main(["render", f"pictures:{own}", str(one), "--shard-size", "2", "--resume"]) == 2


def test_folds_limit_width_and_preview(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", f"pictures:{own}/labels.csv", str(tmp_path / "9"), "--folds", "9", "--width", "300"]) == 0
    assert [row["record_id"] for row in open_dataset(tmp_path / "9")] == ["ward/b", "d"]
    assert rows_of(own, tmp_path / "narrow", width=30)[0]["image"].size == (30, 20)
    assert len(PictureTable(own, limit=3)) == 3
    assert main(["render", f"pictures:{own}", str(tmp_path / "x"), "--preview"]) == 0
    assert (tmp_path / "x-preview.png").is_file() and not (tmp_path / "x").exists()
    assert "NORM" in (tmp_path / "9" / "README.md").read_text()


def test_json_lines_and_a_file_of_several_pages(tmp_path: Path) -> None:
    draw_pictures(tmp_path, "a.png")
    pages = [Image.new("L", (60, 40), 255) for _ in range(2)]
    for k, page in enumerate(pages):
        page.paste(40 * k, (0, 10, 60, 20))
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    rows = [
        {"file_name": "a.png", "messages": [MESSAGES[:2], MESSAGES[2:]]},
        {"file_name": "two.tif", "id": 7, "page": 2, "statements": ["SR"]},
    ]
    table(tmp_path, "\n".join(map(json.dumps, rows)), "metadata.jsonl")
    one, two = rows_of(tmp_path, tmp_path / "out")
    assert len(one["dialogues"]) == 2 and two["record_id"] == "7"
    assert two["image"].getpixel((30, 15)) == (40, 40, 40)


HEAD = "file,statements,report\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}a.png,SR,\nq.png,SR,\n", "line 3: picture"),
        (f"{HEAD}a.pgn,SR,\n", "did you mean a.png?"),
        (f"{HEAD}a.png,SR AFIBB,\n", "line 2: statement 'AFIBB' is none of PTB-XL's codes; did you mean AFIB?"),
        (f"{HEAD}a.png,SR,\na.png,SR,\n", "line 3: id 'a' occurs in line 2 too"),
        (f"{HEAD}a.png,,\n", "line 2: has no label"),
        (f"{HEAD}../a.png,SR,\n", "does not stay inside"),
        (f"{HEAD}/etc/passwd,SR,\n", "does not stay inside"),
        (f"{HEAD}..\\a.png,SR,\n", "does not stay inside"),
        (f"{HEAD}https://x.org/a.png,SR,\n", "is a URL"),
        (f"{HEAD}link.png,SR,\n", "is a link that leaves"),
        (f"{HEAD}{'a' * 300}.png,SR,\n", "check its name"),
        (f"{HEAD}a.png,SR\n", "line 2: 2 fields, not 3"),
        (f'{HEAD}a.png,"SR\n', "no CSV"),
        ("file,statments\na.png,SR\n", "did you mean statements?"),
        ("picture,report\na.png,SR\n", "no column file or file_name"),
        ("file,report,fold\na.png,SR,11\n", "fold '11' is no whole number from 1 to 10"),
        ('file,messages\na.png,"[{]"\n', "line 2: messages: is no JSON"),
        (f"{HEAD}", "no row"),
    ],
)
def test_a_wrong_table_is_one_line_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    folder = tmp_path / "own"
    draw_pictures(tmp_path, "own/a.png", "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    table(folder, text)
    assert main(["render", f"pictures:{folder}", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "a.png", "statements": ["SR"]', "line 2: is no JSON"),
        ("[1]", "line 2: is no JSON object"),
        ('{"file": "a.png", "statements": 3}', "statements '3' are no list of codes"),
        ('{"file": "a.png", "report": [1]}', "report '[1]' is no text"),
        ('{"file": "a.png", "messages": [{"role": "user", "content": "Rate?"}]}', "the last question has no answer"),
        ('{"file": "a.png", "messages": [{"role": "bot", "content": "Rate?"}]}', "user and assistant must alternate"),
        ('{"file": "a.png", "messages": 3}', "are no list"),
    ],
)
def test_a_wrong_json_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    draw_pictures(tmp_path, "a.png", "b.png")
    table(tmp_path, f'{{"file": "b.png", "report": "SR"}}\n{line}\n', "labels.jsonl")
    with pytest.raises(InputError) as error:
        PictureTable(tmp_path)
    assert message in str(error.value)


def test_unreadable_pictures_stop_the_work_or_are_listed(own: Path, tmp_path: Path) -> None:
    (own / "c.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=r"c\.png"):
        rows_of(own, tmp_path / "out")
    (own / "d.tif").unlink()
    assert main(["render", f"pictures:{own}", str(tmp_path / "lenient"), "--lenient"]) == 0
    manifest = json.loads((tmp_path / "lenient" / "manifest.json").read_text())
    assert manifest["pages"] == 2 and ["c.png" in s["reason"] for s in manifest["skipped"]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--style", "photo"], "--style: source"),
        (["--per-record", "2"], "--per-record: source"),
        (["--images", "."], "lie beside their table"),
        (["--folds", "3"], "no picture in fold 3"),
    ],
)
def test_options_of_records_are_refused(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["render", f"pictures:{own}", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


def sample(identifier: str, image: str, question: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": identifier, "image": image, "conversations": turns}


SAMPLES = [
    sample("1", "mimic/p1127/s44111511/44111511-0.png", "Does this ECG show atrial fibrillation?", "No."),
    sample("2", "own/x.png", "Write the report.", "Sinus rhythm with left bundle branch block."),
    sample("1", "mimic/p1127/s44111511/44111511-0.png", "What is the rhythm?", "Sinus rhythm."),
]


@pytest.mark.parametrize("as_lines", [False, True])
def test_a_published_file_with_its_images(tmp_path: Path, as_lines: bool) -> None:
    images = tmp_path / "images"
    draw_pictures(images, SAMPLES[0]["image"], SAMPLES[1]["image"])
    file = tmp_path / "train.json"
    file.write_text("\n".join(map(json.dumps, SAMPLES)) if as_lines else json.dumps(SAMPLES))
    assert main(["render", f"llava:{file}", str(tmp_path / "out"), "--images", str(images)]) == 0
    one, two = open_dataset(tmp_path / "out")
    assert (one["record_id"], one["source"], one["statements"]) == ("44111511", "mimic", ["SR"])
    assert [d["messages"][0]["content"] for d in one["dialogues"]] == [
        "Does this ECG show atrial fibrillation?",
        "What is the rhythm?",
    ]
    assert (two["record_id"], two["source"], two["statements"]) == ("own/x", "llava", ["CLBBB", "SR"])
    assert "read from train.json" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([*SAMPLES[:2], sample("2", "own/y.png", "Rate?", "70.")], "sample 3: id '2' is that of another picture too"),
        ([sample("2", "own/z.png", "Rate?", "70.")], "sample 1: picture"),
        ([sample("2", "../own/x.png", "Rate?", "70.")], "sample 1: picture '../own/x.png' does not stay inside"),
        ([*SAMPLES[:2], {"id": "3", "image": "own/x.png", "conversations": []}], "sample 3: conversations"),
        ([], "contains no sample"),
    ],
)
def test_a_wrong_published_file_is_one_line(tmp_path: Path, samples: list[dict[str, Any]], message: str) -> None:
    draw_pictures(tmp_path, SAMPLES[0]["image"], SAMPLES[1]["image"], "own/y.png")
    (tmp_path / "train.json").write_text(json.dumps(samples))
    with pytest.raises(InputError) as error:
        LlavaPictures(tmp_path / "train.json")
    assert message in str(error.value)


def test_what_render_writes_as_llava_comes_back(own: Path, tmp_path: Path) -> None:
    assert main(["render", f"pictures:{own}", str(tmp_path / "a"), "--format", "llava"]) == 0
    assert main(["render", f"llava:{tmp_path}/a/llava.json", str(tmp_path / "b")]) == 0
    before, after = rows_of(own, tmp_path / "c"), list(open_dataset(tmp_path / "b"))
    for row, again in zip(before, after, strict=True):
        assert [row[name] for name in ("record_id", "source")] == [again[name] for name in ("record_id", "source")]
        assert len(row["dialogues"]) <= len(again["dialogues"])
    assert [again["statements"] for again in after[:2]] == [row["statements"] for row in before[:2]]
