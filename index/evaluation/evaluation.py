"""Rankings and ground truth -> an `Evaluation`: every measure of every query, and their means."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from index.errors import EvaluationError
from index.evaluation import measures
from index.evaluation.groundtruth import PLAIN, GroundTruth, by_labels
from index.evaluation.intervals import Difference, Interval, Values, bootstrap, paired
from index.evaluation.measures import Indexes, Ranks
from index.evaluation.ranking import rankings
from index.item import Vector

Progress = Callable[[int], None]
"""Told how many queries are measured."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Measures under one protocol variant.

    `queries` are the (m,) indexes of the queries measured, `values` (m,) float64 per measure,
    `left_out` how many queries had no positives, `precisions` (101,) the mean precision at the
    recalls 0, 0.01, …, 1, each query's interpolated.
    """

    queries: Indexes
    values: Mapping[str, Values]
    left_out: int
    precisions: Values

    def mean(self, measure: str = "mAP") -> float:
        """The mean of a measure over the queries."""
        return float(self.values[measure].mean())

    @cached_property
    def intervals(self) -> Mapping[str, Interval]:
        """Every measure's mean with its 95 % interval."""
        return {name: bootstrap(values) for name, values in self.values.items()}

    def against(self, other: "Evaluation", measure: str = "mAP") -> Difference:
        """How much higher `other` is than this, on the same queries.

        Raises EvaluationError: `evaluation-queries-differ`.
        """
        if not np.array_equal(self.queries, other.queries):
            raise EvaluationError(
                "evaluation-queries-differ",
                f"a paired comparison needs the same queries: {self.queries.size} and "
                f"{other.queries.size} were measured, and they are not the same",
            )
        return paired(self.values[measure], other.values[measure])


def evaluate(
    queries: Vector, gallery: Vector, truth: GroundTruth, progress: Progress | None = None
) -> dict[str, Evaluation]:
    """Rank the whole gallery for every query by exact scores, and measure, per protocol variant.

    `queries` is (q, dim) and `gallery` (n, dim) float32 in the order of `truth`.

    Raises EvaluationError: `evaluation-descriptors-invalid`, and those of `measured`.
    """
    for of, given, asked in (
        ("queries", len(queries), len(truth.queries)),
        ("pictures in the gallery", len(gallery), len(truth.gallery)),
    ):
        if given != asked:
            raise EvaluationError(
                "evaluation-descriptors-invalid",
                f"there are {given} descriptors for {asked} {of} of {truth.name}",
            )
    return measured(rankings(queries, gallery), truth, progress)


def measured(
    orders: Iterable[Indexes], truth: GroundTruth, progress: Progress | None = None
) -> dict[str, Evaluation]:
    """Measure rankings, whatever made them: one full (n,) ranking per query, best first.

    Raises EvaluationError: `evaluation-ranking-truncated` for a ranking that is not of the whole
    gallery, `evaluation-queries-missing`, `truth-no-positives` where no query has any.
    """
    collected = {variant: _Collected(truth.measures) for variant in truth.variants}
    number = -1
    for number, order in enumerate(orders):
        if order.shape != (len(truth.gallery),):
            raise EvaluationError(
                "evaluation-ranking-truncated",
                f"ranking {number} has the shape {order.shape} over a gallery of "
                f"{len(truth.gallery)}: measures need full rankings",
            )
        for variant, judgement in truth.queries[number].judged.items():
            ranks = measures.ranks_of(order, judgement.positives, judgement.junk)
            collected[variant].add(number, ranks)
        if progress:
            progress(number + 1)
    if number + 1 != len(truth.queries):
        raise EvaluationError(
            "evaluation-queries-missing",
            f"there are {number + 1} rankings for {len(truth.queries)} queries of {truth.name}",
        )
    return {
        variant: found.evaluation(f"{truth.name}, {variant}")
        for variant, found in collected.items()
    }


def leave_one_out(descriptors: Vector, labels: Sequence[Hashable]) -> Evaluation:
    """Every picture asks for the others of its label; it is not among its own neighbours.

    `descriptors` is (n, dim) float32 of unit norm, `labels` n of anything that can be compared; a
    label that only one picture has asks nothing.

    Raises EvaluationError: `evaluation-descriptors-invalid`, `truth-no-positives`.

    >>> descriptors = np.float32([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    >>> round(leave_one_out(descriptors, ["a", "a", "b", "b"]).mean("mAP-steps"), 3)
    0.75
    """
    labelled = list(labels)
    truth = by_labels("leave-one-out", [str(row) for row in range(len(labelled))], labelled)
    return evaluate(descriptors, descriptors, truth)[PLAIN]


class _Collected:
    """Measures of one variant while its rankings come in."""

    def __init__(self, names: Sequence[str]) -> None:
        self._measures = {name: measures.measure(name) for name in names}
        self._values: dict[str, list[float]] = {name: [] for name in names}
        self._queries: list[int] = []
        self._left_out = 0
        self._precisions = np.zeros(measures.RECALLS.size)

    def add(self, query: int, ranks: Ranks) -> None:
        if not ranks.size:
            self._left_out += 1
            return
        self._queries.append(query)
        self._precisions += measures.interpolated_precision(ranks)
        for name, measure in self._measures.items():
            self._values[name].append(measure(ranks))

    def evaluation(self, where: str) -> Evaluation:
        if not self._queries:
            raise EvaluationError(
                "truth-no-positives",
                f"{where}: none of {self._left_out} queries has a positive in the gallery: are "
                "there at least two pictures of a label?",
            )
        return Evaluation(
            queries=np.array(self._queries, dtype=np.int64),
            values={name: np.array(values) for name, values in self._values.items()},
            left_out=self._left_out,
            precisions=self._precisions / len(self._queries),
        )
