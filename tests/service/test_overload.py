"""A real service at four times its capacity, with a job, and with bad pictures among the good."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks import overload
from benchmarks.sets import RESULTS, machine

ANSWERS = {"200", "429", "503", "504"}


def check(found: dict[str, Any]) -> None:
    """What holds on any machine, however busy it is."""
    over = found["overload"]
    statuses = {str(status) for status in over["statuses"]}
    assert statuses <= ANSWERS
    assert "200" in statuses
    assert over["ok_ms"]["max"] < 1000 * (overload.DEADLINE_S + 5)
    for part in ("idle", "capacity", "with_job"):
        assert {str(status) for status in found[part]["statuses"]} <= ANSWERS
    assert over["peak_mib"] < found["capacity"]["peak_mib"] + 400
    mixed = found["with_odd"]
    assert {str(status) for status in mixed["good_mixed"]["statuses"]} == {"200"}
    assert {str(status) for status in mixed["odd"]["statuses"]} <= ANSWERS | {"413", "415", "422"}
    assert found["ready_after"] == 200


@pytest.mark.long
def test_overload_is_refused_and_survived(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as apart:  # A browser test may have left an event loop in this one.
        check(apart.submit(overload.measure, tmp_path, 1.0).result())


@pytest.mark.long
def test_overload_for_minutes(tmp_path: Path) -> None:
    found = overload.measure(tmp_path, 120)
    check(found)
    samples = found["overload"]["resident_mib"]
    settled, last = samples[len(samples) // 3][1], samples[-1][1]
    assert last < 1.1 * settled + 20, samples  # no growth
    assert 429 in found["overload"]["statuses"]
    report = {"benchmark": "overload", "machine": machine(), "seconds": 120, **found}
    (RESULTS / "overload.json").write_text(json.dumps(report, indent=2) + "\n")
