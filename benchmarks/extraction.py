"""Forward passes: pictures a second by network, runtime, precision and batch, beside the peak.

    python -m benchmarks.extraction [--networks alexnet resnet152] [--batches 1 8] [--rounds 5]

Every way to run a network takes the same prepared pictures in turn, several times over. The ratio
is to what one would write without pool5: torchvision's own network in float32, whole, in batches
of the same size. The peak is what this machine gives to a large matrix product in torch and to
large convolutions in each runtime, whichever is more, in that precision; operations are counted
by torch, two to a multiplication and addition.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import RESULTS, machine
from models import WeightsFolder, zoo
from models.activations import loaded
from models.calibration import calibrate
from models.device import choose_device
from models.errors import DeviceError
from models.preprocess import IMAGENET, normalise
from models.quantisation import quantised
from models.quantising import quantise
from models.runtime import RUNTIMES, RuntimeChoice, candidates
from models.runtimes import openvino
from models.runtimes.agreement import pictures
from models.runtimes.network import FromPixels
from models.trunk import Trunk
from models.weights import Weights

LAYERS: Mapping[str, str] = {
    "alexnet": "conv5",
    "vgg19": "conv5_4",
    "resnet152": "layer4",
    "resnet50": "layer4",
    "mobilenet_v2": "features.18",
}
SECONDS = 1.5
"""What one measurement takes at the least."""

CALIBRATED_ON = 16
"""Pictures; the speed of int8 does not depend on them."""

Pass = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Way:
    """A way to run a network."""

    runtime: str
    precision: str
    run: Pass

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.precision}"


def ways(network: str, device: torch.device, folder: Path) -> Iterator[Way]:
    """torchvision's own network first, then every runtime in every precision it has here."""
    plain = torchvision.models.get_model(network, weights=None, **zoo.network(network).builder)
    plain = plain.eval().to(device)

    def loop(batch: torch.Tensor) -> object:
        with torch.no_grad():
            return plain(normalise(batch.to(device), IMAGENET))

    yield Way("torchvision", "f32", loop)
    weights = WeightsFolder(folder, offline=True)
    untrained = weights.resolve(network, "untrained")
    int8 = quantise(untrained, _procedural(untrained), "procedural", weights)
    for runtime, row in RUNTIMES.items():
        if runtime == "compiled" and device.type == "cpu":
            continue  # Minutes for every size of a batch; docs/speed.md says what it gives.
        for precision in row.precisions:
            source = int8 if precision == "int8" else untrained
            # Simulated in torch, int8 is slower than float32 and only there to compare with.
            if runtime == "torch" and (precision == "int8" or not _native(precision, device)):
                continue
            asked = "auto" if precision == "int8" else precision
            choice = RuntimeChoice(runtime, asked, cache=folder)
            try:
                candidates(source, device, choice)
                trunk = Trunk(source, [LAYERS[network]], device, choice)
            except DeviceError as error:
                print(f"left out: {network} in {runtime} {precision}: {error}", flush=True)
                continue
            yield Way(runtime, precision, trunk)


def _native(precision: str, device: torch.device) -> bool:
    if device.type == "cuda" or precision == "f32":
        return True
    return precision == "bf16" and bool(torch.cpu._is_avx512_bf16_supported())


