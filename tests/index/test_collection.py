from typing import Any

import numpy as np
import pytest

from index import Collection, CollectionError
from tests.index.making import HIGH, LOW, content, new_item, stored, unit


def _statuses(collection: Collection, *items: Any) -> list[str]:
    return [outcome.status for outcome in collection.add(items)]


def test_an_item_that_was_added_is_what_get_returns(collection: Collection) -> None:
    new = new_item("a", 1, {"colour": "red"}, source="file:/a.jpg", stamp="1:2")
    assert _statuses(collection, new) == ["added"]
    item = collection.get("a")
    for field in ("id", "sha256", "name", "source", "stamp", "metadata", "width", "height"):
        assert getattr(item, field) == getattr(new, field)
    assert item.added_at.tzinfo is not None
    assert collection.count() == 1


def test_adding_the_same_again_changes_nothing(collection: Collection) -> None:
    collection.add([new_item("a", 1, {"colour": "red"})])
    before = collection.get("a")
    assert _statuses(collection, new_item("a", 1, {"colour": "red"})) == ["unchanged"]
    assert _statuses(collection, new_item("a", 1)) == ["unchanged"]
    assert collection.get("a") == before


def test_name_source_and_stamp_follow_an_unchanged_picture(collection: Collection) -> None:
    collection.add([new_item("a", 1, {"colour": "red"})])
    moved = new_item("a", 1, name="b.jpg", source="file:/b.jpg", stamp="3:4")
    assert _statuses(collection, moved) == ["unchanged"]
    item = collection.get("a")
    assert (item.name, item.source, item.stamp) == ("b.jpg", "file:/b.jpg", "3:4")
    assert item.metadata == {"colour": "red"}
    assert collection.known(["a"]) == {"a": (content(1), "3:4")}


def test_other_metadata_replace_the_old_and_keep_the_key(collection: Collection) -> None:
    collection.add([new_item("a", 1, {"colour": "red"})])
    key = collection.get("a").key
    assert _statuses(collection, new_item("a", 1, {"colour": "blue"})) == ["replaced"]
    assert collection.get("a").metadata == {"colour": "blue"}
    assert collection.get("a").key == key


def test_metadata_that_only_python_takes_for_the_same_are_other_metadata(
    collection: Collection,
) -> None:
    collection.add([new_item("a", 1, {"sale": 1})])
    assert _statuses(collection, new_item("a", 1, {"sale": True})) == ["replaced"]
    assert collection.get("a").metadata["sale"] is True


def test_other_content_takes_a_new_key_and_keeps_the_metadata_unless_told(
    collection: Collection,
) -> None:
    collection.add([new_item("a", 1, {"colour": "red"})])
    key = collection.get("a").key
    assert _statuses(collection, new_item("a", 2)) == ["replaced"]
    item = collection.get("a")
    assert item.key > key
    assert item.metadata == {"colour": "red"}
    assert collection.search(unit(2), 5)[0].id == "a"
    assert collection.count() == 1


def test_a_key_is_never_given_twice(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    key = collection.get("a").key
    collection.remove(["a"])
    collection.add([new_item("a", 1)])
    assert collection.get("a").key > key


def test_items_of_one_call_count_as_if_added_one_after_another(collection: Collection) -> None:
    collection.add([new_item("old", 1)])
    statuses = _statuses(
        collection,
        new_item("a", 1, {"n": 1}),
        new_item("a", 1),
        new_item("a", 2),
        new_item("b", 1),
        new_item("old", 2),
        new_item("old", 1, {"n": 2}),
    )
    assert statuses == ["added", "unchanged", "replaced", "added", "replaced", "replaced"]
    assert collection.get("a").sha256 == content(2)
    assert collection.get("a").metadata == {"n": 1}
    assert collection.get("old").metadata == {"n": 2}
    assert collection.count() == 3
    assert len(collection.search(unit(1), 10)) == 3


def test_adding_nothing_is_nothing(collection: Collection) -> None:
    assert collection.add([]) == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (new_item("a/b", 1), "item-id-invalid"),
        (new_item("b", 1, sha256="../../etc"), "item-id-invalid"),
        (new_item("b", 1, sha256=""), "item-id-invalid"),
        (new_item("b", 1, {"n": float("nan")}), "metadata-invalid"),
        (new_item("b", 1, None, HIGH, LOW), "descriptor-invalid"),
        (new_item("b", 1, descriptors={"high": np.full(16, np.nan)}), "descriptor-invalid"),
    ],
)
def test_one_bad_item_leaves_the_collection_as_it_was(
    collection: Collection, bad: Any, code: str
) -> None:
    with pytest.raises(CollectionError) as refused:
        collection.add([new_item("good", 1), bad])
    assert refused.value.code == code
    assert collection.count() == 0
    assert collection.search(unit(1)) == []


