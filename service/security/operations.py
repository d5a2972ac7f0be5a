"""What each operation of the service needs: the one table of all routes.

A route that is not in it needs a key for everything; a test sees to it that none is missing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from starlette.routing import compile_path

from index.keys import SCOPES, Scope

OPERATIONS: Mapping[str, Scope | None] = {
    "GET /": None,
    "GET /docs": None,
    "GET /openapi.json": None,
    "GET /problems/{code}": None,
    "GET /static/{file:path}": None,
    "GET /swagger/{file:path}": None,
    "GET /health/live": "read",
    "GET /health/ready": "read",
    "GET /metrics": "read",
    "GET /v1/networks": "read",
    "GET /v1/networks/{network}": "read",
    "POST /v1/descriptors": "read",
    "GET /v1/collections": "read",
    "POST /v1/collections": "admin",
    "GET /v1/collections/{collection}": "read",
    "DELETE /v1/collections/{collection}": "admin",
    "POST /v1/collections/{collection}/search": "read",
    "POST /v1/collections/{collection}/explain": "read",
    "GET /v1/collections/{collection}/items": "read",
    "POST /v1/collections/{collection}/items": "write",
    "GET /v1/collections/{collection}/items/{item}": "read",
    "PATCH /v1/collections/{collection}/items/{item}": "write",
    "DELETE /v1/collections/{collection}/items/{item}": "write",
    "GET /v1/collections/{collection}/items/{item}/thumbnail": "read",
    "POST /v1/collections/{collection}/jobs": "write",
    "GET /v1/jobs": "read",
    "GET /v1/jobs/{job}": "read",
    "DELETE /v1/jobs/{job}": "write",
    "GET /v1/jobs/{job}/errors": "read",
    "GET /v1/jobs/{job}/events": "read",
    "GET /v1/jobs/{job}/duplicates": "read",
    "POST /v1/jobs/{job}/retry": "write",
    "POST /v1/collections/{collection}/duplicates": "write",
    "GET /v1/collections/{collection}/snapshots": "admin",
    "POST /v1/collections/{collection}/snapshots": "admin",
    "GET /v1/snapshots": "admin",
    "POST /v1/snapshots": "admin",
    "DELETE /v1/snapshots/{snapshot}": "admin",
}
"""Method and path to scope; None: open to all."""

ANSWER_FOR_THEIR_CALLER = frozenset(
    {
        "GET /health/live",
        "GET /health/ready",
        "GET /v1/networks",
        "GET /v1/networks/{network}",
        "POST /v1/descriptors",
        "GET /v1/collections",
        "POST /v1/collections",
        "GET /v1/jobs",
        "GET /v1/jobs/{job}",
        "DELETE /v1/jobs/{job}",
        "GET /v1/jobs/{job}/errors",
        "GET /v1/jobs/{job}/events",
        "GET /v1/jobs/{job}/duplicates",
        "POST /v1/jobs/{job}/retry",
    }
)
"""Operations without a collection in their path that look at the caller's collections themselves.

A key that is for some collections may call these and no others.
"""


@dataclass(frozen=True)
class Operation:
    """What a request asks for: a row of the table, with what stands in its path."""

    name: str
    scope: Scope | None
    parameters: Mapping[str, str]

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.scope in ("write", "admin")

    def answers_for(self, collections: frozenset[str] | None) -> bool:
        """Whether a caller with these collections (None: all) gets nothing of any other."""
        if collections is None or self.scope is None:
            return True
        if "collection" in self.parameters:
            return self.parameters["collection"] in collections
        return self.name in ANSWER_FOR_THEIR_CALLER


_Pattern = tuple[str, str, re.Pattern[str], Scope | None]


def _compiled() -> tuple[_Pattern, ...]:
    rows = ((row.partition(" "), scope) for row, scope in OPERATIONS.items())
    return tuple((method, path, compile_path(path)[0], scope) for (method, _, path), scope in rows)


_PATTERNS = _compiled()
_NOTHING: Mapping[str, str] = MappingProxyType({})
_RANKS = (None, *SCOPES)


def operation(method: str, path: str) -> Operation:
    """The operation that a request is for; where several fit, the one that needs most.

    >>> found = operation("GET", "/v1/collections/shoes/items/7/thumbnail")
    >>> found.scope, found.parameters["collection"], operation("PUT", "/v1/jobs").scope
    ('read', 'shoes', 'admin')
    """
    method = "GET" if method == "HEAD" else method
    best: Operation | None = None
    for own_method, template, pattern, scope in _PATTERNS:
        if own_method == method and (match := pattern.match(path)):
            found = Operation(f"{method} {template}", scope, match.groupdict())
            if best is None or _RANKS.index(scope) > _RANKS.index(best.scope):
                best = found
    return best or Operation(f"{method} unlisted", "admin", _NOTHING)
