"""How sure a mean over queries is: bootstrap intervals, and a paired test of two.

Queries are drawn, not pictures: an interval says how the mean would vary over other queries of the
same kind against the same gallery.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from index.errors import EvaluationError

Values = npt.NDArray[np.float64]

RESAMPLES = 10_000
SEED = 20_260_101
DRAWS_AT_ONCE = 4_000_000
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval at `level`."""

    mean: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of b − a over the same queries, its interval, and how likely chance does as much.

    `p` is two-sided; `queries` is how many were compared.
    """

    interval: Interval
    p: float
    queries: int


def bootstrap(
    values: Values, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """The mean of (n,) values with its bias-corrected and accelerated (BCa) interval.

    Efron, Better Bootstrap Confidence Intervals, JASA 1987: the ends are the quantiles Φ(z0 + (z0 +
    z_α)/(1 - a(z0 + z_α))) of the resampled means, with z0 from the share of them below the mean
    and a from the skewness, Σd³ / 6(Σd²)^1.5. One value, or equal values, have an interval of no
    width: nothing is known of their spread.

    >>> found = bootstrap(np.array([0.2, 0.4, 0.9, 1.0]))
    >>> found.mean, 0.2 <= found.low < found.mean < found.high <= 1.0
    (0.625, True)
    """
    mean = float(values.mean())
    deviations = values - mean
    squares = float((deviations**2).sum())
    if squares <= len(values) * (1e-12 * max(1.0, abs(mean))) ** 2:
        return Interval(mean, mean, mean, level)
    means = np.sort(_resampled_means(values, resamples, seed))
    # Means equal to ours count half: few values give many ties.
    share = (np.searchsorted(means, mean) + np.searchsorted(means, mean, "right")) / 2
    bias = _NORMAL.inv_cdf(float(np.clip(share / resamples, 0.5 / resamples, 1 - 0.5 / resamples)))
    acceleration = float((deviations**3).sum()) / (6 * squares**1.5)
    low, high = (
        float(np.quantile(means, _corrected(tail, bias, acceleration)))
        for tail in ((1 - level) / 2, (1 + level) / 2)
    )
    return Interval(mean, low, high, level)


def _corrected(tail: float, bias: float, acceleration: float) -> float:
    z = bias + _NORMAL.inv_cdf(tail)
    return _NORMAL.cdf(bias + z / (1 - acceleration * z))


def _resampled_means(values: Values, resamples: int, seed: int) -> Values:
    """Means of `resamples` samples of n values drawn with replacement."""
    random = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // values.size)
    chunks = []
    for start in range(0, resamples, rows):
        drawn = random.integers(0, values.size, (min(rows, resamples - start), values.size))
        chunks.append(values[drawn].mean(axis=1))
    return np.concatenate(chunks)


def paired(
    a: Values, b: Values, level: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """Compare (n,) values of a and of b on the same queries.

    The interval is that of the mean of b − a. The p-value is of a permutation test: were a and b
    alike, every difference could as well have the other sign. All 2ⁿ signs are tried where that is
    fewer than `resamples`; else it is (1 + as extreme) / (1 + resamples) over random ones (Smucker,
    Allan, Carterette, A Comparison of Statistical Significance Tests for IR, CIKM 2007).

    Raises EvaluationError: `evaluation-queries-differ`.

    >>> paired(np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4])).p  # 2 of 16 signs are as extreme
    0.125
    """
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise EvaluationError(
            "evaluation-queries-differ",
            f"a paired comparison needs the same queries: there are {a.size} and {b.size} values",
        )
    differences = b - a
    interval = bootstrap(differences, level, resamples, seed)
    return Difference(interval, _sign_flips(differences, resamples, seed), differences.size)


def _sign_flips(differences: Values, resamples: int, seed: int) -> float:
    # A sum that differs by rounding alone is as extreme as the one observed.
    observed = abs(float(differences.sum())) - 1e-9 * float(np.abs(differences).sum())
    n = differences.size
    if n < 63 and 2**n <= resamples:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float((np.abs((1 - 2 * bits) @ differences) >= observed).mean())
    random = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // n)
    extreme = 0
    for start in range(0, resamples, rows):
        bits = random.integers(0, 2, (min(rows, resamples - start), n), dtype=np.int8)
        extreme += int((np.abs((1 - 2 * bits) @ differences) >= observed).sum())
    return (1 + extreme) / (1 + resamples)
