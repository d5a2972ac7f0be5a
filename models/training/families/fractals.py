"""Grown things: ferns, flames, trees, blossoms."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.training.families.colour import mix, palette, ramp, srgb, to_bytes
from models.training.families.fields import Floats, grid, halve, noise, smoothstep

Doubles = NDArray[np.float64]

# Barnsley, "Fractals Everywhere" (1988), and variants of his fern: rows of a b c d e f and the
# probability of x, y -> a·x + b·y + e, c·x + d·y + f.
_FERNS = (
    (
        (0.0, 0.0, 0.0, 0.16, 0.0, 0.0, 0.01),
        (0.85, 0.04, -0.04, 0.85, 0.0, 1.6, 0.85),
        (0.2, -0.26, 0.23, 0.22, 0.0, 1.6, 0.07),
        (-0.15, 0.28, 0.26, 0.24, 0.0, 0.44, 0.07),
    ),
    (
        (0.0, 0.0, 0.0, 0.25, 0.0, -0.4, 0.02),
        (0.95, 0.005, -0.005, 0.93, -0.002, 0.5, 0.84),
        (0.035, -0.2, 0.16, 0.04, -0.09, 0.02, 0.07),
        (-0.04, 0.2, 0.16, 0.04, 0.083, 0.12, 0.07),
    ),
    (
        (0.0, 0.0, 0.0, 0.25, 0.0, -0.14, 0.02),
        (0.85, 0.02, -0.02, 0.83, 0.0, 1.0, 0.84),
        (0.09, -0.28, 0.3, 0.11, 0.0, 0.6, 0.07),
        (-0.09, 0.28, 0.3, 0.09, 0.0, 0.7, 0.07),
    ),
    (
        (0.0, 0.0, 0.0, 0.2, 0.0, -0.12, 0.01),
        (0.845, 0.035, -0.035, 0.82, 0.0, 1.6, 0.85),
        (0.2, -0.31, 0.255, 0.245, 0.0, 0.29, 0.07),
        (-0.15, 0.24, 0.25, 0.2, 0.0, 0.68, 0.07),
    ),
)


def _iterated(
    rng: np.random.Generator, maps: NDArray[np.floating], points: int, rounds: int
) -> Floats:
    """The chaos game: affine maps (n, 7) -> their orbit (rounds, points, 2)."""
    place = rng.standard_normal((points, 2)).astype(np.float32) * 0.1
    picks = rng.choice(len(maps), (rounds + 12, points), p=maps[:, 6] / maps[:, 6].sum())
    orbit = np.empty((rounds, points, 2), np.float32)
    for step, pick in enumerate(picks):
        a, b, c, d, e, f, _ = maps[pick].T
        x, y = place.T
        place = np.stack([a * x + b * y + e, c * x + d * y + f], axis=1).astype(np.float32)
        orbit[max(step - 12, 0)] = place
    return orbit


def _density(rows: NDArray[np.floating], columns: NDArray[np.floating], size: int) -> Floats:
    """How many points fall on each pixel of (size, size); those outside are left out."""
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    cells = rows[inside].astype(np.intp) * size + columns[inside].astype(np.intp)
    return np.bincount(cells, minlength=size * size).reshape(size, size).astype(np.float32)


def ferns(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Barnsley's ferns, pressed on paper or glowing in the dark; one, or a few together."""
    size = 2 * side
    dark = rng.random() < 0.4
    hue = rng.choice([0.36, 0.33, 0.30, 0.14, 0.08, 0.45]) + rng.normal(0, 0.015)
    paper_hue = rng.choice([0.2, 0.22, 0.6, 0.1]) if not dark else hue + 0.3
    fibres = noise(rng, side, 1.4).repeat(2, 0).repeat(2, 1)
    y, x = grid(size)
    fade = 0.05 * np.hypot(y - 0.5, x - 0.5) + 0.03 * fibres
    canvas = ramp(1 - 8 * fade, srgb([0.14, 0.24] if dark else [0.84, 0.96], 0.03, paper_hue))
    for _ in range(rng.choice([1, 1, 2, 3])):
        maps = np.array(_FERNS[rng.integers(len(_FERNS))])
        maps[1, 1:3] += np.array([1, -1]) * rng.normal(0, 0.025)
        maps[2:, :4] *= rng.uniform(0.9, 1.12)
        orbit = _iterated(rng, maps, 6000, 60).reshape(-1, 2)
        low, high = np.percentile(orbit, 0.2, axis=0), np.percentile(orbit, 99.8, axis=0)
        across, down = ((orbit - (low + high) / 2) / (high - low).max()).T * rng.uniform(0.82, 0.95)
        turn = rng.normal(0, 0.45)
        rows = 0.5 - (down * np.cos(turn) + across * np.sin(turn)) + rng.normal(0, 0.03)
        columns = 0.5 + across * np.cos(turn) - down * np.sin(turn) + rng.normal(0, 0.03)
        count = _density(rows * size, columns * size, size)
        tone = 1 - np.exp(-count / 3)
        colours = srgb(
            [0.5, 0.8, 0.93] if dark else [0.55, 0.42, 0.26], 0.12, hue + rng.normal(0, 0.02)
        )
        canvas = mix(canvas, ramp(np.clip(count / 14, 0, 1), colours), tone)
    return to_bytes(halve(canvas))


