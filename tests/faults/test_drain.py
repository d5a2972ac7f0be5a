"""SIGTERM: what is under way ends well or is begun anew, and the process ends soon in any case."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.test_kill_during_job import wait_for
from tests.pictures import encoded
from tests.server import Server

PICTURES = 100

SLOW = """
import time
from models import Extractor
forward = Extractor.forward
def slow(self, *given):
    time.sleep(0.4)
    return forward(self, *given)
Extractor.forward = slow
"""

COMPACTING_FOREVER = """
import time
from index import Collection
def compact(self, draining):
    draining.wait(3600)
    print("compaction told to end", flush=True)
    time.sleep(3600)
Collection.needs_compaction = lambda self: True
Collection.compact = compact
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for n in range(PICTURES):
        (made / f"{n:03d}.png").write_bytes(encoded(n))
    return made


class SlowUpload:
    """A client that sends a little of its upload, and then a byte now and then."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(
            b"POST /v1/collections/default/items HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drip)

    def _drip(self) -> None:
        while not self._over.wait(0.2):
            try:
                self._socket.sendall(b"x")
            except OSError:
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()


def test_job_stream_upload_and_compaction_under_way_do_not_hold_up_the_end(
    tmp_path: Path, folder: Path
) -> None:
    data, flags = tmp_path / "data", ("--image-roots", str(folder), "--drain-s", "1")
    jobs = "/v1/collections/default/jobs"
    mirror = {"POOL5_WEIGHTS_MIRROR": "http://me:hush@127.0.0.1:9/weights"}
    with Server(data, *flags, before=COMPACTING_FOREVER, **mirror) as server, SlowUpload(server):
        (folder.parent / "few.jsonl").write_text(json.dumps({"path": str(folder / "000.png")}))
        few = {"manifest": ("few.jsonl", (folder.parent / "few.jsonl").read_bytes())}
        server.job(server.client.post(jobs, files=few).json()["id"])  # A compaction follows.
        job = server.client.post(jobs, json={"folder": str(folder)}).json()["id"]
        with server.client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            next(stream.iter_text())
            wait_for(server, job, PICTURES // 8)
            server.process.terminate()
            asked = time.monotonic()
            assert server.process.wait(30) == 0, server.log()
        assert time.monotonic() - asked < 1 + 2 + 1.5, server.log()
        said = server.whole_log()
        assert "weights_mirror=http://***@127.0.0.1:9/weights" in said
        assert "hush" not in said
        assert "compaction told to end" in said
    with Server(data, "--image-roots", str(folder), "--drain-s", "60") as server:
        ended = server.job(job)
        assert (ended["state"], ended["done"], ended["failed"]) == ("done", PICTURES, 0)
        _a_second_signal_ends_it_at_once(server)


def _a_second_signal_ends_it_at_once(server: Server) -> None:
    with SlowUpload(server):
        time.sleep(0.3)
        server.process.terminate()
        time.sleep(0.7)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(3) == 128 + signal.SIGINT


def _search(server: Server) -> httpx.Response:
    return server.client.post("/v1/collections/default/search", files={"file": encoded(1)})


def _wait_until_answering(server: Server, requests: int) -> None:
    end = time.monotonic() + 60
    while f"pool5_requests_in_flight {requests + 1}.0" not in server.client.get("/metrics").text:
        assert time.monotonic() < end


def test_waiting_queries_are_answered_and_a_balancer_is_told_before(tmp_path: Path) -> None:
    flags = ("--drain-notice-s", "1.5", "--drain-s", "1.5", "--batch-size", "1")
    with (
        Server(tmp_path / "data", *flags, before=SLOW) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        searches = [pool.submit(_search, server) for _ in range(16)]
        _wait_until_answering(server, 16)
        server.process.terminate()
        asked = time.monotonic()
        time.sleep(0.5)
        refused = server.client.get("/health/ready")
        assert (refused.status_code, refused.json()["ready"]) == (503, False)
        assert server.client.get("/v1/collections").status_code == 200
        answers = [search.result() for search in searches]
        assert server.process.wait(30) == 0, server.log()
        assert time.monotonic() - asked < 1.5 + 1.5 + 2 + 1.5, server.log()
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert {a.json()["code"] for a in answers if a.status_code == 503} == {"shutting-down"}
