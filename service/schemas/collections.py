"""Collections as they go over the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from index.planner import Policy
from service.schemas.base import Keep, Strict

DEFAULTS = Policy()
Short = Annotated[str, Field(max_length=500)]


class IndexPolicy(Strict):
    """How a collection is searched. What it can say is explained in docs/collections.md."""

    kind: Literal["auto", "exact", "hnsw", "ivf-pq", "ivf-rabitq"] = Field(
        default=DEFAULTS.kind, description="which index; auto chooses by size, memory and recall"
    )
    exact_up_to: int = Field(
        default=DEFAULTS.exact_up_to,
        ge=0,
        description="items up to which every search is exact, then approximate",
    )
    memory_mib: int = Field(
        default=DEFAULTS.memory_mib,
        gt=0,
        description="MiB of memory that the index of one space may take",
    )
    recall: float = Field(
        default=DEFAULTS.recall,
        ge=0.5,
        le=0.999,
        description="share of the ten nearest that an approximate search is tuned to find",
    )


class IndexBody(BaseModel):
    """The index of a space as it is now."""

    kind: str = Field(examples=["hnsw"])
    why: str = Field(description="why this kind")
    number: int = Field(description="of the generation; 0: none was sealed yet")
    count: int = Field(description="items in the generation, removed ones among them")
    delta: int = Field(description="items beside it that are searched exactly")
    tombstones: int = Field(description="removed items that are masked")
    bytes: int = Field(description="of the generation's file and of memory")
    bytes_per_item: float
    parameters: dict[str, int] = Field(
        description="of its search, as tuned for ten neighbours", examples=[{"efSearch": 96}]
    )
    recall: float | None = Field(description="recall@10 against exact search, when it was tuned")
    latency_ms: float | None = Field(description="median of single searches, then")
    live_recall: float | None = Field(description="recall of the last live searches, if measured")
    live_samples: int = Field(description="how many searches that is of")


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
    spaces: dict[str, Short] | None = Field(
        None, max_length=16, description="descriptor specs by name of space"
    )
    weights: dict[str, Short] = Field(
        default_factory=dict,
        max_length=16,
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
    index: IndexBody


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
