"""A model in the processes of a cluster, each of which holds it once: for `evaluate` and `ask`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from render.workers import Step, Workers, run_tasks

if TYPE_CHECKING:
    from ecg_vlm.reader import Reader


class ReaderOnNodes:
    """A model in the processes of a cluster. Its facts as of `Reader`, and `device` in words.

    model, loading: as of `Reader.load`.
    """

    def __init__(self, workers: Workers, model: str, loading: Mapping[str, Any]) -> None:
        self._workers, self._model = workers, (model, tuple(loading.items()))
        facts: list[tuple[str, int, str]] = []
        run_tasks(_facts_on_node, [self._model], workers, lambda steps: None, facts.append)
        self.name, self.batch_size, self.device = facts[0]

    def run(
        self,
        work: Callable[[Reader, Sequence[Any]], Any],
        batches: Iterable[Sequence[Any]],
        take: Callable[[int, Any], None],
        show: Callable[[int], None],
    ) -> None:
        """Do `work` on every batch; a bounded number of them is on the way at once.

        Args:
            take: called with the number of a batch, from 0, and its result, in the order of the batches.
            show: called with how many items of all batches are done.
        """
        early: dict[int, Any] = {}
        following = 0

        def take_in_order(done: tuple[int, Any]) -> None:
            nonlocal following
            early[done[0]] = done[1]
            while following in early:
                take(following, early.pop(following))
                following += 1

        tasks = ((*self._model, work, number, batch) for number, batch in enumerate(batches))
        run_tasks(_work_on_node, tasks, self._workers, show, take_in_order)


def device_name(reader: Reader) -> str:
    """What a model runs on, in words."""
    import torch

    device = next(reader.model.parameters()).device
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads"
    )


@lru_cache(maxsize=1)
def _reader_of_process(model: str, loading: tuple[tuple[str, Any], ...]) -> Reader:
    from ecg_vlm.reader import Reader

    return Reader.load(model, **dict(loading))


def _facts_on_node(model: str, loading: tuple[tuple[str, Any], ...], step: Step) -> tuple[str, int, str]:
    reader = _reader_of_process(model, loading)
    return reader.name, reader.batch_size, device_name(reader)


def _work_on_node(
    model: str,
    loading: tuple[tuple[str, Any], ...],
    work: Callable[[Reader, Sequence[Any]], Any],
    number: int,
    batch: Sequence[Any],
    step: Step,
) -> tuple[int, Any]:
    result = work(_reader_of_process(model, loading), batch)
    for _ in batch:
        step()
    return number, result
