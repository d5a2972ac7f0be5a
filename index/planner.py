"""Which FAISS index a space gets, and why: one row for each kind.

What a row costs was measured on 60,000 and 100,000 descriptors of 512 numbers in some thousand
clusters, on one thread with AVX2; docs/decisions/0016 has the figures.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from index.errors import CollectionError
from index.space import Dtype

Kind = Literal["exact", "hnsw", "ivf-pq", "ivf-rabitq"]

CODES: Mapping[Dtype, tuple[str, int]] = {"float16": ("SQfp16", 2), "float32": ("Flat", 4)}
"""How FAISS holds the stored numbers as they are, and the bytes of one."""
POINTS_PER_LIST = 64
"""Training vectors for one list of an IVF; FAISS warns below 39."""
SMALLEST_TRAINED = 16 * POINTS_PER_LIST
"""Below this many items there are too few to train on, and nothing to be gained."""
WIDEST_TURNED = 4_096
"""Dimensions up to which a query may be multiplied by a square matrix (64 MB)."""
MOST_WAITING = 32_768
"""Items of a delta, unless the collection's settings allow more."""
MIB = 2**20


@dataclass(frozen=True)
class Row:
    """A kind of index.

    `factory` names it in FAISS's words: over the `codes` of the stored numbers, of a `dim` with its
    `half`, and so many `lists`; `turn` makes an odd dim even. An item takes `number_bytes` for each
    of its numbers (None: as they are stored) and `item_bytes` besides. Scores of an index that is
    not `exact_scores` are only estimates, by which candidates are found for scoring with the
    catalog's vectors. What is `extendable` takes newer items in place; what is `trained` needs a
    sample; what is `turned` multiplies a query by a square matrix.
    """

    factory: str
    number_bytes: float | None
    item_bytes: int
    exact_scores: bool
    extendable: bool
    trained: bool
    turned: bool
    reason: str


ROWS: Mapping[Kind, Row] = {
    "exact": Row(
        factory="IDMap,{codes}",
        number_bytes=None,
        item_bytes=8,
        exact_scores=True,
        extendable=False,  # to build it anew is as fast, and leaves the removed ones behind
        trained=False,
        turned=False,
        reason="every neighbour is found; 0.09 ms for 1,000 items of 512 numbers",
    ),
    "hnsw": Row(
        factory="IDMap,HNSW32,{codes}",
        number_bytes=None,
        item_bytes=280,
        exact_scores=True,
        extendable=True,
        trained=False,
        turned=False,
        reason="fastest (0.3 ms), and ten times the items cost little more; slow to build",
    ),
    "ivf-pq": Row(
        factory="{turn}IVF{lists},PQ{half}x4fs",
        number_bytes=1 / 4,
        item_bytes=8,
        exact_scores=False,
        extendable=True,
        trained=True,
        turned=False,
        reason="an eighth of the memory; estimates find candidates, which are rescored",
    ),
    "ivf-rabitq": Row(
        factory="RR{dim},IVF{lists},RaBitQ",
        number_bytes=1 / 8,
        item_bytes=16,
        exact_scores=False,
        extendable=True,
        trained=True,
        turned=True,
        reason="a thirteenth of the memory; finds more than product codes of as many bytes",
    ),
}
"""In the order of preference beyond `exact_up_to`: the first that the memory allows.

Left out: IVF over the codes as they are (three times slower than HNSW at a recall of 0.98, for 0.8
of its memory), HNSW16 (0.9 of the memory, needs three times the efSearch), product codes of d/8
bytes (RaBitQ finds more with as many), RaBitQ of 4 bits (slower than PQ with 2.5 times its memory).
"""


