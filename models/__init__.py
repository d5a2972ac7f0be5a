"""A picture's bytes to descriptors: networks, layers, poolings, whitening."""

from models.decode import Decoded, Limits, decode
from models.errors import (
    DeviceError,
    ModelsError,
    PictureError,
    SpecError,
    TrainingError,
    WeightsError,
)
from models.extractor import (
    Descriptors,
    DescriptorSpace,
    Extractor,
    Prepared,
    Region,
    resolve,
    scaled_side,
)
from models.spec import DescriptorSpec, parse
from models.thumbnail import thumbnail
from models.weights import Weights, WeightsFolder
from models.whitening import Whitening, WhiteningFolder

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
    "Prepared",
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
    "resolve",
    "scaled_side",
    "thumbnail",
]
