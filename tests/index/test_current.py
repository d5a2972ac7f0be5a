"""Generations, delta and tombstones together: sealing, reopening, damage, other processes."""

import hashlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
import pytest
from sqlalchemy import update

from index import Catalog, Collection, CollectionError, delta, generation, tables
from index.compaction import Cancelled, Compaction
from index.estimates import Estimates
from tests.index.making import HIGH, LOW, nearest, new_item, stored, unit, units

GALLERY = {f"i{n}": stored(unit(n)) for n in range(60)}


def _fill(collection: Collection) -> None:
    """Items in the generation and in the delta, and tombstones of both."""
    collection.add([new_item(f"i{n}", n) for n in range(40)] + [new_item("old", 900)])
    collection.compact()
    collection.add([new_item(f"i{n}", n) for n in range(40, 60)] + [new_item("new", 901)])
    collection.remove(["old", "new"])


def _is_right(collection: Collection) -> bool:
    query = unit(5000)
    found = [(one.id, pytest.approx(one.score, abs=1e-5)) for one in collection.search(query, 100)]
    return found == nearest(query, GALLERY, 100)


def _generations(catalog: Catalog) -> list[Path]:
    return sorted(catalog.folder.glob("generations/*/*.faiss"))


def test_compaction_moves_everything_into_the_generation_and_changes_no_answer(
    catalog: Catalog, collection: Collection
) -> None:
    _fill(collection)
    before = collection.search(unit(5000), 100)
    assert collection.compact()
    close = [pytest.approx(one.score, abs=1e-6) for one in before]
    assert collection.search(unit(5000), 100) == [
        replace(one, score=score, similarity=score)
        for one, score in zip(before, close, strict=True)
    ]
    parts = collection.status()["spaces"]["high"]
    assert (parts["count"], parts["delta"], parts["tombstones"]) == (60, 0, 0)
    assert [path.name for path in _generations(catalog)] == ["high-1.faiss", "high-2.faiss"]


def test_compacting_what_is_compact_does_nothing(catalog: Catalog, collection: Collection) -> None:
    _fill(collection)
    assert collection.compact()
    assert not collection.compact()
    assert [path.name for path in _generations(catalog)] == ["high-1.faiss", "high-2.faiss"]


def test_every_space_has_its_generation(catalog: Catalog, both: Collection) -> None:
    both.add([new_item("a", 1, None, HIGH, LOW)])
    both.compact()
    assert [path.name for path in _generations(catalog)] == ["high-1.faiss", "low-1.faiss"]
    index = faiss.read_index(str(_generations(catalog)[1]))
    assert (index.d, index.ntotal) == (LOW.dim, 1)


def test_a_collection_that_became_empty_is_compacted_to_nothing(collection: Collection) -> None:
    _fill(collection)
    collection.remove(list(GALLERY))
    assert collection.compact()
    assert collection.search(unit(1)) == []
    collection.add([new_item("a", 1)])
    assert collection.search(unit(1))[0].id == "a"


def test_compaction_is_due_when_the_delta_has_outgrown_its_limit(catalog: Catalog) -> None:
    collection = catalog.create_collection("few", [HIGH], {"index": {"delta_limit": 10}})
    collection.add([new_item(f"i{n}", n) for n in range(10)])
    assert not collection.needs_compaction()
    collection.add([new_item("i10", 10)])
    assert collection.needs_compaction()
    collection.compact()
    assert not collection.needs_compaction()
    collection.remove([f"i{n}" for n in range(11)])
    assert collection.needs_compaction()


