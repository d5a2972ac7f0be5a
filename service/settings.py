"""All that can be configured: `POOL5_…` variables, a `.env` file, flags of `pool5 serve`."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import limits
import platformdirs
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models import download

MIB = 1024 * 1024

_QUERY = re.compile(r"(?<=\?).+")
Listed = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Validated at start; a wrong value names its variable and stops the service."""

    model_config = SettingsConfigDict(
        env_prefix="POOL5_", env_file=".env", extra="ignore", frozen=True
    )

    data: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("pool5"),
        description="folder of the catalog, the indexes and the kept pictures",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    runtime: Literal["auto", "openvino", "torch", "compiled"] = Field(
        "auto", description="what runs networks: auto is the fastest that computes the same"
    )
    precision: Literal["auto", "f32", "bf16", "f16"] = Field(
        "auto", description="in which they run: auto is the fastest that keeps descriptors"
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("pool5"),
        description="folder of compiled networks, which are made anew where it is lost",
    )
    weights_dir: Path | None = Field(
        None, description="folder of weights files; by default torchvision's own cache"
    )
    weights_mirror: str | None = Field(
        None, description="base URL to download weights from instead of torchvision's"
    )
    offline: bool = Field(False, description="make no connection to anywhere at all")
    image_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="folders that indexing jobs may read, separated as in PATH"
    )
    url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="the only hosts that pictures are fetched from, separated as in PATH"
    )
    url_private: bool = Field(
        False, description="also fetch pictures from private and loopback addresses"
    )
    network: str = Field("alexnet", description="network of the collection `default`")
    weights: str = Field("auto", description="weights of the collection `default`")
    max_picture_bytes: int = Field(64 * MIB, gt=0, description="largest picture file, in bytes")
    max_pixels: int = Field(100_000_000, gt=0, description="largest picture, in pixels")
    max_frames: int = Field(1_000, gt=0, description="most frames of an animated picture")
    max_body_bytes: int = Field(4096 * MIB, gt=0, description="largest request body, in bytes")
    max_files: int = Field(1_000, gt=0, description="most pictures in one upload")
    batch_size: int = Field(16, gt=0, le=1024, description="most pictures in one forward pass")
    queue_size: int = Field(256, gt=0, description="queries waiting before new ones get a 429")
    loaded_networks: int = Field(8, gt=0, description="most networks kept loaded at once")
    decode_threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        gt=0,
        description="processes that decode, in each lane",
    )
    decode_timeout_s: float = Field(30.0, gt=0, description="after which one picture is given up")
    request_timeout_s: float = Field(120.0, gt=0, description="after which a request is given up")
    stuck_s: float = Field(
        120.0, gt=0, description="after which a forward pass is taken for one that never ends"
    )
    recall_share: float = Field(
        0.01, ge=0, le=1, description="share of searches that are checked by exact search"
    )
    traces: str | None = Field(
        None, description="where OpenTelemetry spans go, http://host:4318; otel: as OTEL_… says"
    )
    drain_s: float = Field(
        7.0, gt=0, description="that requests under way are given after SIGTERM; all ends 2 s later"
    )
    drain_notice_s: float = Field(
        0.0, ge=0, description="that /health/ready is 503 before SIGTERM closes the port"
    )
    log_format: Literal["console", "json"] = Field("console", description="how log lines look")

    insecure: bool = Field(
        False, description="ask nobody for a key, on whatever address: anyone may read and write"
    )
    hosts: Listed = Field(
        (), description="names that the service is reached by, besides localhost; commas between"
    )
    cors_origins: Listed = Field(
        (), description="web pages' origins that may call it, https://example.org; commas between"
    )
    trusted_proxies: Listed = Field(
        (), description="addresses or networks whose X-Forwarded-… are believed; commas between"
    )
    open_paths: Listed = Field(
        ("/health/live", "/health/ready"),
        description="which of /health/live, /health/ready and /metrics need no key; commas between",
    )
    rate_read: str = Field("1200/minute", description="reading requests of a key; empty: no limit")
    rate_write: str = Field(
        "6000/minute", description="writing requests of a key, or pictures in them; empty: no limit"
    )
    audit: Literal["file", "stdout", "both", "off"] = Field(
        "file", description="where writes are recorded; the file is audit.jsonl under the data"
    )
    audit_bytes: int = Field(16 * MIB, gt=0, description="of an audit file before the next begins")
    audit_files: int = Field(10, ge=2, description="audit files that are kept")
    max_connections: int = Field(512, gt=0, description="connections before new ones get a 503")
    header_timeout_s: float = Field(10.0, gt=0, description="for a request's line and headers")
    stall_timeout_s: float = Field(20.0, gt=0, description="without a byte of a body, then it ends")
    min_body_rate: int = Field(
        4096, ge=0, description="bytes per second that a body arrives with, at the least"
    )

    @field_validator("hosts", "cors_origins", "trusted_proxies", "open_paths", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """`a, b`; a list stays a list."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Names without scheme and port, since any port of a name is the same machine."""
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                raise ValueError(f"{name!r} is no host name: leave scheme, port and * away")
        return tuple(name.lower().rstrip(".") for name in value)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Each by its name: `*` would let every page that anybody visits in."""
        for origin in value:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", origin):
                raise ValueError(f"{origin!r} is no origin such as https://example.org:8443")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @field_validator("open_paths")
    @classmethod
    def _openable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := set(value) - {"/health/live", "/health/ready", "/metrics"}:
            raise ValueError(f"{sorted(wrong)} cannot be open")
        return value

    @field_validator("rate_read", "rate_write")
    @classmethod
    def _rates(cls, value: str) -> str:
        if value:
            limits.parse(value)
        return value

    def shown(self) -> dict[str, Any]:
        """All settings as they may be logged: without secrets, nor what a URL says beside its path.

        >>> Settings(weights_mirror="https://me:secret@mirror/?token=1").shown()["weights_mirror"]
        'https://***@mirror/?***'
        """
        return {name: _shown(value) for name, value in self.model_dump(mode="json").items()}

    @field_validator("image_roots", "url_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """`/a:/b` as in PATH; a list stays a list."""
        if isinstance(value, str):
            return tuple(part for part in value.split(os.pathsep) if part)
        return value

    @field_validator("image_roots", "data", "cache_dir", "weights_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(path.expanduser().resolve() for path in value)
        return value.expanduser().resolve() if value is not None else None


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {name: _shown(one) for name, one in value.items()}
    if isinstance(value, str) and "://" in value:
        return _QUERY.sub("***", download.shown(value))
    return value
