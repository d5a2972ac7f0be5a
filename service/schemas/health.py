"""Health as it goes over the wire."""

from pydantic import BaseModel, Field


class LiveBody(BaseModel):
    """The process answers."""

    live: bool


class ReadyBody(BaseModel):
    """Whether a real forward pass and a real search just worked, and what must be said aloud."""

    ready: bool
    version: str
    device: str
    runtimes: dict[str, str] = Field(
        description="what runs each network that is loaded, and in which precision",
        examples=[{"resnet152": "openvino f32"}],
    )
    notices: list[str]
    checks: dict[str, str] = Field(description="`ok`, or what went wrong, per check")
