"""Scalar fields over the picture: coordinates, 1/f noise, warping, relief."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def grid(side: int) -> tuple[Floats, Floats]:
    """Pixel centres: y and x, each (side, side) in 0…1, y downwards."""
    line = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.repeat(line[:, None], side, 1), np.repeat(line[None], side, 0)


def smoothstep(low: float, high: float, values: NDArray[np.floating]) -> Floats:
    """0 below `low`, 1 above `high`, and an S-curve between them."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def noise(
    rng: np.random.Generator,
    side: int,
    exponent: float = 2.0,
    lowest: float = 1.0,
    stretch: float = 1.0,
) -> Floats:
    """(side, side) Gaussian noise with amplitude 1/f^exponent, periodic, scaled to 0…1.

    `lowest` is the lowest frequency in cycles per picture; `stretch` > 1 draws it out along x.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    down = np.fft.fftfreq(side, 1 / side)[:, None]
    across = np.fft.rfftfreq(side, 1 / side)[None] * stretch
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    gain = np.where(frequency < lowest, 0, frequency**-exponent)
    field = np.fft.irfft2(spectrum * gain, s=(side, side))
    return np.asarray((field - field.min()) / np.ptp(field), np.float32)


def sample(field: Floats, y: NDArray[np.floating], x: NDArray[np.floating]) -> Floats:
    """A periodic (side, side) field at y, x (1.0 is one period), bilinear."""
    side = len(field)
    y, x = y * side - 0.5, x * side - 0.5
    top, left = np.floor(y), np.floor(x)
    down, across = y - top, x - left
    rows, columns = top.astype(np.intp) % side, left.astype(np.intp) % side
    below, right = (rows + 1) % side, (columns + 1) % side
    upper = field[rows, columns] * (1 - across) + field[rows, right] * across
    lower = field[below, columns] * (1 - across) + field[below, right] * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def relief(height: Floats, depth: float, turn: float, elevation: float = 0.6) -> Floats:
    """Lambert's shading of a height field lit from `turn` (0 = right, 0.25 = above); about 0…1.

    `depth` is the height of 1.0 in picture widths, `elevation` the sine of the light's angle.
    """
    down, across = np.gradient(height * (depth * len(height)))
    flat = np.sqrt(1 - elevation**2)
    toward_x, toward_y = flat * np.cos(2 * np.pi * turn), -flat * np.sin(2 * np.pi * turn)
    lit = elevation - across * toward_x - down * toward_y
    return np.asarray(np.clip(lit / np.sqrt(1 + down**2 + across**2), 0, 1), np.float32)


def halve(picture: NDArray[np.floating]) -> Floats:
    """(2H, 2W, …) -> (H, W, …): the mean of every 2 × 2 smooths what was drawn too big."""
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    blocks = picture.reshape(rows, 2, columns, 2, *picture.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)
