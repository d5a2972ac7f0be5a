"""What learned weights over low, mid and high gain: leave-one-out mAP on classes held out.

    python -m benchmarks.learned_weights [--output benchmarks/results/learned_weights.json]

Needs the pictures and weights beside the checkout.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labelled import LEVELS, Labelled, describe
from index.evaluation import leave_one_out
from index.ranking.learning import learn_weights

LEARNED = ("clothing", "packages")
"""Scenes are three, and each level alone finds all of them."""


def learned(found: Labelled) -> dict[str, Any]:
    """mAP of levels alone, and of learned and equal weights, also on held-out classes."""
    started = time.process_time()
    weights = learn_weights(found.descriptors, found.labels)
    seconds = time.process_time() - started
    alone = {
        level: leave_one_out(rows, found.labels).mean() for level, rows in found.descriptors.items()
    }
    return {
        "alone": {level: round(value, 4) for level, value in alone.items()},
        "weights": {level: round(weight, 4) for level, weight in weights.weights.items()},
        "map": round(weights.mean_ap, 4),
        "held_out": {
            "learned": round(float(np.nanmean(weights.held_out)), 4),
            "best single": round(float(np.nanmean(weights.single)), 4),
            "equal": round(float(np.nanmean(weights.even)), 4),
            "gain": round(weights.gain, 4),
        },
        "cpu_seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    report: dict[str, Any] = {"benchmark": "learned_weights"}
    for network in LEVELS:
        sets = describe(network)
        report[network] = {name: learned(sets[name]) for name in LEARNED}
    text = json.dumps(report, indent=2)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
