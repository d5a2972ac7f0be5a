"""Data sets whose file names say what belongs together: UKBench, INRIA Holidays."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from index.errors import EvaluationError
from index.evaluation.groundtruth import PLAIN, GroundTruth, Judgement, Query
from index.evaluation.measures import Indexes

_UKBENCH = re.compile(r"ukbench(\d{5})")
_HOLIDAYS = re.compile(r"1(\d{3})(\d{2})")


def ukbench(pictures: Sequence[str]) -> GroundTruth:
    """UKBench: groups of four by number; each picture asks, and finds itself as one of its four.

    Pictures of other names are distractors. Nistér & Stewénius, CVPR 2006.

    Raises EvaluationError: `truth-names-unlike`.

    >>> truth = ukbench([f"ukbench{n:05}.jpg" for n in range(8)])
    >>> truth.queries[5].judged["all"].positives.tolist()
    [4, 5, 6, 7]
    """
    numbers = _numbered(pictures, _UKBENCH, "ukbench00000.jpg")
    groups: dict[int, list[int]] = {}
    for index, (number,) in numbers.items():
        groups.setdefault(number // 4, []).append(index)
    positives = {group: _indexes(members) for group, members in groups.items()}
    queries = [
        Query(pictures[index], {PLAIN: Judgement(positives[number // 4])})
        for index, (number,) in numbers.items()
    ]
    return GroundTruth("UKBench", pictures, queries, ("UKBench", "mAP", "recall@4"))


def holidays(pictures: Sequence[str]) -> GroundTruth:
    """INRIA Holidays: 1xxx00.jpg asks for 1xxx01.jpg and on, and is dropped from its ranking.

    Pictures of other names are distractors. Jégou, Douze, Schmid, ECCV 2008.

    Raises EvaluationError: `truth-names-unlike`.

    >>> truth = holidays(["100000.jpg", "100001.jpg", "100002.jpg", "100100.jpg", "100101.jpg"])
    >>> [(query.name, query.judged["all"].positives.tolist()) for query in truth.queries]
    [('100000.jpg', [1, 2]), ('100100.jpg', [4])]
    """
    numbers = _numbered(pictures, _HOLIDAYS, "100000.jpg")
    groups: dict[int, list[int]] = {}
    for index, (group, number) in numbers.items():
        if number:
            groups.setdefault(group, []).append(index)
    queries = [
        Query(
            pictures[index],
            {PLAIN: Judgement(_indexes(groups.get(group, [])), _indexes([index]))},
        )
        for index, (group, number) in numbers.items()
        if number == 0
    ]
    return GroundTruth("Holidays", pictures, queries, ("mAP", "mAP-steps", "mP@1", "recall@10"))


def _numbered(
    pictures: Sequence[str], form: re.Pattern[str], example: str
) -> dict[int, tuple[int, ...]]:
    """The numbers in the names of that form, by index."""
    matches = [form.fullmatch(PurePosixPath(picture).stem) for picture in pictures]
    found = {
        index: tuple(int(number) for number in match.groups())
        for index, match in enumerate(matches)
        if match
    }
    if not found:
        raise EvaluationError(
            "truth-names-unlike", f"none of {len(pictures)} pictures is named like {example}"
        )
    return found


def _indexes(of: Sequence[int]) -> Indexes:
    return np.array(of, dtype=np.int64)
