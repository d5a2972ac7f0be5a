"""Ways into the network behind the service, as they are collected in lists of SSRF attacks.

Every way to write an address is tried as the URL itself and as a redirect from a server that may be
asked, with servers on the loopback that note who came; nothing is mocked but the name service.
"""

import contextlib
import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from service import fetch
from service.fetch import Fetcher, FetchError, is_public
from tests.service.test_fetch import PICTURE, Server

PRIVATE = {
    "the loopback": "127.0.0.1",
    "the loopback's far end": "127.255.255.254",
    "decimal": "2130706433",
    "octal": "0177.0.0.01",
    "octal, one number": "017700000001",
    "hexadecimal": "0x7f.0.0.1",
    "hexadecimal, one number": "0x7f000001",
    "mixed": "0x7f.1",
    "short": "127.1",
    "zero": "0",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "the name": "localhost",
    "the name with a dot": "localhost.",
    "the name in capitals": "LocalHost",
    "full-width digits": "１２７.０.０.１",
    "circled digits": "①②⑦.⓪.⓪.①",
    "ideographic stops": "127。0。0。1",
    "private 10": "10.0.0.1",
    "private 172": "172.31.255.255",
    "private 192": "192.168.0.1",
    "carrier NAT": "100.100.100.200",
    "cloud metadata": "169.254.169.254",
    "cloud metadata in decimal": "2852039166",
    "cloud metadata in IPv6": "[fd00:ec2::254]",
    "benchmarks": "198.18.0.1",
    "documentation": "192.0.2.1",
    "relay anycast": "192.88.99.1",
    "protocol assignments": "192.0.0.8",
    "multicast": "239.255.255.250",
    "reserved": "241.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 loopback": "[::1]",
    "IPv6 loopback in full": "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "IPv6 unspecified": "[::]",
    "mapped": "[::ffff:127.0.0.1]",
    "mapped in hexadecimal": "[::ffff:7f00:1]",
    "mapped metadata": "[::ffff:a9fe:a9fe]",
    "compatible": "[::7f00:1]",
    "translated (RFC 2765)": "[::ffff:0:127.0.0.1]",
    "NAT64": "[64:ff9b::127.0.0.1]",
    "NAT64, local": "[64:ff9b:1::7f00:1]",
    "6to4": "[2002:7f00:1::1]",
    "6to4 metadata": "[2002:a9fe:a9fe::1]",
    "Teredo": "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "link-local": "[fe80::1]",
    "link-local with a zone": "[fe80::1%25lo]",
    "loopback with a zone": "[::1%25lo]",
    "unique local": "[fc00::1]",
    "site-local": "[fec0::1]",
    "IPv6 multicast": "[ff02::1]",
    "IPv6 documentation": "[2001:db8::1]",
    "IPv6 documentation, new": "[3fff::1]",
    "IPv6 discard": "[100::1]",
}

DISGUISES = {
    "a user name": "http://example.org@{}/picture",
    "a user name and a password": "http://example.org:80@{}/picture",
    "a password only": "http://:x@{}/picture",
    "a backslash": "http://example.org\\@{}/picture",
    "an encoded at": "http://example.org%40{}/picture",
    "a fragment": "http://{}#@example.org/picture",
    "a query": "http://{}?@example.org/picture",
    "three slashes": "http:///{}/picture",
    "one slash": "http:/{}/picture",
    "no slash": "http:{}/picture",
    "a tab": "http://\t{}/picture",
    "a line": "http://example.org\r\nHost: {}/picture",
    "a null": "http://{}\x00.example.org/picture",
}

SCHEMES = ("file", "ftp", "gopher", "dict", "ldap", "data", "jar", "tftp", "ws", "javascript", "")


def code_of(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url)
    return caught.value.code


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.over.set()
        running.shutdown()


@pytest.fixture
def inside() -> Iterator[Server]:
    """A server that nobody may ask; it listens where a name may lead in the end."""
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        assert running.seen == [], "somebody came in"
        running.shutdown()


@pytest.fixture
def fetcher(server: Server) -> Fetcher:
    """May ask one server only."""
    return Fetcher(allowed_addresses=[server.address], timeout_s=5)


@pytest.mark.parametrize("host", PRIVATE.values(), ids=PRIVATE)
def test_no_spelling_of_a_private_address_is_asked(inside: Server, host: str) -> None:
    url = f"http://{host}:{inside.server_port}/picture"
    assert code_of(Fetcher(timeout_s=5), url) in ("url-forbidden", "url-invalid", "url-unreachable")


