"""Other tests of the field: the published question files of ECG-QA and of ECGBench, with their scoring beside ours.

ECG-QA (Oh et al. 2023, arXiv 2306.15681; https://github.com/Jwoo5/ecg-qa, README of version 1.0.2): folders of JSON
lists, `ecgqa/ptbxl/template/test/00000.json`, whose samples have template_id, sample_id, question_type
(single-verify, single-choose, single-query, comparison_...), question, answer (a list), ecg_id (a list) and attribute;
`answers_for_each_template.csv` two folders above has the possible answers of a template.

ECGBench (Liu et al. 2024, arXiv 2410.19008; https://github.com/AIMedLab/PULSE): a JSON list a subset, `ptb-test.json`,
of {"id", "image", "conversations": [{"from": "human", ...}, {"from": "gpt", ...}]}; mmmu-ecg numbers its questions
under "No". The images are in `images/` beside the file.

A system is any mapping of question ids to answers in words. The published scoring has its own columns ("ECG-QA exact
match", "ECGBench accuracy", ...); "exact match" alone is ours, in which negation and word boundaries count.
"""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.answer_files import answer_rows, first_of, id_text
from eval.metrics.answers import substring_labels
from eval.metrics.bootstrap import bootstrap_decisions
from eval.parser.choices import letter_picks, options_in
from eval.parser.parse import parse, parse_yes_no, refusal
from eval.parser.thoughts import without_thoughts
from render.errors import InputError
from render.io import python_literal
from render.statements import STATEMENTS, task_labels
from render.suggest import did_you_mean

QuestionKind = Literal["closed", "choice", "open"]
Picks = frozenset[str]

SCHEMES = ("ecgqa", "ecgbench")
ID_FIELDS = ("sample_id", "question_id", "id")
"""Names of the field of an answer that names its question, in the order of preference: many samples of ECG-QA have one
question_id."""
INSTRUCTION = "Only answer based on the given Options without any explanation."
"""The end of a question with options; of ECG-QA's experiments with language models (llm_modeling.py)."""

