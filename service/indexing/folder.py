"""A folder on the server, walked without holding more than one folder's names at a time."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from service.indexing.roots import read_under, resolve_under, stamp_of
from service.indexing.source import (
    Entry,
    SourceError,
    given,
    is_hidden,
    is_never_picture,
    printable,
    stable_id,
)

# A file and the path that its links lead to, or what is wrong with it.
_Found = tuple[PurePosixPath, Path | SourceError]


class FolderSource:
    """Every file below a folder: a folder's own files by name, then its folders by name.

    Links are followed where they stay under the roots; a folder is entered once, so that links
    in a circle end. Hidden files and files whose suffix is never a picture's are passed over.
    """

    def __init__(self, folder: Path, roots: Sequence[Path], max_bytes: int) -> None:
        """Raises SourceError `folder-not-allowed` or `folder-missing`."""
        self._roots = tuple(roots)
        self._max_bytes = max_bytes
        try:
            self._folder = resolve_under(folder, roots)
        except SourceError as error:
            raise SourceError("folder-not-allowed", error.detail) from error
        if not _is_folder(self._folder):
            detail = f"{printable(str(folder))} is not a folder on the machine of the service"
            raise SourceError("folder-missing", detail)

    def count(self) -> int:
        """How many files there are now; pictures are not read."""
        return sum(1 for _ in self._walk())

    def entries(self) -> Iterator[Entry]:
        """Every file, known by where it lies: the same path is the same item."""
        return (self._entry(relative, found) for relative, found in self._walk())

    def _entry(self, relative: PurePosixPath, found: Path | SourceError) -> Entry:
        reference, parent = printable(str(relative)), printable(str(relative.parent))
        if isinstance(found, SourceError):
            source, stamp, read = f"file:{self._folder / relative}", None, given(found)
        else:
            source, stamp = f"file:{found}", stamp_of(found)
            read = partial(read_under, found, self._roots, self._max_bytes)
        return Entry(
            reference=reference,
            name=printable(relative.name),
            item_id=stable_id(source),
            metadata=None,
            stamp=stamp,
            source=printable(source),
            read=read,
            place={"path": reference, "folder": "" if parent == "." else parent},
        )

    def _walk(self) -> Iterator[_Found]:
        waiting = [(self._folder, PurePosixPath())]
        entered: set[tuple[int, int]] = set()
        while waiting:
            folder, relative = waiting.pop()
            try:
                status = folder.stat()
                with os.scandir(folder) as found:
                    members = sorted(found, key=lambda member: member.name)
            except OSError as error:
                detail = f"{printable(str(relative))} cannot be listed: {error.strerror}"
                yield relative, SourceError("source-folder-unreadable", detail)
                continue
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            below = []
            for member in members:
                place = relative / member.name
                if is_hidden(PurePosixPath(member.name)):
                    continue
                try:
                    real = folder / member.name
                    if member.is_symlink():
                        real = resolve_under(real, self._roots)
                    if member.is_dir():
                        below.append((real, place))
                    elif not is_never_picture(place):
                        yield place, real
                except SourceError as error:
                    yield place, error
                except OSError as error:
                    detail = f"{printable(str(place))} cannot be read: {error.strerror}"
                    yield place, SourceError("source-file-unreadable", detail)
            waiting.extend(reversed(below))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # A name longer than any file system takes.
        return False
