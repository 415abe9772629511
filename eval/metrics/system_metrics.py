"""The figures of one system: from probabilities, from decisions at frozen thresholds, from answers in words.

Three kinds of number, three classes: nothing made from decisions stands in a class, a column or a table with anything
made from probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics.calibration import Calibration, codes_above_thresholds
from eval.metrics.curves import ConfusablePairs, Roc, confusable_pairs, rocs
from eval.metrics.decisions import Decisions, bootstrap_decisions
from eval.metrics.ecgbench import EcgBenchMetrics, ecgbench_metrics
from eval.metrics.probability import Bin, bootstrap_brier, bootstrap_fmax, calibration_error, reliability
from eval.metrics.ranking import BootstrapSamples, Interval, Rankings, bootstrap_rankings
from eval.metrics.tasks import Floats, TaskView, label_matrix, task_view
from eval.metrics.text_overlap import TextMetrics, text_metrics
from eval.parser.parse import refusal
from eval.types import Answer, LabelledRecords, System
from render.statements import LABEL_TASKS


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn."""

    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class ProbabilityMetrics:
    """How far probabilities can be taken at their word: task -> Brier score and calibration error, means over classes.

    reliability: the curve over all 71 statements.
    """

    brier: dict[str, Interval]
    calibration_error: dict[str, float]
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class DecisionMetrics:
    """Figures of decisions: task -> mean over classes of F1 and balanced accuracy, Hamming loss, exact match.

    statement_f1: of each statement that has a record with and one without it.
    """

    f1: dict[str, Interval]
    balanced_accuracy: dict[str, Interval]
    hamming_loss: dict[str, Interval]
    exact_match: dict[str, Interval]
    statement_f1: dict[str, Interval]


@dataclass(frozen=True)
class AnswerMetrics:
    """Figures of answers in words. Not comparable with any score metric.

    records: records with at least one answer; unparsed: share of answers in which no statement was found.
    ecgbench: the same answers scored in the manner of ECGBench. text: nearness to the reference reports, if there are
    any.
    """

    records: int
    answers: int
    unparsed: float
    decisions: DecisionMetrics
    ecgbench: EcgBenchMetrics
    text: TextMetrics | None


@dataclass(frozen=True)
class RefusalMetrics:
    """How often answers refuse (`eval.parser.parse.refusal`): pages that cannot be read, and pages that can.

    unreadable, readable: pages with an answer. refused, wrongly_refused: those of each whose answers all refuse.
    """

    unreadable: int
    refused: int
    readable: int
    wrongly_refused: int

    def lines(self) -> tuple[str, ...]:
        """The two shares in words; one that no page stands behind is left out."""
        shares = (
            (self.refused, self.unreadable, "of {} pages that cannot be read are refused"),
            (self.wrongly_refused, self.readable, "of {} readable pages are refused wrongly"),
        )
        return tuple(f"{n} {words.format(of)} ({100 * n / of:.1f} %)" for n, of, words in shares if of)


@dataclass(frozen=True)
class SystemMetrics:
    """One system. All but `hard`, `refusals`, `notes` and `cost` come from its probabilities; None or empty without.

    macro_auc, average_precision, fmax: per task. statement_auc, statement_precision: per statement (task "all").
    probabilities: of the scores as given; calibrated: of the calibrated ones, thresholded: decisions at the frozen
    thresholds, calibration: what they were fitted on; None without a calibration.
    refusals: None without answers.
    """

    name: str
    notes: str
    cost: dict[str, object]
    macro_auc: dict[str, Interval] | None = None
    statement_auc: dict[str, Interval] | None = None
    average_precision: dict[str, Interval] | None = None
    statement_precision: dict[str, Interval] | None = None
    fmax: dict[str, Interval] | None = None
    probabilities: ProbabilityMetrics | None = None
    calibrated: ProbabilityMetrics | None = None
    thresholded: DecisionMetrics | None = None
    calibration: dict[str, object] | None = None
    rocs: tuple[Roc, ...] = ()
    neighbours: tuple[ConfusablePairs, ...] = ()
    hard: AnswerMetrics | None = None
    refusals: RefusalMetrics | None = None


def bootstrap_tasks(scores: Floats, views: Mapping[str, TaskView], sampling: Sampling) -> dict[str, Rankings]:
    """Task -> draws of AUC and average precision of (n, 71) scores, for every task that has a record."""
    return {
        task: bootstrap_rankings(
            view.labels, view.scores(scores), view.classes, resamples=sampling.resamples, seed=sampling.seed
        )
        for task, view in views.items()
        if view.kept.any()
    }


