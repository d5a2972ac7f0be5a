"""The labelled photographs beside the checkout, described by two networks with genuine weights."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import Extractor, WeightsFolder

SHARED = Path(__file__).resolve().parents[2] / "shared"
LEVELS = {
    "mobilenet_v2": {
        "low": "features.3/spoc",
        "mid": "features.13/gem",
        "high": "features.18/spoc",
    },
    "squeezenet1_1": {"low": "fire3/spoc", "mid": "fire5/gem", "high": "fire9/gem"},
}
SETS = {"clothing": (), "packages": (), "scenes": ("packages",)}
"""Queries and, after them, what else is in their gallery to distract."""
BATCH = 32


@dataclass(frozen=True)
class Labelled:
    """Items of one gallery: (n, dim) float32 by level, (n,) labels; the first `queries` ask."""

    descriptors: dict[str, np.ndarray]
    labels: list[str]
    queries: int


def describe(network: str) -> dict[str, Labelled]:
    """Every set of SETS, all levels from one forward pass per picture."""
    specs = {level: f"{network}/{rest}" for level, rest in LEVELS[network].items()}
    with tempfile.TemporaryDirectory() as folder:  # pool5 notes hashes beside what it loads
        shutil.copy(SHARED / "weights" / f"{network}.pth", folder)
        weights = WeightsFolder(Path(folder), offline=True)
        extractor = Extractor(specs, weights=f"{network}.pth", folder=weights)
        files = {name: sorted((SHARED / "images" / name).glob("*/*.jpg")) for name in SETS}
        found = {name: _described(extractor, listed) for name, listed in files.items()}
    galleries = {}
    for name, distracting in SETS.items():
        parts = [name, *distracting]
        galleries[name] = Labelled(
            {level: np.concatenate([found[part][level] for part in parts]) for level in specs},
            [f"{part}/{file.parent.name}" for part in parts for file in files[part]],
            len(files[name]),
        )
    return galleries


def _described(extractor: Extractor, files: list[Path]) -> dict[str, np.ndarray]:
    batches = [extractor.describe(files[at : at + BATCH]) for at in range(0, len(files), BATCH)]
    return {level: np.concatenate([batch[level] for batch in batches]) for level in batches[0]}
