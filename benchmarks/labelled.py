"""The sets of labelled photographs, described by two networks with genuine weights."""

from dataclasses import dataclass

import numpy as np

from benchmarks.sets import SETS, SHARED, files
from models import Extractor, WeightsFolder

LEVELS = {
    "mobilenet_v2": {
        "low": "features.3/spoc",
        "mid": "features.13/gem",
        "high": "features.18/spoc",
    },
    "squeezenet1_1": {"low": "fire3/spoc", "mid": "fire5/gem", "high": "fire9/gem"},
}


@dataclass(frozen=True)
class Labelled:
    """Items of one gallery: (n, dim) float32 by level, (n,) labels; the first `queries` ask."""

    descriptors: dict[str, np.ndarray]
    labels: list[str]
    queries: int


def describe(network: str) -> dict[str, Labelled]:
    """Every set of SETS, all levels from one forward pass per picture."""
    specs = {level: f"{network}/{rest}" for level, rest in LEVELS[network].items()}
    folder = WeightsFolder(SHARED / "weights", offline=True)
    extractor = Extractor(specs, weights=f"{network}.pth", folder=folder)
    found = {name: extractor.describe(files(name)) for name in SETS}
    return {
        name: Labelled(
            {level: np.concatenate([found[part][level] for part in parts]) for level in specs},
            [f"{part}/{file.parent.name}" for part in parts for file in files(part)],
            len(files(name)),
        )
        for name, parts in SETS.items()
    }
