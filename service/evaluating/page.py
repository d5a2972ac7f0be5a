"""A study as one HTML page that needs nothing else: no network, no script, everything escaped."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from models import Limits
from service.evaluating import plots
from service.evaluating.advice import AdviceBody, ComparedBody
from service.evaluating.examples import Ends, Examples
from service.evaluating.plots import Point, Series
from service.evaluating.report import COMPARED, EXEMPLARY, Report
from service.evaluating.study import Study

ADVICE_ROWS = 30
"""Specs in the table of an advice, besides the front; the JSON has all."""

MEANINGS: Mapping[str, str] = {
    "mAP": "mean over queries of average precision, the area under precision over recall by "
    "trapezoids, as the revisited Oxford/Paris protocol has it",
    "mAP-steps": "the same as a sum of steps, as TREC and scikit-learn have it; never lower",
    "mP": "mean precision among the first k, or as far down as the last right one stands",
    "recall": "share of all right ones that are among the first k",
    "UKBench": "how many of a picture's group of four are among its first four, 4 · recall@4",
}
"""What the page says that a measure is, by its name up to @."""


@dataclass(frozen=True)
class Figures:
    """The plots of one protocol variant."""

    variant: str
    precision_recall: Markup
    distribution: Markup | None
    against: Markup | None


def render(study: Study, report: Report, limits: Limits) -> str:
    """The page of a study whose numbers are `report`.

    Pictures are decoded within `limits` again, and re-encoded by `models.thumbnail`.
    """
    variants = study.truth.variants
    shown = EXEMPLARY if EXEMPLARY in variants else variants[0]
    examples = Examples(study, limits)
    ends: Sequence[Ends] = [examples.ends(tried, shown) for tried in study.tried]
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            figures=[_figures(report, variant) for variant in variants],
            ends=ends,
            several=len(variants) > 1,
            highest=partial(_highest, report),
            scale=partial(_scale, report),
            swatch=plots.swatch,
            whisker=plots.whisker,
            meanings=_meanings(report.set.measures),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("template")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = _moment
    return environment


def render_advice(advice: AdviceBody) -> str:
    """The page of an advice: its sentences, its table, accuracy against both costs."""
    networks = list(dict.fromkeys(row.spec.split("/")[0] for row in advice.compared))

    def against(cost: str, of: Callable[[ComparedBody], float]) -> Markup:
        points = [
            Point(row.spec, of(row), row.mAP.mean, networks.index(row.spec.split("/")[0]))
            for row in advice.compared
        ]
        return plots.accuracy_against_cost(points, advice.chosen, cost)

    return (
        _environment()
        .get_template("advice.html")
        .render(
            advice=advice,
            shown=[
                row
                for rank, row in enumerate(advice.compared)
                if rank < ADVICE_ROWS or row.front or row.spec == advice.chosen
            ],
            networks=networks,
            figures=[
                against("milliseconds a query", lambda row: row.ms_per_query),
                against("bytes an item", lambda row: row.bytes_per_item),
            ],
            dot=plots.dot,
        )
    )


def _highest(report: Report, variant: str, measure: str) -> float:
    return max(spec.variants[variant].measures[measure].mean for spec in report.specs)


def _scale(report: Report, variant: str, measure: str) -> float:
    """Where the axis of intervals ends: the next tenth above all of them."""
    ends = (spec.variants[variant].measures[measure].high for spec in report.specs)
    return max(0.1, math.ceil(10 * max(ends)) / 10)


def _figures(report: Report, variant: str) -> Figures:
    results = [spec.variants[variant] for spec in report.specs]
    names = [spec.spec for spec in report.specs]
    distribution = against = None
    if COMPARED in report.set.measures:
        series = [
            Series(name, np.array(result.per_query.values[COMPARED]))
            for name, result in zip(names, results, strict=True)
        ]
        distribution = plots.distribution(series, "AP")
        if len(series) > 1:
            queries = results[0].per_query.queries
            against = plots.against(series[0], series[1], queries, "AP")
    curves = [
        Series(name, np.array(result.precisions))
        for name, result in zip(names, results, strict=True)
    ]
    return Figures(variant, plots.precision_recall(curves), distribution, against)


def _meanings(measures: Sequence[str]) -> dict[str, str]:
    names = dict.fromkeys(measure.split("@")[0] for measure in measures)
    return {name if name in measures else f"{name}@k": MEANINGS[name] for name in names}


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
