"""A folder on the server, walked without holding more than the names of one folder at a time."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from service.indexing.roots import Presence, identity_of, read_under, resolve_under, stamp_of
from service.indexing.source import (
    Entry,
    SourceError,
    given,
    is_hidden,
    is_never_picture,
    never,
    printable,
    stable_id,
)

# The folder that a file lies in, its name, and the path that links lead to, or what is wrong.
_Found = tuple[PurePosixPath, str, Path | SourceError]


class FolderSource:
    """Every file below a folder: a folder's own files by name, then its folders by name.

    Links are followed where they stay under the roots; a folder is entered once, so that links
    in a circle end. Hidden files and files whose suffix is never a picture's are passed over.
    A folder that is gone while it is read raises SourceVanishedError: its files have not failed.
    """

    def __init__(
        self,
        folder: Path,
        roots: Sequence[Path],
        max_bytes: int,
        check: Callable[[], None] = never,
    ) -> None:
        """`check` is called for every file that is listed, and may raise to end it.

        Raises SourceError `folder-not-allowed` or `folder-missing`.
        """
        self._roots = tuple(roots)
        self._max_bytes = max_bytes
        self._check = check
        try:
            self._folder = resolve_under(folder, roots)
        except SourceError as error:
            raise SourceError("folder-not-allowed", error.detail) from error
        self._presence = Presence([self._folder])
        if identity_of(self._folder) is None:
            detail = f"{printable(str(folder))} is not a folder on the machine of the service"
            raise SourceError("folder-missing", detail)

    def count(self) -> int:
        """How many files there are now; pictures are not read."""
        return sum(1 for _ in self._walk())

    def entries(self, below: Path | None = None) -> Iterator[Entry]:
        """Every file, known by where it lies: the same path is the same item.

        `below` is a folder in this one, to read only what is in there.
        """
        walked = self._walk(below)
        return (self._entry(relative / name, found) for relative, name, found in walked)

    def entry(self, path: Path) -> Entry | None:
        """One file, `path` below the folder, as `entries` has it; None where that has none."""
        relative = PurePosixPath(path.relative_to(self._folder))
        if is_hidden(relative) or is_never_picture(relative):
            return None
        try:
            found: Path | SourceError = resolve_under(path, self._roots)
        except SourceError as error:
            found = error
        return self._entry(relative, found)

    def check_present(self) -> None:
        """Raise SourceVanishedError where the folder is gone, or another lies in its place."""
        self._presence.check()

    def _entry(self, relative: PurePosixPath, found: Path | SourceError) -> Entry:
        reference, parent = printable(str(relative)), printable(str(relative.parent))
        if isinstance(found, SourceError):
            source, stamp, read = f"file:{self._folder / relative}", None, given(found)
        else:
            source, stamp = f"file:{found}", stamp_of(found)
            read = partial(self._read, found)
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

    def _read(self, path: Path) -> bytes:
        try:
            return read_under(path, self._roots, self._max_bytes)
        except SourceError:
            self.check_present()
            raise

    def _walk(self, below: Path | None = None) -> Iterator[_Found]:
        start = below or self._folder
        waiting = [(start, PurePosixPath(start.relative_to(self._folder)))]
        entered: set[tuple[int, int] | None] = set()
        while waiting:
            folder, relative = waiting.pop()
            try:
                if (identity := identity_of(folder)) in entered:
                    continue
                listing = _Listing(folder, self._check)
            except OSError as error:
                self.check_present()
                detail = f"{printable(str(relative))} cannot be listed: {error.strerror}"
                yield (
                    relative.parent,
                    relative.name,
                    SourceError("source-folder-unreadable", detail),
                )
                continue
            entered.add(identity)
            inside = []
            for name in listing.names:
                self._check()
                try:
                    real, is_folder = self._followed(folder / name, name, listing)
                    if is_folder:
                        inside.append((real, relative / name))
                    elif not is_never_picture(PurePosixPath(name)):
                        yield relative, name, real
                except SourceError as error:
                    yield relative, name, error
                except OSError as error:
                    detail = f"{printable(str(relative / name))} cannot be read: {error.strerror}"
                    yield relative, name, SourceError("source-file-unreadable", detail)
            waiting.extend(reversed(inside))
        self.check_present()

    def _followed(self, path: Path, name: str, listing: "_Listing") -> tuple[Path, bool]:
        """Where a name leads, and whether that is a folder."""
        if name in listing.links:
            real = resolve_under(path, self._roots)
            return real, path.is_dir()
        return path, name in listing.folders


class _Listing:
    """The names in a folder in their order: a third of what `os.DirEntry` objects take."""

    def __init__(self, folder: Path, check: Callable[[], None]) -> None:
        self.names: list[str] = []
        self.folders: set[str] = set()
        self.links: set[str] = set()
        with os.scandir(folder) as found:
            for member in found:
                check()
                if is_hidden(PurePosixPath(member.name)):
                    continue
                self.names.append(member.name)
                if member.is_symlink():
                    self.links.add(member.name)
                elif member.is_dir(follow_symlinks=False):
                    self.folders.add(member.name)
        self.names.sort()
