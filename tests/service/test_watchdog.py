"""A stage that dies or hangs: noticed, restarted, not ready until work gets through again."""

import threading
import time
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pytest
from fastapi.testclient import TestClient

from models import Extractor, Prepared
from service.app import create_app
from service.batcher import MOST_ZOMBIES, Batcher
from service.decoding.pool import Decoders
from service.engine import Engine
from service.problems import Problem
from service.settings import Settings
from service.watchdog import Stage, Watchdog
from tests.pictures import encoded, picture


class Sick(Extractor):
    """The real extractor, whose next passes hang, or end their thread."""

    def __init__(self) -> None:
        super().__init__("alexnet/conv1/spoc", weights="untrained", device="cpu")
        self.hangs = 0
        self.exits = 0
        self.entered = threading.Event()
        self.woken = threading.Event()
        self.late = threading.Event()

    def forward(
        self, batch: Sequence[Prepared], grids: Collection[str] = ()
    ) -> dict[str, np.ndarray]:
        if self.exits:
            self.exits -= 1
            raise SystemExit
        if not self.hangs:
            return super().forward(batch, grids)
        self.hangs -= 1
        self.entered.set()
        self.woken.wait(60)
        found = super().forward(batch, grids)
        self.late.set()
        return found


@pytest.fixture
def sick() -> Iterator[Sick]:
    extractor = Sick()
    yield extractor
    extractor.woken.set()


@pytest.fixture
def watched() -> Iterator[Batcher]:
    batcher = Batcher(4, 8, lambda size, seconds: None, stuck_s=0.5)
    watchdog = Watchdog([Stage("forward", batcher.failing, batcher.restart)])
    watchdog.start()
    yield batcher
    watchdog.stop()
    batcher.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_is_replaced(watched: Batcher, sick: Sick) -> None:
    one = sick.prepare(picture(1))
    sick.exits = 1
    with pytest.raises(Problem) as lost:
        watched.submit(sick, one, "query").result(10)
    assert lost.value.code == "forward-lost"
    assert watched.submit(sick, one, "query").result(10)[""].shape == (64,)


def test_a_thread_that_hangs_is_abandoned_and_cannot_answer_twice(
    watched: Batcher, sick: Sick
) -> None:
    one, other = sick.prepare(picture(1)), sick.prepare(picture(2))
    sick.hangs = 1
    hanging = watched.submit(sick, one, "query")
    sick.entered.wait(10)
    behind = watched.submit(sick, other, "query")
    with pytest.raises(Problem) as lost:
        hanging.result(10)
    assert lost.value.code == "forward-lost"
    expected = Extractor.forward(sick, [other])[""][0]
    np.testing.assert_allclose(behind.result(10)[""], expected, atol=1e-5)
    sick.woken.set()  # The abandoned thread wakes up, and what it says is heard by nobody.
    assert sick.late.wait(10)
    time.sleep(0.05)
    assert isinstance(hanging.exception(), Problem)
    np.testing.assert_allclose(
        watched.submit(sick, other, "query").result(10)[""], expected, atol=1e-5
    )


def test_threads_that_hang_again_and_again_are_said_to_be_hopeless(
    watched: Batcher, sick: Sick
) -> None:
    one = sick.prepare(picture(1))
    sick.hangs = MOST_ZOMBIES + 1
    for _ in range(MOST_ZOMBIES + 1):
        with pytest.raises(Problem):
            watched.submit(sick, one, "query").result(10)
    assert watched.hopeless()
    with pytest.raises(Problem, match="must be restarted"):
        watched.submit(sick, one, "query")
    sick.woken.set()
    end = time.monotonic() + 10
    while watched.hopeless() and time.monotonic() < end:
        time.sleep(0.05)
    assert watched.submit(sick, one, "query").result(10)[""].shape == (64,)


def test_what_was_restarted_is_failing_until_proved() -> None:
    wrong: list[str] = ["it is dead"]
    said: list[str] = []
    dog = Watchdog([Stage("forward", lambda: next(iter(wrong), None), said.append)])
    began_before = time.monotonic()
    dog.look()
    assert said == ["it is dead"]
    wrong.clear()
    assert dog.failing() == {"forward": "restarted: it is dead"}
    dog.proved(began_before)  # Work that began before the restart proves nothing.
    assert dog.failing()
    dog.proved(time.monotonic())
    assert dog.failing() == {}


