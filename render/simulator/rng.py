"""The random numbers of one record, sampled in blocks and returned one at a time."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_BLOCK = 128

T = TypeVar("T")


class BufferedRng:
    """A stream of random numbers that the seed determines.

    A numpy call for one random number takes as long as for a hundred, and the model needs about two hundred single
    numbers for a record; so single numbers are taken from blocks. `bulk` is the numpy generator, for arrays.
    """

    def __init__(self, *seed: int) -> None:
        """seed: numbers of at least 0."""
        self.bulk = np.random.default_rng(seed)
        self._uniforms: list[float] = []
        self._normals: list[float] = []

    def random(self) -> float:
        """A number in [0, 1)."""
        if not self._uniforms:
            self._uniforms = self.bulk.random(_BLOCK).tolist()
        return self._uniforms.pop()

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.random()

    def normals(self, count: int) -> list[float]:
        """`count` standard normal numbers."""
        if len(self._normals) < count:
            self._normals = self.bulk.standard_normal(max(count, _BLOCK)).tolist()
        numbers = self._normals[-count:]
        del self._normals[-count:]
        return numbers

    def normal(self, mean: float, sd: float) -> float:
        """A normal number of this mean and standard deviation."""
        if not self._normals:
            self._normals = self.bulk.standard_normal(_BLOCK).tolist()
        return mean + sd * self._normals.pop()

    def gamma(self, shape: float, scale: float) -> float:
        """A gamma number of mean shape * scale."""
        return float(self.bulk.gamma(shape, scale))

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int(limit * self.random())

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, each as likely as the others."""
        return items[self.below(len(items))]

    def weighted_choice(self, items: Sequence[T], cumulative: Sequence[float]) -> T:
        """One of the items. cumulative: running sums of their probabilities; the last sum is 1."""
        return items[min(bisect(cumulative, self.random()), len(items) - 1)]
