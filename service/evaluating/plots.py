"""Plots as inline SVG: axes, lines, points, whiskers; nothing that loads or runs anything."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from index.evaluation.choosing import front
from index.evaluation.intervals import Values

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart with any kind of colour vision: Okabe & Ito, Color Universal Design, 2008."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
BINS = 20
ENDS = (0.1, 0.25, 0.5, 1.0)
"""Where an axis of shares may end, so that its five ticks are round."""


@dataclass(frozen=True)
class Series:
    """Numbers with the name of the spec that they are of."""

    name: str
    values: Values


@dataclass(frozen=True)
class Point:
    """A spec with its cost and accuracy; `number` is that of its network, for its colour."""

    name: str
    cost: float
    accuracy: float
    number: int


Ticks = Sequence[tuple[float, str]]
"""Where an axis has its marks, in 0…1, and what stands there."""
SHARES: Ticks = [(tick, f"{tick:.1f}") for tick in np.linspace(0, 1, 6).tolist()]


class _Axes:
    """A frame with x from 0 to 1 and y from 0 to `top`."""

    def __init__(
        self, across: str, up: str, top: float, described: str, ticks: Ticks = SHARES
    ) -> None:
        self.top = top
        self.svg = ET.Element(
            "svg",
            {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": described},
        )
        ET.SubElement(self.svg, "title").text = described
        for at, text in ticks:
            x = self.x(at)
            self._line("grid", x, TOP, x, HEIGHT - BOTTOM)
            self._text("tick middle", x, HEIGHT - BOTTOM + 16, text)
        for tick in np.linspace(0, 1, 6):
            y = self.y(tick * top)
            self._line("grid", LEFT, y, WIDTH - RIGHT, y)
            self._text("tick end", LEFT - 7, y + 4, f"{tick * top:.2g}")
        self._line("axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM)
        self._line("axis", LEFT, TOP, LEFT, HEIGHT - BOTTOM)
        self._text("label middle", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across)
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = self._text("label middle", 0, 0, up)
        turned.set("transform", f"translate(13 {middle:.1f}) rotate(-90)")

    def x(self, value: float) -> float:
        return LEFT + value * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def curve(self, number: int, xs: Values, ys: Values, name: str) -> None:
        """A line through points, in the colour and dashes of the `number`-th spec."""
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        line = ET.SubElement(self.svg, "polyline", {"class": "curve", "points": points})
        line.set("stroke", colour(number))
        if dash(number):
            line.set("stroke-dasharray", dash(number))
        ET.SubElement(line, "title").text = name

    def point(self, x: float, y: float, name: str) -> None:
        at = {"cx": f"{self.x(x):.1f}", "cy": f"{self.y(y):.1f}", "r": "3", "class": "point"}
        ET.SubElement(ET.SubElement(self.svg, "circle", at), "title").text = name

    def spot(self, x: float, y: float, point: Point, kind: str) -> None:
        """A spec as a point in the colour of its network; `kind` is how it stands out."""
        at = {
            "cx": f"{self.x(x):.1f}",
            "cy": f"{self.y(y):.1f}",
            "r": "3.5",
            "class": f"spot {kind}",
        }
        spot = ET.SubElement(self.svg, "circle", at | {"fill": colour(point.number)})
        ET.SubElement(spot, "title").text = f"{point.name}: {point.accuracy:.3f}, {point.cost:.3g}"

    def ring(self, x: float, y: float) -> None:
        at = {"cx": f"{self.x(x):.1f}", "cy": f"{self.y(y):.1f}", "r": "7", "class": "ring"}
        ET.SubElement(self.svg, "circle", at)

    def diagonal(self) -> None:
        self._line("axis dashed", self.x(0), self.y(0), self.x(1), self.y(1))

    def markup(self) -> Markup:
        return Markup(ET.tostring(self.svg, encoding="unicode"))  # noqa: S704 - escaped by ET

    def _line(self, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
        ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        given = {"class": style} | {name: f"{value:.1f}" for name, value in ends.items()}
        ET.SubElement(self.svg, "line", given)

    def _text(self, style: str, x: float, y: float, text: str) -> ET.Element:
        given = {"class": style, "x": f"{x:.1f}", "y": f"{y:.1f}"}
        made = ET.SubElement(self.svg, "text", given)
        made.text = text
        return made


def colour(number: int) -> str:
    """The colour of the `number`-th spec, from 0."""
    return COLOURS[number % len(COLOURS)]


def dash(number: int) -> str:
    """Its dashes, for prints without colour."""
    return DASHES[number % len(DASHES)]


def swatch(number: int) -> Markup:
    """A short line in the colour and dashes of a spec, for a legend."""
    svg = ET.Element("svg", {"viewBox": "0 0 28 8", "class": "swatch", "aria-hidden": "true"})
    line = ET.SubElement(svg, "line", {"x1": "0", "y1": "4", "x2": "28", "y2": "4"})
    line.set("stroke", colour(number))
    line.set("stroke-dasharray", dash(number))
    return Markup(ET.tostring(svg, encoding="unicode"))  # noqa: S704 - escaped by ET


def dot(number: int) -> Markup:
    """A point in the colour of a network, for a legend."""
    svg = ET.Element("svg", {"viewBox": "0 0 28 8", "class": "swatch", "aria-hidden": "true"})
    ET.SubElement(svg, "circle", {"cx": "14", "cy": "4", "r": "3.5", "fill": colour(number)})
    return Markup(ET.tostring(svg, encoding="unicode"))  # noqa: S704 - escaped by ET


def precision_recall(specs: Sequence[Series]) -> Markup:
    """Mean interpolated precision over recall; the values are at 101 recalls from 0 to 1."""
    axes = _Axes("recall", "precision", 1.0, "Precision over recall")
    for number, series in enumerate(specs):
        recalls = np.linspace(0, 1, series.values.size)
        axes.curve(number, recalls, series.values, series.name)
    return axes.markup()


def distribution(specs: Sequence[Series], measure: str) -> Markup:
    """How many queries have which value, 0…1, as the outline of a histogram."""
    edges = np.linspace(0, 1, BINS + 1)
    shares = [np.histogram(series.values, edges)[0] / series.values.size for series in specs]
    highest = max(float(share.max()) for share in shares)
    top = next(end for end in ENDS if end >= highest)
    axes = _Axes(f"{measure} of a query", "share of queries", top, f"Distribution of {measure}")
    for number, (series, share) in enumerate(zip(specs, shares, strict=True)):
        xs, ys = np.repeat(edges, 2), np.concatenate([[0], np.repeat(share, 2), [0]])
        axes.curve(number, xs, ys, series.name)
    return axes.markup()


def against(a: Series, b: Series, names: Sequence[str], measure: str) -> Markup:
    """Every query as a point: above the diagonal it does better with `b`."""
    axes = _Axes(f"{measure}, {a.name}", f"{measure}, {b.name}", 1.0, f"{b.name} against {a.name}")
    axes.diagonal()
    for x, y, name in zip(a.values, b.values, names, strict=True):
        axes.point(float(x), float(y), f"{name}: {x:.3f}, {y:.3f}")
    return axes.markup()


def accuracy_against_cost(points: Sequence[Point], chosen: str, cost: str) -> Markup:
    """Every spec by its cost, on a logarithmic axis, and its accuracy in 0…1.

    A line joins the front, on which nothing cheaper is as accurate; a ring is around `chosen`.
    """
    costs = np.log10([point.cost for point in points])
    low, high = float(costs.min()) - 0.05, float(costs.max()) + 0.05
    places = (costs - low) / (high - low)
    highest = max(point.accuracy for point in points)
    top = next(end for end in ENDS if end >= highest)
    axes = _Axes(cost, "mAP", top, f"mAP against {cost}", _decades(low, high))
    accuracy = np.array([point.accuracy for point in points])
    ahead = front(accuracy, costs[:, None])
    order = np.flatnonzero(ahead)[np.argsort(costs[ahead])]
    xs = np.append(np.repeat(places[order], 2)[1:], 1.0)
    axes.curve(len(COLOURS) - 1, xs, np.repeat(accuracy[order], 2), "Pareto front")
    for point, x, stands_out in zip(points, places.tolist(), ahead, strict=True):
        axes.spot(x, point.accuracy, point, "front" if stands_out else "behind")
        if point.name == chosen:
            axes.ring(x, point.accuracy)
    return axes.markup()


def _decades(low: float, high: float) -> Ticks:
    """Ticks at 1, 2 and 5 of each power of ten between two logarithms, or fewer where too many."""
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in range(-6, 10) for step in steps]
        inside = [value for value in values if low <= np.log10(value) <= high]
        if len(inside) <= 7:
            break
    return [((float(np.log10(v)) - low) / (high - low), f"{v:,.10g}") for v in inside]


def whisker(low: float, mean: float, high: float, top: float, number: int) -> Markup:
    """An interval on a line from 0 to `top`, to stand beside its numbers."""
    svg = ET.Element("svg", {"viewBox": "0 0 160 14", "class": "whisker", "aria-hidden": "true"})
    scale = 156 / top
    ends = {"x1": f"{2 + low * scale:.1f}", "x2": f"{2 + high * scale:.1f}", "y1": "7", "y2": "7"}
    ET.SubElement(svg, "line", {"x1": "2", "x2": "158", "y1": "7", "y2": "7", "class": "rail"})
    ET.SubElement(svg, "line", ends | {"stroke": colour(number), "class": "span"})
    centre = {"cx": f"{2 + mean * scale:.1f}", "cy": "7", "r": "3.5", "fill": colour(number)}
    ET.SubElement(svg, "circle", centre)
    return Markup(ET.tostring(svg, encoding="unicode"))  # noqa: S704 - escaped by ET
