"""Jobs: long work that survives its worker, claimed by lease from a table.

A worker claims the oldest job that nobody works on, renews its lease while it works, and records
the outcome of every file in the transaction that stores the item. Whoever claims the job after it
goes on with the files that have no outcome yet.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
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
OPEN = JOBS.c.state.in_(["queued", "running"])


@dataclass(frozen=True)
class Job:
    """A job and how far it is.

    `done` counts the files that went well (`unchanged` ones among them), `failed` the others;
    `total` is None until the source is counted. `problem` says why a whole job failed.
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

    def list(self, collection: str | None = None, limit: int = 100) -> list[Job]:
        """At most `limit` jobs, the newest first, of one collection or of all."""
        query = select(JOBS).order_by(JOBS.c.seq.desc()).limit(limit)
        if collection is not None:
            query = query.where(JOBS.c.collection == collection)
        with self._database.reading() as connection:
            return [_of(row) for row in connection.execute(query)]

    def claim(self, owner: str, lease_s: float) -> Job | None:
        """Take the oldest job that is queued or whose worker let its lease run out; None: none."""
        now = self._now()
        lost = and_(JOBS.c.state == "running", JOBS.c.leased_until < now)
        oldest = (
            select(JOBS.c.seq)
            .where(or_(JOBS.c.state == "queued", lost))
            .order_by(JOBS.c.seq)
            .limit(1)
        )
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
                    leased_until=self._after(lease_s),
                    started_at=func.coalesce(JOBS.c.started_at, now.timestamp()),
                )
                .returning(JOBS)
            )
            return _of(connection.execute(claimed).one())

    def renew(self, job_id: str, owner: str, lease_s: float) -> bool:
        """Keep a job for `lease_s` seconds more; False: it is no longer `owner`'s, stop."""
        return self._change(self._held(job_id, owner), leased_until=self._after(lease_s))

    def release(self, job_id: str, owner: str) -> None:
        """Put a job back into the queue, for the next worker to go on with."""
        self._change(self._held(job_id, owner), state="queued", owner=None, leased_until=None)

    def hand_back(self, gone: Callable[[str], bool]) -> None:
        """Put jobs whose owner is `gone` back into the queue, without waiting for their leases."""
        running = select(JOBS.c.id, JOBS.c.owner).where(JOBS.c.state == "running")
        with self._database.reading() as connection:
            held = connection.execute(running).all()
        for job_id, owner in held:
            if gone(owner):
                self.release(job_id, owner)

    def set_total(self, job_id: str, total: int) -> None:
        """Say how many files there are."""
        self._change(JOBS.c.id == job_id, total=total)

    def advance(self, job_id: str, done: int) -> None:
        """Say how far a job is that has no outcomes of its own."""
        self._change(JOBS.c.id == job_id, done=done)

    def keep_groups(self, job_id: str, groups: Iterable[Group]) -> None:
        """Keep the groups of duplicates that a job found, instead of those of an earlier attempt.

        Raises CollectionError: `job-unknown`.
        """
        with self._database.writing() as connection:
            seq = connection.execute(select(JOBS.c.seq).where(JOBS.c.id == job_id)).scalar()
            if seq is None:
                raise _unknown(job_id)
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

    def record(self, connection: Connection, job_id: str, outcomes: Sequence[FileOutcome]) -> None:
        """Write files' outcomes in a transaction under way; a second one for a file is ignored.

        Raises CollectionError: `job-unknown`.
        """
        seq = connection.execute(select(JOBS.c.seq).where(JOBS.c.id == job_id)).scalar()
        if seq is None:
            raise _unknown(job_id)
        if not outcomes:
            return
        new = sqlite_insert(OUTCOMES).on_conflict_do_nothing().returning(OUTCOMES.c.status)
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

    def record_failed(self, job_id: str, outcomes: Sequence[FileOutcome]) -> None:
        """`record` in a transaction of its own, for files that gave no item."""
        with self._database.writing() as connection:
            self.record(connection, job_id, outcomes)

    def finished(self, job_id: str, references: Sequence[str]) -> set[str]:
        """Those of `references` that have an outcome already."""
        query = (
            select(OUTCOMES.c.reference)
            .join(JOBS, JOBS.c.seq == OUTCOMES.c.job_seq)
            .where(JOBS.c.id == job_id, OUTCOMES.c.reference.in_(tables.listed(references)))
        )
        with self._database.reading() as connection:
            return set(connection.execute(query).scalars())

    def finish(self, job_id: str, state: Finished, problem: Any = None) -> None:
        """End a job; one that has ended already stays as it is. `problem` is JSON."""
        if state not in get_args(Finished):
            raise ValueError(f"{state!r} does not end a job: use one of {get_args(Finished)}")
        self._change(
            and_(JOBS.c.id == job_id, OPEN),
            state=state,
            problem=problem,
            finished_at=self._now(),
            owner=None,
            leased_until=None,
        )

    def request_cancel(self, job_id: str) -> Job:
        """Cancel a queued job, ask the worker of a running one to stop.

        Raises CollectionError: `job-unknown`.
        """
        with self._database.writing() as connection:
            job = _job(connection, job_id)
            _cancel(connection, JOBS.c.id == job.id, self._now())
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

    def _held(self, job_id: str, owner: str) -> ColumnElement[bool]:
        return and_(JOBS.c.id == job_id, JOBS.c.owner == owner, JOBS.c.state == "running")

    def _change(self, which: ColumnElement[bool], **values: Any) -> bool:
        with self._database.writing() as connection:
            return bool(connection.execute(update(JOBS).where(which).values(values)).rowcount)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _after(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self._clock() + seconds, UTC)


def cancel_all(connection: Connection, collection: str) -> None:
    """End the jobs of a collection that goes away; their workers see that at their next renewal."""
    connection.execute(
        update(JOBS)
        .where(JOBS.c.collection == collection, OPEN)
        .values(
            state="cancelled",
            cancel_requested=True,
            finished_at=datetime.now(UTC),
            owner=None,
            leased_until=None,
        )
    )


def _cancel(connection: Connection, which: ColumnElement[bool], now: datetime) -> None:
    connection.execute(
        update(JOBS)
        .where(which, JOBS.c.state == "queued")
        .values(state="cancelled", finished_at=now, cancel_requested=True)
    )
    connection.execute(
        update(JOBS).where(which, JOBS.c.state == "running").values(cancel_requested=True)
    )


def _job(connection: Connection, job_id: str) -> Job:
    row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise _unknown(job_id)
    return _of(row)


def _unknown(job_id: str) -> CollectionError:
    return CollectionError("job-unknown", f"there is no job {job_id!r}: list the jobs to see them")


def _of(row: Row[Any]) -> Job:
    return Job(**{field.name: getattr(row, field.name) for field in fields(Job)})
