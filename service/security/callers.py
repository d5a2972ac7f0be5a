"""Who calls: a key, or an address that needs none."""

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from starlette.concurrency import run_in_threadpool

from index.keys import SCOPES, Key, Keys, Scope, matching
from service.problems import Problem
from service.settings import Settings

logger = structlog.get_logger(__name__)

LOOK_AGAIN_S = 0.5
"""Age of what is known from which the catalog is asked again, while requests go on."""

HOLDS_S = 1.0
"""Age from which a request waits for the answer: so soon a key that was revoked counts here."""

PATIENCE_S = 1.0
"""For a look at the catalog, before a caller is judged by the keys that are known already."""

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
    """The catalog's keys as they are now, give or take a second.

    Those that were seen last hold while the catalog cannot be read.
    """

    def __init__(self, keys: Keys, settings: Settings) -> None:
        self._keys = keys
        self._is_open = settings.insecure
        self._is_local = is_loopback(settings.host)
        self._known: Mapping[str, Key] | None = None
        self._looked = -LOOK_AGAIN_S
        self._looking: asyncio.Task[Mapping[str, Key]] | None = None

    async def caller(self, authorization: str, address: str, *, forwarded: bool = False) -> Caller:
        """Who has sent a request with this header from this address.

        Without the header, and where keys are needed, it is somebody who may do nothing. On the
        loopback they are needed once there is one, and then still when the last has ended; and of
        whoever comes through a proxy (`forwarded`), since they may be anybody. Raises
        Problem `key-refused`, and what the catalog raises while no keys were ever seen.
        """
        known = await self._seen()
        scheme, _, secret = authorization.partition(" ")
        if self._is_open or (self._is_local and not known and not forwarded):
            return Caller(address, None, "admin")
        if not authorization:
            return Caller(address, None, None)
        found = matching(known, secret.strip(), datetime.now(UTC))
        if scheme.lower() != "bearer" or found is None:
            raise Problem(
                "key-refused",
                "this key is unknown, revoked or expired: send `Authorization: Bearer` with one "
                "that `pool5 keys add` gave",
                {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        collections = None if found.collections is None else frozenset(found.collections)
        return Caller(address, found.id, found.scope, collections)

    async def _seen(self) -> Mapping[str, Key]:
        age = time.monotonic() - self._looked
        if self._known is not None and age < LOOK_AGAIN_S:
            return self._known
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        if self._known is None:
            return await asyncio.shield(self._looking)
        if age >= HOLDS_S:
            await asyncio.wait([self._looking], timeout=PATIENCE_S)
        return self._known

    async def _look(self) -> Mapping[str, Key]:
        """One at a time, whoever asks."""
        looked = time.monotonic()
        try:
            self._known = {key.id: key for key in await run_in_threadpool(self._keys.list)}
        except Exception as error:
            if self._known is None:
                raise
            looked = time.monotonic()
            logger.warning("the keys cannot be read: those known so far hold", error=str(error))
        finally:
            self._looking = None
        self._looked = looked
        return self._known


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
    """Refuse to listen for the network, or behind a proxy, where nobody could be told apart.

    Raises Problem `keys-missing`.
    """
    proxies = ", ".join(settings.trusted_proxies)
    if settings.insecure or (is_loopback(settings.host) and not proxies):
        return
    way = f" through {proxies} (POOL5_TRUSTED_PROXIES)" if proxies else ""
    now = datetime.now(UTC)
    if not any(key.holds(now) for key in keys.list()):
        raise Problem(
            "keys-missing",
            f"{settings.host} can be reached by others{way}, and there is no API key that they "
            "would need: make one with `pool5 keys add NAME`, or let everybody read and write with "
            "POOL5_INSECURE=1 (--insecure)",
        )
