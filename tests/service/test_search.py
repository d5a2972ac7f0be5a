"""Searching by upload, item, region, several pictures, and over several spaces."""

import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.query import combine
from tests.pictures import encoded, picture
from tests.service.conftest import Upload

SEARCH = "/v1/collections/default/search"


def by_upload(client: TestClient, seed: int, **fields: str) -> dict:
    answer = client.post(SEARCH, files={"file": ("q.png", encoded(seed), "image/png")}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_picture_finds_itself_first(client: TestClient, upload: Upload) -> None:
    outcomes = upload(*range(6), metadata=json.dumps([{"n": n} for n in range(6)]))
    answer = by_upload(client, 3, k="4")
    first = answer["neighbours"][0]
    assert first["id"] == outcomes[3]["id"]
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert (first["name"], first["metadata"]) == ("3.png", {"n": 3})
    scores = [neighbour["score"] for neighbour in answer["neighbours"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert answer["space"] == "high"
    assert set(answer["took_ms"]) == {"decode", "forward", "search"}


def test_an_item_finds_others_but_not_itself(client: TestClient, upload: Upload) -> None:
    ids = [outcome["id"] for outcome in upload(*range(5))]
    found = client.post(SEARCH, json={"item": ids[2]}).json()["neighbours"]
    assert {neighbour["id"] for neighbour in found} == set(ids) - {ids[2]}


def test_a_search_by_item_is_a_search_by_its_picture(client: TestClient, upload: Upload) -> None:
    ids = [outcome["id"] for outcome in upload(*range(5))]
    by_item = client.post(SEARCH, json={"item": ids[2]}).json()["neighbours"]
    by_picture = by_upload(client, 2)["neighbours"][1:]
    assert [n["id"] for n in by_item] == [n["id"] for n in by_picture]
    for one, other in zip(by_item, by_picture, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=2e-3)


@pytest.mark.parametrize("space", ["low", "mid", "high"])
def test_every_level_can_be_searched(client: TestClient, upload: Upload, space: str) -> None:
    upload(*range(3))
    answer = by_upload(client, 1, space=space)
    assert answer["space"] == space
    assert answer["neighbours"][0]["name"] == "1.png"


def test_weights_over_spaces_add_up_their_cosines(client: TestClient, upload: Upload) -> None:
    upload(*range(5))
    weights = {"low": 1, "high": 3}
    mixed = by_upload(client, 9, space=json.dumps(weights))["neighbours"]
    alone = {
        space: {n["id"]: n["score"] for n in by_upload(client, 9, space=space)["neighbours"]}
        for space in weights
    }
    for neighbour in mixed:
        expected = 0.25 * alone["low"][neighbour["id"]] + 0.75 * alone["high"][neighbour["id"]]
        assert neighbour["score"] == pytest.approx(expected, abs=1e-4)


def test_a_region_finds_the_picture_that_it_shows(client: TestClient, upload: Upload) -> None:
    upload(*range(6))
    # Picture 4 fills the right half of the query.
    query = picture(20, (320, 120))
    query.paste(picture(4), (160, 0))
    buffer = io.BytesIO()
    query.save(buffer, "PNG")
    files = {"file": ("q.png", buffer.getvalue(), "image/png")}
    found = client.post(SEARCH, files=files, data={"region": "[0.5, 0, 1, 1]"}).json()["neighbours"]
    assert found[0]["name"] == "4.png"
    assert found[0]["score"] == pytest.approx(1, abs=2e-3)
    commas = client.post(SEARCH, files=files, data={"region": "0.5,0,1,1"}).json()["neighbours"]
    assert commas == found


def test_a_region_of_an_item_is_cut_from_its_kept_picture(
    client: TestClient, upload: Upload
) -> None:
    ids = [outcome["id"] for outcome in upload(*range(4))]
    body = {"item": ids[0], "region": [0, 0, 0.5, 0.5]}
    assert client.post(SEARCH, json=body).status_code == 200
    client.post("/v1/collections", json={"name": "bare", "keep": "nothing"})
    (outcome,) = upload(1, collection="bare")
    answer = client.post("/v1/collections/bare/search", json={**body, "item": outcome["id"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "item-picture-missing")


def test_several_uploads_are_several_positives(client: TestClient, upload: Upload) -> None:
    upload(*range(6))
    files = [("file", (f"{n}.png", encoded(n), "image/png")) for n in (1, 4)]
    found = client.post(SEARCH, files=files).json()["neighbours"]
    assert {neighbour["name"] for neighbour in found[:2]} == {"1.png", "4.png"}


def test_positives_draw_and_negatives_repel(client: TestClient, upload: Upload) -> None:
    ids = [outcome["id"] for outcome in upload(*range(6))]
    plain = client.post(SEARCH, json={"positives": [ids[0], ids[1]]}).json()["neighbours"]
    body = {"positives": [ids[0], {"item": ids[1]}], "negatives": [ids[2]]}
    repelled = client.post(SEARCH, json=body).json()["neighbours"]
    assert {n["id"] for n in plain} == set(ids[2:])
    assert {n["id"] for n in repelled} == set(ids[3:])


def test_negatives_lower_the_score_of_what_is_like_them() -> None:
    like, unlike = np.float32([1, 0]), np.float32([0, 1])
    query = combine([np.float32([0.7, 0.7])], [like])
    assert query @ like < query @ unlike


def test_pages_continue_one_another(client: TestClient, upload: Upload) -> None:
    upload(*range(7))
    whole = by_upload(client, 2, k="7")
    first, second = by_upload(client, 2, k="4"), by_upload(client, 2, k="4", offset="4")
    assert first["neighbours"] + second["neighbours"] == whole["neighbours"]
    assert (first["more"], second["more"], whole["more"]) == (True, False, False)


def test_a_filter_leaves_only_what_it_names(client: TestClient, upload: Upload) -> None:
    upload(*range(6), metadata=json.dumps([{"even": n % 2 == 0, "n": n} for n in range(6)]))
    found = by_upload(client, 1, filter='{"even": true, "n": {"gte": 2}}')["neighbours"]
    assert {neighbour["metadata"]["n"] for neighbour in found} == {2, 4}


def test_expansion_changes_the_ranking_but_not_its_size(client: TestClient, upload: Upload) -> None:
    upload(*range(6))
    expanded = by_upload(client, 30, expansion='{"n": 3, "alpha": 3}')["neighbours"]
    plain = by_upload(client, 30)["neighbours"]
    assert len(expanded) == len(plain) == 6
    assert [n["score"] for n in expanded] != [n["score"] for n in plain]


def test_an_empty_collection_has_no_neighbours(client: TestClient) -> None:
    assert by_upload(client, 1)["neighbours"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "query-empty"),
        ({"item": "nobody"}, 404, "item-unknown"),
        ({"positives": [{}]}, 422, "request-invalid"),
        ({"item": "x", "k": 0}, 422, "request-invalid"),
        ({"item": "x", "k": 100_000}, 422, "request-invalid"),
        ({"item": "x", "region": [0, 0, 2, 1]}, 422, "request-invalid"),
        ({"item": "x", "space": "none"}, 422, "space-unknown"),
        ({"item": "x", "space": {}}, 422, "space-weights-invalid"),
        ({"item": "x", "unknown": 1}, 422, "request-invalid"),
        ({"url": "http://127.0.0.1/a.png"}, 422, "url-offline"),
    ],
)
def test_a_wrong_search_says_what_is_wrong(
    client: TestClient, upload: Upload, body: dict, status: int, code: str
) -> None:
    upload(1)
    answer = client.post(SEARCH, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("given", [{"json": {"item": "x"}}, {"files": {"file": b"a picture"}}])
def test_a_collection_that_is_not_there_is_unknown(client: TestClient, given: dict) -> None:
    answer = client.post("/v1/collections/nobody/search", **given)
    assert (answer.status_code, answer.json()["code"]) == (404, "collection-unknown")


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(SEARCH, content=body, headers={"content-type": "application/json"})
    assert answer.json()["code"] in ("request-malformed", "query-empty")
    assert answer.status_code in (400, 422)


RERANKED = ["dba", "diffusion", "k-reciprocal"]


@pytest.mark.parametrize("method", RERANKED)
def test_a_form_and_a_json_body_rank_anew_alike(
    client: TestClient, upload: Upload, method: str
) -> None:
    ids = [outcome["id"] for outcome in upload(*range(7))]
    plain = {n["id"]: n["score"] for n in by_upload(client, 2)["neighbours"]}
    ranked = by_upload(client, 2, rerank=method)["neighbours"]
    assert {n["id"]: n["similarity"] for n in ranked} == plain
    assert [n["score"] for n in ranked] != [n["similarity"] for n in ranked]
    small = {"method": method, "shortlist": 3}
    page = by_upload(client, 2, rerank=json.dumps(small), k="2", offset="2")["neighbours"]
    assert page == by_upload(client, 2, rerank=json.dumps(small))["neighbours"][2:4]
    by_item = {"item": ids[2], "rerank": small, "space": {"low": 1, "high": 1}}
    found = client.post(SEARCH, json=by_item).json()["neighbours"]
    assert {n["id"] for n in found} == set(ids) - {ids[2]}


@pytest.mark.parametrize(
    ("rerank", "said"),
    [
        ("pagerank", "none of ['dba', 'diffusion', 'k-reciprocal']"),
        ({"method": "dba", "k": 1000}, "rerank.k = 1000 is no whole number in 1…100"),
        ({"method": "dba", "k2": 3}, "not 'k2'"),
    ],
)
def test_a_wrong_reranking_says_what_is_right(
    client: TestClient, upload: Upload, rerank: str | dict, said: str
) -> None:
    (outcome,) = upload(1)
    answer = client.post(SEARCH, json={"item": outcome["id"], "rerank": rerank})
    assert (answer.status_code, answer.json()["code"]) == (422, "rerank-invalid")
    assert said in answer.json()["detail"]
    form = {"rerank": rerank if isinstance(rerank, str) else json.dumps(rerank)}
    files = {"file": ("q.png", encoded(1), "image/png")}
    assert client.post(SEARCH, files=files, data=form).json()["code"] == "rerank-invalid"


def test_openapi_describes_every_method_with_its_parameters(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    names, *methods, nothing = schemas["SearchBody"]["properties"]["rerank"]["anyOf"]
    assert nothing == {"type": "null"}
    assert names["enum"] == [method["title"] for method in methods] == RERANKED
    diffusion = methods[1]["properties"]
    assert diffusion["alpha"]["default"] == 0.99
    assert diffusion["shortlist"]["maximum"] == 1000
    assert diffusion["k"]["type"] == "integer"
    assert "Iscen" in methods[1]["description"]
