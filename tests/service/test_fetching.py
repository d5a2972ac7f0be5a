"""Pictures by URL for a job, from a real server that fails, stalls and asks for patience."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from fastapi.testclient import TestClient

from service.clock import Clock
from service.engine import Engine
from service.fetch import Fetcher, FetchError
from service.indexing import fetching, runner
from service.indexing.fetching import Hosts, fetched_ahead
from service.indexing.source import Entry, Interrupted, SourceError
from service.settings import Settings
from tests.pictures import encoded
from tests.service.test_jobs import JOBS, count, ended


class Host(ThreadingHTTPServer):
    """Answers `/ok…` with a picture, and other paths as their names say; counts what is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: Counter[str] = Counter()
        self.times: list[float] = []
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Answering(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        host, name = self.server, unquote(self.path[1:])
        with host.lock:
            host.asked[name] += 1
            host.times.append(time.monotonic())
            host.open += 1
            host.most_open = max(host.most_open, host.open)
            nth = host.asked[name]
        try:
            self.answer(name, nth)
        except OSError:
            pass
        finally:
            with host.lock:
                host.open -= 1

    def answer(self, name: str, nth: int) -> None:
        kind = name.split("-")[0]
        if kind == "stall":
            self.server.over.wait(60)
        elif kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        elif kind == "twice" and nth < 3:
            self.send_error(503)
        elif kind == "limited" and nth == 1:
            self.send_response(429)
            self.send_header("Retry-After", name.split("-")[1])
            self.end_headers()
        elif kind == "gone":
            self.send_error(404)
        elif kind == "down":
            self.send_error(500)
        else:
            if kind == "slow":
                time.sleep(0.1)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(encoded(len(name) + nth + hash(name) % 1000, size=(64, 64)))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def host() -> Iterator[Host]:
    server = Host()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def hosts(**options: object) -> Hosts:
    fetcher = Fetcher(allow_private=True, timeout_s=0.5)
    return Hosts(fetcher, pause_s=0.01, **options)  # type: ignore[arg-type]


def together(polite: Hosts, urls: list[str]) -> None:
    threads = [threading.Thread(target=polite.fetch, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_no_more_than_so_many_are_fetched_from_one_host_at_once(host: Host) -> None:
    together(hosts(at_once=3, per_second=1000), [host.url(f"slow-{n}") for n in range(12)])
    assert sum(host.asked.values()) == 12
    assert host.most_open <= 3


def test_no_more_than_so_many_are_begun_per_second(host: Host) -> None:
    together(hosts(at_once=9, per_second=20), [host.url(f"ok-{n}") for n in range(9)])
    assert max(host.times) - min(host.times) > 0.9 * 8 / 20


def test_what_passes_is_tried_again_and_what_stays_is_not(host: Host) -> None:
    polite = hosts()
    assert polite.fetch(host.url("twice-1")).startswith(b"\x89PNG")
    assert host.asked["twice-1"] == 3
    with pytest.raises(FetchError, match="404"):
        polite.fetch(host.url("gone-1"))
    assert host.asked["gone-1"] == 1
    with pytest.raises(FetchError, match="tried 5 times"):
        polite.fetch(host.url("down-1"))
    assert host.asked["down-1"] == 5


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_host_that_asks_for_a_pause_gets_it_for_all_of_its_pictures(
    host: Host, form: str
) -> None:
    polite = hosts()
    after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    started = time.monotonic()
    asking = threading.Thread(target=polite.fetch, args=(host.url(quote(f"limited-{after}")),))
    asking.start()
    while not host.asked:
        time.sleep(0.005)
    time.sleep(0.1)
    polite.fetch(host.url("ok-1"))
    assert time.monotonic() - started > 0.9
    asking.join()
    assert sum(host.asked.values()) == 3


def test_a_wait_ends_when_it_is_told_to(host: Host) -> None:
    def check() -> None:
        if time.monotonic() > started + 0.2:
            raise Interrupted

    started = time.monotonic()
    with pytest.raises(Interrupted):
        hosts(check=check).fetch(host.url("limited-60"))
    assert time.monotonic() - started < 1


def entry(url: str, polite: Hosts) -> Entry:
    def read() -> bytes:
        try:
            return polite.fetch(url)
        except FetchError as error:
            raise SourceError(error.code, error.detail) from error

    return Entry(url, url, None, None, None, url, read, fetched=True)


def test_entries_come_in_their_order_and_are_fetched_before_their_turn(host: Host) -> None:
    polite = hosts(at_once=8, per_second=1000)
    names = [f"slow-{n}" for n in range(16)]
    started = time.monotonic()
    came = list(fetched_ahead(entry(host.url(name), polite) for name in names))
    assert [each.name for each in came if each] == [host.url(name) for name in names]
    assert time.monotonic() - started < 16 * 0.1
    assert all(each.held == len(each.read()) for each in came if each)
    assert host.most_open > 1


def test_while_a_host_stalls_the_reader_is_told_to_see_to_others(host: Host) -> None:
    polite = hosts(attempts=1)
    came = fetched_ahead([entry(host.url("ok-1"), polite), entry(host.url("stall-1"), polite)])
    said = [each and each.name.rsplit("/")[-1] for each in came]
    assert [name for name in said if name] == ["ok-1", "stall-1"]
    assert None in said


def test_a_manifest_of_urls_gives_a_reason_for_each_that_failed(
    host: Host, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "Hosts", partial(Hosts, pause_s=0.01))
    kinds = ["ok-1", "gone-1", "twice-1", "ok-2", "cut-1", "limited-1", "ok-3"]
    lines = [{"url": host.url(kind), "id": kind} for kind in kinds]
    lines += [
        {"url": "http://10.0.0.1.invalid/", "id": "nowhere"},
        {"url": "ftp://x/y", "id": "ftp"},
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    open_settings = settings.model_copy(
        update={"offline": False, "url_private": True, "network": "colour"}
    )
    from service.app import create_app

    with Engine(open_settings) as engine, TestClient(create_app(engine)) as client:
        job = client.post(JOBS, files={"manifest": ("m.jsonl", content)}).json()
        found = ended(client, job)
        assert (found["state"], found["done"], found["failed"], count(client)) == ("done", 5, 4, 5)
        page = client.get(f"/v1/jobs/{job['id']}/errors").json()["errors"]
        reasons = {error["reference"].rsplit("/", 1)[-1]: error["code"] for error in page}
        assert reasons["gone-1"] == "url-status"
        assert reasons["cut-1"] == "url-unreachable"
        assert reasons["y"] == "url-forbidden"
        assert len(reasons) == 4


def test_a_picture_that_comes_as_the_wait_for_it_ends_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_S", 0.0)
    came = threading.Event()

    def read() -> bytes:
        came.wait(10)
        return b"picture"

    entries = fetched_ahead([Entry("a", "a", None, None, None, "a", read, fetched=True)])
    assert next(entries) is None
    came.set()
    found = next(entry for entry in entries if entry)
    assert found.read() == b"picture"


class Late(Future[str]):
    """Done in the moment in which the wait for it has timed out."""

    def result(self, timeout: float | None = None) -> str:
        if not self.done():
            self.set_running_or_notify_cancel()
            self.set_result("here")
            raise TimeoutError
        return super().result(timeout)


def test_what_is_done_as_the_time_ends_is_the_outcome() -> None:
    assert Clock().outcome(Late(), "picture") == "here"
