"""Long work with a bar: count, rate, time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from index import Collection, Job
from service.cli.options import status
from service.engine import Engine
from service.indexing.opening import open_source
from service.indexing.runner import JobRunner
from service.settings import Settings
from service.stages import Limit


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Steps per second over the last seconds."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def counted(description: str, total: int | None = None) -> Iterator[tuple[Progress, TaskID]]:
    """A bar over things that are counted."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
        console=status,
    ) as progress:
        yield progress, progress.add_task(description, total=total, remark="")


def remark(failed: int, limit: Limit | None) -> str:
    """What stands behind a bar.

    >>> remark(2, Limit("decode", 0.98))
    '2 failed, decode limits (98 %)'
    """
    said = [f"{failed} failed" if failed else "", str(limit) if limit else ""]
    return ", ".join(filter(None, said))


def described(progress: Progress, task: TaskID) -> Callable[[int, int, int, Limit | None], None]:
    """What `describe_all` tells of its progress, shown by a bar."""

    def told(done: int, total: int, failed: int, limit: Limit | None) -> None:
        progress.update(task, completed=done, total=total, remark=remark(failed, limit))

    return told


@contextmanager
def transferred(description: str) -> Iterator[Any]:
    """A bar over bytes; yields what takes (done, total)."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=status,
    ) as progress:
        task = progress.add_task(description, total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


@contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    """An engine with its collection `default`; a download that this takes shows a bar."""
    with ExitStack() as stack:
        with transferred("downloading weights") as progress:
            engine = stack.enter_context(Engine(settings, progress))
            engine.ensure_default()
        yield engine


def run_job(engine: Engine, collection: Collection, source: dict[str, Any]) -> Job:
    """Index a source as a job with a progress bar, and return the job when it has ended.

    A job over the same source that was interrupted is taken up again. On Ctrl-C it is handed back
    to the queue: the next `pool5 index` or `pool5 serve` goes on with it.
    """
    open_source(engine, source)
    jobs = engine.catalog.jobs
    left = [
        job
        for job in jobs.list(collection.name, 1000)
        if job.state in ("queued", "running") and job.source == source
    ]
    return follow_job(engine, left[-1] if left else jobs.create(collection.name, source))


def follow_job(engine: Engine, job: Job) -> Job:
    """Work off a job that is queued, with a progress bar; until it has ended, or has to pause."""
    jobs, runner = engine.catalog.jobs, JobRunner(engine)
    kinds = ("folder", "manifest", "archive")
    name = job.source.get("name") or next(
        (job.source[kind] for kind in kinds if kind in job.source), "duplicates"
    )
    runner.start()
    try:
        with counted(f"indexing {name}") as (progress, task):
            while job.state in ("queued", "running") and not job.problem:
                time.sleep(0.1)
                job = jobs.get(job.id)
                said = remark(job.failed, runner.limited_by(job.id))
                progress.update(task, completed=job.done + job.failed, total=job.total, remark=said)
    finally:
        runner.stop()
    return job
