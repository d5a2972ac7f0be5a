"""What stops a job midway: a cancellation, a folder that vanishes, a full disk; and going on."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.engine import Engine
from service.indexing import spool
from service.settings import Settings
from tests.pictures import encoded
from tests.service.test_jobs import JOBS, count, ended, fill

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the smallest network there is: what is tested is not its business."""
    return settings.model_copy(update={"network": "colour", "url_private": True, "offline": False})


@pytest.fixture
def stalling() -> Iterator[str]:
    """A host that accepts and never answers."""

    class Stalling(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait(60)

    over = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    server.server_close()


def cancelled_within(client: TestClient, engine: Engine, roots: Path, job: str) -> float:
    """Cancel a job that runs; seconds until the worker has begun and ended another one."""
    fill(roots / "next", 1)
    while client.get(f"/v1/jobs/{job}").json()["state"] != "running":
        time.sleep(0.01)
    time.sleep(0.3)
    started = time.monotonic()
    assert client.delete(f"/v1/jobs/{job}").json()["state"] == "cancelled"
    other = client.post(JOBS, json={"folder": str(roots / "next")}).json()
    while client.get(f"/v1/jobs/{other['id']}").json()["started_at"] is None:
        assert time.monotonic() < started + 30
        time.sleep(0.01)
    return time.monotonic() - started


def test_a_job_is_cancelled_within_a_second_while_urls_stall(
    client: TestClient, engine: Engine, roots: Path, stalling: str
) -> None:
    lines = "\n".join(json.dumps({"url": f"{stalling}/{n}"}) for n in range(40))
    files = {"manifest": ("m.jsonl", lines.encode())}
    job = client.post(JOBS, files=files).json()["id"]
    assert cancelled_within(client, engine, roots, job) < 1
    assert count(client) <= 1
    assert client.get(f"/v1/jobs/{job}").json()["failed"] == 0


@pytest.mark.parametrize("counted", [False, True], ids=["counted", "read"])
def test_a_job_is_cancelled_within_a_second_while_an_archive_is(
    client: TestClient, engine: Engine, roots: Path, tmp_path: Path, counted: bool
) -> None:
    info = tarfile.TarInfo("long/film.mp4")
    info.size = 1 << 35
    path = tmp_path / "huge.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(file.tell() + info.size)
    jobs = engine.catalog.jobs
    job = jobs.create("default", {"archive": str(path)})
    if counted:
        jobs.set_total(job.id, 1)
    client.app.state.runner.wake()  # type: ignore[attr-defined]
    assert cancelled_within(client, engine, roots, job.id) < 1


def test_a_job_is_cancelled_within_a_second_while_a_big_picture_is_decoded(
    client: TestClient, engine: Engine, roots: Path
) -> None:
    buffer = io.BytesIO()
    Image.new("L", (9999, 9999)).save(buffer, "PNG")
    for n in range(8):
        (roots / f"{n}.png").write_bytes(buffer.getvalue())
    job = client.post(JOBS, json={"folder": str(roots)}).json()["id"]
    assert cancelled_within(client, engine, roots, job) < 1
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


def vanish_and_return(client: TestClient, roots: Path, away: Path, kept: Path) -> None:
    fill(roots / "in", 250)
    job = client.post(JOBS, json={"folder": str(roots / "in")}).json()
    while client.get(f"/v1/jobs/{job['id']}").json()["done"] == 0:
        time.sleep(0.005)
    (roots / "in").rename(away)
    if kept == roots / "in":
        kept.mkdir()  # As a mount point is left behind.
    job = ended(client, job)
    assert (job["state"], job["problem"]["code"], job["failed"]) == ("failed", "source-vanished", 0)
    assert 0 < job["done"] < 250
    again = client.post(f"/v1/jobs/{job['id']}/retry")
    assert again.status_code == 202
    still = ended(client, job)
    assert (still["state"], still["failed"]) == ("failed", 0)
    shutil.rmtree(roots / "in", ignore_errors=True)
    away.rename(roots / "in")
    assert client.post(f"/v1/jobs/{job['id']}/retry").json()["retries"] == 2
    job = ended(client, job)
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("done", 250, 250, 0)
    assert (job["unchanged"], count(client)) == (0, 250)


def test_a_folder_that_vanishes_midway_fails_no_file_and_can_come_back(
    client: TestClient, roots: Path, tmp_path: Path
) -> None:
    vanish_and_return(client, roots, tmp_path / "away", tmp_path / "none")


def test_a_volume_that_leaves_an_empty_folder_has_vanished_too(
    client: TestClient, roots: Path, tmp_path: Path
) -> None:
    vanish_and_return(client, roots, tmp_path / "away", roots / "in")


def test_a_retry_is_about_the_failed_files_alone(client: TestClient, roots: Path) -> None:
    fill(roots, 3)
    for name in ("late.png", "never.png"):
        (roots / name).write_bytes(b"half of it")
    job = ended(client, client.post(JOBS, json={"folder": str(roots)}).json())
    assert (job["done"], job["failed"]) == (3, 2)
    (roots / "late.png").write_bytes(encoded(50))
    fill(roots / "new", 4)
    assert client.post(f"/v1/jobs/{job['id']}/retry").json()["failed"] == 0
    job = ended(client, job)
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("done", 5, 4, 1)
    assert count(client) == 4
    errors = client.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
    assert [error["reference"] for error in errors] == ["never.png"]
    (roots / "never.png").write_bytes(encoded(51))
    client.post(f"/v1/jobs/{job['id']}/retry")
    assert ended(client, job)["failed"] == 0
    refused = client.post(f"/v1/jobs/{job['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job-nothing-to-retry")


def test_an_upload_is_kept_for_the_retry_of_its_failed_files(
    client: TestClient, settings: Settings, roots: Path
) -> None:
    lines = [{"path": str(roots / "a.png")}, {"path": str(roots / "b.png")}]
    (roots / "a.png").write_bytes(encoded(1))
    content = "\n".join(map(json.dumps, lines)).encode()
    job = ended(client, client.post(JOBS, files={"manifest": ("m.jsonl", content)}).json())
    assert (job["done"], job["failed"]) == (1, 1)
    (roots / "b.png").write_bytes(encoded(2))
    client.post(f"/v1/jobs/{job['id']}/retry")
    job = ended(client, job)
    assert (job["done"], job["failed"]) == (2, 0)
    until = time.monotonic() + 5
    while list((settings.data / spool.FOLDER).iterdir()):
        assert time.monotonic() < until
    missing = {"manifest": ("m.jsonl", b'{"path": "x"}')}
    other = ended(client, client.post(JOBS, files=missing).json())
    for path in (settings.data / spool.FOLDER).iterdir():
        path.unlink()
    refused = client.post(f"/v1/jobs/{other['id']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job-source-gone")


FULL_DISK = """
import json, resource, sys, time
from pathlib import Path
from service.engine import Engine
from service.indexing import runner
from service.settings import Settings
from tests.service.test_jobs import fill

folder, FILES = Path(sys.argv[1]), 120
fill(folder / "pictures", FILES)
runner.PAUSE_S = runner.LEASE_S = 1.0
settings = Settings(
    data=folder / "data", image_roots=(folder,), network="colour", device="cpu", offline=True
)
with Engine(settings) as engine:
    collection, jobs = engine.ensure_default(), engine.catalog.jobs
    job = jobs.create("default", {"folder": str(folder / "pictures")})
    used = max(path.stat().st_size for path in (folder / "data").glob("catalog.db*"))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 60_000, unlimited[1]))
    working = runner.JobRunner(engine)
    working.start()
    until, now = time.monotonic() + 60, jobs.get(job.id)
    while now.problem is None and time.monotonic() < until:
        now = jobs.get(job.id)
        time.sleep(0.02)
    time.sleep(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    while jobs.get(job.id).state in ("queued", "running"):
        time.sleep(0.05)
    working.stop()
    ended = jobs.get(job.id)
    print(json.dumps({
        "before": (now.state, now.done, now.failed, (now.problem or {}).get("code")),
        "after": (ended.state, ended.done, ended.failed, ended.unchanged),
        "items": collection.count(),
    }))
"""


def test_a_full_disk_pauses_a_job_and_fails_no_file(tmp_path: Path) -> None:
    ran: Any = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = json.loads(ran.stdout.splitlines()[-1])
    state, done, failed, code = said["before"]
    assert (state, failed, code) == (
        "queued",
        0,
        "disk-failed",
    )  # EFBIG is no full disk to SQLite.
    assert done < 120
    assert said["after"] == ["done", 120, 0, 0]
    assert said["items"] == 120
