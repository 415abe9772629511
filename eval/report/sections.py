"""Plots and table rows of the report's page that need more than a look-up in the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.metrics.curves import ConfusablePairs
from eval.metrics.ranking import Interval
from eval.metrics.system_metrics import ProbabilityMetrics, SystemMetrics
from eval.report.curve_plots import PlotLine, panel

WORST_PAIRS = 15
_STYLES = 6

Rows = list[tuple[str, list[tuple[SystemMetrics, Mapping[str, Interval] | Mapping[str, float]]]]]
"""Metric -> (system, figures per task)."""

BARE = ("Calibration error (ECE), as given", "Calibration error (ECE), calibrated")
"""Metrics without an interval: resampling adds to a calibration error, so a percentile interval would lie beside it."""


def roc_panels(scored: Sequence[SystemMetrics]) -> list[str]:
    """One ROC plot per shown class with a curve for each system."""
    plots = []
    for k, first in enumerate(scored[0].rocs if scored else ()):
        lines = [
            PlotLine(system.name, system.rocs[k].false_positive_rate, system.rocs[k].true_positive_rate, i % _STYLES)
            for i, system in enumerate(scored)
        ]
        title = f"{first.name} ({first.positives} positive)"
        plots.append(panel(title, lines, x_label="1 - specificity", y_label="sensitivity"))
    return plots


def reliability_panels(scored: Sequence[SystemMetrics]) -> list[str]:
    """One reliability plot per system: dashed as given, solid calibrated."""
    plots = []
    for i, system in enumerate(scored):
        kinds = (("as given", system.probabilities), ("calibrated", system.calibrated))
        lines = [
            _reliability(f"{system.name}, {name}", figures, i, name == "as given")
            for name, figures in kinds
            if figures is not None
        ]
        plots.append(panel(system.name, lines, x_label="probability given", y_label="share that has it"))
    return plots


def score_metrics(scored: Sequence[SystemMetrics]) -> Rows:
    """Rows of the metrics of probabilities, besides the AUC."""
    found: Rows = [
        ("Average precision, macro", [(s, s.average_precision or {}) for s in scored]),
        ("Fmax", [(s, s.fmax or {}) for s in scored]),
    ]
    for name, of in (("as given", "probabilities"), ("calibrated", "calibrated")):
        chosen = [(s, figures) for s in scored if (figures := getattr(s, of)) is not None]
        if chosen:
            found.append((f"Brier score, {name}", [(s, f.brier) for s, f in chosen]))
            found.append((f"Calibration error (ECE), {name}", [(s, f.calibration_error) for s, f in chosen]))
    return found


def decision_metrics(scored: Sequence[SystemMetrics]) -> Rows:
    """Rows of the metrics of decisions at frozen thresholds."""
    chosen = [(s, s.thresholded) for s in scored if s.thresholded is not None]
    return [
        ("F1, macro", [(s, d.f1) for s, d in chosen]),
        ("Balanced accuracy, macro", [(s, d.balanced_accuracy) for s, d in chosen]),
        ("Hamming loss (share of wrong entries; lower is better)", [(s, d.hamming_loss) for s, d in chosen]),
        ("Exact match (share of records with every class right)", [(s, d.exact_match) for s, d in chosen]),
    ]


def confusable_pair_rows(
    scored: Sequence[SystemMetrics],
) -> list[tuple[ConfusablePairs, list[tuple[SystemMetrics, ConfusablePairs]]]]:
    """The pairs that the first system tells apart worst, each with the figures of every system."""
    if not scored:
        return []
    found = {system.name: {(n.first, n.second): n for n in system.neighbours} for system in scored}
    return [
        (pair, [(system, found[system.name][pair.first, pair.second]) for system in scored])
        for pair in scored[0].neighbours[:WORST_PAIRS]
    ]


def _reliability(name: str, figures: ProbabilityMetrics, style: int, dashed: bool) -> PlotLine:
    bins = figures.reliability
    return PlotLine(name, [b.predicted for b in bins], [b.observed for b in bins], style % _STYLES, dashed, dots=True)
