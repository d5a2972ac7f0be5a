"""How a network is run: the fastest way that this machine has and that computes the same.

A runtime and a precision are chosen from a table, tried, compared with torch in float32, and
given up, aloud, where they fail or differ. Neither is part of a fingerprint: what would move a
descriptor by more than the tolerance (`models.runtimes.agreement`) is not used.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from models import zoo
from models.activations import loaded
from models.artefacts import Artefacts, default_folder, key_of
from models.errors import DeviceError
from models.folding import folded
from models.runtimes import openvino
from models.runtimes.agreement import TOLERANCE, least_cosine
from models.runtimes.compiled import Compiled
from models.runtimes.eager import Eager
from models.runtimes.network import FromPixels, UnfitError
from models.weights import Weights

logger = logging.getLogger(__name__)

PRECISIONS = ("f32", "bf16", "f16")
"""What can be asked for; int8 comes with weights that are made for it."""


class Runtime(Protocol):
    """A network that is ready to run."""

    name: str
    precision: str

    def __call__(self, pixels: Tensor) -> Sequence[Tensor]:
        """B×3×H×W uint8 RGB to float32 activations, in the order of the nodes asked for."""


@dataclass(frozen=True)
class RuntimeChoice:
    """What is asked for; `auto` is the fastest. By default as POOL5_RUNTIME and its like say.

    `threads` are those of a forward pass on the CPU: by default torch's. `cache` is a folder for
    compiled networks.
    """

    runtime: str = field(default_factory=lambda: os.environ.get("POOL5_RUNTIME", "auto"))
    precision: str = field(default_factory=lambda: os.environ.get("POOL5_PRECISION", "auto"))
    threads: int = field(default_factory=torch.get_num_threads)
    cache: Path = field(default_factory=default_folder)

    def __post_init__(self) -> None:
        """Raises DeviceError: `runtime-unknown`, `runtime-precision`."""
        if self.runtime not in ("auto", *RUNTIMES):
            raise DeviceError(
                "runtime-unknown",
                f"there is no runtime {self.runtime!r}: use auto, {', '.join(RUNTIMES)}",
            )
        if self.precision not in ("auto", *PRECISIONS):
            raise DeviceError(
                "runtime-precision",
                f"there is no precision {self.precision!r}: use auto, {', '.join(PRECISIONS)}; "
                "int8 comes with weights that `pool5 quantise` makes",
            )


@dataclass(frozen=True)
class Wanted:
    """A network to be run: weights, the nodes whose activations are wanted, where and how."""

    weights: Weights
    layers: Sequence[str]
    nodes: Sequence[str]
    device: torch.device
    choice: RuntimeChoice

    def network(self) -> FromPixels:
        """The network itself, folded, on the CPU. Raises SpecError and WeightsError."""
        cut = folded(loaded(self.weights, self.layers))
        return FromPixels(cut, self.nodes, self.weights.preprocessing)

    @property
    def side(self) -> int:
        """Of the pictures that the weights were trained with, in pixels."""
        return self.weights.preprocessing.crop


def _torch(wanted: Wanted, precision: str) -> Runtime:
    return _agreeing(wanted, Eager(wanted.network(), wanted.device, precision))


def _compiled(wanted: Wanted, precision: str) -> Runtime:
    return _agreeing(wanted, Compiled(wanted.network(), wanted.device, precision))


def _agreeing(wanted: Wanted, runtime: Runtime) -> Runtime:
    """The runtime, unless it differs from torch in float32."""
    if (runtime.name, runtime.precision) not in {("torch", "f32"), ("torch", "int8")}:
        _agreement(wanted, runtime, wanted.network())
    return runtime


def _agreement(wanted: Wanted, runtime: Runtime, network: FromPixels) -> float:
    """The least cosine to torch in float32. Raises UnfitError where it is too small."""
    reference = Eager(network, wanted.device, "f32")
    cosine = least_cosine(runtime, reference, wanted.side)
    if cosine < TOLERANCE[runtime.precision]:
        raise UnfitError(
            f"its descriptors have a cosine of {cosine:.4f} to float32, where "
            f"{TOLERANCE[runtime.precision]} is the least"
        )
    return cosine


def _openvino(wanted: Wanted, precision: str) -> Runtime:
    """A compiled network from the cache, or compiled now and kept."""
    threads = wanted.choice.threads
    facts = {
        "version": 2,
        "network": wanted.weights.network,
        "weights": wanted.weights.sha256,
        "nodes": list(wanted.nodes),
        "preprocessing": wanted.weights.preprocessing.declaration(),
        "precision": precision,
        **openvino.made_by(),
    }
    artefacts, key = Artefacts(wanted.choice.cache), key_of(facts)
    if kept := artefacts.find(key):
        try:
            imported = openvino.imported(kept.blob, precision, threads)
            return openvino.OpenVino(imported, precision, kept.blob)
        except RuntimeError as error:
            logger.warning("a kept network cannot be loaded and is compiled anew: %s", error)
    logger.info("compiling %s for OpenVINO; the next start takes it as it is", facts["network"])
    network = wanted.network()
    compiled = openvino.compiled(network, precision, threads, wanted.side)
    runtime = openvino.OpenVino(compiled, precision)
    cosine = _agreement(wanted, runtime, network)
    artefacts.keep(key, openvino.exported(compiled), {**facts, "cosine": cosine})
    return runtime


@dataclass(frozen=True)
class Row:
    """A way to run networks: on which devices, in which precisions, and how it starts."""

    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    start: Callable[[Wanted, str], Runtime]
    is_there: Callable[[], bool] = lambda: True


RUNTIMES: Mapping[str, Row] = {
    "openvino": Row(("cpu",), ("f32", "bf16", "int8"), _openvino, openvino.is_there),
    "torch": Row(("cpu", "cuda", "mps"), ("f32", "bf16", "f16", "int8"), _torch),
    "compiled": Row(("cpu", "cuda"), ("f32", "bf16", "f16"), _compiled),
}
"""Every runtime."""

AUTOMATIC = ("openvino", "torch")
"""What `auto` tries, up to the first that runs the network: torch runs them all. Its compiler,
which takes minutes for each size of a batch, is for those who ask for it."""


def start(
    weights: Weights,
    layers: Sequence[str],
    nodes: Sequence[str],
    device: torch.device,
    choice: RuntimeChoice,
) -> tuple[Runtime, list[str]]:
    """A network that runs, and what has to be said aloud about how.

    Raises SpecError and WeightsError, and DeviceError where what was asked for by name is not
    there (`runtime-missing`) or does not run this network as it must (`runtime-unfit`).
    """
    wanted = Wanted(weights, layers, nodes, device, choice)
    notices: list[str] = []
    for name, precision in candidates(weights, device, choice):
        try:
            runtime = RUNTIMES[name].start(wanted, precision)
        except (UnfitError, RuntimeError) as error:
            said = f"{weights.network} does not run in {name} {precision}: {_first_line(error)}"
            if choice.runtime == name and choice.precision == precision:
                raise DeviceError("runtime-unfit", f"{said}; auto finds what does") from error
            notices.append(said)
            logger.warning("%s", said)
            continue
        if (name, precision) == ("torch", "int8"):
            notices.append(
                f"{weights.network} runs in torch, which only simulates int8 and is slower than in "
                "float32: OpenVINO on a CPU multiplies in int8"
            )
        logger.info("%s runs in %s %s", weights.network, name, precision)
        return runtime, notices
    raise DeviceError("runtime-unfit", "; ".join(notices))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def candidates(
    weights: Weights, device: torch.device, choice: RuntimeChoice
) -> list[tuple[str, str]]:
    """What is tried, in this order: (runtime, precision).

    Raises DeviceError: `runtime-missing`, `runtime-precision`.
    """
    names = [choice.runtime]
    if choice.runtime == "auto":
        by_hand = zoo.network(weights.network).module is not None
        names = ["torch"] if by_hand else [name for name in AUTOMATIC if _runs_on(name, device)]
    elif not _runs_on(choice.runtime, device):
        raise DeviceError(
            "runtime-missing",
            f"the runtime {choice.runtime!r} is not installed, or not for {device.type}: "
            "POOL5_RUNTIME=auto takes the best there is",
        )
    wanted = [
        (name, precision)
        for name in names
        for precision in _precisions(name, weights, device, choice)
    ]
    if not wanted:
        raise DeviceError(
            "runtime-precision",
            f"{' and '.join(names)} on {device.type} cannot compute in {choice.precision}: "
            "POOL5_PRECISION=auto takes what can",
        )
    return wanted


def offered(device: torch.device) -> dict[str, list[str]]:
    """What there is here: the precisions of each runtime, those that `auto` tries first."""
    return {
        name: [*fast_precisions(name, device), "f32"] for name in RUNTIMES if _runs_on(name, device)
    }


def _runs_on(name: str, device: torch.device) -> bool:
    return device.type in RUNTIMES[name].devices and RUNTIMES[name].is_there()


def _precisions(
    name: str, weights: Weights, device: torch.device, choice: RuntimeChoice
) -> list[str]:
    """In which precisions to try a runtime, the fastest first."""
    has = RUNTIMES[name].precisions
    if weights.precision == "int8":
        return [precision for precision in ("int8",) if precision in has]
    if choice.precision == "auto":
        return [*fast_precisions(name, device), "f32"]
    # Where the processor has no bfloat16, OpenVINO quietly computes in float32.
    quiet = name == "openvino" and not openvino.multiplies(choice.precision)
    return [choice.precision] if choice.precision in has and not quiet else []


def fast_precisions(name: str, device: torch.device) -> list[str]:
    """The half precisions that the hardware multiplies faster than float32, the best first."""
    if device.type == "cuda":
        return ["f16", "bf16"] if torch.cuda.is_bf16_supported() else ["f16"]
    if device.type == "cpu":
        native = openvino.multiplies("bf16") if name == "openvino" else _native_bfloat16()
        return ["bf16"] if native else []
    return []


def _native_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())
