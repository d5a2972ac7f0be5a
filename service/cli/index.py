"""`pool5 index`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from index import Job
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
from service.cli.progress import opened, run_job
from service.engine import DEFAULT, Engine
from service.forms import validated
from service.schemas.duplicates import DuplicatesAsked
from service.settings import Settings

_MANIFESTS = (".jsonl", ".ndjson", ".csv")
SHOWN_ERRORS = 10


@takes_settings(*ENGINE, "decode_threads", "batch_size", "max_picture_bytes", "max_pixels")
def index(
    settings: Settings,
    pictures: Annotated[
        Path, typer.Argument(help="a folder, an archive, or a manifest (.jsonl, .csv)")
    ],
    collection: CollectionName = DEFAULT,
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
    source = source_of(pictures)
    asked = validated(
        DuplicatesAsked,
        {
            "duplicates": duplicates,
            "duplicate_threshold": duplicate_threshold,
            "duplicate_space": duplicate_space,
        },
    )
    if asked.duplicates != "allow":
        source["duplicates"] = asked.model_dump()
    with opened(settings) as engine:
        found = engine.catalog.collection(collection)
        asked.check(found)
        job = run_job(engine, found, source)
        if json:
            print_json(outcome(job))
        else:
            report(engine, job)
    if job.state == "failed":
        raise typer.Exit(1)


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
        status.print(f"the job failed: {job.problem['detail']}", markup=False)
