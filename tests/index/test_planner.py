from typing import Any

import pytest

from index import CollectionError
from index.planner import POINTS_PER_LIST, Policy, plan


@pytest.mark.parametrize(("count", "kind"), [(0, "exact"), (100_000, "exact"), (100_001, "ivf")])
def test_search_is_exact_up_to_the_size_that_the_policy_names(count: int, kind: str) -> None:
    assert plan(count, "float16", Policy()).kind == kind


def test_too_few_items_to_train_on_are_searched_exactly_whatever_the_policy() -> None:
    chosen = plan(1_000, "float16", Policy(exact_up_to=10))
    assert chosen.kind == "exact"
    assert "too few" in chosen.why


@pytest.mark.parametrize("count", [5_000, 60_000, 1_000_000, 10_000_000])
def test_an_ivf_has_lists_enough_and_vectors_enough_to_train_each(count: int) -> None:
    chosen = plan(count, "float16", Policy(exact_up_to=1_000))
    assert chosen.factory == f"IVF{chosen.lists},SQfp16"
    assert chosen.lists * POINTS_PER_LIST <= count
    assert 1 <= chosen.probes <= chosen.lists


def test_float32_descriptors_are_indexed_as_they_are() -> None:
    assert plan(10, "float32", Policy()).factory == "IDMap,Flat"


def test_compaction_is_due_when_the_delta_or_the_tombstones_outgrow_their_share() -> None:
    policy = Policy(delta_limit=100)
    assert not policy.due(generation=0, delta=100, tombstones=0)
    assert policy.due(generation=0, delta=101, tombstones=0)
    assert not policy.due(generation=10_000, delta=1_000, tombstones=1_000)
    assert policy.due(generation=10_000, delta=1_001, tombstones=0)
    assert policy.due(generation=10_000, delta=0, tombstones=1_001)


@pytest.mark.parametrize(
    "index", [{"exact": 5}, {"exact_up_to": -1}, {"exact_up_to": "many"}, {"delta_limit": True}]
)
def test_settings_that_make_no_sense_are_refused(index: dict[str, Any]) -> None:
    with pytest.raises(CollectionError) as refused:
        Policy.of({"index": index})
    assert refused.value.code == "settings-invalid"
