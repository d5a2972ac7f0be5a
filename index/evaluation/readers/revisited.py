"""Revisited Oxford and Paris (and the original ones in the same form): `gnd_*.pkl`, `gnd_*.mat`.

Radenović et al., Revisiting Oxford and Paris, CVPR 2018, section 3.3: easy asks for the easy with
hard as junk, medium for both, hard for the hard with easy as junk; what the file calls junk always
is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from index.errors import EvaluationError
from index.evaluation.groundtruth import (
    NONE,
    PLAIN,
    Box,
    GroundTruth,
    Judgement,
    Query,
)
from index.evaluation.measures import Indexes

VARIABLES = ("imlist", "qimlist", "qidx", "gnd")

PROTOCOLS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "easy": (["easy"], ["junk", "hard"]),
    "medium": (["easy", "hard"], ["junk"]),
    "hard": (["hard"], ["junk", "easy"]),
}
"""Which lists of the file are positive, and which junk, by variant."""

ORIGINAL: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {PLAIN: (["ok"], ["junk"])}

FARTHEST = 2**53
"""Indexes above it are no longer whole as float64."""

MOST_JUDGED = 20_000_000
"""Judgements of all queries; a pickle can say one long list a million times in a few bytes."""

MEASURES = ("mAP", "mP@1", "mP@5", "mP@10")


def ground_truth(name: str, given: Any, first_index: int = 0) -> GroundTruth:
    """From what such a file holds: `imlist`, `qimlist` (or `qidx`), and `gnd` of each query.

    `first_index` is 1 where indexes count from 1, as in MATLAB. Names come without a suffix.

    Raises EvaluationError: `truth-file-broken`, and those of `GroundTruth`.
    """
    if not isinstance(given, dict):
        raise _broken(name, f"it holds a {type(given).__name__}")
    gallery = _names(name, given, "imlist")
    if "qimlist" in given:
        asked = _names(name, given, "qimlist")
    else:
        numbers = _indexes(name, given, "qidx", first_index)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(gallery):
            raise _broken(name, '"qidx" names pictures that "imlist" does not have')
        asked = [gallery[number] for number in numbers]
    judged = given.get("gnd")
    if not isinstance(judged, list) or len(judged) != len(asked):
        raise _broken(name, '"gnd" has no entry for each query')
    queries, count = [], 0
    for picture, lists in zip(asked, judged, strict=True):
        query = _query(name, picture, lists, first_index)
        first = next(iter(query.judged.values()))
        count += first.positives.size + first.junk.size
        if count > MOST_JUDGED:
            raise EvaluationError(
                "truth-file-too-large", f"{name} has more than {MOST_JUDGED:,} judgements"
            )
        queries.append(query)
    return GroundTruth(name.rsplit(".", 1)[0], gallery, queries, MEASURES)


def _query(name: str, picture: str, lists: Any, first_index: int) -> Query:
    if not isinstance(lists, dict):
        raise _broken(name, f"what is right for {picture!r} is a {type(lists).__name__}")
    protocols = ORIGINAL if "ok" in lists else PROTOCOLS
    needed = {each for positives, junk in protocols.values() for each in [*positives, *junk]}
    indexes = {each: _indexes(name, lists, each, first_index) for each in needed}
    judged = {
        variant: Judgement(
            np.concatenate([indexes[each] for each in positives]),
            np.concatenate([indexes[each] for each in junk]),
        )
        for variant, (positives, junk) in protocols.items()
    }
    return Query(picture, judged, _box(name, picture, lists))


def _box(name: str, picture: str, lists: Mapping[str, Any]) -> Box | None:
    if "bbx" not in lists:
        return None
    sides = _numbers(name, lists, "bbx").astype(np.float64).ravel()
    if sides.size != 4 or not np.isfinite(sides).all():
        raise _broken(name, f'"bbx" of {picture!r} is not x0, y0, x1, y1')
    x0, y0, x1, y1 = sides.tolist()
    return Box(x0, y0, x1, y1, pixels=True)


def _indexes(name: str, of: Mapping[str, Any], key: str, first_index: int) -> Indexes:
    numbers = _numbers(name, of, key).ravel()
    if not numbers.size:
        return NONE
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(np.int64)
    if not np.array_equal(whole, numbers):
        raise _broken(name, f"{key!r} holds what is no index")
    return whole - first_index


def _numbers(name: str, of: Mapping[str, Any], key: str) -> np.ndarray[Any, np.dtype[Any]]:
    given = of.get(key)
    if isinstance(given, list | tuple) and all(isinstance(each, int | float) for each in given):
        if any(abs(each) > FARTHEST for each in given):
            raise _broken(name, f"{key!r} holds what is no index")
        given = np.array(given, dtype=np.float64)
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iuf":
        raise _broken(name, f"{key!r} is missing or holds no numbers")
    return given


def _names(name: str, of: Mapping[str, Any], key: str) -> list[str]:
    given = of.get(key)
    if isinstance(given, np.ndarray) and given.dtype.kind == "U":
        given = given.ravel().tolist()
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise _broken(name, f"{key!r} is missing or no list of names")
    return given


def _broken(name: str, why: str) -> EvaluationError:
    return EvaluationError(
        "truth-file-broken",
        f"{name}: {why}; this is no ground truth of (revisited) Oxford or Paris",
    )
