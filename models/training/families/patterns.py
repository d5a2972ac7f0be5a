"""Patterns: weaves, tiles, leaded glass, dead leaves."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.training.families.colour import mix, palette, ramp, to_bytes
from models.training.families.fields import Floats, grid, halve, noise, sample, smoothstep


def _sett(rng: np.random.Generator, colours: int, shortest: int, longest: int) -> NDArray[np.intp]:
    """The thread colours of a tartan: stripes, then the same stripes mirrored."""
    stripes = rng.integers(3, 6)
    widths = rng.integers(shortest, longest, stripes)
    order = np.repeat(rng.permutation(np.arange(stripes) % colours), widths)
    return np.concatenate([order, order[::-1]])


def weaves(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Cloth seen thread by thread: plain, twill or basket weave; stripes, checks, tartans."""
    size = 2 * side
    y, x = grid(size)
    folds = noise(rng, size, 3.0, 1.0)
    angle = rng.choice([0, 0, rng.uniform(-0.5, 0.5), np.pi / 4])
    y, x = y + 0.03 * folds, x + 0.03 * sample(folds, x, y)
    across = x * np.cos(angle) + y * np.sin(angle) + 2
    down = y * np.cos(angle) - x * np.sin(angle) + 2
    threads = rng.integers(36, 84)
    warp, weft = np.floor(across * threads), np.floor(down * threads)
    run, step = ((2, 1), (4, 1), (4, 2), (3, 1))[rng.integers(4)]
    on_top = np.mod(warp + step * weft, run) < run / 2
    colours = palette(rng, 4, (0.28, 0.93), (0.02, 0.15))
    sett = _sett(rng, 4, 2, int(rng.integers(5, 14)))
    other = sett if rng.random() < 0.6 else np.zeros(1, np.intp) + rng.integers(4)
    warp_colour = colours[sett[np.mod(warp, len(sett)).astype(np.intp)]]
    weft_colour = colours[other[np.mod(weft, len(other)).astype(np.intp)]]
    roundness = np.where(on_top, across * threads - warp, down * threads - weft)
    shade = 0.62 + 0.42 * np.sin(np.pi * roundness)
    light = shade * (0.85 + 0.35 * (folds - 0.5) * 2) + 0.08 * (noise(rng, size, 0.5) - 0.5)
    return to_bytes(halve(mix(weft_colour, warp_colour, on_top) * light[..., None]))