def system_metrics(
    system: System,
    records: LabelledRecords,
    views: Mapping[str, TaskView],
    rankings: Mapping[str, Rankings] | None,
    calibration: Calibration | None,
    sampling: Sampling,
) -> SystemMetrics:
    """All figures of one system. rankings: of `bootstrap_tasks`, None for a system without scores."""
    hard = _hard_figures(system, records, sampling) if system.answers_about(readable=True) else None
    refusals = _refusal_figures(system) if system.answers else None
    cost = dict(system.cost)
    if rankings is None:
        return SystemMetrics(system.name, system.notes, cost, hard=hard, refusals=refusals)
    scores = system.scores_of(records.record_ids)
    decided = None if calibration is None else calibration.decide(scores)
    thresholded = (
        None if decided is None else _decision_figures(records.statements, codes_above_thresholds(decided), sampling)
    )
    return SystemMetrics(
        system.name,
        system.notes,
        cost,
        macro_auc=_macros({task: r.auc for task, r in rankings.items()}),
        statement_auc=rankings["all"].auc.summary().per_class,
        average_precision=_macros({task: r.average_precision for task, r in rankings.items()}, centred=True),
        statement_precision=rankings["all"].average_precision.summary(centred=True).per_class,
        fmax=_fmax(scores, views, sampling),
        probabilities=_probability_figures(scores, views, sampling),
        calibrated=None if calibration is None else _probability_figures(calibration.apply(scores), views, sampling),
        thresholded=thresholded,
        calibration=None if calibration is None else calibration.summary(),
        rocs=rocs(records.statements, scores),
        neighbours=confusable_pairs(records.statements, scores, decided),
        hard=hard,
        refusals=refusals,
    )


def _macros(drawn: Mapping[str, BootstrapSamples], centred: bool = False) -> dict[str, Interval]:
    return {task: draws.summary(centred=centred).macro for task, draws in drawn.items()}


def _fmax(scores: Floats, views: Mapping[str, TaskView], sampling: Sampling) -> dict[str, Interval]:
    how = {"resamples": sampling.resamples, "seed": sampling.seed}
    return _macros(
        {task: bootstrap_fmax(v.labels, v.scores(scores), **how) for task, v in views.items() if v.kept.any()}
    )


def _probability_figures(scores: Floats, views: Mapping[str, TaskView], sampling: Sampling) -> ProbabilityMetrics:
    brier, error = {}, {}
    for task, view in views.items():
        if not view.kept.any():
            continue
        given = view.scores(scores)
        drawn = bootstrap_brier(view.labels, given, view.classes, resamples=sampling.resamples, seed=sampling.seed)
        brier[task] = drawn.summary().macro
        defined = np.isfinite(drawn.point)
        error[task] = float(calibration_error(view.labels, given)[defined].mean()) if defined.any() else float("nan")
    everything = views["all"]
    return ProbabilityMetrics(brier, error, reliability(everything.labels, everything.scores(scores)))


def _decision_figures(
    truth: Sequence[Sequence[str]], decided: Sequence[Sequence[str]], sampling: Sampling
) -> DecisionMetrics:
    """Figures of decided codes. A sub- or superclass is decided as soon as one of its statements is."""
    drawn: dict[str, Decisions] = {}
    for task in LABEL_TASKS:
        view = task_view(truth, task)
        if view.kept.any():
            decisions = label_matrix(decided, task)[0][view.kept]
            drawn[task] = bootstrap_decisions(
                view.labels, decisions, view.classes, resamples=sampling.resamples, seed=sampling.seed
            )
    return DecisionMetrics(
        f1=_macros({task: d.f1 for task, d in drawn.items()}, centred=True),
        balanced_accuracy=_macros({task: d.balanced_accuracy for task, d in drawn.items()}, centred=True),
        hamming_loss=_macros({task: d.hamming_loss for task, d in drawn.items()}),
        exact_match=_macros({task: d.exact_match for task, d in drawn.items()}),
        statement_f1=drawn["all"].f1.summary().per_class if "all" in drawn else {},
    )


def _hard_figures(system: System, records: LabelledRecords, sampling: Sampling) -> AnswerMetrics:
    """Decisions per record: a statement is decided present when any answer of the record states it without doubt."""
    readable = system.answers_about(readable=True)
    answers = _by_record(readable)
    rows = [i for i, record_id in enumerate(records.record_ids) if record_id in answers]
    truth = [records.statements[i] for i in rows]
    said = [answers[records.record_ids[i]] for i in rows]
    stated = [tuple({code for answer in of_one for code in answer.present}) for of_one in said]
    references = dict(zip(records.record_ids, records.references, strict=True)) if records.references else {}
    mute = sum(not (a.present or a.absent or a.uncertain) for a in readable)
    return AnswerMetrics(
        records=len(rows),
        answers=len(readable),
        unparsed=mute / len(readable),
        decisions=_decision_figures(truth, stated, sampling),
        ecgbench=ecgbench_metrics([" ".join(a.answer for a in of_one) for of_one in said], truth),
        text=text_metrics(
            [a.answer for a in readable], [a.reference or references.get(a.record_id, "") for a in readable]
        ),
    )


def _refusal_figures(system: System) -> RefusalMetrics:
    unreadable, readable = (_by_record(system.answers_about(readable=which)) for which in (False, True))
    refused, wrongly = (
        sum(all(refusal(answer.answer) for answer in of_one) for of_one in pages.values())
        for pages in (unreadable, readable)
    )
    return RefusalMetrics(len(unreadable), refused, len(readable), wrongly)


def _by_record(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.record_id, []).append(answer)
    return found
