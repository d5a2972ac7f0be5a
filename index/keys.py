"""API keys: who may call the service, kept as hashes in the catalog.

A key is 256 bits from the system's random source. Nobody can try them all, so one SHA-256 keeps it:
slow, salted hashes are for passwords, which can be guessed, and would cost each request their
slowness (NIST SP 800-63B 5.1.2.2 asks for no more where a secret has 112 bits).
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import Row, insert, select, update

from index import tables
from index.database import Database
from index.errors import CollectionError
from index.space import check_name

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each may do what those before it may."""

KEYS = tables.api_keys
PREFIX = "pool5"
LONGEST_NAME = 100
_NOBODY = hashlib.sha256(b"").hexdigest()

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Key:
    """What is known of a key; `collections` None: all of them, whatever they will be."""

    id: str
    name: str
    sha256: str
    scope: Scope
    collections: tuple[str, ...] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def holds(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Keys:
    """The table of keys, shared by all processes on one folder; they are never deleted."""

    def __init__(self, database: Database, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        name: str,
        scope: Scope,
        collections: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[Key, str]:
        """A new key, and its secret: this is the only time that anybody sees it.

        Raises CollectionError: `key-invalid`, `collection-name-invalid`.
        """
        if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
            raise _invalid(f"its name is 1 to {LONGEST_NAME} characters that can be printed")
        if scope not in SCOPES:
            raise _invalid(f"{scope!r} is no scope: use one of {', '.join(SCOPES)}")
        for collection in collections or ():
            check_name(collection, "collection")
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise _invalid("it would have expired already")
        key_id = secrets.token_hex(6)
        secret = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
        row = {
            "id": key_id,
            "name": name,
            "sha256": _hashed(secret),
            "scope": scope,
            "collections": list(collections) if collections else None,
            "created_at": now,
            "expires_at": expires_at,
        }
        with self._database.writing() as connection:
            made = connection.execute(insert(KEYS).values(row).returning(KEYS)).one()
        return _of(made), secret

    def get(self, key_id: str) -> Key:
        """One key. Raises CollectionError: `key-unknown`."""
        with self._database.reading() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
        if row is None:
            raise _unknown(key_id)
        return _of(row)

    def list(self) -> list[Key]:
        """All keys in the order in which they were made, those that no longer hold included."""
        with self._database.reading() as connection:
            return [_of(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.seq))]

    def revoke(self, key_id: str) -> Key:
        """End a key now; one that was revoked before keeps its date.

        Raises CollectionError: `key-unknown`.
        """
        ended = update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked_at.is_(None))
        with self._database.writing() as connection:
            connection.execute(ended.values(revoked_at=self._clock()))
        return self.get(key_id)

    def rotate(self, key_id: str, grace: timedelta = timedelta()) -> tuple[Key, str]:
        """A successor that may do the same; the old key ends after `grace`, if not before.

        The successor lives as long as the old key was made to, counted from now. Raises
        CollectionError: `key-unknown`, and `key-invalid` for a key that no longer holds.
        """
        old, now = self.get(key_id), self._clock()
        if not old.holds(now):
            raise _invalid(f"{key_id} no longer holds: add a new one")
        until = now + (old.expires_at - old.created_at) if old.expires_at else None
        made = self.add(old.name, old.scope, old.collections, until)
        if not grace:
            self.revoke(key_id)
        else:
            end = min(now + grace, old.expires_at or datetime.max.replace(tzinfo=UTC))
            with self._database.writing() as connection:
                connection.execute(update(KEYS).where(KEYS.c.id == key_id).values(expires_at=end))
        return made


def matching(keys: Mapping[str, Key], secret: str, now: datetime) -> Key | None:
    """The key whose secret this is, if it holds.

    The public id finds the row; what is secret is compared as hashes, in constant time, and against
    something where there is no such row.
    """
    key_id = secret.split("_", 2)[1] if secret.count("_") >= 2 else ""
    key = keys.get(key_id)
    same = hmac.compare_digest(_hashed(secret), key.sha256 if key else _NOBODY)
    return key if key and same and key.holds(now) else None


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _of(row: Row[tuple[object, ...]]) -> Key:
    return Key(
        row.id,
        row.name,
        row.sha256,
        row.scope,
        tuple(row.collections) if row.collections is not None else None,
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )


def _invalid(reason: str) -> CollectionError:
    return CollectionError("key-invalid", f"this key cannot be made: {reason}")


def _unknown(key_id: str) -> CollectionError:
    return CollectionError("key-unknown", f"there is no key {key_id!r}: list them to see their ids")
