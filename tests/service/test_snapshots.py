"""Snapshots over HTTP, restored and served again."""

from pathlib import Path

from fastapi.testclient import TestClient

from index.restoring import restore
from service.app import create_app
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded
from tests.service.conftest import Upload

SNAPSHOTS = "/v1/collections/default/snapshots"


def test_a_collection_is_restored_as_it_was_served(
    client: TestClient, upload: Upload, settings: Settings, tmp_path: Path
) -> None:
    outcomes = upload(1, 2, 3, metadata='{"colour": "red"}')
    client.post("/v1/collections", json={"name": "other"})
    answer = client.post(SNAPSHOTS)
    assert answer.status_code == 201
    taken = answer.json()
    assert (taken["collection"], taken["collections"]) == ("default", {"default": 3})
    upload(4)
    assert restore(settings.data / "snapshots" / taken["name"], tmp_path / "restored")
    again = settings.model_copy(update={"data": tmp_path / "restored"})
    with Engine(again) as engine, TestClient(create_app(engine)) as restored:
        assert restored.get("/v1/collections/other").status_code == 404
        files = {"file": ("2.png", encoded(2), "image/png")}
        found = restored.post("/v1/collections/default/search", files=files).json()["neighbours"]
        assert len(found) == 3
        assert found[0]["id"] == outcomes[1]["id"]
        for outcome in outcomes:
            item = f"/v1/collections/default/items/{outcome['id']}"
            assert restored.get(item).json()["metadata"] == {"colour": "red"}
            assert restored.get(f"{item}/thumbnail").status_code == 200


def test_snapshots_are_listed_and_removed(client: TestClient, upload: Upload) -> None:
    upload(1)
    one, whole = client.post(SNAPSHOTS).json(), client.post("/v1/snapshots").json()
    assert whole["collection"] is None
    assert client.get("/v1/snapshots").json()["snapshots"] == [whole, one]
    assert client.get(SNAPSHOTS).json()["snapshots"] == [one]
    assert client.delete(f"/v1/snapshots/{one['name']}").status_code == 204
    assert client.get(SNAPSHOTS).json()["snapshots"] == []
    for name in (one["name"], "..", "lock", "%2e%2e", "..%2f..%2fdata"):
        assert client.delete(f"/v1/snapshots/{name}").status_code in (404, 405)
    assert client.get("/v1/snapshots").json()["snapshots"] == [whole]
    answer = client.post("/v1/collections/none/snapshots")
    assert (answer.status_code, answer.json()["code"]) == (404, "collection-unknown")
