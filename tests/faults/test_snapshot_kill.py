"""SIGKILL while snapshots are taken and restored: each is whole, or there is none."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index import Catalog, CollectionError
from index.restoring import restore, verify
from tests.index.making import HIGH, content, new_item, unit

MOST_KILLS = 8
"""At random instants, until one has hit the middle of the work."""
ITEMS = 40

TAKING = """
import sys
from index import Catalog
with Catalog.open(sys.argv[1]) as catalog:
    print("begun", flush=True)
    while True:
        print(catalog.take_snapshot().name, flush=True)
"""

RESTORING = """
import sys
from pathlib import Path
from index.restoring import restore
print("begun", flush=True)
for n in range(10_000):
    restore(Path(sys.argv[1]), Path(sys.argv[2]) / str(n))
    print(n, flush=True)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    with Catalog.open(folder) as catalog:
        shoes = catalog.create_collection("shoes", [HIGH], {})
        for n in range(ITEMS):
            shoes.pictures.put(content(n), "thumbnail", b"small" * 100)
        shoes.add([new_item(f"i{n}", n) for n in range(ITEMS)])
        shoes.compact()
    return folder


def _killed(script: str, *arguments: Path, seconds: float) -> list[str]:
    """What a process said that it had done before it was killed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [line.strip() for line in lines if line.endswith("\n")]


def assert_searchable(folder: Path) -> None:
    with Catalog.open(folder) as catalog:
        shoes = catalog.collection("shoes")
        assert len(shoes.search(unit(1), ITEMS + 1)) == ITEMS
        assert all(shoes.pictures.get(content(n), "thumbnail") for n in range(ITEMS))


def test_a_kill_leaves_whole_snapshots_and_no_rubbish(data: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    acknowledged: set[str] = set()
    left_something = False
    for _ in range(MOST_KILLS):
        acknowledged |= set(_killed(TAKING, data, seconds=chance.uniform(0.02, 0.4)))
        left_something |= any((data / "snapshots").glob("*.aside"))
        with Catalog.open(data) as catalog:
            named = {snapshot.name for snapshot in catalog.snapshots()}
        there = {path.name for path in (data / "snapshots").iterdir()} - {"lock"}
        assert acknowledged <= named == there
        for name in named:
            assert verify(data / "snapshots" / name).collections == {"shoes": ITEMS}
        if left_something and acknowledged:
            break
    assert acknowledged
    assert left_something
    name = max(acknowledged)
    restore(data / "snapshots" / name, tmp_path / name)
    assert_searchable(tmp_path / name)
    assert_searchable(data)


def test_a_kill_while_restoring_leaves_a_whole_catalog_or_none(data: Path, tmp_path: Path) -> None:
    with Catalog.open(data) as catalog:
        snapshot = data / "snapshots" / catalog.take_snapshot().name
    chance = random.Random(4)
    unfinished = 0
    for kill in range(MOST_KILLS):
        targets = tmp_path / f"targets-{kill}"
        done = _killed(RESTORING, snapshot, targets, seconds=chance.uniform(0.02, 0.4))
        assert {path.name for path in targets.glob("*")} >= set(done)
        for target in targets.glob("*"):
            if (target / "restoring.aside").exists() and not (target / "catalog.db").exists():
                with pytest.raises(CollectionError) as refused:
                    Catalog.open(target)
                assert refused.value.code == "restore-unfinished"
                assert target.name not in done
                unfinished += 1
                restore(snapshot, target)
            assert_searchable(target)
        if unfinished:
            break
    assert unfinished
