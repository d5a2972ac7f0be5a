"""Horizontal bars as SVG, readable on white and on dark: docs/figures.py draws results so."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, LABEL, ROW, BAR = 720, 250, 20, 13
INK, FILL, MARK = "#777", "#0072b2", "#d55e00"


class Bar(NamedTuple):
    """One line of the chart."""

    label: str
    value: float


def chart(title: str, bars: Sequence[Bar], aim: float | None = None) -> str:
    """Bars from 0 to the largest value, with their numbers; a line stands where the `aim` is.

    >>> drawn = chart("x faster", [Bar("a", 1.0), Bar("b", 2.0)], aim=1.5)
    >>> drawn.count("<rect"), drawn.count("<line")
    (2, 1)
    """
    top = max(*(bar.value for bar in bars), aim or 0.0)
    height = ROW * (len(bars) + 1) + 8
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH} {height}",
            "role": "img",
            "font-family": "sans-serif",
            "font-size": "12",
            "fill": INK,
        },
    )
    ET.SubElement(svg, "title").text = title
    _text(svg, 0, ROW - 6, title, "bold")
    room = WIDTH - LABEL - 50
    for row, bar in enumerate(bars, start=1):
        y, length = row * ROW, room * bar.value / top
        _text(svg, 0, y + BAR, bar.label)
        shape = {"x": f"{LABEL}", "y": f"{y + 2}", "width": f"{length:.1f}", "height": f"{BAR}"}
        ET.SubElement(svg, "rect", {**shape, "fill": FILL})
        _text(svg, LABEL + length + 5, y + BAR, f"{bar.value:g}")
    if aim is not None:
        x = f"{LABEL + room * aim / top:.1f}"
        ends = {"x1": x, "x2": x, "y1": f"{ROW}", "y2": f"{height - 6}"}
        ET.SubElement(svg, "line", {**ends, "stroke": MARK, "stroke-dasharray": "4 3"})
    return ET.tostring(svg, "unicode") + "\n"


def _text(svg: ET.Element, x: float, y: float, text: str, weight: str = "normal") -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-weight": weight}
    ET.SubElement(svg, "text", place).text = text
