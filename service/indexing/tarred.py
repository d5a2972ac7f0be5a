"""Tar archives, plain or packed, as a stream (POSIX pax and ustar, GNU)."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from service.indexing.member import (
    BROKEN,
    LZMA_MEMORY,
    REST,
    ArchiveLimits,
    Members,
    is_passed_over,
    not_a_file,
    refused,
    truncated,
)
from service.indexing.roots import too_many_bytes
from service.indexing.source import SourceError, never, printable

_CHUNK = 64 * 1024
# Names and attributes of one member; what is longer is an attack, not a name.
_HEADER_BYTES = 1024**2
# How often tarfile may ask beyond the end: a size of 2⁶² it would skip for days.
_READS_BEYOND = 8


def _from_xz(file: IO[bytes]) -> Iterator[bytes]:
    """Unpack xz within LZMA_MEMORY, which `lzma.LZMAFile` has no setting for."""
    packed = file.read(_CHUNK)
    while packed:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)
        while not stream.eof:
            yield stream.decompress(packed, _CHUNK)
            packed = file.read(_CHUNK) if stream.needs_input else b""
            if stream.needs_input and not packed:
                raise EOFError("the packed data end early")
        packed = (stream.unused_data or file.read(_CHUNK)).lstrip(b"\0") or file.read(_CHUNK)


class _Unpacked:
    """The unpacked bytes as tarfile reads them, with a ceiling for all and for one header."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        limits: ArchiveLimits,
        ceiling: int,
        check: Callable[[], None],
    ) -> None:
        self._check = check
        self._chunks = chunks
        self._limits = limits
        self._ceiling = ceiling
        self._position = 0
        self._recent = b""
        self._beyond = 0
        self.header_from = 0

    def read(self, _size: int) -> bytes:
        """The next chunk, whatever its size; tarfile's stream takes what it gets."""
        self._check()
        chunk = next((chunk for chunk in self._chunks if chunk), b"")
        self._beyond += not chunk
        if self._beyond > _READS_BEYOND:
            raise EOFError("a member is longer than what is left")
        self._position += len(chunk)
        if self._position > self._ceiling:
            raise self._limits.too_many_bytes(self._ceiling)
        if self._position > self.header_from + _HEADER_BYTES + 2 * _CHUNK:
            raise truncated("a member's name and attributes take more than a megabyte")
        self._recent = self._recent[-2 * _CHUNK :] + chunk
        return chunk

    def block_at(self, position: int) -> bytes:
        """The block of 512 bytes that was read last from here, where it still is in memory."""
        start = position - (self._position - len(self._recent))
        return self._recent[max(start, 0) : start + tarfile.BLOCKSIZE]


@contextmanager
def _opened(
    path: Path, packing: str, limits: ArchiveLimits, check: Callable[[], None] = never
) -> Generator[tuple[tarfile.TarFile, _Unpacked], None, None]:
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if packing == "gzip":
            file = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
        elif packing == "bzip2":
            file = stack.enter_context(bz2.BZ2File(file))
        chunks = _from_xz(file) if packing == "xz" else iter(lambda: file.read(_CHUNK), b"")
        unpacked = _Unpacked(chunks, limits, limits.ceiling(path.stat().st_size), check)
        stream = cast("IO[bytes]", unpacked)
        yield stack.enter_context(tarfile.open(fileobj=stream, mode="r|")), unpacked


def check(path: Path, packing: str, limits: ArchiveLimits) -> None:
    """Read the first header; raises what `tarfile` and the unpackers raise for what is no tar."""
    with _opened(path, packing, limits):
        pass


def members(
    path: Path,
    packing: str,
    max_bytes: int,
    limits: ArchiveLimits,
    check: Callable[[], None] = never,
) -> Members:
    """Every member in the archive's order; what breaks the stream is the last one."""
    name = REST
    try:
        with _opened(path, packing, limits, check) as (archive, unpacked):
            for count, info in enumerate(_headers(archive, unpacked)):
                name = info.name
                if count >= limits.entries:
                    yield REST, limits.too_many_entries()
                    return
                if not info.isdir() and not is_passed_over(info.name):
                    yield name, _content(archive, info, max_bytes)
                name = REST
    except SourceError as error:
        yield name, error
    except BROKEN as error:
        yield name, truncated(error)


def _headers(archive: tarfile.TarFile, unpacked: _Unpacked) -> Iterator[tarfile.TarInfo]:
    """Headers one by one; tarfile would keep them all, and end in silence at a damaged one."""
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # typeshed has getmembers only
        unpacked.header_from = archive.offset
        yield info
    if unpacked.block_at(archive.offset).strip(b"\0"):
        raise truncated("a header is damaged")


def _content(
    archive: tarfile.TarFile, info: tarfile.TarInfo, max_bytes: int
) -> bytes | SourceError:
    if not info.isreg() or info.issparse():
        return not_a_file(info.name)
    if info.size > max_bytes:
        return too_many_bytes(printable(info.name), info.size, max_bytes)
    wrong = refused(info.name)
    file = archive.extractfile(info)
    return wrong or (file.read() if file is not None else not_a_file(info.name))
