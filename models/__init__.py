"""A picture's bytes to descriptors: networks, layers, poolings, whitening.

What needs torch is imported when it is first asked for (PEP 562): a process that only decodes
starts in a fraction of a second and stays small.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.decode import Decoded, Limits, decode
from models.errors import (
    DeviceError,
    ModelsError,
    PictureError,
    SpecError,
    TrainingError,
    WeightsError,
)
from models.preparation import (
    Preparation,
    Prepared,
    PreparedPicture,
    Region,
    prepare_picture,
    scaled_side,
)
from models.thumbnail import thumbnail

if TYPE_CHECKING:
    from models.extractor import Descriptors, DescriptorSpace, Extractor, resolve
    from models.spec import DescriptorSpec, parse
    from models.weights import Weights, WeightsFolder
    from models.whitening import Whitening, WhiteningFolder

_WITH_TORCH: Mapping[str, str] = {
    **dict.fromkeys(("Descriptors", "DescriptorSpace", "Extractor", "resolve"), "extractor"),
    **dict.fromkeys(("DescriptorSpec", "parse"), "spec"),
    **dict.fromkeys(("Weights", "WeightsFolder"), "weights"),
    **dict.fromkeys(("Whitening", "WhiteningFolder"), "whitening"),
}
"""The file that each lazy name lives in."""

__all__ = [
    "Decoded",
    "DescriptorSpace",
    "DescriptorSpec",
    "Descriptors",
    "DeviceError",
    "Extractor",
    "Limits",
    "ModelsError",
    "PictureError",
    "Preparation",
    "Prepared",
    "PreparedPicture",
    "Region",
    "SpecError",
    "TrainingError",
    "Weights",
    "WeightsError",
    "WeightsFolder",
    "Whitening",
    "WhiteningFolder",
    "decode",
    "parse",
    "prepare_picture",
    "resolve",
    "scaled_side",
    "thumbnail",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"models.{_WITH_TORCH[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
