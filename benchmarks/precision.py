"""What half precision and int8 cost in retrieval: the table of `docs/quantisation.md`.

    python -m benchmarks.precision            # about ten minutes on two cores
    python -m benchmarks.precision --table    # the page's table again, from the last result

Leave-one-out on the photographs beside the checkout, with the real weights beside them and the
embedded ones. A precision may be chosen automatically where it moves the mAP of every set by at
most MOST_CHANGE, and where no descriptor has a cosine below LEAST_COSINE to its own in float32.

Half precision is emulated, as few processors multiply it and torch takes minutes for what others
emulate: parameters, and the result of every operation, are rounded; sums are in float32, as
hardware adds them. How near that comes to torch's own is measured on a few pictures. `folded` are
networks whose normalisation is in their convolutions, as compilers have it: fewer roundings.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, fx, nn

from benchmarks.machine import RESULTS, machine
from benchmarks.sets import MEASURE, SHARED, opened, rounded, truth
from index.evaluation import evaluate
from index.evaluation.groundtruth import PLAIN
from models import Weights, WeightsFolder
from models.activations import channels_first, loaded
from models.folding import folded
from models.pooling import pool_joined
from models.preprocess import Preprocessing, normalise, prepare
from models.quantising import quantise
from models.runtime import RuntimeChoice, Wanted
from models.runtimes import openvino
from models.runtimes.eager import Eager
from models.runtimes.network import DTYPES
from models.spec import find_layer
from models.training import procedural

NETWORKS = (
    ("alexnet", "embedded", "conv5"),
    ("squeezenet1_1", "squeezenet1_1.pth", "fire9"),
    ("mobilenet_v2", "mobilenet_v2.pth", "features.18"),
)
POOLINGS = ("spoc", "gem")
ASKED = ("clothing", "packages")
"""Sets of `benchmarks.sets`, whose galleries are their own pictures."""

MOST_CHANGE, LEAST_COSINE = 0.002, 0.995
RESULT = RESULTS / "precision.json"
PAGE = RESULTS.parents[1] / "docs" / "quantisation.md"

_BATCH = 8
_COMPARED = 4
"""Pictures on which half precision is compared with torch's own."""

Runs = Callable[[Tensor], Tensor]
"""B×3×H×W uint8 RGB to the B×C×h×w activation of a layer."""
Row = dict[str, Any]


class Rounded(fx.Interpreter):
    """A network in float32, whose parameters and results are rounded to a shorter type."""

    def __init__(self, cut: fx.GraphModule, precision: str) -> None:
        self._dtype = DTYPES[precision]
        super().__init__(cut.to(self._dtype).to(torch.float32))

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, rounded."""
        value = super().run_node(n)
        return value.to(self._dtype).float() if isinstance(value, Tensor) else value


def ways(weights: Weights, int8: Weights, layer_name: str) -> Iterable[tuple[str, str, Runs]]:
    """Every (precision, how it is computed, network), float32 first."""
    layer = find_layer(weights.network, layer_name)

    def wanted(of: Weights) -> Wanted:
        choice = RuntimeChoice("torch", "f32", cache=Path())
        return Wanted(of, [layer_name], [layer.node], torch.device("cpu"), choice)

    def first(runtime: Callable[[Tensor], Sequence[Tensor]]) -> Runs:
        return lambda pixels: channels_first(runtime(pixels)[0], layer.channel_axis)

    def emulated(precision: str, of: Callable[[fx.GraphModule], fx.GraphModule]) -> Runs:
        run = Rounded(of(loaded(weights, [layer_name])), precision)
        how = weights.preprocessing
        return lambda x: channels_first(run.run(normalise(x, how))[layer.node], layer.channel_axis)

    def eager(of: Weights, precision: str) -> Runs:
        return first(Eager(wanted(of).network(), torch.device("cpu"), precision))

    yield "f32", "torch", eager(weights, "f32")
    for precision in ("bf16", "f16"):
        yield precision, "emulated", emulated(precision, lambda cut: cut)
        yield precision, "torch", eager(weights, precision)
        if normalises(weights, layer_name):
            yield precision, "emulated, folded", emulated(precision, folded)
    yield "int8", "emulated", eager(int8, "int8")
    if openvino.is_there():
        ready = openvino.compiled(
            wanted(int8).network(), "int8", torch.get_num_threads(), int8.preprocessing.crop
        )
        yield "int8", "openvino", first(openvino.OpenVino(ready, "int8"))


def normalises(weights: Weights, layer: str) -> bool:
    """Whether there is anything to fold."""
    return any(isinstance(one, nn.BatchNorm2d) for one in loaded(weights, [layer]).modules())


def rows_of(weights: Weights, layer: str, folder: WeightsFolder, count: int) -> list[Row]:
    """Every precision and pooling of one network; int8 is calibrated on `count` pictures."""
    how = weights.preprocessing
    drawn = (procedural.picture(family, n) for family, n in procedural.gallery_names(count))
    int8 = quantise(weights, prepared(drawn, how), "procedural pictures", folder)
    pixels = {name: prepared(opened(name), how) for name in ASKED}
    rows: list[Row] = []
    exact: dict[str, dict[str, np.ndarray]] = {}
    mimicked: dict[str, dict[str, np.ndarray]] = {}
    for precision, by, runs in ways(weights, int8, layer):
        if precision in ("bf16", "f16") and by == "torch":
            few = described(runs, pixels[ASKED[0]][:_COMPARED])
            for row in rows:
                if row["precision"] == precision:
                    same = mimicked[row["pooling"]][ASKED[0]][:_COMPARED]
                    row["least cosine to torch's"] = least(cosines(same, few[row["pooling"]]))
            continue
        each = {name: described(runs, batch) for name, batch in pixels.items()}
        found = {p: {name: rows_[p] for name, rows_ in each.items()} for p in POOLINGS}
        exact = exact or found
        mimicked = found
        for pooling in POOLINGS:
            row = judged(found[pooling], exact[pooling])
            said = {"spec": f"{weights.network}/{layer}/{pooling}", "weights": weights.name}
            rows.append(said | {"pooling": pooling, "precision": precision, "by": by} | row)
            print(json.dumps(rows[-1]), flush=True)
    return rows


def judged(found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> Row:
    """mAP by set, its change, cosines to the exact descriptors, and whether the bounds hold."""
    mean_ap = {name: mean_ap_of(found[name], name) for name in ASKED}
    change = {name: mean_ap[name] - mean_ap_of(exact[name], name) for name in ASKED}
    to_exact = np.concatenate([cosines(found[name], exact[name]) for name in ASKED])
    return {
        "mAP": rounded(mean_ap, 4),
        "change": rounded(change, 4),
        "cosine": {"mean": round(float(to_exact.mean()), 5), "least": least(to_exact)},
        "holds": {
            "mAP": max(map(abs, change.values())) <= MOST_CHANGE,
            "cosine": bool(to_exact.min() >= LEAST_COSINE),
        },
    }


def mean_ap_of(rows: np.ndarray, name: str) -> float:
    """Of n×D descriptors of a set, each asking for the others of its kind."""
    return float(evaluate(rows, rows, truth(name))[PLAIN].mean(MEASURE))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of n×D descriptors, row by row: n."""
    of: np.ndarray = np.sum(one.astype(np.float64) * other, axis=1)
    return of


