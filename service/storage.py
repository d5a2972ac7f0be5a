"""Trouble with our own disk, which is nobody's picture's fault."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_FAILING = frozenset((errno.EIO, errno.EROFS))


class StorageError(Exception):
    """The data folder takes nothing more for now: `storage-full` or `storage-failing`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn errors of the disk and of the catalog's file into StorageError; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full() from error
        if error.errno in _FAILING:
            raise _failing(error.strerror or str(error)) from error
        raise
    except OperationalError as error:
        said = str(error.orig)
        raise _full() if "full" in said else _failing(said) from error


def _full() -> StorageError:
    return StorageError("storage-full", "the disk of the data folder is full: make room on it")


def _failing(why: str) -> StorageError:
    return StorageError("storage-failing", f"the data folder cannot be written ({why}): see to it")
