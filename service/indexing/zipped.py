"""Zip archives (PKWARE's APPNOTE.TXT 6.3.10)."""

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from service.indexing.member import (
    BROKEN,
    LZMA_MEMORY,
    ArchiveLimits,
    Members,
    is_passed_over,
    not_a_file,
    refused,
)
from service.indexing.roots import too_many_bytes
from service.indexing.source import SourceError, never, printable

_END = struct.Struct("<4s4H2LH")  # 4.3.16 end of central directory record
_END_64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14 zip64 end of central directory record
_LOCATOR_64 = struct.Struct("<4sLQL")  # 4.3.15 zip64 end of central directory locator
_LOCAL = struct.Struct(
    "<4s5H3L2H"
)  # 4.3.7 local file header; the lengths of name and extra field last
_LZMA_VERSION_AND_SIZES = 5
_LONGEST_COMMENT = 65_535
# A directory record has 46 bytes and a name; what is far longer hides more records than it admits.
_RECORD_BYTES = 256
_ENCRYPTED = 0x1
_CHUNK = 1024 * 1024


def check(path: Path, limits: ArchiveLimits) -> None:
    """Refuse an archive by its directory, before the standard library reads that into memory.

    Raises SourceError `archive-too-many-entries`, and what `zipfile` raises for what is no zip.
    """
    entries, directory_bytes = _directory(path)
    if entries > limits.entries or directory_bytes > limits.entries * _RECORD_BYTES:
        raise limits.too_many_entries()
    with zipfile.ZipFile(path):
        pass


def _directory(path: Path) -> tuple[int, int]:
    """Members and bytes of the central directory, as the end of the file states them."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
        tail = file.read()
        start = tail.rfind(b"PK\x05\x06")
        if start < 0 or len(tail) - start < _END.size:
            raise zipfile.BadZipFile("its directory is missing: the file is cut off")
        _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(tail, start)
        before = start - _LOCATOR_64.size
        if before >= 0 and tail[before : before + 4] == b"PK\x06\x07":
            file.seek(_LOCATOR_64.unpack_from(tail, before)[2])
            end = file.read(_END_64.size)
            if len(end) == _END_64.size:
                entries, directory_bytes = _END_64.unpack(end)[7:9]
    return entries, directory_bytes


def members(
    path: Path,
    max_bytes: int,
    limits: ArchiveLimits,
    check: Callable[[], None] = never,
    read: bool = True,
) -> Members:
    """Every member by the directory's order; without `read` the bytes are empty."""
    ceiling, unpacked = limits.ceiling(path.stat().st_size), 0
    with zipfile.ZipFile(path) as archive:
        for position, info in enumerate(archive.infolist()):
            check()
            if position >= limits.entries:
                yield info.filename, limits.too_many_entries()
                return
            if info.filename.endswith("/") or is_passed_over(info.filename):
                continue
            wrong = _wrong(info, max_bytes)
            if wrong is not None:
                yield info.filename, wrong
                continue
            unpacked += info.file_size
            if unpacked > ceiling:
                yield info.filename, limits.too_many_bytes(ceiling)
                return
            yield info.filename, _read(archive, info, check) if read else b""


def _wrong(info: zipfile.ZipInfo, max_bytes: int) -> SourceError | None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return not_a_file(info.filename)
    if info.flag_bits & _ENCRYPTED:
        detail = f"{printable(info.filename)} is encrypted; pack it without a password"
        return SourceError("archive-member-encrypted", detail)
    if info.file_size > max_bytes:
        return too_many_bytes(printable(info.filename), info.file_size, max_bytes)
    return refused(info.orig_filename)


def _read(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, check: Callable[[], None]
) -> bytes | SourceError:
    """A member's bytes; `zipfile` stops at the size that its directory states."""
    try:
        if info.compress_type == zipfile.ZIP_LZMA and _dictionary(archive, info) > LZMA_MEMORY:
            detail = f"{printable(info.filename)} wants more than {LZMA_MEMORY:,} bytes of memory"
            return SourceError("archive-member-damaged", detail)
        content = bytearray()
        with archive.open(info) as member:
            while chunk := member.read(_CHUNK):
                content += chunk
                check()
    except (*BROKEN, RuntimeError) as error:
        detail = f"{printable(info.filename)} cannot be unpacked: {error}"
        return SourceError("archive-member-damaged", detail)
    return bytes(content)


def _dictionary(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The bytes of an LZMA member's dictionary (5.8.8), which `lzma` allocates unasked."""
    with Path(archive.filename or "").open("rb") as file:
        file.seek(info.header_offset)
        header = _LOCAL.unpack(file.read(_LOCAL.size))
        file.seek(header[-2] + header[-1] + _LZMA_VERSION_AND_SIZES, 1)
        return int.from_bytes(file.read(4), "little")
