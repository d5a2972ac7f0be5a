"""What a job reads of an archive: zip and tar, whole, cut off, and made to do harm."""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.indexing.archive import ArchiveSource
from service.indexing.member import ArchiveLimits
from service.indexing.source import Entry, SourceError

MAX_BYTES = 200_000
MIB = 1024 * 1024
PICTURES = {"a.jpg": b"first", "shoes/b.png": b"second " * 1000, "shoes/red/c": b""}


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(
    members: Mapping[str, bytes],
    kind: int = tarfile.PAX_FORMAT,
    extra: tuple[tarfile.TarInfo, ...] = (),
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return file.getvalue()


PACKINGS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "zip deflated": zipped,
    "zip stored": lambda members: zipped(members, zipfile.ZIP_STORED),
    "zip bzip2": lambda members: zipped(members, zipfile.ZIP_BZIP2),
    "zip lzma": lambda members: zipped(members, zipfile.ZIP_LZMA),
    "tar pax": tarred,
    "tar gnu": lambda members: tarred(members, tarfile.GNU_FORMAT),
    "tar ustar": lambda members: tarred(members, tarfile.USTAR_FORMAT),
    "tar.gz": lambda members: gzip.compress(tarred(members)),
    "tar.bz2": lambda members: bz2.compress(tarred(members)),
    "tar.xz": lambda members: lzma.compress(tarred(members)),
}


def source(folder: Path, content: bytes, **limits: int) -> ArchiveSource:
    path = folder / "upload"
    path.write_bytes(content)
    return ArchiveSource(path, MAX_BYTES, ArchiveLimits(**limits))


def outcome(entry: Entry) -> bytes | str:
    """The bytes of an entry, or the code of what is wrong with it."""
    try:
        return entry.read()
    except SourceError as error:
        return error.code if error.detail else "no detail"


def outcomes(folder: Path, content: bytes, **limits: int) -> dict[str, bytes | str]:
    """Outcomes by reference, read after the last entry was made; unique, and as counted."""
    opened = source(folder, content, **limits)
    listed = list(opened.entries())
    assert opened.count() == len(listed) == len({entry.reference for entry in listed})
    return {entry.reference: outcome(entry) for entry in listed}


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_member_comes_in_order_whatever_the_archive_is_called(
    tmp_path: Path, packing: str
) -> None:
    read = outcomes(tmp_path, PACKINGS[packing](PICTURES))
    assert list(read.items()) == list(PICTURES.items())


def test_an_entry_says_where_in_the_archive_it_was(tmp_path: Path) -> None:
    [entry] = source(tmp_path, zipped({"shoes/red/c.jpg": b"x"})).entries()
    assert (entry.reference, entry.name) == ("shoes/red/c.jpg", "c.jpg")
    assert entry.place == {"path": "shoes/red/c.jpg", "folder": "shoes/red"}
    assert (entry.item_id, entry.stamp) == (None, None)
    assert entry.source == "archive:upload/shoes/red/c.jpg"


@pytest.mark.parametrize("packing", ["zip deflated", "tar pax"])
def test_hidden_members_and_what_never_is_a_picture_are_passed_over(
    tmp_path: Path, packing: str
) -> None:
    names = ["a.jpg", ".b.jpg", "__MACOSX/._a.jpg", "c/.git/d.jpg", "notes.txt", "film.mp4"]
    content = PACKINGS[packing](dict.fromkeys(names, b"x"))
    assert outcomes(tmp_path, content) == {"a.jpg": b"x"}


