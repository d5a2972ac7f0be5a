"""Operations on a collection, as JSON: what carries them out, and what they ought to do.

    ["add", [[id, seed, metadata], …]]   ["remove", [id, …]]   ["patch", id, metadata]
    ["compact"]   ["search", seed, k]   ["snapshot"]

The content and the descriptors of an item follow from its seed. `State` is what a collection must
hold, as a plain dict; it is the judge, and knows nothing of `index`.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from index import Catalog, Collection
from tests.index.making import HIGH, LOW, content, new_item, unit

Operation = list[Any]
State = dict[str, tuple[int, dict[str, Any]]]
"""id -> (seed, metadata)"""

SPACES = (HIGH, LOW)
NAME = "shoes"


def thumbnail(seed: int) -> bytes:
    """What is kept of the picture of this seed."""
    return f"thumbnail of {seed}".encode() * 100


def made(catalog: Catalog) -> Collection:
    """The collection that everything happens to."""
    if NAME in catalog.names():
        return catalog.collection(NAME)
    return catalog.create_collection(NAME, SPACES, {})


def perform(catalog: Catalog, operation: Operation) -> Any:
    """Carry out an operation; what it returns, as JSON."""
    collection = made(catalog)
    match operation:
        case ["add", items]:
            for _, seed, _ in items:
                collection.pictures.put(content(seed), "thumbnail", thumbnail(seed))
            new = [new_item(item_id, seed, said, *SPACES) for item_id, seed, said in items]
            return [outcome.status for outcome in collection.add(new)]
        case ["remove", ids]:
            return collection.remove(ids)
        case ["patch", item_id, metadata]:
            return collection.patch(item_id, metadata).metadata
        case ["compact"]:
            return collection.compact()
        case ["snapshot"]:
            return catalog.take_snapshot().name
        case ["search", seed, k]:
            found = collection.search(unit(seed, LOW.dim), k, space="low")
            return [[one.id, one.score] for one in found]
    raise ValueError(f"{operation} is no operation")


def after(state: Mapping[str, Any], operation: Operation) -> State:
    """What a collection must hold after an operation."""
    now: State = dict(state)
    match operation:
        case ["add", items]:
            for item_id, seed, metadata in items:
                kept = now[item_id][1] if item_id in now else {}
                now[item_id] = (seed, kept if metadata is None else metadata)
        case ["remove", ids]:
            for item_id in ids:
                now.pop(item_id, None)
        case ["patch", item_id, metadata]:
            seed, before = now[item_id]
            merged = {**before, **metadata}
            now[item_id] = (
                seed,
                {key: value for key, value in merged.items() if value is not None},
            )
    return now


def drawn(chance: random.Random, state: Mapping[str, Any], lane: str, seeds: int) -> Operation:
    """An operation on the items of one lane, whose state is `state`; `seeds` is how many there are.

    Lanes share no item and no content, so that each can be judged by itself.
    """

    def some(few: int) -> list[list[Any]]:
        first = (ord(lane) - ord("a")) * seeds
        return [
            [
                f"{lane}{chance.randrange(40)}",
                first + chance.randrange(seeds),
                chance.choice([None, {}, {"n": chance.randrange(3)}]),
            ]
            for _ in range(few)
        ]

    kinds: Sequence[str] = ["add"] * 6 + (["remove", "remove", "patch", "patch"] if state else [])
    match chance.choice([*kinds, "compact"]):
        case "remove":
            return ["remove", chance.sample(sorted(state), min(len(state), chance.randint(1, 3)))]
        case "patch":
            return ["patch", chance.choice(sorted(state)), {"n": chance.choice([None, 7, 8])}]
        case "compact":
            return ["compact"]
    return ["add", some(chance.choice([1, 1, 4, 16]))]
