"""SIGKILL at random instants during one batch job; afterwards every file must have counted once.

    python -m benchmarks.crash_jobs --out benchmarks/results/crash_jobs.json

A process of its own works off the job with the service's engine and runner, and is killed: half the
times at any instant after its start, half the times after a share of the files. Between two lives
the catalog is read by plain SQL: items, outcomes and counts must agree after every kill.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.sets import machine
from service import logs
from service.engine import DEFAULT, Engine
from service.indexing.runner import JobRunner
from service.settings import Settings

EVERY_BAD = 23
"""Every so many-th file is no picture, and must fail once."""


class CountError(AssertionError):
    """The catalog does not say what is so."""


def make_pictures(folder: Path, files: int) -> None:
    """Small noise, different in every file, in folders of a few hundred."""
    for n in range(files):
        path = folder / f"{n // 300:03d}" / f"{n:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if n % EVERY_BAD == 0:
            path.write_bytes(b"no picture %d" % n)
        else:
            pixels = np.random.default_rng(n).integers(0, 256, (12, 12, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def opened(data: Path, pictures: Path) -> Engine:
    """An engine as the service has it."""
    return Engine(Settings(data=data, image_roots=(pictures,), device="cpu", offline=True))


def counts(data: Path) -> dict[str, Any]:
    """What the catalog says, by plain SQL; CountError where it contradicts itself."""
    with sqlite3.connect(data / "catalog.db") as catalog:
        asked = {
            "items": "SELECT count(*) FROM items",
            "described": "SELECT count(DISTINCT item_key) FROM descriptors",
            "names": "SELECT count(DISTINCT name) FROM items",
            "outcomes": "SELECT count(*) FROM file_outcomes",
            "references": "SELECT count(DISTINCT reference) FROM file_outcomes",
            "failures": "SELECT count(*) FROM file_outcomes WHERE status = 'failed'",
            "added": "SELECT count(*) FROM file_outcomes WHERE status = 'added'",
        }
        found: dict[str, Any] = {
            name: catalog.execute(query).fetchone()[0] for name, query in asked.items()
        }
        found["state"], found["done"], found["failed"] = catalog.execute(
            "SELECT state, done, failed FROM jobs"
        ).fetchone()
    catalog.close()
    good = {found[name] for name in ("items", "described", "names", "added", "done")}
    if len(good) > 1 or found["failed"] != found["failures"]:
        raise CountError(f"counts that differ: {found}")
    if not found["outcomes"] == found["references"] == found["done"] + found["failed"]:
        raise CountError(f"outcomes that are none or twice: {found}")
    return found


def _work(data: Path, pictures: Path, log: Path) -> None:
    """Work off the job in this process."""
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    logs.configure("console")
    with opened(data, pictures) as engine:
        runner = JobRunner(engine)
        runner.start()
        while engine.catalog.jobs.list()[0].state in ("queued", "running"):
            time.sleep(0.02)
        runner.stop()


def _life(data: Path, pictures: Path, log: Path) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _work(data, pictures, log)
            status = 0
        finally:
            os._exit(status)
    return child


def _done(data: Path) -> int:
    with sqlite3.connect(data / "catalog.db", timeout=30) as catalog:
        row = catalog.execute("SELECT done + failed FROM jobs").fetchone()
    catalog.close()
    return int(row[0])


def crash(kills: int, files: int, folder: Path, seed: int = 1) -> Mapping[str, Any]:
    """Kill `kills` times, let it end, and count. Raises CountError."""
    chance = random.Random(seed)
    data, pictures, log = folder / "data", folder / "pictures", folder / "lives.log"
    make_pictures(pictures, files)
    child = os.fork()  # The parent must never have threads of its own when it forks.
    if child == 0:
        with opened(data, pictures) as engine:
            engine.create_collection(DEFAULT, {"high": "colour/rgb8"}, {}, keep="thumbnail")
            engine.catalog.jobs.create(DEFAULT, {"folder": str(pictures)})
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise CountError("the job could not be made")
    started, in_work = time.monotonic(), 0
    for kill in range(kills):
        before = _done(data)
        child = _life(data, pictures, log)
        # What may be done of the rest in this life, so that something is left for the others.
        goal = before + chance.uniform(0, 2) * (0.95 * files - before) / (kills - kill)
        until = time.monotonic() + (chance.uniform(0, 0.6) if kill % 2 else 60)
        while _done(data) < goal and time.monotonic() < until:
            time.sleep(0.003)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise CountError(f"a life ended by itself: {log.read_text()[-2000:]}")
        in_work += counts(data)["outcomes"] > before
    child = _life(data, pictures, log)
    _, status = os.waitpid(child, 0)
    final = counts(data)
    bad = len(range(0, files, EVERY_BAD))
    wanted = ("done", files - bad, bad)
    if status or (final["state"], final["done"], final["failed"]) != wanted:
        raise CountError(f"it ended with {status} and {final}: {log.read_text()[-2000:]}")
    return {
        "kills": kills,
        "kills_that_had_made_progress": in_work,
        "files": files,
        "bad_files": bad,
        "final": final,
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
    }


def main() -> None:
    said = argparse.ArgumentParser(description=__doc__)
    said.add_argument("--kills", type=int, default=120)
    said.add_argument("--files", type=int, default=5000)
    said.add_argument("--seed", type=int, default=1)
    said.add_argument("--out", type=Path, help="where the result goes; printed without")
    asked = said.parse_args()
    with tempfile.TemporaryDirectory(prefix="pool5-crash-") as folder:
        result = crash(asked.kills, asked.files, Path(folder), asked.seed)
    text = json.dumps(result, indent=1) + "\n"
    if asked.out:
        asked.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
