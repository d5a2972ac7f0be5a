"""How long an exact or planned search takes on this machine, by what a collection would hold."""

import time
from statistics import median
from typing import Any

import faiss as typed_faiss
import numpy as np

from index.planner import CODES, Policy, plan
from index.space import Dtype

faiss: Any = typed_faiss

NUMBERS = 4_000_000
"""Of the sample that is searched: beyond any cache, and made in well under a second."""
REPEATS = 5
NEIGHBOURS = 10


def search_seconds(items: int, dim: int, dtype: Dtype = "float16") -> float:
    """Seconds of one search, by one thread, over `items` descriptors of `dim` dimensions.

    Measured by exact search over as many random descriptors as make NUMBERS numbers, at most
    `items`, and scaled to the share of the items that the collection's plan reads: reading is what
    a search costs, and the same for any numbers.
    """
    planned = plan(items, dtype, Policy())
    read = items * (planned.probes / planned.lists if planned.lists else 1.0)
    count = max(1, min(items, NUMBERS // dim))
    rows = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    index = faiss.index_factory(dim, CODES[dtype], faiss.METRIC_INNER_PRODUCT)
    index.add(rows)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        index.search(rows[:1], min(NEIGHBOURS, count))
        seconds.append(time.perf_counter() - started)
    return median(seconds) * max(1.0, read / count)
