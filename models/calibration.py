"""The ranges that activations are quantised over, found by running pictures through the network."""

from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, fx

from models.errors import WeightsError
from models.quantisation import Range, quantisable, steps

BINS = 2048
SHARES = torch.linspace(1.0, 0.2, 81, dtype=torch.float64)
"""The parts of the range seen that are tried; of equal ones the first is taken."""


def calibrate(cut: fx.GraphModule, batches: Iterable[Tensor]) -> dict[str, Range]:
    """The range of every activation of `cut`, folded, that int8 needs, by node.

    `batches` are normalised B×3×H×W float32, gone through twice: for the extremes, then for a
    histogram of BINS between them, of which `least_error` takes the range that costs least.

    Raises WeightsError (`weights-not-finite`) where an activation overflows.
    """
    names = quantisable(cut)
    seen = dict.fromkeys(names, (inf, -inf))

    def extremes(name: str, x: Tensor) -> None:
        low, high = map(float, x.aminmax())
        if not isfinite(low) or not isfinite(high):  # min and max would pass over NaN.
            raise WeightsError(
                "weights-not-finite", f"activations of {name} are infinite or NaN: nothing fits"
            )
        seen[name] = (min(seen[name][0], low), max(seen[name][1], high))

    _watch(cut, batches, names, extremes)
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in names}

    def histogram(name: str, x: Tensor) -> None:
        low, high = seen[name]
        if low < high:  # Of equal ends torch makes a range of its own.
            counts[name] += torch.histc(x, BINS, low, high)

    _watch(cut, batches, names, histogram)
    return {name: least_error(counts[name], seen[name]) for name in names}


def least_error(counts: Tensor, seen: Range) -> Range:
    """The part of the range `seen` that has the least mean squared error when it is quantised.

    `counts` are of equal bins over `seen`. What is clipped errs by its distance, what is kept by
    its rounding: the fewer values are far out, the less is worth to reach them.

    >>> counts = torch.ones(2048)
    >>> least_error(counts, (0.0, 1.0))
    (0.0, 1.0)
    >>> counts[1:-1] = 1000 * torch.linspace(1, 0, 2046) ** 8
    >>> least_error(counts, (0.0, 1.0))
    (0.0, 0.78)
    """
    low, high = seen
    middles = low + (torch.arange(len(counts), dtype=torch.float64) + 0.5) * (
        (high - low) / len(counts)
    )
    errors = []
    for share in SHARES.tolist():
        scale, lowest, highest = steps((low * share, high * share))
        rounded = (middles / scale).round().clamp(lowest, highest) * scale
        errors.append(float(((rounded - middles) ** 2 * counts).sum()))
    best = float(SHARES[int(torch.tensor(errors).argmin())])
    return low * best, high * best


class _Watch(fx.Interpreter):
    def __init__(
        self, cut: fx.GraphModule, names: Iterable[str], told: Callable[[str, Tensor], None]
    ) -> None:
        super().__init__(cut)
        self._names, self._told = frozenset(names), told

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, which is told of where its name was given."""
        value = super().run_node(n)
        if n.name in self._names:
            self._told(n.name, value)
        return value


def _watch(
    cut: fx.GraphModule,
    batches: Iterable[Tensor],
    names: Iterable[str],
    told: Callable[[str, Tensor], None],
) -> None:
    watch = _Watch(cut, names, told)
    with torch.inference_mode():
        for batch in batches:
            watch.run(batch)
