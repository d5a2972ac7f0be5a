"""`/v1/collections/{c}/items`: uploading, reading, changing and removing items."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import FormData, UploadFile

from index import Collection, CollectionError, DuplicateCheck, Item
from service import forms
from service.clock import Clock
from service.engine import Engine
from service.indexing.source import Entry, SourceError
from service.ingest import ingest
from service.problems import Problem, details, status_of
from service.routes import UPLOADS, CollectionDep, EngineDep
from service.schemas.base import ProblemBody
from service.schemas.duplicates import DuplicateBody, DuplicatesAsked
from service.schemas.items import ItemBody, ItemsBody, MetadataPatch, OutcomeBody, OutcomesBody
from service.security.access import charge
from service.security.audit import MOST_IDS, note

router = APIRouter(prefix="/v1/collections/{collection}/items", tags=["items"])

_FIELDS = {
    "files": {**forms.PICTURES, "description": "the pictures, the field repeated"},
    "metadata": {
        "type": "string",
        "description": "JSON: one object for all pictures, or a list with one for each",
        "examples": ['{"colour": "red"}', '[{"n": 1}, {"n": 2}]'],
    },
    **forms.DUPLICATES,
    "ids": {
        "type": "string",
        "description": "JSON: an id for each",
        "examples": ['["shoe-1", "shoe-2"]'],
    },
}

THUMBNAILS: Mapping[bytes, str] = {b"\xff\xd8": "image/jpeg", b"RI": "image/webp"}
"""The media types of thumbnails by their first bytes: older ones are WebP."""

_LINK = {
    "operationId": "get_item_v1_collections__collection__items__item__get",
    "parameters": {
        "collection": "$request.path.collection",
        "item": "$response.body#/items/0/id",
    },
}


@router.post(
    "",
    dependencies=[UPLOADS],
    openapi_extra=forms.described(_FIELDS, ["files"]),
    responses={
        200: {"links": {"item": _LINK}},
        **forms.problems(400, 404, 409, 413, 415, 422, 429, 503, 504, 507),
    },
)
async def upload_items(
    engine: EngineDep, collection: CollectionDep, request: Request
) -> OutcomesBody:
    """Index pictures. When the answer arrives, every picture in it that did not fail is on disk.

    `metadata` is one object for all pictures or a list with one for each; `ids` likewise a list.
    Without an id the content decides: the same picture again is `unchanged`. With `duplicates`
    pictures are compared with all items and with each other: a duplicate fails with the code
    `duplicate` (`reject`), or is added and marked (`flag`); `duplicate_of` names the other item.
    """
    async with forms.multipart(request, engine.settings.max_files) as form:
        uploads = forms.files(form, "files", "file")
        if not uploads:
            raise Problem("request-invalid", "send at least one picture in the field `files`")
        charge(request, len(uploads))
        entries = _entries(engine, uploads, form)
        asked = {n: v for n, v in forms.fields(form).items() if n in DuplicatesAsked.model_fields}
        check = forms.validated(DuplicatesAsked, asked).check(collection)
        work = partial(_index, engine, collection, entries, check)
        outcomes = await engine.uploads.run(request, work)
    note(
        request,
        items=[outcome.id for outcome in outcomes[:MOST_IDS]],
        counts=Counter(outcome.status for outcome in outcomes),
    )
    return OutcomesBody(items=outcomes)


def _entries(engine: Engine, uploads: list[UploadFile], form: FormData) -> list[Entry]:
    given = forms.fields(form)
    metadata = _per_file("metadata", given.get("metadata"), len(uploads), dict)
    ids = _per_file("ids", given.get("ids", given.get("id")), len(uploads), str)
    return [
        Entry(
            reference=str(at),
            name=display_name(upload.filename),
            item_id=ids[at],
            metadata=metadata[at],
            stamp=None,
            source="upload",
            read=_reader(upload, engine.settings.max_picture_bytes),
        )
        for at, upload in enumerate(uploads)
    ]


def _per_file(name: str, given: Any, count: int, kind: type) -> list[Any]:
    """One value for every upload: a list as long as the files, or one object (or id) for all."""
    if given is None:
        return [None] * count
    if isinstance(given, kind) and (kind is dict or count == 1):
        return [given] * count
    fits = isinstance(given, list) and len(given) == count
    if fits and all(value is None or isinstance(value, kind) for value in given):
        return list(given)
    what = "a JSON object, or a list of objects" if kind is dict else "a JSON list of texts"
    raise Problem("request-invalid", f"`{name}` must be {what} as long as the {count} files")


def _reader(upload: UploadFile, max_bytes: int) -> Any:
    def read() -> bytes:
        content = upload.file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise SourceError(
                "picture-too-many-bytes", f"larger than the {max_bytes} bytes allowed"
            )
        return content

    return read


def display_name(file_name: str | None) -> str:
    """What is shown of an uploaded file's name; it never becomes a path.

    >>> display_name("../../etc/passwd"), display_name("C:\\\\photos\\\\a.jpg"), display_name(None)
    ('passwd', 'a.jpg', 'upload')
    """
    name = PurePosixPath((file_name or "").replace("\\", "/")).name
    printable = "".join(character for character in name if character.isprintable())
    return printable[:200] or "upload"


def _index(
    engine: Engine,
    collection: Collection,
    entries: list[Entry],
    check: DuplicateCheck | None,
    clock: Clock,
) -> list[OutcomeBody]:
    commits = ingest(engine, collection, entries, lane="upload", clock=clock, duplicates=check)
    outcomes = [outcome for commit in commits for outcome in commit]
    if collection.needs_compaction():
        engine.compactor.soon(collection)
    return [
        OutcomeBody(
            name=entry.name,
            id=outcome.item_id,
            status=outcome.status,
            problem=_problem(outcome.code, outcome.detail),
            duplicate_of=DuplicateBody(**asdict(outcome.duplicate)) if outcome.duplicate else None,
        )
        for entry, outcome in zip(entries, outcomes, strict=True)
    ]


def _problem(code: str | None, detail: str | None) -> ProblemBody | None:
    if code is None:
        return None
    status = 500 if code == "internal-error" else status_of(code)
    return ProblemBody(**details(code, detail or "", status))


@router.get("", responses=forms.problems(404, 422))
def list_items(
    collection: CollectionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="`next` of the page before")] = None,
    filter: Annotated[str | None, Query(description="on metadata, as JSON")] = None,  # noqa: A002
    flagged: Annotated[bool | None, Query(description="only duplicates, or only others")] = None,
) -> ItemsBody:
    """A page of items in the order of their ids."""
    terms: Mapping[str, Any] | None = None
    if filter is not None:
        parsed = forms.fields(FormData([("filter", filter)]))["filter"]
        if not isinstance(parsed, dict):
            raise CollectionError("filter-invalid", "a filter is a JSON object")
        terms = parsed
    found = collection.items(after=after, limit=limit + 1, filter=terms, flagged=flagged)
    page = found[:limit]
    return ItemsBody(
        items=[_body(item) for item in page], next=page[-1].id if len(found) > limit else None
    )


@router.get("/{item}", responses=forms.problems(404))
def get_item(collection: CollectionDep, item: str) -> ItemBody:
    """One item."""
    return _body(collection.get(item))


@router.patch("/{item}", responses=forms.problems(400, 404, 422, 503, 507))
def patch_item(collection: CollectionDep, item: str, patch: MetadataPatch) -> ItemBody:
    """Change metadata by a JSON merge patch (RFC 7396)."""
    return _body(collection.patch(item, patch.metadata))


@router.delete("/{item}", status_code=204, responses=forms.problems(404, 503, 507))
def remove_item(collection: CollectionDep, item: str) -> None:
    """Remove an item; when the answer arrives, no search finds it any more."""
    if not collection.remove([item])[0]:
        raise CollectionError(
            "item-unknown", f"collection {collection.name!r} has no item {item!r}"
        )


@router.get(
    "/{item}/thumbnail",
    response_class=Response,
    responses={
        200: {"content": {form: {"schema": forms.PICTURE} for form in THUMBNAILS.values()}},
        **forms.problems(404),
    },
)
def get_thumbnail(collection: CollectionDep, item: str) -> Response:
    """A small version of the picture, without any of its metadata."""
    found = collection.get(item)
    content = collection.pictures.get(found.sha256, "thumbnail")
    if content is None:
        raise Problem("item-picture-missing", f"collection {collection.name!r} keeps no thumbnails")
    form = THUMBNAILS.get(content[:2])
    if form is None:
        raise Problem(
            "item-picture-missing", f"the thumbnail of {found.id!r} is damaged: upload it"
        )
    # Named by id, which another picture may take over: revalidate, by content.
    headers = {"Cache-Control": "private, no-cache", "ETag": f'"{found.sha256}"'}
    return Response(content, media_type=form, headers=headers)


def _body(item: Item) -> ItemBody:
    return ItemBody(
        id=item.id,
        name=item.name,
        sha256=item.sha256,
        source=item.source,
        width=item.width,
        height=item.height,
        metadata=dict(item.metadata),
        added_at=item.added_at,
        duplicate_of=DuplicateBody(**item.duplicate_of) if item.duplicate_of else None,
    )