_TEMPLATES = "answers_for_each_template.csv"
_ECGQA_KINDS: dict[str, QuestionKind] = {"verify": "closed", "choose": "choice", "query": "open"}
_LABELS = {
    "ptb-test": ("NORM", "MI", "STTC", "CD", "HYP"),
    "cpsc-test": ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"),
    "code15-test": ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"),
}  # ECGBench, evaluate_ecgbench.py
_LETTERS = {"csn-test-no-cot": "ABCDEFGH", "g12-test-no-cot": "ABCDEFGH", "mmmu-ecg": "ABCD"}
"""Letters from which ECGBench's scoring guesses where it reads none."""
_OPTIONS = "ecgqa-test"
_SUBSETS = (*_LABELS, *_LETTERS, _OPTIONS)
_JUDGED_BY_A_MODEL = ("ptb-test-report", "arena")
_NORMALITY = ("NORM", "ABNORMAL")
_SUPERCLASSES = ("MI", "STTC", "CD", "HYP")
_CODES_OF_LABEL = {
    "NORM": {"NORM"}, "AF": {"AFIB"}, "I-AVB": {"1AVB"}, "1dAVb": {"1AVB"}, "LBBB": {"CLBBB"}, "RBBB": {"CRBBB"},
    "PAC": {"PAC"}, "PVC": {"PVC"}, "STD": {"STD_"}, "STE": {"STE_"}, "SB": {"SBRAD"}, "ST": {"STACH"},
    **{name: {c for c in STATEMENTS if name in task_labels([c], "superdiagnostic")} for name in _SUPERCLASSES},
}  # fmt: skip
_LONGEST_ANSWER = 20_000
_CLAUSE_GAP = r"[^\w.;:\n]+"
_DENIAL = re.compile(
    rf"\b(?:no|not|without|neither|nor|absent|negative for){_CLAUSE_GAP}(?:\w+{_CLAUSE_GAP}){{0,3}}$", re.I
)
_DOUBT = re.compile(
    r"\b(?:not sure|unsure|uncertain|unclear|equivocal|borderline|possibl[ey]|perhaps|maybe|may|might|could|cannot|"
    r"can't)\b",
    re.I,
)


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One question of a published file.

    Attributes:
        group: that the published tables have a row for: ECG-QA's question_type, ECGBench's subset.
        text: the question, without its options where these are apart.
        options: the possible answers; () where the text has them with letters.
        classes: what ECG-QA's scoring looks for: the answers of all questions of the template.
        answer: the true options, labels or letters.
        record_ids: of the records that it asks about; () where only `image` is known.
        image: path of the picture; "" for none.
    """

    id: str
    kind: QuestionKind
    group: str
    text: str
    options: tuple[str, ...]
    classes: tuple[str, ...]
    answer: Picks
    record_ids: tuple[str, ...] = ()
    image: str = ""

    @property
    def prompt(self) -> str:
        """The question as it is put to a model."""
        if not self.record_ids:
            return self.text  # ECGBench's texts are complete
        return f"{self.text}\nOptions: {', '.join(self.options)}\n\n{INSTRUCTION}"


@dataclass(frozen=True)
class GroupScores:
    """Scores of the answers to one group of questions, from 0 to 1.

    Attributes:
        answers: questions that have an answer; the scores rest on these.
        exact_match: share of answers whose options, as our parser reads them, are the true ones.
        unread_rate: share of answers in which our parser reads no option.
        refusal_rate: share of answers that refuse the picture.
        official: the scores of the test's own program, by name.
    """

    group: str
    kind: QuestionKind | Literal["mixed"]
    questions: int
    answers: int
    exact_match: float
    unread_rate: float
    refusal_rate: float
    official: dict[str, float]


def read_questions(spec: str) -> list[BenchmarkQuestion]:
    """The questions of `ecgqa:PATH` (a JSON file or a folder of them) or `ecgbench:FILE.json`, in their order.

    Raises:
        InputError: That names the file, the item and the field that is wrong.
    """
    scheme, _, name = spec.partition(":")
    path = Path(name)
    if scheme not in SCHEMES or not name:
        raise InputError(
            f"{spec!r:.80}: is no test{did_you_mean(scheme, SCHEMES)}; use ecgqa:PATH or ecgbench:FILE.json"
        )
    if not path.exists():
        raise InputError(f"{path}: does not exist; name the JSON file or, of ECG-QA, the folder of a split")
    questions = list(_ecgqa(path) if scheme == "ecgqa" else _ecgbench(path))
    if not questions:
        raise InputError(f"{path}: has no question")
    return list({question.id: question for question in questions}.values())


def answers_by_question(file: str) -> dict[str, str]:
    """Question id -> answer, of a file of answers (`eval.answer_files.answer_rows`) with a field of `ID_FIELDS`.

    Raises:
        InputError: For an answer without an id, and two with the same one.
    """
    answers: dict[str, str] = {}
    for row in answer_rows(file):
        value = first_of(row.fields, ID_FIELDS)
        if value is None:
            raise InputError(f"{row.where}: no id of the question; name it question_id")
        if (key := id_text(value)) in answers:
            raise InputError(f"{row.where}: question {key} is answered twice")
        answers[key] = row.answer
    return answers


def score_answers(questions: Sequence[BenchmarkQuestion], answers: Mapping[str, str]) -> list[GroupScores]:
    """Scores of every group that has an answer, in the order of the questions."""
    groups: dict[str, list[BenchmarkQuestion]] = {}
    for question in questions:
        groups.setdefault(question.group, []).append(question)
    return [scores for group in groups.values() if (scores := _group_scores(group, answers))]


def _group_scores(group: Sequence[BenchmarkQuestion], answers: Mapping[str, str]) -> GroupScores | None:
    first, batch = group[0], [question for question in group if question.id in answers]
    if not batch:
        return None
    texts = [answers[question.id] for question in batch]
    picks = [picked_options(question, text) for question, text in zip(batch, texts, strict=True)]
    return GroupScores(
        group=first.group,
        kind=first.kind if len({question.kind for question in group}) == 1 else "mixed",
        questions=len(group),
        answers=len(batch),
        exact_match=_mean([_lower(p) == _lower(q.answer) for p, q in zip(picks, batch, strict=True)]),
        unread_rate=_mean([not p for p in picks]),
        refusal_rate=_mean([bool(refusal(text)) for text in texts]),
        official=_official_scoring(first)(batch, texts),
    )


# Our reading


def picked_options(question: BenchmarkQuestion, answer: str) -> Picks:
    """The options that an answer picks, empty where none is read.

    A closed question: by yes or no. Lettered options: the letters. Other options: those that the answer has in their
    own words, of two places that overlap the longer; without any, those whose statement the parser reads. What is
    denied is not picked. The first 20,000 characters are read, without thoughts, as by `eval.parser.parse.parse`.
    """
    answer = without_thoughts(answer, _LONGEST_ANSWER)
    if refusal(answer):
        return frozenset()
    if question.group in _LETTERS:
        return frozenset(p.letter for p in letter_picks(answer, options_in(question.text)) if p.correct)
    if question.options == _NORMALITY:
        return _normality(answer)
    if question.kind == "closed" and "yes" in question.options:
        return _yes_or_no(question.options, answer)
    if question.group in _LABELS:
        return _picked_labels(question.options, answer)
    content = parse(answer)
    negations = {*content.absent, *content.uncertain}
    verbatim = _verbatim(question.options, answer)
    if picks := {option for option in verbatim if not negations.intersection(_codes(option))}:
        return frozenset(picks)
    picks = {option for option in question.options if _codes(option) and _codes(option) <= {*content.present}}
    none = "none" in _lower(frozenset(question.options)) and re.search(r"\b(?:none|no|neither)\b", answer, re.I)
    return frozenset(picks) or (frozenset({"none"}) if none else _NONE)


_NONE: Picks = frozenset()


def _lower(names: Picks) -> Picks:
    return frozenset(name.lower() for name in names)


def _yes_or_no(options: Sequence[str], answer: str) -> Picks:
    verdict = parse_yes_no(answer)
    if verdict is None:
        return frozenset({"not sure"}) if "not sure" in options and _DOUBT.search(answer) else _NONE
    return frozenset({"yes" if verdict else "no"})


@cache
def _codes(option: str) -> frozenset[str]:
    return frozenset(parse(option).present)


def _verbatim(options: tuple[str, ...], answer: str) -> list[str]:
    """The options that stand in an answer as whole words, each place counted for the longest one. Those that are no
    statement, about which the parser cannot say so, are left out where a denial is before them in their clause."""
    if not options:
        return []
    words, names = _pattern(options)
    places = [(names[m[0].lower()], m.start()) for m in words.finditer(answer)]
    return [name for name, start in places if _codes(name) or not _is_denied(answer, start)]


def _is_denied(answer: str, start: int) -> bool:
    return bool(_DENIAL.search(answer[max(0, start - 80) : start]))


@cache
def _pattern(options: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    longest_first = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    return re.compile(rf"(?<![\w-])(?:{longest_first})(?![\w-])", re.I), {option.lower(): option for option in options}


def _picked_labels(labels: Sequence[str], answer: str) -> Picks:
    """Labels by their letters before punctuation or the end ("ST, AF", not "ST depression"), or by statement."""
    content = parse(answer)
    letters = {
        label
        for label in labels
        for m in re.finditer(rf"(?<![\w-]){re.escape(label)}(?=\s*(?:[(,;.:*\n]|and\b|$))", answer)
        if not _is_denied(answer, m.start())
    }
    statements = {label for label in labels if not _CODES_OF_LABEL[label].isdisjoint(content.present)}
    return frozenset(letters | statements)


def _normality(answer: str) -> Picks:
    """NORM or ABNORMAL, by the first of "normal" and "abnormal"; "not" before it turns it round."""
    first = re.search(r"\b(not\s+)?(ab)?norm(?:al)?\b", answer, re.I)
    return frozenset({_NORMALITY[bool(first[1]) != bool(first[2])]}) if first else _NONE


# The published scoring

_Scoring = Callable[[Sequence[BenchmarkQuestion], Sequence[str]], dict[str, float]]


def _official_scoring(question: BenchmarkQuestion) -> _Scoring:
    if question.group in _LABELS:
        return _ecgbench_labels
    if question.group in _LETTERS:
        return _ecgbench_letters
    return _ecgbench_options if question.group == _OPTIONS else _ecgqa_exact_match


def _ecgqa_exact_match(questions: Sequence[BenchmarkQuestion], answers: Sequence[str]) -> dict[str, float]:
    """The options of the template anywhere in the answer in lower case, left to right, the first that fits, against
    the true ones (llm_modeling.py). "not sure" is read as "no" there, and a lead with its capital is never matched."""
    matches = []
    for question, answer in zip(questions, answers, strict=True):
        names = [name for name in question.classes if name != "none"]
        pattern = "|".join([*map(re.escape, names), "none"])
        true = {name.lower() for name in question.answer} or {"none"}
        matches.append({*re.findall(pattern, answer.lower())} == true)
    return {"ECG-QA exact match": _mean(matches)}


def _ecgbench_labels(questions: Sequence[BenchmarkQuestion], answers: Sequence[str]) -> dict[str, float]:
    """Labels anywhere in the answer, "MI" in "no MI" too; means over the classes that some record has
    and some has not. What ECGBench calls AUC is that of 0/1 decisions, so balanced accuracy."""
    group = questions[0].group
    classes = sorted({label for question in questions for label in question.answer})
    if not classes:  # no record has a label: nothing to average over
        return dict.fromkeys(("ECGBench macro F1", "ECGBench AUC", "ECGBench Hamming loss"), math.nan)
    decisions = [_substrings(group, answer) for answer in answers]
    truth, calls = (
        np.array([[name in of_answer for name in classes] for of_answer in table], dtype=np.bool_)
        for table in ([question.answer for question in questions], decisions)
    )
    samples = bootstrap_decisions(truth, calls, classes, resamples=1)
    return {
        "ECGBench macro F1": samples.f1.summary().macro.value,
        "ECGBench AUC": samples.balanced_accuracy.summary().macro.value,
        "ECGBench Hamming loss": float(samples.hamming_loss.point[0]),
    }


def _substrings(group: str, answer: str) -> Picks:
    if group != "code15-test":
        return frozenset(substring_labels(answer, _LABELS[group]))
    answer = answer.split("Answer:")[-1]
    normality = "ABNORMAL" if "ABNORMAL" in answer else "NORM" if "NORM" in answer else ""
    return frozenset(filter(None, [normality, *substring_labels(answer, _LABELS[group])]))


def _ecgbench_letters(questions: Sequence[BenchmarkQuestion], answers: Sequence[str]) -> dict[str, float]:
    """Accuracy of the letter; one that is not read is guessed, with the seed of their program."""
    guesses = random.Random(42)
    letters = _LETTERS[questions[0].group]
    matches = [
        frozenset(_ecgbench_letter(answer) or guesses.choice(letters)) == question.answer
        for question, answer in zip(questions, answers, strict=True)
    ]
    return {"ECGBench accuracy": _mean(matches)}


def _ecgbench_letter(answer: str) -> str:
    """The letter alone; else the first of "A.", "B.", ... that occurs; else behind "The correct option is" or "Answer:"
    ("" where none is there)."""
    letters = "ABCDEFGH"
    if len(answer) == 1 and answer in letters:
        return answer
    if with_dot := [letter for letter in letters if f"{letter}." in answer]:
        return with_dot[0]
    _, sentence, rest = answer.rpartition("The correct option is ")
    if sentence:
        return rest[:1] if rest[:1] in letters else ""
    _, word, rest = answer.rpartition("Answer:")
    return next((letter for letter in letters if letter in rest), "") if word else ""


def _ecgbench_options(questions: Sequence[BenchmarkQuestion], answers: Sequence[str]) -> dict[str, float]:
    """Accuracy of the set of options that occur anywhere in the answer in lower case."""
    matches = [
        {option for option in question.options if option in answer.lower()} == question.answer
        for question, answer in zip(questions, answers, strict=True)
    ]
    return {"ECGBench accuracy": _mean(matches)}


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


# Files


def _ecgqa(path: Path) -> Iterator[BenchmarkQuestion]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    classes = _template_classes(path)
    for file in files:
        for where, item in _items(file):
            group, template = _text(item, "question_type", where), item.get("template_id")
            kind = _ECGQA_KINDS.get(group.rpartition("-")[2])
            if kind is None:
                raise InputError(f"{where}: question_type is {group!r:.60}; expected ...-verify, -choose or -query")
            if not isinstance(template, int) or template not in classes:
                raise InputError(f"{where}: template_id {template!r:.20} is not in {_TEMPLATES}")
            attributes = _texts(item, "attribute", where) if kind == "choice" and item.get("attribute") else ()
            yield BenchmarkQuestion(
                id=_id(item, ("sample_id",), where),
                kind=kind,
                group=group,
                text=_text(item, "question", where),
                options=(*attributes, "none") if attributes else classes[template],
                classes=classes[template],
                answer=frozenset(_texts(item, "answer", where)),
                record_ids=tuple(id_text(value) for value in _list(item, "ecg_id", where)),
            )


def _template_classes(path: Path) -> dict[Any, tuple[str, ...]]:
    """Template id -> its possible answers, of the table above a file or a folder of ECG-QA."""
    folders = path.resolve().parents[:4]
    table = next((folder / _TEMPLATES for folder in folders if (folder / _TEMPLATES).is_file()), None)
    if table is None:
        raise InputError(f"{path}: no {_TEMPLATES} in a folder above it; keep the published tree (ecgqa/ptbxl/...)")
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            return {
                int(row["template_id"]): (*map(str, python_literal(row["classes"])),) for row in csv.DictReader(stream)
            }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{table}: needs the columns template_id and classes, a list ({error})") from error


def _ecgbench(path: Path) -> Iterator[BenchmarkQuestion]:
    subset = path.stem
    if subset in _JUDGED_BY_A_MODEL:
        raise InputError(
            f"{path}: ECGBench has a language model judge this subset; judge reports with --labels ptbxl:DIR"
        )
    if subset not in _SUBSETS:
        raise InputError(
            f"{path}: is no subset of ECGBench{did_you_mean(subset, _SUBSETS)}; its names: {', '.join(_SUBSETS)}"
        )
    for where, item in _items(path):
        turns = item.get("conversations")
        if not (isinstance(turns, list) and len(turns) >= 2 and all(isinstance(turn, dict) for turn in turns)):
            raise InputError(f"{where}: conversations needs a question and its answer")
        question, values = (_values(turn, where) for turn in turns[:2])
        text = "".join(question).replace("<image>", "").strip()
        options, answer = _options_and_answer(subset, text, values)
        if subset == _OPTIONS and "Options:" not in text:
            raise InputError(f"{where}: the question has no list behind Options:")
        yield BenchmarkQuestion(
            id=_id(item, ("No", "id") if subset == "mmmu-ecg" else ("id",), where),
            kind=_ecgbench_kind(subset, options),
            group=subset,
            text=text,
            options=options,
            classes=options,
            answer=answer,
            image=_image(path, item, where),
        )


def _image(file: Path, item: Mapping[str, Any], where: str) -> str:
    """The path of a question's image in `images/` beside the file; "" where it has none."""
    if item.get("image") is None:
        return ""
    image = Path(_text(item, "image", where))
    if image.is_absolute() or ".." in image.parts:
        raise InputError(f"{where}: image {str(image)!r:.60} must be a path within images/")
    return str(file.parent / "images" / image)


