"""What goes over the wire, as OpenAPI shows it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from index.ranking.reranking import METHODS, SHORTLIST, Method, Parameter
from index.ranking.spatial import MOST_VERIFIED, Verification

Metadata = dict[str, Any]
Share = Annotated[float, Field(ge=0, le=1)]
Region = Annotated[
    tuple[Share, Share, Share, Share],
    Field(
        description="x0, y0, x1, y1 as shares of width and height", examples=[[0.2, 0.1, 0.8, 0.9]]
    ),
]
Keep = Literal["nothing", "thumbnail", "original"]
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


class LayerBody(BaseModel):
    """A layer that a descriptor spec may name."""

    name: str = Field(examples=["conv5"])
    node: str = Field(examples=["features.11"], description="torchvision's own name")
    level: str | None = Field(examples=["high"])
    channels: int = Field(examples=[256])
    stride: int | None = Field(examples=[16], description="in pixels; null: no grid")
    receptive_field: int | None = Field(examples=[163], description="in pixels; null: all")


class NetworkBody(BaseModel):
    """A network with the layers that its literature names."""

    name: str = Field(examples=["alexnet"])
    levels: dict[str, str] = Field(examples=[{"high": "alexnet/conv5/gem"}])
    weights: list[str] = Field(examples=[["imagenet1k_v1", "untrained"]], description="at hand")
    pinned: str = Field(examples=["imagenet1k_v1"], description="what `auto` looks for")
    layers: list[LayerBody]


class NetworksBody(BaseModel):
    """Networks of the table in full; `others` are described by `/v1/networks/{name}`."""

    networks: list[NetworkBody]
    others: list[str] = Field(examples=[["densenet121", "vit_b_16"]])


class DescriptorsBody(BaseModel):
    """Descriptors in the order of the pictures; null where `problems` says why there is none."""

    spec: str = Field(examples=["alexnet/conv5/gem"])
    fingerprint: str
    dim: int = Field(examples=[256])
    weights: str = Field(examples=["imagenet1k_v1"])
    notices: list[str]
    descriptors: list[list[float] | None]
    problems: list[ProblemBody | None]


class IndexPolicy(Strict):
    """How a collection is searched."""

    exact_up_to: int = Field(
        default=100_000,
        ge=0,
        description="items up to which every search is exact, then approximate",
    )


class NewCollection(Strict):
    """A collection to be made. What `spaces` leaves out comes from the service's own settings."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "shoes",
                    "spaces": {"high": "resnet152/layer4/gem", "low": "resnet152/layer1/spoc"},
                    "weights": {"resnet152": "imagenet1k_v1"},
                }
            ]
        },
    )
    name: str = Field(description="lower-case letters, digits, - and _, 1 to 64 characters")
    spaces: dict[str, str] | None = Field(None, description="descriptor specs by name of space")
    weights: dict[str, str] = Field(
        default_factory=dict,
        description="per network: auto, imagenet1k_v1, embedded, untrained, or a file in the "
        "weights folder, with :caffe behind it where it wants that preprocessing",
    )
    keep: Keep = Field("thumbnail", description="what is kept of a picture")
    keep_grids: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="spaces, or layers of their networks, at most 8 layers in all, whose "
        "activations are kept of every picture: searches by region of an item and `verify` then "
        "need no forward pass",
        examples=[["high"]],
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="of stored descriptors")
    index: IndexPolicy = IndexPolicy()


class SpaceBody(BaseModel):
    """One kind of descriptor that a collection holds of every item."""

    spec: str = Field(examples=["alexnet/conv5/gem"])
    fingerprint: str
    dim: int
    dtype: str
    weights: str = Field(examples=["imagenet1k_v1"])
    index: dict[str, Any] = Field(description="which index, how many items in each part, and why")


class CollectionBody(BaseModel):
    """A collection as it is now."""

    name: str
    spaces: dict[str, SpaceBody]
    weights: dict[str, str] = Field(examples=[{"alexnet": "untrained"}])
    keep: Keep
    keep_grids: list[str] = Field(examples=[["alexnet/conv5"]], description="network/layer")
    index: IndexPolicy
    items: int
    created_at: datetime
    notices: list[str] = Field(description="what must be known about the weights in use")


class CollectionsBody(BaseModel):
    """All collections."""

    collections: list[CollectionBody]


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


class OutcomesBody(BaseModel):
    """An outcome per picture, in their order."""

    items: list[OutcomeBody]


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


class ExplanationBody(BaseModel):
    """Why two pictures are neighbours."""

    score: float = Field(description="the weighted sum of cosines, from the grids shown here")
    spaces: list[ExplainedSpaceBody] = Field(description="the greatest share first")
    where: Region | None = Field(
        description="the region of the neighbour that is most like the query, by the space of the "
        "greatest share that has a grid; null: none has"
    )


class NewJob(Strict):
    """A batch-indexing job over files that the service can read itself."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"folder": "/pictures/shoes"}]}
    )
    folder: str | None = Field(None, description="a folder under an allowed root")
    manifest: str | None = Field(
        None, description="JSON Lines or CSV of paths or URLs: a file under an allowed root"
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
    rate: float | None = Field(description="files per second over the last seconds")
    eta_s: float | None
    problem: ProblemBody | None = None
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


class LiveBody(BaseModel):
    """The process answers."""

    live: bool


class ReadyBody(BaseModel):
    """Whether a real forward pass and a real search just worked, and what must be said aloud."""

    ready: bool
    version: str
    device: str
    notices: list[str]
    checks: dict[str, str] = Field(description="`ok`, or what went wrong, per check")
