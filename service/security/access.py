"""Whether a caller may do what they ask for, decided before a byte of the body is read."""

from typing import Annotated

import structlog
from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import KNOWN, Problem, problem_of, response
from service.security.callers import CHALLENGE, Caller, Keyring
from service.security.operations import Operation
from service.security.rates import Rates
from service.settings import Settings

FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})
"""What a proxy adds, and nobody at this machine."""

ALIVE = "GET /health/live"
"""Has the process's own health for its answer, whatever has become of the catalog."""


class Access:
    """Finds the caller, refuses what they may not do, and counts the rest.

    `request.state` has the `caller`; the `operation` is there already.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, rates: Rates, settings: Settings) -> None:
        self.app = app
        self._keyring = keyring
        self._rates = rates
        self._open = {f"GET {path}" for path in settings.open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self._admit(scope)
        except KNOWN as error:
            headers = getattr(error, "headers", None)
            await response(scope["path"], problem_of(error), headers)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        state, operation = scope["state"], scope["state"]["operation"]
        address = (scope.get("client") or ("local",))[0]
        state["caller"] = nobody = Caller(address, None, None)
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        is_open = operation.scope is None or operation.name in self._open
        if is_open and not sent and operation.name == ALIVE:
            return
        try:
            header = sent[0].decode("latin-1") if len(sent) == 1 else " " * len(sent)
            state["caller"] = caller = await self._keyring.caller(
                header, address, forwarded=any(name in FORWARDED for name, _ in scope["headers"])
            )
        except Problem:
            self._rates.take(nobody, operation)
            raise
        if caller.key:
            structlog.contextvars.bind_contextvars(key=caller.key)
        if not is_open:
            state["charge"] = lambda cost: self._rates.take(caller, operation, cost)
            self._rates.take(caller, operation)
            _check(caller, operation)


def _check(caller: Caller, operation: Operation) -> None:
    needed = operation.scope
    if caller.scope is None:
        raise Problem(
            "key-missing",
            "this needs an API key, which `pool5 keys add` makes: send it as "
            "`Authorization: Bearer …`",
            {"WWW-Authenticate": CHALLENGE},
        )
    if not caller.may(needed):
        raise Problem(
            "scope-missing",
            f"this needs a key of scope {needed}, and the key's is {caller.scope}",
            {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{needed}"'},
        )
    if "collection" in operation.parameters:
        caller.check(operation.parameters["collection"])
    if not operation.answers_for(caller.collections):
        raise Problem("collection-forbidden", "this needs a key that is for all collections")


def charge(request: Request, pictures: int) -> None:
    """Count the pictures of a request, of which the request itself was the first.

    Raises Problem `rate-limited`.
    """
    request.state.charge(pictures - 1)


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
