"""What every kind of archive has in common: limits, refusals, and how it breaks."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import PurePosixPath

from service.indexing.source import (
    PACKED_SUFFIXES,
    SourceError,
    is_hidden,
    is_never_picture,
    printable,
)

# A member's name with its bytes, or with what is wrong with it.
Members = Generator[tuple[str, bytes | SourceError], None, None]

# What the standard library raises for archives that are cut off, damaged or none.
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
)
LZMA_MEMORY = 96 * 1024**2
"""What unpacking LZMA may take, whose files say themselves how much: `xz -9` takes 65 MiB."""

# The name under which what follows the last readable member is reported.
REST = "(the rest of the archive)"

# Small archives may shrink as much as they like: a blank drawing does.
_RATIO_MATTERS_FROM = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may hold: members, bytes of all of them unpacked, unpacked : packed."""

    entries: int = 200_000
    total_bytes: int = 64 * 1024**3
    ratio: int = 250

    def ceiling(self, packed: int) -> int:
        """How many bytes may come out of an archive of `packed` bytes.

        >>> ArchiveLimits(ratio=100).ceiling(2_000_000)
        200000000
        """
        return min(self.total_bytes, max(_RATIO_MATTERS_FROM, self.ratio * packed))

    def too_many_bytes(self, ceiling: int) -> SourceError:
        """The end of an archive that unpacks to more than its ceiling."""
        detail = (
            f"the archive unpacks to more than {ceiling:,} bytes, or to more than "
            f"{self.ratio} times its size; split it"
        )
        return SourceError("archive-too-many-bytes", detail)

    def too_many_entries(self) -> SourceError:
        """The refusal of an archive by the number of its members."""
        detail = f"the archive has more than {self.entries:,} members; split it"
        return SourceError("archive-too-many-entries", detail)


def truncated(error: BaseException | str) -> SourceError:
    """The end of an archive that cannot be read further."""
    detail = f"the archive is cut off or damaged here: {error}; upload it again"
    return SourceError("archive-truncated", detail)


def is_passed_over(name: str) -> bool:
    """Whether a member is hidden or never a picture; an archive may hold some, and is refused."""
    path = PurePosixPath(name.replace("\\", "/"))
    return is_hidden(path) or (is_never_picture(path) and not _is_archive(path))


def _is_archive(path: PurePosixPath) -> bool:
    return path.suffix.lower() in PACKED_SUFFIXES


def refused(name: str) -> SourceError | None:
    r"""What is wrong with a member's name; names are only labels here, but honest ones stay inside.

    An archive in an archive is refused: what it unpacks to could only be known by unpacking it.

    >>> [refused(name) is None for name in ("a/b.jpg", "/a.jpg", "a/../../b.jpg", "..\\b", "C:\\b")]
    [True, False, False, False, False]
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or path.as_posix()[1:2] == ":"
        or "\0" in name
        or not name
    ):
        detail = f"{printable(name)!r} leads out of the archive"
        return SourceError("archive-member-name-unsafe", detail)
    if _is_archive(path):
        detail = f"{printable(name)} is an archive in an archive: unpack it, or send it by itself"
        return SourceError("archive-member-archive", detail)
    return None


def not_a_file(name: str) -> SourceError:
    """The refusal of a link, device or pipe."""
    detail = f"{printable(name)} is a link or a device, not a file"
    return SourceError("archive-member-not-a-file", detail)
