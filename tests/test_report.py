"""The files of an evaluation and the report made from them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ecg_vlm.control_pages import derangement
from eval.metrics.bootstrap import Interval, bootstrap_rankings
from eval.metrics.calibration import fit
from eval.metrics.controls import Control
from eval.metrics.judge import Evaluation, Report
from eval.metrics.published import PUBLISHED_RESULTS
from eval.report.charts import COLOURS, DARK_COLOURS, Look
from eval.report.explanations import EXPLANATIONS
from eval.report.figures import write_figures
from eval.report.gallery import Example, gallery
from eval.report.write import text_table, write_report
from eval.storage import read_answer, read_answers, read_scores, read_scores_file, write_answers, write_scores
from eval.types import Answer, LabelledRecords, System, task_view
from render.errors import InputError
from render.statements import STATEMENTS

CODES = tuple(STATEMENTS)
N = 80
IDS = tuple(f"r{i:03d}" for i in range(N))


def _labels() -> tuple[tuple[str, ...], ...]:
    random = np.random.default_rng(0)
    y = random.random((N, 71)) < np.geomspace(0.02, 0.4, 71)
    y[:, CODES.index("SR")] = random.random(N) < 0.7
    y[:, CODES.index("INJIN")] = False
    y[:, CODES.index("NORM")] |= ~y.any(axis=1)
    return tuple(tuple(code for code, has in zip(CODES, row, strict=True) if has) for row in y)


LABELS = _labels()


def _scores(strength: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    y = np.array([[code in codes for code in CODES] for codes in LABELS])
    return 1 / (1 + np.exp(-random.normal(size=y.shape) - strength * y))


def _png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), "white").save(file, "PNG")
    return file.getvalue()


RECORDS = LabelledRecords(IDS, LABELS, "made-up records, seed 0")


def _write(out: Path, *systems: System, examples: Sequence[Example] = (), seed: int = 0, **fields: Any) -> Report:
    meta = {"commit": "abc1234", "versions": {"numpy": np.__version__}}
    evaluation = replace(Evaluation("a test", RECORDS, systems, meta=meta), **fields)
    return write_report(out, evaluation, examples=examples, resamples=60, seed=seed)


def _auc(report: Report, place: int) -> dict[str, Interval]:
    """Task -> macro-AUC of a system with scores."""
    intervals = report.systems[place].macro_auc
    assert intervals is not None
    return intervals


BASE = System("base", IDS, _scores(0.0, 1))
LORA_SCORES = _scores(1.0, 2)
LORA = System("tuned", IDS, LORA_SCORES, notes="LoRA")


# --- files


def test_scores_come_back(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, IDS, LORA_SCORES)
    ids, scores = read_scores(path, valid_ids=IDS)
    assert ids == IDS
    assert np.array_equal(scores, LORA_SCORES)
    assert pq.read_table(path).column_names == ["record_id", *CODES]


def _table(**change: object) -> pa.Table:
    columns: dict[str, object] = {"record_id": ["a", "b"], **{code: [0.1, 0.2] for code in CODES}}
    columns.update(change)
    return pa.table({k: v for k, v in columns.items() if v is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict.fromkeys(CODES), "no column is a statement code"),
        ({"record_id": None}, "column record_id missing"),
        ({"SR": [0.1, float("nan")]}, "record 'b', column SR: nan"),
        ({"SR": [0.1, None]}, "record 'b', column SR: nan"),
        ({"SR": [1.5, 0.2]}, "record 'a', column SR: 1.5"),
        ({"SR": [-0.1, 0.2]}, "record 'a', column SR: -0.1"),
        ({"SR": ["x", "y"]}, "does not hold numbers"),
        ({"record_id": ["a", "a"]}, "'a' occurs twice"),
        ({"record_id": ["a", "zz"]}, "'zz' is not among"),
    ],
)
def test_bad_scores_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "scores.parquet"
    pq.write_table(_table(**change), path)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_scores(path, valid_ids=["a", "b"])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_beside_the_scores_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    records = replace(
        RECORDS,
        folds=(9, None) * (N // 2),
        patients=tuple(f"p{i}" for i in range(N)),
        references=("", "Sinus rhythm.") * (N // 2),
    )
    write_scores(path, IDS, LORA_SCORES, records, {"name": "tuned", "cost": {"seconds": 3}})
    file = read_scores_file(path)
    assert file.records == records
    assert file.about == {"name": "tuned", "cost": {"seconds": 3}}
    assert read_scores(path)[0] == IDS
    write_scores(path, IDS, LORA_SCORES)
    assert read_scores_file(path).records is None


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "none.parquet")
    (tmp_path / "x.parquet").write_text("not parquet")
    with pytest.raises(InputError, match="not a readable Parquet"):
        read_scores(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="scores are"):
        write_scores(tmp_path / "y.parquet", IDS, np.zeros((N, 70)))
    assert not (tmp_path / "y.parquet").exists()


def test_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    answers = (
        read_answer(
            "r000", "What is it?", "Vorhofflimmern – no LVH.\nPossible WPW.\u2028", {"seed": 3, "do_sample": False}
        ),
        Answer("r001", "And here?", ""),
    )
    assert (answers[0].present, answers[0].absent, answers[0].uncertain) == (("AFIB",), ("LVH",), ("WPW",))
    write_answers(path, answers)
    assert read_answers(path, valid_ids=IDS) == answers
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["parsed"]["present"] == ["AFIB"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: needs a JSON object"),
        ('{"record_id": "a", "question": "q"}', "line 2: needs a text under answer"),
        ('{"record_id": [7], "question": "q", "answer": "x"}', "line 2: field 'record_id' (or ecg_id, id) is [7]"),
        ('{"record_id": "zz", "question": "q", "answer": "x"}', "'zz' is not among"),
        ('{"record_id": "a", "question": "q", "answer": "x", "parsed": {"present": ["XX"]}}', "contains 'XX'"),
        ('{"record_id": "a", "question": "q", "answer": "x", "parsed": {"present": [["SR"]]}}', "not one of the 71"),
        (
            '{"record_id": "a", "question": "q", "answer": "x", "parsed": {"present": ["SR"], "absent": ["SR"]}}',
            "twice",
        ),
    ],
)
def test_bad_answers_are_named_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"record_id": "a", "question": "q", "answer": "x"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        read_answers(path, valid_ids=["a"])


def test_a_system_checks_itself() -> None:
    with pytest.raises(InputError, match="occurs twice"):
        System("s", ("a", "a"))
    with pytest.raises(InputError, match="unknown record_id"):
        System("s", ("a",), answers=(Answer("b", "q", "x"),))


# --- figures


def test_the_report_says_what_the_metrics_say(tmp_path: Path) -> None:
    report = _write(tmp_path, LORA, BASE, seed=4)
    view = task_view(LABELS, "superdiagnostic")
    lora, base = (
        bootstrap_rankings(view.labels, view.scores(system.scores_of(IDS)), view.classes, resamples=60, seed=4).auc
        for system in (LORA, BASE)
    )
    assert _auc(report, 0)["superdiagnostic"] == lora.summary().macro
    assert report.differences[0].macro_auc["superdiagnostic"] == lora.minus(base).summary().macro
    assert report.tasks["all"].left_out == ("INJIN",)
    assert report.positives["INJIN"] == 0
    assert report.tasks["rhythm"].records == int(task_view(LABELS, "rhythm").has_label.sum())


def test_row_order_of_a_system_does_not_matter(tmp_path: Path) -> None:
    back = System("tuned", IDS[::-1], LORA_SCORES[::-1])
    assert _write(tmp_path, back).systems[0].macro_auc == _write(tmp_path, LORA).systems[0].macro_auc


def test_a_report_from_files_is_the_same(tmp_path: Path) -> None:
    answers = tuple(
        read_answer(i, "What is it?", "; ".join(codes) or "nothing") for i, codes in zip(IDS, LABELS, strict=True)
    )
    first = _write(tmp_path / "a", System("tuned", IDS, LORA_SCORES, answers), BASE)
    for system in (BASE, LORA):
        write_scores(tmp_path / f"{system.name}.parquet", IDS, system.scores_of(IDS))
    write_answers(tmp_path / "answers.jsonl", answers)
    lora = System("tuned", *read_scores(tmp_path / "tuned.parquet"), read_answers(tmp_path / "answers.jsonl"))
    second = _write(tmp_path / "b", lora, System("base", *read_scores(tmp_path / "base.parquet")))
    assert second == first
    for name in ("report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    hard = first.systems[0].hard
    assert hard is not None
    assert hard.decisions.balanced_accuracy["all"].value > 0.99  # the answers are the labels
    assert hard.decisions.f1["all"].value > 0.99
    assert hard.decisions.exact_match["rhythm"].value > 0.9
    assert first.systems[1].hard is None


def test_headlines(tmp_path: Path) -> None:
    better = _write(tmp_path, LORA, BASE)
    assert re.fullmatch(
        r"tuned beats base by 0\.\d\d macro-AUC \(95 % interval 0\.\d\d to 0\.\d\d\) on 80 held-out pages\.",
        better.headline,
    )
    assert _write(tmp_path, BASE, LORA).headline.startswith("base falls behind tuned by 0.")
    same = _write(tmp_path, System("tuned", IDS, _scores(0.0, 9)), BASE)
    assert same.headline.startswith("No difference between tuned and base can be shown")
    assert _write(tmp_path, LORA).headline.startswith("tuned reaches a macro-AUC of 0.")
    words_only = System("talker", IDS, None, (Answer("r000", "q", "AFIB", ("AFIB",)),))
    assert "none gave probabilities" in _write(tmp_path, words_only).headline
    assert _write(tmp_path, words_only, LORA, BASE).differences == ()  # the first system is the one to compare


def test_evaluations_that_cannot_be_judged_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scores for 1 of 80 records"):
        _write(tmp_path, System("short", IDS[1:], LORA_SCORES[1:]))
    with pytest.raises(InputError, match="same name"):
        _write(tmp_path, LORA, LORA)
    with pytest.raises(InputError, match="nothing to judge"):
        _write(tmp_path, LORA, records=LabelledRecords(IDS, ((),) * N, "empty"))
    with pytest.raises(InputError, match="no system to judge"):
        _write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_figures_of_decisions_and_of_probabilities_never_share_a_place(tmp_path: Path) -> None:
    calibration = fit(LORA, RECORDS)
    report = _write(tmp_path, LORA, BASE, calibrations={"tuned": calibration})
    first, second = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["systems"]
    hard = {"f1", "precision", "recall", "balanced_accuracy", "hamming_loss", "exact_match", "statement_f1"}
    assert set(first["thresholded"]) == hard
    assert set(first["thresholded"]["statement_f1"]) == set(first["statement_auc"])
    assert not hard & (set(first) | set(first["probabilities"]))
    assert not {"macro_auc", "brier", "fmax", "average_precision"} & set(first["thresholded"])
    assert second["thresholded"] is None and second["calibrated"] is None
    # Fitted on the very records that are judged: there is a warning, and the calibrated figures are better.
    assert any("fitted on 80 of the records" in line for line in report.warnings)
    assert first["calibrated"]["brier"]["all"]["value"] < first["probabilities"]["brier"]["all"]["value"]
    assert first["macro_auc"] == json.loads(_write(tmp_path, LORA).to_json())["systems"][0]["macro_auc"]


def test_controls_say_whether_the_score_needs_the_page(tmp_path: Path) -> None:
    blank = System("tuned", IDS, np.full((N, 71), 0.5))
    permutation = System("tuned", IDS, LORA_SCORES[derangement(N, 1)])
    controls = (Control("blank", "", blank), Control("shuffled", "seed 1", permutation), Control("copied", "", LORA))
    report = _write(tmp_path, LORA, controls=controls)
    assert [c.macro_auc["all"].value == 0.5 for c in report.controls] == [True, False, False]
    assert not any(c.suspicious for c in report.controls)
    assert report.controls[2].difference["all"].value == 0.0
    loss = report.controls[0].difference["all"].value
    assert loss == pytest.approx(0.5 - _auc(report, 0)["all"].value, abs=1e-12)
    report = _write(tmp_path, LORA, controls=(Control("shuffled", "", LORA),))
    assert report.controls[0].suspicious
    assert "part of the score comes from elsewhere" in report.warnings[0]
    assert report.warnings[0] in (tmp_path / "report.html").read_text(encoding="utf-8")


# --- the page


class _Loads(HTMLParser):
    """Collects tags, and every attribute that makes a browser load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action", "poster")]


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    example = Example(_png(), "What is it?", (("base", "no idea"), ("tuned", "AFIB")), ("AFIB",), "r000")
    _write(tmp_path, LORA, BASE, examples=[example])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = _Loads()
    page.feed(html)
    assert page.addresses
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert not re.search(r"https?://", html)


