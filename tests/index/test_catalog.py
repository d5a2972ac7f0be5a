from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from index import Catalog, Collection, CollectionError, tables
from tests.index.making import HIGH, LOW, new_item, unit


def test_a_collection_is_as_it_was_made_after_reopening(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        made = catalog.create_collection("shoes", [HIGH, LOW], {"keep": "thumbnail"})
    with Catalog.open(tmp_path) as catalog:
        opened = catalog.collection("shoes")
        assert opened.spaces == {"high": HIGH, "low": LOW}
        assert list(opened.spaces) == ["high", "low"]
        assert opened.settings == {"keep": "thumbnail"}
        assert opened.created_at == made.created_at


def test_a_collection_is_the_same_object_for_everybody(catalog: Catalog) -> None:
    assert catalog.create_collection("shoes", [HIGH], {}) is catalog.collection("shoes")


def test_collections_are_listed_by_name(catalog: Catalog) -> None:
    for name in ("b", "c", "a"):
        catalog.create_collection(name, [HIGH], {})
    assert catalog.names() == ["a", "b", "c"]
    assert [collection.name for collection in catalog.collections()] == ["a", "b", "c"]


def test_a_name_is_given_once(catalog: Catalog) -> None:
    catalog.create_collection("shoes", [HIGH], {})
    with pytest.raises(CollectionError) as refused:
        catalog.create_collection("shoes", [LOW], {})
    assert refused.value.code == "collection-exists"


def test_a_collection_with_senseless_settings_is_not_made(catalog: Catalog) -> None:
    with pytest.raises(CollectionError) as refused:
        catalog.create_collection("shoes", [HIGH], {"index": {"exact_up_to": -5}})
    assert refused.value.code == "settings-invalid"
    assert catalog.names() == []


def test_a_dropped_collection_is_gone_with_its_files(catalog: Catalog) -> None:
    collection = catalog.create_collection("shoes", [HIGH], {})
    collection.pictures.put("a" * 64, "thumbnail", b"small")
    collection.add([new_item("a", 1, sha256="a" * 64)])
    collection.compact()
    catalog.drop_collection("shoes")
    left = {path.name for path in catalog.folder.rglob("*") if path.is_file()}
    assert left <= {"catalog.db", "catalog.db-wal", "catalog.db-shm"}
    for ask in (
        lambda: catalog.collection("shoes"),
        lambda: catalog.drop_collection("shoes"),
        lambda: collection.add([new_item("b", 2)]),
        lambda: collection.search(unit(1)),
        collection.compact,
    ):
        with pytest.raises(CollectionError) as refused:
            ask()
        assert refused.value.code == "collection-unknown"


def test_what_a_drop_that_was_killed_left_behind_is_removed_at_the_next_opening(
    tmp_path: Path,
) -> None:
    with Catalog.open(tmp_path) as catalog:
        dropped = catalog.create_collection("shoes", [HIGH], {})
        kept = catalog.create_collection("hats", [HIGH], {})
        for collection in (dropped, kept):
            collection.pictures.put("a" * 64, "thumbnail", b"small")
            collection.add([new_item("a", 1, sha256="a" * 64)])
        with catalog.database.writing() as connection:
            connection.execute(
                delete(tables.collections).where(tables.collections.c.name == "shoes")
            )
    with Catalog.open(tmp_path) as catalog:
        left = {path.name for path in tmp_path.glob("*/*")}
        assert left == {str(kept.id)}
        assert catalog.collection("hats").pictures.get("a" * 64, "thumbnail") == b"small"


def test_a_collection_of_a_dropped_name_begins_empty(catalog: Catalog) -> None:
    catalog.create_collection("shoes", [HIGH], {}).add([new_item("a", 1)])
    catalog.drop_collection("shoes")
    again = catalog.create_collection("shoes", [HIGH], {})
    assert again.search(unit(1)) == []
    assert again.count() == 0


def test_collections_do_not_see_each_others_items(catalog: Catalog) -> None:
    shoes, hats = (catalog.create_collection(name, [HIGH], {}) for name in ("shoes", "hats"))
    shoes.add([new_item("a", 1), new_item("b", 2)])
    hats.add([new_item("a", 3)])
    shoes.compact()
    hats.remove(["b"])
    assert {found.id for found in shoes.search(unit(3))} == {"a", "b"}
    assert [found.score for found in hats.search(unit(3))] == pytest.approx([1], abs=1e-3)
    assert hats.known(["a", "b"]).keys() == {"a"}


def test_a_notebook_opens_a_collection_in_one_line_and_finds_it_again(tmp_path: Path) -> None:
    with Collection.open(tmp_path, spaces=[HIGH]) as collection:
        collection.add([new_item("a", 1)])
    with Collection.open(tmp_path) as collection:
        assert collection.search(unit(1))[0].id == "a"


def test_opening_with_other_weights_than_it_was_made_with_is_refused(tmp_path: Path) -> None:
    Collection.open(tmp_path, spaces=[HIGH]).close()
    with pytest.raises(CollectionError) as refused:
        Collection.open(tmp_path, spaces=[replace(HIGH, fingerprint="0" * 64)])
    assert refused.value.code == "collection-fingerprint-differs"


def test_opening_what_is_not_there_without_saying_of_what_to_make_it_is_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(CollectionError) as refused:
        Collection.open(tmp_path, "shoes")
    assert refused.value.code == "collection-unknown"
