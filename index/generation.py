"""A generation: one sealed FAISS index file, never changed and never trusted without its checksum.

The file is a plain FAISS index whose ids are the items' keys. It is written aside, synced, read
back and only then given its name; FAISS's own `write_index` into a file can meet a full disk and
say nothing.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np

from index import keyset
from index.errors import CollectionError
from index.item import Keys, Vector
from index.keyset import KeySet
from index.planner import Kind, Plan

faiss: Any = typed_faiss  # its stubs know the signatures of C++, not the ones that Python has

ITERATIONS = 10
"""Of k-means; more moves the lists' centres, not the recall."""
SEED = 1


@dataclass(frozen=True)
class Sealed:
    """A generation as the catalog records it.

    It holds every item that was there when it was made; of those, `high_key` is the greatest key.
    Items above it are the delta; what was removed after `removal_seq` are the tombstones.
    """

    number: int
    file: str
    sha256: str
    kind: Kind
    why: str
    probes: int
    count: int
    bytes: int
    high_key: int
    removal_seq: int


@dataclass(frozen=True)
class Generation:
    """A sealed file, loaded. Any number of threads may search it."""

    sealed: Sealed
    _index: Any

    def search(
        self, query: Vector, k: int, allowed: KeySet | None, tombstones: KeySet
    ) -> tuple[Keys, Vector]:
        """At most k best by inner product: keys and scores, in no order.

        `allowed` (without removed items) restricts the search, otherwise `tombstones`
        are left out. All of k are found wherever so many are eligible: an IVF that comes back with
        fewer is asked again for all of its lists.
        """
        if allowed is None:
            eligible = self.sealed.count - tombstones.size
        else:
            eligible = allowed.upto(self.sealed.high_key)
        k = min(k, eligible)
        if k <= 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        keys, scores = self._ask(query, k, self._probes(eligible), allowed, tombstones)
        if keys.size < k and self.sealed.kind == "ivf":
            keys, scores = self._ask(query, k, self._index.nlist, allowed, tombstones)
        return keys, scores

    def check(self, dim: int) -> None:
        """Have it answer. Raises CollectionError: `generation-untrusted`, when it does not."""
        keys, scores = self.search(np.full(dim, dim**-0.5, np.float32), 1, None, keyset.NONE)
        if keys.size != min(1, self.sealed.count) or not np.isfinite(scores).all():
            raise _untrusted(Path(self.sealed.file), "it gives no answer to a search")

    def _probes(self, eligible: int) -> int:
        """Lists to read: the fewer items are eligible, the more, so that the work stays the same.

        When few are eligible that means all lists: an exact search over just these items.
        """
        if self.sealed.kind == "exact":
            return 0
        share = eligible / self.sealed.count
        return min(int(self._index.nlist), int(np.ceil(self.sealed.probes / share)))

    def _ask(
        self, query: Vector, k: int, probes: int, allowed: KeySet | None, tombstones: KeySet
    ) -> tuple[Keys, Vector]:
        selector = tombstones.outside if allowed is None else allowed.within
        # Parameters belong to this query alone: setting them on the index would reach all others.
        parameters = (
            faiss.SearchParametersIVF(sel=selector, nprobe=probes)
            if self.sealed.kind == "ivf"
            else faiss.SearchParameters(sel=selector)
        )
        scores, keys = self._index.search(query[None], k, params=parameters)
        found = keys[0] >= 0
        return keys[0][found], scores[0][found]


def build(
    plan: Plan, dim: int, sample: Iterable[Vector], chunks: Iterable[tuple[Keys, Vector]]
) -> Any:
    """A FAISS index (inner product) over `chunks` of keys (n,) and vectors (n, dim) float32.

    `sample` is what an IVF trains on; an exact index leaves it unread.
    """
    index = faiss.index_factory(dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.kind == "ivf":
        index.by_residual = False  # residuals would round once more than the catalog does
        index.cp.niter, index.cp.seed = ITERATIONS, SEED
        index.train(np.concatenate(list(sample)))
    for keys, vectors in chunks:
        index.add_with_ids(vectors, keys)
    return index


def seal(index: Any, path: Path) -> tuple[str, int]:
    """Write an index so that `path` is whole or is not there; its SHA-256 and bytes.

    Raises OSError when the disk is full or gives back other bytes than were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".aside")
    digest, size = hashlib.sha256(), 0
    try:
        with aside.open("wb") as file:

            def write(chunk: bytes) -> None:
                nonlocal size
                digest.update(chunk)
                size += file.write(chunk)

            faiss.write_index(index, faiss.PyCallbackIOWriter(write))
            file.flush()
            os.fsync(file.fileno())
        if _sha256_of(aside) != digest.hexdigest():
            raise OSError(f"{aside} reads back other bytes than were written: check the disk")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return digest.hexdigest(), size


def load(path: Path, sealed: Sealed) -> Generation:
    """Load a sealed file that is byte for byte what the catalog recorded.

    Raises CollectionError: `generation-untrusted`, for a file that is missing or is any other.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sealed.sha256:
                raise _untrusted(path, f"its SHA-256 is {found}, the catalog has {sealed.sha256}")
            # The file that was hashed, whatever has become of its name meanwhile.
            file.seek(0)
            return Generation(sealed, faiss.read_index(faiss.PyCallbackIOReader(file.read)))
    except OSError as error:
        raise _untrusted(path, str(error)) from error


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _untrusted(path: Path, reason: str) -> CollectionError:
    return CollectionError("generation-untrusted", f"{path} cannot be trusted: {reason}")
