"""SIGKILL at any instant: what was acknowledged is there and found, what was not is whole.

Two writers, a compaction and searches work at once; the judge is a dict that follows what was
acknowledged through a pipe.
"""

import random
import time
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import pytest

from index import Catalog
from tests.faults.disk import Disk
from tests.faults.judging import judged, judged_snapshots
from tests.faults.operations import Operation, State, after, drawn
from tests.faults.process import Process
from tests.faults.recording import record

WRITERS = ("a", "b")
OTHERS: dict[str, list[Operation]] = {
    "compacting": [["compact"]] * 400,
    "searching": [["search", 1, 5]] * 2000,
}
SNAPSHOTS = hasattr(Catalog, "take_snapshot")
if SNAPSHOTS:
    OTHERS["snapshotting"] = [["snapshot"]] * 100
SEEDS = 1000
PER_FOLDER = 25
"""Kills before a new folder is begun with: making one must survive them too."""


@dataclass
class Tally:
    """What a run of kills has seen."""

    kills: int = 0
    operations: int = 0
    acknowledged: int = 0
    under_way: int = 0
    found_whole: int = 0
    snapshots: int = 0


def _drawn(chance: random.Random, state: State, lane: str, count: int) -> list[Operation]:
    """Operations that each fit what is there when their turn comes."""
    operations = []
    for _ in range(count):
        operations.append(drawn(chance, state, lane, SEEDS))
        state = after(state, operations[-1])
    return operations


def _states(state: State, operations: list[Operation], acknowledged: int) -> list[State]:
    """What a lane may hold: with the operation under way, or without."""
    for operation in operations[:acknowledged]:
        state = after(state, operation)
    return [state, *(after(state, operation) for operation in operations[acknowledged:][:1])]


def killed_often(folder: Path, process: Process, kills: int, seed: int) -> Tally:
    chance = random.Random(seed)
    tally = Tally()
    states: dict[str, State] = {}
    for kill in range(kills):
        if kill % PER_FOLDER == 0:
            data, states = folder / f"data-{kill}", {lane: {} for lane in WRITERS}
            history: dict[str, list[State]] = {lane: [{}] for lane in WRITERS}
        lanes = {lane: _drawn(chance, states[lane], lane, 100) for lane in WRITERS}
        process.lanes(data, lanes | OTHERS)
        # A third die while they open the folder or soon after, the others further on.
        heard = process.heard(chance.choice(WRITERS), max(0, chance.randint(-8, 16)))
        time.sleep(chance.random() * (0.05 if heard else 0.3))
        acknowledged = process.killed(heard)
        possible = {
            lane: _states(states[lane], lanes[lane], acknowledged.get(lane, 0)) for lane in WRITERS
        }
        for lane in WRITERS:
            done = lanes[lane][: acknowledged.get(lane, 0) + 1]
            history[lane] += accumulate(done, after, initial=states[lane])
        states = judged(data, possible, kill)
        if SNAPSHOTS:
            tally.snapshots += judged_snapshots(data, history, folder / "restored")
        tally.kills += 1
        for lane in WRITERS:
            before, *under_way = possible[lane]
            done = acknowledged.get(lane, 0)
            tally.acknowledged += done
            tally.under_way += sum(each != before for each in under_way)
            tally.found_whole += before != states[lane]
        tally.operations += sum(acknowledged.values())
    return tally


def test_nothing_acknowledged_is_lost_and_nothing_is_half_written(tmp_path: Path) -> None:
    with Process(tmp_path) as process:
        tally = killed_often(tmp_path, process, kills=12, seed=1)
    assert tally.acknowledged > tally.kills


@pytest.mark.long
def test_hundreds_of_kills_at_random_instants(tmp_path: Path) -> None:
    began = time.monotonic()
    with Process(tmp_path) as process:
        tally = killed_often(tmp_path, process, kills=400, seed=time.time_ns())
    record("random", {**asdict(tally), "seconds": round(time.monotonic() - began, 1)})


FIXED: list[Operation] = [
    ["add", [["a1", 1, {"n": 1}], ["a2", 2, None], ["a3", 3, None]]],
    ["compact"],
    ["add", [["a1", 4, None], ["a2", 2, {"n": 2}], ["a4", 1, {}]]],
    ["patch", "a3", {"n": 3}],
    ["remove", ["a2", "a4"]],
    ["compact"],
    ["add", [["a5", 5, None]]],
]
"""Everything that writes; each file operation of it is an instant to die at."""


def killed_at(folder: Path, process: Process, disk: Disk, call: int) -> bool:
    """Whether a process that does FIXED died at its `call`-th file operation, and nothing broke."""
    data = folder / f"at-{call}"
    disk.break_(f"any {data} kill {call}")
    process.lanes(data, {"a": FIXED})
    acknowledged, status = process.ended()
    disk.heal()
    (state,) = judged(data, {"a": _states({}, FIXED, acknowledged.get("a", 0))}, call).values()
    rest = [["add", [["a9", 9, None]]], ["compact"]]
    process.lanes(data, {"a": rest})
    assert process.ended() == ({"a": 2}, 0)
    judged(data, {"a": [after(state, rest[0])]}, call)
    return status != 0


def _file_operations(folder: Path, process: Process, disk: Disk) -> int:
    disk.break_(f"any {folder / 'counted'} count 0")
    process.lanes(folder / "counted", {"a": FIXED})
    assert process.ended() == ({"a": len(FIXED)}, 0)
    return disk.calls()


def test_it_may_die_at_any_file_operation(tmp_path: Path, process: Process, disk: Disk) -> None:
    calls = _file_operations(tmp_path, process, disk)
    for call in random.Random(calls).sample(range(calls), 6):
        killed_at(tmp_path, process, disk, call)


@pytest.mark.long
def test_it_may_die_at_every_file_operation(tmp_path: Path, process: Process, disk: Disk) -> None:
    began = time.monotonic()
    calls = _file_operations(tmp_path, process, disk)
    kills = sum(killed_at(tmp_path, process, disk, call) for call in range(calls))
    assert kills > 0.9 * calls
    seconds = round(time.monotonic() - began, 1)
    record("every_file_operation", {"kills": kills, "file_operations": calls, "seconds": seconds})