@pytest.mark.parametrize("host", PRIVATE.values(), ids=PRIVATE)
def test_no_redirect_leads_to_one(
    server: Server, inside: Server, fetcher: Fetcher, host: str
) -> None:
    target = f"http://{host}:{inside.server_port}/picture"
    with contextlib.suppress(UnicodeEncodeError):  # http.server writes Latin-1 only
        target.encode("latin-1")
        code = code_of(fetcher, f"http://{server.address}/to/{target}")
        assert code in ("url-forbidden", "url-invalid", "url-unreachable")


@pytest.mark.parametrize("form", DISGUISES.values(), ids=DISGUISES)
def test_no_disguise_of_an_address_works(inside: Server, form: str) -> None:
    code = code_of(Fetcher(timeout_s=5, resolve=only_real), form.format(inside.address))
    assert code in ("url-forbidden", "url-invalid", "url-unreachable")


def only_real(host: str, port: int) -> list[str]:
    """The system's answer for addresses; no other name is asked for."""
    if not host[-1:].isdigit() and host != "localhost":
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return fetch.resolve(host, port)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_the_web_is_asked_directly_and_after_a_redirect(
    server: Server, inside: Server, fetcher: Fetcher, scheme: str
) -> None:
    url = f"{scheme}://{inside.address}/etc/passwd"
    assert code_of(fetcher, url) in ("url-forbidden", "url-invalid")
    assert code_of(fetcher, f"http://{server.address}/to/{url}") in ("url-forbidden", "url-invalid")


@pytest.mark.parametrize("port", [0, 65536, -1, 99999999999])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    assert code_of(Fetcher(resolve=only_real), f"http://127.0.0.1:{port}/") == "url-invalid"


