"""Scenes with depth: spheres, blocks, planets, ridges."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.training.families.colour import mix, palette, ramp, srgb, to_bytes
from models.training.families.fields import Floats, grid, halve, noise, sample, smoothstep


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def _hit(origin: Floats, toward: Floats, centre: Floats, radius: float) -> Floats:
    """Distance along unit rays (…, 3) to a sphere; infinite where it is missed."""
    offset = origin - centre
    along = (offset * toward).sum(-1)
    inside = along**2 - (offset**2).sum(-1) + radius**2
    distance = -along - np.sqrt(np.maximum(inside, 0))
    return np.asarray(np.where((inside > 0) & (distance > 1e-3), distance, np.inf), np.float32)


def _resting(rng: np.random.Generator, count: int) -> list[tuple[Floats, float]]:
    """Spheres that lie on the floor y = 0 without touching one another."""
    spheres: list[tuple[Floats, float]] = []
    for _ in range(count * 12):
        radius = float(rng.uniform(0.4, 1.0) ** 1.3)
        centre = np.array([rng.uniform(-2.6, 2.6), radius, rng.uniform(-1.2, 3.2)], np.float32)
        if all(np.linalg.norm(centre - other) > radius + size for other, size in spheres):
            spheres.append((centre, radius))
    return spheres[:count]


def _floor(rng: np.random.Generator, place: Floats, colours: Floats) -> Floats:
    """Colours of a floor at (…, 3): plain, checks or boards."""
    kind, scale = rng.integers(3), rng.uniform(0.8, 2.0)
    across, away = place[..., 0] * scale, place[..., 2] * scale
    if kind == 0:
        return np.tile(colours[-1], (*place.shape[:2], 1))
    if kind == 1:
        odd = np.mod(np.floor(across) + np.floor(away), 2)
        return mix(colours[-1], colours[-2], odd)
    board = np.mod(np.floor(across * 2) * 0.37, 1)
    return ramp(board * 0.6 + 0.2 + 0.08 * np.sin(away * 9 + board * 20), colours[1:])


def _unshaded(
    place: Floats, on_floor: NDArray[np.bool_], balls: list[tuple[Floats, float]], sun: Floats
) -> Floats:
    """How much light reaches each place (…, 3), 0…1: soft shadows, and dusk where balls touch."""
    light = np.ones(place.shape[:-1], np.float32)
    for centre, radius in balls:
        offset = place - centre
        along, square = (offset * sun).sum(-1), (offset**2).sum(-1)
        gap = np.sqrt(np.maximum(square - along**2, 0)) - radius
        blocked = (along < 0) & (square > radius**2 * 0.99)
        light *= np.where(blocked, smoothstep(-0.1, 0.08, gap), 1)
        touch = smoothstep(0.7, 1.7, np.sqrt(square) / radius)
        light *= np.where(on_floor, 0.45 + 0.55 * touch, 1)
    return light


def spheres(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Balls on a floor, ray by ray: a low sun, its shadows, highlights, and haze far away."""
    size = 2 * side
    y, x = grid(size)
    eye = np.array([0, rng.uniform(1.4, 2.8), -5.5], np.float32)
    tilt = (eye[1] - 0.5) / 6
    rays = _unit(np.stack([x - 0.5, 0.5 - y - tilt, np.full_like(x, 0.95)], axis=-1))
    balls = _resting(rng, int(rng.integers(4, 15)))
    colours = palette(rng, 6, (0.35, 0.94), (0.04, 0.18))
    sun = _unit(np.array([rng.choice([-1, 1]) * rng.uniform(0.4, 1), rng.uniform(0.6, 1.1), -0.5]))
    floor = np.where(rays[..., 1] < -1e-3, -eye[1] / np.minimum(rays[..., 1], -1e-3), np.inf)
    hits = np.stack([floor, *(_hit(eye, rays, centre, radius) for centre, radius in balls)])
    which, distance = hits.argmin(0), hits.min(0)
    seen = np.minimum(distance, 60)[..., None]
    place = eye + rays * seen
    normal = np.tile(np.array([0, 1, 0], np.float32), (size, size, 1))
    body = _floor(rng, place, colours)
    gloss = np.zeros_like(x)
    for index, (centre, radius) in enumerate(balls):
        mask = which == index + 1
        normal[mask] = (place[mask] - centre) / radius
        stripes = np.sin(normal[mask] @ _unit(rng.normal(0, 1, 3)) * rng.uniform(6, 20)) > 0
        pair = colours[rng.integers(0, 5, 2)]
        body[mask] = mix(pair[0], pair[1], stripes * (rng.random() < 0.4))
        gloss[mask] = rng.uniform(0.1, 0.8)
    lit = np.clip(normal @ sun, 0, 1)
    shade = _unshaded(place + normal * 2e-3, which == 0, balls, sun)
    glint = np.clip(normal @ _unit(sun - np.array([0, 0, 1])), 0, 1) ** 60 * gloss * shade
    colour = body * (0.32 + 0.12 * normal[..., 1:2] + 0.72 * (lit * shade)[..., None])
    sky = ramp(np.clip(0.25 + rays[..., 1] * 2, 0, 1), srgb([0.96, 0.7], 0.05, rng.random()))
    haze = np.where(np.isinf(distance), 1, 1 - np.exp(-np.minimum(distance, 200) / 26))
    return to_bytes(halve(mix(colour + glint[..., None], sky, haze)))


