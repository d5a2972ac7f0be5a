"""API keys in the catalog: what is kept, what holds, what a rotation leaves."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from index import Catalog, CollectionError, Key, Keys
from index.keys import SCOPES, matching

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> None:
        self.now += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def keys(catalog: Catalog, clock: Clock) -> Keys:
    return Keys(catalog.database, clock)


def found(keys: Keys, secret: str, clock: Clock) -> Key | None:
    return matching({key.id: key for key in keys.list()}, secret, clock())


def test_a_secret_is_known_again_and_nothing_like_it(keys: Keys, clock: Clock) -> None:
    key, secret = keys.add("ops", "read")
    assert found(keys, secret, clock) == key
    prefix, key_id, rest = secret.split("_", 2)
    assert (prefix, key_id, len(rest)) == ("pool5", key.id, 43)  # 256 bits in base64
    _, other = keys.add("ops", "admin")
    swapped = f"pool5_{key_id}_{other.split('_', 2)[2]}"
    for wrong in ("", key.id, rest, secret[:-1], secret + "x", swapped, f"pool5_{'0' * 12}_{rest}"):
        assert found(keys, wrong, clock) is None


def test_the_file_holds_no_secret(keys: Keys, catalog: Catalog) -> None:
    _, secret = keys.add("ops", "read")
    rest = secret.split("_", 2)[2].encode()
    for path in catalog.folder.iterdir():
        if path.is_file():
            assert rest not in path.read_bytes(), path


def test_a_key_holds_until_it_expires_or_is_revoked(keys: Keys, clock: Clock) -> None:
    key, secret = keys.add("ops", "write", expires_at=NOON + timedelta(hours=1))
    clock.pass_(minutes=59)
    assert found(keys, secret, clock)
    clock.pass_(minutes=1)
    assert found(keys, secret, clock) is None
    _, lasting = keys.add("ops", "write")
    ended = keys.revoke(keys.list()[-1].id)
    assert ended.revoked_at == clock.now
    assert found(keys, lasting, clock) is None
    clock.pass_(hours=1)
    assert keys.revoke(ended.id).revoked_at == ended.revoked_at
    assert [one.id for one in keys.list()] == [key.id, ended.id]


def test_a_rotated_key_has_a_successor_that_may_do_the_same(keys: Keys, clock: Clock) -> None:
    old, secret = keys.add("shop", "write", ["shoes", "hats"], NOON + timedelta(days=30))
    clock.pass_(days=10)
    new, successor = keys.rotate(old.id, timedelta(hours=1))
    assert (new.name, new.scope, new.collections) == ("shop", "write", ("shoes", "hats"))
    assert new.expires_at == clock.now + timedelta(days=30)
    assert found(keys, secret, clock)
    clock.pass_(hours=1)
    assert found(keys, secret, clock) is None
    assert found(keys, successor, clock) == new
    latest, _ = keys.rotate(new.id)
    assert found(keys, successor, clock) is None
    assert keys.get(latest.id).revoked_at is None


def test_what_no_longer_holds_cannot_be_rotated(keys: Keys) -> None:
    key, _ = keys.add("ops", "read")
    keys.revoke(key.id)
    with pytest.raises(CollectionError) as refused:
        keys.rotate(key.id)
    assert refused.value.code == "key-invalid"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("", "read"), "key-invalid"),
        (("a\nb", "read"), "key-invalid"),
        (("x" * 101, "read"), "key-invalid"),
        (("ops", "root"), "key-invalid"),
        (("ops", "read", ["../etc"]), "collection-name-invalid"),
        (("ops", "read", None, NOON), "key-invalid"),
    ],
)
def test_what_cannot_be_a_key_is_refused(keys: Keys, arguments: tuple, code: str) -> None:
    with pytest.raises(CollectionError) as refused:
        keys.add(*arguments)
    assert refused.value.code == code
    assert keys.list() == []


def test_an_unknown_key_is_an_error(keys: Keys) -> None:
    for change in (keys.get, keys.revoke, keys.rotate):
        with pytest.raises(CollectionError) as refused:
            change("none")
        assert refused.value.code == "key-unknown"


def test_another_process_sees_a_key_at_once(keys: Keys, tmp_path: Path) -> None:
    key, _ = keys.add("ops", SCOPES[0])
    with Catalog.open(tmp_path) as other:
        assert other.keys.list() == [key]
