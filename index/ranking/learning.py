"""Weights over several spaces, learned from labelled items, as `space={name: weight}` takes them.

The weights maximise the leave-one-out mAP itself, by a pattern search over the simplex: they are
few, so it is cheap, and nothing stands in for the measure (see docs/decisions, learned weights).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.errors import CollectionError
from index.evaluation.measures import average_precisions
from index.item import Vector

Numbers = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

SHARES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
"""Of the whole weight, moved from one space to another: coarse to fine."""
LEAST_GAIN = 1e-6
FOLDS = 5
EACH = 10
"""Items of a class in a `sample`: enough to tell how a class is ranked."""


@dataclass(frozen=True)
class Learned:
    """Weights of sum 1 and what they are worth.

    `mean_ap` is the mAP of `weights` on all that they were learned from. The three arrays (n,) are
    average precisions of each item as a query, NaN where no other item has its label:
    `held_out` by weights learned without the query's class, `single` by the one space that was the
    best without the query's class, `even` by equal weights. So `gain` is an unbiased estimate for
    classes never seen, and the arrays are pairs for a paired test.
    """

    weights: dict[str, float]
    mean_ap: float
    held_out: Numbers
    single: Numbers
    even: Numbers

    @property
    def gain(self) -> float:
        """Held-out mAP beyond that of the best single space."""
        return float(np.nanmean(self.held_out) - np.nanmean(self.single))


def learn_weights(descriptors: Mapping[str, Vector], labels: Sequence[Hashable | None]) -> Learned:
    """Weights over spaces that put items of one label before all others.

    `descriptors` are (n, dim) float32 of norm 1 per space, in the order of the n `labels`; what is
    labelled None distracts and asks nothing. Folds are of whole classes. Takes some hundred sorts
    of n × n numbers in each of FOLDS + 1 fits: draw a `sample` from a large collection.

    Raises CollectionError (`labels-invalid`) where there are fewer than two labels that two items
    have, or not one label for each descriptor.

    >>> rng, labels = np.random.default_rng(0), ["a", "a", "b", "b", "c", "c"]
    >>> good = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    >>> noise = rng.standard_normal((6, 3)).astype(np.float32)
    >>> learn_weights({"good": good, "noise": noise}, labels).weights
    {'good': 1.0}
    """
    classes = _classes(descriptors, labels)
    names = list(descriptors)
    cosines = np.array([rows @ rows.T for rows in descriptors.values()])
    counts = np.bincount(classes)
    folds_of_class = np.empty(counts.size, dtype=np.int64)
    folds_of_class[np.argsort(-counts, kind="stable")] = np.arange(counts.size) % FOLDS
    fold = np.where(counts[classes] > 1, folds_of_class[classes], -1)
    usable = np.flatnonzero(fold >= 0)
    held_out, single, even = (np.full(len(classes), np.nan) for _ in range(3))
    for number in np.unique(fold[usable]):
        learning = _Task.of(cosines, classes, np.flatnonzero((fold >= 0) & (fold != number)))
        testing = _Task.of(cosines, classes, np.flatnonzero(fold == number))
        held_out[testing.queries] = testing.precisions(_best(learning))
        single[testing.queries] = testing.precisions(_best_corner(learning))
        even[testing.queries] = testing.precisions(_centre(len(names)))
    everything = _Task.of(cosines, classes, usable)
    weights = _best(everything)
    return Learned(
        weights={
            name: float(weight) for name, weight in zip(names, weights, strict=True) if weight > 0
        },
        mean_ap=everything.mean_ap(weights),
        held_out=held_out,
        single=single,
        even=even,
    )


def sample(labels: Sequence[Hashable | None], most: int, seed: int = 0) -> Classes:
    """(m,) ascending places of at most `most` items to learn weights from.

    Of classes drawn at random, EACH items or an even share of `most`, whichever is more; half of
    the sample at most are items that no other has the label of.

    >>> sample(["a", "a", "b", "b", "c", None, None], 4).size
    4
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    members: dict[Hashable, list[int]] = {}
    for at in rng.permutation(len(labels)).tolist():
        members.setdefault(_own(labels[at]), []).append(at)
    alone = [places[0] for places in members.values() if len(places) == 1][: most // 2]
    classes = [places for places in members.values() if len(places) > 1]
    rng.shuffle(classes)
    each = max(EACH, most // max(1, len(classes)))
    drawn = [at for places in classes for at in places[:each]][: most - len(alone)]
    return np.sort(np.array(drawn + alone, dtype=np.int64))


def _own(label: Hashable | None) -> Hashable:
    """What is labelled None is alike to nothing."""
    return object() if label is None else label


@dataclass(frozen=True)
class _Task:
    """Queries (q,) against all n items: cosines (spaces, q, n), classes (n,)."""

    spaces: Vector
    classes: Classes
    queries: Classes

    @classmethod
    def of(cls, cosines: Vector, classes: Classes, queries: Classes) -> "_Task":
        return cls(cosines[:, queries], classes, queries)

    def precisions(self, weights: Numbers) -> Numbers:
        """(q,) average precisions under weights (spaces,); no query is its own neighbour."""
        scores = np.tensordot(weights.astype(np.float32), self.spaces, axes=1)
        scores[np.arange(self.queries.size), self.queries] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
        return average_precisions(self.classes[order] == self.classes[self.queries, np.newaxis])

    def mean_ap(self, weights: Numbers) -> float:
        return float(self.precisions(weights).mean())


def _best(task: _Task) -> Numbers:
    """Move ever smaller shares between two spaces, as long as that gains (Hooke & Jeeves 1961)."""
    count = len(task.spaces)
    starts = [_best_corner(task), _centre(count)]
    best = max(starts, key=task.mean_ap)
    reached = task.mean_ap(best)
    for share in SHARES:
        while True:
            moves = [
                _moved(best, giver, taker, share)
                for giver in np.flatnonzero(best).tolist()
                for taker in range(count)
                if taker != giver
            ]
            values = [task.mean_ap(move) for move in moves]
            if not moves or max(values) < reached + LEAST_GAIN:
                break
            best, reached = moves[int(np.argmax(values))], max(values)
    return best


def _best_corner(task: _Task) -> Numbers:
    """The single space of the highest mAP."""
    return max(np.eye(len(task.spaces)), key=task.mean_ap)


def _centre(count: int) -> Numbers:
    return np.full(count, 1 / count)


def _moved(weights: Numbers, giver: int, taker: int, share: float) -> Numbers:
    moved = weights.copy()
    amount = min(share, weights[giver])
    moved[giver] -= amount
    moved[taker] += amount
    moved[moved < SHARES[-1] / 8] = 0  # rounding leaves crumbs
    moved /= moved.sum()
    return moved


def _classes(descriptors: Mapping[str, Vector], labels: Sequence[Hashable | None]) -> Classes:
    """(n,) a number for each label. Raises CollectionError: `labels-invalid`."""
    if not descriptors or any(len(rows) != len(labels) for rows in descriptors.values()):
        given = {name: len(rows) for name, rows in descriptors.items()}
        raise CollectionError(
            "labels-invalid", f"{len(labels)} labels for {given} descriptors: give one for each"
        )
    numbers: dict[Hashable, int] = {}
    classes = np.array(
        [numbers.setdefault(_own(label), len(numbers)) for label in labels], dtype=np.int64
    )
    if (np.bincount(classes, minlength=1) > 1).sum() < 2:
        raise CollectionError(
            "labels-invalid", "weights are learned from two labels or more with two items each"
        )
    return classes
