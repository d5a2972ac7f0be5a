"""What a disk does to the catalog, as errors with a code and a remedy."""

import errno
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import exc

from index.errors import CollectionError, DiskError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_FAILING = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
)
_UNREADABLE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Raise what the system says while it writes below `path` as DiskError."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise of_system(Path(error.filename or path), error) from error


class ReportedBySqlite:
    """Raise what SQLite says of the disk and of its file `path` as an error with a code.

    Any number of threads may use one at once. Raises DiskError, CollectionError:
    `catalog-unreadable`, `catalog-busy`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, sqlite3.Error | exc.DBAPIError):
            known = of_sqlite(self._path, error)
            if known is not None:
                raise known from error
        if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):
            raise _damaged(self._path, str(error)) from error


def of_system(path: Path, error: OSError) -> DiskError:
    """An OSError as a DiskError that names the file and the remedy.

    >>> print(of_system(Path("pictures/1"), OSError(errno.ENOSPC, "No space left on device")))
    no room on the disk of pictures/1 (No space left on device): free some, then ask again
    """
    said = error.strerror or str(error)
    return _full(path, said) if error.errno in FULL else _failed(path, said)


def of_sqlite(path: Path, error: Exception) -> CollectionError | None:
    """What SQLite says of the disk or of its file; None: it is about something else."""
    cause: Any = getattr(error, "orig", error)
    extended = getattr(cause, "sqlite_errorcode", None)
    if extended is None:  # Python's own complaint, not SQLite's
        return _damaged(path, str(cause)) if "decode" in str(cause) else None
    code, said = extended & 0xFF, f"{cause}, {cause.sqlite_errorname}"
    if code == sqlite3.SQLITE_FULL:
        return _full(path, said)
    if code in _FAILING:
        return _failed(path, said)
    if code in _UNREADABLE:
        return _damaged(path, said)
    if code == sqlite3.SQLITE_BUSY:
        return CollectionError(
            "catalog-busy", f"another process has been writing {path} for too long: ask again"
        )
    return None


def _full(path: Path, said: str) -> DiskError:
    return DiskError(
        "disk-full", f"no room on the disk of {path} ({said}): free some, then ask again"
    )


def _failed(path: Path, said: str) -> DiskError:
    return DiskError(
        "disk-failed",
        f"the disk of {path} cannot be read or written ({said}): check it, its mount and its "
        "permissions, then ask again",
    )


def _damaged(path: Path, said: str) -> CollectionError:
    return CollectionError(
        "catalog-unreadable",
        f"{path} is not a catalog that can be read ({said}): restore it from a backup",
    )
