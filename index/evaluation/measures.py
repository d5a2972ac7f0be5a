"""Measures of one ranking, from the ranks of its positives: those of revisited Oxford/Paris.

Ranks count from 0 and are ascending. A query without positives has no measure: it is left out.
Source: Radenović et al., Revisiting Oxford and Paris, CVPR 2018, and its published evaluation.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from index.errors import EvaluationError

Ranks = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.int64]


def ranks_of(order: Indexes, positives: Indexes, junk: Indexes) -> Ranks:
    """The ranks that positives have once junk is removed from a ranking, ascending.

    `order` is (n,) gallery indexes, best first, all of them; what is junk does not count as
    positive.

    >>> order = np.arange(40)
    >>> ranks_of(order, np.array([0, 2, 6, 10, 20]), np.array([1, 8, 9, 30])).tolist()
    [0, 1, 5, 7, 17]
    """
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    removed = np.sort(rank[np.unique(junk)])
    found = np.sort(rank[np.setdiff1d(positives, junk)])
    lowered: Ranks = found - np.searchsorted(removed, found)
    return lowered


def average_precision(ranks: Ranks) -> float:
    """Area under the precision-recall curve by trapezoids, in [0, 1].

    AP = Σ_j (j/r_j + (j+1)/(r_j+1)) / 2n over the n positives, with j/r := 1 at r = 0.

    >>> round(average_precision(np.array([0, 2, 5])), 6)
    0.677778
    """
    return float(_trapezoids(np.arange(ranks.size), ranks).mean())


def average_precisions(relevant: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """`average_precision` of many rankings at once, (q,); NaN where nothing is relevant.

    `relevant` (q, n) says of each rank whether a positive stands there; junk has been removed.

    >>> average_precisions(np.array([[True, False, True], [False, True, False]])).tolist()
    [0.7916666666666666, 0.25]
    """
    rows, ranks = np.divmod(np.flatnonzero(relevant), relevant.shape[1])
    counts = np.bincount(rows, minlength=len(relevant))
    found = np.arange(rows.size) - (np.cumsum(counts) - counts)[rows]
    areas = np.bincount(rows, _trapezoids(found, ranks), minlength=len(relevant))
    means: npt.NDArray[np.float64] = np.full(counts.shape, np.nan)
    np.divide(areas, counts, out=means, where=counts > 0)
    return means


def _trapezoids(found: Ranks, ranks: Ranks) -> npt.NDArray[np.float64]:
    """The mean of the precisions just before and at a positive; `found` are those before it."""
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1.0)
    heights: npt.NDArray[np.float64] = (before + (found + 1) / (ranks + 1)) / 2
    return heights


def stepped_average_precision(ranks: Ranks) -> float:
    """The mean of the precisions at the positives: AP as a sum of steps, in [0, 1].

    AP = Σ_j (j+1)/(r_j+1) / n: what TREC and scikit-learn compute, never below the trapezoids.

    >>> round(stepped_average_precision(np.array([0, 2, 5])), 6)
    0.722222
    """
    return float(((np.arange(ranks.size) + 1) / (ranks + 1)).mean())


def precision_at(k: int, ranks: Ranks) -> float:
    """The share of positives among the first min(k, rank of the last positive), in [0, 1].

    >>> precision_at(10, np.array([0, 7])), precision_at(5, np.array([0, 7]))
    (0.25, 0.2)
    """
    depth = min(k, int(ranks[-1]) + 1)
    return float((ranks < depth).sum() / depth)


def recall_at(k: int, ranks: Ranks) -> float:
    """The share of all positives that are among the first k, in [0, 1].

    >>> recall_at(4, np.array([0, 1, 2, 9]))
    0.75
    """
    return float((ranks < k).mean())


def ukbench_score(ranks: Ranks) -> float:
    """How many of a query's group of four are among its first four, 0…4: 4 · recall@4.

    Nistér & Stewénius, Scalable Recognition with a Vocabulary Tree, CVPR 2006: the query is in the
    gallery and counts.

    >>> ukbench_score(np.array([0, 1, 2, 9]))
    3.0
    """
    return 4 * recall_at(4, ranks)


RECALLS = np.linspace(0, 1, 101)
"""Where precision is read for a precision-recall curve."""


def interpolated_precision(ranks: Ranks) -> npt.NDArray[np.float64]:
    """Precision at the recalls of `RECALLS`, (101,): the best at this or any higher recall.

    >>> interpolated_precision(np.array([0, 3]))[[0, 50, 51, 100]].tolist()
    [1.0, 1.0, 0.5, 0.5]
    """
    precisions = (np.arange(ranks.size) + 1) / (ranks + 1)
    best = np.maximum.accumulate(precisions[::-1])[::-1]
    # In whole numbers: 0.29 · 100 must not need a thirtieth positive.
    needed = -(-np.arange(101) * ranks.size // 100)
    interpolated: npt.NDArray[np.float64] = best[np.maximum(needed, 1) - 1]
    return interpolated


Measure = Callable[[Ranks], float]

_WHOLE: Mapping[str, Measure] = {
    "mAP": average_precision,
    "mAP-steps": stepped_average_precision,
    "UKBench": ukbench_score,
}
_AT: Mapping[str, Callable[[int, Ranks], float]] = {"mP": precision_at, "recall": recall_at}
_AT_K = re.compile(r"(?P<name>[A-Za-z]+)@(?P<k>[1-9]\d{0,5})")

USUAL = ("mAP", "mAP-steps", "mP@1", "mP@5", "mP@10", "recall@1", "recall@10", "recall@100")
"""What is reported where a protocol does not ask for something of its own."""


def measure(name: str) -> Measure:
    """A measure by its name: mAP, mAP-steps, UKBench, mP@k, recall@k.

    Each is of one query; its mean over queries is what the name says.

    Raises EvaluationError: `evaluation-measure-unknown`.

    >>> measure("recall@4")(np.array([0, 1, 2, 9]))
    0.75
    """
    at = _AT_K.fullmatch(name)
    if name in _WHOLE:
        return _WHOLE[name]
    if at and at["name"] in _AT:
        return partial(_AT[at["name"]], int(at["k"]))
    known = ", ".join([*_WHOLE, *(f"{prefix}@k" for prefix in _AT)])
    raise EvaluationError(
        "evaluation-measure-unknown", f"there is no measure {name!r}: there are {known}"
    )
