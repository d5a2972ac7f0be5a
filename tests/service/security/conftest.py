"""One service with keys for all tests of who may do what."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from index.keys import Scope
from service.app import create_app
from service.engine import Engine
from service.security import callers
from service.settings import Settings
from tests.pictures import encoded

Given = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def locked_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("locked")
    return Settings(
        data=folder / "data",
        offline=True,
        device="cpu",
        weights="untrained",
        weights_dir=folder / "weights",
        hosts=("testserver",),
        host="0.0.0.0",
        decode_threads=1,
    )


@pytest.fixture(scope="module")
def locked_engine(locked_settings: Settings) -> Iterator[Engine]:
    with Engine(locked_settings) as engine:
        engine.ensure_default()
        engine.create_collection("shoes", None, {"alexnet": "untrained"})
        yield engine


@pytest.fixture(scope="module")
def locked_app(locked_engine: Engine) -> FastAPI:
    return create_app(locked_engine)


@pytest.fixture(scope="module")
def locked(locked_app: FastAPI) -> Iterator[TestClient]:
    """A client of a service that asks everybody for a key; `default` and `shoes` hold a picture."""
    with TestClient(locked_app, raise_server_exceptions=False) as client:
        engine: Engine = locked_app.state.engine
        _, secret = engine.catalog.keys.add("fixture", "admin")
        for name, seed in (("default", 1), ("shoes", 2)):
            files = {"files": (f"{seed}.png", encoded(seed), "image/png")}
            url = f"/v1/collections/{name}/items"
            headers = {"Authorization": f"Bearer {secret}"}
            data = {"ids": f'["{seed}"]'}
            client.post(url, files=files, data=data, headers=headers).raise_for_status()
        yield client


@pytest.fixture
def given(locked_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Given:
    """The header of a new key."""
    monkeypatch.setattr(callers, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(callers, "HOLDS_S", 0.0)

    def add(scope: Scope, *collections: str) -> dict[str, str]:
        _, secret = locked_engine.catalog.keys.add("test", scope, collections)
        return {"Authorization": f"Bearer {secret}"}

    return add


def request_of(name: str, **parameters: str) -> tuple[str, str]:
    """Method and path of an operation, `{…}` filled in."""
    method, path = name.split(" ")
    defaults = {"collection": "default", "item": "1", "job": "none", "network": "alexnet"}
    for parameter, value in {**defaults, "code": "x", "file:path": "x", **parameters}.items():
        path = path.replace(f"{{{parameter}}}", value)
    return method, path
