"""Snapshots are whole, consistent and restorable, whatever goes on while they are taken."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from index import Catalog, Collection, CollectionError
from index.restoring import restore, verify
from tests.index.making import HIGH, content, new_item, unit

PICTURE = b"small" * 1000


def fill(collection: Collection, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        collection.pictures.put(content(n), "thumbnail", PICTURE)
    collection.add([new_item(f"i{n}", n, {"n": n}) for n in range(start, start + count)])


def folder_of(catalog: Catalog, name: str) -> Path:
    return catalog.folder / "snapshots" / name


def assert_whole(folder: Path, name: str, count: int) -> None:
    """Every item is there and found at once, with its picture, and the generation was used."""
    with Catalog.open(folder) as catalog:
        collection = catalog.collection(name)
        items = collection.items(limit=10_000)
        assert len(items) == count
        if items:
            assert {one.id for one in collection.search(unit(0), 10_000)} == {i.id for i in items}
        for item in items:
            assert collection.pictures.get(item.sha256, "thumbnail") == PICTURE


@pytest.fixture
def shoes(collection: Collection) -> Collection:
    """Ten items in a generation and ten beside it."""
    fill(collection, 10)
    collection.compact()
    fill(collection, 10, start=10)
    return collection


def test_a_restored_snapshot_is_what_there_was(
    catalog: Catalog, shoes: Collection, tmp_path: Path
) -> None:
    taken = catalog.take_snapshot()
    fill(shoes, 5, start=20)
    restored = restore(folder_of(catalog, taken.name), tmp_path / "restored")
    assert restored == taken
    assert (taken.collection, taken.collections) == (None, {"shoes": 20})
    assert_whole(tmp_path / "restored", "shoes", 20)
    with Catalog.open(tmp_path / "restored") as again:
        status = again.collection("shoes").status()["spaces"]["high"]
        assert (status["count"], status["delta"], status["number"]) == (10, 10, 1)


def test_the_checksums_are_those_that_sha256sum_checks(catalog: Catalog, shoes: Collection) -> None:
    folder = folder_of(catalog, catalog.take_snapshot().name)
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=folder, check=True)
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - listed == {"SHA256SUMS", "snapshot.json"}
    assert listed == {
        "catalog.db",
        "generations/1/high-1.faiss",
        *(f"pictures/1/thumbnail/00/{content(n)}" for n in range(20)),
    }


def test_generations_and_pictures_are_hard_links(catalog: Catalog, shoes: Collection) -> None:
    folder = folder_of(catalog, catalog.take_snapshot().name)
    for path in ("generations/1/high-1.faiss", f"pictures/1/thumbnail/00/{content(3)}"):
        assert (folder / path).samefile(catalog.folder / path)


def test_where_there_can_be_no_hard_links_there_are_copies(
    catalog: Catalog, shoes: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "link", refuse)
    taken = catalog.take_snapshot()
    restore(folder_of(catalog, taken.name), tmp_path / "restored")
    assert_whole(tmp_path / "restored", "shoes", 20)


def test_what_is_removed_while_it_is_taken_is_in_it(
    catalog: Catalog, shoes: Collection, tmp_path: Path
) -> None:
    def remove(files: int) -> None:
        if files == 1:
            shoes.remove([f"i{n}" for n in range(15)])
            shoes.compact()
            fill(shoes, 3, start=100)
        if files == 10:
            catalog.drop_collection("shoes")

    taken = catalog.take_snapshot(told=remove)
    assert not list((catalog.folder / "pictures").glob("*"))
    assert not list((catalog.folder / "generations").glob("*"))
    restore(folder_of(catalog, taken.name), tmp_path / "restored")
    assert_whole(tmp_path / "restored", "shoes", 20)
    with Catalog.open(tmp_path / "restored") as again:
        assert again.collection("shoes").status()["spaces"]["high"]["count"] == 10


def test_one_collection_is_taken_without_the_others(
    catalog: Catalog, shoes: Collection, tmp_path: Path
) -> None:
    other = catalog.create_collection("hats", [HIGH], {})
    fill(other, 3, start=50)
    other.compact()
    catalog.jobs.create("hats", {"folder": "/hats"})
    catalog.jobs.create("shoes", {"folder": "/shoes"})
    taken = catalog.take_snapshot("shoes")
    folder = folder_of(catalog, taken.name)
    assert taken.name.startswith("shoes-")
    assert (taken.collection, taken.collections) == ("shoes", {"shoes": 20})
    assert not (folder / "pictures" / str(other.id)).exists()
    assert b"i51.jpg" not in (folder / "catalog.db").read_bytes()
    restore(folder, tmp_path / "restored")
    assert_whole(tmp_path / "restored", "shoes", 20)
    with Catalog.open(tmp_path / "restored") as again:
        assert again.names() == ["shoes"]
        assert [job.collection for job in again.jobs.list()] == ["shoes"]


def test_jobs_are_there_but_none_begins_to_run(
    catalog: Catalog, shoes: Collection, tmp_path: Path
) -> None:
    done = catalog.jobs.create("shoes", {"folder": "/done"})
    catalog.jobs.claim("worker", 60)
    catalog.jobs.finish(done.id, "done")
    running = catalog.jobs.create("shoes", {"folder": "/running"})
    catalog.jobs.claim("worker", 60)
    queued = catalog.jobs.create("shoes", {"folder": "/queued"})
    taken = catalog.take_snapshot()
    assert catalog.jobs.get(running.id).state == "running"
    restore(folder_of(catalog, taken.name), tmp_path / "restored")
    with Catalog.open(tmp_path / "restored") as again:
        states = [again.jobs.get(job.id).state for job in (done, running, queued)]
        assert states == ["done", "cancelled", "cancelled"]
        assert again.jobs.claim("worker", 60) is None


def test_folders_beside_are_taken_too(catalog: Catalog, shoes: Collection, tmp_path: Path) -> None:
    (catalog.folder / "whitenings").mkdir()
    (catalog.folder / "whitenings" / "a.safetensors").write_bytes(b"a whitening")
    taken = catalog.take_snapshot("shoes", beside=["whitenings", "missing"])
    restore(folder_of(catalog, taken.name), tmp_path / "restored")
    restored = tmp_path / "restored" / "whitenings" / "a.safetensors"
    assert restored.read_bytes() == b"a whitening"


def test_a_damaged_generation_is_left_out_and_made_again(
    catalog: Catalog, shoes: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (catalog.folder / "generations/1/high-1.faiss").write_bytes(b"something else")
    taken = catalog.take_snapshot()
    assert "high-1.faiss is damaged" in caplog.text
    restore(folder_of(catalog, taken.name), tmp_path / "restored")
    assert_whole(tmp_path / "restored", "shoes", 20)


def test_snapshots_are_listed_and_removed(catalog: Catalog, shoes: Collection) -> None:
    first, second = catalog.take_snapshot("shoes"), catalog.take_snapshot()
    assert catalog.snapshots() == [second, first]
    catalog.drop_snapshot(first.name)
    assert catalog.snapshots() == [second]
    assert not folder_of(catalog, first.name).exists()
    assert catalog.collection("shoes").pictures.get(content(3), "thumbnail") == PICTURE


def test_what_names_no_snapshot_removes_nothing(catalog: Catalog, shoes: Collection) -> None:
    taken = catalog.take_snapshot()
    for name in (
        "..",
        "../data",
        "/etc",
        "",
        "none",
        "lock",
        "a/../b",
        f"../snapshots/{taken.name}",
    ):
        with pytest.raises(CollectionError) as refused:
            catalog.drop_snapshot(name)
        assert refused.value.code == "snapshot-unknown"
    assert catalog.snapshots() == [taken]
    assert shoes.count() == 20


def test_there_is_one_snapshot_at_a_time(catalog: Catalog, shoes: Collection) -> None:
    codes = []

    def again(_: int) -> None:
        with pytest.raises(CollectionError) as refused:
            catalog.take_snapshot()
        codes.append(refused.value.code)

    catalog.take_snapshot(told=again)
    assert set(codes) == {"snapshot-under-way"}


def test_of_an_unknown_collection_there_is_no_snapshot(catalog: Catalog) -> None:
    with pytest.raises(CollectionError) as refused:
        catalog.take_snapshot("none")
    assert refused.value.code == "collection-unknown"
    assert not list((catalog.folder / "snapshots").glob("*none*"))


def test_a_snapshot_that_fails_leaves_nothing(
    catalog: Catalog, shoes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(CollectionError, match="no space left") as refused:
        catalog.take_snapshot()
    assert refused.value.code == "snapshot-failed"
    assert [path.name for path in (catalog.folder / "snapshots").iterdir()] == ["lock"]
    shoes.remove(["i3"])
    assert shoes.pictures.get(content(3), "thumbnail") is None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot that has been copied to elsewhere."""
    folder = tmp_path_factory.mktemp("sound")
    with Catalog.open(folder / "data") as catalog:
        collection = catalog.create_collection("shoes", [HIGH], {})
        fill(collection, 20)
        collection.compact()
        taken = folder_of(catalog, catalog.take_snapshot().name)
        return shutil.copytree(taken, folder / "copy")


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.unlink()  # not the file that it is linked to
    path.write_bytes(raw)


