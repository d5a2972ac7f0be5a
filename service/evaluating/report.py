"""A study as JSON, in a schema that stays: fields are added, none is renamed or taken away."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from index.evaluation import Evaluation, Interval, Refinement, paired
from index.ranking.learning import Learned
from index.ranking.reranking import Reranking
from service.evaluating.describing import Failure
from service.evaluating.study import Study, Tried
from service.indexing.source import printable

COMPARED = "mAP"
"""The measure that specs are compared by."""
EXEMPLARY = "medium"
"""The protocol variant to show or to choose by, where there is more than one."""


class IntervalBody(BaseModel):
    """A mean over queries with its BCa bootstrap interval."""

    mean: float = Field(examples=[0.5535])
    low: float = Field(examples=[0.5121])
    high: float = Field(examples=[0.5968])
    level: float = Field(examples=[0.95])


class PerQueryBody(BaseModel):
    """The measures of every query, in the order of `queries`."""

    queries: list[str]
    values: dict[str, list[float]]


class ResultBody(BaseModel):
    """One spec under one protocol variant."""

    queries: int = Field(description="that were measured")
    left_out: int = Field(description="queries without a positive in the gallery")
    measures: dict[str, IntervalBody]
    precisions: list[float] = Field(
        description="mean interpolated precision at the recalls 0, 0.01, …, 1"
    )
    per_query: PerQueryBody


class SpecBody(BaseModel):
    """One spec, and all that its numbers depend on."""

    spec: str = Field(
        description="and what was done beyond it",
        examples=["resnet152/layer4/gem", "resnet152/layer4/gem + k-reciprocal"],
    )
    fingerprint: str
    dim: int
    weights: str
    weights_sha256: str
    notice: str | None = Field(description="such as that the network is untrained")
    expansion: dict[str, int | float] | None = Field(
        None, description="query expansion before the search", examples=[{"n": 3, "alpha": 3.0}]
    )
    rerank: dict[str, str | int | float] | None = Field(
        None,
        description="re-ranking, with all its parameters",
        examples=[{"method": "dba", "shortlist": 200, "k": 10, "alpha": 0.0}],
    )
    variants: dict[str, ResultBody]


class DifferenceBody(BaseModel):
    """`b` less `a`, specs by their place in `specs`, over the same queries."""

    a: int
    b: int
    variant: str
    measure: str
    difference: IntervalBody
    p: float = Field(description="two-sided, of a paired permutation test")
    queries: int


class SetBody(BaseModel):
    """What was evaluated on."""

    name: str
    pictures: int = Field(description="in the gallery")
    queries: int
    variants: list[str]
    measures: list[str]


class FailureBody(BaseModel):
    """A picture that was left out."""

    name: str
    code: str
    detail: str


class WeightsBody(BaseModel):
    """Weights learned over the spaces; mAPs are leave-one-out, on classes held out."""

    space: dict[str, float] = Field(
        description="weights of sum 1, as `space` takes them in a search",
        examples=[{"low": 0.25, "high": 0.75}],
    )
    items: int = Field(description="that the weights were learned from, a sample of large sets")
    learned: float = Field(description="mAP by weights learned without the query's class")
    single: float = Field(description="mAP by the space that was the best without it")
    even: float = Field(description="mAP by equal weights")
    gain: IntervalBody = Field(description="`learned` less `single`, over the same queries")
    p: float = Field(description="two-sided, of a paired permutation test")


class Report(BaseModel):
    """The whole of `pool5 evaluate --output`."""

    version: Literal[1] = 1
    pool5: str = Field(description="the version of pool5")
    made_at: datetime
    set: SetBody
    specs: list[SpecBody]
    differences: list[DifferenceBody] = Field(
        description="of every spec to the first, of every re-ranked one to itself without"
    )
    failed: list[FailureBody]
    weights: WeightsBody | None = Field(None, description="with --learn-weights")


def report_of(study: Study, learned: Learned | None = None) -> Report:
    """All numbers of a study, and of the weights learned over its spaces."""
    truth = study.truth
    names = [printable(study.titles.get(query.name, query.name)) for query in truth.queries]
    return Report(
        pool5=version("pool5"),
        made_at=datetime.now(UTC),
        set=SetBody(
            name=printable(truth.name),
            pictures=len(truth.gallery),
            queries=len(truth.queries),
            variants=list(truth.variants),
            measures=list(truth.measures),
        ),
        specs=[_spec(tried, names) for tried in study.tried],
        differences=_differences(study),
        failed=[failure_body(failure) for failure in study.failed],
        weights=_weights(learned) if learned else None,
    )


def _spec(tried: Tried, names: list[str]) -> SpecBody:
    refinement = tried.refinement or Refinement()
    return SpecBody(
        spec=tried.title,
        fingerprint=tried.fingerprint,
        dim=tried.dim,
        weights=tried.weights,
        weights_sha256=tried.weights_sha256,
        notice=tried.notice,
        expansion=asdict(refinement.expansion) if refinement.expansion else None,
        rerank=_rerank(refinement.rerank) if refinement.rerank else None,
        variants={
            variant: _result(evaluation, names) for variant, evaluation in tried.evaluations.items()
        },
    )


def _rerank(rerank: Reranking) -> dict[str, str | int | float]:
    """As a search takes it."""
    return {"method": rerank.method, "shortlist": rerank.shortlist, **rerank.parameters}


def _result(evaluation: Evaluation, names: list[str]) -> ResultBody:
    values: Mapping[str, list[float]] = {
        name: found.tolist() for name, found in evaluation.values.items()
    }
    return ResultBody(
        queries=evaluation.queries.size,
        left_out=evaluation.left_out,
        measures={name: interval_body(found) for name, found in evaluation.intervals.items()},
        precisions=evaluation.precisions.tolist(),
        per_query=PerQueryBody(
            queries=[names[query] for query in evaluation.queries], values=dict(values)
        ),
    )


def _differences(study: Study) -> list[DifferenceBody]:
    if COMPARED not in study.truth.measures:
        return []
    found = []
    for number, other in enumerate(study.tried[1:], start=1):
        to = number - 1 if other.refinement else 0
        for variant, evaluation in other.evaluations.items():
            before = study.tried[to].evaluations[variant]
            difference = before.against(evaluation, COMPARED)
            found.append(
                DifferenceBody(
                    a=to,
                    b=number,
                    variant=variant,
                    measure=COMPARED,
                    difference=interval_body(difference.interval),
                    p=difference.p,
                    queries=difference.queries,
                )
            )
    return found


def _weights(learned: Learned) -> WeightsBody:
    asked = ~np.isnan(learned.held_out)
    single, held_out = learned.single[asked], learned.held_out[asked]
    gain = paired(single, held_out)
    return WeightsBody(
        space={name: round(weight, 4) for name, weight in learned.weights.items()},
        items=asked.size,
        learned=held_out.mean(),
        single=single.mean(),
        even=learned.even[asked].mean(),
        gain=interval_body(gain.interval),
        p=gain.p,
    )


def failure_body(failure: Failure) -> FailureBody:
    """A failure, fit to be printed."""
    return FailureBody(
        name=printable(failure.name), code=failure.code, detail=printable(failure.detail)
    )


def interval_body(found: Interval) -> IntervalBody:
    """An interval as JSON."""
    return IntervalBody(mean=found.mean, low=found.low, high=found.high, level=found.level)


def shown(found: IntervalBody, sign: str = "") -> str:
    """An interval in words.

    >>> shown(IntervalBody(mean=0.5, low=0.4, high=0.62, level=0.95))
    '0.500 [0.400, 0.620]'
    """
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
