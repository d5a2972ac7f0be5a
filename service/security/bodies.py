"""What a request's body may be: how large, and how slow."""

import asyncio
import time
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.security.operations import Operation, operation
from service.settings import Settings

MAX_JSON_BYTES = 4 * 1024 * 1024

MOST_PICTURES_TO_READ = 32
"""Of the largest size, in a form that changes nothing; what indexes may send whole folders."""

MOST_FORGOTTEN = 1024 * 1024
FORGETTING_S = 1.0
"""What is taken of a body that nobody reads, in bytes and seconds: where a connection is closed on
what has not been taken, it is reset, and the answer is lost with it."""

GRACE_S = 10.0
"""What a client may take to come up to pace."""


class Bodies:
    """Cuts off bodies that are too large or too slow while they arrive.

    `request.state` has the `operation` from here on.

    Only the time that is spent waiting for the client counts: how long the service takes over what
    came is none of the client's fault.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = operation(scope["method"], scope["path"])
        scope.setdefault("state", {})["operation"] = asked
        body = _Body(scope, receive, asked, self._settings)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.forget()
            # What nobody will read must not hold the connection.
            if message["type"] == "http.response.start" and not body.is_over:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self.app(scope, body.receive, answer)


class _Body:
    """The body of one request, measured."""

    def __init__(
        self, scope: Scope, receive: Receive, asked: Operation, settings: Settings
    ) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        self._declared = int(length) if length.isdigit() else 0
        # Forms are spooled to disk as they arrive; anything else is held in memory.
        form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        most = settings.max_body_bytes
        if not asked.writes:
            most = min(most, MOST_PICTURES_TO_READ * settings.max_picture_bytes + MAX_JSON_BYTES)
        self._limit = most if form else min(MAX_JSON_BYTES, most)
        self._stall_s = settings.stall_timeout_s
        self._rate = settings.min_body_rate
        self._receive = receive
        self._received = 0
        self._waited = 0.0
        self.is_over = not self._declared and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """The next part; raises HTTPException 413 and 408, which FastAPI's parser passes on."""
        if self.is_over:
            return await self._receive()
        if self._declared > self._limit:
            raise self._too_large()
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._stall_s):
                message = await self._receive()
        except TimeoutError as error:
            raise _too_slow(f"nothing came for {self._stall_s:g} s") from error
        self._waited += time.monotonic() - asked
        self._received += len(message.get("body", b""))
        self.is_over = not message.get("more_body", False)
        if self._received > self._limit:
            self.is_over = False
            raise self._too_large()
        if not self.is_over and self._waited - GRACE_S > self._received / max(self._rate, 1e-9):
            raise _too_slow(f"it came with less than {self._rate} bytes per second")
        return message

    async def forget(self) -> None:
        """Take a small rest that nobody reads."""
        if 0 < self._declared <= MOST_FORGOTTEN:
            with suppress(TimeoutError, HTTPException):
                async with asyncio.timeout(FORGETTING_S):
                    while not self.is_over:
                        await self.receive()

    def _too_large(self) -> HTTPException:
        detail = f"the request's body is larger than {self._limit} bytes: send less at once"
        return HTTPException(413, detail)


def _too_slow(what: str) -> HTTPException:
    return HTTPException(408, f"the request's body was given up: {what}; send it again")
