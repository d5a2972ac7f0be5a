"""`POST /v1/collections/{c}/search`: by upload, item, URL, region, several pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile

from index import Verification
from service import forms
from service.clock import Clock
from service.engine import Engine
from service.problems import Problem
from service.query import Answer, Example, Query, search
from service.routes import SEARCHES, CollectionName, EngineDep
from service.schemas.search import NeighbourBody, NeighboursBody, Reference, SearchBody, TookBody
from service.security.access import charge

router = APIRouter(prefix="/v1", tags=["search"])

_FIELDS: Mapping[str, Any] = {
    "file": {**forms.PICTURES, "description": "repeat it to search by several pictures at once"},
    "k": {"type": "integer", "description": "how many neighbours", "default": 10},
    "offset": {"type": "integer", "description": "for paging", "default": 0},
    "space": {
        "type": "string",
        "description": "a name, or JSON weights",
        "examples": ["high", '{"high": 0.7, "low": 0.3}'],
    },
    "region": {
        "type": "string",
        "description": "x0, y0, x1, y1 in 0…1",
        "examples": ["[0.2, 0.1, 0.8, 0.9]"],
    },
    "filter": {
        "type": "string",
        "description": "JSON, on metadata",
        "examples": ['{"colour": "red"}'],
    },
    "expansion": {"type": "string", "description": "JSON", "examples": ['{"n": 10, "alpha": 3}']},
    "rerank": {
        "type": "string",
        "description": "a method, or JSON with its parameters",
        "examples": ["diffusion", '{"method": "k-reciprocal", "shortlist": 300}'],
    },
    "verify": {"type": "string", "description": "JSON", "examples": ['{"n": 25}']},
    "negatives": {
        "type": "string",
        "description": "JSON: ids or URLs to be unlike",
        "examples": ['["4f0c9a6e7d21"]'],
    },
}

MAX_QUERY_FILES = 32


@router.post(
    "/collections/{collection}/search",
    dependencies=[SEARCHES],
    openapi_extra=forms.described(_FIELDS, ["file"], SearchBody.__name__),
    responses=forms.problems(400, 403, 404, 409, 413, 415, 422, 429, 503, 504),
)
async def search_collection(
    engine: EngineDep, collection: CollectionName, request: Request
) -> NeighboursBody:
    """The neighbours of an upload, an item, a URL, or of positives and negatives."""
    if request.headers.get("content-type", "").startswith("application/json"):
        body = forms.validated(SearchBody, await forms.json_body(request))
        charge(request, max(1, _fetched(body)))
        work = partial(_search, engine, collection, body, [])
        answer = await engine.queries.run(request, work)
    else:
        async with forms.multipart(request, MAX_QUERY_FILES) as form:
            body = forms.validated(SearchBody, forms.fields(form))
            uploads = forms.files(form, "file", "files")
            charge(request, max(1, len(uploads) + _fetched(body)))
            work = partial(_search, engine, collection, body, uploads)
            answer = await engine.queries.run(request, work)
    return NeighboursBody(
        neighbours=[
            NeighbourBody(
                id=n.id,
                score=n.score,
                similarity=n.similarity,
                name=n.name,
                metadata=n.metadata,
                width=n.width,
                height=n.height,
                inliers=n.inliers,
            )
            for n in answer.neighbours
        ],
        space=answer.space if isinstance(answer.space, str) else dict(answer.space),
        took_ms=TookBody(**{stage: round(ms, 3) for stage, ms in answer.took_ms.items()}),
        more=answer.more,
    )


def _search(
    engine: Engine,
    collection: str,
    body: SearchBody,
    uploads: Sequence[UploadFile],
    clock: Clock,
) -> Answer:
    # Looked up here rather than by FastAPI: it would wake another thread for it, and wait.
    found = engine.catalog.collection(collection)
    # Read only now: pictures of requests that wait are not held in memory.
    limit = engine.settings.max_picture_bytes + 1
    pictures = [upload.file.read(limit) for upload in uploads]
    return search(engine, found, _query(body, pictures), clock)


def _fetched(body: SearchBody) -> int:
    """How many pictures the query has fetched."""
    examples = [*body.positives, *body.negatives]
    urls = [body.url, *(one.url for one in examples if isinstance(one, Reference))]
    return sum(bool(url) for url in urls)


def _query(body: SearchBody, pictures: Sequence[bytes]) -> Query:
    given = [body.item, Reference(url=body.url) if body.url else None, *body.positives]
    return Query(
        positives=[*pictures, *(_example(one) for one in given if one is not None)],
        negatives=[_example(one) for one in body.negatives],
        k=body.k,
        offset=body.offset,
        space=body.space,
        region=body.region,
        filter=body.filter,
        expansion=body.expansion.model_dump() if body.expansion else None,
        rerank=body.rerank,
        verify=Verification(**body.verify.model_dump()) if body.verify else None,
    )


def _example(given: str | Reference) -> Example:
    if isinstance(given, str):
        return given
    if given.url:
        return ("url", given.url)
    if given.item:
        return given.item
    raise Problem(
        "request-invalid", 'an example is an item\'s id, {"item": id} or {"url": address}'
    )
