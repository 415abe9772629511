"""What the systems of `make comparison` had and cost: `python benchmarks/comparison.py runs/comparison` prints a table.

Their figures with intervals are in the report's table (`benchmarks/results.py`); here stand macro-AUC over all 71 of
every seed, parameters, seconds of training (of all attempts) and of the prediction, reading the records included, and
what the paper had and what the run here had.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from eval.baselines.baseline import parameter_count
from eval.baselines.checkpoint import load
from eval.metrics.bootstrap import macro_auc
from eval.storage import labels_in, read_scores
from eval.types import label_matrix
from render.errors import InputError

_BENCHMARK = "17,418 records of folds 1-8, {} epochs"
PAPERS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("xresnet1d101", "inception1d", "resnet1d_wang", "fcn_wang"), _BENCHMARK.format(50)),
        "wavelet_nn": _BENCHMARK.format(30),
        "multiresconv": _BENCHMARK.format(100),
        "protoecgnet": _BENCHMARK.format("up to 200"),
        "more_nano": "MIMIC's ECGs, X-rays and reports; a larger network",
    }
)
"""Name -> what its paper trained on."""


def comparison_table(folder: Path) -> str:
    """The table in Markdown, a line for each system, from the folder of `comparison.sh`.

    Raises:
        InputError: When a part is missing.
    """
    lines = [
        "| system | macro-AUC of seeds | parameters | training | prediction | the paper had | here |",
        "|---" * 7 + "|",
    ]
    for path in sorted((folder / "runs" / "0").glob("*/model.json")):
        name = path.parent.name
        model = load(path.parent)
        seeds = sorted(each.name for each in (folder / "scores").iterdir() if (each / name).is_dir())
        values = [_macro_auc(folder, folder / "scores" / seed / name / "scores.parquet") for seed in seeds]
        epochs = f"{len(model.epochs)} epochs" if model.epochs else "reports, no labels"
        cells = (
            name,
            ", ".join(f"{value:.3f}".removeprefix("0") for value in values),
            f"{parameter_count(model.network):,}",
            f"{_seconds(folder / 'runs' / '0' / name):,} s",
            f"{_seconds(folder / 'scores' / '0' / name):,} s",
            PAPERS.get(name, ""),
            f"{model.request.records:,} records, {epochs}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _macro_auc(folder: Path, scores: Path) -> float:
    records = labels_in(folder / "report" / "scores.parquet")
    if records is None:
        raise InputError(f"{folder / 'report'}: has no labels; run make comparison again")
    ids, values = read_scores(scores)
    rows = {record_id: row for row, record_id in enumerate(ids)}
    labels = label_matrix(records.statements, "all")[0]
    return macro_auc(labels, values[[rows[record_id] for record_id in records.record_ids]]).value


def _seconds(path: Path) -> int:
    return sum(map(int, path.with_name(f"{path.name}.seconds").read_text().split()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of make comparison")
    print(comparison_table(parser.parse_args().folder))
