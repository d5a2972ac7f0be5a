"""Batch indexing: jobs over a folder, an archive or a manifest, and their progress."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from index import CollectionError, Job
from service import forms
from service.indexing import spool
from service.indexing.opening import open_source
from service.indexing.runner import FIND_DUPLICATES, JobRunner
from service.indexing.source import SourceError
from service.problems import Problem
from service.query import default_space
from service.routes import CollectionDep, EngineDep
from service.schemas.base import LARGEST_INTEGER, ProblemBody
from service.schemas.duplicates import DuplicatesAsked, FindDuplicates, GroupsBody, MemberBody
from service.schemas.jobs import FileError, FileErrorsBody, JobBody, JobsBody, LimitBody, NewJob
from service.security.access import CallerDep
from service.security.audit import note

router = APIRouter(prefix="/v1", tags=["jobs"])


def _job(
    engine: EngineDep,
    caller: CallerDep,
    job: Annotated[str, PathParameter(description="a job's id")],
) -> Job:
    found = engine.catalog.jobs.get(job)
    caller.check(found.collection)
    return found


JobDep = Annotated[Job, Depends(_job)]

FINISHED = ("done", "cancelled", "failed")

_FIELDS: Mapping[str, Any] = {
    "archive": {**forms.PICTURE, "description": "zip or tar, compressed or not"},
    "manifest": {**forms.PICTURE, "description": "JSON Lines or CSV of paths or URLs"},
    "folder": {"type": "string", "minLength": 1},
    **forms.DUPLICATES,
}


@router.post(
    "/collections/{collection}/jobs",
    status_code=202,
    openapi_extra=forms.described(_FIELDS, [], NewJob.__name__),
    responses=forms.problems(400, 403, 404, 413, 415, 422, 503, 507),
)
async def create_job(engine: EngineDep, collection: CollectionDep, request: Request) -> JobBody:
    """Start batch indexing. The job survives restarts; each file is indexed exactly once."""
    runner: JobRunner = request.app.state.runner
    if request.headers.get("content-type", "").startswith("application/json"):
        asked, source = _divided(forms.validated(NewJob, await forms.json_body(request)), {})
    else:
        async with forms.multipart(request, max_files=1) as form:
            uploads = {name: forms.files(form, name) for name in ("archive", "manifest")}
            text = forms.validated(NewJob, forms.fields(form))
            asked, source = _divided(
                text, {name: sent[0] for name, sent in uploads.items() if sent}
            )
            kind, value = next(iter(source.items()))
            if isinstance(value, UploadFile):
                source = await run_in_threadpool(
                    spool.keep, engine.settings.data, kind, value.file, value.filename
                )

    def create() -> Job:
        try:
            asked.check(collection)
            open_source(engine, source)
        except (SourceError, CollectionError):
            spool.discard(source)
            raise
        if asked.duplicates != "allow":
            source["duplicates"] = asked.model_dump()
        return engine.catalog.jobs.create(collection.name, source)

    job = await run_in_threadpool(create)
    note(request, job=job.id, source=next(name for name in _FIELDS if name in source))
    runner.wake()
    return body(job, runner)


def _divided(
    text: NewJob, uploads: Mapping[str, UploadFile]
) -> tuple[DuplicatesAsked, dict[str, Any]]:
    """What is done with duplicates, and the one source that is named."""
    asked = DuplicatesAsked(**text.model_dump(include=set(DuplicatesAsked.model_fields)))
    told = text.model_dump(exclude=set(DuplicatesAsked.model_fields), exclude_none=True)
    given = [*told.items(), *uploads.items()]
    if len(given) != 1:
        raise Problem("request-invalid", "name exactly one of `folder`, `manifest` and `archive`")
    return asked, dict(given)


@router.post(
    "/collections/{collection}/duplicates",
    status_code=202,
    responses=forms.problems(400, 404, 422),
)
def find_duplicates(
    engine: EngineDep, collection: CollectionDep, request: Request, asked: FindDuplicates
) -> JobBody:
    """Start to look for groups of duplicates; the job survives restarts, and so do its groups."""
    space = asked.space or default_space(collection)
    collection.check_spaces([space])
    found = {"threshold": asked.threshold, "space": space}
    job = engine.catalog.jobs.create(collection.name, {FIND_DUPLICATES: found})
    runner: JobRunner = request.app.state.runner
    runner.wake()
    return body(job, runner)


@router.get("/jobs/{job}/duplicates", responses=forms.problems(404, 422))
def list_duplicates(
    engine: EngineDep,
    job: JobDep,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> GroupsBody:
    """The groups of duplicates that a job has found, the largest first."""
    found = engine.catalog.jobs.groups(job.id, after, limit + 1)
    page = found[:limit]
    return GroupsBody(
        groups=[[MemberBody(id=m.id, score=m.score) for m in group] for _, group in page],
        next=page[-1][0] if len(found) > limit else None,
    )


@router.get("/jobs", responses=forms.problems(422))
def list_jobs(
    engine: EngineDep,
    caller: CallerDep,
    request: Request,
    collection: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> JobsBody:
    """The latest jobs, of the collections that the caller may read."""
    jobs = engine.catalog.jobs.list(collection, limit, caller.collections)
    return JobsBody(jobs=[body(job, request.app.state.runner) for job in jobs])


@router.get("/jobs/{job}", responses=forms.problems(404))
def get_job(request: Request, job: JobDep) -> JobBody:
    """A job's progress."""
    return body(job, request.app.state.runner)


