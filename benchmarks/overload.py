"""What overload, bulk work and bad pictures do to those who wait for an answer.

    python -m benchmarks.overload [--seconds 120] [--output benchmarks/results/overload.json]

A real `pool5 serve` on the loopback is asked by clients on the same machine: one at a time (idle),
eight at a time (its capacity), at four times its capacity whatever it answers (overload), while a
job indexes, and with bad pictures among the good ones. Each part takes `--seconds`.
"""

import argparse
import asyncio
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.sets import SHARED, machine
from benchmarks.upload import request
from tests.pictures import encoded
from tests.server import Server

SEARCH = "/v1/collections/default/search?k=10"
DEADLINE_S = 10.0
"""The service's own, which an admitted request must keep."""

CLIENTS = 8
OVERLOAD = 4
GALLERY = 100
ODD_SHARE = 4
"""One picture of so many is a bad one."""


@dataclass
class Answers:
    """Seconds by status, and the seconds after the beginning at which memory was so large."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    resident_mib: list[tuple[float, float]] = field(default_factory=list)
    retry_after: int = 0
    took: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    @property
    def statuses(self) -> dict[int, int]:
        return {status: len(found) for status, found in sorted(self.seconds.items())}

    def ms(self, status: int, share: float) -> float | None:
        found = self.seconds.get(status)
        return round(1000 * float(np.quantile(found, share)), 1) if found else None

    def report(self) -> dict[str, Any]:
        return {
            "statuses": self.statuses,
            "answered_per_s": round(len(self.seconds.get(200, [])) / max(self.took, 1e-6), 1),
            "ok_ms": {"p50": self.ms(200, 0.5), "p99": self.ms(200, 0.99), "max": self.ms(200, 1)},
            "refused_ms": {"p50": self.ms(429, 0.5), "p99": self.ms(429, 0.99)},
            "longest_retry_after_s": self.retry_after,
            "resident_mib": _thinned(self.resident_mib),
            "peak_mib": max((mib for _, mib in self.resident_mib), default=None),
        }


def _thinned(samples: Sequence[tuple[float, float]], most: int = 30) -> list[tuple[float, float]]:
    step = max(1, len(samples) // most)
    return list(samples[::step])


def resident_mib(pid: int) -> float:
    """Of a process and its children, in proportion where pages are shared."""
    total = 0
    for one in [pid, *_children(pid)]:
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return round(total / 1024, 1)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def good_pictures() -> list[bytes]:
    """JPEGs of 640×480: photographs where they are at hand, otherwise noise."""
    paths = sorted((SHARED / "images").glob("scenes/**/*.jpg"))[:20]
    if not paths:
        return [encoded(seed, "JPEG", (640, 480)) for seed in range(20)]
    found = []
    for path in paths:
        jpeg = io.BytesIO()
        Image.open(path).convert("RGB").resize((640, 480)).save(jpeg, "JPEG", quality=90)
        found.append(jpeg.getvalue())
    return found


def odd_pictures() -> list[bytes]:
    """The files that have broken other readers, or some broken ones where they are missing."""
    paths = [path for path in sorted((SHARED / "images" / "odd").rglob("*")) if path.is_file()]
    contents = [path.read_bytes() for path in paths if path.stat().st_size < 4 * 2**20]
    whole = encoded(1, "JPEG", (640, 480))
    return contents or [b"", b"no picture", whole[: len(whole) // 2], whole[:100]]


async def ask(server: Server, content: bytes, answers: Answers) -> None:
    """One question on a connection of its own.

    Without an HTTP library: on the two cores that it shares with the service it would take more
    time than a refusal does, and that time would be counted as the service's.
    """
    began = time.perf_counter()
    status, retry_after = await _asked(server, content)
    answers.add(status, time.perf_counter() - began)
    answers.retry_after = max(answers.retry_after, retry_after)


async def _asked(server: Server, content: bytes) -> tuple[int, int]:
    try:
        async with asyncio.timeout(DEADLINE_S + 30):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                # Refused before the body is read: the rest of it need not arrive.
                writer.write(request(server.port, SEARCH, content, closing=True))
                head, _, _ = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0, 0
    if not head:
        return 0, 0
    after = re.search(rb"retry-after: (\d+)", head, re.IGNORECASE)
    return int(head.split(b" ", 2)[1]), int(after[1]) if after else 0


async def closed(
    server: Server,
    seconds: float,
    pictures: Sequence[bytes],
    clients: int = 1,
    odd: Sequence[bytes] = (),
) -> tuple[Answers, Answers]:
    """So many clients ask one after the other; answers to the good pictures, and to the others."""
    answers, others = Answers(), Answers()
    goods, odds = cycle(pictures), cycle(odd)
    began = time.monotonic()

    async def one() -> None:
        asked = 0
        while time.monotonic() - began < seconds:
            if odd and asked % ODD_SHARE == 0:
                await ask(server, next(odds), others)
            else:
                await ask(server, next(goods), answers)
            asked += 1

    async with _watched(server, answers, began):
        await asyncio.gather(*(one() for _ in range(clients)))
    answers.took = time.monotonic() - began
    return answers, others


async def offered(
    server: Server, seconds: float, pictures: Sequence[bytes], per_s: float
) -> Answers:
    """So many questions a second, whatever has been answered by then."""
    answers, goods = Answers(), cycle(pictures)
    began = time.monotonic()
    asked: set[asyncio.Task[None]] = set()
    sent = 0
    async with _watched(server, answers, began):
        while (now := time.monotonic() - began) < seconds:
            while sent < now * per_s:
                task = asyncio.create_task(ask(server, next(goods), answers))
                asked.add(task)
                task.add_done_callback(asked.discard)
                sent += 1
            await asyncio.sleep(0.005)
        answers.took = time.monotonic() - began
        await asyncio.gather(*asked)
    return answers


class _watched:  # noqa: N801 - used like a function
    """Looks at the memory of the service twice a second."""

    def __init__(self, server: Server, answers: Answers, began: float) -> None:
        self._given = server, answers, began

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._look(*self._given))

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _look(self, server: Server, answers: Answers, began: float) -> None:
        while True:
            mib = await asyncio.to_thread(resident_mib, server.process.pid)
            answers.resident_mib.append((round(time.monotonic() - began, 1), mib))
            await asyncio.sleep(0.5)


def bulk_folder(folder: Path, count: int, pictures: Sequence[bytes]) -> None:
    """Files that differ in their last bytes, so that each is a picture of its own."""
    for number, content in zip(range(count), cycle(pictures), strict=False):
        (folder / f"{number:06}.jpg").write_bytes(content + number.to_bytes(4, "big"))


def during_job(
    server: Server, seconds: float, pictures: Sequence[bytes], folder: Path
) -> tuple[Answers, float]:
    """Queries one at a time while a job works; with the job's files per second."""
    made = server.client.post("/v1/collections/default/jobs", json={"folder": str(folder)}).json()
    time.sleep(min(2.0, seconds / 4))
    before, at = server.client.get(f"/v1/jobs/{made['id']}").json(), time.monotonic()
    answers, _ = asyncio.run(closed(server, seconds, pictures))
    after = server.client.get(f"/v1/jobs/{made['id']}").json()
    rate = (after["done"] - before["done"]) / (time.monotonic() - at)
    assert after["state"] == "running", f"the job ended before the queries did: {after}"
    server.client.delete(f"/v1/jobs/{made['id']}")
    server.job(made["id"])
    return answers, round(rate, 1)


