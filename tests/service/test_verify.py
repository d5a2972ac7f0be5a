"""Spatial verification in a search: what shows the same thing comes first, however it is kept."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from fastapi.testclient import TestClient
from PIL import Image

from models import zoo
from models.activations import truncate
from models.geometry import layers
from service import verification
from service.engine import Engine
from service.settings import Settings
from tests.pictures import picture
from tests.service.conftest import Upload

COLLECTIONS = {
    "originals": {"keep": "original"},
    "thumbnails": {"keep": "thumbnail"},
    "grids": {"keep": "nothing", "keep_grids": ["mid"]},
}


def scene(seed: int) -> Image.Image:
    """Random shapes: rich in places that differ from one another."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((480, 360), Image.Resampling.NEAREST)


def shifted(picture: Image.Image, by: int) -> Image.Image:
    """The same thing, seen a little further to the left, and mirrored where it leaves the frame."""
    pixels = np.asarray(picture)
    return Image.fromarray(np.concatenate([pixels[:, by:], pixels[:, :by]], axis=1))


def scrambled(picture: Image.Image, seed: int) -> Image.Image:
    """The same parts in other places: alike to any descriptor that pools."""
    blocks = np.asarray(picture.resize((16, 12), Image.Resampling.NEAREST)).reshape(-1, 3)
    mixed = np.random.default_rng(seed).permutation(blocks).reshape(12, 16, 3)
    return Image.fromarray(mixed).resize((480, 360), Image.Resampling.NEAREST)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def filled(client: TestClient, name: str) -> dict[str, str]:
    """A collection of one scene shifted, its parts scrambled, and others; ids by name."""
    made = client.post("/v1/collections", json={"name": name, **COLLECTIONS[name]})
    assert made.status_code == 201, made.text
    pictures = {
        "same.png": shifted(scene(1), 30),
        **{f"scrambled-{n}.png": scrambled(scene(1), n) for n in range(3)},
        **{f"other-{n}.png": scene(n + 10) for n in range(2)},
    }
    files = [("files", (n, encoded(picture), "image/png")) for n, picture in pictures.items()]
    outcomes = client.post(f"/v1/collections/{name}/items", files=files).json()["items"]
    return {outcome["name"]: outcome["id"] for outcome in outcomes}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_same_thing_comes_first_with_the_most_inliers(client: TestClient, name: str) -> None:
    filled(client, name)
    files = {"file": ("q.png", encoded(scene(1)), "image/png")}
    data = {"verify": json.dumps({"n": 6, "layer": "mid"}), "space": "high", "k": "6"}
    answer = client.post(f"/v1/collections/{name}/search", files=files, data=data)
    assert answer.status_code == 200, answer.text
    found = answer.json()["neighbours"]
    assert found[0]["name"] == "same.png"
    assert found[0]["inliers"] >= 15
    assert found[0]["inliers"] > 2 * max(n["inliers"] for n in found[1:])


def test_an_item_is_verified_without_decode_or_forward_where_grids_are_kept(
    client: TestClient,
) -> None:
    ids = filled(client, "grids")
    body = {"item": ids["same.png"], "verify": {"n": 3}, "k": 5}
    answer = client.post("/v1/collections/grids/search", json=body).json()
    assert (answer["took_ms"]["decode"], answer["took_ms"]["forward"]) == (0, 0)
    verified = [n["inliers"] is not None for n in answer["neighbours"]]
    assert verified == [True, True, True, False, False]


def test_pages_of_a_verified_search_continue_one_another(client: TestClient) -> None:
    ids = filled(client, "grids")
    body = {"item": ids["same.png"], "verify": {"n": 4, "inliers": 5}}

    def page(k: int, offset: int) -> dict:
        return client.post(
            "/v1/collections/grids/search", json={**body, "k": k, "offset": offset}
        ).json()

    whole, first, second = page(5, 0), page(2, 0), page(3, 2)
    assert first["neighbours"] + second["neighbours"] == whole["neighbours"]
    assert (first["more"], second["more"]) == (True, False)


def test_what_rerank_found_keeps_its_order_where_nothing_is_verified(client: TestClient) -> None:
    ids = filled(client, "grids")
    # Of a short list of three the scores are of another kind than the cosines behind it.
    rerank = {"method": "diffusion", "shortlist": 3, "seeds": 1, "alpha": 0.1}
    body = {"item": ids["same.png"], "k": 5, "rerank": rerank}
    ranked = client.post("/v1/collections/grids/search", json=body).json()["neighbours"]
    scores = [n["score"] for n in ranked]
    assert scores != sorted(scores, reverse=True)
    body["verify"] = {"n": 5, "inliers": 10_000}
    verified = client.post("/v1/collections/grids/search", json=body).json()["neighbours"]
    assert [n["id"] for n in verified] == [n["id"] for n in ranked]


def test_a_search_without_verification_says_nothing_of_inliers(
    client: TestClient, upload: Upload
) -> None:
    (outcome, _) = upload(1, 2)
    body = {"item": outcome["id"]}
    found = client.post("/v1/collections/default/search", json=body).json()["neighbours"]
    assert [n["inliers"] for n in found] == [None]


def test_a_network_of_one_input_size_verifies_by_its_centre_crop(
    client: TestClient, settings: Settings, upload: Upload
) -> None:
    random = torch.Generator().manual_seed(1)
    shapes = truncate("vit_b_16", ["conv_proj"]).state_dict()
    named = {name: torch.randn(x.shape, generator=random) for name, x in shapes.items()}
    settings.weights_dir.mkdir()
    safetensors.torch.save_file(named, settings.weights_dir / "vit.safetensors")
    body = {"name": "vit", "spaces": {"high": "vit_b_16/conv_proj/spoc"}}
    body["weights"] = {"vit_b_16": "vit.safetensors"}
    made = client.post("/v1/collections", json=body)
    assert made.status_code == 201, made.text
    upload(1, 2, collection="vit")
    files = {"file": ("q.png", encoded(picture(1)), "image/png")}
    answer = client.post("/v1/collections/vit/search", files=files, data={"verify": '{"n": 2}'})
    assert answer.status_code == 200, answer.text
    inliers = [n["inliers"] for n in answer.json()["neighbours"]]
    assert inliers[0] >= 15 > inliers[1]


