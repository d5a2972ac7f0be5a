"""The plain ASGI middleware that sees every request from its start to its end.

It gives the request an id (the client's `X-Request-ID` if it is a sane one), and at the end writes
one log line, counts it by its route's template, never by its raw path, and closes its span.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import tracing
from service.metrics import UNMATCHED, Metrics
from service.problems import MEDIA_TYPE

logger = structlog.get_logger("pool5.request")

QUIET = ("/health", "/metrics", "/static")
"""Asked so often that the log says so only at the level debug, and traces do not."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def route_of(scope: Mapping[str, Any]) -> str:
    """The template of the route that took a request; `unmatched`: none did."""
    return getattr(scope.get("route"), "path", UNMATCHED)


class Observe:
    """Outermost, so that what other middleware refuses is seen as well."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics: Metrics = scope["app"].state.engine.metrics
        seen = _Answer(_request_id(scope), send)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=seen.request_id)
        started = time.perf_counter()
        with tracing.request(scope) as traced, metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, seen.send)
            finally:
                seconds = time.perf_counter() - started
                _log(scope, seen.status, seconds)
                metrics.observe_request(scope["method"], route_of(scope), seen.status, seconds)
                if seen.code:
                    metrics.problems.labels("answer", seen.code).inc()
                if traced:
                    traced.ended(scope, seen.status, seen.request_id)


class _Answer:
    """Adds the id to an answer and remembers its status, and its code where it is a problem."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status = 500
        self.code = ""
        self._send = send
        self._problem = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"x-request-id", self.request_id.encode())]
            message["headers"] = headers
            self.status = message["status"]
            self._problem = (b"content-type", MEDIA_TYPE.encode()) in headers
        elif self._problem and not self.code:
            with suppress(ValueError, KeyError):
                self.code = json.loads(message["body"])["code"]
        await self._send(message)


def _request_id(scope: Scope) -> str:
    asked: str = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex


def _log(scope: Scope, status: int, seconds: float) -> None:
    logger.log(
        logging.DEBUG if scope["path"].startswith(QUIET) else logging.INFO,
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        ms=round(seconds * 1000, 1),
    )
