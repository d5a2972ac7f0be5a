"""Building, tuning and extending an index of every kind over a catalog's descriptors."""

from collections.abc import Iterator
from dataclasses import replace

import faiss
import numpy as np
import pytest

from index import Catalog, Collection, generation, planner, sealing, tuning
from index.gallery import Gallery
from index.generation import Generation, Work
from index.keyset import NONE, KeySet
from index.planner import Kind, Policy, plans
from tests.index.making import HIGH, clustered, new_item, stored

DIM, CLUSTERS, COUNT, LATER = 32, 240, 2_400, 300
SPACE = replace(HIGH, dim=DIM)
VECTORS = clustered(1, COUNT + LATER, DIM, CLUSTERS)
QUERIES = clustered(9, 100, DIM, CLUSTERS)
APPROXIMATE: tuple[Kind, ...] = ("hnsw", "ivf-pq", "ivf-rabitq")


@pytest.fixture(autouse=True, scope="module")
def _few_ask() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tuning, "ASKING", 50)
        yield


def _fill(collection: Collection, first: int, last: int) -> None:
    collection.add(
        [new_item(f"i{n}", n, descriptors={"high": VECTORS[n]}) for n in range(first, last)]
    )


def _gallery(collection: Collection) -> Iterator[Gallery]:
    space_id, space = collection._numbered["high"]
    with collection._database.reading() as connection:
        yield Gallery(connection, collection.id, space_id, space)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Of COUNT items; their keys are 1 to COUNT."""
    with Catalog.open(tmp_path_factory.mktemp("sealing")) as catalog:
        collection = catalog.create_collection("many", [SPACE], {})
        _fill(collection, 0, COUNT)
        yield from _gallery(collection)


@pytest.fixture(scope="module", params=APPROXIMATE)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def draft(gallery: Gallery, kind: Kind) -> Generation:
    return sealing.built(gallery, Policy(kind=kind), COUNT, 0)


def _recall(found: Generation, gallery: Gallery, alive: np.ndarray, removed: KeySet) -> float:
    """Of the ten nearest among the keys that are alive, by comparing with all of them."""
    vectors = stored(VECTORS[alive - 1])
    hits = 0
    for query in QUERIES:
        best = alive[np.argsort(-(vectors @ query))[:10]]
        hits += np.isin(found.search(query, 10, None, removed, gallery.vectors)[0], best).sum()
    return float(hits) / (10 * len(QUERIES))


def test_tuning_reaches_the_recall_for_queries_that_it_has_not_seen(
    draft: Generation, gallery: Gallery, kind: Kind
) -> None:
    assert draft.sealed.kind == kind
    assert draft.sealed.recall >= 0.98
    assert draft.sealed.latency_ms > 0
    assert _recall(draft, gallery, np.arange(1, COUNT + 1), NONE) >= 0.97


def test_scores_are_the_cosines_of_the_stored_descriptors(
    draft: Generation, gallery: Gallery
) -> None:
    for query in QUERIES[:20]:
        keys, scores = draft.search(query, 25, None, NONE, gallery.vectors)
        assert keys.size == 25
        assert scores == pytest.approx(stored(VECTORS[keys - 1]) @ query, abs=1e-5)


def test_a_kind_that_misses_the_recall_gives_way_to_the_next_and_the_last_is_exact(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "CANDIDATES", (1,))
    monkeypatch.setattr(planner, "MIB", 600_000)  # too little for the graph alone
    policy = Policy(exact_up_to=100, memory_mib=1, recall=0.999)
    draft = sealing.built(gallery, policy, COUNT, 0)
    assert draft.sealed.kind == "exact"
    assert "ivf-pq has a recall of" in draft.sealed.why
    assert "ivf-rabitq has a recall of" in draft.sealed.why


def test_a_recall_that_cannot_be_had_is_said_not_to_be(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "CANDIDATES", (1,))
    draft = sealing.built(gallery, Policy(kind="ivf-rabitq", recall=0.999), COUNT, 0)
    assert draft.sealed.recall < 0.999
    assert "recall 0.999 that is asked for is not reached" in draft.sealed.why


def test_an_exact_index_needs_no_tuning(gallery: Gallery) -> None:
    sealed = sealing.built(gallery, Policy(), COUNT, 7).sealed
    assert (sealed.kind, sealed.recall, sealed.parameters) == ("exact", 1.0, {})
    assert (sealed.count, sealed.high_key, sealed.removal_seq) == (COUNT, COUNT, 7)
    assert sealed.latency_ms > 0


def test_an_extended_index_finds_the_new_and_never_the_removed(tmp_path, kind: Kind) -> None:
    policy = Policy(kind=kind)
    with Catalog.open(tmp_path) as catalog:
        collection = catalog.create_collection("many", [SPACE], {})
        _fill(collection, 0, COUNT)
        for gallery in _gallery(collection):
            before = sealing.built(gallery, policy, COUNT, 3)
            assert not sealing.extends(gallery, policy, before.sealed, 0)  # nothing is new
        collection.remove([f"i{n}" for n in range(0, COUNT, 4)])
        _fill(collection, COUNT, COUNT + LATER)
        removed = KeySet(np.arange(1, COUNT + 1, 4))
        alive = np.setdiff1d(np.arange(1, COUNT + LATER + 1), removed.keys)
        for gallery in _gallery(collection):
            assert sealing.extends(gallery, policy, before.sealed, removed.size)
            after = sealing.extended(before, gallery, policy, COUNT + LATER, removed)
            assert after.sealed.recall >= 0.98
            assert (after.sealed.count, after.sealed.built) == (COUNT + LATER, COUNT)
            assert (after.sealed.high_key, after.sealed.removal_seq) == (COUNT + LATER, 3)
            assert _recall(after, gallery, alive, removed) >= 0.97
            found, _ = after.search(QUERIES[0], COUNT + LATER, None, removed, gallery.vectors)
            assert sorted(found.tolist()) == alive.tolist()
            some = KeySet(alive[::9])
            found, _ = after.search(QUERIES[0], alive.size, some, removed, gallery.vectors)
            assert sorted(found.tolist()) == some.keys.tolist()


@pytest.mark.parametrize(
    ("changes", "dead", "policy", "extends"),
    [
        ({}, 0, Policy(kind="hnsw"), True),
        ({}, 200, Policy(kind="hnsw", delta_limit=400), True),
        ({}, 201, Policy(kind="hnsw", delta_limit=400), False),  # worn
        ({"recall": 0.9}, 0, Policy(kind="hnsw"), False),
        ({}, 0, Policy(kind="ivf-pq"), False),  # another kind is asked for
        ({}, 0, Policy(), False),  # so few are searched exactly
        ({"kind": "ivf-pq", "built": 600}, 0, Policy(kind="ivf-pq"), True),
        ({"kind": "ivf-pq", "built": 599}, 0, Policy(kind="ivf-pq"), False),  # outgrown
        ({"kind": "exact"}, 0, Policy(), False),
        ({"high_key": COUNT}, 0, Policy(kind="hnsw"), False),
    ],
)
def test_what_is_extended_and_what_is_built_anew(
    gallery: Gallery, changes: dict, dead: int, policy: Policy, extends: bool
) -> None:
    sealed = sealing.Sealed(
        **{"kind": "hnsw", "why": "", "count": 2_000, "built": 2_000, "high_key": 2_000}
        | {"removal_seq": 0}
        | changes
    )
    assert sealing.extends(gallery, policy, sealed, dead) == extends


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf-pq"])  # the last while it is trained
def test_building_ends_where_it_is_told_to(gallery: Gallery, kind: Kind) -> None:
    asked = 0

    def between() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        sealing.built(gallery, Policy(kind=kind), COUNT, 0, Work(between=between))
    assert asked == 3


def test_building_uses_as_many_threads_as_it_is_given_and_no_others_are_touched() -> None:
    before = faiss.omp_get_max_threads()
    seen = set()
    work = Work(threads=before + 1, between=lambda: seen.add(faiss.omp_get_max_threads()))
    (plan,) = plans(100, DIM, "float16", Policy(kind="hnsw"))
    generation.build(plan, DIM, [], [(np.arange(100), VECTORS[:100])], work)
    assert seen == {before + 1}
    assert faiss.omp_get_max_threads() == before
