"""A picture's way from upright RGB to a network's input: resize, crop, and the numbers to scale by.

Resizing and cropping happen on the CPU and give uint8, a quarter of the bytes of float32;
scaling happens where the network runs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.resize import Interleaved, Raster, raster

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
"""One prepared picture: 3×H×W, uint8, RGB."""


@dataclass(frozen=True)
class Preprocessing:
    """How a set of weights wants its pictures; part of every descriptor's fingerprint.

    `resize` is the length of the shorter side in pixels, `crop` the side of the centre square.
    `mean` and `std` are per input channel, in the order `channels`, for values in 0…`scale`.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str = "RGB"
    scale: float = 1.0
    interpolation: str = "bilinear"

    def declaration(self) -> dict[str, Any]:
        """The same as JSON, for fingerprints and `GET /v1/networks`."""
        return asdict(self)


IMAGENET = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's own: RGB in 0…1, mean and standard deviation of ImageNet."""

CAFFE = Preprocessing(
    256, 224, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0), channels="BGR", scale=255.0
)
"""The original VGG and ResNet releases: BGR in 0…255, mean subtracted (Simonyan 2015)."""

PIXELS = Preprocessing(256, 224, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), scale=255.0)
"""RGB in 0…255 as it is: for what is made by hand."""

DECLARED: Mapping[str, Preprocessing] = {"imagenet": IMAGENET, "caffe": CAFFE}
"""What a local checkpoint may declare, by name."""

INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def declared_for(name: str, like: Preprocessing) -> Preprocessing:
    """The declared preprocessing `name` at the resize and crop that the network itself wants."""
    return replace(DECLARED[name], resize=like.resize, crop=like.crop)


def prepare(picture: Image.Image | Raster, how: Preprocessing) -> Pixels:
    """Resize the shorter side, crop the centre.

    Takes an upright RGB picture of any size; gives 3×crop×crop uint8. The same pixels as
    torchvision's `ImageClassification` preset gives, to within one level of 255.

    >>> prepare(Image.new("RGB", (640, 480), "red"), IMAGENET).shape
    (3, 224, 224)
    """
    source = _raster(picture)
    box = crop_box(*source.size, how)
    return to_pixels(source.resized((how.crop, how.crop), how.interpolation, box))


def crop_box(width: int, height: int, how: Preprocessing) -> tuple[float, float, float, float]:
    """What of a picture the network sees: left, top, right, bottom in pixels of the picture.

    >>> [round(end, 1) for end in crop_box(640, 480, IMAGENET)]
    [108.9, 30.0, 529.3, 450.0]
    """
    # torchvision truncates the longer side rather than rounding it.
    if width <= height:
        scaled = (how.resize, max(how.resize, int(how.resize * height / width)))
    else:
        scaled = (max(how.resize, int(how.resize * width / height)), how.resize)
    # Only the crop is resampled: a 1×60000 picture must not become 256×15,360,000 on its way.
    across, down = width / scaled[0], height / scaled[1]
    left, top = round((scaled[0] - how.crop) / 2.0), round((scaled[1] - how.crop) / 2.0)
    return left * across, top * down, (left + how.crop) * across, (top + how.crop) * down


def prepare_whole(picture: Image.Image | Raster, how: Preprocessing, side: int) -> Pixels:
    """Resize the longer side to `side` pixels and crop nothing: 3×H×W uint8.

    The shorter side is at least a fifth of it, whatever the picture's proportions.

    >>> prepare_whole(Image.new("RGB", (640, 480), "red"), IMAGENET, 320).shape
    (3, 240, 320)
    """
    source = _raster(picture)
    scale = side / max(source.size)
    width, height = (max(round(length * scale), side // 5) for length in source.size)
    return to_pixels(source.resized((width, height), how.interpolation))


def _raster(picture: Image.Image | Raster) -> Raster:
    return raster(picture) if isinstance(picture, Image.Image) else picture


def to_pixels(pixels: Interleaved) -> Pixels:
    """H×W×4 as 3×H×W uint8."""
    return np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))


def normalise(batch: "torch.Tensor", how: Preprocessing) -> "torch.Tensor":
    """B×3×H×W uint8 RGB to float32 in the order, range and scale the weights were trained with."""
    import torch  # Decoding processes import this module and never need it.

    scaled = batch.to(torch.float32).mul_(how.scale / 255.0)
    if how.channels == "BGR":
        scaled = scaled.flip(1)
    mean = torch.tensor(how.mean, device=batch.device).view(1, 3, 1, 1)
    std = torch.tensor(how.std, device=batch.device).view(1, 3, 1, 1)
    return scaled.sub_(mean).div_(std)
