"""The best and the worst queries, to be looked at: thumbnails of them and of what they found."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from index.evaluation import Box, Refinement
from index.evaluation.groundtruth import Judgement
from index.evaluation.measures import Indexes
from models import Limits, decode, thumbnail
from models.preparation import crop
from service.evaluating.report import COMPARED
from service.evaluating.study import Study, Tried
from service.indexing.source import printable
from service.problems import KNOWN

SHOWN = 4
"""Queries at each end."""
NEIGHBOURS = 8
SIDE = 144
"""Of a thumbnail, in pixels: shown at half of it, for displays of twice the density."""

Mark = Literal["query", "right", "wrong", "junk"]


@dataclass(frozen=True)
class Shown:
    """A picture with what it is; `source` is a data: URI, None where there is no picture."""

    title: str
    mark: Mark
    source: str | None


@dataclass(frozen=True)
class Example:
    """A query, its measure, and its top neighbours, junk among them but not the query itself."""

    query: Shown
    value: float
    neighbours: Sequence[Shown]


@dataclass(frozen=True)
class Ends:
    """The queries that a spec does best and worst, under one protocol variant."""

    spec: str
    variant: str
    measure: str
    best: Sequence[Example]
    worst: Sequence[Example]


class Examples:
    """Makes examples of a study; the pictures are read again and re-encoded, each one once."""

    def __init__(self, study: Study, limits: Limits) -> None:
        self._study = study
        self._limits = limits
        self._sources: dict[tuple[str, Box | None], str | None] = {}

    def ends(self, tried: Tried, variant: str) -> Ends:
        """The best and worst queries of one spec, without repeating one at both ends."""
        evaluation = tried.evaluations[variant]
        measure = COMPARED if COMPARED in evaluation.values else next(iter(evaluation.values))
        values = evaluation.values[measure]
        order = np.argsort(-values, kind="stable")
        count = min(SHOWN, len(order) // 2) or 1
        chosen = [*order[:count], *(order[-count:][::-1] if len(order) > 1 else [])]
        queries = evaluation.queries[chosen]
        refinement = tried.refinement or Refinement()
        own = self._study.truth.own[queries]
        ranked = refinement.rankings(tried.queries[queries], tried.gallery, own)
        examples = [
            self._example(int(query), variant, float(values[at]), ranking)
            for query, at, ranking in zip(queries, chosen, ranked, strict=True)
        ]
        return Ends(tried.title, variant, measure, examples[:count], examples[count:])

    def _example(self, number: int, variant: str, value: float, ranking: Indexes) -> Example:
        truth = self._study.truth
        query = truth.queries[number]
        judgement = query.judged[variant]
        neighbours = []
        for index in ranking:
            name = truth.gallery[index]
            mark = _mark(int(index), judgement)
            if mark == "junk" and name == query.name:
                continue
            neighbours.append(self._shown(name, mark, None))
            if len(neighbours) == NEIGHBOURS:
                break
        return Example(self._shown(query.name, "query", query.region), value, neighbours)

    def _shown(self, name: str, mark: Mark, region: Box | None) -> Shown:
        if (name, region) not in self._sources:
            self._sources[name, region] = self._source(name, region)
        title = printable(self._study.titles.get(name, name))
        return Shown(title, mark, self._sources[name, region])

    def _source(self, name: str, region: Box | None) -> str | None:
        try:
            content = self._study.album.read(name)
            decoded = decode(content, self._limits, None if region else 2 * SIDE)
            image = decoded.image
            if region:
                image = crop(image, region.shares(decoded.width, decoded.height))
        except KNOWN:
            return None
        jpeg = base64.b64encode(thumbnail(image, SIDE)).decode("ascii")
        return f"data:image/jpeg;base64,{jpeg}"


def _mark(index: int, judgement: Judgement) -> Mark:
    if index in judgement.junk:
        return "junk"
    return "right" if index in judgement.positives else "wrong"
