"""Kept grids: no second decode or forward, near the full precision, gone with their item."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from index.grids import pack, unpack
from models import decode
from models.explanation import describe_grids
from models.region import cells, covered
from service.engine import Engine
from tests.pictures import encoded, picture
from tests.service.conftest import Upload

LAYER = "alexnet/conv5"
SPACES = {"low": "alexnet/conv2/spoc", "high": "alexnet/conv5/gem"}
WEIGHTS = {"alexnet": "untrained"}


@pytest.fixture
def kept(client: TestClient) -> str:
    body = {
        "name": "kept",
        "spaces": SPACES,
        "weights": WEIGHTS,
        "keep": "nothing",
        "keep_grids": ["high"],
    }
    made = client.post("/v1/collections", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["keep_grids"] == [LAYER]
    return "kept"


def search(client: TestClient, **body: object) -> dict:
    answer = client.post("/v1/collections/kept/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_box_on_an_item_pools_its_grid_without_decode_or_forward(
    client: TestClient, engine: Engine, kept: str, upload: Upload
) -> None:
    ids = [outcome["id"] for outcome in upload(*range(5), collection=kept)]
    region = (0.3, 0.2, 0.8, 0.9)
    found = search(client, item=ids[0], region=region)
    assert (found["took_ms"]["decode"], found["took_ms"]["forward"]) == (0, 0)
    # The same by hand, from a forward pass of full precision.
    extractor = engine.extractor(engine.catalog.collection(kept))
    image = decode(encoded(0)).image
    grid = extractor.forward([extractor.prepare(image)], [LAYER])[LAYER][0]
    inside = cells(region, covered(160, 120, extractor.preprocessing(LAYER)), *grid.shape[1:])
    query = describe_grids({LAYER: inside.of(grid)}, extractor.spaces["high"])
    gallery = extractor.describe([picture(n) for n in range(1, 5)])["high"]
    expected = dict(zip(ids[1:], gallery @ query, strict=True))
    assert {n["id"] for n in found["neighbours"]} == set(expected)
    for neighbour in found["neighbours"]:
        assert neighbour["score"] == pytest.approx(expected[neighbour["id"]], abs=3e-3)


def test_a_box_beside_the_grid_needs_the_picture(
    client: TestClient, kept: str, upload: Upload
) -> None:
    (outcome,) = upload(1, collection=kept)
    body = {"item": outcome["id"], "region": [0, 0, 0.1, 1]}
    answer = client.post("/v1/collections/kept/search", json=body)
    assert answer.json()["code"] == "item-picture-missing"
    client.post("/v1/collections", json={"name": "both", "keep_grids": ["high"]})
    (outcome,) = upload(1, collection="both")
    took = client.post("/v1/collections/both/search", json=body).json()["took_ms"]
    assert took["forward"] > 0


@pytest.mark.parametrize("keep", ["nothing", "original"])
def test_a_box_on_an_item_of_several_scales_needs_the_picture(
    client: TestClient, engine: Engine, upload: Upload, keep: str
) -> None:
    body = {"name": "kept", "keep": keep, "keep_grids": ["high"]}
    body |= {"spaces": {"high": "alexnet/conv5/gem/ms"}, "weights": WEIGHTS}
    assert client.post("/v1/collections", json=body).json()["keep_grids"] == [LAYER]
    ids = [outcome["id"] for outcome in upload(0, 1, collection="kept")]
    region = (0.3, 0.2, 0.8, 0.9)
    answer = client.post("/v1/collections/kept/search", json={"item": ids[0], "region": region})
    if keep == "nothing":
        assert answer.json()["code"] == "item-picture-missing"
        return
    extractor = engine.extractor(engine.catalog.collection("kept"))
    (cut,) = extractor.describe([encoded(0)], region=region)["high"]
    (other,) = extractor.describe([encoded(1)])["high"]
    (neighbour,) = answer.json()["neighbours"]
    assert neighbour["score"] == pytest.approx(float(cut @ other), abs=1e-3)


def test_the_parts_of_joined_layers_stand_in_the_picture_where_each_looked(
    client: TestClient, upload: Upload
) -> None:
    body = {"name": "kept", "keep": "nothing", "keep_grids": ["joined"]}
    body["spaces"] = {"joined": "alexnet/conv1+conv5/spoc", "fine": "alexnet/conv1/spoc"}
    body["spaces"] |= {"coarse": "alexnet/conv5/spoc"}
    client.post("/v1/collections", json={**body, "weights": {"alexnet": "untrained"}})
    ids = [outcome["id"] for outcome in upload(1, 2, collection="kept")]

    def side(space: str) -> dict:
        asked = {"item": ids[0], "neighbour": ids[1], "region": [0.36, 0.32, 0.6, 0.64]}
        answer = client.post("/v1/collections/kept/explain", json={**asked, "space": space})
        return answer.json()["spaces"][0]["query"]

    fine, coarse, joined = side("fine"), side("coarse"), side("joined")
    assert fine["box"] != coarse["box"]
    ends = list(zip(fine["box"], coarse["box"], strict=True))
    assert joined["box"] == pytest.approx([*map(min, ends[:2]), *map(max, ends[2:])])
    # Its centre of mass is that of both parts, which weigh the same.
    expected = (moment(fine) + moment(coarse)) / 2
    assert moment(joined) == pytest.approx(expected, abs=1e-4)
    assert np.sum(joined["grid"]) == pytest.approx(expected[0], abs=1e-4)


def moment(side: dict) -> np.ndarray:
    """What a heatmap adds in all, and that times the x and y of each cell's middle."""
    grid = np.array(side["grid"])
    x0, y0, x1, y1 = side["box"]
    x = x0 + (np.arange(grid.shape[1]) + 0.5) / grid.shape[1] * (x1 - x0)
    y = y0 + (np.arange(grid.shape[0]) + 0.5) / grid.shape[0] * (y1 - y0)
    return np.array([grid.sum(), (grid * x).sum(), (grid * y[:, None]).sum()])


