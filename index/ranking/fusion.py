"""Several spaces, one ranking: the weighted sum of cosines."""

import math
from collections.abc import Mapping

from index.errors import CollectionError


def weights(given: Mapping[str, float]) -> dict[str, float]:
    """Weights that sum to 1, spaces of weight 0 left out.

    Raises CollectionError: `space-weights-invalid`.

    >>> weights({"high": 3, "low": 1, "mid": 0})
    {'high': 0.75, 'low': 0.25}
    """
    for name, weight in given.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise CollectionError(
                "space-weights-invalid", f"space {name!r}: weight {weight!r} is not a number from 0"
            )
    total = sum(given.values())
    if not 0 < total < math.inf:
        raise CollectionError(
            "space-weights-invalid", f"the weights {dict(given)} have no positive finite sum"
        )
    return {name: weight / total for name, weight in given.items() if weight}
