"""Uploading, reading, changing and removing items."""

import io
import json

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from index.pictures import path_of
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded
from tests.service.conftest import Upload

ITEMS = "/v1/collections/default/items"


def test_an_uploaded_picture_is_an_item_at_once(client: TestClient, upload: Upload) -> None:
    (outcome,) = upload(1)
    assert outcome["status"] == "added"
    item = client.get(f"{ITEMS}/{outcome['id']}").json()
    assert (item["name"], item["width"], item["height"]) == ("1.png", 160, 120)
    assert client.get("/v1/collections/default").json()["items"] == 1


def test_the_same_picture_again_is_unchanged(client: TestClient, upload: Upload) -> None:
    first, again = upload(1)[0], upload(1)[0]
    assert again == {**first, "status": "unchanged"}
    assert client.get("/v1/collections/default").json()["items"] == 1


def test_the_same_picture_twice_in_one_upload_is_one_item(
    client: TestClient, upload: Upload
) -> None:
    outcomes = upload(1, 1, 2)
    assert outcomes[0]["id"] == outcomes[1]["id"] != outcomes[2]["id"]
    assert client.get("/v1/collections/default").json()["items"] == 2


def test_another_picture_under_a_given_id_replaces_the_first(
    client: TestClient, upload: Upload
) -> None:
    assert upload(1, ids='["shoe"]')[0] == {
        "name": "1.png",
        "id": "shoe",
        "status": "added",
        "problem": None,
        "duplicate_of": None,
    }
    assert upload(2, ids='["shoe"]')[0]["status"] == "replaced"
    assert client.get("/v1/collections/default").json()["items"] == 1
    assert client.get(f"{ITEMS}/shoe").json()["name"] == "2.png"


def test_metadata_is_one_object_for_all_or_a_list_with_one_for_each(
    client: TestClient, upload: Upload
) -> None:
    for outcome in upload(1, 2, metadata='{"colour": "red"}'):
        assert client.get(f"{ITEMS}/{outcome['id']}").json()["metadata"] == {"colour": "red"}
    three, four = upload(3, 4, metadata='[{"n": 3}, {"n": 4}]')
    assert client.get(f"{ITEMS}/{three['id']}").json()["metadata"] == {"n": 3}
    assert client.get(f"{ITEMS}/{four['id']}").json()["metadata"] == {"n": 4}


@pytest.mark.parametrize("metadata", ["[{}]", "3", '"red"', "[1, 2]", "{", "[" * 100_000])
def test_metadata_that_does_not_fit_is_refused(client: TestClient, metadata: str) -> None:
    files = [("files", ("a.png", encoded(n), "image/png")) for n in (1, 2)]
    answer = client.post(ITEMS, files=files, data={"metadata": metadata})
    assert answer.status_code == 422
    assert answer.json()["code"] == "request-invalid"


def test_a_broken_picture_fails_alone_with_a_reason(client: TestClient) -> None:
    files = [
        ("files", ("good.png", encoded(1), "image/png")),
        ("files", ("notes.txt", b"no picture at all", "image/png")),
        ("files", ("cut.png", encoded(2)[:600], "image/png")),
        ("files", ("empty.png", b"", "image/png")),
        ("files", ("large.png", b"\x89PNG" + bytes(1024 * 1024), "image/png")),
        ("files", ("also-good.png", encoded(3), "image/png")),
    ]
    outcomes = client.post(ITEMS, files=files).json()["items"]
    assert [outcome["status"] for outcome in outcomes] == [
        "added", "failed", "failed", "failed", "failed", "added",
    ]  # fmt: skip
    assert [outcome["problem"] and outcome["problem"]["code"] for outcome in outcomes] == [
        None,
        "picture-format-unknown",
        "picture-truncated",
        "picture-empty",
        "picture-too-many-bytes",
        None,
    ]


def test_an_id_that_cannot_stand_in_an_address_fails_alone(upload: Upload) -> None:
    outcomes = upload(1, 2, ids='["a/b", "fine"]')
    assert [outcome["status"] for outcome in outcomes] == ["failed", "added"]
    assert outcomes[0]["problem"]["code"] == "item-id-invalid"


