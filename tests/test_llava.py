"""Data sets as LLaVA folders, and LLaVA and ECGInstruct files as dialogues."""

from __future__ import annotations

import dataclasses
import json
import pickle
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import render.dataset.json_stream
from ecg_vlm.cli import main
from render.dataset.llava import LlavaDialogues, export_llava, guess_form, guess_task, llava_samples
from render.dialogues.compose import Dialogue, compose_dialogues
from render.errors import InputError
from render.record import EcgRecord
from render.simulator.simulate import SimulatedSource

quick = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])

DIALOGUES = (
    Dialogue("rhythm", "closed", "Does this ECG show atrial fibrillation?", "No.", ("AFIB",), "human", "en"),
    Dialogue("report", "open", "Bitte befunden.", "Sinusrhythmus – überdrehter „Linkstyp“.", ("SR",), "machine", "de"),
)


def record(source: str, record_id: str) -> EcgRecord:
    return EcgRecord(record_id, np.zeros((12, 1000), np.float32), 500.0, source)


def picture(kind: str = "PNG", shade: int = 9) -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 4), (shade, shade, shade)).save(out, kind)
    return out.getvalue()


def row(record_id: str, *page_dialogues: Dialogue, source: str = "ptbxl", image: bytes = picture()) -> dict[str, Any]:
    dialogues = [
        {
            "task": dialogue.task,
            "form": dialogue.form,
            "messages": [
                {"role": "user", "content": dialogue.question},
                {"role": "assistant", "content": dialogue.answer},
            ],
            "statements": list(dialogue.statements),
            "provenance": dialogue.provenance,
            "language": dialogue.language,
        }
        for dialogue in page_dialogues or DIALOGUES
    ]
    return {
        "image": {"bytes": image, "path": f"{record_id}.png"},
        "dialogues": dialogues,
        "record_id": record_id,
        "source": source,
    }


def dataset(folder: Path, *shards: list[dict[str, Any]]) -> Path:
    (folder / "data").mkdir(parents=True)
    for k, rows in enumerate(shards):
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"train-{k:05d}.parquet")
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def sample(image: str, *turns: str, **more: Any) -> dict[str, Any]:
    """A sample as published: question, answer, question, answer ..."""
    texts = turns or ("What is the rhythm?", "Sinus rhythm.")
    first = f"<image>\n{texts[0]}"
    conversation = [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate((first, *texts[1:]))]
    return {"id": "x", "image": image, "conversations": conversation, **more}


def write_samples(path: Path, *samples: Any, lines: bool = False, **how: Any) -> Path:
    text = "\n".join(json.dumps(s, **how) for s in samples) if lines else json.dumps(samples, **how)
    path.write_text(text, encoding="utf-8")
    return path


# ---- export


def test_a_row_becomes_one_sample_a_dialogue():
    first, second = llava_samples(row("17"), "images/00000/17-0.png")
    assert first["image"] == "images/00000/17-0.png"
    assert first["conversations"] == [
        {"from": "human", "value": "<image>\nDoes this ECG show atrial fibrillation?"},
        {"from": "gpt", "value": "No."},
    ]
    assert [first["id"], second["id"]] == ["ptbxl-00000-17-0-0", "ptbxl-00000-17-0-1"]


def test_export_holds_every_page_and_dialogue_and_reads_back(tmp_path):
    jpeg = picture("JPEG")
    folder = dataset(tmp_path / "set", [row("1"), row("2", image=jpeg)], [row("3", image=picture(shade=200))])
    calls: list[tuple[int, int]] = []
    assert export_llava(folder, tmp_path / "out", lambda *now: calls.append(now)) == 6
    assert calls[-1] == (3, 3)
    samples = json.loads((tmp_path / "out" / "llava.json").read_text(encoding="utf-8"))
    images = [s["image"] for s in samples]
    assert images[::2] == ["images/00000/1-0.png", "images/00000/2-0.jpg", "images/00001/3-0.png"]
    assert (tmp_path / "out" / images[2]).read_bytes() == jpeg
    assert len({s["id"] for s in samples}) == 6
    back = LlavaDialogues(tmp_path / "out" / "llava.json", "ptbxl")
    assert [back.dialogues(record("ptbxl", i)) for i in "123"] == [list(DIALOGUES)] * 3
    assert back.dialogues(record("ptbxl", "4")) == []


