"""`pool5 index --watch`: a real process that follows a folder."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Catalog
from service.cli import main
from service.engine import Engine
from service.indexing.source import SourceVanishedError
from service.indexing.watching import Watcher
from tests.pictures import encoded

Start = Callable[..., "Watching"]


class Watching:
    """`pool5 index FOLDER --watch --json` and what it says."""

    def __init__(self, data: Path, folder: Path, *flags: str) -> None:
        self.data = data
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", "from service.cli import main; main()", "index", str(folder),
                "--watch", "--json", "--data", str(data), "--network", "colour", "--device", "cpu",
                *flags,
            ],
            env={**os.environ, "POOL5_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._said.put(json.loads(line))

    def next(self, seconds: float = 60) -> tuple[str, str]:
        """Status and reference of the next file that was not passed over."""
        while True:
            said = self._said.get(timeout=seconds)
            if said["status"] != "unchanged" and said.get("count") != 0:
                return said["status"], said.get("reference", said.get("count"))

    def end(self, how: int) -> int:
        self.process.send_signal(how)
        code = self.process.wait(20)
        self._reading.join()
        return code

    def names(self) -> list[str]:
        with Catalog.open(self.data) as catalog:
            items = catalog.collection("default").items(limit=1000)
        return sorted(item.metadata["path"] for item in items)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


@pytest.fixture
def start(tmp_path: Path, folder: Path) -> Iterator[Start]:
    begun: list[Watching] = []

    def begin(*flags: str) -> Watching:
        begun.append(Watching(tmp_path / "data", folder, *flags))
        return begun[-1]

    yield begin
    for watching in begun:
        if watching.process.poll() is None:
            watching.process.kill()
        watching.process.wait()
        watching._reading.join()
        assert watching.process.stdout
        watching.process.stdout.close()


def test_a_folder_is_followed_through_everything_that_happens_to_it(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    (folder / "there.png").write_bytes(encoded(1))
    watching = start("--delete")
    assert watching.next() == ("added", "there.png")
    (folder / "new.png").write_bytes(encoded(2))
    assert watching.next() == ("added", "new.png")
    (folder / "new.png").write_bytes(encoded(3))
    assert watching.next() == ("replaced", "new.png")
    (folder / "bad.png").write_bytes(b"no picture")
    assert watching.next() == ("failed", "bad.png")

    content = encoded(4, size=(300, 300))
    with (folder / "slow.png").open("wb") as file:  # Written for longer than it takes to settle.
        for at in range(5):
            file.write(content[at * len(content) // 5 : (at + 1) * len(content) // 5])
            file.flush()
            time.sleep(0.4)
    assert watching.next() == ("added", "slow.png")

    (tmp_path / "more" / "deep").mkdir(parents=True)
    (tmp_path / "more" / "deep" / "5.png").write_bytes(encoded(5))
    (tmp_path / "more").rename(folder / "more")
    assert watching.next() == ("added", "more/deep/5.png")
    (folder / "more").rename(folder / "moved")
    both = {watching.next(), watching.next()}
    assert both == {("added", "moved/deep/5.png"), ("removed", 1)}
    (folder / "there.png").unlink()
    assert watching.next() == ("removed", 1)
    assert watching.end(signal.SIGTERM) == 0
    assert watching.names() == ["moved/deep/5.png", "new.png", "slow.png"]


def test_a_volume_may_vanish_and_return_and_removed_files_stay_by_default(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    for n in range(3):
        (folder / f"{n}.png").write_bytes(encoded(n))
    watching = start()
    for n in range(3):
        assert watching.next() == ("added", f"{n}.png")
    folder.rename(tmp_path / "away")
    time.sleep(1)
    (tmp_path / "away" / "0.png").unlink()
    (tmp_path / "away" / "while-away.png").write_bytes(encoded(7))
    folder.mkdir()  # As a mount point is left behind.
    time.sleep(1)
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    assert watching.next() == ("added", "while-away.png")
    assert watching.end(signal.SIGINT) == 0
    assert watching.names() == ["0.png", "1.png", "2.png", "while-away.png"]


@pytest.mark.parametrize("flags", [["--watch"], [".", "--delete"], [], [".", "--retry", "x"]])
def test_flags_that_do_not_go_together_are_refused(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pool5", "index", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_volume_that_vanishes_while_what_is_missing_is_looked_for_loses_no_items(
    engine: Engine, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (roots / "a.png").write_bytes(encoded(1))
    os.utime(roots / "a.png", (1, 1))
    collection = engine.ensure_default()
    watcher = Watcher(engine, collection, roots, delete=True)
    watcher._look_through()
    assert collection.count() == 1
    below = Watcher._items_below

    def unmounted(self: Watcher, path: Path) -> Iterator[tuple[str, Path]]:
        roots.rename(roots.with_name("elsewhere"))
        yield from below(self, path)

    monkeypatch.setattr(Watcher, "_items_below", unmounted)
    with pytest.raises(SourceVanishedError):
        watcher._look_through()
    assert collection.count() == 1
