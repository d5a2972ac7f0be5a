"""Which FAISS index a collection gets, and why.

| kind  | up to         | index                     | reason                                       |
|-------|---------------|---------------------------|----------------------------------------------|
| exact | `exact_up_to` | SQfp16 (Flat for float32) | every neighbour is found, in milliseconds    |
| ivf   | beyond it     | IVF over the same codes   | a sixth of the lists finds 98 % of the ten   |
|       |               |                           | nearest, at about a sixth of the work        |

Both keep the stored numbers as they are, so a score is the same cosine in either, and in the delta.
HNSW is left out: it cannot remove, and needs twice the memory at 128 dims.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from index.errors import CollectionError
from index.space import Dtype

Kind = Literal["exact", "ivf"]

CODES: Mapping[Dtype, str] = {"float16": "SQfp16", "float32": "Flat"}
POINTS_PER_LIST = 64
"""Training vectors for one list of an IVF; FAISS warns below 39."""
SHARE_PROBED = 1 / 6
"""Of the lists read by a query; recall@10 is 0.98 to 0.99 where clusters are as small as ten."""
SMALLEST_IVF = POINTS_PER_LIST**2
"""Below this many items there are too few to train on, and nothing to be gained."""


@dataclass(frozen=True)
class Policy:
    """What a collection's settings may say under `index`.

    `exact_up_to`: items up to which every search is exact. `delta_limit`: items that may wait
    outside the generation, where every search reads them all, before compaction is due.
    """

    exact_up_to: int = 100_000
    delta_limit: int = 4_096

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Policy":
        """Read a collection's settings. Raises CollectionError: `settings-invalid`."""
        given = settings.get("index") or {}
        for name, value in given.items():
            if name not in cls.__annotations__:
                raise CollectionError(
                    "settings-invalid",
                    f"index.{name} is no setting: there are {sorted(cls.__annotations__)}",
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise CollectionError(
                    "settings-invalid", f"index.{name} = {value!r} is not a number of items"
                )
        return cls(**given)

    def due(self, generation: int, delta: int, tombstones: int) -> bool:
        """Whether compaction is due, by items in each part.

        The limits grow with the generation, so that loading N items costs O(N) work in all.
        """
        limit = max(self.delta_limit, generation // 10)
        return delta > limit or tombstones > limit


@dataclass(frozen=True)
class Plan:
    """An index: `factory` as FAISS writes it, `probes` of the `lists` read by a query."""

    kind: Kind
    factory: str
    lists: int
    probes: int
    why: str


def plan(count: int, dtype: Dtype, policy: Policy) -> Plan:
    """Choose the index for `count` items.

    >>> plan(1_000, "float16", Policy()).factory
    'IDMap,SQfp16'
    >>> plan(250_000, "float16", Policy()).factory
    'IVF2000,SQfp16'
    """
    codes = CODES[dtype]
    if count <= policy.exact_up_to:
        why = f"{count} items, exact up to {policy.exact_up_to}"
        return Plan("exact", f"IDMap,{codes}", 0, 0, why)
    if count < SMALLEST_IVF:
        why = f"{count} items, too few to train lists on (from {SMALLEST_IVF})"
        return Plan("exact", f"IDMap,{codes}", 0, 0, why)
    lists = min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST)
    probes = math.ceil(lists * SHARE_PROBED)
    why = f"{count} items, exact up to {policy.exact_up_to}: {probes} of {lists} lists are read"
    return Plan("ivf", f"IVF{lists},{codes}", lists, probes, why)
