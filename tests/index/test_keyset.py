"""Sets of keys, as FAISS reads them."""

import faiss
import numpy as np
import pytest

from index.keyset import NONE, KeySet

FAR = 2**45  # a bitmap of which would take 4 TiB


@pytest.mark.parametrize(
    "keys", [[], [0], [5], [2, 5, 9], [FAR], [3, 2**24, FAR], list(range(0, 2**24, 2**10))]
)
def test_selectors_choose_the_keys_or_all_others(keys: list[int]) -> None:
    chosen = KeySet(np.array(keys, dtype=np.int64))
    asked = sorted({*keys[:50], 0, 1, 5, 9, 2**24, FAR - 1, FAR, FAR + 1})
    assert [chosen.within.is_member(key) for key in asked] == [key in keys for key in asked]
    if keys:
        assert [chosen.outside.is_member(key) for key in asked] == [
            key not in keys for key in asked
        ]


def test_a_search_among_few_keys_of_many_finds_them() -> None:
    index = faiss.index_factory(4, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    rows = np.eye(4, dtype=np.float32)
    index.add_with_ids(rows, np.array([1, 7, FAR, FAR + 1]))
    for keys, selector in (
        ([7, FAR], KeySet(np.array([7, FAR])).within),
        ([1, FAR + 1], KeySet(np.array([7, FAR])).outside),
    ):  # of sets that are gone by now
        _, found = index.search(rows[:1], 4, params=faiss.SearchParameters(sel=selector))
        assert sorted(key for key in found[0].tolist() if key >= 0) == keys


def test_of_no_keys_nothing_is_left_out() -> None:
    assert NONE.outside is None
