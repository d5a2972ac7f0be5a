"""Advice as JSON, in a schema that stays, and in sentences that its reader can act on."""

import json
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, Field

from index.evaluation import bootstrap
from service.evaluating.advisor import Advice, Measured
from service.evaluating.report import FailureBody, IntervalBody, failure_body, interval_body, shown
from service.indexing.source import printable

RESAMPLES = 2_000
"""Of the intervals of what is compared, of which there are hundreds."""
FEW = 10
"""Pictures for each dimension of a whitening, below which another sample would give other axes."""
SPACE = "best"
"""Name of the space in the collection that is suggested."""
ADDRESS = "http://127.0.0.1:8000/v1/collections"


class ComparedBody(BaseModel):
    """One spec, how accurate it is and what it costs."""

    spec: str = Field(examples=["resnet152/layer4/gem/pca128"])
    dim: int
    mAP: IntervalBody  # noqa: N815 - the name of the measure everywhere
    ms_per_query: float = Field(description="forward and search on this machine")
    forward_ms: float = Field(description="forward to its deepest layer, and pooling")
    search_ms: float
    bytes_per_item: int = Field(description="of the descriptor, in float16")
    front: bool = Field(description="nothing is more accurate, faster and smaller at once")


class AdviceBody(BaseModel):
    """The whole of `pool5 evaluate --advise FOLDER --output`."""

    version: Literal[1] = 1
    pool5: str = Field(description="the version of pool5")
    made_at: datetime
    name: str = Field(description="of the ground truth")
    variant: str
    pictures: int
    queries: int
    items: int = Field(description="in the collection that a search is timed for")
    device: str
    notices: list[str] = Field(description="such as that a network is untrained")
    weights: dict[str, str] = Field(description="SHA-256 by network")
    chosen: str = Field(description="what to use: the cheapest that cannot be told from the best")
    best: str = Field(description="the highest mAP")
    difference: IntervalBody = Field(description="mAP of the best less that of the chosen, paired")
    p: float = Field(description="of the difference: two-sided, of a paired permutation test")
    held_out: IntervalBody | None = Field(
        description="mAP of choosing in this way, on classes that had no part in the choice"
    )
    fitted_on: int = Field(description="pictures that whitenings were fitted on while measured")
    compared: list[ComparedBody] = Field(description="best first")
    said: list[str] = Field(description="the advice in words")
    commands: list[str] = Field(description="that make a collection of the chosen spec")
    failed: list[FailureBody]


def advice_body(advice: Advice, folder: str, weights: dict[str, str]) -> AdviceBody:
    """All numbers of an advice.

    `folder` and `weights`, by network, are as they were given: commands name them.
    """
    difference = advice.difference
    held_out = advice.held_out
    body = AdviceBody(
        pool5=version("pool5"),
        made_at=datetime.now(UTC),
        name=printable(advice.truth.name),
        variant=advice.variant,
        pictures=len(advice.truth.gallery),
        queries=len(advice.truth.queries),
        items=advice.items,
        device=advice.device,
        notices=[each.notice for each in advice.weights.values() if each.notice],
        weights={network: each.sha256 for network, each in advice.weights.items()},
        chosen=str(advice.chosen.spec),
        best=str(advice.best.spec),
        difference=interval_body(difference.interval),
        p=difference.p,
        held_out=interval_body(held_out) if held_out else None,
        fitted_on=advice.fitted_on,
        compared=[
            _compared(one, bool(front))
            for one, front in zip(advice.measured, advice.front, strict=True)
        ],
        said=[],
        commands=_commands(advice.chosen, folder, weights),
        failed=[failure_body(failure) for failure in advice.failed],
    )
    return body.model_copy(update={"said": _said(body, advice.chosen)})


def _compared(one: Measured, front: bool) -> ComparedBody:
    return ComparedBody(
        spec=str(one.spec),
        dim=one.dim,
        mAP=interval_body(bootstrap(one.values, resamples=RESAMPLES)),
        ms_per_query=one.milliseconds,
        forward_ms=1000 * one.forward,
        search_ms=1000 * one.search,
        bytes_per_item=one.bytes,
        front=front,
    )


def _said(body: AdviceBody, chosen: Measured) -> list[str]:
    rows = {row.spec: row for row in body.compared}
    use, best = rows[body.chosen], rows[body.best]
    said = [
        f"Use {use.spec}: mAP {shown(use.mAP)}, {use.bytes_per_item:,} bytes an item, "
        f"{use.ms_per_query:.1f} ms a query ({use.forward_ms:.1f} forward, {use.search_ms:.1f} "
        f"search among {body.items:,} items)."
    ]
    if use is best:
        said.append(
            "Nothing that was compared came out higher, and whatever is clearly cheaper is less "
            "accurate by more than chance explains."
        )
    else:
        said.append(
            f"{best.spec} came out highest, {shown(best.mAP)}, but on these {body.queries} queries "
            f"it cannot be told apart (difference {shown(body.difference, '+')}), and it costs "
            f"{best.bytes_per_item:,} bytes and {best.ms_per_query:.1f} ms."
        )
    optimistic = (
        f"The figure of a winner among {len(rows)} is too high, by the luck it was picked for"
    )
    said.append(
        f"{optimistic}: chosen on some classes and measured on others, expect "
        f"{shown(body.held_out)}."
        if body.held_out
        else f"{optimistic}; with one class there is nothing to hold out, so expect less."
    )
    if chosen.spec.whiten:
        said.append(_whitening(body.fitted_on, chosen.spec.whiten))
    return said


def _whitening(pictures: int, dim: int) -> str:
    said = (
        f"While it was measured its whitening was fitted on {pictures} pictures, never on the query"
    )
    if pictures >= FEW * dim:
        return f"{said}."
    return (
        f"{said}: that is few for {dim} dimensions. Fit it on {FEW * dim:,} pictures or more of "
        "the same kind; they need no labels."
    )


def _commands(chosen: Measured, folder: str, weights: dict[str, str]) -> list[str]:
    """What makes a collection of this spec: fitting its whitening, then a request."""
    spec, choice = chosen.spec, weights[chosen.spec.network]
    commands = []
    if spec.whiten:
        fit = ["pool5", "whiten", folder, "--spec", str(spec.base), "--dim", str(spec.whiten)]
        commands.append(shlex.join([*fit, "--weights", choice]))
    made = {
        "name": "pictures",
        "spaces": {SPACE: str(spec)},
        "weights": {spec.network: choice},
    }
    post = ["curl", ADDRESS, "--json", json.dumps(made)]
    return [*commands, shlex.join(post)]