def _hexagons(y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Row, column and distance from the edge (0…0.5) of the hexagon around each point."""
    high = np.sqrt(np.float32(3))
    y = y * high
    first = np.stack([np.round(y / high) * high, np.round(x)])
    second = np.stack([(np.floor(y / high) + 0.5) * high, np.floor(x) + 0.5])
    nearer = np.hypot(*(np.stack([y, x]) - first)) < np.hypot(*(np.stack([y, x]) - second))
    row, column = np.where(nearer, first, second)
    down, across = abs(y - row), abs(x - column)
    return row, column, 0.5 - np.maximum(across, down * high / 2 + across / 2)


def _bricks(y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Running bond: bricks twice as long as high."""
    row = np.floor(y * 2)
    column = np.floor(x + 0.5 * np.mod(row, 2))
    across, down = np.mod(x + 0.5 * np.mod(row, 2), 1), np.mod(y * 2, 1)
    return row, column, np.minimum(0.5 - abs(across - 0.5), (0.5 - abs(down - 0.5)) / 2)


def _scales(y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Overlapping discs in rows, like a roof or a fish."""
    y = y * 2
    row, column, edge = np.zeros_like(y), np.zeros_like(y), np.full_like(y, -1)
    for step in (2, 1, 0):
        line = np.floor(y) - step
        shift = 0.5 * np.mod(line, 2)
        centre = np.floor(x + shift) + 0.5 - shift
        inside = 0.56 - np.hypot(x - centre, (y - line - 0.5) * 0.5)
        row, column = np.where(inside > 0, line, row), np.where(inside > 0, centre, column)
        edge = np.where(inside > 0, inside, edge)
    return row, column, edge


def _diamonds(y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Squares on their points."""
    row, column = np.floor(y + x), np.floor(y - x)
    down, across = np.mod(y + x, 1), np.mod(y - x, 1)
    return row, column, np.minimum(0.5 - abs(down - 0.5), 0.5 - abs(across - 0.5))


def _arcs(y: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Truchet's tiles (Smith 1987): quarter circles that join into winding bands."""
    row, column = np.floor(y), np.floor(x)
    flipped = np.mod(row * row * 3 + column * column * 5 + row * column * 7 + row, 13) < 6.5
    down, across = np.mod(y, 1), np.where(flipped, 1 - np.mod(x, 1), np.mod(x, 1))
    radius = np.minimum(np.hypot(down, across), np.hypot(1 - down, 1 - across))
    aside = abs(radius - 0.5) * 5
    return np.floor(aside), np.zeros_like(aside), 0.5 - abs(np.mod(aside, 1) - 0.5)


_TILINGS: tuple[Callable[[Floats, Floats], tuple[Floats, Floats, Floats]], ...] = (
    _hexagons,
    _bricks,
    _scales,
    _diamonds,
    _arcs,
)


def tiles(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Glazed tiles: hexagons, bricks, scales, diamonds or Truchet's arcs, with joints between."""
    size = 2 * side
    y, x = grid(size)
    count = rng.uniform(4, 11)
    tiling = _TILINGS[rng.integers(len(_TILINGS))]
    row, column, edge = tiling(y * count, x * count)
    colours = palette(rng, 5, (0.35, 0.93), (0.05, 0.16))
    mottle = rng.random(4096, dtype=np.float32)
    which = np.mod(row * 57 + column * 131 + 9000, 4096).astype(np.intp)
    wander = sample(noise(rng, size, 2.2), row / count / 2, column / count / 2)
    orderly = np.mod(row + 2 * column, 3) / 2
    mood = 2 if tiling is _arcs else rng.integers(3)
    value = (mottle[which], wander, orderly)[mood] * 0.85 + 0.15 * mottle[which]
    joint = rng.uniform(0.02, 0.05)
    bevel = smoothstep(joint, joint + 0.1, edge)
    glaze = 0.86 + 0.14 * bevel + 0.12 * (noise(rng, size, 1.8) - 0.5)
    grout = colours[-1] * 0.97 if rng.random() < 0.6 else colours[0] * 0.5
    face = ramp(value, colours) * glaze[..., None]
    return to_bytes(halve(mix(grout, face, smoothstep(joint * 0.6, joint, edge))))


def _nearest_two(y: Floats, x: Floats, seeds: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Distances to the nearest and second nearest of (n, 2) seeds, and which is nearest."""
    first, second = np.full_like(y, np.inf), np.full_like(y, np.inf)
    owner = np.zeros(y.shape, np.intp)
    for index, (row, column) in enumerate(seeds):
        distance = np.hypot(y - row, x - column)
        closer = distance < first
        second = np.where(closer, first, np.minimum(second, distance))
        first = np.where(closer, distance, first)
        owner[closer] = index
    return first, second, owner


def _spread(rng: np.random.Generator, count: int) -> Floats:
    """Points in the unit square and a little beyond, each the remotest of ten candidates."""
    points = rng.uniform(-0.1, 1.1, (1, 2))
    for _ in range(count - 1):
        candidates = rng.uniform(-0.1, 1.1, (10, 2))
        gaps = np.linalg.norm(candidates[:, None] - points[None], axis=2).min(axis=1)
        points = np.concatenate([points, candidates[gaps.argmax()][None]])
    return points.astype(np.float32)


def glass(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Voronoi's cells as a leaded window: light falls through, strongest somewhere."""
    y, x = grid(side)
    bend = rng.choice([0.0, 0.0, 0.06])
    y, x = y + bend * noise(rng, side, 2.5), x + bend * noise(rng, side, 2.5)
    count = int(rng.integers(30, 110))
    seeds = _spread(rng, count)
    if rng.random() < 0.35:
        angle = 2 * np.pi * np.arange(count) * (3 - np.sqrt(5)) / 2
        radius = 0.75 * np.sqrt((np.arange(count) + 0.5) / count)
        seeds = (0.5 + np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1)).astype("f4")
    first, second, owner = _nearest_two(y, x, seeds)
    colours = palette(rng, 5, (0.35, 0.88), (0.1, 0.2))
    middle = np.hypot(*(seeds - 0.5).T) * 1.3
    drift = seeds @ rng.normal(0, 0.6, 2).astype(np.float32) + 0.5
    value = np.mod((middle, drift)[rng.integers(2)] + rng.normal(0, 0.14, count), 1)
    centre = rng.uniform(0.2, 0.8, 2)
    light = np.exp(-2.2 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2))
    body = 0.55 + 0.55 * light + 0.35 * (noise(rng, side, 1.7, 2) - 0.5)
    body *= 1 - 0.25 * smoothstep(0, 1, first / np.maximum(second, 1e-6))
    lead = rng.uniform(0.006, 0.014)
    pane = ramp(value, colours)[owner] * body[..., None]
    line = smoothstep(lead * 0.6, lead * 1.2, (second - first) / 2 * 1.4)
    return to_bytes(mix(np.full(3, 0.07, np.float32), pane, line))


def _outline(kind: int, y: Floats, x: Floats) -> Floats:
    """Signed distance (inside positive, about 0…1) of a leaf of unit size."""
    if kind == 0:
        return np.asarray(1 - np.hypot(y, x), np.float32)
    if kind == 1:
        return np.asarray(1.25 - np.hypot(y, abs(x) * 1.3 + 0.85), np.float32)
    if kind == 2:
        return np.asarray(0.8 - np.maximum(abs(y) * 1.5, abs(x)), np.float32)
    lobes = 0.76 + 0.18 * np.cos(5 * np.arctan2(y, x))
    return np.asarray(lobes - np.hypot(y, x), np.float32)


def leaves(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Dead leaves (Lee, Mumford & Huang 2001): shapes of every scale that hide one another.

    Radii follow r^-3; every shape has its own colour, veins and shading, and drops a shadow.
    """
    colours = palette(rng, 7, (0.28, 0.93), (0.04, 0.17))
    canvas = np.broadcast_to(colours[0], (side, side, 3)).copy()
    y, x = grid(side)
    kinds = rng.choice(4, rng.integers(1, 4), replace=False)
    smallest, biggest = 0.045, rng.uniform(0.16, 0.3)
    share = rng.random(190)
    radii = smallest / np.sqrt(1 - share * (1 - (smallest / biggest) ** 2))
    for radius in radii:
        row, column = rng.uniform(-0.05, 1.05, 2)
        reach = radius * 1.35
        top, left = (int(max(0, (middle - reach) * side)) for middle in (row, column))
        bottom, right = (int(max(0, (middle + reach) * side + 1)) for middle in (row, column))
        part = np.s_[top:bottom, left:right]
        down, across = (y[part] - row) / radius, (x[part] - column) / radius
        turn = rng.uniform(0, 2 * np.pi)
        u, v = (
            down * np.cos(turn) + across * np.sin(turn),
            across * np.cos(turn) - down * np.sin(turn),
        )
        kind = int(rng.choice(kinds))
        colour = colours[rng.integers(len(colours))] * rng.uniform(0.85, 1.1)
        soft = 1.2 / (radius * side)
        shadow = smoothstep(-0.3, 0.25, _outline(kind, u - 0.06, v - 0.06)) * 0.5
        veins = rng.choice([0, 0, 0.1, 0.16]) * np.sin(v * rng.uniform(8, 22) + 3 * abs(u))
        body = colour * (0.92 + 0.22 * -down + veins)[..., None]
        cover = smoothstep(-soft, soft, _outline(kind, u, v))
        canvas[part] = mix(canvas[part] * (1 - shadow[..., None]), body, cover)
    return to_bytes(canvas)
