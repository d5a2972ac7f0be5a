"""The weights that come with pool5: small files beside the code, pinned here by their SHA-256."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from models.preprocess import IMAGENET, Preprocessing

FOLDER = Path(__file__).with_name("weights")
"""Where the files are, and the whitenings that were fitted for them."""


@dataclass(frozen=True)
class Embedded:
    """A file of `FOLDER` and its SHA-256, 64 hex digits.

    `preprocessing` is what it wants of its pictures where that is not the network's own, `levels`
    the `layer/pooling…` that search best with it where those are not the network's own, `notice`
    what must be said aloud of it.
    """

    file: str
    sha256: str
    preprocessing: Preprocessing | None = None
    levels: Mapping[str, str] = field(default_factory=dict)
    notice: str | None = None

    @property
    def path(self) -> Path:
        """Where the file is installed."""
        return FOLDER / self.file


EMBEDDED: Mapping[str, Embedded] = {
    "alexnet": Embedded(
        "alexnet-embedded.safetensors",
        "884928c40eca3e43ece561e9f9caf7120fb8c974623fc688e836cef283876b2c",
        preprocessing=replace(IMAGENET, resize=160, crop=160),
        levels={"high": "conv1+conv2+conv3+conv4+conv5/rmac/pca104"},
        notice="alexnet runs on the embedded weights, which come with pool5 and were trained on "
        "little: they find the same thing and what looks alike, and know few categories",
    ),
    "sift": Embedded(
        "sift-embedded.safetensors",
        "a86ff02db9be2f4d633f2b2c40bd27f9147fb554ae2d84e25f5dd3e93c0d72c1",
    ),
}
"""By network."""
