"""Items with descriptors that a test makes up, and the search that needs no index."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from index import NewItem, Space
from index.item import Vector

DIM = 16
HIGH = Space("high", "resnet152/layer4/gem", "f" * 64, DIM, "float16", {"weights": "untrained"})
LOW = Space("low", "resnet152/layer1/spoc", "e" * 64, 8, "float32")


def unit(seed: int, dim: int = DIM) -> Vector:
    """A random direction, (dim,) float32 of norm 1."""
    return units(seed, 1, dim)[0]


def units(seed: int, n: int, dim: int = DIM) -> Vector:
    """Random directions, (n, dim) float32 of norm 1."""
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(seed: int, n: int, dim: int, clusters: int) -> Vector:
    """Unit vectors (n, dim) float32 about random centres, as descriptors lie; of another `seed`
    others about the same centres."""
    rng = np.random.default_rng(seed)
    centres = units(2, clusters, dim)[rng.integers(0, clusters, n)]
    rows = centres + 0.6 / np.sqrt(dim) * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def content(seed: int) -> str:
    """What stands for the SHA-256 of a picture."""
    return f"{seed:064x}"


def new_item(
    item_id: str,
    seed: int,
    metadata: Mapping[str, Any] | None = None,
    *spaces: Space,
    **changes: Any,
) -> NewItem:
    """An item whose content and descriptors follow from `seed`; in HIGH unless told otherwise."""
    described = {space.name: unit(seed, space.dim) for space in spaces or (HIGH,)}
    fields = {
        "id": item_id,
        "sha256": content(seed),
        "name": f"{item_id}.jpg",
        "source": "upload",
        "stamp": None,
        "metadata": metadata,
        "width": 640,
        "height": 480,
        "descriptors": described,
    }
    return NewItem(**(fields | changes))


def stored(vector: Vector, space: Space = HIGH) -> Vector:
    """A descriptor as it is after being stored in the dtype of its space."""
    return vector.astype(space.dtype).astype(np.float32)


def nearest(query: Vector, gallery: Mapping[str, Vector], k: int) -> list[tuple[str, float]]:
    """The k ids of greatest cosine, by comparing with all of them."""
    scores = {item_id: float(vector @ query) for item_id, vector in gallery.items()}
    return sorted(scores.items(), key=lambda pair: -pair[1])[:k]
