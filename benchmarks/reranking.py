"""What re-ranking gains and costs: leave-one-out mAP on real photographs, milliseconds per query.

    OMP_NUM_THREADS=1 python -m benchmarks.reranking [--output benchmarks/results/reranking.json]

Every picture of a set asks the others, by cosine and by each method, with the defaults and with
neighbourhoods scaled to small galleries: one scaling for all sets, chosen from the size of the
classes (8 to 24) and not by accuracy; only diffusion's k, seeds and alpha were chosen with sight of
these sets, because the paper's lose on all of them. Times are CPU milliseconds of
`Collection.search(k=10)` itself on one thread, medians over queries that alternate between the
methods: what it takes on a free machine, also where others work beside it.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.labelled import LEVELS, describe
from index import Collection, Expansion, NewItem, Reranking, Space
from index.evaluation import Refinement
from index.evaluation.measures import average_precisions

METHODS: Mapping[str, Mapping[str, Any]] = {
    "alpha-qe": {"expansion": Expansion(n=10)},
    "alpha-qe, small": {"expansion": Expansion(n=3)},
    "dba": {"rerank": Reranking.of("dba")},
    "dba, small": {"rerank": Reranking.of({"method": "dba", "k": 3, "alpha": 3.0})},
    "diffusion": {"rerank": Reranking.of("diffusion")},
    "diffusion, k 10": {"rerank": Reranking.of({"method": "diffusion", "k": 10, "seeds": 5})},
    "diffusion, small": {
        "rerank": Reranking.of({"method": "diffusion", "k": 10, "seeds": 5, "alpha": 0.8})
    },
    "k-reciprocal": {"rerank": Reranking.of("k-reciprocal")},
    "k-reciprocal, small": {"rerank": Reranking.of({"method": "k-reciprocal", "k1": 8, "k2": 3})},
}
DIM, COUNT, CLUSTERS = 256, 100_000, 5_000
SHORTLISTS = (200, 1_000)


def leave_one_out(
    vectors: np.ndarray, labels: list[str], queries: int, way: Mapping[str, Any]
) -> np.ndarray:
    """(queries,) average precisions; all but the query are ranked, as for a search by item."""
    classes = np.unique(labels, return_inverse=True)[1]
    orders = Refinement(**way).rankings(vectors[:queries], vectors, np.arange(queries))
    relevant = [classes[order[:-1]] == classes[at] for at, order in enumerate(orders)]
    return average_precisions(np.array(relevant))


def accuracy(network: str) -> tuple[dict[str, Any], np.ndarray]:
    """mAP by set and method, with the difference's 95 % interval over queries; all descriptors."""
    report: dict[str, Any] = {}
    everything = []
    for name, found in describe(network).items():
        vectors = found.descriptors["high"]
        plain = leave_one_out(vectors, found.labels, found.queries, {})
        report[name] = {"queries": found.queries, "gallery": len(vectors)}
        report[name]["none"] = {"map": round(float(plain.mean()), 4)}
        for method, way in METHODS.items():
            precisions = leave_one_out(vectors, found.labels, found.queries, way)
            low, high = _interval(precisions - plain)
            report[name][method] = {
                "map": round(float(precisions.mean()), 4),
                "gain": round(float((precisions - plain).mean()), 4),
                "gain_95": [round(low, 4), round(high, 4)],
            }
        everything.append(vectors[: found.queries])
    return report, np.concatenate(everything)


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean."""
    drawn = np.random.default_rng(0).integers(0, differences.size, (2_000, differences.size))
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def clustered() -> np.ndarray:
    """(COUNT, DIM) float32 unit vectors about random centres, as descriptors lie."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    rows = centres[rng.integers(0, CLUSTERS, COUNT)]
    rows += 0.6 * rng.standard_normal((COUNT, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def milliseconds(vectors: np.ndarray, queries: int) -> dict[str, float]:
    """Median CPU time of a whole search of a real collection, by method and short list."""
    ways = {"none": {}, "alpha-qe": METHODS["alpha-qe"]}
    for method in ("dba", "diffusion", "k-reciprocal"):
        for shortlist in SHORTLISTS:
            rerank = Reranking.of({"method": method, "shortlist": shortlist})
            ways[f"{method}, short list {shortlist}"] = {"rerank": rerank}
    space = Space("high", "made/up/spoc", "f" * 64, vectors.shape[1])
    took: dict[str, list[float]] = {name: [] for name in ways}
    with (
        tempfile.TemporaryDirectory() as folder,
        Collection.open(folder, spaces=[space]) as collection,
    ):
        for start in range(0, len(vectors), 10_000):
            rows = enumerate(vectors[start : start + 10_000], start)
            collection.add([_item(number, row) for number, row in rows])
        collection.compact()
        for at in np.linspace(0, len(vectors) - 1, queries + 1).astype(int):
            for name, way in ways.items():
                started = time.process_time()
                collection.search(vectors[at], 10, **way)
                took[name].append((time.process_time() - started) * 1000)
    return {name: round(statistics.median(each[1:]), 2) for name, each in took.items()}


def _item(number: int, vector: np.ndarray) -> NewItem:
    return NewItem(
        id=str(number),
        sha256=f"{number:064x}",
        name=f"{number}.jpg",
        source="benchmark",
        stamp=None,
        metadata=None,
        width=1,
        height=1,
        descriptors={"high": vector},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    faiss.omp_set_num_threads(1)
    found = {f"{name}/{levels['high']}": accuracy(name) for name, levels in LEVELS.items()}
    pictures = next(iter(found.values()))[1]
    report = {
        "benchmark": "reranking",
        "machine": {"processor": platform.machine(), "numpy": np.__version__, "threads": 1},
        "parameters": {
            method: {kind: asdict(given) for kind, given in way.items()}
            for method, way in METHODS.items()
        },
        "accuracy": {spec: rows for spec, (rows, _) in found.items()},
        "cpu_milliseconds": {
            f"{len(pictures)} pictures, {pictures.shape[1]} dims": milliseconds(pictures, 20),
            f"{COUNT} clustered, {DIM} dims": milliseconds(clustered(), 12),
        },
    }
    text = json.dumps(report, indent=2)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
