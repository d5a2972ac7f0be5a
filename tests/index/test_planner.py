from typing import Any

import faiss
import pytest

from index import CollectionError
from index.planner import ROWS, Kind, Policy, memory, plans

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("count", "dim", "policy", "kinds"),
    [
        (0, 512, Policy(), ["exact"]),
        (50_000, 512, Policy(), ["exact"]),
        (50_001, 512, Policy(), ["hnsw", "ivf-pq", "ivf-rabitq", "exact"]),
        (MILLION, 512, Policy(), ["hnsw", "ivf-pq", "ivf-rabitq", "exact"]),
        # As the memory shrinks: no graph, no stored numbers, no product codes, not even bits.
        (MILLION, 512, Policy(memory_mib=1_200), ["ivf-pq", "ivf-rabitq", "exact"]),
        (MILLION, 512, Policy(memory_mib=500), ["ivf-pq", "ivf-rabitq"]),
        (MILLION, 512, Policy(memory_mib=100), ["ivf-rabitq"]),
        (MILLION, 512, Policy(memory_mib=50), ["ivf-rabitq"]),
        # Memory goes before exactness.
        (40_000, 512, Policy(memory_mib=20), ["ivf-pq", "ivf-rabitq"]),
        # A rotation of 16,384 dims would be a gigabyte.
        (60_000, 16_384, Policy(memory_mib=300), ["ivf-pq"]),
        # Too few to train on.
        (1_000, 512, Policy(exact_up_to=10), ["hnsw", "exact"]),
        (1_000, 512, Policy(kind="ivf-pq"), ["exact"]),
        (5_000, 512, Policy(kind="ivf-pq"), ["ivf-pq"]),
        (10, 512, Policy(kind="hnsw"), ["hnsw"]),
        (MILLION, 512, Policy(kind="exact"), ["exact"]),
    ],
)
def test_the_kinds_to_try_follow_from_size_and_memory(
    count: int, dim: int, policy: Policy, kinds: list[Kind]
) -> None:
    assert [plan.kind for plan in plans(count, dim, "float16", policy)] == kinds


def test_a_plan_says_why() -> None:
    (few,) = plans(1_000, 512, "float16", Policy(kind="ivf-pq"))
    assert "too few" in few.why
    (large,) = plans(MILLION, 512, "float16", Policy(memory_mib=50))
    assert "50 MiB" in large.why
    (wide,) = plans(MILLION, 8_192, "float16", Policy(kind="ivf-rabitq"))
    assert "too few" not in wide.why
    assert "8192 dimensions" in wide.why


@pytest.mark.parametrize("count", [1_024, 60_000, MILLION, 10_000_000])
def test_an_ivf_has_vectors_enough_to_train_each_list(count: int) -> None:
    (chosen,) = plans(count, 512, "float16", Policy(kind="ivf-pq"))
    assert chosen.factory == f"IVF{chosen.lists},PQ256x4fs"
    assert 1 <= chosen.lists * 64 <= count


@pytest.mark.parametrize("dim", [1, 7, 64, 513])
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_faiss_understands_every_factory(kind: Kind, dim: int, dtype: Any) -> None:
    (chosen,) = plans(2_000, dim, dtype, Policy(kind=kind))
    assert faiss.index_factory(dim, chosen.factory, faiss.METRIC_INNER_PRODUCT).d == dim


def test_float32_descriptors_are_indexed_as_they_are() -> None:
    assert plans(10, 512, "float32", Policy())[0].factory == "IDMap,Flat"
    assert memory("exact", 1_000, 512, "float32") == 1_000 * (4 * 512 + 8)


def test_compaction_is_due_when_the_delta_or_the_tombstones_outgrow_their_share() -> None:
    policy = Policy(delta_limit=100)
    assert not policy.due(generation=0, delta=100, tombstones=0)
    assert policy.due(generation=0, delta=101, tombstones=0)
    assert not policy.due(generation=10_000, delta=1_000, tombstones=1_000)
    assert policy.due(generation=10_000, delta=1_001, tombstones=0)
    assert policy.due(generation=10_000, delta=0, tombstones=1_001)
    assert policy.due(generation=MILLION, delta=32_769, tombstones=0)
    assert not policy.due(generation=MILLION, delta=0, tombstones=100_000)


def test_a_generation_is_worn_before_its_tombstones_are_due() -> None:
    """Otherwise one that was extended, and so kept them, would be due again at once."""
    policy = Policy(delta_limit=100)
    assert policy.worn(10_000, 501)
    assert not policy.worn(10_000, 500)


@pytest.mark.parametrize(
    "index",
    [
        {"exact": 5},
        {"exact_up_to": -1},
        {"exact_up_to": "many"},
        {"delta_limit": True},
        {"memory_mib": 0},
        {"recall": 1.0},
        {"recall": "high"},
        {"recall": float("nan")},
        {"kind": "ivf"},
        {"kind": ["hnsw"]},
    ],
)
def test_settings_that_make_no_sense_are_refused(index: dict[str, Any]) -> None:
    with pytest.raises(CollectionError) as refused:
        Policy.of({"index": index})
    assert refused.value.code == "settings-invalid"
    assert next(iter(index)) in str(refused.value)
