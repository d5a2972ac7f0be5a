"""Explanations over HTTP: what they sum to, where the query was found, what is refused."""

import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.pictures import encoded
from tests.service.conftest import Upload

EXPLAIN = "/v1/collections/default/explain"
SEARCH = "/v1/collections/default/search"
MIX = {"low": 1, "mid": 1, "high": 2}


def explained(client: TestClient, collection: str = "default", **body: object) -> dict:
    answer = client.post(f"/v1/collections/{collection}/explain", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_heatmap_sums_to_its_score_and_the_spaces_to_the_whole(
    client: TestClient, upload: Upload
) -> None:
    ids = [outcome["id"] for outcome in upload(1, 2)]
    found = explained(client, item=ids[0], neighbour=ids[1], space=MIX)
    assert {one["space"] for one in found["spaces"]} == set(MIX)
    for one in found["spaces"]:
        assert one["weight"] == pytest.approx(MIX[one["space"]] / 4)
        for side in (one["query"], one["neighbour"]):
            assert np.sum(side["grid"]) + side["offset"] == pytest.approx(one["score"], abs=1e-4)
    total = sum(one["weight"] * one["score"] for one in found["spaces"])
    assert found["score"] == pytest.approx(total)
    assert sum(one["share"] for one in found["spaces"]) == pytest.approx(1)
    shares = [one["share"] for one in found["spaces"]]
    assert shares == sorted(shares, reverse=True)
    grids = {one["space"]: np.shape(one["query"]["grid"]) for one in found["spaces"]}
    # At 160 px; `high` joins conv1 to conv5, and conv1 has the finest grid.
    assert grids == {"low": (19, 19), "mid": (9, 9), "high": (39, 39)}


def test_the_score_is_that_of_the_search(client: TestClient, upload: Upload) -> None:
    ids = [outcome["id"] for outcome in upload(1, 2)]
    files = {"file": ("q.png", encoded(9), "image/png")}
    searched = client.post(SEARCH, files=files, data={"space": json.dumps(MIX)}).json()
    scores = {n["id"]: n["score"] for n in searched["neighbours"]}
    for item in ids:
        data = {"neighbour": item, "space": json.dumps(MIX)}
        answer = client.post(EXPLAIN, files=files, data=data)
        # The item is looked at again as its thumbnail, a JPEG.
        assert answer.json()["score"] == pytest.approx(scores[item], abs=0.02)


def test_a_space_of_several_scales_says_that_it_is_explained_at_one(
    client: TestClient, upload: Upload
) -> None:
    spaces = {"several": "alexnet/conv5/gem/ms", "one": "alexnet/conv5/gem"}
    body = {"name": "ms", "spaces": spaces, "weights": {"alexnet": "untrained"}}
    assert client.post("/v1/collections", json=body).status_code == 201
    ids = [outcome["id"] for outcome in upload(1, 2, collection="ms")]
    space = {"several": 1, "one": 1}
    found = explained(client, "ms", item=ids[0], neighbour=ids[1], space=space)
    parts = {one["space"]: one for one in found["spaces"]}
    assert parts["one"]["scales_left_out"] == []
    assert parts["several"]["scales_left_out"] == pytest.approx([0.7071, 0.5], abs=1e-4)
    assert parts["several"]["score"] == pytest.approx(parts["one"]["score"], abs=1e-6)
    heat = parts["several"]["query"]
    assert np.sum(heat["grid"]) + heat["offset"] == pytest.approx(parts["one"]["score"], abs=1e-4)


def test_the_box_of_a_heatmap_is_what_the_centre_crop_left(
    client: TestClient, upload: Upload
) -> None:
    body = {"name": "cut", "weights": {"alexnet": "untrained"}}  # 224 of 256 pixels
    assert client.post("/v1/collections", json=body).status_code == 201
    (outcome,) = upload(1, collection="cut")  # 160 × 120
    asked = {"item": outcome["id"], "neighbour": outcome["id"]}
    (one,) = client.post("/v1/collections/cut/explain", json=asked).json()["spaces"]
    x0, y0, x1, y1 = one["query"]["box"]
    assert (y0, y1) == pytest.approx((1 / 16, 15 / 16), abs=1e-3)
    assert x1 - x0 == pytest.approx((y1 - y0) * 120 / 160, abs=2e-3)
    assert one["score"] == pytest.approx(1, abs=1e-4)


def test_a_region_of_the_query_is_all_that_its_heatmap_covers(
    client: TestClient, upload: Upload
) -> None:
    ids = [outcome["id"] for outcome in upload(1, 2)]
    region = [0.5, 0.25, 1.0, 0.75]
    (one,) = explained(client, item=ids[0], neighbour=ids[1], region=region)["spaces"]
    x0, y0, x1, y1 = one["query"]["box"]
    assert 0.5 <= x0 < x1 <= 1.0
    assert 0.25 <= y0 < y1 <= 0.75
    assert one["neighbour"]["box"][0] < 0.2


def test_a_layer_without_a_grid_has_one_position_and_no_where(
    client: TestClient, roots: object
) -> None:
    body = {"name": "flat", "spaces": {"fc": "alexnet/fc6"}, "weights": {"alexnet": "untrained"}}
    assert client.post("/v1/collections", json=body).status_code == 201
    files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in (1, 2)]
    outcomes = client.post("/v1/collections/flat/items", files=files).json()["items"]
    found = explained(
        client, "flat", item=outcomes[0]["id"], neighbour=outcomes[1]["id"], space="fc"
    )
    (one,) = found["spaces"]
    assert one["query"]["grid"] == [[pytest.approx(one["score"], abs=1e-4)]]
    assert found["where"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"neighbour": "ITEM"}, 422, "query-empty"),
        ({"item": "ITEM", "url": "http://a.example/", "neighbour": "ITEM"}, 422, "query-empty"),
        ({"item": "ITEM"}, 422, "request-invalid"),
        ({"item": "nobody", "neighbour": "ITEM"}, 404, "item-unknown"),
        ({"item": "ITEM", "neighbour": "nobody"}, 404, "item-unknown"),
        ({"item": "ITEM", "neighbour": "ITEM", "space": "none"}, 422, "space-unknown"),
        ({"item": "ITEM", "neighbour": "ITEM", "space": {}}, 422, "space-weights-invalid"),
        ({"item": "ITEM", "neighbour": "ITEM", "region": [0, 0, 2, 1]}, 422, "request-invalid"),
        (
            {"item": "ITEM", "neighbour": "ITEM", "region": [0.5, 0, 0.5, 1]},
            422,
            "picture-region-invalid",
        ),
        ({"url": "http://127.0.0.1/a.png", "neighbour": "ITEM"}, 422, "url-offline"),
    ],
)
def test_a_wrong_question_says_what_is_wrong(
    client: TestClient, upload: Upload, body: dict, status: int, code: str
) -> None:
    (outcome,) = upload(1)
    sent = {name: outcome["id"] if value == "ITEM" else value for name, value in body.items()}
    answer = client.post(EXPLAIN, json=sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_item_of_which_nothing_is_kept_cannot_be_explained(
    client: TestClient, upload: Upload
) -> None:
    client.post("/v1/collections", json={"name": "bare", "keep": "nothing"})
    (outcome,) = upload(1, collection="bare")
    body = {"item": outcome["id"], "neighbour": outcome["id"]}
    answer = client.post("/v1/collections/bare/explain", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "item-picture-missing")


def test_the_call_is_in_the_api_description(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    call = document["paths"]["/v1/collections/{collection}/explain"]["post"]
    assert set(call["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert "ExplainBody" in document["components"]["schemas"]
