"""Fetching by URL, against real servers on the loopback and a resolver that lies."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fetch import Fetcher, FetchError, is_public

PICTURE = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Answers by path; `seen` is every request's path and headers."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.failures = 0
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        kind, _, rest = self.path[1:].partition("/")
        getattr(self, f"get_{kind}")(rest)

    def get_picture(self, _: str) -> None:
        self.answer(200, PICTURE)

    def get_status(self, rest: str) -> None:
        self.answer(int(rest))

    def get_to(self, rest: str) -> None:
        self.answer(302, Location=rest)

    def get_round(self, rest: str) -> None:
        left = int(rest)
        self.answer(302, Location=f"/round/{left - 1}" if left else "/picture")

    def get_flaky(self, rest: str) -> None:
        self.server.failures += 1
        self.answer(503 if self.server.failures <= int(rest) else 200, PICTURE)

    def get_cut(self, _: str) -> None:
        self.answer(200, PICTURE, Content_Length=str(len(PICTURE) + 1))

    def get_endless(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.server.over.is_set():
                self.wfile.write(bytes(65536))
        except OSError:
            self.server.over.set()

    def get_silent(self, _: str) -> None:
        self.server.over.wait(20)

    def get_dripping(self, _: str) -> None:
        self.send_response(200)
        try:
            while not self.server.over.wait(0.02):
                self.wfile.write(b"X: y\r\n")
        except OSError:
            self.server.over.set()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def fetcher(server: Server) -> Fetcher:
    return Fetcher(allowed_addresses=[server.address], timeout_s=10)


def code_of(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url)
    assert caught.value.detail
    return caught.value.code


def resolving(*answers: Sequence[str]) -> Callable[[str, int], list[str]]:
    """A resolver with another answer at every call."""
    left = iter(answers)
    return lambda host, port: list(next(left))


def test_a_picture_comes_whole_and_without_saying_who_we_are(
    server: Server, fetcher: Fetcher
) -> None:
    assert fetcher.fetch(f"http://{server.address}/picture/a?b=c#d") == PICTURE
    [(path, headers)] = server.seen
    assert path == "/picture/a?b=c"
    assert headers["Host"] == server.address
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


def test_proxies_in_the_environment_are_not_used(
    server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetcher.fetch(f"http://{server.address}/picture") == PICTURE


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "LOCALHOST",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00::1]",
        "[ff02::1]",
        "[100::1]",
    ],
)
def test_an_address_that_is_not_public_is_refused_however_it_is_written(
    server: Server, host: str
) -> None:
    url = f"http://{host}:{server.server_port}/picture"
    assert code_of(Fetcher(timeout_s=5), url) in ("url-forbidden", "url-invalid")
    assert server.seen == []


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="127.0.0.0/8"))
def test_no_way_to_write_a_private_address_in_ipv6_makes_it_public(address: object) -> None:
    packed = int(address)  # type: ignore[call-overload]
    high, low = f"{packed >> 16:x}", f"{packed & 0xFFFF:x}"
    for written in (f"::ffff:{address}", f"2002:{high}:{low}::1", f"64:ff9b::{high}:{low}"):
        assert not is_public(written)


def test_the_connection_goes_to_the_address_that_was_checked(server: Server) -> None:
    """The name exists in no DNS: only what our own resolver said can have been connected to."""
    fetcher = Fetcher(resolve=resolving(["127.0.0.1"]), allowed_addresses=[server.address])
    assert fetcher.fetch(f"http://pictures.invalid:{server.server_port}/picture") == PICTURE
    assert server.seen[0][1]["Host"] == f"pictures.invalid:{server.server_port}"


def test_a_name_that_resolves_elsewhere_the_second_time_is_checked_again(server: Server) -> None:
    port = server.server_port
    fetcher = Fetcher(
        resolve=resolving(["127.0.0.1"], ["127.0.0.2"]), allowed_addresses=[server.address]
    )
    url = f"http://a.invalid:{port}/to/http://b.invalid:{port}/picture"
    assert code_of(fetcher, url) == "url-forbidden"
    assert len(server.seen) == 1


def test_one_private_address_among_public_ones_is_enough_to_refuse(server: Server) -> None:
    fetcher = Fetcher(resolve=resolving(["8.8.8.8", "127.0.0.1"]))
    assert code_of(fetcher, f"http://mixed.invalid:{server.server_port}/") == "url-forbidden"


def test_the_next_address_is_tried_where_one_does_not_answer(server: Server) -> None:
    fetcher = Fetcher(
        allow_private=True, resolve=resolving(["127.0.0.3", "127.0.0.1"]), timeout_s=10
    )
    assert fetcher.fetch(f"http://two.invalid:{server.server_port}/picture") == PICTURE


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/", "http://localhost:1/", "//127.1:1/", "file:///etc/passwd"]
)
def test_a_redirect_into_the_network_is_refused(
    server: Server, fetcher: Fetcher, target: str
) -> None:
    assert code_of(fetcher, f"http://{server.address}/to/{target}") == "url-forbidden"


def test_redirects_are_followed_five_times(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(f"http://{server.address}/round/4") == PICTURE
    assert code_of(fetcher, f"http://{server.address}/round/5") == "url-forbidden"


def test_only_the_hosts_that_are_allowed_are_asked_at_redirects_too(server: Server) -> None:
    fetcher = Fetcher(allow_private=True, allowed_hosts=["127.0.0.1"])
    assert fetcher.fetch(f"http://{server.address}/to//picture/x") == PICTURE
    there = f"http://{server.address}/to/http://localhost:{server.server_port}/picture"
    assert code_of(fetcher, there) == "url-forbidden"
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.org/a.jpg", "url-forbidden"),
        ("file:///etc/passwd", "url-forbidden"),
        ("gopher://127.0.0.1/", "url-forbidden"),
        ("pictures/a.jpg", "url-forbidden"),
        ("http:///a.jpg", "url-invalid"),
        ("http://user:secret@example.org/a.jpg", "url-invalid"),
        ("http://example.org:99999/", "url-invalid"),
        ("http://exa mple.org/", "url-invalid"),
        ("http://[fe80::1%25eth0]/", "url-invalid"),
        ("http://exa\nmple.org/", "url-invalid"),
        ("http://[::1/", "url-invalid"),
        ("http://" + "a" * 70_000, "url-invalid"),
    ],
)
def test_what_is_no_web_address_is_refused_without_a_connection(url: str, code: str) -> None:
    def nobody(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was resolved")

    assert code_of(Fetcher(resolve=nobody), url) == code


def test_a_stated_size_beyond_the_cap_is_refused_before_the_body(server: Server) -> None:
    fetcher = Fetcher(allow_private=True, max_bytes=len(PICTURE) - 1)
    assert code_of(fetcher, f"http://{server.address}/picture") == "url-too-many-bytes"
    exact = Fetcher(allow_private=True, max_bytes=len(PICTURE))
    assert exact.fetch(f"http://{server.address}/picture") == PICTURE


def test_an_endless_body_ends_at_the_cap(server: Server) -> None:
    fetcher = Fetcher(allow_private=True, max_bytes=300_000)
    assert code_of(fetcher, f"http://{server.address}/endless") == "url-too-many-bytes"
    assert server.over.wait(10), "the connection was kept"


@pytest.mark.parametrize("kind", ["silent", "dripping"])
def test_a_server_that_never_finishes_is_left_at_the_deadline(server: Server, kind: str) -> None:
    fetcher = Fetcher(allow_private=True, timeout_s=0.3)
    assert code_of(fetcher, f"http://{server.address}/{kind}") == "url-timeout"


@pytest.mark.parametrize("status", [204, 304, 401, 404, 410])
def test_other_statuses_are_said_and_not_tried_again(
    server: Server, fetcher: Fetcher, status: int
) -> None:
    with pytest.raises(FetchError, match=str(status)) as caught:
        fetcher.fetch(f"http://{server.address}/status/{status}")
    assert caught.value.code == "url-status"
    assert len(server.seen) == 1


def test_failures_that_may_pass_are_tried_three_times(server: Server, fetcher: Fetcher) -> None:
    assert fetcher.fetch(f"http://{server.address}/flaky/2") == PICTURE
    assert len(server.seen) == 3


def test_a_body_that_is_cut_off_is_never_given(server: Server, fetcher: Fetcher) -> None:
    assert code_of(fetcher, f"http://{server.address}/cut") == "url-unreachable"
    assert len(server.seen) == 3


def test_a_port_that_nobody_listens_on_is_unreachable(server: Server) -> None:
    server.server_close()
    fetcher = Fetcher(allow_private=True)
    assert code_of(fetcher, f"http://{server.address}/") == "url-unreachable"


def test_a_name_that_does_not_exist_is_unreachable_and_asked_for_once() -> None:
    asked = []

    def unknown(host: str, port: int) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert code_of(Fetcher(resolve=unknown), "http://nowhere.invalid/a.jpg") == "url-unreachable"
    assert asked == ["nowhere.invalid"]


def test_a_name_that_no_resolver_takes_is_unreachable() -> None:
    fetcher = Fetcher(timeout_s=5)
    assert code_of(fetcher, f"http://{'a' * 70}.invalid/") in ("url-unreachable", "url-invalid")


def test_offline_nothing_is_even_resolved(server: Server) -> None:
    fetcher = Fetcher(offline=True, allow_private=True)
    assert code_of(fetcher, f"http://{server.address}/picture") == "url-offline"
    assert server.seen == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for pictures.invalid and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing: it makes the certificate of the test's server")
    both = tmp_path / "server.pem"
    asked = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    name = ["-subj", "/CN=pictures.invalid", "-addext", "subjectAltName=DNS:pictures.invalid"]
    outputs = ["-keyout", str(both), "-out", str(tmp_path / "certificate.pem")]
    subprocess.run([openssl, *asked, *name, *outputs], check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "certificate.pem").read_text())
    return both


def test_over_tls_the_certificate_is_checked_against_the_name(
    server: Server, certificate: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=certificate)
    url = f"https://pictures.invalid:{server.server_port}/picture"

    def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    fetcher = Fetcher(allow_private=True, resolve=here, ssl_context=trusting)
    assert fetcher.fetch(url) == PICTURE
    assert code_of(fetcher, url.replace("pictures", "other")) == "url-unreachable"
    assert code_of(Fetcher(allow_private=True, resolve=here), url) == "url-unreachable"
