"""Published question files as tasks: ECG-QA, ECGBench, and the task file for lm-evaluation-harness."""

import importlib.util
import json
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import ecg_vlm.harness
from ecg_vlm.cli import main
from ecg_vlm.question_tests import _plain, judge_on_questions
from ecg_vlm.questions import read_question
from eval.question_sets import BenchmarkQuestion, answers_by_question, picked_options, read_questions, score_answers
from render.errors import InputError

RHYTHMS = ("atrial fibrillation", "atrial flutter", "none", "sinus rhythm", "sinus tachycardia")
LEADS = ("lead I", "lead II", "lead III", "none")
TEMPLATES = {1: ("no", "not sure", "yes"), 2: ("no", "yes"), 7: RHYTHMS, 10: RHYTHMS, 19: LEADS, 46: ("no", "yes")}


def sample(number, template, question_type, question, answer, ecg_id=(12662,), attribute=None):
    """A sample as ecgqa/ptbxl/template/test/*.json has them (README of ECG-QA 1.0.2)."""
    return {
        "template_id": template,
        "question_id": number,
        "sample_id": number,
        "question_type": question_type,
        "attribute_type": "scp_code",
        "question": question,
        "answer": list(answer),
        "ecg_id": list(ecg_id),
        "attribute": attribute,
    }


SAMPLES = [
    sample(0, 1, "single-verify", "Does this ECG show sinus rhythm?", ["yes"], attribute=["sinus rhythm"]),
    sample(1, 1, "single-verify", "Does this ECG show atrial flutter?", ["not sure"], attribute=["atrial flutter"]),
    sample(2, 7, "single-choose", "Which rhythm, sinus rhythm or atrial flutter?", ["sinus rhythm"],
           attribute=["sinus rhythm", "atrial flutter"]),
    sample(3, 10, "single-query", "What rhythm does this ECG show?", ["atrial fibrillation"]),
    sample(4, 10, "single-query", "What rhythm-related symptoms does this ECG show?", ["none"]),
    sample(5, 19, "single-query", "What leads show inverted t-waves?", ["lead I", "lead III"]),
    sample(6, 46, "comparison_consecutive-verify", "Does it still show sinus rhythm?", ["yes"], ecg_id=(46, 81)),
]  # fmt: skip


@pytest.fixture
def ecgqa(tmp_path):
    folder = tmp_path / "ecgqa/ptbxl/template/test"
    folder.mkdir(parents=True)
    rows = [f'{number},"{list(classes)}"' for number, classes in TEMPLATES.items()]
    (tmp_path / "ecgqa/ptbxl/answers_for_each_template.csv").write_text("\n".join(["template_id,classes", *rows]))
    (folder / "00000.json").write_text(json.dumps(SAMPLES[:4]))
    (folder / "10000.json").write_text(json.dumps(SAMPLES[4:]))
    return folder


def ecgbench(folder: Path, subset: str, items: list[tuple[str, object, object]]) -> Path:
    file = folder / f"{subset}.json"
    turns = [{"id": i, "image": f"{i}.png", "conversations": [
        {"from": "human", "value": q}, {"from": "gpt", "value": a}]} for i, q, a in items]  # fmt: skip
    file.write_text(json.dumps(turns))
    return file


def test_ecgqa_has_closed_choice_and_open_questions_with_their_options(ecgqa):
    questions = read_questions(f"ecgqa:{ecgqa}")
    assert [q.kind for q in questions] == ["closed", "closed", "choice", "open", "open", "open", "closed"]
    assert questions[2].options == ("sinus rhythm", "atrial flutter", "none")
    assert questions[3].options == RHYTHMS and questions[6].record_ids == ("46", "81")
    assert questions[0].prompt.endswith("Options: no, not sure, yes\n\n" + "Only answer based on the given Options "
                                        "without any explanation.")  # fmt: skip


