"""`pool5 quantise` as a script meets it, and a collection made with what it makes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.cli import main
from tests.pictures import encoded


@pytest.fixture
def pool5(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    logs_restored: None,
) -> Any:
    """Run the command in this process, on the folders that the service of `client` has."""
    monkeypatch.setenv("POOL5_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("POOL5_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("POOL5_DEVICE", "cpu")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pool5", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_a_collection_made_with_int8_weights_finds_its_pictures(
    pool5: Any, client: TestClient
) -> None:
    status, out, err = pool5("quantise", "alexnet", "--count", "8", "--json")
    assert status == 0, err
    made = json.loads(out)
    assert (made["source"], made["calibrated_on"]) == ("embedded", "procedural pictures")
    assert (made["pictures"], made["measured_on"]) == (6, 2)
    assert 0.98 < made["cosine_least"] <= made["cosine_mean"] <= 1

    spaces, weights = {"high": "alexnet/conv5/gem"}, {"alexnet": made["name"]}
    asked = {"name": "int8", "spaces": spaces, "weights": weights}
    created = client.post("/v1/collections", json=asked)
    assert created.status_code == 201, created.text
    files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in range(4)]
    added = client.post("/v1/collections/int8/items", files=files).json()["items"]
    assert {item["status"] for item in added} == {"added"}
    found = client.post("/v1/collections/int8/search", files={"file": ("2.png", encoded(2))}).json()
    assert found["neighbours"][0]["name"] == "2.png"
    assert found["neighbours"][0]["score"] == pytest.approx(1, abs=1e-3)

    status, _, err = pool5("quantise", "alexnet", "--count", "8")
    assert status == 2
    assert "is there already" in err


def test_pictures_come_from_one_place(pool5: Any, tmp_path: Path) -> None:
    status, out, err = pool5(
        "quantise", "alexnet", "--pictures", str(tmp_path), "--collection", "default"
    )
    assert (status, out) == (2, "")
    assert "--pictures or --collection, not both" in err


def test_a_folder_calibrates_without_its_broken_files(pool5: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(8):
        (folder / f"{n}.png").write_bytes(encoded(n))
    (folder / "0-broken.png").write_bytes(encoded(9)[:100])
    status, out, err = pool5("quantise", "alexnet", "--pictures", str(folder), "--json")
    assert status == 0, err
    made = json.loads(out)
    assert made["calibrated_on"] == "a folder's own pictures"
    assert (made["pictures"], made["measured_on"]) == (6, 2)


def test_a_collection_calibrates_on_what_it_keeps(pool5: Any, client: TestClient) -> None:
    files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in range(8)]
    client.post("/v1/collections/default/items", files=files)
    status, out, err = pool5("quantise", "alexnet", "--collection", "default", "--json")
    assert status == 0, err
    assert json.loads(out)["calibrated_on"] == "a collection's own pictures"
    assert json.loads(out)["pictures"] == 6
