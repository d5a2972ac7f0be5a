"""Searchers, writers, removers and compactions together, in threads and in two processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sets import machine
from index import Catalog
from tests.index.crowd import ENDS_WITHIN_S, Crowd
from tests.index.making import HIGH, unit

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "index-concurrency.json"


def _together(folder: Path, seconds: float) -> dict[str, int]:
    """Two processes for so long; then nothing is lost, and nothing there that should not be."""
    with Catalog.open(folder) as catalog:
        collection = catalog.create_collection(HIGH.name, [HIGH], {"index": {"delta_limit": 50}})
        other = subprocess.Popen(
            [sys.executable, "-m", "tests.index.crowd", str(folder), "theirs", str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        crowd = Crowd(collection, "ours")
        try:
            crowd.run(seconds)
            output, _ = other.communicate(timeout=seconds + ENDS_WITHIN_S)
        finally:
            other.kill()
            other.wait()
        assert other.returncode == 0
        there = crowd.there | json.loads(output)
        found = collection.search(unit(1), len(there) + 100)
        assert {one.id: one.metadata["seed"] for one in found} == there
        assert collection.count() == len(there)
        counts = {"searches": crowd.searches, "writes": crowd.writes}
        return counts | {"compactions": crowd.compactions, "items": len(there)}


def test_nothing_is_lost_or_wrong_while_all_go_on_together(tmp_path: Path) -> None:
    done = _together(tmp_path, 5)
    assert min(done.values()) > 0


@pytest.mark.long
def test_nothing_is_lost_or_wrong_for_minutes(tmp_path: Path) -> None:
    done = _together(tmp_path, 180)
    RESULT.write_text(json.dumps({"seconds": 180, **done, "machine": machine()}, indent=2) + "\n")