def blocks(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A town of blocks seen isometrically: heights from noise, three tones to a block."""
    size = 2 * side
    cells = int(rng.integers(7, 15))
    field = noise(rng, 32, rng.uniform(0.5, 2.2))[:cells, :cells]
    heights = (field - field.min()) / np.ptp(field) * rng.uniform(0.15, 0.4) * cells
    if rng.random() < 0.5:
        heights = np.round(heights * 3) / 3
    colours = palette(rng, 5, (0.45, 0.92), (0.05, 0.15))
    ground = srgb(rng.choice([0.22, 0.8, 0.92]), 0.03, rng.random())
    y, _ = grid(size)
    back = np.clip(ground * (1.08 - 0.2 * y)[..., None], 0, 1)
    picture = Image.fromarray(to_bytes(back))
    draw = ImageDraw.Draw(picture)
    step = size / (cells * rng.uniform(1.1, 1.6))
    gap = rng.choice([0.0, 0.1, 0.25])
    tones = (1.06, 0.8, 0.56) if rng.random() < 0.5 else (1.06, 0.56, 0.8)

    def corner(row: float, column: float, up: float) -> tuple[float, float]:
        across, down = (column - row) * step * 0.866, (row + column - cells) * step * 0.5
        return size / 2 + across, size * 0.56 + down - up * step

    for row in range(cells):
        for column in range(cells):
            up = float(heights[row, column])
            colour = ramp(np.array(up / heights.max() * 0.8 + 0.2 * rng.random()), colours)
            near, far = row + 1 - gap, row + gap
            right, left = column + 1 - gap, column + gap
            top = [(far, left, up), (far, right, up), (near, right, up), (near, left, up)]
            west = [(near, left, up), (near, right, up), (near, right, 0), (near, left, 0)]
            east = [(far, right, up), (near, right, up), (near, right, 0), (far, right, 0)]
            for face, tone in zip((top, west, east), tones, strict=True):
                fill = tuple(int(v) for v in to_bytes(colour * tone))
                draw.polygon([corner(*point) for point in face], fill=fill)
    return to_bytes(halve(np.asarray(picture, np.float32) / 255))


def planets(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A planet among stars: bands or continents, a terminator, air at the rim, perhaps rings."""
    size = 2 * side
    y, x = grid(size)
    centre, radius = 0.5 + rng.normal(0, 0.05, 2), rng.uniform(0.24, 0.4)
    down, across = (y - centre[0]) / radius, (x - centre[1]) / radius
    turn = rng.uniform(-0.6, 0.6)
    up, right = (
        down * np.cos(turn) - across * np.sin(turn),
        across * np.cos(turn) + down * np.sin(turn),
    )
    square = down**2 + across**2
    ahead = np.sqrt(np.clip(1 - square, 0, 1))
    latitude, longitude = (
        np.arcsin(np.clip(up, -1, 1)) / np.pi,
        np.arctan2(right, ahead) / (2 * np.pi),
    )
    land = noise(rng, side, rng.uniform(1.7, 2.3), 2)
    ground = sample(land, latitude + 0.5, longitude + 0.5)
    if rng.random() < 0.5:
        bands = sample(noise(rng, side, 1.6, 2, 14), latitude * 1.4 + 0.04 * ground, longitude)
        ground = 0.85 * bands + 0.15 * ground
    colours = palette(rng, 5, (0.35, 0.95), (0.03, 0.14))
    surface = ramp(smoothstep(0.2, 0.8, ground), colours)
    sun = _unit(np.array([rng.uniform(-1, 1), rng.uniform(-0.8, 0.3), rng.uniform(0.1, 0.9)]))
    light = np.clip(across * sun[0] + down * sun[1] + ahead * sun[2], 0, 1)
    air = srgb(0.8, 0.1, rng.choice([0.65, 0.6, 0.1, 0.8]))
    surface = (
        surface * (0.03 + 1.1 * light)[..., None] + air * ((1 - ahead) ** 3 * light)[..., None]
    )
    haze = srgb([0.1, 0.17, 0.3], 0.06, rng.random() + np.array([0, 0.05, 0.12]))
    sky = ramp(smoothstep(0.3, 1.0, noise(rng, size, 2.0)), haze)
    stars = rng.random((size, size), dtype=np.float32)
    sky = sky + (np.clip(stars - 0.9985, 0, 1) / 0.0015 * rng.uniform(0.6, 1.2))[..., None]
    toward = across * sun[0] + down * sun[1]
    glow = np.exp(-np.clip(np.sqrt(square) - 1, 0, 9) * 9) * np.clip(0.4 + toward, 0, 1)
    sky = sky + air * (0.35 * glow)[..., None]
    picture = mix(sky, surface, smoothstep(1 + 4 / size, 1 - 4 / size, np.sqrt(square)))
    if rng.random() < 0.45:
        tilt = rng.uniform(0.12, 0.4)
        ring = np.hypot(right, up / tilt)
        strength = sample(noise(rng, side, 1.0), ring * 0 + 0.5, ring * 0.5) ** 1.5 * 1.3
        strength *= smoothstep(1.25, 1.32, ring) * smoothstep(2.1, 1.9, ring)
        hidden = (up < 0) & (square < 1)
        aside = abs(across * sun[1] - down * sun[0]) / np.hypot(sun[0], sun[1])
        shadow = 1 - 0.85 * smoothstep(0, -0.3, toward) * smoothstep(1.05, 0.9, aside)
        tint = colours[-1] * shadow[..., None]
        picture = mix(picture, tint, np.clip(strength, 0, 0.9) * ~hidden)
    return to_bytes(halve(picture))


def ridges(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Mountains behind mountains, paler with distance; a sun or moon; sometimes a lake."""
    size = 2 * side
    y, x = grid(size)
    night = rng.random() > 0.75
    hue = rng.uniform(0.55, 0.85) if night else rng.random()
    turns = hue + np.array([0, 0.05, rng.uniform(0.08, 0.2)])
    sky = srgb([0.25, 0.35, 0.5] if night else [rng.uniform(0.55, 0.75), 0.85, 0.95], 0.08, turns)
    picture = ramp(np.clip(y / 0.62, 0, 1), sky)
    if night:
        stars = np.clip(rng.random((size, size), dtype=np.float32) - 0.999, 0, 1) / 0.001
        picture = picture + (stars * (1 - y))[..., None]
    disc = np.hypot(y - rng.uniform(0.15, 0.42), x - rng.uniform(0.15, 0.85))
    radius, light = rng.uniform(0.035, 0.09), srgb(0.97, 0.06, turns[2])
    picture = mix(picture, light, 0.5 * np.exp(-disc * 5))
    picture = mix(picture, light, smoothstep(radius + 2 / size, radius - 2 / size, disc))
    layers = int(rng.integers(4, 8))
    roughness = rng.uniform(1.1, 1.7)
    near, far = srgb(rng.uniform(0.15, 0.3), 0.05, turns[0]), sky[2]
    for layer in range(layers):
        depth = (layer + 1) / layers
        profile = noise(rng, 256, roughness, 1.0)[0]
        line = sample(np.tile(profile, (256, 1)), x[0] * 0, x[0] * rng.uniform(0.3, 0.6))
        top = 0.4 + 0.5 * depth**1.3 - (0.3 - 0.12 * depth) * (line - 0.3)
        below = y - top[None]
        body = mix(far, near, depth**0.9) * np.ones_like(picture)
        body = mix(body, far, 0.5 * smoothstep(0, 0.3, below) * (1 - depth))
        picture = mix(picture, body, smoothstep(-1.5 / size, 1.5 / size, below))
    if rng.random() < 0.35:
        shore = rng.uniform(0.72, 0.8)
        rows = np.arange(size)
        ripple = np.sin(rows**1.25 * 0.6) * 4 * smoothstep(shore, 1, rows / size)
        mirrored = np.clip(2 * shore * size - rows + ripple, 0, size - 1).astype(np.intp)
        lake = mix(picture[mirrored], sky[0], 0.25 + 0.2 * y)
        picture = mix(picture, lake, y > shore)
    return to_bytes(halve(picture))
