"""Processes that can be killed, and disks that can fail."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.disk import COMPILER, Disk, compiled
from tests.faults.process import Process

REQUIRE = "POOL5_REQUIRE_COMPILER"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None and not os.environ.get(REQUIRE):
        pytest.skip("no C compiler to make a failing disk with: install gcc and libc6-dev")
    return compiled(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> Disk:
    return Disk(library, tmp_path / "disk.rules")


@pytest.fixture
def process(disk: Disk, tmp_path: Path) -> Iterator[Process]:
    """Works on `tmp_path / "data"`, on `disk`."""
    with Process(tmp_path / "data", disk.environment) as running:
        yield running


@pytest.fixture
def start(disk: Disk, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Another process on the same folder and disk."""
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(tmp_path / "data", disk.environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
