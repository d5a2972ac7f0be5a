"""Groups of duplicates are the connected components that comparing all pairs gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import Catalog, Collection, CollectionError, Jobs, generation, grouping
from index.grouping import Group, Member, Sets
from tests.index.making import HIGH, LOW, new_item, unit, units


def components(pairs: list[tuple[int, int]], n: int) -> set[frozenset[int]]:
    """By walking from each element over all pairs, as often as it takes."""
    found = set()
    for start in range(n):
        reached = {start}
        while True:
            more = {b for a, b in pairs if a in reached} | {a for a, b in pairs if b in reached}
            if more <= reached:
                break
            reached |= more
        found.add(frozenset(reached))
    return found


@given(st.integers(1, 12), st.data())
def test_sets_are_the_connected_components(n: int, data: st.DataObject) -> None:
    element = st.integers(0, n - 1)
    pairs = data.draw(st.lists(st.tuples(element, element), max_size=20))
    sets = Sets(n)
    for one, other in pairs:
        sets.join(one, other)
    roots = [sets.root(each) for each in range(n)]
    got = {frozenset(np.flatnonzero(np.equal(roots, root)).tolist()) for root in set(roots)}
    assert got == components(pairs, n)
    assert all(root == min(np.flatnonzero(np.equal(roots, root))) for root in roots)


def ids(groups: list[Group]) -> set[frozenset[str]]:
    return {frozenset(member.id for member in group) for group in groups}


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    threshold=st.floats(0.6, 0.99),
    compacted=st.booleans(),
)
def test_groups_are_those_of_all_pairs(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    sizes: list[int],
    threshold: float,
    compacted: bool,
) -> None:
    """Clusters of up to 40, more than the neighbours that are asked for first, as loose as their
    number says, so that some fall apart and some hang together by a thread."""
    centres = units(seed, len(sizes), LOW.dim)
    rows = [
        centre + size / 200 * units(seed + 1 + at, size, LOW.dim)
        for at, (centre, size) in enumerate(zip(centres, sizes, strict=True))
    ]
    vectors = np.concatenate(rows).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Catalog.open(tmp_path_factory.mktemp("data")) as catalog:
        collection = catalog.create_collection("shoes", [LOW], {})
        collection.add(
            [new_item(f"{n}", n, descriptors={"low": row}) for n, row in enumerate(vectors)]
        )
        if compacted:
            collection.compact()
        got = collection.duplicates(threshold)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    unclear = np.abs(cosines - threshold) < 1e-6
    if unclear.any():
        return
    pairs = [(int(a), int(b)) for a, b in np.argwhere(cosines >= threshold) if a < b]
    expected = {group for group in components(pairs, len(vectors)) if len(group) > 1}
    assert ids(got) == {frozenset(map(str, group)) for group in expected}
    np.fill_diagonal(cosines, -1)
    for member in [member for group in got for member in group]:
        assert member.score == pytest.approx(cosines[int(member.id)].max(), abs=1e-5)
    assert [len(group) for group in got] == sorted(map(len, expected), reverse=True)


def test_equal_files_are_a_group_without_any_threshold(collection: Collection) -> None:
    collection.add([new_item("a", 1), new_item("b", 2), new_item("c", 1), new_item("d", 1)])
    (group,) = collection.duplicates()
    assert group == [Member("a", 1.0), Member("c", 1.0), Member("d", 1.0)]


def test_there_is_nothing_to_find_where_nothing_is(collection: Collection) -> None:
    assert collection.duplicates(0.9) == []
    collection.add([new_item("a", 1), new_item("b", 2)])
    assert collection.duplicates(0.99) == []
    collection.add([new_item("a-again", 1)])
    collection.remove(["a"])
    assert collection.duplicates(0.99) == []


def test_progress_is_told_and_can_end_the_work(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "STEP", 4)
    collection.add([new_item(f"i{n}", n) for n in range(10)])
    said = []
    collection.duplicates(0.9, told=lambda done, total: said.append((done, total)))
    assert said == [(4, 10), (8, 10), (10, 10)]

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        collection.duplicates(0.9, told=stop)


def test_what_is_added_meanwhile_is_left_out(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "STEP", 1)
    collection.add([new_item("a", 1), new_item("b", 2), new_item("c", 1)])

    def change(done: int, total: int) -> None:
        if done == 1:
            collection.remove(["c"])
            collection.add([new_item("late", 1), new_item("e", 2)])

    assert collection.duplicates(0.99, told=change) == []


def test_a_question_that_cannot_be_answered_is_refused(both: Collection) -> None:
    for asked, code in (
        ({"threshold": 0.9}, "space-required"),
        ({"threshold": 0.9, "space": "none"}, "space-unknown"),
        ({"threshold": 1.5, "space": "high"}, "duplicates-invalid"),
    ):
        with pytest.raises(CollectionError) as refused:
            both.duplicates(**asked)  # type: ignore[arg-type]
        assert refused.value.code == code


def test_groups_of_a_job_are_there_after_reopening(tmp_path: Path) -> None:
    groups = [[Member("a", 1.0), Member("b", 0.98)], [Member("c", 1.0), Member("d", 1.0)]]
    with Catalog.open(tmp_path) as catalog:
        job = catalog.jobs.create("shoes", {"find_duplicates": {}})
        catalog.jobs.keep_groups(job.id, [[Member("x", 1.0), Member("y", 1.0)]])
        catalog.jobs.keep_groups(job.id, groups)
    with Catalog.open(tmp_path) as catalog:
        jobs: Jobs = catalog.jobs
        (first, one), (second, two) = jobs.groups(job.id)
        assert [one, two] == groups
        assert jobs.groups(job.id, after=first) == [(second, two)]
        assert jobs.groups(job.id, limit=1) == [(first, one)]
        with pytest.raises(CollectionError) as refused:
            jobs.groups("nobody")
        assert refused.value.code == "job-unknown"


def test_a_large_group_costs_no_matrix(collection: Collection) -> None:
    """300 copies of one item are a group, found by asking for more neighbours until some differ."""
    collection.add(
        [new_item(f"copy-{n}", 1000 + n, descriptors={"high": unit(1)}) for n in range(300)]
    )
    collection.add([new_item("other", 2)])
    (group,) = collection.duplicates(0.99)
    assert len(group) == 300


def test_compacting_before_is_told_too_and_ended_by_what_is_raised(catalog: Catalog) -> None:
    few = catalog.create_collection("few", [HIGH], {"index": {"delta_limit": 3}})
    few.add([new_item(f"i{n}", n) for n in range(5)])

    def stop(done: int, total: int) -> None:
        assert (done, total) == (0, 5)
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        few.duplicates(0.9, told=stop)
    assert few.status()["spaces"]["high"]["number"] == 0


def test_where_the_disk_is_too_full_to_compact_before_it_is_done_without(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(index: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    few = catalog.create_collection("few", [HIGH], {"index": {"delta_limit": 3}})
    few.add([new_item(f"i{n}", n, descriptors={"high": unit(n % 4)}) for n in range(5)])
    monkeypatch.setattr(generation, "seal", full)
    (group,) = few.duplicates(0.99)
    assert {member.id for member in group} == {"i0", "i4"}
