"""Bounds for connections on which there is no request yet, or no more: uvicorn sets none for these.

A header that never ends would be held in memory, one that never comes would hold a connection, and
so would an answer that nobody reads.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedConnection(HttpToolsProtocol):
    """Ends a connection whose next request has not begun in time or never ends to begin.

    From the connection, or the first byte of a further request, to the end of the headers it may
    take `header_timeout_s`. Between requests uvicorn's own keep-alive timeout runs. Of an answer
    that waits to be sent the client takes `min_rate` bytes per second, seen over `stall_timeout_s`.
    """

    header_timeout_s = 10.0
    stall_timeout_s = 20.0
    min_rate = 4096

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header_bytes = 0
        self._in_headers = True
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came: its first request is due."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # So that whatever waits is told of.
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._stop_waiting()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes nothing more of its answer, for now."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """The client has taken all there was."""
        self._is_read()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """What comes while headers are due counts as headers, until they are complete."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._end(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._await_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; many small ones cost more than their bytes."""
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._end(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The request is one."""
        self._stop_waiting()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEADER_BYTES:
            self._end(_TOO_LARGE)
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body; that of a request which was refused here belongs to nobody."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of the body."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def _await_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.stall_timeout_s, self._look_again, left)

    def _look_again(self, before: int) -> None:
        taken = before - self.transport.get_write_buffer_size()
        if taken <= 0 or taken < self.min_rate * self.stall_timeout_s:
            self.transport.abort()
        else:
            self._await_reading()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_headers(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._in_headers = True
        self._deadline = self.loop.call_later(self.header_timeout_s, self._end, _TOO_SLOW)

    def _stop_waiting(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, answer: bytes) -> None:
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy:
            self.transport.write(answer)
        self.transport.close()


def bounded(
    header_timeout_s: float, stall_timeout_s: float = 20.0, min_rate: int = 4096
) -> type[BoundedConnection]:
    """The protocol with these bounds, as uvicorn takes it."""
    bounds = {
        "header_timeout_s": header_timeout_s,
        "stall_timeout_s": stall_timeout_s,
        "min_rate": min_rate,
    }
    return type("Bounded", (BoundedConnection,), bounds)
