"""Pictures in: read → decode → thumbnail → network → one commit for many.

Uploads and batch jobs take this same way. A picture fails alone, with a code and a reason.

The slowest stage sets the pace: at most AHEAD pictures are between the source and the catalog, and
as one is committed the next is read. So the memory of a job is bounded by AHEAD prepared pictures
(150 kB for each input of 224 pixels) with their descriptors and kept grids, by what entries hold
until they are read (AHEAD_BYTES), and by one picture file in each reading thread and one decoded
picture in each decoding process (`worker.bound_memory`).
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from index import (
    Collection,
    DiskError,
    DuplicateCheck,
    FileOutcome,
    NewItem,
    Outcome,
    check_id,
)
from index.grids import pack
from index.item import Duplicate
from models import Extractor
from service import tracing
from service.batcher import Vectors
from service.clock import Clock
from service.engine import Engine, kept_grids
from service.indexing.source import (
    HANDFUL,
    Entry,
    Interrupted,
    SourceVanishedError,
    handfuls,
    never,
)
from service.lanes import Lane
from service.problems import KNOWN, problem_of
from service.stages import Stage

logger = structlog.get_logger(__name__)

COMMIT = 32
"""Pictures per commit: 48,000 rows/s against 5,900 one by one, at 32 pictures to redo."""

COMMIT_S = 0.5
"""A commit waits no longer for more pictures: how soon progress and a cancellation show."""

AHEAD = 64
AHEAD_BYTES = 256 * 1024 * 1024
"""What is read ahead of the picture that is committed next: this bounds the memory of a job. Where
passes are large or decoders many, it is four batches and four pictures for each decoder."""

PATIENCE_S = 0.1
"""How often a wait looks up to see whether it is still wanted."""

NOBODYS = (Interrupted, SourceVanishedError, DiskError)
"""What ends an ingest and is no picture's outcome."""

PASSING = frozenset({"decoder-unavailable", "shutting-down", "catalog-busy"})
"""Codes of what the service lacks for a while: no picture is to blame, and a job can wait."""

T = TypeVar("T")


def is_passing(error: BaseException, engine: Engine) -> bool:
    """Whether the service, and no picture, is to blame, so that it may well go on later."""
    code = getattr(error, "code", "")
    return code in PASSING or (code == "forward-lost" and engine.batcher.hopeless())


UNKNOWN = ("", None)
"""SHA-256 and stamp of an item that is not there."""


@dataclass(frozen=True)
class _Read:
    """A picture whose descriptors are on their way; None: it is indexed and has not changed."""

    item_id: str
    sha256: str
    metadata: Mapping[str, Any] | None
    width: int = 0
    height: int = 0
    vectors: Future[Vectors] | None = None


Ahead = deque[tuple[Entry, Future[_Read]]]
"""What is read ahead of the picture that is committed next."""

Record = Callable[[Connection, list[FileOutcome]], None]
"""Told of the outcomes inside the transaction that makes them true."""