class Rebinding:
    """A name server with a lifetime of zero: another answer each time that it is asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> list[str]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [answer]


def test_a_name_that_is_rebound_between_check_and_connection_leads_where_it_was_checked(
    server: Server,
) -> None:
    names = Rebinding("127.0.0.1", "127.0.0.2")
    port = server.server_port
    with Server(("127.0.0.2", port)) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        fetcher = Fetcher(resolve=names, allowed_addresses=[server.address])
        assert fetcher.fetch(f"http://rebound.example:{port}/picture") == PICTURE
        assert names.asked == 1, "the name was resolved again after it had been checked"
        assert code_of(fetcher, f"http://rebound.example:{port}/picture") == "url-forbidden"
        assert other.seen == []
        other.shutdown()


def test_nothing_below_resolves_a_name_a_second_time(
    server: Server, inside: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same through the system's own resolver, which the HTTP library could ask by itself."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lying(host: str, port: int, *arguments: object, **options: object) -> list[object]:
        asked.append(host)
        if host != "rebound.example":
            return real(host, port, *arguments, **options)  # type: ignore[arg-type,return-value]
        address = ("127.0.0.1", port) if asked.count(host) == 1 else ("127.0.0.1", inside.port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]

    inside.port = inside.server_port  # type: ignore[attr-defined]
    monkeypatch.setattr(socket, "getaddrinfo", lying)
    fetcher = Fetcher(allowed_addresses=[server.address])
    url = f"http://rebound.example:{server.server_port}/picture"
    assert fetcher.fetch(url) == PICTURE
    assert asked.count("rebound.example") == 1


def test_every_hop_is_resolved_and_checked_for_itself(server: Server, inside: Server) -> None:
    names = {"a.example": "127.0.0.1", "b.example": "127.0.0.1", "c.example": "10.0.0.1"}
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return [names[host]]

    fetcher = Fetcher(resolve=resolve, allowed_addresses=[server.address])
    port = server.server_port
    url = f"http://a.example:{port}/to/http://b.example:{port}/to/http://c.example:{port}/picture"
    assert code_of(fetcher, url) == "url-forbidden"
    assert asked == ["a.example", "b.example", "c.example"]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("allowed", "asked", "fits"),
    [
        ("pictures.example", "pictures.example", True),
        ("pictures.example", "PICTURES.Example", True),
        ("Pictures.EXAMPLE", "pictures.example", True),
        ("pictures.example", "pictures.example.", True),
        ("pictures.example.", "pictures.example", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "BÜCHER.example", True),
        ("pictures.example", "evil.pictures.example", False),
        ("pictures.example", "pictures.example.evil.example", False),
        ("pictures.example", "evilpictures.example", False),
        ("pictures.example", "pictures.example..", False),
        ("pictures.example", "рictures.example", False),  # a Cyrillic р
        ("pictures.example", "127.0.0.1", False),
    ],
)
def test_hosts_are_compared_as_names_are(
    server: Server, allowed: str, asked: str, fits: bool
) -> None:
    fetcher = Fetcher(
        allow_private=True, allowed_hosts=[allowed], resolve=lambda host, port: ["127.0.0.1"]
    )
    url = f"http://{asked}:{server.server_port}/picture"
    if fits:
        assert fetcher.fetch(url) == PICTURE
    else:
        assert code_of(fetcher, url) in ("url-forbidden", "url-invalid")
        assert server.seen == []


def test_an_allowed_host_is_no_way_around_the_check_of_its_address(inside: Server) -> None:
    fetcher = Fetcher(allowed_hosts=["pictures.example"], resolve=lambda host, port: ["127.0.0.1"])
    url = f"http://pictures.example:{inside.server_port}/picture"
    assert code_of(fetcher, url) == "url-forbidden"


Say = Callable[[bytes, bytes], str]


@pytest.fixture
def saying() -> Iterator[Say]:
    """A server that answers the same bytes to everybody, the second part again and again."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as stack:

        def start(once: bytes, again: bytes) -> str:
            def serve() -> None:
                with contextlib.suppress(OSError):
                    while not over.is_set():
                        client, _ = listening.accept()
                        stack.enter_context(client)
                        with contextlib.suppress(OSError):
                            client.recv(65536)
                            client.sendall(once)
                            while again and not over.is_set():
                                client.sendall(again)
                            client.close()

            threading.Thread(target=serve, daemon=True).start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}/picture"

        yield start
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 99999999999999\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("once", "again", "codes"),
    [
        (OK, b"X-Endless: header\r\n", {"url-unreachable"}),
        (OK + b"X-Endless: ", b"x" * 1000, {"url-unreachable"}),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", {"url-unreachable"}),
        (b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", {"url-unreachable"}),
        (b"x" * 100_000, b"", {"url-unreachable"}),
        (b"", b"x" * 1000, {"url-unreachable"}),
        (OK + LENGTH, b"", {"url-too-many-bytes"}),
        (OK + b"Content-Length: -1\r\n\r\n", b"x", {"url-unreachable"}),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"x", {"url-unreachable"}),
        (OK + b"\r\n", b"x" * 65536, {"url-too-many-bytes"}),
        (OK + CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", {"url-too-many-bytes"}),
        (OK + CHUNKED, b"1\r\nx\r\n", {"url-too-many-bytes"}),
        (OK + CHUNKED + b"ffffffffffffffffffff\r\n", b"x" * 1000, {"url-too-many-bytes"}),
        (OK + CHUNKED, b"1;" + b"x" * 1000, {"url-unreachable"}),
        (b"HTTP/1.1 302 Found\r\nLocation: /" + b"x" * 70_000 + b"\r\n\r\n", b"", {"url-invalid"}),
    ],
)
def test_no_answer_holds_us_or_our_memory(
    saying: Say, once: bytes, again: bytes, codes: set[str]
) -> None:
    fetcher = Fetcher(allow_private=True, max_bytes=100_000, timeout_s=0.5)
    started = time.monotonic()
    tracemalloc.start()
    try:
        assert code_of(fetcher, saying(once, again)) in codes | {"url-timeout"}  # a busy machine
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10


def test_what_is_compressed_is_never_unpacked(saying: Say) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    url = saying(head + bomb, b"")
    assert Fetcher(allow_private=True, max_bytes=100_000).fetch(url) == bomb


def test_a_circle_of_redirects_ends(server: Server, fetcher: Fetcher) -> None:
    assert code_of(fetcher, f"http://{server.address}/round/1000000") == "url-forbidden"
    assert len(server.seen) == 6


@pytest.mark.parametrize("host", sorted(set(PRIVATE.values())))
def test_no_literal_of_the_table_counts_as_public(host: str) -> None:
    with contextlib.suppress(ValueError):
        assert not is_public(host.strip("[]").replace("%25", "%"))
