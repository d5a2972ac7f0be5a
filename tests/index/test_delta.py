from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import index.delta
from index import estimates
from index.delta import Delta
from index.keyset import KeySet
from tests.index.making import HIGH, LOW, units

SPACES = {"high": replace(HIGH, dtype="float32"), "low": LOW}


def _vectors(seed: int, n: int) -> dict:
    return {space: units(seed, n, described.dim) for space, described in SPACES.items()}


def _keys(*keys: int) -> np.ndarray:
    return np.array(keys, dtype=np.int64)


def test_an_empty_delta_finds_nothing() -> None:
    keys, scores = Delta.empty(SPACES).search("high", units(1, 1)[0], 10, None)
    assert keys.size == scores.size == 0


def test_an_older_delta_does_not_see_what_was_added_since() -> None:
    older = Delta.empty(SPACES).extended(np.arange(1, 5), _vectors(1, 4))
    newer = older.extended(np.arange(5, 8), _vectors(2, 3))
    assert older.keys.tolist() == [1, 2, 3, 4]
    assert newer.keys.tolist() == [1, 2, 3, 4, 5, 6, 7]
    query = units(9, 1, LOW.dim)[0]
    assert sorted(older.search("low", query, 10, None)[0]) == [1, 2, 3, 4]
    assert sorted(newer.search("low", query, 10, None)[0]) == [1, 2, 3, 4, 5, 6, 7]


def test_extending_an_older_delta_again_does_not_touch_the_newer() -> None:
    older = Delta.empty(SPACES).extended(np.arange(1, 5), _vectors(1, 4))
    older = older.extended(_keys(5), _vectors(2, 1))  # now there is room behind it
    first = older.extended(_keys(6), _vectors(3, 1))
    second = older.extended(_keys(7), _vectors(4, 1))
    assert first.keys.tolist() == [1, 2, 3, 4, 5, 6]
    assert second.keys.tolist() == [1, 2, 3, 4, 5, 7]
    newest, scores = first.search("high", _vectors(3, 1)["high"][0], 1, None)
    assert newest.tolist() == [6]
    assert np.allclose(scores, 1)


def test_removed_items_are_not_found_and_the_older_delta_still_has_them() -> None:
    delta = Delta.empty(SPACES).extended(np.arange(1, 5), _vectors(1, 4))
    without = delta.without(_keys(2, 99))
    query = units(9, 1)[0]
    assert sorted(without.search("high", query, 10, None)[0]) == [1, 3, 4]
    assert sorted(delta.search("high", query, 10, None)[0]) == [1, 2, 3, 4]


@given(
    n=st.integers(1, 40),
    sealed=st.sampled_from([0, 3, 20]),
    removed=st.sets(st.integers(1, 40)),
    allowed=st.none() | st.sets(st.integers(1, 60)),
    k=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_a_search_gives_the_k_best_of_what_is_alive_and_allowed(
    n: int, sealed: int, removed: set[int], allowed: set[int] | None, k: int, seed: int
) -> None:
    vectors = _vectors(seed, n)
    with mock.patch.object(index.delta, "BLOCK_ROWS", 7):
        delta = Delta.empty(SPACES)
        for at in range(0, n, 10):
            new = {space: rows[at : at + 10] for space, rows in vectors.items()}
            delta = delta.extended(np.arange(at + 1, min(at + 10, n) + 1), new)
    delta = delta.without(_keys(*removed)).beyond(sealed)
    query = units(seed + 1, 1)[0]
    eligible = set(range(sealed + 1, n + 1)) - removed
    assert delta.keys.tolist() == sorted(eligible)
    assert len(delta) == len(eligible)
    if allowed is not None:
        eligible &= allowed
    expected = sorted(eligible, key=lambda key: -(vectors["high"][key - 1] @ query))[:k]
    chosen = None if allowed is None else KeySet(_keys(*sorted(allowed)))
    keys, scores = delta.search("high", query, k, chosen)
    assert keys[np.argsort(-scores)].tolist() == expected


WIDE = {"high": replace(HIGH, dim=128)}


def _clustered(seed: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.repeat(units(7, n // 20, 128), 20, axis=0) + 0.04 * rng.standard_normal((n, 128))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _estimated(rows: np.ndarray) -> Delta:
    with mock.patch.object(index.delta, "BLOCK_ROWS", 800):
        delta = Delta.empty(WIDE).extended(np.arange(1, len(rows) + 1), {"high": rows})
    assert delta.unestimated()
    delta.estimate()
    assert not delta.unestimated()
    return delta


def test_full_blocks_are_searched_nearly_with_exact_scores() -> None:
    rows = _clustered(1, 2_000)  # two full blocks and half of one
    delta = _estimated(rows)
    right = 0
    for query in units(7, 100, 128)[::5]:
        products = rows.astype(np.float32) @ query
        keys, scores = delta.search("high", query, 10, None, nearly=True)
        assert np.allclose(scores, products[keys - 1], atol=1e-6)
        right += int((scores >= np.sort(products)[-10] - 1e-6).sum())
    assert right / 200 >= 0.98


def test_estimates_pass_over_the_removed_and_yield_to_filters_and_to_exact_searches() -> None:
    rows = _clustered(1, 2_000)
    query = units(7, 100, 128)[3]
    products = rows.astype(np.float32) @ query
    best = np.argsort(-products)
    delta = _estimated(rows)
    for dead in (5, 300):  # few are passed over; where they are many, all is read
        without = delta.without(best[:dead] + 1)
        keys, _ = without.search("high", query, 3, None, nearly=True)
        assert set(keys) == set(best[dead : dead + 3] + 1)
    for found in (
        delta.search("high", query, 3, None),
        delta.search("high", query, 3, KeySet(np.arange(1, 2_001)), nearly=True),
    ):
        assert set(found[0]) == set(best[:3] + 1)


def test_equal_rows_have_equal_scores_wherever_they_stand() -> None:
    rows = _clustered(1, 2_000)
    rows[[3, 790, 801, 1_405]] = rows[0]
    _, scores = _estimated(rows).search("high", rows[0].astype(np.float32), 5, None, nearly=True)
    assert len(set(scores[np.argsort(-scores)][:5].tolist())) == 1


@pytest.mark.parametrize("dim", [estimates.SMALLEST_DIM, estimates.LARGEST_DIM])
def test_a_row_is_never_lost_among_the_best_estimates_for_itself(dim: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.standard_normal((500, 32)) @ rng.standard_normal((32, dim)), 0)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    of_all = estimates.Estimates(rows)
    for at in range(0, 500, 5):
        found, _ = of_all.best(rows[at].astype(np.float32), estimates.CANDIDATES)
        assert at in found
