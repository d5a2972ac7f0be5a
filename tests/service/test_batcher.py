"""Dynamic batching: order, lanes, isolation, back pressure."""

import threading
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pytest

from models import Extractor, Prepared
from service.batcher import Batcher
from service.problems import Problem
from tests.pictures import picture


class Gated(Extractor):
    """The real extractor, which waits at a gate and chokes on marked pictures."""

    def __init__(self) -> None:
        super().__init__("alexnet/conv1/spoc", weights="untrained", device="cpu")
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []
        self.poison: list[Prepared] = []
        self.most = 1000

    def forward(
        self, batch: Sequence[Prepared], grids: Collection[str] = ()
    ) -> dict[str, np.ndarray]:
        self.entered.set()
        self.gate.wait(30)
        self.batches.append(len(batch))
        if len(batch) > self.most:
            raise RuntimeError("out of memory")
        if any(bad is prepared for bad in self.poison for prepared in batch):
            raise ValueError("poisoned")
        return super().forward(batch, grids)


@pytest.fixture(scope="module")
def gated() -> Gated:
    return Gated()


@pytest.fixture
def batcher(gated: Gated) -> Iterator[Batcher]:
    gated.gate.clear()
    gated.entered.clear()
    gated.batches.clear()
    gated.poison.clear()
    gated.most = 1000
    opened = Batcher(8, 12, lambda size, seconds: None)
    yield opened
    gated.gate.set()
    opened.close()


def prepared(gated: Gated, count: int) -> list[Prepared]:
    return [gated.prepare(picture(n)) for n in range(count)]


def test_what_arrives_during_a_pass_shares_the_next(batcher: Batcher, gated: Gated) -> None:
    pictures = prepared(gated, 9)
    futures = [batcher.submit(gated, pictures[0], "query")]
    gated.entered.wait(30)
    futures += [batcher.submit(gated, one, "query") for one in pictures[1:]]
    gated.gate.set()
    rows = [future.result(30)[""] for future in futures]
    assert gated.batches == [1, 8]
    expected = Extractor.forward(gated, pictures)[""]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_what_is_submitted_together_shares_a_pass_also_when_idle(
    batcher: Batcher, gated: Gated
) -> None:
    pictures = prepared(gated, 3)
    gated.gate.set()
    futures = batcher.submit_together(gated, pictures, "query")
    rows = [future.result(30)[""] for future in futures]
    assert gated.batches == [3]
    np.testing.assert_allclose(rows, Extractor.forward(gated, pictures)[""], atol=1e-5)
    assert batcher.submit_together(gated, [], "query") == []


def test_queries_overtake_bulk_work(batcher: Batcher, gated: Gated) -> None:
    pictures = prepared(gated, 10)
    order: list[str] = []
    first = batcher.submit(gated, pictures[0], "bulk")
    gated.entered.wait(30)
    for one in pictures[1:9]:
        batcher.submit(gated, one, "bulk").add_done_callback(lambda _: order.append("bulk"))
    query = batcher.submit(gated, pictures[9], "query")
    query.add_done_callback(lambda _: order.append("query"))
    gated.gate.set()
    first.result(30)
    query.result(30)
    assert order[0] == "query"


def test_a_poisoned_picture_fails_alone(batcher: Batcher, gated: Gated) -> None:
    pictures = prepared(gated, 8)
    gated.poison.append(pictures[5])
    first = batcher.submit(gated, pictures[7], "query")
    gated.entered.wait(30)
    futures = [batcher.submit(gated, one, "query") for one in pictures]
    gated.gate.set()
    first.result(30)
    for at, future in enumerate(futures):
        if at == 5:
            with pytest.raises(ValueError, match="poisoned"):
                future.result(30)
        else:
            assert future.result(30)[""].shape == (64,)


def test_out_of_memory_halves_the_batch(batcher: Batcher, gated: Gated) -> None:
    pictures = prepared(gated, 9)
    gated.most = 2
    futures = [batcher.submit(gated, pictures[0], "query")]
    gated.entered.wait(30)
    futures += [batcher.submit(gated, one, "query") for one in pictures[1:]]
    gated.gate.set()
    assert all(future.result(30)[""].shape == (64,) for future in futures)
    assert gated.batches == [1, 8, 4, 2, 2, 2, 2]  # from then on it is known that 2 fit


def test_a_full_query_lane_says_when_to_come_back(batcher: Batcher, gated: Gated) -> None:
    one = prepared(gated, 1)[0]
    batcher.submit(gated, one, "query")
    gated.entered.wait(30)
    for _ in range(12):
        batcher.submit(gated, one, "query")
    with pytest.raises(Problem) as refused:
        batcher.submit(gated, one, "query")
    assert refused.value.code == "overloaded"
    assert refused.value.headers is not None
    assert int(refused.value.headers["Retry-After"]) >= 1


def test_a_full_bulk_lane_makes_its_feeder_wait(batcher: Batcher, gated: Gated) -> None:
    one = prepared(gated, 1)[0]
    fed = []

    def feed() -> None:
        fed.extend(batcher.submit(gated, one, "bulk") for _ in range(40))

    feeder = threading.Thread(target=feed)
    feeder.start()
    gated.entered.wait(30)
    feeder.join(0.3)
    assert feeder.is_alive()
    assert len(fed) <= 8 + 12
    gated.gate.set()
    feeder.join(30)
    assert all(future.result(30) for future in fed)


def test_a_query_given_up_is_not_computed(batcher: Batcher, gated: Gated) -> None:
    pictures = prepared(gated, 3)
    first = batcher.submit(gated, pictures[0], "query")
    gated.entered.wait(30)
    gone, stays = (batcher.submit(gated, one, "query") for one in pictures[1:])
    gone.cancel()
    gated.gate.set()
    first.result(30)
    stays.result(30)
    assert gated.batches == [1, 1]


def test_closing_ends_what_waits(gated: Gated) -> None:
    gated.gate.clear()
    gated.entered.clear()
    closing = Batcher(1, 4, lambda size, seconds: None)
    pictures = prepared(gated, 2)
    running = closing.submit(gated, pictures[0], "query")
    gated.entered.wait(30)
    waiting = closing.submit(gated, pictures[1], "query")
    threading.Timer(0.1, gated.gate.set).start()
    closing.close()
    assert running.result(30)
    with pytest.raises(Problem) as refused:
        waiting.result(30)
    assert refused.value.code == "shutting-down"
    with pytest.raises(Problem):
        closing.submit(gated, pictures[0], "query")