def test_export_is_the_same_again_and_after_an_interruption(tmp_path):
    folder = dataset(tmp_path / "set", [row("1"), row("2")], [row("3"), row("4")])
    export_llava(folder, tmp_path / "whole")

    def interrupt(count: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_llava(folder, tmp_path / "twice", interrupt)
    assert not list((tmp_path / "twice").glob("*.json"))
    partial = tmp_path / "twice" / "images" / "00000" / "1-0.png"
    partial.write_bytes(b"half")
    export_llava(folder, tmp_path / "twice")
    assert bytes_of(tmp_path / "twice") == bytes_of(tmp_path / "whole")


def test_unsafe_and_equal_names_stay_apart_and_inside(tmp_path):
    names = ["../../evil", "a/b", "a_b", "A_B", "..", "", "C:\\x", "ä", "n" * 400, "a/b"]
    rows = [row(name, source="wfdb", image=picture(shade=k)) for k, name in enumerate(names)]
    out = tmp_path / "deep" / "out"
    export_llava(dataset(tmp_path / "set", rows), out)
    assert {p.name for p in tmp_path.iterdir()} == {"set", "deep"}
    samples = json.loads((out / "llava.json").read_text(encoding="utf-8"))
    images = [s["image"] for s in samples][::2]
    assert len({image.casefold() for image in images}) == len(names)
    assert [(out / image).read_bytes() for image in images] == [r["image"]["bytes"] for r in rows]
    assert [s["record_id"] for s in samples][::2] == names
    back = LlavaDialogues(out / "llava.json", "wfdb")
    assert [back.dialogues(record("wfdb", name)) for name in names] == [list(DIALOGUES)] * len(names)


def test_the_card_of_a_llava_folder_describes_its_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--limit", "3", "--width", "560", "--unreadable", "1"]
    assert main(["render", "simulated", str(out), *options, "--format", "llava"]) == 0
    assert {p.name for p in out.iterdir()} == {"README.md", "begun.json", "images", "llava.json", "manifest.json"}
    card = (out / "README.md").read_text(encoding="utf-8")
    samples = json.loads((out / "llava.json").read_text(encoding="utf-8"))
    assert f"`llava.json`: a JSON list of {len(samples)} samples" in card and "`images/`: 3 pages" in card
    assert ".parquet" not in card and "column `unreadable`" not in card
    assert all(f"`{key}`" in card for key in samples[0])
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["id"][:] == [sample["id"] for sample in samples]


def test_export_refuses_what_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match=r"no \.parquet shard; render the data set first"):
        export_llava(tmp_path, tmp_path / "out")
    folder = dataset(tmp_path / "set", [row("1", image=b"GIF89a")])
    with pytest.raises(InputError, match="record 1: image is neither PNG nor JPEG"):
        export_llava(folder, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"):
        export_llava(folder, tmp_path / "file")
    shard = next((folder / "data").glob("*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        export_llava(folder, tmp_path / "out")
    pq.write_table(pa.table({"image": ["x"]}), shard)
    with pytest.raises(InputError, match="column dialogues, record_id, source is missing"):
        export_llava(folder, tmp_path / "out")


# ---- import


@pytest.mark.parametrize(
    ("source", "record_id", "image"),
    [
        ("mimic", "44111511", "mimic/p1127/p11273115/s44111511/44111511-0.png"),
        ("mimic", "44111511", "mimic_v4/p1127/p11273115/s44111511/44111511-0.png"),
        ("mimic", "44111511", "gen_images/mimic_gen/44111511-0.png"),
        ("mimic", "44111511", "p1127/p11273115/s44111511/44111511.jpg"),
        ("mimic", "44111511", "44111511-0.png"),
        ("ptbxl", "1", "ptb-xl/records500/00000/00001_hr-0.png"),
        ("ptbxl", "21837", "ptb-xl/21837_hr-0.png"),
        ("ptbxl", "17", "records100\\00000\\00017_lr"),
        ("ptbxl", "17", "ptbxl/17-3.png"),
        ("ptbxl", "17", "00017_hr-0.png"),
        ("wfdb", "exams_part2/1026489", "code15_v4/1026489-0.png"),
        ("wfdb", "files/p1/44111511", "mimic/p1/44111511-0.png"),
        ("wfdb", "JS00001", "csn/WFDBRecords/01/JS00001-0.png"),
    ],
)
def test_records_are_matched_by_the_paths_of_published_images(tmp_path, source, record_id, image):
    llava = LlavaDialogues(write_samples(tmp_path / "e.json", sample(image), sample("cat.png")), source)
    (dialogue,) = llava.dialogues(record(source, record_id))
    assert (dialogue.question, dialogue.answer) == ("What is the rhythm?", "Sinus rhythm.")
    assert (dialogue.task, dialogue.form, dialogue.provenance, dialogue.statements) == ("rhythm", "open", "machine", ())
    assert llava.unmatched_samples == (0 if source == "wfdb" else 1)


@pytest.mark.parametrize(
    ("source", "record_id", "image"),
    [
        ("mimic", "1", "ptb-xl/00001_hr-0.png"),
        ("ptbxl", "1026", "code15_v4/1026-0.png"),
        ("ptbxl", "17", "images/00000/17-0.png"),
        ("mimic", "1026489", "code15_v4/1026489-0.png"),
        ("wfdb", "patient2/01", "db/patient1/01-0.png"),
        ("simulated", "cat", "cat-0.png"),
    ],
)
def test_a_record_is_not_confused_with_another(tmp_path, source, record_id, image):
    ours = {"record_id": "other", "source": source}
    llava = LlavaDialogues(write_samples(tmp_path / "e.json", sample(image), sample("a.png", **ours)), source)
    assert llava.dialogues(record(source, record_id)) == []
    assert len(llava.dialogues(record(source, "other"))) == 1


def test_the_id_names_the_record_where_the_image_does_not(tmp_path):
    path = write_samples(
        tmp_path / "e.json", sample("p/a.png", id="mimic-44111511"), sample("b.png", id="ptbxl-00001-17-0-3")
    )
    assert len(LlavaDialogues(path, "mimic").dialogues(record("mimic", "44111511"))) == 1
    with pytest.raises(InputError, match="none of 2 samples names a record of the source ptbxl"):
        LlavaDialogues(path, "ptbxl")


def test_turns_become_dialogues_in_the_order_of_the_file(tmp_path):
    samples = [
        sample("ptb-xl/00002_hr-0.png", "Q0?", "A0."),
        sample("ptb-xl/00001_hr-0.png", "Q1?", "A1.", "Q2?", "A2.", "Q3?", " "),
        sample("ptb-xl/00002_hr-0.png", "Q4?", "A4."),
        sample("ptb-xl/00001_hr-0.png", "Q5?", "A5."),
    ]
    samples[1]["conversations"].insert(0, {"from": "system", "value": "You read ECGs."})
    samples[3]["conversations"][0]["value"] = ["Q5?", "\n<image>"]
    llava = LlavaDialogues(write_samples(tmp_path / "e.json", *samples), "ptbxl")
    assert [(d.question, d.answer) for d in llava.dialogues(record("ptbxl", "1"))] == [
        ("Q1?", "A1."),
        ("Q2?", "A2."),
        ("Q5?", "A5."),
    ]
    assert (len(llava), llava.unmatched_samples, llava.empty_turns) == (4, 0, 1)


@pytest.mark.parametrize("chunk", [16, 64, 1 << 20])
@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"ensure_ascii": False}, {"lines": True}])
def test_every_way_of_writing_and_every_chunk_reads_the_same(tmp_path, monkeypatch, chunk, how):
    monkeypatch.setattr(render.dataset.json_stream, "_CHUNK", chunk)
    samples = [sample(f"ptb-xl/{i:05d}_hr-0.png", f"Où {i}?", f"Ici – {'é' * i}.") for i in range(1, 30)]
    path = write_samples(tmp_path / "e.json", *samples, **how)
    path.write_bytes(b"\xef\xbb\xbf \n" + path.read_bytes() + b"\n\n")
    llava = LlavaDialogues(path, "ptbxl")
    for i in range(1, 30):
        (dialogue,) = llava.dialogues(record("ptbxl", str(i)))
        assert (dialogue.question, dialogue.answer) == (f"Où {i}?", f"Ici – {'é' * i}.")


