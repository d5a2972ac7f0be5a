"""Explanations as they go over the wire."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.base import ItemId, Region, Strict


class ExplainBody(Strict):
    """Which two pictures are compared, and in which spaces."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"item": "4f0c9a6e7d21", "neighbour": "a83be01c55d2"}]},
    )
    item: ItemId | None = Field(None, description="an indexed picture as the query")
    url: str | None = Field(None, max_length=2000, description="a picture to be fetched as such")
    neighbour: ItemId = Field(description="the item that was found")
    space: str | dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="as in the search", examples=["high", {"high": 0.7, "low": 0.3}]
    )
    region: Region | None = Field(None, description="of the query, as in the search")


class HeatmapBody(BaseModel):
    """What each position of a picture's grid adds: `grid` and `offset` sum to the space's score."""

    grid: list[list[float]] = Field(
        description="rows from top to bottom; below 0 speaks against", examples=[[[0.1, 0.7]]]
    )
    box: Region = Field(description="what of the picture the grid covers, in even cells")
    offset: float = Field(description="what belongs to no position: the mean of the whitening")


class ExplainedSpaceBody(BaseModel):
    """One space's part in the score."""

    space: str = Field(examples=["high"])
    weight: float = Field(description="the weights of all spaces sum to 1", examples=[0.7])
    score: float = Field(description="the cosine in this space", examples=[0.93])
    share: float = Field(
        description="of the whole score, by weight × score; the sizes of all sum to 1"
    )
    query: HeatmapBody
    neighbour: HeatmapBody
    scales_left_out: list[float] = Field(
        description="a space of several scales is explained at scale 1 alone: these are the others "
        "that its scores in a search are made from; empty for any other space",
        examples=[[]],
    )


class ExplanationBody(BaseModel):
    """Why two pictures are neighbours."""

    score: float = Field(description="the weighted sum of cosines, from the grids shown here")
    spaces: list[ExplainedSpaceBody] = Field(description="the greatest share first")
    where: Region | None = Field(
        description="the region of the neighbour that is most like the query, by the space of the "
        "greatest share that has a grid; null: none has"
    )
