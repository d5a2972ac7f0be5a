"""OpenTelemetry: spans over OTLP/HTTP. Imported only where traces are asked for.

Everything else is set as everywhere, by `OTEL_…` variables: headers, sampler, service name.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.observing import QUIET, route_of
from service.problems import Problem
from service.security.callers import is_loopback
from service.tracing import Trail

Result = TypeVar("Result")

FROM_ENVIRONMENT = "otel"
VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PATH = "/v1/traces"


def endpoint(setting: str, offline: bool) -> str:
    """Where spans are posted: a collector's address, or `otel` for that of the variables.

    Raises Problem: `traces-unclear` (no address), `traces-offline` (offline, and not loopback).

    >>> endpoint("http://127.0.0.1:4318", offline=True)
    'http://127.0.0.1:4318/v1/traces'
    """
    if setting == FROM_ENVIRONMENT:
        whole, base = (os.environ.get(name) for name in VARIABLES)
        found = whole or (base and base.rstrip("/") + PATH) or ""
    else:
        found = setting if setting.endswith(PATH) else setting.rstrip("/") + PATH
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Problem(
            "traces-unclear",
            f"POOL5_TRACES is {setting!r}: give http://host:4318, or `otel` and set {VARIABLES[1]}",
        )
    if offline and not is_loopback(parts.hostname):
        raise Problem(
            "traces-offline",
            f"POOL5_OFFLINE forbids to send traces to {parts.hostname}: unset one of the two, or "
            "run a collector on the loopback address",
        )
    return found


@dataclass
class Request:
    """The span of a request, whose route is known only when it ends."""

    span: trace.Span

    def ended(self, scope: Mapping[str, Any], status: int, request_id: str) -> None:
        """Name the span for its route, and say how it went."""
        route = route_of(scope)
        self.span.update_name(f"{scope['method']} {route}")
        self.span.set_attributes(
            {
                "http.request.method": scope["method"],
                "http.route": route,
                "url.path": scope["path"],
                "http.response.status_code": status,
                "pool5.request_id": request_id,
            }
        )
        if status >= 500:
            self.span.set_status(StatusCode.ERROR)


class Tracer:
    """Makes spans, and sends them from a thread of its own."""

    def __init__(self, address: str) -> None:
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "pool5")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
        self._tracer = self._provider.get_tracer("pool5")
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
        """A part of what is under way here; an exception is noted and passes."""
        given = {f"pool5.{key}": value for key, value in attributes.items() if value is not None}
        with self._tracer.start_as_current_span(name, attributes=given):
            yield

    @contextmanager
    def request(self, scope: Any) -> Iterator[Request | None]:
        """A request, in its client's trace. What balancers ask every second leaves no trace."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if scope["path"].startswith(QUIET):
            with trace.use_span(_not_sampled()):
                yield None
            return
        parent = self._propagator.extract(headers, Context())
        with self._tracer.start_as_current_span(scope["method"], parent, SpanKind.SERVER) as span:
            yield Request(span)

    def carried(self, work: Callable[..., Result]) -> Callable[..., Result]:
        """The same work in the context that is current here."""
        here = context.get_current()

        def carrying(*given: Any) -> Result:
            token = context.attach(here)
            try:
                return work(*given)
            finally:
                context.detach(token)

        return carrying

    def trail(self) -> Trail:
        """The context that is current here, now."""
        return context.get_current(), time.time_ns()

    def passed(self, trails: Sequence[Trail | None], seconds: float) -> None:
        """For each picture of a pass that ended just now: how long it waited, and the pass."""
        end = time.time_ns()
        start = end - round(seconds * 1e9)
        for around, queued in (trail for trail in trails if trail is not None):
            if not trace.get_current_span(around).is_recording():
                continue
            self._tracer.start_span("queue", around, start_time=queued).end(max(start, queued))
            size = {"pool5.pictures": len(trails)}
            self._tracer.start_span("pass", around, attributes=size, start_time=start).end(end)


def _not_sampled() -> trace.Span:
    ids = (1 << 127, 1 << 63)
    return NonRecordingSpan(SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(0)))
