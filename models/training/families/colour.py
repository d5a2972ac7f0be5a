"""Colour: palettes that go together, and ramps through them without grey or muddy middles.

Both are made in OKLab (Ottosson, "A perceptual color space for image processing", 2020), where
equal steps look equal. Colours leave here as sRGB in 0…1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

_OKLAB_TO_LMS = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
# Hues that live well together, as turns away from the first one.
_HARMONIES = (
    (0.0, 0.03, -0.03),
    (0.0, 0.08, -0.08),
    (0.0, 0.06, 0.5),
    (0.0, 0.42, 0.58),
    (0.0, 0.33, 0.67),
    (0.0, 0.12, 0.24),
)


def srgb(lightness: ArrayLike, chroma: ArrayLike, turn: ArrayLike) -> Floats:
    """OKLCH to sRGB: (…,) lightness 0…1, chroma 0…0.3 and hue in turns -> (…, 3), clipped.

    >>> srgb(1.0, 0.0, 0.0).round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    angle = 2 * np.pi * np.asarray(turn)
    parts = np.broadcast_arrays(lightness, chroma * np.cos(angle), chroma * np.sin(angle))
    linear = (np.stack(parts, axis=-1) @ _OKLAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T
    linear = np.clip(linear, 0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curve, np.float32)


def palette(
    rng: np.random.Generator,
    count: int,
    lightness: tuple[float, float] = (0.3, 0.92),
    chroma: tuple[float, float] = (0.05, 0.16),
) -> Floats:
    """(count, 3) sRGB colours from dark to light, their hues in one of six harmonies."""
    turns = rng.random() + np.array(_HARMONIES[rng.integers(len(_HARMONIES))])
    hues = rng.choice(turns, count, p=(0.5, 0.3, 0.2)) + rng.normal(0, 0.012, count)
    steps = np.linspace(*lightness, count) + rng.normal(0, 0.02, count)
    return srgb(steps, rng.uniform(*chroma, count), hues)


def ramp(values: NDArray[np.floating], colours: Floats) -> Floats:
    """Values in 0…1, any shape -> sRGB (…, 3): even steps through the colours, smoothly joined."""
    steps = np.linspace(0, len(colours) - 1, 1024)
    low = np.minimum(steps.astype(int), len(colours) - 2)
    share = (steps - low)[:, None]
    share = share * share * (3 - 2 * share)
    table = colours[low] * (1 - share) + colours[low + 1] * share
    picked = np.clip(values * 1023, 0, 1023).astype(np.intp)
    return np.asarray(table.astype(np.float32)[picked], np.float32)


def mix(below: NDArray[np.floating], above: NDArray[np.floating], share: ArrayLike) -> Floats:
    """Lay `above` over `below`; share (…,) in 0…1, colours (…, 3) or (3,)."""
    cover = np.asarray(share, np.float32)[..., None]
    return np.asarray(below + (above - below) * cover, np.float32)


def to_bytes(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W, 3) in 0…1 -> uint8, clipped and rounded."""
    return np.asarray(np.clip(picture, 0, 1) * 255 + 0.5, np.uint8)