def test_members_of_one_name_stay_apart(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for content in (b"1", b"2", b"3"):
            info = tarfile.TarInfo("a.jpg")
            info.size = 1
            archive.addfile(info, io.BytesIO(content))
    expected = {"a.jpg": b"1", "a.jpg#2": b"2", "a.jpg#3": b"3"}
    assert outcomes(tmp_path, file.getvalue()) == expected


NO_ARCHIVES = {
    "nothing": b"",
    "a picture": b"\xff\xd8\xff\xe0 a picture",
    "a zip cut off at its start": b"PK\x03\x04 cut off",
    "a zip without its directory": zipped(PICTURES)[:-30],
    "a gzip cut off": b"\x1f\x8b\x08",
    "a bzip2 cut off": b"BZh9",
    "a gzip of no tar": gzip.compress(b"no tar"),
    "an xz of no tar": lzma.compress(b"no tar" * 500),
    "zeros": bytes(100),
}


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_is_refused_at_once(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        source(tmp_path, content)
    assert caught.value.code == "archive-unreadable"


def test_an_archive_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        ArchiveSource(tmp_path / "gone.zip", MAX_BYTES)
    assert caught.value.code == "archive-unreadable"


@pytest.mark.parametrize("packing", ["tar pax", "zip stored"])
def test_an_empty_archive_has_no_entries(tmp_path: Path, packing: str) -> None:
    assert outcomes(tmp_path, PACKINGS[packing]({})) == {}


@pytest.mark.parametrize("packing", ["zip deflated", "tar pax"])
@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "b/../../a.jpg", "..\\a.jpg", "C:\\a"])
def test_names_that_lead_out_are_refused_one_by_one(
    tmp_path: Path, packing: str, name: str
) -> None:
    read = outcomes(tmp_path, PACKINGS[packing]({name: b"x", "good.jpg": b"y"}))
    assert list(read.values()) == ["archive-member-name-unsafe", b"y"]


