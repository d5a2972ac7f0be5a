"""Pictures in: read → decode → thumbnail → network → one commit for many.

Uploads and batch jobs take this same way. A picture fails alone, with a code and a reason.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import structlog
from sqlalchemy import Connection

from index import Collection, FileOutcome, NewItem, Outcome
from models import Extractor, decode, thumbnail
from service.batcher import Vectors
from service.engine import Engine
from service.indexing.source import Entry
from service.problems import KNOWN, problem_of

logger = structlog.get_logger(__name__)

COMMIT = 32
"""Pictures per commit: 48,000 rows/s against 5,900 one by one, at 32 pictures to redo."""

COMMIT_S = 0.5
"""A commit waits no longer for more pictures: how soon progress and a cancellation show."""

AHEAD = 64
"""Pictures read ahead of the one that is committed next: what bounds the memory of a job."""


@dataclass(frozen=True)
class _Read:
    """A picture whose descriptors are on their way."""

    entry: Entry
    item_id: str
    sha256: str
    width: int
    height: int
    vectors: Future[Vectors] | None
    """None: the picture is indexed already and has not changed."""


Record = Callable[[Connection, list[FileOutcome]], None]
"""Told of the outcomes inside the transaction that makes them true."""


def ingest(
    engine: Engine,
    collection: Collection,
    entries: Iterable[Entry],
    record: Record | None = None,
) -> Iterator[list[FileOutcome]]:
    """Index entries in their order; yields the outcomes of each commit, once it is durable."""
    extractor = engine.extractor(collection)
    left = iter(entries)
    ahead: deque[tuple[Entry, Future[_Read]]] = deque()

    def fill() -> None:
        while chunk := list(islice(left, min(COMMIT, AHEAD - len(ahead)))):
            known = collection.known([entry.item_id for entry in chunk if entry.item_id])
            for entry in chunk:
                seen = known.get(entry.item_id or "", ("", None))
                read = engine.decoders.submit(_read, engine, collection, extractor, entry, seen)
                ahead.append((entry, read))

    try:
        fill()
        while ahead:
            settled: list[tuple[Entry, NewItem | FileOutcome]] = []
            soon = time.monotonic() + COMMIT_S
            while ahead and len(settled) < COMMIT and time.monotonic() < soon:
                entry, read = ahead.popleft()
                settled.append((entry, _settle(collection, entry, read)))
            outcomes = _commit(collection, settled, record)
            for outcome in outcomes:
                engine.metrics.pictures.labels(collection.name, outcome.status).inc()
            yield outcomes
            fill()
    finally:
        for _, read in ahead:
            read.cancel()
            read.add_done_callback(_give_up)


def _give_up(read: "Future[_Read]") -> None:
    """Take a picture that nobody waits for any more out of the network's queue."""
    if not read.cancelled() and read.exception() is None and (vectors := read.result().vectors):
        vectors.cancel()


def _read(
    engine: Engine,
    collection: Collection,
    extractor: Extractor,
    entry: Entry,
    known: tuple[str, str | None],
) -> _Read:
    """Everything up to the network's queue, in a decoder thread."""
    known_sha256, known_stamp = known
    if entry.item_id and entry.stamp and entry.stamp == known_stamp:
        return _Read(entry, entry.item_id, known_sha256, 0, 0, None)
    content = entry.read()
    sha256 = hashlib.sha256(content).hexdigest()
    item_id = entry.item_id or sha256[:32]
    if not entry.item_id:
        known_sha256 = collection.known([item_id]).get(item_id, ("", None))[0]
    if sha256 == known_sha256 and entry.metadata is None:
        return _Read(entry, item_id, sha256, 0, 0, None)
    decoded = decode(content, engine.limits, extractor.min_side)
    keep = collection.settings["keep"]
    if keep == "original":
        collection.pictures.put(sha256, "original", content)
    if keep != "nothing":
        collection.pictures.put(sha256, "thumbnail", thumbnail(decoded.image))
    vectors = engine.batcher.submit(extractor, extractor.prepare(decoded.image), "bulk")
    return _Read(entry, item_id, sha256, decoded.width, decoded.height, vectors)


def _settle(collection: Collection, entry: Entry, reading: Future[_Read]) -> NewItem | FileOutcome:
    """Wait for a picture's descriptors; an error becomes its outcome."""
    try:
        read = reading.result()
        if read.vectors is None:
            return FileOutcome(entry.reference, read.item_id, "unchanged", None, None)
        item = NewItem(
            id=read.item_id,
            sha256=read.sha256,
            name=entry.name,
            source=entry.source,
            stamp=entry.stamp,
            metadata=entry.metadata,
            width=read.width,
            height=read.height,
            descriptors=read.vectors.result(),
        )
        collection.check(item)
    except KNOWN as error:
        return FileOutcome(entry.reference, entry.item_id, "failed", error.code, str(error))
    except Exception as error:
        logger.exception("a picture failed unexpectedly", picture=entry.reference)
        problem = problem_of(error)
        return FileOutcome(
            entry.reference, entry.item_id, "failed", problem["code"], problem["detail"]
        )
    return item


def _commit(
    collection: Collection,
    settled: list[tuple[Entry, NewItem | FileOutcome]],
    record: Record | None,
) -> list[FileOutcome]:
    items = [result for _, result in settled if isinstance(result, NewItem)]
    outcomes: list[FileOutcome] = []

    def inside(connection: Connection, added: list[Outcome]) -> None:
        statuses = iter(added)
        for entry, result in settled:
            if isinstance(result, FileOutcome):
                outcomes.append(result)
            else:
                outcome = next(statuses)
                outcomes.append(
                    FileOutcome(entry.reference, outcome.id, outcome.status, None, None)
                )
        if record:
            record(connection, outcomes)

    collection.add(items, also=inside)
    return outcomes