@dataclass(frozen=True)
class Policy:
    """What a collection's settings may say under `index`.

    `kind`: a row of the planner's table, or `auto` for its choice. `exact_up_to`: items up to which
    every search is exact. `memory_mib`: what the index of one space may take. `recall`: the share
    of the ten nearest that a search is to find. `delta_limit`: items that may wait outside the
    generation, where every search reads them all, before compaction is due.
    """

    kind: Kind | Literal["auto"] = "auto"
    exact_up_to: int = 50_000
    memory_mib: int = 4_096
    recall: float = 0.98
    delta_limit: int = 4_096

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Policy":
        """Read a collection's settings. Raises CollectionError: `settings-invalid`."""
        given = settings.get("index") or {}
        for name, value in given.items():
            if name not in {field.name for field in fields(cls)}:
                raise CollectionError(
                    "settings-invalid",
                    f"index.{name} is no setting: there are {sorted(cls.__annotations__)}",
                )
            allowed, fits = ALLOWED[name]
            if isinstance(value, bool) or not fits(value):
                raise CollectionError("settings-invalid", f"index.{name} = {value!r} is {allowed}")
        return cls(**given)

    def due(self, generation: int, delta: int, tombstones: int) -> bool:
        """Whether compaction is due, by items in each part.

        The limits grow with the generation, so that loading N items costs O(N) work in all; that of
        the delta, which every search reads, no further than to some milliseconds.
        """
        waiting = max(self.delta_limit, min(generation // 10, MOST_WAITING))
        return delta > waiting or tombstones > self._most_dead(generation)

    def worn(self, generation: int, tombstones: int) -> bool:
        """Whether so many items of a generation are dead that it is better built anew."""
        return tombstones > self._most_dead(generation) // 2

    def _most_dead(self, generation: int) -> int:
        return max(self.delta_limit, generation // 10)


def _count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


ALLOWED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "kind": (f"not auto or one of {list(ROWS)}", lambda value: value in ("auto", *ROWS)),
    "exact_up_to": ("not a number of items", _count),
    "memory_mib": ("not a number of MiB above 0", lambda value: _count(value) and value > 0),
    "recall": (
        "not between 0.5 and 0.999",
        lambda value: isinstance(value, int | float) and 0.5 <= value <= 0.999,
    ),
    "delta_limit": ("not a number of items", _count),
}


@dataclass(frozen=True)
class Plan:
    """An index to be built: `factory` as FAISS writes it, with `lists` of an IVF or 0."""

    kind: Kind
    factory: str
    lists: int
    why: str

    @property
    def row(self) -> Row:
        """What there is to know of the kind."""
        return ROWS[self.kind]


def plans(count: int, dim: int, dtype: Dtype, policy: Policy) -> list[Plan]:
    """The indexes for `count` items in the order in which to try them until one has the recall.

    >>> [plan.factory for plan in plans(1_000, 512, "float16", Policy())]
    ['IDMap,SQfp16']
    >>> [plan.kind for plan in plans(1_000_000, 512, "float16", Policy())]
    ['hnsw', 'ivf-pq', 'ivf-rabitq', 'exact']
    >>> [plan.kind for plan in plans(1_000_000, 512, "float16", Policy(memory_mib=200))]
    ['ivf-pq', 'ivf-rabitq']
    """
    usable = [kind for kind, row in ROWS.items() if dim <= WIDEST_TURNED or not row.turned]
    if count < SMALLEST_TRAINED:
        usable = [kind for kind in usable if not ROWS[kind].trained]
    if policy.kind != "auto":
        kind = policy.kind if policy.kind in usable else "exact"
        why = f"{count} items, {policy.kind} by the collection's settings"
        if kind != policy.kind:
            why += f", exact because {_unusable(policy.kind, dim)}"
        return [_plan(kind, count, dim, dtype, why)]
    room = policy.memory_mib * MIB
    fits = {kind: memory(kind, count, dim, dtype) <= room for kind in usable}
    if count <= policy.exact_up_to and fits["exact"]:
        why = f"{count} items, exact up to {policy.exact_up_to}"
        return [_plan("exact", count, dim, dtype, why)]
    chosen: list[Kind] = [kind for kind in usable if fits[kind] and kind != "exact"]
    if not chosen and not fits["exact"]:
        smallest = min(usable, key=lambda kind: memory(kind, count, dim, dtype))
        why = f"{count} items, the smallest kind although it takes more than {policy.memory_mib}"
        return [_plan(smallest, count, dim, dtype, f"{why} MiB")]
    if fits["exact"]:
        chosen.append("exact")
    why = f"{count} items, more than {policy.exact_up_to} or beyond memory for exact search"
    return [
        _plan(kind, count, dim, dtype, f"{why}, {ROWS[kind].reason}, in {policy.memory_mib} MiB")
        for kind in chosen
    ]


def memory(kind: Kind, count: int, dim: int, dtype: Dtype) -> float:
    """Bytes that an index of `count` items takes.

    >>> round(memory("hnsw", 1_000_000, 512, "float16") / 2**20)
    1244
    """
    row, (_, width) = ROWS[kind], CODES[dtype]
    centres = 4 * dim * _lists(count) if row.trained else 0
    matrix = 4 * dim * dim if row.turned else 0
    return count * ((row.number_bytes or width) * dim + row.item_bytes) + centres + matrix


def _plan(kind: Kind, count: int, dim: int, dtype: Dtype, why: str) -> Plan:
    row = ROWS[kind]
    lists = _lists(count) if row.trained else 0
    factory = row.factory.format(
        codes=CODES[dtype][0],
        dim=dim,
        half=(dim + 1) // 2,
        turn=f"RR{dim + 1}," if dim % 2 else "",
        lists=lists,
    )
    return Plan(kind, factory, lists, why)


def _unusable(kind: Kind, dim: int) -> str:
    if ROWS[kind].turned and dim > WIDEST_TURNED:
        return f"{dim} dimensions are more than the {WIDEST_TURNED} that it can turn"
    return f"they are too few to train on (from {SMALLEST_TRAINED})"


def _lists(count: int) -> int:
    return max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))


assert set(ROWS) == set(get_args(Kind))  # noqa: S101 - a kind without a row is a mistake made here
