"""Pictures by URL, without becoming anybody's way into the network (OWASP's SSRF sheet).

Every name is resolved here, every address it has is checked, and the connection goes to the very
address that was checked: at the first request and at every redirect. No proxy, no cookies, no
credentials, nothing from the environment.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx
import tenacity

MIB = 1024 * 1024
_REDIRECTS = 5
_ATTEMPTS = 3
_REDIRECT_STATUS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What IANA has given out as global unicast; what is left of IPv6 is for special purposes.
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
# Special purposes (IANA) that `ipaddress` of some Python versions takes for global.
_SPECIAL = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))
)
_HEADERS = [
    (b"User-Agent", b"pool5"),
    (b"Accept", b"image/*,*/*;q=0.1"),
    (b"Accept-Encoding", b"identity"),
]

Resolve = Callable[[str, int], list[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchError(Exception):
    """A URL that gives no picture; `code` is stable, `transient` says that later may be better,
    `retry_after` in how many seconds, where the host says so.

    Codes: `url-invalid`, `url-forbidden`, `url-unreachable`, `url-timeout`, `url-status`,
    `url-too-many-bytes`, `url-offline`.
    """

    def __init__(
        self, code: str, detail: str, transient: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.transient = transient
        self.retry_after = retry_after


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, seen through IPv6's ways to write IPv4.

    >>> [is_public(address) for address in ("8.8.8.8", "10.0.0.1", "::ffff:127.0.0.1")]
    [True, False, False]
    """
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # RFC 4291 2.5.5.2 (mapped), RFC 3056 (6to4), RFC 6052 (NAT64)
        inside = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inside = ipaddress.IPv4Address(ip.packed[-4:])
        if inside is None and ip not in _GLOBAL_V6:
            return False
        ip = inside or ip
    special = any(ip in network for network in _SPECIAL)
    return ip.is_global and not (special or ip.is_multicast or ip.is_reserved)


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, as the system resolves it; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Fetcher:
    """Fetches pictures; may be used from many threads at once.

    `allow_private` admits every address; `allowed_addresses` admits single ones
    ("127.0.0.1:8080") that are not public; `allowed_hosts` forbids every host but these.
    `timeout_s` is for all of it, redirects and retries too; only resolving cannot be hurried.
    Any port may be asked for: what is behind the address counts, and that must be public.
    """

    allow_private: bool = False
    allowed_hosts: Collection[str] | None = None
    allowed_addresses: Collection[str] = ()
    max_bytes: int = 64 * MIB
    timeout_s: float = 30.0
    offline: bool = False
    attempts: int = _ATTEMPTS
    resolve: Resolve = resolve
    ssl_context: ssl.SSLContext = field(
        default_factory=lambda: httpx.create_ssl_context(trust_env=False), repr=False
    )

    def fetch(self, url: str) -> bytes:
        """The body of the answer; raises FetchError. Failures that may pass are tried again."""
        if self.offline:
            raise FetchError("url-offline", "POOL5_OFFLINE is set: nothing is fetched by URL")
        deadline = time.monotonic() + self.timeout_s
        attempts = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.attempts),
                tenacity.stop_before_delay(self.timeout_s),
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.4, max=2.0),
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        )
        return attempts(self._follow, url, deadline)

    def _follow(self, url: str, deadline: float) -> bytes:
        target = _parsed(url)
        backend = _CheckedBackend(self._admitted, deadline)
        with httpcore.ConnectionPool(self.ssl_context, network_backend=backend) as pool:
            for _ in range(_REDIRECTS + 1):
                if not self._may_ask(target):
                    detail = f"{target.host} is not among the hosts that may be fetched from"
                    raise FetchError("url-forbidden", detail)
                answer = self._answer(pool, target)
                if isinstance(answer, bytes):
                    return answer
                target = answer
        raise FetchError("url-forbidden", f"more than {_REDIRECTS} redirects")

    def _may_ask(self, target: httpx.URL) -> bool:
        if self.allowed_hosts is None:
            return True
        return _canonical(target) in {
            _canonical(httpx.URL(scheme="http", host=host)) for host in self.allowed_hosts
        }

    def _answer(self, pool: httpcore.ConnectionPool, target: httpx.URL) -> bytes | httpx.URL:
        """The body, or where the answer sends us."""
        try:
            headers = [(b"Host", target.netloc), *_HEADERS]
            with pool.stream("GET", _origin_form(target), headers=headers) as response:
                fields = {name.lower(): value for name, value in response.headers}
                if response.status in _REDIRECT_STATUS and b"location" in fields:
                    return _parsed(fields[b"location"].decode("latin-1"), target)
                if response.status != 200:
                    detail = f"{target.host} answered with status {response.status}"
                    transient = response.status in _TRANSIENT_STATUS
                    after = _seconds(fields.get(b"retry-after"))
                    raise FetchError("url-status", detail, transient, after)
                return self._body(fields.get(b"content-length", b"0"), response.iter_stream())
        except (TimeoutError, httpcore.TimeoutException) as error:
            detail = f"{target.host} did not answer within {self.timeout_s:g} s"
            raise FetchError("url-timeout", detail) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, UnicodeError) as error:
            detail = f"{target.host} cannot be reached: {error}"
            raise FetchError("url-unreachable", detail, _may_pass(error)) from error

    def _body(self, length: bytes, chunks: Iterable[bytes]) -> bytes:
        body = bytearray()
        too_many = length.isdigit() and int(length) > self.max_bytes
        for chunk in () if too_many else chunks:
            body += chunk
            too_many = len(body) > self.max_bytes
            if too_many:
                break
        if too_many:
            detail = f"there are more than {self.max_bytes:,} bytes behind this URL"
            raise FetchError("url-too-many-bytes", detail)
        return bytes(body)

    def _admitted(self, host: str, port: int) -> list[str]:
        """The addresses of a host; FetchError where one of them may not be connected to."""
        addresses = self.resolve(host, port)
        for address in addresses:
            allowed = self.allow_private or f"{address}:{port}" in self.allowed_addresses
            if not (allowed or is_public(address)):
                detail = f"{host} is not on the public internet"
                raise FetchError("url-forbidden", detail)
        return addresses


