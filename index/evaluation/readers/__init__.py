"""Ground truth from files and from how a data set names its pictures; nothing is executed."""

from collections.abc import Callable, Mapping
from pathlib import Path

from index.errors import EvaluationError
from index.evaluation.groundtruth import GroundTruth
from index.evaluation.readers import document, matlab, pickled, revisited

MOST_BYTES = 64 * 2**20
"""Revisited Oxford's file has half a megabyte; a million names about thirty."""

_READERS: Mapping[str, Callable[[str, bytes], GroundTruth]] = {
    ".json": document.ground_truth,
    ".pkl": lambda name, content: revisited.ground_truth(name, pickled.load(name, content)),
    ".mat": lambda name, content: revisited.ground_truth(
        name, matlab.load(name, content, revisited.VARIABLES), first_index=1
    ),
}


def read_truth(path: Path) -> GroundTruth:
    """Ground truth from our JSON (`.json`) or a revisited Oxford/Paris file (`.pkl`, `.mat`).

    Raises EvaluationError: `truth-file-unknown`, `truth-file-too-large`, `truth-file-broken`,
    `truth-file-forbidden` for a pickle that names anything but numpy's arrays, and those of
    `GroundTruth`; OSError where there is no such file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise EvaluationError(
            "truth-file-unknown",
            f"{path} is no ground truth that is read here: it ends with {', '.join(_READERS)}",
        )
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise EvaluationError(
            "truth-file-too-large", f"{path} has more than {MOST_BYTES:,} bytes: split it"
        )
    return reader(path.name, content)
