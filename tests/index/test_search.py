from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import Catalog, Collection, CollectionError
from tests.index.making import HIGH, LOW, clustered, nearest, new_item, stored, unit, units

COUNT = 120
GALLERY = {f"i{n}": stored(unit(n), HIGH) for n in range(COUNT)}
LOWER = {f"i{n}": unit(n, LOW.dim) for n in range(COUNT)}


def _metadata(n: int) -> dict[str, Any]:
    return {"n": n, "colour": ["red", "green", "blue"][n % 3]}


def _in_delta(collection: Collection) -> None:
    """Nothing is sealed."""


def _in_generation(collection: Collection) -> None:
    collection.compact()


def _in_both(collection: Collection) -> None:
    collection.remove([f"i{n}" for n in range(0, COUNT, 2)])
    collection.compact()
    collection.add(
        [new_item(f"i{n}", n, _metadata(n), HIGH, LOW) for n in range(0, COUNT, 2)]
        + [new_item("gone", 1000, {}, HIGH, LOW)]
    )
    collection.add([new_item("i1", 2000, {}, HIGH, LOW)])
    collection.add([new_item("i1", 1, _metadata(1), HIGH, LOW)])
    collection.remove(["gone"])


@pytest.fixture(scope="module", params=[_in_delta, _in_generation, _in_both])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    """The same items, wherever the index has them."""
    place: Callable[[Collection], None] = request.param
    with Catalog.open(tmp_path_factory.mktemp("filled")) as catalog:
        collection = catalog.create_collection("shoes", [HIGH, LOW], {})
        collection.add([new_item(f"i{n}", n, _metadata(n), HIGH, LOW) for n in range(COUNT)])
        place(collection)
        yield collection


def _pairs(found: list[Any]) -> list[tuple[str, float]]:
    return [(neighbour.id, pytest.approx(neighbour.score, abs=1e-5)) for neighbour in found]


@pytest.mark.parametrize("k", [1, 10, COUNT, 10 * COUNT])
def test_a_search_gives_what_comparing_with_all_gives(filled: Collection, k: int) -> None:
    for query in units(5000, 10):
        found = filled.search(query, k, space="high")
        assert _pairs(found) == nearest(query, GALLERY, k)


def test_neighbours_carry_their_name_and_metadata(filled: Collection) -> None:
    (best,) = filled.search(unit(7), 1, space="high")
    assert (best.id, best.name, best.metadata) == ("i7", "i7.jpg", _metadata(7))
    assert best.key == filled.get("i7").key
    assert best.score == pytest.approx(1, abs=1e-3)
    assert best.score <= 1


def test_the_norm_of_a_query_does_not_matter(filled: Collection) -> None:
    once, twice = (filled.search(factor * unit(3), 5, space="high") for factor in (1, 250))
    assert _pairs(once) == [(neighbour.id, neighbour.score) for neighbour in twice]


def test_pages_make_up_the_whole(filled: Collection) -> None:
    query = unit(5000)
    whole = filled.search(query, 30, space="high")
    pages = [filled.search(query, 7, space="high", offset=at) for at in range(0, 30, 7)]
    assert [n.id for page in pages for n in page][:30] == [n.id for n in whole]
    assert filled.search(query, 7, space="high", offset=COUNT) == []
    assert len(filled.search(query, 7, space="high", offset=COUNT - 3)) == 3


def test_excluded_items_are_passed_over_and_others_take_their_place(filled: Collection) -> None:
    query = unit(5000)
    excluded = [name for name, _ in nearest(query, GALLERY, 5)]
    found = filled.search(query, 10, space="high", exclude=[*excluded, "nobody"])
    rest = {name: vector for name, vector in GALLERY.items() if name not in excluded}
    assert _pairs(found) == nearest(query, rest, 10)


@pytest.mark.parametrize(
    ("terms", "chosen"),
    [
        ({"colour": "red"}, lambda n: n % 3 == 0),
        ({"n": {"lt": 4}}, lambda n: n < 4),
        ({"n": 17}, lambda n: n == 17),
        ({"n": {"gte": 0}}, lambda n: True),
        ({"n": {"lt": 0}}, lambda n: False),
    ],
)
def test_a_filter_never_costs_a_neighbour(
    filled: Collection, terms: dict[str, Any], chosen: Callable[[int], bool]
) -> None:
    query = unit(5000)
    eligible = {f"i{n}": GALLERY[f"i{n}"] for n in range(COUNT) if chosen(n)}
    found = filled.search(query, 10, space="high", filter=terms)
    assert _pairs(found) == nearest(query, eligible, 10)


def test_several_spaces_are_ranked_by_the_weighted_sum_of_cosines(filled: Collection) -> None:
    queries = {"high": unit(5000), "low": unit(5000, LOW.dim)}
    found = filled.search(queries, 10, space={"high": 3, "low": 1})
    sums = {
        name: 0.75 * (GALLERY[name] @ queries["high"]) + 0.25 * (LOWER[name] @ queries["low"])
        for name in GALLERY
    }
    assert _pairs(found) == sorted(sums.items(), key=lambda pair: -pair[1])[:10]