def _parsed(url: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        target = base.join(url) if base else httpx.URL(url)
        host = target.host  # Decodes international names, and fails where they are none.
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchError("url-invalid", f"this is no URL: {error}") from error
    if target.scheme not in ("http", "https"):
        raise FetchError("url-forbidden", "only http and https URLs are fetched")
    port_fits = target.port is None or 0 < target.port < 65536
    if not host or "%" in host or target.userinfo or not port_fits:
        detail = "a URL needs a host and a port that can be, and no user name or password"
        raise FetchError("url-invalid", detail)
    return target


def _canonical(target: httpx.URL) -> str:
    """The host as it is compared: lower case, international names in ASCII, no dot at the end."""
    return target.raw_host.decode().lower().removesuffix(".")


def _origin_form(target: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
    )


def _seconds(said: bytes | None) -> float | None:
    """A Retry-After in seconds; it may be a date as well (RFC 9110, 10.2.3)."""
    if said is None or said.strip().isdigit():
        return None if said is None else float(said)
    try:
        when = parsedate_to_datetime(said.decode("latin-1"))
        return max(0.0, when.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, FetchError) and error.transient


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: a name that does not exist stays so."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    return not isinstance(error, UnicodeError)


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to admitted addresses only, and lets nothing last beyond the deadline."""

    def __init__(self, admitted: Resolve, deadline: float) -> None:
        self._admitted = admitted
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *args: Any, **options: Any
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers; raises FetchError, OSError, httpcore's."""
        refusal: Exception = socket.gaierror(socket.EAI_NONAME, "it has no address")
        addresses = self._admitted(host, port)
        for untried, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = _left(self._deadline, timeout) / untried
            try:
                stream = self._sockets.connect_tcp(address, port, share, *args, **options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refusal = error
        raise refusal


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every step ends by the deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(self._deadline, timeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, timeout: float | None) -> float:
    """Seconds that a step may take; TimeoutError where there are none left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left if timeout is None else min(left, timeout)