def _bent(kind: int, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Variations of the flame: sinusoidal, spherical, swirl, horseshoe, disc (its V1–V4, V8)."""
    if kind == 0:
        return np.sin(x), np.sin(y)
    square = x * x + y * y + 1e-6
    if kind == 1:
        return x / square, y / square
    if kind == 2:
        return x * np.sin(square) - y * np.cos(square), x * np.cos(square) + y * np.sin(square)
    radius = np.sqrt(square)
    if kind == 3:
        return (x - y) * (x + y) / radius, 2 * x * y / radius
    turn = np.arctan2(x, y) / np.pi
    return turn * np.sin(np.pi * radius), turn * np.cos(np.pi * radius)


def _wandered(rng: np.random.Generator, points: int = 24000) -> tuple[Doubles, Doubles]:
    """The orbit (2, n) of a random flame about the origin, and a colour coordinate 0…1 (n,)."""
    count = int(rng.integers(3, 5))
    maps = rng.uniform(-1, 1, (count, 6))
    maps[:, :4] *= 1.25 / np.linalg.norm(maps[:, :4], axis=1, keepdims=True)
    kinds = rng.choice(5, 2, replace=False)
    blend, folds = rng.uniform(0.2, 0.8), int(rng.choice([1, 1, 2, 3, 5]))
    x, y = rng.uniform(-1, 1, (2, points))
    shade = rng.random(points)
    places, shades = [], []
    for step in range(44):
        pick = rng.integers(0, count, points)
        a, b, c, d, e, f = maps[pick].T
        x, y = a * x + b * y + e, c * x + d * y + f
        (x1, y1), (x2, y2) = _bent(kinds[0], x, y), _bent(kinds[1], x, y)
        x, y = blend * x1 + (1 - blend) * x2, blend * y1 + (1 - blend) * y2
        shade = (shade + pick / (count - 1)) / 2
        if step >= 14:
            turn = rng.integers(0, folds, points) * (2 * np.pi / folds)
            sine, cosine = np.sin(turn), np.cos(turn)
            places.append(np.stack([x * sine + y * cosine, x * cosine - y * sine]))
            shades.append(shade)
    return np.concatenate(places, axis=1), np.concatenate(shades)


def _flame(rng: np.random.Generator, size: int) -> tuple[Doubles, Doubles]:
    """Log-density (1 is bright) and mean colour coordinate (0…1), each (size, size)."""
    place, shade = _wandered(rng)
    low, high = np.percentile(place[:, ::7], [2, 98], axis=1)
    scale = 0.82 / max(float((high - low).max()), 1e-3)
    place = ((place - ((low + high) / 2)[:, None]) * scale + 0.5) * size
    inside = ((place >= 0) & (place < size)).all(axis=0)
    rows, columns = place[:, inside].astype(np.intp)
    hits = np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)
    tints = np.bincount(rows * size + columns, shade[inside], size * size).reshape(size, size)
    tone = (np.log1p(hits) / np.log1p(np.percentile(hits[hits > 0], 97))) ** 0.8
    return tone, tints / np.maximum(hits, 1)


def flames(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Fractal flames (Draves & Reckase 2003): the chaos game with bent maps, brightness by log."""
    for _ in range(6):
        tone, shade = _flame(rng, side)
        if 0.2 < np.mean(tone > 0.05) < 0.85:
            break
    colours = palette(rng, 4, (0.62, 0.93), (0.1, 0.2))[rng.permutation(4)]
    y, x = grid(side)
    night = srgb(0.16, 0.05, rng.random()) * (1.1 - np.hypot(y - 0.5, x - 0.5))[..., None]
    light = np.clip(tone, 0, 1.3)[..., None] ** 1.1
    white = np.clip(tone - 0.8, 0, 1)[..., None]
    return to_bytes(night + ramp(shade, colours) * light + white)


def _branches(rng: np.random.Generator) -> list[tuple[float, float, float, float, float]]:
    """A tree: x, y, x', y' and width of each branch, in picture widths, thick ones first."""
    spread, shrink = rng.uniform(0.3, 0.65), rng.uniform(0.7, 0.8)
    lean = rng.normal(0, 0.08)
    tips = [(0.5 + rng.normal(0, 0.08), 0.9, np.pi / 2 + lean, rng.uniform(0.17, 0.22), 0.035)]
    branches = []
    for _ in range(10):
        grown = []
        for x, y, angle, length, width in tips:
            x1, y1 = x + length * np.cos(angle), y - length * np.sin(angle)
            branches.append((x, y, x1, y1, width))
            for side in rng.choice([-1, 1], 2, replace=False):
                turn = angle + side * spread * rng.uniform(0.4, 1.2)
                grown.append((x1, y1, turn, length * shrink * rng.uniform(0.8, 1.1), width * 0.68))
        tips = grown
    return branches


def trees(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A branching tree against a plain sky, bare or in leaf, through the seasons."""
    size = 2 * side
    y, _ = grid(size)
    hue = rng.random()
    pale = rng.uniform(0.78, 0.9)
    sky = srgb([pale - rng.uniform(0.05, 0.35), pale, 0.96], 0.05, hue + np.array([0, 0.06, 0.14]))
    ground = 0.88 + 0.02 * noise(rng, size, 2.5)[0]
    land = srgb(rng.uniform(0.3, 0.9), 0.06, rng.choice([0.33, 0.2, 0.1, hue]))
    back = mix(ramp(y, sky), land * (1.15 - 0.35 * y)[..., None], y > ground[None])
    picture = Image.fromarray(to_bytes(back))
    draw = ImageDraw.Draw(picture)
    bark = tuple(
        int(v) for v in to_bytes(srgb(rng.uniform(0.18, 0.3), 0.03, rng.choice([0.1, 0.8])))
    )
    branches = _branches(rng)
    for x, down, x1, down1, width in branches:
        ends = [(x * size, down * size), (x1 * size, down1 * size)]
        draw.line(ends, fill=bark, width=max(2, round(width * size)))
    foliage = rng.choice([0.36, 0.3, 0.12, 0.07, 0.98, 0.18]) + rng.normal(0, 0.01)
    tints = to_bytes(srgb(np.linspace(0.42, 0.85, 6), 0.13, foliage + np.linspace(-0.02, 0.04, 6)))
    leafiness = rng.choice([0.0, 0.5, 1.0, 1.0])
    for _, _, x, down, _ in branches[-1023:]:
        if rng.random() < leafiness:
            middle = np.array([x, down]) + rng.normal(0, 0.012, 2)
            radius = rng.uniform(0.006, 0.016)
            box = [*((middle - radius) * size), *((middle + radius) * size)]
            bright = np.clip(rng.normal(3.4 - 5 * (down - 0.4), 1.2), 0, 5)
            draw.ellipse(box, fill=tuple(int(v) for v in tints[int(bright)]))
    return to_bytes(halve(np.asarray(picture, np.float32) / 255))


def _petal(length: float, width: float, point: float) -> NDArray[np.floating]:
    """(n, 2) outline of a petal from its foot at 0, 0 outward along x."""
    along = np.concatenate([np.linspace(0, 1, 16), np.linspace(1, 0, 16)])
    sides = np.repeat([1, -1], 16) * np.sin(np.pi * along**point) ** 0.8
    return np.stack([along * length, sides * width / 2], axis=1)


def _flower(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, centre: Floats, reach: float, hue: float
) -> None:
    """Petals set at the golden angle (Vogel 1979) from outside to inside, then the seeds."""
    golden = np.pi * (3 - np.sqrt(5))
    count = int(rng.choice([5, 8, 13, 21, 34, 55, 89]))
    point, inner = rng.uniform(0.6, 1.8), rng.uniform(0.25, 0.6)
    width = rng.uniform(0.8, 1.4) * reach * 4 / np.sqrt(count + 30)
    steps = np.linspace(0, 1, count)
    lightness = (
        rng.uniform(0.5, 0.95) * (1 - steps)
        + rng.uniform(0.5, 0.95) * steps
        + rng.normal(0, 0.015, count)
    )
    tints = srgb(lightness, rng.uniform(0.03, 0.17), hue + rng.normal(0, 0.07) * steps)
    for index in range(count):
        turn = index * (golden if count > 13 else 2 * np.pi * 3 / count)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        size = reach * (1 - (1 - inner) * steps[index] * (count > 13))
        for share, shade in ((1.0, 0.72), (0.93, 1.0), (0.55, 1.08)):
            outline = _petal(size * (share + 1) / 2, width * share * size / reach, point)
            fill = tuple(int(v) for v in to_bytes(tints[index] * shade))
            draw.polygon([tuple(corner) for corner in outline @ rotation + centre], fill=fill)
    seeds, disc = int(rng.integers(60, 200)), reach * rng.uniform(0.14, 0.3)
    heart = to_bytes(srgb(np.linspace(0.35, 0.85, seeds), 0.12, rng.choice([0.2, 0.1, 0.3])))
    for index in range(seeds)[::-1]:
        radius, dot = disc * np.sqrt(index / seeds), disc / np.sqrt(seeds) * 1.1
        turn = np.array([np.cos(index * golden), np.sin(index * golden)])
        box = [*(centre + radius * turn - dot), *(centre + radius * turn + dot)]
        draw.ellipse(box, fill=tuple(int(v) for v in heart[index]))


def blossoms(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """One flower from above, or a bunch of a kind, on leaves out of focus."""
    size, hue = 2 * side, rng.random()
    soft = noise(rng, side, 2.6, 2).repeat(2, 0).repeat(2, 1)
    dark = rng.choice([0.18, 0.3, 0.6])
    ground = srgb(dark + np.array([0, 0.12, 0.26]), 0.06, rng.choice([0.36, 0.4, 0.7, hue + 0.5]))
    picture = Image.fromarray(to_bytes(ramp(smoothstep(0, 1, soft), ground)))
    draw = ImageDraw.Draw(picture)
    count = int(rng.choice([1, 1, 2, 3, 6]))
    reach = rng.uniform(0.42, 0.47) / np.sqrt(count) * (1.15 if count > 1 else 1)
    turns = rng.random() + np.arange(count) / count
    away = 0.0 if count == 1 else 0.3
    for turn in turns * 2 * np.pi:
        middle = 0.5 + away * np.array([np.cos(turn), np.sin(turn)]) + rng.normal(0, 0.025, 2)
        tint = hue + rng.normal(0, 0.02)
        _flower(rng, draw, np.asarray(middle * size, np.float32), reach * size, tint)
    return to_bytes(halve(np.asarray(picture, np.float32) / 255))