def test_the_contents_lead_to_every_section_and_each_figure_is_explained(tmp_path: Path) -> None:
    talker = replace(LORA, name="talker", answers=(Answer("r000", "q", "AFIB", ("AFIB",)),), training="tuned on page 7")
    blank = Control("blank", "", System("tuned", IDS, np.full((N, 71), 0.5)))
    example = Example(_png(), "What is it?", (), ("AFIB",), "r000")
    calibrations = {"talker": fit(talker, RECORDS)}
    _write(tmp_path, talker, BASE, examples=[example], controls=(blank,), calibrations=calibrations)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    sections = re.findall(r'<h2 id="([\w-]+)">', html)
    contents = re.findall(r'<a href="#([\w-]+)">', html[html.index("<nav") : html.index("</nav>")])
    assert sections == contents and html.count("<h2") == len(sections) == len(set(sections))
    explained = re.findall(r'<dt><a href="#([\w-]+)">[^<]*</a></dt><dd>([^<]*)</dd>', html)
    assert {name for name, _ in explained} == {*EXPLANATIONS} - {"cost"}  # no system has a cost here
    assert set(sections) - {*EXPLANATIONS} == {"left-out", "how-to-read", "how-made", "explained"}
    for text in EXPLANATIONS.values():
        assert len(re.findall(r"\.(?:\s+(?=[A-Z0]))", text)) == 1 and text.endswith(".")
    for row in re.findall(
        r'<table class="tasks">.*?</table>', html, re.DOTALL
    ):  # whose heads a telephone does not show
        assert "data-label" in row and not re.search(r'<td class="num[\w ]*">', row)
    assert "tuned on page 7" in html and "not known; ask those who made it" in html
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["systems"][0]["training"] == "tuned on page 7"