def ingest(
    engine: Engine,
    collection: Collection,
    entries: Iterable[Entry | None],
    record: Record | None = None,
    job: str | None = None,
    lane: Lane = "bulk",
    clock: Clock | None = None,
    check: Callable[[], None] = never,
    duplicates: DuplicateCheck | None = None,
) -> Iterator[list[FileOutcome]]:
    """Index entries in their order; yields the outcomes of each commit, once it is durable.

    None among the entries: the next one is not there yet. `check` is called while anything is
    waited for, and may raise to end it. What the time of the clock is too short for fails, with
    `request-timeout`. `job` is whom traces name it for. Raises DiskError and SourceVanishedError,
    which no picture is to blame for, and in the bulk lane what `is_passing`.
    """
    extractor = engine.extractor(collection)
    work = _Work(engine, collection, extractor, lane, clock or Clock(), check)
    left = handfuls(entries)
    ahead: Ahead = deque()

    most = max(AHEAD, 4 * (engine.settings.batch_size + engine.plan.decode))

    def fill() -> None:
        while len(ahead) < most and sum(entry.held for entry, _ in ahead) < AHEAD_BYTES:
            few = next(left, None)
            if few is None or (ahead and not few):
                return
            known = collection.known([entry.item_id for entry in few if entry.item_id])
            for entry in few:
                seen = known.get(entry.item_id or "", UNKNOWN)
                read = engine.readers[lane].submit(tracing.carried(work.read), entry, seen)
                ahead.append((entry, read))

    try:
        more = True
        while more:
            with tracing.span("batch", collection=collection.name, job=job):
                fill()
                settled = work.settled(ahead, fill)
                if settled:
                    with tracing.span("commit", pictures=len(settled)), work.busy("commit"):
                        outcomes = _commit(collection, settled, record, duplicates)
            if more := bool(settled):
                engine.metrics.observe_pictures(collection.name, outcomes)
                yield outcomes
    finally:
        for _, read in ahead:
            read.cancel()
            read.add_done_callback(partial(_give_up, collection))


def _give_up(collection: Collection, reading: "Future[_Read]") -> None:
    """Take a picture that nobody waits for any more out of the network's queue."""
    if reading.cancelled() or reading.exception() is not None:
        return
    read = reading.result()
    if read.vectors is not None:
        read.vectors.cancel()
        collection.abandon([read.sha256])


@dataclass(frozen=True)
class _Work:
    """What the pictures of one source have in common."""

    engine: Engine
    collection: Collection
    extractor: Extractor
    lane: Lane
    clock: Clock
    check: Callable[[], None]

    def busy(self, stage: Stage) -> AbstractContextManager[None]:
        """A stage works inside; of uploads, which have workers of their own, nothing is counted."""
        return self.engine.stages.working(stage) if self.lane == "bulk" else nullcontext()

    def read(self, entry: Entry, known: tuple[str, str | None]) -> _Read:
        """Everything up to the network's queue, in a thread that reads."""
        self.clock.check("reading")
        collection = self.collection
        known_sha256, known_stamp = known
        if entry.item_id and entry.stamp and entry.stamp == known_stamp:
            return _Read(entry.item_id, known_sha256, None)
        with self.busy("read"):
            content = entry.read()
            sha256 = hashlib.sha256(content).hexdigest()
        item_id = entry.item_id or sha256[:32]
        check_id(item_id)
        if not entry.item_id:
            known_sha256 = collection.known([item_id]).get(item_id, UNKNOWN)[0]
        if sha256 == known_sha256 and entry.metadata is None:
            return _Read(item_id, sha256, None)
        metadata = entry.place if entry.metadata is None and not known_sha256 else entry.metadata
        keep = collection.settings["keep"]
        wanted = self.extractor.preparation(thumbnail=keep != "nothing")
        with tracing.span("decode", bytes=len(content)):
            stages = self.engine.stages if self.lane == "bulk" else None
            picture = self.engine.decoders.prepare(content, wanted, self.lane, self.clock, stages)
        collection.pictures.expect(sha256)
        try:
            with self.busy("store"):
                if keep == "original":
                    collection.pictures.put(sha256, "original", content)
                if picture.thumbnail:
                    collection.pictures.put(sha256, "thumbnail", picture.thumbnail)
            vectors = self.engine.batcher.submit(
                self.extractor, picture.prepared, self.lane, kept_grids(collection)
            )
        except BaseException:
            collection.abandon([sha256])
            raise
        return _Read(item_id, sha256, metadata, picture.width, picture.height, vectors)

    def settled(
        self, ahead: Ahead, fill: Callable[[], None]
    ) -> list[tuple[Entry, NewItem | FileOutcome]]:
        """What the next commit is to have, taken from what is read ahead, which is filled up."""
        settled: list[tuple[Entry, NewItem | FileOutcome]] = []
        soon = time.monotonic() + COMMIT_S
        try:
            while ahead and len(settled) < COMMIT and time.monotonic() < soon:
                entry, read = ahead.popleft()
                settled.append((entry, self._settle(entry, read)))
                if ahead and len(settled) % HANDFUL == 0:
                    fill()
        except BaseException:
            ready = (result for _, result in settled if isinstance(result, NewItem))
            self.collection.abandon([item.sha256 for item in ready])
            raise
        return settled

    def _settle(self, entry: Entry, reading: Future[_Read]) -> NewItem | FileOutcome:
        """Wait for a picture's descriptors; an error becomes its outcome, unless it is nobody's."""
        collection = self.collection
        try:
            read = self._awaited(reading, "picture")
            if read.vectors is None:
                return FileOutcome(entry.reference, read.item_id, "unchanged", None, None)
        except Exception as error:  # noqa: BLE001 - one picture must not fail the others
            reading.add_done_callback(partial(_give_up, collection))
            return self._failed(entry, error)
        try:
            seen = self._awaited(read.vectors, "descriptor")
            if grids := {name: seen.pop(name) for name in kept_grids(collection)}:
                collection.pictures.put(read.sha256, "grids", pack(grids))
            item = NewItem(
                id=read.item_id,
                sha256=read.sha256,
                name=entry.name,
                source=entry.source,
                stamp=entry.stamp,
                metadata=read.metadata,
                width=read.width,
                height=read.height,
                descriptors=seen,
            )
            collection.check(item)
        except Exception as error:  # noqa: BLE001
            collection.abandon([read.sha256])
            return self._failed(entry, error)
        return item

    def _failed(self, entry: Entry, error: Exception) -> FileOutcome:
        """The outcome of a picture that failed alone; what no picture is to blame for is raised."""
        passing = self.lane == "bulk" and is_passing(error, self.engine)
        if passing or isinstance(error, NOBODYS):
            raise error
        if not isinstance(error, KNOWN):
            logger.error("a picture failed unexpectedly", picture=entry.reference, exc_info=error)
        said = problem_of(error)
        return FileOutcome(entry.reference, entry.item_id, "failed", said["code"], said["detail"])

    def _awaited(self, future: Future[T], what: str) -> T:
        """The outcome of what was queued; `check` may end the wait."""
        while self.check is not never and not future.done():
            self.check()
            wait([future], PATIENCE_S)
        return self.clock.outcome(future, what)


