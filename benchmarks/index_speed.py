"""What the catalog costs over raw FAISS: latency, memory, writes while serving, growth, start-up.

    python -m benchmarks.index_speed build SETS FOLDER
    python -m benchmarks.index_speed measure SETS FOLDER

`SETS` comes from `benchmarks.vectors`. The raw index is the very file that a collection searches,
opened by `faiss.read_index` and asked with the same parameters, in turn with the collection.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.machine import RESULTS, machine
from benchmarks.stores import K, chunks, new_items
from index import Catalog, Collection, Space

Vectors = npt.NDArray[np.float32]

SIZES = (100_000, 1_000_000)
WARM, ASKED = 100, 1_000
WRITTEN_AT_ONCE = 256
WRITERS = (
    ("other process", 250),
    ("other process", 1_000),
    ("this process", 1_000),
    ("other process", 5_000),
)
"""Who adds, and how many items a second are offered."""
SERVING_S = 15.0
QUERIES_PER_S = 100
STARTS = 3


def _name(source: Path, size: int) -> str:
    return f"{source.name}-{size}"


def build(source: Path, folder: Path) -> dict[str, Any]:
    """Fill and compact a collection of every size, and one that is searched exactly."""
    gallery = np.load(source / "gallery.npy", mmap_mode="r")
    space = Space("high", "squeezenet1_1/features.12/spoc", "0" * 64, gallery.shape[1])
    report: dict[str, Any] = {}
    wanted = [(size, _name(source, size), {}) for size in SIZES if size <= len(gallery)]
    size = len(gallery)
    wanted.append((size, f"{_name(source, size)}-exact", {"exact_up_to": size + 1_000_000}))
    for size, name, index in wanted:
        if (folder / name).exists():
            continue
        with Catalog.open(folder / name) as catalog:
            collection = catalog.create_collection("default", [space], {"index": index})
            started = time.perf_counter()
            for start, rows in chunks(gallery[:size], WRITTEN_AT_ONCE):
                collection.add(new_items(start, rows))
            filled = time.perf_counter()
            collection.compact()
            report[name] = {
                "durable_inserts_per_s": round(size / (filled - started)),
                "compaction_s": round(time.perf_counter() - filled, 1),
            }
            print(name, report[name], flush=True)
    return report


def _opened(folder: Path) -> tuple[Collection, Any, Any]:
    """A collection, the file that it searches opened by FAISS alone, and its parameters."""
    collection = Collection.open(folder)
    collection.compact()  # what an earlier run added is not in the file that is compared with
    state = collection.status()["spaces"]["high"]
    return collection, faiss.read_index(str(_searched(folder))), _parameters(state)


def _searched(folder: Path) -> Path:
    """The file of the newest generation."""
    files = (folder / "generations" / "1").glob("*.faiss")
    return max(files, key=lambda file: file.stat().st_mtime)


def _parameters(state: dict[str, Any]) -> Any:
    tuned = state["parameters"]
    if state["kind"] == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=tuned["efSearch"])
    return faiss.SearchParameters()


def _recall(found: list[list[int]], nearest: npt.NDArray[np.int64]) -> float:
    hits = [len(set(ids) & set(row.tolist())) for ids, row in zip(found, nearest, strict=True)]
    return round(sum(hits) / nearest.size, 4)


def latency(source: Path, folder: Path, size: int) -> dict[str, Any]:
    """Single queries, the collection and the raw index in turn."""
    faiss.omp_set_num_threads(1)
    queries = np.load(source / "queries.npy")[: WARM + ASKED]
    collection, raw, parameters = _opened(folder / _name(source, size))
    ways: dict[str, Callable[[Vectors], Any]] = {
        "pool5": lambda query: [int(one.id) for one in collection.search(query, K)],
        "faiss": lambda query: raw.search(query[None], K, params=parameters)[1][0],
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    found: list[list[int]] = []
    for at, query in enumerate(queries):
        names = list(ways) if at % 2 else list(reversed(ways))
        for name in names:
            started = time.perf_counter()
            answer = ways[name](query)
            took[name].append(1000 * (time.perf_counter() - started))
            if name == "pool5":
                found.append(answer)
    state = collection.status()["spaces"]["high"]
    collection.close()
    medians = {name: statistics.median(all_[WARM:]) for name, all_ in took.items()}
    report: dict[str, Any] = {
        name: {"p50_ms": round(medians[name], 3), "p99_ms": _p99(all_[WARM:])}
        for name, all_ in took.items()
    }
    pairs = [a / b for a, b in zip(took["pool5"][WARM:], took["faiss"][WARM:], strict=True)]
    report |= {
        "ratio_of_medians": round(medians["pool5"] / medians["faiss"], 3),
        "ratio_quartiles": [round(float(np.percentile(pairs, at)), 3) for at in (25, 75)],
        "overhead_ms": round(medians["pool5"] - medians["faiss"], 3),
        "index": {name: state[name] for name in ("kind", "parameters", "recall", "bytes")},
    }
    if size == len(np.load(source / "gallery.npy", mmap_mode="r")):
        report["recall"] = _recall(found, np.load(source / "nearest.npy")[: len(found)])
    return report


def _p50(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _p99(values: list[float]) -> float:
    return round(float(np.percentile(values, 99)), 3)


RESIDENT = """
import sys
from pathlib import Path
import numpy as np
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
queries = np.load(sys.argv[2])[:200]
"""

RAW = (
    RESIDENT
    + """