def test_charts_fit_any_width(tmp_path: Path) -> None:
    _write(tmp_path, LORA, BASE)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    plots = re.findall(r'<svg class="plot" ([^>]*)>(.*?)</svg></div>', html, re.DOTALL)
    assert len(plots) == 2 + 6 + 70  # two axes, six tasks, seventy statements with both kinds of records
    for attributes, inside in plots:
        assert 'width="100%"' in attributes and "viewBox" not in attributes  # which would shrink the labels
        across = re.findall(r'\b(?:x|x1|x2)="([^"]*)"', re.sub(r"<(rect|polygon|circle)[^>]*>", "", inside))
        assert across and all(x.endswith("%") and 0 <= float(x[:-1]) <= 100 for x in across)
    panels = re.findall(r'<svg class="panel" ([^>]*)>', html)
    assert panels and all('width="100%"' in attributes and 'viewBox="0 0 ' in attributes for attributes in panels)
    css = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"\.(chart|plot|panel)[^{}]*\{[^}]*min-width: *[1-9]", css)


def test_every_system_has_a_look_of_its_own(tmp_path: Path) -> None:
    looks = [(look.colour, look.dash, look.shape) for look in map(Look, range(16))]
    assert len(set(looks)) == 16
    assert len({look[0] for look in looks[:8]}) == len({look[2] for look in looks[:8]}) == 8
    many = [System(f"s{i}", IDS, _scores(0.2 * i, i)) for i in range(9)]
    _write(tmp_path, *many)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    marks = [re.search(rf"(<svg class=.mark.*?</svg>)s{i}<", html)[1] for i in range(9)]  # type: ignore[index]
    assert len(set(marks)) == 9