def test_a_worker_gets_positions_and_not_texts(tmp_path):
    path = write_samples(
        tmp_path / "e.json", *(sample(f"ptb-xl/{i % 900:05d}_hr-0.png", f"Q{i}?", "A" * 900) for i in range(2000))
    )
    llava = LlavaDialogues(path, "ptbxl")
    content = pickle.dumps(llava)
    assert len(content) < 2000 * 20 + 1000
    assert pickle.loads(content).dialogues(record("ptbxl", "17")) == llava.dialogues(record("ptbxl", "17"))
    assert len(llava.dialogues(record("ptbxl", "17"))) == 3


def test_a_large_file_is_not_kept_in_memory(tmp_path):
    path = tmp_path / "e.jsonl"
    text = json.dumps(sample("ptb-xl/00001_hr-0.png", "Q?", "A" * 40_000)) + "\n"
    path.write_text(text * 500)
    tracemalloc.start()
    llava = LlavaDialogues(path, "ptbxl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(llava) == 500
    assert peak < path.stat().st_size / 3


def test_a_file_changed_meanwhile_and_a_record_of_another_source(tmp_path):
    path = write_samples(tmp_path / "e.json", sample("ptb-xl/00001_hr-0.png"))
    llava = LlavaDialogues(path, "ptbxl")
    with pytest.raises(ValueError, match="of mimic"):
        llava.dialogues(record("mimic", "1"))
    for content in (b"", b"[[]]" * 99, b" " * 999, path.read_bytes()[3:] * 2):
        path.write_bytes(content)
        with pytest.raises(InputError, match="has changed while it was in use"):
            llava.dialogues(record("ptbxl", "1"))
    path.unlink()
    with pytest.raises(InputError, match="has changed while it was in use"):
        llava.dialogues(record("ptbxl", "1"))


GOOD = sample("ptb-xl/00001_hr-0.png")


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != key}


