"""pool5 beside what a user would otherwise write or take, from files to descriptors, in turn.

    pip install timm img2vec-pytorch DeepImageSearch    # optional: missing ones are left out
    python -m benchmarks.peers [--pictures 96] [--networks alexnet resnet152 mobilenet_v2]

The same JPEGs and parameters go through each of `benchmarks.loops`, through `Extractor.describe`
and through a batch job that leaves searchable items, in turn and several times over. Small
pictures have half a megapixel, large ones, a quarter as many, 12; ResNet-152 gets a third of both.
Parameters are random where `../shared/weights` has none: it makes no difference to the time.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jpegs import LARGE, SMALL, fill
from benchmarks.loops import PEERS, Describe, Rows, Subject, unit
from benchmarks.machine import RESULTS, machine
from benchmarks.sets import SHARED
from models import Extractor, WeightsFolder
from service.engine import Engine
from service.indexing.runner import LEASE_S, JobRunner
from service.settings import Settings

NETWORKS: Mapping[str, tuple[str, str]] = {
    "alexnet": ("conv5", "features.11"),
    "resnet152": ("layer4", "layer4"),
    "mobilenet_v2": ("features.18", "features.18"),
}
"""The layer that is averaged, as pool5 and as torchvision call it."""

SIZES = {"0.5 MP": (SMALL, 1), "12 MP": (LARGE, 4)}
"""Width and height, and the share of the pictures that there are of them."""

HEAVY = {"resnet152": 3}
WARM = 4


def weights_of(network: str) -> str:
    """Genuine weights where they are at hand."""
    return f"{network}.pth" if (SHARED / "weights" / f"{network}.pth").exists() else "untrained"


def described(extractor: Extractor, paths: Sequence[Path]) -> Rows:
    """What a notebook calls."""
    found = extractor.describe(paths)
    assert isinstance(found, np.ndarray)
    return found


def job(engine: Engine, spec: str, weights: Mapping[str, str], paths: Sequence[Path]) -> Rows:
    """What `pool5 index` does: the items are committed and searchable at its end."""
    with tempfile.TemporaryDirectory(dir=engine.settings.data) as folder:
        for path in paths:
            (Path(folder) / path.name).hardlink_to(path)
        name = f"round-{time.monotonic_ns()}"
        made = engine.create_collection(name, {"high": spec}, weights, keep="nothing")
        runner, jobs = JobRunner(engine), engine.catalog.jobs
        jobs.create(name, {"folder": folder, "roots": [folder]})
        claimed = jobs.claim(runner.owner, LEASE_S)
        assert claimed
        runner.run(claimed)
        ended = jobs.get(claimed.id)
        assert (ended.state, ended.done, ended.failed) == ("done", len(paths), 0), ended
        items = sorted(made.items(limit=len(paths)), key=lambda item: item.name)
        return unit(made.vectors([item.id for item in items], "high"))


def measured(
    peers: Mapping[str, Describe], paths: Sequence[Path], rounds: int
) -> dict[str, dict[str, Any]]:
    """Pictures a second of each, the ratio to the first, and the least cosine to pool5's rows."""
    rates: dict[str, list[float]] = {name: [] for name in peers}
    rows: dict[str, Rows | None] = {}
    for describe in peers.values():
        describe(paths[:WARM])
    for _ in range(rounds):
        for name, describe in peers.items():
            began = time.perf_counter()
            rows[name] = describe(paths)
            rates[name].append(len(paths) / (time.perf_counter() - began))
    first, ours = next(iter(rates.values())), rows["pool5 Extractor"]
    return {
        name: {
            "per_s": round(statistics.median(found), 2),
            "least_per_s": round(min(found), 2),
            "most_per_s": round(max(found), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(found, first, strict=True)), 2),
            "least_cosine": _cosine(rows[name], ours),
        }
        for name, found in rates.items()
    }


def _cosine(rows: Rows | None, ours: Rows | None) -> float | None:
    if rows is None or ours is None or rows.shape != ours.shape:
        return None
    return round(float((rows * ours).sum(axis=1).min()), 4)


def compared(network: str, folder: Path, pictures: int, rounds: int) -> dict[str, Any]:
    """One network, by size of the pictures."""
    layer, module = NETWORKS[network]
    spec, choice = f"{network}/{layer}/spoc", weights_of(network)
    weights = WeightsFolder(SHARED / "weights", offline=True)
    subject = Subject(network, module, weights.resolve(network, choice))
    peers = {name: made for name, make in PEERS.items() if (made := make(subject))}
    data = Path(tempfile.mkdtemp(dir=folder))
    settings = Settings(data=data, offline=True, weights_dir=SHARED / "weights")
    with closing(Engine(settings)) as engine:
        extractor = Extractor(spec, weights=choice, folder=weights)
        peers["pool5 Extractor"] = partial(described, extractor)
        peers["pool5 job"] = partial(job, engine, spec, {network: choice})
        found = {}
        for size, (_, share) in SIZES.items():
            count = max(pictures // share // HEAVY.get(network, 1), WARM)
            paths = sorted((folder / size).iterdir())[:count]
            found[size] = {"pictures": len(paths), "peers": measured(peers, paths, rounds)}
    left_out = [name for name in PEERS if name not in peers]
    return {"spec": spec, "weights": choice, "left_out": left_out, "sizes": found}


def table(path: Path = RESULTS / "peers.json") -> str:
    """The last result as Markdown: × the hook loop, pictures a second in brackets."""
    networks = json.loads(path.read_text())["networks"]
    sizes = [(name, size) for name, found in networks.items() for size in found["sizes"]]
    columns = [networks[name]["sizes"][size]["peers"] for name, size in sizes]
    ways = dict.fromkeys(way for column in columns for way in column)
    head = "| | " + " | ".join(f"{name}, {size}" for name, size in sizes) + " |\n"
    lines = [
        f"| {way} | " + " | ".join(_cell(column.get(way)) for column in columns) + " |\n"
        for way in ways
    ]
    return head + "|---" * (len(sizes) + 1) + "|\n" + "".join(lines)


def _cell(found: Mapping[str, Any] | None) -> str:
    return f"{found['ratio']} ({found['per_s']})" if found else ""


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--output", type=Path, default=RESULTS / "peers.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, (size, share) in SIZES.items():
            fill(folder / name, max(given.pictures // share, WARM), size)
        networks = {
            network: compared(network, folder, given.pictures, given.rounds)
            for network in given.networks
        }
    report = {"machine": machine(), "rounds": given.rounds, "networks": networks}
    text = json.dumps(report, indent=2)
    print(text)
    given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
