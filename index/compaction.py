"""Compaction: all items of one snapshot of the catalog become the next generations.

It runs in a thread of its own, of low priority, steps back while searches run, and can be stopped
about every second; then, as after a crash, nothing is recorded and the old generations go on.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, func, select

from index import generation, sealing, tables
from index.database import Database
from index.errors import CollectionError
from index.gallery import Gallery
from index.generation import Generation, Sealed, Work
from index.planner import Policy
from index.space import Space
from index.view import View

logger = logging.getLogger(__name__)

REMOVALS = tables.removals

THREADS = max(1, (os.cpu_count() or 1) // 2)
"""Of OpenMP: a compaction is in no hurry, and searches want the other cores."""
NICENESS = 10
LONGEST_PAUSE_S = 0.5


class Cancelled(Exception):
    """The compaction was asked to stop."""


class Pace:
    """How a compaction gives way: it pauses as long as it has worked, where searches go on."""

    def __init__(
        self,
        *stops: threading.Event,
        searched: Callable[[], float],
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Any of `stops` ends it, and what `told` raises whenever it hears that it goes on.

        `searched` tells when a search last began or ended, in monotonic seconds.
        """
        self._stops = stops
        self._told = told
        self._abandoned = False
        self._searched = searched
        self._since = time.monotonic()

    def stopped(self) -> bool:
        """Whether it was asked to end."""
        return any(stop.is_set() for stop in self._stops)

    def abandon(self) -> None:
        """Nobody waits for the result any more."""
        self._abandoned = True

    def between(self) -> None:
        """Pause, if need be, after the work since the last time.

        Raises Cancelled, and what whoever is told raises.
        """
        worked = time.monotonic() - self._since
        if self._searched() >= self._since:
            self._stops[0].wait(min(worked, LONGEST_PAUSE_S))
        if self._abandoned or self.stopped():
            raise Cancelled
        self._told()
        self._since = time.monotonic()


@dataclass(frozen=True)
class Compaction:
    """Compactions of one collection."""

    database: Database
    collection_id: int
    spaces: Mapping[str, tuple[int, Space]]
    policy: Policy
    folder: Path

    def run(self, view: View, number: int, pace: Pace) -> dict[str, Generation]:
        """Seal all items of now under `number`: what the disk gives back, not recorded yet.

        `view` is of whatever moment; its generations are extended where that pays. Raises OSError
        when the disk is full, and Cancelled.
        """
        with ThreadPoolExecutor(1, "compaction", initializer=_step_back) as thread:
            made = thread.submit(self._run, view, number, pace)
            try:
                return made.result()
            except BaseException:  # also an interrupt of whoever waits here
                pace.abandon()
                raise

    def _run(self, view: View, number: int, pace: Pace) -> dict[str, Generation]:
        with self.database.reading() as connection:
            # Neither ever goes back, although the newest items may be gone.
            high_key, removal_seq = view.key, max(view.removal, self._last_removal(connection))
            sealed = {}
            for name, (space_id, space) in self.spaces.items():
                gallery = Gallery(connection, self.collection_id, space_id, space)
                high_key = max(high_key, gallery.high_key())
                draft = self._draft(name, gallery, view, high_key, removal_seq, pace)
                sealed[name] = self._seal(f"{name}-{number}.faiss", number, draft)
                del draft  # what is searched from here on is what the disk gives back
        # Where one was extended, what it still holds of the removed has to stay masked.
        oldest = min(each.removal_seq for each in sealed.values())
        return {
            name: generation.load(self.folder / each.file, replace(each, removal_seq=oldest))
            for name, each in sealed.items()
        }

    def _draft(
        self,
        name: str,
        gallery: Gallery,
        view: View,
        high_key: int,
        removal_seq: int,
        pace: Pace,
    ) -> Generation:
        work = Work(THREADS, pace.between)
        before, dead = view.generations.get(name), view.tombstones
        if before is not None and sealing.extends(gallery, self.policy, before.sealed, dead.size):
            own = self._another(before.sealed)
            if own is not None:
                return sealing.extended(own, gallery, self.policy, high_key, dead, work)
        return sealing.built(gallery, self.policy, high_key, removal_seq, work)

    def _another(self, sealed: Sealed) -> Generation | None:
        """Another copy of a generation, to be changed: the one that is searched may not be."""
        try:
            return generation.load(self.folder / sealed.file, sealed, to_extend=True)
        except CollectionError as error:
            logger.warning("%s; rebuilding it from the catalog", error)
            return None

    def _seal(self, file: str, number: int, draft: Generation) -> Sealed:
        sha256, size = generation.seal(draft.index, self.folder / file)
        return replace(draft.sealed, number=number, file=file, sha256=sha256, bytes=size)

    def _last_removal(self, connection: Connection) -> int:
        latest = select(func.max(REMOVALS.c.seq)).where(
            REMOVALS.c.collection_id == self.collection_id
        )
        return int(connection.execute(latest).scalar() or 0)


def _step_back() -> None:
    """A low priority for this thread alone: to Linux every thread has one of its own."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
