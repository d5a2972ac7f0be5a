"""What an item takes: bytes on the disk and in memory, by dim of its descriptor and kind of index.

    python benchmarks/item_size.py [--output benchmarks/results/item_size.json]

Collections of random unit descriptors are made and compacted; the memory is what a fresh process
grows by when it opens one and has searched it once.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.sets import machine
from index import Catalog, NewItem, Space

ITEMS = 20_000
DIMS = (64, 512)
EXACT_UP_TO = {"exact up to all": ITEMS, "approximate": 0}

SEARCH = """
import sys
import numpy as np
from pathlib import Path
from index import Catalog

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

before = resident()
with Catalog.open(Path(sys.argv[1])) as catalog:
    catalog.collection("c").search(np.ones(int(sys.argv[2]), np.float32))
    print(resident() - before)
"""


def fill(folder: Path, dim: int, exact_up_to: int) -> dict[str, int | str]:
    """Make a collection, and say how large it is."""
    rng = np.random.default_rng(1)
    space = Space("high", "alexnet/conv5/gem", "f" * 64, dim, "float16", {})
    with Catalog.open(folder) as catalog:
        made = catalog.create_collection("c", [space], {"index": {"exact_up_to": exact_up_to}})
        for start in range(0, ITEMS, 1000):
            rows = rng.standard_normal((1000, dim)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            made.add([_item(start + n, row) for n, row in enumerate(rows)])
        made.compact()
        sealed = made.status()["spaces"]["high"]
    catalogued = sum(file.stat().st_size for file in folder.glob("catalog*"))
    return {"kind": sealed["kind"], "catalog": catalogued, "generation": sealed["bytes"]}


def _item(n: int, row: np.ndarray) -> NewItem:
    place = f"/pictures/2026/{n:06d}.jpg"
    return NewItem(
        id=f"{n:032x}",
        sha256=f"{n:064x}",
        name=f"{n:06d}.jpg",
        source=f"file:{place}",
        stamp="1790000000000000000:123456",
        metadata={"path": place, "folder": "2026"},
        width=1200,
        height=900,
        descriptors={"high": row},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    rows = []
    for label, exact_up_to in EXACT_UP_TO.items():
        for dim in DIMS:
            with tempfile.TemporaryDirectory() as folder:
                found = fill(Path(folder), dim, exact_up_to)
                command = [sys.executable, "-c", SEARCH, folder, str(dim)]
                grown = int(subprocess.check_output(command, text=True))
            per_item = {
                "catalog_bytes": round(int(found["catalog"]) / ITEMS),
                "generation_bytes": round(int(found["generation"]) / ITEMS),
                "resident_bytes": round(grown / ITEMS),
            }
            rows.append({"policy": label, "kind": found["kind"], "dim": dim, **per_item})
    result = {"benchmark": "item_size", "machine": machine(), "items": ITEMS, "per_item": rows}
    text = json.dumps(result, indent=2) + "\n"
    if output:
        output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
