"""Limits that hold before a route sees a request, and headers that hold after it."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGE = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Swagger UI styles its elements from its script.
_API_PAGE = _PAGE.replace(
    "default-src 'self'", "default-src 'self'; style-src 'self' 'unsafe-inline'"
)

HEADERS: Mapping[bytes, bytes] = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


MAX_JSON_BYTES = 4 * 1024 * 1024


class Guard:
    """Cut off bodies above `max_body_bytes` while they arrive; add the security headers."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        # Forms are spooled to disk as they arrive; anything else is held in memory.
        form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = self.max_body_bytes if form else min(MAX_JSON_BYTES, self.max_body_bytes)
        received = 0

        async def count() -> Message:
            nonlocal received
            if declared.isdigit() and int(declared) > limit:
                raise _too_large(limit)
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = _API_PAGE if scope["path"] == "/docs" else _PAGE
                message["headers"] = [
                    *message.get("headers", []),
                    *HEADERS.items(),
                    (b"content-security-policy", policy.encode()),
                ]
            await send(message)

        await self.app(scope, count, answer)


def _too_large(limit: int) -> HTTPException:
    # FastAPI lets this pass through its body parser, which turns other errors into a 400.
    detail = f"the request's body is larger than {limit} bytes: send less at once"
    return HTTPException(413, detail, {"Connection": "close"})
