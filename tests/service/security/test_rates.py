"""How often a caller may call, and when they are told to come again."""

import math
import random

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.problems import Problem
from service.security import rates
from service.security.callers import Caller
from service.security.operations import operation
from service.settings import Settings
from tests.pictures import encoded

READ = operation("GET", "/v1/jobs")
WRITE = operation("POST", "/v1/collections/shoes/items")
KEY = Caller("192.0.2.1", "abc", "write")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0 * 60
        monkeypatch.setattr("limits.storage.memory.time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def made(**given: str) -> rates.Rates:
    return rates.Rates(Settings(**{"rate_read": "10/minute", "rate_write": "100/minute", **given}))


def wait_of(limited: rates.Rates, caller: Caller = KEY, cost: int = 1) -> int:
    """0 where the caller may call, what Retry-After says otherwise."""
    try:
        limited.take(caller, READ, cost)
    except Problem as refused:
        return int((refused.headers or {})["Retry-After"])
    return 0


def test_ten_a_minute_are_ten_and_then_none(clock: Clock) -> None:
    limited = made()
    assert [wait_of(limited) for _ in range(10)] == [0] * 10
    assert wait_of(limited) > 0


@pytest.mark.parametrize("seed", range(20))
def test_whoever_waits_as_long_as_is_said_may_call_and_no_sooner(clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    limited = made()
    refused = 0
    for _ in range(60):
        clock.now += chance.choice([0.0, 0.1, 3.0, 20.0])
        cost = chance.choice([1, 1, 1, 4, 10])
        wait = wait_of(limited, cost=cost)
        if wait > 1:
            refused += 1
            now = clock.now
            clock.now = now + wait - 1.001
            assert wait_of(limited, cost=cost) > 0
            clock.now = now + wait
            assert wait_of(limited, cost=cost) == 0
    assert refused > 5


def test_no_window_of_a_minute_has_much_more_than_the_limit(clock: Clock) -> None:
    limited = made()
    done = []
    for _ in range(2400):
        clock.now += 0.25
        if not wait_of(limited):
            done.append(clock.now)
    busiest = max(sum(start <= at < start + 60 for at in done) for start in done)
    assert busiest <= math.ceil(10 * 1.5)
    assert len(done) >= 10 * 9


def test_keys_and_addresses_and_scopes_are_counted_apart(clock: Clock) -> None:
    limited = made(host="0.0.0.0")
    callers = [
        KEY,
        Caller("192.0.2.1", "def", "read"),
        Caller("192.0.2.1", None, None),
        Caller("2001:db8::1", None, None),
        Caller("2001:db8:0:1::1", None, None),
    ]
    for caller in callers:
        assert [wait_of(limited, caller) for _ in range(10)] == [0] * 10
    assert all(wait_of(limited, caller) for caller in callers)
    assert wait_of(limited, Caller("2001:db8::ffff", None, None)), "a /64 is one subscriber"
    limited.take(KEY, WRITE, 90)


def test_what_is_more_than_a_whole_window_takes_the_window(clock: Clock) -> None:
    limited = made()
    assert wait_of(limited, cost=5000) == 0
    assert wait_of(limited) > 0


def test_on_the_loopback_nobody_is_counted_who_needs_no_key(clock: Clock) -> None:
    limited = made(host="127.0.0.1")
    assert not any(wait_of(limited, Caller("127.0.0.1", None, "admin")) for _ in range(100))
    assert any(wait_of(limited, Caller("127.0.0.1", None, None)) for _ in range(100))
    assert not any(wait_of(made(rate_read="")) for _ in range(100))


def test_a_query_counts_every_picture_that_it_has_fetched(settings: Settings) -> None:
    counted = settings.model_copy(
        update={"host": "0.0.0.0", "insecure": True, "rate_read": "10/hour"}
    )
    with Engine(counted) as engine, TestClient(create_app(engine)) as client:

        def search(references: int) -> int:
            urls = [{"url": f"https://pictures.example/{n}.png"} for n in range(references)]
            query = {"positives": urls[1:], "negatives": urls[:1]}
            return client.post("/v1/collections/default/search", json=query).status_code

        assert [search(9), search(9)] == [422, 429]  # offline: nothing is fetched


def test_an_upload_counts_its_pictures_and_is_refused_before_they_are_read(
    settings: Settings,
) -> None:
    counted = settings.model_copy(
        update={"host": "0.0.0.0", "insecure": True, "rate_write": "6/hour", "rate_read": "3/hour"}
    )
    with Engine(counted) as engine, TestClient(create_app(engine)) as client:

        def upload(*seeds: int) -> tuple[int, str]:
            files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in seeds]
            answer = client.post("/v1/collections/default/items", files=files)
            return answer.status_code, answer.headers.get("retry-after", "")

        assert upload(1, 2, 3, 4)[0] == 200
        status, wait = upload(5, 6, 7)
        assert status == 429
        assert 1 <= int(wait) <= 7200
        assert client.get("/v1/collections/default").json()["items"] == 4
        assert upload(5)[0] == 200
        statuses = [client.get("/v1/jobs").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert client.get("/health/live").status_code == 200
