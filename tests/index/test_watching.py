"""The recall of live searches: measured afterwards, and put right where it is low."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from index import Catalog, Collection, tables, tuning
from index.watching import FEWEST, MOST_WAITING, Watched
from tests.index.making import HIGH, clustered, new_item, stored

DIM, CLUSTERS, COUNT = 32, 150, 1_500
SPACE = replace(HIGH, dim=DIM)
VECTORS = clustered(1, COUNT, DIM, CLUSTERS)
QUERIES = clustered(9, 3 * MOST_WAITING, DIM, CLUSTERS)
WRONG = {"nprobe": 1, "candidates": 10}
GENEROUS = {"nprobe": 20, "candidates": 640}


@pytest.fixture(autouse=True)
def _few_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ASKING", 40)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Collection]:
    with Catalog.open(tmp_path / "data", watched=1.0) as catalog:
        settings = {"index": {"kind": "ivf-pq"}}
        collection = catalog.create_collection("many", [SPACE], settings)
        collection.add(
            [
                new_item(f"i{n}", n, {"odd": n % 2 == 1}, descriptors={"high": vector})
                for n, vector in enumerate(VECTORS)
            ]
        )
        collection.compact()
        yield collection


def _search_with(collection: Collection, parameters: dict[str, int]) -> None:
    with collection._database.writing() as connection:
        connection.execute(update(tables.generations).values(parameters=parameters))


def _space(collection: Collection) -> dict[str, Any]:
    found: dict[str, Any] = collection.status()["spaces"]["high"]
    return found


def _recall(collection: Collection) -> float:
    """By comparing with all."""
    exact = stored(VECTORS)
    hits = 0
    for query in QUERIES:
        best = {f"i{n}" for n in np.argsort(-(exact @ query))[:10]}
        hits += len(best & {found.id for found in collection.search(query, 10)})
    return hits / (10 * len(QUERIES))


def test_a_generation_that_is_tuned_wrongly_is_noticed_and_put_right_in_every_process(
    watched: Collection, tmp_path: Path
) -> None:
    _search_with(watched, WRONG)
    assert _space(watched)["parameters"] == WRONG
    assert _recall(watched) < 0.9
    with Catalog.open(tmp_path / "data") as other:
        assert other.collection("many").status()["spaces"]["high"]["parameters"] == WRONG
        for _ in range(3):  # a pass of the thread that watches
            for query in QUERIES[:MOST_WAITING]:
                watched.search(query, 10)
            watched.check_recall()
        assert watched.watched["high"].tunings == 1
        after = _space(watched)
        assert after["parameters"] != WRONG
        assert after["recall"] >= 0.98
        assert after["number"] == 1  # the file is the one it was
        assert _recall(watched) >= 0.98
        assert (
            other.collection("many").status()["spaces"]["high"]["parameters"] == after["parameters"]
        )


def test_what_finds_enough_is_left_as_it_is(watched: Collection) -> None:
    _search_with(watched, GENEROUS)
    for start in range(0, len(QUERIES), MOST_WAITING):
        for query in QUERIES[start : start + MOST_WAITING]:
            watched.search(query, 10)
        assert watched.check_recall() == MOST_WAITING
    after = _space(watched)
    assert after["live_samples"] == len(QUERIES)
    assert after["live_recall"] >= 0.98
    assert watched.watched["high"].tunings == 0
    assert after["parameters"] == GENEROUS


def test_the_measured_recall_is_that_of_the_searches(watched: Collection) -> None:
    """Among the same items: filtered, of the delta too, without what came later or was excluded."""
    _search_with(watched, WRONG)
    watched.search(QUERIES[0], 10)  # follow
    watched.check_recall()
    late = clustered(5, 40, DIM, CLUSTERS)
    watched.add(
        [
            new_item(f"j{n}", COUNT + n, {"odd": True}, descriptors={"high": vector})
            for n, vector in enumerate(late)
        ]
    )
    space = watched.watched["high"]
    space.recalls.clear()
    expected = []
    names = [f"i{n}" for n in range(COUNT)] + [f"j{n}" for n in range(40)]
    odd = np.array([n % 2 == 1 for n in range(COUNT)] + [True] * 40)
    exact = stored(np.concatenate([VECTORS, late]))
    for query in QUERIES[:20]:
        found = {one.id for one in watched.search(query, 10, filter={"odd": True})}
        order = [n for n in np.argsort(-(exact @ query)) if odd[n]][:10]
        expected.append(len(found & {names[n] for n in order}) / 10)
    watched.add([new_item("later", 9_999, descriptors={"high": QUERIES[0]})])
    watched.check_recall()
    assert list(space.recalls) == pytest.approx(expected)


def test_exact_search_has_a_recall_of_one_and_what_was_removed_since_is_not_counted(
    tmp_path: Path,
) -> None:
    with Catalog.open(tmp_path, watched=1.0) as catalog:
        collection = catalog.create_collection("few", [HIGH], {})
        collection.add([new_item(f"i{n}", n % 40) for n in range(60)])  # some of them alike
        for n in range(10):
            collection.search(new_item("", n).descriptors["high"], 7)
        collection.check_recall()
        assert list(collection.watched["high"].recalls) == [1.0] * 10
        collection.search(new_item("", 3).descriptors["high"], 7)
        collection.remove(["i3"])
        assert collection.check_recall() == 1
        assert collection.watched["high"].samples == 10


def test_searches_beyond_what_can_be_answered_are_dropped_and_counted(watched: Collection) -> None:
    for query in QUERIES[: MOST_WAITING + 9]:
        assert len(watched.search(query, 10)) == 10
    assert watched.watched["high"].dropped == 9
    assert watched.check_recall() == MOST_WAITING
    assert watched.check_recall() == 0


def test_nothing_is_noted_unless_asked_for(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        collection = catalog.create_collection("few", [HIGH], {})
        collection.add([new_item("a", 1)])
        collection.search(new_item("", 1).descriptors["high"], 1)
        assert collection.check_recall() == 0
        assert _space(collection)["live_recall"] is None


@pytest.mark.parametrize(
    ("recalls", "below"),
    [
        ([0.5] * (FEWEST - 1), False),  # too few to conclude anything
        ([0.5] * FEWEST, True),
        ([1.0] * FEWEST, False),
        ([0.9, 1.0] * 50, True),  # 0.95 ± 0.005
        ([0.5] + [1.0] * 29, False),  # 0.983
        ([0.3] + [1.0] * 29, False),  # 0.977 ± 0.023: chance
    ],
)
def test_a_recall_is_low_when_it_is_so_beyond_chance(recalls: list[float], below: bool) -> None:
    watched = Watched()
    watched.recalls.extend(recalls)
    assert watched.below(0.98) == below


def test_an_exact_search_among_copies_whose_norm_was_rounded_up_has_a_recall_of_one(
    tmp_path: Path,
) -> None:
    asked = max(VECTORS, key=lambda vector: float(stored(vector) @ vector))
    nearly = [asked + np.float32(n * 2e-5) * VECTORS[1] for n in range(20)]
    assert float(stored(asked) @ asked) > 1 + 2e-5
    with Catalog.open(tmp_path / "exact", watched=1.0) as catalog:
        collection = catalog.create_collection("copies", [SPACE], {})
        collection.add(
            [
                new_item(f"i{n}", n, descriptors={"high": vector / np.linalg.norm(vector)})
                for n, vector in enumerate(nearly)
            ]
        )
        for search_in in (lambda: False, collection.compact):  # the delta, then the generation
            search_in()
            collection.search(asked, 10)
            assert collection.check_recall() == 1
        assert set(collection.watched["high"].recalls) == {1.0}
