"""What Prometheus reads at /metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .served_model import ServedModel

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own.

    Attributes:
        content_type: of `text`.
    """

    content_type: str = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        """Begin at zero."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "vptkit_requests", "Requests.", ["model", "status"], registry=registry
        )
        self._seconds = Histogram(
            "vptkit_request_seconds",
            "From the request's headers to its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter("vptkit_images", "Images answered.", ["model"], registry=registry)
        self._batch = Histogram(
            "vptkit_batch_images",
            "Images of a run.",
            ["model"],
            buckets=_BATCHES,
            registry=registry,
        )
        self._runs = Histogram(
            "vptkit_run_seconds",
            "A run of the graph.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._waits = Histogram(
            "vptkit_queue_seconds",
            "How long the first image of a run has waited.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue = Gauge(
            "vptkit_queue_images",
            "Images that are decoded, wait or run.",
            ["model"],
            registry=registry,
        )
        self._room = Gauge(
            "vptkit_queue_size", "Images that there is room for.", ["model"], registry=registry
        )
        self._adapters = Gauge("vptkit_adapters", "Adapters.", ["model"], registry=registry)
        self._changes = Counter(
            "vptkit_adapter_changes",
            "Changes on disk that were taken over, or could not be.",
            ["model", "result"],
            registry=registry,
        )

    def request(self, model: str, status: int, seconds: float, images: int) -> None:
        """Count a request; `model` is "" where none was meant."""
        self._requests.labels(model, str(status)).inc()
        if images:
            self._seconds.labels(model).observe(seconds)
            if status < 400:
                self._images.labels(model).inc(images)

    def runs_of(self, model: str) -> Callable[[int, float, float], None]:
        """What a model's queue tells of each run: images, seconds, seconds waited."""
        batch, runs = self._batch.labels(model), self._runs.labels(model)
        waits = self._waits.labels(model)

        def observed(images: int, seconds: float, waited: float) -> None:
            batch.observe(images)
            runs.observe(seconds)
            waits.observe(waited)

        return observed

    def change(self, model: ServedModel, taken: bool) -> None:
        """Count a change of a model's adapters on disk."""
        self._changes.labels(model.name, "taken" if taken else "refused").inc()

    def text(self, models: Iterable[ServedModel]) -> bytes:
        """All of them in Prometheus' format."""
        for model in models:
            self._queue.labels(model.name).set(model.queue.held)
            self._room.labels(model.name).set(model.queue.size)
            self._adapters.labels(model.name).set(len(model.bundle.adapter_names))
        return generate_latest(self._registry)
