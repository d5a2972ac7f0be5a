"""Slow and endless clients on raw sockets, against the real server."""

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.engine import Engine
from service.security import bodies
from service.security.connections import MAX_HEADER_BYTES, MAX_HEADERS, bounded
from service.settings import Settings

Connect = Callable[[], socket.socket]

UPLOAD = b"POST /v1/collections/default/items HTTP/1.1\r\nHost: localhost\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
HEADER_S, STALL_S, UNREAD_S, CONNECTIONS = 0.6, 0.6, 0.3, 6


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    settings = Settings(
        data=tmp_path_factory.mktemp("data"),
        offline=True,
        device="cpu",
        weights="untrained",
        stall_timeout_s=STALL_S,
        min_body_rate=100_000,
    )
    with Engine(settings) as engine:
        yield create_app(engine)


@pytest.fixture(scope="module")
def served(app: FastAPI) -> Iterator[tuple[uvicorn.Server, tuple[str, int]]]:
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        http=bounded(HEADER_S, UNREAD_S, 1000),
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=1,
    )
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listening]),))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server, listening.getsockname()[:2]
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def address(served: tuple[uvicorn.Server, tuple[str, int]]) -> tuple[str, int]:
    return served[1]


@pytest.fixture
def connect(address: tuple[str, int]) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(address, timeout=10))


def answer(client: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            said += part
    return said


def dripping(client: socket.socket, line: bytes) -> float:
    """Seconds that the other side bears a line every tenth of a second."""
    started = time.monotonic()
    client.settimeout(0.1)
    while time.monotonic() - started < 10:
        try:
            client.sendall(line)
            if not client.recv(65536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - started


def test_a_client_that_says_nothing_is_shown_out(connect: Connect) -> None:
    started = time.monotonic()
    assert answer(connect()).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < HEADER_S + 2


@pytest.mark.parametrize("line", [b"X-Slow: 1\r\n", b"x"])
def test_headers_that_drip_end_in_time(connect: Connect, line: bytes) -> None:
    client = connect()
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n")
    assert dripping(client, line) < HEADER_S + 2


def test_a_second_request_that_drips_ends_in_time(connect: Connect) -> None:
    client = connect()
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert dripping(client, b"G") < HEADER_S + 2


def test_a_connection_without_a_further_request_is_closed(connect: Connect) -> None:
    client = connect()
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    started = time.monotonic()
    assert answer(client).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Large: " + b"x" * (MAX_HEADER_BYTES + 1),
        b"X-Many: 1\r\n" * (MAX_HEADERS + 1),
        b"X-Name" + b"x" * (MAX_HEADER_BYTES + 1),
        b"X-Whole: " + b"x" * MAX_HEADER_BYTES + b"\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_headers_beyond_the_cap_are_not_held(connect: Connect, headers: bytes) -> None:
    client = connect()
    with contextlib.suppress(OSError):
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + headers)
    assert b" 431 " in answer(client)


def test_an_address_beyond_the_cap_is_not_held(connect: Connect) -> None:
    client = connect()
    with contextlib.suppress(OSError):
        client.sendall(b"GET /" + b"x" * (MAX_HEADER_BYTES + 1))
    assert b" 431 " in answer(client)


def test_headers_under_the_cap_are_read(connect: Connect) -> None:
    client = connect()
    large = b"X-Large: " + b"x" * (MAX_HEADER_BYTES - 1000) + b"\r\nConnection: close\r\n\r\n"
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + large)
    assert answer(client).startswith(b"HTTP/1.1 200 ")


LARGE = b"GET /swagger/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_an_answer_that_nobody_reads_is_given_up(
    served: tuple[uvicorn.Server, tuple[str, int]],
) -> None:
    server, address = served
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(address)
        client.sendall(LARGE)
        select.select([client], [], [], 5)
        own = client.getsockname()
        started = time.monotonic()
        while any(held.client == own for held in list(server.server_state.connections)):
            assert time.monotonic() - started < UNREAD_S + 2
            time.sleep(0.01)
        client.settimeout(5)
        assert len(answer(client)) < 1_000_000


