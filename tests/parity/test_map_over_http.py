"""Retrieval accuracy through the HTTP API against the same computed with torchvision and numpy."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights

from tests.server import Server

SET = "clothing"


def average_precision(relevant: npt.NDArray[np.bool_]) -> float:
    """Mean of the precisions at the relevant ranks."""
    ranks = np.flatnonzero(relevant) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())


def by_torchvision(files: list[Path], weights: Path) -> float:
    """Leave-one-out mAP of SqueezeNet 1.1's last layer, SPoC, written without any of pool5."""
    network = get_model("squeezenet1_1").eval()
    network.load_state_dict(torch.load(weights / "squeezenet1_1.pth", weights_only=True))
    transform = get_model_weights("squeezenet1_1").IMAGENET1K_V1.transforms()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(files), 24):
            opened = [Image.open(file).convert("RGB") for file in files[start : start + 24]]
            pixels = torch.stack([transform(picture) for picture in opened])
            rows.append(network.features(pixels).mean(dim=(2, 3)).numpy())
    descriptors = np.concatenate(rows)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    classes = np.array([file.parent.name for file in files])
    scores = descriptors @ descriptors.T
    precisions = []
    for query in range(len(files)):
        order = np.argsort(-scores[query], kind="stable")
        order = order[order != query]
        precisions.append(average_precision(classes[order] == classes[query]))
    return float(np.mean(precisions))


def by_http(server: Server, files: list[Path]) -> float:
    """The same, by uploading every picture and searching by every picture."""
    made = server.client.post(
        "/v1/collections",
        json={
            "name": SET,
            "spaces": {"high": "squeezenet1_1/features.12/spoc"},
            "weights": {"squeezenet1_1": "squeezenet1_1.pth"},
        },
    )
    assert made.status_code == 201, made.text
    assert made.json()["notices"] == []
    ids = {}
    for start in range(0, len(files), 40):
        chunk = files[start : start + 40]
        parts = [("files", (file.name, file.read_bytes(), "image/jpeg")) for file in chunk]
        answer = server.client.post(f"/v1/collections/{SET}/items", files=parts).json()["items"]
        ids |= {item["id"]: file for item, file in zip(answer, chunk, strict=True)}
    precisions = []
    for item, file in ids.items():
        parts = {"file": (file.name, file.read_bytes(), "image/jpeg")}
        found = server.client.post(
            f"/v1/collections/{SET}/search", files=parts, data={"k": len(files)}
        ).json()["neighbours"]
        others = [ids[neighbour["id"]] for neighbour in found if neighbour["id"] != item]
        assert len(others) == len(files) - 1
        relevant = np.array([other.parent.name == file.parent.name for other in others])
        precisions.append(average_precision(relevant))
    return float(np.mean(precisions))


@pytest.mark.slow
def test_map_over_http_is_that_of_torchvision_and_numpy(
    tmp_path: Path, shared_images: Path, shared_weights: Path
) -> None:
    files = sorted((shared_images / SET).glob("*/*.jpg"))
    expected = by_torchvision(files, shared_weights)
    with Server(tmp_path / "data", "--weights-dir", str(shared_weights)) as server:
        computed = by_http(server, files)
    assert expected == pytest.approx(0.260, abs=0.002)
    assert computed == pytest.approx(expected, abs=0.002)
