"""What Prometheus sees, and the plain ASGI middleware that counts requests."""

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Sample = tuple[str, str, dict[str, str], float]
"""Name, help, labels and value of a gauge that is read when Prometheus asks."""


class Metrics:
    """Every series of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pool5_requests", "Requests by route and status", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "pool5_request_seconds", "Time to the end of the answer", ["method", "route"],
            registry=self.registry, buckets=_SECONDS,
        )  # fmt: skip
        self.in_flight = Gauge(
            "pool5_requests_in_flight", "Requests being answered", registry=self.registry
        )
        self.stage_seconds = Histogram(
            "pool5_search_stage_seconds", "Stages of a search: decode, forward, search", ["stage"],
            registry=self.registry, buckets=_SECONDS,
        )  # fmt: skip
        self.batch_pictures = Histogram(
            "pool5_batch_pictures", "Pictures in a forward pass", registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "pool5_batch_seconds", "Duration of a forward pass", registry=self.registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self.pictures = Counter(
            "pool5_pictures", "Pictures taken in, by outcome", ["collection", "status"],
            registry=self.registry,
        )  # fmt: skip

        self.decoders_lost = Counter(
            "pool5_decoders_lost", "Decoding processes lost to their picture", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.stage_restarts = Counter(
            "pool5_stage_restarts", "Stages found dead or stuck, and restarted", ["stage"],
            registry=self.registry,
        )  # fmt: skip

    def observe_batch(self, size: int, seconds: float) -> None:
        """Record one forward pass."""
        self.batch_pictures.observe(size)
        self.batch_seconds.observe(seconds)

    def read_at_scrape(self, read: Callable[[], Iterable[Sample]]) -> None:
        """Export gauges whose values are looked up only when somebody asks."""
        self.registry.register(_AtScrape(read))


class _AtScrape(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing is looked up while registering."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family per name."""
        families: dict[str, GaugeMetricFamily] = {}
        for name, documentation, labels, value in self._read():
            family = families.setdefault(
                name, GaugeMetricFamily(name, documentation, labels=list(labels))
            )
            family.add_metric(list(labels.values()), value)
        yield from families.values()


class MeasureRequests:
    """Count and time every request by its route's template, never by its raw path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics: Metrics = scope["app"].state.engine.metrics
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics.in_flight.inc()
        try:
            await self.app(scope, receive, watch)
        finally:
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if route != "unmatched" else "any"
            metrics.requests.labels(method, route, status).inc()
            metrics.request_seconds.labels(method, route).observe(time.perf_counter() - started)