def turns(*conversation: Any) -> dict[str, Any]:
    return {**GOOD, "conversations": list(conversation)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "'text' is not a sample"),
        (without("image"), "image is missing"),
        ({**GOOD, "image": ["a.png"]}, r"image \['a.png'\] is not a path"),
        (without("conversations"), "conversations is missing"),
        ({**GOOD, "conversations": {}}, r"conversations \{\} is not a list of turns"),
        (turns("hello"), r"conversations\[0\].from 'hello': human and gpt must alternate"),
        (turns({"from": "gpt", "value": "A"}), r"conversations\[0\].from 'gpt'"),
        (turns({"from": "human", "value": "Q"}), "the last question has no answer"),
        (turns({"from": "human", "value": 7}), r"conversations\[0\].value 7 is not text"),
        (turns({"from": "human"}), r"conversations\[0\].value is missing"),
        (turns({"from": "human", "value": "\ud83d"}), "contains half a character"),
    ],
)
def test_a_damaged_sample_is_named(tmp_path, bad, message):
    path = write_samples(tmp_path / "e.json", GOOD, bad)
    with pytest.raises(InputError, match=rf"e\.json: sample 2: .*{message}.*; mend or delete this sample"):
        LlavaDialogues(path, "ptbxl")


ONE = json.dumps(GOOD).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no sample"),
        (b" [ ] ", "contains no sample"),
        (b"conversations", r"sample 1: not JSON \(Expecting value\)"),
        (b"[" + ONE, "after sample 1: neither a comma nor ]"),
        (b"[" + ONE + b" " + ONE + b"]", "after sample 1: neither a comma nor ]"),
        (b"[" + ONE + b",]", "sample 2: not JSON"),
        (b"[" + ONE + b"] [", "the list has ended, but more text follows"),
        (ONE + b"\n" + ONE[:-9], "sample 2: not JSON"),
        (ONE + b"," + ONE, "sample 2: not JSON"),
        (b"[" + ONE.replace(b"Sinus", b"\xff"), "sample 1: not UTF-8"),
        (b"[" * 99_999, "sample 1: nested too deep"),
        (b'{"a": ' + b"9" * 9999, "sample 1: .*digits"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "e.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        LlavaDialogues(path, "ptbxl")
    assert str(refusal.value).startswith(f"{path}: ")


def test_a_sample_that_never_ends_is_refused_before_the_whole_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(render.dataset.json_stream, "_CHUNK", 100)
    monkeypatch.setattr(render.dataset.json_stream, "_LONGEST_SAMPLE", 5000)
    path = tmp_path / "e.json"
    path.write_bytes(b"[" + ONE + b', {"id": "' + b"x" * 9_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="sample 2: not JSON"):
        LlavaDialogues(path, "ptbxl")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["no.json", "."])
