"""Textures without outlines: clouds, marble, corals, dunes."""

import numpy as np
from numpy.typing import NDArray

from models.training.families.colour import mix, palette, ramp, srgb, to_bytes
from models.training.families.fields import Floats, grid, noise, relief, sample, smoothstep

# Zenith, horizon, lit cloud and cloud in shade, each as OKLCH.
_SKIES = (
    ((0.52, 0.13, 0.70), (0.83, 0.07, 0.66), (0.99, 0.01, 0.20), (0.70, 0.03, 0.72)),
    ((0.38, 0.10, 0.75), (0.82, 0.12, 0.15), (0.93, 0.08, 0.18), (0.52, 0.09, 0.95)),
    ((0.60, 0.07, 0.66), (0.93, 0.05, 0.22), (0.98, 0.03, 0.18), (0.74, 0.04, 0.80)),
    ((0.42, 0.02, 0.68), (0.66, 0.02, 0.62), (0.84, 0.01, 0.60), (0.36, 0.02, 0.72)),
    ((0.18, 0.06, 0.76), (0.38, 0.09, 0.74), (0.62, 0.05, 0.72), (0.24, 0.05, 0.76)),
    ((0.44, 0.13, 0.83), (0.80, 0.14, 0.03), (0.92, 0.09, 0.08), (0.56, 0.11, 0.92)),
)
# Hue in turns, chroma, and lightness in shade and in light.
_SANDS = (
    (0.19, 0.10, 0.34, 0.93),
    (0.12, 0.14, 0.28, 0.82),
    (0.66, 0.04, 0.42, 0.99),
    (0.06, 0.12, 0.20, 0.72),
    (0.88, 0.08, 0.28, 0.90),
    (0.55, 0.07, 0.24, 0.88),
)


