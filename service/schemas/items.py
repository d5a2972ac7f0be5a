"""Items as they go over the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.schemas.base import ItemId, Metadata, ProblemBody, Strict
from service.schemas.duplicates import DuplicateBody


class ItemBody(BaseModel):
    """One indexed picture."""

    id: ItemId
    name: str
    sha256: str
    source: str = Field(examples=["upload", "file:/pictures/shoe.jpg"])
    width: int = Field(examples=[1200], description="upright, in pixels")
    height: int = Field(examples=[900])
    metadata: Metadata = Field(examples=[{"colour": "red"}])
    added_at: datetime
    duplicate_of: DuplicateBody | None = Field(
        None, description="what it was flagged as a duplicate of when it was added"
    )


class ItemsBody(BaseModel):
    """A page of items; `next` goes into `after` for the following page."""

    items: list[ItemBody]
    next: str | None


class MetadataPatch(Strict):
    """A JSON merge patch (RFC 7396): null removes a key."""

    metadata: Metadata = Field(examples=[{"colour": "red", "price": None}])


class OutcomeBody(BaseModel):
    """What became of one picture."""

    name: str
    id: str | None
    status: Literal["added", "unchanged", "replaced", "failed"]
    problem: ProblemBody | None = None
    duplicate_of: DuplicateBody | None = None


class OutcomesBody(BaseModel):
    """An outcome per picture, in their order."""

    items: list[OutcomeBody]
