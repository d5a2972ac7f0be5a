"""The folders that a job may read: nothing outside them is opened, whatever links say."""

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from service.indexing.source import SourceError, SourceVanishedError, printable


def resolve_under(path: Path, roots: Sequence[Path]) -> Path:
    """The path with every link followed; it need not exist.

    Raises SourceError `path-outside-roots` where it leads out of every root, and
    `source-file-unreadable` where links lead round in a circle or the name is none.
    """
    try:
        real = path.resolve()
        allowed = any(real.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError) as error:
        detail = f"{printable(str(path))} leads nowhere: {error}"
        raise SourceError("source-file-unreadable", detail) from error
    if not allowed:
        raise SourceError(
            "path-outside-roots",
            f"{printable(str(path))} is outside the folders that jobs may read; "
            "add its folder to POOL5_IMAGE_ROOTS",
        )
    return real


def identity_of(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another in its place; None where there is none.

    A volume that is unmounted leaves an empty folder behind: that is another one.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # A name longer than any file system takes, or none.
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


class Presence:
    """Folders that were there when reading began, and must be for a file to be called missing."""

    def __init__(self, folders: Iterable[Path]) -> None:
        seen = {folder: identity_of(folder) for folder in folders}
        self._identities = {folder: it for folder, it in seen.items() if it is not None}

    def check(self) -> None:
        """Raise SourceVanishedError where one is gone, or another lies in its place."""
        for folder, identity in self._identities.items():
            if identity_of(folder) != identity:
                detail = f"{printable(str(folder))} is not there any more: bring it back"
                raise SourceVanishedError("source-vanished", detail)


def read_under(path: Path, roots: Sequence[Path], max_bytes: int) -> bytes:
    """The bytes of a regular file under the roots, its size checked before anything is read.

    Raises SourceError: `path-outside-roots`, `source-file-missing`, `source-file-unreadable`,
    `source-file-not-regular` (a folder, pipe or device) or `picture-too-many-bytes`.
    """
    with open_under(path, roots) as file:
        shown, size = printable(str(path)), os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise too_many_bytes(shown, size, max_bytes)
        try:
            read = file.read(size + 1)
        except OSError as error:
            detail = f"{shown} cannot be read: {error.strerror}"
            raise SourceError("source-file-unreadable", detail) from error
    if len(read) > max_bytes:
        raise too_many_bytes(shown, len(read), max_bytes)
    return read


def open_under(path: Path, roots: Sequence[Path]) -> BinaryIO:
    """A regular file under the roots, opened for reading.

    Raises SourceError: `path-outside-roots`, `source-file-missing`, `source-file-unreadable` or
    `source-file-not-regular` (a folder, pipe or device).
    """
    real, shown = resolve_under(path, roots), printable(str(path))
    try:
        root = next(root for root in map(Path.resolve, roots) if real.is_relative_to(root))
        descriptor = _opened(real, root)
    except FileNotFoundError as error:
        raise SourceError("source-file-missing", f"{shown} is not there any more") from error
    except OSError as error:
        detail = f"{shown} cannot be read: {error.strerror}"
        raise SourceError("source-file-unreadable", detail) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError("source-file-not-regular", f"{shown} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _opened(real: Path, root: Path) -> int:
    """A descriptor of a file, reached from its root folder by folder without following any link.

    What was resolved may have become a link since, at any of its folders; then this is an OSError.
    """
    base = root if real != root else root.parent
    *folders, name = real.relative_to(base).parts
    passing = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    at = os.open(base, passing)
    try:
        for folder in folders:
            inner = os.open(folder, passing | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        # Without O_NONBLOCK a pipe that nobody writes to would hold the worker for ever.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=at)
    finally:
        os.close(at)


def stamp_of(path: Path) -> str | None:
    """What changes when a file does, "mtime_ns:size"; None where it cannot be told."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_mtime_ns}:{status.st_size}"


def too_many_bytes(name: str, size: int, max_bytes: int) -> SourceError:
    """The refusal of one picture by its size."""
    detail = f"{name} has {size:,} bytes; at most {max_bytes:,} are allowed"
    return SourceError("picture-too-many-bytes", detail)
