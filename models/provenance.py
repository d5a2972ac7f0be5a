"""What a file of quantised weights says of itself: what it was made of, how, and at what loss.

It stands as JSON in the header of the safetensors file, whose SHA-256 covers it. Files are
hostile: whatever is not as it was written is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from models.errors import WeightsError
from models.preprocess import INTERPOLATIONS, Preprocessing

KEY = "pool5.int8"
"""The name in the header."""

_MOST_TEXT = 1 << 20
_MOST_SIDE = 4096


@dataclass(frozen=True)
class Provenance:
    """Where quantised weights come from.

    `network`, `source` and `source_sha256` are of the weights that were quantised, and so is
    `preprocessing`. `ranges` are (lowest, highest) by node of the network. `calibrated_on` says
    which `pictures` (how many) they were found on. `cosine_mean` and `cosine_least` compare the
    descriptors of `spec` with those of the source, on `measured_on` other pictures.
    """

    network: str
    source: str
    source_sha256: str
    preprocessing: Preprocessing
    ranges: Mapping[str, tuple[float, float]]
    calibrated_on: str
    pictures: int
    measured_on: int
    spec: str
    cosine_mean: float
    cosine_least: float

    def text(self) -> str:
        """As `read` takes it."""
        return json.dumps(asdict(self), sort_keys=True)


def read(file: str, text: str) -> Provenance:
    """The provenance that stands in a file's header.

    Raises WeightsError (`weights-unreadable`) for anything that `Provenance.text` would not write.
    """
    try:
        return _read(text)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as why:
        reason = (str(why) or type(why).__name__)[:200]
        raise WeightsError(
            "weights-unreadable",
            f"{file} says of itself what no quantised weights say: {reason}; "
            "make it again with `pool5 quantise`",
        ) from why


def _read(text: str) -> Provenance:
    if len(text) > _MOST_TEXT:
        raise ValueError(f"{len(text)} characters")
    said = json.loads(text)
    said["preprocessing"] = _preprocessing(said["preprocessing"])
    said["ranges"] = {name: _range(name, ends) for name, ends in said["ranges"].items()}
    found = Provenance(**said)
    for name in ("network", "source", "source_sha256", "calibrated_on", "spec"):
        if not isinstance(getattr(found, name), str) or not getattr(found, name).isprintable():
            raise ValueError(f"{name} is no printable text")
    for count in (found.pictures, found.measured_on):
        if type(count) is not int or count < 1:
            raise ValueError(f"{count!r} pictures")
    for cosine in (found.cosine_mean, found.cosine_least):
        if not -1.001 <= _number(cosine) <= 1.001:
            raise ValueError(f"a cosine of {cosine}")
    return found


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _range(name: str, ends: Any) -> tuple[float, float]:
    low, high = (_number(end) for end in ends)
    if not -_MOST_VALUE <= low <= high <= _MOST_VALUE:
        raise ValueError(f"the range of {name} is from {low:g} to {high:g}")
    return low, high


_MOST_VALUE = 1e30
"""Far above any activation, and far enough below float32's end to be scaled."""


def _preprocessing(said: Any) -> Preprocessing:
    triples = {name: _triple(said[name]) for name in ("mean", "std")}
    how = Preprocessing(**{**said, **triples})
    sides = (how.crop, how.resize)
    if (
        not all(type(side) is int for side in sides)
        or not 1 <= how.crop <= how.resize <= _MOST_SIDE
    ):
        raise ValueError(f"pictures of {how.resize} cropped to {how.crop}")
    if min(how.std) <= 0 or _number(how.scale) <= 0:
        raise ValueError("pictures are divided by nothing")
    if how.channels not in ("RGB", "BGR") or how.interpolation not in INTERPOLATIONS:
        raise ValueError(f"pictures in {how.channels!r} by {how.interpolation!r}")
    return how


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (_number(value) for value in values)
    return first, second, third
