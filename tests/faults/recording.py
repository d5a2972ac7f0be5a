"""The last result of each long run, which is committed."""

import json
from collections.abc import Mapping


def record(name: str, found: Mapping[str, float]) -> None:
    """Keep what a run has found, beside the others and the machine."""
    from benchmarks.sets import RESULTS, machine

    path = RESULTS / "crash_index.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, "machine": machine(), name: found}, indent=2) + "\n")
