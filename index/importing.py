"""Descriptors from elsewhere, as items without a picture.

An item that is imported has no picture, no width and no height (0). Its `sha256` is that of its
descriptors (float32, little-endian, the spaces in the order of their names) unless a pool5 export
names the one of its picture; so the same descriptors under the same id are `unchanged`, and an
import that was broken off is simply begun again.

All is checked before the first item is written. The vectors stay on disk (memory-mapped, or a row
group at a time) and are committed in batches.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from index import descriptors, metadata
from index.errors import CollectionError
from index.exporting import PREFIX, SPACES
from index.item import LONGEST_ID, NewItem, Outcome, Vector, check_id
from index.space import LARGEST_DIM, Space

IMPORTED = "imported"
"""Instead of a spec and a network where nothing says what made the descriptors."""
FLOATS = ("float16", "float32", "float64")
BATCH_BYTES = 16 * 2**20
"""Descriptors in one commit."""
MOST_IN_BATCH = 4096
MOST_ROWS = 2**31
SHA256 = re.compile("[0-9a-f]{64}")
LONGEST_LINE = 2 * metadata.LARGEST_BYTES

Told = Callable[[int, int], None]
"""Told how many of how many rows are done; each is read twice: checked, then added."""


@dataclass(frozen=True)
class Batch:
    """Some rows: ids, (n, dim) float32 by space, and what else is known of each."""

    ids: list[str]
    vectors: dict[str, Vector]
    known: Sequence[Mapping[str, Any]]


class Rows(Protocol):
    """Something to import; both methods may be called any number of times."""

    count: int
    name: str
    spaces: Mapping[str, Space]
    """What made the descriptors, where the source says so; otherwise only name and dim hold."""
    described: bool

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in their order, `size` at a time."""


@dataclass(frozen=True)
class Imported:
    """What became of the rows; `normalised` had another norm than 1."""

    rows: int
    added: int
    replaced: int
    unchanged: int
    normalised: int


class ArrayRows:
    """`.npy` files of (n, dim), one for each space, with a file of n ids.

    Ids are a text file (one a line), JSON Lines (texts, or objects with `id`) or a `.npy` of texts;
    metadata are JSON Lines of objects.
    """

    described = False

    def __init__(
        self, vectors: Mapping[str, Path], ids: Path, metadata_lines: Path | None = None
    ) -> None:
        """Open the files. Raises CollectionError: `import-invalid`."""
        self._arrays = {name: _mapped(path) for name, path in vectors.items()}
        self._ids, self._metadata = ids, metadata_lines
        self.name = ", ".join(path.name for path in vectors.values())
        first, *others = [(path, self._arrays[name]) for name, path in vectors.items()]
        self.count = len(first[1])
        for path, array in others:
            if len(array) != self.count:
                raise _invalid(
                    path, f"it has {len(array)} rows, and {first[0].name} has {self.count}"
                )
        self.spaces: Mapping[str, Space] = {
            name: Space(name, IMPORTED, "", array.shape[1], "float32")
            for name, array in self._arrays.items()
        }

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows; ids and metadata must be as many. Raises CollectionError: `import-invalid`."""
        ids = _ids(self._ids, self.count)
        said = _objects(self._metadata) if self._metadata else None
        for first in range(0, self.count, size):
            some = [next(ids, None) for _ in range(min(size, self.count - first))]
            known = [{"metadata": next(said, None)} for _ in some] if said else [{}] * len(some)
            if None in some or (said and {"metadata": None} in known):
                short = self._ids if None in some else self._metadata
                raise _invalid(short, f"it has fewer lines than there are rows, {self.count}")
            vectors = {
                name: np.asarray(array[first : first + size], dtype=np.float32)
                for name, array in self._arrays.items()
            }
            yield Batch([str(each) for each in some], vectors, known)
        for more, path in ((ids, self._ids), (said, self._metadata)):
            if more is not None and next(more, None) is not None:
                raise _invalid(path, f"it has more lines than there are rows, {self.count}")


class ParquetRows:
    """A Parquet file that `export` wrote."""

    described = True

    def __init__(self, path: Path) -> None:
        """Read its footer. Raises CollectionError: `import-invalid`."""
        self._path = path
        self.name = path.name
        try:
            with pq.ParquetFile(path) as file:
                self.count = file.metadata.num_rows
                said = json.loads((file.schema_arrow.metadata or {})[SPACES])
                self.spaces: Mapping[str, Space] = {
                    name: Space(**fields) for name, fields in said.items()
                }
                for name, space in self.spaces.items():
                    column = file.schema_arrow.field(f"{PREFIX}{name}")
                    if column.type != pa.list_(pa.float32(), space.dim):
                        raise _invalid(path, f"column {column.name} is {column.type}")
        except (pa.ArrowException, OSError) as error:
            raise _invalid(path, f"it is no Parquet file that can be read ({error})") from error
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _invalid(path, "it is no export of pool5: export one, or use .npy") from error

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows. Raises CollectionError: `import-invalid`."""
        try:
            with pq.ParquetFile(self._path) as file:
                for batch in file.iter_batches(size):
                    yield self._batch(batch)
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise _invalid(self._path, f"it cannot be read ({error})") from error

    def _batch(self, batch: pa.RecordBatch) -> Batch:
        vectors = {
            name: np.asarray(batch[f"{PREFIX}{name}"].flatten(), dtype=np.float32).reshape(
                batch.num_rows, space.dim
            )
            for name, space in self.spaces.items()
        }
        plain = batch.select(["sha256", "name", "source", "metadata", "width", "height"])
        known = [{**row, "metadata": json.loads(row["metadata"])} for row in plain.to_pylist()]
        if any(column.null_count for column in batch.columns):
            raise ValueError("a value is missing")
        return Batch(batch["id"].to_pylist(), vectors, known)


