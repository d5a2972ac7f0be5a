"""OpenVINO on the CPU: 1.2 to 2 times torch in float32, more where bfloat16 or int8 are native.

One compiled network takes any number of pictures of any size: batch 1 is as fast as batch 8.
"""

import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.runtimes.network import FromPixels, UnfitError

PRECISIONS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}
"""What an operation that is not quantised runs in."""

_CAPABILITIES = {"bf16": "BF16", "int8": "INT8"}


def is_there() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


@cache
def _openvino() -> Any:
    """The library, without what it would tell its makers on import: pool5 has no telemetry."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@cache
def _core() -> Any:
    return _openvino().Core()


def multiplies(precision: str) -> bool:
    """Whether this processor has instructions for a precision, rather than emulating it."""
    wanted = _CAPABILITIES.get(precision)
    return wanted is None or wanted in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def made_by() -> dict[str, str]:
    """What a compiled network depends on besides the network: library versions and processor."""
    core = _core()
    return {
        "openvino": version("openvino"),
        "torch": torch.__version__,
        "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "instructions": " ".join(sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))),
    }


def _properties(precision: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        # Decoders share the cores: where a thread is bound to one, it waits for what runs there.
        "ENABLE_CPU_PINNING": False,
    }


def compiled(network: FromPixels, precision: str, threads: int, side: int) -> Any:
    """Translate a network and compile it; `side` is that of a typical picture, in pixels.

    Raises UnfitError where a network cannot be translated.
    """
    # Two of everything: torch.export takes a size of 1 for a constant.
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    dynamic = torch.export.Dim("batch", min=1, max=4096)
    try:
        with torch.no_grad():
            exported = torch.export.export(network, (example,), dynamic_shapes=({0: dynamic},))
        translated = _openvino().convert_model(exported)
    except Exception as error:
        raise UnfitError(f"it cannot be translated: {error}") from error
    sized = _resized(translated, side)
    return _core().compile_model(sized, "CPU", _properties(precision, threads))


def _resized(model: Any, side: int) -> Any:
    """The same for pictures of any size, where nothing in the network forbids that."""
    try:
        anything = model.clone()
        anything.reshape([-1, 3, -1, -1])
    except RuntimeError:
        model.reshape([-1, 3, side, side])
        return model
    return anything


def exported(network: Any) -> bytes:
    """A compiled network as bytes."""
    blob: bytes = network.export_model().getvalue()
    return blob


def imported(blob: memoryview, precision: str, threads: int) -> Any:
    """What `exported` gave; the memory must be writable. Raises RuntimeError."""
    tensor = _openvino().Tensor(np.frombuffer(blob, np.uint8), shared_memory=True)
    return _core().import_model(tensor, "CPU", _properties(precision, threads))


class OpenVino:
    """A compiled network; safe in several threads, which compute one after the other."""

    name = "openvino"

    def __init__(self, network: Any, precision: str, blob: memoryview | None = None) -> None:
        """`blob` is what the network was imported from, whose memory it may go on to use."""
        self.precision = precision
        self._network = network
        self._blob = blob
        self._requests: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, pixels: Tensor) -> Sequence[Tensor]:
        """B×3×H×W uint8 RGB to float32 activations, in the order of the network's nodes."""
        try:
            request = self._requests.get_nowait()
        except Empty:
            request = self._network.create_infer_request()
        try:
            request.infer([pixels.contiguous().numpy()], share_inputs=True)
            # The request's own memory is written again by the next pass.
            return [torch.from_numpy(output.data.copy()) for output in request.output_tensors]
        finally:
            self._requests.put(request)
