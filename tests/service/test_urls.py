"""Pictures by URL, from a real server, in a manifest and as a query."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded
from tests.service.test_jobs import JOBS, ended


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "site"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(encoded(n))
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def online(settings: Settings) -> Iterator[TestClient]:
    admitted = settings.model_copy(
        update={"offline": False, "url_private": True, "weights": "untrained"}
    )
    with Engine(admitted) as engine, TestClient(create_app(engine)) as client:
        yield client


def test_a_manifest_of_urls_is_fetched_and_indexed(online: TestClient, site: str) -> None:
    lines = [{"url": f"{site}/{n}.png", "id": f"p{n}"} for n in range(3)]
    lines.append({"url": f"{site}/none.png", "id": "none"})
    manifest = "\n".join(map(json.dumps, lines)).encode()
    job = ended(online, online.post(JOBS, files={"manifest": ("urls.jsonl", manifest)}).json())
    assert (job["state"], job["done"], job["failed"]) == ("done", 3, 1)
    (error,) = online.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
    assert error["code"] == "url-status"
    found = online.post("/v1/collections/default/search", json={"url": f"{site}/2.png"}).json()
    assert found["neighbours"][0]["id"] == "p2"


def test_a_private_address_is_not_asked_unless_told_to(settings: Settings, site: str) -> None:
    public = settings.model_copy(update={"offline": False, "weights": "untrained"})
    with Engine(public) as engine, TestClient(create_app(engine)) as client:
        answer = client.post("/v1/collections/default/search", json={"url": f"{site}/0.png"})
        assert (answer.status_code, answer.json()["code"]) == (403, "url-forbidden")


def test_many_slow_addresses_end_at_the_deadline(settings: Settings, site: str) -> None:
    admitted = {"offline": False, "url_private": True, "weights": "untrained"}
    hurried = settings.model_copy(update=admitted | {"request_timeout_s": 1e-6})
    with Engine(hurried) as engine, TestClient(create_app(engine)) as client:
        body = {"positives": [{"url": f"{site}/{n}.png"} for n in range(3)]}
        answer = client.post("/v1/collections/default/search", json=body)
    assert (answer.status_code, answer.json()["code"]) == (504, "request-timeout")