def test_the_true_answers_score_one_with_us_and_the_published_program_misses_leads_and_doubt(ecgqa):
    questions = read_questions(f"ecgqa:{ecgqa}")
    scores = score_answers(questions, {q.id: ", ".join(sorted(q.answer)) for q in questions})
    by_group = {s.group: s for s in scores}
    assert [s.exact_match for s in scores] == [1.0] * 4 and [s.unread_rate for s in scores] == [0.0] * 4
    assert by_group["single-verify"].official == {"ECG-QA exact match": 0.5}  # "not sure" is read as "no"
    assert by_group["single-query"].official == {"ECG-QA exact match": 2 / 3}  # "lead I" in an answer in lower case


def question(options, kind="open", group="single-query", text="?"):
    return BenchmarkQuestion("0", kind, group, text, options, options, frozenset(), ("1",))


@pytest.mark.parametrize(
    ("options", "answer", "picks"),
    [
        (RHYTHMS, "There is no atrial flutter; this is AF.", {"atrial fibrillation"}),
        (RHYTHMS, "Sinus tachycardia at 120/min.", {"sinus tachycardia"}),
        (RHYTHMS, "No atrial flutter, sinus rhythm.", {"sinus rhythm"}),
        (RHYTHMS, "Atrial flutter is not seen. Atrial fibrillation.", {"atrial fibrillation"}),
        (LEADS, "Not in lead I. Lead III shows it.", {"lead III"}),
        (RHYTHMS, "None of the given options.", {"none"}),
        (RHYTHMS, "I'm sorry, but I can't interpret medical images.", set()),
        (LEADS, "Lead II and lead III, but not lead I.", {"lead II", "lead III"}),
        (LEADS, "leads of the chest", set()),
        (("complete left bundle branch block", "none"), "Incomplete left bundle branch block.", set()),
    ],
)
def test_options_in_words(options, answer, picks):
    assert picked_options(question(options), answer) == picks


@pytest.mark.parametrize(("answer", "pick"), [("No evidence of it.", "no"), ("Yes.", "yes"), ("Possibly.", "not sure")])
def test_closed_questions(answer, pick):
    assert picked_options(question(TEMPLATES[1], kind="closed"), answer) == {pick}
    assert not picked_options(question(TEMPLATES[1], kind="closed"), "The patient is 54 years old.")


def test_ecgbench_labels_letters_and_options(tmp_path):
    labels = ecgbench(tmp_path, "ptb-test", [("1", "Which?", "NORM"), ("2", "Which?", "MI; CD")])
    answers = {"1": "NORM. No MI.", "2": "ABNORMAL: left bundle branch block, MI"}
    (scores,) = score_answers(read_questions(f"ecgbench:{labels}"), answers)
    assert scores.exact_match == 1.0 and scores.kind == "open"
    # By letters anywhere: NORM is in ABNORMAL, MI in "No MI", and CD nowhere: F1 of 2/3, 2/3 and 0.
    assert scores.official["ECGBench macro F1"] == pytest.approx(4 / 9)
    assert scores.official["ECGBench AUC"] == pytest.approx(0.5)

    letters = ecgbench(tmp_path, "csn-test-no-cot", [(n, "Which?\nA. AFIB\nB. SR\nC. PVC", "B. SR") for n in "12"])
    (scores,) = score_answers(read_questions(f"ecgbench:{letters}"), {"1": "(B)", "2": "B. SR"})
    assert (scores.kind, scores.exact_match) == ("choice", 1.0)
    guess = random.Random(42).choice("ABCDEFGH")  # "(B)" is not read there
    assert scores.official["ECGBench accuracy"] == (1 + (guess == "B")) / 2

    text = "Is it? Options: yes, no\n\nOnly answer based on the given Options without any explanation."
    options = ecgbench(tmp_path, "ecgqa-test", [("1", ["<image>\n", text], ["yes"]), ("2", text, ["no"])])
    (scores,) = score_answers(read_questions(f"ecgbench:{options}"), {"1": "Yes", "2": "It is not normal: no"})
    assert (scores.kind, scores.exact_match, scores.official) == ("closed", 1.0, {"ECGBench accuracy": 1.0})

    normality = ecgbench(tmp_path, "code15-test", [("1", "?", "NORM"), ("2", "?", "1dAVb(1st degree av block)")])
    (scores,) = score_answers(
        read_questions(f"ecgbench:{normality}"), {"1": "A normal ECG", "2": "1dAVb; ST depression"}
    )
    assert (scores.kind, scores.exact_match) == ("mixed", 1.0) and not math.isnan(scores.official["ECGBench AUC"])


