"""A process that works on a catalog and says what is acknowledged, to be killed at any instant.

It forks a child for each piece of work, so that two hundred kills cost no two hundred imports.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.operations import Operation

LENGTH = 12
"""Digits before each thing that is said, which tell how long it is."""

ROOT = Path(__file__).resolve().parents[2]


class Refused(Exception):
    """What an operation of the process raised."""

    def __init__(self, said: Mapping[str, str]) -> None:
        super().__init__(said["message"])
        self.code = said["code"]
        self.kind = said["kind"]


class Process:
    """`do` one operation after another on `folder`, or `start` lanes of them and `kill` it."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._popen = subprocess.Popen(
            [sys.executable, "-c", "from tests.faults.process import work; work()"],
            env={**os.environ, **(environment or {}), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._child = 0

    def do(self, operation: Operation) -> Any:
        """Carry out one operation in the child under way. Raises Refused."""
        if not self._child:
            self._child = self._begin({"folder": str(self.folder)})
        self._say(operation)
        answer = self._heard()
        if isinstance(answer, dict):
            raise Refused(answer)
        return answer[0]

    def lanes(self, folder: Path, lanes: Mapping[str, Sequence[Operation]]) -> None:
        """Carry out several sequences of operations at once, in a child of its own."""
        self._child = self._begin({"folder": str(folder), "lanes": lanes})

    def heard(self, lane: str, count: int) -> dict[str, int]:
        """Acknowledged operations by lane, once so many of one lane are."""
        acknowledged: dict[str, int] = {}
        while acknowledged.get(lane, 0) < count:
            said = self._heard()
            assert "done" in said, said
            acknowledged[said["lane"]] = said["done"]
        return acknowledged

    def killed(self, heard: Mapping[str, int] | None = None) -> dict[str, int]:
        """SIGKILL the child; what it had acknowledged, of which this much was `heard` before."""
        os.kill(self._child, signal.SIGKILL)
        return {**(heard or {}), **self.ended()[0]}

    def ended(self) -> tuple[dict[str, int], int]:
        """Wait for the child's end; acknowledged operations by lane, and how it ended."""
        acknowledged: dict[str, int] = {}
        while True:
            said = self._heard()
            if "ended" in said:
                self._child = 0
                return acknowledged, said["ended"]
            assert "failed" not in said, said
            if "done" in said:
                acknowledged[said["lane"]] = said["done"]

    def work_on(self, folder: Path) -> None:
        """Do what follows on another folder, in another child."""
        if self._child:
            self.killed()
        self.folder = folder

    def kill(self) -> None:
        """End it, and its child with it."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
        self._popen.kill()
        self._popen.communicate()

    def _begin(self, what: Mapping[str, Any]) -> int:
        self._say(what)
        return int(self._heard()["began"])

    def _say(self, what: Any) -> None:
        assert self._popen.stdin is not None
        text = json.dumps(what)
        self._popen.stdin.write(f"{len(text):{LENGTH}}{text}")
        self._popen.stdin.flush()

    def _heard(self) -> Any:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, f"the process ended by itself: {self._popen.wait()}"
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def work() -> None:
    """What runs in the process: a child for each line, until there is none."""
    import index  # noqa: F401 - once, for all children

    while line := _line():
        what = json.loads(line)
        child = os.fork()
        if not child:
            try:
                _tell({"began": os.getpid()})
                _lanes(what) if "lanes" in what else _one_by_one(what)
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        _tell({"ended": os.waitstatus_to_exitcode(status)})


def _one_by_one(what: Mapping[str, Any]) -> None:
    from index import Catalog
    from tests.faults.operations import perform

    catalog = None
    while line := _line():
        try:
            catalog = catalog or Catalog.open(Path(what["folder"]))
            _tell([perform(catalog, json.loads(line))])
        except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
            code = getattr(error, "code", None)
            _tell({"code": code, "kind": type(error).__name__, "message": str(error)})


def _lanes(what: Mapping[str, Any]) -> None:
    from index import Catalog
    from tests.faults.operations import made, perform

    def run(lane: str) -> None:
        for at, operation in enumerate(what["lanes"][lane]):
            try:
                perform(catalog, operation)
            except BaseException as error:
                _tell({"failed": repr(error), "lane": lane, "operation": operation})
                raise
            _tell({"lane": lane, "done": at + 1})

    catalog = Catalog.open(Path(what["folder"]))
    made(catalog)
    threads = [threading.Thread(target=run, args=(lane,)) for lane in what["lanes"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


def _line() -> bytes:
    """What was said next, read without a buffer that a fork would share; nothing at the end."""
    return _read(int(_read(LENGTH) or 0))


def _read(size: int) -> bytes:
    parts = []
    while size and (part := os.read(0, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _tell(what: Any) -> None:
    """One write, which a pipe takes whole or not at all."""
    os.write(1, json.dumps(what).encode() + b"\n")
