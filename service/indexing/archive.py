"""An uploaded archive, read member by member; nothing of it is ever written to a disk."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from service.indexing import tarred, zipped
from service.indexing.member import BROKEN, ArchiveLimits, Members
from service.indexing.source import Entry, SourceError, given, never, printable

_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_NOT_READ = {
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}


class ArchiveSource:
    """The members of a zip or a (gzip, bzip2, xz) tar, in their order; the content tells which.

    Members are unpacked as the iterator advances and entries carry their bytes, so that as many
    are in memory as the reader keeps entries. Hidden members and those whose suffix is never a
    picture's are passed over; links, devices, unsafe names and encrypted members fail alone; an
    archive that is cut off or goes beyond a limit ends with one failing entry.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        limits: ArchiveLimits | None = None,
        check: Callable[[], None] = never,
    ) -> None:
        """`max_bytes` is for one member; `check` is called often, and may raise to end it.

        Raises SourceError `archive-unreadable` or `archive-too-many-entries`.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._limits = limits or ArchiveLimits()
        self._check = check
        try:
            with path.open("rb") as file:
                start = file.read(8)
            for magic, kind in _NOT_READ.items():
                if start.startswith(magic):
                    detail = f"{path.name} is packed by {kind}: pack it as zip, tar.gz or tar.xz"
                    raise SourceError("archive-unreadable", detail)
            self._packing = next((k for magic, k in _MAGIC.items() if start.startswith(magic)), "")
            if self._packing == "zip":
                zipped.check(path, self._limits)
            else:
                tarred.check(path, self._packing, self._limits)
        except BROKEN as error:
            detail = f"{path.name} is no whole zip or tar archive: {error}"
            raise SourceError("archive-unreadable", detail) from error

    def count(self) -> int:
        """How many entries there will be; only a zip can tell without being unpacked for it."""
        with closing(self._members(read=False)) as members:
            return sum(1 for _ in members)

    def entries(self) -> Iterator[Entry]:
        """Every member that may be a picture; the item's id is left to its content."""
        taken: Counter[str] = Counter()
        with closing(self._members(read=True)) as members:
            for name, content in members:
                reference = printable(name)
                while reference in taken:
                    taken[printable(name)] += 1
                    reference = f"{printable(name)}#{taken[printable(name)]}"
                taken[reference] = 1
                yield self._entry(PurePosixPath(printable(name)), reference, content)

    def _members(self, read: bool) -> Members:
        if self._packing == "zip":
            return zipped.members(self._path, self._max_bytes, self._limits, self._check, read)
        return tarred.members(self._path, self._packing, self._max_bytes, self._limits, self._check)

    def _entry(self, path: PurePosixPath, reference: str, content: bytes | SourceError) -> Entry:
        return Entry(
            reference=reference,
            name=path.name,
            item_id=None,
            metadata=None,
            stamp=None,
            source=f"archive:{printable(self._path.name)}/{reference}",
            read=given(content),
            place={"path": str(path), "folder": str(path.parent).removeprefix(".")},
            held=0 if isinstance(content, SourceError) else len(content),
        )