import faiss
index = faiss.read_index(sys.argv[1])
for query in queries:
    index.search(query[None], 10)
print(resident())
"""
)

OURS = (
    RESIDENT
    + """
from index import Collection
collection = Collection.open(sys.argv[1])
for query in queries:
    collection.search(query, 10)
print(resident())
"""
)


def memory(source: Path, folder: Path, size: int) -> dict[str, float]:
    """Resident MiB of a process of its own after 200 searches, medians of three."""
    at = folder / _name(source, size)
    file = _searched(at)
    rows: dict[str, list[float]] = {"pool5": [], "faiss": []}
    for _ in range(STARTS):
        for name, code, what in (("pool5", OURS, at), ("faiss", RAW, file)):
            command = [sys.executable, "-c", code, str(what), str(source / "queries.npy")]
            rows[name].append(float(subprocess.check_output(command, text=True)))
    medians = {f"{name}_mib": round(statistics.median(all_), 1) for name, all_ in rows.items()}
    return medians | {"ratio": round(medians["pool5_mib"] / medians["faiss_mib"], 3)}


def _paced(per_s: float, seconds: float) -> Iterator[None]:
    started = time.perf_counter()
    for number in range(int(per_s * seconds)):
        wait = started + number / per_s - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        yield


def _asked(collection: Collection, queries: Vectors, seconds: float) -> list[float]:
    """Milliseconds of queries at a steady pace, from when each was due: waiting counts."""
    took = []
    started = time.perf_counter()
    for number, _ in enumerate(_paced(QUERIES_PER_S, seconds)):
        due = started + number / QUERIES_PER_S
        collection.search(queries[number % len(queries)], K)
        took.append(1000 * (time.perf_counter() - due))
    return took


def write(folder: Path, source: Path, first: int, per_s: int) -> int:
    """Add at the pace asked, in batches; how many were acknowledged."""
    gallery = np.load(source / "gallery.npy", mmap_mode="r")
    with Collection.open(folder) as collection:
        return _write(collection, gallery, first, per_s)


def _write(collection: Collection, gallery: Vectors, first: int, per_s: int) -> int:
    rng = np.random.default_rng(first)
    added, started = 0, time.perf_counter()
    for _ in _paced(per_s / WRITTEN_AT_ONCE, SERVING_S):
        if time.perf_counter() - started > SERVING_S:
            break
        start = int(rng.integers(len(gallery) - WRITTEN_AT_ONCE))
        rows = gallery[start : start + WRITTEN_AT_ONCE].astype(np.float32)
        rows = rows + np.float32(0.01) * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        collection.add(new_items(first + added, rows))
        added += len(rows)
    return added


WRITING = (
    "import sys; from pathlib import Path; from benchmarks.index_speed import write; "
    "print(write(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))"
)


def serving(source: Path, folder: Path, size: int) -> dict[str, Any]:
    """p99 of searches idle and beside a writer, in a process of its own or in this one.

    The collection compacts in the background when that is due, as the service does.
    """
    faiss.omp_set_num_threads(1)
    at = folder / _name(source, size)
    gallery = np.load(source / "gallery.npy", mmap_mode="r")
    queries = np.load(source / "queries.npy")
    collection = Collection.open(at)
    stop = threading.Event()

    def compacting() -> None:
        while not stop.wait(1.0):
            if collection.needs_compaction():
                collection.compact(stop)

    rows = []
    for number, (where, per_s) in enumerate(WRITERS):
        collection.compact()
        _asked(collection, queries, SERVING_S / 10)
        idle = _asked(collection, queries, SERVING_S)
        first = int(time.time()) * 1_000_000 + number * 200_000
        stop.clear()
        background = threading.Thread(target=compacting)
        background.start()
        if where == "other process":
            command = [sys.executable, "-c", WRITING, str(at), str(source), str(first), str(per_s)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
                beside = _asked(collection, queries, SERVING_S)
                told, _ = writer.communicate()
            added = int(told)
        else:
            with ThreadPoolExecutor(1) as writing:
                wrote = writing.submit(_write, collection, gallery, first, per_s)
                beside = _asked(collection, queries, SERVING_S)
                added = wrote.result()
        stop.set()
        background.join()
        rows.append(
            {
                "writer": where,
                "adds_per_s": round(added / SERVING_S),
                "idle": {"p50_ms": _p50(idle), "p99_ms": _p99(idle)},
                "beside": {"p50_ms": _p50(beside), "p99_ms": _p99(beside)},
                "p99_over_idle": round(_p99(beside) / _p99(idle), 2),
            }
        )
        print(rows[-1], flush=True)
    collection.close()
    return {"queries_per_s": QUERIES_PER_S, "seconds": SERVING_S, "writers": rows}


START = """
import sys, time
import numpy as np
started = time.perf_counter()
from index import Collection
imported = time.perf_counter()
collection = Collection.open(sys.argv[1])
collection.search(np.load(sys.argv[2])[0], 10)
print(imported - started, time.perf_counter() - imported)
"""


def start_up(source: Path, folder: Path, size: int) -> dict[str, float]:
    """Seconds from opening to the first answer: from generations, and with the file gone."""

    def started(at: Path) -> float:
        command = [sys.executable, "-c", START, str(at), str(source / "queries.npy")]
        return float(subprocess.check_output(command, text=True).split()[1])

    at, exact = folder / _name(source, size), folder / f"{_name(source, size)}-exact"
    report = {
        "from_generations_s": statistics.median(started(at) for _ in range(STARTS)),
        "exact_from_generations_s": statistics.median(started(exact) for _ in range(STARTS)),
    }
    for file in (exact / "generations" / "1").glob("*.faiss"):
        file.unlink()
    report["exact_rebuilt_from_catalog_s"] = started(exact)
    return {name: round(seconds, 2) for name, seconds in report.items()}


def measure(sets: Path, folder: Path) -> dict[str, Any]:
    """Everything that is reported, for every set that is there."""
    report: dict[str, Any] = {"machine": machine(), "sets": {}}
    for source in sorted(sets.iterdir()):
        if not (folder / _name(source, SIZES[-1])).exists():
            continue
        sizes = [size for size in SIZES if (folder / _name(source, size)).exists()]
        speed = {size: latency(source, folder, size) for size in sizes}
        small, large = (speed[size]["pool5"]["p50_ms"] for size in (sizes[0], sizes[-1]))
        report["sets"][source.name] = {
            "latency": speed,
            "ten_times_the_items": round(large / small, 2),
            "memory": memory(source, folder, sizes[-1]),
            "start_up": start_up(source, folder, sizes[-1]),
            "adds_while_serving": serving(source, folder, sizes[-1]),
        }
        print(json.dumps(report["sets"][source.name], indent=2), flush=True)
    return report


def main() -> None:
    """Build the collections, or measure them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["build", "measure"])
    parser.add_argument("sets", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    name = "index_build.json" if given.step == "build" else "index_speed.json"
    if given.step == "build":
        report: dict[str, Any] = {"machine": machine()}
        for source in sorted(given.sets.iterdir()):
            report |= build(source, given.folder)
    else:
        report = measure(given.sets, given.folder)
    (RESULTS / name).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