def test_links_and_devices_in_a_tar_are_refused_one_by_one(tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    infos = []
    for kind in kinds:
        info = tarfile.TarInfo(f"{kind.decode()}.jpg")
        info.type, info.linkname = kind, "a.jpg"
        infos.append(info)
    read = outcomes(tmp_path, tarred({"a.jpg": b"x"}, extra=tuple(infos)))
    assert read.pop("a.jpg") == b"x"
    assert list(read.values()) == ["archive-member-not-a-file"] * len(kinds)


def test_links_and_encrypted_members_of_a_zip_are_refused_one_by_one(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked.jpg", b"x")
        archive.writestr("good.jpg", b"y")
    content = bytearray(file.getvalue())
    record = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[record + 8] |= 1
    assert outcomes(tmp_path, bytes(content)) == {
        "link.jpg": "archive-member-not-a-file",
        "locked.jpg": "archive-member-encrypted",
        "good.jpg": b"y",
    }


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_member_with_too_many_bytes_fails_alone(tmp_path: Path, packing: str) -> None:
    members = {"a.jpg": bytes(MAX_BYTES), "big.jpg": bytes(MAX_BYTES + 1), "b.jpg": b"y"}
    assert outcomes(tmp_path, PACKINGS[packing](members)) == {
        "a.jpg": bytes(MAX_BYTES),
        "big.jpg": "picture-too-many-bytes",
        "b.jpg": b"y",
    }


def test_a_damaged_member_of_a_zip_fails_alone(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.jpg": b"first", "b.jpg": b"second"}, zipfile.ZIP_STORED))
    content[content.index(b"first")] ^= 1
    read = outcomes(tmp_path, bytes(content))
    assert read == {"a.jpg": "archive-member-damaged", "b.jpg": b"second"}


@pytest.mark.parametrize("packing", ["zip stored", "tar.gz"])
def test_an_archive_of_too_many_members_is_refused_or_ends(tmp_path: Path, packing: str) -> None:
    content = PACKINGS[packing]({f"{n}.jpg": b"x" for n in range(6)})
    assert len(outcomes(tmp_path, content, entries=6)) == 6
    if packing == "zip stored":
        with pytest.raises(SourceError) as caught:
            source(tmp_path, content, entries=5)
        assert caught.value.code == "archive-too-many-entries"
    else:
        *good, last = outcomes(tmp_path, content, entries=5).values()
        assert (good, last) == ([b"x"] * 5, "archive-too-many-entries")


def test_a_zip_that_admits_fewer_members_than_it_has_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({f"{n:>200}.jpg": b"" for n in range(100)}))
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", content, end + 8, 1, 1)
    with pytest.raises(SourceError) as caught:
        source(tmp_path, bytes(content), entries=50)
    assert caught.value.code == "archive-too-many-entries"


def test_a_zip64_directory_is_read_for_the_number_of_members(tmp_path: Path) -> None:
    content = zipped({f"{n}.jpg": b"" for n in range(66_000)}, zipfile.ZIP_STORED)
    assert source(tmp_path, content).count() == 66_000
    with pytest.raises(SourceError) as caught:
        source(tmp_path, content, entries=65_999)
    assert caught.value.code == "archive-too-many-entries"


@pytest.mark.parametrize("packing", ["zip deflated", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_ends_at_the_ratio_without_taking_memory(tmp_path: Path, packing: str) -> None:
    """96 MiB of nothing in some kilobytes: the floor of the ratio is 64 MiB."""
    nothing = bytes(MAX_BYTES)
    bomb = source(tmp_path, PACKINGS[packing]({f"{n}.jpg": nothing for n in range(500)}), ratio=2)
    tracemalloc.start()
    last = [outcome(entry) for entry in bomb.entries() if isinstance(outcome(entry), str)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert last == ["archive-too-many-bytes"]
    assert peak < 24 * MIB


def test_the_bytes_of_all_members_together_are_capped(tmp_path: Path) -> None:
    content = tarred({f"{n}.jpg": bytes(100_000) for n in range(10)})
    *good, last = outcomes(tmp_path, content, total_bytes=500_000).values()
    assert last == "archive-too-many-bytes"
    assert 2 <= len(good) <= 5


def test_a_header_that_never_ends_is_refused_without_taking_memory(tmp_path: Path) -> None:
    """A pax header of 60 MiB, which tarfile would read into memory as one name."""
    info = tarfile.TarInfo("attributes")
    info.type, info.size = tarfile.XHDTYPE, 60 * MIB
    content = tarred({"a.jpg": b"x"})[:1024] + info.tobuf() + bytes(info.size)
    opened = source(tmp_path, gzip.compress(content))
    tracemalloc.start()
    read = [outcome(entry) for entry in opened.entries()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read[-1] == "archive-truncated"
    assert peak < 8 * MIB


def test_an_xz_that_wants_a_gigabyte_of_dictionary_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "preset": 0}]
    content = bytearray(lzma.compress(tarred(PICTURES), filters=filters))
    header = 12  # after the stream header: size, flags, filter id, size of properties, dict size
    assert content[header + 2 : header + 4] == b"\x21\x01"
    content[header + 4] = 37  # 1.5 GiB, specification 5.3.1
    length = (content[header] + 1) * 4 - 4
    crc = struct.pack("<I", zlib.crc32(content[header : header + length]))
    content[header + length : header + length + 4] = crc
    with pytest.raises(SourceError, match=r"(?i)memory") as caught:
        source(tmp_path, bytes(content))
    assert caught.value.code == "archive-unreadable"


@pytest.mark.parametrize("packing", ["tar pax", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_that_is_cut_off_gives_what_is_whole_and_says_that_it_is(
    tmp_path: Path, packing: str
) -> None:
    noise = random.Random(0)
    members = {f"{n}.jpg": noise.randbytes(100_000) for n in range(24)}
    content = PACKINGS[packing](members)
    read = outcomes(tmp_path, content[: int(len(content) * 0.55)])
    *good, last = read.items()
    assert last[1] == "archive-truncated"
    assert good == list(members.items())[: len(good)]
    assert len(good) >= 3


def test_a_tar_with_a_damaged_header_in_its_middle_does_not_end_in_silence(
    tmp_path: Path,
) -> None:
    content = bytearray(tarred({"a.jpg": b"x", "b.jpg": b"y", "c.jpg": b"z"}, tarfile.USTAR_FORMAT))
    content[1024] ^= 1
    assert list(outcomes(tmp_path, bytes(content)).values()) == [b"x", "archive-truncated"]


def test_names_in_odd_encodings_can_be_stored(tmp_path: Path) -> None:
    content = tarred({"caf?.jpg": b"x"}, tarfile.USTAR_FORMAT).replace(b"caf?.jpg", b"caf\xe9.jpg")
    block = bytearray(content)
    total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
    block[148:156] = f"{total:06o}\0 ".encode()
    assert outcomes(tmp_path, bytes(block)) == {"caf\\xe9.jpg": b"x"}


def test_an_iterator_left_early_closes_the_archive(tmp_path: Path) -> None:
    """An open file would be a ResourceWarning, which the settings of pytest make an error."""
    entries = source(tmp_path, PACKINGS["tar.gz"](PICTURES)).entries()
    first = next(entries)
    entries.close()  # type: ignore[attr-defined]
    assert first.read() == b"first"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    packing=st.sampled_from(list(PACKINGS)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_no_damage_to_an_archive_raises_anything_but_a_source_error(
    tmp_path: Path, packing: str, cut: float, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(PACKINGS[packing](PICTURES))
    for place, value in changes:
        content[int(place * len(content))] = value
    try:
        opened = source(tmp_path, bytes(content[: int(cut * len(content)) + 1]))
    except SourceError:
        return
    listed = list(opened.entries())
    assert opened.count() == len(listed)
    for entry in listed:
        assert isinstance(outcome(entry), bytes | str)


@pytest.mark.parametrize("packing", ["zip deflated", "tar pax"])
def test_an_archive_in_an_archive_is_refused_and_says_so(tmp_path: Path, packing: str) -> None:
    content = PACKINGS[packing]({"a.jpg": b"x", "more.zip": zipped(PICTURES), "b/c.tar": b""})
    assert outcomes(tmp_path, content) == {
        "a.jpg": b"x",
        "more.zip": "archive-member-archive",
        "b/c.tar": "archive-member-archive",
    }


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"])
def test_packings_that_are_not_read_are_named(tmp_path: Path, magic: bytes) -> None:
    with pytest.raises(SourceError, match="pack it as zip") as caught:
        source(tmp_path, magic + bytes(1000))
    assert caught.value.code == "archive-unreadable"


def test_a_member_without_a_name_fails_alone(tmp_path: Path) -> None:
    content = zipped({"n": b"x", "a.jpg": b"y"}, zipfile.ZIP_STORED)
    at = content.index(b"PK\x01\x02")
    nameless = content[: at + 28] + b"\0\0" + content[at + 30 : at + 46] + content[at + 47 :]
    end = nameless.index(b"PK\x05\x06")
    size = int.from_bytes(nameless[end + 12 : end + 16], "little") - 1
    nameless = nameless[: end + 12] + size.to_bytes(4, "little") + nameless[end + 16 :]
    assert list(outcomes(tmp_path, nameless).values()) == ["archive-member-name-unsafe", b"y"]


def test_a_zip_member_that_wants_a_gigabyte_of_dictionary_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.jpg": b"x" * 100, "b.jpg": b"y"}, zipfile.ZIP_LZMA))
    at = 30 + len("a.jpg") + 5
    content[at : at + 4] = (1 << 30).to_bytes(4, "little")
    tracemalloc.start()
    read = outcomes(tmp_path, bytes(content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == {"a.jpg": "archive-member-damaged", "b.jpg": b"y"}
    assert peak < 32 * MIB


def test_a_tar_member_of_an_absurd_size_ends_at_once(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 2**60
    header = info.tobuf(tarfile.GNU_FORMAT)
    assert outcomes(tmp_path, tarred({"b.jpg": b"x"})[:1024] + header) == {
        "b.jpg": b"x",
        "a.jpg": "picture-too-many-bytes",
        "(the rest of the archive)": "archive-truncated",
    }