@pytest.mark.parametrize("colours", [COLOURS, DARK_COLOURS])
def test_colours_differ_for_the_colour_blind(colours: tuple[str, ...]) -> None:
    """CIELAB distances under the full dichromacies of Machado et al. 2009, tables 1 to 3."""
    simulations = {
        "normal": np.eye(3),
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for name, matrix in simulations.items():
        lab = _cielab(np.clip(linear @ np.array(matrix).T, 0, 1))
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(len(lab))
        assert distances.min() > 20, name


def _cielab(linear: np.ndarray) -> np.ndarray:
    xyz = (
        linear
        @ np.array(
            [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
        ).T
    )
    ratio = xyz / [0.95047, 1.0, 1.08883]
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_figures_open_and_are_the_same_each_time(tmp_path: Path) -> None:
    strange = System("$x^2$ & <b>", IDS, _scores(0.5, 5))
    report = _write(tmp_path / "r", LORA, BASE, strange, calibrations={"tuned": fit(LORA, RECORDS)})
    first, second = write_figures(tmp_path / "a", report), write_figures(tmp_path / "b", report)
    names = ("macro-auc", "reliability", "differences", "roc")
    assert [path.name for path in first] == [f"{name}.{kind}" for name in names for kind in ("svg", "pdf")]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    for path in first[::2]:
        root = ElementTree.parse(path).getroot()
        width = 183 if path.stem in ("roc", "reliability") else 89
        assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(width / 25.4 * 72, abs=0.01)
        assert len(root.findall(".//{http://www.w3.org/2000/svg}text")) > 10  # text, and not outlines
    assert "$x^2$ &amp; &lt;b&gt;" in first[0].read_text(encoding="utf-8")
    for path in first[1::2]:
        content = path.read_bytes()
        assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in content and b"/Type3" not in content  # TrueType
        assert b"CreationDate" not in content
    assert len(write_figures(tmp_path / "c", _write(tmp_path / "s", LORA))) == 6  # nothing to compare with
    words_only = System("talker", IDS, None, (Answer("r000", "q", "AFIB", ("AFIB",)),))
    assert write_figures(tmp_path / "d", _write(tmp_path / "w", words_only)) == []


def test_answers_names_and_metadata_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>{{ 7*7 }}'
    example = Example(_png(), evil, ((evil, evil),), (evil,), evil, evil)
    system = System(evil, IDS, LORA_SCORES, (Answer("r000", "q", evil, reference=evil),), evil, {evil: evil})
    _write(
        tmp_path,
        system,
        BASE,
        title=evil,
        examples=[example],
        meta={evil: evil, "s": {evil: evil}},
        records=LabelledRecords(IDS, LABELS, evil, noun=evil),
        calibrations={evil: replace(fit(system, RECORDS), data=evil)},
        controls=(Control("shuffled", evil, system),),
        contamination=(evil,),
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "{{ 7*7 }}" in html
    page = _Loads()
    page.feed(html)
    assert "script" not in page.tags


def test_the_page_holds_what_it_must(tmp_path: Path) -> None:
    report = _write(tmp_path, LORA, BASE)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert report.headline in html
    assert "Not a medical device" in html
    assert "INJIN" in html  # the class left out is named
    assert "abc1234" in html
    for row in PUBLISHED_RESULTS:
        assert row.name in html
    assert "Not comparable with a sample" in html
    assert html.count("<svg") >= 2
    assert f"{_auc(report, 0)['all'].value:.3f}" in html


def test_report_json_holds_everything_and_no_nan(tmp_path: Path) -> None:
    report = _write(tmp_path, LORA, BASE, examples=[Example(_png(), "q", (("base", "b"),), ("SR",), why="w")])
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert data["format"] == 2
    assert data["records_sha256"] == report.records_sha256
    assert data["systems"][1]["macro_auc"]["all"]["value"] == _auc(report, 1)["all"].value
    assert set(data["systems"][0]["statement_auc"]) == set(CODES) - {"INJIN"}
    assert data["meta"]["commit"] == "abc1234"
    assert data["examples"] == [
        {"question": "q", "answers": [["base", "b"]], "statements": ["SR"], "record_id": "", "why": "w"}
    ]


def test_a_task_without_records_is_a_dash_and_no_error(tmp_path: Path) -> None:
    labels = tuple(("AFIB",) if i % 2 else ("SR",) for i in range(N))
    report = _write(tmp_path, LORA, BASE, records=LabelledRecords(IDS, labels, "rhythm only"))
    assert report.tasks["form"].records == 0
    assert "form" not in _auc(report, 0)
    assert "–" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text_table(report)


def test_text_table_is_narrow_and_complete(tmp_path: Path) -> None:
    report = _write(tmp_path, LORA, BASE)
    table = text_table(report)
    assert max(len(line) for line in table.splitlines()) <= 120
    assert table.splitlines()[0] == report.headline
    for place in range(2):
        assert f"{_auc(report, place)['all'].value:.3f}" in table
    assert "tuned minus base" in table
    assert "80 (70)" in table


def test_a_grey_page_can_be_shown() -> None:
    """A fax comes as mode L, which Pillow does not quantise."""
    records = LabelledRecords(("r",), (("AFIB",),), "made up")
    (example,) = gallery([], records, [{"image": Image.new("L", (40, 20), 200)}])
    assert Image.open(BytesIO(example.image_png)).size == (40, 20)
