"""Batch indexing through HTTP: folders, archives, manifests, progress, cancelling."""

import io
import json
import os
import shutil
import tarfile
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded

JOBS = "/v1/collections/default/jobs"


def fill(folder: Path, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        path = folder / f"family-{n % 3}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(n, size=(64, 64)))


def ended(client: TestClient, job: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        if found["state"] in ("done", "failed", "cancelled"):
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def count(client: TestClient) -> int:
    found: int = client.get("/v1/collections/default").json()["items"]
    return found


def test_a_folder_is_indexed_with_its_paths_as_metadata(client: TestClient, roots: Path) -> None:
    fill(roots, 7)
    answer = client.post(JOBS, json={"folder": str(roots)})
    assert answer.status_code == 202
    job = ended(client, answer.json())
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("done", 7, 7, 0)
    items = client.get("/v1/collections/default/items").json()["items"]
    assert {item["metadata"]["path"] for item in items} == {
        f"family-{n % 3}/{n}.png" for n in range(7)
    }


def test_a_second_run_indexes_only_what_is_new_or_changed(client: TestClient, roots: Path) -> None:
    fill(roots, 4)
    ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    fill(roots, 1, start=4)
    (roots / "family-0" / "0.png").write_bytes(encoded(99, size=(64, 64)))
    job = ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert (job["done"], job["unchanged"], count(client)) == (5, 3, 5)


def test_bad_files_fail_alone_and_say_why(client: TestClient, roots: Path) -> None:
    fill(roots, 3)
    (roots / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (roots / "empty.png").touch()
    job = ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("done", 5, 3, 2)
    errors = client.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
    codes = {error["reference"]: error["code"] for error in errors}
    assert codes["empty.png"] == "picture-empty"
    assert codes["broken.jpg"].startswith("picture-")
    page = client.get(f"/v1/jobs/{job['id']}/errors", params={"limit": 1}).json()
    rest = client.get(f"/v1/jobs/{job['id']}/errors", params={"after": page["next"]}).json()
    assert {e["reference"] for e in page["errors"] + rest["errors"]} == set(codes)


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_an_uploaded_archive_is_indexed(
    client: TestClient, tmp_path: Path, settings: Settings, form: str
) -> None:
    fill(tmp_path / "in", 5)
    path = tmp_path / f"pictures.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in (tmp_path / "in").rglob("*.png"):
                archive.write(file, file.relative_to(tmp_path))
    else:
        with tarfile.open(path, "w:gz" if form == "tar.gz" else "w") as archive:
            archive.add(tmp_path / "in", "in")
    answer = client.post(JOBS, files={"archive": (path.name, path.read_bytes())})
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json())
    assert (job["state"], job["total"], job["done"], count(client)) == ("done", 5, 5, 5)
    end = time.monotonic() + 10
    while list((settings.data / "uploads").iterdir()):
        assert time.monotonic() < end, "the upload outlives its job"


def test_an_uploaded_manifest_names_paths_ids_and_metadata(client: TestClient, roots: Path) -> None:
    fill(roots, 3)
    lines = [
        {"path": str(roots / "family-0/0.png"), "id": "zero", "metadata": {"n": 0}},
        {"path": str(roots / "family-1/1.png"), "id": "one", "metadata": {"n": 1}},
        {"path": "/etc/hostname", "id": "outside"},
        {"path": str(roots / "missing.png"), "id": "missing"},
    ]
    manifest = "\n".join(map(json.dumps, lines)).encode()
    answer = client.post(JOBS, files={"manifest": ("list.jsonl", manifest)})
    job = ended(client, answer.json())
    assert (job["state"], job["done"], job["failed"]) == ("done", 2, 2)
    assert client.get("/v1/collections/default/items/one").json()["metadata"] == {"n": 1}
    errors = client.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
    assert "path-outside-roots" in {error["code"] for error in errors}


def test_a_manifest_on_the_server_is_csv_too(client: TestClient, roots: Path) -> None:
    fill(roots, 2)
    manifest = roots / "list.csv"
    manifest.write_text("path,id,colour\nfamily-0/0.png,a,red\nfamily-1/1.png,b,blue\n")
    job = ended(client, client.post(JOBS, json={"manifest": str(manifest)}).json())
    assert (job["state"], job["done"]) == ("done", 2)
    assert client.get("/v1/collections/default/items/b").json()["metadata"] == {"colour": "blue"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"folder": "/etc"}, 403, "folder-not-allowed"),
        ({"folder": "ROOTS/../.."}, 403, "folder-not-allowed"),
        ({"folder": "ROOTS/none"}, 422, "folder-missing"),
        ({"folder": "ROOTS", "manifest": "x"}, 422, "request-invalid"),
        ({}, 422, "request-invalid"),
        ({"folder": "ROOTS", "roots": ["/"]}, 422, "request-invalid"),
    ],
)
def test_a_job_that_cannot_begin_is_refused(
    client: TestClient, roots: Path, body: dict[str, Any], status: int, code: str
) -> None:
    body = {
        name: value.replace("ROOTS", str(roots)) if isinstance(value, str) else value
        for name, value in body.items()
    }
    answer = client.post(JOBS, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_link_out_of_the_roots_is_not_followed(
    client: TestClient, roots: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    fill(secret, 2)
    fill(roots, 1)
    (roots / "link").symlink_to(secret)
    (roots / "file.png").symlink_to(secret / "family-0" / "0.png")
    job = ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert job["done"] == 1
    assert count(client) == 1


def test_a_file_that_is_no_archive_is_refused(client: TestClient) -> None:
    answer = client.post(JOBS, files={"archive": ("a.zip", b"nothing of the kind")})
    assert (answer.status_code, answer.json()["code"]) == (422, "archive-unreadable")


def test_progress_is_streamed_to_its_end(client: TestClient, roots: Path) -> None:
    fill(roots, 40)
    job = client.post(JOBS, json={"folder": str(roots)}).json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        text = "".join(stream.iter_text())
    events = [block.split("\n") for block in text.strip().split("\n\n")]
    named = [
        (lines[0], json.loads(lines[1].removeprefix("data: ")))
        for lines in events
        if len(lines) > 1
    ]
    assert named[-1][0] == "event: end"
    assert named[-1][1]["state"] == "done"
    assert all(name == "event: progress" for name, _ in named[:-1])
    assert client.get("/v1/jobs/nobody/events").status_code == 404


def test_a_cancelled_job_keeps_what_it_has_and_ends(client: TestClient, roots: Path) -> None:
    fill(roots, 400)
    job = client.post(JOBS, json={"folder": str(roots)}).json()
    answer = client.delete(f"/v1/jobs/{job['id']}")
    assert answer.status_code == 202
    found = ended(client, job, seconds=10)
    assert found["state"] == "cancelled"
    assert found["done"] == count(client) < 400


def test_a_job_goes_on_after_a_restart(settings: Settings, roots: Path) -> None:
    fill(roots, 120)
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        job = client.post(JOBS, json={"folder": str(roots)}).json()
        end = time.monotonic() + 30
        while client.get(f"/v1/jobs/{job['id']}").json()["done"] == 0:
            assert time.monotonic() < end
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        found = ended(client, job)
        assert (found["state"], found["done"], count(client)) == ("done", 120, 120)
        assert found["unchanged"] == 0


def test_a_vanished_folder_fails_the_job_and_nothing_else(client: TestClient, roots: Path) -> None:
    fill(roots / "gone", 3)
    shutil.rmtree(roots / "gone")
    assert client.post(JOBS, json={"folder": str(roots / "gone")}).status_code == 422
    fill(roots / "there", 2)
    job = ended(client, client.post(JOBS, json={"folder": str(roots / "there")}).json())
    assert job["done"] == 2


def test_jobs_are_listed_the_latest_first(client: TestClient, roots: Path) -> None:
    fill(roots, 1)
    made = [client.post(JOBS, json={"folder": str(roots)}).json()["id"] for _ in range(3)]
    listed = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
    assert listed == made[::-1]


def test_two_equal_files_are_two_items(client: TestClient, roots: Path) -> None:
    buffer = io.BytesIO(encoded(1))
    for name in ("a.png", "b.png"):
        (roots / name).write_bytes(buffer.getvalue())
    job = ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert (job["done"], count(client)) == (2, 2)


def manifest(client: TestClient, *lines: dict[str, Any]) -> dict[str, Any]:
    content = "\n".join(map(json.dumps, lines)).encode()
    return ended(client, client.post(JOBS, files={"manifest": ("m.jsonl", content)}).json())


def metadata_of(client: TestClient, item: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/collections/default/items/{item}").json()["metadata"]
    return found


def test_a_manifest_that_says_something_else_changes_what_is_said(
    client: TestClient, roots: Path
) -> None:
    fill(roots, 1)
    path = str(roots / "family-0/0.png")
    manifest(client, {"path": path, "id": "a", "metadata": {"colour": "red"}})
    job = manifest(client, {"path": path, "id": "a", "metadata": {"colour": "blue"}})
    assert (job["done"], job["unchanged"]) == (1, 0)
    assert metadata_of(client, "a") == {"colour": "blue"}
    again = manifest(client, {"path": path, "id": "a", "metadata": {"colour": "blue"}})
    assert again["unchanged"] == 1


def test_a_job_over_known_pictures_leaves_their_metadata_alone(
    client: TestClient, tmp_path: Path, roots: Path
) -> None:
    fill(roots, 1)
    picture = (roots / "family-0/0.png").read_bytes()
    files = {"files": ("0.png", picture, "image/png")}
    fields = {"metadata": '{"colour": "red"}'}
    added = client.post("/v1/collections/default/items", files=files, data=fields).json()["items"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(roots, "in")
    content = (tmp_path / "a.tar").read_bytes()
    job = ended(client, client.post(JOBS, files={"archive": ("a.tar", content)}).json())
    assert (job["done"], job["unchanged"]) == (1, 1)
    assert metadata_of(client, added[0]["id"]) == {"colour": "red"}
    ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    (in_folder,) = [
        item
        for item in client.get("/v1/collections/default/items").json()["items"]
        if item["source"].startswith("file:")
    ]
    address = f"/v1/collections/default/items/{in_folder['id']}"
    client.patch(address, json={"metadata": {"colour": "green"}})
    (roots / "family-0/0.png").write_bytes(encoded(77, size=(64, 64)))
    ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert metadata_of(client, in_folder["id"])["colour"] == "green"


def test_members_of_one_name_are_all_indexed(client: TestClient) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n, name in enumerate(["a.png", "a.png", "a.png#2", "a.png"]):
            archive.writestr(name, encoded(n, size=(64, 64)))
    job = ended(client, client.post(JOBS, files={"archive": ("a.zip", buffer.getvalue())}).json())
    assert (job["total"], job["done"], count(client)) == (4, 4, 4)


def test_a_pipe_in_place_of_a_manifest_holds_nobody_up(client: TestClient, roots: Path) -> None:
    os.mkfifo(roots / "pipe")
    answer = client.post(JOBS, json={"manifest": str(roots / "pipe")})
    assert (answer.status_code, answer.json()["code"]) == (422, "manifest-unreadable")


def test_a_name_that_no_file_system_takes_fails_alone(client: TestClient, roots: Path) -> None:
    fill(roots, 1)
    job = manifest(client, {"path": "x" * 300}, {"path": str(roots / "family-0/0.png")})
    assert (job["state"], job["done"], job["failed"]) == ("done", 1, 1)
    answer = client.post(JOBS, json={"folder": str(roots / ("x" * 300))})
    assert answer.status_code == 422
    headers = {"content-type": "application/json"}
    lone = client.post(JOBS, content=b'{"folder": "\\ud800"}', headers=headers)
    assert lone.status_code in (403, 422)


def test_dropping_a_collection_drops_the_uploads_of_its_jobs(
    client: TestClient, settings: Settings, roots: Path
) -> None:
    fill(roots, 300)
    client.post(JOBS, json={"folder": str(roots)})
    client.post("/v1/collections", json={"name": "other"})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", encoded(1))
    files = {"archive": ("a.zip", buffer.getvalue())}
    assert client.post("/v1/collections/other/jobs", files=files).status_code == 202
    assert client.delete("/v1/collections/other").status_code == 204
    assert not list((settings.data / "uploads").iterdir())
