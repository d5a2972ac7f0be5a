"""SIGKILL in the middle of a batch job: afterwards every picture is there, none twice."""

import random
import time
from pathlib import Path

import pytest

from tests.pictures import encoded
from tests.server import Server

PICTURES = 240


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for n in range(PICTURES):
        (made / f"{n:03d}.jpg").write_bytes(encoded(n, "JPEG", (320, 240)))
    return made


@pytest.mark.long
def test_a_killed_job_ends_with_every_picture_once(tmp_path: Path, folder: Path) -> None:
    rng = random.Random(5)
    data = tmp_path / "data"
    with Server(data, "--image-roots", str(folder)) as server:
        job = server.client.post(
            "/v1/collections/default/jobs", json={"folder": str(folder)}
        ).json()
        wait_for(server, job["id"], PICTURES // 8)
        server.kill()
    for share in (4, 2):
        with Server(data, "--image-roots", str(folder)) as server:
            wait_for(server, job["id"], PICTURES // share)
            time.sleep(rng.random() / 20)
            server.kill()
    with Server(data, "--image-roots", str(folder)) as server:
        ended = server.job(job["id"])
        assert (ended["state"], ended["done"], ended["failed"]) == ("done", PICTURES, 0)
        assert ended["unchanged"] == 0
        items = server.client.get("/v1/collections/default/items", params={"limit": 1000}).json()
        names = [item["name"] for item in items["items"]]
        assert sorted(names) == [f"{n:03d}.jpg" for n in range(PICTURES)]
        assert every_item_is_found(server, folder)


def wait_for(server: Server, job: str, done: int) -> None:
    end = time.monotonic() + 60
    while server.client.get(f"/v1/jobs/{job}").json()["done"] < done:
        assert time.monotonic() < end, server.log()


def every_item_is_found(server: Server, folder: Path) -> bool:
    for n in range(0, PICTURES, 24):
        name = f"{n:03d}.jpg"
        files = {"file": (name, (folder / name).read_bytes(), "image/jpeg")}
        answer = server.client.post("/v1/collections/default/search", files=files, data={"k": 1})
        first = answer.json()["neighbours"][0]
        if (first["name"], round(first["score"], 2)) != (name, 1.0):
            return False
    return True


@pytest.mark.long
def test_an_acknowledged_upload_survives_a_kill(tmp_path: Path) -> None:
    data = tmp_path / "data"
    acknowledged = []
    with Server(data) as server:
        for n in range(12):
            files = {"files": (f"{n}.png", encoded(n), "image/png")}
            answer = server.client.post("/v1/collections/default/items", files=files).json()
            acknowledged.append(answer["items"][0]["id"])
        server.kill()
    with Server(data) as server:
        for item in acknowledged:
            assert server.client.get(f"/v1/collections/default/items/{item}").status_code == 200
            found = server.client.post(
                "/v1/collections/default/search", json={"item": item, "k": 20}
            )
            assert len(found.json()["neighbours"]) == len(acknowledged) - 1
