"""Who calls: a key, or an address that needs none."""

import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool

from index.keys import SCOPES, Key, Keys, Scope, matching
from service.problems import Problem
from service.settings import Settings

LOOK_AGAIN_S = 0.5
"""Until a key that another process added, revoked or rotated counts here."""

CHALLENGE = 'Bearer realm="pool5"'


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and what they may do; `collections` None: all of them."""

    address: str
    key: str | None
    scope: Scope | None
    collections: frozenset[str] | None = None

    def may(self, scope: Scope | None) -> bool:
        """Whether the caller's scope covers this one."""
        ranks = (None, *SCOPES)
        return ranks.index(self.scope) >= ranks.index(scope)

    def reaches(self, collection: str) -> bool:
        """Whether the caller may know of a collection."""
        return self.collections is None or collection in self.collections

    def check(self, collection: str) -> None:
        """Raises Problem `collection-forbidden`, whether or not there is such a collection."""
        if not self.reaches(collection):
            raise Problem(
                "collection-forbidden", f"this key is not for the collection {collection!r}"
            )


class Keyring:
    """The catalog's keys as they are now, give or take half a second."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        self._keys = keys
        self._is_open = settings.insecure
        self._is_local = is_loopback(settings.host)
        self._known: Mapping[str, Key] = {}
        self._looked = -LOOK_AGAIN_S

    async def caller(self, authorization: str, address: str) -> Caller:
        """Who has sent a request with this header from this address.

        Without the header, and where keys are needed, it is somebody who may do nothing. On the
        loopback they are needed once there is one, and then still when the last has ended. Raises
        Problem `key-refused`.
        """
        if time.monotonic() - self._looked >= LOOK_AGAIN_S:
            looked = time.monotonic()
            known = await run_in_threadpool(self._keys.list)
            self._known, self._looked = {key.id: key for key in known}, looked
        scheme, _, secret = authorization.partition(" ")
        if self._is_open or (self._is_local and not self._known):
            return Caller(address, None, "admin")
        if not authorization:
            return Caller(address, None, None)
        found = matching(self._known, secret.strip(), datetime.now(UTC))
        if scheme.lower() != "bearer" or found is None:
            raise Problem(
                "key-refused",
                "this key is unknown, revoked or expired: send `Authorization: Bearer` with one "
                "that `pool5 keys add` gave",
                {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        collections = None if found.collections is None else frozenset(found.collections)
        return Caller(address, found.id, found.scope, collections)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_start(keys: Keys, settings: Settings) -> None:
    """Refuse to listen for the network where nobody could be told apart.

    Raises Problem `keys-missing`.
    """
    if settings.insecure or is_loopback(settings.host):
        return
    now = datetime.now(UTC)
    if not any(key.holds(now) for key in keys.list()):
        raise Problem(
            "keys-missing",
            f"{settings.host} can be reached by others, and there is no API key that they would "
            "need: make one with `pool5 keys add NAME`, or let everybody read and write with "
            "POOL5_INSECURE=1 (--insecure)",
        )
