"""Making, describing and dropping collections; networks; descriptors; health; metrics."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from models import Extractor
from models.embedded import EMBEDDED
from models.spec import parse
from service.app import create_app
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded, picture
from tests.service.conftest import Upload


def test_the_collection_default_exists_from_the_start(client: TestClient) -> None:
    found = client.get("/v1/collections/default").json()
    assert set(found["spaces"]) == {"low", "mid", "high"}
    assert found["items"] == 0
    assert found["weights"] == {"alexnet": "embedded"}
    assert any("embedded" in notice for notice in found["notices"])
    specs = {level: space["spec"] for level, space in found["spaces"].items()}
    best = EMBEDDED["alexnet"].levels["high"]
    assert specs["high"] == str(parse(f"alexnet/{best}"))


def test_a_collection_lives_from_its_making_to_its_dropping(
    client: TestClient, upload: Upload
) -> None:
    new = {
        "name": "shoes",
        "spaces": {"high": "squeezenet1_1/fire9/gem", "low": "squeezenet1_1/fire3/spoc"},
        "weights": {"squeezenet1_1": "untrained"},
    }
    made = client.post("/v1/collections", json=new)
    assert made.status_code == 201
    assert made.json()["spaces"]["high"]["dim"] == 512
    upload(1, 2, collection="shoes")
    names = [found["name"] for found in client.get("/v1/collections").json()["collections"]]
    assert sorted(names) == ["default", "shoes"]
    assert client.delete("/v1/collections/shoes").status_code == 204
    answer = client.get("/v1/collections/shoes")
    assert (answer.status_code, answer.json()["code"]) == (404, "collection-unknown")


@pytest.mark.parametrize(
    ("new", "status", "code"),
    [
        ({"name": "default"}, 409, "collection-exists"),
        ({"name": "../etc"}, 422, "collection-name-invalid"),
        ({"name": "a", "spaces": {"high": "nonet/a/gem"}}, 404, "spec-unknown-network"),
        ({"name": "a", "spaces": {"high": "alexnet/conv9/gem"}}, 422, "spec-unknown-layer"),
        ({"name": "a", "spaces": {"high": "alexnet/conv5/best"}}, 422, "spec-unknown-pooling"),
        (
            {"name": "a", "spaces": {"high": "alexnet/conv5/gem/pca9"}},
            422,
            "spec-whitening-missing",
        ),
        ({"name": "a", "spaces": {"high": "resnet152/layer4/gem"}}, 409, "weights-unavailable"),
        ({"name": "a", "weights": {"alexnet": "../secret.pth"}}, 409, "weights-unknown"),
        ({"name": "a", "spaces": {}}, 422, "space-invalid"),
        ({"name": "a", "keep": "everything"}, 422, "request-invalid"),
        ({}, 422, "request-invalid"),
    ],
)
def test_a_collection_that_cannot_be_made_says_why(
    client: TestClient, new: dict[str, object], status: int, code: str
) -> None:
    answer = client.post("/v1/collections", json=new)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_items_and_pins_survive_a_restart(settings: Settings) -> None:
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        files = [("files", ("1.png", encoded(1), "image/png"))]
        client.post("/v1/collections/default/items", files=files)
        before = client.get("/v1/collections/default").json()
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        assert client.get("/v1/collections/default").json() == before
        files = {"file": ("1.png", encoded(1), "image/png")}
        found = client.post("/v1/collections/default/search", files=files).json()["neighbours"]
        assert found[0]["name"] == "1.png"


def test_networks_come_with_layers_and_weights(client: TestClient) -> None:
    networks = {row["name"]: row for row in client.get("/v1/networks").json()["networks"]}
    assert {"alexnet", "vgg19", "resnet152"} <= set(networks)
    conv5 = next(row for row in networks["alexnet"]["layers"] if row["name"] == "conv5")
    assert conv5 == {
        "name": "conv5",
        "node": "features.11",
        "level": "high",
        "channels": 256,
        "stride": 16,
        "receptive_field": 163,
    }
    assert networks["alexnet"]["weights"] == ["embedded", "untrained"]
    assert client.get("/v1/networks/mobilenet_v3_small").json()["layers"]
    assert client.get("/v1/networks/nonet").status_code == 404


def test_descriptors_are_those_of_the_extractor(client: TestClient) -> None:
    files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in (1, 2)]
    fields = {"spec": "alexnet/conv3/mac", "weights": "untrained"}
    answer = client.post("/v1/descriptors", files=files, data=fields).json()
    extractor = Extractor("alexnet/conv3/mac", weights="untrained", device="cpu")
    expected = extractor.describe([picture(1), picture(2)])
    np.testing.assert_allclose(answer["descriptors"], expected, atol=1e-5)
    assert answer["dim"] == 384
    assert answer["fingerprint"] == extractor.spaces[""].fingerprint
    npy = client.post(
        "/v1/descriptors", files=files, data=fields, headers={"accept": "application/x-npy"}
    )
    np.testing.assert_allclose(np.load(io.BytesIO(npy.content)), expected, atol=1e-5)


def test_a_picture_without_descriptor_has_a_problem_instead(client: TestClient) -> None:
    files = [
        ("files", ("a.png", encoded(1), "image/png")),
        ("files", ("b.png", b"nothing", "image/png")),
    ]
    fields = {"spec": "alexnet/high", "weights": "untrained"}
    answer = client.post("/v1/descriptors", files=files, data=fields).json()
    assert answer["descriptors"][1] is None
    assert answer["problems"][0] is None
    assert answer["problems"][1]["code"] == "picture-format-unknown"
    npy = client.post(
        "/v1/descriptors", files=files, data=fields, headers={"accept": "application/x-npy"}
    )
    assert (npy.status_code, npy.json()["code"]) == (415, "picture-format-unknown")


def test_ready_means_a_real_forward_pass_and_search(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"live": True}
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"catalog": "ok", "forward_and_search": "ok"}
    assert any("embedded" in notice for notice in answer.json()["notices"])


def test_not_ready_without_a_working_network(client: TestClient, engine: Engine) -> None:
    engine.batcher.close()
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "shutting-down" in answer.json()["checks"]["forward_and_search"]


def test_metrics_are_what_prometheus_parses(client: TestClient, upload: Upload) -> None:
    upload(1, 2)
    client.get("/v1/collections/default")
    client.get("/nowhere/at/all")
    families = {
        family.name: family
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }
    items = {s.labels["collection"]: s.value for s in families["pool5_items"].samples}
    assert items == {"default": 2}
    routes = {s.labels["route"] for s in families["pool5_requests"].samples}
    assert "/v1/collections/{collection}" in routes
    assert "unmatched" in routes
    assert families["pool5_batch_pictures"].type == "histogram"


def test_unknown_routes_and_methods_are_problems(client: TestClient) -> None:
    assert client.get("/nowhere").json()["code"] == "not-found"
    assert client.put("/v1/collections").json()["code"] == "method-not-allowed"
    assert client.get("/problems/item-unknown").status_code == 200


def test_every_answer_names_its_request(client: TestClient) -> None:
    assert len(client.get("/health/live").headers["x-request-id"]) == 32
    named = client.get("/health/live", headers={"x-request-id": "mine-7"})
    assert named.headers["x-request-id"] == "mine-7"
    forged = client.get("/health/live", headers={"x-request-id": "a b"})
    assert forged.headers["x-request-id"] != "a b"


def test_the_pages_bring_everything_themselves(client: TestClient) -> None:
    for address in ("/", "/docs"):
        page = client.get(address)
        assert page.status_code == 200
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert "default-src 'none'; script-src 'self'; " in page.headers["content-security-policy"]
    assert client.get("/swagger/swagger-ui-bundle.js").status_code == 200


def test_openapi_resolves_all_its_references(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    for reference in references(document):
        assert reference.rpartition("/")[2] in schemas, reference
    search = document["paths"]["/v1/collections/{collection}/search"]["post"]
    assert set(search["requestBody"]["content"]) == {"multipart/form-data", "application/json"}


def test_weights_that_changed_since_are_refused(
    settings: Settings, tmp_path: Path, shared_weights: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    content = (shared_weights / "squeezenet1_1.pth").read_bytes()
    (folder / "squeezenet1_1.pth").write_bytes(content)
    new = {
        "name": "genuine",
        "spaces": {"high": "squeezenet1_1/features.12/spoc"},
        "weights": {"squeezenet1_1": "squeezenet1_1.pth"},
    }
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        assert client.post("/v1/collections", json=new).status_code == 201
    changed = bytearray(content)
    changed[-50_000] ^= 1
    (folder / "squeezenet1_1.pth").write_bytes(changed)
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        files = {"file": ("1.png", encoded(1), "image/png")}
        answer = client.post("/v1/collections/genuine/search", files=files)
        assert answer.status_code == 409
        assert answer.json()["code"] in ("weights-differ", "weights-hash")
        assert client.get("/v1/collections/genuine").status_code == 200


def test_a_picture_is_one_descriptor_whatever_its_encoding(
    client: TestClient, upload: Upload
) -> None:
    upload(1)
    buffer = io.BytesIO()
    picture(1).save(buffer, "WEBP", lossless=True)
    assert Image.open(io.BytesIO(buffer.getvalue())).format == "WEBP"
    files = {"file": ("1.webp", buffer.getvalue(), "image/webp")}
    found = client.post("/v1/collections/default/search", files=files).json()["neighbours"]
    assert found[0]["score"] == pytest.approx(1, abs=1e-3)


def test_no_more_networks_stay_loaded_than_the_settings_say(settings: Settings) -> None:
    few = settings.model_copy(update={"loaded_networks": 2})
    with Engine(few) as engine:
        first = engine.extractor_of_spec("alexnet/conv1/spoc", "untrained")
        assert engine.extractor_of_spec(" alexnet/conv1/spoc(centre=0)", "untrained") is first
        engine.extractor_of_spec("alexnet/conv1/mac", "untrained")
        engine.extractor_of_spec("alexnet/conv1/gem", "untrained")
        assert engine.extractor_of_spec("alexnet/conv1/spoc", "untrained") is not first


def test_an_answer_of_too_many_numbers_is_refused(client: TestClient) -> None:
    files = [("files", (f"{n}.png", encoded(1, size=(8, 8)), "image/png")) for n in range(30)]
    fields = {"spec": "alexnet/conv1/flatten", "weights": "untrained"}
    answer = client.post("/v1/descriptors", files=files, data=fields)
    assert (answer.status_code, answer.json()["code"]) == (413, "request-too-large")


def test_json_is_held_in_memory_and_therefore_small(client: TestClient) -> None:
    body = b'{"item": "' + bytes(5 * 1024 * 1024) + b'"}'
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/collections/default/search", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "request-too-large")


def test_metadata_nested_without_end_is_refused(client: TestClient, upload: Upload) -> None:
    (item,) = upload(1)
    deep: dict[str, object] = {}
    for _ in range(900):
        deep = {"a": deep}
    address = f"/v1/collections/default/items/{item['id']}"
    answer = client.patch(address, json={"metadata": deep})
    assert (answer.status_code, answer.json()["code"]) == (422, "metadata-invalid")


def test_a_failed_upload_leaves_no_picture_behind(client: TestClient, settings: Settings) -> None:
    client.post("/v1/collections", json={"name": "whole", "keep": "original"})
    files = {"files": ("a.png", encoded(1), "image/png")}
    fields = {"metadata": '{"a": "' + "x" * 70_000 + '"}'}
    answer = client.post("/v1/collections/whole/items", files=files, data=fields)
    assert answer.json()["items"][0]["problem"]["code"] == "metadata-invalid"
    assert not [path for path in (settings.data / "pictures").rglob("*") if path.is_file()]


def test_ready_does_not_bring_back_what_was_dropped(client: TestClient) -> None:
    client.post("/v1/collections", json={"name": "mine"})
    client.delete("/v1/collections/default")
    assert client.get("/health/ready").status_code == 200
    assert client.get("/v1/collections/default").status_code == 404


def test_every_422_is_a_problem_in_openapi(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            content = operation["responses"].get("422", {}).get("content", {})
            assert "application/json" not in content


def test_a_collection_says_how_its_index_is_chosen_and_what_it_costs(
    client: TestClient, engine: Engine, upload: Upload
) -> None:
    policy = {"kind": "hnsw", "exact_up_to": 5, "memory_mib": 100, "recall": 0.95}
    new = {"name": "small", "spaces": {"high": "alexnet/conv1/spoc"}, "index": policy}
    assert client.post("/v1/collections", json=new).json()["index"] == policy
    before = client.get("/v1/collections/small").json()["spaces"]["high"]["index"]
    assert (before["kind"], before["number"], before["recall"]) == ("exact", 0, None)
    upload(*range(6), collection="small")
    engine.catalog.collection("small").compact()
    after = client.get("/v1/collections/small").json()["spaces"]["high"]["index"]
    assert (after["kind"], after["count"], after["number"]) == ("hnsw", 6, 1)
    assert "by the collection's settings" in after["why"]
    assert after["parameters"] == {"efSearch": 32}
    assert after["recall"] == 1
    assert after["latency_ms"] > 0
    assert after["bytes_per_item"] == pytest.approx(after["bytes"] / 6, abs=0.1)


@pytest.mark.parametrize("policy", [{"kind": "ivf"}, {"memory_mib": 0}, {"recall": 1}])
def test_an_index_policy_that_makes_no_sense_is_refused(
    client: TestClient, policy: dict[str, object]
) -> None:
    assert client.post("/v1/collections", json={"name": "x", "index": policy}).status_code == 422


def test_the_recall_of_live_searches_is_a_metric(tmp_path: Path, settings: Settings) -> None:
    watched = settings.model_copy(update={"recall_share": 1.0})
    with Engine(watched) as engine, TestClient(create_app(engine)) as client:
        for seed in (1, 2):
            files = [("files", (f"{seed}.png", encoded(seed), "image/png"))]
            client.post("/v1/collections/default/items", files=files)
        found = client.post("/v1/collections/default/search", files={"file": encoded(1)})
        assert found.status_code == 200
        deadline = time.monotonic() + 60
        while not engine.catalog.collection("default").watched["high"].samples:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        families = text_string_to_metric_families(client.get("/metrics").text)
        series = {
            (sample.name, sample.labels.get("space")): sample.value
            for family in families
            for sample in family.samples
        }
        assert series["pool5_recall", "high"] == 1
        assert series["pool5_recall_samples", "high"] == 1
        assert ("pool5_recall", "low") not in series
