"""Which of several measured specs to use, and what the choosing itself is worth.

Values are (s, q): a measure of s specs on the same q queries. Costs are (s,), positive, of any
unit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.evaluation.groundtruth import GroundTruth, Mask
from index.evaluation.intervals import RESAMPLES, Values, bootstrap
from index.evaluation.measures import Indexes

FOLDS = 5
ALIKE = 1.1
"""Costs that differ by less than this factor are the same: timings are no better."""
CERTAIN = 4.0
"""Standard errors beyond which no interval is needed to tell two means apart."""
RESAMPLES_IN_FOLDS = 1_000


@dataclass(frozen=True)
class Choice:
    """Specs by their row: the highest mean, and the cheapest that cannot be told from it."""

    best: int
    chosen: int


def choose(values: Values, costs: Values, resamples: int = RESAMPLES) -> Choice:
    """The cheapest spec among those whose paired 95 % interval against the best includes 0.

    Of specs that cost the same to within ALIKE, the most accurate.

    >>> steady, shaky = np.full(8, 0.5), np.array([0.7, 0.3] * 4)
    >>> choose(np.stack([steady + 0.01, shaky, steady]), np.array([3.0, 1.0, 2.0]))
    Choice(best=0, chosen=1)
    """
    means = values.mean(axis=1)
    best = int(means.argmax())

    def equal(row: int) -> bool:
        lost = values[best] - values[row]
        error = lost.std() / np.sqrt(lost.size)
        if lost.mean() > CERTAIN * error + 1e-12:
            return False
        return row == best or bootstrap(lost, resamples=resamples).low <= 0

    order = np.argsort(costs, kind="stable")
    cheapest = next(row for row in order if equal(int(row)))
    alike = [
        int(row)
        for row in order
        if costs[cheapest] <= costs[row] <= ALIKE * costs[cheapest]
        and means[row] >= means[cheapest]
        and equal(int(row))
    ]
    return Choice(best, max(alike, key=lambda row: float(means[row])))


def held_out(values: Values, costs: Values, groups: Indexes) -> Values:
    """(q,): each query by the spec that is chosen without it and without all of its group.

    Whoever picks the highest of many means has picked its luck too, and its own figure is too
    high. The mean of these is that of the choosing, on queries that had no part in it. `groups`
    (q,) are at least two; they are dealt to at most FOLDS folds.
    """
    _, number = np.unique(groups, return_inverse=True)
    folds = number % min(FOLDS, int(number.max()) + 1)
    found = np.empty(values.shape[1])
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        chosen = choose(values[:, ~out], costs, RESAMPLES_IN_FOLDS).chosen
        found[out] = values[chosen, out]
    return found


def groups_of(truth: GroundTruth, variant: str) -> Indexes:
    """(q,): queries that look for the same things by one number, their first positive.

    In leave-one-out that is the class, in UKBench the group of four. Every query has a positive.
    """
    return np.array([query.judged[variant].positives.min() for query in truth.queries])


def front(accuracy: Values, costs: npt.NDArray[np.float64]) -> Mask:
    """Pareto's front, (s,): nothing is as accurate and as cheap, and better in one of the two.

    `costs` is (s, c), of c kinds.

    >>> front(np.array([0.5, 0.6, 0.6]), np.array([[1.0], [2.0], [3.0]])).tolist()
    [True, True, False]
    """
    points = np.column_stack([-accuracy, costs])
    no_worse = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0), dtype=np.bool_)