def test_everything_is_found_again_after_reopening(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        _fill(catalog.create_collection("shoes", [HIGH], {}))
    with Catalog.open(tmp_path) as catalog:
        collection = catalog.collection("shoes")
        assert _is_right(collection)
        parts = collection.status()["spaces"]["high"]
        assert (parts["count"], parts["delta"], parts["tombstones"]) == (41, 20, 1)


def _high(collection: Collection) -> dict[str, Any]:
    status: dict[str, Any] = collection.status()["spaces"]["high"]
    return status


def _wait_until(true: Callable[[], bool]) -> None:
    """Until what happens in the background has happened."""
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def _replace(path: Path) -> None:
    index = faiss.index_factory(HIGH.dim, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(units(7, 41), np.arange(1, 42))
    faiss.write_index(index, str(path))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": _flip,
    "foreign": _replace,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_generation_is_rebuilt_from_the_catalog_and_said_to_be(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Catalog.open(tmp_path) as catalog:
        _fill(catalog.create_collection("shoes", [HIGH], {}))
        (path,) = _generations(catalog)
    DAMAGE[damage](path)
    with Catalog.open(tmp_path) as catalog, caplog.at_level(logging.WARNING):
        assert _is_right(catalog.collection("shoes"))
        assert path.name in caplog.text
        _wait_until(lambda: _high(catalog.collection("shoes"))["count"] == 60)
        assert _is_right(catalog.collection("shoes"))
    assert [path.name for path in _generations(catalog)] == ["high-2.faiss"]


def test_a_damaged_generation_that_cannot_be_rebuilt_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalog.open(tmp_path) as catalog:
        _fill(catalog.create_collection("shoes", [HIGH], {}))
        _generations(catalog)[0].unlink()

    def full(index: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with Catalog.open(tmp_path) as catalog, monkeypatch.context() as disk:
        disk.setattr(generation, "seal", full)
        collection = catalog.collection("shoes")
        assert _is_right(collection)
        with pytest.raises(OSError, match="No space"):
            _wait_until(collection.compact)  # the one in the background may be at it
        collection.add([new_item("one more", 5000)])
        assert collection.search(unit(5000), 1)[0].id == "one more"
        disk.undo()
        collection.remove(["one more"])
        _wait_until(lambda: collection.compact() or _high(collection)["count"] == 60)
        assert _is_right(collection)


def test_stray_files_are_removed_when_a_collection_is_opened(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        _fill(catalog.create_collection("shoes", [HIGH], {}))
        (path,) = _generations(catalog)
    for name in ("high-2.faiss", "high-7.aside", "other-1.faiss"):
        (path.parent / name).write_bytes(b"half written")
    with Catalog.open(tmp_path) as catalog:
        assert _is_right(catalog.collection("shoes"))
    assert {file.name for file in path.parent.iterdir()} == {path.name, "lock"}


def test_another_opening_sees_every_write_as_soon_as_it_is_acknowledged(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as ours, Catalog.open(tmp_path) as theirs:
        mine = ours.create_collection("shoes", [HIGH], {})
        yours = theirs.collection("shoes")
        mine.add([new_item("a", 1)])
        assert yours.search(unit(1))[0].id == "a"
        yours.add([new_item("a", 2)])
        assert mine.search(unit(2))[0].score == pytest.approx(1, abs=1e-3)
        yours.compact()
        assert mine.search(unit(2), 9)[0].id == "a"
        mine.remove(["a"])
        assert yours.search(unit(2)) == []
        yours.compact()
        mine.add([new_item("b", 3)])
        mine.compact()
        assert [one.id for one in yours.search(unit(3))] == ["b"]


ADDING = """
import sys
from index import Catalog
from tests.index.making import new_item
with Catalog.open(sys.argv[1]) as catalog:
    shoes = catalog.collection("shoes")
    for n in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
        shoes.add([new_item(f"i{n}", n), new_item("shared", n)])
        if n % 10 == 5:
            shoes.compact()
            shoes.search(new_item("", n).descriptors["high"])
"""


def test_processes_that_write_and_compact_one_folder_together_lose_nothing(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        shoes = catalog.create_collection("shoes", [HIGH], {})
        starts = (0, 1000, 2000)
        running = [
            subprocess.Popen([sys.executable, "-c", ADDING, str(tmp_path), str(start)])
            for start in starts
        ]
        while any(process.poll() is None for process in running):
            shoes.search(unit(1), 10)
            shoes.compact()
        assert [process.returncode for process in running] == [0, 0, 0]
        ids = {f"i{start + n}" for start in starts for n in range(40)} | {"shared"}
        assert {one.id for one in shoes.search(unit(1), 1000)} == ids
        assert shoes.count() == len(ids) == 121


def test_searches_see_all_that_was_acknowledged_while_others_add_remove_and_compact(
    collection: Collection,
) -> None:
    stop = threading.Event()

    def write(first: int) -> None:
        for n in range(first, first + 60):
            collection.add([new_item(f"i{n}", n)])
            assert collection.search(unit(n), 1)[0].id == f"i{n}"
            if n % 3 == 0:
                collection.remove([f"i{n}"])
                assert collection.search(unit(n), 1)[0].id != f"i{n}"

    def read() -> None:
        while not stop.is_set():
            found = collection.search(unit(5000), 20)
            assert found[0].id == "there from the start"
            assert len({one.id for one in found}) == len(found)

    def compact() -> None:
        while not stop.is_set():
            collection.compact()

    collection.add([new_item("there from the start", 5000), new_item("and this", 5001)])
    with ThreadPoolExecutor(5) as threads:
        background = [threads.submit(read), threads.submit(read), threads.submit(compact)]
        writers = [threads.submit(write, first) for first in (0, 1000)]
        try:
            for writer in writers:
                writer.result()
        finally:
            stop.set()
        for task in background:
            task.result()
    assert collection.count() == 2 + 80


def test_a_replaced_item_is_found_in_every_search_before_during_and_after(
    collection: Collection,
) -> None:
    """Its old key is gone and its new one just came: a search must find one of the two."""
    stop = threading.Event()
    collection.add([new_item("me", 1, {"mine": True})])

    def replace() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            collection.add([new_item("me", seed)])
            if seed % 10 == 0:
                collection.compact()

    with ThreadPoolExecutor(1) as threads:
        replacing = threads.submit(replace)
        try:
            for _ in range(200):
                assert [one.id for one in collection.search(unit(1))] == ["me"]
                found = collection.search(unit(1), filter={"mine": True}, expansion={"n": 2})
                assert [one.id for one in found] == ["me"]
        finally:
            stop.set()
        replacing.result()


def test_a_collection_dropped_by_another_process_is_unknown_here(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as ours, Catalog.open(tmp_path) as theirs:
        mine = ours.create_collection("shoes", [HIGH], {})
        mine.add([new_item("a", 1)])
        theirs.drop_collection("shoes")
        with pytest.raises(CollectionError) as refused:
            mine.search(unit(1))
        assert refused.value.code == "collection-unknown"


def test_generations_that_gave_way_while_they_were_loaded_are_not_adopted(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as ours, Catalog.open(tmp_path) as theirs:
        mine = ours.create_collection("shoes", [HIGH], {})
        _fill(mine)
        yours = theirs.collection("shoes")
        assert _is_right(yours)
        assert mine.compact()
        slow = yours._current._loaded(2, yours._current._numbered()[2])
        assert slow is not None
        for gone in ("i0", "i1"):  # after the second of which the first is not told any more
            mine.remove([gone])
            assert mine.compact()
        yours._current._adopt(slow)
        assert _high(yours)["number"] == 4
        assert {one.id for one in yours.search(unit(1), 100)} == GALLERY.keys() - {"i0", "i1"}


@pytest.mark.parametrize("error", [Cancelled(), OSError(28, "No space left on device")])
def test_after_a_compaction_came_to_nothing_that_of_another_process_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    with Catalog.open(tmp_path) as ours, Catalog.open(tmp_path) as theirs:
        mine = ours.create_collection("shoes", [HIGH], {})
        _fill(mine)
        yours = theirs.collection("shoes")
        with monkeypatch.context() as failing, suppress(OSError):
            failing.setattr(Compaction, "run", fail)
            assert not yours.compact()
        assert mine.compact()
        _wait_until(lambda: _high(yours)["number"] == 2)
        assert _is_right(yours)


def test_a_generation_that_faiss_cannot_read_is_rebuilt_although_its_checksum_is_right(
    tmp_path: Path,
) -> None:
    with Catalog.open(tmp_path) as catalog:
        _fill(catalog.create_collection("shoes", [HIGH], {}))
        (path,) = _generations(catalog)
        path.write_bytes(b"of another version")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with catalog.database.writing() as connection:
            connection.execute(update(tables.generations).values(sha256=sha256))
    with Catalog.open(tmp_path) as catalog:
        assert _is_right(catalog.collection("shoes"))
        _wait_until(lambda: _high(catalog.collection("shoes"))["count"] == 60)
        assert _is_right(catalog.collection("shoes"))


def test_whatever_fails_in_the_background_is_said_and_tried_again_later(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(number: int) -> None:
        raise MemoryError(number)

    _fill(collection)
    monkeypatch.setattr(collection._current, "_load", fail)
    collection._current._tend()
    assert "MemoryError" in caplog.text
    assert collection._current._tend_after > time.monotonic()
    assert _is_right(collection)


def test_without_generations_the_catalog_is_read_once_and_not_after_every_write(
    tmp_path: Path,
) -> None:
    with Catalog.open(tmp_path) as catalog:
        collection = catalog.create_collection("shoes", [HIGH], {})
        _fill(collection)
        for n in (900, 901):
            assert collection.compact()
            collection.add([new_item(f"i{n}", n)])
        for path in _generations(catalog):
            path.unlink()

    with Catalog.open(tmp_path) as catalog:
        collection = catalog.collection("shoes")
        collection._current._tend_after = float("inf")
        before = collection._current.view()
        assert (before.number, len(before.delta)) == (0, 62)
        collection.remove(["i900"])
        collection.add([new_item("new", 902)])
        after = collection._current.view()
        assert len(after.delta) == 62
        assert after.delta._parts[0].block is before.delta._parts[0].block


def test_what_has_become_many_beside_a_graph_is_estimated_in_the_background(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = replace(HIGH, dim=128)
    monkeypatch.setattr(delta, "BLOCK_ROWS", 400)
    collection = catalog.create_collection("wide", [wide], {"index": {"kind": "hnsw"}})
    collection.add([new_item(f"i{n}", n, None, wide) for n in range(100)])
    collection.compact()
    with mock.patch.object(Estimates, "best", autospec=True, side_effect=Estimates.best) as best:
        collection.add([new_item(f"i{n}", n, None, wide) for n in range(100, 1_000)])
        until = time.monotonic() + 30
        while not best.called and time.monotonic() < until:
            found = [collection.search(unit(n, 128), 1)[0] for n in (50, 150, 550, 950)]
            assert [one.id for one in found] == ["i50", "i150", "i550", "i950"]
    assert best.called
    collection.remove(["i150"])
    assert "i150" not in {one.id for one in collection.search(unit(150, 128), 10)}
