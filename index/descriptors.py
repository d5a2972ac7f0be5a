"""Descriptors in the catalog: checked, stored as plain bytes, read back in bulk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, func, select

from index import tables
from index.errors import CollectionError
from index.item import Keys, Vector
from index.space import Space

BYTES_AT_ONCE = 32 * 2**20
UNIT_WITHIN = 1e-3

DESCRIPTORS = tables.descriptors


def check(item_id: str, descriptors: Mapping[str, Vector], spaces: Mapping[str, Space]) -> None:
    """Refuse an item unless it has one finite unit descriptor for every space, and no other.

    Raises CollectionError: `descriptor-invalid`, `descriptor-zero`.
    """
    if descriptors.keys() != spaces.keys():
        raise CollectionError(
            "descriptor-invalid",
            f"item {item_id!r} has descriptors for {sorted(descriptors)}, "
            f"its collection has the spaces {sorted(spaces)}: give one for each",
        )
    for name, vector in descriptors.items():
        where = f"item {item_id!r}, space {name!r}"
        norm = norm_of(where, check_vector(where, vector, spaces[name]))
        if abs(norm - 1) > UNIT_WITHIN:
            raise CollectionError(
                "descriptor-invalid", f"{where}: its L2 norm is {norm:.6g}, normalise it to 1"
            )


def check_vector(where: str, vector: Vector, space: Space) -> Vector:
    """Return `vector` as (dim,) float32. Raises CollectionError: `descriptor-invalid`."""
    plain = np.asarray(vector, dtype=np.float32)
    if plain.shape != (space.dim,):
        raise CollectionError(
            "descriptor-invalid",
            f"{where}: the descriptor has shape {plain.shape}, the space has ({space.dim},)",
        )
    if not np.isfinite(plain).all():
        raise CollectionError("descriptor-invalid", f"{where}: the descriptor is not finite")
    return plain


def norm_of(where: str, vector: Vector) -> float:
    """The L2 norm. Raises CollectionError (`descriptor-zero`) where there is no direction."""
    norm = float(np.linalg.norm(vector))
    if norm == 0:
        raise CollectionError(
            "descriptor-zero",
            f"{where}: the descriptor is zero everywhere, since there is nothing in the picture "
            "that this space describes (one colour has no local features): use another picture, "
            "or a collection without this space",
        )
    return norm


def to_bytes(vector: Vector, space: Space) -> bytes:
    """One descriptor as the catalog stores it: little-endian, in the space's dtype."""
    return np.asarray(vector, dtype=_stored(space)).tobytes()


def from_bytes(blobs: Sequence[bytes], space: Space) -> Vector:
    """(n, dim) float32 from n stored descriptors."""
    flat = np.frombuffer(b"".join(blobs), dtype=_stored(space))
    return flat.reshape(len(blobs), space.dim).astype(np.float32)


def after(
    connection: Connection, space_id: int, space: Space, key: int
) -> Iterator[tuple[Keys, Vector]]:
    """All descriptors of a space with a key above `key`, in the order of keys.

    Yields (n,) int64 keys and (n, dim) float32, at most BYTES_AT_ONCE at a time.
    """
    rows = max(1, BYTES_AT_ONCE // (4 * space.dim))
    query = _of(space_id).order_by(DESCRIPTORS.c.item_key).limit(rows)
    while True:
        keys, vectors = _read(connection, query.where(DESCRIPTORS.c.item_key > key), space)
        if keys.size:
            yield keys, vectors
            key = int(keys[-1])
        if keys.size < rows:
            return


def of_keys(connection: Connection, space_id: int, space: Space, keys: Keys) -> tuple[Keys, Vector]:
    """Those of `keys` that are there, ascending, with their (n, dim) float32 descriptors."""
    query = _of(space_id).where(DESCRIPTORS.c.item_key.in_(tables.listed(keys.tolist())))
    return _read(connection, query.order_by(DESCRIPTORS.c.item_key), space)


def count(connection: Connection, space_id: int) -> int:
    """How many descriptors a space has."""
    counting = select(func.count()).where(DESCRIPTORS.c.space_id == space_id)
    return int(connection.execute(counting).scalar_one())


def _of(space_id: int) -> Select[Any]:
    chosen = select(DESCRIPTORS.c.item_key, DESCRIPTORS.c.vector)
    return chosen.where(DESCRIPTORS.c.space_id == space_id)


def _read(connection: Connection, query: Select[Any], space: Space) -> tuple[Keys, Vector]:
    rows = connection.execute(query).all()
    keys = np.array([key for key, _ in rows], dtype=np.int64)
    return keys, from_bytes([vector for _, vector in rows], space)


def _stored(space: Space) -> np.dtype[np.floating]:
    return np.dtype(space.dtype).newbyteorder("<")
