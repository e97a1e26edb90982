"""How is the door doing? Counts and times in Prometheus' text format."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from stratus.api.endpoint import Figure

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)


class _Figures(Collector):
    """What the composition root knows, as it was when last asked."""

    def __init__(self) -> None:
        self.now: tuple[Figure, ...] = ()

    def collect(self) -> Iterable[Metric]:
        """Turn the figures into families."""
        families: dict[str, GaugeMetricFamily] = {}
        for figure in self.now:
            family = families.get(figure.name)
            if family is None:
                names = [name for name, _ in figure.labels]
                family = GaugeMetricFamily(figure.name, figure.help, labels=names)
                families[figure.name] = family
            family.add_metric([value for _, value in figure.labels], figure.value)
        return families.values()


class Metrics:
    """The counters of one API process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "stratus_http_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "stratus_http_request_seconds",
            "Time from request to answer",
            ("method", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._gauges: dict[str, Gauge] = {}
        self._counts: dict[tuple[str, str, int], Counter] = {}
        self._times: dict[tuple[str, str], Histogram] = {}
        self._figures = _Figures()
        self._registry.register(self._figures)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a template, never what a client wrote."""
        key = (method if route != "unknown" else "any", route, status)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = self._requests.labels(key[0], route, str(status))
        count.inc()
        time = self._times.get(key[:2])
        if time is None:
            time = self._times[key[:2]] = self._seconds.labels(key[0], route)
        time.observe(seconds)

    def gauge(self, name: str, help_: str, read: Callable[[], float]) -> None:
        """Show this number whenever somebody asks for the metrics."""
        gauge = Gauge(name, help_, registry=self._registry)
        gauge.set_function(read)
        self._gauges[name] = gauge

    def figures_set(self, figures: Iterable[Figure]) -> None:
        """Replace what the composition root knows."""
        self._figures.now = tuple(figures)

    def text(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self._registry)
