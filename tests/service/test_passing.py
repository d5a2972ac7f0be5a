"""What the service lacks for a while fails no picture of a job, and leaves no picture behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from index import CollectionError
from service.engine import Engine
from service.indexing import runner
from service.problems import Problem
from service.settings import Settings
from tests.service.conftest import Upload
from tests.service.test_jobs import JOBS, ended, fill


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the smallest network there is."""
    return settings.model_copy(update={"network": "colour"})


def failing_once(real: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """`real`, which raises when it is called for the first time."""
    left = [error]

    def call(*given: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return real(*given, **named)

    return call


@pytest.mark.parametrize("where", ["decoder", "network", "commit"])
def test_a_job_pauses_and_fails_no_file(
    client: TestClient, engine: Engine, roots: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(runner, "PAUSE_S", 0.05)
    of, name, error = {
        "decoder": (engine.decoders, "prepare", Problem("decoder-unavailable", "no memory")),
        "network": (engine.batcher, "submit", Problem("shutting-down", "stopping")),
        "commit": (
            engine.catalog.collection("default"), "add", CollectionError("catalog-busy", "busy"),
        ),
    }[where]  # fmt: skip
    monkeypatch.setattr(of, name, failing_once(getattr(of, name), error))
    fill(roots, 3)
    job = ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert (job["state"], job["done"], job["failed"]) == ("done", 3, 0)


def test_a_picture_that_could_not_be_queued_is_let_go_of(
    upload: Upload, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = failing_once(engine.batcher.submit, Problem("forward-lost", "lost"))
    monkeypatch.setattr(engine.batcher, "submit", submit)
    (failed,) = upload(1)
    assert (failed["status"], failed["problem"]["code"]) == ("failed", "forward-lost")
    pictures = tmp_path / "data" / "pictures"
    assert not [path for path in pictures.rglob("*") if path.is_file()]
    assert upload(1)[0]["status"] == "added"
