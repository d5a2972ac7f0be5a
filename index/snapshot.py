"""Snapshots: a whole and consistent copy of the catalog and its files, taken while it is in use.

The catalog is copied at one instant (SQLite's online backup, which holds up neither readers nor
writers); the generations and pictures that this copy refers to never change, so they are taken in
as hard links, or as copies where there can be none. All is put together aside and gets its name at
the end: there is a whole snapshot or none.

`SHA256SUMS` lists every file, as `sha256sum --check` reads it; `snapshot.json` pins that list.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from index.discarding import ASIDE, GIVEN, SNAPSHOTS, flat
from index.errors import CollectionError
from index.generation import sync_folder
from index.pictures import KINDS, path_of

logger = logging.getLogger(__name__)

CATALOG = "catalog.db"
ABOUT = "snapshot.json"
SUMS = "SHA256SUMS"
FORMAT = 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")

Told = Callable[[int], None]
"""Told how many files have been taken in."""


@dataclass(frozen=True)
class Snapshot:
    """What is known of a snapshot; `collection` is None where all were taken.

    `collections` says how many items each has, `sums` is the SHA-256 of the list of checksums.
    `bytes` counts hard links in full, as a copy of the snapshot to elsewhere would.
    """

    name: str
    collection: str | None
    created_at: datetime
    collections: Mapping[str, int]
    files: int
    bytes: int
    sums: str


def take(
    root: Path,
    collection: str | None = None,
    beside: Sequence[str] = (),
    told: Told = lambda _: None,
) -> Snapshot:
    """Take a snapshot of the data folder `root`, of one collection or of all, into `snapshots/`.

    `beside` are further folders of the data folder whose files are written once and never changed.
    Raises CollectionError: `collection-unknown`, `snapshot-under-way`, `snapshot-failed`.
    """
    with _alone(root):
        _sweep(root)
        name = f"{collection or 'all'}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        aside = root / SNAPSHOTS / f"{name}{ASIDE}"
        try:
            (aside / GIVEN).mkdir(parents=True)
            taken = _Taking(root, aside, told).take(name, collection, beside)
            aside.rename(root / SNAPSHOTS / name)
            sync_folder(root / SNAPSHOTS)
        except (OSError, sqlite3.Error) as error:
            raise CollectionError(
                "snapshot-failed",
                f"no snapshot was taken ({error}): see to the disk of {root} and take it again",
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return taken


def listed(root: Path) -> list[Snapshot]:
    """All snapshots, the latest first."""
    found = []
    for folder in (root / SNAPSHOTS).glob("*"):
        if NAME.fullmatch(folder.name) and folder.is_dir():
            try:
                found.append(about(folder))
            except CollectionError as error:
                logger.warning("%s", error)
    return sorted(found, key=lambda each: each.created_at, reverse=True)


def about(folder: Path) -> Snapshot:
    """What a snapshot says of itself.

    Raises CollectionError: `snapshot-unknown` where the folder is none, `snapshot-damaged`.
    """
    try:
        said = json.loads((folder / ABOUT).read_text())
        if said.pop("format") != FORMAT:
            raise CollectionError(
                "snapshot-damaged", f"{folder} was taken by another version of pool5: use that one"
            )
        return Snapshot(**said | {"created_at": datetime.fromisoformat(said["created_at"])})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CollectionError(
            "snapshot-unknown", f"{folder} is no snapshot: it has no {ABOUT}; list the snapshots"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, f"its {ABOUT} cannot be read ({error})") from error


def drop(root: Path, name: str) -> None:
    """Remove a snapshot.

    Raises CollectionError: `snapshot-unknown`, `snapshot-under-way`.
    """
    folder = root / SNAPSHOTS / name
    if not NAME.fullmatch(name) or not folder.is_dir():
        raise CollectionError(
            "snapshot-unknown", f"there is no snapshot {name!r}: list the snapshots"
        )
    with _alone(root):
        folder.rename(folder.with_name(f"{name}{ASIDE}"))
        _sweep(root)


def sweep(root: Path) -> None:
    """Remove what a snapshot left that was broken off, unless one is under way."""
    if not any((root / SNAPSHOTS).glob(f"*{ASIDE}")):
        return
    try:
        with _alone(root):
            _sweep(root)
    except CollectionError:
        return


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def damaged(folder: Path, why: str) -> CollectionError:
    """The refusal of a snapshot that is not what was taken."""
    return CollectionError(
        "snapshot-damaged", f"the snapshot {folder} is not what was taken: {why}; use another copy"
    )


@dataclass
class _Taking:
    """One snapshot being put together in the folder `aside`."""

    root: Path
    aside: Path
    told: Told
    files: int = 0
    made: set[Path] = field(default_factory=set)
    """Folders that are there, of which there are some hundreds."""

    def take(self, name: str, collection: str | None, beside: Sequence[str]) -> Snapshot:
        with closing(self._copied_catalog()) as copy:
            counts = _reduce(copy, collection)
            self._generations(copy)
            self._pictures(copy)
        for folder in beside:
            for path in (self.root / folder).rglob("*"):
                if path.is_file() and path.suffix != ASIDE:
                    self._take_in(path.relative_to(self.root).as_posix())
        self._take_no_more()
        taken = self._summed(name, collection, counts)
        _write(self.aside / ABOUT, json.dumps({"format": FORMAT} | asdict(taken), default=str))
        for folder, _, _ in os.walk(self.aside):
            sync_folder(Path(folder))
        return taken

    def _copied_catalog(self) -> sqlite3.Connection:
        """The catalog at this instant, as one file without a log beside it."""
        copy = sqlite3.connect(self.aside / CATALOG, isolation_level=None)
        with closing(sqlite3.connect(self.root / CATALOG)) as source:
            source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("PRAGMA foreign_keys = ON")
        return copy

    def _generations(self, copy: sqlite3.Connection) -> None:
        """Take in the generations; one that is not what it was is left out, to be made again."""
        query = (
            "SELECT s.collection_id, g.file, g.sha256 "
            "FROM generations g JOIN spaces s ON s.id = g.space_id"
        )
        for collection_id, file, sha256 in copy.execute(query).fetchall():
            relative = f"generations/{collection_id}/{file}"
            if not self._take_in(relative) or sha256_of(self.aside / relative) != sha256:
                logger.warning("%s is damaged: the snapshot is without it", self.root / relative)
                copy.execute(
                    "DELETE FROM generations WHERE space_id IN "
                    "(SELECT id FROM spaces WHERE collection_id = ?)",
                    [collection_id],
                )

    def _pictures(self, copy: sqlite3.Connection) -> None:
        """Take in what is kept of the pictures of all items."""
        for (collection_id,) in copy.execute("SELECT id FROM collections").fetchall():
            store = f"pictures/{collection_id}"
            kinds = [kind for kind in KINDS if (self.root / store / kind).is_dir()]
            if not kinds:
                continue
            query = "SELECT DISTINCT sha256 FROM items WHERE collection_id = ?"
            for (sha256,) in copy.execute(query, [collection_id]):
                for kind in kinds if sha256.isalnum() else ():
                    self._take_in(f"{store}/{path_of(sha256, kind)}")

    def _take_in(self, relative: str) -> bool:
        """Link or copy one file, wherever it is by now; whether it is anywhere."""
        target = self.aside / relative
        if target.parent not in self.made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(target.parent)
        for source in (self.root / relative, self.aside / GIVEN / flat(relative)):
            try:
                _link(source, target)
            except FileNotFoundError:  # It was handed over just now, or it was never kept.
                continue
            self.files += 1
            self.told(self.files)
            return True
        return False

    def _take_no_more(self) -> None:
        """From here on who removes a file removes it."""
        rest = (self.aside / GIVEN).rename(self.aside / f"{GIVEN}{ASIDE}")
        shutil.rmtree(rest)

    def _summed(self, name: str, collection: str | None, counts: Mapping[str, int]) -> Snapshot:
        """Write the list of checksums of all files, and say what there is."""
        files, size = 0, 0
        with (self.aside / SUMS).open("w") as sums:
            for path in _files(self.aside):
                if path.name != SUMS:
                    sums.write(f"{sha256_of(path)}  {path.relative_to(self.aside).as_posix()}\n")
                    files, size = files + 1, size + path.stat().st_size
            sums.flush()
            os.fsync(sums.fileno())
        sync_file(self.aside / CATALOG)
        return Snapshot(
            name=name,
            collection=collection,
            created_at=datetime.now(UTC),
            collections=counts,
            files=files,
            bytes=size,
            sums=sha256_of(self.aside / SUMS),
        )


def _reduce(copy: sqlite3.Connection, collection: str | None) -> dict[str, int]:
    """Keep one collection, if one is named, and no job that would begin to run; count the items."""
    if collection is not None:
        copy.execute("DELETE FROM collections WHERE name <> ?", [collection])
        copy.execute("DELETE FROM jobs WHERE collection <> ?", [collection])
        if not copy.execute("SELECT 1 FROM collections").fetchall():
            raise CollectionError(
                "collection-unknown",
                f"there is no collection {collection!r}: list them, or make it first",
            )
    copy.execute(
        "UPDATE jobs SET state = 'cancelled', cancel_requested = 1, owner = NULL, "
        "leased_until = NULL, finished_at = ? WHERE state IN ('queued', 'running')",
        [datetime.now(UTC).timestamp()],
    )
    if collection is not None:
        copy.execute("VACUUM")
    counting = (
        "SELECT c.name, (SELECT count(*) FROM items i WHERE i.collection_id = c.id) "
        "FROM collections c ORDER BY c.name"
    )
    return dict(copy.execute(counting).fetchall())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(source, target)
        sync_file(target)


def _files(folder: Path) -> Iterator[Path]:
    """All files under a folder, in an order of their own."""
    for inside, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(inside, name) for name in sorted(names))


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sweep(root: Path) -> None:
    for left in (root / SNAPSHOTS).glob(f"*{ASIDE}"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """No other thread or process takes or removes snapshots meanwhile."""
    (root / SNAPSHOTS).mkdir(parents=True, exist_ok=True)
    with (root / SNAPSHOTS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CollectionError(
                "snapshot-under-way", "a snapshot is being taken or removed: try again after it"
            ) from error
        yield