def test_not_ready_names_the_stage_until_a_pass_and_a_search_succeed(
    settings: Settings, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.routes.health.REMEMBER_S", 0.0)
    impatient = settings.model_copy(update={"stuck_s": 1.0})
    with (
        Engine(impatient, decoders=decoders) as engine,
        TestClient(create_app(engine), raise_server_exceptions=False) as client,
    ):
        assert client.get("/health/ready").status_code == 200
        extractor = engine.extractor(engine.catalog.collection("default"))
        forward, broken, woken = extractor.forward, threading.Event(), threading.Event()

        def hangs(batch: Sequence[Prepared], grids: Collection[str] = ()) -> object:
            broken.set()
            woken.wait(30)
            return forward(batch, grids)

        monkeypatch.setattr(extractor, "forward", hangs)
        files = {"file": ("a.png", encoded(1), "image/png")}
        answer = client.post("/v1/collections/default/search", files=files)
        assert broken.is_set()
        assert (answer.status_code, answer.json()["code"]) == (503, "forward-lost")
        sick = client.get("/health/ready")
        assert sick.status_code == 503
        assert "forward pass takes more than 1 s" in sick.json()["checks"]["forward"]
        monkeypatch.setattr(extractor, "forward", forward)
        end = time.monotonic() + 10
        while client.get("/health/ready").status_code != 200 and time.monotonic() < end:
            time.sleep(0.05)
        healthy = client.get("/health/ready")
        assert healthy.status_code == 200, healthy.json()
        assert "forward" not in healthy.json()["checks"]
        assert client.get("/health/live").status_code == 200
        restarts = client.get("/metrics").text
        assert 'pool5_stage_restarts_total{stage="forward"}' in restarts
        woken.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_runner_that_has_ended_goes_on(
    engine: Engine, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = client.app.state.runner  # type: ignore[attr-defined]
    claim, ended = engine.catalog.jobs.claim, threading.Event()

    def ends(*_: object) -> None:
        ended.set()
        raise SystemExit

    monkeypatch.setattr(engine.catalog.jobs, "claim", ends)
    runner.wake()
    assert ended.wait(10)
    monkeypatch.setattr(engine.catalog.jobs, "claim", claim)
    end = time.monotonic() + 10
    while (runner.failing() or not engine.watchdog.failing()) and time.monotonic() < end:
        time.sleep(0.05)
    assert runner.failing() is None
    assert "has ended" in engine.watchdog.failing()["jobs"]


def test_what_waits_behind_a_compaction_that_hangs_is_compacted_by_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Compacted:
        def __init__(self, name: str) -> None:
            self.name = name
            self.begun, self.woken = threading.Event(), threading.Event()

        def compact(self, _: threading.Event) -> None:
            self.begun.set()
            self.woken.wait(30)

    def ask(one: Compacted) -> None:
        engine.compactor.soon(one)  # type: ignore[arg-type]

    hung, behind, last = Compacted("hung"), Compacted("behind"), Compacted("last")
    ask(hung)
    assert hung.begun.wait(5)
    ask(behind)
    engine.compactor.restart("it hangs")
    ask(behind)
    assert behind.begun.wait(5)
    hung.woken.set()  # Its end is not taken for that of the other.
    ask(last)
    monkeypatch.setattr("service.compacting.COMPACTION_S", 0.0)
    while "hung" in engine.compactor._asked:
        time.sleep(0.01)
    assert engine.compactor.failing()
    for one in (behind, last):
        one.woken.set()
    assert last.begun.wait(5)


def test_the_last_thread_that_hung_may_get_through_and_what_waited_has_failed(sick: Sick) -> None:
    batcher, one = Batcher(1, 8, lambda size, seconds: None), sick.prepare(picture(1))
    sick.hangs = MOST_ZOMBIES + 1
    for _ in range(MOST_ZOMBIES + 1):
        sick.entered.clear()
        batcher.submit(sick, one, "query")
        assert sick.entered.wait(10)
        waits = batcher.submit(sick, one, "bulk") if not sick.hangs else None
        batcher.restart("it hangs")
    assert waits is not None
    with pytest.raises(Problem, match="must be restarted"):
        waits.result(1)
    for _ in range(5):
        batcher.restart("it hangs")
    assert batcher.hopeless()
    sick.woken.set()
    end = time.monotonic() + 10
    while batcher.hopeless() and time.monotonic() < end:
        time.sleep(0.01)
    assert batcher.submit(sick, one, "query").result(10)[""].shape == (64,)
    batcher.close()
