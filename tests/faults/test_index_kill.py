"""SIGKILL in the middle of writing: what was acknowledged is there, what was not is whole."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from index import Catalog
from tests.index.making import HIGH, new_item, unit

KILLS = 6

# Tells what it is about to do, does it, and says so when it is acknowledged.
WRITING = """
import sys
from index import Catalog
from tests.index.making import new_item
with Catalog.open(sys.argv[1]) as catalog:
    shoes = catalog.collection("shoes")
    n = int(sys.argv[2])
    while True:
        print(f"begin {n}", flush=True)
        shoes.pictures.put(f"{n:064x}", "thumbnail", b"small" * 1000)
        shoes.add([new_item(f"i{n}-{part}", n) for part in range(5)])
        if n % 4 == 0:
            shoes.remove([f"i{n}-0"])
        if n % 7 == 0:
            shoes.compact()
        print(f"done {n}", flush=True)
        n += 1
"""


def _killed(folder: Path, first: int, patience: int) -> tuple[set[int], int]:
    """Numbers acknowledged by a process that is killed after about `patience` of them."""
    command = [sys.executable, "-c", WRITING, str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(patience)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    words = [line.split() for line in lines if line.endswith("\n")]
    done = {int(number) for word, number in words if word == "done"}
    return done, int(words[-1][1])


def test_nothing_acknowledged_is_lost_and_nothing_is_half_written(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        catalog.create_collection("shoes", [HIGH], {})
    chance = random.Random(1)
    acknowledged: set[int] = set()
    last = -1
    for _ in range(KILLS):
        done, last = _killed(tmp_path, last + 1, chance.randint(3, 60))
        acknowledged |= done
        with Catalog.open(tmp_path) as catalog:
            shoes = catalog.collection("shoes")
            held = {item.id for item in shoes.items(limit=100_000)}
            found = {one.id for one in shoes.search(unit(1), 100_000)}
            assert found == held
            for n in range(last + 1):
                parts = {part for part in range(5) if f"i{n}-{part}" in held}
                whole = {1, 2, 3, 4} if n % 4 == 0 else {0, 1, 2, 3, 4}
                if n in acknowledged:
                    assert parts == whole
                else:
                    assert parts in (set(), {0, 1, 2, 3, 4}, whole)
                if parts:
                    assert shoes.pictures.get(f"{n:064x}", "thumbnail") == b"small" * 1000
    assert len(acknowledged) > KILLS


def test_an_item_can_be_added_after_a_kill(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        catalog.create_collection("shoes", [HIGH], {})
    _killed(tmp_path, 0, 20)
    with Catalog.open(tmp_path) as catalog:
        shoes = catalog.collection("shoes")
        shoes.add([new_item("after", 10_000)])
        assert shoes.search(unit(10_000), 1)[0].id == "after"
