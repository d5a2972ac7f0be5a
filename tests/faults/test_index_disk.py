"""Disks that are full, fail or tear: said clearly, survived, and nothing acknowledged is lost."""

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.disk import Disk
from tests.faults.judging import judged
from tests.faults.operations import Operation, State, after, drawn
from tests.faults.process import Process, Refused
from tests.index.making import LOW, stored, unit

ENOSPC, EIO = 28, 5

FAULTS: Mapping[str, tuple[str, str]] = {
    "no room at all": ("write DATA room 0", "disk-full"),
    "no room in the middle of a transaction": ("write -wal$ room 20000", "disk-full"),
    "no room for pictures": ("write /pictures/ room 150", "disk-full"),
    "no room for generations": ("write /generations/ room 300", "disk-full"),
    "the log cannot be synced": (f"sync -wal$ fail 0 {EIO}", "disk-failed"),
    "the log cannot be synced for lack of room": (f"sync -wal$ fail 2 {ENOSPC}", "disk-failed"),
    "the log cannot be written": (f"write -wal$ fail 3 {EIO}", "disk-failed"),
    "generations cannot be synced": (f"sync .aside$ fail 0 {EIO}", "disk-failed"),
    "generations cannot be named": (f"name /generations/ fail 0 {EIO}", "disk-failed"),
    "folders cannot be synced": (f"sync /generations/1$ fail 0 {EIO}", "disk-failed"),
    "pictures cannot be synced": (f"sync /pictures/ fail 0 {EIO}", "disk-failed"),
    "pictures cannot be named": (f"name /pictures/ fail 0 {ENOSPC}", "disk-full"),
}
"""A rule of `disk.c`, and the code that says it."""

UNNOTICED: Mapping[str, str] = {
    "writes that take half of what they are given": "write DATA short 0",
    "pictures that cannot be removed": f"remove /pictures/ fail 0 {EIO}",
    "old generations that cannot be removed": f"remove .faiss$ fail 0 {EIO}",
    "a log that cannot be copied into the database": f"write catalog.db$ fail 0 {EIO}",
    "a database that cannot be synced": f"sync catalog.db$ fail 0 {EIO}",
}
"""Rules that no operation fails by."""

SEEDS = 30


class Journey:
    """Random operations on one folder, each followed by a search that is compared with a loop."""

    def __init__(self, process: Process, folder: Path, seed: int) -> None:
        process.work_on(folder)
        self._process = process
        self._chance = random.Random(seed)
        self.folder = folder
        self.state: State = {}
        self.refused: list[Refused] = []
        self.last: Operation = ["compact"]

    def go(self, steps: int) -> None:
        """Go on for some steps; what is refused must be undone, or done, wholly."""
        for _ in range(steps):
            self.last = drawn(self._chance, self.state, "a", SEEDS)
            possible = [after(self.state, self.last)]
            try:
                self._process.do(self.last)
            except Refused as refused:
                self.refused.append(refused)
                possible.insert(0, self.state)
            self.state = self._found(possible)

    def end(self) -> None:
        """SIGKILL; what is there then may hold the last operation too, if it was refused."""
        self._process.killed()
        refused = [after(self.state, self.last)] if self.refused else []
        judged(self.folder, {"a": [self.state, *refused]}, 1)

    def _found(self, possible: list[State]) -> State:
        query = self._chance.randrange(100, 200)
        found = {item: pytest.approx(score, abs=1e-5) for item, score in self._searched(query)}
        for state in possible:
            vectors = {item: stored(unit(seed, LOW.dim), LOW) for item, (seed, _) in state.items()}
            asked = unit(query, LOW.dim)
            if found == {item: float(vector @ asked) for item, vector in vectors.items()}:
                return state
        raise AssertionError(f"{found} is none of {possible}")

    def _searched(self, query: int) -> list[list]:
        answer: list[list] = self._process.do(["search", query, 1000])
        return answer


@pytest.fixture
def journey(process: Process, request: pytest.FixtureRequest) -> Journey:
    return Journey(process, process.folder, seed=len(request.node.name))


@pytest.mark.parametrize("name", FAULTS)
def test_a_failing_disk_is_said_and_survived(journey: Journey, disk: Disk, name: str) -> None:
    rule, code = FAULTS[name]
    journey.go(6)
    assert not journey.refused

    disk.break_(rule.replace("DATA", str(journey.folder)))
    while not journey.refused:
        journey.go(1)
    journey.go(6)
    for refused in journey.refused:
        assert (refused.kind, refused.code) == ("DiskError", code)
        assert str(journey.folder) in str(refused)

    said = len(journey.refused)
    disk.heal()
    journey.go(6)
    assert len(journey.refused) == said
    journey.end()


@pytest.mark.parametrize("name", FAULTS)
def test_a_process_that_dies_on_a_failing_disk_loses_nothing(
    journey: Journey, disk: Disk, name: str
) -> None:
    journey.go(6)
    disk.break_(FAULTS[name][0].replace("DATA", str(journey.folder)))
    while not journey.refused:
        journey.go(1)
    journey.end()


@pytest.mark.parametrize("name", UNNOTICED)
def test_what_a_disk_does_that_is_no_failure_is_not_one(
    journey: Journey, disk: Disk, name: str
) -> None:
    journey.go(6)
    disk.break_(UNNOTICED[name].replace("DATA", str(journey.folder)))
    journey.go(12)
    assert not journey.refused
    journey.end()
