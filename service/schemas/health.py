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
    notices: list[str]
    checks: dict[str, str] = Field(description="`ok`, or what went wrong, per check")
