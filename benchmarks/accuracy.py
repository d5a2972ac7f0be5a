"""How well every kind of descriptor retrieves: the tables of `docs/accuracy.md`.

    python -m benchmarks.accuracy

Leave-one-out on the photographs beside the checkout, with the real weights beside them, the
embedded weights, and the hand-made baselines; 95 % intervals over queries. One forward pass per
picture and network. Writes `results/accuracy.json` and the tables between the marks of the page.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.sets import (
    MEASURE,
    RESULTS,
    SETS,
    SHARED,
    files,
    interval,
    machine,
    measured,
    rounded,
)
from index.evaluation import Evaluation
from models import Extractor, WeightsFolder

README = Path(__file__).parents[1] / "README.md"
PAGE = README.parent / "docs" / "accuracy.md"
POOLINGS = ("spoc", "gem", "mac", "crow", "rmac")
SPECS: Mapping[tuple[str, str], Sequence[str]] = {
    ("mobilenet_v2", "mobilenet_v2.pth"): (
        "features.3/spoc",
        "features.13/gem",
        *(f"features.18/{pooling}" for pooling in POOLINGS),
        "features.13+features.18/gem",
    ),
    ("squeezenet1_1", "squeezenet1_1.pth"): (
        "fire3/spoc",
        "fire5/gem",
        *(f"fire9/{pooling}" for pooling in POOLINGS),
        "fire5+fire9/gem",
    ),
    ("alexnet", "embedded"): (
        "low",
        "mid",
        *(f"conv5/{pooling}" for pooling in POOLINGS),
        "DEFAULT",
    ),
    ("alexnet", "untrained"): ("conv5/spoc", "conv5/gem"),
    ("sift", "auto"): ("vlad64", "bow1024"),
    ("colour", "auto"): ("rgb8",),
}
"""By network and weights; DEFAULT is what a collection gets as `high` with those weights."""


def rows_of(network: str, choice: str, rests: Sequence[str]) -> list[dict[str, object]]:
    """Every spec of one network, from one pass over the pictures."""
    folder = WeightsFolder(SHARED / "weights", offline=True)
    best = folder.resolve(network, choice).best_spec
    specs = {rest: best if rest == "DEFAULT" else f"{network}/{rest}" for rest in rests}
    extractor = Extractor(specs, weights=choice, folder=folder, device="cpu")
    described = {name: extractor.describe(files(name)) for name in SETS}
    rows = []
    for rest, space in extractor.spaces.items():
        found = measured({name: np.asarray(each[rest]) for name, each in described.items()})
        rows.append(
            {
                "spec": str(space.spec),
                "weights": space.weights.name,
                "dim": space.dim,
                "mAP": rounded({name: one.mean(MEASURE) for name, one in found.items()}),
                "interval": {name: interval(one) for name, one in found.items()},
                "precision@5": rounded({name: one.mean("mP@5") for name, one in found.items()}),
                "against best": {},
                "_": found,
            }
        )
        print(rows[-1]["spec"], rows[-1]["mAP"], flush=True)
    return rows


def compare(rows: list[dict[str, object]]) -> None:
    """Set beside every spec how it differs from the best of each set, on the same queries."""
    for name in SETS:
        evaluations = [row["_"][name] for row in rows]  # type: ignore[index]
        best: Evaluation = max(evaluations, key=lambda one: one.mean(MEASURE))
        for row, one in zip(rows, evaluations, strict=True):
            difference = best.against(one, MEASURE)
            row["against best"][name] = {  # type: ignore[index]
                "difference": round(difference.interval.mean, 3),
                "p": round(difference.p, 4),
            }
    for row in rows:
        del row["_"]


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Markdown; what does not differ from the best of its set (p ≥ 0.05) is bold."""
    lines = [
        "| spec | weights | bytes | " + " | ".join(SETS) + " |",
        "|---|---|---|" + "---|" * len(SETS),
    ]
    for row in rows:
        cells = []
        for name in SETS:
            low, high = row["interval"][name]  # type: ignore[index]
            figure = f"{row['mAP'][name]:.3f}"  # type: ignore[index]
            equal = row["against best"][name]["p"] >= 0.05  # type: ignore[index]
            cells.append(f"{f'**{figure}**' if equal else figure} [{low:.2f}, {high:.2f}]")
        size = 2 * int(str(row["dim"]))
        lines.append(f"| `{row['spec']}` | {row['weights']} | {size:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def put(page: Path, content: str) -> None:
    """Replace what stands between the marks of the table in a page."""
    pattern = r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)"
    said = re.sub(
        pattern, lambda found: f"{found[1]}{content}\n{found[2]}", page.read_text(), flags=re.DOTALL
    )
    page.write_text(said)


def chosen(rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The best of each network and weights, by the mean over the sets."""
    best: dict[tuple[str, object], Mapping[str, object]] = {}
    for row in rows:
        key = (str(row["spec"]).partition("/")[0], row["weights"])
        if key not in best or _mean(row) > _mean(best[key]):
            best[key] = row
    return sorted(best.values(), key=_mean, reverse=True)


def _mean(row: Mapping[str, object]) -> float:
    return float(np.mean(list(row["mAP"].values())))  # type: ignore[attr-defined]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = [
        row for (network, choice), rests in SPECS.items() for row in rows_of(network, choice, rests)
    ]
    compare(rows)
    about = {"benchmark": "accuracy", "machine": machine(), "measure": MEASURE}
    text = json.dumps(about | {"rows": rows}, indent=1, ensure_ascii=False)
    (RESULTS / "accuracy.json").write_text(text + "\n")
    put(PAGE, table(rows))
    put(README, table(chosen(rows)))


if __name__ == "__main__":
    main()
