"""`POST /v1/descriptors`: the feature-extraction service by itself."""

import io
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from service import forms
from service.clock import Clock
from service.engine import Engine
from service.problems import Problem, problem_of
from service.query import describe
from service.routes import SEARCHES, EngineDep
from service.schemas.base import ProblemBody
from service.schemas.networks import DescriptorsBody
from service.security.access import charge

router = APIRouter(prefix="/v1", tags=["descriptors"])

_FIELDS = {
    "files": {**forms.PICTURES, "description": "the pictures, the field repeated"},
    "spec": {
        "type": "string",
        "description": "network/layer/pooling",
        "examples": ["alexnet/conv5/gem"],
    },
    "weights": {"type": "string", "description": "as of a collection", "default": "auto"},
}


MOST_NUMBERS = 4_000_000
"""In one answer: 80 MB of JSON."""


@router.post(
    "/descriptors",
    dependencies=[SEARCHES],
    openapi_extra=forms.described(_FIELDS, ["files", "spec"]),
    response_model=DescriptorsBody,
    responses={
        **forms.problems(400, 404, 409, 413, 415, 422, 429, 503, 504),
        200: {"content": {"application/x-npy": {"schema": forms.PICTURE}}},
    },
)
async def describe_pictures(engine: EngineDep, request: Request) -> Any:
    """Descriptors of the uploaded pictures, as JSON, or as `.npy` where Accept asks for it.

    In JSON a picture that fails has null and a problem; `.npy` has no place for one and is refused.
    """
    npy = "application/x-npy" in request.headers.get("accept", "")
    async with forms.multipart(request, engine.settings.max_files) as form:
        given = forms.fields(form)
        uploads = forms.files(form, "files", "file")
        if not uploads or not isinstance(given.get("spec"), str):
            raise Problem("request-invalid", "send at least one picture in `files`, and a `spec`")
        charge(request, len(uploads))
        weights = str(given.get("weights", "auto"))
        work = partial(_describe, engine, given["spec"], weights, uploads)
        body = await engine.queries.run(request, work)
    if not npy:
        return body
    failed = next((problem for problem in body.problems if problem), None)
    if failed:
        raise Problem(failed.code, failed.detail)
    buffer = io.BytesIO()
    np.save(buffer, np.array(body.descriptors, dtype=np.float32).reshape(-1, body.dim))
    headers = {"X-Pool5-Fingerprint": body.fingerprint}
    return Response(buffer.getvalue(), media_type="application/x-npy", headers=headers)


def _describe(
    engine: Engine, spec: str, weights: str, uploads: list[UploadFile], clock: Clock
) -> DescriptorsBody:
    extractor = engine.extractor_of_spec(spec, weights)
    space = extractor.spaces[""]
    if space.dim * len(uploads) > MOST_NUMBERS:
        raise Problem(
            "request-too-large",
            f"{len(uploads)} descriptors of {space.dim} numbers are more than {MOST_NUMBERS} "
            "numbers: send fewer pictures at once",
        )
    descriptors: list[list[float] | None] = []
    problems: list[ProblemBody | None] = []
    # A pass at a time: of a request's files no more than these are in memory.
    size = engine.settings.batch_size
    for start in range(0, len(uploads), size):
        clock.check("the other pictures")
        few = uploads[start : start + size]
        pictures = [upload.file.read(engine.limits.max_bytes + 1) for upload in few]
        for found in describe(engine, extractor, pictures, clock):
            if isinstance(found, Exception):
                descriptors.append(None)
                problems.append(ProblemBody(**problem_of(found)))
            else:
                descriptors.append(found[""].tolist())
                problems.append(None)
    return DescriptorsBody(
        spec=str(space.spec),
        fingerprint=space.fingerprint,
        dim=space.dim,
        weights=space.weights.name,
        notices=extractor.notices,
        descriptors=descriptors,
        problems=problems,
    )