def _commit(
    collection: Collection,
    settled: list[tuple[Entry, NewItem | FileOutcome]],
    record: Record | None,
    duplicates: DuplicateCheck | None,
) -> list[FileOutcome]:
    items = [result for _, result in settled if isinstance(result, NewItem)]
    outcomes: list[FileOutcome] = []

    def inside(connection: Connection, added: list[Outcome]) -> None:
        statuses = iter(added)
        for entry, result in settled:
            if isinstance(result, FileOutcome):
                outcomes.append(result)
            else:
                outcomes.append(_outcome(entry, next(statuses)))
        if record:
            record(connection, outcomes)

    collection.add(items, also=inside, duplicates=duplicates)
    return outcomes


def _outcome(entry: Entry, outcome: Outcome) -> FileOutcome:
    """What became of an item; a duplicate that is refused has failed, and says of which it is."""
    duplicate = outcome.duplicate
    if outcome.status != "rejected":
        return FileOutcome(entry.reference, outcome.id, outcome.status, duplicate=duplicate)
    detail = _refusal(duplicate) if duplicate else None
    return FileOutcome(
        entry.reference, outcome.id, "failed", "duplicate", detail, duplicate=duplicate
    )


def _refusal(duplicate: Duplicate) -> str:
    alike = "the same file as" if duplicate.exact else f"alike (cosine {duplicate.score:.4f}) to"
    return f"it is {alike} item {duplicate.id!r}: ask for duplicates=flag or allow to index it"