def _shorten(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("catalog.db", _flip),
        ("generations/1/high-1.faiss", _flip),
        (f"pictures/1/thumbnail/00/{content(7)}", _flip),
        (f"pictures/1/thumbnail/00/{content(7)}", Path.unlink),
        ("SHA256SUMS", _shorten),
        ("SHA256SUMS", Path.unlink),
        ("snapshot.json", lambda path: path.write_text("{}")),
        ("snapshot.json", lambda path: path.write_text("[1")),
        ("snapshot.json", lambda path: path.write_text('{"format": 1, "name": "a"}')),
    ],
)
def test_a_snapshot_that_is_not_what_was_taken_is_refused_and_nothing_written(
    sound: Path, tmp_path: Path, file: str, spoil: Callable[[Path], object]
) -> None:
    folder = shutil.copytree(sound, tmp_path / "copy")
    verify(folder)
    spoil(folder / file)
    with pytest.raises(CollectionError) as refused:
        restore(folder, tmp_path / "restored")
    assert refused.value.code == "snapshot-damaged"
    assert not (tmp_path / "restored").exists()


def test_a_list_that_leads_out_of_the_snapshot_is_refused(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "copy")
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  ../../catalog.db\n")
    about = json.loads((folder / "snapshot.json").read_text())
    about["sums"] = hashlib.sha256(sums.read_bytes()).hexdigest()
    (folder / "snapshot.json").write_text(json.dumps(about))
    with pytest.raises(CollectionError, match="leads out of it"):
        restore(folder, tmp_path / "restored")