def test_evaluate_judges_files_of_answers(ecgqa, tmp_path, capsys):
    rows = [{"question_id": 7, "sample_id": s["sample_id"], "text": s["answer"][0]} for s in SAMPLES[:4]]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.csv").write_text("id,answer\n0,no\n")
    command = ["evaluate", f"{tmp_path / 'a.jsonl'}", f"{tmp_path / 'b.csv'}", "--task", f"ecgqa:{ecgqa}"]
    assert main([*command, "--out", f"{tmp_path / 'out'}"]) == 0
    output = capsys.readouterr().out
    assert "single-choose (choice), 1 answers: exact match 100.0" in output and "ECG-QA exact match" in output
    assert "b: 1 of 7 questions are answered" in output
    systems = json.loads((tmp_path / "out/test.json").read_text())["systems"]
    assert systems["b"][0]["exact_match"] == 0 and systems["a"][0]["questions"] == 2


def test_a_model_answers_about_the_pages_that_are_there(tmp_path, monkeypatch):
    file = ecgbench(tmp_path, "ptb-test", [("1", "<image>\nWhich?", "NORM"), ("2", "Which?", "MI")])
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64), "white").save(tmp_path / "images/1.png")

    class Model:
        knows_few_wordings = False

        def prefill(self, images):
            return images[0].size

        def answer(self, prefill, text):
            return type("Answer", (), {"text": f"NORM {prefill} {text}"})

    monkeypatch.setattr("ecg_vlm.question_tests._load", lambda model, loading: Model())
    result = judge_on_questions(f"ecgbench:{file}", ["some/model"], tmp_path / "out")
    assert answers_by_question(str(tmp_path / "out/answers-1.jsonl")) == {"1": "NORM (64, 64) Which?"}
    assert result.systems["model"][0].answers == 1 and "1 of 2 questions" in result.notes[0]
    (tmp_path / "images/1.png").unlink()
    with pytest.raises(InputError, match="no page for any question"):
        judge_on_questions(f"ecgbench:{file}", ["some/model"], tmp_path / "none")


def test_nano_reads_the_questions_of_ecgqa(ecgqa):
    """All of ECG-QA's "Does this ECG show symptoms of ...?" were not understood, and counted as refused."""
    texts = [
        "Does this ECG show symptoms of atrial flutter?",
        *(question.text for question in read_questions(f"ecgqa:{ecgqa}")),
    ]
    kinds = [read_question(_plain(text)).kind for text in texts]
    assert kinds == ["statement", "statement", "statement", "statement", "rhythm", "rhythm", "unknown", "statement"]


