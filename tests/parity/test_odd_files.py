"""Files that break decoders: a descriptor or a problem with a code, never a 500, both ways in."""

from pathlib import Path

import pytest
from PIL import Image, ImageOps

from tests.server import Server


@pytest.fixture(scope="module")
def odd(shared_images: Path) -> list[Path]:
    files = sorted(p for p in (shared_images / "odd").rglob("*") if p.suffix and p.is_file())
    return [file for file in files if file.suffix != ".tsv"]


@pytest.mark.slow
def test_odd_files_are_items_or_problems_by_upload_and_by_job(
    tmp_path: Path, odd: list[Path]
) -> None:
    assert len(odd) == 57
    root = odd[0].parents[1]
    with Server(tmp_path / "data", "--image-roots", str(root)) as server:
        parts = [("files", (file.name, file.read_bytes())) for file in odd]
        answer = server.client.post("/v1/collections/default/items", files=parts)
        assert answer.status_code == 200
        by_upload = {}
        for file, item in zip(odd, answer.json()["items"], strict=True):
            code = item["problem"]["code"] if item["problem"] else None
            by_upload[str(file.relative_to(root))] = code
            assert (item["status"] == "failed") == (code is not None)
        assert all(code is None or code.startswith("picture-") for code in by_upload.values())
        assert sum(code is not None for code in by_upload.values()) == 8

        server.client.post("/v1/collections", json={"name": "by-job"})
        job = server.client.post("/v1/collections/by-job/jobs", json={"folder": str(root)}).json()
        ended = server.job(job["id"])
        assert ended["state"] == "done"
        errors = server.client.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
        by_job = {error["reference"]: error["code"] for error in errors}
        # The job passes over what its suffix says is no picture: INVENTORY.tsv.
        assert by_job == {name: code for name, code in by_upload.items() if code}
        assert ended["done"] == len(odd) - len(by_job)
        assert server.client.get("/health/ready").status_code == 200


@pytest.mark.slow
def test_orientations_of_one_picture_are_each_others_nearest(
    tmp_path: Path, shared_images: Path, odd: list[Path]
) -> None:
    """Each of Landscape_1…8 has its own number painted on, so the eight are made from one here."""
    upright = (
        Image.open(shared_images / "scenes" / "lund" / "01.jpg").convert("RGB").resize((512, 384))
    )
    folder = tmp_path / "oriented"
    folder.mkdir()
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    for orientation in range(1, 9):
        stored = upright.copy()
        stored.getexif()[0x0112] = undo.get(orientation, 1)
        stored = ImageOps.exif_transpose(stored)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(folder / f"{orientation}.jpg", quality=95, subsampling=0, exif=exif)
    others = [
        p for p in sorted((shared_images / "scenes" / "lund").iterdir()) if p.name != "01.jpg"
    ]
    with Server(tmp_path / "data") as server:
        files = [*sorted(folder.iterdir()), *others]
        parts = [("files", (file.name, file.read_bytes())) for file in files]
        items = server.client.post("/v1/collections/default/items", files=parts).json()["items"]
        oriented = {item["id"] for item in items[:8]}
        assert len(oriented) == 8
        for item in oriented:
            found = server.client.post(
                "/v1/collections/default/search", json={"item": item, "k": 7}
            ).json()["neighbours"]
            assert {neighbour["id"] for neighbour in found} == oriented - {item}
            assert min(neighbour["score"] for neighbour in found) >= 0.999
