"""What the schemas of several routes share."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Metadata = dict[str, Any]
Share = Annotated[float, Field(ge=0, le=1)]
Region = Annotated[
    tuple[Share, Share, Share, Share],
    Field(
        description="x0, y0, x1, y1 as shares of width and height", examples=[[0.2, 0.1, 0.8, 0.9]]
    ),
]
Keep = Literal["nothing", "thumbnail", "original"]
LARGEST_INTEGER = 2**63 - 1
"""That SQLite can compare with."""
ItemId = Annotated[str, Field(min_length=1, max_length=200, examples=["4f0c9a6e7d21"])]


class Strict(BaseModel):
    """A request: a field that nobody reads is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")


class ProblemBody(BaseModel):
    """Problem details (RFC 9457). `code` is stable; `detail` names the input and the remedy."""

    type: str = Field(examples=["/problems/collection-unknown"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no collection 'shoes'"])
    code: str = Field(examples=["collection-unknown"])
    instance: str | None = Field(None, examples=["/v1/collections/shoes"])
