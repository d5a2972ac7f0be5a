"""`pool5 index`."""

import signal
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from index import Collection, FileOutcome, Job
from service import logs
from service.cli.options import (
    ENGINE,
    CollectionName,
    Json,
    SpaceName,
    print_json,
    status,
    takes_settings,
)
from service.cli.progress import follow_job, opened, run_job
from service.engine import DEFAULT, Engine
from service.forms import validated
from service.indexing.watching import Watcher
from service.problems import Problem
from service.schemas.duplicates import DuplicatesAsked
from service.settings import Settings

_MANIFESTS = (".jsonl", ".ndjson", ".csv")
SHOWN_ERRORS = 10


@takes_settings(*ENGINE, "decode_threads", "batch_size", "max_picture_bytes", "max_pixels")
def index(
    settings: Settings,
    pictures: Annotated[
        Path | None, typer.Argument(help="a folder, an archive, or a manifest (.jsonl, .csv)")
    ] = None,
    collection: CollectionName = DEFAULT,
    retry: Annotated[
        str | None, typer.Option(metavar="JOB", help="try the failed files of a job again")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="then follow the folder, until Ctrl-C")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="with --watch: remove the items of removed files")
    ] = False,
    duplicates: Annotated[
        str, typer.Option(help="allow, flag or reject pictures that duplicate others")
    ] = "allow",
    duplicate_threshold: Annotated[
        float | None,
        typer.Option(help="cosine from which they do; by default only equal files do"),
    ] = None,
    duplicate_space: SpaceName = None,
    json: Json = False,
) -> None:
    """Index pictures, with progress. Again: only what is new. Interrupted: it goes on."""
    logs.configure(settings.log_format)
    if (pictures is None) == (retry is None):
        raise Problem("request-invalid", "name what to index, or a job with --retry")
    if (watch and not (pictures and pictures.is_dir())) or (delete and not watch):
        raise Problem("request-invalid", "--watch follows a folder, and --delete needs --watch")
    asked = validated(
        DuplicatesAsked,
        {
            "duplicates": duplicates,
            "duplicate_threshold": duplicate_threshold,
            "duplicate_space": duplicate_space,
        },
    )
    if asked.duplicates != "allow" and (watch or retry):
        raise Problem("request-invalid", "--duplicates goes with neither --watch nor --retry")
    with opened(settings) as engine:
        if pictures is None:
            job = follow_job(engine, engine.catalog.jobs.retry(str(retry)))
        elif watch:
            follow(engine, engine.catalog.collection(collection), pictures, delete, json)
            return
        else:
            source, found = source_of(pictures), engine.catalog.collection(collection)
            asked.check(found)
            if asked.duplicates != "allow":
                source["duplicates"] = asked.model_dump()
            job = run_job(engine, found, source)
        if json:
            print_json(outcome(job))
        else:
            report(engine, job)
    if job.problem:
        raise typer.Exit(1)


def follow(
    engine: Engine, collection: Collection, folder: Path, delete: bool, as_json: bool
) -> None:
    """Follow a folder until Ctrl-C or SIGTERM; a line for every file that was new or failed."""
    watcher = Watcher(engine, collection, folder.resolve(), delete)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: watcher.stopping.set())

    def told(outcome: FileOutcome) -> None:
        if as_json:
            typer.echo(dumps(asdict(outcome), ensure_ascii=False))
        elif outcome.status != "unchanged":
            why = f": {outcome.detail} ({outcome.code})" if outcome.code else ""
            status.print(f"{outcome.status} {outcome.reference}{why}", markup=False)

    def removed(count: int) -> None:
        if as_json:
            typer.echo(dumps({"status": "removed", "count": count}))
        elif count:
            status.print(f"removed {count}")

    watcher.told, watcher.removed = told, removed
    status.print(f"following {folder}; Ctrl-C ends it", markup=False)
    watcher.follow()


def source_of(pictures: Path) -> dict[str, Any]:
    """What a job over this path reads. The operator named it, so it is its own allowed root."""
    path = pictures.expanduser().resolve()
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(pictures))
    if path.is_dir():
        return {"folder": str(path), "roots": [str(path)]}
    if path.suffix.lower() in _MANIFESTS:
        return {"manifest": str(path), "roots": [str(path.parent)]}
    return {"archive": str(path)}


def outcome(job: Job) -> dict[str, Any]:
    """How a job ended, for scripts."""
    return {
        "id": job.id,
        "collection": job.collection,
        "state": job.state,
        "total": job.total,
        "done": job.done,
        "failed": job.failed,
        "unchanged": job.unchanged,
        "problem": job.problem,
    }


def report(engine: Engine, job: Job) -> None:
    """How a job ended, for people."""
    new = job.done - job.unchanged
    failed = f", {job.failed} failed" if job.failed else ""
    status.print(f"{new} indexed, {job.unchanged} unchanged{failed}")
    for error in engine.catalog.jobs.errors(job.id, 0, SHOWN_ERRORS):
        status.print(f"  {error.reference}: {error.detail} ({error.code})", markup=False)
    if job.failed > SHOWN_ERRORS:
        status.print(f"  … and {job.failed - SHOWN_ERRORS} more: GET /v1/jobs/{job.id}/errors")
    if job.problem:
        again = f"pool5 index --retry {job.id}" if job.state == "failed" else "the same command"
        status.print(f"the job stopped: {job.problem['detail']}; then {again}", markup=False)