def test_an_answer_that_is_read_slowly_comes_whole(address: tuple[str, int]) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        client.settimeout(5)
        client.connect(address)
        client.sendall(LARGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        said = b""
        while part := client.recv(100_000):
            said += part
            time.sleep(0.03)
        head, _, body = said.partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 5000\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_a_body_that_does_not_come_is_given_up(connect: Connect, framing: bytes) -> None:
    client = connect()
    client.sendall(UPLOAD + FORM + framing + b"\r\n")
    started = time.monotonic()
    said = answer(client)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"request-too-slow" in said
    assert time.monotonic() - started < STALL_S + 2


def test_a_json_body_that_does_not_come_is_given_up(connect: Connect) -> None:
    client = connect()
    json = b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    client.sendall(b"POST /v1/collections HTTP/1.1\r\nHost: localhost\r\n" + json)
    assert b" 408 " in answer(client).partition(b"\r\n")[0]


def test_a_body_that_comes_too_slowly_is_given_up(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.5)
    client = connect()
    client.sendall(UPLOAD + FORM + b"Content-Length: 5000000\r\n\r\n--x\r\n")
    assert dripping(client, b"x" * 10) < 4


def test_a_refusal_does_not_wait_for_the_body(connect: Connect) -> None:
    client = connect()
    client.sendall(
        b"POST /v1/collections/default/items HTTP/1.1\r\nHost: evil.example\r\n"
        b"Content-Length: 5000000\r\n\r\n"
    )
    said = answer(client)
    assert said.startswith(b"HTTP/1.1 421 ")
    assert b"connection: close" in said


def test_a_declared_size_beyond_the_cap_is_refused_at_once(connect: Connect) -> None:
    client = connect()
    client.sendall(UPLOAD + FORM + b"Content-Length: 99999999999\r\n\r\n")
    assert answer(client).startswith(b"HTTP/1.1 413 ")


def test_more_connections_than_allowed_are_told_so_and_then_served_again(connect: Connect) -> None:
    time.sleep(0.1)
    ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    idle = [connect() for _ in range(CONNECTIONS)]
    last = connect()
    last.sendall(ask)
    assert answer(last).startswith(b"HTTP/1.1 503 ")
    for client in idle:
        answer(client)  # all are shown out
    again = connect()
    again.sendall(ask)
    assert answer(again).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_well_formed_ends_alone(connect: Connect, request_line: bytes) -> None:
    client = connect()
    client.sendall(request_line + b"Connection: close\r\n\r\n")
    said = answer(client)
    assert b" 500 " not in said.partition(b"\r\n")[0]
    client = connect()
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer(client).startswith(b"HTTP/1.1 200 ")


def test_a_form_that_only_reads_is_bounded_by_the_pictures_in_it(connect: Connect) -> None:
    for operation, status in ((b"search", b" 413 "), (b"items", b" 408 ")):
        client = connect()
        client.sendall(
            b"POST /v1/collections/default/" + operation + b" HTTP/1.1\r\nHost: localhost\r\n"
        )
        client.sendall(FORM + b"Content-Length: 3000000000\r\n\r\n")
        assert status in answer(client).partition(b"\r\n")[0] + b" "


def test_a_refusal_reaches_a_client_whose_picture_nobody_reads(connect: Connect) -> None:
    client, body = connect(), b"x" * 500_000
    head = b"POST /v1/collections/default/search HTTP/1.1\r\nHost: elsewhere\r\n"
    rest = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.sendall(head + FORM + rest + body)
    said = b""
    while part := client.recv(65536):  # Closed on what it sent, it would be reset here.
        said += part
    assert said.startswith(b"HTTP/1.1 421")