def _values(turn: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The words of a turn: one text, or a list of them, as ecgqa-test has it."""
    return (text,) if isinstance(text := turn.get("value"), str) else _texts(turn, "value", where)


def _ecgbench_kind(subset: str, options: Sequence[str]) -> QuestionKind:
    if subset in _LETTERS:
        return "choice"
    return "closed" if {*options} in ({"yes", "no"}, {"yes", "no", "not sure"}, {*_NORMALITY}) else "open"


def _options_and_answer(subset: str, text: str, values: Sequence[str]) -> tuple[tuple[str, ...], Picks]:
    """The options of a question of ECGBench, and the true ones."""
    value = values[0] if values else ""
    if subset in _LETTERS:
        return (), frozenset(value[:1])
    if subset in _LABELS:
        normality = subset == "code15-test" and value in _NORMALITY
        labels = _LABELS[subset]
        return (_NORMALITY, frozenset({value})) if normality else (labels, frozenset(substring_labels(value, labels)))
    option_list = text.rpartition("Options:")[2].replace(INSTRUCTION, "")
    return tuple(filter(None, (option.strip() for option in option_list.split(",")))), frozenset(values)


def _items(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no JSON file that can be read ({error})") from error
    if not isinstance(values, list):
        raise InputError(f"{file}: needs a JSON list of questions")
    for number, item in enumerate(values, 1):
        where = f"{file}, item {number}"
        if not isinstance(item, dict):
            raise InputError(f"{where}: needs a JSON object, not {type(item).__name__}")
        yield where, item


def _id(item: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    value = first_of(item, names)
    if value is None:
        raise InputError(f"{where}: no {names[-1]}")
    return id_text(value)


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(value := item.get(name), str):
        raise InputError(f"{where}: {name} is {value!r:.60}, expected text")
    return value


def _list(item: Mapping[str, Any], name: str, where: str) -> list[Any]:
    if not isinstance(value := item.get(name), list):
        raise InputError(f"{where}: {name} is {value!r:.60}, expected a list")
    return value


def _texts(item: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    return tuple(str(value) for value in _list(item, name, where))
