import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def health_check() -> list[str]:
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE.replace("\\\n", ""), re.M)
    assert found
    _, *arguments = json.loads(found[1])
    return [sys.executable, *arguments]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers `status` to the readiness check and 404 to all else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def run_health_check(port: int) -> int:
    proxy = "http://127.0.0.1:1"
    environment = {**os.environ, "POOL5_PORT": str(port), "http_proxy": proxy, "no_proxy": ""}
    return subprocess.run(
        health_check(), env=environment, capture_output=True, check=False
    ).returncode


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which(
        "hadolint"
    )
    if hadolint is None:
        pytest.skip("hadolint is missing: pip install -e .[dev]")
    lint = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (lint.returncode, lint.stdout) == (0, "")


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_readiness_past_any_proxy(status: int, healthy: bool) -> None:
    with answering(status) as port:
        assert (run_health_check(port) == 0) is healthy


def test_the_health_check_fails_where_nothing_listens() -> None:
    with answering(200) as port:
        pass
    assert run_health_check(port) != 0


def test_every_variable_that_the_image_sets_is_a_setting() -> None:
    names = set(re.findall(r"^\s*(?:ENV )?POOL5_(\w+)=", DOCKERFILE, re.M))
    assert {"DATA", "HOST", "PORT"} <= names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_the_image_lets_nobody_in_by_itself() -> None:
    assert "POOL5_INSECURE" not in DOCKERFILE
    assert "POOL5_HOST=0.0.0.0" in DOCKERFILE


def test_the_entry_point_is_the_projects_script() -> None:
    entrypoint = re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.M)
    assert entrypoint
    assert json.loads(entrypoint[1])[0] in PYPROJECT["project"]["scripts"]


def test_no_process_of_the_service_is_roots() -> None:
    service = DOCKERFILE.partition(" AS service\n")[2]
    users = re.findall(r"^USER (\d+):(\d+)$", service, re.M)
    assert len(users) == len(re.findall(r"^USER ", DOCKERFILE, re.M)) == 1
    assert "0" not in users[0]


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    declared = PYPROJECT["project"]
    packages = {pattern.rstrip("*") for pattern in _packages()}
    texts = {declared["readme"], *declared["license-files"]}
    copied = {"pyproject.toml", "constraints.txt", "deploy/without_cuda.sh"}
    assert kept == copied | packages | texts
    assert all((ROOT / path).exists() for path in kept)


def _packages() -> list[str]:
    packages: list[str] = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    return packages
