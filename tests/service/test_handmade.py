"""What is made by hand, over the whole way: HTTP and command line, as any network."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from fastapi.testclient import TestClient
from PIL import Image

from models import SpecError
from models.download import hash_of
from service import vocabulary
from service.cli import main
from tests.pictures import encoded

SPACES = {"low": "colour/rgb8", "high": "sift/vlad64"}


def detailed(seed: int) -> bytes:
    """Noise at two scales: local descriptors everywhere."""
    rng = np.random.default_rng(seed)
    coarse, fine = (
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3)).astype(np.uint8)).resize((200,) * 2)
        )
        for n in (9, 50)
    )
    buffer = io.BytesIO()
    Image.fromarray(coarse // 2 + fine // 2).save(buffer, "PNG")
    return buffer.getvalue()


def flat() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def made(client: TestClient) -> dict[str, Any]:
    """A collection of both spaces with five pictures, and one that has no local features."""
    created = client.post("/v1/collections", json={"name": "hand", "spaces": SPACES})
    assert created.status_code == 201, created.text
    files = [("files", (f"{n}.png", detailed(n), "image/png")) for n in range(5)]
    files.append(("files", ("flat.png", flat(), "image/png")))
    items = client.post("/v1/collections/hand/items", files=files).json()["items"]
    return {"collection": created.json(), "items": items}


def test_a_collection_is_made_without_any_download_and_without_a_remark(
    made: dict[str, Any],
) -> None:
    assert made["collection"]["weights"] == {"colour": "none", "sift": "embedded"}
    assert made["collection"]["notices"] == []


def test_pictures_are_found_by_either_space(client: TestClient, made: dict[str, Any]) -> None:
    for space in (*SPACES, {"low": 0.5, "high": 0.5}):
        body = {"item": made["items"][3]["id"], "k": 2, "space": space}
        answer = client.post("/v1/collections/hand/search", json=body)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["neighbours"]) == 2
        again = client.post(
            "/v1/collections/hand/search",
            files={"file": ("q.png", detailed(3), "image/png")},
            data={"space": json.dumps(space) if isinstance(space, dict) else space},
        ).json()["neighbours"][0]
        assert again["name"] == "3.png"
        assert again["score"] == pytest.approx(1, abs=1e-3)


def test_a_region_is_searched_by(client: TestClient, made: dict[str, Any]) -> None:
    whole = Image.new("RGB", (400, 200), "grey")
    whole.paste(Image.open(io.BytesIO(detailed(2))), (200, 0))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    found = client.post(
        "/v1/collections/hand/search",
        files={"file": ("q.png", buffer.getvalue(), "image/png")},
        data={"space": "high", "region": "[0.5, 0, 1, 1]"},
    ).json()["neighbours"][0]
    assert found["name"] == "2.png"
    assert found["score"] == pytest.approx(1, abs=0.01)


def test_a_picture_without_local_features_fails_alone_and_says_why(
    client: TestClient, made: dict[str, Any]
) -> None:
    assert [item["status"] for item in made["items"]] == ["added"] * 5 + ["failed"]
    problem = made["items"][5]["problem"]
    assert problem["code"] == "descriptor-zero"
    assert "space 'high'" in problem["detail"]
    asked = client.post(
        "/v1/collections/hand/search",
        files={"file": ("q.png", flat(), "image/png")},
        data={"space": "high"},
    )
    assert (asked.status_code, asked.json()["code"]) == (422, "descriptor-zero")
    by_colour = client.post(
        "/v1/collections/hand/search",
        files={"file": ("q.png", flat(), "image/png")},
        data={"space": "low"},
    )
    assert by_colour.status_code == 200


def test_descriptors_are_had_by_themselves(client: TestClient) -> None:
    for spec, dim, weights in (("sift/vlad64", 4096, "embedded"), ("colour/rgb8", 512, "none")):
        files = [("files", ("a.png", detailed(1), "image/png"))]
        body = client.post("/v1/descriptors", files=files, data={"spec": spec}).json()
        assert (body["dim"], body["weights"], body["notices"]) == (dim, weights, [])
        assert np.linalg.norm(body["descriptors"][0]) == pytest.approx(1, abs=1e-5)


def test_both_are_listed_among_the_networks(client: TestClient) -> None:
    listed = {row["name"]: row for row in client.get("/v1/networks").json()["networks"]}
    assert listed["sift"]["weights"] == ["embedded"]
    assert listed["sift"]["levels"] == {"high": "sift/vlad64/vlad"}
    assert [layer["name"] for layer in listed["sift"]["layers"]] == ["vlad64", "bow1024"]
    assert listed["colour"]["weights"] == ["none"]
    assert listed["colour"]["layers"][0]["channels"] == 512
    assert client.get("/v1/networks/colour").json() == listed["colour"]


@pytest.fixture
def pool5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOL5_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("POOL5_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("POOL5_DEVICE", "cpu")

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["pool5", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        assert not ended.value.code, written.err
        return json.loads(written.out)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "holiday"
    made.mkdir()
    for n in range(3):
        (made / f"{n}.png").write_bytes(detailed(n))
    (made / "broken.png").write_bytes(b"no picture")
    return made


def test_the_command_line_describes_indexes_searches_and_whitens(pool5: Any, folder: Path) -> None:
    (folder / "broken.png").unlink()
    (folder / "3.png").write_bytes(encoded(3))
    assert pool5("networks", "sift", "--json")["layers"][0]["channels"] == 4096
    listed = {row["name"]: row for row in pool5("networks", "--json")["networks"]}
    assert (listed["colour"]["at_hand"], listed["sift"]["at_hand"]) == (["none"], ["embedded"])
    described = pool5("describe", str(folder / "1.png"), "--spec", "colour/rgb8", "--json")
    assert described["dim"] == 512
    indexed = pool5("index", str(folder), "--network", "sift", "--json")
    assert (indexed["done"], indexed["failed"]) == (4, 0)
    found = pool5("search", str(folder / "2.png"), "-k", "1", "--network", "sift", "--json")
    assert found["neighbours"][0]["name"] == "2.png"
    fitted = pool5("whiten", str(folder), "--spec", "sift/vlad64", "--dim", "2", "--json")
    described = pool5("describe", str(folder / "1.png"), "--spec", fitted["spec"], "--json")
    assert described["dim"] == 2


def test_a_vocabulary_of_ones_own_is_fitted_and_used(
    pool5: Any, folder: Path, tmp_path: Path
) -> None:
    fitted = pool5("train", "vocabulary", str(folder), "--json")
    path = tmp_path / "weights" / "sift-holiday.safetensors"
    assert (fitted["path"], fitted["pictures"]) == (str(path), 3)
    assert fitted["sha256"] == hash_of(path)
    listed = {row["name"]: row for row in pool5("networks", "--json")["networks"]}
    assert listed["sift"]["at_hand"] == [path.name, "embedded"]
    arguments = ["describe", str(folder / "1.png"), "--spec", "sift/vlad64", "--json"]
    own = pool5(*arguments, "--weights", path.name)
    shipped = pool5(*arguments)
    assert own["weights"] == path.name
    assert own["fingerprint"] != shipped["fingerprint"]
    cosine = np.dot(own["descriptors"][0], shipped["descriptors"][0])
    assert cosine < 0.9


def rooted(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    raw = np.random.default_rng(seed).gamma(0.5, size=(count, 128))
    return np.sqrt(raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def closest(points: Any, words: Any) -> Any:
    """The index of the closest word, by distances one word at a time."""
    distances = [np.square(points - word).sum(axis=1) for word in words]
    return np.argmin(distances, axis=0)


def test_a_vocabulary_is_the_same_every_time_and_what_it_says_it_is(tmp_path: Path) -> None:
    pictures = [rooted(600, seed) for seed in range(4)] + [rooted(0, 9)]
    first, second = vocabulary.fit(pictures), vocabulary.fit(pictures)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    vocabulary.save(first, tmp_path / "v.safetensors")
    loaded = safetensors.numpy.load_file(tmp_path / "v.safetensors")
    assert loaded.keys() == first.keys()
    every = np.concatenate(pictures).astype(np.float64)
    projection = loaded["local.projection"].astype(np.float64)
    projected = (every - loaded["local.mean"].astype(np.float64)) @ projection
    # Half of a whitening leaves the square roots of the eigenvalues as variances.
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(every.T)))[::-1][:64]
    np.testing.assert_allclose(projected.var(axis=0), np.sqrt(eigenvalues), rtol=0.01)
    words = loaded["bow1024.words"].astype(np.float64)
    having = np.zeros(1024)
    for start in range(0, 2400, 600):
        part = projected[start : start + 600]
        having[np.unique(closest(part, words))] += 1
    expected = np.log(6 / (having + 1))
    assert np.mean(np.abs(loaded["bow1024.idf"] - expected) < 0.01) > 0.99  # but for ties
    # Every word of k-means is the mean of what is closest to it.
    words = loaded["vlad64.words"].astype(np.float64)
    nearest = closest(projected, words)
    means = np.stack([projected[nearest == n].mean(axis=0) for n in range(64)])
    assert np.linalg.norm(means - words) < 0.2 * np.linalg.norm(words)


def test_too_few_descriptors_make_no_vocabulary() -> None:
    with pytest.raises(SpecError, match="at least 1024 local descriptors") as refused:
        vocabulary.fit([rooted(1000, 0)])
    assert refused.value.code == "spec-vocabulary-samples"
