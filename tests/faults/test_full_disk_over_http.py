"""A service whose disk is full says so, goes on searching, and works again once there is room."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.disk import Disk
from tests.pictures import encoded
from tests.server import Server

ITEMS = "/v1/collections/default/items"
SEARCH = "/v1/collections/default/search"
JOBS = "/v1/collections/default/jobs"


@pytest.fixture
def server(tmp_path: Path, disk: Disk) -> Iterator[Server]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with Server(tmp_path / "data", TMPDIR=str(temporary), **disk.environment) as running:
        yield running


def _upload(server: Server, *seeds: int) -> httpx.Response:
    files = [("files", (f"{seed}.png", encoded(seed), "image/png")) for seed in seeds]
    return server.client.post(ITEMS, files=files)


def _found(server: Server) -> set[str]:
    files = {"file": ("query.png", encoded(99), "image/png")}
    answer = server.client.post(SEARCH, files=files, data={"k": 100})
    assert answer.status_code == 200, answer.text
    return {one["name"] for one in answer.json()["neighbours"]}


def _codes(answer: httpx.Response) -> set[str]:
    """Of the problem that is the answer, or of those in it."""
    said: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code == said["status"]
        return {said["code"]}
    return {item["problem"]["code"] for item in said["items"]}


def _patched(server: Server, item: str) -> httpx.Response:
    return server.client.patch(f"{ITEMS}/{item}", json={"metadata": {"n": 1}})


def _removed(server: Server, item: str) -> httpx.Response:
    return server.client.delete(f"{ITEMS}/{item}")


def _collection(server: Server, item: str) -> httpx.Response:
    return server.client.post("/v1/collections", json={"name": "another"})


def _archive(server: Server, item: str) -> httpx.Response:
    return server.client.post(JOBS, files={"archive": ("a.zip", b"PK\x05\x06" + bytes(18))})


WRITING: tuple[Callable[[Server, str], httpx.Response], ...] = (
    _patched,
    _removed,
    _collection,
    _archive,
)


@pytest.mark.slow
def test_a_full_disk_is_said_and_survived(server: Server, disk: Disk) -> None:
    kept = {f"{seed}.png" for seed in range(3)}
    item = _upload(server, *range(3)).json()["items"][0]["id"]

    for rule in (f"write {server.data} room 0", "write catalog.db room 0"):
        disk.break_(rule)
        for seeds in ((10,), (10, 11, 12)):
            assert _codes(_upload(server, *seeds)) == {"disk-full"}
        for ask in WRITING:
            answer = ask(server, item)
            assert (answer.status_code, _codes(answer)) == (507, {"disk-full"}), ask
        assert _found(server) == kept
        assert server.client.get("/health/ready").status_code == 200

    disk.break_("write /temporary/ room 0")
    large = server.client.post(ITEMS, files={"files": ("large.png", bytes(2**21), "image/png")})
    assert (large.status_code, _codes(large)) == (507, {"disk-full"})

    disk.break_("sync catalog.db-wal fail 0 5")
    answer = _upload(server, 20)
    assert (answer.status_code, _codes(answer)) == (503, {"disk-failed"})
    assert _found(server) == kept

    disk.heal()
    assert {one["status"] for one in _upload(server, 10, 11).json()["items"]} == {"added"}
    kept |= {"10.png", "11.png"}
    assert _patched(server, item).status_code == 200
    assert _found(server) == kept
    server.kill()
    with Server(server.data) as again:
        assert _found(again) == kept
        for one in again.client.get(ITEMS).json()["items"]:
            assert again.client.get(f"{ITEMS}/{one['id']}/thumbnail").status_code == 200
