"""Tasks on a Ray cluster, which shares them out among its nodes and runs those of a lost node or process again."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from render.errors import InputError, WorkFailed
from render.workers import Pool, Workers

# So often a task's process or node may be lost. Ray's own 3 are few where machines are taken away at any time; without
# a bound, a task that always kills its process would go round for ever. Ray counts a lack of memory apart.
_RETRIES = 20
# A cluster that grows with the work asks for nodes only when tasks wait.
_LEAST_CAPACITY = 16
_CONNECTION_S = 30


@contextmanager
def ray_cluster(address: str | None = None, most: int | None = None, *, has_model: bool = False) -> Iterator[Workers]:
    """A Ray cluster as the place of tasks, one core each.

    Args:
        address: as `ray.init` takes it: "auto" or HOST:PORT. None: what RAY_ADDRESS says, the cluster
            that runs on this machine, or a new one of this machine alone, which ends with the block.
        most: tasks in the cluster at once; None: twice as many as it has cores, or GPUs.
        has_model: a task needs a GPU of its own where the cluster has any.

    Raises:
        InputError: When there is no cluster at the address.
    """
    import ray

    is_own = not ray.is_initialized()
    try:
        if match := re.fullmatch(r"([^:/]+):(\d{1,5})", address or ""):  # where nothing listens, Ray tries for minutes
            socket.create_connection((match[1], int(match[2])), _CONNECTION_S).close()
        if is_own:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address {address or '(none)'}: no Ray cluster can be reached ({error}); start one with "
            "ray start --head, or leave --address out to use this machine alone"
        ) from error
    try:
        yield _RayWorkers(most, "GPU" if has_model and ray.cluster_resources().get("GPU") else "CPU")
    finally:
        if is_own:
            ray.shutdown()


class _RayWorkers:
    def __init__(self, most: int | None, resource: str) -> None:
        self._most, self._resource = most, resource

    def pool(self, function: Callable[..., Any]) -> Pool:
        return _RayPool(function, self._most, self._resource)


class _RayPool:
    def __init__(self, function: Callable[..., Any], most: int | None, resource: str) -> None:
        import ray

        self._ray, self._most, self._resource = ray, most, resource
        self._task = ray.remote(num_gpus=int(resource == "GPU"), max_retries=_RETRIES)(_run_on_node)
        self._function = ray.put(function)  # once, not with every task: it holds the index of the records
        self._references: dict[Future[Any], Any] = {}
        self.steps = 0

    @property
    def capacity(self) -> int:
        # Asked anew each time, as a cluster grows and shrinks. Twice as many: a free one finds its next task waiting.
        return self._most or max(2 * int(self._ray.cluster_resources().get(self._resource, 0)), _LEAST_CAPACITY)

    def submit(self, task: tuple[Any, ...]) -> Future[Any]:
        reference = self._task.remote(self._function, task)
        future: Future[Any] = reference.future()
        self._references[future] = reference
        return future

    def finish(self, future: Future[Any]) -> Any:
        del self._references[future]
        try:
            steps, result = future.result()
        except self._ray.exceptions.RayTaskError as error:  # what the task itself raised
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise WorkFailed(f"a task was lost on the cluster ({reason}); continue with --resume") from error
        self.steps += steps
        return result

    def close(self) -> None:
        for reference in self._references.values():
            self._ray.cancel(reference, force=True)


def _run_on_node(function: Callable[..., Any], task: tuple[Any, ...]) -> tuple[int, Any]:
    """The number of steps, and the result."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    result = function(*task, step)
    return count, result