def test_a_folder_that_is_not_empty_is_left_as_it_is(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    with pytest.raises(CollectionError) as refused:
        restore(sound, tmp_path / "full")
    assert refused.value.code == "restore-not-empty"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    with pytest.raises(CollectionError) as refused:
        restore(tmp_path, tmp_path / "restored")
    assert refused.value.code == "snapshot-unknown"
    (tmp_path / "empty").mkdir()
    restore(sound, tmp_path / "empty")
    assert_whole(tmp_path / "empty", "shoes", 20)


WRITING = """
import sys
from index import Catalog
from tests.index.making import content, new_item
with Catalog.open(sys.argv[1]) as catalog:
    shoes = catalog.collection("shoes")
    print("begun", flush=True)
    n = 0
    while True:
        n += 1
        ids = [5 * n + part for part in range(5)]
        for each in ids:
            shoes.pictures.put(content(each), "thumbnail", b"small" * 1000)
        shoes.add([new_item(f"{n}-{each}", each) for each in ids])
        if n > 6:
            shoes.remove([f"{n - 6}-{5 * (n - 6) + part}" for part in range(5)])
        if n % 5 == 0:
            shoes.compact()
"""


def test_a_snapshot_is_of_one_instant_while_another_process_writes(
    catalog: Catalog, collection: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer adds five items at once and removes five at once: any other number is a mixture
    of two instants, and an item without its picture was removed in between."""
    command = [sys.executable, "-c", WRITING, str(catalog.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        names = [catalog.take_snapshot().name for _ in range(6)]
        writer.send_signal(signal.SIGKILL)
    counts = set()
    for number, name in enumerate(names):
        target = tmp_path / str(number)
        about = restore(folder_of(catalog, name), target)
        count = about.collections["shoes"]
        counts.add(count)
        assert count % 5 == 0
        assert count <= 35
        assert_whole(target, "shoes", count)
    assert counts - {0}
    assert "damaged" not in caplog.text
    assert "cannot be trusted" not in caplog.text


def test_searches_and_writes_go_on_while_a_snapshot_is_taken(
    catalog: Catalog, shoes: Collection
) -> None:
    done = threading.Event()

    def write(files: int) -> None:
        if files == 1:
            thread = threading.Thread(target=lambda: (fill(shoes, 1, start=77), done.set()))
            thread.start()
            thread.join(10)
            assert done.is_set()
            assert shoes.search(unit(77), 1)[0].id == "i77"

    assert catalog.take_snapshot(told=write).collections == {"shoes": 20}