def test_no_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot be read"):
        LlavaDialogues(tmp_path / name, "ptbxl")


@pytest.mark.parametrize(
    ("form", "question", "answer"),
    [
        ("closed", "Does this ECG show AFIB?", "Yes."),
        ("closed", "Is the axis normal?", "no, it is deviated to the left"),
        ("closed", "Is there noise?", "not sure"),
        ("open", "What is abnormal?", "No abnormality can be seen."),
        ("open", "What is seen in lead A? Explain.", "Nothing special"),
        ("choice", "Which axis?\nA. Normal\nB. Left\nC. Right", "The QRS points down. The answer is B."),
        ("choice", "Which one? (A) SR (B) AFIB", "B"),
        ("fill", "The rhythm is ____.", "sinus rhythm"),
        ("fill", "Fill in the blank: the rate is [blank] bpm", "Yes."),
    ],
)
def test_guess_form(form, question, answer):
    assert guess_form(question, answer) == form


@pytest.mark.parametrize(
    ("task", "question"),
    [
        ("report", "Please write a report about the rhythm and all else."),
        ("report", "Interpret this ECG."),
        ("rhythm", "Is there atrial fibrillation?"),
        ("features", "What is the heart rate?"),
        ("features", "How long is the QRS complex?"),
        ("morphology", "Which of these is seen?\nA. Sinus rhythm\nB. A rate of 80"),
        ("morphology", "Is there ST elevation?"),
    ],
)
def test_guess_task(task, question):
    assert guess_task(question, "Yes.") == task


def test_a_long_answer_to_an_open_question_is_a_report():
    assert guess_task("What does this ECG show?", "It shows much. " * 30) == "report"
    assert guess_task("What does this ECG show?", "Left bundle branch block.") == "morphology"


def test_form_and_task_of_composed_dialogues_are_guessed():
    source = SimulatedSource(1, 8)
    page_dialogues = [d for i in range(8) for d in compose_dialogues(source.read(i), np.random.default_rng(i))]
    assert [guess_form(d.question, d.answer) for d in page_dialogues] == [d.form for d in page_dialogues]
    right = [guess_task(d.question, d.answer) == d.task for d in page_dialogues]
    assert len(right) > 50 and np.mean(right) > 0.85


