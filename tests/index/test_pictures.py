import hashlib
from pathlib import Path

import pytest

from index import Collection, CollectionError, PictureStore
from tests.index.making import content, new_item

PICTURE = b"the bytes of a picture"
SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> PictureStore:
    return PictureStore(str(tmp_path / "pictures"))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_picture_that_was_put_is_there_and_nothing_beside_it(
    store: PictureStore, tmp_path: Path
) -> None:
    store.put(SHA256, "original", PICTURE)
    store.put(SHA256, "thumbnail", b"small")
    store.put(SHA256, "original", PICTURE)
    assert store.get(SHA256, "original") == PICTURE
    assert store.get(SHA256, "thumbnail") == b"small"
    assert len(_files(tmp_path)) == 2


def test_a_picture_that_is_not_kept_is_none(store: PictureStore) -> None:
    assert store.get(SHA256, "original") is None


def test_an_original_that_changed_on_the_disk_is_not_passed_off_as_the_picture(
    store: PictureStore, tmp_path: Path
) -> None:
    store.put(SHA256, "original", PICTURE)
    (file,) = _files(tmp_path)
    file.write_bytes(b"something else")
    with pytest.raises(CollectionError) as refused:
        store.get(SHA256, "original")
    assert refused.value.code == "picture-damaged"


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "", "a/b", "."])
def test_what_is_no_checksum_names_no_file(store: PictureStore, sha256: str) -> None:
    with pytest.raises(ValueError, match="names no picture"):
        store.get(sha256, "original")


def test_any_file_system_that_fsspec_knows_will_do() -> None:
    store = PictureStore("memory://pictures")
    store.put(SHA256, "original", PICTURE)
    assert store.get(SHA256, "original") == PICTURE
    store.settle([SHA256], used=list)
    assert store.get(SHA256, "original") == PICTURE
    store.arrived([SHA256])
    store.settle([SHA256], used=list)
    assert store.get(SHA256, "original") is None


def test_a_picture_goes_with_the_last_item_that_has_it(collection: Collection) -> None:
    collection.pictures.put(content(1), "thumbnail", b"small")
    collection.add([new_item("a", 1), new_item("b", 1)])
    collection.remove(["a"])
    assert collection.pictures.get(content(1), "thumbnail") == b"small"
    collection.remove(["b"])
    assert collection.pictures.get(content(1), "thumbnail") is None


def test_a_picture_goes_when_other_content_takes_its_place(collection: Collection) -> None:
    for seed in (1, 2):
        collection.pictures.put(content(seed), "thumbnail", b"small")
        collection.add([new_item("a", seed)])
    assert collection.pictures.get(content(1), "thumbnail") is None
    assert collection.pictures.get(content(2), "thumbnail") == b"small"


def test_a_picture_goes_when_its_item_could_not_be_added(collection: Collection) -> None:
    collection.pictures.put(content(1), "thumbnail", b"small")
    with pytest.raises(CollectionError):
        collection.add([new_item("not/an/id", 1)])
    assert collection.pictures.get(content(1), "thumbnail") is None


def test_a_picture_whose_item_is_on_its_way_survives_the_removal_of_its_twin(
    collection: Collection,
) -> None:
    collection.add([new_item("old", 1)])
    collection.pictures.put(content(1), "thumbnail", b"small")
    collection.remove(["old"])
    collection.add([new_item("new", 1)])
    assert collection.pictures.get(content(1), "thumbnail") == b"small"


def test_one_of_two_items_on_their_way_that_is_given_up_leaves_the_picture_to_the_other(
    collection: Collection,
) -> None:
    for _ in range(2):
        collection.pictures.expect(content(1))
        for kind in ("original", "thumbnail"):
            collection.pictures.put(content(1), kind, b"small")
    collection.abandon([content(1)])
    assert collection.pictures.get(content(1), "thumbnail") == b"small"
    collection.add([new_item("a", 1)])
    collection.remove(["a"])
    assert collection.pictures.get(content(1), "thumbnail") is None
