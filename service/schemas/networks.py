"""Networks and descriptors as they go over the wire."""

from pydantic import BaseModel, Field

from service.schemas.base import ProblemBody


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
