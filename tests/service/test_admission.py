"""Every request ends: by its answer, at its deadline, when its client goes, or by being refused."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from service import admission
from service.admission import Admission
from service.clock import Clock
from service.engine import Engine
from service.problems import Problem
from tests import apart
from tests.pictures import encoded


def request(gone: asyncio.Event | None = None) -> Request:
    async def receive() -> dict[str, Any]:
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


def code_of(asked: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    with pytest.raises(Problem) as refused:
        apart.run(asked())
    return refused.value.code


def test_work_has_its_answer() -> None:
    desk = Admission("searches", 2, 2, 10)

    async def ask() -> str:
        return await desk.run(request(), lambda clock: f"{clock.seconds:g}")

    assert apart.run(ask()) == "10"
    assert desk.inside() == 0


def test_work_that_never_looks_at_its_clock_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "GRACE_S", 0.1)
    desk, woken = Admission("searches", 1, 1, 0.2), threading.Event()
    began = time.monotonic()

    def ask() -> Coroutine[Any, Any, bool]:
        return desk.run(request(), lambda _: woken.wait(10))

    assert code_of(ask) == "request-timeout"
    assert time.monotonic() - began < 5
    assert desk.inside() == 1  # it still has its thread
    woken.set()


def test_what_a_client_that_goes_has_queued_is_taken_out() -> None:
    desk = Admission("searches", 1, 1, 60)
    queued: Future[None] = Future()
    seen: list[str] = []

    def work(clock: Clock) -> None:
        try:
            clock.outcome(queued, "descriptor")
        except Problem as problem:
            seen.append(problem.code)

    async def ask() -> None:
        gone = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, gone.set)
        await desk.run(request(gone), work)

    assert code_of(ask) == "client-gone"
    assert queued.cancelled()
    while desk.inside():
        time.sleep(0.01)
    assert seen == ["client-gone"]


def test_too_many_are_refused_at_once_with_the_measured_drain_time() -> None:
    desk, woken = Admission("searches", 2, 3, 100), threading.Event()

    async def ask() -> tuple[list[Any], Problem]:
        for _ in range(4):  # 0.5 s each, one at a time
            await desk.run(request(), lambda _: time.sleep(0.5))
        five = [asyncio.create_task(desk.run(request(), lambda _: woken.wait(10))) for _ in "12345"]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(Problem) as refused:
            await desk.run(request(), lambda _: None)
        assert time.monotonic() - began < 0.5
        woken.set()
        return await asyncio.gather(*five), refused.value

    answers, refusal = apart.run(ask())
    assert answers == [True] * 5
    assert refusal.code == "overloaded"
    assert refusal.headers is not None
    assert 2 <= int(refusal.headers["Retry-After"]) <= 4  # 5 inside at about 0.5 s


def test_who_could_not_be_answered_in_time_is_refused() -> None:
    desk, woken = Admission("searches", 1, 100, 2), threading.Event()

    async def ask() -> None:
        await desk.run(request(), lambda _: time.sleep(0.5))
        inside = [asyncio.create_task(desk.run(request(), lambda _: woken.wait(10))) for _ in "12"]
        await asyncio.sleep(0.05)
        desk.check()  # 2 inside at 0.5 s: half of the time
        inside.append(asyncio.create_task(desk.run(request(), lambda _: woken.wait(10))))
        await asyncio.sleep(0.05)
        try:
            desk.check()
        finally:
            woken.set()
            await asyncio.gather(*inside)

    assert code_of(ask) == "overloaded"


def test_threads_that_hang_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "GRACE_S", 0.0)
    monkeypatch.setattr(admission, "OVERRUN_S", 0.1)
    desk, woken = Admission("searches", 1, 5, 0.1), threading.Event()

    def hang() -> Coroutine[Any, Any, bool]:
        return desk.run(request(), lambda _: woken.wait(30))

    assert code_of(hang) == "request-timeout"
    time.sleep(0.3)
    why = desk.failing()
    assert why is not None
    desk.restart(why)
    assert desk.failing() is None

    async def ask() -> str:
        return await desk.run(request(), lambda _: "an answer")

    assert apart.run(ask()) == "an answer"
    woken.set()


def test_searches_that_wait_hold_up_no_small_request(
    engine: Engine, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = threading.Event()
    extractor = engine.extractor(engine.catalog.collection("default"))
    forward = extractor.forward

    def slow(*given: Any) -> Any:
        woken.wait(30)
        return forward(*given)

    monkeypatch.setattr(extractor, "forward", slow)
    files = {"file": ("a.png", encoded(1), "image/png")}
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.post("/v1/collections/default/search", files=files).status_code)

    askers = [threading.Thread(target=ask) for _ in range(60)]
    for asker in askers:
        asker.start()
    while engine.queries.inside() < 60:
        time.sleep(0.01)
    began = time.monotonic()
    assert client.get("/health/live").status_code == 200
    assert client.get("/v1/collections/default/items").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert time.monotonic() - began < 5
    assert not statuses
    woken.set()
    for asker in askers:
        asker.join(60)
    assert statuses == [200] * 60


def test_an_upload_says_of_every_picture_what_became_of_it_in_time(
    engine: Engine, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.uploads, "timeout_s", 1.5)
    extractor = engine.extractor(engine.catalog.collection("default"))
    forward, passes, woken = extractor.forward, [0], threading.Event()

    def slow(*given: Any) -> Any:
        passes[0] += 1
        if passes[0] > 1:
            woken.wait(30)
        return forward(*given)

    first = client.post(
        "/v1/collections/default/items", files=[("files", ("0.png", encoded(0), "image/png"))]
    )
    assert first.json()["items"][0]["status"] == "added"
    monkeypatch.setattr(extractor, "forward", slow)
    files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in range(1, 12)]
    answer = client.post("/v1/collections/default/items", files=files)
    woken.set()
    assert answer.status_code == 200
    outcomes = answer.json()["items"]
    assert len(outcomes) == 11
    late = [one["problem"]["code"] for one in outcomes if one["status"] == "failed"]
    assert late
    assert set(late) == {"request-timeout"}


def test_what_waits_behind_threads_that_hang_is_refused_at_once() -> None:
    desk, woken = Admission("searches", 1, 5, 60), threading.Event()

    async def ask() -> Problem:
        hanging = asyncio.create_task(desk.run(request(), lambda _: woken.wait(30)))
        waiting = asyncio.create_task(desk.run(request(), lambda _: "never"))
        await asyncio.sleep(0.05)
        desk.restart("they hang")
        with pytest.raises(Problem) as refused:
            await asyncio.wait_for(waiting, 5)
        assert await desk.run(request(), lambda _: "an answer") == "an answer"
        woken.set()
        await hanging
        return refused.value

    assert apart.run(ask()).code == "overloaded"
    assert desk.inside() == 0
