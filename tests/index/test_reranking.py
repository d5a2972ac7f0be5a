"""Re-ranking: what holds for every method, what is refused, and what a search makes of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Catalog, Collection, CollectionError, Reranking
from index.ranking.reranking import METHODS
from tests.index.making import HIGH, LOW, new_item, stored, unit, units

SEEDS = st.integers(0, 10_000)
COUNTS = st.integers(1, 40)
METHOD = st.sampled_from(sorted(METHODS))


@settings(max_examples=60, deadline=None)
@given(METHOD, SEEDS, COUNTS)
def test_scores_are_finite_and_in_range(method: str, seed: int, count: int) -> None:
    queries, gallery = units(seed, 3), units(seed + 1, count)
    scores = Reranking.of(method).scores(queries @ gallery.T, gallery @ gallery.T)
    assert (scores.dtype, scores.shape) == (np.float32, (3, count))
    assert np.isfinite(scores).all()
    assert scores.min() >= -1 - 1e-5
    assert scores.max() <= 1 + 1e-5


@settings(max_examples=60, deadline=None)
@given(METHOD, SEEDS, COUNTS)
def test_the_order_of_the_gallery_does_not_matter(method: str, seed: int, count: int) -> None:
    queries, gallery = units(seed, 2), units(seed + 1, count)
    shuffled = np.random.default_rng(seed).permutation(count)
    reranking = Reranking.of(
        {"method": method, **({"k1": 4} if method == "k-reciprocal" else {"k": 4})}
    )
    scores = reranking.scores(queries @ gallery.T, gallery @ gallery.T)
    other = gallery[shuffled]
    again = reranking.scores(queries @ other.T, other @ other.T)
    assert again == pytest.approx(scores[:, shuffled], abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 40), st.integers(1, 8), st.integers(1, 6))
def test_a_copy_of_the_query_stays_first_by_k_reciprocal_encoding(
    seed: int, count: int, k1: int, k2: int
) -> None:
    gallery = np.round(units(seed, count) * 64) / 64  # exact products: copies tie to the last bit
    cosines = np.clip(gallery @ gallery.T, -1, 1)
    np.fill_diagonal(cosines, 1)
    given = {"method": "k-reciprocal", "k1": k1, "k2": k2}
    scores = Reranking.of(given).scores(cosines[:1], cosines)[0]
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores.max() <= scores[0] + 1e-6


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("count", [0, 1, 2])
def test_galleries_of_next_to_nothing_are_ranked(method: str, count: int) -> None:
    gallery = units(1, count) if count else np.empty((0, 16), dtype=np.float32)
    order = Reranking.of(method).rank(units(2, 3), gallery)
    assert order.shape == (3, count)
    assert (np.sort(order) == np.arange(count)).all()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_beyond_the_short_list_the_order_is_that_of_the_cosines(method: str) -> None:
    query, gallery = units(1, 1), units(2, 30)
    before = np.argsort(-(gallery @ query[0]))
    after = Reranking.of({"method": method, "shortlist": 12}).rank(query, gallery)[0]
    assert (after[12:] == before[12:]).all()
    assert sorted(after[:12]) == sorted(before[:12])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_defaults_lie_in_their_ranges(method: str) -> None:
    reranking = Reranking.of(method)
    assert reranking.parameters == {
        name: parameter.default for name, parameter in METHODS[method].parameters.items()
    }
    everything = {"method": method, "shortlist": reranking.shortlist, **reranking.parameters}
    assert Reranking.of(everything) == reranking


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("pagerank", "rerank.method = 'pagerank' is none of ['dba', 'diffusion', 'k-reciprocal']"),
        ({}, "rerank.method = None"),
        ({"method": ["dba"]}, "rerank.method = ['dba']"),
        ({"method": "dba", "k1": 3}, "rerank by dba has ['alpha', 'k', 'shortlist'], not 'k1'"),
        ({"method": "dba", "k": 0}, "rerank.k = 0 is no whole number in 1…100"),
        ({"method": "dba", "k": 2.0}, "rerank.k = 2.0"),
        ({"method": "dba", "k": True}, "rerank.k = True"),
        ({"method": "dba", "k": "3"}, "rerank.k = '3'"),
        ({"method": "dba", "shortlist": 1}, "rerank.shortlist = 1"),
        ({"method": "dba", "shortlist": 100_000}, "rerank.shortlist = 100000"),
        ({"method": "diffusion", "alpha": 1.0}, "rerank.alpha = 1.0 is no number in 0…0.999"),
        ({"method": "diffusion", "gamma": float("nan")}, "rerank.gamma = nan"),
        ({"method": "k-reciprocal", "weight": None}, "rerank.weight = None"),
    ],
)
def test_what_makes_no_sense_is_refused(given: Any, said: str) -> None:
    with pytest.raises(CollectionError) as refused:
        Reranking.of(given)
    assert refused.value.code == "rerank-invalid"
    assert said in str(refused.value)


COUNT = 90
HIGHER = {f"i{n}": stored(unit(n), HIGH) for n in range(COUNT)}
LOWER = {f"i{n}": unit(n, LOW.dim) for n in range(COUNT)}
NAMES = list(HIGHER)
QUERIES = {"high": unit(5000), "low": unit(5000, LOW.dim)}
PLACES = [{"space": "high"}, {"space": {"high": 3, "low": 1}}]


@pytest.fixture(scope="module", params=["in the delta", "in a generation"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collection]:
    with Catalog.open(tmp_path_factory.mktemp("filled")) as catalog:
        collection = catalog.create_collection("shoes", [HIGH, LOW], {})
        collection.add([new_item(f"i{n}", n, {"n": n}, HIGH, LOW) for n in range(COUNT)])
        if request.param == "in a generation":
            collection.compact()
        yield collection


def _fused(space: str | dict[str, float], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A query (1, dim) and items (n, dim) whose inner products are the weighted sums of cosines."""
    weights = {space: 1} if isinstance(space, str) else space
    shares = {name: np.sqrt(weight / sum(weights.values())) for name, weight in weights.items()}
    by_space = {"high": HIGHER, "low": LOWER}
    query = np.concatenate([share * QUERIES[name] for name, share in shares.items()])
    items = [
        np.concatenate([share * by_space[name][item] for name, share in shares.items()])
        for item in names
    ]
    return query[None].astype(np.float32), np.array(items, dtype=np.float32)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_search_ranks_its_short_list_anew_and_leaves_what_follows(
    filled: Collection, method: str, place: dict[str, Any]
) -> None:
    reranking = Reranking.of({"method": method, "shortlist": 40})
    query, items = _fused(place["space"], NAMES)
    cosines = (query @ items.T)[0]
    short = np.argsort(-cosines)[:40]
    scores = reranking.scores(cosines[None, short], items[short] @ items[short].T)[0]
    found = filled.search(QUERIES, COUNT, rerank=reranking, **place)
    by_name = dict(zip([NAMES[at] for at in short], scores, strict=True))
    assert {one.id for one in found[:40]} == by_name.keys()
    for one in found[:40]:
        assert one.score == pytest.approx(by_name[one.id], abs=2e-3)
    again = [one.score for one in found[:40]]
    assert again == sorted(again, reverse=True)
    plain = filled.search(QUERIES, COUNT, **place)
    assert found[40:] == plain[40:]
    assert all(one.score == one.similarity for one in found[40:])
    cosine = {one.id: one.score for one in plain}
    assert all(one.similarity == cosine[one.id] for one in found)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_pages_make_up_the_whole(filled: Collection, method: str, place: dict[str, Any]) -> None:
    rerank = {"method": method, "shortlist": 25}
    whole = filled.search(QUERIES, COUNT, rerank=rerank, **place)
    pages = [
        filled.search(QUERIES, 7, offset=at, rerank=rerank, **place) for at in range(0, COUNT, 7)
    ]
    assert [one for page in pages for one in page] == whole
    assert len({one.id for one in whole}) == COUNT


