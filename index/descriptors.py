"""Descriptors in the catalog: checked, stored as plain bytes, read back in bulk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Text, bindparam, func, select

from index import tables
from index.errors import CollectionError
from index.item import Keys, Vector
from index.prepared import Prepared
from index.space import Space

BYTES_AT_ONCE = 32 * 2**20
UNIT_WITHIN = 1e-3

DESCRIPTORS = tables.descriptors
LAST = 2**63 - 1

_OF_SPACE = (
    select(DESCRIPTORS.c.item_key, DESCRIPTORS.c.vector)
    .where(DESCRIPTORS.c.space_id == bindparam("space_id"))
    .order_by(DESCRIPTORS.c.item_key)
)
AFTER = Prepared(
    _OF_SPACE.where(
        DESCRIPTORS.c.item_key > bindparam("key"), DESCRIPTORS.c.item_key <= bindparam("upto")
    ).limit(bindparam("rows"))
)
OF_KEYS = Prepared(
    _OF_SPACE.where(DESCRIPTORS.c.item_key.in_(tables.listing(bindparam("keys", type_=Text))))
)


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


def are_sound(descriptors: Sequence[Mapping[str, Vector]], spaces: Mapping[str, Space]) -> bool:
    """Whether `check` would refuse none of these items; all at once, which is much faster."""
    if any(each.keys() != spaces.keys() for each in descriptors):
        return False
    for name, space in spaces.items():
        try:
            rows = np.asarray([each[name] for each in descriptors], dtype=np.float32)
        except (TypeError, ValueError):
            return False
        if rows.shape != (len(descriptors), space.dim):
            return False
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        # A number that is not finite makes its norm not finite, and no comparison of it true.
        if not (np.abs(norms - 1) <= UNIT_WITHIN).all():
            return False
    return True


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


def to_bytes(vectors: Sequence[Vector], space: Space) -> Iterator[memoryview]:
    """Each descriptor as the catalog stores it: little-endian, in the space's dtype."""
    rows = np.asarray(vectors, dtype=_stored(space))
    flat, width = memoryview(rows.tobytes()), rows.itemsize * space.dim
    return (flat[at : at + width] for at in range(0, len(flat), width))


def from_bytes(blobs: Sequence[bytes], space: Space) -> npt.NDArray[Any]:
    """(n, dim) in the space's dtype, of n stored descriptors."""
    flat = np.frombuffer(b"".join(blobs), dtype=_stored(space))
    return flat.reshape(len(blobs), space.dim).astype(space.dtype, copy=False)


def after(
    connection: Connection, space_id: int, space: Space, key: int, upto: int = LAST
) -> Iterator[tuple[Keys, Vector]]:
    """All descriptors of a space with a key above `key` and up to `upto`, in the order of keys.

    Yields (n,) int64 keys and (n, dim) float32, at most BYTES_AT_ONCE at a time.
    """
    for keys, stored in stored_after(connection, space_id, space, key, upto):
        yield keys, stored.astype(np.float32, copy=False)


def stored_after(
    connection: Connection, space_id: int, space: Space, key: int, upto: int = LAST
) -> Iterator[tuple[Keys, npt.NDArray[Any]]]:
    """The same, in the dtype of the space."""
    limit = max(1, BYTES_AT_ONCE // (4 * space.dim))
    while True:
        asked = {"space_id": space_id, "key": key, "upto": upto, "rows": limit}
        keys, stored = _read(AFTER.rows(connection, asked), space)
        if keys.size:
            yield keys, stored
            key = int(keys[-1])
        if keys.size < limit:
            return


def of_keys(connection: Connection, space_id: int, space: Space, keys: Keys) -> tuple[Keys, Vector]:
    """Those of `keys` that are there, ascending, with their (n, dim) float32 descriptors."""
    asked = {"space_id": space_id, "keys": tables.packed(keys.tolist())}
    found, stored = _read(OF_KEYS.rows(connection, asked), space)
    return found, stored.astype(np.float32, copy=False)


def count(connection: Connection, space_id: int) -> int:
    """How many descriptors a space has."""
    counting = select(func.count()).where(DESCRIPTORS.c.space_id == space_id)
    return int(connection.execute(counting).scalar_one())


def _read(rows: Sequence[tuple[Any, ...]], space: Space) -> tuple[Keys, npt.NDArray[Any]]:
    if not rows:
        return np.empty(0, dtype=np.int64), np.empty((0, space.dim), dtype=space.dtype)
    keys, blobs = zip(*rows, strict=True)
    return np.array(keys, dtype=np.int64), from_bytes(blobs, space)


def _stored(space: Space) -> np.dtype[np.floating]:
    return np.dtype(space.dtype).newbyteorder("<")
