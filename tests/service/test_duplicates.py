"""Duplicates over HTTP: while uploading, in jobs, and in a whole collection."""

import io
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from service.app import create_app
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded, picture
from tests.service.test_jobs import JOBS, ended

ITEMS = "/v1/collections/default/items"
NEAR = "0.99"


def recompressed(seed: int) -> bytes:
    """The same picture with other bytes."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def send(client: TestClient, *contents: bytes, **fields: str) -> list[dict[str, Any]]:
    files = [("files", (f"{n}.png", content, "image/png")) for n, content in enumerate(contents)]
    answer = client.post(ITEMS, files=files, data=fields)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_a_near_duplicate_in_the_same_upload_is_refused_by_name(client: TestClient) -> None:
    outcomes = send(
        client, encoded(1), encoded(2), recompressed(1),
        duplicates="reject", duplicate_threshold=NEAR,
    )  # fmt: skip
    assert [o["status"] for o in outcomes] == ["added", "added", "failed"]
    first, refused = outcomes[0], outcomes[2]
    assert (refused["problem"]["code"], refused["problem"]["status"]) == ("duplicate", 409)
    assert first["id"] in refused["problem"]["detail"]
    assert refused["duplicate_of"]["id"] == first["id"]
    assert 0.99 <= refused["duplicate_of"]["score"] <= 1
    assert refused["duplicate_of"]["exact"] is False
    assert client.get("/v1/collections/default").json()["items"] == 2
    again = send(client, recompressed(2), duplicates="reject", duplicate_threshold=NEAR)
    assert again[0]["duplicate_of"]["id"] == outcomes[1]["id"]
    assert send(client, recompressed(2))[0]["status"] == "added"


def test_the_same_file_under_another_id_is_refused_without_a_threshold(client: TestClient) -> None:
    send(client, encoded(1), ids='["one"]')
    outcomes = send(
        client, encoded(1), recompressed(1), ids='["two", "three"]', duplicates="reject"
    )
    assert [o["status"] for o in outcomes] == ["failed", "added"]
    assert outcomes[0]["duplicate_of"] == {"id": "one", "score": 1.0, "exact": True}


def test_a_flagged_duplicate_is_an_item_that_says_so(client: TestClient) -> None:
    first, flagged = send(
        client, encoded(1), recompressed(1), duplicates="flag", duplicate_threshold=NEAR
    )
    assert (flagged["status"], flagged["problem"]) == ("added", None)
    assert flagged["duplicate_of"]["id"] == first["id"]
    item = client.get(f"{ITEMS}/{flagged['id']}").json()
    assert item["duplicate_of"] == flagged["duplicate_of"]
    for wanted, name in ((True, flagged), (False, first)):
        listed = client.get(ITEMS, params={"flagged": wanted}).json()["items"]
        assert [item["id"] for item in listed] == [name["id"]]


def test_a_senseless_question_is_refused(client: TestClient) -> None:
    files = [("files", ("a.png", encoded(1), "image/png"))]
    for fields, code in (
        ({"duplicates": "burn"}, "request-invalid"),
        ({"duplicates": "flag", "duplicate_threshold": "7"}, "request-invalid"),
        ({"duplicates": "flag", "duplicate_space": "none"}, "space-unknown"),
    ):
        answer = client.post(ITEMS, files=files, data=fields)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    answer = client.post("/v1/collections/default/duplicates", json={"space": "none"})
    assert (answer.status_code, answer.json()["code"]) == (422, "space-unknown")


def test_a_job_refuses_duplicates_too(client: TestClient, roots: Path) -> None:
    for n in (1, 2, 3):
        (roots / f"{n}.png").write_bytes(encoded(n))
    (roots / "same.png").write_bytes(encoded(1))
    (roots / "near.jpg").write_bytes(recompressed(2))
    asked = {"folder": str(roots), "duplicates": "reject", "duplicate_threshold": 0.99}
    job = ended(client, client.post(JOBS, json=asked).json())
    assert (job["state"], job["done"], job["failed"]) == ("done", 3, 2)
    errors = client.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
    assert {error["code"] for error in errors} == {"duplicate"}
    assert client.post(JOBS, json=asked | {"duplicate_space": "none"}).status_code == 422


def test_groups_of_a_collection_are_found_by_a_job_and_stay(settings: Settings) -> None:
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        outcomes = send(client, encoded(1), encoded(2), recompressed(1), encoded(3))
        send(client, encoded(3), ids='["again"]')
        answer = client.post("/v1/collections/default/duplicates", json={"threshold": 0.99})
        assert answer.status_code == 202
        job = ended(client, answer.json())
        assert (job["state"], job["total"], job["done"]) == ("done", 5, 5)
        assert job["source"] == {"find_duplicates": {"threshold": 0.99, "space": "high"}}
        exact = ended(client, client.post("/v1/collections/default/duplicates", json={}).json())
        (same,) = client.get(f"/v1/jobs/{exact['id']}/duplicates").json()["groups"]
        assert {member["id"] for member in same} == {outcomes[3]["id"], "again"}
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        address = f"/v1/jobs/{job['id']}/duplicates"
        found = client.get(address).json()
        assert {frozenset(member["id"] for member in group) for group in found["groups"]} == {
            frozenset({outcomes[0]["id"], outcomes[2]["id"]}),
            frozenset({outcomes[3]["id"], "again"}),
        }
        page = client.get(address, params={"limit": 1}).json()
        rest = client.get(address, params={"limit": 1, "after": page["next"]}).json()
        assert page["groups"] + rest["groups"] == found["groups"]
        assert rest["next"] is None
        assert client.get("/v1/jobs/nobody/duplicates").status_code == 404


def test_pictures_of_one_colour_are_alike(client: TestClient) -> None:
    """Whatever the network makes of them: no descriptor of theirs divides by zero here."""
    contents = []
    for colour in ("teal", "teal"):
        buffer = io.BytesIO()
        Image.new("RGB", (90 + len(contents), 60), colour).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    outcomes = send(client, *contents, duplicates="reject", duplicate_threshold="0.9")
    assert [o["status"] for o in outcomes] == ["added", "failed"]
