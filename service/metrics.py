"""What Prometheus sees."""

from collections.abc import Callable, Iterable, Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from index import FileOutcome

logger = structlog.get_logger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

UNMATCHED = "unmatched"
"""The route of a request that no route took."""

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

        self.problems = Counter(
            "pool5_problems", "Problems by code, as the answer to a request or of one picture",
            ["where", "code"], registry=self.registry,
        )  # fmt: skip
        self.ready = Gauge(
            "pool5_ready", "1 where the last probe of /health/ready found all well",
            registry=self.registry,
        )  # fmt: skip
        self.probed = Gauge(
            "pool5_ready_probed_timestamp_seconds", "When that probe was", registry=self.registry
        )
        self.decoders_lost = Counter(
            "pool5_decoders_lost", "Decoding processes lost to their picture", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.stage_restarts = Counter(
            "pool5_stage_restarts", "Stages found dead or stuck, and restarted", ["stage"],
            registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record one request, to the end of its answer."""
        method = method if route != UNMATCHED else "any"
        self.requests.labels(method, route, status).inc()
        self.request_seconds.labels(method, route).observe(seconds)

    def observe_pictures(self, collection: str, outcomes: Iterable[FileOutcome]) -> None:
        """Record what became of pictures that were taken in."""
        for outcome in outcomes:
            self.pictures.labels(collection, outcome.status).inc()
            if outcome.code:
                self.problems.labels("picture", outcome.code).inc()

    def observe_probe(self, ready: bool) -> None:
        """Record whether a real forward pass and a real search just worked."""
        self.ready.set(ready)
        self.probed.set_to_current_time()

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
        try:
            for name, documentation, labels, value in self._read():
                family = families.setdefault(
                    name, GaugeMetricFamily(name, documentation, labels=list(labels))
                )
                family.add_metric(list(labels.values()), value)
        except Exception:
            logger.exception("a gauge could not be read; the others are exported")
        yield from families.values()
