"""Whether a folder holds what was acknowledged: all of it, nothing else, and found by searches."""

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from index import Catalog, Collection
from tests.faults.operations import NAME, SPACES, State, thumbnail
from tests.index.making import content, stored, unit

FOREIGN = 10_000
"""Seeds from here on are of no item: a score of more than 1 by rounding is shown as 1."""

WEIGHTS = {"high": 0.3, "low": 0.7}


def judged(folder: Path, lanes: Mapping[str, Sequence[State]], seed: int) -> dict[str, State]:
    """Which of its possible states each lane is in; fails where one is in none of them.

    An operation that was under way may be there wholly or not at all: that makes two.
    """
    with Catalog.open(folder) as catalog:
        if NAME not in catalog.names():
            assert all({} in possible for possible in lanes.values())
            return {lane: {} for lane in lanes}
        collection = catalog.collection(NAME)
        found = {lane: _one_of(possible, collection, lane) for lane, possible in lanes.items()}
        whole = {item_id: item for state in found.values() for item_id, item in state.items()}
        check(collection, whole, seed)
    assert integrity(folder) == "ok"
    return found


def judged_snapshots(folder: Path, lanes: Mapping[str, Sequence[State]], to: Path) -> int:
    """How many snapshots there are: each restores to states that the lanes were in once."""
    from index.discarding import ASIDE
    from index.restoring import restore

    with Catalog.open(folder) as catalog:
        names = [snapshot.name for snapshot in catalog.snapshots()]
        for name in names:
            restore(folder / "snapshots" / name, to / name)
            judged(to / name, lanes, 1)
            shutil.rmtree(to / name)
            catalog.drop_snapshot(name)
        assert not list((folder / "snapshots").glob(f"*{ASIDE}"))
    return len(names)


def _one_of(possible: Sequence[State], collection: Collection, lane: str) -> State:
    held = {
        item.id: (int(item.sha256, 16), item.metadata)
        for item in collection.items(limit=100_000)
        if item.id.startswith(lane)
    }
    assert held in possible
    return held


def check(collection: Collection, state: State, seed: int) -> None:
    """Items, pictures and searches of a collection against plain loops over `state`."""
    assert {item.id for item in collection.items(limit=100_000)} == state.keys()
    assert collection.count() == collection.status()["items"] == len(state)
    for number, _ in state.values():
        assert collection.pictures.get(content(number), "thumbnail") == thumbnail(number)
    queries = {space.name: unit(seed + FOREIGN, space.dim) for space in SPACES}
    cosines = {
        space.name: {
            item_id: float(stored(unit(number, space.dim), space) @ queries[space.name])
            for item_id, (number, _) in state.items()
        }
        for space in SPACES
    }
    weighted = {
        item_id: sum(weight * cosines[space][item_id] for space, weight in WEIGHTS.items())
        for item_id in state
    }
    for space, expected in [*cosines.items(), (WEIGHTS, weighted)]:
        found = collection.search(queries, len(state) + 10, space=space)
        scores = {one.id: one.score for one in found}
        assert len(found) == len(scores)
        assert scores == pytest.approx(expected, abs=1e-5)
        assert np.all(np.diff([one.score for one in found]) <= 0)
        assert {one.id: one.metadata for one in found} == {
            item_id: metadata for item_id, (_, metadata) in state.items()
        }


def integrity(folder: Path) -> str:
    """What SQLite itself says of the file."""
    connection = sqlite3.connect(folder / "catalog.db")
    try:
        said: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        dangling = connection.execute("PRAGMA foreign_key_check").fetchall()
        return f"{said}, {len(dangling)} keys lead nowhere" if dangling else said
    except sqlite3.DatabaseError as error:
        return str(error)
    else:
        return said
    finally:
        connection.close()
