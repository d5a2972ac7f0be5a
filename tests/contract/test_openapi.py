"""schemathesis: whatever the document allows, and much that it does not, is answered as it says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sets import RESULTS, machine
from tests.pictures import encoded
from tests.server import Server

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A service with a few items and a job that has ended."""
    roots = tmp_path / "pictures"
    roots.mkdir()
    (roots / "one.png").write_bytes(encoded(9))
    limits = ("--max-body-bytes", "8000000", "--request-timeout-s", "10")
    with Server(tmp_path / "data", "--image-roots", str(roots), *limits) as running:
        files = [("files", (f"{seed}.png", encoded(seed))) for seed in range(4)]
        named = {"ids": '["a", "b", "c", "d"]', "metadata": '{"colour": "red"}'}
        running.client.post("/v1/collections/default/items", files=files, data=named)
        yield running


def _checked(server: Server, folder: Path, *flags: str) -> dict[str, Any]:
    """The report of one run, whose last words are on stderr where it found anything."""
    started = server.client.post("/v1/collections/default/jobs", json={"folder": str(folder)})
    config, report = folder / "schemathesis.toml", folder / "report.json"
    jobs = f'\n[dictionaries.jobs]\nvalues = ["{started.json()["id"]}"]\n'
    config.write_text(CONFIG.read_text() + jobs)
    command = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "--config-file", str(config), "run", f"{server.url}/openapi.json", "--seed", "1",
        "--no-color", "--continue-on-failure", "--warnings", "off",
        "--report", "json", "--report-json-path", str(report), *flags,
    ]  # fmt: skip
    ended = subprocess.run(  # noqa: PLW1510 - what it said comes first
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert ended.returncode == 0, ended.stdout.decode()[-8000:] + ended.stderr.decode()[-2000:]
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def _is_whole(server: Server, report: dict[str, Any]) -> None:
    document = server.client.get("/openapi.json").json()
    operations = sum(len(path) for path in document["paths"].values())
    assert report["operations"]["tested"] == operations
    assert report["test_cases"]["generated"] > 20 * operations
    assert report["failures"] == []
    assert "unexpected error" not in server.whole_log()


def test_every_answer_is_a_documented_one(server: Server, tmp_path: Path) -> None:
    flags = ("--phases", "coverage,fuzzing", "-n", "3")
    _is_whole(server, _checked(server, tmp_path / "pictures", *flags))


@pytest.mark.long
def test_every_answer_is_a_documented_one_at_length(server: Server, tmp_path: Path) -> None:
    report = _checked(server, tmp_path / "pictures", "-n", "200", "--max-time", "300")
    _is_whole(server, report)
    kept = ("schemathesis_version", "seed", "running_time", "operations", "phases", "test_cases")
    result = {"test": "tests/contract", "machine": machine()}
    result |= {name: report[name] for name in kept}
    (RESULTS / "schemathesis.json").write_text(json.dumps(result, indent=2) + "\n")
