"""What a search by upload costs beside its parts, and what many clients at once gain.

    python -m benchmarks.query [--seconds 20] [--items 20000] [--rounds 5]
    python -m benchmarks.query --seconds 2 --items 2000 --rounds 2      # a minute

A real `pool5 serve` on the loopback, its collection as it is by default, is asked with JPEGs that
it has not seen. In turn with one client that asks it, the parts are done bare in this process on
the same pictures: decode and prepare, the network with its pooling, FAISS over the same vectors.
Then 8 and 32 clients ask at once. Every round measures all of it; reported are medians over rounds.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.jpegs import LARGE, SMALL, jpegs
from benchmarks.machine import RESULTS, machine
from benchmarks.upload import request
from index import NewItem
from models import Extractor, prepare_picture
from service import logs
from service.engine import Engine
from service.query import default_space
from service.settings import Settings
from tests.server import Server

CLIENTS = (1, 8, 32)
K = 10
QUIET = ("--log-format", "json", "--rate-read", "", "--rate-write", "")
COLLECTIONS = {
    "alexnet": (None, {"alexnet": "embedded"}),
    "mobilenet_v2": ({"high": "mobilenet_v2/features.18/gem"}, {"mobilenet_v2": "untrained"}),
    "resnet50": ({"high": "resnet50/layer4/gem"}, {"resnet50": "untrained"}),
}
"""Specs and weights by name of collection: the default one, and two networks for their cost."""


@dataclass(frozen=True)
class Bare:
    """The parts of a search, done in this process and by nothing that belongs to a service."""

    extractor: Extractor
    index: Any
    space: str

    def __call__(self, content: bytes) -> dict[str, float]:
        """Milliseconds by part."""
        limits, wanted = self.extractor.limits, self.extractor.preparation()
        at = [time.perf_counter()]
        picture = prepare_picture(content, limits, wanted)
        at.append(time.perf_counter())
        vector = self.extractor.forward([picture.prepared])[self.space]
        at.append(time.perf_counter())
        self.index.search(np.ascontiguousarray(vector, np.float32), K)
        at.append(time.perf_counter())
        parts = ("decode", "forward", "search")
        return {
            part: 1000 * (end - begin)
            for part, begin, end in zip(parts, at[:-1], at[1:], strict=True)
        }


def gallery(folder: Path, items: int) -> dict[str, npt.NDArray[np.float32]]:
    """Fill each collection with random descriptors; those of the space that is searched."""
    rng = np.random.default_rng(0)
    found = {}
    with Engine(Settings(data=folder, offline=True)) as engine:
        for name, (specs, weights) in COLLECTIONS.items():
            collection = engine.create_collection(name, specs, weights)
            kept = []
            for start in range(0, items, 256):
                count = min(256, items - start)
                rows = {
                    space: _unit(rng, count, described.dim)
                    for space, described in collection.spaces.items()
                }
                kept.append(rows[default_space(collection)])
                collection.add([_item(start, at, rows) for at in range(count)])
            collection.compact()
            found[name] = np.concatenate(kept)
    return found


def _item(start: int, at: int, rows: Mapping[str, npt.NDArray[np.float32]]) -> NewItem:
    number = start + at
    vectors = {space: each[at] for space, each in rows.items()}
    return NewItem(
        f"{number:08}", f"{number:064x}", f"{number}.jpg", "upload", None, {}, *SMALL, vectors
    )


def _unit(rng: np.random.Generator, count: int, dim: int) -> npt.NDArray[np.float32]:
    rows = rng.standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bare_of(folder: Path, name: str, vectors: npt.NDArray[np.float32]) -> Bare:
    """The parts for one collection: its networks, and the index of the kind that it has."""
    with Engine(Settings(data=folder, offline=True)) as engine:
        collection = engine.catalog.collection(name)
        extractor, space = engine.extractor(collection), default_space(collection)
        files = sorted(
            (folder / "generations" / str(collection.id)).glob("*.faiss"),
            key=lambda file: file.stat().st_mtime,
        )
    faiss.omp_set_num_threads(1)
    for file in reversed(files):
        index = faiss.read_index(str(file))
        if index.d == vectors.shape[1]:
            return Bare(extractor, index, space)
    index = faiss.IndexScalarQuantizer(
        vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors)
    index.add(vectors)
    return Bare(extractor, index, space)


class Client:
    """One connection that stays open, without an HTTP library whose time would count as ours."""

    async def open(self, port: int) -> "Client":
        """Connect."""
        # A large answer or upload must not be cut into the default 64 kB.
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        return self

    async def ask(self, sent: bytes) -> tuple[float, dict[str, float]]:
        """Milliseconds that an answer took, and what it says of its stages."""
        began = time.perf_counter()
        self._writer.write(sent)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        took = 1000 * (time.perf_counter() - began)
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"a search failed: {body[:500]!r}")
        return took, json.loads(body)["took_ms"]

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


async def beside(
    port: int, name: str, bare: Bare, pictures: Sequence[bytes], seconds: float
) -> dict[str, list[float]]:
    """One client and the bare parts in turn, on one picture after the other."""
    client = await Client().open(port)
    rows: dict[str, list[float]] = {"service": [], "parts": []}
    end = time.monotonic() + seconds
    for number, content in enumerate(cycle(pictures)):
        if time.monotonic() > end:
            break
        sent = request(port, f"/v1/collections/{name}/search?k={K}", content)
        for way in ("service", "parts") if number % 2 else ("parts", "service"):
            if way == "service":
                took, stages = await client.ask(sent)
                rows[way].append(took)
                told = stages | {"other": took - sum(stages.values())}
            else:
                told = bare(content)
                rows[way].append(sum(told.values()))
            for part, ms in told.items():
                rows.setdefault(f"{way} {part}", []).append(ms)
    client.close()
    return rows


async def crowd(
    port: int, name: str, pictures: Sequence[bytes], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Milliseconds of each answer to so many clients at once, and answers per second."""
    took: list[float] = []
    left = cycle(
        [request(port, f"/v1/collections/{name}/search?k={K}", content) for content in pictures]
    )
    began = time.monotonic()

    async def one() -> None:
        client = await Client().open(port)
        while time.monotonic() - began < seconds:
            took.append((await client.ask(next(left)))[0])
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return took, len(took) / (time.monotonic() - began)


