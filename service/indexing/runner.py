"""The thread that works off batch-indexing jobs; jobs live in the catalog and outlive it."""

import os
import platform
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import structlog
from sqlalchemy import Connection

from index import CollectionError, DiskError, FileOutcome, Job
from service.engine import Engine
from service.indexing import spool
from service.indexing.fetching import Hosts, fetched_ahead
from service.indexing.opening import open_source
from service.indexing.source import Entry, Interrupted, Source, SourceVanishedError, handfuls
from service.ingest import ingest, is_passing
from service.problems import KNOWN, problem_of
from service.schemas.duplicates import DuplicatesAsked
from service.stages import Limit, Mark

logger = structlog.get_logger(__name__)

LEASE_S = 15.0
"""A job whose worker has not been heard of for so long is taken over by another."""

PAUSE_S = 5.0
"""How long a job waits before it tries again what the disk or the service has not taken."""

WATCH_S = 0.25
"""How soon a worker hears that its job was cancelled."""

RATE_WINDOW_S = 10.0

TOLD_S = 0.5
"""How often the progress of a job without outcomes is written down."""

FIND_DUPLICATES = "find_duplicates"
"""In a job's source instead of pictures: what `Collection.duplicates` is to be asked."""


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
        self._progress: dict[str, deque[tuple[int, Mark]]] = {}
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

    def failing(self) -> str | None:
        """Whether the thread has ended by itself."""
        ended = self._thread and not self._thread.is_alive() and not self._stopping.is_set()
        return "the thread that works off jobs has ended" if ended else None

    def restart(self, why: str) -> None:
        """Go on with another thread, from what the catalog says is done."""
        logger.error("the job runner is started anew", why=why)
        self.start()

    def rate(self, job_id: str) -> float | None:
        """Files per second over the last seconds; None where this process does not run the job."""
        marks = self._progress.get(job_id)
        if not marks or len(marks) < 2:
            return None
        (before, began), (after, ended) = marks[0], marks[-1]
        return (after - before) / max(ended.at - began.at, 1e-6)

    def limited_by(self, job_id: str) -> Limit | None:
        """The stage that limited over the same seconds; None where there is none to be named."""
        marks = self._progress.get(job_id)
        return self.engine.stages.between(marks[0][1], marks[-1][1]) if marks else None

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
        self._progress[job.id] = deque([(job.done + job.failed, self.engine.stages.mark())])
        lease = _Lease(self, job)
        lease.start()
        try:
            work = self._find_duplicates if FIND_DUPLICATES in job.source else self._index
            work(job, lease)
        except Exception as error:  # noqa: BLE001 - it is told with the job
            self._broken_off(job, error)
        finally:
            lease.stop()
            self._progress.pop(job.id, None)
            self._tidy(job)

    def check(self) -> None:
        """Raise Interrupted where the runner is to end."""
        if self._stopping.is_set():
            raise Interrupted

    def _broken_off(self, job: Job, error: Exception) -> None:
        """Say of a job that was not finished what becomes of it, unless it is another's by now."""
        if isinstance(error, Interrupted) or getattr(error, "code", None) == "job-lost":
            self.jobs.release(job.id, self.owner)
            logger.info("job left", job=job.id)
        elif isinstance(error, DiskError) or is_passing(error, self.engine):
            logger.warning("job pauses", job=job.id, error=str(error))
            # Where not even this can be written, the lease runs out and the job goes on likewise.
            self.jobs.release(job.id, self.owner, problem_of(error), PAUSE_S)
        else:
            self.jobs.finish(job.id, "failed", problem_of(error), self.owner)
            unexpected = None if isinstance(error, KNOWN) else error
            logger.warning("job failed", job=job.id, error=str(error), exc_info=unexpected)

    def _tidy(self, job: Job) -> None:
        """Remove what was uploaded for a job, once nobody can ask to read it again."""
        try:
            found = self.jobs.get(job.id)
        except CollectionError:
            spool.discard(job.source)
            return
        if found.state == "cancelled" or (found.state == "done" and not found.failed):
            spool.discard(job.source)
        # What is uploaded just now has no job yet.
        data, jobs = self.engine.settings.data, self.jobs.list(None, 10_000)
        spool.sweep(data, jobs, timedelta(hours=1))

    def _index(self, job: Job, lease: "_Lease") -> None:
        collection = self.engine.catalog.collection(job.collection)
        hosts = Hosts(self.engine.fetcher, lease.check)
        source = open_source(self.engine, job.source, lease.check, hosts.fetch)
        if job.total is None:
            self.jobs.set_total(job.id, source.count(), self.owner)
        counted = job.done + job.failed

        def record(connection: Connection, outcomes: list[FileOutcome]) -> None:
            self.jobs.record(connection, job.id, outcomes, self.owner)

        asked = DuplicatesAsked(**job.source.get("duplicates", {})).check(collection)
        with closing(fetched_ahead(self._unfinished(job, source), lease.check)) as entries:
            commits = ingest(
                self.engine,
                collection,
                entries,
                record,
                job=job.id,
                check=lease.check,
                duplicates=asked,
            )
            for outcomes in commits:
                counted += len(outcomes)
                self._mark(job.id, counted)
                lease.check()
        self._done(job)
        if collection.needs_compaction():
            self.engine.compactor.soon(collection)

    def _find_duplicates(self, job: Job, lease: "_Lease") -> None:
        collection = self.engine.catalog.collection(job.collection)
        said = 0.0

        def told(done: int, total: int) -> None:
            nonlocal said
            lease.check()
            if time.monotonic() - said > TOLD_S or done == total:
                said = time.monotonic()
                self.jobs.advance(job.id, done, self.owner)
            self._mark(job.id, done)

        self.jobs.set_total(job.id, collection.count(), self.owner)
        groups = collection.duplicates(told=told, **job.source[FIND_DUPLICATES])
        self.jobs.keep_groups(job.id, groups, self.owner)
        self._done(job)

    def _done(self, job: Job) -> None:
        self.jobs.finish(job.id, "done", owner=self.owner)
        logger.info("job done", job=job.id)

    def _unfinished(self, job: Job, source: Source) -> Iterator[Entry]:
        """What is left to do: of a source that was read to its end, the failed files alone."""
        empty = True
        for few in handfuls(source.entries()):
            empty = False
            references = [entry.reference for entry in few]
            if job.complete:
                again = self.jobs.retrying(job.id, references)
                yield from (entry for entry in few if entry.reference in again)
            else:
                finished = self.jobs.finished(job.id, references)
                yield from (entry for entry in few if entry.reference not in finished)
        if empty and job.total:
            detail = f"the source had {job.total:,} files and now has none: bring it back"
            raise SourceVanishedError("source-vanished", detail)

    def _mark(self, job_id: str, counted: int) -> None:
        marks = self._progress[job_id]
        now = self.engine.stages.mark()
        marks.append((counted, now))
        while len(marks) > 2 and now.at - marks[0][1].at > RATE_WINDOW_S:
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
    """Keeps a job ours while its pictures are being indexed, and hears that it is ours no more."""

    def __init__(self, runner: JobRunner, job: Job) -> None:
        super().__init__(name=f"lease-{job.id[:8]}", daemon=True)
        self.lost = False
        self._runner = runner
        self._job = job
        self._over = threading.Event()

    def check(self) -> None:
        """Raise Interrupted where this worker must leave the job."""
        self._runner.check()
        if self.lost:
            raise Interrupted

    def run(self) -> None:
        """Renew in good time; look more often, as a cancelled job is nobody's."""
        jobs, owner = self._runner.jobs, self._runner.owner
        renewed = time.monotonic()
        while not self.lost and not self._over.wait(WATCH_S):
            try:
                if time.monotonic() - renewed > LEASE_S / 3:
                    self.lost = not jobs.renew(self._job.id, owner, LEASE_S)
                    renewed = time.monotonic()
                else:
                    self.lost = not jobs.holds(self._job.id, owner)
            except Exception as error:  # noqa: BLE001 - a full disk: the lease may outlast it
                logger.warning("a lease was not renewed", job=self._job.id, error=str(error))
                self.lost = time.monotonic() - renewed > LEASE_S

    def stop(self) -> None:
        """The job is over."""
        self._over.set()
        self.join()
