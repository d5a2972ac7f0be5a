"""The stages of bulk work: which one limits, and that it holds the others back."""

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models import Extractor, Preparation, Prepared
from service.decoding.pool import Decoders
from service.engine import Engine
from service.indexing.source import Entry, given
from service.ingest import AHEAD, ingest
from service.settings import Settings
from service.stages import Limit, Stage, Stages
from tests.pictures import encoded


def entries(count: int, taken: list[int]) -> Iterator[Entry]:
    for n in range(count):
        taken.append(n)
        content = encoded(n % 8, size=(64, 64)) + n.to_bytes(2, "big")
        yield Entry(str(n), str(n), None, None, None, f"file:/{n}", given(content))


class Slowed:
    """Makes one stage of an engine take so long for a picture, or wait at a gate."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.seconds: dict[str, float] = {}
        self._patch = patch
        forward, prepare = Extractor.forward, engine.decoders.prepare
        within = threading.Semaphore(engine.plan.decode)

        def slow_forward(
            extractor: Extractor, batch: Sequence[Prepared], grids: Collection[str] = ()
        ) -> Any:
            self.gate.wait(30)
            time.sleep(self.seconds.get("forward", 0.0) * len(batch))
            return forward(extractor, batch, grids)

        def slow_prepare(
            content: bytes, wanted: Preparation, lane: Any, clock: Any, stages: Stages | None = None
        ) -> Any:
            with within:
                time.sleep(self.seconds.get("decode", 0.0))
                if stages:
                    stages.add("decode", self.seconds.get("decode", 0.0))
                return prepare(content, wanted, lane, clock, stages)

        patch.setattr(Extractor, "forward", slow_forward)
        patch.setattr(engine.decoders, "prepare", slow_prepare)


@pytest.fixture
def slowed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Slowed:
    return Slowed(engine, monkeypatch)


def limit_of(engine: Engine, count: int) -> Limit:
    collection = engine.ensure_default()
    list(ingest(engine, collection, entries(2, [])))  # processes started, networks loaded
    before = engine.stages.mark()
    list(ingest(engine, collection, entries(count, [])))
    limit = engine.stages.between(before, engine.stages.mark())
    assert limit
    return limit


@pytest.mark.parametrize("stage", ["decode", "forward"])
def test_the_slowest_stage_is_named(engine: Engine, slowed: Slowed, stage: Stage) -> None:
    slowed.seconds[stage] = 0.1 if stage == "decode" else 0.05
    limit = limit_of(engine, 24)
    assert limit.stage == stage
    assert limit.share > 0.6


def test_the_slowest_stage_holds_back_what_is_read(engine: Engine, slowed: Slowed) -> None:
    collection = engine.ensure_default()
    slowed.gate.clear()
    taken: list[int] = []
    outcomes: list[Any] = []

    def work() -> None:
        for few in ingest(engine, collection, entries(160, taken)):
            outcomes.extend(few)

    working = threading.Thread(target=work)
    working.start()
    most = max(AHEAD, 4 * (engine.settings.batch_size + engine.plan.decode)) + 16
    end = time.monotonic() + 3
    while len(taken) < AHEAD and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)  # It would read on now, were it not held back.
    assert AHEAD <= len(taken) <= most
    slowed.gate.set()
    working.join(60)
    assert len(outcomes) == len(taken) == 160
    assert all(outcome.status in ("added", "unchanged") for outcome in outcomes)


def test_a_running_job_says_which_stage_limits_it(
    client: TestClient, engine: Engine, slowed: Slowed, roots: Path
) -> None:
    for n in range(40):
        (roots / f"{n}.png").write_bytes(encoded(n % 8, size=(64, 64)) + bytes([n]))
    slowed.seconds["forward"] = 0.03
    job = client.post("/v1/collections/default/jobs", json={"folder": str(roots)}).json()
    said: list[Mapping[str, Any]] = []
    while job["state"] in ("queued", "running"):
        job = client.get(f"/v1/jobs/{job['id']}").json()
        if job["limited_by"]:
            said.append(job["limited_by"])
        time.sleep(0.05)
    assert job["state"] == "done"
    assert job["limited_by"] is None
    assert said
    assert said[-1]["stage"] == "forward"
    assert 0.5 < said[-1]["share"] <= 1
    metrics = client.get("/metrics").text
    assert 'pool5_stage_busy_seconds{stage="forward"}' in metrics
    assert 'pool5_stage_waited_seconds{stage="forward"}' in metrics


def test_pictures_of_one_question_are_decoded_at_once_and_share_a_pass(
    settings: Settings, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.clock import Clock
    from service.query import describe

    passes: list[int] = []
    forward = Extractor.forward

    def counted(
        extractor: Extractor, batch: Sequence[Prepared], grids: Collection[str] = ()
    ) -> Any:
        passes.append(len(batch))
        return forward(extractor, batch, grids)

    at_once = threading.Barrier(2)
    prepare = decoders.prepare

    def met(content: bytes, **wanted: Any) -> Any:
        at_once.wait(10)  # Breaks where only one is decoded at a time.
        return prepare(content, **wanted)

    monkeypatch.setattr(Extractor, "forward", counted)
    with Engine(settings.model_copy(update={"decode_threads": 2}), decoders=decoders) as engine:
        monkeypatch.setattr(decoders, "prepare", met)
        extractor = engine.extractor(engine.ensure_default())
        pictures = [encoded(seed) for seed in range(4)]
        together = describe(engine, extractor, [*pictures[:3], b"no picture"], Clock())
        assert passes == [3]
        monkeypatch.undo()
        alone = [describe(engine, extractor, [one], Clock())[0] for one in pictures[:3]]
    *good, bad = together
    assert getattr(bad, "code", None) == "picture-format-unknown"
    for one, other in zip(good, alone, strict=True):
        assert isinstance(one, dict)
        assert isinstance(other, dict)
        for name, vector in one.items():
            assert float(vector @ other[name]) > 0.9999
