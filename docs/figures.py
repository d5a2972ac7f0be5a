"""Write tables and plots of docs/speed.md from the last results: python -m docs.figures"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import extraction, peers, pipeline, query, startup
from benchmarks.machine import RESULTS
from docs.bars import Bar, chart
from docs.tables import Tables, rendered

PAGE = Path(__file__).parent / "speed.md"
PLOTS = Path(__file__).parent / "plots"

FIGURES: Tables = {
    "extraction": extraction.table,
    "startup": startup.table,
    "pipeline": pipeline.table,
    "query": query.table,
    "peers": peers.table,
}


def _extraction(told: Mapping[str, Any]) -> str:
    bars = [
        Bar(f"{row['network']}, {row['way']}", row["ratio"])
        for row in told["rows"]
        if row["batch"] == 8 and row["way"] != "torchvision f32"
    ]
    return chart("Forward passes of 8 pictures, × torchvision's own network", bars, aim=3.0)


def _pipeline(told: Mapping[str, Any]) -> str:
    bars = [Bar(name, round(found["of_bound"], 2)) for name, found in told["cases"].items()]
    return chart("Bulk indexing, share of what decoding and the network allow", bars, aim=0.95)


def _query(told: Mapping[str, Any]) -> str:
    bars = [Bar(name, round(found["ratio_to_parts"], 2)) for name, found in told["cases"].items()]
    return chart("Upload and search, p50 × decode + forward + FAISS", bars, aim=1.15)


def _peers(told: Mapping[str, Any]) -> str:
    bars = [
        Bar(f"{network}, {way}", found["ratio"])
        for network, sizes in told["networks"].items()
        for way, found in sizes["sizes"]["12 MP"]["peers"].items()
        if way != "hook loop"
    ]
    return chart("From 12 MP files to descriptors, × a plain loop", bars)


DRAWN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "extraction": _extraction,
    "pipeline": _pipeline,
    "query": _query,
    "peers": _peers,
}


def plots() -> dict[str, str]:
    """Every plot as SVG, by name."""
    return {
        name: draw(json.loads((RESULTS / f"{name}.json").read_text()))
        for name, draw in DRAWN.items()
    }


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(), FIGURES))
    PLOTS.mkdir(exist_ok=True)
    for name, drawn in plots().items():
        (PLOTS / f"{name}.svg").write_text(drawn)
