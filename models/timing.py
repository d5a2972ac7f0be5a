"""How long a network takes down to each of its layers, and each pooling of it, on this machine."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import fx

from models.activations import channels_first, loaded
from models.pooling import pool
from models.preprocess import normalise
from models.spec import find_layer
from models.weights import Weights

REPEATS = 7
WARM_UP = 2


class Passed(NamedTuple):
    """Seconds from a prepared picture to an activation, and from there to its pooled vector."""

    forward: float
    pooling: float


def depth_seconds(
    weights: Weights, layers: Mapping[str, Sequence[str]], device: torch.device
) -> dict[tuple[str, str], Passed]:
    """How long one prepared picture takes to its pooled vector, by (layer, pooling).

    `layers` names the poolings to time for each layer. All depths are read off the same passes:
    the time at which a layer's activation is there is what the network cut off at it would take.
    Medians of REPEATS passes at batch 1, as a lone query runs, after WARM_UP others.

    Raises SpecError and WeightsError.
    """
    cut = loaded(weights, layers).to(device)
    found = {name: find_layer(weights.network, name) for name in layers}
    side = weights.preprocessing.crop
    random = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=random)
    forward: dict[str, list[float]] = {name: [] for name in layers}
    pooled: dict[tuple[str, str], list[float]] = {
        (name, pooling): [] for name, poolings in layers.items() for pooling in poolings
    }
    with torch.inference_mode():
        for _ in range(WARM_UP + REPEATS):
            clock = _Clock(cut, device)
            outputs = clock.run(normalise(picture.to(device), weights.preprocessing))
            for name, layer in found.items():
                forward[name].append(clock.reached[layer.node])
                activation = channels_first(outputs[layer.node], layer.channel_axis)
                for pooling in layers[name]:
                    started = time.perf_counter()
                    pool(activation, pooling)
                    _wait(device)
                    pooled[name, pooling].append(time.perf_counter() - started)
    return {
        (name, pooling): Passed(median(forward[name][WARM_UP:]), median(seconds[WARM_UP:]))
        for (name, pooling), seconds in pooled.items()
    }


class _Clock(fx.Interpreter):
    """Runs a cut network node by node, and notes when each output is there, in seconds."""

    def __init__(self, cut: fx.GraphModule, device: torch.device) -> None:
        super().__init__(cut)
        self._device = device
        output = next(node for node in cut.graph.nodes if node.op == "output")
        self._wanted: Mapping[str, fx.Node] = output.args[0]
        self._at: dict[fx.Node, float] = {}
        _wait(device)
        self._started = time.perf_counter()

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and look at the clock."""
        result = super().run_node(n)
        if n in self._wanted.values():
            _wait(self._device)
            self._at[n] = time.perf_counter() - self._started
        return result

    @property
    def reached(self) -> Mapping[str, float]:
        """When each output was there, by the name of its node."""
        return {name: self._at[node] for name, node in self._wanted.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
