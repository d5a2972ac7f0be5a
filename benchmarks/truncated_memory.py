"""What a mid layer costs: resident memory of vgg19/conv4_4 against the whole network.

    python benchmarks/truncated_memory.py [--output benchmarks/results/truncated_memory.json]

A checkpoint of VGG-19's official keys and shapes is written to a temporary folder and loaded by
the product's own code, in a fresh process each time, alternating between the two layers.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torchvision.models import get_model

LAYERS = ("conv4_4", "classifier.6")
ROUNDS = 3

LOAD = """
import sys, torch
from pathlib import Path
from models.trunk import Trunk
from models.weights import WeightsFolder

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

weights = WeightsFolder(Path(sys.argv[1]), offline=True).resolve("vgg19", "vgg19.pth")
before = resident("VmRSS")
trunk = Trunk(weights, [sys.argv[2]], torch.device("cpu"))
parameters = sum(p.numel() for p in trunk._module.parameters())
print(parameters, resident("VmRSS") - before)
"""


def measure(folder: Path, layer: str) -> tuple[int, float]:
    """Parameters kept, and MiB that the process grew by."""
    command = [sys.executable, "-c", LOAD, str(folder), layer]
    parameters, grown = subprocess.check_output(command, text=True).split()
    return int(parameters), float(grown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    rows: dict[str, list[tuple[int, float]]] = {layer: [] for layer in LAYERS}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(get_model("vgg19", weights=None).state_dict(), Path(folder) / "vgg19.pth")
        for _ in range(ROUNDS):
            for layer in LAYERS:
                rows[layer].append(measure(Path(folder), layer))
    grown = {layer: [round(mib, 1) for _, mib in found] for layer, found in rows.items()}
    medians = {layer: statistics.median(values) for layer, values in grown.items()}
    report = {
        "benchmark": "truncated_memory",
        "machine": {"processor": platform.machine(), "torch": torch.__version__},
        "parameters": {layer: found[0][0] for layer, found in rows.items()},
        "resident_mib": grown,
        "median_mib": medians,
        "ratio": round(medians[LAYERS[0]] / medians[LAYERS[1]], 3),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
