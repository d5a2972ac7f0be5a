"""A collection as files that need no pool5 to be read: Parquet, and plain FAISS indexes with ids.

| file            | holds                                                                       |
|-----------------|-----------------------------------------------------------------------------|
| `items.parquet` | a row per item, the oldest first; a fixed-size list of float32 per space    |
| `SPACE.faiss`   | a flat index by inner product; its id n is row n (`faiss.read_index`)       |
| `ids.npy`       | the ids of the rows, as texts: `ids[n]`                                     |
| `export.json`   | spaces with fingerprints, counts, the SHA-256 of each file                  |

All are of one instant. The Parquet file is written a row group at a time; an index is held in
memory as whoever opens it will hold it, one space after the other.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, func, select

from index import descriptors, generation, tables, writing
from index.errors import CollectionError
from index.item import Item, Vector
from index.snapshot import sha256_of, sync_file
from index.space import Space

faiss: Any = typed_faiss

PARQUET = "items.parquet"
IDS = "ids.npy"
ABOUT = "export.json"
SPACES = b"pool5.spaces"
"""Key of the Parquet file's metadata: the spaces, as JSON."""
PREFIX = "descriptor_"
"""Before the name of a space in its column's name, which so is no other column's."""
GROUP_BYTES = 32 * 2**20
"""Descriptors in one row group."""
CODES = {"float16": "SQfp16", "float32": "Flat"}
"""What FAISS keeps: the numbers as the catalog has them."""

ITEMS = tables.items

Numbered = Mapping[str, tuple[int, Space]]
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """What was written, as `export.json` says it."""

    collection: str
    items: int
    spaces: Mapping[str, Space]
    files: Mapping[str, str]
    """SHA-256 by name."""


def export(
    connection: Connection,
    collection: tuple[int, str],
    spaces: Numbered,
    folder: Path,
    told: Told = lambda *_: None,
) -> Exported:
    """Write what the transaction of `connection` sees into `folder`, which is missing or empty.

    The files are put together aside: the folder has all of them or is not there. Raises
    CollectionError: `export-not-empty`, `export-failed`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CollectionError(
            "export-not-empty", f"{folder} is there and not empty: name a folder that is not there"
        )
    folder = folder.resolve()
    place: str | None = None
    number, name = collection
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)
        aside = Path(place) / folder.name
        aside.mkdir()
        count = _count(connection, number)
        written = _Writing(connection, number, spaces, aside, count, told)
        written.rows()
        for space_id, space in spaces.values():
            written.index(space_id, space)
        files = {path.name: sha256_of(path) for path in sorted(aside.iterdir())}
        exported = Exported(name, count, {n: space for n, (_, space) in spaces.items()}, files)
        (aside / ABOUT).write_text(json.dumps(asdict(exported), indent=2))
        for path in aside.iterdir():
            sync_file(path)
        generation.sync_folder(aside)
        aside.replace(folder)
        generation.sync_folder(folder.parent)
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(
            "export-failed", f"{name!r} was not exported ({error}): see to the disk of {folder}"
        ) from error
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)
    return exported


def schema(spaces: Mapping[str, Space]) -> pa.Schema:
    """The columns of a collection with these spaces, which its metadata describe."""
    fields = [pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()]
    fields += [
        pa.field(f"{PREFIX}{name}", pa.list_(pa.float32(), space.dim), nullable=False)
        for name, space in spaces.items()
    ]
    said = json.dumps({name: asdict(space) for name, space in spaces.items()})
    return pa.schema(fields, metadata={SPACES: said.encode()})


_COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "sha256": pa.string(),
    "name": pa.string(),
    "source": pa.string(),
    "metadata": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "added_at": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class _Writing:
    """The files of one export, in the order of the items' keys."""

    connection: Connection
    collection_id: int
    spaces: Numbered
    folder: Path
    count: int
    told: Told

    def rows(self) -> None:
        """Write the Parquet file and the ids, a row group at a time."""
        ids = self._ids_file()
        described = schema({name: space for name, (_, space) in self.spaces.items()})
        done = 0
        with pq.ParquetWriter(self.folder / PARQUET, described, compression="zstd") as writer:
            for items in self._groups():
                writer.write_table(self._table(items, described))
                ids[done : done + len(items)] = [item.id for item in items]
                done += len(items)
                self.told(done, self.count)

    def _ids_file(self) -> npt.NDArray[np.str_]:
        """The ids to be filled in, (count,) texts that lie in their file."""
        path = self.folder / IDS
        if not self.count:
            np.save(path, np.empty(0, dtype="<U1"), allow_pickle=False)  # which cannot be mapped
            return np.empty(0, dtype="<U1")
        longest = select(func.max(func.length(ITEMS.c.id))).where(self._mine())
        width = self.connection.execute(longest).scalar_one()
        ids: npt.NDArray[np.str_] = np.lib.format.open_memmap(
            path, mode="w+", dtype=f"<U{width}", shape=(self.count,)
        )
        return ids

    def index(self, space_id: int, space: Space) -> None:
        """Write the FAISS file of one space."""
        index = faiss.index_factory(space.dim, CODES[space.dtype], faiss.METRIC_INNER_PRODUCT)
        for _, vectors in descriptors.after(self.connection, space_id, space, 0):
            index.add(vectors)
        generation.seal(index, self.folder / f"{space.name}.faiss")

    def _groups(self) -> Iterator[list[Item]]:
        floats = sum(space.dim for _, space in self.spaces.values())
        limit = max(1, min(65_536, GROUP_BYTES // (4 * floats)))
        query = select(ITEMS).where(self._mine()).order_by(ITEMS.c.key).limit(limit)
        key = 0
        while True:
            rows = self.connection.execute(query.where(ITEMS.c.key > key)).all()
            if rows:
                yield [writing.to_item(row) for row in rows]
                key = rows[-1].key
            if len(rows) < limit:
                return

    def _table(self, items: list[Item], described: pa.Schema) -> pa.Table:
        keys = np.array([item.key for item in items], dtype=np.int64)
        columns: list[pa.Array] = [
            pa.array([item.id for item in items], pa.string()),
            pa.array([item.sha256 for item in items], pa.string()),
            pa.array([item.name for item in items], pa.string()),
            pa.array([item.source for item in items], pa.string()),
            pa.array([json.dumps(item.metadata, ensure_ascii=False) for item in items]),
            pa.array([item.width for item in items], pa.int32()),
            pa.array([item.height for item in items], pa.int32()),
            pa.array([item.added_at for item in items], _COLUMNS["added_at"]),
        ]
        for space_id, space in self.spaces.values():
            _, vectors = descriptors.of_keys(self.connection, space_id, space, keys)
            columns.append(_lists(vectors))
        return pa.Table.from_arrays(columns, schema=described)

    def _mine(self) -> Any:
        return ITEMS.c.collection_id == self.collection_id


def _lists(vectors: Vector) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def _count(connection: Connection, collection_id: int) -> int:
    query = select(func.count()).where(ITEMS.c.collection_id == collection_id)
    return int(connection.execute(query).scalar_one())
