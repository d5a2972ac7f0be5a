"""SIGKILL at random instants during one batch job: each file counts once, after every kill."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RESULT = Path("benchmarks") / "results" / "crash_jobs.json"
CHECKOUT = Path(__file__).resolve().parents[2]


def crashed(kills: int, files: int, out: Path) -> Any:
    """The benchmark in a process of its own: it forks, and nothing here may."""
    flags = ["--kills", str(kills), "--files", str(files), "--out", str(out)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.crash_jobs", *flags],
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return json.loads(out.read_text())


def test_a_job_that_is_killed_a_few_times_counts_each_file_once(tmp_path: Path) -> None:
    result = crashed(4, 150, tmp_path / "result.json")
    assert result["kills_that_had_made_progress"] >= 1
    assert result["final"]["outcomes"] == 150


@pytest.mark.long
def test_a_job_that_is_killed_a_hundred_times_counts_each_file_once() -> None:
    result = crashed(120, 5000, CHECKOUT / RESULT)
    assert result["kills_that_had_made_progress"] >= 50
    assert result["final"]["outcomes"] == 5000