def check_spaces(rows: Rows, spaces: Mapping[str, Space], collection: str, *, own: bool) -> None:
    """Refuse rows that are not, or not surely, descriptors of the collection's spaces.

    `own` is somebody's word for it, where the source says nothing. Raises CollectionError:
    `import-spaces-differ`, `import-unconfirmed`, `collection-fingerprint-differs`.
    """
    theirs = {name: space.dim for name, space in rows.spaces.items()}
    ours = {name: space.dim for name, space in spaces.items()}
    if theirs != ours:
        raise CollectionError(
            "import-spaces-differ",
            f"{rows.name} has (space: dim) {theirs}, collection {collection!r} has {ours}: "
            "give one file for each space",
        )
    imported = any(space.origin.get("network") == IMPORTED for space in spaces.values())
    if imported and not rows.described:
        made = {space.name: space.fingerprint for space in new_spaces(rows)}
        own = own or made == {name: space.fingerprint for name, space in spaces.items()}
    for name, space in spaces.items():
        found = rows.spaces[name].fingerprint
        if not rows.described and not own:
            raise CollectionError(
                "import-unconfirmed",
                f"nothing says what made {rows.name}: if these are descriptors of {space.spec} "
                f"with fingerprint {space.fingerprint}, as in space {name!r} of {collection!r}, "
                "say so (--own), or import into a collection that is not there yet",
            )
        if rows.described and found != space.fingerprint:
            raise CollectionError(
                "collection-fingerprint-differs",
                f"space {name!r} of {collection!r} was made as {space.spec} with fingerprint "
                f"{space.fingerprint}, and {rows.name} has {rows.spaces[name].spec} with {found}: "
                "import into another collection",
            )


def new_spaces(rows: Rows) -> list[Space]:
    """The spaces of a collection that is made for these rows.

    Where nothing says what made them their fingerprint is that of this import alone: they are
    compared with each other, and never with what a network here gives.
    """
    if rows.described:
        return list(rows.spaces.values())
    digest = hashlib.sha256()
    for batch in rows.batches(_batch_size(rows.spaces)):
        for name in sorted(batch.vectors):
            digest.update(batch.vectors[name].tobytes())
    origin = {
        "network": IMPORTED,
        "weights": IMPORTED,
        "notice": "its descriptors were imported: search by items or vectors, not by pictures",
    }
    made = digest.hexdigest()
    return [
        replace(
            space, fingerprint=hashlib.sha256(f"{made} {name}".encode()).hexdigest(), origin=origin
        )
        for name, space in rows.spaces.items()
    ]


def add_rows(
    add: Callable[[Sequence[NewItem]], Sequence[Outcome]],
    rows: Rows,
    *,
    normalise: bool = False,
    told: Told = lambda *_: None,
) -> Imported:
    """Check all rows, then add them in batches.

    Raises CollectionError, naming the row: `import-invalid`, `item-id-invalid`,
    `descriptor-invalid`, `descriptor-zero`, `metadata-invalid`; then nothing is added.
    """
    size = _batch_size(rows.spaces)
    normalised, done = 0, 0
    seen: set[str] = set()
    for batch in rows.batches(size):
        normalised += _checked(batch, rows, done, normalise)
        _check_ids(batch, rows, done, seen)
        done += len(batch.ids)
        told(done, 2 * rows.count)
    counts = dict.fromkeys(("added", "replaced", "unchanged"), 0)
    for batch in rows.batches(size):
        for outcome in add(_items(batch, rows.name, normalise)):
            counts[outcome.status] += 1
        done += len(batch.ids)
        told(done, 2 * rows.count)
    return Imported(rows=rows.count, normalised=normalised, **counts)