# ---- any input

texts = st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(lambda t: t and "<image>" not in t)
any_dialogue = st.builds(
    Dialogue,
    st.sampled_from(["features", "rhythm", "morphology", "report"]),
    st.sampled_from(["closed", "choice", "fill", "open"]),
    texts,
    texts,
    st.lists(st.sampled_from(["SR", "LAO/LAE", "STD_"])).map(tuple),
    st.sampled_from(["human", "machine", "simulated", "measured"]),
    st.sampled_from(["en", "de"]),
)


@quick
@given(page_dialogues=st.lists(any_dialogue, min_size=1, max_size=4), record_id=st.text(st.characters(codec="utf-8")))
def test_what_goes_out_comes_back(tmp_path, page_dialogues, record_id):
    samples = llava_samples(row(record_id, *page_dialogues, source="wfdb"), "images/00000/x-0.png")
    back = LlavaDialogues(write_samples(tmp_path / "e.json", *samples, ensure_ascii=False), "wfdb")
    assert back.dialogues(record("wfdb", record_id)) == list(dict.fromkeys(page_dialogues))


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "image", "conversations", "from", "value", "task"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def read_all(path: Path) -> None:
    """Open and read: complete dialogues, or an error message that names the file."""
    try:
        llava = LlavaDialogues(path, "ptbxl")
        dialogues = [d for i in range(20) for d in llava.dialogues(record("ptbxl", str(i)))]
        for dialogue in dialogues:
            assert all(isinstance(v, str) and v for k, v in dataclasses.asdict(dialogue).items() if k != "statements")
            pa.Table.from_pylist([dataclasses.asdict(dialogue)])
    except InputError as error:
        assert str(error).startswith(str(path))
        assert len(str(error)) < 1000


def test_extra_keys_of_other_tools_are_not_believed(tmp_path):
    further = {
        "task": "vqa",
        "form": 3,
        "provenance": "gpt-4",
        "statements": "SR",
        "language": "\ud83d",
        "source": "web",
    }
    path = write_samples(tmp_path / "e.json", {**GOOD, **further}, {**GOOD, "statements": ["\ud83d"], "record_id": 1})
    for dialogue in LlavaDialogues(path, "ptbxl").dialogues(record("ptbxl", "1")):
        assert dialogue == Dialogue("rhythm", "open", "What is the rhythm?", "Sinus rhythm.", (), "machine", "en")


@quick
@given(bad=st.lists(values | st.builds(lambda v: {**GOOD, "conversations": v}, values), max_size=3), extra=values)
def test_any_json_is_read_or_refused(tmp_path, bad, extra):
    further = {"statements": extra, "task": extra, "form": extra, "language": extra, "id": extra}
    read_all(write_samples(tmp_path / "e.json", {**GOOD, **further}, *bad))


new_bytes = st.binary(max_size=4) | st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\ud800", b"\xc3", b"\n"])


@quick
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 9), new_bytes), min_size=1, max_size=4),
    chunk=st.sampled_from([16, 4096]),
    lines=st.booleans(),
)
def test_any_damage_is_read_or_refused(tmp_path, monkeypatch, edits, chunk, lines):
    monkeypatch.setattr(render.dataset.json_stream, "_CHUNK", chunk)
    samples = [sample(f"ptb-xl/{i:05d}_hr-0.png", "Où?", "Là.", statements=["SR"], task="rhythm") for i in range(4)]
    path = write_samples(tmp_path / "e.json", *samples, lines=lines, ensure_ascii=False)
    content = path.read_bytes()
    for position, count, new in edits:
        start = int(position * len(content))
        content = content[:start] + new + content[start + count :]
    path.write_bytes(content)
    read_all(path)
