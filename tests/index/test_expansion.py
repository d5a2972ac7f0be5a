from typing import Any

import numpy as np
import pytest

from index import Collection, CollectionError, Expansion
from index.ranking.expansion import expand
from tests.index.making import HIGH, new_item, stored, unit, units


def _plain(query: np.ndarray, neighbours: np.ndarray, alpha: float) -> np.ndarray:
    """The formula, term by term."""
    total = query.astype(np.float64)
    for neighbour in neighbours.astype(np.float64):
        total = total + max(float(query @ neighbour), 0.0) ** alpha * neighbour
    return total / np.sqrt((total**2).sum())


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_the_expanded_query_is_the_weighted_sum_of_the_formula(alpha: float) -> None:
    query, neighbours = unit(1), np.abs(units(2, 5))
    expanded = expand(query, neighbours, neighbours @ query, alpha)
    assert expanded.dtype == np.float32
    assert expanded == pytest.approx(_plain(query, neighbours, alpha), abs=1e-6)


def test_alpha_0_is_the_mean_of_query_and_neighbours() -> None:
    query, neighbours = unit(1), units(2, 4)
    mean = np.mean([query, *neighbours], axis=0)
    expanded = expand(query, neighbours, neighbours @ query, alpha=0)
    assert expanded == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_no_neighbours_leave_the_query_as_it_is() -> None:
    query = unit(1)
    none = np.empty((0, query.size), dtype=np.float32)
    assert expand(query, none, none[:, 0], alpha=3) == pytest.approx(query, abs=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {"m": 3},
        {"n": 0},
        {"n": 2.5},
        {"n": True},
        {"n": "5"},
        {"n": 100_000},
        {"alpha": -1},
        {"alpha": float("nan")},
        {"alpha": float("inf")},
        {"alpha": None},
    ],
)
def test_parameters_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(CollectionError) as refused:
        Expansion.of(given)
    assert refused.value.code == "expansion-invalid"


def test_an_expanded_search_asks_with_the_mean_of_what_the_first_one_found(
    collection: Collection,
) -> None:
    collection.add([new_item(f"i{n}", n) for n in range(60)])
    collection.compact()
    gallery = {f"i{n}": stored(unit(n), HIGH) for n in range(60)}
    query = unit(1000)
    first = sorted(gallery.values(), key=lambda vector: -(vector @ query))[:5]
    expanded = _plain(query, np.array(first), 3.0)
    expected = sorted(gallery, key=lambda item_id: -(gallery[item_id] @ expanded))[:10]
    found = collection.search(query, 10, expansion={"n": 5, "alpha": 3.0})
    assert [neighbour.id for neighbour in found] == expected
    assert found[0].score == pytest.approx(gallery[expected[0]] @ expanded, abs=1e-5)
    assert found == collection.search(query, 10, expansion=Expansion(5, 3.0))


def test_excluded_items_do_not_take_part_in_the_expansion(collection: Collection) -> None:
    collection.add([new_item("me", 1), new_item("twin", 1), new_item("other", 2)])
    alone = collection.search(unit(3), 1, exclude=["me", "twin"], expansion={"n": 1})
    expanded = _plain(unit(3), stored(unit(2))[None], 3.0)
    assert alone[0].id == "other"
    assert alone[0].score == pytest.approx(stored(unit(2)) @ expanded, abs=1e-5)
