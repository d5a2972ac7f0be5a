"""Processes that can be killed, and disks that can fail."""

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def running(
    library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Disk, Process]]:
    folder = tmp_path_factory.mktemp("running")
    disk = Disk(library, folder / "rules")
    with Process(folder, disk.environment) as process:
        yield disk, process


@pytest.fixture
def disk(running: tuple[Disk, Process]) -> Iterator[Disk]:
    """What is under `process`."""
    yield running[0]
    running[0].heal()


@pytest.fixture
def process(running: tuple[Disk, Process], tmp_path: Path) -> Iterator[Process]:
    """Works on `tmp_path / "data"`, on `disk`."""
    running[1].work_on(tmp_path / "data")
    yield running[1]
    running[1].work_on(tmp_path)
