"""Metrics of answers in words, and of the yes/no decisions that are read from them or made at thresholds.

None of these figures is comparable with a metric of scores (`eval.metrics.system_metrics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from eval.metrics.bootstrap import BootstrapSamples, Decisions, Interval, Sampling, bootstrap_decisions
from eval.parser.parse import refusal
from eval.parser.thoughts import without_thoughts
from eval.types import Answer, LabelledRecords, System, label_matrix, task_view
from render.statements import LABEL_TASKS

ECGBENCH = "ECGBench style"
ECGBENCH_LABELS = ("NORM", "MI", "STTC", "CD", "HYP")
"""The five superclasses: the labels that ECGBench (the benchmark of PULSE) asks PTB-XL answers for."""


@dataclass(frozen=True)
class DecisionMetrics:
    """Figures of decisions: task -> mean over classes of F1, precision, recall and balanced accuracy, Hamming loss,
    exact match.

    Attributes:
        statement_f1: of each statement that has a record with and one without it.
    """

    f1: dict[str, Interval]
    precision: dict[str, Interval]
    recall: dict[str, Interval]
    balanced_accuracy: dict[str, Interval]
    hamming_loss: dict[str, Interval]
    exact_match: dict[str, Interval]
    statement_f1: dict[str, Interval]


@dataclass(frozen=True)
class EcgBenchMetrics:
    """Substring scoring over the five superclasses; NaN where undefined.

    Attributes:
        balanced_accuracy: what ECGBench calls AUC.
        f1: macro.
        hamming_loss: share of wrong entries.
    """

    records: int
    balanced_accuracy: float
    f1: float
    hamming_loss: float


@dataclass(frozen=True)
class TextMetrics:
    """Corpus BLEU (0 to 100), corpus chrF (0 to 100), mean ROUGE-L F-measure (0 to 100) over `pairs` answers.

    Attributes:
        signature: the settings of BLEU and chrF in the notation of sacrebleu.
    """

    pairs: int
    bleu: float
    chrf: float
    rouge_l: float
    signature: str


@dataclass(frozen=True)
class AnswerMetrics:
    """Figures of answers in words.

    Attributes:
        records: records with at least one answer.
        unparsed: share of answers in which the parser recognises no statement.
        ecgbench: the same answers scored in the manner of ECGBench.
        text: nearness to the reference reports, None without any.
    """

    records: int
    answers: int
    unparsed: float
    decisions: DecisionMetrics
    ecgbench: EcgBenchMetrics
    text: TextMetrics | None


@dataclass(frozen=True)
class RefusalMetrics:
    """How often answers refuse (`eval.parser.parse.refusal`), on unreadable and on readable pages.

    Attributes:
        unreadable: pages with an answer.
        readable: pages with an answer.
        refused: the number of each for which all answers refuse.
        wrongly_refused: the number of each for which all answers refuse.
    """

    unreadable: int
    refused: int
    readable: int
    wrongly_refused: int

    def lines(self) -> tuple[str, ...]:
        """Both shares in words; a share of no page at all is left out.

        Without pages that cannot be read nothing says that the others are pages: a file of answers has records.
        """
        wrongly = (
            "of {} readable pages are refused wrongly" if self.unreadable else "of {} records: nothing but refusals"
        )
        shares = (
            (self.refused, self.unreadable, "of {} pages that cannot be read are refused"),
            (self.wrongly_refused, self.readable, wrongly),
        )
        return tuple(f"{n} {words.format(of)} ({100 * n / of:.1f} %)" for n, of, words in shares if of)


def answer_metrics(system: System, records: LabelledRecords, sampling: Sampling) -> AnswerMetrics | None:
    """Figures of the answers about readable pages; None without any.

    Decisions are made per record: a statement is present when any answer about the record states it without doubt.
    """
    readable = system.answers_about(readable=True)
    if not readable:
        return None
    by_record = _by_record(readable)
    truth, statements = _labels_and_decisions(by_record, records)
    answers = [by_record[record_id] for record_id in records.record_ids if record_id in by_record]
    references = dict(zip(records.record_ids, records.references, strict=True)) if records.references else {}
    without_statement = sum(not (a.present or a.absent or a.uncertain) for a in readable)
    return AnswerMetrics(
        records=len(truth),
        answers=len(readable),
        unparsed=without_statement / len(readable),
        decisions=decision_metrics(truth, statements, sampling),
        ecgbench=ecgbench_metrics([" ".join(a.answer for a in of_record) for of_record in answers], truth),
        text=text_metrics(
            [a.answer for a in readable], [a.reference or references.get(a.record_id, "") for a in readable]
        ),
    )


def f1_differences(
    first: System, second: System, records: LabelledRecords, sampling: Sampling
) -> dict[str, Interval] | None:
    """Task -> paired difference of macro F1 of answers in words; None unless both answer about the same records."""
    by_record, others = (_by_record(system.answers_about(readable=True)) for system in (first, second))
    if not by_record or by_record.keys() != others.keys():
        return None
    one, other = (
        decision_samples(*_labels_and_decisions(answers, records), sampling) for answers in (by_record, others)
    )
    return {task: samples.f1.minus(other[task].f1).summary().macro for task, samples in one.items()}


def _labels_and_decisions(
    by_record: Mapping[str, Sequence[Answer]], records: LabelledRecords
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """True statements, and those that any answer states, of each record with an answer, in the order of `records`."""
    labels = dict(zip(records.record_ids, records.statements, strict=True))
    ids = [record_id for record_id in labels if record_id in by_record]
    decisions = [tuple({code for answer in by_record[record_id] for code in answer.present}) for record_id in ids]
    return [labels[record_id] for record_id in ids], decisions


def refusal_metrics(system: System) -> RefusalMetrics | None:
    """How often the system refuses to read a page; None without answers."""
    if not system.answers:
        return None
    pages = {readable: _by_record(system.answers_about(readable=readable)) for readable in (False, True)}
    counts = {
        readable: sum(all(refusal(answer.answer) for answer in answers) for answers in of_page.values())
        for readable, of_page in pages.items()
    }
    return RefusalMetrics(len(pages[False]), counts[False], len(pages[True]), counts[True])


def decision_metrics(
    truth: Sequence[Sequence[str]],
    decisions: Sequence[Sequence[str]],
    sampling: Sampling,
    missing_classes: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> DecisionMetrics:
    """Figures of the codes that are called present, one sequence per record, against the true ones.

    A sub- or superclass is called present as soon as one of its statements is.

    Args:
        missing_classes: task -> classes about which nothing is decided; they do not count.
    """
    samples = decision_samples(truth, decisions, sampling, missing_classes)
    return DecisionMetrics(
        f1=macro_intervals({task: s.f1 for task, s in samples.items()}, recentre=True),
        precision=macro_intervals({task: s.precision for task, s in samples.items()}, recentre=True),
        recall=macro_intervals({task: s.recall for task, s in samples.items()}, recentre=True),
        balanced_accuracy=macro_intervals({task: s.balanced_accuracy for task, s in samples.items()}, recentre=True),
        hamming_loss=macro_intervals({task: s.hamming_loss for task, s in samples.items()}),
        exact_match=macro_intervals({task: s.exact_match for task, s in samples.items()}),
        statement_f1=samples["all"].f1.summary().per_class if "all" in samples else {},
    )


def decision_samples(
    truth: Sequence[Sequence[str]],
    decisions: Sequence[Sequence[str]],
    sampling: Sampling,
    missing_classes: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Decisions]:
    """Task -> samples of the metrics of `decision_metrics`, for every task that has a record."""
    samples: dict[str, Decisions] = {}
    for task in LABEL_TASKS:
        view = task_view(truth, task)
        if view.has_label.any():
            calls = label_matrix(decisions, task)[0][view.has_label]
            columns = [i for i, name in enumerate(view.classes) if name not in missing_classes.get(task, ())]
            classes = [view.classes[i] for i in columns]
            samples[task] = bootstrap_decisions(
                view.labels[:, columns], calls[:, columns], classes, resamples=sampling.resamples, seed=sampling.seed
            )
    return samples


def macro_intervals(samples: Mapping[str, BootstrapSamples], recentre: bool = False) -> dict[str, Interval]:
    """Task -> interval of the mean over classes; see `BootstrapSamples.summary`."""
    return {task: of_task.summary(recentre=recentre).macro for task, of_task in samples.items()}


def ecgbench_metrics(answers: Sequence[str], statement_sets: Sequence[Sequence[str]]) -> EcgBenchMetrics:
    """Score one answer per record in the manner of ECGBench; records without a superclass are left out.

    It searches for a label's letters anywhere in the answer, so "NORM" matches in "ABNORMAL", "AF" in "LAFB", and "MI"
    in "no sign of MI". It is here, under its own name and beside our metrics, because figures of this kind are
    published and readers want to compare; what those papers call AUC is the ROC AUC of 0/1 decisions, which is balanced
    accuracy.
    """
    view = task_view(statement_sets, "superdiagnostic")
    labels = [substring_labels(answer) for answer in answers]
    decisions = np.array([[name in of_answer for name in view.classes] for of_answer in labels], dtype=np.bool_)
    if not view.has_label.any():
        return EcgBenchMetrics(0, *[float("nan")] * 3)
    samples = bootstrap_decisions(view.labels, decisions[view.has_label], view.classes, resamples=1)
    return EcgBenchMetrics(
        int(view.has_label.sum()),
        samples.balanced_accuracy.summary().macro.value,
        samples.f1.summary().macro.value,
        float(samples.hamming_loss.point[0]),
    )


def substring_labels(answer: str, labels: Sequence[str] = ECGBENCH_LABELS) -> tuple[str, ...]:
    """The labels whose letters occur anywhere in `answer`, without regard to word boundaries and negations."""
    return tuple(label for label in labels if label in answer)


def text_metrics(answers: Sequence[str], references: Sequence[str]) -> TextMetrics | None:
    """How near the words of answers come to their reference reports; None when no answer has a reference.

    BLEU: Papineni et al. 2002 as fixed by Post 2018 (sacrebleu, case-insensitive here: reports differ in capitals only
    by habit). chrF: Popovic 2015. ROUGE-L: see `rouge_l`. All three count shared words and letters: a report that
    denies what the reference states scores high. Marked thoughts are no part of an answer.
    """
    pairs = [(without_thoughts(a, len(a)).lstrip(), r) for a, r in zip(answers, references, strict=True) if r.strip()]
    if not pairs:
        return None
    from sacrebleu.metrics.bleu import BLEU  # slow to import
    from sacrebleu.metrics.chrf import CHRF

    texts, targets = [a for a, _ in pairs], [r for _, r in pairs]
    bleu, chrf = BLEU(lowercase=True), CHRF(lowercase=True)
    b, c = bleu.corpus_score(texts, [targets]), chrf.corpus_score(texts, [targets])
    rouge = [rouge_l(a, r) for a, r in pairs]
    signature = f"{bleu.get_signature()}; {chrf.get_signature()}"
    return TextMetrics(len(pairs), float(b.score), float(c.score), 100 * sum(rouge) / len(rouge), signature)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L, F-measure (Lin 2004), 0 to 1: of the longest common subsequence of words, lower case, not stemmed.

    On ASCII text the value is that of the package rouge-score; other letters count as letters here ("Überdrehter"),
    since reports are German as well as English.
    """
    words, targets = _words(answer), _words(reference)
    common = _common_subsequence(words, targets)
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(targets)
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    return "".join(ch if ch.isalnum() else " " for ch in text.lower()).split()


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; a row of the usual table at a time."""
    row = [0] * (len(b) + 1)
    for item in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if item == other else max(row[j], row[j - 1])
    return row[-1]


def _by_record(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.record_id, []).append(answer)
    return groups