def _checked(batch: Batch, rows: Rows, first: int, normalise: bool) -> int:
    """Refuse what cannot be a unit vector; how many have another norm, to be normalised."""
    off = np.zeros(len(batch.ids), dtype=np.bool_)
    for name, vectors in batch.vectors.items():
        finite = np.isfinite(vectors).all(axis=1)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        for wrong, code, why in (
            (~finite, "descriptor-invalid", "is not finite"),
            (norms == 0, "descriptor-zero", "is zero everywhere"),
        ):
            if wrong.any():
                at = int(np.argmax(wrong))
                raise CollectionError(code, _where(rows, batch, first, at, name) + f" {why}")
        uneven = np.abs(norms - 1) > descriptors.UNIT_WITHIN
        if uneven.any() and not normalise:
            at = int(np.argmax(uneven))
            raise CollectionError(
                "descriptor-invalid",
                _where(rows, batch, first, at, name)
                + f" has the L2 norm {norms[at]:.6g}: ask for it to be normalised (--normalise)",
            )
        off |= uneven
    return int(off.sum())


def _check_ids(batch: Batch, rows: Rows, first: int, seen: set[str]) -> None:
    for at, (item_id, known) in enumerate(zip(batch.ids, batch.known, strict=True)):
        check_id(item_id)
        if item_id in seen:
            raise _invalid(rows.name, f"row {first + at} has the id {item_id!r} of an earlier row")
        seen.add(item_id)
        metadata.checked(known.get("metadata") or {})
        if not SHA256.fullmatch(known.get("sha256", "0" * 64)):
            raise _invalid(rows.name, f"row {first + at} has a sha256 that is none")


def _where(rows: Rows, batch: Batch, first: int, at: int, space: str) -> str:
    return f"{rows.name}, row {first + at} (id {batch.ids[at]!r}), space {space!r}: the descriptor"


def _items(batch: Batch, source: str, normalise: bool) -> list[NewItem]:
    if normalise:
        vectors = {name: _unit(each) for name, each in batch.vectors.items()}
    else:
        vectors = batch.vectors
    return [
        NewItem(
            id=item_id,
            sha256=known.get("sha256") or _sha256({n: v[at] for n, v in vectors.items()}),
            name=known.get("name", item_id),
            source=known.get("source", f"import:{source}"),
            stamp=None,
            metadata=known.get("metadata"),
            width=known.get("width", 0),
            height=known.get("height", 0),
            descriptors={name: each[at] for name, each in vectors.items()},
        )
        for at, (item_id, known) in enumerate(zip(batch.ids, batch.known, strict=True))
    ]


def _sha256(vectors: Mapping[str, Vector]) -> str:
    digest = hashlib.sha256()
    for name in sorted(vectors):
        digest.update(np.ascontiguousarray(vectors[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def _unit(vectors: Vector) -> Vector:
    unit: Vector = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _batch_size(spaces: Mapping[str, Space]) -> int:
    floats = sum(space.dim for space in spaces.values())
    return max(1, min(MOST_IN_BATCH, BATCH_BYTES // (4 * floats)))


def _mapped(path: Path) -> npt.NDArray[Any]:
    """(n, dim) of floats, left on disk; a header that promises more than there is is refused."""
    array = _load(path)
    if array.ndim != 2 or not 1 <= array.shape[1] <= LARGEST_DIM or len(array) > MOST_ROWS:
        raise _invalid(path, f"its shape is {array.shape}, not (rows, 1…{LARGEST_DIM})")
    if array.dtype.name not in FLOATS:
        raise _invalid(path, f"its dtype is {array.dtype}, not one of {FLOATS}")
    return array


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        # Not `np.load`, which would also open archives and pickles.
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise _invalid(path, f"it is no .npy file that can be read ({error})") from error
    return array


def _ids(path: Path, count: int) -> Iterator[str]:
    """Ids in any of the three forms."""
    if path.suffix == ".npy":
        array = _load(path)
        if array.dtype.kind != "U" or array.ndim != 1 or array.dtype.itemsize > 4 * LONGEST_ID:
            raise _invalid(
                path, f"it is {array.dtype} of shape {array.shape}, not texts (U) of {(count,)}"
            )
        yield from (str(each) for each in array)
    elif path.suffix in (".jsonl", ".ndjson"):
        for number, line in _lines(path):
            value = _json(path, number, line)
            value = value.get("id") if isinstance(value, dict) else value
            if not isinstance(value, str):
                raise _invalid(
                    path, f"line {number} is neither a text nor an object with one as id"
                )
            yield value
    else:
        yield from (line for _, line in _lines(path))


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in _lines(path):
        value = _json(path, number, line)
        if not isinstance(value, dict):
            raise _invalid(path, f"line {number} is no JSON object")
        yield value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of UTF-8, none held that is longer than anything allowed."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise _invalid(path, f"line {number} has more than {LONGEST_LINE} bytes")
            try:
                yield number, line.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise _invalid(path, f"line {number} is no UTF-8") from error


def _json(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"line {number} is no JSON ({error})") from error


def _invalid(path: Path | str | None, why: str) -> CollectionError:
    return CollectionError("import-invalid", f"{path} cannot be imported: {why}")
