"""Multipart forms: pictures beside fields that hold JSON."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from service.problems import STATUS, Problem, details
from service.schemas.base import ProblemBody

MAX_FIELD_BYTES = 1024 * 1024

Model = TypeVar("Model", bound=BaseModel)


@asynccontextmanager
async def multipart(request: Request, max_files: int) -> AsyncIterator[FormData]:
    """The request's form; what was spooled to disk is removed at the end.

    Raises Problem (`request-unsupported`) where the request is no multipart form.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        raise Problem(
            "request-unsupported", f"send multipart/form-data, not {content_type or 'nothing'!r}"
        )
    async with request.form(
        max_files=max_files, max_fields=100, max_part_size=MAX_FIELD_BYTES
    ) as form:
        yield form


async def json_body(request: Request) -> Any:
    """The request's JSON. Raises Problem (`request-malformed`)."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Problem("request-malformed", f"the body is no valid JSON: {error}") from error


def files(form: FormData, *names: str) -> list[UploadFile]:
    """The uploads under any of these field names, in their order."""
    return [
        value
        for name, value in form.multi_items()
        if name in names and isinstance(value, UploadFile)
    ]


def fields(form: FormData) -> dict[str, Any]:
    """The other fields: JSON where it is an object, a list or a number, text otherwise.

    `region` may also be four numbers with commas between them.
    """
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            bare = name == "region" and not value.lstrip().startswith("[")
            found[name] = _json(name, f"[{value}]" if bare else value)
    return found


def _json(name: str, text: str) -> Any:
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem("request-invalid", f"field {name!r} is no valid JSON: {error}") from error


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Check fields against a schema; what is wrong is answered like any other invalid request."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_context=False)
        ) from error


def described(
    properties: Mapping[str, Any], required: list[str], json_model: str = ""
) -> dict[str, Any]:
    """A multipart request body for OpenAPI, beside a JSON one where `json_model` names a schema."""
    form = {"schema": {"type": "object", "properties": properties, "required": required}}
    content: dict[str, Any] = {"multipart/form-data": form}
    if json_model:
        content["application/json"] = {"schema": {"$ref": f"#/components/schemas/{json_model}"}}
    return {"requestBody": {"required": True, "content": content}}


PICTURE = {"type": "string", "format": "binary"}
PICTURES = {"type": "array", "items": PICTURE, "minItems": 1}
DUPLICATES: Mapping[str, Any] = {
    "duplicates": {
        "type": "string",
        "enum": ["allow", "flag", "reject"],
        "default": "allow",
        "description": "what is done with a picture that duplicates another item",
    },
    "duplicate_threshold": {
        "type": "number",
        "description": "cosine from which pictures are duplicates; without it only equal files are",
        "examples": [0.97],
    },
    "duplicate_space": {"type": "string", "description": "space of that cosine, such as high"},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, for OpenAPI."""
    schema = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
    return {
        status: {
            "description": "Problem details (RFC 9457)",
            "content": {
                "application/problem+json": {"schema": schema, "example": _example(status)}
            },
        }
        for status in statuses
    }


def _example(status: int) -> dict[str, Any]:
    code = next((code for code, known in STATUS.items() if known == status), "request-invalid")
    detail = "what is wrong with which input, and what to do about it"
    return {**details(code, detail, status), "instance": "/v1/collections/shoes"}
