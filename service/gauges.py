"""What is looked up only when Prometheus asks; one question that fails leaves the others alone."""

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from models import device
from service.metrics import Sample

if TYPE_CHECKING:
    from service.engine import Engine


def install(engine: "Engine") -> None:
    """Export the gauges of an engine."""
    for ask in (_build, _disk, _collections, _recalls, _jobs, _waiting, _stages):
        engine.metrics.read_at_scrape(partial(ask, engine))


def _build(engine: "Engine") -> Iterator[Sample]:
    versions = {name: importlib.metadata.version(name) for name in ("pool5", "torch", "faiss-cpu")}
    labels = {
        "version": versions["pool5"],
        "python": platform.python_version(),
        "torch": versions["torch"],
        "faiss": versions["faiss-cpu"],
        "device": device.describe_device(engine.device),
    }
    yield "pool5_build_info", "Always 1: which versions run, and on what", labels, 1.0


def _disk(engine: "Engine") -> Iterator[Sample]:
    disk = shutil.disk_usage(engine.settings.data)
    yield "pool5_disk_bytes", "Size of the file system of the data folder", {}, float(disk.total)
    yield "pool5_disk_free_bytes", "What is free of it", {}, float(disk.free)
    catalog = engine.catalog.database.path
    size = sum(map(_size, (catalog, catalog.with_name(f"{catalog.name}-wal"))))
    yield "pool5_catalog_bytes", "The catalog's SQLite file and its write-ahead log", {}, size


def _size(path: Path) -> float:
    try:
        return float(path.stat().st_size)
    except FileNotFoundError:
        return 0.0


def _collections(engine: "Engine") -> Iterator[Sample]:
    for collection in engine.catalog.collections():
        labels, status = {"collection": collection.name}, collection.status()
        yield "pool5_items", "Indexed pictures", labels, float(status["items"])
        # The parts are the same in every space of a collection.
        first = next(iter(status["spaces"].values()))
        yield (
            "pool5_delta_items", "Items outside the generation, all read by every search",
            labels, float(first["delta"]),
        )  # fmt: skip
        yield (
            "pool5_tombstones", "Removed items that are still in the generation",
            labels, float(first["tombstones"]),
        )  # fmt: skip
        for space, part in status["spaces"].items():
            yield (
                "pool5_generation_bytes", "Size of the sealed index of a space",
                {**labels, "space": space}, float(part["bytes"]),
            )  # fmt: skip


def _recalls(engine: "Engine") -> Iterator[Sample]:
    watching = (
        (collection.name, space, watched)
        for collection in engine.catalog.collections()
        for space, watched in collection.watched.items()
    )
    for collection, space, watched in watching:
        labels = {"collection": collection, "space": space}
        if watched.recall is not None:
            yield "pool5_recall", "Recall of the last checked searches", labels, watched.recall
        for name, documentation, count in (
            ("pool5_recall_samples", "Searches that were checked by exact search", watched.samples),
            ("pool5_recall_dropped", "Searches that were not, being too many", watched.dropped),
            ("pool5_recall_tunings", "Times that a low recall led to tuning", watched.tunings),
        ):
            yield name, documentation, labels, float(count)


def _jobs(engine: "Engine") -> Iterator[Sample]:
    for state, count in engine.catalog.jobs.counts().items():
        yield "pool5_jobs", "Batch jobs by state", {"state": state}, float(count)


def _waiting(engine: "Engine") -> Iterator[Sample]:
    for lane, waiting in engine.batcher.waiting().items():
        yield "pool5_waiting_pictures", "Pictures waiting", {"lane": lane}, float(waiting)
    for lane, seconds in engine.batcher.oldest().items():
        yield (
            "pool5_waiting_seconds", "How long the first of them has waited; 0: none waits",
            {"lane": lane}, seconds,
        )  # fmt: skip
    for admission in (engine.queries, engine.uploads):
        labels = {"kind": admission.name}
        yield (
            "pool5_admitted_requests", "At work or waiting", labels, float(admission.inside()),
        )  # fmt: skip


def _stages(engine: "Engine") -> Iterator[Sample]:
    for stage, seconds in engine.stages.seconds().items():
        yield (
            "pool5_stage_busy_seconds", "Of a stage of bulk work, all its workers, since the start",
            {"stage": stage}, seconds,
        )  # fmt: skip
    for stage, seconds in engine.stages.waited().items():
        if stage in ("decode", "forward"):
            yield (
                "pool5_stage_waited_seconds", "That pictures waited for a stage, since the start",
                {"stage": stage}, seconds,
            )  # fmt: skip
