"""How often the first results of a search hold what belongs to the query: recall at k, beside chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Recall(NamedTuple):
    """Share of the queries with a match among the first k results, and what a random order would give."""

    k: int
    found: float
    chance: float


def recall(
    similarities: NDArray[np.floating], matches: NDArray[np.bool_], ks: Sequence[int] = (1, 5, 10)
) -> list[Recall]:
    """Recall at each k.

    Equal similarities count as the worst order of them, so that a network that tells nothing apart finds nothing.

    Args:
        similarities: (queries, items). matches: (queries, items), each query with one at least.

    Raises:
        ValueError: For arrays that do not fit together, and for a query without a match.
    """
    if similarities.shape != matches.shape or similarities.ndim != 2 or not matches.any(axis=1).all():
        raise ValueError(f"similarities {similarities.shape}, matches {matches.shape}; each query needs a match")
    best = np.where(matches, similarities, -np.inf).max(axis=1, keepdims=True)
    rank = 1 + (~matches & (similarities >= best)).sum(axis=1)
    items, counts = matches.shape[1], matches.sum(axis=1).tolist()
    return [
        Recall(
            k,
            float((rank <= k).mean()),
            # Hypergeometric: none of n matches among k of all items.
            1
            - sum(math.comb(items - n, min(k, items)) / math.comb(items, min(k, items)) for n in counts) / len(counts),
        )
        for k in ks
    ]
