"""A space: one descriptor specification, computed for every item of a collection."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from index.errors import CollectionError

Dtype = Literal["float16", "float32"]

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
LARGEST_DIM = 65_536


@dataclass(frozen=True)
class Space:
    """Descriptors of one specification; what differs in `fingerprint` never meets here.

    `spec` is the specification in words (`resnet152/layer4/gem`), `fingerprint` the SHA-256 over
    all that the numbers depend on, `dtype` how a descriptor is stored. `origin` is JSON about where
    the numbers come from (the weights' name and SHA-256, say): kept, never read here.
    """

    name: str
    spec: str
    fingerprint: str
    dim: int
    dtype: Dtype = "float16"
    origin: Mapping[str, Any] = field(default_factory=dict)


def check_name(name: str, of: Literal["collection", "space"]) -> None:
    """Refuse a name that cannot stand in an address and in a file name.

    Raises CollectionError: `collection-name-invalid`, `space-name-invalid`.
    """
    if not NAME.fullmatch(name):
        raise CollectionError(
            f"{of}-name-invalid",
            f"{name!r} cannot name a {of}: use 1 to 64 of a-z, 0-9, - and _, and no dash first",
        )


def check_spaces(spaces: Sequence[Space]) -> None:
    """Refuse spaces that no collection can have: none, two of one name, a dim out of range.

    Raises CollectionError: `space-name-invalid`, `space-invalid`.
    """
    if not spaces:
        raise CollectionError("space-invalid", "a collection needs at least one space")
    for space in spaces:
        check_name(space.name, "space")
        if not 1 <= space.dim <= LARGEST_DIM:
            raise CollectionError(
                "space-invalid", f"space {space.name!r}: dim {space.dim} is not in 1…{LARGEST_DIM}"
            )
        if space.dtype not in ("float16", "float32"):
            raise CollectionError(
                "space-invalid",
                f"space {space.name!r}: dtype {space.dtype!r} is not float16 or float32",
            )
    names = [space.name for space in spaces]
    if len(set(names)) < len(names):
        raise CollectionError("space-invalid", f"two spaces have one name: {names}")


def check_same(there: Mapping[str, Space], asked: Sequence[Space], collection: str) -> None:
    """Refuse to open a collection with other spaces than it was made with.

    Raises CollectionError: `collection-fingerprint-differs`, naming both sides.
    """
    for space in asked:
        made = there.get(space.name)
        if made is None:
            raise CollectionError(
                "collection-fingerprint-differs",
                f"collection {collection!r} has no space {space.name!r}, only {sorted(there)}: "
                "make another collection for it",
            )
        if made.fingerprint != space.fingerprint:
            raise CollectionError(
                "collection-fingerprint-differs",
                f"space {space.name!r} of collection {collection!r} was made as {made.spec} with "
                f"fingerprint {made.fingerprint}, and {space.spec} has {space.fingerprint}: use "
                "the weights it was made with, or make another collection",
            )
