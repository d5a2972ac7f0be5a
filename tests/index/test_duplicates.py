"""Duplicates are found while items are added, whatever they arrive with."""

import threading

import numpy as np
import pytest

from index import Catalog, Collection, CollectionError, DuplicateCheck, NewItem
from index.item import Duplicate, Vector
from tests.index.making import HIGH, new_item, unit

NEAR = 0.97


def beside(vector: Vector, seed: int, cosine: float = 0.995) -> Vector:
    """A unit vector at a given cosine to another one."""
    away = unit(seed)
    away = away - (away @ vector) * vector
    away /= np.linalg.norm(away)
    found: Vector = (cosine * vector + np.sqrt(1 - cosine**2) * away).astype(np.float32)
    return found


def alike(item_id: str, seed: int, cosine: float = 0.995) -> NewItem:
    """Of other content than the item of `seed`, and near it."""
    return new_item(item_id, 10_000 + seed, descriptors={"high": beside(unit(seed), 77, cosine)})


REJECT = DuplicateCheck("reject", "high", NEAR)
FLAG = DuplicateCheck("flag", "high", NEAR)


def test_without_a_check_all_are_added(collection: Collection) -> None:
    outcomes = collection.add([new_item("a", 1), new_item("b", 1), alike("c", 1)])
    assert [(o.status, o.duplicate) for o in outcomes] == [("added", None)] * 3


def test_the_same_content_under_another_id_is_rejected(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    check = DuplicateCheck("reject")
    outcomes = collection.add([new_item("b", 1), alike("c", 1), new_item("a", 1)], duplicates=check)
    assert [o.status for o in outcomes] == ["rejected", "added", "unchanged"]
    assert outcomes[0].duplicate == Duplicate("a", 1.0, exact=True)
    assert collection.count() == 2


@pytest.mark.parametrize("compacted", [False, True])
def test_what_is_near_is_rejected_and_what_is_not_is_added(
    collection: Collection, compacted: bool
) -> None:
    collection.add([new_item(f"i{n}", n) for n in range(30)])
    if compacted:
        collection.compact()
    new = [alike("near", 7), alike("far", 8, cosine=0.9), new_item("other", 99)]
    outcomes = collection.add(new, duplicates=REJECT)
    assert [o.status for o in outcomes] == ["rejected", "added", "added"]
    duplicate = outcomes[0].duplicate
    assert duplicate is not None
    assert (duplicate.id, duplicate.exact) == ("i7", False)
    assert duplicate.score == pytest.approx(0.995, abs=2e-3)


def test_of_two_alike_in_one_batch_the_second_is_the_duplicate(collection: Collection) -> None:
    outcomes = collection.add(
        [new_item("a", 1), alike("b", 1), new_item("c", 1)], duplicates=REJECT
    )
    assert [o.status for o in outcomes] == ["added", "rejected", "rejected"]
    assert [o.duplicate and o.duplicate.id for o in outcomes] == [None, "a", "a"]


def test_a_flagged_duplicate_is_added_and_found_again(catalog: Catalog) -> None:
    collection = catalog.create_collection("shoes", [HIGH], {})
    outcomes = collection.add([new_item("a", 1), alike("b", 1), new_item("c", 3)], duplicates=FLAG)
    assert [o.status for o in outcomes] == ["added"] * 3
    assert [item.id for item in collection.items(flagged=True)] == ["b"]
    assert [item.id for item in collection.items(flagged=False)] == ["a", "c"]
    mark = collection.get("b").duplicate_of
    assert mark is not None
    assert (mark["id"], mark["exact"]) == ("a", False)
    collection.patch("b", {"colour": "red"})
    assert collection.get("b").duplicate_of == mark
    collection.remove(["a"])
    assert collection.get("b").duplicate_of == mark


def test_an_item_does_not_duplicate_what_it_replaces(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    outcomes = collection.add([alike("a", 1)], duplicates=REJECT)
    assert outcomes[0].status == "replaced"
    # What "a" was before is gone when "b" arrives.
    first = [new_item("a", 50), new_item("b", 1)]
    outcomes = collection.add(first, duplicates=REJECT)
    assert [o.status for o in outcomes] == ["replaced", "added"]


def test_a_rejected_replacement_leaves_the_item_as_it_was(collection: Collection) -> None:
    collection.add([new_item("a", 1), new_item("b", 2)])
    outcomes = collection.add([alike("a", 2)], duplicates=REJECT)
    assert outcomes[0].status == "rejected"
    assert collection.get("a").sha256 == new_item("a", 1).sha256


def test_a_removed_item_has_no_duplicates(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    collection.compact()
    collection.remove(["a"])
    assert collection.add([alike("b", 1)], duplicates=REJECT)[0].status == "added"


def test_the_picture_of_a_rejected_item_is_not_kept(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    rejected = alike("b", 1)
    collection.pictures.put(rejected.sha256, "thumbnail", b"small")
    collection.add([rejected], duplicates=REJECT)
    assert collection.pictures.get(rejected.sha256, "thumbnail") is None


def test_of_many_alike_added_at_once_one_is_accepted(collection: Collection) -> None:
    """The index has been asked before another one was committed: the transaction looks again."""
    barrier = threading.Barrier(8)
    statuses: list[str] = []

    def add(n: int) -> None:
        item = new_item(f"i{n}", 500 + n, descriptors={"high": beside(unit(1), 200 + n, 0.999)})
        barrier.wait()
        statuses.append(collection.add([item], duplicates=REJECT)[0].status)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == ["added"] + ["rejected"] * 7


@pytest.mark.parametrize(
    ("action", "space", "threshold"),
    [("drop", None, None), ("flag", "high", 0.0), ("flag", "high", 1.1), ("flag", None, 0.9)],
)
def test_a_senseless_check_is_refused(
    action: str, space: str | None, threshold: float | None
) -> None:
    with pytest.raises(CollectionError) as refused:
        DuplicateCheck(action, space, threshold)  # type: ignore[arg-type]
    assert refused.value.code == "duplicates-invalid"


def test_a_check_in_an_unknown_space_adds_nothing(collection: Collection) -> None:
    with pytest.raises(CollectionError) as refused:
        collection.add([new_item("a", 1)], duplicates=DuplicateCheck("flag", "none", 0.9))
    assert refused.value.code == "space-unknown"
    assert collection.count() == 0
