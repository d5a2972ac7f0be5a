"""A generation: one sealed FAISS index file, never changed and never trusted without its checksum.

The file is a plain FAISS index whose ids are the items' keys. It is written aside, synced, read
back and only then given its name; FAISS's own `write_index` into a file can meet a full disk and
say nothing.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import faiss as typed_faiss
import numpy as np
import numpy.typing as npt

from index import keyset, probing
from index.errors import CollectionError
from index.item import Keys, Vector
from index.keyset import KeySet
from index.planner import ROWS, Kind, Plan
from index.probing import VectorsOf

faiss: Any = typed_faiss  # its stubs know the signatures of C++, not the ones that Python has

ITERATIONS = 10
"""Of k-means; more moves the lists' centres, not the recall."""
SEED = 1
ITEMS_AT_ONCE = 1_024
"""Added between two looks at whether to go on: about a second for a graph."""


@dataclass(frozen=True)
class Sealed:
    """A generation as the catalog records it; without a file it is a draft.

    It holds every item that was there when it was made; of those, `high_key` is the greatest key.
    Items above it are the delta; what was removed after `removal_seq` are the tombstones. Of its
    `count` items, removed ones among them, `built` were there when it was last built anew.
    `parameters` of its search were tuned until `recall` (of the ten nearest) was had, in
    `latency_ms` (median of single searches).
    """

    kind: Kind
    why: str
    count: int
    built: int
    high_key: int
    removal_seq: int
    parameters: Mapping[str, int] = field(default_factory=dict)
    recall: float = 1.0
    latency_ms: float = 0.0
    number: int = 0
    file: str = ""
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Generation:
    """A sealed file, loaded. Any number of threads may search it."""

    sealed: Sealed
    index: Any
    memory: npt.NDArray[np.uint8] | None = None
    """What the index lies in, where it has none of its own."""

    def search(
        self,
        query: Vector,
        k: int,
        allowed: KeySet | None,
        removed: KeySet,
        vectors_of: VectorsOf,
    ) -> tuple[Keys, Vector]:
        """At most k best by inner product: keys and scores, in no order.

        `allowed` (without removed items) restricts the search, otherwise those that were `removed`
        are left out. All of k are found wherever so many are eligible. Scores are those of the
        descriptors as they are stored, which `vectors_of` gives (n ascending keys, (n, dim)) where
        the index has only estimates; an item that is not there any more keeps its estimate.
        """
        if allowed is None:
            k = min(k, self.sealed.count)
        else:
            old = allowed.upto(self.sealed.high_key)
            allowed = allowed if old == allowed.size else KeySet(allowed.keys[:old])
            k = min(k, old)
        if k <= 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        asked = probing.Asked(query, k, allowed, removed, self.sealed.count, self.sealed.parameters)
        return probing.PROBES[self.sealed.kind](self.index, asked, vectors_of)

    def with_parameters(self, parameters: Mapping[str, int]) -> "Generation":
        """The same index, searched otherwise."""
        return replace(self, sealed=replace(self.sealed, parameters=parameters))

    def check(self, dim: int) -> None:
        """Have it answer. Raises CollectionError: `generation-untrusted`, when it does not."""
        query = np.full(dim, dim**-0.5, dtype=np.float32)

        def none(_: Keys) -> tuple[Keys, Vector]:
            return keyset.NONE.keys, np.empty((0, dim), dtype=np.float32)

        keys, scores = self.search(query, 1, None, keyset.NONE, none)
        if keys.size != min(1, self.sealed.count) or not np.isfinite(scores).all():
            raise _untrusted(Path(self.sealed.file), "it gives no answer to a search")