def test_an_interrupted_test_goes_on_behind_the_last_page(tmp_path, monkeypatch):
    file = ecgbench(tmp_path, "ptb-test", [(str(k), "<image>\nWhich?", "NORM") for k in range(3)])
    (tmp_path / "images").mkdir()
    for k in range(3):
        Image.new("RGB", (64 + k, 64), "white").save(tmp_path / f"images/{k}.png")
    looks = []

    class Model:
        knows_few_wordings = False

        def prefill(self, images):
            if len(looks) == 2 and images[0].width == 66:
                looks.append("stopped")
                raise KeyboardInterrupt
            looks.append(images[0].width)
            return images[0].width

        def answer(self, prefill, text):
            return type("Answer", (), {"text": f"NORM {prefill}"})

    monkeypatch.setattr("ecg_vlm.question_tests._load", lambda model, loading: Model())
    judge = partial(judge_on_questions, f"ecgbench:{file}", out=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        judge(["some/model"])
    with pytest.raises(InputError, match="go on with --resume"):
        judge(["some/model"])
    with pytest.raises(InputError, match="was started with files"):
        judge(["other/model"], resume=True)
    judge(["some/model"], resume=True)
    assert looks == [64, 65, "stopped", 66]
    answers = answers_by_question(str(tmp_path / "out/answers-1.jsonl"))
    assert answers == {"0": "NORM 64", "1": "NORM 65", "2": "NORM 66"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["answers-1.jsonl", "test.json"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ecgbench:arena.json", "language model judge this subset"),
        ("ecgbench:ptb-tst.json", "did you mean ptb-test"),
        ("ecg-qa:arena.json", "did you mean ecgqa"),
        ("ecgqa:nowhere", "does not exist"),
        ("ecgqa:arena.json", "answers_for_each_template.csv"),
        ("ecgbench:cpsc-test.json", "item 1: conversations"),
    ],
)
def test_what_is_wrong_is_named(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("arena", "ptb-tst", "cpsc-test"):
        Path(f"{name}.json").write_text('[{"id": "1"}]')
    with pytest.raises(InputError, match=message):
        read_questions(spec)


def test_a_wrong_file_of_answers_leaves_nothing_behind(ecgqa, tmp_path):
    """Files are read before a model is asked, which may take hours."""
    answers = tmp_path / "answers.jsonl"
    for text, message in (('{"answer": "yes"}', "no id of the question"), ('{"id": "x", "answer": "yes"}', "like 0")):
        answers.write_text(text)
        with pytest.raises(InputError, match=message):
            judge_on_questions(f"ecgqa:{ecgqa}", ["some/model", str(answers)], tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_with_a_test(ecgqa, tmp_path, capsys):
    command = ["evaluate", "a.csv", "--task", f"ecgqa:{ecgqa}", "--out", f"{tmp_path / 'out'}", "--labels", "ptbxl:x"]
    assert main(command) == 2 and "--labels does not go with --task" in capsys.readouterr().err


def test_the_task_file_of_the_harness_names_functions_that_judge(capsys):
    """lm-evaluation-harness imports `!function FILE.NAME` from the folder of the YAML file."""
    assert main(["list", "harness"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == Path(ecg_vlm.harness.__path__[0])

    def function(loader, node):
        module, _, name = loader.construct_scalar(node).rpartition(".")
        spec: Any = importlib.util.spec_from_file_location("task_functions", folder / f"{module}.py")
        functions = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(functions)
        return getattr(functions, name)

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", function)
    task = yaml.load((folder / "ecg_pages.yaml").read_text(), Loader)
    docs = task["custom_dataset"](data=str(Path(__file__).parent / "v0_1/pages"), version=1.0)[task["test_split"]]
    assert task["doc_to_text"](docs[0]).startswith("<image>")
    assert [image.mode for image in task["doc_to_image"](docs[0])] == ["RGB"]
    results = [task["process_results"](doc, [task["doc_to_target"](doc)]) for doc in docs]
    metrics = {metric["metric"]: metric["aggregation"] for metric in task["metric_list"]}
    assert set(metrics) == set(results[0])
    assert metrics["statement_f1"]([r["statement_f1"] for r in results]) > 0.8
    assert metrics["superclass_f1"]([(truth, ()) for truth, _ in (r["superclass_f1"] for r in results)]) == 0
    refusal = task["process_results"](docs[0], ["I'm sorry, but I can't interpret medical images."])
    assert (refusal["refusal_rate"], refusal["unread_rate"], metrics["refusal_rate"]) == (1.0, 1.0, "mean")


def test_a_subset_whose_records_have_no_label_has_no_figure_of_theirs(tmp_path):
    questions = read_questions(f"ecgbench:{ecgbench(tmp_path, 'code15-test', [('1', '?', '')])}")
    (group,) = score_answers(questions, {"1": "Answer: AF"})
    assert len(group.official) == 3 and all(map(math.isnan, group.official.values()))
