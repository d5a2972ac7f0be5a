"""A real `pool5 serve` on a free loopback port, to be talked to and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`with Server(data) as server:` it is ready inside, and gone after."""

    def __init__(self, data: Path, *flags: str, before: str = "", **environment: str) -> None:
        """`before` is Python that runs in the process first: a fault, for example."""
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = (data.parent / f"{data.name}-{self.port}.log").open("wb")
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("POOL5_")}
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", f"{before}\nfrom service.cli import main; main()", "serve",
                "--data", str(data), "--port", str(self.port), "--device", "cpu", *flags,
            ],
            env={**quiet, "POOL5_OFFLINE": "1", **environment},
            stdout=self._log,
            stderr=self._log,
            cwd=data.parent,
        )  # fmt: skip
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def wait_until_ready(self, seconds: float = 90) -> Self:
        """Return once `/health/ready` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended: {self.log()}")
            try:
                if self.client.get("/health/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready within {seconds} s: {self.log()}")

    def job(self, job_id: str, seconds: float = 120) -> dict[str, Any]:
        """A job, once it has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
            if found["state"] in ("done", "failed", "cancelled"):
                return found
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} did not end within {seconds} s: {found}")

    def log(self) -> str:
        """What the service has said."""
        return self.whole_log()[-4000:]

    def whole_log(self) -> str:
        """All of it."""
        return Path(self._log.name).read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """SIGTERM if it still runs, and wait."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        self._log.close()

    def __enter__(self) -> Self:
        try:
            return self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