@router.delete("/jobs/{job}", status_code=202, responses=forms.problems(404, 503, 507))
def cancel_job(engine: EngineDep, request: Request, job: JobDep) -> JobBody:
    """Cancel a job, at once. What it has indexed stays."""
    cancelled = engine.catalog.jobs.cancel(job.id)
    if cancelled.state == "cancelled":
        spool.discard(cancelled.source)
    return body(cancelled, request.app.state.runner)


@router.post("/jobs/{job}/retry", status_code=202, responses=forms.problems(404, 409))
def retry_job(engine: EngineDep, request: Request, job: JobDep) -> JobBody:
    """Go on with a job that has ended: with its failed files, and those it did not get to."""
    if spool.is_missing(job.source):
        detail = f"the upload of job {job.id} is not kept any more: upload it again"
        raise Problem("job-source-gone", detail)
    again = engine.catalog.jobs.retry(job.id)
    request.app.state.runner.wake()
    return body(again, request.app.state.runner)


@router.get("/jobs/{job}/errors", responses=forms.problems(404))
def list_job_errors(
    engine: EngineDep,
    job: JobDep,
    after: Annotated[int, Query(ge=0, le=LARGEST_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> FileErrorsBody:
    """Why files of a job failed, one by one."""
    found = engine.catalog.jobs.errors(job.id, after, limit + 1)
    page = found[:limit]
    return FileErrorsBody(
        errors=[
            FileError(reference=e.reference, code=e.code or "", detail=e.detail or "") for e in page
        ],
        next=page[-1].seq if len(found) > limit else None,
    )


@router.get("/jobs/{job}/events", response_class=EventSourceResponse, responses=forms.problems(404))
async def stream_job(
    engine: EngineDep, request: Request, found: JobDep
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` whenever something changed, `end` with the final state."""
    runner: JobRunner = request.app.state.runner
    last = None
    while True:
        now = body(await run_in_threadpool(engine.catalog.jobs.get, found.id), runner)
        if now.state in FINISHED:
            yield ServerSentEvent(data=now, event="end")
            return
        if now != last:
            yield ServerSentEvent(data=now, event="progress")
            last = now
        if request.app.state.stopping.is_set() or await request.is_disconnected():
            return
        await asyncio.sleep(0.25)


def body(job: Job, runner: JobRunner) -> JobBody:
    """A job as it goes over the wire; rate and ETA are known while it runs here."""
    rate = runner.rate(job.id)
    finished = job.done + job.failed
    limit = runner.limited_by(job.id)
    eta = (job.total - finished) / rate if rate and job.total is not None else None
    return JobBody(
        id=job.id,
        collection=job.collection,
        source=_shown(job.source),
        state=job.state,
        total=job.total,
        done=job.done,
        failed=job.failed,
        unchanged=job.unchanged,
        retries=job.retries,
        rate=round(rate, 2) if rate is not None else None,
        eta_s=round(eta, 1) if eta is not None else None,
        limited_by=LimitBody(stage=limit.stage, share=limit.share) if limit else None,
        problem=ProblemBody(**job.problem) if job.problem else None,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _shown(source: Mapping[str, Any]) -> dict[str, Any]:
    """What a job reads, without where an upload is kept meanwhile."""
    kinds = ("folder", "manifest", "archive", FIND_DUPLICATES)
    kind = next(name for name in kinds if name in source)
    if source.get("uploaded"):
        return {kind: source["name"], "name": source["name"]}
    return {kind: source[kind]}
