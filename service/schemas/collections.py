"""Collections as they go over the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.base import Keep, Strict

Short = Annotated[str, Field(max_length=500)]


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
