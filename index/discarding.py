"""Removing files of the data folder that a snapshot under way may still want.

A snapshot copies the catalog at one instant and then takes in the files that this copy refers to.
Whoever removes such a file meanwhile hands it over instead. Items are removed from the catalog
first, and their files then: who finds no snapshot under way has removed them before the copy.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

SNAPSHOTS = "snapshots"
ASIDE = ".aside"
"""Ends the name of a snapshot that is not finished."""
GIVEN = "given"
"""The folder of an unfinished snapshot for files that are handed to it."""


def discard(root: Path, path: Path) -> None:
    """Remove a file under the data folder `root`, or hand it to the snapshot under way."""
    for given in under_way(root):
        try:
            shutil.move(path, given / flat(path.relative_to(root).as_posix()))
        except FileNotFoundError:  # The snapshot has just been finished, or the file removed.
            continue
        return
    path.unlink(missing_ok=True)


def under_way(root: Path) -> Iterator[Path]:
    """Where files go that a snapshot under way may want; there is one snapshot at a time."""
    yield from root.glob(f"{SNAPSHOTS}/*{ASIDE}/{GIVEN}")


def flat(path: str) -> str:
    """The name of a file among those handed over, which lie in one folder.

    >>> flat("generations/1/high-3.faiss")
    'generations~1~high-3.faiss'
    """
    return path.replace("/", "~")
