"""Marks of a hand: brush strokes along a flow, and rows of invented glyphs."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.training.families.colour import palette, ramp, srgb, to_bytes
from models.training.families.fields import Floats, grid, halve, noise, sample

# Paper and ink as OKLCH: page, chalk board, blueprint, parchment, letterpress red, neon.
_SHEETS = (
    ((0.96, 0.01, 0.22), (0.20, 0.02, 0.70)),
    ((0.28, 0.03, 0.45), (0.93, 0.01, 0.30)),
    ((0.36, 0.11, 0.72), (0.94, 0.03, 0.62)),
    ((0.87, 0.06, 0.22), (0.32, 0.06, 0.12)),
    ((0.94, 0.02, 0.18), (0.52, 0.19, 0.07)),
    ((0.18, 0.04, 0.80), (0.82, 0.18, 0.93)),
    ((0.90, 0.05, 0.45), (0.36, 0.08, 0.50)),
)


def _paths(rng: np.random.Generator, count: int, steps: int, length: float) -> Floats:
    """(steps, count, 2) points x, y in 0…1 that follow one smooth flow."""
    turns = noise(rng, 128, rng.uniform(2.4, 3.2)) * rng.uniform(0.8, 2.2) + rng.random()
    swirl = rng.random() < 0.35
    centre = rng.uniform(0.3, 0.7, 2)
    place = rng.uniform(-0.08, 1.08, (count, 2)).astype(np.float32)
    points = [place]
    for _ in range(steps - 1):
        turn = sample(turns, place[:, 1], place[:, 0]) * 2 * np.pi
        if swirl:
            away = place - centre
            turn = np.arctan2(away[:, 1], away[:, 0]) + np.pi / 2 + 0.25 * turn
        move = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (length / steps)
        place = np.asarray(place + move, np.float32)
        points.append(place)
    return np.stack(points)


def strokes(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Paint laid along a flow: from short dabs to long hairs, over a picture of soft colours."""
    size = 2 * side
    thick = rng.uniform(0.004, 0.022)
    count = int(np.clip(7 / thick, 320, 1500))
    colours = palette(rng, 5, (0.25, 0.93), (0.06, 0.17))
    if rng.random() < 0.5:
        colours = colours[::-1]
    below = noise(rng, 128, 2.6)
    y, x = grid(size)
    picture = Image.fromarray(to_bytes(ramp(sample(below, y, x), colours) * np.float32(0.75)))
    draw = ImageDraw.Draw(picture)
    length = rng.uniform(0.06, 0.35) + thick * 3
    paths = _paths(rng, count, 14, length)
    middle = paths[len(paths) // 2]
    value = sample(below, middle[:, 1], middle[:, 0]) + rng.normal(0, 0.09, count)
    paint = ramp(value, colours) * rng.uniform(0.85, 1.12, (count, 1))
    for index in range(count):
        width = thick * size * rng.uniform(0.5, 1.3)
        line = paths[:, index] * size
        for offset, share, light in ((0.0, 1.0, 0.86), (-0.16, 0.6, 1.0), (-0.26, 0.2, 1.1)):
            fill = tuple(int(v) for v in to_bytes(paint[index] * light))
            bristles = [(px, py + offset * width) for px, py in line]
            draw.line(bristles, fill=fill, width=max(1, round(width * share)), joint="curve")
    return to_bytes(halve(np.asarray(picture, np.float32) / 255))


def _alphabet(rng: np.random.Generator) -> list[list[NDArray[np.float64]]]:
    """A dozen glyphs, each of one to three pen strokes through a 3 × 4 grid of points."""
    curved = rng.random() < 0.6
    glyphs = []
    for _ in range(12):
        pen: list[NDArray[np.float64]] = []
        for _ in range(rng.integers(2, 5)):
            corners = rng.integers(0, (3, 4), (rng.integers(2, 4), 2)) / (2.0, 3.0)
            if pen:
                corners[0] = pen[-1][rng.choice([0, -1])]
            if curved and len(corners) > 2:
                share = np.linspace(0, 1, 12)[:, None]
                first, second, third = corners[:3]
                corners = (
                    (1 - share) ** 2 * first + 2 * share * (1 - share) * second + share**2 * third
                )
            pen.append(corners)
        glyphs.append(pen)
    return glyphs


def glyphs(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A page in a script of its own: rows of words, a margin, sometimes a coloured initial."""
    size = 2 * side
    (paper, ink), alphabet = _SHEETS[rng.integers(len(_SHEETS))], _alphabet(rng)
    grain = noise(rng, size, 1.5)
    sheet = srgb(*paper) * (0.94 + 0.1 * grain)[..., None]
    picture = Image.fromarray(to_bytes(sheet))
    draw = ImageDraw.Draw(picture)
    fill = tuple(int(v) for v in to_bytes(srgb(*ink)))
    accent = tuple(int(v) for v in to_bytes(srgb((paper[0] + ink[0]) / 2, 0.17, rng.random())))
    high = rng.uniform(0.035, 0.13) * size
    wide, pen = high * rng.uniform(0.5, 0.8), max(2, round(high * rng.uniform(0.07, 0.16)))
    lean, margin = rng.choice([0, 0, 0.2]), rng.uniform(0.06, 0.12) * size
    y, first = margin, True
    while y + high < size - margin * 0.8:
        x, left = margin, int(rng.integers(2, 8))
        while x + wide < size - margin:
            if left == 0:
                x, left = x + wide * 0.8, int(rng.integers(2, 8))
                continue
            big = 2.2 if first else 1.0
            for stroke in alphabet[rng.integers(len(alphabet))]:
                across, down = stroke.T * np.array([[wide], [high]]) * big
                corners = zip(x + across + lean * (high - down), y + down, strict=True)
                colour = accent if first or left == 7 else fill
                draw.line(list(corners), fill=colour, width=round(pen * big), joint="curve")
            x, left, first = x + wide * (1.45 if big == 1 else 3), left - 1, False
        y += high * rng.uniform(1.5, 1.6)
    return to_bytes(halve(np.asarray(picture, np.float32) / 255))
