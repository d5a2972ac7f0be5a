"""Uploaded archives and manifests, kept until the job that reads them has ended."""

import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from index import Job
from index.disk import reported
from index.generation import sync_folder

FOLDER = "uploads"


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


def sweep(data: Path, jobs: Iterable[Job]) -> None:
    """Remove uploads that none of these jobs will read: their service was killed in between."""
    wanted = {job.source.get(kind) for job in jobs for kind in ("archive", "manifest")}
    for path in (data / FOLDER).glob("*"):
        if str(path) not in wanted:
            path.unlink(missing_ok=True)
