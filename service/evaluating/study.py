"""One study: several specs on the same pictures and the same ground truth."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from index import Collection
from index.errors import EvaluationError
from index.evaluation import (
    Box,
    Evaluation,
    GroundTruth,
    Refinement,
    by_labels,
    evaluate,
    measured,
)
from index.evaluation.measures import Indexes
from index.evaluation.readers import read_truth
from index.evaluation.readers.naming import holidays, ukbench
from models import Descriptors, Extractor
from service.evaluating.album import Album, CollectionAlbum, FolderAlbum
from service.evaluating.describing import Failure, Picture, Progress, describe_all

FOLDERS = "folders"
NAMED: Mapping[str, Callable[[Sequence[str]], GroundTruth]] = {
    "ukbench": ukbench,
    "holidays": holidays,
}
"""Ground truth that file names tell, by the word that asks for it."""


@dataclass(frozen=True, eq=False)
class Tried:
    """One spec: where its numbers come from, its descriptors, and what was measured by variant.

    `space` is what its space is called: in a collection by its name, elsewhere by the spec.
    `refinement` is what the search did beyond comparing descriptors.
    """

    space: str
    spec: str
    fingerprint: str
    dim: int
    weights: str
    weights_sha256: str
    notice: str | None
    queries: Descriptors
    gallery: Descriptors
    evaluations: Mapping[str, Evaluation]
    refinement: Refinement | None = None

    @property
    def title(self) -> str:
        """The spec, and what was done beyond it."""
        return f"{self.spec} + {self.refinement.name}" if self.refinement else self.spec


@dataclass(frozen=True, eq=False)
class Study:
    """`truth` is of the pictures that have descriptors; `failed` are those that have none.

    What is refined stands right after the same without. `titles` are what people read for the names
    of the ground truth, where that is something else.
    """

    truth: GroundTruth
    tried: Sequence[Tried]
    failed: Sequence[Failure]
    album: Album
    titles: Mapping[str, str]


def truth_of(album: FolderAlbum, said: str) -> GroundTruth:
    """Ground truth over a folder: `folders`, `ukbench`, `holidays`, or a file that is read.

    A query that the gallery has under another name, such as one with a suffix, is junk there unless
    that is said to be positive.

    Raises EvaluationError and OSError.
    """
    if said == FOLDERS:
        return by_labels(album.folder.name, album.names, album.labels)
    if said in NAMED:
        return NAMED[said](album.names)
    return _without_themselves(read_truth(Path(said)), album)


def _without_themselves(truth: GroundTruth, album: FolderAlbum) -> GroundTruth:
    """Such a query has the gallery's name from here on.

    Where the names are the same, the file's own format has said what that means.
    """
    numbers = {path: n for n, name in enumerate(truth.gallery) if (path := album.path(name))}
    gallery = set(truth.gallery)
    return replace(
        truth,
        queries=[
            query
            if query.name in gallery or (own := numbers.get(album.path(query.name) or "")) is None
            else replace(
                query,
                name=truth.gallery[own],
                judged={v: j.without(own) for v, j in query.judged.items()},
            )
            for query in truth.queries
        ],
    )


@dataclass(frozen=True, eq=False)
class Sample:
    """The pictures of a folder that have descriptors, and the ground truth over them.

    `vectors` are (n, dim) by space for the n pictures asked for; `gallery` and `queries` say which
    of them those of `truth` are.
    """

    truth: GroundTruth
    gallery: Indexes
    queries: Indexes
    vectors: dict[str, Descriptors]
    failed: Sequence[Failure]


def sample_folder(
    extractor: Extractor,
    album: FolderAlbum,
    truth: GroundTruth,
    *,
    threads: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Sample:
    """Describe every picture once, by all specs of `extractor`.

    Pictures that fail are taken out of the ground truth. Raises EvaluationError (`truth-empty`,
    `truth-pictures-missing`) where nothing is left.
    """
    pictures, gallery, queries = _needed(album, truth)
    described = describe_all(
        extractor, pictures, threads=threads, batch_size=batch_size, progress=progress
    )
    if not described.kept[gallery].any() or not described.kept[queries].any():
        first = described.failed[0]
        raise EvaluationError(
            "truth-pictures-missing",
            f"no picture that {truth.name} asks for could be described in {album.folder}; the "
            f"first, {first.name}: {first.detail}",
        )
    left = truth.restricted(described.kept[gallery], described.kept[queries])
    gallery, queries = gallery[described.kept[gallery]], queries[described.kept[queries]]
    return Sample(left, gallery, queries, described.vectors, described.failed)


def study_folder(
    extractor: Extractor,
    album: FolderAlbum,
    truth: GroundTruth,
    *,
    threads: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Study:
    """Describe every picture once, by all specs of `extractor`, and measure each spec.

    Raises as `sample_folder` does.
    """
    sample = sample_folder(
        extractor, album, truth, threads=threads, batch_size=batch_size, progress=progress
    )
    tried = []
    for name, space in extractor.spaces.items():
        vectors = sample.vectors.pop(name)
        asked, among = vectors[sample.queries], vectors[sample.gallery]
        tried.append(
            Tried(
                space=name,
                spec=str(space.spec),
                fingerprint=space.fingerprint,
                dim=space.dim,
                weights=space.weights.name,
                weights_sha256=space.weights.sha256,
                notice=space.weights.notice,
                queries=asked,
                gallery=among,
                evaluations=evaluate(asked, among, sample.truth),
            )
        )
    return Study(sample.truth, tried, sample.failed, album, {})


def _needed(album: FolderAlbum, truth: GroundTruth) -> tuple[list[Picture], Indexes, Indexes]:
    """Every picture once, and which of them the gallery (n,) and the queries (q,) are."""
    numbers: dict[tuple[str, Box | None], int] = {}

    def number(name: str, region: Box | None) -> int:
        return numbers.setdefault((name, region), len(numbers))

    gallery = [number(name, None) for name in truth.gallery]
    queries = [number(query.name, query.region) for query in truth.queries]
    pictures = [Picture(name, partial(album.read, name), region) for name, region in numbers]
    return pictures, np.array(gallery, dtype=np.int64), np.array(queries, dtype=np.int64)


def study_collection(
    collection: Collection, label: str, spaces: Sequence[str] | None = None
) -> Study:
    """Measure the spaces of a collection, leave-one-out by a member of its items' metadata.

    Items without that member are in the gallery and ask nothing. Raises CollectionError
    (`space-unknown`, `truth-empty`, `truth-no-positives`).
    """
    chosen = list(spaces or collection.spaces)
    collection.check_spaces(chosen)
    album = CollectionAlbum(collection)
    ids = list(album.items)
    labels = [_label(album.items[item].metadata.get(label)) for item in ids]
    if not any(each is not None for each in labels):
        raise EvaluationError(
            "truth-empty",
            f"no item of the collection {collection.name!r} has {label!r} in its metadata: choose "
            "another --label",
        )
    truth = by_labels(collection.name, ids, labels)
    asking = np.array([each is not None for each in labels])
    tried = []
    for name in chosen:
        space = collection.spaces[name]
        vectors = collection.vectors(ids, name)
        asked = vectors[asking]
        tried.append(
            Tried(
                space=name,
                spec=space.spec,
                fingerprint=space.fingerprint,
                dim=space.dim,
                weights=str(space.origin.get("weights", "")),
                weights_sha256=str(space.origin.get("weights_sha256", "")),
                notice=space.origin.get("notice"),
                queries=asked,
                gallery=vectors,
                evaluations=evaluate(asked, vectors, truth),
            )
        )
    titles = {item.id: str(item.metadata.get("path", item.name)) for item in album.items.values()}
    return Study(truth, tried, [], album, titles)


def refined(study: Study, refinement: Refinement) -> Study:
    """The same with every spec twice: as it was, and after it with `refinement`."""
    truth = study.truth
    own = truth.own
    tried: list[Tried] = []
    for plain in study.tried:
        orders = refinement.rankings(plain.queries, plain.gallery, own)
        evaluations = measured(orders, truth)
        tried += [plain, replace(plain, evaluations=evaluations, refinement=refinement)]
    return replace(study, tried=tried)


def _label(value: Any) -> Hashable | None:
    """Metadata is JSON: a list or an object labels by what it holds."""
    return repr(value) if isinstance(value, list | dict) else value
