"""Duplicates as they go over the wire: asked for while indexing, and as groups."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from index import Collection, DuplicateCheck
from service.query import default_space
from service.schemas.base import ItemId, Strict


class DuplicatesAsked(Strict):
    """What is done with pictures that duplicate others."""

    duplicates: Literal["allow", "flag", "reject"] = "allow"
    duplicate_threshold: float | None = Field(
        None, gt=0, le=1, description="cosine from which pictures are duplicates"
    )
    duplicate_space: str | None = Field(None, description="space of that cosine")

    def check(self, collection: Collection) -> DuplicateCheck | None:
        """As the collection takes it. Raises CollectionError: `space-unknown`."""
        if self.duplicates == "allow":
            return None
        space = self.duplicate_space or default_space(collection)
        collection.check_spaces([space])
        return DuplicateCheck(self.duplicates, space, self.duplicate_threshold)


class FindDuplicates(Strict):
    """A search for groups of duplicates in a whole collection."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"threshold": 0.97, "space": "high"}]}
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="cosine from which items are duplicates; null: equal files"
    )
    space: str | None = Field(None, description="`high` where there is one, otherwise the first")


class DuplicateBody(BaseModel):
    """The item that another one duplicates."""

    id: ItemId
    score: float = Field(description="cosine, 1 for the same file")
    exact: bool = Field(description="whether it is the same file")


class MemberBody(BaseModel):
    """An item of a group."""

    id: ItemId
    score: float = Field(description="its greatest cosine to another item of the group")


class GroupsBody(BaseModel):
    """A page of groups, the largest first; `next` goes into `after` for the following page."""

    groups: list[list[MemberBody]]
    next: int | None
