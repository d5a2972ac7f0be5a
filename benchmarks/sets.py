"""The labelled photographs that accuracy is measured on, and the measure that is quoted."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from index.evaluation import Evaluation, GroundTruth, evaluate
from index.evaluation.groundtruth import PLAIN, by_labels
from models import Descriptors, Limits, decode

SHARED = Path(__file__).resolve().parents[2] / "shared"
RESULTS = Path(__file__).parent / "results"

SETS: Mapping[str, tuple[str, ...]] = {
    "clothing": ("clothing",),
    "packages": ("packages",),
    "scenes": ("scenes", "packages"),
}
"""The pictures that ask, each for the others of its folder, and what else is in the gallery."""

MEASURE = "mAP-steps"
"""The mean of the precisions at the relevant ranks: the baselines of the sets are given in it."""


def files(name: str) -> list[Path]:
    """The pictures of one folder of photographs."""
    return sorted((SHARED / "images" / name).rglob("*.jpg"))


def opened(name: str) -> list[Image.Image]:
    """The same, upright and decoded at a reduced scale."""
    return [decode(path.read_bytes(), Limits(), 512).image for path in files(name)]


def truth(name: str) -> GroundTruth:
    """Leave-one-out over a set, its gallery in the order of `SETS`."""
    paths = [path for part in SETS[name] for path in files(part)]
    labels = [str(path.parent.relative_to(SHARED)) for path in paths]
    asking = np.arange(len(paths)) < len(files(name))
    said = by_labels(name, [str(path.relative_to(SHARED)) for path in paths], labels)
    return said.restricted(np.ones(len(paths), bool), asking)


def measured(rows: Mapping[str, Descriptors]) -> dict[str, Evaluation]:
    """Every set, from n×D descriptors of every folder."""
    found = {}
    for name, parts in SETS.items():
        gallery = np.concatenate([rows[part] for part in parts])
        found[name] = evaluate(rows[name], gallery, truth(name))[PLAIN]
    return found


def interval(found: Evaluation) -> tuple[float, float]:
    """The 95 % interval of the quoted measure."""
    of = found.intervals[MEASURE]
    return round(of.low, 3), round(of.high, 3)


def rounded(values: Mapping[str, float], digits: int = 3) -> dict[str, float]:
    """Figures as they are quoted."""
    return {name: round(value, digits) for name, value in values.items()}


def machine() -> dict[str, str | int]:
    """What a result was measured on."""
    return {
        "processor": _processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _processor() -> str | None:
    lines: Sequence[str] = []
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), None)
