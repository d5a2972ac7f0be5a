"""The current view of a collection: follows the catalog, and compacts.

The catalog is the truth. A view is brought up to date by reading what was committed since, by
whichever thread or process; there is no other way in, so a search sees every write that was
acknowledged before it began. New generations are loaded in the background, whoever sealed them:
until they have answered, searches go on over the generations before them and a longer delta.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, bindparam, select, update

from index import descriptors, generation, planner, tables, tuning
from index.compaction import Cancelled, Compaction, Pace
from index.database import Database
from index.errors import CollectionError
from index.gallery import Gallery
from index.generation import Generation, Sealed, Work
from index.item import Vector
from index.keyset import KeySet
from index.prepared import Prepared
from index.recorded import Numbered, Recorded
from index.space import Space
from index.view import View

logger = logging.getLogger(__name__)

TEND_AGAIN_S = 60.0
"""After generations could neither be loaded nor rebuilt."""

GENERATIONS, REMOVALS = tables.generations, tables.removals
REMOVED = Prepared(
    select(REMOVALS.c.seq, REMOVALS.c.key)
    .where(
        REMOVALS.c.collection_id == bindparam("collection_id"),
        REMOVALS.c.seq > bindparam("seq"),
    )
    .order_by(REMOVALS.c.seq)
)


class Current:
    """The one view of a collection that this process searches, and its generations on disk."""

    def __init__(
        self,
        database: Database,
        collection_id: int,
        spaces: Mapping[str, tuple[int, Space]],
        policy: planner.Policy,
        folder: Path,
        discard: Callable[[Path], None],
    ) -> None:
        """`spaces` are numbered as in the catalog; `folder` is for this collection alone.

        `discard` removes a generation that is no longer the current one.
        """
        self._database = database
        self._collection_id = collection_id
        self._spaces = spaces
        self._described = {name: space for name, (_, space) in spaces.items()}
        self._policy = policy
        self.recorded = Recorded(database, collection_id, spaces, folder, discard)
        self._compaction = Compaction(database, collection_id, spaces, policy, folder)
        self._following = threading.Lock()
        self._seen: tuple[int, View] | None = None
        self._broken: set[int] = set()
        self._making = 0
        self._tending: threading.Thread | None = None
        self._tend_after = 0.0
        self._estimating: threading.Thread | None = None
        self._stop = threading.Event()
        self.searched = 0.0
        """When a search last began or ended (monotonic seconds); compactions look at it."""
        with self.recorded.alone() as alone:
            if alone:
                self.recorded.sweep()

    def view(self) -> View:
        """Everything that was acknowledged until now.

        Raises CollectionError: `collection-unknown`, when the collection was dropped.
        """
        self.searched = time.monotonic()
        seen = self._seen
        if seen is not None and seen[0] == self._database.version():
            return seen[1]
        with self._following:
            # The version first: what is committed while we read makes us read again.
            version = self._database.version()
            if self._seen is None or self._seen[0] != version:
                self._seen = version, self._followed()
                self._estimate_soon(self._seen[1])
            return self._seen[1]

    def due(self) -> bool:
        """Whether so much waits outside the generation that compaction pays."""
        view = self.view()
        return self._policy.due(view.sealed_count, len(view.delta), view.tombstones.size)

    def compact(
        self, stop: threading.Event | None = None, told: Callable[[], None] = lambda: None
    ) -> bool:
        """Seal all that is there into new generations, while searches and writes go on.

        False: there is nothing to do, or another thread or process is at it, or `stop` was set
        meanwhile, or this was closed. `told` hears about every second that it goes on, and ends it
        by raising. Raises OSError when the disk is full; the old generations stay then.
        """
        stops = (self._stop,) if stop is None else (stop, self._stop)
        pace = Pace(*stops, searched=lambda: self.searched, told=told)
        with self.recorded.alone() as alone:
            if not alone:
                return False
            view = self.view()
            newest = self._newest()
            if newest > view.number:
                self._load(newest)
                view = self.view()
            whole = view.generations and newest == view.number
            if pace.stopped() or (whole and not len(view.delta) and not view.tombstones.size):
                return False
            self._making = newest + 1
            try:
                made = self._compaction.run(view, self._making, pace)
                sealed = {name: each.sealed for name, each in made.items()}
                self.recorded.record(sealed, kept=view.number)
                self._adopt(made)
            except Cancelled:
                self.recorded.forget(self._making)
                return False
            except CollectionError as error:
                if error.code == "collection-unknown":  # it was dropped meanwhile, with its folder
                    self.recorded.forget(self._making)
                raise
            finally:
                self._making = 0  # others may make one of that number, which is to be loaded
            self.recorded.sweep()
            return True

    def close(self) -> None:
        """Stop what goes on in the background, and wait for it."""
        self._stop.set()
        for thread in (self._tending, self._estimating):
            if thread is not None:
                thread.join()

    def _followed(self) -> View:
        with self._database.reading() as connection:
            numbered = self.recorded.read(connection)
            view = self._seen[1] if self._seen is not None else None
            pruned = self.recorded.pruned(connection)
            if view is None or view.removal < pruned:
                view = self._opened(numbered, pruned)
            elif view.number in numbered:
                view = view.retuned(numbered[view.number])
            if next(iter(numbered), 0) not in (view.number, self._making):
                self._tend_soon()
            return self._newer(connection, view)

    def _opened(self, numbered: Numbered, pruned: int) -> View:
        """The newest generations that can be trusted, or none.

        Without any, what was removed up to `pruned` is not among the items that are read.
        """
        for number, sealed in numbered.items():
            loaded = self._loaded(number, sealed)
            if loaded is not None:
                return View.of(number, loaded, self._described)
        if numbered:
            logger.warning("searching the catalog's descriptors in memory")
        return replace(View.of(0, {}, self._described), removal=pruned)

    def _loaded(self, number: int, sealed: Mapping[str, Sealed]) -> dict[str, Generation] | None:
        """Generations that have answered; None, said aloud, where they cannot be trusted."""
        if number in self._broken:
            return None
        try:
            loaded = {
                name: generation.load(self.recorded.folder / each.file, each)
                for name, each in sealed.items()
            }
            for name, each in loaded.items():
                each.check(self._described[name].dim)
        except CollectionError as error:
            if error.code != "generation-untrusted":
                raise
            if number in self._numbered():  # and has not given way to a newer one meanwhile
                self._broken.add(number)
                logger.warning("%s; rebuilding it from the catalog", error)
            return None
        return loaded

    def _numbered(self) -> Numbered:
        with self._database.reading() as connection:
            return self.recorded.read(connection)

    def _newest(self) -> int:
        return next(iter(self._numbered()), 0)

    def _load(self, number: int) -> None:
        """Load and adopt generations, if they can be trusted."""
        loaded = self._loaded(number, self._numbered().get(number, {}))
        if loaded:
            self._adopt(loaded)

    def _tend_soon(self) -> None:
        """Load newer generations, or rebuild broken ones, in a thread of its own."""
        busy = self._tending is not None and self._tending.is_alive()
        if not busy and not self._stop.is_set() and time.monotonic() >= self._tend_after:
            self._tending = threading.Thread(target=self._tend, name="generations", daemon=True)
            self._tending.start()

    def _tend(self) -> None:
        try:
            while not self._stop.is_set():
                newest = self._newest()
                if newest not in self._broken:
                    self._load(newest)
                if newest in self._broken:
                    self.compact()
                if newest == self._newest():
                    return
        except Exception:
            self._tend_after = time.monotonic() + TEND_AGAIN_S
            logger.exception("generations stay as they are; searches go on")

    def _estimate_soon(self, view: View) -> None:
        """Estimate what has become many, in a thread of its own; until then it is read in full."""
        wanted = any(map(view.approximates, self._spaces)) and view.delta.unestimated()
        busy = self._estimating is not None and self._estimating.is_alive()
        if wanted and not busy and not self._stop.is_set():
            self._estimating = threading.Thread(
                target=self._estimate, args=(view,), name="estimates", daemon=True
            )
            self._estimating.start()

    def _estimate(self, view: View) -> None:
        try:
            view.delta.estimate()
        except Exception:  # whatever FAISS says: what has no estimates is read in full
            logger.exception("the delta is not estimated; searches go on")

    def _adopt(self, loaded: Mapping[str, Generation]) -> None:
        """Search these generations from now on, and of the delta only what they do not have."""
        number = next(each.sealed.number for each in loaded.values())
        base = View.of(number, loaded, self._described)
        with self._following, self._database.reading() as connection:
            version = self._database.version()
            pruned = self.recorded.pruned(connection)
            if number not in self.recorded.read(connection) or base.removal < pruned:
                return  # it gave way to newer ones, and what was removed since is not told any more
            view = self._seen[1] if self._seen is not None else base
            if self._seen is None or view.number < number:
                if view.removal >= pruned:
                    view = self._newer(connection, view)
                    delta = view.delta.beyond(base.high_key)
                    base = replace(base, delta=delta, key=max(view.key, base.key))
                self._seen = version, self._newer(connection, base)

    def _newer(self, connection: Connection, view: View) -> View:
        """`view` with what the catalog has beyond it."""
        view = self._with_added(connection, view)
        since = {"collection_id": self._collection_id, "seq": view.removal}
        removed = REMOVED.rows(connection, since)
        if not removed:
            return view
        keys = np.array([key for _, key in removed], dtype=np.int64)
        dead = keys[keys <= view.high_key]
        return replace(
            view,
            delta=view.delta.without(keys),
            tombstones=KeySet(np.union1d(view.tombstones.keys, dead)),
            removal=removed[-1][0],
        )

    def _with_added(self, connection: Connection, view: View) -> View:
        (first, (space_id, space)), *others = self._spaces.items()
        delta, key = view.delta, view.key
        for keys, codes in descriptors.stored_after(connection, space_id, space, key):
            added = {first: codes}
            for name, (other_id, other) in others:
                parts = descriptors.stored_after(connection, other_id, other, key, int(keys[-1]))
                added[name] = np.concatenate([codes for _, codes in parts])
            delta, key = delta.extended(keys, added), int(keys[-1])
        return replace(view, delta=delta, key=key)

    def retune(self, name: str, asked: Sequence[tuple[Vector, int]], work: Work) -> bool:
        """Tune the search of a space anew, for its own items and for queries that were `asked`.

        Recorded under the same generation, so that every process follows. False where no parameters
        reach the recall that the collection's settings ask for; the best are taken then.
        """
        view = self.view()
        if name not in view.generations:
            return True
        there = view.generations[name]
        high_key = there.sealed.high_key
        space_id, space = self._spaces[name]
        with self._database.reading() as connection:
            gallery = Gallery(connection, self._collection_id, space_id, space)
            questions = [
                *tuning.own_questions(gallery, high_key, work),
                tuning.live_questions(gallery, asked, high_key, work),
            ]
            aim = tuning.aim(self._policy.recall)
            found = tuning.tuned(there, questions, aim, view.tombstones, gallery.vectors, work)
        measured = asdict(found)
        with self._database.writing() as connection:
            mine = (GENERATIONS.c.space_id == space_id) & (GENERATIONS.c.number == view.number)
            connection.execute(update(GENERATIONS).where(mine).values(measured))
        return found.recall >= self._policy.recall
