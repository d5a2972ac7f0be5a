"""Restoring a snapshot into an empty folder, once every byte of it is known to be right.

The copy is put together inside the folder, aside, and its parts are then moved to their places, the
catalog last: a folder has a whole catalog, or none and the trace of a restore that was broken off.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from index import snapshot
from index.database import Database
from index.errors import CollectionError
from index.generation import sync_folder
from index.snapshot import ABOUT, CATALOG, SUMS, Snapshot, damaged

UNFINISHED = "restoring.aside"
CHUNK = 2**20

Told = Callable[[int, int], None]
"""Told how many files of how many are done; each is read twice: checked, then copied."""


@dataclass(frozen=True)
class _File:
    relative: PurePosixPath
    sha256: str


def verify(folder: Path, told: Told = lambda *_: None) -> Snapshot:
    """Check that a snapshot is byte for byte what was taken.

    Raises CollectionError: `snapshot-unknown`, `snapshot-damaged`.
    """
    about = snapshot.about(folder)
    for number, file in enumerate(_listed(folder, about)):
        told(number, 2 * about.files)
        path = folder / file.relative
        if path.is_symlink() or not path.is_file():
            raise damaged(folder, f"{file.relative} is missing")
        if snapshot.sha256_of(path) != file.sha256:
            raise damaged(folder, f"{file.relative} has other bytes")
    return about


def restore(folder: Path, target: Path, told: Told = lambda *_: None) -> Snapshot:
    """Make `target`, which must be missing or empty, a data folder as it was when `folder` was
    taken.

    Nothing is written before every checksum has been verified. A restore that was broken off is
    begun anew by the next one. Raises CollectionError: `snapshot-unknown`, `snapshot-damaged`,
    `restore-not-empty`, `restore-failed`, `catalog-newer`.
    """
    _check_empty(target)
    about = verify(folder, told)
    _clear(target)
    aside = target / UNFINISHED
    try:
        aside.mkdir(parents=True)
        sync_folder(target)
        for number, file in enumerate(_listed(folder, about)):
            told(about.files + number, 2 * about.files)
            if _copied(folder / file.relative, aside / file.relative) != file.sha256:
                raise damaged(folder, f"{file.relative} changed while it was read")
        Database(aside / CATALOG).close()
        for inside, _, _ in os.walk(aside):
            sync_folder(Path(inside))
        for part in sorted(aside.iterdir(), key=lambda part: part.name == CATALOG):
            part.rename(target / part.name)
            sync_folder(target)
        aside.rmdir()
    except OSError as error:
        raise CollectionError(
            "restore-failed",
            f"{folder} was not restored ({error}): see to the disk of {target} and restore again",
        ) from error
    told(2 * about.files, 2 * about.files)
    return about


def check(target: Path) -> None:
    """Refuse a data folder in which a restore was broken off.

    Raises CollectionError: `restore-unfinished`.
    """
    if _is_unfinished(target):
        raise CollectionError(
            "restore-unfinished",
            f"a restore into {target} was broken off: `pool5 restore` begins it anew",
        )


def _is_unfinished(target: Path) -> bool:
    return (target / UNFINISHED).exists() and not (target / CATALOG).exists()


def _check_empty(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()) and not _is_unfinished(target):
        raise CollectionError(
            "restore-not-empty",
            f"{target} is not empty: restore into an empty folder, and move this one away before "
            "if the restored one is to take its place",
        )


def _clear(target: Path) -> None:
    """Remove what a restore left that was broken off; it had begun with an empty folder."""
    if _is_unfinished(target):
        for part in target.iterdir():
            if part.name != UNFINISHED:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        shutil.rmtree(target / UNFINISHED)


def _listed(folder: Path, about: Snapshot) -> Iterator[_File]:
    """The files of a snapshot, by a list that is the one that was written."""
    sums = folder / SUMS
    if not sums.is_file() or snapshot.sha256_of(sums) != about.sums:
        raise damaged(folder, f"{SUMS} is not the list that {ABOUT} names")
    with sums.open() as lines:
        for line in lines:
            sha256, _, name = line.rstrip("\n").partition("  ")
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts or not name:
                raise damaged(folder, f"{name!r} leads out of it")
            yield _File(relative, sha256)


def _copied(source: Path, target: Path) -> str:
    """Copy a file durably; the SHA-256 of what was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("xb") as write:
        while chunk := read.read(CHUNK):
            digest.update(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    return digest.hexdigest()
