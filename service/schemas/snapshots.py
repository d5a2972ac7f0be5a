"""Snapshots as they go over the wire."""

from datetime import datetime

from pydantic import BaseModel, Field


class SnapshotBody(BaseModel):
    """A snapshot in the service's data folder; `pool5 restore` brings it back."""

    name: str = Field(examples=["shoes-20261124-172312-4f2a"])
    collection: str | None = Field(description="the one that was taken; null: all of them")
    created_at: datetime
    collections: dict[str, int] = Field(description="items by collection")
    files: int
    bytes: int = Field(description="of a copy; here most files are hard links, and take no room")


class SnapshotsBody(BaseModel):
    """Snapshots, the latest first."""

    snapshots: list[SnapshotBody]
