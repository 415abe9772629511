"""The published question files of the field (`eval.question_sets`): put to models, or to files of answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecg_vlm.images import open_image
from ecg_vlm.pages import Pages
from ecg_vlm.provenance import RESULT_FILES, contamination, system_names, systems_request, versions
from eval.question_sets import BenchmarkQuestion, GroupScores, answers_by_question, read_questions, score_answers
from eval.storage import BatchResults, UnfinishedEvaluation, require_new_report
from render.errors import InputError
from render.io import atomic_write, exclusive, text_digest, write_json

if TYPE_CHECKING:
    from PIL import Image

    from ecg_vlm.reader import Reader

_Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TaskResult:
    """Scores of systems on one published test.

    Attributes:
        systems: name in tables -> scores of each group of questions.
        notes: what was left out, and what is known of the systems' training data.
    """

    test: str
    systems: dict[str, list[GroupScores]]
    notes: tuple[str, ...]


def judge_on_questions(
    spec: str,
    systems: Sequence[str],
    out: Path,
    *,
    pages: Pages | None = None,
    limit: int = 0,
    force: bool = False,
    loading: Mapping[str, Any] | None = None,
    resume: bool = False,
    show: _Show = lambda what, count, total: None,
) -> TaskResult:
    """Judge `systems` on the questions of `spec` (`eval.question_sets.read_questions`); write `test.json` into `out`,
    and `answers-N.jsonl` of each that is a model.

    Args:
        systems: models, or files of answers that name their question.
        pages: of the records that ECG-QA asks about; ECGBench has its own images.
        limit: the first questions only; 0 for all.
        force: judge even on records that a model was tuned on.
        resume: go on with a test in `out` that was interrupted, behind the last page.

    Raises:
        InputError: For what is missing or damaged, and where a system answers none of the questions.
    """
    require_new_report(out, resume=resume)
    questions = read_questions(spec)
    questions = questions[: limit or len(questions)]
    names = system_names(systems)
    scores: dict[str, list[GroupScores]] = {}
    notes: list[str] = []
    given = {system: answers_by_question(system) for system in names if system.endswith(RESULT_FILES)}
    for system, answers in given.items():
        if not any(question.id in answers for question in questions):
            raise InputError(f"{system}: answers no question of {spec}; ids there are like {questions[0].id}")
    images = _page_images(questions, pages) if len(given) < len(names) else {}
    with exclusive(out):
        asked = text_digest(*((question.id, question.prompt) for question in questions))
        request = {**systems_request(names), "test": spec, "questions": asked, "loading": dict(loading or {})}
        work = UnfinishedEvaluation(out, request, resume=resume)
        work.begin()
        for place, (system, name) in enumerate(names.items()):
            if system in given:
                answers = given[system]
            else:
                notes += [contamination(system, pages.labelled_records(), force)] if pages else []
                answers = _ask(
                    _load(system, loading), questions, images, work.results(f"system {place}"), partial(show, name)
                )
                _write_answers(out / f"answers-{place + 1}.jsonl", questions, answers)
            scores[name] = score_answers(questions, answers)
            count = sum(question.id in answers for question in questions)
            notes += (
                [f"{name}: {count:,} of {len(questions):,} questions are answered"] if count < len(questions) else []
            )
        result = TaskResult(spec, scores, tuple(notes))
        write_json(out / "test.json", {**_finite(asdict(result)), "versions": versions()})
        work.remove()
    return result


def _finite(value: Any) -> Any:
    """The same content with None for NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def result_text(result: TaskResult) -> str:
    """The scores as a table for the terminal, in per cent."""
    lines = []
    for name, groups in result.systems.items():
        lines.append(f"{name} on {result.test}, in per cent")
        for scores in groups:
            figures = {"exact match": scores.exact_match, "unread": scores.unread_rate, "refused": scores.refusal_rate}
            cells = [f"{what} {100 * value:.1f}" for what, value in (figures | scores.official).items()]
            lines.append(f"  {scores.group} ({scores.kind}), {scores.answers:,} answers: {', '.join(cells)}")
    return "\n".join([*lines, *result.notes])


def _load(model: str, loading: Mapping[str, Any] | None) -> Reader:
    from ecg_vlm.reader import Reader

    return Reader.load(model, **loading or {})


def _page_images(questions: Sequence[BenchmarkQuestion], pages: Pages | None) -> dict[str, Callable[[], Image.Image]]:
    """Record id or path -> its picture, of the questions about one page that is at hand."""
    rows = {record_id: row for row, record_id in enumerate(pages.record_ids)} if pages else {}
    images: dict[str, Callable[[], Image.Image]] = {}
    for question in questions:
        key = _page_of(question)
        if question.image and Path(question.image).is_file():
            images[key] = lambda path=question.image: open_image(path)  # type: ignore[misc]
        elif key in rows and pages:
            images[key] = lambda row=rows[key], of=pages: of.rows[row]["image"]  # type: ignore[misc]
    if not images:
        where = questions[0].image or "--data PAGES with the records that it asks about"
        raise InputError(f"no page for any question; a model needs {where}")
    return images


def _page_of(question: BenchmarkQuestion) -> str:
    """The page that a question is about; "" for a comparison of two."""
    return question.image or (question.record_ids[0] if len(question.record_ids) == 1 else "")


def _ask(
    reader: Reader,
    questions: Sequence[BenchmarkQuestion],
    images: Mapping[str, Callable[[], Image.Image]],
    results: BatchResults,
    show: Callable[[int, int], None],
) -> dict[str, str]:
    """The answers to all questions that have a page, which is encoded once for all its questions.

    results: of pages that were asked about before, and the place for new ones.
    """
    answers: dict[str, str] = {}
    total = sum(_page_of(question) in images for question in questions)

    def answer(page: str, of_page: Sequence[BenchmarkQuestion]) -> dict[str, Any]:
        prefill = reader.prefill([images[page]()])
        texts = [_plain(question.text) if reader.knows_few_wordings else question.prompt for question in of_page]
        return {"texts": [reader.answer(prefill, text).text for text in texts]}

    for page, of_page in _by_page(questions):
        if page not in images:
            continue
        texts = results.next(len(of_page), partial(answer, page, of_page))["texts"]
        answers.update(zip([question.id for question in of_page], texts, strict=True))
        show(len(answers), total)
    return answers


def _plain(text: str) -> str:
    """A question of ECG-QA, which calls whatever an ECG shows a symptom, in words that `ecg_vlm.questions` reads."""
    return text.replace("-related symptom", " sign").replace("symptom", "sign")


def _by_page(questions: Sequence[BenchmarkQuestion]) -> Iterator[tuple[str, list[BenchmarkQuestion]]]:
    groups: dict[str, list[BenchmarkQuestion]] = {}
    for question in questions:
        groups.setdefault(_page_of(question), []).append(question)
    yield from groups.items()


def _write_answers(file: Path, questions: Sequence[BenchmarkQuestion], answers: Mapping[str, str]) -> None:
    with atomic_write(file) as path, path.open("w", encoding="utf-8") as stream:
        for question in questions:
            if question.id in answers:
                row = {"question_id": question.id, "question": question.text, "answer": answers[question.id]}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
