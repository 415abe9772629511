"""Pages that cannot be read: their pictures, the refusals that go with them, and how refusals are judged."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ecg_vlm import evaluation
from ecg_vlm.cli import main
from ecg_vlm.evaluation import evaluate, rejudge
from ecg_vlm.pages import load_pages
from eval.metrics.answers import RefusalMetrics
from eval.parser.parse import parse, refusal
from eval.report.write import text_table
from eval.storage import read_answers
from render.dataset.contact_sheet import contact_sheet
from render.dataset.llava import LlavaDialogues, export_llava
from render.dataset.parquet import open_dataset, write_dataset
from render.dataset.rows import Options, make_row
from render.dialogues.wording import REFUSALS
from render.errors import InputError
from render.negatives.unreadable import (
    KINDS,
    MISSING_SHARE,
    SUBJECTS,
    cut_off,
    make_unreadable,
    no_ecg,
    rotate_quarters,
)
from render.pages.augment.pipeline import ImageFile, PageImage, augment
from render.pages.geometry import transform_points
from render.pages.options import FORMATS
from render.pages.page import draw
from render.record import LEADS, EcgRecord
from render.simulator.simulate import SimulatedSource

SMALL = Options(width=400, closed=4, seed=6)
HALF = Options(width=400, closed=4, seed=6, unreadable=0.5)
REFUSAL_OF = {kind: "upside down" if kind == "on its side" else kind for kind in KINDS}


def picture_of(ecg_mv: NDArray[np.float64], layout: str = "3x4+1R", **effects: float) -> PageImage:
    record = EcgRecord("test", ecg_mv.astype(np.float32), 500.0, "test")
    width = 500 if layout.startswith("12") else 400
    return augment(draw(record, layout=layout, width=width, mask=True), effects, np.random.default_rng(1))


def pixels(picture: ImageFile) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"))


# --- pictures


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_drawn_at_many_sizes_and_never_the_same(subject: str) -> None:
    pictures = [no_ecg(np.random.default_rng([2, k]), 300, subject=subject, mask=True) for k in range(6)]
    assert no_ecg(np.random.default_rng([2, 0]), 300, subject=subject).data == pictures[0].data
    assert len({picture.data for picture in pictures}) == 6
    for picture in pictures:
        image = Image.open(io.BytesIO(picture.data))
        assert 130 <= max(image.size) <= 300 and min(image.size) > 80
        assert image.format == {".png": "PNG", ".jpg": "JPEG"}[picture.suffix]
        assert not isinstance(picture, PageImage) and picture.mask is not None
        assert picture.mask.shape == image.size[::-1] and not picture.mask.any()


def test_other_pictures_differ_in_colour_shape_and_detail() -> None:
    pictures = [pixels(no_ecg(np.random.default_rng([3, k]), 300)).astype(float) for k in range(80)]
    light = [image.mean() for image in pictures]
    assert min(light) < 60 and max(light) > 225
    chroma = [np.abs(image[..., 0] - image[..., 2]).mean() for image in pictures]
    assert np.quantile(chroma, 0.2) < 12 and np.quantile(chroma, 0.9) > 25
    aspect = [image.shape[0] / image.shape[1] for image in pictures]
    assert min(aspect) < 0.75 and max(aspect) > 1.35
    detail = [np.abs(np.diff(image, axis=1)).mean() for image in pictures]
    assert max(detail) > 8 * min(detail)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_page_has_its_geometry_and_mask_turned_with_it(ecg_mv: NDArray[np.float64], quarters: int) -> None:
    before = picture_of(ecg_mv, rotation=0.4)
    after = rotate_quarters(before, quarters)
    assert pixels(after).shape[:2] == (after.geometry.height, after.geometry.width)
    _same_at_the_same_places(before, after)


def _same_at_the_same_places(before: PageImage, after: PageImage) -> None:
    """Pixel and class at whatever point of the page both pictures show."""
    height, width = before.geometry.height, before.geometry.width
    points = np.random.default_rng(0).uniform(0, 1, (3000, 2)) * (width - 1, height - 1)
    old, new = (np.rint(transform_points(p.geometry.homography, points)).astype(int) for p in (before, after))
    inside = np.ones(len(points), dtype=bool)
    for picture, at in ((before, old), (after, new)):
        inside &= (at >= 0).all(axis=1) & (at < [picture.geometry.width, picture.geometry.height]).all(axis=1)
    assert inside.sum() > 100
    (x, y), (u, v) = old[inside].T, new[inside].T
    assert (pixels(before)[y, x] == pixels(after)[v, u]).all(axis=1).mean() > 0.99
    assert before.mask is not None and after.mask is not None
    assert (before.mask[y, x] == after.mask[v, u]).mean() > 0.99


@pytest.mark.parametrize("layout", FORMATS)
def test_a_cut_page_loses_a_third_of_its_leads_and_never_all(ecg_mv: NDArray[np.float64], layout: str) -> None:
    before = picture_of(ecg_mv, layout)
    leads = {lead.lead for lead in before.geometry.leads}
    for seed in range(12):
        after, missing = cut_off(before, np.random.default_rng([7, seed]))
        assert set(missing) < leads and len(missing) >= MISSING_SHARE * len(leads)
        assert list(missing) == [lead for lead in LEADS if lead in missing]
        assert pixels(after).shape[:2] == (after.geometry.height, after.geometry.width)
    _same_at_the_same_places(before, after)


@pytest.mark.parametrize("layout", ["3x4", "6x2", "12x1", "3x2"])
def test_the_leads_named_are_those_of_which_most_is_gone(ecg_mv: NDArray[np.float64], layout: str) -> None:
    before = picture_of(ecg_mv, layout, perspective=0.3)
    cases = 0
    for seed in range(20):
        after, missing = cut_off(before, np.random.default_rng(seed))
        size = np.array([after.geometry.width, after.geometry.height])
        for trace in after.geometry.leads:
            x = np.linspace(trace.box[0], trace.box[2], 200)
            ends = transform_points(after.geometry.homography, np.column_stack([x, np.full(200, trace.baseline_y)]))
            share = ((ends > -0.5) & (ends < size - 0.5)).all(axis=1).mean()
            if abs(share - 0.5) > 0.1 and np.abs(ends[:, 1]).min() > 20 and np.abs(ends[:, 1] - size[1]).min() > 20:
                assert (trace.lead in missing) == (share < 0.5)
                cases += 1
    assert cases > 50


def test_a_part_of_a_rhythm_strip_as_long_as_a_column_is_a_lead_that_can_be_read(ecg_mv: NDArray[np.float64]) -> None:
    before, cases = picture_of(ecg_mv, "3x4+1R"), 0
    for seed in range(100):
        after, missing = cut_off(before, np.random.default_rng(seed))
        strip = after.geometry.leads[-1]
        assert strip.lead == "II"
        matrix, size = after.geometry.homography, (after.geometry.width, after.geometry.height)
        (left, y), (right, _) = transform_points(matrix, np.array([[strip.box[k], strip.baseline_y] for k in (0, 2)]))
        visible = (min(right, size[0]) - max(left, 0)) / (right - left)
        if 0.3 < visible < 0.5 and 10 < y < size[1] - 10:
            cases += 1
            assert "II" not in missing
    assert cases > 5


def test_each_kind_comes_about_as_often_as_it_should(ecg_mv: NDArray[np.float64]) -> None:
    picture = picture_of(ecg_mv)
    pages = [make_unreadable(picture, np.random.default_rng([1, k])) for k in range(120)]
    for kind, share in KINDS.items():
        assert abs(sum(page.kind == kind for page in pages) / 120 - share) < 4 * (share * (1 - share) / 120) ** 0.5
    assert all(bool(page.missing_leads) == (page.kind == "cut off") for page in pages)
    assert all(isinstance(page.picture, PageImage) == (page.kind != "not an ECG") for page in pages)


# --- rows and data sets


def test_rows_refuse_questions_that_the_page_was_asked_and_leave_the_others_alone() -> None:
    source, kinds = SimulatedSource(3, 30), set()
    for i in range(len(source)):
        record = source.read(i)
        plain, row = make_row(record, i, SMALL), make_row(record, i, HALF)
        why = row.pop("unreadable")
        if not why:
            assert row == plain
            continue
        kinds.add(why)
        assert row["statements"] == [] and refusal(row["report"]) == REFUSAL_OF[why]
        assert row["image"]["bytes"] != plain["image"]["bytes"]
        assert row["patient_id"] == plain["patient_id"] and row["record_id"] == plain["record_id"]
        assert (json.loads(row["geometry"]) == {}) == (why == "not an ECG") == (row["layout"] == "")
        questions = {(d["task"], d["form"], d["messages"][0]["content"]) for d in plain["dialogues"]}
        assert 3 <= len(row["dialogues"]) <= 6
        for dialogue in row["dialogues"]:
            question, answer = (message["content"] for message in dialogue["messages"])
            assert (dialogue["task"], dialogue["form"], question) in questions
            assert dialogue["statements"] == [] and refusal(answer) == REFUSAL_OF[why]
            assert parse(answer, question).findings == ()
    assert kinds == set(KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("half") / "d"
    write_dataset(SimulatedSource(3, 24), out, HALF)
    return out


def test_a_data_set_names_its_unreadable_pages_and_nothing_where_there_are_none(folder: Path, tmp_path: Path) -> None:
    manifest, card = json.loads((folder / "manifest.json").read_text()), (folder / "README.md").read_text()
    rows = open_dataset(folder)
    counts = {why: rows["unreadable"][:].count(why) for why in KINDS if why in rows["unreadable"][:]}
    assert manifest["unreadable_counts"] == counts and sum(counts.values()) in range(5, 20)
    assert manifest["options"]["unreadable"] == 0.5 and "pages that cannot be read" in card
    assert set(manifest["closed_answers"]) == {"Yes.", "No."}
    assert "" not in manifest["layout_words"] and "" not in manifest["style_words"]
    write_dataset(SimulatedSource(3, 3), tmp_path / "none", SMALL)
    text = "".join((tmp_path / "none" / name).read_text() for name in ("manifest.json", "README.md", "begun.json"))
    assert "unreadable" not in text
    assert "unreadable" not in open_dataset(tmp_path / "none").column_names


def test_refusals_go_out_as_conversations_and_come_back(folder: Path, tmp_path: Path) -> None:
    assert export_llava(folder, tmp_path) == sum(len(dialogues) for dialogues in open_dataset(folder)["dialogues"])
    conversations = LlavaDialogues(tmp_path / "llava.json", "simulated")
    source = SimulatedSource(3, 24)
    rows = open_dataset(folder)
    i = next(i for i, why in enumerate(rows["unreadable"]) if why)
    back = conversations.dialogues(source.read(i))
    assert {d.answer for d in back} == {d["messages"][-1]["content"] for d in rows[i]["dialogues"]}
    assert all(d.statements == () for d in back)


def test_masks_and_previews_hold_for_unreadable_pages() -> None:
    options = Options(width=400, closed=2, mask=True, unreadable=1.0)
    rows = [make_row(SimulatedSource(1, 12).read(i), i, options) for i in range(12)]
    for row in rows:
        sizes = {Image.open(io.BytesIO(row[name]["bytes"])).size for name in ("image", "mask")}
        assert len(sizes) == 1
    assert contact_sheet(rows).startswith(b"\x89PNG")


def test_a_share_is_between_nought_and_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for share in ("1.5", "-0.1", "nan", "ten"):
        assert main(["render", "simulated", str(tmp_path / "d"), f"--unreadable={share}"]) == 2
        assert "not a share from 0 to 1" in capsys.readouterr().err
    for value in (1.1, -0.1, float("nan")):
        with pytest.raises(InputError, match="is not a share of the pages"):
            Options(unreadable=value)
    where = str(tmp_path / "d")
    assert main(["render", "simulated", where, "--limit=2", "--width=400", "--unreadable=1"]) == 0
    assert all(open_dataset(where)["unreadable"])


# --- answers


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("not an ECG", "I cannot read this, it is not an ECG"),
        ("not an ECG", "This is a photo of a dog."),
        ("not an ECG", "This image does not appear to be an ECG."),
        ("not an ECG", "No ECG is visible here."),
        ("not an ECG", "It looks like a chest X-ray; please send an ECG."),
        ("not an ECG", "No, this isn’t a 12-lead ECG."),
        ("not an ECG", "Auf dem Bild ist kein EKG zu sehen."),
        ("upside down", "The image appears to be rotated."),
        ("upside down", "The page is upside-down, please turn it."),
        ("upside down", "Please rotate the image and ask again."),
        ("upside down", "The picture seems rotated by 90 degrees."),
        ("cut off", "V4 to V6 are missing."),
        ("cut off", "The image appears truncated; leads V4-V6 are not visible."),
        ("cut off", "The picture is cropped on the right."),
        ("", "Poor R-wave progression."),
        ("", "Cannot exclude ischaemia."),
        ("", "There is no ECG evidence of ischaemia."),
        ("", "Artefact in V1."),
        ("", "V1 cannot be read because of artefact."),
        ("", "This is not a normal ECG."),
        ("", "This is not an ECG of a healthy heart."),
        ("", "Does not meet ECG criteria for LVH."),
        ("", "The T waves are upside down in V1 to V3."),
        ("", "The axis is rotated to the left."),
        ("", "This is a picture of an inferior infarction."),
        ("", "The image is not rotated and the page is not cut off."),
        ("", "The ECG is cut off on the right. Atrial fibrillation."),
        ("", "Lead V1 is missing its R wave."),
        ("", "The voltage exceeds the cut-off value in V2."),
        ("", ""),
    ],
)
def test_refusals_are_told_from_findings(kind: str, answer: str) -> None:
    assert refusal(answer) == kind
    if kind:
        assert parse(answer, "Does this ECG show atrial fibrillation?").findings == ()


@pytest.mark.parametrize("leads", ["V6", "I and II", "I, II, and III", "aVR, aVL, and aVF"])
def test_our_own_refusals_are_recognised_and_say_nothing_else(leads: str) -> None:
    questions = ("Is this a normal ECG?", "The rhythm is ____.", "Which one? A. Atrial fibrillation B. Normal ECG")
    for by_kind in REFUSALS.values():
        for kind, wordings in by_kind.items():
            assert wordings
            for wording in wordings:
                answer = wording.format(leads=leads)
                assert refusal(answer) == REFUSAL_OF[kind], answer
                assert all(parse(answer, question).findings == () for question in questions)


_WORDS = ("not", "no", "an", "ECG", "V1", "the", "page", "is", "cut off", "upside down", ".", "rotated", "AF")


@given(st.text() | st.lists(st.sampled_from(_WORDS)))
def test_any_text_can_be_asked_whether_it_refuses(text: str | list[str]) -> None:
    answer = text if isinstance(text, str) else " ".join(text)
    assert refusal(answer) in ("", "not an ECG", "upside down", "cut off", "declined")
    if refusal(answer):
        assert parse(answer).present == ()


# --- judging


class _Refusing:
    """Stands in for a model: scores by chance, refuses the pictures that it is told to."""

    name = "a fake"
    batch_size = 8

    def __init__(self, refusal_pictures: set[bytes]) -> None:
        self.refusal_pictures, self.random, self.image_count = refusal_pictures, np.random.default_rng(0), 0

    def prefill(self, images: list[Image.Image]) -> list[Image.Image]:
        return images

    def score_many(self, images: list[Image.Image]) -> NDArray[np.float64]:
        self.image_count += len(images)
        return self.random.random((len(images), 71))

    def ask_many(self, images: list[Image.Image], question: str, *, max_new_tokens: int) -> list[str]:
        return [
            "This is not an ECG." if image.convert("RGB").tobytes() in self.refusal_pictures else "Sinus rhythm."
            for image in images
        ]


def test_unreadable_pages_count_among_the_refusals_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = load_pages(str(folder))
    spoilt_rows = list(pages.unreadable)
    assert len(pages.rows) + len(spoilt_rows) == 24 and not any(pages.rows["unreadable"])
    images = [row["image"] for row in spoilt_rows[1:]] + [pages.rows[0]["image"]]
    fake = _Refusing({image.convert("RGB").tobytes() for image in images})
    monkeypatch.setattr(evaluation, "_load", lambda spec, loading: fake)
    monkeypatch.setattr(evaluation, "_device", lambda reader: "none")
    first = evaluate("fake", pages, tmp_path / "a")
    refusals = first.systems[0].refusals
    assert refusals is not None
    n = len(spoilt_rows)
    assert (refusals.unreadable, refusals.refused) == (n, n - 1)
    assert (refusals.readable, refusals.wrongly_refused) == (len(pages.rows), 1)
    assert fake.image_count == first.records == len(pages.rows)
    assert first.systems[0].hard is not None and first.systems[0].hard.answers == len(pages.rows)
    sentence = f"{n - 1} of {n} pages that cannot be read are refused"
    assert sentence in text_table(first) and sentence in (tmp_path / "a" / "report.html").read_text()
    assert rejudge(tmp_path / "a", tmp_path / "b").to_json() == first.to_json()
    assert rejudge(tmp_path / "a" / "answers.jsonl", tmp_path / "c").systems[0].refusals == refusals
    assert RefusalMetrics(0, 0, 4, 1).lines() == ("1 of 4 records: nothing but refusals (25.0 %)",)


def test_a_file_of_answers_says_which_pages_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    line = {"record_id": "a", "question": "q", "answer": "Not an ECG.", "unreadable": "not an ECG"}
    file.write_text(json.dumps(line))
    assert read_answers(file, valid_ids=["b"])[0].unreadable == "not an ECG"
    file.write_text(json.dumps({**line, "unreadable": 3}))
    with pytest.raises(InputError, match="line 1: field 'unreadable' is 3"):
        read_answers(file)


def test_a_data_set_without_a_readable_page_is_not_judged(tmp_path: Path) -> None:
    write_dataset(SimulatedSource(3, 2), tmp_path / "d", Options(width=400, closed=2, unreadable=1.0))
    with pytest.raises(InputError, match="every page is unreadable"):
        load_pages(str(tmp_path / "d"))
