"""Jobs: long work that survives its worker, claimed by lease from a table.

A worker claims the oldest job that nobody works on, renews its lease while it works, and records
the outcome of every file in the transaction that stores the item. Whoever claims the job after it
goes on with the files that have no outcome yet. A worker that has lost a job, to another or to a
cancellation, can write nothing more: every write asks in its own transaction whose the job is.
"""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    ScalarSelect,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from index import tables
from index.database import Database
from index.errors import CollectionError
from index.grouping import Group, Member
from index.item import Duplicate

State = Literal["queued", "running", "done", "cancelled", "failed"]
Finished = Literal["done", "cancelled", "failed"]
FileStatus = Literal["added", "unchanged", "replaced", "failed"]

JOBS, OUTCOMES, GROUPS = tables.jobs, tables.file_outcomes, tables.duplicate_groups
RETRYING = "retrying"
"""The status of an outcome that stood as `failed` until a retry was asked for."""

OPEN = JOBS.c.state.in_(["queued", "running"])


@dataclass(frozen=True)
class Job:
    """A job and how far it is.

    `done` counts the files that went well (`unchanged` ones among them), `failed` the others;
    `total` is None until the source is counted. `problem` says why a whole job failed, or why one
    that is queued waits. `complete`: the source was read to its end once, so that a retry is about
    the failed files alone; `retries` were asked for.
    """

    id: str
    collection: str
    source: dict[str, Any]
    state: State
    total: int | None
    done: int
    failed: int
    unchanged: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    problem: Any
    cancel_requested: bool
    complete: bool
    retries: int


@dataclass(frozen=True)
class FileOutcome:
    """What became of one file of a job; `seq` is given by the catalog and pages through errors."""

    reference: str
    item_id: str | None
    status: FileStatus
    code: str | None = None
    detail: str | None = None
    seq: int = 0
    duplicate: Duplicate | None = None
    """What a flagged or refused item duplicates; the catalog keeps it with the item."""


