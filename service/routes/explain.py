"""`POST /v1/collections/{c}/explain`: why an item is a neighbour of a query."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile

from index import Collection, Item
from models.explanation import Side
from service import forms
from service.clock import Clock
from service.engine import Engine
from service.explanation import Why, why
from service.problems import Problem
from service.query import default_space
from service.routes import SEARCHES, CollectionDep, EngineDep
from service.schemas.explain import ExplainBody, ExplainedSpaceBody, ExplanationBody, HeatmapBody

router = APIRouter(prefix="/v1", tags=["search"])

_FIELDS: Mapping[str, Any] = {
    "file": {**forms.PICTURE, "description": "the picture that was searched by"},
    "neighbour": {
        "type": "string",
        "minLength": 1,
        "description": "id of the item that was found",
    },
    "space": {
        "type": "string",
        "description": "a name, or JSON weights",
        "examples": ["high", '{"high": 0.7, "low": 0.3}'],
    },
    "region": {
        "type": "string",
        "description": "of the query: x0, y0, x1, y1 in 0…1",
        "examples": ["[0.2, 0.1, 0.8, 0.9]"],
    },
}

DECIMALS = 7
"""Of a heatmap's numbers: a thousand of them still sum to the score to 1e-4."""


@router.post(
    "/collections/{collection}/explain",
    dependencies=[SEARCHES],
    openapi_extra=forms.described(_FIELDS, ["file", "neighbour"], ExplainBody.__name__),
    responses=forms.problems(400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
)
async def explain_neighbour(
    engine: EngineDep, collection: CollectionDep, request: Request
) -> ExplanationBody:
    """Which positions of two pictures make up their score, and where one was found in the other."""
    if request.headers.get("content-type", "").startswith("application/json"):
        body = forms.validated(ExplainBody, await forms.json_body(request))
        found = await engine.queries.run(request, partial(_why, engine, collection, body, None))
    else:
        async with forms.multipart(request, 1) as form:
            body = forms.validated(ExplainBody, forms.fields(form))
            upload = next(iter(forms.files(form, "file", "files")), None)
            work = partial(_why, engine, collection, body, upload)
            found = await engine.queries.run(request, work)
    return _body(found)


def _why(
    engine: Engine,
    collection: Collection,
    body: ExplainBody,
    upload: UploadFile | None,
    clock: Clock,
) -> Why:
    picture = upload.file.read(engine.settings.max_picture_bytes + 1) if upload else None
    given = [one for one in (picture, body.item, body.url) if one is not None]
    if len(given) != 1:
        raise Problem("query-empty", "name one picture as the query: a file, an item or a URL")
    neighbour = collection.get(body.neighbour)
    space = default_space(collection) if body.space is None else body.space
    query: bytes | Item = picture or b""
    if body.item:
        query = collection.get(body.item)
    elif body.url:
        query = engine.fetcher.fetch(body.url)
    return why(engine, collection, query, neighbour, space, body.region, clock)


def _body(found: Why) -> ExplanationBody:
    return ExplanationBody(
        score=found.score,
        spaces=[
            ExplainedSpaceBody(
                space=part.space,
                weight=part.weight,
                score=part.score,
                share=part.share,
                query=_heatmap(part.query),
                neighbour=_heatmap(part.neighbour),
                scales_left_out=list(part.left_out),
            )
            for part in found.parts
        ],
        where=found.where,
    )


def _heatmap(side: Side) -> HeatmapBody:
    grid = [[round(value, DECIMALS) for value in row] for row in side.heatmap.tolist()]
    return HeatmapBody(grid=grid, box=side.box, offset=side.offset)
