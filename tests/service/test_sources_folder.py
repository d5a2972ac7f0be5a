"""What a job reads of a folder, and what it refuses."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.indexing import roots
from service.indexing.folder import FolderSource
from service.indexing.source import Entry, SourceError, stable_id

MAX_BYTES = 1000


def write(path: Path, content: bytes = b"picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def entries(folder: Path, *roots: Path) -> dict[str, Entry]:
    """Entries by reference, which must be unique and as many as were counted."""
    source = FolderSource(folder, roots or (folder,), MAX_BYTES)
    listed = list(source.entries())
    assert source.count() == len(listed) == len({entry.reference for entry in listed})
    return {entry.reference: entry for entry in listed}


def code_of(entry: Entry) -> str:
    with pytest.raises(SourceError) as caught:
        entry.read()
    assert caught.value.detail
    return caught.value.code


def test_an_entry_says_where_a_picture_lies_and_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path / "shoes" / "red" / "a.jpg", b"the bytes")
    [entry] = entries(tmp_path).values()
    status = path.stat()
    assert (entry.reference, entry.name) == ("shoes/red/a.jpg", "a.jpg")
    assert entry.place == {"path": "shoes/red/a.jpg", "folder": "shoes/red"}
    assert entry.stamp == f"{status.st_mtime_ns}:{status.st_size}"
    assert entry.source == f"file:{path}"
    assert entry.item_id == stable_id(f"file:{path}")
    assert entry.read() == b"the bytes"


def test_the_order_is_the_same_every_time_files_before_folders(tmp_path: Path) -> None:
    names = ["z.jpg", "b/2.jpg", "b/10.jpg", "a/x/1.jpg", "a/1.jpg", "c.jpg"]
    for name in names:
        write(tmp_path / name)
    expected = ["c.jpg", "z.jpg", "a/1.jpg", "a/x/1.jpg", "b/10.jpg", "b/2.jpg"]
    assert list(entries(tmp_path)) == expected
    assert entries(tmp_path)["c.jpg"].place == {"path": "c.jpg", "folder": ""}


def test_hidden_files_and_what_never_is_a_picture_are_passed_over(tmp_path: Path) -> None:
    for name in (".a.jpg", ".git/b.jpg", "__MACOSX/c.jpg", "notes.TXT", "film.mp4", "a.xmp"):
        write(tmp_path / name)
    for name in ("a.JPG", "b", "c.heic", "d.unknown", "folder.txt/e.png"):
        write(tmp_path / name)
    assert set(entries(tmp_path)) == {"a.JPG", "b", "c.heic", "d.unknown", "folder.txt/e.png"}


def test_a_hidden_folder_may_itself_be_the_one_to_read(tmp_path: Path) -> None:
    write(tmp_path / ".pictures" / "a.jpg")
    assert set(entries(tmp_path / ".pictures")) == {"a.jpg"}


@pytest.mark.parametrize("folder", ["..", "../other", "/", "inside/../../other", "link"])
def test_a_folder_outside_the_roots_is_not_allowed_whether_it_is_there_or_not(
    tmp_path: Path, folder: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(SourceError) as caught:
        FolderSource(root / folder, [root], MAX_BYTES)
    assert caught.value.code == "folder-not-allowed"


def test_without_roots_nothing_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="POOL5_IMAGE_ROOTS"):
        FolderSource(tmp_path, [], MAX_BYTES)


def test_a_name_that_only_begins_like_a_root_is_outside(tmp_path: Path) -> None:
    write(tmp_path / "root-secret" / "a.jpg")
    (tmp_path / "root").mkdir()
    with pytest.raises(SourceError) as caught:
        FolderSource(tmp_path / "root-secret", [tmp_path / "root"], MAX_BYTES)
    assert caught.value.code == "folder-not-allowed"


@pytest.mark.parametrize("name", ["missing", "a.jpg"])
def test_a_folder_that_is_not_there_or_is_none_is_missing(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.jpg")
    with pytest.raises(SourceError) as caught:
        FolderSource(tmp_path / name, [tmp_path], MAX_BYTES)
    assert caught.value.code == "folder-missing"


def test_links_that_stay_inside_are_followed_and_known_by_their_target(tmp_path: Path) -> None:
    target = write(tmp_path / "real" / "a.jpg", b"one")
    (tmp_path / "b.jpg").symlink_to(target)
    found = entries(tmp_path)
    assert found["b.jpg"].read() == b"one"
    assert found["b.jpg"].item_id == found["real/a.jpg"].item_id


def test_links_that_lead_outside_fail_alone(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret" / "key.jpg")
    root = tmp_path / "root"
    write(root / "good.jpg")
    (root / "file.jpg").symlink_to(secret)
    (root / "folder").symlink_to(secret.parent)
    (root / "passwd").symlink_to("/etc/passwd")
    found = entries(root)
    assert found.pop("good.jpg").read() == b"picture"
    assert {name: code_of(entry) for name, entry in found.items()} == dict.fromkeys(
        ["file.jpg", "folder", "passwd"], "path-outside-roots"
    )


def test_a_link_changed_between_listing_and_reading_is_not_followed_outside(
    tmp_path: Path,
) -> None:
    secret = write(tmp_path / "secret.jpg", b"secret")
    root = tmp_path / "root"
    path = write(root / "a.jpg")
    [entry] = entries(root).values()
    path.unlink()
    path.symlink_to(secret)
    assert code_of(entry) == "path-outside-roots"


def test_a_folder_that_becomes_a_link_after_the_check_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "outside" / "a.jpg", b"secret")
    folder = tmp_path / "root" / "x" / "y"
    [entry] = entries(write(folder / "a.jpg").parents[2]).values()
    resolved = roots.resolve_under

    def check_and_swap(*arguments: Any) -> Path:
        real = resolved(*arguments)
        folder.rename(tmp_path / "moved")
        folder.symlink_to(tmp_path / "outside")
        return real

    monkeypatch.setattr(roots, "resolve_under", check_and_swap)
    assert code_of(entry) == "source-file-unreadable"


def test_links_swapped_all_the_time_never_lead_outside(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "a.jpg", b"secret")
    folder, kept = tmp_path / "root" / "x", tmp_path / "root" / "kept"
    [entry] = entries(write(folder / "a.jpg").parents[1]).values()
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            folder.rename(kept)
            folder.symlink_to(tmp_path / "outside")
            folder.unlink()
            kept.rename(folder)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    for _ in range(1500):
        try:
            seen.add(entry.read())
        except SourceError as error:
            seen.add(error.code.encode())
    over.set()
    swapping.join()
    assert b"picture" in seen
    assert b"secret" not in seen


def test_links_in_a_circle_end_and_every_folder_is_entered_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    found = entries(tmp_path)
    assert set(found) == {"a/1.jpg", "round.jpg"}
    assert code_of(found["round.jpg"]) == "source-file-unreadable"


def test_pipes_and_devices_fail_alone_and_hold_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    found = entries(tmp_path, tmp_path, Path("/dev"))
    assert code_of(found["pipe.jpg"]) == "source-file-not-regular"
    assert code_of(found["null.jpg"]) == "source-file-not-regular"


def test_a_file_that_vanished_or_is_a_dangling_link_fails_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = entries(tmp_path)
    path.unlink()
    assert code_of(found["a.jpg"]) == "source-file-missing"
    assert code_of(found["b.jpg"]) == "source-file-missing"
    assert found["b.jpg"].stamp is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_fails_alone(tmp_path: Path) -> None:
    path, folder = write(tmp_path / "a.jpg"), write(tmp_path / "shut" / "b.jpg").parent
    path.chmod(0)
    folder.chmod(0)
    try:
        found = entries(tmp_path)
        assert code_of(found["a.jpg"]) == "source-file-unreadable"
        assert code_of(found["shut"]) == "source-folder-unreadable"
    finally:
        folder.chmod(0o700)


def test_a_folder_that_cannot_be_listed_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.jpg")
    write(tmp_path / "shut" / "b.jpg")
    real = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = entries(tmp_path)
    assert found["a.jpg"].read() == b"picture"
    assert code_of(found["shut"]) == "source-folder-unreadable"


def test_the_size_is_checked_before_and_while_reading(tmp_path: Path) -> None:
    write(tmp_path / "exact.jpg", bytes(MAX_BYTES))
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    found = entries(tmp_path)
    assert len(found["exact.jpg"].read()) == MAX_BYTES
    assert code_of(found["huge.jpg"]) == "picture-too-many-bytes"
    write(tmp_path / "exact.jpg", bytes(MAX_BYTES + 1))
    assert code_of(found["exact.jpg"]) == "picture-too-many-bytes"


def test_names_that_are_no_utf8_can_be_stored_and_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 \n.jpg"
    with open(path, "wb") as file:  # noqa: PTH123 -- pathlib takes no bytes
        file.write(b"odd")
    [entry] = entries(tmp_path).values()
    assert entry.reference == "caf\\xe9 \n.jpg"
    assert entry.read() == b"odd"
    for text in (entry.reference, entry.name, entry.source, str(entry.place)):
        text.encode("utf-8")


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[int]:
    """How deep a picture lies; taken away again by steps, as shutil.rmtree recurses."""
    here, depth = Path.cwd(), 1100
    os.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.jpg").write_bytes(b"deep")
    os.chdir(here)
    yield depth
    os.chdir(tmp_path)
    for _ in range(depth):
        os.chdir("d")
    Path("a.jpg").unlink()
    for _ in range(depth):
        os.chdir("..")
        Path("d").rmdir()
    os.chdir(here)


def test_a_chain_of_folders_deeper_than_pythons_stack_is_walked(tmp_path: Path, deep: int) -> None:
    [reference] = entries(tmp_path)
    assert reference.count("/") == deep


def test_entries_are_read_in_other_threads_after_the_walk_has_ended(tmp_path: Path) -> None:
    for n in range(20):
        write(tmp_path / f"{n}.jpg", str(n).encode())
    listed = list(FolderSource(tmp_path, [tmp_path], MAX_BYTES).entries())
    read: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda entry=entry: read.update({entry.name: entry.read()}))
        for entry in listed
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == {f"{n}.jpg": str(n).encode() for n in range(20)}


def test_every_odd_file_but_the_inventory_is_listed(shared_images: Path) -> None:
    odd = shared_images / "odd"
    found = entries(odd)
    assert len(found) == 57
    assert "INVENTORY.tsv" not in found