def compared(
    server: Server, name: str, bare: Bare, pictures: Sequence[bytes], asked: argparse.Namespace
) -> dict[str, Any]:
    """Rounds of one client beside the parts, then of 1, 8 and 32 clients."""
    asyncio.run(crowd(server.port, name, pictures, max(CLIENTS), min(2.0, asked.seconds)))
    for content in islice(cycle(pictures), 3):
        bare(content)
    alone: dict[str, list[float]] = {}
    crowds: dict[int, list[tuple[list[float], float]]] = {clients: [] for clients in CLIENTS}
    ratios = []
    for _ in range(asked.rounds):
        share = asked.seconds / asked.rounds
        rows = asyncio.run(beside(server.port, name, bare, pictures, share))
        ratios.append(statistics.median(rows["service"]) / statistics.median(rows["parts"]))
        for part, found in rows.items():
            alone.setdefault(part, []).extend(found)
        for clients in CLIENTS:
            crowds[clients].append(asyncio.run(crowd(server.port, name, pictures, clients, share)))
    per_s = {
        clients: statistics.median(rate for _, rate in found) for clients, found in crowds.items()
    }
    return {
        "p50_ms": {part: round(statistics.median(found), 2) for part, found in alone.items()},
        "p99_ms": {part: _p99(alone[part]) for part in ("service", "parts")},
        "asked": len(alone["service"]),
        "ratio_to_parts": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "clients": {
            clients: {
                "per_s": round(per_s[clients], 1),
                "p50_ms": round(statistics.median(ms := _all(found)), 1),
                "p99_ms": _p99(ms),
                "gain": round(per_s[clients] / per_s[1], 2),
            }
            for clients, found in crowds.items()
        },
    }


def _all(found: Sequence[tuple[list[float], float]]) -> list[float]:
    return [ms for took, _ in found for ms in took]


def _p99(ms: Sequence[float]) -> float:
    return round(float(np.percentile(ms, 99)), 2)


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Every collection with small pictures, the default one also with large ones."""
    vectors = gallery(folder / "data", asked.items)
    pictures = {"0.5 MP": list(jpegs(40, SMALL, 1)), "12 MP": list(jpegs(8, LARGE, 1))}
    bares = {name: bare_of(folder / "data", name, vectors[name]) for name in COLLECTIONS}
    cases = [*((name, "0.5 MP") for name in COLLECTIONS), ("alexnet", "12 MP")]
    found = {}
    with Server(folder / "data", *QUIET) as server:
        for name, size in cases:
            case = f"{name}, {size}"
            found[case] = compared(server, name, bares[name], pictures[size], asked)
            print(row(case, found[case]), flush=True)
    return found


HEAD = (
    "| query | decode + forward + FAISS, ms | service, p50 ms | p99 ms | of its parts "
    "| 8 clients | 32 clients |\n|---|---|---|---|---|---|---|"
)


def row(case: str, found: dict[str, Any]) -> str:
    """A line of the table in docs/speed.md; JSON has made the counts of clients into text."""
    gains = {str(clients): one["gain"] for clients, one in found["clients"].items()}
    return (
        f"| {case} | {found['p50_ms']['parts']:.1f} | {found['p50_ms']['service']:.1f} "
        f"| {found['p99_ms']['service']:.1f} | **{found['ratio_to_parts']:.2f}** "
        f"| {gains['8']:.2f} × | {gains['32']:.2f} × |"
    )


def table(path: Path = RESULTS / "query.json") -> str:
    """The table that docs/speed.md has, from the last result."""
    cases = json.loads(path.read_text())["cases"]
    return "\n".join([HEAD, *(row(case, found) for case, found in cases.items())])


def main() -> None:
    """Measure, print the table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each thing measured")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "query.json")
    asked = parser.parse_args()
    logs.configure("console", level=40)
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked)
    report = {"benchmark": "query", "machine": machine(), "items": asked.items, "cases": found}
    asked.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
