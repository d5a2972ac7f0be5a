"""Jobs as they go over the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.base import ProblemBody
from service.schemas.duplicates import DuplicatesAsked


class NewJob(DuplicatesAsked):
    """A batch-indexing job over files that the service can read itself."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"folder": "/pictures/shoes"}]}
    )
    folder: str | None = Field(None, min_length=1, description="a folder under an allowed root")
    manifest: str | None = Field(
        None,
        min_length=1,
        description="JSON Lines or CSV of paths or URLs: a file under an allowed root",
    )


class JobBody(BaseModel):
    """A batch-indexing job: `done` files are in the collection, `failed` ones say why not."""

    id: str
    collection: str
    source: dict[str, Any]
    state: Literal["queued", "running", "done", "cancelled", "failed"]
    total: int | None
    done: int
    failed: int
    unchanged: int
    retries: int = Field(0, description="how often its failed files were tried again")
    rate: float | None = Field(description="files per second over the last seconds")
    eta_s: float | None
    problem: ProblemBody | None = Field(
        None, description="why the job failed, or why one that is queued waits"
    )
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class JobsBody(BaseModel):
    """Jobs, the latest first."""

    jobs: list[JobBody]


class FileError(BaseModel):
    """Why one file of a job failed."""

    reference: str
    code: str
    detail: str


class FileErrorsBody(BaseModel):
    """A page of failures; `next` goes into `after` for the following page."""

    errors: list[FileError]
    next: int | None