@pytest.mark.parametrize("place", PLACES)
def test_what_is_filtered_out_or_excluded_takes_no_part(
    filled: Collection, place: dict[str, Any]
) -> None:
    rerank = Reranking.of({"method": "dba", "k": 3, "shortlist": 100})
    excluded = ["i0", "i7", "i14"]
    found = filled.search(
        QUERIES, COUNT, filter={"n": {"lt": 60}}, exclude=excluded, rerank=rerank, **place
    )
    eligible = [name for name in NAMES[:60] if name not in excluded]
    query, items = _fused(place["space"], eligible)
    expected = dict(zip(eligible, rerank.scores(query @ items.T, items @ items.T)[0], strict=True))
    assert {one.id: pytest.approx(one.score, abs=2e-3) for one in found} == expected


def test_expansion_and_reranking_work_together(filled: Collection) -> None:
    expanded = filled.search(QUERIES, COUNT, space="high", expansion={"n": 5})
    both = filled.search(
        QUERIES, COUNT, space="high", expansion={"n": 5}, rerank={"method": "dba", "k": 1}
    )
    assert {one.id: one.similarity for one in both} == {one.id: one.score for one in expanded}
    assert [one.id for one in both] != [one.id for one in expanded]


def test_an_empty_collection_has_no_neighbours_by_any_known_method(both: Collection) -> None:
    for method in METHODS:
        assert both.search(QUERIES, rerank=method) == []
    with pytest.raises(CollectionError) as refused:
        both.search(QUERIES, rerank="pagerank")
    assert refused.value.code == "rerank-invalid"