@pytest.mark.parametrize("call", ["search", "explain"])
@pytest.mark.parametrize("region", [[0.8, 0.8, 0.2, 0.2], [0.5, 0, 0.5, 1]])
@pytest.mark.parametrize("grids", [["high"], []])
def test_a_box_inside_out_is_refused_whatever_is_kept(
    client: TestClient, upload: Upload, call: str, region: list[float], grids: list[str]
) -> None:
    client.post("/v1/collections", json={"name": "c", "keep": "nothing", "keep_grids": grids})
    (outcome,) = upload(1, collection="c")
    body = {"item": outcome["id"], "region": region}
    if call == "explain":
        body["neighbour"] = outcome["id"]
    answer = client.post(f"/v1/collections/c/{call}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "picture-region-invalid")


def test_an_explanation_needs_no_picture_where_grids_are_kept(
    client: TestClient, kept: str, upload: Upload
) -> None:
    ids = [outcome["id"] for outcome in upload(1, 2, collection=kept)]
    body = {"item": ids[0], "neighbour": ids[1], "region": [0.3, 0.2, 0.8, 0.9]}
    found = client.post("/v1/collections/kept/explain", json=body).json()
    (one,) = found["spaces"]
    rows, columns = np.shape(one["query"]["grid"])
    assert rows < 13
    assert columns < 13
    assert np.sum(one["query"]["grid"]) == pytest.approx(one["score"], abs=1e-4)
    assert np.sum(one["neighbour"]["grid"]) == pytest.approx(one["score"], abs=1e-4)


def test_a_part_of_a_picture_is_found_where_it_stands_in_it(
    client: TestClient, kept: str, upload: Upload
) -> None:
    (outcome,) = upload(1, collection=kept)
    # 160 × 120: columns 7 to 12 and rows 7 to 12 of the 13 × 13 cells, which R-MAC has as a region.
    body = {"item": outcome["id"], "neighbour": outcome["id"], "region": [0.5, 0.51, 0.82, 0.93]}
    found = client.post("/v1/collections/kept/explain", json=body).json()
    assert found["score"] < 0.999
    assert found["where"] == pytest.approx(found["spaces"][0]["query"]["box"], abs=1e-6)
    assert found["where"][0] == pytest.approx(0.52, abs=0.02)


def test_a_box_on_an_item_of_a_flattened_layer_is_looked_at_anew(
    client: TestClient, upload: Upload
) -> None:
    spaces = {"flat": "alexnet/pool5/flatten", "high": "alexnet/pool5/gem"}
    body = {"name": "flat", "spaces": spaces, "keep_grids": ["flat"]}
    body["weights"] = {"alexnet": "untrained"}
    assert client.post("/v1/collections", json=body).status_code == 201
    ids = [outcome["id"] for outcome in upload(1, 2, collection="flat")]
    asked = {"item": ids[0], "region": [0.3, 0.2, 0.8, 0.9], "space": {"flat": 1, "high": 1}}
    found = client.post("/v1/collections/flat/search", json=asked).json()
    assert found["took_ms"]["forward"] > 0
    answer = client.post("/v1/collections/flat/explain", json={**asked, "neighbour": ids[1]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["score"] == pytest.approx(found["neighbours"][0]["score"], abs=0.03)


def files_of(engine: Engine) -> list[Path]:
    return [path for path in (engine.settings.data / "pictures").rglob("*") if path.is_file()]


def test_a_grid_is_small_and_goes_with_its_item(
    client: TestClient, engine: Engine, kept: str, upload: Upload
) -> None:
    (outcome,) = upload(1, collection=kept)
    (file,) = files_of(engine)
    assert file.stat().st_size < 256 * 13 * 13  # a byte for each activation, before zlib
    client.delete(f"/v1/collections/kept/items/{outcome['id']}")
    assert files_of(engine) == []


def test_a_damaged_grid_is_said_to_be_damaged(
    client: TestClient, engine: Engine, kept: str, upload: Upload
) -> None:
    (outcome,) = upload(1, collection=kept)
    (file,) = files_of(engine)
    file.write_bytes(file.read_bytes()[:-20])
    body = {"item": outcome["id"], "region": [0.3, 0.2, 0.8, 0.9]}
    answer = client.post("/v1/collections/kept/search", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "grids-damaged")


@pytest.mark.parametrize("pooling", ["mac", "spoc", "gem", "crow", "rmac"])
def test_scores_from_a_packed_grid_are_those_of_the_full_precision(
    engine: Engine, pooling: str
) -> None:
    extractor = engine.extractor_of_spec(f"alexnet/conv5/{pooling}", "untrained")
    prepared = [extractor.prepare(picture(n)) for n in range(4)]
    grids = extractor.forward(prepared, [LAYER])[LAYER]
    space = extractor.spaces[""]
    full = np.stack([describe_grids({LAYER: grid}, space) for grid in grids])
    again = [unpack(pack({LAYER: grid}))[LAYER] for grid in grids]
    packed = np.stack([describe_grids({LAYER: grid}, space) for grid in again])
    assert np.abs(full @ full.T - packed @ packed.T).max() < 2e-3


@pytest.mark.parametrize(
    ("names", "kept_layers"),
    [(["low", "high"], ["alexnet/conv2", LAYER]), (["alexnet/conv4"], ["alexnet/conv4"])],
)
def test_spaces_and_layers_can_be_kept(
    client: TestClient, engine: Engine, upload: Upload, names: list[str], kept_layers: list[str]
) -> None:
    body = {
        "name": "some",
        "spaces": SPACES,
        "weights": WEIGHTS,
        "keep": "nothing",
        "keep_grids": names,
    }
    assert client.post("/v1/collections", json=body).json()["keep_grids"] == kept_layers
    upload(1, collection="some")
    (file,) = files_of(engine)
    assert set(unpack(file.read_bytes())) == set(kept_layers)


def test_layers_that_would_fill_the_memory_are_not_kept(client: TestClient) -> None:
    body = {"name": "some", "spaces": {"low": "vgg19/low"}, "weights": {"vgg19": "untrained"}}
    body["keep_grids"] = ["vgg19/conv1_1+conv1_2"]  # 2 × 64 × 224 × 224: 26 MB a picture
    answer = client.post("/v1/collections", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "spec-grids-too-large")
    assert "name fewer or deeper ones" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("none", "spec-invalid"),
        ("alexnet/fc6", "spec-no-grid"),
        ("vgg19/conv5_4", "spec-invalid"),
        ("alexnet/conv9", "spec-unknown-layer"),
        # Nine layers in one name.
        (
            "alexnet/conv1+pool1+conv2+pool2+conv3+conv4+conv5+pool5+features.8",
            "spec-grids-too-large",
        ),
    ],
)
def test_what_has_no_grid_cannot_be_kept(client: TestClient, name: str, code: str) -> None:
    answer = client.post("/v1/collections", json={"name": "some", "keep_grids": [name]})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
