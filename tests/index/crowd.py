"""Threads that add, replace, remove, patch, search and compact, and know what must be true of it.

`python -m tests.index.crowd FOLDER PREFIX SECONDS` is one process of them; it prints as JSON which
items it left there, and ends with an error at the first answer that cannot be.
"""

import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from index import Catalog, Collection
from tests.index.making import HIGH, new_item, stored, unit

ENDS_WITHIN_S = 60
"""After its time is up: what has not ended then is a deadlock."""


class Crowd:
    """What one process does to a collection, and what it knows to be true of it.

    Only the writers of this crowd write ids that begin with its prefix, and each writer its own.
    """

    def __init__(self, collection: Collection, prefix: str) -> None:
        self.collection = collection
        self.prefix = prefix
        self.knowing = threading.Lock()
        self.there: dict[str, int] = {}  # acknowledged, with the seed of the vector
        self.changing: set[str] = set()  # a write is under way
        self.gone: set[str] = set()  # removal acknowledged, and never added again
        self.searches = self.writes = self.compactions = 0

    def run(self, seconds: float) -> None:
        """All of it, for so long. Raises what any thread raised."""
        self.ends = time.monotonic() + seconds
        loops = [(self.write, 0), (self.write, 1), (self.search, 2), (self.search, 3)]
        with ThreadPoolExecutor(len(loops) + 1) as threads:
            running = [threads.submit(loop, number) for loop, number in loops]
            running.append(threads.submit(self.compact))
            for each in running:
                each.result(timeout=seconds + ENDS_WITHIN_S)

    def write(self, number: int) -> None:
        """Add, replace, patch and remove the ids of one writer."""
        chance = random.Random(f"{self.prefix}{number}")
        mine: list[str] = []
        names = (f"{self.prefix}{number}-{n}" for n in count())
        first = chance.randrange(10**9)  # two writers share none
        seeds = count(first)
        while time.monotonic() < self.ends:
            kind = chance.choice(("add", "add", "replace", "remove", "patch"))
            if kind == "add" or len(mine) < 10:
                chosen = [next(names) for _ in range(chance.randint(1, 8))]
                mine += chosen
                kind = "add"
            else:
                chosen = chance.sample(mine, 3)
            with self.knowing:
                self.changing.update(chosen)
            if kind == "remove":
                assert self.collection.remove(chosen) == [True] * 3
                mine = [one for one in mine if one not in chosen]
                with self.knowing:
                    self.gone.update(chosen)
                    for one in chosen:
                        del self.there[one]
            elif kind == "patch":
                self.collection.patch(chosen[0], {"patched": next(seeds)})
            else:
                new = {one: next(seeds) for one in chosen}
                self.collection.add([new_item(one, n, {"seed": n}) for one, n in new.items()])
                with self.knowing:
                    self.there.update(new)
            with self.knowing:
                self.changing.difference_update(chosen)
                self.writes += 1

    def search(self, number: int) -> None:
        """Search for what is there; see that it is found, and nothing that cannot be."""
        chance = random.Random(f"{self.prefix}{number}")
        while time.monotonic() < self.ends:
            with self.knowing:
                gone = set(self.gone)
                settled = [one for one in self.there if one not in self.changing]
                wanted = chance.choice(settled) if settled else ""
                seed = self.there.get(wanted, 1)
            query = unit(seed)
            terms = {"seed": seed} if chance.random() < 0.2 else None
            found = self.collection.search(query, 20, filter=terms)
            assert len({one.id for one in found}) == len(found), found
            for one in found:
                assert one.id not in gone, one
                right = min(1.0, float(stored(unit(one.metadata["seed"])) @ query))
                assert one.score == pytest.approx(right, abs=1e-4), one
            with self.knowing:
                same = self.there.get(wanted) == seed and wanted not in self.changing
                self.searches += 1
            if same:
                assert found, wanted
                assert found[0].id == wanted, (found[0], wanted)

    def compact(self) -> None:
        """Compact again and again."""
        while time.monotonic() < self.ends:
            self.compactions += self.collection.compact()
            time.sleep(0.05)


def main(folder: str, prefix: str, seconds: str) -> None:
    with Catalog.open(folder) as catalog:
        crowd = Crowd(catalog.collection(HIGH.name), prefix)
        crowd.run(float(seconds))
    print(json.dumps(crowd.there))


if __name__ == "__main__":
    main(*sys.argv[1:])