class Jobs:
    """The table of jobs, shared by all processes on one folder."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def create(self, collection: str, source: Mapping[str, Any]) -> Job:
        """Queue a job; `source` is JSON that its worker understands."""
        job_id = uuid.uuid4().hex
        row = {
            "id": job_id,
            "collection": collection,
            "source": dict(source),
            "state": "queued",
            "created_at": self._now(),
        }
        with self._database.writing() as connection:
            connection.execute(insert(JOBS).values(row))
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """Return a job. Raises CollectionError: `job-unknown`."""
        with self._database.reading() as connection:
            return _job(connection, job_id)

    def list(
        self,
        collection: str | None = None,
        limit: int = 100,
        among: Collection[str] | None = None,
    ) -> list[Job]:
        """At most `limit` jobs, the newest first, of one collection, `among` some, or of all."""
        query = select(JOBS).order_by(JOBS.c.seq.desc()).limit(limit)
        if collection is not None:
            query = query.where(JOBS.c.collection == collection)
        if among is not None:
            query = query.where(JOBS.c.collection.in_(tables.listed(among)))
        with self._database.reading() as connection:
            return [_of(row) for row in connection.execute(query)]

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        query = select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
        with self._database.reading() as connection:
            found: dict[State, int] = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in get_args(State)}

    def claim(self, owner: str, lease_s: float) -> Job | None:
        """Take the oldest job that nobody holds, or whose worker let its lease run out."""
        now = self._now()
        waits = or_(JOBS.c.leased_until.is_(None), JOBS.c.leased_until < now)
        oldest = select(JOBS.c.seq).where(OPEN, waits).order_by(JOBS.c.seq).limit(1)
        with self._database.writing() as connection:
            seq = connection.execute(oldest).scalar()
            if seq is None:
                return None
            claimed = (
                update(JOBS)
                .where(JOBS.c.seq == seq)
                .values(
                    state="running",
                    owner=owner,
                    problem=None,
                    leased_until=self._after(lease_s),
                    started_at=func.coalesce(JOBS.c.started_at, now.timestamp()),
                )
                .returning(JOBS)
            )
            return _of(connection.execute(claimed).one())

    def renew(self, job_id: str, owner: str, lease_s: float) -> bool:
        """Keep a job for `lease_s` seconds more; False: it is no longer `owner`'s, stop."""
        return self._change(self._held(job_id, owner), leased_until=self._after(lease_s))

    def holds(self, job_id: str, owner: str) -> bool:
        """Whether a job is still `owner`'s."""
        with self._database.reading() as connection:
            held = select(JOBS.c.seq).where(self._held(job_id, owner))
            return connection.execute(held).scalar() is not None

    def release(
        self, job_id: str, owner: str, problem: Any = None, pause_s: float | None = None
    ) -> None:
        """Put a job back into the queue, for the next worker to go on with, after a pause."""
        self._change(
            self._held(job_id, owner),
            state="queued",
            owner=None,
            problem=problem,
            leased_until=None if pause_s is None else self._after(pause_s),
        )

    def hand_back(self, gone: Callable[[str], bool]) -> None:
        """Put jobs whose owner is `gone` back into the queue, without waiting for their leases."""
        running = select(JOBS.c.id, JOBS.c.owner).where(JOBS.c.state == "running")
        with self._database.reading() as connection:
            held = connection.execute(running).all()
        for job_id, owner in held:
            if gone(owner):
                self.release(job_id, owner)

    def set_total(self, job_id: str, total: int, owner: str | None = None) -> None:
        """Say how many files there are."""
        self._change(self._held(job_id, owner), total=total)

    def advance(self, job_id: str, done: int, owner: str | None = None) -> None:
        """Say how far a job is that has no outcomes of its own."""
        self._change(self._held(job_id, owner), done=done)

    def keep_groups(self, job_id: str, groups: Iterable[Group], owner: str | None = None) -> None:
        """Keep the groups of duplicates that a job found, instead of those of an earlier attempt.

        Raises CollectionError: `job-unknown`, and `job-lost` where `owner` does not hold it.
        """
        with self._database.writing() as connection:
            seq = self._seq(connection, job_id, owner)
            connection.execute(delete(GROUPS).where(GROUPS.c.job_seq == seq))
            rows = [
                {"job_seq": seq, "members": [asdict(member) for member in group]}
                for group in groups
            ]
            if rows:
                connection.execute(insert(GROUPS), rows)

    def groups(self, job_id: str, after: int = 0, limit: int = 100) -> Sequence[tuple[int, Group]]:
        """Groups of duplicates that a job found, with their numbers, from the one after `after`.

        Raises CollectionError: `job-unknown`.
        """
        with self._database.reading() as connection:
            _job(connection, job_id)
            query = (
                select(GROUPS)
                .join(JOBS, JOBS.c.seq == GROUPS.c.job_seq)
                .where(JOBS.c.id == job_id, GROUPS.c.seq > after)
                .order_by(GROUPS.c.seq)
                .limit(limit)
            )
            return [
                (row.seq, [Member(**member) for member in row.members])
                for row in connection.execute(query)
            ]

    def record(
        self,
        connection: Connection,
        job_id: str,
        outcomes: Sequence[FileOutcome],
        owner: str | None = None,
    ) -> None:
        """Write files' outcomes in a transaction under way; a second one for a file is ignored.

        Raises CollectionError: `job-unknown`, and `job-lost` where `owner` does not hold it.
        """
        seq = self._seq(connection, job_id, owner)
        if not outcomes:
            return
        inserting = sqlite_insert(OUTCOMES)
        said = inserting.excluded
        new = inserting.on_conflict_do_update(
            index_elements=[OUTCOMES.c.job_seq, OUTCOMES.c.reference],
            set_={name: said[name] for name in ("item_id", "status", "code", "detail")},
            where=OUTCOMES.c.status == RETRYING,
        ).returning(OUTCOMES.c.status)
        rows = [
            {
                "job_seq": seq,
                "reference": outcome.reference,
                "item_id": outcome.item_id,
                "status": outcome.status,
                "code": outcome.code,
                "detail": outcome.detail,
            }
            for outcome in outcomes
        ]
        statuses = list(connection.execute(new, rows).scalars())
        failed = statuses.count("failed")
        connection.execute(
            update(JOBS)
            .where(JOBS.c.seq == seq)
            .values(
                done=JOBS.c.done + len(statuses) - failed,
                failed=JOBS.c.failed + failed,
                unchanged=JOBS.c.unchanged + statuses.count("unchanged"),
            )
        )

    def record_failed(
        self, job_id: str, outcomes: Sequence[FileOutcome], owner: str | None = None
    ) -> None:
        """`record` in a transaction of its own, for files that gave no item."""
        with self._database.writing() as connection:
            self.record(connection, job_id, outcomes, owner)

    def finished(self, job_id: str, references: Sequence[str]) -> set[str]:
        """Those of `references` that have an outcome that stands."""
        return self._references(job_id, references, OUTCOMES.c.status != RETRYING)

    def retrying(self, job_id: str, references: Sequence[str]) -> set[str]:
        """Those of `references` that failed and are to be tried again."""
        return self._references(job_id, references, OUTCOMES.c.status == RETRYING)

    def finish(
        self, job_id: str, state: Finished, problem: Any = None, owner: str | None = None
    ) -> None:
        """End a job; one that has ended, or is not `owner`'s, stays as it is. `problem` is JSON."""
        if state not in get_args(Finished):
            raise ValueError(f"{state!r} does not end a job: use one of {get_args(Finished)}")
        which = and_(JOBS.c.id == job_id, OPEN)
        with self._database.writing() as connection:
            ended = which if owner is None else self._held(job_id, owner)
            _end(connection, ended, state, self._now(), problem=problem)

    def cancel(self, job_id: str) -> Job:
        """End a job now: what its worker has under way is not written any more.

        Raises CollectionError: `job-unknown`.
        """
        with self._database.writing() as connection:
            _job(connection, job_id)
            which = and_(JOBS.c.id == job_id, OPEN)
            _end(connection, which, "cancelled", self._now(), cancel_requested=True)
            return _job(connection, job_id)

    def retry(self, job_id: str) -> Job:
        """Queue a job that has ended again: for its failed files, and for those it did not get to.

        Their outcomes are superseded one by one; what is not found any more stays failed.

        Raises CollectionError: `job-unknown`, `job-running`, `job-nothing-to-retry`.
        """
        with self._database.writing() as connection:
            job = _job(connection, job_id)
            if job.state in ("queued", "running"):
                raise CollectionError("job-running", f"job {job_id} is {job.state}: let it end")
            if job.complete and not job.failed:
                detail = f"no file of job {job_id} has failed: start a new job for new files"
                raise CollectionError("job-nothing-to-retry", detail)
            failed = and_(OUTCOMES.c.job_seq == _seq(job_id), OUTCOMES.c.status == "failed")
            connection.execute(update(OUTCOMES).where(failed).values(status=RETRYING))
            again = {
                "state": "queued",
                "failed": 0,
                "problem": None,
                "finished_at": None,
                "cancel_requested": False,
                "retries": JOBS.c.retries + 1,
            }
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(again))
            return _job(connection, job_id)

    def errors(self, job_id: str, after: int = 0, limit: int = 100) -> Sequence[FileOutcome]:
        """Files that failed, in order of time, from the one after `seq` = `after`.

        Raises CollectionError: `job-unknown`.
        """
        with self._database.reading() as connection:
            _job(connection, job_id)
            query = (
                select(OUTCOMES)
                .join(JOBS, JOBS.c.seq == OUTCOMES.c.job_seq)
                .where(JOBS.c.id == job_id, OUTCOMES.c.status == "failed", OUTCOMES.c.seq > after)
                .order_by(OUTCOMES.c.seq)
                .limit(limit)
            )
            return [
                FileOutcome(row.reference, row.item_id, row.status, row.code, row.detail, row.seq)
                for row in connection.execute(query)
            ]

    def _references(
        self, job_id: str, references: Sequence[str], which: ColumnElement[bool]
    ) -> set[str]:
        query = (
            select(OUTCOMES.c.reference)
            .join(JOBS, JOBS.c.seq == OUTCOMES.c.job_seq)
            .where(JOBS.c.id == job_id, OUTCOMES.c.reference.in_(tables.listed(references)), which)
        )
        with self._database.reading() as connection:
            return set(connection.execute(query).scalars())

    def _seq(self, connection: Connection, job_id: str, owner: str | None) -> int:
        held = select(JOBS.c.seq).where(self._held(job_id, owner))
        seq: int | None = connection.execute(held).scalar()
        if seq is None:
            _job(connection, job_id)
            raise CollectionError("job-lost", f"job {job_id} is not ours any more: leave it")
        return seq

    def _held(self, job_id: str, owner: str | None) -> ColumnElement[bool]:
        """A job while `owner` works on it; without one, the job whosever it is."""
        job = JOBS.c.id == job_id
        if owner is None:
            return job
        return and_(job, JOBS.c.owner == owner, JOBS.c.state == "running")

    def _change(self, which: ColumnElement[bool], **values: Any) -> bool:
        with self._database.writing() as connection:
            return bool(connection.execute(update(JOBS).where(which).values(values)).rowcount)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _after(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self._clock() + seconds, UTC)


