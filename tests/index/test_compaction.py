"""Compaction gives way and can be stopped; new generations come in behind the searches."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Catalog, Collection, CollectionError, generation
from index.compaction import Cancelled, Compaction, Pace
from index.generation import Generation, Sealed
from index.view import View
from tests.index.making import HIGH, new_item, unit


def test_a_compaction_pauses_as_long_as_it_worked_where_a_search_ran_meanwhile() -> None:
    pace = Pace(threading.Event(), searched=time.monotonic)
    time.sleep(0.05)
    began = time.monotonic()
    pace.between()
    assert time.monotonic() - began >= 0.05


def test_it_does_not_pause_where_nobody_searches() -> None:
    pace = Pace(threading.Event(), searched=lambda: 0.0)
    time.sleep(0.2)
    began = time.monotonic()
    pace.between()
    assert time.monotonic() - began < 0.2


def test_it_stops_at_once_when_it_is_asked_to_while_it_pauses() -> None:
    stop = threading.Event()
    pace = Pace(stop, searched=time.monotonic)
    time.sleep(0.05)
    stop.set()
    with pytest.raises(Cancelled):
        pace.between()


def test_a_compaction_that_was_stopped_changes_nothing(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    stop = threading.Event()
    stop.set()
    assert not collection.compact(stop)
    assert collection.status()["spaces"]["high"]["number"] == 0
    assert collection.compact()
    assert collection.status()["spaces"]["high"]["number"] == 1


def test_it_stops_for_whichever_asks(collection: Collection) -> None:
    stop = threading.Event()
    pace = Pace(threading.Event(), stop, searched=lambda: 0.0)
    pace.between()
    stop.set()
    with pytest.raises(Cancelled):
        pace.between()
    collection.add([new_item("a", 1)])
    collection.stop()
    assert not collection.compact(threading.Event())


def test_a_compaction_of_what_was_dropped_meanwhile_leaves_no_files(
    catalog: Catalog, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Compaction.run
    sealed = []

    def dropped(self: Compaction, view: View, number: int, pace: Pace) -> dict[str, Generation]:
        with Catalog.open(catalog.folder) as other:  # another process, which cannot stop this one
            other.drop_collection("shoes")
        made = run(self, view, number, pace)
        sealed.extend(self.folder.glob("*.faiss"))
        return made

    collection.add([new_item("a", 1)])
    monkeypatch.setattr(Compaction, "run", dropped)
    with pytest.raises(CollectionError) as refused:
        collection.compact()
    assert refused.value.code == "collection-unknown"
    assert [path.name for path in sealed] == ["high-1.faiss"]
    assert not sealed[0].exists()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Loading in the background waits for this event; elsewhere it does not."""
    release = threading.Event()
    load = generation.load

    def waiting(path: Path, sealed: Sealed) -> Generation:
        if threading.current_thread().name == "generations":
            release.wait(30)
        return load(path, sealed)

    monkeypatch.setattr(generation, "load", waiting)
    yield release
    release.set()


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def _high(collection: Collection) -> dict[str, Any]:
    found: dict[str, Any] = collection.status()["spaces"]["high"]
    return found


def test_searches_go_on_and_see_every_write_while_a_generation_of_another_is_loaded(
    tmp_path: Path, held: threading.Event
) -> None:
    with Catalog.open(tmp_path) as ours, Catalog.open(tmp_path) as theirs:
        mine, yours = ours.create_collection("shoes", [HIGH], {}), theirs.collection("shoes")
        mine.add([new_item("old", 1), new_item("older", 2)])
        mine.compact()
        assert yours.search(unit(1), 1)[0].id == "old"
        mine.add([new_item("new", 3)])
        mine.compact()
        mine.add([new_item("newest", 4)])
        mine.remove(["old", "new"])
        for _ in range(3):
            assert {one.id for one in yours.search(unit(1))} == {"older", "newest"}
            assert _high(yours)["number"] == 1
        held.set()
        _until(lambda: _high(yours)["number"] == 2)
        assert {one.id for one in yours.search(unit(1))} == {"older", "newest"}
        assert (_high(yours)["count"], _high(yours)["delta"]) == (3, 1)


def test_a_newest_generation_that_is_broken_leaves_the_one_before_until_it_is_rebuilt(
    tmp_path: Path, held: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    with Catalog.open(tmp_path) as catalog:
        shoes = catalog.create_collection("shoes", [HIGH], {})
        for n in range(2):
            shoes.add([new_item(f"i{n}", n)])
            shoes.compact()
        shoes.remove(["i0"])
    (newest,) = tmp_path.glob("generations/*/high-2.faiss")
    newest.write_bytes(newest.read_bytes()[:-1])
    with Catalog.open(tmp_path) as catalog:
        shoes = catalog.collection("shoes")
        assert [one.id for one in shoes.search(unit(1))] == ["i1"]
        assert "high-2.faiss cannot be trusted" in caplog.text
        held.set()
        _until(lambda: _high(shoes)["number"] == 3)
        assert [one.id for one in shoes.search(unit(1))] == ["i1"]
