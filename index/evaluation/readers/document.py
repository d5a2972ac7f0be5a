"""Our own ground truth: a JSON document, described in docs/evaluation.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from index.errors import EvaluationError
from index.evaluation.groundtruth import (
    PLAIN,
    Box,
    GroundTruth,
    Judgement,
    Query,
    by_labels,
)
from index.evaluation.measures import USUAL, Indexes

VERSION = 1

FARTHEST = 1e9
"""No side of a region lies farther out, in pixels."""

_MEMBERS = {"version", "name", "measures", "labels", "gallery", "queries"}
_OF_QUERY = {"picture", "region", "box", "variants", "positives", "junk"}
_OF_JUDGEMENT = {"positives", "junk"}


def ground_truth(file: str, content: bytes) -> GroundTruth:
    """Read `{"version": 1, "gallery": […], "queries": […]}` or `{"version": 1, "labels": {…}}`.

    A query's own picture, where it is in the gallery and not said to be positive, is junk.

    Raises EvaluationError: `truth-file-broken`, and those of `GroundTruth`.
    """
    try:
        given = json.loads(content)
        json.dumps(given, ensure_ascii=False).encode()  # no half of a surrogate pair gets in
    except (ValueError, RecursionError) as error:
        raise _broken(file, f"it is no JSON: {error}") from error
    found = _object(file, given, _MEMBERS)
    if found.get("version") != VERSION:
        raise _broken(file, f'"version" is {found.get("version")!r}, and {VERSION} is read here')
    name = found.get("name", file)
    if not isinstance(name, str):
        raise _broken(file, '"name" is no text')
    measures = _names(file, found.get("measures", USUAL), "measures")
    if "labels" in found:
        return _labelled(file, name, found["labels"], measures)
    gallery = _names(file, found.get("gallery"), "gallery")
    numbers = {picture: index for index, picture in enumerate(gallery)}
    asked = found.get("queries")
    if not isinstance(asked, list):
        raise _broken(file, '"queries" is no list')
    queries = [_query(file, query, numbers) for query in asked]
    return GroundTruth(name, gallery, queries, measures)


def _labelled(file: str, name: str, labels: Any, measures: Sequence[str]) -> GroundTruth:
    if not isinstance(labels, dict) or not all(
        label is None or isinstance(label, str) for label in labels.values()
    ):
        raise _broken(file, '"labels" is no object of picture: label or null')
    truth = by_labels(name, list(labels), list(labels.values()))
    return replace(truth, measures=measures)


def _query(file: str, given: Any, numbers: Mapping[str, int]) -> Query:
    found = _object(file, given, _OF_QUERY)
    picture = found.get("picture")
    if not isinstance(picture, str):
        raise _broken(file, f'a query has no "picture": {str(given)[:100]}')
    plain = {key: found[key] for key in _OF_JUDGEMENT & found.keys()}
    variants = found.get("variants", {PLAIN: plain})
    if not isinstance(variants, dict) or ("variants" in found and plain):
        raise _broken(file, f'query {picture!r} has "variants", an object, or "positives"')
    judged = {
        variant: _judgement(file, picture, judgement, numbers)
        for variant, judgement in variants.items()
    }
    return Query(picture, judged, _box(file, picture, found))


def _judgement(file: str, picture: str, given: Any, numbers: Mapping[str, int]) -> Judgement:
    found = _object(file, given, _OF_JUDGEMENT)

    def indexes(of: str) -> Indexes:
        names = _names(file, found.get(of, []), of)
        for name in names:
            if name not in numbers:
                raise _broken(file, f"query {picture!r} names {name!r}, not in the gallery")
        return np.array([numbers[name] for name in names], dtype=np.int64)

    judgement = Judgement(indexes("positives"), indexes("junk"))
    own = numbers.get(picture)
    return judgement if own is None else judgement.without(own)


def _box(file: str, picture: str, found: Mapping[str, Any]) -> Box | None:
    for key, pixels in (("region", False), ("box", True)):
        if key in found:
            given = found[key]
            numbers = isinstance(given, list) and all(
                isinstance(side, int | float)
                and not isinstance(side, bool)
                and abs(side) < FARTHEST
                for side in given
            )
            if not numbers or len(given) != 4:
                raise _broken(file, f'"{key}" of query {picture!r} is not [x0, y0, x1, y1]')
            x0, y0, x1, y1 = given
            return Box(x0, y0, x1, y1, pixels)
    return None


def _object(file: str, given: Any, members: set[str]) -> dict[str, Any]:
    if not isinstance(given, dict) or not given.keys() <= members:
        raise _broken(
            file, f"{str(given)[:100]} is no object with nothing but {', '.join(sorted(members))}"
        )
    return given


def _names(file: str, given: Any, of: str) -> list[str]:
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise _broken(file, f'"{of}" is no list of texts')
    return list(given)


def _broken(file: str, why: str) -> EvaluationError:
    return EvaluationError(
        "truth-file-broken", f"{file}: {why}; docs/evaluation.md describes the format"
    )
