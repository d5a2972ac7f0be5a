"""What is right: queries, the gallery, and for each query which of the gallery count.

Every protocol is one `GroundTruth`. Leave-one-out, and Holidays, declare the query's own picture
junk, so that it is removed from its ranking; UKBench declares it positive.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from index.errors import EvaluationError
from index.evaluation.measures import USUAL, Indexes, measure

Mask = npt.NDArray[np.bool_]

PLAIN = "all"
"""The only protocol variant of ground truth that knows no variants."""

NONE: Indexes = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Box:
    """A region of the query's upright picture, in pixels or in shares of its sides."""

    x0: float
    y0: float
    x1: float
    y1: float
    pixels: bool = False

    def shares(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The same in 0…1, cut to the picture.

        Raises EvaluationError (`truth-region-outside`) where nothing of it lies in the picture.

        >>> Box(100, 50, 900, 300, pixels=True).shares(800, 600)
        (0.125, 0.08333333333333333, 1.0, 0.5)
        """
        across, down = (width, height) if self.pixels else (1, 1)
        x0, x1 = max(self.x0 / across, 0.0), min(self.x1 / across, 1.0)
        y0, y1 = max(self.y0 / down, 0.0), min(self.y1 / down, 1.0)
        if not (x0 < x1 and y0 < y1):
            raise EvaluationError(
                "truth-region-outside",
                f"the query region {self.x0:g}, {self.y0:g}, {self.x1:g}, {self.y1:g} is empty or "
                f"outside the picture of {width} × {height} pixels",
            )
        return x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class Judgement:
    """Gallery indexes that are right for a query, and that are neither right nor wrong.

    What is in both is junk: so all queries of a class can share one array of positives.
    """

    positives: Indexes
    junk: Indexes = field(default_factory=lambda: NONE)

    def without(self, own: int) -> "Judgement":
        """The same with the query's own picture junk, unless it is positive."""
        return (
            self if own in self.positives else Judgement(self.positives, np.append(self.junk, own))
        )


@dataclass(frozen=True, eq=False)
class Query:
    """A query picture by name, the region of it that is asked, and a judgement per variant."""

    name: str
    judged: Mapping[str, Judgement]
    region: Box | None = None


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Queries over a gallery of pictures by name; `measures` are what its protocol reports.

    `labels` are those of the gallery, where labels are all that is behind the judgements.

    Raises EvaluationError: `truth-empty`, `truth-name-twice`, `truth-index-outside`,
    `truth-variants-differ`, `evaluation-measure-unknown`.
    """

    name: str
    gallery: Sequence[str]
    queries: Sequence[Query]
    measures: Sequence[str] = USUAL
    labels: Sequence[Hashable | None] | None = None

    def __post_init__(self) -> None:
        if not self.gallery or not self.queries:
            raise EvaluationError(
                "truth-empty",
                f"{self.name}: there are {len(self.queries)} queries and {len(self.gallery)} "
                "pictures in the gallery: at least one of each is needed",
            )
        if len(set(self.gallery)) < len(self.gallery):
            twice, _ = Counter(self.gallery).most_common(1)[0]
            raise EvaluationError(
                "truth-name-twice", f"{self.name}: {twice!r} is in the gallery twice"
            )
        for name in self.measures:
            measure(name)
        checked: set[int] = set()  # queries of a class share their arrays
        for query in self.queries:
            self._check(query, checked)

    def _check(self, query: Query, checked: set[int]) -> None:
        if query.judged.keys() != self.queries[0].judged.keys() or not query.judged:
            raise EvaluationError(
                "truth-variants-differ",
                f"{self.name}: query {query.name!r} is judged for {sorted(query.judged)}, "
                f"the first one for {sorted(self.queries[0].judged)}: judge all for the same",
            )
        for judgement in query.judged.values():
            for indexes in (judgement.positives, judgement.junk):
                if id(indexes) in checked or not indexes.size:
                    continue
                checked.add(id(indexes))
                if indexes.min() < 0 or indexes.max() >= len(self.gallery):
                    raise EvaluationError(
                        "truth-index-outside",
                        f"{self.name}: query {query.name!r} names picture "
                        f"{int(indexes.max())} of a gallery of {len(self.gallery)}",
                    )

    @property
    def variants(self) -> tuple[str, ...]:
        """The protocol variants, such as easy, medium, hard."""
        return tuple(self.queries[0].judged)

    @property
    def own(self) -> Indexes:
        """(q,): where the gallery has the query's own picture as junk, -1 where it has not.

        It is known by its name. Where it is positive, as in UKBench, it is a neighbour like others.

        >>> by_labels("pets", ["a", "b", "c"], ["cat", None, "cat"]).own.tolist()
        [0, 2]
        """
        places = {name: place for place, name in enumerate(self.gallery)}
        found = np.full(len(self.queries), -1, dtype=np.int64)
        for number, query in enumerate(self.queries):
            place = places.get(query.name, -1)
            if all(place in judgement.junk for judgement in query.judged.values()):
                found[number] = place
        return found

    def restricted(self, gallery: Mask, queries: Mask) -> "GroundTruth":
        """The same without the pictures (n,) and queries (q,) whose mask is false.

        Raises EvaluationError (`truth-empty`) where nothing is left.
        """
        moved = np.where(gallery, np.cumsum(gallery) - 1, -1)
        done: dict[int, Indexes] = {}

        def move(indexes: Indexes) -> Indexes:
            if id(indexes) not in done:
                there = moved[indexes]
                done[id(indexes)] = there[there >= 0]
            return done[id(indexes)]

        left = [
            replace(
                query,
                judged={
                    variant: Judgement(move(judgement.positives), move(judgement.junk))
                    for variant, judgement in query.judged.items()
                },
            )
            for query, kept in zip(self.queries, queries, strict=True)
            if kept
        ]
        names = [name for name, kept in zip(self.gallery, gallery, strict=True) if kept]
        labels = self.labels and [
            label for label, kept in zip(self.labels, gallery, strict=True) if kept
        ]
        return replace(self, gallery=names, queries=left, labels=labels)


def by_labels(name: str, pictures: Sequence[str], labels: Sequence[Hashable | None]) -> GroundTruth:
    """Leave-one-out: every labelled picture asks for the others of its label.

    A picture whose label is None is in the gallery and asks nothing.

    >>> truth = by_labels("pets", ["a", "b", "c"], ["cat", "dog", "cat"])
    >>> query = truth.queries[0].judged["all"]
    >>> query.positives.tolist(), query.junk.tolist()
    ([0, 2], [0])
    """
    members: dict[Hashable, list[int]] = {}
    for index, label in enumerate(labels):
        if label is not None:
            members.setdefault(label, []).append(index)
    positives = {label: np.array(indexes, dtype=np.int64) for label, indexes in members.items()}
    queries = [
        Query(picture, {PLAIN: Judgement(positives[label], np.array([index], dtype=np.int64))})
        for index, (picture, label) in enumerate(zip(pictures, labels, strict=True))
        if label is not None
    ]
    return GroundTruth(name, pictures, queries, labels=labels)
