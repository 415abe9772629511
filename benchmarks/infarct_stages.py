"""ST elevation of PTB-XL's records by the stage of their infarct, of its normal records, and of simulated infarcts.

    python benchmarks/infarct_stages.py ptbxl:DIR [ptbxl:DIR ...]

For each group: the share with 0.2 mV or more in two contiguous leads at J and 20, 40 and 60 ms later, and percentiles
of what two contiguous leads reach at J + 60 ms. Folds 1-8 alone.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from render.errors import InputError
from render.measurements import CONTIGUOUS_LEADS, st_levels
from render.record import EcgRecord
from render.simulator.acute_infarct import STAGES
from render.simulator.simulate import simulate_infarct
from render.sources.registry import open_source

DELAYS_MS = (0, 20, 40, 60)
SIMULATIONS = 200


def records(specs: list[str]) -> Iterator[tuple[str, EcgRecord]]:
    """(group, record): "normal", a stage in PTB-XL's words, or one of the simulator's."""
    for spec in specs:
        source = open_source(spec, folds=range(1, 9))
        for i in range(len(source)):
            try:
                record = source.read(i)
            except InputError:  # a part of a download
                continue
            if record.infarct_stage or "NORM" in record.statements:
                yield record.infarct_stage or "normal", record
    for stage in STAGES:
        for seed in range(SIMULATIONS):
            yield f"simulated, {stage}", simulate_infarct(seed, stage=stage)


def contiguous_level(record: EcgRecord, delay_ms: float) -> float:
    """Millivolts that two contiguous leads reach; NaN where nothing can be measured."""
    levels = st_levels(record, delay_ms=delay_ms)
    if "aVR" in levels:
        levels["-aVR"] = -levels["aVR"]
    pairs = (pair for chain in CONTIGUOUS_LEADS for pair in pairwise(chain) if set(pair) <= set(levels))
    return max((min(levels[a], levels[b]) for a, b in pairs), default=float("nan"))


def main() -> None:
    """Print a row for each group."""
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for group, record in records(sys.argv[1:]):
        groups[group].append([contiguous_level(record, delay) for delay in DELAYS_MS])
    print("| records | number | >= 0.2 mV at J | J + 20 | J + 40 | J + 60 ms | mV at J + 60: median | 90 % |")
    print("|---|---|---|---|---|---|---|---|")
    for group, rows in groups.items():
        levels = np.array(rows)
        levels = levels[np.isfinite(levels).all(axis=1)]
        shares = " | ".join(f"{share:.1%}" for share in (levels >= 0.2).mean(axis=0))
        middle, high = np.percentile(levels[:, -1], (50, 90))
        print(f"| {group} | {len(levels)} | {shares} | {middle:.2f} | {high:.2f} |")


if __name__ == "__main__":
    main()
