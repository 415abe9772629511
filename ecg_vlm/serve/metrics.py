"""What /metrics tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ecg_vlm.serve.work_queue import WorkQueue

_SECONDS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


class Metrics:
    """Counts of one server."""

    def __init__(self, queue: WorkQueue) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter("ecg_vlm_requests", "Requests", ["route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "ecg_vlm_request_seconds", "From the request to the end of its answer", ["route"],
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        Gauge("ecg_vlm_queue_waiting", "Requests in the line", registry=self._registry).set_function(
            lambda: queue.waiting
        )
        Gauge("ecg_vlm_queue_running", "Requests that are worked on", registry=self._registry).set_function(
            lambda: queue.running
        )

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has been answered. `route` is one of a few."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
