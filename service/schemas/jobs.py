"""Jobs as they go over the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.base import ProblemBody
from service.schemas.duplicates import DuplicatesAsked
from service.stages import Stage


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


class LimitBody(BaseModel):
    """The stage that sets the pace of a job: the others wait for it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stage": "forward", "share": 0.94}]})
    stage: Stage = Field(description="of read, decode, store, forward and commit")
    share: float = Field(ge=0, le=1, description="how much of their time its workers were busy")


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
    limited_by: LimitBody | None = Field(
        None, description="over the same seconds; null where the job does not run"
    )
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
