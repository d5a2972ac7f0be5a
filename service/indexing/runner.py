"""The thread that works off batch-indexing jobs; jobs live in the catalog and outlive it."""

import os
import platform
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator

import structlog
from sqlalchemy import Connection

from index import CollectionError, FileOutcome, Job
from service.engine import Engine
from service.indexing import spool
from service.indexing.opening import open_source
from service.indexing.source import Entry, Source, handfuls
from service.ingest import ingest
from service.problems import KNOWN, problem_of
from service.schemas.duplicates import DuplicatesAsked

logger = structlog.get_logger(__name__)

LEASE_S = 15.0
"""A job whose worker has not been heard of for so long is taken over by another."""

RATE_WINDOW_S = 10.0

FIND_DUPLICATES = "find_duplicates"
"""In a job's source instead of pictures: what `Collection.duplicates` is to be asked."""


class _Interrupted(Exception):
    """The job is cancelled, or is to be handed back."""


class JobRunner:
    """Claims jobs one at a time and indexes their files, each exactly once.

    The outcome of every file is recorded in the transaction that adds its item, so that a job
    taken up again after a kill passes over exactly what is done.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.jobs = engine.catalog.jobs
        self.owner = f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._progress: dict[str, deque[tuple[float, int]]] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Work in the background until `stop`; what a killed process left goes on at once."""
        self.jobs.hand_back(_is_gone)
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the commit under way, hand the job back to the queue, end the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread:
            self._thread.join()

    def wake(self) -> None:
        """Look for a job now."""
        self._wake.set()

    def rate(self, job_id: str) -> float | None:
        """Files per second over the last seconds; None where this process does not run the job."""
        marks = self._progress.get(job_id)
        if not marks or len(marks) < 2:
            return None
        (started, before), (ended, after) = marks[0], marks[-1]
        return (after - before) / max(ended - started, 1e-6)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                job = self.jobs.claim(self.owner, LEASE_S)
                if job:
                    self.run(job)
                    continue
            except Exception:
                logger.exception("the job runner failed and goes on")
            self._wake.wait(1.0)
            self._wake.clear()

    def run(self, job: Job) -> None:
        """Work off one claimed job, to its end or until it is cancelled or we are stopped."""
        logger.info("job started", job=job.id, collection=job.collection, source=job.source)
        self._progress[job.id] = deque([(time.monotonic(), job.done + job.failed)])
        lease = _Lease(self, job)
        lease.start()
        try:
            work = self._find_duplicates if FIND_DUPLICATES in job.source else self._index
            work(job, lease)
        except Exception as error:
            self.jobs.finish(job.id, "failed", problem_of(error))
            unexpected = None if isinstance(error, KNOWN) else error
            logger.warning("job failed", job=job.id, error=str(error), exc_info=unexpected)
        finally:
            lease.stop()
            self._progress.pop(job.id, None)
            if self._has_ended(job):
                spool.discard(job.source)

    def _has_ended(self, job: Job) -> bool:
        try:
            return self.jobs.get(job.id).state not in ("queued", "running")
        except CollectionError:
            return True

    def _index(self, job: Job, lease: "_Lease") -> None:
        collection = self.engine.catalog.collection(job.collection)
        source = open_source(self.engine, job.source)
        if job.total is None:
            self.jobs.set_total(job.id, source.count())
        counted = job.done + job.failed

        def record(connection: Connection, outcomes: list[FileOutcome]) -> None:
            self.jobs.record(connection, job.id, outcomes)

        left = self._unfinished(job, source)
        asked = DuplicatesAsked(**job.source.get("duplicates", {}))
        for outcomes in ingest(self.engine, collection, left, record, asked.check(collection)):
            counted += len(outcomes)
            self._mark(job.id, counted)
            if self._stopping.is_set() or lease.cancelled or lease.lost:
                break
        if self._ended(job, lease) and collection.needs_compaction():
            self.engine.compact_soon(collection)

    def _find_duplicates(self, job: Job, lease: "_Lease") -> None:
        collection = self.engine.catalog.collection(job.collection)
        said = 0.0

        def told(done: int, total: int) -> None:
            nonlocal said
            if self._stopping.is_set() or lease.cancelled or lease.lost:
                raise _Interrupted
            if time.monotonic() - said > 0.5 or done == total:
                said = time.monotonic()
                self.jobs.advance(job.id, done)
            self._mark(job.id, done)

        self.jobs.set_total(job.id, collection.count())
        try:
            groups = collection.duplicates(told=told, **job.source[FIND_DUPLICATES])
            self.jobs.keep_groups(job.id, groups)
        except _Interrupted:
            logger.info("job interrupted", job=job.id)
        self._ended(job, lease)

    def _ended(self, job: Job, lease: "_Lease") -> bool:
        """Record how the work on a job came to an end; whether it is done."""
        if lease.cancelled:
            self.jobs.finish(job.id, "cancelled")
            logger.info("job cancelled", job=job.id)
        elif self._stopping.is_set() or lease.lost:
            self.jobs.release(job.id, self.owner)
            logger.info("job handed back", job=job.id)
        else:
            self.jobs.finish(job.id, "done")
            logger.info("job done", job=job.id)
            return True
        return False

    def _unfinished(self, job: Job, source: Source) -> Iterator[Entry]:
        for few in handfuls(source.entries()):
            finished = self.jobs.finished(job.id, [entry.reference for entry in few])
            yield from (entry for entry in few if entry.reference not in finished)

    def _mark(self, job_id: str, counted: int) -> None:
        marks = self._progress[job_id]
        now = time.monotonic()
        marks.append((now, counted))
        while len(marks) > 2 and now - marks[0][0] > RATE_WINDOW_S:
            marks.popleft()


def _is_gone(owner: str) -> bool:
    """Whether an owner was a process of this machine that no longer runs."""
    node, pid, _ = owner.rsplit(":", 2)
    if node != platform.node():
        return False
    if int(pid) == os.getpid():
        return True  # A process id used again, as in a container, whose service always is number 1.
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class _Lease(threading.Thread):
    """Keeps a job ours while its pictures are being indexed, and hears of its cancellation."""

    def __init__(self, runner: JobRunner, job: Job) -> None:
        super().__init__(name=f"lease-{job.id[:8]}", daemon=True)
        self.cancelled = job.cancel_requested
        self.lost = False
        self._runner = runner
        self._job = job
        self._over = threading.Event()

    def run(self) -> None:
        """Renew every half second: that is also how soon a cancellation is noticed."""
        while not self._over.wait(0.5):
            try:
                self.cancelled = self._runner.jobs.get(self._job.id).cancel_requested
                self.lost = not self._runner.jobs.renew(self._job.id, self._runner.owner, LEASE_S)
            except CollectionError:
                self.cancelled = True  # The collection was dropped, and its jobs with it.
            if self.cancelled or self.lost:
                return

    def stop(self) -> None:
        """The job is over."""
        self._over.set()
        self.join()
