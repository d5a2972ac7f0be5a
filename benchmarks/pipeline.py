"""Bulk indexing beside its bounds: decoding alone, the network alone, and the job that does both.

    python -m benchmarks.pipeline [--pictures 2000] [--large 200] [--heavy 60] [--rounds 5]
    python -m benchmarks.pipeline --pictures 150 --large 16 --heavy 12 --rounds 2   # a minute

JPEGs are made by crops and scales of the photographs. Of each kind and network, in turn and
several times over: how many a second the decoding processes prepare, how many the network
describes, and how many a batch job turns from files of a folder into searchable items, with
everything that belongs to it. Where decoding and the network share the cores, the bound is what a
second of them can give to both: 1 / (1/decode + 1/forward); beside a GPU it is the slower of both.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.jpegs import LARGE, SMALL, fill
from benchmarks.machine import RESULTS, machine
from index import Collection
from models import Extractor, Prepared, prepare_picture
from service import logs
from service.engine import Engine
from service.indexing.runner import LEASE_S, JobRunner
from service.settings import Settings
from service.stages import Limit

T = TypeVar("T")

WARM = 16
"""Pictures of a first job: processes are started, networks loaded, kernels chosen."""


@dataclass(frozen=True)
class Case:
    """What is indexed with what: `limit` pictures of a folder."""

    name: str
    pictures: str
    specs: dict[str, str] | None
    weights: dict[str, str]
    keep: str
    limit: int


def cases(small: int, large: int, heavy: int) -> list[Case]:
    """The default collection with and without thumbnails, large files, and a heavier network."""
    alexnet = {"alexnet": "embedded"}
    resnet = {"high": "resnet50/layer4/gem"}
    return [
        Case("alexnet, 0.5 MP", "small", None, alexnet, "nothing", small),
        Case("alexnet, 0.5 MP, thumbnails", "small", None, alexnet, "thumbnail", small),
        Case("alexnet, 12 MP", "large", None, alexnet, "nothing", large),
        Case("resnet50, 0.5 MP", "small", resnet, {"resnet50": "untrained"}, "nothing", heavy),
    ]


def decode_processes(
    engine: Engine, extractor: Extractor, contents: Sequence[bytes], *, thumbnails: bool
) -> list[Prepared]:
    """Prepare pictures in the processes that a job has them prepared in, and fed as there."""
    wanted = extractor.preparation(thumbnail=thumbnails)
    work = partial(engine.decoders.prepare, wanted=wanted, lane="bulk")
    return [found.prepared for found in engine.readers["bulk"].map(work, contents)]


def decode_threads(
    engine: Engine, extractor: Extractor, contents: Sequence[bytes], *, thumbnails: bool
) -> None:
    """Prepare them in as many threads of this process: nothing is handed over."""
    wanted = extractor.preparation(thumbnail=thumbnails)
    work = partial(prepare_picture, limits=engine.limits, wanted=wanted)
    with ThreadPoolExecutor(engine.plan.decode) as threads:
        list(threads.map(work, contents))


def forward(engine: Engine, extractor: Extractor, prepared: Sequence[Prepared]) -> None:
    """Describe prepared pictures in full batches."""
    size = engine.settings.batch_size
    for start in range(0, len(prepared), size):
        extractor.forward(prepared[start : start + size])


def job(engine: Engine, collection: Collection, folder: Path, count: int) -> Limit | None:
    """Index a folder as a batch job; what limited it."""
    before = engine.stages.mark()
    runner, jobs = JobRunner(engine), engine.catalog.jobs
    jobs.create(collection.name, {"folder": str(folder), "roots": [str(folder)]})
    claimed = jobs.claim(runner.owner, LEASE_S)
    assert claimed
    runner.run(claimed)
    ended = jobs.get(claimed.id)
    assert (ended.state, ended.done, ended.failed) == ("done", count, 0), ended
    return engine.stages.between(before, engine.stages.mark())


def per_s(count: int, work: Callable[[], T]) -> tuple[float, T]:
    """Pictures per second, and what the work gives."""
    began = time.perf_counter()
    found = work()
    return count / (time.perf_counter() - began), found


def compared(engine: Engine, case: Case, folder: Path, rounds: int) -> dict[str, Any]:
    """Decode, forward and pipeline in turn, so often; the medians, and each of them."""
    paths = sorted(folder.iterdir())[: case.limit]
    chosen = folder.parent / "chosen"
    rows: dict[str, list[float]] = {"threads": [], "decode": [], "forward": [], "pipeline": []}
    contents = [path.read_bytes() for path in paths]
    for number in range(-1, rounds):
        here = contents if number >= 0 else contents[:WARM]
        chosen.mkdir()
        for path in paths[: len(here)]:
            (chosen / path.name).hardlink_to(path)
        collection = engine.create_collection(
            f"round-{number + 1}", case.specs, case.weights, keep=case.keep
        )
        extractor = engine.extractor(collection)
        thumbnails = case.keep != "nothing"
        prepared = decode_processes(engine, extractor, here, thumbnails=False)
        ways: dict[str, Callable[[], Any]] = {
            "threads": partial(decode_threads, engine, extractor, here, thumbnails=thumbnails),
            "decode": partial(decode_processes, engine, extractor, here, thumbnails=thumbnails),
            "forward": partial(forward, engine, extractor, prepared),
            "pipeline": partial(job, engine, collection, chosen, len(here)),
        }
        for name, way in ways.items():
            rate, limit = per_s(len(here), way)
            if number >= 0:
                rows[name].append(rate)
        engine.catalog.drop_collection(collection.name)
        for path in chosen.iterdir():
            path.unlink()
        chosen.rmdir()
    return {
        "pictures": len(paths),
        "keep": case.keep,
        "limited_by": str(limit),
        **judged(rows, shared=engine.device.type == "cpu"),
    }


def judged(rows: dict[str, list[float]], *, shared: bool) -> dict[str, Any]:
    """Medians, spread, and what the pipeline reaches of its bounds, round by round.

    >>> rows = {"threads": [50.0], "decode": [40.0], "forward": [40.0], "pipeline": [19.0]}
    >>> judged(rows, shared=True)["bound_per_s"], judged(rows, shared=True)["of_bound"]
    (20.0, 0.95)
    """
    bounds = [
        bound(d, f, shared=shared) for d, f in zip(rows["decode"], rows["forward"], strict=True)
    ]
    bare = [
        bound(d, f, shared=shared) for d, f in zip(rows["threads"], rows["forward"], strict=True)
    ]
    return {
        "per_s": {name: round(statistics.median(found), 1) for name, found in rows.items()},
        "each": {name: [round(one, 1) for one in found] for name, found in rows.items()},
        "bound_per_s": round(statistics.median(bounds), 1),
        "of_bound": _ratio(rows["pipeline"], bounds),
        "of_bound_with_threads": _ratio(rows["pipeline"], bare),
    }


def bound(decode: float, forward: float, *, shared: bool) -> float:
    """Pictures per second that both can give, on the same cores or each on its own."""
    return 1 / (1 / decode + 1 / forward) if shared else min(decode, forward)


def _ratio(reached: Sequence[float], bounds: Sequence[float]) -> float:
    pairs = zip(reached, bounds, strict=True)
    return round(statistics.median(one / other for one, other in pairs), 3)


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Every case, in an engine of its own."""
    pictures = {"small": max(asked.pictures, asked.heavy), "large": asked.large}
    for name, size in (("small", SMALL), ("large", LARGE)):
        fill(folder / name, pictures[name], size)
    found = {}
    for number, case in enumerate(cases(asked.pictures, asked.large, asked.heavy)):
        if not case.limit:
            continue
        settings = Settings(data=folder / f"data-{number}", offline=True)
        with Engine(settings) as engine:
            found[case.name] = compared(engine, case, folder / case.pictures, asked.rounds)
            found[case.name]["device"] = str(engine.device)
        print(row(case.name, found[case.name]), flush=True)
    return found


HEAD = (
    "| pictures | decode/s | forward/s | bound/s | job/s | of the bound | by its stages |\n"
    "|---|---|---|---|---|---|---|"
)


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table that docs/speed.md has."""
    rate = found["per_s"]
    return (
        f"| {name} | {rate['decode']} | {rate['forward']} | {found['bound_per_s']} "
        f"| {rate['pipeline']} | **{found['of_bound']:.2f}** | {found['limited_by']} |"
    )


def table(path: Path = RESULTS / "pipeline.json") -> str:
    """The table that docs/speed.md has, from the last result."""
    cases = json.loads(path.read_text())["cases"]
    return "\n".join([HEAD, *(row(name, found) for name, found in cases.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000, help="of half a megapixel")
    parser.add_argument("--large", type=int, default=200, help="of 12 megapixels")
    parser.add_argument("--heavy", type=int, default=60, help="for the heavier network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "pipeline.json")
    asked = parser.parse_args()
    logs.configure("console", level=40)
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked)
    report = {"benchmark": "pipeline", "machine": machine(), "cases": found}
    asked.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
