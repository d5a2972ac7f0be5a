"""Measuring what is fitted on pictures, such as a whitening, without asking by those pictures.

Folds are of pictures, not of classes. Were whole classes left out, whether a picture took part in
the fit would tell its class: a fit treats its own pictures unlike all others (they spread further,
around another mean), and right answers would stand apart from wrong ones by that alone. Dealt
picture by picture, right and wrong ones take part alike, as in a collection that was whitened on a
sample of itself, and only the query is new to the fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from index.evaluation.evaluation import evaluate
from index.evaluation.groundtruth import GroundTruth
from index.evaluation.intervals import Values
from index.evaluation.measures import Indexes
from index.item import Vector

FOLDS = 5

Apply = Callable[[Vector], Vector]
Fit = Callable[[Vector], Apply]
"""From (m, D) descriptors to a function of (n, D) descriptors to (n, d)."""


def picture_folds(truth: GroundTruth) -> tuple[Indexes, Indexes]:
    """The folds, 0…FOLDS - 1, of the gallery (n,) and of the queries (q,), by picture.

    Pictures are dealt in their order, so that those of one folder go to different folds; a query
    that is a region of a picture goes with it.
    """
    numbers: dict[str, int] = {}
    for name in [*truth.gallery, *(query.name for query in truth.queries)]:
        numbers.setdefault(name, len(numbers) % FOLDS)
    gallery = np.array([numbers[name] for name in truth.gallery])
    return gallery, np.array([numbers[query.name] for query in truth.queries])


def fitted_on(truth: GroundTruth) -> int:
    """How many pictures the smallest fit of `cross_fitted` has."""
    gallery, _ = picture_folds(truth)
    return len(gallery) - int(np.bincount(gallery, minlength=FOLDS).max())


def cross_fitted(
    queries: Vector,
    gallery: Vector,
    truth: GroundTruth,
    fit: Fit,
    dims: Sequence[int],
    measure: str,
    variant: str,
) -> Mapping[int, Values]:
    """A measure of every query (q,), by how many leading dimensions are kept of what `fit` gives.

    `queries` is (q, D) and `gallery` (n, D). A query is transformed, as is the gallery that it is
    ranked against, by a fit on those pictures of the gallery that are not in the query's fold. All
    queries have a positive. Raises EvaluationError as `evaluate` does.
    """
    found = {dim: np.empty(len(queries)) for dim in dims}
    of_gallery, of_queries = picture_folds(truth)
    for fold, asked in _asked(of_queries):
        apply = fit(gallery[of_gallery != fold])
        asks, among = apply(queries[asked]), apply(gallery)
        part = replace(truth, queries=[truth.queries[at] for at in asked], measures=(measure,))
        for dim, values in found.items():
            evaluated = evaluate(_leading(asks, dim), _leading(among, dim), part)
            values[asked] = evaluated[variant].values[measure]
    return found


def _asked(folds: Indexes) -> Iterator[tuple[int, Indexes]]:
    for fold in np.unique(folds):
        yield int(fold), np.flatnonzero(folds == fold)


def _leading(rows: Vector, dim: int) -> Vector:
    kept = rows[:, :dim]
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    scaled: Vector = (kept / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled
