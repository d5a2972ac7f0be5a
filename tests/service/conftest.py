"""An engine and a client per test, on untrained weights and an empty folder."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient

from models import Limits
from service.app import create_app
from service.decoding.pool import Decoders
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded

MAX_PICTURE_BYTES = 1024 * 1024

Upload = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The one folder that jobs may read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(tmp_path: Path, roots: Path) -> Settings:
    return Settings(
        data=tmp_path / "data",
        offline=True,
        device="cpu",
        weights_dir=tmp_path / "weights",
        image_roots=(roots,),
        max_body_bytes=8 * 1024 * 1024,
        max_picture_bytes=MAX_PICTURE_BYTES,
    )


@pytest.fixture(scope="session")
def decoders() -> Iterator[Decoders]:
    """Processes that decode for every engine of these tests: starting them takes time."""
    opened = Decoders(2, Limits(MAX_PICTURE_BYTES), timeout_s=30)
    yield opened
    opened.close()


@pytest.fixture
def engine(settings: Settings, decoders: Decoders) -> Iterator[Engine]:
    with Engine(settings, decoders=decoders) as opened:
        yield opened


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(engine), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture
def upload(client: TestClient) -> Upload:
    """Index pictures by seed; gives the outcomes."""

    def send(*seeds: int, collection: str = "default", **fields: str) -> list[dict[str, Any]]:
        files = [("files", (f"{seed}.png", encoded(seed), "image/png")) for seed in seeds]
        answer = client.post(f"/v1/collections/{collection}/items", files=files, data=fields)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    return send


@pytest.fixture
def logs_restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()