def cancel_all(connection: Connection, collection: str) -> None:
    """End the jobs of a collection that goes away; their workers can write nothing more."""
    which = and_(JOBS.c.collection == collection, OPEN)
    _end(connection, which, "cancelled", datetime.now(UTC), cancel_requested=True)


def _end(
    connection: Connection,
    which: ColumnElement[bool],
    state: Finished,
    now: datetime,
    **values: Any,
) -> None:
    """End jobs; what was still to be tried again has failed as before."""
    seqs = list(connection.execute(select(JOBS.c.seq).where(which)).scalars())
    for seq in seqs:
        left = and_(OUTCOMES.c.job_seq == seq, OUTCOMES.c.status == RETRYING)
        gone = {"status": "failed"}
        if state == "done":
            gone |= {
                "code": "source-file-missing",
                "detail": "the source does not have it any more",
            }
        failed = connection.execute(update(OUTCOMES).where(left).values(gone)).rowcount
        ended = {
            "state": state,
            "finished_at": now,
            "owner": None,
            "leased_until": None,
            "failed": JOBS.c.failed + failed,
            "complete": True if state == "done" else JOBS.c.complete,
            **values,
        }
        connection.execute(update(JOBS).where(JOBS.c.seq == seq).values(ended))


def _seq(job_id: str) -> ScalarSelect[int]:
    return select(JOBS.c.seq).where(JOBS.c.id == job_id).scalar_subquery()


def _job(connection: Connection, job_id: str) -> Job:
    row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise _unknown(job_id)
    return _of(row)


def _unknown(job_id: str) -> CollectionError:
    return CollectionError("job-unknown", f"there is no job {job_id!r}: list the jobs to see them")


def _of(row: Row[Any]) -> Job:
    return Job(**{field.name: getattr(row, field.name) for field in fields(Job)})
