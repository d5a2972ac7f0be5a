"""A real HTTP server on the loopback that can be told to misbehave."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path; the next requests get `replies` instead, one each.

    A reply is a status, or `whole` (no ranges), `truncated` and `stalled` (after HALF bytes),
    `unannounced` (no length), `silent` (nothing at all).
    """

    HALF: ClassVar[int] = 300_000
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.replies: list[str | int] = []
        self.requests: list[str] = []
        self.ranges: list[str | None] = []
        self.sent = 0
        self.stalling = threading.Event()
        self.closing = threading.Event()

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.path)
        server.ranges.append(self.headers.get("Range"))
        reply = server.replies.pop(0) if server.replies else "good"
        if self.path in server.redirects:
            self._head(302, {"Location": server.redirects[self.path], "Content-Length": "0"})
        elif reply == "silent":
            server.closing.wait()
        elif isinstance(reply, int) or self.path not in server.files:
            self._head(reply if isinstance(reply, int) else 404, {"Content-Length": "0"})
        else:
            self._serve(server.files[self.path], str(reply))

    def _serve(self, body: bytes, reply: str) -> None:
        start = 0
        if (asked := self.headers.get("Range")) and reply == "good":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                head = {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}
                self._head(416, head)
                return
        status, head = 200, {"Content-Length": str(len(body) - start)}
        if start:
            status, head["Content-Range"] = 206, f"bytes {start}-{len(body) - 1}/{len(body)}"
        if reply == "unannounced":
            head = {"Connection": "close"}
        self._head(status, head)
        cut = reply in ("truncated", "stalled")
        sent = body[start : FileServer.HALF] if cut else body[start:]
        self.wfile.write(sent)
        self.server.sent += len(sent)
        if reply == "stalled":
            self.server.stalling.set()
            self.server.closing.wait()
        self.close_connection = cut or reply == "unannounced"

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
