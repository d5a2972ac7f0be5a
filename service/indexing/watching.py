"""A folder that is followed: what is new, changed, moved or removed in it, as it happens."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import structlog
from watchfiles import watch

from index import Collection, CollectionError, FileOutcome
from service.engine import Engine
from service.indexing.folder import FolderSource
from service.indexing.roots import identity_of, stamp_of
from service.indexing.source import Entry, Interrupted, SourceError, SourceVanishedError, stable_id
from service.ingest import ingest, is_passing
from service.problems import Problem

logger = structlog.get_logger(__name__)

SETTLE_S = 1.0
"""A file is read once it has stayed the same for so long: until then somebody writes it."""

RESCAN_S = 900.0
"""How often the whole folder is looked through, for what the system did not report."""

PAUSE_S = 5.0
"""How long it waits before it tries again what the service could not do."""

_STEP_MS = 200
_PAGE = 1000


class Listener:
    """Reports changed paths of a folder; None where the whole folder has to be looked through.

    It outlives the folder: one that vanishes, as a volume that is unmounted, is awaited.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changes: SimpleQueue[Path | None] = SimpleQueue()
        self._ending = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listen", daemon=True)
        self._thread.start()
        self._listening.wait(10)

    def changes(self) -> list[Path | None]:
        """What was reported since the last call; waits a moment where nothing was."""
        found = []
        try:
            found.append(self._changes.get(timeout=_STEP_MS / 1000))
            while True:
                found.append(self._changes.get_nowait())
        except Empty:
            return found

    def close(self) -> None:
        """Stop listening."""
        self._ending.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._ending.is_set():
            identity = identity_of(self._folder)
            try:
                if identity is not None:
                    self._follow(identity)
            except Exception as error:  # noqa: BLE001 - a folder that goes away in between, a limit
                logger.warning("the folder cannot be watched now", error=str(error))
            self._ending.wait(_STEP_MS / 1000)

    def _follow(self, identity: tuple[int, int]) -> None:
        """Report until the folder is another one."""
        reported = watch(
            self._folder,
            watch_filter=None,
            debounce=_STEP_MS,
            rust_timeout=_STEP_MS,
            yield_on_timeout=True,
            stop_event=self._ending,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        for changes in reported:
            if not self._listening.is_set():
                self._listening.set()
            elif identity_of(self._folder) != identity:
                break
            for _, path in changes:
                self._changes.put(Path(path))
        if not self._ending.is_set():
            logger.warning("the folder has vanished: waiting for it", folder=str(self._folder))
            while identity_of(self._folder) is None and not self._ending.wait(_STEP_MS / 1000):
                pass
            self._changes.put(None)


@dataclass
class Watcher:
    """Keeps a collection as a folder is, until `stopping` is set.

    `told` hears of every file's outcome. With `delete` the items of files that are removed go;
    without, they stay. Nothing is deleted while the folder is not there.
    """

    engine: Engine
    collection: Collection
    folder: Path
    delete: bool = False
    told: Callable[[FileOutcome], None] = lambda _outcome: None
    removed: Callable[[int], None] = lambda _count: None
    stopping: threading.Event = field(default_factory=threading.Event)
    _unsettled: dict[Path, tuple[str | None, float]] = field(default_factory=dict)

    def follow(self) -> None:
        """Look through the folder once, then follow what is reported. Raises DiskError."""
        listener = Listener(self.folder)
        scanned = float("-inf")
        try:
            while not self.stopping.is_set():
                changes = listener.changes()
                try:
                    if None in changes or time.monotonic() - scanned > RESCAN_S:
                        scanned = time.monotonic()
                        self._look_through()
                    self._see([path for path in changes if path is not None])
                except SourceError as error:
                    logger.warning("the folder is not there", error=error.detail)
                except (CollectionError, Problem) as error:
                    if not is_passing(error, self.engine):
                        raise
                    logger.warning("following pauses", error=str(error))
                    scanned = time.monotonic() - RESCAN_S + PAUSE_S
        except Interrupted:
            pass
        finally:
            listener.close()

    def _check(self) -> None:
        if self.stopping.is_set():
            raise Interrupted

    def _source(self) -> FolderSource:
        settings = self.engine.settings
        roots = [*settings.image_roots, self.folder]
        return FolderSource(self.folder, roots, settings.max_picture_bytes, self._check)

    def _look_through(self) -> None:
        """Everything that is there; what is indexed and has not changed is passed over."""
        source = self._source()
        self._unsettled.clear()
        self._index(self._settled(source))
        if self.delete:
            self._forget(self.folder, source)

    def _settled(self, source: FolderSource, below: Path | None = None) -> Iterator[Entry]:
        now_ns = time.time_ns()
        for entry in source.entries(below):
            written_ns = int(entry.stamp.split(":")[0]) if entry.stamp else 0
            if abs(now_ns - written_ns) < SETTLE_S * 1e9:
                self._unsettled[self.folder / (entry.place or {})["path"]] = (None, 0.0)
            else:
                yield entry

    def _see(self, paths: Iterable[Path]) -> None:
        """Index what has settled; what is gone is forgotten."""
        for path in paths:
            self._unsettled.setdefault(path, (None, 0.0))
        ready, now = [], time.monotonic()
        for path, (stamp, since) in list(self._unsettled.items()):
            seen = stamp_of(path)
            if seen != stamp or since == 0.0:
                self._unsettled[path] = (seen, now)
            elif now - since >= SETTLE_S:
                del self._unsettled[path]
                ready.append(path)
        if not ready:
            return
        source = self._source()
        gone = [path for path in ready if not os.path.lexists(path)]
        for path in ready:
            # What came with a folder, as one that was moved here, is not reported by itself.
            if path != self.folder and path.is_dir():
                self._index(self._settled(source, path))
        entries = (source.entry(path) for path in ready if path.is_file())
        self._index(entry for entry in entries if entry is not None)
        for path in gone if self.delete else ():
            self._forget(path, source)

    def _index(self, entries: Iterable[Entry]) -> None:
        try:
            for outcomes in ingest(self.engine, self.collection, entries, check=self._check):
                for outcome in outcomes:
                    self.told(outcome)
        except SourceVanishedError as error:
            logger.warning("the folder has vanished", error=error.detail)
        if self.collection.needs_compaction():
            self.engine.compactor.soon(self.collection)

    def _forget(self, path: Path, source: FolderSource) -> None:
        """Remove the items of what lay at a path, or below it, and is not there any more.

        Raises SourceError where the whole folder is not there: what was found missing is then not
        removed, as it may have vanished while it was looked for.
        """
        gone = []
        if path != self.folder:
            known = self.collection.known([stable_id(f"file:{path}")])
            gone += [] if path.exists() else list(known)
        if not gone:
            gone = [item_id for item_id, at in self._items_below(path) if not at.exists()]
        for some in _pages(gone):
            self._check()
            source.check_present()
            self.removed(sum(self.collection.remove(some)))

    def _items_below(self, path: Path) -> Iterator[tuple[str, Path]]:
        after, below = None, f"file:{path}/"
        while page := self.collection.items(after, _PAGE):
            self._check()
            after = page[-1].id
            for item in page:
                if item.source.startswith(below):
                    yield item.id, Path(item.source.removeprefix("file:"))


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _PAGE] for at in range(0, len(ids), _PAGE))
