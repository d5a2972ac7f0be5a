"""Under which names the service is called, and from which pages it is written to.

A page anywhere can make its own name resolve to 127.0.0.1 and then read what is there (DNS
rebinding): what gives it away is the Host header. And it can send forms to any address without
being allowed to read the answer (CSRF): what gives that away is the Origin header.
"""

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem, problem_of, response
from service.settings import Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
READING = ("GET", "HEAD", "OPTIONS")


class Hosts:
    """Refuses other names than those of the settings with 421, and strange pages' writes with 403.

    Where the service listens on every address, any address is its own; no address can be rebound.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._names = {*LOOPBACK, *settings.hosts, _bracketed(settings.host)}
        self._any_address = settings.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        self._origins = settings.cors_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Problem as problem:
            await response(scope["path"], problem_of(problem))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        name = without_port(host)
        if not (name in self._names or (self._any_address and _is_address(name))):
            raise Problem(
                "host-unknown",
                f"the service does not go by the name {name[:100]!r}: add it to POOL5_HOSTS",
            )
        for header, value in scope["headers"]:
            if header == b"origin" and scope["method"] not in READING:
                self._check_origin(value.decode("latin-1"), host)

    def _check_origin(self, origin: str, host: str) -> None:
        if origin.partition("://")[2].lower() != host and origin not in self._origins:
            raise Problem(
                "origin-forbidden",
                f"pages of {origin[:100]!r} may not write here: add it to POOL5_CORS_ORIGINS",
            )


def without_port(host: str) -> str:
    """The name in a Host header, without a trailing dot; empty where it cannot be one.

    >>> without_port("localhost:8000"), without_port("[::1]:80"), without_port("a.example.")
    ('localhost', '[::1]', 'a.example')
    >>> without_port("localhost:x"), without_port("evil.example@localhost")
    ('', 'evil.example@localhost')
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    return name.removesuffix(".") if port.isascii() and port.isdigit() else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
