"""A file system that is really full: a small one in memory, which can be made larger."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from index import Catalog, DiskError
from tests.faults.judging import check
from tests.faults.operations import Operation, State, after, made, perform

Resize = Callable[[str], None]


def _mount(folder: Path, options: str) -> subprocess.CompletedProcess[str]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A folder with 2 MB of room, and what gives it another size."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = _mount(folder, "size=2m")
    if mounted.returncode:
        pytest.skip(f"only root may mount a small file system: {mounted.stderr.strip()}")
    try:
        yield folder, lambda size: _mount(folder, f"remount,size={size}").check_returncode()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _add(n: int) -> Operation:
    return ["add", [[f"a{n}-{at}", n, {"pad": f"{n}" * 2000}] for at in range(8)]]


def _filled(catalog: Catalog, state: State, first: int) -> State:
    """What is there when the disk is full; that it is must be said."""
    for n in range(first, first + 1000):
        try:
            perform(catalog, _add(n))
        except DiskError as error:
            refused = error
            break
        state = after(state, _add(n))
    assert refused.code == "disk-full"
    assert "free some" in str(refused)
    return state


def _fill(path: Path) -> None:
    """Leave not one page of room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 4096)


def test_a_full_disk_is_said_and_survived(small: tuple[Path, Resize]) -> None:
    folder, resize = small
    data = folder / "data"
    with Catalog.open(data) as catalog:
        collection = made(catalog)
        state = _filled(catalog, {}, 0)
        check(collection, state, 1)
        _fill(folder / "filler")
        state = _filled(catalog, state, 1000)
        with pytest.raises(DiskError, match="free some"):
            collection.compact()
        check(collection, state, 2)
        resize("6m")
        for operation in [["remove", ["a0-0"]], ["patch", "a1-0", {"n": 1}], ["compact"]]:
            perform(catalog, operation)
            state = after(state, operation)
        check(collection, state, 3)
        state = _filled(catalog, state, 2000)
    with Catalog.open(data) as catalog:
        check(made(catalog), state, 4)


def test_a_catalog_opens_on_a_full_disk(small: tuple[Path, Resize]) -> None:
    folder, _ = small
    with Catalog.open(folder / "data") as catalog:
        state = _filled(catalog, {}, 0)
        _fill(folder / "filler")
        with Catalog.open(folder / "data") as another:
            check(made(another), state, 1)
