import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from index import CollectionError
from index.generation import Generation, Sealed, build, load, seal
from index.keyset import NONE, KeySet
from index.planner import ROWS, Kind, Policy, plans
from tests.index.making import units

DIM = 16
COUNT = 5_000
KEYS = np.arange(10, 10 + 2 * COUNT, 2)  # with gaps, as removals leave them
VECTORS = units(1, COUNT, DIM).astype(np.float16).astype(np.float32)


PARAMETERS: dict[Kind, dict[str, int]] = {
    "exact": {},
    "hnsw": {"efSearch": 64},
    "ivf-pq": {"nprobe": 20, "candidates": 100},
    "ivf-rabitq": {"nprobe": 20, "candidates": 100},
}


def _sealed(folder: Path, kind: Kind = "exact", dim: int = DIM) -> tuple[Path, Sealed]:
    (chosen,) = plans(COUNT, dim, "float16", Policy(kind=kind))
    vectors = VECTORS[:, :dim]
    index = build(
        chosen, dim, [vectors], [(KEYS[:3000], vectors[:3000]), (KEYS[3000:], vectors[3000:])]
    )
    path = folder / "high-1.faiss"
    sha256, size = seal(index, path)
    sealed = Sealed(
        kind=chosen.kind,
        why=chosen.why,
        count=COUNT,
        built=COUNT,
        high_key=int(KEYS[-1]),
        removal_seq=0,
        parameters=PARAMETERS[kind],
        number=1,
        file=path.name,
        sha256=sha256,
        bytes=size,
    )
    return path, sealed


@pytest.fixture(scope="module", params=list(ROWS))
def generation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generation:
    return load(*_sealed(tmp_path_factory.mktemp("generation"), request.param))


def _vectors_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands for the catalog, which says nothing of keys that it does not have."""
    there = np.intersect1d(keys, KEYS)
    return there, VECTORS[np.searchsorted(KEYS, there)]


def _best(query: np.ndarray, k: int, eligible: np.ndarray) -> list[int]:
    places = np.flatnonzero(np.isin(KEYS, eligible))
    return KEYS[places[np.argsort(-(VECTORS[places] @ query))]][:k].tolist()


def _found(
    generation: Generation, query: np.ndarray, k: int, allowed=None, tombstones=()
) -> list[int]:
    chosen = None if allowed is None else KeySet(np.asarray(allowed, dtype=np.int64))
    removed = KeySet(np.asarray(tombstones, dtype=np.int64))
    keys, scores = generation.search(query, k, chosen, removed, _vectors_of)
    return keys[np.argsort(-scores)].tolist()


def test_a_sealed_file_is_a_plain_faiss_file_whose_ids_are_the_keys(tmp_path: Path) -> None:
    path, _ = _sealed(tmp_path)
    index = faiss.read_index(str(path))
    assert (index.d, index.ntotal) == (DIM, COUNT)
    assert np.array_equal(faiss.vector_to_array(index.id_map), KEYS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_scores_are_the_cosines_of_the_stored_descriptors(generation: Generation) -> None:
    query = units(2, 1, DIM)[0]
    keys, scores = generation.search(query, 5, None, NONE, _vectors_of)
    places = np.searchsorted(KEYS, keys)
    assert scores == pytest.approx(VECTORS[places] @ query, abs=1e-5)


def test_every_search_among_few_is_exact(generation: Generation) -> None:
    for seed in range(20):
        query = units(seed, 1, DIM)[0]
        allowed = KEYS[:: 100 + seed]
        assert _found(generation, query, 10, allowed) == _best(query, 10, allowed)


def test_a_full_ranking_is_full(generation: Generation) -> None:
    query = units(3, 1, DIM)[0]
    assert sorted(_found(generation, query, 10 * COUNT)) == KEYS.tolist()


def test_k_are_found_wherever_k_are_eligible(generation: Generation) -> None:
    query = VECTORS[0]
    assert len(_found(generation, query, 3_000)) == 3_000
    rest = KEYS[-7:]
    dead = np.setdiff1d(KEYS, rest)
    assert _found(generation, query, 10, tombstones=dead) == _best(query, 10, rest)


def test_tombstones_are_never_found(generation: Generation) -> None:
    query = VECTORS[42]
    assert _found(generation, query, 1) == [KEYS[42]]
    assert _found(generation, query, 1, tombstones=KEYS[42:43]) != [KEYS[42]]


def test_what_is_allowed_and_nothing_else_is_found(generation: Generation) -> None:
    """However much that is: walked, probed or read in order."""
    for step in (2, 3, 10, 40, 700):
        allowed = KEYS[::step]
        found = _found(generation, units(step, 1, DIM)[0], 20, allowed)
        assert len(found) == min(20, allowed.size)
        assert set(found) <= set(allowed.tolist())


@pytest.mark.parametrize("kind", ["ivf-pq", "ivf-rabitq", "hnsw"])
def test_any_number_of_dims_is_indexed(tmp_path: Path, kind: Kind) -> None:
    index = load(*_sealed(tmp_path, kind, dim=7)).index
    assert (index.d, index.ntotal) == (7, COUNT)


@pytest.mark.parametrize("allowed", [[], [1, 3], [10**6]])
def test_keys_that_the_generation_does_not_have_are_passed_over(
    generation: Generation, allowed: list[int]
) -> None:
    assert _found(generation, VECTORS[0], 10, allowed) == []


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _foreign(path: Path) -> None:
    index = faiss.IndexFlatIP(DIM)
    index.add(VECTORS)
    faiss.write_index(index, str(path))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_missing, _truncated, _empty, _flipped, _foreign, _folder])
def test_a_file_that_is_not_byte_for_byte_what_was_sealed_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path, sealed = _sealed(tmp_path)
    spoil(path)
    with pytest.raises(CollectionError) as refused:
        load(path, sealed)
    assert refused.value.code == "generation-untrusted"
    assert str(path) in str(refused.value)


def test_a_file_with_another_checksum_in_the_catalog_is_refused(tmp_path: Path) -> None:
    path, sealed = _sealed(tmp_path)
    with pytest.raises(CollectionError):
        load(path, replace(sealed, sha256="0" * 64))


@contextmanager
def _no_more_than(size: int) -> Iterator[None]:
    """As on a full disk: a file cannot grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_reported_and_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path, sealed = _sealed(tmp_path)
    index = faiss.read_index(str(path))
    with _no_more_than(sealed.bytes // 2), pytest.raises(OSError, match="large"):
        seal(index, path)
    assert load(path, sealed).sealed == sealed
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_where_there_are_no_large_pages_a_generation_lies_in_small_ones(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, whose mmap does not know of them."""
    monkeypatch.delattr("mmap.MADV_HUGEPAGE", raising=False)
    generation = load(*_sealed(tmp_path, kind))
    assert _found(generation, VECTORS[7], 1) == [KEYS[7]]


@pytest.mark.parametrize("kind", list(ROWS))
def test_what_is_loaded_to_be_extended_can_be_added_to(kind: Kind, tmp_path: Path) -> None:
    path, sealed = _sealed(tmp_path, kind)
    index = load(path, sealed, to_extend=True).index
    index.add_with_ids(VECTORS[:3], KEYS[-1] + np.arange(1, 4))
    assert index.ntotal == COUNT + 3
