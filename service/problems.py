"""Errors as RFC 9457 problem details: a stable `code`, a sentence that names input and remedy."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index import CollectionError
from index.disk import FULL, of_system
from models import ModelsError
from service.fetch import FetchError
from service.indexing.source import SourceError

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

# Exact codes first, then the longest prefix; whatever is not named here is the caller's 422.
STATUS: Mapping[str, int] = {
    "picture-too-many-bytes": 413,
    "picture-format-unknown": 415,
    "request-too-large": 413,
    "request-malformed": 400,
    "request-unsupported": 415,
    "request-timeout": 504,
    "collection-unknown": 404,
    "collection-exists": 409,
    "collection-fingerprint-differs": 409,
    "item-unknown": 404,
    "duplicate": 409,
    "snapshot-unknown": 404,
    "snapshot-under-way": 409,
    "snapshot-failed": 507,
    "item-picture-missing": 404,
    "grids-damaged": 409,
    "job-unknown": 404,
    "job-running": 409,
    "job-nothing-to-retry": 409,
    "job-source-gone": 409,
    "spec-unknown-network": 404,
    "folder-not-allowed": 403,
    "path-outside-roots": 403,
    "url-forbidden": 403,
    "weights-": 409,
    "device-": 409,
    "overloaded": 429,
    "shutting-down": 503,
    "client-gone": 408,
    "decoder-unavailable": 503,
    "forward-lost": 503,
    "forward-out-of-memory": 503,
    "manifest-not-allowed": 403,
    "catalog-": 503,
    "disk-": 503,
    "disk-full": 507,
    "internal-error": 500,
    "not-found": 404,
    "method-not-allowed": 405,
    "key-missing": 401,
    "key-refused": 401,
    "key-unknown": 404,
    "scope-missing": 403,
    "collection-forbidden": 403,
    "origin-forbidden": 403,
    "request-too-slow": 408,
    "host-unknown": 421,
    "rate-limited": 429,
}


HTTP_CODES: Mapping[int, str] = {
    400: "request-malformed",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-too-slow",
    413: "request-too-large",
}

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Problem(Exception):
    """A problem that the service itself finds with a request."""

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.headers = headers


def status_of(code: str) -> int:
    """The HTTP status of a problem code.

    >>> status_of("collection-unknown"), status_of("weights-differ"), status_of("spec-invalid")
    (404, 409, 422)
    """
    prefixes = sorted((p for p in STATUS if p.endswith("-") and code.startswith(p)), key=len)
    return STATUS.get(code) or (STATUS[prefixes[-1]] if prefixes else 422)


def problem_of(error: Exception) -> dict[str, Any]:
    """An error that names a code as problem details, without `instance`."""
    code = getattr(error, "code", "internal-error")
    return details(code, str(error), status_of(code))


def details(code: str, detail: str, status: int) -> dict[str, Any]:
    """The members of RFC 9457; `type` points into the documentation of this very service."""
    return {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }


def response(
    path: str, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer that is a problem, for a request to `path`."""
    body = {**problem, "instance": path}
    return JSONResponse(body, problem["status"], headers, media_type=MEDIA_TYPE)


def _allowed(request: Request) -> list[str]:
    """The methods of every route at this path; the router names those of the first alone."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] == Match.FULL for route in routes
        )
    ]


KNOWN = (ModelsError, CollectionError, SourceError, FetchError, Problem)
"""Errors whose code and message are for the caller."""


def install(app: FastAPI) -> None:
    """Answer every error of the application with problem details."""

    def answer(request: Request, problem: dict[str, Any], headers: Any = None) -> JSONResponse:
        return response(request.url.path, problem, headers)

    async def known(request: Request, error: Exception) -> JSONResponse:
        return answer(request, problem_of(error), getattr(error, "headers", None))

    async def invalid(request: Request, error: Any) -> JSONResponse:
        said = "; ".join(
            f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"
            for found in error.errors()[:5]
        )
        return answer(request, details("request-invalid", said, 422))

    async def http(request: Request, error: Any) -> JSONResponse:
        code = HTTP_CODES.get(error.status_code, f"http-{error.status_code}")
        headers = error.headers
        if error.status_code == 405 and (methods := _allowed(request)):
            headers = {"Allow": ", ".join(methods)}
        return answer(request, details(code, str(error.detail), error.status_code), headers)

    async def system(request: Request, error: Any) -> JSONResponse:
        if error.errno not in FULL:
            return _unexpected(request.url.path, error)
        # A large upload waits in the folder for temporary files.
        return await known(request, of_system(Path(error.filename or gettempdir()), error))

    for kind in KNOWN:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(OSError, system)
    app.add_middleware(Unexpected)


def _unexpected(path: str, error: Exception) -> JSONResponse:
    logger.error("unexpected error", path=path, exc_info=error)
    detail = "an unexpected error; the service's log says more under this request's id"
    return response(path, details("internal-error", detail, 500))


class Unexpected:
    """Innermost: the answer to what nobody expected gets the headers and the id of any other.

    Starlette's own place for that is outside of all other middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no HTTP request, and errors within an answer that has begun."""
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            await _unexpected(scope["path"], error)(scope, receive, send)