def _procedural(weights: Weights) -> np.ndarray:
    seen = pictures(weights.preprocessing.crop)
    return torch.cat([seen.roll(n, dims=3) for n in range(CALIBRATED_ON // len(seen))]).numpy()


def operations(network: str) -> float:
    """Of one picture down to its layer, in GFLOP."""
    weights = WeightsFolder(offline=True).resolve(network, "untrained")
    cut = loaded(weights, [LAYERS[network]])
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        cut(torch.zeros(1, 3, 224, 224))
    return counted.get_total_flops() / 1e9


def peaks(device: torch.device) -> dict[str, float]:
    """GFLOP/s by precision: the most that a matrix product or convolutions reach."""
    found = {"f32": _product(device, torch.float32)}
    if device.type == "cuda":
        found |= {"bf16": _product(device, torch.bfloat16), "f16": _product(device, torch.float16)}
        return found
    if not openvino.is_there():
        return found
    threads = torch.get_num_threads()
    cut = _convolutions()
    shape = pictures(56)
    ranges = calibrate(cut, [normalise(shape, IMAGENET)])
    for precision, network in (("f32", cut), ("int8", quantised(deepcopy(cut), ranges))):
        compiled = openvino.compiled(FromPixels(network, ["out"], IMAGENET), precision, threads, 56)
        per_s = _per_s(openvino.OpenVino(compiled, precision), shape)
        found[precision] = max(found.get(precision, 0.0), per_s * _operations(cut))
    return found


def _product(device: torch.device, dtype: torch.dtype) -> float:
    side = 2048 if device.type == "cpu" else 16384
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / 1e9 * _per_s(lambda _: torch.mm(a, a), a[:1], device)


def _convolutions() -> fx.GraphModule:
    """Large convolutions one after the other, with the ReLUs that int8 wants between them."""
    layers: list[nn.Module] = [nn.Conv2d(3, 256, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.layers(x)}

    return fx.symbolic_trace(Stack().eval().requires_grad_(False))


def _operations(cut: nn.Module) -> float:
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        cut(torch.zeros(1, 3, 56, 56))
    return counted.get_total_flops() / 1e9


def _per_s(run: Pass, batch: torch.Tensor, device: torch.device | None = None) -> float:
    """Pictures a second over SECONDS."""
    waits = device is not None and device.type == "cuda"
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < SECONDS:
        run(batch)
        count += len(batch)
        if waits:
            torch.cuda.synchronize(device)
    return count / (time.perf_counter() - started)


def measure(
    network: str, batches: list[int], rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """One row for each way and batch."""
    gflop = operations(network)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        there = list(ways(network, device, Path(folder)))
        for size in batches:
            batch = pictures(224).repeat(-(-size // 4), 1, 1, 1)[:size]
            for way in there:
                way.run(batch)
            seen: dict[str, list[float]] = {way.name: [] for way in there}
            for _ in range(rounds):
                for way in there:
                    seen[way.name].append(_per_s(way.run, batch, device))
            plain = seen[there[0].name]
            for way in there:
                ratios = [mine / other for mine, other in zip(seen[way.name], plain, strict=True)]
                per_s = statistics.median(seen[way.name])
                rows.append(
                    {
                        "network": network,
                        "layer": LAYERS[network],
                        "way": way.name,
                        "batch": size,
                        "per_s": round(per_s, 2),
                        "spread": [round(min(seen[way.name]), 2), round(max(seen[way.name]), 2)],
                        "ratio": round(statistics.median(ratios), 2),
                        "gflop_per_s": round(per_s * gflop)
                        if way.runtime != "torchvision"
                        else None,
                    }
                )
                print(rows[-1], flush=True)
    return rows


def table(path: Path = RESULTS / "extraction.json") -> str:
    """The last result as Markdown, one line for each network, batch and way."""
    told = json.loads(path.read_text())
    head = "| network, layer | batch | way | images/s | × torchvision | of the peak |\n"
    lines = [
        f"| {row['network']} {row['layer']} | {row['batch']} | {row['way']} | {row['per_s']} | "
        f"{row['ratio']} | {row['of_peak'] if row['of_peak'] is not None else ''} |"
        for row in told["rows"]
    ]
    peak = ", ".join(f"{name} {most}" for name, most in told["peak_gflop_per_s"].items())
    said = (
        f"\n{told['machine']['processor']}, {told['threads']} threads; peak in GFLOP/s: {peak}.\n"
    )
    return head + "|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n" + said


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS / "extraction.json")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    # The speed of a rented machine changes by the minute: the peak is the most of all that is seen.
    peak = peaks(device)
    rows = []
    for network in asked.networks:
        rows += measure(network, asked.batches, asked.rounds, device)
        peak = {name: max(most, peak[name]) for name, most in peaks(device).items()}
    for row in rows:
        most, done = peak.get(row["way"].split()[1]), row["gflop_per_s"]
        row["of_peak"] = round(done / most, 2) if most and done else None
    told = {
        "machine": machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "peak_gflop_per_s": {name: round(value) for name, value in peak.items()},
        "rows": rows,
    }
    asked.output.write_text(json.dumps(told, indent=1) + "\n")
    print(table(asked.output))


if __name__ == "__main__":
    main()