def settings(roots: Path) -> Iterator[str]:
    yield from ("--image-roots", str(roots), "--request-timeout-s", str(DEADLINE_S))


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """All parts against one service that is started for it."""
    roots = folder / "pictures"
    roots.mkdir()
    goods, odds = good_pictures(), odd_pictures()
    with Server(folder / "data", *settings(roots)) as server:
        for number in range(GALLERY):
            server.client.post(
                "/v1/collections/default/items",
                files={"files": (f"{number}.png", encoded(number), "image/png")},
            ).raise_for_status()
        asyncio.run(closed(server, 2, goods, CLIENTS))  # warm
        idle, _ = asyncio.run(closed(server, seconds, goods))
        full, _ = asyncio.run(closed(server, seconds, goods, CLIENTS))
        capacity = len(full.seconds[200]) / full.took
        over = asyncio.run(offered(server, seconds, goods, OVERLOAD * capacity))
        alone, _ = asyncio.run(closed(server, seconds, goods, 2))
        mixed, bad = asyncio.run(closed(server, seconds, goods, 2, odds))
        bulk_folder(roots, int(400 * (seconds + 5)), goods)
        busy, rate = during_job(server, seconds, goods, roots)
        ready = server.client.get("/health/ready").status_code
    return {
        "idle": idle.report(),
        "capacity": {"per_s": round(capacity, 1), "clients": CLIENTS, **full.report()},
        "overload": {"offered_per_s": round(OVERLOAD * capacity, 1), **over.report()},
        "with_job": {
            **busy.report(),
            "job_files_per_s": rate,
            "p99_ratio_to_idle": _ratio(busy.ms(200, 0.99), idle.ms(200, 0.99)),
        },
        "with_odd": {
            "good_alone": alone.report(),
            "good_mixed": mixed.report(),
            "odd": {"files": len(odds), "statuses": bad.statuses},
            "p99_ratio_to_alone": _ratio(mixed.ms(200, 0.99), alone.ms(200, 0.99)),
        },
        "ready_after": ready,
    }


def _ratio(one: float | None, other: float | None) -> float | None:
    return round(one / other, 3) if one and other else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked.seconds)
    report = {
        "benchmark": "overload",
        "machine": {**machine(), "cores": os.cpu_count()},
        "seconds": asked.seconds,
        **found,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if asked.output:
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
