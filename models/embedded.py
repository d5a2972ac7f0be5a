"""The weights that come with pool5: small files beside the code, pinned here by their SHA-256."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Embedded:
    """A file of `FOLDER` and its SHA-256, 64 hex digits."""

    file: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file is installed."""
        return FOLDER / self.file


EMBEDDED: Mapping[str, Embedded] = {
    "sift": Embedded(
        "sift-embedded.safetensors",
        "a86ff02db9be2f4d633f2b2c40bd27f9147fb554ae2d84e25f5dd3e93c0d72c1",
    ),
}
"""By network."""