def test_a_query_for_several_spaces_weighs_them_equally_unless_told(filled: Collection) -> None:
    queries = {"high": unit(5000), "low": unit(5000, LOW.dim)}
    assert filled.search(queries, 10) == filled.search(queries, 10, space={"high": 1, "low": 1})


def test_filters_pages_and_exclusions_work_over_several_spaces(filled: Collection) -> None:
    queries = {"high": unit(5000), "low": unit(5000, LOW.dim)}
    terms = {"colour": "red"}
    whole = [neighbour.id for neighbour in filled.search(queries, 12, filter=terms)]
    assert all(filled.get(item_id).metadata["colour"] == "red" for item_id in whole)
    rest = filled.search(queries, 10, filter=terms, exclude=whole[:1], offset=1)
    assert [neighbour.id for neighbour in rest] == whole[2:12]


def test_of_several_vectors_the_space_that_is_named_is_searched(filled: Collection) -> None:
    queries = {"high": unit(5000), "low": unit(5000, LOW.dim)}
    named = filled.search(queries, 5, space="low")
    assert named == filled.search(queries["low"], 5, space="low")
    assert named == filled.search(queries, 5, space={"low": 2, "high": 0})


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"query": unit(1), "k": 0}, "search-invalid"),
        ({"query": unit(1), "offset": -1}, "search-invalid"),
        ({"query": unit(1)}, "space-required"),
        ({"query": unit(1), "space": {"high": 1, "low": 1}}, "space-required"),
        ({"query": {"high": unit(1)}, "space": {"high": 1, "low": 1}}, "space-required"),
        ({"query": {"high": unit(1)}, "space": "low"}, "space-required"),
        ({"query": unit(1), "space": "mid"}, "space-unknown"),
        ({"query": {"mid": unit(1)}}, "space-unknown"),
        ({"query": {}}, "space-weights-invalid"),
        ({"query": {"high": unit(1)}, "space": {"high": -1}}, "space-weights-invalid"),
        ({"query": unit(1), "space": "low"}, "descriptor-invalid"),
        ({"query": np.full(16, np.nan), "space": "high"}, "descriptor-invalid"),
        ({"query": np.full(16, np.inf), "space": "high"}, "descriptor-invalid"),
        ({"query": np.zeros(16), "space": "high"}, "descriptor-zero"),
        ({"query": unit(1), "space": "high", "filter": {"a": {}}}, "filter-invalid"),
        ({"query": unit(1), "space": "high", "expansion": {"n": 0}}, "expansion-invalid"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    filled: Collection, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(CollectionError) as refused:
        filled.search(**arguments)
    assert refused.value.code == code


def test_where_there_is_one_space_it_need_not_be_named(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    assert collection.search(unit(1)) == collection.search(unit(1), space="high")


def test_an_empty_collection_has_no_neighbours(both: Collection) -> None:
    queries = {"high": unit(1), "low": unit(1, LOW.dim)}
    assert both.search(queries) == []
    assert both.search(queries, expansion={"n": 5}, filter={"a": 1}, exclude=["x"]) == []
    both.compact()
    assert both.search(queries) == []


def test_equal_scores_are_ordered_by_age(collection: Collection) -> None:
    collection.add([new_item("first", 1)])
    collection.compact()
    collection.add([new_item("second", 1), new_item("third", 1)])
    assert [neighbour.id for neighbour in collection.search(unit(1))] == [
        "first",
        "second",
        "third",
    ]


def test_approximate_search_finds_98_of_100_neighbours(tmp_path: Path) -> None:
    count = 8_000
    space = replace(HIGH, dim=64)
    vectors = clustered(1, count, 64, 800)
    with Catalog.open(tmp_path) as catalog:
        collection = catalog.create_collection("many", [space], {"index": {"exact_up_to": 1_000}})
        items = [
            new_item(f"{n}", n, {"tenth": n % 10 == 0}, descriptors={"high": vector})
            for n, vector in enumerate(vectors)
        ]
        collection.add(items)
        collection.compact()
        assert collection.status()["spaces"]["high"]["kind"] == "hnsw"
        exact = vectors.astype(np.float16).astype(np.float32)
        for terms, eligible in (
            (None, np.arange(count)),
            ({"tenth": True}, np.arange(0, count, 10)),
        ):
            hits = 0
            for query in clustered(3, 100, 64, 800):
                best = eligible[np.argsort(-(exact[eligible] @ query))[:10]]
                found = collection.search(query, 10, filter=terms)
                hits += len({int(neighbour.id) for neighbour in found} & set(best.tolist()))
            assert hits / 1000 >= 0.98
