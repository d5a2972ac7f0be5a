"""Weights over the spaces of a study, in the form that `space` takes in a search."""

from collections.abc import Sequence

from index.errors import EvaluationError
from index.evaluation import GroundTruth
from index.ranking.learning import Learned, learn_weights, sample
from service.evaluating.study import Study

MOST_ITEMS = 1_000
"""That weights are learned from: a minute of work or two."""


def check_weighable(spaces: Sequence[str], truth: GroundTruth) -> None:
    """Raises EvaluationError: `evaluation-one-space`, `truth-without-labels`."""
    if len(spaces) < 2:
        raise EvaluationError(
            "evaluation-one-space",
            f"weights are learned over two spaces or more, and there is {', '.join(spaces)}: give "
            "--spec again, or with --collection --space",
        )
    if truth.labels is None:
        raise EvaluationError(
            "truth-without-labels",
            f"weights are learned from labels, and {truth.name} has none: use --truth folders, or "
            'a .json file with "labels"',
        )


def weigh(study: Study) -> Learned:
    """The weights that put pictures of one label before all others, and what they gain.

    From a sample of MOST_ITEMS pictures of the gallery where it has more.

    Raises EvaluationError as `check_weighable` does, and CollectionError (`labels-invalid`).
    """
    plain = [tried for tried in study.tried if not tried.refinement]
    check_weighable([tried.space for tried in plain], study.truth)
    labels = study.truth.labels or ()
    drawn = sample(labels, MOST_ITEMS)
    return learn_weights(
        {tried.space: tried.gallery[drawn] for tried in plain},
        [labels[at] for at in drawn],
    )