@pytest.mark.parametrize("network", ["alexnet", "vgg19", "resnet152", "densenet161"])
@pytest.mark.parametrize("keep", ["original", "thumbnail", "nothing"])
def test_no_layer_of_a_picture_that_is_looked_at_again_fills_the_memory(
    network: str, keep: str
) -> None:
    side = verification.side_of(network, keep)
    assert side >= 224
    for layer in layers(network).values():
        if layer.stride is not None:
            cells = -(-side // layer.stride)
            assert layer.channels * cells * cells * 4 <= 65 * 2**20, layer.name


def test_one_file_of_weights_prepared_in_two_ways_is_two_networks(
    client: TestClient, engine: Engine, settings: Settings
) -> None:
    settings.weights_dir.mkdir()
    parameters = zoo.build(zoo.network("alexnet")).features[0].to_empty(device="cpu").state_dict()
    named = {f"features.0.{name}": torch.zeros_like(x) for name, x in parameters.items()}
    safetensors.torch.save_file(named, settings.weights_dir / "own.safetensors")
    seen = []
    for name, weights in (("imagenet", "own.safetensors"), ("caffe", "own.safetensors:caffe")):
        body = {"name": name, "spaces": {"low": "alexnet/conv1/spoc"}}
        made = client.post("/v1/collections", json={**body, "weights": {"alexnet": weights}})
        assert made.status_code == 201, made.text
        extractor = engine.extractor_of_grid(engine.catalog.collection(name), "alexnet/conv1")
        seen.append(extractor.preprocessing("alexnet/conv1").channels)
    assert seen == ["RGB", "BGR"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"verify": {"n": 0}}, "request-invalid"),
        ({"verify": {"n": 1000}}, "request-invalid"),
        ({"verify": {"m": 1}}, "request-invalid"),
        ({"verify": {"layer": "alexnet/fc6"}}, "verify-no-grid"),
        ({"verify": {"layer": "alexnet/conv9"}}, "spec-unknown-layer"),
        ({"verify": {"layer": "vgg19/conv5_4"}}, "spec-invalid"),
        ({"verify": {"n": 5}, "positives": ["ITEM"]}, "verify-several"),
    ],
)
def test_what_cannot_be_verified_is_refused(
    client: TestClient, upload: Upload, body: dict, code: str
) -> None:
    (outcome,) = upload(1)
    sent = {"item": outcome["id"], **body}
    if "positives" in sent:
        sent["positives"] = [outcome["id"]]
    answer = client.post("/v1/collections/default/search", json=sent)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def kept_of(engine: Engine, collection: str, item_id: str, kind: str) -> Path:
    """The file that is kept of an item."""
    found = engine.catalog.collection(collection)
    sha256 = found.get(item_id).sha256
    return engine.settings.data / "pictures" / str(found.id) / kind / sha256[:2] / sha256


@pytest.mark.parametrize(
    ("name", "kind", "damage"),
    [
        ("thumbnails", "thumbnail", b"no picture"),
        ("thumbnails", "thumbnail", None),
        ("originals", "original", b"other bytes"),
        ("grids", "grids", b"no grid"),
        ("grids", "grids", None),
    ],
)
def test_a_neighbour_that_cannot_be_read_any_more_has_no_inliers(
    client: TestClient, engine: Engine, name: str, kind: str, damage: bytes | None
) -> None:
    ids = filled(client, name)
    file = kept_of(engine, name, ids["other-0.png"], kind)
    file.write_bytes(damage) if damage else file.unlink()
    files = {"file": ("q.png", encoded(scene(1)), "image/png")}
    data = {"verify": '{"n": 6}', "k": "6"}
    answer = client.post(f"/v1/collections/{name}/search", files=files, data=data)
    assert answer.status_code == 200, answer.text
    inliers = {n["name"]: n["inliers"] for n in answer.json()["neighbours"]}
    assert [other for other, count in inliers.items() if count is None] == ["other-0.png"]
    assert inliers["same.png"] >= 15


@pytest.mark.parametrize(
    ("name", "kind", "damage", "code"),
    [
        ("thumbnails", "thumbnail", b"no picture", "picture-format-unknown"),
        ("thumbnails", "thumbnail", None, "item-picture-missing"),
        ("grids", "grids", b"no grid", "grids-damaged"),
    ],
)
def test_a_query_that_cannot_be_read_any_more_is_refused(
    client: TestClient, engine: Engine, name: str, kind: str, damage: bytes | None, code: str
) -> None:
    ids = filled(client, name)
    file = kept_of(engine, name, ids["same.png"], kind)
    file.write_bytes(damage) if damage else file.unlink()
    body = {"item": ids["same.png"], "verify": {"n": 3}}
    answer = client.post(f"/v1/collections/{name}/search", json=body)
    assert answer.json()["code"] == code


def test_what_keeps_nothing_to_verify_by_says_so(client: TestClient) -> None:
    filled(client, "grids")
    files = {"file": ("q.png", encoded(scene(1)), "image/png")}
    data = {"verify": '{"n": 6, "layer": "low"}'}
    answer = client.post("/v1/collections/grids/search", files=files, data=data)
    assert (answer.status_code, answer.json()["code"]) == (422, "verify-no-grid")