def test_what_also_writes_is_undone_with_the_items(collection: Collection) -> None:
    def fail(connection: object, outcomes: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        collection.add([new_item("a", 1)], also=fail)
    assert collection.count() == 0
    assert collection.search(unit(1)) == []


def test_removing_says_what_was_there(collection: Collection) -> None:
    collection.add([new_item("a", 1), new_item("b", 2)])
    assert collection.remove(["a", "x"]) == [True, False]
    assert collection.remove(["a"]) == [False]
    assert [item.id for item in collection.items()] == ["b"]
    with pytest.raises(CollectionError) as refused:
        collection.get("a")
    assert refused.value.code == "item-unknown"


def test_a_patch_merges_into_the_metadata(collection: Collection) -> None:
    collection.add([new_item("a", 1, {"colour": "red", "size": {"eu": 42}})])
    item = collection.patch("a", {"colour": None, "size": {"us": 9}})
    assert item.metadata == {"size": {"eu": 42, "us": 9}}
    assert collection.get("a") == item
    assert [found.metadata for found in collection.search(unit(1))] == [item.metadata]


def test_a_patch_that_gives_no_sound_metadata_changes_nothing(collection: Collection) -> None:
    collection.add([new_item("a", 1, {"colour": "red"})])
    for item_id, patch, code in (
        ("a", {"colour": float("nan")}, "metadata-invalid"),
        ("x", {"colour": "blue"}, "item-unknown"),
    ):
        with pytest.raises(CollectionError) as refused:
            collection.patch(item_id, patch)
        assert refused.value.code == code
    assert collection.get("a").metadata == {"colour": "red"}


def test_pages_of_items_give_each_once_in_the_order_of_ids(collection: Collection) -> None:
    ids = [f"{n:03}" for n in range(25)]
    collection.add([new_item(item_id, n, {"even": n % 2 == 0}) for n, item_id in enumerate(ids)])
    pages: list[str] = []
    while page := collection.items(after=pages[-1] if pages else None, limit=10):
        pages += [item.id for item in page]
    assert pages == ids
    even = collection.items(after="004", limit=3, filter={"even": True})
    assert [item.id for item in even] == ["006", "008", "010"]


def test_vectors_come_in_the_order_in_which_they_are_asked(both: Collection) -> None:
    both.add([new_item(f"i{n}", n, None, HIGH, LOW) for n in range(5)])
    asked = ["i3", "i0", "i3"]
    for space in (HIGH, LOW):
        expected = np.array([stored(unit(n, space.dim), space) for n in (3, 0, 3)])
        assert np.array_equal(both.vectors(asked, space.name), expected)
    assert both.vectors([], "high").shape == (0, HIGH.dim)


def test_all_vectors_are_those_of_all_items(both: Collection) -> None:
    assert both.all_vectors("low").shape == (0, LOW.dim)
    both.add([new_item(f"i{n}", n, None, HIGH, LOW) for n in range(5)])
    both.remove(["i2"])
    expected = np.array([stored(unit(n, LOW.dim), LOW) for n in (0, 1, 3, 4)])
    assert np.array_equal(both.all_vectors("low"), expected)


def test_vectors_of_what_is_not_there_are_refused(collection: Collection) -> None:
    collection.add([new_item("a", 1)])
    for ids, space, code in ((["a", "x"], "high", "item-unknown"), (["a"], "low", "space-unknown")):
        with pytest.raises(CollectionError) as refused:
            collection.vectors(ids, space)
        assert refused.value.code == code


def test_status_tells_which_part_holds_how_many_and_why(collection: Collection) -> None:
    collection.add([new_item(f"i{n}", n) for n in range(10)])
    status = collection.status()["spaces"]["high"]
    assert (status["kind"], status["count"], status["delta"]) == ("exact", 0, 10)
    collection.compact()
    collection.remove(["i0", "i1"])
    collection.add([new_item("new", 99)])
    status = collection.status()
    assert status["items"] == 9
    high = status["spaces"]["high"]
    assert (high["count"], high["delta"], high["tombstones"]) == (10, 1, 2)
    assert high["number"] == 1
    assert high["bytes"] > 10 * 2 * HIGH.dim
    assert "10 items" in high["why"]
