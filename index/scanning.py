"""How long an exact or planned search takes on this machine, by what a collection would hold."""

import time
from statistics import median
from typing import Any

import faiss as typed_faiss
import numpy as np

from index.planner import CODES, Policy, plans
from index.space import Dtype

faiss: Any = typed_faiss

NUMBERS = 4_000_000
"""Of the sample that is searched: beyond any cache, and made in well under a second."""
READ_BY_APPROXIMATE = 6_000
"""Items that an exact search reads in the time of an approximate one: twice what was measured with
HNSW at 60,000 items and a recall of 0.98, since it grows a little with the items."""
REPEATS = 5
NEIGHBOURS = 10


def search_seconds(items: int, dim: int, dtype: Dtype = "float16") -> float:
    """Seconds of one search, by one thread, over `items` descriptors of `dim` dimensions.

    Measured by exact search over as many random descriptors as make NUMBERS numbers, at most
    `items`, and scaled to as many as the collection's planned index reads: reading is what a search
    costs, and the same for any numbers.
    """
    approximate = plans(items, dim, dtype, Policy())[0].kind != "exact"
    read = min(items, READ_BY_APPROXIMATE) if approximate else items
    count = max(1, min(items, NUMBERS // dim))
    return exact_seconds(count, dim, dtype) * max(1.0, read / count)


def exact_seconds(count: int, dim: int, dtype: Dtype) -> float:
    """Seconds of one exact search among so many random descriptors, by the clock: a median."""
    rows = np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)
    index = faiss.index_factory(dim, CODES[dtype][0], faiss.METRIC_INNER_PRODUCT)
    index.add(rows)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        index.search(rows[:1], min(NEIGHBOURS, count))
        seconds.append(time.perf_counter() - started)
    return median(seconds)
