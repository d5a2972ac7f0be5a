"""Files that are not what was written: torn pages are made whole, flipped bits never go unsaid."""

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Catalog, CollectionError
from tests.faults.disk import Disk
from tests.faults.judging import check, integrity, judged
from tests.faults.operations import NAME, Operation, State, after, made, perform
from tests.faults.process import Process
from tests.faults.recording import record

LARGE: list[Operation] = [
    ["add", [[f"a{n}-{at}", n, {"pad": f"{n}" * 30_000}] for at in range(4)]] for n in range(10, 40)
]
"""Enough for SQLite to copy its log into the database by itself, more than once."""

SMALL: list[Operation] = [
    ["add", [[f"a{n}-{at}", n, {"n": n}] for at in range(16)]] for n in range(12)
]


@pytest.mark.parametrize("page", [0, 1, 7, 40])
def test_a_page_torn_while_the_log_is_copied_is_whole_again(
    process: Process, disk: Disk, tmp_path: Path, page: int
) -> None:
    data = tmp_path / "data"
    with Catalog.open(data) as catalog:
        made(catalog)
    disk.break_(f"write catalog.db$ kill {page}")
    process.lanes(data, {"a": LARGE})
    acknowledged, status = process.ended()
    assert status == -9
    done = acknowledged["a"]
    state: State = {}
    for operation in LARGE[:done]:
        state = after(state, operation)
    judged(data, {"a": [state, after(state, LARGE[done])]}, 1)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A folder with a generation and a delta, closed, and what it holds."""
    folder = tmp_path_factory.mktemp("sealed")
    state: State = {}
    with Catalog.open(folder) as catalog:
        for operation in [*SMALL[:10], ["compact"], *SMALL[10:12]]:
            perform(catalog, operation)
            state = after(state, operation)
    return folder, state


def _copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def _flip(path: Path, place: int) -> None:
    """Turn over the bit of this number."""
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def _places(path: Path, count: int) -> Iterator[int]:
    """Bits of a file at random, the first and the last among them."""
    bits = 8 * path.stat().st_size
    yield from {0, bits - 1, *random.Random(count).sample(range(bits), count - 2)}


def test_a_bit_flipped_in_a_generation_is_noticed_and_put_right(
    sealed: tuple[Path, State], tmp_path: Path
) -> None:
    folder, state = sealed
    data = _copied(folder, tmp_path / "data")
    for seed in range(6):
        for file in (data / "generations").rglob("*.faiss"):
            bits = 8 * file.stat().st_size
            _flip(
                file, random.Random(seed).choice([0, bits - 1, random.Random(seed).randrange(bits)])
            )
        judged(data, {"a": [state]}, seed)
    with Catalog.open(data) as catalog:
        collection, end = catalog.collection(NAME), time.monotonic() + 30
        # The catalog is searched meanwhile: they are made again in the background.
        while any(space["number"] < 2 for space in collection.status()["spaces"].values()):
            assert time.monotonic() < end
            time.sleep(0.05)


def flipped_in_the_database(folder: Path, state: State, to: Path, count: int) -> dict[str, int]:
    """How many flips were said, were without effect, or changed what is told without a word."""
    seen = {"said": 0, "without effect": 0, "unsaid": 0}
    for at, place in enumerate(_places(folder / "catalog.db", count)):
        data = _copied(folder, to / str(at))
        _flip(data / "catalog.db", place)
        seen[_read(data, state)] += 1
        shutil.rmtree(data)
    return seen


def _read(data: Path, state: State) -> str:
    try:
        with Catalog.open(data) as catalog:
            check(catalog.collection(NAME), state, 1)
            assert integrity(data) == "ok"
    except CollectionError:
        return "said"
    except AssertionError:
        return "unsaid"
    return "without effect"


def test_a_bit_flipped_in_the_database_ends_nothing(
    sealed: tuple[Path, State], tmp_path: Path
) -> None:
    seen = flipped_in_the_database(*sealed, tmp_path, 12)
    assert seen["said"] > 0


@pytest.mark.long
def test_many_bits_flipped_in_the_database(sealed: tuple[Path, State], tmp_path: Path) -> None:
    seen = flipped_in_the_database(*sealed, tmp_path, 200)
    record("flipped_in_the_database", seen)
    assert seen["said"] > 10
