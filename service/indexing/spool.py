"""Uploaded archives and manifests, kept until the job that reads them has ended."""

import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from index import Job
from index.disk import reported
from index.generation import sync_folder

FOLDER = "uploads"

KEPT = timedelta(days=1)
"""How long the upload of a job that failed, or some of whose files did, is there for a retry."""


def keep(data: Path, kind: str, upload: IO[bytes], name: str | None) -> dict[str, Any]:
    """Put an upload on disk, durably, and describe it as the source of a job. Raises DiskError."""
    folder = data / FOLDER
    path = folder / uuid.uuid4().hex
    with reported(path):
        folder.mkdir(exist_ok=True)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(upload, file, 1024 * 1024)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(folder)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return {kind: str(path), "uploaded": True, "name": name}


def discard(source: Mapping[str, Any]) -> None:
    """Remove what a job read, if it was uploaded for it."""
    if source.get("uploaded"):
        for kind in ("archive", "manifest"):
            if kind in source:
                Path(source[kind]).unlink(missing_ok=True)


def is_missing(source: Mapping[str, Any]) -> bool:
    """Whether a job's upload is not kept any more."""
    path = source.get("archive") or source.get("manifest")
    return bool(source.get("uploaded")) and not Path(path or "").exists()


def sweep(data: Path, jobs: Iterable[Job], age: timedelta = timedelta()) -> None:
    """Remove uploads older than `age` that none of these jobs will read, or be asked to again."""
    wanted = {
        job.source.get(kind) for job in jobs if _may_read(job) for kind in ("archive", "manifest")
    }
    for path in (data / FOLDER).glob("*"):
        old = path.stat().st_mtime < (datetime.now(UTC) - age).timestamp()
        if old and str(path) not in wanted:
            path.unlink(missing_ok=True)


def _may_read(job: Job) -> bool:
    if job.finished_at is None:
        return True
    failed = job.state == "failed" or (job.state == "done" and job.failed > 0)
    return failed and datetime.now(UTC) - job.finished_at < KEPT
