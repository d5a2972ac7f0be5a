"""The real service on a free port, a drawn gallery in it, and Debian's Chromium before it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from .drawing import gallery

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

REQUIRED = os.environ.get("POOL5_REQUIRE_BROWSER") == "1"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
STARTS_WITHIN_S = 120
WAIT_MS = 15_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[sync_api.Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing = "no `chromium` on the PATH: apt-get install chromium"
        pytest.fail(missing) if REQUIRED else pytest.skip(missing)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Thirty drawn pictures by file name."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, image in gallery().items():
        image.save(folder / name)
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, Path]) -> Iterator[str]:
    """The address of a real `pool5 serve` whose collection `default` holds the pictures."""
    with serving(tmp_path_factory.mktemp("service")) as address:
        upload(address, pictures)
        yield address


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a real `pool5 serve` whose data are in `folder / "data"`."""
    address = f"http://127.0.0.1:{_free_port()}/"
    settings = {
        "POOL5_DATA": str(folder / "data"),
        "POOL5_PORT": str(urlsplit(address).port),
        "POOL5_OFFLINE": "1",
        "POOL5_DEVICE": "cpu",
        "POOL5_WEIGHTS": "untrained",
        "OMP_NUM_THREADS": "1",
    }
    program = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            program, env={**os.environ, **settings}, cwd=folder, stdout=log, stderr=log
        )
        try:
            _wait_until_ready(process, address, folder / "log")
            yield address
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}health/ready", timeout=60).status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"the service did not become ready:\n{log.read_text()[-4000:]}")


def upload(address: str, pictures: dict[str, Path], key: str = "") -> None:
    """Index pictures into `default`."""
    files = [("files", (name, path.read_bytes())) for name, path in pictures.items()]
    url = f"{address}v1/collections/default/items"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.post(url, files=files, headers=headers, timeout=60)
    outcomes = answer.raise_for_status().json()["items"]
    assert {outcome["status"] for outcome in outcomes} == {"added"}


class Visit:
    """A page with what it logged and what it asked for."""

    def __init__(self, page: sync_api.Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.meant: list[str] = []
        self.hosts: set[str] = set()
        page.on("request", self._ask)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)

    def _ask(self, request: sync_api.Request) -> None:
        self.hosts.add(urlsplit(request.url).netloc)

    def _hear(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def open(self, fragment: str = "") -> sync_api.Page:
        self.page.goto(self.address + fragment)
        return self.page

    def expect_error(self, text: str) -> None:
        """Chromium logs what is refused; errors with this text are meant to be there."""
        self.meant.append(text)

    def check(self) -> None:
        """No other error, no breach of the content security policy, no other host."""
        own = urlsplit(self.address).netloc
        assert self.hosts <= {own, ""}, "the page reached another host"  # blob: has none
        assert [e for e in self.errors if not any(text in e for text in self.meant)] == []
        assert all(any(text in e for e in self.errors) for text in self.meant)


@pytest.fixture
def visiting(chromium: sync_api.Browser, service: str) -> Iterator["Visits"]:
    visits = Visits(chromium, service)
    yield visits
    visits.close()


class Visits:
    """Opens pages on devices of any kind, and checks each when the test ends."""

    def __init__(self, browser: sync_api.Browser, address: str) -> None:
        self.browser = browser
        self.address = address
        self._open: list[Visit] = []

    def __call__(self, width: int = 1280, height: int = 860, **device: object) -> Visit:
        context = self.browser.new_context(viewport={"width": width, "height": height}, **device)
        context.set_default_timeout(WAIT_MS)
        visit = Visit(context.new_page(), self.address)
        self._open.append(visit)
        return visit

    def close(self) -> None:
        for visit in self._open:
            visit.page.context.close()
        for visit in self._open:
            visit.check()


@pytest.fixture
def visit(visiting: Visits) -> Visit:
    return visiting()