@dataclass(frozen=True)
class Work:
    """How building may use the machine: OpenMP's `threads`, for the thread that builds alone.

    `between` is called about every second: it sleeps to hold the work back, and raises to end it.
    """

    threads: int = 1
    between: Callable[[], None] = lambda: None

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Within, FAISS uses so many threads for what this thread asks of it."""
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(self.threads)
        try:
            yield
        finally:
            faiss.omp_set_num_threads(before)


UNHURRIED = Work()
"""One thread, never asked to wait."""


def build(
    plan: Plan,
    dim: int,
    sample: Iterable[Vector],
    chunks: Iterable[tuple[Keys, Vector]],
    work: Work = UNHURRIED,
) -> Any:
    """A FAISS index (inner product) over `chunks` of keys (n,) and vectors (n, dim) float32.

    `sample` is what an IVF trains on; others leave it unread.
    """
    index = faiss.index_factory(dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    with work.limited():
        if plan.row.trained:
            _train(index, np.concatenate(list(sample)), work)
        extend(index, chunks, work)
    return index


def extend(index: Any, chunks: Iterable[tuple[Keys, Vector]], work: Work = UNHURRIED) -> None:
    """Add to an index that nobody searches meanwhile; keys are to be above all that it has."""
    with work.limited():
        for keys, vectors in chunks:
            for start in range(0, keys.size, ITEMS_AT_ONCE):
                part = slice(start, start + ITEMS_AT_ONCE)
                index.add_with_ids(vectors[part], keys[part])
                work.between()


def _train(index: Any, sample: Vector, work: Work) -> None:
    """Find an IVF's lists by k-means, which is most of the work, step by step; then its codes."""
    ivf, turned = faiss.extract_index_ivf(index), sample
    if isinstance(index, faiss.IndexPreTransform):
        turn = index.chain.at(0)
        turn.train(sample)  # at random from a fixed seed: it comes out the same once more below
        turned = turn.apply(sample)
    first = np.random.default_rng(SEED).choice(len(sample), ivf.nlist, replace=False)
    centres = turned[first]
    ivf.cp.niter, ivf.cp.seed = 1, SEED
    for _ in range(ITERATIONS):
        step = faiss.Clustering(ivf.d, ivf.nlist, ivf.cp)
        faiss.copy_array_to_vector(centres.ravel(), step.centroids)
        step.train(turned, faiss.IndexFlatIP(ivf.d))
        centres = faiss.vector_to_array(step.centroids).reshape(ivf.nlist, ivf.d)
        work.between()
    ivf.quantizer.add(centres)
    index.train(sample)
    work.between()


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


def load(path: Path, sealed: Sealed, *, to_extend: bool = False) -> Generation:
    """Load a sealed file that is byte for byte what the catalog recorded.

    Numbers as they are stored lie in memory as in the file, in pages of 2 MiB where Linux has them:
    a graph is walked a fifth faster there. FAISS cannot add to such an index, nor leave fast-scan
    codes where they are: those, and what is loaded `to_extend` it, it copies.

    Raises CollectionError: `generation-untrusted`, for a file that is missing or is any other, or
    that FAISS cannot read.
    """
    try:
        with path.open("rb") as file:
            as_it_is = ROWS[sealed.kind].exact_scores and not to_extend
            held = _held(file) if as_it_is else None
            digest = (
                hashlib.file_digest(file, "sha256") if held is None else hashlib.sha256(held.data)
            )
            if digest.hexdigest() != sealed.sha256:
                reason = f"its SHA-256 is {digest.hexdigest()}, the catalog has {sealed.sha256}"
                raise _untrusted(path, reason)
            if held is not None:
                reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(held), held.size)
                return Generation(sealed, faiss.read_index(reader), held)
            # The file that was hashed, whatever has become of its name meanwhile.
            file.seek(0)
            return Generation(sealed, faiss.read_index(faiss.PyCallbackIOReader(file.read)))
    except (OSError, RuntimeError, MemoryError) as error:  # the latter two: FAISS's
        raise _untrusted(path, str(error)) from error


def _held(file: BufferedReader) -> npt.NDArray[np.uint8]:
    """The bytes of a file in memory of our own, where possible in large pages."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return np.empty(0, dtype=np.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if large := getattr(mmap, "MADV_HUGEPAGE", None):  # Linux has them, and not every kernel of it
        with suppress(OSError):
            memory.madvise(large)
    held = np.frombuffer(memory, dtype=np.uint8)
    return held[: file.readinto(memory)]


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
