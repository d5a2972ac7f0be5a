"""Searches and neighbours as they go over the wire."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from index.ranking.reranking import METHODS, SHORTLIST, Method, Parameter
from index.ranking.spatial import MOST_VERIFIED, Verification
from service.schemas.base import ItemId, Metadata, Region, Strict


class Reference(Strict):
    """An example to search by: an indexed item, or a picture somewhere else."""

    item: ItemId | None = None
    url: str | None = Field(None, max_length=2000)


class Expansion(Strict):
    """Query expansion: the mean with the first `n` (Chum 2007), by sim^α (Radenović 2018)."""

    n: int = Field(10, ge=1, le=200)
    alpha: float = Field(0.0, ge=0, le=100)


def _parameter_schema(parameter: Parameter) -> dict[str, Any]:
    return {
        "type": "integer" if parameter.whole else "number",
        "minimum": parameter.lowest,
        "maximum": parameter.highest,
        "default": parameter.default,
        "description": parameter.meaning,
    }


def _method_schema(name: str, method: Method) -> dict[str, Any]:
    parameters = {"shortlist": SHORTLIST, **method.parameters}
    return {
        "type": "object",
        "title": name,
        "description": f"{method.source}. A score is {method.meaning}.",
        "properties": {
            "method": {"const": name},
            **{key: _parameter_schema(parameter) for key, parameter in parameters.items()},
        },
        "required": ["method"],
        "additionalProperties": False,
    }


Rerank = Annotated[
    str | dict[str, Any],
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(METHODS)},
                *(_method_schema(name, method) for name, method in METHODS.items()),
            ]
        }
    ),
]
"""A method by its name, or with parameters; `Collection.search` says what is wrong with it."""


class Verify(Strict):
    """Spatial verification: the first `n` again, by how many of their parts stand alike."""

    n: int = Field(Verification.n, ge=1, le=MOST_VERIFIED, description="length of the short list")
    inliers: int = Field(
        Verification.inliers,
        ge=1,
        le=10_000,
        description="fewest that verify a neighbour: less is chance",
    )
    layer: str | None = Field(
        None,
        max_length=100,
        description="a space, or network/layer; the first of `keep_grids`, or `mid`, if left out",
        examples=["alexnet/conv4"],
    )


class SearchOptions(Strict):
    """What every search can be told."""

    k: int = Field(10, ge=1, le=1000, description="how many neighbours")
    offset: int = Field(0, ge=0, le=10_000, description="how many to pass over, for paging")
    space: str | dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None,
        description="a space, or weights over spaces; `high` or the first one where left out",
        examples=["high", {"high": 0.7, "low": 0.3}],
    )
    region: Region | None = Field(None, description="search by this part of the picture")
    filter: dict[str, Any] | None = Field(
        None, description="on metadata", examples=[{"colour": "red", "price": {"lt": 50}}]
    )
    expansion: Expansion | None = Field(None, description="ask again with what was found")
    rerank: Rerank | None = Field(
        None,
        description="judge the best candidates anew, each by its neighbours too",
        examples=["diffusion", {"method": "k-reciprocal", "shortlist": 300}],
    )
    verify: Verify | None = Field(None, description="put first what shows the same thing or place")


class SearchBody(SearchOptions):
    """A search without an upload. Neighbours never include the items searched by."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"item": "4f0c9a6e7d21", "k": 12}]}
    )
    item: ItemId | None = Field(None, description="an indexed picture")
    url: str | None = Field(None, max_length=2000, description="a picture to be fetched")
    positives: list[ItemId | Reference] = Field(
        default_factory=list, max_length=100, description="ids or references to be like"
    )
    negatives: list[ItemId | Reference] = Field(
        default_factory=list, max_length=100, description="ids or references to be unlike"
    )


class NeighbourBody(BaseModel):
    """A search result; `score` is the cosine similarity, -1…1, unless `rerank` gave another."""

    id: str = Field(examples=["4f0c9a6e7d21"])
    score: float = Field(examples=[0.93])
    similarity: float = Field(examples=[0.93], description="the cosine, whatever the score is")
    name: str = Field(examples=["shoe.jpg"])
    metadata: Metadata = Field(examples=[{"colour": "red"}])
    width: int = Field(description="of the whole picture, upright, in pixels")
    height: int
    inliers: int | None = Field(
        None, description="of spatial verification; null: not asked, or nothing kept can be read"
    )


class TookBody(BaseModel):
    """Milliseconds that a search spent where."""

    decode: float
    forward: float
    search: float


class NeighboursBody(BaseModel):
    """The nearest items, best first."""

    neighbours: list[NeighbourBody]
    space: str | dict[str, float]
    took_ms: TookBody
    more: bool = Field(description="whether another page follows")