def least(of: np.ndarray) -> float:
    """The least cosine, as it is quoted."""
    return round(float(of.min()), 5)


def prepared(pictures: Iterable[Image.Image], how: Preprocessing) -> np.ndarray:
    """n×3×crop×crop uint8."""
    return np.stack([prepare(picture, how) for picture in pictures])


def described(runs: Runs, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """n×D descriptors by pooling, of one pass over n pictures."""
    rows: dict[str, list[np.ndarray]] = {pooling: [] for pooling in POOLINGS}
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            grid = runs(torch.from_numpy(pixels[start : start + _BATCH]))
            for pooling, of in rows.items():
                of.append(pool_joined([grid], pooling).numpy())
    return {pooling: np.concatenate(of) for pooling, of in rows.items()}


def verdicts(rows: Sequence[Row]) -> dict[str, bool]:
    """Whether a precision keeps both bounds for every spec; folded networks by themselves."""
    found: dict[str, bool] = {}
    for row in rows:
        name = row["precision"] + (" folded" if row["by"].endswith("folded") else "")
        found[name] = found.get(name, True) and all(row["holds"].values())
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown; a change or a cosine that is out of bounds is bold."""
    head = ["spec", "precision", *(f"mAP {name}" for name in ASKED), "mean cosine", "least"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        precision = f"{row['precision']} ({row['by']})"
        cells = [f"`{row['spec']}`", precision]
        for name in ASKED:
            change = f"{row['change'][name] + 0.0:+.4f}"  # -0.0 becomes 0.0
            change = f"**{change}**" if abs(row["change"][name]) > MOST_CHANGE else change
            shown = f"{row['mAP'][name]:.4f}"
            cells.append(shown if row["precision"] == "f32" else f"{shown} ({change})")
        worst = f"{row['cosine']['least']:.4f}"
        worst = worst if row["holds"]["cosine"] else f"**{worst}**"
        lines.append([*cells, f"{row['cosine']['mean']:.4f}", worst])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def put(content: str) -> None:
    """Replace what stands between the marks of the page."""
    said = re.sub(
        r"(<!-- precision -->\n).*?(<!-- /precision -->)",
        lambda found: f"{found[1]}{content}\n{found[2]}",
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(said)


def kept(without: str) -> list[Row]:
    """The rows of the last result that are of other networks."""
    rows: list[Row] = json.loads(RESULT.read_text())["rows"]
    return [row for row in rows if not row["spec"].startswith(f"{without}/")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the table only")
    parser.add_argument("--count", type=int, default=128, help="pictures to calibrate on")
    parser.add_argument("--network", help="measure this one again, and keep the other rows")
    asked = parser.parse_args()
    if not asked.table:
        rows = kept(asked.network) if asked.network else []
        with tempfile.TemporaryDirectory() as made:
            for file in (SHARED / "weights").glob("*.pth"):
                shutil.copyfile(file, Path(made) / file.name)
            folder = WeightsFolder(Path(made), offline=True)
            for network, choice, layer in NETWORKS:
                if asked.network not in (None, network):
                    continue
                weights = folder.resolve(network, choice)
                rows += rows_of(weights, layer, folder, asked.count)
        about = {"benchmark": "precision", "machine": machine(), "measure": MEASURE}
        bounds = {"mAP change": MOST_CHANGE, "cosine": LEAST_COSINE, "calibrated on": asked.count}
        found = about | {"bounds": bounds, "holds": verdicts(rows), "rows": rows}
        RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if PAGE.exists():
        put(table(json.loads(RESULT.read_text())["rows"]))


if __name__ == "__main__":
    main()
