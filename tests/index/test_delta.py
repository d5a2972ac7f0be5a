import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.delta import Delta
from tests.index.making import units

DIMS = {"high": 16, "low": 8}


def _vectors(seed: int, n: int) -> dict:
    return {space: units(seed, n, dim) for space, dim in DIMS.items()}


def _keys(*keys: int) -> np.ndarray:
    return np.array(keys, dtype=np.int64)


def test_an_empty_delta_finds_nothing() -> None:
    keys, scores = Delta.empty(DIMS).search("high", units(1, 1)[0], 10, None)
    assert keys.size == scores.size == 0


def test_an_older_delta_does_not_see_what_was_added_since() -> None:
    older = Delta.empty(DIMS).extended(np.arange(1, 5), _vectors(1, 4))
    newer = older.extended(np.arange(5, 8), _vectors(2, 3))
    assert older.keys.tolist() == [1, 2, 3, 4]
    assert newer.keys.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.array_equal(newer.vectors("low")[:4], older.vectors("low"))


def test_extending_an_older_delta_again_does_not_touch_the_newer() -> None:
    older = Delta.empty(DIMS).extended(np.arange(1, 5), _vectors(1, 4))
    older = older.extended(_keys(5), _vectors(2, 1))  # now there is room behind it
    first = older.extended(_keys(6), _vectors(3, 1))
    second = older.extended(_keys(7), _vectors(4, 1))
    assert first.keys.tolist() == [1, 2, 3, 4, 5, 6]
    assert second.keys.tolist() == [1, 2, 3, 4, 5, 7]
    assert np.array_equal(first.vectors("high")[-1], _vectors(3, 1)["high"][0])


def test_removed_items_are_not_found_and_the_older_delta_still_has_them() -> None:
    delta = Delta.empty(DIMS).extended(np.arange(1, 5), _vectors(1, 4))
    without = delta.without(_keys(2, 99))
    query = units(9, 1)[0]
    assert sorted(without.search("high", query, 10, None)[0]) == [1, 3, 4]
    assert sorted(delta.search("high", query, 10, None)[0]) == [1, 2, 3, 4]


@given(
    n=st.integers(1, 40),
    removed=st.sets(st.integers(1, 40)),
    allowed=st.none() | st.sets(st.integers(1, 60)),
    k=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_a_search_gives_the_k_best_of_what_is_alive_and_allowed(
    n: int, removed: set[int], allowed: set[int] | None, k: int, seed: int
) -> None:
    vectors = _vectors(seed, n)
    delta = Delta.empty(DIMS).extended(np.arange(1, n + 1), vectors).without(_keys(*removed))
    query = units(seed + 1, 1)[0]
    eligible = set(range(1, n + 1)) - removed
    if allowed is not None:
        eligible &= allowed
    expected = sorted(eligible, key=lambda key: -(vectors["high"][key - 1] @ query))[:k]
    chosen = None if allowed is None else _keys(*sorted(allowed))
    keys, scores = delta.search("high", query, k, chosen)
    assert keys[np.argsort(-scores)].tolist() == expected
