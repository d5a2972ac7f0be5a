"""From the command to ready: a service whose network was compiled before, and one that compiles.

    python -m benchmarks.startup [--network resnet152] [--rounds 3]

Ready means that a real forward pass and a real search have worked (`GET /health/ready`). Each
round starts `pool5 serve` with an empty cache, kills it, and starts it again with what that left.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.machine import RESULTS, machine
from tests.server import free_port

PATIENCE_S = 300


def ready_s(data: Path, cache: Path, network: str, runtime: str) -> float:
    """Seconds until a service over `data` is ready; it is killed then."""
    port = free_port()
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("POOL5_")}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", "from service.cli import main; main()", "serve"],
        env={
            **quiet,
            "POOL5_DATA": str(data),
            "POOL5_CACHE_DIR": str(cache),
            "POOL5_PORT": str(port),
            "POOL5_NETWORK": network,
            "POOL5_WEIGHTS": "untrained",
            "POOL5_RUNTIME": runtime,
            "POOL5_OFFLINE": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            while time.perf_counter() - started < PATIENCE_S:
                if process.poll() is not None:
                    raise RuntimeError(f"the service ended with {process.returncode}")
                try:
                    if client.get("/health/ready", timeout=PATIENCE_S).status_code == 200:
                        return time.perf_counter() - started
                except httpx.TransportError:
                    time.sleep(0.02)
        raise RuntimeError(f"not ready within {PATIENCE_S} s")
    finally:
        process.kill()
        process.wait()


def table(path: Path = RESULTS / "startup.json") -> str:
    """The last result as Markdown."""
    told = json.loads(path.read_text())
    lines = [f"| {name} | {found['median']} |" for name, found in told["ready_s"].items()]
    head = f"| {told['network']} | seconds to ready |\n|---|---|\n"
    return head + "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet152")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.json")
    asked = parser.parse_args()
    seen: dict[str, list[float]] = {"compiles": [], "compiled before": [], "torch": []}
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            data, cache = Path(folder) / "data", Path(folder) / "cache"
            seen["compiles"].append(ready_s(data, cache, asked.network, "auto"))
            seen["compiled before"].append(ready_s(data, cache, asked.network, "auto"))
            seen["torch"].append(ready_s(data, cache, asked.network, "torch"))
    told = {
        "machine": machine(),
        "network": asked.network,
        "ready_s": {
            name: {"median": round(statistics.median(all_), 2), "all": [round(s, 2) for s in all_]}
            for name, all_ in seen.items()
        },
    }
    asked.output.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["ready_s"], indent=1))


if __name__ == "__main__":
    main()