def clouds(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """1/f noise as a sky: from puffs to streaks, from noon to night, lit from the sun's side."""
    zenith, horizon, lit, shade = (srgb(*colour) for colour in _SKIES[rng.integers(len(_SKIES))])
    y, x = grid(side)
    sky = ramp(y**1.3, np.stack([zenith, horizon]))
    puffs = noise(rng, side, rng.uniform(1.6, 2.3), rng.uniform(1.5, 3.5), rng.uniform(0.5, 1.0))
    puffs = sample(puffs, y * (1.2 + 0.8 * y), x)
    cover = rng.uniform(0.42, 0.62)
    density = smoothstep(cover - 0.04, cover + rng.uniform(0.1, 0.28), puffs)
    sun_y, sun_x = rng.uniform(-0.3, 0.3), rng.uniform(0, 1)
    distance = np.hypot(y - sun_y, x - sun_x)
    toward_y, toward_x = (sun_y - y) / distance, (sun_x - x) / distance
    thickness = sum(
        sample(puffs, y + step * toward_y, x + step * toward_x) for step in (0.02, 0.05, 0.09)
    )
    light = smoothstep(-0.22, 0.12, puffs - thickness / 3) * 0.75 + 0.25 * np.exp(-2 * distance)
    glow = np.exp(-((distance / rng.uniform(0.25, 0.6)) ** 2)) * 0.5
    sky = mix(sky, lit, glow)
    return to_bytes(mix(sky, ramp(light, np.stack([shade, lit])), density * 0.95))


def marble(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Polished stone: noise bent by noise (Quilez, "Domain warping"), as bands, veins or ink."""
    y, x = grid(side)
    bend = rng.uniform(0.12, 0.4)
    first, second = noise(rng, side, 2.4), noise(rng, side, 2.4)
    field = sample(noise(rng, side, 2.2), y + bend * first, x + bend * second)
    kind = rng.integers(3)
    if kind == 0:
        rings = field * rng.uniform(3, 7)
        value = 0.5 + 0.5 * np.sin(2 * np.pi * rings + 3 * second)
        value = 0.65 * value + 0.35 * field
    elif kind == 1:
        fine = sample(noise(rng, side, 1.6, 3), y + bend * second, x + bend * first)
        veins = np.minimum(abs(field - 0.5) * 6, abs(fine - 0.5) * 9)
        value = smoothstep(0, 1.2, veins) * 0.8 + 0.2 * first
    else:
        value = smoothstep(0.15, 0.85, sample(field, y + bend * field, x - bend * field))
    colours = palette(rng, int(rng.integers(3, 6)), (0.22, 0.95), (0.03, 0.15))
    if rng.random() < 0.4:
        colours = colours[rng.permutation(len(colours))]
    shine = relief(field, 0.25, rng.random(), 0.8)
    return to_bytes(ramp(value, colours) * (0.82 + 0.22 * shine[..., None]))


def _reacted(rng: np.random.Generator, side: int) -> Floats:
    """Spots, stripes or labyrinths in -1…1: near things excite, far things inhibit.

    Young, "A local activator-inhibitor model of vertebrate skin patterns" (1984), with Gaussian
    neighbourhoods applied in the frequency domain.
    """
    down = np.fft.fftfreq(side)[:, None] * rng.uniform(0.8, 1.25)
    across = np.fft.rfftfreq(side)[None]
    frequency = (down**2 + across**2) * (2 * np.pi**2)
    reach = rng.uniform(0.009, 0.022) * side
    excite, inhibit = np.exp(-frequency * reach**2), np.exp(-frequency * (1.7 * reach) ** 2)
    state = np.asarray(noise(rng, side, 1.0, 4) - 0.5, np.float32)
    bias = rng.choice([-0.45, -0.3, -0.15, 0.0, 0.15, 0.3, 0.45])
    for _ in range(22):
        pushed = np.fft.irfft2(np.fft.rfft2(state) * (excite - inhibit), s=(side, side))
        state = np.tanh(7 * pushed + bias).astype(np.float32)
    return state


def corals(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Reaction and diffusion: the skin of fish, shells and corals, as a lit relief."""
    state = _reacted(rng, side)
    y, x = grid(side)
    bend = noise(rng, side, 2.6)
    state = sample(state, y + 0.1 * bend, x - 0.1 * bend)
    body = state * 0.5 + 0.5
    colours = palette(rng, 4, (0.3, 0.93), (0.06, 0.17))
    ground = ramp(bend, colours[:2])
    skin = ramp(noise(rng, side, 2.4), colours[2:])
    if rng.random() < 0.4:
        ground, skin = skin, ground
    lit = relief(body, rng.uniform(0.008, 0.02), rng.uniform(0.1, 0.4), 0.75)
    return to_bytes(mix(ground, skin, smoothstep(0.25, 0.75, body)) * (0.45 + 0.7 * lit[..., None]))


def dunes(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A rippled surface under a low sun: sand, snow, mud or cloth."""
    y, x = grid(side)
    far = 0.5 + 1.1 * y
    hills = noise(rng, side, rng.uniform(3.0, 3.6), 1.0, rng.uniform(0.6, 1.0))
    angle = rng.uniform(-0.6, 0.6)
    along = (y * np.cos(angle) + x * np.sin(angle)) / far * 1.3
    waves = 2 * np.pi * rng.uniform(9, 26) * (along + rng.uniform(0.15, 0.5) * hills)
    ripples = 0.5 + 0.5 * np.sin(waves + 0.5 * np.sin(waves))
    height = hills * rng.uniform(0.25, 0.5) + ripples * rng.uniform(0.012, 0.024)
    height = height + 0.003 * noise(rng, side, 0.8)
    turn = rng.choice([0.04, 0.12, 0.38, 0.46]) + rng.uniform(-0.03, 0.03)
    lit = relief(height, 0.7, turn, rng.uniform(0.4, 0.6))
    hue, chroma, dark, bright = _SANDS[rng.integers(len(_SANDS))]
    steps = np.linspace(0, 1, 4)
    hues = hue + np.linspace(rng.uniform(-0.08, 0.12), 0, 4)
    colours = srgb(dark + (bright - dark) * steps, chroma * (1 - 0.4 * steps), hues)
    return to_bytes(ramp(smoothstep(0.0, 0.95, lit), colours))
