"""What it costs to decode in processes: pictures per second against threads, in alternation.

    python -m benchmarks.decoding [--output benchmarks/results/decoding.json]

Small and large JPEGs are decoded, prepared for a network and given a thumbnail by two threads of
one process and by two processes; the memory of the processes is reported beside it.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.overload import resident_mib
from benchmarks.sets import SHARED, machine
from models import Limits, Preparation, prepare_picture
from models.preprocess import IMAGENET
from service.decoding.pool import Decoders
from tests.pictures import encoded

WORKERS = 2
ROUNDS = 5
WANTED = Preparation((IMAGENET,), 512, thumbnail=True)


def pictures() -> dict[str, list[bytes]]:
    """Photographs as they are and at 12 megapixels; noise where they are missing."""
    paths = sorted((SHARED / "images" / "scenes").rglob("*.jpg"))[:60]
    small = [path.read_bytes() for path in paths] or [
        encoded(seed, "JPEG", (640, 480)) for seed in range(60)
    ]
    return {"small": small, "12 MP": [_enlarged(content) for content in small[:8]]}


def _enlarged(content: bytes) -> bytes:
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").resize((4000, 3000)).save(jpeg, "JPEG")
    return jpeg.getvalue()


def per_s(decode: Callable[[bytes], Any], contents: Sequence[bytes], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(decode, contents))
        return len(contents) / (time.perf_counter() - began)


def compared(decoders: Decoders, contents: Sequence[bytes]) -> dict[str, Any]:
    """A B A B …; the processes are fed by two threads more than there are processes."""
    here = partial(prepare_picture, limits=Limits(), wanted=WANTED)
    there = partial(decoders.prepare, wanted=WANTED, lane="query")
    per_s(there, contents[:4], WORKERS)
    rows = [
        (per_s(here, contents, WORKERS), per_s(there, contents, WORKERS + 2)) for _ in range(ROUNDS)
    ]
    ratio = statistics.median(processes / threads for threads, processes in rows)
    return {
        "mean_bytes": round(statistics.mean(map(len, contents))),
        "threads_per_s": [round(threads, 1) for threads, _ in rows],
        "processes_per_s": [round(processes, 1) for _, processes in rows],
        "median_ratio": round(ratio, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    decoders = Decoders(WORKERS, Limits(), timeout_s=60)
    try:
        found = {name: compared(decoders, contents) for name, contents in pictures().items()}
        memory = [resident_mib(pid) for pid in decoders.processes()["query"]]
    finally:
        decoders.close()
    report = {
        "benchmark": "decoding",
        "machine": machine(),
        "workers": WORKERS,
        **found,
        "resident_mib": memory,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if output:
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