def test_a_file_name_never_becomes_a_path(client: TestClient, settings: Settings) -> None:
    files = [("files", ("../../../escape.png", encoded(1), "image/png"))]
    outcome = client.post(ITEMS, files=files).json()["items"][0]
    assert outcome["name"] == "escape.png"
    assert not list(settings.data.parent.parent.glob("**/escape.png"))


def test_an_upload_without_a_file_is_refused(client: TestClient) -> None:
    assert client.post(ITEMS, json={}).json()["code"] == "request-unsupported"
    answer = client.post(ITEMS, files=[("other", ("a.png", encoded(1), "image/png"))])
    assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")


def test_a_body_above_the_cap_is_cut_off(client: TestClient) -> None:
    files = [("files", ("a.png", bytes(9 * 1024 * 1024), "image/png"))]
    answer = client.post(ITEMS, files=files)
    assert (answer.status_code, answer.json()["code"]) == (413, "request-too-large")


def test_a_merge_patch_changes_and_removes_keys(client: TestClient, upload: Upload) -> None:
    (outcome,) = upload(1, metadata='{"colour": "red", "price": 3}')
    patch = {"metadata": {"colour": "blue", "price": None}}
    answer = client.patch(f"{ITEMS}/{outcome['id']}", json=patch)
    assert answer.json()["metadata"] == {"colour": "blue"}


def test_a_removed_item_is_gone(client: TestClient, upload: Upload) -> None:
    (outcome,) = upload(1)
    address = f"{ITEMS}/{outcome['id']}"
    assert client.delete(address).status_code == 204
    for answer in (client.get(address), client.delete(address), client.get(address + "/thumbnail")):
        assert (answer.status_code, answer.json()["code"]) == (404, "item-unknown")


def test_items_are_listed_page_by_page(client: TestClient, upload: Upload) -> None:
    ids = {outcome["id"] for outcome in upload(*range(7))}
    seen: list[str] = []
    after = None
    while True:
        query = {"limit": 3} | ({"after": after} if after else {})
        page = client.get(ITEMS, params=query).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert len(seen) == len(ids)
    assert set(seen) == ids


def test_items_can_be_filtered(client: TestClient, upload: Upload) -> None:
    upload(1, 2, metadata='[{"colour": "red"}, {"colour": "blue"}]')
    found = client.get(ITEMS, params={"filter": json.dumps({"colour": "blue"})}).json()["items"]
    assert [item["name"] for item in found] == ["2.png"]
    answer = client.get(ITEMS, params={"filter": "[1]"})
    assert answer.json()["code"] == "filter-invalid"


def test_a_thumbnail_is_small_and_carries_no_metadata(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    buffer = io.BytesIO()
    Image.new("RGB", (900, 600), "teal").save(buffer, "JPEG", exif=exif)
    files = [("files", ("a.jpg", buffer.getvalue(), "image/jpeg"))]
    (outcome,) = client.post(ITEMS, files=files).json()["items"]
    answer = client.get(f"{ITEMS}/{outcome['id']}/thumbnail")
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert max(thumbnail.size) <= 320
    assert not thumbnail.getexif()


def test_a_thumbnail_kept_as_webp_is_still_served_and_a_damaged_one_is_not(
    client: TestClient, engine: Engine, upload: Upload
) -> None:
    (outcome,) = upload(1)
    address = f"{ITEMS}/{outcome['id']}/thumbnail"
    collection = engine.catalog.collection("default")
    sha256 = collection.get(outcome["id"]).sha256
    webp = io.BytesIO()
    Image.new("RGB", (8, 8)).save(webp, "WEBP")
    for content, expected in ((webp.getvalue(), 200), (b"no picture", 404)):
        (kept,) = engine.settings.data.rglob(path_of(sha256, "thumbnail"))
        kept.write_bytes(content)
        assert client.get(address).status_code == expected
    assert client.get(address).json()["code"] == "item-picture-missing"


def test_a_collection_that_keeps_nothing_has_no_thumbnails(
    client: TestClient, upload: Upload
) -> None:
    client.post("/v1/collections", json={"name": "bare", "keep": "nothing"})
    (outcome,) = upload(1, collection="bare")
    answer = client.get(f"/v1/collections/bare/items/{outcome['id']}/thumbnail")
    assert (answer.status_code, answer.json()["code"]) == (404, "item-picture-missing")
